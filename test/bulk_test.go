package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

const bulkThings = `{"Parameters":{"Name":{"Type":"String"}},"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Name"},"AttributePayload":{"from":"bulk"}}}}}`

// bulkLines writes an input of things into the server's directory.
func (s *server) bulkLines(t *testing.T, key string, n int, more ...string) {
	t.Helper()
	dir := filepath.Join(s.dir, "bulk", "lines")
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(dir, key))
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(file)
	for i := range n {
		_, _ = fmt.Fprintf(w, "{\"Name\":\"unit-%07d\"}\n", i)
	}
	_, _ = w.WriteString(strings.Join(more, "\n"))
	err = w.Flush()
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *server) startBulk(t *testing.T, key string, change ...func(*iot.Options)) string {
	t.Helper()
	out := must(s.sdk(t, change...).StartThingRegistrationTask(t.Context(), &iot.StartThingRegistrationTaskInput{
		TemplateBody: aws.String(bulkThings), InputFileBucket: aws.String("lines"), InputFileKey: aws.String(key), RoleArn: aws.String(role),
	}))(t)
	return aws.ToString(out.TaskId)
}

// awaitBulk waits until a task is as wanted.
func (s *server) awaitBulk(t *testing.T, id string, ok func(*iot.DescribeThingRegistrationTaskOutput) bool, change ...func(*iot.Options)) *iot.DescribeThingRegistrationTaskOutput {
	t.Helper()
	api := s.sdk(t, change...)
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		out := must(api.DescribeThingRegistrationTask(t.Context(), &iot.DescribeThingRegistrationTaskInput{TaskId: aws.String(id)}))(t)
		if ok(out) {
			return out
		}
		select {
		case <-deadline.C:
			t.Fatalf("the task is %s after %d lines: %s", out.Status, out.SuccessCount, aws.ToString(out.Message))
		case <-ticker.C:
		}
	}
}

func isOver(out *iot.DescribeThingRegistrationTaskOutput) bool {
	return out.Status != types.StatusInProgress && out.Status != types.StatusCancelling
}

func TestTheCLIRegistersInBulk(t *testing.T) {
	need(t, "bash", "aws", "curl")
	t.Parallel()
	s := startServer(t)
	s.bulkLines(t, "in.json", 300, "nonsense", `{"Name":"not a name"}`, `{"Name":"last"}`)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "template.json"), bulkThings)
	id := s.aws(t, dir, "iot start-thing-registration-task --template-body file://template.json --input-file-bucket lines --input-file-key in.json --role-arn "+role+" --query taskId --output text")
	done := s.awaitBulk(t, id, isOver)
	if done.Status != types.StatusCompleted || done.SuccessCount != 301 || done.FailureCount != 2 || done.PercentageProgress != 100 {
		t.Errorf("got %s, %d registered, %d failed, %d%%", done.Status, done.SuccessCount, done.FailureCount, done.PercentageProgress)
	}
	if tasks := s.aws(t, dir, "iot list-thing-registration-tasks --status Completed --query taskIds --output text"); tasks != id {
		t.Errorf("got the tasks %s, want %s", tasks, id)
	}
	report := func(kind string) []string {
		run := s.shell(t, dir, `url=$(aws iot list-thing-registration-task-reports --task-id `+id+` --report-type `+kind+` --query resourceLinks --output text)
curl -sS --fail --cacert "$AWS_CA_BUNDLE" "$url"`)
		if run.exit != 0 {
			t.Fatalf("exit code %d\n%s", run.exit, run.all())
		}
		return strings.Split(strings.TrimSpace(run.stdout), "\n")
	}
	results := report("RESULTS")
	if want := `{"lineNumber":303,"offset":`; len(results) != 301 || !strings.HasPrefix(results[300], want) || !strings.Contains(results[300], `"thing":"arn:aws:iot:us-east-1:000000000000:thing/last"`) {
		t.Errorf("got %d results, the last %s", len(results), results[len(results)-1])
	}
	errorsFound := report("ERRORS")
	if len(errorsFound) != 2 || !strings.HasPrefix(errorsFound[0], `{"lineNumber":301,`) || !strings.Contains(errorsFound[1], `"errorCode":"InvalidRequestException"`) {
		t.Errorf("got the errors\n%s", strings.Join(errorsFound, "\n"))
	}
	run := s.shell(t, dir, `url=$(aws iot list-thing-registration-task-reports --task-id `+id+` --report-type RESULTS --query resourceLinks --output text)
curl -sS -o /dev/null -w '%{http_code}' --cacert "$AWS_CA_BUNDLE" "${url/RESULTS/ERRORS}"`)
	if run.stdout != "403" {
		t.Errorf("a URL that isn't the server's: got %s, want 403", run.all())
	}
	tool := runTool(t, "", cleanEnv(), program, "bulk", "reports", id, "--errors", "--data", s.dir)
	if tool.exit != 0 || strings.TrimSpace(tool.stdout) != strings.Join(errorsFound, "\n") {
		t.Errorf("imprint bulk reports: exit code %d\n%s", tool.exit, tool.all())
	}
	s.checkLinesAreTold(t, id)
	// Another account sees none of it.
	other := s.addAccount(t, "111111111111")
	_, err := s.sdk(t, withKey(other, "us-east-1")).DescribeThingRegistrationTask(t.Context(), &iot.DescribeThingRegistrationTaskInput{TaskId: aws.String(id)})
	if err == nil || !strings.Contains(err.Error(), "ResourceNotFoundException") {
		t.Errorf("another account describes the task: %v", err)
	}
	// Nor has it the first account's file; a file of its own makes its own devices.
	foreign := s.awaitBulk(t, s.startBulk(t, "in.json", withKey(other, "us-east-1")), isOver, withKey(other, "us-east-1"))
	if foreign.Status != types.StatusFailed || foreign.SuccessCount != 0 {
		t.Errorf("another account's task over this account's file: got %s with %d registered, want Failed", foreign.Status, foreign.SuccessCount)
	}
}

