package iot_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

const mitigationRole = "arn:aws:iam::000000000000:role/mitigation"

// What a person types about mitigation actions with the AWS CLI: they are made, told,
// changed, listed and deleted, and those that can't be here are refused with a reason.
func TestTheAWSCLIManagesMitigationActions(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenant := server.NewTenant()
	cli := server.CLI(t, tenant, t.TempDir())
	refused := func(want string, args ...string) {
		t.Helper()
		_, stderr, ok := cli.IoT(t, args...)
		if ok || !strings.Contains(stderr, want) {
			t.Errorf("aws iot %q: got %q, want %s", args, stderr, want)
		}
	}
	create := func(name, params string, more ...string) []string {
		return append([]string{"create-mitigation-action", "--action-name", name, "--role-arn", mitigationRole, "--action-params", params}, more...)
	}
	for _, row := range []struct{ name, params, kind string }{
		{"off", `{"updateDeviceCertificateParams":{"action":"DEACTIVATE"}}`, "UPDATE_DEVICE_CERTIFICATE"},
		{"ca-off", `{"updateCACertificateParams":{"action":"DEACTIVATE"}}`, "UPDATE_CA_CERTIFICATE"},
		{"blank", `{"replaceDefaultPolicyVersionParams":{"templateName":"BLANK_POLICY"}}`, "REPLACE_DEFAULT_POLICY_VERSION"},
		{"quarantine", `{"addThingsToThingGroupParams":{"thingGroupNames":["one","two"],"overrideDynamicGroups":true}}`, "ADD_THINGS_TO_THING_GROUP"},
	} {
		made := cli.MustIoT(t, create(row.name, row.params)...)
		told := cli.MustIoT(t, "describe-mitigation-action", "--action-name", row.name)
		var action struct {
			ActionName, ActionType, ActionArn, ActionID, RoleArn, CreationDate, LastModifiedDate string
			ActionParams                                                                         json.RawMessage
		}
		err := json.Unmarshal([]byte(told), &action)
		if err != nil || action.ActionType != row.kind || action.RoleArn != mitigationRole || action.ActionArn != tenant.ARN("mitigationaction/"+row.name) || !strings.Contains(made, action.ActionID) || action.CreationDate == "" {
			t.Errorf("%s: got %s after %s, %v", row.name, told, made, err)
		}
		if got := sortedJSON(t, action.ActionParams); got != sortedJSON(t, []byte(row.params)) {
			t.Errorf("%s: got parameters %s, want %s", row.name, got, row.params)
		}
	}
	const logging = `{"enableIoTLoggingParams":{"roleArnForLogging":"` + mitigationRole + `","logLevel":"INFO"}}`
	refused("ResourceAlreadyExistsException", create("off", `{"updateDeviceCertificateParams":{"action":"DEACTIVATE"}}`)...)
	refused("--trace-retention", create("logging", logging)...)
	refused("imprint audit", create("sns", `{"publishFindingToSnsParams":{"topicArn":"arn:aws:sns:us-east-1:000000000000:findings"}}`)...)
	refused("InvalidRequestException", create("none", `{}`)...)
	refused("those of 2", create("two", `{"updateDeviceCertificateParams":{"action":"DEACTIVATE"},"updateCACertificateParams":{"action":"DEACTIVATE"}}`)...)
	refused("InvalidRequestException", create("wrong", `{"updateDeviceCertificateParams":{"action":"ACTIVATE"}}`)...)
	refused("is not the ARN of an IAM role", "create-mitigation-action", "--action-name", "role", "--role-arn", "arn:aws:iam::000000000000:user/x", "--action-params", `{"updateDeviceCertificateParams":{"action":"DEACTIVATE"}}`)
	cli.MustIoT(t, "update-mitigation-action", "--action-name", "quarantine", "--action-params", `{"addThingsToThingGroupParams":{"thingGroupNames":["three"]}}`, "--role-arn", mitigationRole+"-2")
	if told := cli.MustIoT(t, "describe-mitigation-action", "--action-name", "quarantine"); !strings.Contains(told, "three") || strings.Contains(told, "one") || strings.Contains(told, "overrideDynamicGroups") || !strings.Contains(told, "mitigation-2") {
		t.Errorf("after the change: got %s", told)
	}
	refused("can't become UPDATE_CA_CERTIFICATE", "update-mitigation-action", "--action-name", "off", "--action-params", `{"updateCACertificateParams":{"action":"DEACTIVATE"}}`)
	refused("--trace-retention", "update-mitigation-action", "--action-name", "off", "--action-params", logging)
	refused("ResourceNotFoundException", "update-mitigation-action", "--action-name", "nothing", "--role-arn", mitigationRole)
	for _, row := range []struct {
		args []string
		want string
	}{{nil, "blank ca-off off quarantine"}, {[]string{"--action-type", "UPDATE_CA_CERTIFICATE"}, "ca-off"}, {[]string{"--page-size", "1"}, "blank ca-off off quarantine"}} {
		got := strings.Fields(cli.MustIoT(t, append([]string{"list-mitigation-actions", "--query", "actionIdentifiers[].actionName", "--output", "text"}, row.args...)...))
		if strings.Join(got, " ") != row.want {
			t.Errorf("list-mitigation-actions %q: got %q, want %q", row.args, got, row.want)
		}
	}
	arn := tenant.ARN("mitigationaction/off")
	cli.MustIoT(t, "tag-resource", "--resource-arn", arn, "--tags", "Key=team,Value=security")
	if tags := cli.MustIoT(t, "list-tags-for-resource", "--resource-arn", arn); !strings.Contains(tags, "security") {
		t.Errorf("got tags %s", tags)
	}
	cli.MustIoT(t, "delete-mitigation-action", "--action-name", "off")
	cli.MustIoT(t, "delete-mitigation-action", "--action-name", "off")
	refused("ResourceNotFoundException", "describe-mitigation-action", "--action-name", "off")
	refused("ResourceNotFoundException", "list-tags-for-resource", "--resource-arn", arn)
	stranger := server.CLI(t, server.NewTenant(), t.TempDir())
	if told := stranger.MustIoT(t, "list-mitigation-actions"); strings.Contains(told, "blank") {
		t.Errorf("another account sees %s", told)
	}
	client := server.Client(tenant)
	for n := 0; ; n++ {
		_, err := client.CreateMitigationAction(t.Context(), &sdk.CreateMitigationActionInput{ActionName: aws.String(fmt.Sprint("more-", n)), RoleArn: aws.String(mitigationRole),
			ActionParams: &types.MitigationActionParams{UpdateDeviceCertificateParams: &types.UpdateDeviceCertificateParams{Action: types.DeviceCertificateUpdateActionDeactivate}}})
		if err != nil {
			if n != 97 || !strings.Contains(err.Error(), "LimitExceededException") {
				t.Errorf("action %d: got %v, want LimitExceededException after 97", n, err)
			}
			break
		}
	}
}

