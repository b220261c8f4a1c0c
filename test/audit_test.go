package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/eclipse/paho.golang/paho"
)

// auditReport is what `imprint audit --json` prints.
type auditReport struct {
	TaskID string `json:"taskId"`
	Status string `json:"taskStatus"`
	Checks map[string]struct {
		Status       string `json:"checkRunStatus"`
		Resources    int    `json:"totalResourcesCount"`
		NonCompliant int    `json:"nonCompliantResourcesCount"`
		Message      string `json:"message"`
	} `json:"checks"`
	Findings []struct {
		CheckName string `json:"checkName"`
		Severity  string `json:"severity"`
		Code      string `json:"reasonForNonComplianceCode"`
		Reason    string `json:"reasonForNonCompliance"`
		Resource  struct {
			Identifier map[string]any    `json:"resourceIdentifier"`
			Info       map[string]string `json:"additionalInfo"`
		} `json:"nonCompliantResource"`
	} `json:"findings"`
}

// audit runs `imprint audit` with checks, all without any, and gives its report and
// exit code.
func (s *server) audit(t *testing.T, checks ...string) (auditReport, int) {
	t.Helper()
	args := []string{"--json"}
	for _, check := range checks {
		args = append(args, "--check", check)
	}
	run := s.imprint(t, "audit", args...)
	var report auditReport
	err := json.Unmarshal([]byte(run.stdout), &report)
	if err != nil {
		t.Fatalf("imprint audit: exit code %d, %v\n%s", run.exit, err, run.all())
	}
	return report, run.exit
}

// lines are the findings as "CHECK resource CODE", sorted.
func (r auditReport) lines() []string {
	var all []string
	for _, f := range r.Findings {
		id := ""
		for _, member := range []string{"deviceCertificateId", "caCertificateId", "clientId"} {
			if text, has := f.Resource.Identifier[member].(string); has {
				id = text
			}
		}
		if version, has := f.Resource.Identifier["policyVersionIdentifier"].(map[string]any); has {
			id = fmt.Sprintf("%v:%v", version["policyName"], version["policyVersionId"])
		}
		for _, member := range []string{"thingArn", "templateArn"} {
			if arn := f.Resource.Info[member]; id == "" && arn != "" {
				id = arn[strings.LastIndexByte(arn, '/')+1:]
			}
		}
		all = append(all, strings.TrimSpace(f.CheckName+" "+id)+" "+f.Code)
	}
	slices.Sort(all)
	return all
}

// revocationList lets openssl revoke devices and writes the list of their CA.
func (f *factory) revocationList(t *testing.T, to string, version []string, devices ...*device) {
	t.Helper()
	config := []string{"ca", "-config", filepath.Join(f.dir, "openssl.cnf"), "-cert", f.cert, "-keyfile", f.key}
	for _, d := range devices {
		openssl(t, f.dir, append(config, "-revoke", d.cert)...)
	}
	openssl(t, f.dir, slices.Concat(config, []string{"-gencrl", "-crldays", "7", "-out", to}, version)...)
}

