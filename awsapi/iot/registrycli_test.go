package iot_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// TestRegistryWithTheAWSCLI leads the unmodified AWS CLI through a device's
// thing, policy and template, from creation to deletion.
func TestRegistryWithTheAWSCLI(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	o := newOperator(t, server)
	dir := t.TempDir()
	cli := server.CLI(t, o.tenant, dir)
	cert := *o.certificate()
	for name, text := range map[string]string{"policy.json": oddDocument, "typo.json": `{"Version":"2012-10-17","Statment":[]}`, "template.json": fleetBody} {
		err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
		if err != nil {
			t.Fatalf("couldn't write %s: %v", name, err)
		}
	}
	steps := []struct {
		command string // CERT is the certificate's ARN
		want    string // a part of the answer, JSON without spaces
		refused string // a part of standard error instead
	}{
		{"create-thing --thing-name sensor --attribute-payload {\"attributes\":{\"site\":\"lab\"}}", `"thingName":"sensor"`, ""},
		{"update-thing --thing-name sensor --attribute-payload {\"attributes\":{\"site\":\"\",\"line\":\"4\"},\"merge\":true}", "", ""},
		{"describe-thing --thing-name sensor", `"attributes":{"line":"4"}`, ""},
		{"create-policy --policy-name p --policy-document file://policy.json", `"policyVersionId":"1"`, ""},
		{"create-policy --policy-name q --policy-document file://typo.json", "", "(MalformedPolicyException)"},
		{"attach-policy --policy-name p --target CERT", "", ""},
		{"list-attached-policies --target CERT", `"policyName":"p"`, ""},
		{"list-principal-policies --principal CERT", `"policyName":"p"`, ""},
		{"attach-thing-principal --thing-name sensor --principal CERT", "", ""},
		{"test-authorization --principal CERT --client-id sensor --auth-infos actionType=CONNECT,resources=arn:aws:iot:us-east-1:ACCOUNT:client/sensor", `"authDecision":"EXPLICIT_DENY"`, ""},
		{"delete-thing --thing-name sensor", "", "Cannot delete. Thing sensor is still attached to one or more principals"},
		{"detach-thing-principal --thing-name sensor --principal CERT", "", ""},
		{"detach-policy --policy-name p --target CERT", "", ""},
		{"delete-policy --policy-name p", "", ""},
		{"delete-thing --thing-name sensor", "", ""},
		{"create-provisioning-template --template-name t --template-body file://template.json --provisioning-role-arn " + role + " --enabled --pre-provisioning-hook targetArn=" + o.tenant.FunctionARN("hook"), `"defaultVersionId":1`, ""},
		{"describe-provisioning-template --template-name t", `"enabled":true`, ""},
		{"delete-provisioning-template --template-name t", "", ""},
	}
	fill := strings.NewReplacer("CERT", cert, "ACCOUNT", string(o.tenant.Account))
	for _, step := range steps {
		stdout, stderr, ok := cli.IoT(t, strings.Fields(fill.Replace(step.command))...)
		if ok != (step.refused == "") || !strings.Contains(stderr, step.refused) {
			t.Errorf("aws iot %s: got %t and %q, want %q", step.command, ok, stderr, step.refused)
		}
		if !strings.Contains(compact(t, stdout), fill.Replace(step.want)) {
			t.Errorf("aws iot %s: got %s, want %s in it", step.command, stdout, fill.Replace(step.want))
		}
	}
	if diff := cmp.Diff(contents{}, o.contents()); diff != "" {
		t.Errorf("something is left (-want +got):\n%s", diff)
	}
}

// compact takes the spaces out of JSON; the CLI writes nothing for an empty
// answer.
func compact(t *testing.T, text string) string {
	t.Helper()
	if strings.TrimSpace(text) == "" {
		return ""
	}
	var value any
	err := json.Unmarshal([]byte(text), &value)
	if err != nil {
		t.Fatalf("the AWS CLI wrote what is no JSON: %v: %s", err, text)
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("couldn't encode: %v", err)
	}
	return string(data)
}
