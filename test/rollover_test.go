package test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// rolloverShown is what `imprint ca rollover --json` prints of a rehearsal, or in a list of a
// plan's progress.
type rolloverShown struct {
	Authorities []struct{ Name, Template string }
	Items       []struct {
		Kind, Thing, Moved string
		ProvenAt           float64
	}
	Counts struct {
		Devices, Certificates, Moved, Proven, Unseen, Finished, FinishedProven, Unregistered int
	}
	Plan struct {
		FromName, ToName string
		Devices          int
		Steps            []struct{ Name, State, Command string }
	}
}

func (r *rolloverShown) step(name string) string {
	for _, s := range r.Plan.Steps {
		if s.Name == name {
			return s.State
		}
	}
	return "absent"
}

// rollover runs imprint ca rollover with --json.
func (s *server) rollover(t *testing.T, out any, args ...string) {
	t.Helper()
	run := s.imprint(t, "ca", append([]string{"rollover", "--json"}, args...)...)
	if run.exit != 0 {
		t.Fatalf("imprint ca rollover %v: exit code %d\n%s", args, run.exit, run.all())
	}
	err := json.Unmarshal([]byte(run.stdout), out)
	if err != nil {
		t.Fatalf("imprint ca rollover %v: %v\n%s", args, err, run.stdout)
	}
}

