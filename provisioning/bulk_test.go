package provisioning_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/renewal"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// bulkTemplate registers a thing with a certificate that is there and a policy.
const bulkTemplate = `{"Parameters":{"Name":{"Type":"String"},"Id":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Name"},"AttributePayload":{"serial":{"Ref":"Name"}}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"Id"}}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"devices"}}}}`

const thingTemplate = `{"Parameters":{"Name":{"Type":"String"}},"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Name"}}}}}`

// bulkWorld runs bulk registrations over a store.
type bulkWorld struct {
	store imprint.Store
	bulk  *provisioning.Bulk
	dir   string // of inputs
}

// startBulk makes the flow over a store; the function ends it.
func startBulk(t *testing.T, store imprint.Store, input provisioning.BulkInput) (*provisioning.Bulk, func()) {
	t.Helper()
	return startBulkWith(t, store, input, clock, provisioning.BulkOptions{})
}

// startBulkWith is startBulk with a clock and options of one's own.
func startBulkWith(t *testing.T, store imprint.Store, input provisioning.BulkInput, clock imprint.Clock, opts provisioning.BulkOptions) (*provisioning.Bulk, func()) {
	t.Helper()
	dir := t.TempDir()
	key, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := pki.OpenAuthority(t.Context(), dir, pki.AuthorityConfig{Sealer: seal.New(key), Journal: issuelog.New(store), Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	profile, err := pki.NewProfile(pki.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	engine := provisioning.NewEngine(store, clock, provisioning.Options{Logger: quiet()})
	claims, err := provisioning.NewClaims(provisioning.ClaimRooms{Engine: engine, Authority: authority, Profile: profile, Along: renewal.Along}, provisioning.ClaimOptions{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if opts.Logger == nil {
		opts.Logger = quiet()
	}
	opts.Retry = time.Millisecond
	bulk, err := provisioning.NewBulk(t.Context(), claims, input, opts)
	if err != nil {
		t.Fatal(err)
	}
	return bulk, func() {
		bulk.Close()
		claims.Close()
		engine.Close()
	}
}

func newBulkWorld(t *testing.T, faults sqlite.Faults) *bulkWorld {
	t.Helper()
	w := &bulkWorld{store: registrytest.Open(t, filepath.Join(t.TempDir(), "registry.db"), faulty(faults)), dir: t.TempDir()}
	err := os.Mkdir(filepath.Join(w.dir, "lines"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	bulk, end := startBulk(t, w.store, provisioning.BulkDirectory{Path: w.dir, Home: home.Account})
	w.bulk = bulk
	t.Cleanup(end)
	return w
}

func (w *bulkWorld) write(t *testing.T, text string) {
	t.Helper()
	err := os.WriteFile(filepath.Join(w.dir, "lines", "in.json"), []byte(text), 0o600)
	if err != nil {
		t.Fatal(err)
	}
}

func (w *bulkWorld) start(t *testing.T, body string) imprint.RegistrationTask {
	t.Helper()
	task, err := w.bulk.Start(t.Context(), imprint.RegistrationTask{Tenant: home, TemplateBody: body, Bucket: "lines", Key: "in.json", RoleARN: "role"})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// ended waits for a task's end.
func ended(t *testing.T, store imprint.Store, id string) imprint.RegistrationTask {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		var task imprint.RegistrationTask
		view(t, store, func(tx imprint.ReadTx) error {
			found, err := tx.RegistrationTask(home, id)
			task = found
			return err
		})
		if !task.Status.Running() {
			return task
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the task isn't over: %+v", task)
		case <-ticker.C:
		}
	}
}

func (w *bulkWorld) report(t *testing.T, id, kind string) []map[string]any {
	t.Helper()
	var body bytes.Buffer
	err := w.bulk.WriteReport(t.Context(), &body, home, id, kind, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	var lines []map[string]any
	for line := range bytes.Lines(body.Bytes()) {
		var one map[string]any
		err := json.Unmarshal(line, &one)
		if err != nil {
			t.Fatalf("the report has the line %q: %v", line, err)
		}
		lines = append(lines, one)
	}
	return lines
}

func names(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"Name\":\"t%06d\"}\n", i)
	}
	return b.String()
}

func countThings(t *testing.T, store imprint.Store, tenant imprint.Tenant) int {
	t.Helper()
	var n int
	view(t, store, func(tx imprint.ReadTx) error {
		n = 0
		page := imprint.Page{Limit: 1000, Ascending: true}
		for {
			found, next, err := tx.Things(tenant, imprint.ThingFilter{}, page)
			n += len(found)
			if err != nil || next == "" {
				return err
			}
			page.Cursor = next
		}
	})
	return n
}

// TestEachLineHasItsVerdict ensures that each line of an input is registered, or
// leaves nothing behind and is told.
func TestEachLineHasItsVerdict(t *testing.T) {
	t.Parallel()
	w := newBulkWorld(t, sqlite.Faults{})
	good, other := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	update(t, w.store, func(tx imprint.Tx) error {
		err := tx.PutPolicy(imprint.Policy{Tenant: home, Name: "devices", DefaultVersion: 1, LastVersion: 1})
		for _, id := range []string{good, other} {
			if err == nil {
				err = tx.PutCertificate(imprint.Certificate{Tenant: home, ID: imprint.CertificateID(id), PEM: "PEM of " + id[:2], Status: imprint.CertificateInactive})
			}
		}
		return err
	})
	long := `{"Name":"` + strings.Repeat("x", 200_000) + `"}`
	w.write(t, strings.Join([]string{
		"\xef\xbb\xbf" + `{"Name":"one","Id":"` + good + `"}` + "\r",
		"",
		"nonsense",
		`{"Name":"gone","Id":"` + strings.Repeat("00", 32) + `"}`,
		`{"Name":"a b","Id":"` + other + `"}`,
		`{"Name":"missing"}`,
		long,
		`{"Name":7,"Id":"x"}`,
		`null`,
		`{"Name":"two","Id":"` + other + `","More":"ignored"}`,
	}, "\n"))
	task := ended(t, w.store, w.start(t, bulkTemplate).ID)
	if task.Status != imprint.TaskCompleted || task.Succeeded != 2 || task.Failed != 7 || task.Lines != 10 || task.Offset != task.Size {
		t.Fatalf("got the task %+v", task)
	}
	results := w.report(t, task.ID, imprint.ReportResults)
	want := []map[string]any{
		{"lineNumber": 1.0, "offset": 0.0, "response": map[string]any{"CertificatePem": "PEM of ab", "ResourceArns": map[string]any{
			"thing": home.ThingARN("one"), "certificate": home.ARN("cert/" + good), "policy": home.ARN("policy/devices")}}},
		{"lineNumber": 10.0, "offset": float64(task.Size) - 95, "response": map[string]any{"CertificatePem": "PEM of cd", "ResourceArns": map[string]any{
			"thing": home.ThingARN("two"), "certificate": home.ARN("cert/" + other), "policy": home.ARN("policy/devices")}}},
	}
	want[1]["offset"] = results[len(results)-1]["offset"]
	if diff := cmp.Diff(want, results); diff != "" {
		t.Errorf("the results differ:\n%s", diff)
	}
	var failures []string
	for _, line := range w.report(t, task.ID, imprint.ReportErrors) {
		failures = append(failures, fmt.Sprintf("%v %v", line["lineNumber"], line["errorCode"]))
		message, _ := line["errorMessage"].(string)
		hint, _ := line["hint"].(string)
		if message == "" || hint == "" {
			t.Errorf("got the failure %v, want it to have a message and a hint", line)
		}
	}
	if diff := cmp.Diff([]string{"3 InvalidRequestException", "4 ResourceRegistrationFailureException", "5 InvalidRequestException", "6 InvalidRequestException",
		"7 InvalidRequestException", "8 InvalidRequestException", "9 InvalidRequestException"}, failures); diff != "" {
		t.Errorf("the failures differ:\n%s", diff)
	}
	if n := countThings(t, w.store, home); n != 2 {
		t.Errorf("got %d things, want 2: lines that failed leave nothing", n)
	}
	view(t, w.store, func(tx imprint.ReadTx) error {
		cert, err := tx.Certificate(home, imprint.CertificateID(good))
		if err == nil && cert.Status != imprint.CertificateActive {
			t.Errorf("the certificate is %s", cert.Status)
		}
		return err
	})
}

func TestSigningRequestsBecomeCertificates(t *testing.T) {
	t.Parallel()
	w := newBulkWorld(t, sqlite.Faults{})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "bulk"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(map[string]string{"Name": "csr", "CSR": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))})
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, string(line)+"\n"+`{"Name":"bad","CSR":"-----BEGIN CERTIFICATE REQUEST-----"}`)
	task := ended(t, w.store, w.start(t, `{"Parameters":{"Name":{"Type":"String"},"CSR":{"Type":"String"}},"Resources":{
	 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Name"}}},
	 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"CSR"}}}}}`).ID)
	if task.Succeeded != 1 || task.Failed != 1 {
		t.Fatalf("got the task %+v", task)
	}
	response, _ := w.report(t, task.ID, imprint.ReportResults)[0]["response"].(map[string]any)
	text, _ := response["CertificatePem"].(string)
	cert, err := pki.ParseCertificatePEM(text)
	if err != nil || cert.Subject.CommonName != "bulk" {
		t.Errorf("got the certificate %q, %v", text, err)
	}
}

// TestOneTaskATenant ensures that a second one waits for the end of the first, and
// that other tenants don't wait for it.
func TestOneTaskATenant(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	store := registrytest.New(t)
	bulk, end := startBulk(t, store, waiting{release})
	defer end()
	start := func(tenant imprint.Tenant) (imprint.RegistrationTask, error) {
		return bulk.Start(t.Context(), imprint.RegistrationTask{Tenant: tenant, TemplateBody: thingTemplate, Bucket: "lines", Key: "in.json"})
	}
	first, err := start(home)
	if err != nil {
		t.Fatal(err)
	}
	_, err = start(home)
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), first.ID) {
		t.Errorf("a second task: got %v, want a refusal that names %s", err, first.ID)
	}
	_, err = start(imprint.Tenant{Account: "999999999999", Region: home.Region})
	if err != nil {
		t.Errorf("another account: %v", err)
	}
	_, err = start(imprint.Tenant{Account: home.Account, Region: "ap-south-1"})
	if err != nil {
		t.Errorf("another region: %v", err)
	}
	// It stops although its input doesn't answer.
	err = bulk.Stop(t.Context(), home, first.ID)
	if err != nil {
		t.Fatal(err)
	}
	if task := ended(t, store, first.ID); task.Status != imprint.TaskCancelled {
		t.Errorf("got %s, want Cancelled", task.Status)
	}
	err = bulk.Stop(t.Context(), home, first.ID)
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("a second stop: got %v", err)
	}
	close(release)
	_, err = start(home)
	if err != nil {
		t.Errorf("after the stop: %v", err)
	}
}

