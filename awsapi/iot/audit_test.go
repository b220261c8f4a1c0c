package iot_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

const auditRole = "arn:aws:iam::000000000000:role/audit"

// enabled turns checks on.
func enabled(checks ...string) map[string]types.AuditCheckConfiguration {
	all := map[string]types.AuditCheckConfiguration{}
	for _, check := range checks {
		all[check] = types.AuditCheckConfiguration{Enabled: true}
	}
	return all
}

// auditOver waits until an audit is over.
func auditOver(t *testing.T, client *sdk.Client, id *string) *sdk.DescribeAuditTaskOutput {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		task, err := client.DescribeAuditTask(t.Context(), &sdk.DescribeAuditTaskInput{TaskId: id})
		if err != nil {
			t.Fatal(err)
		}
		if task.TaskStatus != types.AuditTaskStatusInProgress {
			return task
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("the audit isn't over in time: %+v", task)
		}
	}
}

// Checks are off until they are enabled; those that can't be here stay so; a setting
// and a target come back; a check that a schedule needs can't be disabled.
func TestAuditConfigurationsSayWhatMayRun(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	client := server.Client(server.NewTenant())
	refused := func(what string, err error, want ...string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "InvalidRequestException") {
			t.Errorf("%s: got %v, want InvalidRequestException", what, err)
			return
		}
		for _, text := range want {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: got %v, want %q in it", what, err, text)
			}
		}
	}
	update := func(in sdk.UpdateAccountAuditConfigurationInput) error {
		_, err := client.UpdateAccountAuditConfiguration(t.Context(), &in)
		return err
	}
	start := func(checks ...string) (*sdk.StartOnDemandAuditTaskOutput, error) {
		return client.StartOnDemandAuditTask(t.Context(), &sdk.StartOnDemandAuditTaskInput{TargetCheckNames: checks})
	}
	describe := func() *sdk.DescribeAccountAuditConfigurationOutput {
		t.Helper()
		out, err := client.DescribeAccountAuditConfiguration(t.Context(), &sdk.DescribeAccountAuditConfigurationInput{})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := describe()
	if len(before.AuditCheckConfigurations) != 22 || before.RoleArn != nil {
		t.Errorf("got %d checks and role %v at first, want 22 and none", len(before.AuditCheckConfigurations), before.RoleArn)
	}
	for check, c := range before.AuditCheckConfigurations {
		if c.Enabled {
			t.Errorf("%s is enabled at first", check)
		}
	}
	_, err := start("LOGGING_DISABLED_CHECK")
	refused("an audit at first", err, "is disabled", "aws iot update-account-audit-configuration")
	refused("no role", update(sdk.UpdateAccountAuditConfigurationInput{AuditCheckConfigurations: enabled("LOGGING_DISABLED_CHECK")}), "roleArn")
	refused("a role that is none", update(sdk.UpdateAccountAuditConfigurationInput{RoleArn: aws.String("arn:aws:iam::000000000000:user/x")}), "not the ARN")
	refused("an unknown check", update(sdk.UpdateAccountAuditConfigurationInput{RoleArn: aws.String(auditRole), AuditCheckConfigurations: enabled("NONE")}))
	refused("a check that can't be", update(sdk.UpdateAccountAuditConfigurationInput{RoleArn: aws.String(auditRole), AuditCheckConfigurations: enabled("AUTHENTICATED_COGNITO_ROLE_OVERLY_PERMISSIVE_CHECK")}), "Cognito")
	setting := func(name, days string) map[string]types.AuditCheckConfiguration {
		return map[string]types.AuditCheckConfiguration{"CA_CERTIFICATE_EXPIRING_CHECK": {Enabled: true, Configuration: map[string]string{name: days}}}
	}
	refused("a setting of another check", update(sdk.UpdateAccountAuditConfigurationInput{RoleArn: aws.String(auditRole), AuditCheckConfigurations: setting("CERT_AGE_THRESHOLD_IN_DAYS", "9")}))
	refused("a setting that is none", update(sdk.UpdateAccountAuditConfigurationInput{RoleArn: aws.String(auditRole), AuditCheckConfigurations: setting("CERT_EXPIRATION_THRESHOLD_IN_DAYS", "0")}))
	err = update(sdk.UpdateAccountAuditConfigurationInput{RoleArn: aws.String(auditRole), AuditCheckConfigurations: setting("CERT_EXPIRATION_THRESHOLD_IN_DAYS", "90"),
		AuditNotificationTargetConfigurations: map[string]types.AuditNotificationTarget{"SNS": {TargetArn: aws.String("arn:aws:sns:us-east-1:000000000000:t"), RoleArn: aws.String(auditRole), Enabled: true}}})
	if err != nil {
		t.Fatal(err)
	}
	// The second update needs no role, and leaves the rest.
	err = update(sdk.UpdateAccountAuditConfigurationInput{AuditCheckConfigurations: enabled("LOGGING_DISABLED_CHECK")})
	if err != nil {
		t.Fatal(err)
	}
	after := describe()
	if c := after.AuditCheckConfigurations["CA_CERTIFICATE_EXPIRING_CHECK"]; !c.Enabled || c.Configuration["CERT_EXPIRATION_THRESHOLD_IN_DAYS"] != "90" || !after.AuditCheckConfigurations["LOGGING_DISABLED_CHECK"].Enabled ||
		aws.ToString(after.RoleArn) != auditRole || aws.ToString(after.AuditNotificationTargetConfigurations["SNS"].TargetArn) == "" {
		t.Errorf("got %+v", after)
	}
	_, err = client.CreateScheduledAudit(t.Context(), &sdk.CreateScheduledAuditInput{ScheduledAuditName: aws.String("daily"), Frequency: types.AuditFrequencyDaily, TargetCheckNames: []string{"LOGGING_DISABLED_CHECK"}})
	if err != nil {
		t.Fatal(err)
	}
	refused("disabling what a schedule needs", update(sdk.UpdateAccountAuditConfigurationInput{AuditCheckConfigurations: map[string]types.AuditCheckConfiguration{"LOGGING_DISABLED_CHECK": {}}}), "daily")
	_, err = client.DeleteAccountAuditConfiguration(t.Context(), &sdk.DeleteAccountAuditConfigurationInput{DeleteScheduledAudits: true})
	if err != nil {
		t.Fatal(err)
	}
	left, err := client.ListScheduledAudits(t.Context(), &sdk.ListScheduledAuditsInput{})
	if err != nil || len(left.ScheduledAudits) != 0 || describe().AuditCheckConfigurations["LOGGING_DISABLED_CHECK"].Enabled {
		t.Errorf("after deletion: got %+v, %v and checks that are on", left, err)
	}
	_, err = client.DeleteAccountAuditConfiguration(t.Context(), &sdk.DeleteAccountAuditConfigurationInput{})
	if err == nil || !strings.Contains(err.Error(), "ResourceNotFoundException") {
		t.Errorf("a second deletion: got %v, want ResourceNotFoundException", err)
	}
}

