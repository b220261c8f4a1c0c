package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// mitigationScript makes the actions and audits the fleet; the id of the audit is what
// it prints last.
const mitigationScript = `
aws iot create-thing-group --thing-group-name quarantine > group
aws iot create-mitigation-action --action-name off --role-arn $ROLE --action-params '{"updateDeviceCertificateParams":{"action":"DEACTIVATE"}}' > off
aws iot create-mitigation-action --action-name away --role-arn $ROLE --action-params '{"addThingsToThingGroupParams":{"thingGroupNames":["quarantine"]}}' > away
imprint audit --json --check DEVICE_CERTIFICATE_SHARED_CHECK --check IMPRINT_THING_WITHOUT_CERTIFICATE_CHECK > audit || test $? = 3
aws iot list-audit-tasks --start-time 2020-01-01 --end-time 2100-01-01 --query 'tasks[0].taskId' --output text
`

// A task deactivates a certificate, whose device loses its session; a kill in its middle
// loses nothing and does nothing twice; and a caller may start it who may do what it does.
func TestMitigationsEndSessionsAndSurviveAKill(t *testing.T) {
	need(t, "aws", "bash")
	t.Parallel()
	s := newServer(t, "--audit-rest", "1000", "--api-rate", "0")
	s.start()
	s.readEnv()
	api := s.sdk(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "policy.json"), watcherPolicy)
	shared := selfSigned(t, "shared")
	s.aws(t, dir, "iot create-policy --policy-name all --policy-document file://policy.json")
	arn := s.aws(t, dir, "iot register-certificate-without-ca --status ACTIVE --certificate-pem file://"+shared.cert+" --query certificateArn --output text")
	s.aws(t, dir, "iot attach-policy --policy-name all --target "+arn)
	const things = 60
	for n := range things {
		name := aws.String(fmt.Sprintf("thing-%02d", n))
		must(api.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: name}))(t)
		if n < 2 {
			must(api.AttachThingPrincipal(t.Context(), &iot.AttachThingPrincipalInput{ThingName: name, Principal: aws.String(arn)}))(t)
		}
	}
	lines := strings.Fields(s.mustShell(t, dir, "ROLE="+role+mitigationScript))
	audited := lines[len(lines)-1]
	start := `aws iot start-audit-mitigation-actions-task --task-id mend --target '{"auditTaskId":"` + audited + `"}' ` +
		`--audit-check-to-actions-mapping '{"DEVICE_CERTIFICATE_SHARED_CHECK":["off"],"IMPRINT_THING_WITHOUT_CERTIFICATE_CHECK":["away"]}' --client-request-token once`
	const starts = `{"Effect":"Allow","Action":["iot:StartAuditMitigationActionsTask","iot:CreateMitigationAction"],"Resource":"*"}`
	mender := s.addUser(t, "mender", starts)
	for _, row := range []struct{ allowed, script, want string }{
		{starts, `aws iot create-mitigation-action --action-name mine --role-arn ` + role + ` --action-params '{"updateCACertificateParams":{"action":"DEACTIVATE"}}'`,
			"iot:UpdateCACertificate on resource: arn:aws:iot:us-east-1:000000000000:cacert/*"},
		{starts + `,{"Effect":"Allow","Action":"iot:AddThingToThingGroup","Resource":"*"}`, start, "iot:UpdateCertificate on resource: arn:aws:iot:us-east-1:000000000000:cert/*"},
		{starts + `,{"Effect":"Allow","Action":"iot:UpdateCertificate","Resource":"*"},{"Effect":"Allow","Action":"iot:AddThingToThingGroup","Resource":["arn:aws:iot:us-east-1:000000000000:thing/*"]}`,
			start, "iot:AddThingToThingGroup on resource: arn:aws:iot:us-east-1:000000000000:thinggroup/quarantine"},
	} {
		s.allow(t, "mender", row.allowed)
		run := s.shell(t, dir, as(mender)+row.script)
		if run.exit == 0 || !strings.Contains(run.stderr, "AccessDeniedException") || !strings.Contains(run.stderr, row.want) {
			t.Errorf("a user who may do less: got exit code %d and\n%s\nwant it to lack %s", run.exit, run.all(), row.want)
		}
	}
	device := s.connect(t, shared, "shared", dialing{})
	s.allow(t, "mender", starts+`,{"Effect":"Allow","Action":["iot:UpdateCertificate","iot:AddThingToThingGroup"],"Resource":"*"}`)
	s.mustShell(t, dir, as(mender)+start)
	select {
	case <-device.lost:
	case <-time.After(patience):
		t.Fatal("the device of a certificate that was deactivated is still connected")
	}
	await := func(what string, ok func(*iot.DescribeAuditMitigationActionsTaskOutput) bool) *iot.DescribeAuditMitigationActionsTaskOutput {
		t.Helper()
		deadline := time.Now().Add(patience)
		for {
			task := must(s.sdk(t).DescribeAuditMitigationActionsTask(t.Context(), &iot.DescribeAuditMitigationActionsTaskInput{TaskId: aws.String("mend")}))(t)
			if ok(task) {
				return task
			}
			if time.Now().After(deadline) {
				t.Fatalf("waited for %s: %+v", what, task)
			}
		}
	}
	const check = "IMPRINT_THING_WITHOUT_CERTIFICATE_CHECK"
	members := func() []string {
		t.Helper()
		return must(s.sdk(t).ListThingsInThingGroup(t.Context(), &iot.ListThingsInThingGroupInput{ThingGroupName: aws.String("quarantine"), MaxResults: aws.Int32(250)}))(t).Things
	}
	// The first findings are dealt with, and the task rests for a thousand times as long.
	task := await("the first findings", func(task *iot.DescribeAuditMitigationActionsTaskOutput) bool {
		return aws.ToInt64(task.TaskStatistics[check].SucceededFindingsCount) > 0
	})
	before := members()
	if got := aws.ToInt64(task.TaskStatistics[check].SucceededFindingsCount); got != int64(len(before)) || got >= things || task.TaskStatus != types.AuditMitigationActionsTaskStatusInProgress {
		t.Fatalf("before the kill: got %d findings, %d things in the group, %s; want as many, under %d, and IN_PROGRESS", got, len(before), task.TaskStatus, things)
	}
	// An operator thinks again about one: what was done isn't done again.
	must(api.RemoveThingFromThingGroup(t.Context(), &iot.RemoveThingFromThingGroupInput{ThingGroupName: aws.String("quarantine"), ThingName: aws.String(before[0])}))(t)
	s.signal(killed)
	s.flags = []string{"--audit-rest", "0", "--api-rate", "0"}
	s.start()
	task = await("the end", func(task *iot.DescribeAuditMitigationActionsTaskOutput) bool {
		return task.TaskStatus != types.AuditMitigationActionsTaskStatusInProgress
	})
	certificates, alone := task.TaskStatistics["DEVICE_CERTIFICATE_SHARED_CHECK"], task.TaskStatistics[check]
	if task.TaskStatus != types.AuditMitigationActionsTaskStatusCompleted || aws.ToInt64(certificates.SucceededFindingsCount) != 1 || aws.ToInt64(alone.TotalFindingsCount) != things || aws.ToInt64(alone.SucceededFindingsCount) != things {
		t.Errorf("after the kill: got %s, certificates %+v, things %+v; want one certificate and all %d things", task.TaskStatus, certificates, alone, things)
	}
	if after := members(); len(after) != things-1 {
		t.Errorf("got %d things in the group, want %d: all but the one that was taken out", len(after), things-1)
	}
}