// sortedJSON gives JSON with sorted members and no blanks.
func sortedJSON(t *testing.T, text []byte) string {
	t.Helper()
	var value any
	err := json.Unmarshal(text, &value)
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// From an audit to a mended fleet with the AWS CLI alone: the findings of an audit are
// mitigated, what came of each is told, and the next audit finds nothing.
func TestTheAWSCLIMitigatesFindings(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenant := server.NewTenant()
	client := server.Client(tenant)
	cli := server.CLI(t, tenant, t.TempDir())
	refused := func(want string, args ...string) {
		t.Helper()
		_, stderr, ok := cli.IoT(t, args...)
		if ok || !strings.Contains(stderr, want) {
			t.Errorf("aws iot %q: got %q, want %s", args, stderr, want)
		}
	}
	line := iottest.NewCA(t, "Line")
	_, text := line.Leaf(t, "shared")
	cert, err := client.RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: aws.String(text), Status: types.CertificateStatusActive})
	if err != nil {
		t.Fatal(err)
	}
	for _, thing := range []string{"a", "b"} {
		cli.MustIoT(t, "create-thing", "--thing-name", thing)
		cli.MustIoT(t, "attach-thing-principal", "--thing-name", thing, "--principal", *cert.CertificateArn)
	}
	cli.MustIoT(t, "create-thing-group", "--thing-group-name", "quarantine")
	for _, name := range []string{"wide", "wider"} {
		cli.MustIoT(t, "create-policy", "--policy-name", name, "--policy-document", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)
	}
	for name, params := range map[string]string{"off": `{"updateDeviceCertificateParams":{"action":"DEACTIVATE"}}`, "blank": `{"replaceDefaultPolicyVersionParams":{"templateName":"BLANK_POLICY"}}`,
		"quarantine": `{"addThingsToThingGroupParams":{"thingGroupNames":["quarantine"]}}`} {
		cli.MustIoT(t, "create-mitigation-action", "--action-name", name, "--role-arn", mitigationRole, "--action-params", params)
	}
	cli.MustIoT(t, "update-account-audit-configuration", "--role-arn", auditRole, "--audit-check-configurations", `{"IOT_POLICY_OVERLY_PERMISSIVE_CHECK":{"enabled":true},"DEVICE_CERTIFICATE_SHARED_CHECK":{"enabled":true}}`)
	audited := func() string {
		t.Helper()
		id := strings.TrimSpace(cli.MustIoT(t, "start-on-demand-audit-task", "--target-check-names", "IOT_POLICY_OVERLY_PERMISSIVE_CHECK", "DEVICE_CERTIFICATE_SHARED_CHECK", "--query", "taskId", "--output", "text"))
		auditOver(t, client, &id)
		return id
	}
	task := audited()
	finding := func(check, query string) string {
		t.Helper()
		return strings.TrimSpace(cli.MustIoT(t, "list-audit-findings", "--task-id", task, "--check-name", check, "--query", query, "--output", "text"))
	}
	shared := finding("DEVICE_CERTIFICATE_SHARED_CHECK", "findings[0].findingId")
	wide := finding("IOT_POLICY_OVERLY_PERMISSIVE_CHECK", "findings[?nonCompliantResource.resourceIdentifier.policyVersionIdentifier.policyName=='wide'].findingId")
	over := func(id string) *sdk.DescribeAuditMitigationActionsTaskOutput {
		t.Helper()
		deadline := time.After(2 * time.Minute)
		look := time.NewTicker(10 * time.Millisecond)
		defer look.Stop()
		for {
			out, err := client.DescribeAuditMitigationActionsTask(t.Context(), &sdk.DescribeAuditMitigationActionsTaskInput{TaskId: &id})
			if err != nil {
				t.Fatal(err)
			}
			if out.TaskStatus != types.AuditMitigationActionsTaskStatusInProgress {
				return out
			}
			select {
			case <-look.C:
			case <-deadline:
				t.Fatalf("the task isn't over in time: %+v", out)
			}
		}
	}
	start := func(id, target, mapping string, more ...string) []string {
		return append([]string{"start-audit-mitigation-actions-task", "--task-id", id, "--target", target, "--audit-check-to-actions-mapping", mapping}, more...)
	}
	const policies = `{"IOT_POLICY_OVERLY_PERMISSIVE_CHECK":["blank"]}`
	refused("can't have", start("a", `{"auditTaskId":"`+task+`"}`, `{"IOT_POLICY_OVERLY_PERMISSIVE_CHECK":["off"]}`)...)
	refused("either auditTaskId or findingIds", start("a", `{}`, policies)...)
	refused("cannot be found", start("a", `{"findingIds":["none"]}`, policies)...)
	// One policy by its finding, and the same request again.
	first := start("first", `{"findingIds":["`+wide+`"]}`, policies, "--client-request-token", "once")
	for range 2 {
		if out := cli.MustIoT(t, first...); !strings.Contains(out, `"first"`) {
			t.Errorf("got %s", out)
		}
	}
	refused("TaskAlreadyExistsException", start("first", `{"findingIds":["`+wide+`"]}`, policies, "--client-request-token", "twice")...)
	if done := over("first"); done.TaskStatus != types.AuditMitigationActionsTaskStatusCompleted || *done.TaskStatistics["IOT_POLICY_OVERLY_PERMISSIVE_CHECK"].SucceededFindingsCount != 1 || done.Target.FindingIds[0] != wide || done.EndTime == nil {
		t.Errorf("got %+v", done)
	}
	if told := cli.MustIoT(t, "get-policy", "--policy-name", "wide"); !strings.Contains(told, `"defaultVersionId": "2"`) || strings.Contains(told, "Allow") {
		t.Errorf("got policy %s, want it to be blank", told)
	}
	// All that the audit found; of the policies one is left.
	cli.MustIoT(t, start("all", `{"auditTaskId":"`+task+`"}`, `{"IOT_POLICY_OVERLY_PERMISSIVE_CHECK":["blank"],"DEVICE_CERTIFICATE_SHARED_CHECK":["quarantine","off"]}`)...)
	over("all")
	told := cli.MustIoT(t, "describe-audit-mitigation-actions-task", "--task-id", "all")
	var described struct {
		TaskStatus                 string
		TaskStatistics             map[string]map[string]int
		Target                     map[string]any
		AuditCheckToActionsMapping map[string][]string
		ActionsDefinition          []struct{ Name, ID, RoleArn string }
	}
	err = json.Unmarshal([]byte(told), &described)
	if counts := described.TaskStatistics["IOT_POLICY_OVERLY_PERMISSIVE_CHECK"]; err != nil || described.TaskStatus != "COMPLETED" || counts["totalFindingsCount"] != 2 || counts["succeededFindingsCount"] != 1 || counts["skippedFindingsCount"] != 1 ||
		described.Target["auditTaskId"] != task || len(described.AuditCheckToActionsMapping) != 2 || len(described.ActionsDefinition) != 3 || described.ActionsDefinition[0].Name != "blank" || described.ActionsDefinition[0].RoleArn != mitigationRole {
		t.Errorf("got %s, %v", told, err)
	}
	executions := func(id, finding string, more ...string) string {
		t.Helper()
		got := cli.MustIoT(t, append([]string{"list-audit-mitigation-actions-executions", "--task-id", id, "--finding-id", finding, "--query", "actionsExecutions[].[actionName,status]", "--output", "text"}, more...)...)
		return strings.Join(strings.Fields(got), " ")
	}
	for _, row := range []struct {
		id, finding string
		more        []string
		want        string
	}{
		{"all", shared, nil, "off COMPLETED quarantine COMPLETED"}, {"all", shared, []string{"--page-size", "1"}, "off COMPLETED quarantine COMPLETED"}, {"all", wide, nil, "blank SKIPPED"},
		{"all", wide, []string{"--action-status", "FAILED"}, ""}, {"first", wide, nil, "blank COMPLETED"}, {"first", shared, nil, ""}, {"none", wide, nil, ""},
	} {
		if got := executions(row.id, row.finding, row.more...); got != row.want && (row.want != "" || got != "None") {
			t.Errorf("executions of %s %q: got %q, want %q", row.id, row.more, got, row.want)
		}
	}
	if told := cli.MustIoT(t, "describe-certificate", "--certificate-id", *cert.CertificateId); !strings.Contains(told, `"INACTIVE"`) {
		t.Errorf("got certificate %s, want it to be INACTIVE", told)
	}
	if told := cli.MustIoT(t, "list-things-in-thing-group", "--thing-group-name", "quarantine"); !strings.Contains(told, `"a"`) || !strings.Contains(told, `"b"`) {
		t.Errorf("got things %s, want a and b", told)
	}
	span := []string{"--start-time", server.Clock.Now().Add(-time.Hour).Format(time.RFC3339), "--end-time", server.Clock.Now().Add(time.Hour).Format(time.RFC3339)}
	for _, row := range []struct {
		more []string
		want int
	}{{nil, 2}, {[]string{"--audit-task-id", task}, 1}, {[]string{"--finding-id", wide}, 2}, {[]string{"--finding-id", shared}, 1}, {[]string{"--task-status", "CANCELED"}, 0}, {[]string{"--page-size", "1"}, 2}} {
		got := cli.MustIoT(t, append(append([]string{"list-audit-mitigation-actions-tasks"}, span...), row.more...)...)
		if n := strings.Count(got, "taskId"); n != row.want {
			t.Errorf("list-audit-mitigation-actions-tasks %q: got %s, want %d", row.more, got, row.want)
		}
	}
	refused("InvalidRequestException", "cancel-audit-mitigation-actions-task", "--task-id", "all")
	refused("ResourceNotFoundException", "cancel-audit-mitigation-actions-task", "--task-id", "none")
	refused("ResourceNotFoundException", "describe-audit-mitigation-actions-task", "--task-id", "none")
	stranger := server.CLI(t, server.NewTenant(), t.TempDir())
	if _, stderr, ok := stranger.IoT(t, "describe-audit-mitigation-actions-task", "--task-id", "all"); ok || !strings.Contains(stderr, "ResourceNotFoundException") {
		t.Errorf("another account sees the task: %s", stderr)
	}
	task = audited()
	if left := cli.MustIoT(t, "list-audit-findings", "--task-id", task, "--check-name", "IOT_POLICY_OVERLY_PERMISSIVE_CHECK"); strings.Contains(left, "findingId") {
		t.Errorf("after the mitigation: got findings %s", left)
	}
}

