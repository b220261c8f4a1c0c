package functions

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// processState is where a process stands.
type processState int

const (
	stateStarting processState = iota
	stateIdle
	stateBusy // granted to a caller, running, or answered and not yet back
	stateEnding
)

// ending is why the host ended a process.
type ending int

const (
	endedItself ending = iota
	endedIdle
	endedTimeout
	endedInit
	endedMemory
	endedShutdown
)

// termGrace is what a process that asked for SIGTERM has until it is killed, as
// at AWS Lambda.
const termGrace = 500 * time.Millisecond

// outcomeKind is how a run ended.
type outcomeKind int

const (
	outcomeAnswer      outcomeKind = iota
	outcomeError                   // the function reported an error, or its process ended
	outcomeTimeout                 // it was killed at its time limit
	outcomeUnavailable             // the server stops, or couldn't start a process
)

// outcome is what became of a run.
type outcome struct {
	kind    outcomeKind
	payload []byte // the answer, or the error object
	log     string
	err     error // of outcomeUnavailable; may be nil
}

// invocation is one run in a process.
type invocation struct {
	id, arn  string
	payload  []byte
	deadline time.Time
	begun    time.Time
	traceID  string
	done     chan struct{}
	outcome  outcome // valid when done is closed
}

// process is one process of a function with its Runtime API. Fields below the
// line are guarded by host.mu.
type process struct {
	host     *host
	pool     *pool
	dir      string // its own: TMPDIR is in it
	user     *User
	secret   string // begins the paths of its Runtime API
	cmd      *exec.Cmd
	listener net.Listener
	server   *http.Server
	logs     *logs
	events   chan *invocation // of capacity 1
	ended    chan struct{}    // closed when it has ended
	peak     atomic.Int64     // memory in bytes, as far as it was seen

	// ---
	state      processState
	ready      bool        // it has asked for an event
	exited     bool        // its number may be another's soon
	current    *invocation // being run
	answered   bool        // current was answered, next not yet asked for
	returning  bool        // it answered just now
	reason     ending
	terminates bool // it registered for SIGTERM
	initError  []byte
	idleSince  time.Time
	idleTimer  *time.Timer
	initTimer  *time.Timer
	runTimer   *time.Timer
}

// launch starts a process. A failure is given as what the caller hears.
func (h *host) launch(p *pool) (*process, *outcome) {
	process := &process{host: h, pool: p, secret: rand.Text(), events: make(chan *invocation, 1), ended: make(chan struct{})}
	failed, err := process.begin()
	if err == nil && failed == nil {
		return process, nil
	}
	process.release()
	if err != nil {
		h.opts.Logger.Error("couldn't start a process of a function", "function", p.function.ARN(), "error", err)
		failed = &outcome{kind: outcomeUnavailable, err: err}
	}
	return nil, failed
}

// begin makes what a process needs and starts it.
func (p *process) begin() (*outcome, error) {
	h, f := p.host, p.pool.function
	root, err := p.unpack()
	if err != nil {
		return nil, err
	}
	command, entry := h.commandOf(f, root)
	if entry != nil {
		return entry, nil
	}
	err = p.makeDir()
	if err != nil {
		return nil, err
	}
	p.listener, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("couldn't listen for a function's runtime: %w", err)
	}
	logs, w, err := newLogs()
	if err != nil {
		return nil, err
	}
	p.logs = logs
	defer func() { _ = w.Close() }()
	env, err := p.environment(root)
	if err != nil {
		return nil, err
	}
	err = p.start(&exec.Cmd{Path: command[0], Args: command, Dir: root, Env: env, Stdout: w, Stderr: w})
	if err != nil {
		p.logs.note("couldn't start %s: %v", filepath.Base(command[0]), err)
		return &outcome{kind: outcomeError, payload: errorObject("Runtime.InvalidEntrypoint",
			"RequestId: %s Error: couldn't start %s: %s", newRequestID(), filepath.Base(command[0]), cause(err)), log: p.logs.take()}, nil
	}
	limit(p.cmd.Process.Pid, f.MemoryMB, p.user != nil)
	p.server = &http.Server{
		Handler: p, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10, ErrorLog: log.New(io.Discard, "", 0),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p.initTimer = time.AfterFunc(h.opts.InitTimeout, p.initTimedOut)
	p.idleTimer = time.AfterFunc(h.opts.Idle, p.idleTimedOut)
	p.idleTimer.Stop()
	h.all[p] = struct{}{}
	if h.closed {
		p.endLocked(endedShutdown)
	}
	h.work.Go(func() { _ = p.server.Serve(p.listener) })
	return nil, nil
}

// A program that was unpacked a moment ago is busy until processes that were begun
// meanwhile, which inherited the writer's file, have closed it.
const (
	busyTries = 200
	busyPause = 10 * time.Millisecond
)

