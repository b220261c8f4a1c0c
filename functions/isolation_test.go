package functions_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/functions"
)

// uidBase gives the user ids of the functions of one room of these tests: others run
// at the same time, in this process and in others, and would refuse theirs.
func uidBase() uint32 {
	const first, process, room = 200_000_000, 10_000, 100
	return uint32(first + os.Getpid()%10_000*process + int(rooms.Add(1))%(process/room)*room)
}

var rooms atomic.Int64

var stranger = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}

// apart is a room whose functions have users of their own.
func apart(t testing.TB, change func(*functions.Options)) *house {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run this test as root: nobody else can give functions users of their own")
	}
	work := filepath.Join(outside(t), "work")
	return open(t, func(o *functions.Options) {
		o.UIDBase, o.UIDs, o.WorkDir, o.Account = uidBase(), 100, work, home.Account
		if change != nil {
			change(o)
		}
	})
}

// victimCode says where its secrets are, and echoes.
const victimCode = `
import os
def handler(event, context):
    if event == "where":
        return {"api": os.environ["AWS_LAMBDA_RUNTIME_API"], "code": os.environ["LAMBDA_TASK_ROOT"], "tmp": os.environ["TMPDIR"],
                "uid": os.getuid(), "pid": int(os.readlink("/proc/self"))}
    return event
`

// spyCode takes what it can of another function that it knows all places of, until
// it is told to stop.
const spyCode = `
import glob, http.client, os, signal, time
def polled(address, prefix):
    c = http.client.HTTPConnection(address, timeout=30)
    c.request("GET", prefix + "/2018-06-01/runtime/invocation/next")
    r = c.getresponse()
    body = r.read().decode()
    if r.status == 200:
        where = prefix + "/2018-06-01/runtime/invocation/" + r.headers["Lambda-Runtime-Aws-Request-Id"] + "/response"
        c.request("POST", where, '"forged"')
        body += str(c.getresponse().status)
    return "%d %s" % (r.status, "event" if r.status == 200 else "nothing")
def handler(event, context):
    processes = glob.glob("/proc/[0-9]*")
    got = {"environs": 0, "read": [], "answers": [], "killed": [],
           "own": "/proc/" + os.readlink("/proc/self") in processes, "seen": [p for p in processes if os.stat(p).st_uid != os.getuid()]}
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            got["environs"] += b"MARK=of-the-victim" in open(path, "rb").read()
        except OSError:
            pass
    for path in event["files"]:
        try:
            got["read"].append(os.listdir(path) if os.path.isdir(path) else open(path).read()[:9])
        except OSError:
            pass
    for pid in event["pids"]:
        try:
            os.kill(pid, signal.SIGKILL)
            got["killed"].append(pid)
        except OSError:
            pass
    open(event["gate"] + ".running", "w").close()
    answers, own = set(), "/" + os.environ["AWS_LAMBDA_RUNTIME_API"].partition("/")[2]
    while True:
        for prefix in ["", own, "/" + "A" * 26, "//", own + own]:
            answers.add(polled(event["address"], prefix))
        if os.path.exists(event["gate"]):
            got["answers"] = sorted(answers)
            return got
`

// place is what the victim says of itself.
type place struct {
	API, Code, Tmp string
	UID, PID       int
}

func of(tenant imprint.Tenant, name string, event any) imprint.FunctionCall {
	payload, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	return imprint.FunctionCall{Tenant: tenant, ARN: tenant.FunctionARN(imprint.FunctionName(name)), Payload: payload}
}