// Findings are listed by audit, by time, by check and by resource, page by page, and
// told one by one with what is related; another account's aren't there.
func TestAuditFindingsAreListedAndTold(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenant := server.NewTenant()
	client := server.Client(tenant)
	line := iottest.NewCA(t, "Line")
	_, text := line.Leaf(t, "shared")
	cert, err := client.RegisterCertificateWithoutCA(t.Context(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: aws.String(text), Status: types.CertificateStatusActive})
	if err != nil {
		t.Fatal(err)
	}
	for _, thing := range []string{"a", "b", "c"} {
		_, err = client.CreateThing(t.Context(), &sdk.CreateThingInput{ThingName: aws.String(thing)})
		if err == nil {
			_, err = client.AttachThingPrincipal(t.Context(), &sdk.AttachThingPrincipalInput{ThingName: aws.String(thing), Principal: cert.CertificateArn})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"one", "two", "three"} {
		_, err = client.CreatePolicy(t.Context(), &sdk.CreatePolicyInput{PolicyName: aws.String(name), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)})
		if err != nil {
			t.Fatal(err)
		}
	}
	checks := []string{"IOT_POLICY_OVERLY_PERMISSIVE_CHECK", "DEVICE_CERTIFICATE_SHARED_CHECK"}
	_, err = client.UpdateAccountAuditConfiguration(t.Context(), &sdk.UpdateAccountAuditConfigurationInput{RoleArn: aws.String(auditRole), AuditCheckConfigurations: enabled(checks...)})
	if err != nil {
		t.Fatal(err)
	}
	started, err := client.StartOnDemandAuditTask(t.Context(), &sdk.StartOnDemandAuditTaskInput{TargetCheckNames: checks})
	if err != nil {
		t.Fatal(err)
	}
	task := auditOver(t, client, started.TaskId)
	details := task.AuditDetails["IOT_POLICY_OVERLY_PERMISSIVE_CHECK"]
	if task.TaskStatus != types.AuditTaskStatusCompleted || *task.TaskStatistics.NonCompliantChecks != 2 || *details.NonCompliantResourcesCount != 3 || *details.CheckCompliant {
		t.Errorf("got %+v with %+v", task, details)
	}
	list := func(in sdk.ListAuditFindingsInput) []types.AuditFinding {
		t.Helper()
		var all []types.AuditFinding
		pages := sdk.NewListAuditFindingsPaginator(client, &in)
		for pages.HasMorePages() {
			page, err := pages.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page.Findings...)
		}
		return all
	}
	now := server.Clock.Now()
	from, to := aws.Time(now.Add(-time.Hour)), aws.Time(now.Add(time.Hour))
	if got := len(list(sdk.ListAuditFindingsInput{TaskId: started.TaskId, MaxResults: aws.Int32(1)})); got != 4 {
		t.Errorf("got %d findings of the audit by pages of one, want 4", got)
	}
	for what, row := range map[string]struct {
		in   sdk.ListAuditFindingsInput
		want int
	}{
		"a time":                  {sdk.ListAuditFindingsInput{StartTime: from, EndTime: to, MaxResults: aws.Int32(3)}, 4},
		"a time without findings": {sdk.ListAuditFindingsInput{StartTime: aws.Time(now.Add(-2 * time.Hour)), EndTime: from}, 0},
		"a check":                 {sdk.ListAuditFindingsInput{TaskId: started.TaskId, CheckName: aws.String(checks[1])}, 1},
		"a certificate":           {sdk.ListAuditFindingsInput{TaskId: started.TaskId, ResourceIdentifier: &types.ResourceIdentifier{DeviceCertificateId: cert.CertificateId}}, 1},
		"a certificate's ARN":     {sdk.ListAuditFindingsInput{TaskId: started.TaskId, ResourceIdentifier: &types.ResourceIdentifier{DeviceCertificateArn: cert.CertificateArn}}, 1},
		"a policy": {sdk.ListAuditFindingsInput{StartTime: from, EndTime: to, ResourceIdentifier: &types.ResourceIdentifier{
			PolicyVersionIdentifier: &types.PolicyVersionIdentifier{PolicyName: aws.String("two"), PolicyVersionId: aws.String("1")}}}, 1},
		"an account": {sdk.ListAuditFindingsInput{TaskId: started.TaskId, ResourceIdentifier: &types.ResourceIdentifier{Account: aws.String(string(tenant.Account))}}, 0},
		"suppressed": {sdk.ListAuditFindingsInput{TaskId: started.TaskId, ListSuppressedFindings: true}, 0},
	} {
		if got := len(list(row.in)); got != row.want {
			t.Errorf("findings of %s: got %d, want %d", what, got, row.want)
		}
	}
	for what, in := range map[string]sdk.ListAuditFindingsInput{
		"neither": {}, "both": {TaskId: started.TaskId, StartTime: from, EndTime: to}, "no end": {StartTime: from}, "backwards": {StartTime: to, EndTime: from},
		"an unknown check": {TaskId: started.TaskId, CheckName: aws.String("NONE")}, "no resource": {TaskId: started.TaskId, ResourceIdentifier: &types.ResourceIdentifier{}},
	} {
		_, err := client.ListAuditFindings(t.Context(), &in)
		if err == nil || !strings.Contains(err.Error(), "InvalidRequestException") {
			t.Errorf("findings of %s: got %v, want InvalidRequestException", what, err)
		}
	}
	shared := list(sdk.ListAuditFindingsInput{TaskId: started.TaskId, CheckName: aws.String(checks[1])})[0]
	one, err := client.DescribeAuditFinding(t.Context(), &sdk.DescribeAuditFindingInput{FindingId: shared.FindingId})
	if err != nil || one.Finding.Severity != types.AuditFindingSeverityCritical || *one.Finding.NonCompliantResource.ResourceIdentifier.DeviceCertificateId != *cert.CertificateId ||
		!strings.Contains(one.Finding.NonCompliantResource.AdditionalInfo["mitigation"], "aws iot detach-thing-principal") || one.Finding.IsSuppressed == nil || *one.Finding.IsSuppressed {
		t.Errorf("got %+v, %v", one, err)
	}
	var things []string
	related := sdk.NewListRelatedResourcesForAuditFindingPaginator(client, &sdk.ListRelatedResourcesForAuditFindingInput{FindingId: shared.FindingId, MaxResults: aws.Int32(2)})
	for related.HasMorePages() {
		page, err := related.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.RelatedResources {
			things = append(things, r.AdditionalInfo["thingArn"][strings.LastIndex(r.AdditionalInfo["thingArn"], "/"):])
		}
	}
	if got := strings.Join(things, ""); got != "/a/b/c" {
		t.Errorf("got related things %q, want /a/b/c", got)
	}
	stranger := server.Client(server.NewTenant())
	_, err = stranger.DescribeAuditFinding(t.Context(), &sdk.DescribeAuditFindingInput{FindingId: shared.FindingId})
	if err == nil || !strings.Contains(err.Error(), "ResourceNotFoundException") {
		t.Errorf("another account's finding: got %v, want ResourceNotFoundException", err)
	}
	_, err = stranger.CancelAuditTask(t.Context(), &sdk.CancelAuditTaskInput{TaskId: started.TaskId})
	if err == nil || !strings.Contains(err.Error(), "ResourceNotFoundException") {
		t.Errorf("another account's audit: got %v, want ResourceNotFoundException", err)
	}
	_, err = client.CancelAuditTask(t.Context(), &sdk.CancelAuditTaskInput{TaskId: started.TaskId})
	if err == nil || !strings.Contains(err.Error(), "InvalidRequestException") {
		t.Errorf("canceling an audit that is over: got %v, want InvalidRequestException", err)
	}
	tasks, err := client.ListAuditTasks(t.Context(), &sdk.ListAuditTasksInput{StartTime: from, EndTime: to, TaskType: types.AuditTaskTypeOnDemandAuditTask, TaskStatus: types.AuditTaskStatusCompleted})
	if err != nil || len(tasks.Tasks) != 1 || *tasks.Tasks[0].TaskId != *started.TaskId {
		t.Errorf("got audits %+v, %v; want the one", tasks, err)
	}
}

