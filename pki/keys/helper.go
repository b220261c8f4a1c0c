package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/keys/wire"
)

const (
	helperName = "imprint-pkcs11"
	// HelperVariable is the environment variable that names imprint-pkcs11.
	HelperVariable = "IMPRINT_PKCS11_HELPER"

	helperHint = "Build it with `make pkcs11-helper` (it needs a C compiler) and put it beside the imprint program, or name it in " + HelperVariable + "."

	// ownVariables begin the names of Imprint's own settings and secrets.
	ownVariables = "IMPRINT_"

	// lastWords bounds what is kept of the process's standard error.
	lastWords = 1 << 10
	// reapTime is how long a process that ended may take until its exit status is
	// known.
	reapTime = time.Second
)

// helper is one process of imprint-pkcs11.
type helper struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	stderr  *tail
	writes  chan []byte
	exited  chan struct{} // closed when the process was reaped

	// loginRequired is the token's word, set before others use the process.
	loginRequired bool

	// done is closed when nothing more is to be had; err says why from then on.
	done chan struct{}
	err  error

	mu      sync.Mutex
	ended   bool
	lastID  uint32
	waiting map[uint32]*question
}

// question is a request that has no answer yet.
type question struct {
	answer chan *wire.Response // has room for it
	timer  *time.Timer
}

func helperPath(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	if named := os.Getenv(HelperVariable); named != "" {
		return named, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("couldn't tell where this program is: %w", err)
	}
	return filepath.Join(filepath.Dir(self), helperName), nil
}

// helperEnvironment is this process's without Imprint's own settings and AWS's
// credentials: what a vendor's library doesn't need, it can't leak.
func helperEnvironment() []string {
	var kept []string
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, ownVariables) && !strings.HasPrefix(pair, "AWS_") {
			kept = append(kept, pair)
		}
	}
	return kept
}

func startHelper(configured string) (*helper, error) {
	path, err := helperPath(configured)
	if err != nil {
		return nil, err
	}
	h := &helper{
		stderr: &tail{}, writes: make(chan []byte), exited: make(chan struct{}), done: make(chan struct{}), waiting: map[uint32]*question{},
	}
	// Only the path is used: a name is never looked up in PATH.
	if !filepath.IsAbs(path) {
		path, err = filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("couldn't tell where %s is: %w", helperName, err)
		}
	}
	h.command = &exec.Cmd{Path: path, Args: []string{helperName}, Env: helperEnvironment(), Dir: "/", Stderr: h.stderr, WaitDelay: reapTime}
	h.stdin, err = h.command.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("couldn't make a pipe to %s: %w", helperName, err)
	}
	// Not StdoutPipe: the reading must not end because Wait was called.
	out, in, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("couldn't make a pipe from %s: %w", helperName, err), h.stdin.Close())
	}
	h.command.Stdout = in
	err = errors.Join(h.command.Start(), in.Close())
	if err != nil {
		return nil, errors.Join(imprint.Errorf(imprint.CodeKeyUnavailable, "couldn't start %s: %w", helperName, err).WithHint(helperHint), out.Close())
	}
	go h.reap()
	go h.read(out)
	go h.write()
	return h, nil
}

// reap takes the exit status, which stands in command.ProcessState then.
func (h *helper) reap() {
	_ = h.command.Wait() // a status other than 0 is told by read
	close(h.exited)
}

// read hands out answers until the process ends or talks nonsense.
func (h *helper) read(out *os.File) {
	defer func() { _ = out.Close() }() // only read from
	for {
		message, err := wire.Read(out)
		if err == nil {
			var answer wire.Response
			err = answer.Unmarshal(message)
			if err == nil {
				h.deliver(&answer)
				continue
			}
		}
		h.end(h.lastState(err))
		return
	}
}