// checkLinesAreTold looks at what imprint explain says about the lines of
// TestTheCLIRegistersInBulk.
func (s *server) checkLinesAreTold(t *testing.T, task string) {
	t.Helper()
	for line, want := range map[string][]string{
		"301": {"refused InvalidRequest", "line 301 of lines/in.json", "isn't a JSON object", "Write one object a line"},
		"302": {"refused TemplateValueInvalid", `Name = "not a name" (the line)`, "template.plan", "imprint bulk reports " + task + " --errors"},
		"1":   {"registered", "line 1 of lines/in.json", `Name = "unit-0000000" (the line)`, "thing unit-0000000 created"},
	} {
		run := s.imprint(t, "explain", task+":"+line)
		for _, part := range want {
			if !strings.Contains(run.stdout, part) {
				t.Errorf("imprint explain of line %s doesn't say %q:\n%s", line, part, run.all())
			}
		}
	}
	groups := s.imprint(t, "attempts", "--failed", "--group-by", "reason").stdout
	if !strings.Contains(groups, "TemplateValueInvalid at template.plan") || !strings.Contains(groups, "InvalidRequest at bulk.line") {
		t.Errorf("the groups of failures say\n%s", groups)
	}
	if list := s.explain(t, "unit-0000000"); len(list) != 1 || list[0].Address != task+":1" || list[0].Outcome != "registered" {
		t.Errorf("the thing's timeline is %+v, want its line", list)
	}
}

// TestAccountsBulkInputsAreApart ensures that two accounts register from files of
// the same bucket and key at once, each from its own and for itself.
func TestAccountsBulkInputsAreApart(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	other := withKey(s.addAccount(t, "111111111111"), "us-east-1")
	s.bulkLines(t, "in.json", 700)
	theirs := filepath.Join(s.dir, "bulk", "111111111111", "lines")
	err := os.MkdirAll(theirs, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(theirs, "in.json"), "{\"Name\":\"theirs\"}\n{\"Name\":\"unit-0000000\"}\n")
	first, second := s.startBulk(t, "in.json"), s.startBulk(t, "in.json", other)
	if done := s.awaitBulk(t, first, isOver); done.Status != types.StatusCompleted || done.SuccessCount != 700 {
		t.Errorf("the first account: got %s, %d registered", done.Status, done.SuccessCount)
	}
	if done := s.awaitBulk(t, second, isOver, other); done.Status != types.StatusCompleted || done.SuccessCount != 2 {
		t.Errorf("the second account: got %s, %d registered: %s", done.Status, done.SuccessCount, aws.ToString(done.Message))
	}
	things := must(s.sdk(t, other).ListThings(t.Context(), &iot.ListThingsInput{}))(t).Things
	if len(things) != 2 {
		t.Errorf("the second account has %d things, want 2", len(things))
	}
	_, err = s.sdk(t).DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: aws.String("theirs")})
	if err == nil || !strings.Contains(err.Error(), "ResourceNotFoundException") {
		t.Errorf("the first account has the second one's thing: %v", err)
	}
	// The second account can name the first one's files in no way.
	for _, name := range [][2]string{{"000000000000", "lines/in.json"}, {"lines", "../../lines/in.json"}, {"lines", "../../000000000000/lines/in.json"}} {
		out := must(s.sdk(t, other).StartThingRegistrationTask(t.Context(), &iot.StartThingRegistrationTaskInput{
			TemplateBody: aws.String(bulkThings), InputFileBucket: aws.String(name[0]), InputFileKey: aws.String(name[1]), RoleArn: aws.String(role),
		}))(t)
		if done := s.awaitBulk(t, aws.ToString(out.TaskId), isOver, other); done.Status != types.StatusFailed || done.SuccessCount != 0 {
			t.Errorf("the second account's task over %s/%s: got %s, %d registered", name[0], name[1], done.Status, done.SuccessCount)
		}
	}
}

