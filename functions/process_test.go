package functions_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/functions"
)

func TestAWarmProcessTakesTheNextEvent(t *testing.T) {
	t.Parallel()
	// With more, another is started when the first comes back from its answer too late.
	h := open(t, func(o *functions.Options) { o.MaxConcurrency = 1 })
	h.put("f", nil)
	first, second := h.must("f", do("echo", "a")), h.must("f", do("echo", "b"))
	a, b := decode[echoed](t, first.Payload), decode[echoed](t, second.Payload)
	if a.PID != b.PID || a.Runs != 1 || b.Runs != 2 || a.Value != "a" || b.Value != "b" {
		t.Errorf("got %+v and %+v, want the same process", a, b)
	}
	if !first.Cold || second.Cold || first.Version != "$LATEST" || first.Duration <= 0 {
		t.Errorf("got %+v and %+v, want one cold start", first, second)
	}
	for _, want := range []string{"START RequestId: ", "END RequestId: ", "REPORT RequestId: ", "Memory Size: 128 MB"} {
		if !strings.Contains(second.Log, want) {
			t.Errorf("log %q lacks %q", second.Log, want)
		}
	}
	got := h.Counters()
	if got.Invocations != 2 || got.ColdStarts != 1 || got.Errors != 0 || got.Processes != 1 || got.Duration < first.Duration {
		t.Errorf("got counters %+v", got)
	}
}

// about is what the test function tells of its process.
type about struct {
	Env, Files   []string
	Dir, Tmp     string
	TmpWorks     bool
	UID, GID     int
	ARN, Request string
	Left         float64
}

