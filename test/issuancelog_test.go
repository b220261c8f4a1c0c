package test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
)

// csrOf makes a signing request with a key of its own.
func csrOf(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// issuanceAudit runs `imprint ca audit --json` and gives its last line and its exit code.
func (s *server) issuanceAudit(t *testing.T, args ...string) (summary struct{ Entries, Issuances, Certificates, Ours, Waiting, Rechecked, Findings int64 }, run toolRun) {
	t.Helper()
	run = runTool(t, "", cleanEnv(), program, append([]string{"ca", "audit", "--json", "--data", s.dir}, args...)...)
	lines := strings.Split(strings.TrimSpace(run.stdout), "\n")
	err := json.Unmarshal([]byte(lines[len(lines)-1]), &summary)
	if err != nil {
		t.Fatalf("imprint ca audit: exit code %d, %v\n%s", run.exit, err, run.all())
	}
	return summary, run
}

// tiles is where the log's files are.
func (s *server) tiles() string { return filepath.Join(s.dir, "issuance-log", "log") }

// tamper flips a bit of a random byte of a file and gives what undoes that.
func tamper(t *testing.T, path string, at int) (undo func()) {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil || len(whole) == 0 {
		t.Fatalf("couldn't read %s: %d bytes, %v", path, len(whole), err)
	}
	other := []byte(string(whole))
	other[at%len(other)] ^= 1 << (at % 8)
	write := func(content []byte) {
		err := os.WriteFile(path, content, 0o600)
		if err != nil {
			t.Fatal(err)
		}
	}
	write(other)
	return func() { write(whole) }
}

// TestEveryCertificateThatIsSignedIsInTheLog ensures that whatever way a certificate was asked
// for, by API, by a device, for trusted users or of a CA of the tenant's, and whatever it is
// for, CAs too, the log has it: a tool that shares no code with us finds it there.
func TestEveryCertificateThatIsSignedIsInTheLog(t *testing.T) {
	need(t, "openssl", "python3")
	t.Parallel()
	s := newStage(t, "IMPRINT_CLAIM_RATE=0", "IMPRINT_ISSUANCE_LOG_ORIGIN=example.com/test-log")
	f := s.one.fleet(t)
	var all []string
	keys := must(f.api.CreateKeysAndCertificate(t.Context(), &iot.CreateKeysAndCertificateInput{}))(t)
	all = append(all, aws.ToString(keys.CertificatePem))
	request := must(s.sdk(t, withKey(s.two.key, s.two.region)).CreateCertificateFromCsr(t.Context(), &iot.CreateCertificateFromCsrInput{CertificateSigningRequest: aws.String(csrOf(t, "a"))}))(t)
	all = append(all, aws.ToString(request.CertificatePem))
	claim := must(f.api.CreateProvisioningClaim(t.Context(), &iot.CreateProvisioningClaimInput{TemplateName: aws.String("sensors")}))(t)
	all = append(all, aws.ToString(claim.CertificatePem))
	a := f.open5(t, f.claim, "provisioning", "json")
	for n, ownKey := range []bool{false, true} {
		d, _ := f.onboard(t, a, "json", strconv.Itoa(n), ownKey)
		all = append(all, readFile(t, d.cert))
	}
	a.leave(t)
	dir := t.TempDir()
	csr := filepath.Join(dir, "device.csr")
	writeFile(t, csr, csrOf(t, "device"))
	for _, command := range [][]string{
		{"create", "--root", "--name", "root", "--subject", "/O=Acme/CN=Acme root"},
		{"create", "--parent", "root", "--name", "line", "--subject", "/O=Acme/CN=Acme line"},
		{"issue", "line", "--csr", csr, "--profile", "operational", "--out", filepath.Join(dir, "device.pem")},
		{"cert", "root", "--out", filepath.Join(dir, "root.pem")},
		{"cert", "line", "--out", filepath.Join(dir, "line.pem")},
	} {
		run := runTool(t, "", cleanEnv(), program, append(append([]string{"ca"}, command...), "--data", s.dir)...)
		if run.exit != 0 {
			t.Fatalf("imprint ca %s: exit code %d\n%s", strings.Join(command, " "), run.exit, run.all())
		}
	}
	for _, name := range []string{"device.pem", "root.pem", "line.pem"} {
		all = append(all, readFile(t, filepath.Join(dir, name)))
	}
	// The running server proves its own tenant's, and the command verifies that.
	checkpoint := filepath.Join(dir, "checkpoint")
	for n, text := range all {
		path := filepath.Join(dir, strconv.Itoa(n)+".pem")
		writeFile(t, path, text)
		run := runTool(t, "", cleanEnv(), program, "ca", "logged", path, "--data", s.dir, "--proof", path+".proof")
		want := map[bool]int{false: 0, true: 3}[n == 1] // that is the other tenant's
		if run.exit != want {
			t.Errorf("imprint ca logged of certificate %d: exit code %d, want %d\n%s", n, run.exit, want, run.all())
		}
	}
	// What waited is published by now, or at the latest when the server has ended.
	writeFile(t, checkpoint, readFile(t, filepath.Join(s.tiles(), "checkpoint")))
	summary, run := s.issuanceAudit(t, "--checkpoint", checkpoint)
	if run.exit != 0 || summary.Issuances != int64(len(all)) || summary.Entries+summary.Waiting != summary.Issuances || summary.Rechecked != summary.Entries {
		t.Errorf("the audit beside the server: exit code %d, %+v; want %d issuances\n%s", run.exit, summary, len(all), run.all())
	}
	stranger := s.addAccount(t, "111111111111")
	env := cleanEnv("AWS_ENDPOINT_URL_IOT="+s.at().APIURL, "AWS_CA_BUNDLE="+s.at().CABundle, "AWS_REGION="+s.at().Region,
		"AWS_ACCESS_KEY_ID="+stranger.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+stranger.SecretAccessKey)
	run = runTool(t, "", env, program, "ca", "audit")
	if run.exit == 0 || !strings.Contains(run.stderr, "the server's first account") {
		t.Errorf("another account's audit: exit code %d, want a refusal\n%s", run.exit, run.all())
	}
	// One byte of any file, while the server runs and when it is stopped. The checkpoint the
	// server itself looks at.
	random := newRandom(t)
	changed := func(name string) {
		t.Helper()
		at := random.IntN(1 << 20)
		undo := tamper(t, filepath.Join(s.tiles(), name), at)
		found, run := s.issuanceAudit(t, "--checkpoint", checkpoint)
		undo()
		if run.exit != 3 || found.Findings == 0 || !strings.Contains(run.stdout, "DAMAGED") {
			t.Errorf("byte %d of %s changed: exit code %d, %+v, want the damage\n%s", at, name, run.exit, found, run.all())
		}
	}
	s.awaitLogged(t)
	tiles := []string{"tile/0/000.p/" + strconv.Itoa(len(all)), "tile/entries/000.p/" + strconv.Itoa(len(all))}
	for _, name := range tiles {
		changed(name)
	}
	s.signal(os.Interrupt)
	for _, name := range append(tiles, "checkpoint") {
		changed(name)
	}
	args := []string{"../pki/translog/testdata/verify_log.py", s.tiles(), readFile(t, filepath.Join(s.dir, "issuance-log", "verifier.txt"))}
	for n, text := range all {
		block, _ := pem.Decode([]byte(text))
		path := filepath.Join(dir, strconv.Itoa(n)+".der")
		writeFile(t, path, string(block.Bytes))
		args = append(args, path)
	}
	run = runTool(t, "", cleanEnv(), "python3", args...)
	if lines := strings.Split(strings.TrimSpace(run.stdout), "\n"); run.exit != 0 || len(lines) != 1+len(all) || !strings.HasPrefix(lines[0], strconv.Itoa(len(all))+" ") {
		t.Errorf("the foreign tool: exit code %d, want the index of each of %d certificates\n%s", run.exit, len(all), run.all())
	}
	if !strings.HasPrefix(readFile(t, filepath.Join(s.tiles(), "checkpoint")), "example.com/test-log\n") {
		t.Error("the log hasn't the origin that was configured")
	}
	summary, run = s.issuanceAudit(t, "--checkpoint", checkpoint)
	if run.exit != 0 || summary.Entries != int64(len(all)) || summary.Rechecked != summary.Entries {
		t.Errorf("the audit of the stopped server: exit code %d, %+v\n%s", run.exit, summary, run.all())
	}
}

// TestKilledWhileItIssuesTheLogLosesNothing kills the server between intent and signature, and
// between signature and log entry, again and again until both have been seen: what was given
// out is in the log afterwards, once, and what nobody got isn't.
func TestKilledWhileItIssuesTheLogLosesNothing(t *testing.T) {
	need(t, "sqlite3")
	t.Parallel()
	const mostKills, issuers = 12, 12
	s := newServer(t, "--api-rate", "0")
	s.start()
	s.readEnv()
	random := newRandom(t)
	given := map[string]bool{}
	inIntent, inLog := 0, 0
	for kill := 1; kill <= mostKills && (kill <= 2 || inIntent == 0 || inLog == 0); kill++ {
		got := s.issueUntil(t, issuers, 10+random.IntN(60), time.Duration(random.IntN(20_000))*time.Microsecond)
		for _, id := range got {
			given[id] = true
		}
		intents, waiting := s.count(t, "certificate_id = ''"), s.count(t, "certificate_id <> '' AND log_index < 0")
		inIntent, inLog = inIntent+intents, inLog+waiting
		t.Logf("kill %d: %d certificates were given out; intents without a certificate: %d in all, certificates that wait for the log: %d", kill, len(given), intents, waiting)
		s.start()
	}
	if inIntent == 0 || inLog == 0 {
		t.Errorf("in %d kills none came between intent and signature (%d) or between signature and entry (%d)", mostKills, inIntent, inLog)
	}
	s.signal(killed)
	s.start()
	s.awaitLogged(t)
	summary, run := s.issuanceAudit(t)
	if run.exit != 0 || summary.Waiting != 0 || summary.Entries != summary.Issuances {
		t.Errorf("the audit: exit code %d, %+v, want that all is logged\n%s", run.exit, summary, run.all())
	}
	logged := s.query(t, "SELECT certificate_id FROM issuances WHERE log_index >= 0 AND log_index < "+strconv.FormatInt(summary.Entries, 10))
	have := map[string]bool{}
	for _, id := range strings.Fields(logged) {
		have[id] = true
	}
	for id := range given {
		if !have[id] {
			t.Errorf("certificate %s was given out, and the log doesn't have it", id)
		}
	}
}

// issueUntil issues until so many certificates were given out, and a moment longer, kills the
// server, and gives their ids.
func (s *server) issueUntil(t *testing.T, issuers, enough int, moment time.Duration) []string {
	t.Helper()
	api := s.sdk(t, func(o *iot.Options) { o.Retryer = aws.NopRetryer{} })
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var mu sync.Mutex
	var ids []string
	var reached atomic.Bool
	full := make(chan struct{})
	csr := csrOf(t, "device")
	var all sync.WaitGroup
	for range issuers {
		all.Go(func() {
			for ctx.Err() == nil {
				out, err := api.CreateCertificateFromCsr(ctx, &iot.CreateCertificateFromCsrInput{CertificateSigningRequest: aws.String(csr)})
				if err != nil {
					return // the kill
				}
				mu.Lock()
				ids = append(ids, aws.ToString(out.CertificateId))
				if len(ids) >= enough && reached.CompareAndSwap(false, true) {
					close(full)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-full:
		pause(ctx, moment)
	case <-ctx.Done():
		t.Error("the certificates weren't issued in time")
	}
	s.signal(killed)
	stop()
	all.Wait()
	return ids
}

// query asks the registry's file.
func (s *server) query(t *testing.T, statement string) string {
	t.Helper()
	run := runTool(t, "", cleanEnv(), "sqlite3", "-readonly", filepath.Join(s.dir, "registry.db"), ".timeout 10000", statement)
	if run.exit != 0 {
		t.Fatalf("sqlite3: %s", run.all())
	}
	return run.stdout
}

func (s *server) count(t *testing.T, which string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s.query(t, "SELECT count(*) FROM issuances WHERE "+which)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitLogged waits until nothing waits for the log.
func (s *server) awaitLogged(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		total := s.count(t, "certificate_id <> ''")
		text := s.metrics(t)
		if strings.Contains(text, fmt.Sprintf("imprint_issuance_log_published %d\n", total)) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the log didn't get to %d certificates:\n%s", total, text)
		}
		pause(ctx, 20*time.Millisecond)
	}
}