// A line's CA is rolled over: who would fail is told, the plan kept, devices get
// certificates of the new CA and prove them by a connection, also across a restart, and at
// the end nobody depends on the old one.
func TestACAIsRolledOverWithoutLosingADevice(t *testing.T) {
	need(t, "bash", "aws", "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	s.createPolicy(t, "devices", devicePolicy)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "template.json"), jitpTemplate("devices", ""))
	const tools = `
request() { openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout $1.key -out $1.csr 2>/dev/null; }
device() { request $1 /O=Acme/CN=$1/serialNumber=$1; imprint ca issue $2 --csr $1.csr --profile operational --out $1.crt; }
register() {
  request proof-$1 /CN=$(aws iot get-registration-code --query registrationCode --output text)
  imprint ca issue $1 --csr proof-$1.csr --profile operational --out proof-$1.pem; imprint ca cert $1 --out $1.pem
  aws iot register-ca-certificate --ca-certificate file://$1.pem --verification-certificate file://proof-$1.pem --set-as-active --allow-auto-registration \
    --registration-config templateName=line --query certificateId --output text
}
`
	script := func(lines string) string {
		t.Helper()
		run := s.shell(t, dir, tools+lines)
		if run.exit != 0 {
			t.Fatalf("exit code %d\n%s", run.exit, run.all())
		}
		return strings.TrimSpace(run.stdout)
	}
	old := script(`
imprint ca create --root --name root --subject "/O=Acme/CN=Acme root" >/dev/null
imprint ca create --parent root --name line7 --subject "/O=Acme/CN=Acme line 7" >/dev/null
aws iot create-provisioning-template --template-name line --type JITP --enabled --provisioning-role-arn ` + role + ` --template-body file://template.json >/dev/null
for n in SN-1 SN-2 SN-3; do device $n line7; done
register line7`)
	deviceOf := func(name, files string) *device {
		return &device{name: name, cert: filepath.Join(dir, files+".crt"), key: filepath.Join(dir, files+".key")}
	}
	s.join(t, deviceOf("SN-1", "SN-1"))
	s.join(t, deviceOf("SN-2", "SN-2"))

	var rehearsed rolloverShown
	s.rollover(t, &rehearsed, "--rehearse", "line7")
	c := rehearsed.Counts
	if got, want := fmt.Sprint(c.Devices, c.Unseen, c.Unregistered, len(rehearsed.Items), len(rehearsed.Authorities)), "2 0 2 4 1"; got != want {
		t.Errorf("devices, unseen, unregistered (SN-3 and the proof), items, CAs: got %s, want %s", got, want)
	}
	if got := rehearsed.Authorities[0].Template; got != "line" {
		t.Errorf("devices join by template %q, want line", got)
	}
	if got, want := rehearsed.step("made")+" "+rehearsed.step("deleted"), "due ahead"; got != want {
		t.Errorf("made, deleted: got %s, want %s", got, want)
	}
	words := s.imprint(t, "ca", "rollover", "--rehearse", old)
	for _, want := range []string{"CA line7 (", "template line (ACTIVE)", "SN-1", "2  device(s) with 2 certificate(s) that fail", "issued and never registered", "$ imprint ca create"} {
		if !strings.Contains(words.stdout, want) {
			t.Errorf("the rehearsal doesn't say %q:\n%s", want, words.all())
		}
	}

	script(`imprint ca create --parent root --name line8 --subject "/O=Acme/CN=Acme line 8" >/dev/null; register line8`)
	var started rolloverShown
	s.rollover(t, &started, "--start", "line7", "--to", "line8")
	for step, want := range map[string]string{"made": "done", "trusted": "done", "registered": "done", "signing": "ahead", "renewal": "ahead"} {
		if got := started.step(step); got != want {
			t.Errorf("step %s of the plan: got %s, want %s", step, got, want)
		}
	}
	progress := func(want string) rolloverShown {
		t.Helper()
		var all []rolloverShown
		s.rollover(t, &all, "--progress")
		if len(all) != 1 {
			t.Fatalf("got %d plans, want 1", len(all))
		}
		c := all[0].Counts
		if got := fmt.Sprint(c.Devices, c.Moved, c.Proven, c.Finished, c.FinishedProven); got != want {
			t.Errorf("devices, moved, proven, finished, proven: got %s, want %s", got, want)
		}
		return all[0]
	}
	first := progress("2 0 0 0 0")
	if got, want := fmt.Sprint(first.Plan.FromName, " ", first.Plan.ToName, " ", first.Plan.Devices), "line7 line8 2"; got != want {
		t.Errorf("the plan: got %s, want %s", got, want)
	}

	// Both get their next certificate as renewal gives it: the same thing, a new key.
	script(`
for n in 1 2; do
  request new-$n /O=Acme/CN=SN-$n/serialNumber=SN-$n; imprint ca issue line8 --csr new-$n.csr --profile operational --out new-$n.crt
  ARN=$(aws iot register-certificate --certificate-pem file://new-$n.crt --ca-certificate-pem file://line8.pem --status ACTIVE --query certificateArn --output text)
  aws iot attach-policy --policy-name devices --target $ARN; aws iot attach-thing-principal --thing-name SN-$n --principal $ARN
done`)
	progress("2 2 0 0 0")
	again := s.publish(t, deviceOf("SN-1", "new-1"), "SN-1", "d/SN-1/x")
	if again.connack != 0 || again.puback != 0 {
		t.Fatalf("the device with its new certificate: got CONNACK %d, PUBACK %d\n%s", again.connack, again.puback, again.all())
	}
	progress("2 2 1 0 0")
	s.restart()
	progress("2 2 1 0 0")
	said := s.imprint(t, "ca", "rollover", "--progress", "line7").stdout
	if want := "2 of 2 have a certificate of the new CA, 1 proven by a connection; 0 still depend on the old one alone"; !strings.Contains(said, want) {
		t.Errorf("the progress doesn't say %q:\n%s", want, said)
	}
	script(`
for n in 1 2; do aws iot update-certificate --new-status INACTIVE --certificate-id $(openssl x509 -in SN-$n.crt -outform der | sha256sum | cut -d' ' -f1); done
imprint ca update line7 --status DISABLED >/dev/null
aws iot update-ca-certificate --new-status INACTIVE --certificate-id ` + old)
	last := progress("0 0 0 2 1")
	if got, want := last.step("signing")+" "+last.step("inactive"), "done done"; got != want {
		t.Errorf("signing, inactive: got %s, want %s", got, want)
	}
	refused := s.publish(t, deviceOf("SN-3", "SN-3"), "SN-3", "d/SN-3/x")
	checkSilentClose(t, refused)

	// Who may not, is told which statement is missing; names with slashes are names.
	reader := s.addUser(t, "reader", `{"Effect":"Allow","Action":"imprint:*","Resource":"*"},
	 {"Effect":"Deny","Action":"imprint:RehearseRollover","Resource":"arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/*"},
	 {"Effect":"Deny","Action":"imprint:DeleteRollover","Resource":"arn:aws:iot:us-east-1:000000000000:cacert/`+old+`"}`)
	for _, command := range []string{"--rehearse line7", "--rehearse " + old, "--forget line7"} {
		run := s.shell(t, dir, as(reader)+"imprint ca rollover "+command)
		if run.exit == 0 || !strings.Contains(run.all(), "AccessDenied") {
			t.Errorf("%s by who may not: exit code %d\n%s", command, run.exit, run.all())
		}
	}
	run := s.imprint(t, "ca", "rollover", "--rehearse", "arn:aws:iot:us-east-1:000000000000:cacert/"+old, "--unseen", "7")
	if run.exit != 0 {
		t.Errorf("by an ARN: exit code %d\n%s", run.exit, run.all())
	}
	for args, want := range map[string]string{"--rehearse nothing": "imprint ca list", "--rehearse line7 --to line7": "its own place", "--progress nothing": "is called", "--start line7 --renew-until 9999d": "after the CA itself"} {
		run := s.imprint(t, "ca", append([]string{"rollover"}, strings.Fields(args)...)...)
		if run.exit == 0 || !strings.Contains(run.all(), want) {
			t.Errorf("%s: exit code %d, want words %q\n%s", args, run.exit, want, run.all())
		}
	}
	run = s.imprint(t, "ca", "rollover", "--forget", "line7")
	after := s.imprint(t, "ca", "rollover", "--progress")
	if run.exit != 0 || !strings.Contains(after.stdout, "no rollover is planned") {
		t.Errorf("after --forget: exit code %d, and %s", run.exit, after.all())
	}
}