func TestAProcessSeesWhatAWSLambdaDocuments(t *testing.T) {
	t.Setenv("SECRET_OF_THE_SERVER", "x")
	var who *functions.User
	if os.Geteuid() == 0 {
		who = &functions.User{UID: 65534, GID: 65534}
	}
	work := filepath.Join(outside(t), "work")
	roots := filepath.Join(t.TempDir(), "roots.pem")
	err := os.WriteFile(roots, []byte("roots"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	h := open(t, func(o *functions.Options) {
		o.User, o.WorkDir = who, work
		o.Credentials = func(_ context.Context, tenant imprint.Tenant) (functions.Credentials, error) {
			return functions.Credentials{AccessKeyID: "AKIA" + string(tenant.Account), SecretAccessKey: "secret", Endpoint: "https://localhost:9443", Roots: roots}, nil
		}
	})
	h.put("f", func(f *imprint.Function) { f.Environment = map[string]string{"OWN": "a b", "TZ": ":Europe/Berlin"} })
	got := decode[about](t, h.must("f", do("about", "")).Payload)
	want := map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "en_US.UTF-8", "TZ": ":Europe/Berlin", "OWN": "a b", "_HANDLER": "bootstrap",
		"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_LAMBDA_FUNCTION_NAME": "f",
		"AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128", "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f",
		"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "LAMBDA_TASK_ROOT": got.Dir, "TMPDIR": got.Tmp,
		"AWS_ACCESS_KEY_ID": "AKIA000000000000", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": "https://localhost:9443",
	}
	have := map[string]string{}
	for _, pair := range got.Env {
		name, value, _ := strings.Cut(pair, "=")
		have[name] = value
	}
	for name, value := range want {
		if have[name] != value {
			t.Errorf("%s: got %q, want %q", name, have[name], value)
		}
	}
	for _, name := range []string{"SECRET_OF_THE_SERVER", "HOME", "AWS_EXECUTION_ENV", "AWS_SESSION_TOKEN"} {
		if _, there := have[name]; there {
			t.Errorf("%s is set", name)
		}
	}
	if have["AWS_CA_BUNDLE"] == "" || have["AWS_CA_BUNDLE"] != have["NODE_EXTRA_CA_CERTS"] {
		t.Errorf("roots: got %q and %q", have["AWS_CA_BUNDLE"], have["NODE_EXTRA_CA_CERTS"])
	}
	if !got.TmpWorks || !strings.HasPrefix(got.Tmp, work) || got.ARN != home.FunctionARN("f") || got.Request == "" || got.Left <= 0 || got.Left > patience.Seconds() {
		t.Errorf("got %+v", got)
	}
	if who != nil && (got.UID != 65534 || got.GID != 65534) {
		t.Errorf("runs as %d:%d", got.UID, got.GID)
	}
	for _, path := range got.Files {
		if strings.HasPrefix(path, h.opts.CodeDir) || strings.HasSuffix(path, ".db") || strings.HasSuffix(path, "-wal") {
			t.Errorf("the process inherited %s", path)
		}
	}
}

func TestFunctionsThatFail(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	hasty := open(t, func(o *functions.Options) { o.InitTimeout = 2 * time.Second })
	h.put("f", nil)
	h.put("quick", func(f *imprint.Function) { f.Timeout = time.Second })
	h.put("badinit", func(f *imprint.Function) { f.Environment = map[string]string{"FAIL_INIT": "1"} })
	hasty.put("hanginit", func(f *imprint.Function) { f.Environment = map[string]string{"HANG_INIT": "1"} })
	h.putZip("nothing", zipOf(t, file{"readme", "no bootstrap", 0o644}), nil)
	h.putZip("nonsense", zipOf(t, file{"bootstrap", "\x00\x01\x02", 0o755}), nil)
	for _, test := range []struct {
		name, function, event string
		code                  imprint.Code
		payload, log          string
	}{
		{"an error", "f", do("fail", "no such device"), imprint.CodeFunctionFailed, `"errorMessage":"no such device"`, ""},
		{"a panic", "f", do("panic", "oh"), imprint.CodeFunctionFailed, `"errorMessage":"oh"`, "oh"},
		{"an exit", "f", do("exit", "3"), imprint.CodeFunctionFailed, `Error: Runtime exited with error: exit status 3","errorType":"Runtime.ExitError"`, "exit status 3"},
		{"an exit without a word", "f", do("exit", "0"), imprint.CodeFunctionFailed, `Error: Runtime exited without providing a reason`, ""},
		{"a timeout", "quick", do("hang", ""), imprint.CodeFunctionTimeout, `Task timed out after 1.00 seconds"}`, "Task timed out after 1.00 seconds"},
		{"too much memory", "f", do("memory", ""), imprint.CodeFunctionFailed, `Error: Runtime exited with error: signal: killed","errorType":"Runtime.OutOfMemory"`, "128 MB"},
		{"too large an answer", "f", do("large", strconv.Itoa(6<<20)), imprint.CodeFunctionFailed, `Function.ResponseSizeTooLarge`, ""},
		{"no JSON", "f", do("reader", "not JSON"), imprint.CodeFunctionFailed, `Runtime.InvalidResponse`, ""},
		{"an init that fails", "badinit", do("echo", ""), imprint.CodeFunctionFailed, `Runtime exited with error: exit status 7`, "init fails"},
		{"an init that hangs", "hanginit", do("echo", ""), imprint.CodeFunctionTimeout, `Initialization timed out after 2.00 seconds`, ""},
		{"no bootstrap", "nothing", "{}", imprint.CodeFunctionFailed, `Couldn't find valid bootstrap(s)`, ""},
		{"a bootstrap that can't run", "nonsense", "{}", imprint.CodeFunctionFailed, ` Error: couldn't start bootstrap: exec format error"`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := h
			if test.function == "hanginit" {
				at = hasty
			}
			result, err := at.Invoke(t.Context(), call(test.function, test.event))
			wantCode(t, err, test.code)
			if !strings.Contains(string(result.Payload), test.payload) {
				t.Errorf("payload: got %.400s, want %s", result.Payload, test.payload)
			}
			if !strings.Contains(result.Log, test.log) {
				t.Errorf("log: got %q, want %q", result.Log, test.log)
			}
			// Whatever became of the process, the function answers on.
			if test.function == "f" {
				h.echo(test.function)
			}
		})
	}
}

