package test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// functionZip is an ordinary AWS Lambda function in Go, compiled and packed once.
var functionZip = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "imprint-function-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "bootstrap")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, "./functions/testfunction")
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("couldn't build the function: %w\n%s", err, out)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	part, err := w.Create("bootstrap")
	if err == nil {
		_, err = part.Write(program)
	}
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
})

// functionDir gives a directory with f.zip in it.
func functionDir(t *testing.T) string {
	t.Helper()
	code, err := functionZip()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err = os.WriteFile(filepath.Join(dir, "f.zip"), code, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// openDirectory is one that functions can write, whoever they run as: not below /tmp,
// where a server that is root gives each process its own.
func openDirectory(t *testing.T) string {
	t.Helper()
	parent := ""
	if os.Geteuid() == 0 {
		parent = "/var/cache"
	}
	dir, err := os.MkdirTemp(parent, "imprint-open-")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

const createFunction = `lambda create-function --zip-file fileb://f.zip --function-name f --runtime provided.al2023 --handler bootstrap --role arn:aws:iam::000000000000:role/x`

const invokeFunction = `lambda invoke --function-name f --cli-binary-format raw-in-base64-out --payload `

// invoke runs the function f through the AWS CLI and gives what the CLI says and
// what the function answered.
func (s *server) invoke(t *testing.T, dir, event, more string) (said map[string]any, answer string) {
	t.Helper()
	out := s.aws(t, dir, invokeFunction+"'"+event+"' "+more+" out.json")
	err := json.Unmarshal([]byte(out), &said)
	if err != nil {
		t.Fatalf("aws lambda invoke: %v\n%s", err, out)
	}
	return said, readFile(t, filepath.Join(dir, "out.json"))
}

// The AWS CLI puts a function of aws-lambda-go onto the server, runs it, changes
// it and takes it away.
func TestTheAWSCLIManagesAndInvokesFunctions(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t)
	dir := functionDir(t)
	s.aws(t, dir, createFunction+` --environment 'Variables={AB=b}' --timeout 20 --tags a=1,b=2`)
	s.aws(t, dir, `lambda wait function-active-v2 --function-name f`)
	said, answer := s.invoke(t, dir, `{"do":"echo","value":"hi"}`, "--log-type Tail")
	if said["StatusCode"] != 200.0 || said["ExecutedVersion"] != "$LATEST" || said["LogResult"] == "" || !strings.Contains(answer, `"value":"hi"`) {
		t.Errorf("got %v and %s", said, answer)
	}
	said, answer = s.invoke(t, dir, `{"do":"fail","value":"no such device"}`, "")
	if said["FunctionError"] != "Unhandled" || !strings.Contains(answer, `"errorMessage":"no such device"`) {
		t.Errorf("got %v and %s", said, answer)
	}
	said, _ = s.invoke(t, dir, `{}`, "--invocation-type DryRun")
	if said["StatusCode"] != 204.0 {
		t.Errorf("a dry run: got %v", said)
	}
	// The function calls this server's control plane with AWS's SDK and nothing but
	// its environment.
	said, answer = s.invoke(t, dir, `{"do":"iot","value":"made-by-a-function"}`, "")
	if answer != `"`+arn+`thing/made-by-a-function"` {
		t.Errorf("got %v and %s", said, answer)
	}
	const f = "arn:aws:lambda:us-east-1:000000000000:function:f"
	policy := `{"Version":"2012-10-17","Id":"default","Statement":[{"Sid":"s","Effect":"Allow","Principal":{"Service":"iot.amazonaws.com"},"Action":"lambda:InvokeFunction","Resource":"` +
		f + `","Condition":{"ArnLike":{"AWS:SourceArn":"` + arn + `provisioningtemplate/t"},"StringEquals":{"AWS:SourceAccount":"000000000000"}}}]}`
	for _, step := range []struct{ command, want string }{
		{`add-permission --function-name f --statement-id s --action lambda:InvokeFunction --principal iot.amazonaws.com --source-arn ` + arn +
			`provisioningtemplate/t --source-account 000000000000 --query 'length(keys(@))'`, "1"},
		{`get-policy --function-name f --query Policy --output text`, policy},
		{`remove-permission --function-name f --statement-id s`, ""},
		// What Terraform's provider reads of a function, and how it changes tags.
		{`get-function --function-name f --query '[Tags.a,Tags.b,Code!=null]' --output text`, "1\t2\tTrue"},
		{`get-function-code-signing-config --function-name f --query '[FunctionName,CodeSigningConfigArn]' --output text`, "f\tNone"},
		{`list-versions-by-function --function-name f --max-items 10000 --no-paginate --query '[Versions[-1].FunctionArn,NextMarker]' --output text`, f + ":$LATEST\tNone"},
		{`untag-resource --resource ` + f + ` --tag-keys b c`, ""},
		{`tag-resource --resource ` + f + ` --tags a=3,d=`, ""},
		{`list-tags --resource ` + f + ` --query '[Tags.a,Tags.b,Tags.d]' --output text`, "3\tNone"},
		{`publish-version --function-name f --query FunctionArn --output text`, f + ":1"},
		{`create-alias --function-name f --name prod --function-version 1 --query AliasArn --output text`, f + ":prod"},
		{`update-function-code --function-name f --zip-file fileb://f.zip --query LastUpdateStatus --output text`, "Successful"},
		{`wait function-updated --function-name f`, ""},
		{`update-function-configuration --function-name f --memory-size 256 --environment 'Variables={CD=d}' --query '[MemorySize,Environment.Variables.CD]' --output text`, "256\td"},
		{`invoke --function-name f:prod --payload '{}' out.json --query ExecutedVersion --output text`, "1"},
		{`list-functions --query 'Functions[].FunctionName' --output text`, "f"},
		{`list-versions-by-function --function-name f --query 'Versions[].Version' --output text`, "$LATEST\t1"},
		{`list-aliases --function-name f --query 'Aliases[].Name' --output text`, "prod"},
		{`get-alias --function-name f --name prod --query FunctionVersion --output text`, "1"},
		{`get-function --function-name f --query 'Configuration.[State,Handler]' --output text`, "Active\tbootstrap"},
		{`delete-alias --function-name f --name prod`, ""},
		{`delete-function --function-name f`, ""},
		{`list-functions --query 'length(Functions)' --output text`, "0"},
	} {
		if got := s.aws(t, dir, "lambda "+step.command); got != step.want {
			t.Errorf("aws lambda %s: got %q, want %q", step.command, got, step.want)
		}
	}
}

func TestWhatTheAWSCLIIsRefusedAboutFunctions(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t)
	dir := functionDir(t)
	s.aws(t, dir, createFunction)
	writeFile(t, filepath.Join(dir, "large.json"), `"`+strings.Repeat("x", 6<<20)+`"`)
	writeFile(t, filepath.Join(dir, "text.json"), `not JSON`)
	writeFile(t, filepath.Join(dir, "text.zip"), "PK\x05\x06"+strings.Repeat("\x00", 18))
	for command, want := range map[string]string{
		createFunction: "ResourceConflictException",
		strings.Replace(createFunction, "provided.al2023", "java21", 1):                          "InvalidParameterValueException",
		strings.Replace(createFunction, "f.zip", "text.zip", 1) + " --timeout 901":               "InvalidParameterValueException",
		`lambda get-function --function-name g`:                                                  "ResourceNotFoundException",
		`lambda get-policy --function-name f`:                                                    "ResourceNotFoundException",
		`lambda invoke --function-name g out.json`:                                               "ResourceNotFoundException",
		`lambda invoke --function-name f --payload fileb://large.json out.json`:                  "RequestTooLargeException",
		`lambda invoke --function-name f --payload fileb://text.json out.json`:                   "InvalidRequestContentException",
		`lambda update-function-configuration --function-name f --revision-id x --description d`: "PreconditionFailedException",
		`lambda list-layers`: "NotImplementedException",
	} {
		run := s.shell(t, dir, "aws "+command)
		if run.exit == 0 || !strings.Contains(run.stderr, want) {
			t.Errorf("aws %.120s: exit code %d, got %s, want %s", command, run.exit, run.all(), want)
		}
	}
}

// A function of one account is nothing to another's that has the same name: each
// lists, runs, changes and deletes its own.
func TestFunctionsOfOneNameInTwoAccountsAreTwo(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t)
	dir := functionDir(t)
	one, two := s.twoAccounts(t)
	const list = `lambda list-functions --query 'length(Functions)' --output text`
	s.as(t, one, dir, createFunction+" --environment 'Variables={AB=one}' --timeout 60")
	if got := s.as(t, two, dir, list); got != "0" {
		t.Errorf("functions of the other account: got %s, want 0", got)
	}
	for _, command := range []string{
		"lambda get-function --function-name f", "lambda invoke --function-name f out.json", "lambda delete-function --function-name f",
		"lambda get-function --function-name arn:aws:lambda:us-east-1:000000000000:function:f",
	} {
		run := s.shell(t, dir, as(two.key)+"aws "+command)
		if run.exit == 0 || !strings.Contains(run.stderr, "ResourceNotFoundException") && !strings.Contains(run.stderr, "AccessDeniedException") {
			t.Errorf("the other account: aws %s: got exit code %d and %s", command, run.exit, run.all())
		}
	}
	s.as(t, two, dir, createFunction+" --environment 'Variables={AB=two}' --timeout 60")
	for _, a := range []tenancy{one, two} {
		// It makes its thing in the account whose credentials it was given.
		s.as(t, a, dir, invokeFunction+`'{"do":"iot","value":"of-`+accountOf(a, one)+`"}' out.json`)
		s.checkThings(t, a, dir, "of-"+accountOf(a, one))
	}
	s.as(t, one, dir, "lambda update-function-configuration --function-name f --timeout 7 --environment 'Variables={AB=changed}'")
	const settings = `lambda get-function-configuration --function-name f --query '[Timeout,Environment.Variables.AB]' --output text`
	if got := s.as(t, two, dir, settings); got != "60\ttwo" {
		t.Errorf("the other account's function after a change of the first's: got %q", got)
	}
	s.as(t, one, dir, "lambda delete-function --function-name f")
	if got := s.as(t, two, dir, list); got != "1" {
		t.Errorf("functions of the other account after the first's is deleted: got %s, want 1", got)
	}
	s.as(t, two, dir, invokeFunction+`'{"do":"echo","value":"x"}' out.json`)
}