// What a person types about schedules with the AWS CLI.
func TestTheAWSCLISchedulesAudits(t *testing.T) {
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
	create := func(name string, more ...string) []string {
		return append([]string{"create-scheduled-audit", "--scheduled-audit-name", name, "--target-check-names", "LOGGING_DISABLED_CHECK"}, more...)
	}
	refused("is disabled", create("early", "--frequency", "DAILY")...)
	cli.MustIoT(t, "update-account-audit-configuration", "--role-arn", auditRole, "--audit-check-configurations", `{"LOGGING_DISABLED_CHECK":{"enabled":true},"CONFLICTING_CLIENT_IDS_CHECK":{"enabled":true}}`)
	refused("dayOfWeek", create("a", "--frequency", "WEEKLY")...)
	refused("dayOfMonth", create("a", "--frequency", "MONTHLY")...)
	for _, audit := range [][]string{{"daily", "--frequency", "DAILY"}, {"weekly", "--frequency", "WEEKLY", "--day-of-week", "SUN"}, {"biweekly", "--frequency", "BIWEEKLY", "--day-of-week", "MON"},
		{"monthly", "--frequency", "MONTHLY", "--day-of-month", "31", "--tags", "Key=team,Value=security"}, {"last", "--frequency", "MONTHLY", "--day-of-month", "LAST"}} {
		cli.MustIoT(t, create(audit[0], audit[1:]...)...)
	}
	refused("LimitExceededException", create("sixth", "--frequency", "DAILY")...)
	refused("ResourceAlreadyExistsException", create("daily", "--frequency", "DAILY")...)
	var listed struct {
		ScheduledAudits []struct{ ScheduledAuditName, ScheduledAuditArn, Frequency, DayOfMonth, DayOfWeek string }
	}
	err := json.Unmarshal([]byte(cli.MustIoT(t, "list-scheduled-audits")), &listed)
	if err != nil || len(listed.ScheduledAudits) != 5 || listed.ScheduledAudits[4].DayOfWeek != "SUN" {
		t.Errorf("got %+v, %v", listed, err)
	}
	arn := tenant.ARN("scheduledaudit/monthly")
	if tags := cli.MustIoT(t, "list-tags-for-resource", "--resource-arn", arn); !strings.Contains(tags, "security") {
		t.Errorf("got tags %s", tags)
	}
	cli.MustIoT(t, "update-scheduled-audit", "--scheduled-audit-name", "monthly", "--frequency", "DAILY", "--target-check-names", "CONFLICTING_CLIENT_IDS_CHECK", "LOGGING_DISABLED_CHECK")
	told := cli.MustIoT(t, "describe-scheduled-audit", "--scheduled-audit-name", "monthly")
	if !strings.Contains(told, `"DAILY"`) || strings.Contains(told, "dayOfMonth") || !strings.Contains(told, "CONFLICTING_CLIENT_IDS_CHECK") || !strings.Contains(told, arn) {
		t.Errorf("got %s", told)
	}
	server.View(t, func(tx imprint.ReadTx) error {
		for _, name := range []string{"daily", "weekly", "biweekly", "monthly", "last"} {
			one, err := tx.ScheduledAudit(tenant, name)
			if err != nil || !one.NextAt.After(server.Clock.Now()) {
				t.Errorf("%s: %v, next at %s, want later than now", name, err, one.NextAt)
			}
		}
		return nil
	})
	cli.MustIoT(t, "delete-scheduled-audit", "--scheduled-audit-name", "monthly")
	refused("ResourceNotFoundException", "describe-scheduled-audit", "--scheduled-audit-name", "monthly")
	refused("ResourceNotFoundException", "list-tags-for-resource", "--resource-arn", arn)
	refused("ResourceNotFoundException", "delete-scheduled-audit", "--scheduled-audit-name", "monthly")
}