func TestWhatIsNoCallIsRefused(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.put("f", nil)
	for _, test := range []struct {
		name string
		call imprint.FunctionCall
		code imprint.Code
	}{
		{"an unknown function", call("g", "{}"), imprint.CodeFunctionMissing},
		{"an unknown alias", imprint.FunctionCall{Tenant: home, ARN: home.FunctionARN("f") + ":prod"}, imprint.CodeFunctionMissing},
		{"an unknown version", imprint.FunctionCall{Tenant: home, ARN: home.FunctionARN("f") + ":1"}, imprint.CodeFunctionMissing},
		{"no ARN", imprint.FunctionCall{Tenant: home, ARN: "f"}, imprint.CodeFunctionMissing},
		{"another tenant's", imprint.FunctionCall{Tenant: imprint.Tenant{Account: home.Account, Region: "eu-west-1"}, ARN: home.FunctionARN("f")}, imprint.CodeFunctionMissing},
		{"no JSON", call("f", "{"), imprint.CodeInvalidRequest},
		{"too large", call("f", `"`+strings.Repeat("x", 6<<20)+`"`), imprint.CodePacketTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := h.Invoke(t.Context(), test.call)
			wantCode(t, err, test.code)
			wantCode(t, h.Check(t.Context(), test.call), test.code)
			wantCode(t, h.InvokeLater(t.Context(), test.call), test.code)
		})
	}
}

func TestAnswersUpToTheBoundArrive(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.put("f", func(f *imprint.Function) { f.MemoryMB = 512 })
	result := h.must("f", do("large", strconv.Itoa(6<<20-2)))
	if len(result.Payload) != 6<<20 {
		t.Errorf("got %d bytes, want %d", len(result.Payload), 6<<20)
	}
}