// waiting is an input that gives nothing before it is released.
type waiting struct{ release chan struct{} }

func (w waiting) Open(ctx context.Context, _ imprint.AccountID, _, _ string, _ int64, _ string) (provisioning.BulkFile, error) {
	reader, writer := io.Pipe()
	go func() {
		select {
		case <-w.release:
		case <-ctx.Done():
		}
		_ = writer.Close()
	}()
	return provisioning.BulkFile{ReadCloser: reader, Version: "1"}, nil
}

func TestInputsThatFailATask(t *testing.T) {
	t.Parallel()
	w := newBulkWorld(t, sqlite.Faults{})
	err := os.WriteFile(filepath.Join(filepath.Dir(w.dir), "secret"), []byte("x"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	err = os.Symlink(filepath.Join(filepath.Dir(w.dir), "secret"), filepath.Join(w.dir, "lines", "link"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"nothing.json", "../../secret", "link", "."} {
		task, err := w.bulk.Start(t.Context(), imprint.RegistrationTask{Tenant: home, TemplateBody: thingTemplate, Bucket: "lines", Key: key})
		if err != nil {
			t.Fatal(err)
		}
		task = ended(t, w.store, task.ID)
		if task.Status != imprint.TaskFailed || task.Message == "" || strings.Contains(task.Message, w.dir) {
			t.Errorf("%s: got %s %q, want Failed with a message that hides the server's paths", key, task.Status, task.Message)
		}
		if key != "." && !strings.Contains(task.Message, "as 000000000000/lines/"+key) {
			t.Errorf("%s: the message %q doesn't say where the file has its place", key, task.Message)
		}
	}
	_, err = w.bulk.Start(t.Context(), imprint.RegistrationTask{Tenant: home, TemplateBody: "{}", Bucket: "lines", Key: "in.json"})
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("a template that isn't one: got %v", err)
	}
}

// TestATaskGoesOnWhereItWas ensures that a task that was interrupted, at any of its
// commits, ends with each line registered once.
func TestATaskGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	const lines = 2000
	path, dir := filepath.Join(t.TempDir(), "registry.db"), t.TempDir()
	err := errors.Join(os.Mkdir(filepath.Join(dir, "lines"), 0o700), os.WriteFile(filepath.Join(dir, "lines", "in.json"), []byte(names(lines)), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	store := registrytest.Open(t, path)
	var opened atomic.Int64
	for round := 0; ; round++ {
		// Each round reads some lines more than the one before, then its input breaks.
		input := breaking{provisioning.BulkDirectory{Path: dir, Home: home.Account}, &opened, int64(round+1) * 9000}
		bulk, end := startBulk(t, store, input)
		if round == 0 {
			_, err = bulk.Start(t.Context(), imprint.RegistrationTask{Tenant: home, TemplateBody: thingTemplate, Bucket: "lines", Key: "in.json"})
			if err != nil {
				t.Fatal(err)
			}
		}
		only := func() (task imprint.RegistrationTask) {
			view(t, store, func(tx imprint.ReadTx) error {
				found, _, err := tx.RegistrationTasks(home, "", imprint.Page{Limit: 1})
				task = found[0]
				return err
			})
			return task
		}
		// It breaks once more, where it broke before, or comes to its end.
		until := opened.Load() + 2
		eventually(t, "the input breaks twice, or the task ends", func() bool { return opened.Load() >= until || !only().Status.Running() })
		end()
		task := only()
		if n := countThings(t, store, home); int64(n) != task.Succeeded || task.Succeeded != task.Lines {
			t.Fatalf("round %d: got %d things, the task says %+v", round, n, task)
		}
		if task.Status == imprint.TaskCompleted {
			if task.Lines != lines || task.Failed != 0 {
				t.Errorf("got the task %+v", task)
			}
			return
		}
		if round > 20 {
			t.Fatalf("the task doesn't end: %+v", task)
		}
	}
}

// breaking is an input that breaks after some bytes.
type breaking struct {
	provisioning.BulkInput
	opened *atomic.Int64
	most   int64
}

func (b breaking) Open(ctx context.Context, account imprint.AccountID, bucket, key string, offset int64, version string) (provisioning.BulkFile, error) {
	file, err := b.BulkInput.Open(ctx, account, bucket, key, offset, version)
	b.opened.Add(1)
	if err == nil {
		file.ReadCloser = broken{&io.LimitedReader{R: file.ReadCloser, N: max(b.most-offset, 0)}, file.ReadCloser}
	}
	return file, err
}

type broken struct {
	*io.LimitedReader
	io.Closer
}

func (b broken) Read(p []byte) (int, error) {
	n, err := b.LimitedReader.Read(p)
	if errors.Is(err, io.EOF) && b.N <= 0 {
		err = errors.New("the connection broke")
	}
	return n, err
}

// TestAChangedInputEndsTheTask ensures that a task never mixes two inputs.
func TestAChangedInputEndsTheTask(t *testing.T) {
	t.Parallel()
	w := newBulkWorld(t, sqlite.Faults{})
	w.write(t, names(10))
	for _, version := range []string{"", "another"} {
		id := "task-" + version
		update(t, w.store, func(tx imprint.Tx) error {
			return tx.PutRegistrationTask(imprint.RegistrationTask{Tenant: home, ID: id, TemplateBody: thingTemplate, Bucket: "lines", Key: "in.json",
				Status: imprint.TaskInProgress, Version: version, Lines: 5, Offset: 5 * int64(len(names(1)))})
		})
		_, end := startBulk(t, w.store, provisioning.BulkDirectory{Path: w.dir, Home: home.Account})
		task := ended(t, w.store, id)
		end()
		if version == "" && (task.Status != imprint.TaskCompleted || task.Succeeded != 5) || version != "" && task.Status != imprint.TaskFailed {
			t.Errorf("version %q: got %+v", version, task)
		}
	}
}

// bucketKeys is the access key of the store below.
type bucketKeys struct{}

func (bucketKeys) AccessKey(_ context.Context, id string) (sigv4.AccessKey, error) {
	if id != "AKIABUCKET" {
		return sigv4.AccessKey{}, sigv4.ErrUnknownKey
	}
	return sigv4.AccessKey{ID: id, Secret: "secret", Account: "000000000000"}, nil
}

// TestInputsOverHTTP ensures that inputs are read from servers with and without
// ranges, that requests are signed, and that refusals and failures are told apart.
func TestInputsOverHTTP(t *testing.T) {
	t.Parallel()
	text := []byte(names(1000))
	etag := `"one"`
	ranges := http.NewServeMux()
	ranges.HandleFunc("/lines/{directory}/in.json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
	})
	ranges.HandleFunc("/lines/plain", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", etag)
		_, _ = w.Write(text)
	})
	ranges.HandleFunc("/lines/busy", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) })
	server := httptest.NewServer(ranges)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	read := func(input provisioning.BulkURL, key string, offset int64, version string) (string, provisioning.BulkFile, error) {
		file, err := input.Open(t.Context(), home.Account, "lines", key, offset, version)
		if err != nil {
			return "", file, err
		}
		body, err := io.ReadAll(file)
		_ = file.Close()
		return string(body), file, err
	}
	plain := provisioning.BulkURL{Base: server.URL + "/", Account: home.Account, Client: client}
	for _, key := range []string{"a b/in.json", "plain"} {
		for _, offset := range []int64{0, 180, int64(len(text))} {
			got, file, err := read(plain, key, offset, etag)
			known := file.Size == int64(len(text)) || file.Size == 0 && key == "plain"
			if err != nil || got != string(text[offset:]) || !known || file.Version != etag {
				t.Errorf("%s from %d: got %d bytes of %d, version %s, %v", key, offset, len(got), file.Size, file.Version, err)
			}
		}
		_, _, err := read(plain, key, 180, `"another"`)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("%s of another version: got %v", key, err)
		}
	}
	_, _, err := read(plain, "nothing", 0, "")
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("nothing: got %v", err)
	}
	_, _, err = read(plain, "busy", 0, "")
	if imprint.CodeOf(err) != imprint.CodeUnavailable {
		t.Errorf("busy: got %v", err)
	}
	checkSigned(t, client, ranges, text)
}