// A function of one account that knows process, port and directories of another
// one's reads nothing of it, gets none of its events, and can't answer for it. Of the
// machine's processes it sees its own alone.
func TestAFunctionGetsNothingOfAnotherAccounts(t *testing.T) {
	t.Parallel()
	h := apart(t, func(o *functions.Options) { o.MaxConcurrency = 1 })
	inPython := func(tenant imprint.Tenant) func(*imprint.Function) {
		return func(f *imprint.Function) {
			python(f)
			f.Tenant = tenant
			f.Environment = map[string]string{"MARK": "of-the-" + string(f.Name)}
		}
	}
	h.putZip("victim", zipOf(t, file{"index.py", victimCode, 0o644}), inPython(home))
	// The same code in another account doesn't share the directory either.
	h.putZip("twin", zipOf(t, file{"index.py", victimCode, 0o644}), inPython(stranger))
	h.putZip("spy", zipOf(t, file{"index.py", spyCode, 0o644}), inPython(stranger))
	where := decode[place](t, h.must("victim", `"where"`).Payload)
	result, err := h.Invoke(t.Context(), of(stranger, "twin", "where"))
	if err != nil {
		t.Fatal(err)
	}
	twin := decode[place](t, result.Payload)
	if where.UID <= int(h.opts.UIDBase) || where.UID == twin.UID || where.Code == twin.Code {
		t.Errorf("got %+v and %+v, want users and directories of their own", where, twin)
	}
	address, _, _ := strings.Cut(where.API, "/")
	gate := filepath.Join(outside(t), "go")
	spied := make(chan imprint.FunctionResult, 1)
	go func() {
		result, err := h.Invoke(t.Context(), of(stranger, "spy", map[string]any{
			"address": address, "gate": gate, "pids": []int{where.PID, twin.PID, os.Getpid()},
			"files": []string{where.Code, filepath.Join(where.Code, "index.py"), filepath.Dir(where.Code), where.Tmp, filepath.Dir(where.Tmp),
				twin.Code, h.opts.WorkDir, filepath.Join(h.opts.WorkDir, "code"), filepath.Join(h.opts.WorkDir, "processes"),
				h.opts.CodeDir, filepath.Join(filepath.Dir(h.opts.CodeDir), "master.key")},
		}))
		if err != nil {
			t.Errorf("the spy: %v\n%s", err, result.Log)
		}
		spied <- result
	}()
	eventually(t, "the spy", func() bool { return exists(gate+".running") || len(spied) > 0 })
	for n := range 100 {
		event := fmt.Sprintf(`"event %d"`, n)
		if got := string(h.must("victim", event).Payload); got != event {
			t.Errorf("the victim's caller got %s, want %s", got, event)
		}
	}
	release(t, gate)
	type loot struct {
		Environs                    int
		Read, Answers, Killed, Seen []any
		Own                         bool
	}
	want := loot{Read: []any{}, Answers: []any{"403 nothing"}, Killed: []any{}, Seen: []any{}, Own: true}
	if diff := cmp.Diff(want, decode[loot](t, (<-spied).Payload)); diff != "" {
		t.Errorf("the spy's loot: %s", diff)
	}
	if again := decode[place](t, h.must("victim", `"where"`).Payload); again != where {
		t.Errorf("got %+v, want the same process as before, %+v", again, where)
	}
}

// tmpCode says what it finds where all may write, leaves something there, and how much
// fits.
const tmpCode = `
import os, tempfile
dirs = ["/tmp", "/var/tmp", "/dev/shm"]
def handler(event, context):
    found = [name for d in dirs for name in os.listdir(d) if name.startswith("left-")]
    for d in dirs:
        open(d + "/left-" + event + "-" + str(len(os.listdir(d))), "w").close()
    fits = 0
    try:
        with open("/tmp/large", "wb") as f:
            while fits < 64:
                f.write(bytes(1 << 20))
                f.flush()
                fits += 1
    except OSError as e:
        fits = "%d MB, then %s" % (fits, e.strerror)
    os.remove("/tmp/large")
    return {"found": len(found), "fits": fits, "dir": tempfile.gettempdir(), "code": os.path.exists(os.environ["LAMBDA_TASK_ROOT"] + "/index.py")}
`