// What a task hasn't dealt with yet is pending, and canceled once the task is.
func TestMitigationsThatAreLeftAreTold(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenant := server.NewTenant()
	client := server.Client(tenant)
	server.Put(t, func(tx imprint.Tx) error {
		action := imprint.MitigationAction{Tenant: tenant, Name: "blank", ID: "id", Kind: imprint.MitigatePolicy}
		f := imprint.AuditFinding{Tenant: tenant, ID: "finding", Task: "audit", Check: "IOT_POLICY_OVERLY_PERMISSIVE_CHECK", Resource: imprint.AuditResource{Kind: imprint.AuditPolicy, ID: "p", Version: 1}}
		err := tx.PutAuditFinding(f)
		for id, status := range map[string]imprint.AuditTaskStatus{"running": imprint.AuditInProgress, "canceled": imprint.AuditCanceled, "over": imprint.AuditCompleted} {
			if err == nil {
				err = tx.PutMitigationTask(imprint.MitigationTask{Tenant: tenant, ID: id, Status: status, Audit: "audit", Mapping: map[imprint.AuditCheck][]string{f.Check: {"blank"}}, Actions: []imprint.MitigationAction{action},
					Tallies: map[imprint.AuditCheck]imprint.MitigationTally{f.Check: {Total: 5, Succeeded: 2}}})
			}
		}
		return err
	})
	for id, want := range map[string]types.AuditMitigationActionsExecutionStatus{"running": types.AuditMitigationActionsExecutionStatusPending, "canceled": types.AuditMitigationActionsExecutionStatusCanceled, "over": ""} {
		out, err := client.ListAuditMitigationActionsExecutions(t.Context(), &sdk.ListAuditMitigationActionsExecutionsInput{TaskId: aws.String(id), FindingId: aws.String("finding")})
		if err != nil || (want == "") != (len(out.ActionsExecutions) == 0) || want != "" && (out.ActionsExecutions[0].Status != want || *out.ActionsExecutions[0].ActionId != "id") {
			t.Errorf("%s: got %+v, %v; want %q", id, out, err, want)
		}
	}
	for id, want := range map[string]int64{"running": 0, "canceled": 3} {
		out, err := client.DescribeAuditMitigationActionsTask(t.Context(), &sdk.DescribeAuditMitigationActionsTaskInput{TaskId: aws.String(id)})
		if err != nil || *out.TaskStatistics["IOT_POLICY_OVERLY_PERMISSIVE_CHECK"].CanceledFindingsCount != want {
			t.Errorf("%s: got %+v, %v; want %d canceled", id, out, err, want)
		}
	}
	_, err := client.CancelAuditMitigationActionsTask(t.Context(), &sdk.CancelAuditMitigationActionsTaskInput{TaskId: aws.String("running")})
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.DescribeAuditMitigationActionsTask(t.Context(), &sdk.DescribeAuditMitigationActionsTaskInput{TaskId: aws.String("running")})
	if err != nil || out.TaskStatus != types.AuditMitigationActionsTaskStatusCanceled || out.EndTime == nil {
		t.Errorf("after canceling: got %+v, %v", out, err)
	}
}
