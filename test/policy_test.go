package test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
)

// policyTool runs `imprint policy` against the server.
func (s *server) policyTool(t *testing.T, subcommand string, args ...string) toolRun {
	t.Helper()
	return runTool(t, "", cleanEnv(), program, append([]string{"policy", subcommand, "--data", s.dir}, args...)...)
}

// TestThePolicyExplainerSaysWhatDevicesMeet ensures that `imprint policy explain`
// and TestAuthorization, called by the real AWS CLI, decide as the broker does for a
// real client, and that the fix is told.
func TestThePolicyExplainerSaysWhatDevicesMeet(t *testing.T) {
	need(t, "bash", "aws", "mosquitto_pub", "openssl")
	t.Parallel()
	s := startServer(t)
	d := s.line(t, "Explained").device(t, "meter-1", "P-256")
	s.join(t, d)
	cert := arn + "cert/" + d.id(t)
	for _, row := range []struct {
		topic, retain string
		allowed       bool
		said          string // by the explainer
	}{
		{"d/meter-1/x", "", true, `statement 2 of policy "devices"`},
		{"d/meter-1/x", "-r", false, `add "iot:RetainPublish" to Action of statement 2 of policy "devices"`},
		{"d/meter-2/x", "", false, `which stands for "` + arn + `topic/d/meter-1/*" here and does not match`},
		{"D/meter-1/x", "", false, "differs from the resource only in upper and lower case"},
	} {
		args := []string{"--thing", d.name, "--action", "publish", "--topic", row.topic}
		var more []string
		if row.retain != "" {
			args[3], more = "retain", []string{row.retain}
		}
		run := s.policyTool(t, "explain", args...)
		wantExit := 0
		if !row.allowed {
			wantExit = 3
		}
		if run.exit != wantExit || !strings.Contains(run.stdout, row.said) {
			t.Errorf("%s: got exit code %d, want %d and %q\n%s", strings.Join(args, " "), run.exit, wantExit, row.said, run.all())
		}
		met := s.publish(t, d, d.name, row.topic, more...)
		if (met.puback == 0) != row.allowed {
			t.Errorf("mosquitto_pub -t %s %s: got PUBACK %d, want it allowed: %t\n%s", row.topic, row.retain, met.puback, row.allowed, met.all())
		}
		if row.retain != "" {
			continue
		}
		want := "IMPLICIT_DENY"
		if row.allowed {
			want = "ALLOWED"
		}
		got := s.aws(t, t.TempDir(), "iot test-authorization --principal "+cert+" --client-id "+d.name+
			" --auth-infos actionType=PUBLISH,resources="+arn+"topic/"+row.topic+" --query 'authResults[0].authDecision' --output text")
		if got != want {
			t.Errorf("aws iot test-authorization on %s: got %s, want %s", row.topic, got, want)
		}
	}
	got := s.aws(t, t.TempDir(), "iot get-effective-policies --principal "+cert+" --thing-name "+d.name+" --query 'effectivePolicies[].policyName' --output text")
	if got != "devices" {
		t.Errorf("aws iot get-effective-policies: got %s, want devices", got)
	}
	byFile := s.policyTool(t, "explain", "--cert", d.cert, "--client-id", "other", "--action", "connect", "--json")
	var answer struct {
		Decision, CertificateID string
		Explanations            []struct {
			NearMiss struct{ Kind, Variable string }
		}
	}
	err := json.Unmarshal([]byte(byFile.stdout), &answer)
	if err != nil || byFile.exit != 3 || answer.CertificateID != d.id(t) || len(answer.Explanations) != 1 || answer.Explanations[0].NearMiss.Variable != "iot:Connection.Thing.ThingName" {
		t.Errorf("another client id: got exit code %d, %+v, %v\n%s", byFile.exit, answer, err, byFile.all())
	}
	nobody := s.policyTool(t, "explain", "--cert", strings.Repeat("0", 64), "--action", "connect", "--client-id", "x")
	if nobody.exit != 1 || !strings.Contains(nobody.stderr, "ResourceNotFoundException") || !strings.Contains(nobody.stderr, "imprint policy explain --policy FILE") {
		t.Errorf("an unknown certificate: got exit code %d\n%s", nobody.exit, nobody.all())
	}
	visitor := s.addUser(t, "visitor", `{"Effect":"Allow","Action":"imprint:ExplainPolicy","Resource":"arn:aws:iot:us-east-1:000000000000:thing/meter-1"}`)
	for script, want := range map[string]string{
		"imprint policy explain --thing meter-1 --action connect":        "",
		"imprint policy explain --cert " + d.id(t) + " --action connect": "imprint:ExplainPolicy on resource: " + cert,
		"imprint policy least meter-1":                                   "imprint:LeastPolicy",
	} {
		run := s.shell(t, t.TempDir(), as(visitor)+script)
		if (run.exit == 0) != (want == "") || !strings.Contains(run.stderr, want) {
			t.Errorf("%s by a visitor: got exit code %d, want %q\n%s", script, run.exit, want, run.all())
		}
	}
}