// TestEachProcessHasATmpOfItsOwn ensures that what a process leaves where all may write
// is found by itself alone, is bounded, and is gone with it, with the function's code
// below /tmp and elsewhere.
func TestEachProcessHasATmpOfItsOwn(t *testing.T) {
	t.Parallel()
	elsewhere, err := os.MkdirTemp("/var/cache", "imprint-tmp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(elsewhere) })
	err = os.Chmod(elsewhere, 0o711)
	if err != nil {
		t.Fatal(err)
	}
	for where, work := range map[string]string{"below /tmp": "", "elsewhere": filepath.Join(elsewhere, "work")} {
		var said bytes.Buffer
		h := apart(t, func(o *functions.Options) {
			o.TmpMB, o.Logger = 4, slog.New(slog.NewTextHandler(&said, nil))
			if work != "" {
				o.WorkDir = work
			}
		})
		code := zipOf(t, file{"index.py", tmpCode, 0o644})
		h.putZip("f", code, python)
		h.putZip("g", code, python)
		type seen struct {
			Found     int
			Fits, Dir string
			Code      bool
		}
		mark := filepath.Base(filepath.Dir(h.opts.WorkDir))
		check := func(when, name string, found int) {
			t.Helper()
			want := seen{Found: found, Fits: "4 MB, then No space left on device", Dir: "/tmp", Code: true}
			if got := decode[seen](t, h.must(name, `"`+mark+`"`).Payload); got != want {
				t.Errorf("%s, %s: got %+v, want %+v", where, when, got, want)
			}
		}
		check("the first run", "f", 0)
		check("another function", "g", 0)
		check("the same process again", "f", 9) // three files, seen in three places
		_, err := h.UpdateSettings(t.Context(), home, "f", "", func(f *imprint.Function) { f.Description = "again" })
		if err != nil {
			t.Fatal(err)
		}
		check("another process of the function", "f", 0)
		for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
			left, err := filepath.Glob(filepath.Join(dir, "left-"+mark+"*"))
			if err != nil || len(left) > 0 {
				t.Errorf("%s: %s of the machine has %v, %v", where, dir, left, err)
			}
		}
		h.Close()
		if strings.Contains(said.String(), "share /tmp") {
			t.Errorf("%s: the log says %s", where, &said)
		}
	}
}

// escapeCode starts a process in a session of its own whose parent ends.
const escapeCode = `
import subprocess, sys, time
def handler(event, context):
    subprocess.run(["/bin/sh", "-c", "(read pid rest </proc/self/stat; echo $pid >$0.half; mv $0.half $0; exec $1) &", event["path"], event["program"]],
                   start_new_session=True, stdin=subprocess.DEVNULL)
    time.sleep(event["seconds"])
    return 1
`

// hungryCode holds more and more memory.
const hungryCode = `#!/bin/sh
exec python3 -c '
import time
x = bytearray(300 << 20)
for i in range(0, len(x), 4096): x[i] = 1
time.sleep(600)'
`

func TestNothingEscapesAFunctionsLimits(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	code := zipOf(t, file{"index.py", escapeCode, 0o644}, file{"hungry", hungryCode, 0o755}, file{"sleeps", "#!/bin/sh\nexec sleep 600\n", 0o755})
	h.putZip("late", code, func(f *imprint.Function) { python(f); f.Timeout = 10 * time.Second })
	h.putZip("fine", code, python)
	for _, test := range []struct {
		what, function, program string
		seconds                 int
		code                    imprint.Code
		payload                 string
	}{
		{"the time", "late", "./sleeps", 600, imprint.CodeFunctionTimeout, "Task timed out"},
		{"the memory", "fine", "./hungry", 600, imprint.CodeFunctionFailed, "Runtime.OutOfMemory"},
		{"the end of the function", "fine", "./sleeps", 0, "", "1"},
	} {
		path := filepath.Join(outside(t), "pid")
		result, err := h.Invoke(t.Context(), of(home, test.function, map[string]any{"path": path, "program": test.program, "seconds": test.seconds}))
		wantCode(t, err, test.code)
		if !strings.Contains(string(result.Payload), test.payload) {
			t.Errorf("%s: got %s, want %s\n%s", test.what, result.Payload, test.payload, result.Log)
		}
		eventually(t, "the process that wants to escape "+test.what, func() bool { return exists(path) })
		pid := readPID(t, path)
		if test.code == "" {
			if !alive(pid) {
				t.Error("what a function started ended with a run, not with the function")
			}
			h.Close()
		}
		eventually(t, "the end of what would escape "+test.what, func() bool { return !alive(pid) })
	}
}

