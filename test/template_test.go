package test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dryRun is what `imprint template test --json` prints.
type dryRun struct {
	Verdict string `json:"verdict"`
	Devices []struct {
		Steps     []dryStep `json:"steps"`
		Resources struct {
			Thing struct {
				Name       string            `json:"thingName"`
				Type       string            `json:"thingTypeName"`
				Attributes map[string]string `json:"attributes"`
				Groups     []string          `json:"thingGroups"`
			} `json:"thing"`
		} `json:"resources"`
	} `json:"devices"`
	Findings []struct {
		Rule     string `json:"rule"`
		Severity string `json:"severity"`
		Line     int    `json:"line"`
	} `json:"findings"`
}

type dryStep struct {
	traceStep
	Line   int    `json:"line"`
	Member string `json:"member"`
}

// dryRun runs `imprint template` and gives its report and exit code.
func (s *server) dryRun(t *testing.T, dir, arguments string) (dryRun, int) {
	t.Helper()
	run := s.shell(t, dir, "imprint template "+arguments+" --json")
	var out dryRun
	err := json.Unmarshal([]byte(run.stdout), &out)
	if err != nil {
		t.Fatalf("imprint template %s: exit code %d\n%s", arguments, run.exit, run.all())
	}
	return out, run.exit
}

// expect runs a dry run and compares the codes of its failures, and a text among its
// steps.
func (s *server) expect(t *testing.T, dir, arguments, says string, failures ...string) dryRun {
	t.Helper()
	got, exit := s.dryRun(t, dir, arguments)
	var codes []string
	said := says == ""
	for _, d := range got.Devices {
		for _, step := range d.Steps {
			said = said || strings.Contains(step.Detail, says)
			if step.Verdict == "failed" {
				codes = append(codes, step.Name+" "+step.Code)
			}
		}
	}
	if !slices.Equal(codes, failures) || !said || (exit == 3) != (len(failures) > 0) {
		t.Errorf("imprint template %s: got exit code %d and failures %q, want %q and %q:\n%+v", arguments, exit, codes, failures, says, got)
	}
	return got
}

// A dry run against a server names all that the template needs and the server lacks,
// and what a device then gets; a real device gets just that, and nothing is written
// before.
func TestDryRunsForetellWhatDevicesGet(t *testing.T) {
	need(t, "bash", "aws", "openssl", "mosquitto_pub")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	template := strings.Replace(jitpTemplate("devices", ""), `"ThingName":`, `"ThingTypeName":"sensor","ThingGroups":["sensors"],"BillingGroup":"plant",
   "ThingName":`, 1)
	writeFile(t, filepath.Join(dir, "template.json"), template)
	writeFile(t, filepath.Join(dir, "policy.json"), devicePolicy)
	f := newFactory(t, "Line", "P-256")
	ca := s.registerCA(t, f, withTemplate(template))
	d := f.device(t, "dry-1", "P-256")
	test := "test --ca-id " + ca + " --cert " + d.cert
	got := s.expect(t, dir, test, "isn't registered", "thing ThingTypeMissing", "thing GroupMissing", "thing.groups GroupMissing", "policy PolicyMissing")
	for _, step := range got.Devices[0].Steps {
		if step.Verdict == "failed" && (step.Line == 0 || step.Member == "" || !strings.HasPrefix(step.Fix, "aws iot create-")) {
			t.Errorf("step %+v lacks a place or the command that mends it", step)
		}
	}
	s.aws(t, dir, "iot create-thing-type --thing-type-name sensor")
	s.aws(t, dir, "iot create-thing-group --thing-group-name sensors")
	s.aws(t, dir, "iot create-billing-group --billing-group-name plant")
	s.aws(t, dir, "iot create-policy --policy-name devices --policy-document file://policy.json")
	got = s.expect(t, dir, test, "thing dry-1 is created")
	stored := s.aws(t, dir, "iot list-things --query 'length(things)'") + s.aws(t, dir, "iot list-certificates --query 'length(certificates)'")
	if stored != "00" {
		t.Errorf("got %s things and certificates after dry runs, want none", stored)
	}

	s.join(t, d)
	var thing struct {
		Type       string            `json:"thingTypeName"`
		Attributes map[string]string `json:"attributes"`
	}
	err := json.Unmarshal([]byte(s.aws(t, dir, "iot describe-thing --thing-name dry-1")), &thing)
	if err != nil {
		t.Fatal(err)
	}
	foretold := got.Devices[0].Resources.Thing
	if foretold.Name != "dry-1" || foretold.Type != thing.Type || foretold.Attributes["serial"] != thing.Attributes["serial"] || !slices.Equal(foretold.Groups, []string{"sensors"}) {
		t.Errorf("foretold was %+v, and it became %+v", foretold, thing)
	}
	s.expect(t, dir, test, "is registered and ACTIVE")
	s.expect(t, dir, test, "thing dry-1 exists")
	s.aws(t, dir, "iot update-certificate --new-status REVOKED --certificate-id "+d.id(t))
	s.expect(t, dir, test, "", "register CertificateState")

	// The server's template against certificates that its CA signed, and another one.
	writeFile(t, filepath.Join(dir, "country.json"), strings.Replace(template, `"Parameters":{`, `"Parameters":{"AWS::IoT::Certificate::Country":{"Type":"String"},`, 1))
	lint, exit := s.dryRun(t, dir, "lint country.json --ca-id "+ca)
	// Of devicePolicy there is one warning: it lets devices subscribe to what they can't receive.
	if exit != 3 || len(lint.Findings) != 3 || lint.Findings[2].Rule != "policy-mistake" || lint.Findings[1].Rule != "subject-lacks" || lint.Findings[1].Severity != "error" {
		t.Errorf("lint: got exit code %d and %+v, want that the CA's certificates lack Country", exit, lint.Findings)
	}
	lint, exit = s.dryRun(t, dir, "lint --ca-id "+ca)
	if exit != 0 || len(lint.Findings) != 1 || lint.Findings[0].Rule != "policy-mistake" {
		t.Errorf("lint: got exit code %d and %+v, want that of the policy alone", exit, lint.Findings)
	}

	next := f.device(t, "dry-2", "P-256")
	test = "test --ca-id " + f.cert + " --cert " + next.cert
	s.expect(t, dir, test, "thing dry-2 is created")
	s.aws(t, dir, "iot deprecate-thing-type --thing-type-name sensor")
	s.expect(t, dir, test, "", "thing TemplateValueInvalid")
	s.expect(t, dir, strings.Replace(test, "test ", "test country.json ", 1), "", "template.plan ParameterMissing")
	s.aws(t, dir, "iot update-ca-certificate --new-status INACTIVE --certificate-id "+ca)
	s.expect(t, dir, test, "", "ca CAInactive", "thing TemplateValueInvalid")
	s.expect(t, dir, "test template.json --type jitp --server --cert "+next.cert, "", "thing TemplateValueInvalid")
}