// start starts the process from a template.
func (p *process) start(template *exec.Cmd) error {
	for try := 1; ; try++ {
		p.cmd = &exec.Cmd{Path: template.Path, Args: template.Args, Dir: template.Dir, Env: template.Env, Stdout: template.Stdout, Stderr: template.Stderr}
		confine(p.cmd, p.user, p.host.walls.namespaces)
		err := p.host.start.run(p.cmd, p.host.walls.tmp)
		if !errors.Is(err, syscall.ETXTBSY) || try == busyTries {
			return err
		}
		<-time.After(busyPause)
	}
}

// cause is the innermost reason of a failed start, without paths.
func cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// unpack finds out who runs the function and gives the directory of its code.
func (p *process) unpack() (string, error) {
	h := p.host
	user, err := h.userOf(p.pool.key.functionKey)
	if err != nil {
		return "", err
	}
	p.user = user
	dir := h.codeDir(user)
	err = openDir(filepath.Dir(dir), 0o711)
	if err == nil {
		err = h.walls.own(dir, user)
	}
	if err != nil {
		return "", err
	}
	dir, err = h.code.unpacked(p.pool.key.tenant.Account, p.pool.function.CodeSHA256, dir)
	if err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p.pool.codeDir = dir
	p.pool.holds++
	return dir, nil
}

// makeDir makes the process's own directory, and in it what it may write.
func (p *process) makeDir() error {
	processes := filepath.Join(p.host.opts.WorkDir, "processes")
	p.dir = filepath.Join(processes, rand.Text())
	tmp := filepath.Join(p.dir, "tmp")
	err := openDir(processes, 0o711)
	if err == nil {
		err = p.host.walls.own(p.dir, p.user)
	}
	if err == nil {
		err = openDir(tmp, 0o700)
	}
	if err == nil && p.user != nil {
		err = os.Chown(tmp, int(p.user.UID), int(p.user.GID))
	}
	if err == nil {
		err = os.Chmod(tmp, 0o700)
	}
	if err != nil {
		return fmt.Errorf("couldn't give a process its directory: %w", err)
	}
	return nil
}

// release lets go of everything but the process itself.
func (p *process) release() {
	if p.server != nil {
		_ = p.server.Close()
	} else if p.listener != nil {
		_ = p.listener.Close()
	}
	if p.logs != nil {
		p.logs.close()
	}
	if p.dir == "" {
		return
	}
	err := os.RemoveAll(p.dir)
	if err != nil {
		p.host.opts.Logger.Warn("couldn't remove the directory of a process", "error", err)
	}
}

// wait returns when the process has ended, with the outcome of its start if it
// was never ready.
func (p *process) wait() *outcome {
	pid := p.cmd.Process.Pid
	awaitExit(p.cmd)
	h := p.host
	h.mu.Lock()
	// What it started may not outlive it. It isn't reaped yet, so that the number
	// can't be another's.
	killGroup(pid)
	p.exited, p.state = true, stateEnding
	p.returnedLocked()
	h.mu.Unlock()
	// How it ended is in ProcessState.
	_ = p.cmd.Wait()
	h.mu.Lock()
	p.stopTimers()
	h.leaveIdle(p)
	var failed *outcome
	switch {
	case !p.ready:
		out := p.endOutcome(newRequestID())
		failed = &out
	case p.current != nil && !p.answered:
		p.finishLocked(p.current, p.endOutcome(p.current.id))
	}
	h.mu.Unlock()
	close(p.ended)
	p.release()
	return failed
}

