package test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A certificate that was revoked before its device came for the first time is never
// provisioned, and revoking an intermediate ends the live sessions of its devices, and of those
// below it, within a second; nobody else's.
func TestRevokingAnIntermediateEndsItsSessionsAndNobodyElses(t *testing.T) {
	need(t, "bash", "aws", "openssl", "mosquitto_sub", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	s.createPolicy(t, "devices", devicePolicy)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "template.json"), jitpTemplate("devices", ""))
	run := s.shell(t, dir, `
request() { openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout $1.key -out $1.csr 2>/dev/null; }
issue() { imprint ca issue $2 --csr $1.csr --profile operational --out $1.pem; }
aws iot create-provisioning-template --template-name line --type JITP --enabled --provisioning-role-arn `+role+` --template-body file://template.json >/dev/null
imprint ca create --root --name root --subject "/O=Acme/CN=root" >/dev/null
imprint ca create --parent root --name policy --subject "/O=Acme/CN=policy" --profile policy-ca >/dev/null
imprint ca create --parent policy --name bad --subject "/O=Acme/CN=bad" >/dev/null
imprint ca create --parent root --name good --subject "/O=Acme/CN=good" >/dev/null
CODE=$(aws iot get-registration-code --query registrationCode --output text)
for line in bad good; do
  request proof "/CN=$CODE"; issue proof $line; imprint ca cert $line --out $line.pem
  aws iot register-ca-certificate --ca-certificate file://$line.pem --verification-certificate file://proof.pem --set-as-active --allow-auto-registration \
    --registration-config templateName=line >/dev/null
done
for n in "SN-1 bad" "SN-2 good" "SN-3 bad"; do set -- $n; request $1 "/O=Acme/CN=$1/serialNumber=$1"; issue $1 $2; cat $1.pem $2.pem >$1.crt; done
imprint ca revoke --cert SN-3.pem --reason key-compromise`)
	if run.exit != 0 {
		t.Fatalf("exit code %d\n%s", run.exit, run.all())
	}
	devices := map[string]*device{}
	for _, name := range []string{"SN-1", "SN-2", "SN-3"} {
		devices[name] = &device{name: name, cert: filepath.Join(dir, name+".crt"), key: filepath.Join(dir, name+".key")}
	}
	for range 2 { // whoever comes again isn't let in either
		checkSilentClose(t, s.publish(t, devices["SN-3"], "SN-3", "d/SN-3/x"))
	}
	told := s.explain(t, devices["SN-3"].cert)
	if len(told) == 0 || !slices.ContainsFunc(told[0].Steps, func(st traceStep) bool { return st.Name == "certificate.revoked" && st.Code == "CertificateRevoked" }) {
		t.Errorf("nothing says that the certificate was revoked: %+v", told)
	}
	if registered := s.aws(t, dir, "iot list-certificates --query 'length(certificates)'"); registered != "0" {
		t.Errorf("%s certificates are registered, want none", registered)
	}
	if text := s.aws(t, dir, `iot register-certificate-without-ca --certificate-pem file://SN-3.pem --status ACTIVE 2>&1 || true`); !strings.Contains(text, "CertificateValidationException") || !strings.Contains(text, "revoked by its issuer") {
		t.Errorf("registering the revoked certificate: %s", text)
	}

	s.join(t, devices["SN-1"])
	s.join(t, devices["SN-2"])
	// Revoked alone, the level above leaves what is registered ACTIVE: audits say so.
	const audit = "imprint audit --check REVOKED_CA_CERTIFICATE_STILL_ACTIVE_CHECK --check INTERMEDIATE_CA_REVOKED_FOR_ACTIVE_DEVICE_CERTIFICATES_CHECK"
	alone := s.shell(t, dir, "imprint ca revoke policy --reason key-compromise && "+audit)
	if text := alone.all(); alone.exit != 3 || !strings.Contains(text, "CN=bad,O=Acme") || strings.Count(text, "device certificate ") != 1 || strings.Contains(text, "CN=good") {
		t.Errorf("an audit beside a revoked authority: exit code %d, want 3 with the CA and the device of it\n%s", alone.exit, text)
	}
	gone, stays := s.subscribe(t, devices["SN-1"], "SN-1", "d/SN-1/x"), s.subscribe(t, devices["SN-2"], "SN-2", "d/SN-2/x")
	const presence = "$aws/events/presence/disconnected/SN-1"
	w := s.watcher(t)
	watching := s.subscribe(t, w, "watcher", presence)
	revoked := s.shell(t, dir, "imprint ca revoke policy --below --reason key-compromise")
	answered := time.Now()
	if revoked.exit != 0 || !strings.Contains(revoked.stdout, "of CN=bad,O=Acme") {
		t.Fatalf("exit code %d\n%s", revoked.exit, revoked.all())
	}
	took := watching.awaitTime(t, presence).Sub(answered)
	t.Logf("the session ended %s after the answer", took)
	if took > time.Second {
		t.Errorf("the session ended %s after the answer, want within a second", took)
	}
	comesAgain(t, gone)
	checkSilentClose(t, s.publish(t, devices["SN-1"], "SN-1", "d/SN-1/x"))
	s.publish(t, w, "publisher", "d/SN-2/x")
	stays.await(t, "d/SN-2/x", 1)
	if text := stays.said.String(); strings.Count(text, "sending CONNECT") != 1 {
		t.Errorf("the other line's device connected again:\n%s", text)
	}
	if after := s.shell(t, dir, audit); after.exit != 0 {
		t.Errorf("an audit when all is revoked: exit code %d\n%s", after.exit, after.all())
	}
}
