package iot_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// TestThingGroupsWithTheAWSCLI leads the unmodified AWS CLI through a hierarchy of
// groups, from creation to deletion.
func TestThingGroupsWithTheAWSCLI(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	o := newOperator(t, server)
	dir := t.TempDir()
	err := os.WriteFile(filepath.Join(dir, "policy.json"), []byte(allowAll), 0o600)
	if err != nil {
		t.Fatalf("couldn't write the policy: %v", err)
	}
	cli := server.CLI(t, o.tenant, dir)
	cert := *o.certificate()
	const attributes = `{"attributePayload":{"attributes":{"site":"lab"}}}`
	steps := []struct {
		command string // CERT is the certificate's ARN, GROUP/ begins that of a group
		want    string // a part of the answer, JSON without spaces
		refused string // a part of standard error instead
	}{
		{"create-thing-group --thing-group-name plant --tags Key=owner,Value=me", `"thingGroupArn":"GROUP/plant"`, ""},
		{"create-thing-group --thing-group-name line --parent-group-name plant --thing-group-properties " + attributes, `"thingGroupName":"line"`, ""},
		{"create-thing-group --thing-group-name line", "", "(ResourceAlreadyExistsException)"},
		{"describe-thing-group --thing-group-name line", `"rootToParentThingGroups":[{"groupArn":"GROUP/plant","groupName":"plant"}]`, ""},
		{"update-thing-group --thing-group-name line --thing-group-properties thingGroupDescription=Fourth --expected-version 1", `"version":2`, ""},
		{"update-thing-group --thing-group-name line --thing-group-properties thingGroupDescription=Fifth --expected-version 1", "", "(VersionConflictException)"},
		{"describe-thing-group --thing-group-name line", `"thingGroupProperties":{"attributePayload":{"attributes":{"site":"lab"}},"thingGroupDescription":"Fourth"}`, ""},
		{"list-thing-groups --parent-group plant --recursive", `{"thingGroups":[{"groupArn":"GROUP/line","groupName":"line"}]}`, ""},
		{"list-thing-groups --name-prefix-filter pl", `{"thingGroups":[{"groupArn":"GROUP/plant","groupName":"plant"}]}`, ""},
		{"list-tags-for-resource --resource-arn GROUP/plant", `"Key":"owner"`, ""},
		{"create-thing --thing-name sensor", `"thingName":"sensor"`, ""},
		{"add-thing-to-thing-group --thing-name sensor --thing-group-arn GROUP/line", "", ""},
		{"add-thing-to-thing-group --thing-name sensor --thing-group-name plant", "", "(InvalidRequestException)"},
		{"list-things-in-thing-group --thing-group-name plant --recursive", `{"things":["sensor"]}`, ""},
		{"list-thing-groups-for-thing --thing-name sensor", `"groupName":"line"`, ""},
		{"create-policy --policy-name p --policy-document file://policy.json", `"policyVersionId":"1"`, ""},
		{"attach-policy --policy-name p --target GROUP/plant", "", ""},
		{"list-attached-policies --target GROUP/line --recursive", `"policyName":"p"`, ""},
		{"list-attached-policies --target GROUP/line", `"policies":[]`, ""},
		{"list-targets-for-policy --policy-name p", `{"targets":["GROUP/plant"]}`, ""},
		{"get-effective-policies --thing-name sensor", `"policyName":"p"`, ""},
		{"attach-thing-principal --thing-name sensor --principal CERT", "", ""},
		{"test-authorization --principal CERT --client-id sensor --auth-infos actionType=CONNECT,resources=arn:aws:iot:us-east-1:ACCOUNT:client/sensor", `"authDecision":"ALLOWED"`, ""},
		{"test-authorization --principal CERT --client-id other --auth-infos actionType=CONNECT,resources=arn:aws:iot:us-east-1:ACCOUNT:client/other", `"authDecision":"IMPLICIT_DENY"`, ""},
		{"delete-policy --policy-name p", "", "(DeleteConflictException)"},
		{"delete-thing-group --thing-group-name plant", "", "Cannot delete thing group : plant when there are still child groups attached to it."},
		{"update-thing-groups-for-thing --thing-name sensor --thing-groups-to-add plant --thing-groups-to-remove line", "", ""},
		{"remove-thing-from-thing-group --thing-name sensor --thing-group-name plant", "", ""},
		{"delete-thing-group --thing-group-name line --expected-version 2", "", ""},
		{"create-dynamic-thing-group --thing-group-name d --query-string x", "", "(NotImplementedException)"},
		{"delete-thing-group --thing-group-name plant", "", ""},
		{"delete-policy --policy-name p", "", ""},
		{"detach-thing-principal --thing-name sensor --principal CERT", "", ""},
		{"delete-thing --thing-name sensor", "", ""},
	}
	fill := strings.NewReplacer("CERT", cert, "ACCOUNT", string(o.tenant.Account), "GROUP", o.tenant.ARN("thinggroup"))
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