func (p *process) stopTimers() {
	for _, timer := range []*time.Timer{p.idleTimer, p.initTimer, p.runTimer} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// endOutcome says why a run or a start ended with its process.
func (p *process) endOutcome(id string) outcome {
	out := outcome{kind: outcomeError}
	kind, text := "Runtime.ExitError", "RequestId: %s Error: Runtime exited with error: "+p.cmd.ProcessState.String()
	switch {
	case p.reason == endedShutdown:
		out.kind, out.err = outcomeUnavailable, nil
	case p.reason == endedMemory:
		kind = "Runtime.OutOfMemory"
		p.logs.note("The function held more than its %d MB of memory.", p.pool.function.MemoryMB)
	case p.reason == endedInit:
		out.kind, kind = outcomeTimeout, "Sandbox.Timedout"
		text = fmt.Sprintf("RequestId: %%s Error: Initialization timed out after %.2f seconds", p.host.opts.InitTimeout.Seconds())
	case p.initError != nil:
		out.payload = p.initError
	case p.cmd.ProcessState.Success():
		text = "RequestId: %s Error: Runtime exited without providing a reason"
	}
	if out.payload == nil {
		out.payload = errorObject(kind, text, id)
	}
	p.logs.note("RequestId: %s Error: %s", id, p.cmd.ProcessState)
	out.log = p.logs.take()
	return out
}

// errorObject is the error that AWS Lambda answers in a function's place.
func errorObject(kind, format string, args ...any) []byte {
	// Two strings can always be encoded.
	data, _ := json.Marshal(map[string]string{"errorType": kind, "errorMessage": fmt.Sprintf(format, args...)})
	return data
}

// invoke begins a run; the process was granted to the caller. False: the process
// has ended meanwhile.
func (p *process) invoke(in *invocation, timeout time.Duration) bool {
	h := p.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.state != stateBusy {
		return false
	}
	in.begun = time.Now()
	in.deadline = h.clock().Add(timeout)
	p.current, p.answered = in, false
	p.runTimer = time.AfterFunc(timeout, func() { p.runTimedOut(in, timeout) })
	p.logs.note("START RequestId: %s Version: %s", in.id, p.pool.function.Version)
	p.events <- in
	return true
}

// finishLocked ends a run once; later ends of the same run change nothing.
func (p *process) finishLocked(in *invocation, out outcome) bool {
	if p.current != in || p.answered {
		return false
	}
	p.answered = true
	p.runTimer.Stop()
	if p.state == stateBusy {
		p.returning = true
		p.pool.returning++
		p.runTimer = time.AfterFunc(returnGrace, func() { p.returnTimedOut(in) })
	}
	took := float64(time.Since(in.begun).Microseconds()) / 1000
	if out.log == "" {
		if p.peak.Load() == 0 {
			p.peak.Store(groupMemory(p.cmd.Process.Pid)) // its first run was short
		}
		p.logs.note("END RequestId: %s\nREPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: %d MB\tMax Memory Used: %d MB\t",
			in.id, in.id, took, int(took)+1, p.pool.function.MemoryMB, p.peak.Load()>>20)
		out.log = p.logs.take()
	}
	in.outcome = out
	close(in.done)
	return true
}

// returnGrace is how long a process that answered counts as one that will be free
// at once.
const returnGrace = 20 * time.Millisecond

// returnedLocked stops counting on the process.
func (p *process) returnedLocked() {
	if p.returning {
		p.returning = false
		p.pool.returning--
	}
}

// returnTimedOut lets others be started in place of a process that doesn't come
// back from its answer, and ends it if it doesn't come at all.
func (p *process) returnTimedOut(in *invocation) {
	h := p.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.current != in || p.state != stateBusy {
		return
	}
	if p.returning {
		p.returnedLocked()
		h.schedule(p.pool)
		p.runTimer = time.AfterFunc(p.pool.function.Timeout, func() { p.returnTimedOut(in) })
		return
	}
	p.endLocked(endedTimeout)
}

// freeLocked gives a process back that was granted and not used, or whose runtime
// asks for the next event.
func (p *process) freeLocked(cold bool) {
	if p.state != stateEnding {
		p.host.offer(p, cold)
	}
}

// endLocked ends the process: at once, or with SIGTERM first if it wants to hear
// of its end. Its end is noticed by wait.
func (p *process) endLocked(reason ending) {
	if p.exited || p.state == stateEnding {
		return
	}
	if p.state == stateIdle {
		p.host.leaveIdle(p)
	}
	p.returnedLocked()
	p.state, p.reason = stateEnding, reason
	pid := p.cmd.Process.Pid
	if !p.terminates || reason != endedIdle && reason != endedShutdown {
		killGroup(pid)
		return
	}
	terminateGroup(pid)
	time.AfterFunc(termGrace, func() {
		p.host.mu.Lock()
		defer p.host.mu.Unlock()
		if !p.exited {
			killGroup(pid)
		}
	})
}

func (p *process) initTimedOut() {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	if p.state == stateStarting {
		p.endLocked(endedInit)
	}
}

func (p *process) idleTimedOut() {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	if p.state == stateIdle {
		p.endLocked(endedIdle)
	}
}

func (p *process) runTimedOut(in *invocation, timeout time.Duration) {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	text := fmt.Sprintf("%s %s Task timed out after %.2f seconds", p.host.clock().UTC().Format("2006-01-02T15:04:05.000Z"), in.id, timeout.Seconds())
	p.logs.note("%s", text)
	// The object has no errorType, as that of AWS Lambda.
	payload, _ := json.Marshal(map[string]string{"errorMessage": text})
	if p.finishLocked(in, outcome{kind: outcomeTimeout, payload: payload}) {
		p.endLocked(endedTimeout)
	}
}

// checkMemory ends the process when it holds too much.
func (p *process) checkMemory() {
	used := groupMemory(p.cmd.Process.Pid)
	if used > p.peak.Load() {
		p.peak.Store(used)
	}
	if used <= int64(p.pool.function.MemoryMB)<<20 {
		return
	}
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.endLocked(endedMemory)
}