// TestTheLeastPolicyOfATraceIsEnough ensures that what a device did and tried in
// vain is allowed by the policy that is made of its trace, to it and to its twin, and
// nothing else is.
func TestTheLeastPolicyOfATraceIsEnough(t *testing.T) {
	need(t, "bash", "aws", "mosquitto_pub", "mosquitto_sub", "openssl")
	t.Parallel()
	s := startServer(t)
	f := s.line(t, "Least")
	d, twin := f.device(t, "meter-1", "P-256"), f.device(t, "meter-2", "P-256")
	s.join(t, d)
	s.join(t, twin)
	s.publish(t, d, d.name, "d/meter-1/allowed")
	s.publish(t, d, d.name, "readings/meter-1/power")
	denied := s.trySubscribe(t, d, d.name, nil, "commands/meter-1/#")
	// It comes again when the server has ended its connection.
	denied.said.wait(t, "a second CONNECT", func(text string) bool { return strings.Count(text, "sending CONNECT") > 1 })
	denied.kill()
	run := s.policyTool(t, "least", d.name)
	if run.exit != 0 || !strings.Contains(run.stderr, "2 were denied each time and are left out") || strings.Contains(run.stdout, "commands") {
		t.Fatalf("imprint policy least: exit code %d\n%s", run.exit, run.all())
	}
	run = s.policyTool(t, "least", d.name, "--denied")
	if run.exit != 0 || !strings.Contains(run.stderr, "2 of which the present policies deny") {
		t.Fatalf("imprint policy least: exit code %d\n%s", run.exit, run.all())
	}
	var document struct {
		Statement []struct{ Action, Resource []string }
	}
	err := json.Unmarshal([]byte(run.stdout), &document)
	if err != nil {
		t.Fatalf("%v\n%s", err, run.stdout)
	}
	var resources []string
	for _, st := range document.Statement {
		resources = append(resources, st.Resource...)
	}
	if !slices.Contains(resources, arn+"topic/readings/${iot:Connection.Thing.ThingName}/power") {
		t.Errorf("got resources %q", resources)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "least.json"), run.stdout)
	lint := runTool(t, "", cleanEnv(), program, "policy", "lint", filepath.Join(dir, "least.json"))
	if lint.exit != 0 {
		t.Errorf("the linter finds something in it:\n%s", lint.all())
	}
	s.aws(t, dir, "iot create-policy --policy-name least --policy-document file://least.json")
	api := s.sdk(t)
	for _, one := range []*device{d, twin} {
		target := aws.String(arn + "cert/" + one.id(t))
		must(api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("least"), Target: target}))(t)
		must(api.DetachPolicy(t.Context(), &iot.DetachPolicyInput{PolicyName: aws.String("devices"), Target: target}))(t)
	}
	for _, one := range []*device{d, twin} {
		sub := s.subscribe(t, one, one.name, "commands/"+one.name+"/#")
		s.aws(t, dir, "iot-data publish --topic commands/"+one.name+"/go --qos 1 --payload e30=")
		sub.await(t, "commands/"+one.name+"/go", 1)
		sub.kill()
		for topic, want := range map[string]bool{
			"d/" + one.name + "/allowed": true, "readings/" + one.name + "/power": true, "readings/" + one.name + "/other": false, "readings/meter-3/power": false,
		} {
			met := s.publish(t, one, one.name, topic)
			if (met.puback == 0) != want {
				t.Errorf("%s on %s: got PUBACK %d, want it allowed: %t\n%s", one.name, topic, met.puback, want, met.all())
			}
		}
	}
	stranger := s.publish(t, d, "meter-2", "readings/meter-2/power")
	if stranger.connack == 0 {
		t.Error("meter-1 connects as meter-2")
	}
	explained := s.imprint(t, "explain", d.name)
	if !strings.Contains(explained.stdout, "iot:Publish on "+arn+"topic/readings/meter-1/power is allowed") {
		t.Errorf("imprint explain doesn't show what was allowed:\n%s", explained.all())
	}
	if nobody := s.policyTool(t, "least", "nobody"); nobody.exit != 1 || !strings.Contains(nobody.stderr, "No decision of a policy is recorded for nobody") {
		t.Errorf("nobody: got exit code %d\n%s", nobody.exit, nobody.all())
	}
}