// A template of fleet provisioning by its name: disabled, with a hook that isn't
// called, over a thing that is in groups.
func TestDryRunsOfFleetTemplatesOfAServer(t *testing.T) {
	need(t, "bash", "aws", "openssl")
	t.Parallel()
	s := startServer(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "policy.json"), devicePolicy)
	writeFile(t, filepath.Join(dir, "template.json"), `{"Parameters":{"SerialNumber":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"SerialNumber"},"ThingGroups":["line-2"]},"OverrideSettings":{"ThingGroups":"MERGE"}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"device"}}}}`)
	s.aws(t, dir, "iot create-policy --policy-name device --policy-document file://policy.json")
	for _, command := range []string{
		"create-thing-group --thing-group-name plant", "create-thing-group --thing-group-name line-1 --parent-group-name plant",
		"create-thing-group --thing-group-name line-2 --parent-group-name plant", "create-thing --thing-name SN-1",
		"add-thing-to-thing-group --thing-group-name line-1 --thing-name SN-1",
		"create-provisioning-template --template-name fleet --template-body file://template.json --provisioning-role-arn " + role +
			" --pre-provisioning-hook targetArn=arn:aws:lambda:us-east-1:000000000000:function:hook",
	} {
		s.aws(t, dir, "iot "+command)
	}
	s.expect(t, dir, "test --template-name fleet -p SerialNumber=SN-2", "function:hook isn't called", "template TemplateDisabled")
	s.aws(t, dir, "iot update-provisioning-template --template-name fleet --enabled")
	s.expect(t, dir, "test --template-name fleet -p SerialNumber=SN-2", "thing SN-2 comes into group line-2")
	s.expect(t, dir, "test --template-name fleet -p SerialNumber=SN-1", "", "thing.groups TemplateValueInvalid")
	s.expect(t, dir, "test --template-name fleet", "", "template.plan ParameterMissing")
	for arguments, want := range map[string]string{
		"test --template-name other -p SerialNumber=1":                    `provisioning template "other" doesn't exist`,
		"test --ca-id " + strings.Repeat("a", 64):                         "isn't registered",
		"lint --ca-id nothing":                                            "neither a certificate's id nor its PEM file",
		"test template.json --type fleet --server -p SerialNumber=1 -p x": "isn't NAME=VALUE",
	} {
		run := s.shell(t, dir, "imprint template "+arguments)
		if run.exit == 0 || !strings.Contains(run.stderr, want) {
			t.Errorf("imprint template %s: got exit code %d, want an error with %q\n%s", arguments, run.exit, want, run.all())
		}
	}

	// A policy that the template names is judged by the document that the server has.
	clean, exit := s.dryRun(t, dir, "lint --template-name fleet")
	writeFile(t, filepath.Join(dir, "wide.json"), `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:*:*:client/*"}}`)
	s.aws(t, dir, "iot create-policy-version --policy-name device --policy-document file://wide.json --set-as-default")
	for _, arguments := range []string{"lint --template-name fleet", "test --template-name fleet -p SerialNumber=SN-2", "lint template.json --type fleet --server"} {
		got, status := s.dryRun(t, dir, arguments)
		if exit != 0 || status != 0 || len(clean.Findings) != 1 || clean.Findings[0].Rule == "policy-too-wide" || len(got.Findings) != 1 || got.Findings[0].Rule != "policy-too-wide" || got.Findings[0].Line != 4 {
			t.Errorf("%s: got %+v, before %+v, want that the policy became too wide, in line 4", arguments, got.Findings, clean.Findings)
		}
	}

	// Who may not look is told so; it isn't the template's fault.
	looker := s.addUser(t, "looker", `{"Effect":"Allow","Action":"iot:DescribeProvisioningTemplate","Resource":"*"}`)
	run := s.shell(t, dir, as(looker)+"imprint template test --template-name fleet -p SerialNumber=SN-2")
	if run.exit != 1 || !strings.Contains(run.stderr, "couldn't look on the server") || !strings.Contains(run.stderr, "AccessDenied") {
		t.Errorf("got exit code %d, want that access is denied\n%s", run.exit, run.all())
	}
	run = s.shell(t, dir, as(looker)+"imprint template lint --template-name fleet")
	if run.exit != 0 || !strings.Contains(run.stdout, "whether policy device is too wide: the access key may not read it (iot:GetPolicy)") {
		t.Errorf("got exit code %d, want that the policy may not be read\n%s", run.exit, run.all())
	}
}
