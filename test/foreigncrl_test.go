package test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A CA that openssl runs is registered here. Its list, brought and then fetched, keeps
// revoked devices from being registered by a first connection and by the AWS CLI, and ends
// the live session of one that was registered before within a second.
func TestAForeignCRLStopsDevicesBeforeAndAfterTheirRegistration(t *testing.T) {
	need(t, "bash", "aws", "openssl", "mosquitto_pub", "mosquitto_sub")
	t.Parallel()
	s := startServer(t)
	s.createPolicy(t, "devices", devicePolicy)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "template.json"), jitpTemplate("devices", ""))
	writeFile(t, filepath.Join(dir, "ca.cnf"), `
[ca]
default_ca = own
[own]
database = index.txt
certificate = ca.pem
private_key = ca.key
new_certs_dir = .
serial = serial
crlnumber = crlnumber
default_md = sha256
default_days = 300
default_crl_days = 7
unique_subject = no
policy = any
crl_extensions = plain
[any]
commonName = supplied
serialNumber = optional
[plain]
authorityKeyIdentifier = keyid:always
[delta]
2.5.29.27 = critical,DER:02:01:01
`)
	script := func(lines string) string {
		t.Helper()
		run := s.shell(t, dir, `
sign() { openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1/serialNumber=$1" -keyout $1.key -out $1.csr 2>/dev/null
  openssl ca -batch -notext -config ca.cnf -in $1.csr -out $1.crt 2>/dev/null; }
revoke() { openssl ca -config ca.cnf -revoke $1.crt -crl_reason keyCompromise 2>/dev/null; }
list() { openssl ca -config ca.cnf -gencrl "$@" 2>/dev/null; }
crl() { imprint ca crl "$@"; }
`+lines)
		if run.exit != 0 {
			t.Fatalf("exit code %d\n%s", run.exit, run.all())
		}
		return strings.TrimSpace(run.stdout)
	}
	ca := script(`
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=Maker" -days 3650 -keyout ca.key -out ca.pem -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
touch index.txt; echo 01 >crlnumber; openssl rand -hex 16 >serial
sign $(aws iot get-registration-code --query registrationCode --output text); mv $(aws iot get-registration-code --query registrationCode --output text).crt proof.pem
for n in SN-1 SN-2 SN-3 SN-4; do sign $n; done
aws iot create-provisioning-template --template-name line --type JITP --enabled --provisioning-role-arn ` + role + ` --template-body file://template.json >/dev/null
aws iot register-ca-certificate --ca-certificate file://ca.pem --verification-certificate file://proof.pem --set-as-active --allow-auto-registration \
  --registration-config templateName=line --query certificateId --output text`)
	deviceOf := func(name string) *device {
		return &device{name: name, cert: filepath.Join(dir, name+".crt"), key: filepath.Join(dir, name+".key")}
	}
	for _, name := range []string{"SN-1", "SN-2"} {
		s.join(t, deviceOf(name))
	}
	gone, stays := s.subscribe(t, deviceOf("SN-1"), "SN-1", "d/SN-1/x"), s.subscribe(t, deviceOf("SN-2"), "SN-2", "d/SN-2/x")
	const presence = "$aws/events/presence/disconnected/SN-1"
	w := s.watcher(t)
	watching := s.subscribe(t, w, "watcher", presence)

	script(`revoke SN-1; revoke SN-3; list >one.pem; list -crlexts delta >delta.pem; list >two.pem; crl import --ca ` + ca[:12] + ` two.pem >imported.txt`)
	answered := time.Now()
	if took := watching.awaitTime(t, presence).Sub(answered); took > time.Second {
		t.Errorf("the session ended %s after the import, want within a second", took)
	}
	comesAgain(t, gone)
	checkSilentClose(t, s.publish(t, deviceOf("SN-1"), "SN-1", "d/SN-1/x"))
	checkSilentClose(t, s.publish(t, deviceOf("SN-3"), "SN-3", "d/SN-3/x"))
	refused := s.awaitExplained(t, "SN-3", 1)[0]
	found := false
	for _, step := range refused.Steps {
		found = found || step.Name == "certificate.crl" && step.Code == "OnRevocationList" && strings.Contains(step.Detail, "keyCompromise") && step.Fix != ""
	}
	if !found {
		t.Errorf("no step tells why SN-3 is refused: %+v", refused.Steps)
	}
	said := script(`
status() { aws iot describe-certificate --certificate-id $(openssl x509 -in $1.crt -outform der | sha256sum | cut -d' ' -f1) --query certificateDescription.status --output text; }
status SN-1; status SN-2
refused() { if "$@" >out.txt 2>&1; then echo "$* went through"; exit 9; fi; tail -1 out.txt; }
refused aws iot register-certificate --certificate-pem file://SN-3.crt --status ACTIVE
refused aws iot register-certificate-without-ca --certificate-pem file://SN-3.crt --status ACTIVE
refused aws iot update-certificate --new-status ACTIVE --certificate-id $(openssl x509 -in SN-1.crt -outform der | sha256sum | cut -d' ' -f1)
refused crl import --ca ` + ca + ` one.pem
refused crl import --ca ` + ca + ` delta.pem
refused crl import --ca ` + ca + ` ca.pem
refused crl import --ca nothing two.pem
refused crl import --ca ` + ca + ` http://127.0.0.1:1/x.crl
crl list`)
	expectLines(t, said, "REVOKED", "ACTIVE", `.*\(CertificateValidationException\).*on revocation list 3 .*`, `.*\(CertificateValidationException\).*on revocation list 3 .*`,
		`.*\(CertificateStateException\).*`, `.*number 1, and number 3 is here.*`, `.*delta list.*complete list.*`, `.*no PEM block X509 CRL.*`, `.*is called "nothing".*`,
		`.*couldn't fetch.*connection refused.*`, ca[:12]+` +number 3 +2 entries +current until .*imported by hand`)

	// From now on it is fetched.
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list, err := os.ReadFile(filepath.Join(dir, "served.pem"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(list)
	}))
	defer served.Close()
	script(`revoke SN-4; list >served.pem; crl import --ca ` + ca + ` ` + served.URL + `/line.crl --stale refuse >/dev/null`)
	checkSilentClose(t, s.publish(t, deviceOf("SN-4"), "SN-4", "d/SN-4/x"))
	var lists []struct {
		Number, URL string
		RefuseStale bool
		Entries     int
	}
	err := json.Unmarshal([]byte(script(`crl list --json`)), &lists)
	if err != nil || len(lists) != 1 || lists[0].Number != "4" || lists[0].Entries != 3 || !lists[0].RefuseStale || lists[0].URL != served.URL+"/line.crl" {
		t.Errorf("the lists: got %+v, %v", lists, err)
	}
	s.publish(t, w, "publisher", "d/SN-2/x")
	stays.await(t, "d/SN-2/x", 1)
	if text := stays.said.String(); strings.Count(text, "sending CONNECT") != 1 {
		t.Errorf("a device that isn't on the list connected again:\n%s", text)
	}
	reader := s.addUser(t, "reader", `{"Effect":"Allow","Action":"imprint:List*","Resource":"*"}`)
	run := s.shell(t, dir, as(reader)+"imprint ca crl import --ca "+ca+" two.pem")
	if run.exit == 0 || !strings.Contains(run.all(), "imprint:ImportCRL") {
		t.Errorf("an import by who may not: exit code %d\n%s", run.exit, run.all())
	}
	script(`crl set --ca ` + ca + ` --stop-fetching --stale allow >/dev/null; crl forget --ca ` + ca)
	s.join(t, deviceOf("SN-3"))
}