// testsAsOthers copies this program and the test function to where other users can
// run them, and gives the program and its environment.
func testsAsOthers(t *testing.T) (program string, env []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run this test as root: it becomes another user")
	}
	dir := outside(t)
	err := os.WriteFile(filepath.Join(dir, "bootstrap"), bootstrap, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Written by this process, it would be busy while another test starts a program.
	program = filepath.Join(dir, "tests")
	copied, err := exec.CommandContext(t.Context(), "cp", own, program).CombinedOutput()
	if err != nil {
		t.Fatalf("cp: %v\n%s", err, copied)
	}
	return program, []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, bootstrapVariable + "=" + filepath.Join(dir, "bootstrap")}
}

// Functions have the same limits under a server that isn't root, which has one user
// for all.
func TestFunctionsOfAServerThatIsntRoot(t *testing.T) {
	t.Parallel()
	program, env := testsAsOthers(t)
	cmd := exec.CommandContext(t.Context(), program, "-test.v", "-test.run",
		"^(TestAWarmProcessTakesTheNextEvent|TestNothingEscapesAFunctionsLimits|TestNodeAndPythonRun|TestIdleProcessesEndAndHearOfIt)$")
	cmd.Dir, cmd.Env = filepath.Dir(program), env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n--- PASS: ") != 4 {
		t.Errorf("%v (user namespaces must be allowed: sysctl kernel.apparmor_restrict_unprivileged_userns=0)\n%s", err, out)
	}
}

func TestWhatTheSystemDeniesIsSaidOnce(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	h := apart(t, func(o *functions.Options) { o.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
	h.put("f", nil)
	h.echo("f")
	h.echo("f")
	h.Close()
	t.Log(said.String())
	if n := strings.Count(said.String(), "functions have no PID namespaces"); n > 1 {
		t.Errorf("said %d times", n)
	}
}

// In a container that may neither make namespaces nor has other user ids, functions
// run in one user, and the log says what they lack.
func TestFunctionsInALockedDownContainer(t *testing.T) {
	t.Parallel()
	program, env := testsAsOthers(t)
	cmd := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "/bin/sh", "-c",
		`echo 0 >/proc/sys/user/max_pid_namespaces && exec "$0" -test.v -test.run '^(TestWhatTheSystemDeniesIsSaidOnce|TestNodeAndPythonRun|TestATimeoutEndsWhatTheFunctionStarted)$'`, program)
	cmd.Dir, cmd.Env = filepath.Dir(program), env
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n--- PASS: ") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{"functions have no PID namespaces", "functions share one user"} {
		if n := strings.Count(string(out), want); n != 1 {
			t.Errorf("%q is said %d times, want once\n%s", want, n, out)
		}
	}
}

func TestOtherAccountsAreRefusedWhereAllShareOneUser(t *testing.T) {
	t.Parallel()
	h := open(t, func(o *functions.Options) { o.Account = home.Account })
	h.put("f", nil)
	h.echo("f")
	theirs := imprint.Function{Tenant: stranger, Name: "f", Runtime: "provided.al2023", Handler: "bootstrap", Role: role}
	_, err := h.Create(t.Context(), theirs, packed(), false)
	wantCode(t, err, imprint.CodeFunctionDenied)
	if hint := imprint.HintOf(err); !strings.Contains(hint, "--function-share-user") {
		t.Errorf("the hint is %q", hint)
	}
	// One that is there from other times doesn't run, now or later.
	theirs.Version, theirs.Concurrency, theirs.Timeout, theirs.MemoryMB = imprint.LatestVersion, -1, time.Second, 128
	err = h.store.Update(t.Context(), func(tx imprint.Tx) error { return tx.PutFunction(theirs) })
	if err != nil {
		t.Fatal(err)
	}
	call := of(stranger, "f", nil)
	_, err = h.Invoke(t.Context(), call)
	wantCode(t, err, imprint.CodeFunctionDenied)
	wantCode(t, h.Check(t.Context(), call), imprint.CodeFunctionDenied)
	wantCode(t, h.InvokeLater(t.Context(), call), imprint.CodeFunctionDenied)
	// A webhook runs elsewhere.
	theirs.Name, theirs.Runtime, theirs.Handler = "hook", functions.RuntimeWebhook, "https://hooks.example.com/"
	theirs.Environment = map[string]string{functions.WebhookSecret: "a-long-random-secret"}
	_, err = h.Create(t.Context(), theirs, nil, false)
	wantCode(t, err, "")
}