// checkSigned puts a bucket that wants signatures in front of the server.
func checkSigned(t *testing.T, client *http.Client, next http.Handler, text []byte) {
	t.Helper()
	verifier, err := sigv4.New(sigv4.Config{Keys: bucketKeys{}, Services: []string{"s3"}, Regions: []string{"eu-west-1"}})
	if err != nil {
		t.Fatal(err)
	}
	bucket := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claim, err := verifier.Parse(r)
		if err == nil {
			_, err = verifier.Verify(r.Context(), claim, r, nil)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}))
	defer bucket.Close()
	for _, row := range []struct {
		secret string
		code   imprint.Code
	}{{"secret", ""}, {"wrong", imprint.CodeNotFound}} {
		input := provisioning.BulkURL{Base: bucket.URL, Account: home.Account, Client: client, Region: "eu-west-1",
			Credentials: &aws.Credentials{AccessKeyID: "AKIABUCKET", SecretAccessKey: row.secret}}
		file, err := input.Open(t.Context(), home.Account, "lines", "plain", 180, "")
		if imprint.CodeOf(err) != row.code {
			t.Errorf("signed with %s: got %v", row.secret, err)
			continue
		}
		if err != nil {
			continue
		}
		body, err := io.ReadAll(file)
		_ = file.Close()
		if err != nil || !bytes.Equal(body, text[180:]) {
			t.Errorf("got %d bytes, %v", len(body), err)
		}
	}
}