// A fleet with everything that can be wrong, made with openssl, the AWS CLI and devices
// that connect: each check finds its own and nothing else, by the AWS CLI and by
// imprint audit, and a mended fleet is compliant.
func TestAuditsFindWhatIsWrongWithAFleet(t *testing.T) {
	need(t, "bash", "aws", "openssl", "mosquitto_pub")
	t.Parallel()
	s := newStage(t)
	dir := t.TempDir()
	api := s.sdk(t)
	f := s.line(t, "Line")
	register := func(d *device, policy string) *device {
		out := must(api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{CertificatePem: aws.String(readFile(t, d.cert)), Status: types.CertificateStatusActive}))(t)
		if policy != "" {
			must(api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String(policy), Target: out.CertificateArn}))(t)
		}
		return d
	}
	// Everybody but these is well.
	s.join(t, f.device(t, "sensor-1", "P-256"))
	expiring := register(f.between(t, "expiring", time.Now().Add(-time.Hour), time.Now().Add(10*24*time.Hour)), "")
	withdrawn := register(f.between(t, "withdrawn", time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour)), "")
	err := os.MkdirAll(filepath.Join(s.dir, "crl"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(s.dir, "crl", "line.pem")
	f.revocationList(t, list, nil, withdrawn)
	report, exit := s.audit(t, "REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK")
	if run := report.Checks["REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK"]; exit != 1 || run.Status != "FAILED" || !strings.Contains(run.Message, "-crlexts") {
		t.Errorf("with a list of version 1: got exit code %d and %+v, want a failed check", exit, run)
	}
	f.revocationList(t, list, []string{"-crlexts", "list"})
	one, two, copied, revoked := register(selfSigned(t, "one"), "all"), register(selfSigned(t, "two"), "all"), register(selfSigned(t, "copied"), "all"), register(selfSigned(t, "revoked"), "all")
	for n := range 5 {
		d := one
		if n%2 == 1 {
			d = two
		}
		s.connect(t, d, "the-same", dialing{})
	}
	for n := range 5 {
		s.connect(t, copied, "copied", dialing{from: fmt.Sprintf("127.0.0.%d", 1+n%2)})
	}
	s.aws(t, dir, "iot update-certificate --new-status REVOKED --certificate-id "+revoked.id(t))
	_, err = s.dial(soon(t), t, revoked, "revoked", dialing{})
	if err == nil {
		t.Error("a revoked certificate was let in")
	}
	s.aws(t, dir, "iot create-thing --thing-name lonely")
	writeFile(t, filepath.Join(dir, "fleet.json"), `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"devices"}}}}`)
	s.aws(t, dir, "iot create-provisioning-template --template-name never --enabled --provisioning-role-arn "+role+" --template-body file://fleet.json")
	writeFile(t, filepath.Join(dir, "claim.json"), `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["`+arn+`topic/$aws/certificates/create/*","`+arn+`topic/$aws/provisioning-templates/*"]},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"`+arn+`topicfilter/$aws/*"}]}`)
	s.aws(t, dir, "iot create-policy --policy-name claim --policy-document file://claim.json")
	claim := register(selfSigned(t, "claim"), "claim")
	run := s.shell(t, dir, "imprint claim guard "+claim.id(t)+" --quota 1")
	if run.exit != 0 {
		t.Fatal(run.all())
	}

	want := []string{
		"CONFLICTING_CLIENT_IDS_CHECK copied DUPLICATE_CLIENT_ID_ACROSS_CONNECTIONS", "CONFLICTING_CLIENT_IDS_CHECK the-same DUPLICATE_CLIENT_ID_ACROSS_CONNECTIONS",
		"DEVICE_CERTIFICATE_EXPIRING_CHECK " + expiring.id(t) + " CERTIFICATE_APPROACHING_EXPIRATION",
		"DEVICE_CERTIFICATE_SHARED_CHECK " + copied.id(t) + " CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES",
		"IMPRINT_CLAIM_POLICY_TOO_WIDE_CHECK claim:1 CLAIM_POLICY_ALLOWS_MORE_THAN_PROVISIONING",
		"IMPRINT_TEMPLATE_PARAMETER_UNRESOLVED_CHECK never TEMPLATE_PARAMETER_NEVER_GIVEN",
		"IMPRINT_THING_WITHOUT_CERTIFICATE_CHECK lonely THING_WITHOUT_CERTIFICATE",
		"IOT_POLICY_OVERLY_PERMISSIVE_CHECK all:1 ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS",
		"REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK " + revoked.id(t) + " CERTIFICATE_REVOKED_STILL_USED",
		"REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK " + withdrawn.id(t) + " CERTIFICATE_REVOKED_BY_ISSUER",
	}
	slices.Sort(want)
	// How connections ended is written down a moment after they did.
	deadline := time.Now().Add(patience)
	report, exit = s.audit(t)
	for !slices.Equal(report.lines(), want) && time.Now().Before(deadline) {
		report, exit = s.audit(t)
	}
	if got := report.lines(); !slices.Equal(got, want) || exit != 3 {
		t.Fatalf("imprint audit: exit code %d, want 3, and\n got %s\nwant %s", exit, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	text := s.imprint(t, "audit", "--check", "IOT_POLICY_OVERLY_PERMISSIVE_CHECK")
	if text.exit != 3 || !strings.Contains(text.stdout, "CRITICAL") || !strings.Contains(text.stdout, "-> aws iot create-policy-version --policy-name all") {
		t.Errorf("imprint audit in words: exit code %d\n%s", text.exit, text.all())
	}
	if metrics := s.metrics(t); !strings.Contains(metrics, `imprint_audit_noncompliant_resources{check="REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK"} 2`) || !strings.Contains(metrics, `imprint_audits_total{outcome="completed"}`) {
		t.Errorf("/metrics doesn't tell of the audit")
	}

	// The same with the AWS CLI alone.
	s.aws(t, dir, `iot update-account-audit-configuration --role-arn `+role+` --audit-check-configurations '{"DEVICE_CERTIFICATE_EXPIRING_CHECK":{"enabled":true},"CONFLICTING_CLIENT_IDS_CHECK":{"enabled":true}}'`)
	task := s.aws(t, dir, "iot start-on-demand-audit-task --target-check-names DEVICE_CERTIFICATE_EXPIRING_CHECK CONFLICTING_CLIENT_IDS_CHECK --query taskId --output text")
	for deadline := time.Now().Add(patience); s.aws(t, dir, "iot describe-audit-task --task-id "+task+" --query taskStatus --output text") != "COMPLETED"; {
		if time.Now().After(deadline) {
			t.Fatal("the audit isn't over in time")
		}
	}
	counts := s.aws(t, dir, "iot describe-audit-task --task-id "+task+" --query 'auditDetails.*.nonCompliantResourcesCount' --output text")
	if got := strings.Fields(counts); !slices.Contains(got, "1") || !slices.Contains(got, "2") {
		t.Errorf("aws iot describe-audit-task: got counts %q, want 1 and 2", counts)
	}
	fix := s.aws(t, dir, "iot list-audit-findings --task-id "+task+" --check-name DEVICE_CERTIFICATE_EXPIRING_CHECK --query 'findings[0].nonCompliantResource.additionalInfo.mitigation' --output text")
	_, command, found := strings.Cut(fix, "Then: ")
	if !found {
		t.Fatalf("got mitigation %q, want a command at its end", fix)
	}
	// What a finding says can be typed.
	s.aws(t, dir, strings.TrimPrefix(command, "aws "))
	again, exit := s.audit(t, "DEVICE_CERTIFICATE_EXPIRING_CHECK")
	if len(again.Findings) != 0 || exit != 0 {
		t.Errorf("after the mitigation: got exit code %d and %+v, want none", exit, again.Findings)
	}
}

// An audit that a kill interrupts is over after the next start, says so, and has
// counted everything once.
func TestAuditsSurviveAKill(t *testing.T) {
	need(t, "aws", "bash")
	t.Parallel()
	s := newServer(t, "--audit-rest", "1000", "--api-rate", "0")
	s.start()
	s.readEnv()
	api := s.sdk(t)
	const things = 1100
	for n := range things {
		must(api.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: aws.String(fmt.Sprintf("thing-%04d", n))}))(t)
	}
	dir := t.TempDir()
	s.aws(t, dir, `iot update-account-audit-configuration --role-arn `+role+` --audit-check-configurations '{"LOGGING_DISABLED_CHECK":{"enabled":true},"IMPRINT_THING_WITHOUT_CERTIFICATE_CHECK":{"enabled":true}}'`)
	started := must(api.StartOnDemandAuditTask(t.Context(), &iot.StartOnDemandAuditTaskInput{TargetCheckNames: []string{"LOGGING_DISABLED_CHECK", "IMPRINT_THING_WITHOUT_CERTIFICATE_CHECK"}}))(t)
	describe := func() *iot.DescribeAuditTaskOutput {
		t.Helper()
		return must(s.sdk(t).DescribeAuditTask(t.Context(), &iot.DescribeAuditTaskInput{TaskId: started.TaskId}))(t)
	}
	const check = "IMPRINT_THING_WITHOUT_CERTIFICATE_CHECK"
	await := func(what string, ok func(*iot.DescribeAuditTaskOutput) bool) *iot.DescribeAuditTaskOutput {
		t.Helper()
		deadline := time.Now().Add(patience)
		for {
			task := describe()
			if ok(task) {
				return task
			}
			if time.Now().After(deadline) {
				t.Fatalf("waited for %s: %+v", what, task)
			}
		}
	}
	// The first page is stored, and the audit rests for a thousand times as long.
	task := await("a first page", func(task *iot.DescribeAuditTaskOutput) bool {
		details, has := task.AuditDetails[check]
		return has && aws.ToInt64(details.NonCompliantResourcesCount) > 0
	})
	if got := aws.ToInt64(task.AuditDetails[check].NonCompliantResourcesCount); got != 500 || task.TaskStatus != types.AuditTaskStatusInProgress {
		t.Fatalf("got %d resources and %s before the kill, want 500 and IN_PROGRESS", got, task.TaskStatus)
	}
	// Meanwhile another audit waits for its turn; Ctrl-C cancels it.
	const asked = `imprint_api_requests_total{code="",operation="DescribeAuditTask",status="200"}`
	before := s.metric(t, asked)
	waiting, said := exec.CommandContext(soon(t), program, "audit", "--data", s.dir), newSaid()
	waiting.Env, waiting.Stdout, waiting.Stderr = cleanEnv(), said, said
	err := waiting.Start()
	if err != nil {
		t.Fatal(err)
	}
	until(t, "imprint audit to ask for its audit", func() bool { return s.metric(t, asked) > before })
	_ = waiting.Process.Signal(os.Interrupt)
	_ = waiting.Wait() // what it says is looked at
	canceled := s.aws(t, dir, "iot list-audit-tasks --start-time 2020-01-01 --end-time 2100-01-01 --task-status CANCELED --query 'length(tasks)'")
	if !strings.Contains(said.String(), "was canceled") || canceled != "1" {
		t.Errorf("imprint audit and Ctrl-C: got\n%s\nand %s canceled audits, want one", said, canceled)
	}
	s.signal(killed)
	s.flags = []string{"--audit-rest", "0", "--api-rate", "0"}
	s.start()
	task = await("the end", func(task *iot.DescribeAuditTaskOutput) bool {
		return task.TaskStatus != types.AuditTaskStatusInProgress
	})
	details := task.AuditDetails[check]
	if task.TaskStatus != types.AuditTaskStatusCompleted || aws.ToInt64(details.NonCompliantResourcesCount) != things || aws.ToInt64(details.TotalResourcesCount) != things || !strings.Contains(aws.ToString(details.Message), "stopped") {
		t.Errorf("after the kill: got %s, %d of %d, %q; want COMPLETED, all %d, and a word on the stop", task.TaskStatus, aws.ToInt64(details.NonCompliantResourcesCount), aws.ToInt64(details.TotalResourcesCount), aws.ToString(details.Message), things)
	}
	if got := task.AuditDetails["LOGGING_DISABLED_CHECK"].CheckRunStatus; got != types.AuditCheckRunStatusCompletedCompliant {
		t.Errorf("the check that was over before the kill: got %s", got)
	}
	found := 0
	pages := iot.NewListAuditFindingsPaginator(s.sdk(t), &iot.ListAuditFindingsInput{TaskId: started.TaskId, MaxResults: aws.Int32(250)})
	for pages.HasMorePages() {
		found += len(must(pages.NextPage(t.Context()))(t).Findings)
	}
	if found != things {
		t.Errorf("got %d findings, want %d", found, things)
	}
}

// Settings under which nobody can say why a device isn't connected are found.
func TestAuditsFindThatTheTraceIsOff(t *testing.T) {
	t.Parallel()
	for settings, want := range map[string]string{"--trace=false": "is off", "--trace-retention=1h": "1h0m0s", "--trace-keep=10": "10 attempts"} {
		s := startServer(t, settings)
		report, exit := s.audit(t, "LOGGING_DISABLED_CHECK")
		if exit != 3 || len(report.Findings) != 1 || report.Findings[0].Code != "LOGGING_DISABLED" || !strings.Contains(report.Findings[0].Reason, want) {
			t.Errorf("with %s: got exit code %d and %+v, want LOGGING_DISABLED", settings, exit, report.Findings)
		}
	}
}

// Two devices with one certificate are told while both are on, and when they were.
func TestAuditsSeeWhoSharesACertificateNow(t *testing.T) {
	need(t, "bash", "aws", "openssl")
	t.Parallel()
	s := startServer(t, "--min-keep-alive", "1s")
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "policy.json"), watcherPolicy)
	s.aws(t, dir, "iot create-policy --policy-name all --policy-document file://policy.json")
	copied, alone := selfSigned(t, "copied"), selfSigned(t, "alone")
	for _, d := range []*device{copied, alone} {
		s.aws(t, dir, "iot attach-policy --policy-name all --target "+
			s.aws(t, dir, "iot register-certificate-without-ca --status ACTIVE --certificate-pem file://"+d.cert+" --query certificateArn --output text"))
	}
	const check = "DEVICE_CERTIFICATE_SHARED_CHECK"
	await := func(want ...string) auditReport {
		t.Helper()
		deadline := time.Now().Add(patience)
		for {
			report, _ := s.audit(t, check)
			if slices.Equal(report.lines(), want) {
				return report
			}
			if time.Now().After(deadline) {
				t.Fatalf("got %q, want %q", report.lines(), want)
			}
		}
	}
	s.connect(t, alone, "alone", dialing{keepAlive: 1})
	one := s.connect(t, copied, "one", dialing{keepAlive: 1, from: "127.0.0.2"})
	await()
	two := s.connect(t, copied, "two", dialing{keepAlive: 1, from: "127.0.0.3"})
	shared := check + " " + copied.id(t) + " CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES"
	report := await(shared)
	if reason := report.Findings[0].Reason; !strings.Contains(reason, "127.0.0.2") || !strings.Contains(reason, "127.0.0.3") {
		t.Errorf("got %q, want both addresses in it", reason)
	}
	// The one that came first is the one that says good-bye later than the other came.
	for _, c := range []*mqtt5{one, two} {
		err := c.Disconnect(&paho.Disconnect{})
		if err != nil {
			t.Fatal(err)
		}
		await(shared)
	}
}