func TestAFunctionsUserIsItsOwnWhileItIsThere(t *testing.T) {
	t.Parallel()
	h := apart(t, func(o *functions.Options) { o.UIDs = 3 })
	uid := func(h *house, name string) int {
		return decode[about](t, h.must(name, do("about", "")).Payload).UID
	}
	for _, name := range []string{"a", "b", "c"} {
		h.put(name, nil)
	}
	a, b := uid(h, "a"), uid(h, "b")
	if a == b || a <= int(h.opts.UIDBase) || b <= int(h.opts.UIDBase) {
		t.Errorf("got the users %d and %d", a, b)
	}
	_, err := h.Invoke(t.Context(), call("c", do("about", "")))
	wantCode(t, err, imprint.CodeUnavailable)
	// After a restart they are the same, whoever comes first.
	h.Close()
	opts := h.opts
	s, err := functions.New(h.store, time.Now, opts)
	if err != nil {
		t.Fatal(err)
	}
	again := &house{Service: s, t: t, store: h.store, opts: opts}
	t.Cleanup(again.Close)
	if gotB, gotA := uid(again, "b"), uid(again, "a"); gotA != a || gotB != b {
		t.Errorf("got the users %d and %d, want %d and %d", gotA, gotB, a, b)
	}
	err = again.Delete(t.Context(), home, "a", "")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the deleted function's process", func() bool { return again.Counters().Processes == 1 })
	if got := uid(again, "c"); got != a {
		t.Errorf("got the user %d, want that of the deleted function, %d", got, a)
	}
}

func TestDamagedUserIDsAreRefused(t *testing.T) {
	t.Parallel()
	h := apart(t, nil)
	h.Close()
	for _, text := range []string{"{", `{"x":"a/b/c"}`, `{"71001":"f"}`} {
		err := os.WriteFile(filepath.Join(h.opts.CodeDir, "users.json"), []byte(text), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		s, err := functions.New(h.store, time.Now, h.opts)
		if err == nil {
			s.Close()
			t.Errorf("%s: taken", text)
		}
	}
}

// TestServersOfOneMachineHaveUserIDsOfTheirOwn ensures that functions don't run while
// another server's have some of their user ids, that the error says which and what
// to do, and that they run once the other has ended.
func TestServersOfOneMachineHaveUserIDsOfTheirOwn(t *testing.T) {
	t.Parallel()
	first := apart(t, func(o *functions.Options) { o.UIDs = 20 })
	base := first.opts.UIDBase
	first.put("f", nil)
	// A server without functions that ran is in nobody's way.
	overlapping := apart(t, func(o *functions.Options) { o.UIDBase, o.UIDs = base+19, 20 })
	overlapping.put("f", nil)
	apart(t, func(o *functions.Options) { o.UIDBase, o.UIDs = base, 20 })
	first.echo("f")
	_, err := overlapping.Invoke(t.Context(), call("f", do("echo", "x")))
	wantCode(t, err, imprint.CodeUnavailable)
	for _, want := range []string{fmt.Sprintf("%d to %d", base, base+19), fmt.Sprintf("%d to %d", base+19, base+38)} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want it to name the ids %s", err, want)
		}
	}
	if hint := imprint.HintOf(err); !strings.Contains(hint, fmt.Sprintf("--function-uid-base %d", base+20)) {
		t.Errorf("the hint is %q, want one that names the next free range", hint)
	}
	beside := apart(t, func(o *functions.Options) { o.UIDBase, o.UIDs = base+20, 20 })
	beside.put("f", nil)
	beside.echo("f")
	beside.Close()
	first.echo("f")
	first.Close()
	overlapping.echo("f")
}