// A server that is killed runs what was queued after its next start, in the account
// whose call it was, and leaves no process of a function behind.
func TestQueuedFunctionCallsSurviveAKill(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t, "--function-concurrency", "1")
	dir := functionDir(t)
	one, two := s.twoAccounts(t)
	var queues []*functionQueue
	for _, a := range []tenancy{one, two} {
		queues = append(queues, s.queueCalls(t, a, dir))
	}
	s.signal(syscall.SIGKILL)
	for _, q := range queues {
		eventuallyTrue(t, "the end of the function with its server", func() bool { return errors.Is(syscall.Kill(q.pid, 0), syscall.ESRCH) })
	}
	s.start()
	for _, q := range queues {
		writeFile(t, q.gate, "")
		eventuallyTrue(t, "all runs", func() bool { return q.runs() >= 2 })
	}
}

// functionQueue is a call of an account's function f that runs, and two that wait.
type functionQueue struct {
	gate, lines string
	pid         int // of the process that runs
}

// runs says how many of those that wait have run.
func (q *functionQueue) runs() int {
	text, err := os.ReadFile(q.lines)
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "\n")
}

func (s *server) queueCalls(t *testing.T, a tenancy, dir string) *functionQueue {
	t.Helper()
	shared := openDirectory(t)
	q := &functionQueue{gate: filepath.Join(shared, "go"), lines: filepath.Join(shared, "lines")}
	s.as(t, a, dir, createFunction+" --timeout 600")
	for _, event := range []string{`{"do":"wait","value":"` + q.gate + `"}`, `{"do":"append","value":"` + q.lines + `"}`, `{"do":"append","value":"` + q.lines + `"}`} {
		if got := s.as(t, a, dir, invokeFunction+"'"+event+"' --invocation-type Event --query StatusCode out.json"); got != "202" {
			t.Fatalf("status of an asynchronous call: got %s, want 202", got)
		}
	}
	eventuallyTrue(t, "the first run", func() bool {
		found, _ := filepath.Glob(q.gate + ".running.*")
		if len(found) == 1 {
			q.pid, _ = strconv.Atoi(strings.TrimPrefix(filepath.Ext(found[0]), "."))
		}
		return q.pid != 0
	})
	return q
}

// eventuallyTrue returns once others have brought a condition about.
func eventuallyTrue(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}