// What a person types with the AWS CLI about what is known: it is found and said to be
// suppressed, doesn't make the check non-compliant, and is told again afterwards.
func TestTheAWSCLISuppressesFindings(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	tenant := server.NewTenant()
	client := server.Client(tenant)
	cli := server.CLI(t, tenant, t.TempDir())
	const check = "IOT_POLICY_OVERLY_PERMISSIVE_CHECK"
	resource := `{"policyVersionIdentifier":{"policyName":"known","policyVersionId":"1"}}`
	about := func(command string, more ...string) []string {
		return append([]string{command, "--check-name", check, "--resource-identifier", resource}, more...)
	}
	refused := func(want string, args ...string) {
		t.Helper()
		_, stderr, ok := cli.IoT(t, args...)
		if ok || !strings.Contains(stderr, want) {
			t.Errorf("aws iot %q: got %q, want %s", args, stderr, want)
		}
	}
	cli.MustIoT(t, "create-policy", "--policy-name", "known", "--policy-document", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)
	cli.MustIoT(t, "update-account-audit-configuration", "--role-arn", auditRole, "--audit-check-configurations", `{"`+check+`":{"enabled":true}}`)
	// audit gives the counts of all and of suppressed resources, and the check's status.
	audit := func() (all, suppressed int64, status types.AuditCheckRunStatus, id string) {
		t.Helper()
		started, err := client.StartOnDemandAuditTask(t.Context(), &sdk.StartOnDemandAuditTaskInput{TargetCheckNames: []string{check}})
		if err != nil {
			t.Fatal(err)
		}
		details := auditOver(t, client, started.TaskId).AuditDetails[check]
		return *details.NonCompliantResourcesCount, *details.SuppressedNonCompliantResourcesCount, details.CheckRunStatus, *started.TaskId
	}
	expect := func(what string, suppressed int64, status types.AuditCheckRunStatus) {
		t.Helper()
		all, got, run, id := audit()
		if all != 1 || got != suppressed || run != status {
			t.Errorf("%s: got %d findings, %d suppressed, %s; want 1, %d, %s", what, all, got, run, suppressed, status)
		}
		for flag, want := range map[string]int64{"--list-suppressed-findings": suppressed, "--no-list-suppressed-findings": 1 - suppressed} {
			if n := int64(strings.Count(cli.MustIoT(t, "list-audit-findings", "--task-id", id, flag), "findingId")); n != want {
				t.Errorf("%s: got %d findings by %s, want %d", what, n, flag, want)
			}
		}
		told := cli.MustIoT(t, "list-audit-findings", "--task-id", id)
		if strings.Count(told, "findingId") != 1 || strings.Contains(told, `"isSuppressed": true`) != (suppressed == 1) {
			t.Errorf("%s: got %s", what, told)
		}
	}
	expect("before", 0, types.AuditCheckRunStatusCompletedNonCompliant)
	refused("suppressIndefinitely", about("create-audit-suppression")...)
	refused("in the past", about("create-audit-suppression", "--expiration-date", "2001-01-01")...)
	refused("no audit check", "create-audit-suppression", "--check-name", "NONE", "--resource-identifier", resource, "--suppress-indefinitely")
	refused("must name one resource", "create-audit-suppression", "--check-name", check, "--resource-identifier", "{}", "--suppress-indefinitely")
	cli.MustIoT(t, about("create-audit-suppression", "--suppress-indefinitely", "--description", "a lab", "--client-request-token", "once")...)
	cli.MustIoT(t, about("create-audit-suppression", "--suppress-indefinitely", "--client-request-token", "once")...)
	refused("ResourceAlreadyExistsException", about("create-audit-suppression", "--suppress-indefinitely")...)
	expect("suppressed", 1, types.AuditCheckRunStatusCompletedCompliant)
	if told := cli.MustIoT(t, about("describe-audit-suppression")...); !strings.Contains(told, `"suppressIndefinitely": true`) || !strings.Contains(told, "a lab") || !strings.Contains(told, `"known"`) || strings.Contains(told, "expirationDate") {
		t.Errorf("got %s", told)
	}
	// Another version of the policy is another resource.
	cli.MustIoT(t, "create-policy-version", "--policy-name", "known", "--set-as-default", "--policy-document", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)
	expect("of another version", 0, types.AuditCheckRunStatusCompletedNonCompliant)
	cli.MustIoT(t, "set-default-policy-version", "--policy-name", "known", "--policy-version-id", "1")
	end := server.Clock.Now().Add(time.Hour)
	cli.MustIoT(t, about("update-audit-suppression", "--expiration-date", end.Format(time.RFC3339))...)
	other := `{"clientId":"sensor"}`
	cli.MustIoT(t, "create-audit-suppression", "--check-name", "CONFLICTING_CLIENT_IDS_CHECK", "--resource-identifier", other, "--suppress-indefinitely")
	for _, row := range []struct {
		args []string
		want string
	}{
		{nil, check + " CONFLICTING_CLIENT_IDS_CHECK"}, {[]string{"--no-ascending-order"}, "CONFLICTING_CLIENT_IDS_CHECK " + check},
		{[]string{"--check-name", check}, check}, {[]string{"--resource-identifier", other}, "CONFLICTING_CLIENT_IDS_CHECK"},
	} {
		got := strings.Fields(cli.MustIoT(t, append([]string{"list-audit-suppressions", "--query", "suppressions[].checkName", "--output", "text"}, row.args...)...))
		if strings.Join(got, " ") != row.want {
			t.Errorf("list-audit-suppressions %q: got %q, want %q", row.args, got, row.want)
		}
	}
	expect("until then", 1, types.AuditCheckRunStatusCompletedCompliant)
	cli.MustIoT(t, about("delete-audit-suppression")...)
	refused("ResourceNotFoundException", about("describe-audit-suppression")...)
	refused("ResourceNotFoundException", about("update-audit-suppression", "--description", "x")...)
	cli.MustIoT(t, about("delete-audit-suppression")...)
	expect("after", 0, types.AuditCheckRunStatusCompletedNonCompliant)
	stranger := server.CLI(t, server.NewTenant(), t.TempDir())
	if told := stranger.MustIoT(t, "list-audit-suppressions"); strings.Contains(told, "sensor") {
		t.Errorf("another account sees %s", told)
	}
}
