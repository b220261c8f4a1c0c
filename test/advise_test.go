package test

import (
	"cmp"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/advise"
)

// advisedPolicy, advisedTemplates and the like are what a person writes for the
// commands of imprint advise; docs/ has the same.
const (
	advisedPolicy    = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`
	advisedInstaller = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:CreateProvisioningClaim",
 "Resource":"arn:aws:iot:us-east-1:000000000000:provisioningtemplate/fleet"}]}`
	advisedFleet = `{"Parameters":{"SerialNumber":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"SerialNumber"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"device"}}}}`
	advisedInline = `{"Parameters":{"SerialNumber":{"Type":"String"},"Certificate":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"SerialNumber"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"MEMBER":{"Ref":"Certificate"},"Status":"ACTIVE"}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"device"}}}}`
)

// advised is a list of commands that some answers lead to.
type advised struct {
	flow    advise.Flow
	answers advise.Answers
}

// script is the list as a person types it.
func (a advised) script() string {
	var b strings.Builder
	for _, command := range a.flow.Commands {
		b.WriteString(command.Line + "\n")
	}
	return b.String()
}

// adviceToRun gives lists in which every command stands that imprint advise can print:
// the longest ones first, and those alone that have a command of their own.
func adviceToRun(t *testing.T) []advised {
	t.Helper()
	lists := map[string]advised{}
	for _, answers := range advise.All() {
		advice, err := advise.For(answers)
		if err != nil {
			t.Fatal(err)
		}
		for _, flow := range advice.Flows {
			list := advised{flow, answers}
			lists[flow.Name+"\n"+list.script()] = list
		}
	}
	keys := slices.SortedFunc(maps.Keys(lists), func(a, b string) int {
		return cmp.Or(len(lists[b].flow.Commands)-len(lists[a].flow.Commands), strings.Compare(a, b))
	})
	done := map[string]bool{}
	var run []advised
	for _, key := range keys {
		list, fresh := lists[key], false
		for _, command := range list.flow.Commands {
			fresh = fresh || !done[command.Line]
			done[command.Line] = true
		}
		if fresh {
			run = append(run, list)
		}
	}
	return run
}

// TestAdvisedCommandsWork runs every command that imprint advise can print, as it is
// printed and in its place among the others, against servers, and looks at what came
// of it.
func TestAdvisedCommandsWork(t *testing.T) {
	need(t, "bash", "aws", "openssl")
	t.Parallel()
	seen := map[string]bool{}
	for _, list := range adviceToRun(t) {
		seen[list.flow.Name] = true
		name := strings.Join([]string{list.flow.Name, string(list.answers.DeviceKey), string(list.answers.Manufacturer), string(list.answers.PKI), string(list.answers.Accounts)}, "-")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			dir := t.TempDir()
			list.bring(t, dir)
			script := list.script()
			run := s.shell(t, dir, script)
			if run.exit != 0 {
				t.Fatalf("exit code %d\n%s\n%s", run.exit, script, run.all())
			}
			list.check(t, s, dir, run)
		})
	}
	if len(seen) != len(advise.Table()) {
		t.Errorf("commands of %d flows were run, want those of %d", len(seen), len(advise.Table()))
	}
}

// bring writes the files that the list names, and no other.
func (a advised) bring(t *testing.T, dir string) {
	t.Helper()
	f := newFactory(t, "Advised factory", "P-256")
	device := f.device(t, "device-1", "P-256")
	for _, file := range a.flow.Files {
		text := ""
		switch file.Name {
		case "policy.json":
			text = advisedPolicy
		case "claim.json":
			text = claimPolicy("000000000000", "us-east-1")
		case "installer.json":
			text = advisedInstaller
		case "ca.pem":
			text = readFile(t, f.cert)
		case "ca.key":
			text = readFile(t, f.key)
		case "device.pem":
			text = readFile(t, device.cert)
		case "template.json":
			text = a.template()
		case "parameters.json":
			text = a.parameters(t, device)
		case "devices.json":
			text = a.parameters(t, device) + "\n"
		case "function.zip":
			code, err := functionZip()
			if err != nil {
				t.Fatal(err)
			}
			text = string(code)
		default:
			t.Fatalf("%s names a file that nobody knows: %s", a.flow.Name, file.Name)
		}
		writeFile(t, filepath.Join(dir, file.Name), text)
	}
}

// listed says whether certificates are registered, and not made.
func (a advised) listed() bool {
	return a.answers.PKI == advise.OwnCA || a.answers.PKI == advise.VendorCA
}

func (a advised) template() string {
	switch a.flow.Name {
	case "jitp":
		return jitpTemplate("device", "")
	case "bulk-registration", "register-thing":
		if a.listed() {
			return strings.Replace(advisedInline, "MEMBER", "CertificatePem", 1)
		}
		return strings.Replace(advisedInline, "MEMBER", "CertificateSigningRequest", 1)
	}
	return advisedFleet
}

func (a advised) parameters(t *testing.T, d *device) string {
	t.Helper()
	certificate := readFile(t, d.cert)
	if !a.listed() {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "openssl.cnf"), opensslConfig)
		openssl(t, dir, append([]string{"req", "-new", "-nodes", "-subj", "/CN=" + d.name, "-keyout", filepath.Join(dir, "own.key"), "-out", filepath.Join(dir, "own.csr")}, keyKinds["P-256"]...)...)
		certificate = readFile(t, filepath.Join(dir, "own.csr"))
	}
	line, err := json.Marshal(map[string]string{"SerialNumber": "device-1", "Certificate": certificate})
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

// check looks at what a list brought about.
func (a advised) check(t *testing.T, s *server, dir string, run toolRun) {
	t.Helper()
	for command, want := range map[string]map[string]string{
		"multi-account":  {"iot describe-thing --thing-name device-1 --query thingName --output text": "device-1"},
		"register-thing": {"iot list-thing-principals --thing-name device-1 --query 'length(principals)' --output text": "1"},
		"jitp": {"iot list-ca-certificates --query 'certificates[].status' --output text": "ACTIVE",
			"iot describe-provisioning-template --template-name fleet --query type --output text": "JITP"},
		"jitr":         {"iot get-topic-rule --rule-name jitr --query rule.ruleDisabled --output text": "False"},
		"trusted-user": {"iot describe-provisioning-template --template-name fleet --query enabled --output text": "True"},
		"fleet-provisioning": {"iot list-targets-for-policy --policy-name claim --query 'length(targets)' --output text": "1",
			"iot describe-provisioning-template --template-name fleet --query type --output text": "FLEET_PROVISIONING"},
	}[a.flow.Name] {
		if got := s.aws(t, dir, command); got != want {
			t.Errorf("aws %s: got %q, want %q", command, got, want)
		}
	}
	switch a.flow.Name {
	case "bulk-registration":
		eventuallyTrue(t, "the device of the file", func() bool {
			return strings.TrimSpace(s.shell(t, dir, "aws iot list-things --query 'things[].thingName' --output text").stdout) == "device-1"
		})
	case "trusted-user":
		if !strings.Contains(run.stdout, "BEGIN CERTIFICATE") {
			t.Errorf("the installer got no claim:\n%s", run.all())
		}
	}
}
