package provisioning_test

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
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// csrTemplate registers a thing of a group and a type with a certificate of its signing
// request and a policy, each by a parameter, and doesn't touch a thing that is there.
const csrTemplate = `{"Parameters":{"Name":{"Type":"String"},"CSR":{"Type":"String"},"Group":{"Type":"String","Default":"lab"},
 "Kind":{"Type":"String","Default":"lamp"},"Billing":{"Type":"String","Default":"rent"},"Policy":{"Type":"String","Default":"devices"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Name"},"ThingGroups":[{"Ref":"Group"}],"ThingTypeName":{"Ref":"Kind"},"BillingGroup":{"Ref":"Billing"}},
  "OverrideSettings":{"ThingTypeName":"FAIL"}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"CSR"},"Status":"ACTIVE"}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":{"Ref":"Policy"}}}}}`

func newRequestPEM(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "bulk"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func putWhatLinesName(tx imprint.Tx) error {
	err := tx.PutPolicy(imprint.Policy{Tenant: home, Name: "devices", DefaultVersion: 1, LastVersion: 1})
	if err == nil {
		err = tx.PutThingGroup(imprint.ThingGroup{Tenant: home, Name: "lab", ID: "lab"})
	}
	if err == nil {
		err = tx.PutThingType(imprint.ThingType{Tenant: home, Name: "lamp", ID: "lamp"})
	}
	if err == nil {
		err = tx.PutBillingGroup(imprint.BillingGroup{Tenant: home, Name: "rent", ID: "rent"})
	}
	return err
}

func countIssuances(t *testing.T, store imprint.Store) (count int) {
	t.Helper()
	view(t, store, func(tx imprint.ReadTx) error {
		list, _, err := tx.Issuances(home, imprint.Page{Limit: 100})
		count = len(list)
		return err
	})
	return count
}

// TestRefusalsOfRegisterThingSayWhatThereIs ensures that no refusal names the certificate that
// would have been signed, and that none says twice what to do.
func TestRefusalsOfRegisterThingSayWhatThereIs(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	with := func(resources string) string {
		return `{"Parameters":{"CSR":{"Type":"String"}},"Resources":{
 "identity":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"CSR"},"Status":"ACTIVE"}}` + resources + `}}`
	}
	var policies strings.Builder
	for n := range imprint.MaxPoliciesPerCertificate + 1 {
		fmt.Fprintf(&policies, `,"p%d":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"p%d"}}`, n, n)
		update(t, o.store, func(tx imprint.Tx) error {
			return tx.PutPolicy(imprint.Policy{Tenant: home, Name: imprint.PolicyName(fmt.Sprintf("p%d", n)), DefaultVersion: 1, LastVersion: 1})
		})
	}
	long := `,"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Version":"2012-10-17","Id":"` + strings.Repeat("x", 3000) + `","Statement":[]}}}`
	for name, row := range map[string]struct {
		body, has, not string
	}{
		"too many policies": {with(policies.String()), "more policies than the 10", string(provisioning.StandInID)},
		"a long policy":     {with(long), "characters", "shorten"},
	} {
		_, err := o.claims.RegisterThing(t.Context(), home, row.body, map[string]string{"CSR": newRequestPEM(t)})
		message := imprint.MessageOf(err)
		if imprint.CodeOf(err) != imprint.CodeRegistrationFailure || imprint.HintOf(err) == "" || !strings.Contains(message, row.has) || strings.Contains(message, row.not) {
			t.Errorf("%s: got %s %q, fix %q", name, imprint.CodeOf(err), message, imprint.HintOf(err))
		}
	}
}

// TestNothingIsSignedForWhatIsRefused ensures that a line, or a call, whose device can't be
// registered as what it names isn't there costs no certificate, and leaves nothing.
func TestNothingIsSignedForWhatIsRefused(t *testing.T) {
	t.Parallel()
	w := newBulkWorld(t, sqlite.Faults{})
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	update(t, w.store, putWhatLinesName)
	update(t, o.store, putWhatLinesName)
	lines := []map[string]string{
		{"Name": "good"}, {"Name": "a", "Policy": "missing-policy"}, {"Name": "b", "Group": "missing-group"}, {"Name": "c", "Kind": "missing-type"},
		{"Name": "d", "Billing": "missing-billing"},
	}
	var text strings.Builder
	for _, line := range lines {
		line["CSR"] = newRequestPEM(t)
		encoded, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(append(encoded, '\n'))
		_, err = o.claims.RegisterThing(t.Context(), home, csrTemplate, line)
		if good := line["Name"] == "good"; good != (err == nil) {
			t.Errorf("RegisterThing of %v: got %v", line["Name"], err)
		}
	}
	w.write(t, text.String())
	task := ended(t, w.store, w.start(t, csrTemplate).ID)
	if task.Succeeded != 1 || task.Failed != int64(len(lines)-1) {
		t.Fatalf("got the task %+v, want 1 and %d", task, len(lines)-1)
	}
	for _, v := range w.report(t, task.ID, imprint.ReportErrors) {
		message, _ := v["errorMessage"].(string)
		if v["errorCode"] != "ResourceRegistrationFailureException" || !strings.Contains(message, "missing-") {
			t.Errorf("got the verdict %v", v)
		}
	}
	// The thing is there now, and the template says FAIL.
	task = ended(t, w.store, w.start(t, csrTemplate).ID)
	_, err := o.claims.RegisterThing(t.Context(), home, csrTemplate, lines[0])
	if task.Succeeded != 0 || imprint.CodeOf(err) != imprint.CodeConflictingUpdate {
		t.Errorf("the same again: got %+v and %v", task, err)
	}
	for name, store := range map[string]imprint.Store{"bulk registration": w.store, "RegisterThing": o.store} {
		if got := countIssuances(t, store); got != 1 {
			t.Errorf("%s: %d certificates were signed, want one", name, got)
		}
		if got := countThings(t, store, home); got != 1 {
			t.Errorf("%s: %d things are there, want one", name, got)
		}
	}
}

// bursting is an input whose reading panics.
type bursting struct{}

func (bursting) Open(context.Context, imprint.AccountID, string, string, int64, string) (provisioning.BulkFile, error) {
	return provisioning.BulkFile{ReadCloser: bursting{}, Version: "1"}, nil
}

func (bursting) Read([]byte) (int, error) { panic("a bug in reading") }

func (bursting) Close() error { return nil }

// TestAPanicOverALineEndsItsTaskAlone ensures that the server goes on when the reading of
// the input or the signing of a certificate panics.
func TestAPanicOverALineEndsItsTaskAlone(t *testing.T) {
	t.Parallel()
	store := registrytest.Open(t, filepath.Join(t.TempDir(), "registry.db"))
	update(t, store, putWhatLinesName)
	line, err := json.Marshal(map[string]string{"Name": "x", "CSR": newRequestPEM(t)})
	if err != nil {
		t.Fatal(err)
	}
	profile, err := pki.NewProfile(pki.ProfileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for name, input := range map[string]provisioning.BulkInput{"reading": bursting{}, "signing": content(line)} {
		engine := provisioning.NewEngine(store, clock, provisioning.Options{Logger: quiet()})
		// There is no authority: signing panics.
		claims, err := provisioning.NewClaims(provisioning.ClaimRooms{Engine: engine, Profile: profile}, provisioning.ClaimOptions{Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		bulk, err := provisioning.NewBulk(t.Context(), claims, input, provisioning.BulkOptions{Logger: quiet(), Retry: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		task, err := bulk.Start(t.Context(), imprint.RegistrationTask{Tenant: home, TemplateBody: csrTemplate, Bucket: "lines", Key: "in.json"})
		if err != nil {
			t.Fatal(err)
		}
		task = ended(t, store, task.ID)
		if task.Status != imprint.TaskFailed || !strings.Contains(task.Message, "internal error") {
			t.Errorf("%s: got %s %q", name, task.Status, task.Message)
		}
		bulk.Close()
		claims.Close()
		engine.Close()
	}
}

// content is an input that has some lines.
type content string

func (c content) Open(_ context.Context, _ imprint.AccountID, _, _ string, offset int64, _ string) (provisioning.BulkFile, error) {
	return provisioning.BulkFile{ReadCloser: io.NopCloser(strings.NewReader(string(c[offset:]))), Size: int64(len(c)), Version: "1"}, nil
}