func TestLogsAreKeptToTheirEnd(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.put("f", nil)
	result := h.must("f", do("log", "grüße"))
	for _, want := range []string{"to standard output: grüße\n", "to standard error: grüße\n"} {
		if !strings.Contains(result.Log, want) {
			t.Errorf("log %q lacks %q", result.Log, want)
		}
	}
	result = h.must("f", do("flood", ""))
	if len(result.Log) > 4096 || !strings.Contains(result.Log, "the last line\n") {
		t.Errorf("got %d bytes of log, ending with %q", len(result.Log), result.Log[max(0, len(result.Log)-300):])
	}
	if again := h.must("f", do("echo", "")); strings.Contains(again.Log, "xxx") {
		t.Errorf("the next run's log has the former's: %q", again.Log)
	}
}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func readPID(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestATimeoutEndsWhatTheFunctionStarted(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.put("f", func(f *imprint.Function) { f.Timeout = 10 * time.Second })
	h.echo("f")
	path := filepath.Join(outside(t), "pid")
	_, err := h.Invoke(t.Context(), call("f", do("child", path)))
	wantCode(t, err, imprint.CodeFunctionTimeout)
	pid := readPID(t, path)
	eventually(t, "the child's end", func() bool { return !alive(pid) })
}

// running counts the runs of wait that have begun.
func running(t *testing.T, path string) int {
	t.Helper()
	found, err := filepath.Glob(path + ".running.*")
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func release(t *testing.T, path string) {
	t.Helper()
	err := os.WriteFile(path, nil, 0o600)
	if err != nil {
		t.Fatal(err)
	}
}

func TestRunsAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	h := open(t, func(o *functions.Options) { o.MaxConcurrency, o.MaxWaiting = 2, 3 })
	h.put("f", nil)
	path := filepath.Join(outside(t), "go")
	pids := make(chan string, 5)
	var calls sync.WaitGroup
	begin := func(n int) {
		for range n {
			calls.Go(func() {
				result, err := h.Invoke(t.Context(), call("f", do("wait", path)))
				if err != nil {
					t.Errorf("invoke: %v", err)
				}
				pids <- string(result.Payload)
			})
		}
	}
	begin(2)
	eventually(t, "two runs", func() bool { return running(t, path) == 2 })
	begin(3)
	eventually(t, "three that wait", func() bool { return h.Counters().Waiting == 3 })
	_, err := h.Invoke(t.Context(), call("f", do("wait", path)))
	wantCode(t, err, imprint.CodeFunctionThrottled)
	release(t, path)
	calls.Wait()
	close(pids)
	var list []string
	for pid := range pids {
		list = append(list, pid)
	}
	slices.Sort(list)
	if got := len(slices.Compact(list)); got != 2 {
		t.Errorf("got %d processes, want 2", got)
	}
	if got := h.Counters(); got.Throttles != 1 || got.Processes != 2 || got.Waiting != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestReservedConcurrencyIsKept(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.put("f", nil)
	err := h.SetConcurrency(t.Context(), home, "f", 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Invoke(t.Context(), call("f", do("echo", "")))
	wantCode(t, err, imprint.CodeFunctionThrottled)
	err = h.SetConcurrency(t.Context(), home, "f", -1)
	if err != nil {
		t.Fatal(err)
	}
	h.echo("f")
}

// Functions share the places for processes: an idle one of another function
// makes room.
func TestAllProcessesAreBounded(t *testing.T) {
	t.Parallel()
	h := open(t, func(o *functions.Options) { o.MaxProcesses = 1 })
	for i := range 3 {
		h.put(fmt.Sprintf("f%d", i), nil)
	}
	for i := range 6 {
		h.echo(fmt.Sprintf("f%d", i%3))
	}
	if got := h.Counters(); got.Processes != 1 || got.ColdStarts != 6 {
		t.Errorf("got %+v, want one process and six starts", got)
	}
	// Two functions at once take turns.
	path := filepath.Join(outside(t), "go")
	var calls sync.WaitGroup
	for i := range 3 {
		calls.Go(func() {
			_, err := h.Invoke(t.Context(), call(fmt.Sprintf("f%d", i), do("wait", path)))
			if err != nil {
				t.Errorf("invoke: %v", err)
			}
		})
	}
	eventually(t, "one run and two that wait", func() bool { return running(t, path) == 1 && h.Counters().Waiting == 2 })
	release(t, path)
	calls.Wait()
}

func TestACallerThatLeavesLeavesTheProcessRunning(t *testing.T) {
	t.Parallel()
	attempts := &told{steps: map[string][]imprint.Step{}}
	h := open(t, func(o *functions.Options) { o.MaxConcurrency, o.Attempts = 1, attempts })
	h.put("f", nil)
	pid := h.echo("f").PID
	path := filepath.Join(outside(t), "go")
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		c := call("f", do("wait", path))
		c.AttemptID = "left"
		_, err := h.Invoke(ctx, c)
		left <- err
	}()
	eventually(t, "the run", func() bool { return running(t, path) == 1 })
	leave()
	wantCode(t, <-left, imprint.CodeFunctionTimeout)
	if steps := attempts.of("left"); len(steps) != 1 || steps[0].Verdict != imprint.VerdictInfo || !strings.Contains(steps[0].Detail, "its caller left after") {
		t.Errorf("the attempt is told %+v, want that the caller left, and no failure", steps)
	}
	// Who comes while it goes on waits, and may give up, too.
	hook := call("f", do("echo", ""))
	hook.Timeout = 10 * time.Millisecond
	_, err := h.Invoke(t.Context(), hook)
	wantCode(t, err, imprint.CodeFunctionTimeout)
	if hint := imprint.HintOf(err); !strings.Contains(hint, "waits for 10ms") {
		t.Errorf("the hint is %q, want the time that the caller waits", hint)
	}
	release(t, path)
	if got := h.echo("f"); got.PID != pid || got.Runs != 3 {
		t.Errorf("got %+v, want the third run of process %d", got, pid)
	}
}

func TestIdleProcessesEndAndHearOfIt(t *testing.T) {
	t.Parallel()
	h := open(t, func(o *functions.Options) { o.Idle = 100 * time.Millisecond })
	path := filepath.Join(outside(t), "terminated")
	h.put("f", func(f *imprint.Function) { f.Environment = map[string]string{"TERM_FILE": path} })
	h.put("g", nil)
	h.echo("g")
	// A process that isn't scheduled in the half second that it has hears of nothing.
	eventually(t, "SIGTERM to reach the process that asked for it", func() bool {
		h.echo("f")
		eventually(t, "the end of idle processes", func() bool { return h.Counters().Processes == 0 })
		return exists(path)
	})
	entries, err := os.ReadDir(filepath.Join(h.opts.WorkDir, "processes"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestCloseEndsRunningFunctions(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.put("f", nil)
	path := filepath.Join(outside(t), "go")
	ended := make(chan error)
	go func() {
		_, err := h.Invoke(context.Background(), call("f", do("wait", path)))
		ended <- err
	}()
	eventually(t, "the run", func() bool { return running(t, path) == 1 })
	h.Close()
	wantCode(t, <-ended, imprint.CodeUnavailable)
	_, err := h.Invoke(t.Context(), call("f", do("echo", "")))
	wantCode(t, err, imprint.CodeUnavailable)
	if exists(h.opts.WorkDir) {
		t.Error("the working directory is still there")
	}
}