// lastState says why the process can't be heard any more.
func (h *helper) lastState(err error) error {
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s didn't keep to the protocol, is it of another version?: %w", helperName, err)
	}
	timer := time.NewTimer(reapTime)
	defer timer.Stop()
	select {
	case <-h.exited:
		return fmt.Errorf("%s ended (%v)%s", helperName, h.command.ProcessState, h.stderr.words())
	case <-timer.C:
		return fmt.Errorf("%s closed its output%s", helperName, h.stderr.words())
	}
}

func (h *helper) deliver(answer *wire.Response) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.waiting[answer.ID]
	if q == nil {
		return
	}
	delete(h.waiting, answer.ID)
	q.timer.Stop()
	q.answer <- answer
}

// write writes what is asked, so that no caller hangs on a full pipe.
func (h *helper) write() {
	for {
		select {
		case message := <-h.writes:
			err := wire.Write(h.stdin, message)
			clear(message)
			if err != nil {
				// read hears of the end too, and knows more about it.
				return
			}
		case <-h.done:
			return
		}
	}
}

// mute stops keeping what the process writes to its standard error. From the time
// that a PIN is sent, that might have it.
func (h *helper) mute() { h.stderr.mute() }

// ask sends a request and waits for its answer. A process that is silent for longer
// than patience is ended, also when the caller went away before.
func (h *helper) ask(ctx context.Context, request *wire.Request, patience time.Duration) (*wire.Response, error) {
	q := &question{answer: make(chan *wire.Response, 1)}
	h.mu.Lock()
	h.lastID++
	request.ID = h.lastID
	if !h.ended {
		// A little less than what callers have, so that they are told what
		// happened.
		patience -= patience / 10
		q.timer = time.AfterFunc(patience, func() {
			h.end(fmt.Errorf("%s, or the module in it, was silent for %v and was ended", helperName, patience.Round(time.Millisecond)))
		})
		h.waiting[request.ID] = q
	}
	h.mu.Unlock()
	message, err := request.Marshal()
	if err != nil {
		h.forget(request.ID)
		return nil, imprint.Errorf(imprint.CodeInternal, "couldn't ask %s: %w", helperName, err)
	}
	select {
	case h.writes <- message:
	case <-h.done:
		return nil, h.unavailable()
	case <-ctx.Done():
		// Nothing was sent. The timer of those before says whether it hangs.
		h.forget(request.ID)
		clear(message)
		return nil, fmt.Errorf("couldn't ask the token: %w", ctx.Err())
	}
	select {
	case answer := <-q.answer:
		return answer, nil
	case <-h.done:
		return nil, h.unavailable()
	case <-ctx.Done():
		return nil, fmt.Errorf("couldn't wait for the token: %w", ctx.Err())
	}
}

func (h *helper) forget(id uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q := h.waiting[id]; q != nil {
		q.timer.Stop()
		delete(h.waiting, id)
	}
}

func (h *helper) unavailable() error {
	refusal := imprint.Errorf(imprint.CodeKeyUnavailable, "%w", h.err)
	select {
	case <-h.exited:
		if h.command.ProcessState.ExitCode() == wire.ExitNotBuilt {
			return refusal.WithHint(helperHint)
		}
	default:
	}
	return refusal
}

// end ends the process, whatever state it is in, and lets go all who wait.
func (h *helper) end(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return
	}
	h.ended = true
	for id, q := range h.waiting {
		q.timer.Stop()
		delete(h.waiting, id)
	}
	h.err = why
	close(h.done)
	_ = h.command.Process.Kill() // it may have ended by itself
	_ = h.stdin.Close()          // may be closed by Wait already
}

// tail keeps the first words that a process writes to its standard error.
type tail struct {
	mu    sync.Mutex
	muted bool
	text  []byte
}

// Write never fails.
func (t *tail) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.muted {
		t.text = append(t.text, data[:min(len(data), lastWords-len(t.text))]...)
	}
	return len(data), nil
}

func (t *tail) mute() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.muted = true
}

// words gives what was kept on one line, after a colon.
func (t *tail) words() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.Join(strings.FieldsFunc(string(t.text), func(r rune) bool { return r < ' ' }), " ")
	if text == "" {
		return ""
	}
	return ": " + imprint.Excerpt(text)
}