// addAccount adds an account and gives its operator's key.
func (s *server) addAccount(t *testing.T, id string) aws.Credentials {
	t.Helper()
	var made struct{ AccessKeyID, SecretAccessKey string }
	err := json.Unmarshal([]byte(s.account(t, "add", id, "--json")), &made)
	if err != nil || made.SecretAccessKey == "" {
		t.Fatalf("got the key %q, %v", made.AccessKeyID, err)
	}
	return aws.Credentials{AccessKeyID: made.AccessKeyID, SecretAccessKey: made.SecretAccessKey}
}

// TestABulkRegistrationOutlivesKills ensures that each line is registered once
// although the server is killed again and again, and that a stopped task stays
// stopped.
func TestABulkRegistrationOutlivesKills(t *testing.T) {
	t.Parallel()
	const lines = 20_000
	s := startServer(t)
	s.bulkLines(t, "in.json", lines, "nonsense")
	id := s.startBulk(t, "in.json")
	for n := range 4 {
		least := int32((n + 1) * lines / 8)
		s.awaitBulk(t, id, func(out *iot.DescribeThingRegistrationTaskOutput) bool {
			return out.SuccessCount >= least || isOver(out)
		})
		s.signal(syscall.SIGKILL)
		s.start()
	}
	done := s.awaitBulk(t, id, isOver)
	if done.Status != types.StatusCompleted || done.SuccessCount != lines || done.FailureCount != 1 {
		t.Fatalf("got %s, %d registered, %d failed: %s", done.Status, done.SuccessCount, done.FailureCount, aws.ToString(done.Message))
	}
	report := runTool(t, "", cleanEnv(), program, "bulk", "reports", id, "--data", s.dir)
	seen := map[string]bool{}
	for line := range strings.Lines(report.stdout) {
		var v struct {
			LineNumber int
			Response   struct{ ResourceArns map[string]string }
		}
		err := json.Unmarshal([]byte(line), &v)
		want := fmt.Sprintf("arn:aws:iot:us-east-1:000000000000:thing/unit-%07d", v.LineNumber-1)
		if err != nil || v.Response.ResourceArns["thing"] != want || seen[want] {
			t.Fatalf("the report has the line %s (again %t), %v", line, seen[want], err)
		}
		seen[want] = true
	}
	if len(seen) != lines {
		t.Errorf("the report has %d lines, want %d", len(seen), lines)
	}
	// Each was made once: an update would have raised its version.
	version := must(s.sdk(t).DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: aws.String("unit-0010000")}))(t).Version
	if version != 1 {
		t.Errorf("a thing has version %d, want 1", version)
	}
	second := s.startBulk(t, "in.json")
	s.awaitBulk(t, second, func(out *iot.DescribeThingRegistrationTaskOutput) bool { return out.SuccessCount > 0 })
	must(s.sdk(t).StopThingRegistrationTask(t.Context(), &iot.StopThingRegistrationTaskInput{TaskId: aws.String(second)}))(t)
	stopped := s.awaitBulk(t, second, isOver)
	s.signal(syscall.SIGKILL)
	s.start()
	again := s.awaitBulk(t, second, isOver)
	if stopped.Status != types.StatusCancelled || again.SuccessCount != stopped.SuccessCount || stopped.SuccessCount >= lines {
		t.Errorf("got %s after %d lines, then %s after %d", stopped.Status, stopped.SuccessCount, again.Status, again.SuccessCount)
	}
}
