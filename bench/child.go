package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"
)

// mark begins the lines of a child's standard output that are for its parent.
const mark = "imprint-bench "

const (
	// stopTimeout is how long a child may take to end after it was asked to.
	stopTimeout = 20 * time.Second
	// answerTimeout is how long it may take to answer.
	answerTimeout = 30 * time.Second
	maxLine       = 64 << 10
)

// child is a process that this one started and will end.
type child struct {
	name    string
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers chan string
	ended   chan struct{}
	err     error // how it ended; set when ended is closed
}

// startChild runs a program whose standard input is a pipe of orders and whose
// standard error is shown to the person.
func startChild(name, program string, args []string, messages io.Writer) (*child, error) {
	return start(name, exec.Command(program, args...), messages)
}

func start(name string, cmd *exec.Cmd, messages io.Writer) (*child, error) {
	cmd.Env = childEnvironment(os.Environ())
	cmd.Stderr = messages
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("couldn't start the %s: %w", name, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("couldn't start the %s: %w", name, err)
	}
	err = cmd.Start()
	if err != nil {
		return nil, fmt.Errorf("couldn't start the %s: %w", name, err)
	}
	c := &child{name: name, cmd: cmd, orders: orders, answers: make(chan string, 4), ended: make(chan struct{})}
	go c.listen(out)
	return c, nil
}

// childEnvironment leaves out settings of other servers. The master key stays,
// because whoever reads the data directory looks for it, too.
func childEnvironment(env []string) []string {
	kept := make([]string, 0, len(env))
	for _, variable := range env {
		if strings.HasPrefix(variable, "IMPRINT_") && !strings.HasPrefix(variable, "IMPRINT_MASTER_KEY=") {
			continue
		}
		kept = append(kept, variable)
	}
	return kept
}

// listen passes on the child's answers until it closes its output, and waits
// for its end.
func (c *child) listen(out io.Reader) {
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, maxLine)
	for scanner.Scan() {
		answer, found := strings.CutPrefix(scanner.Text(), mark)
		if !found {
			continue
		}
		select {
		case c.answers <- answer:
		default: // nobody asked
		}
	}
	_, _ = io.Copy(io.Discard, out)
	c.err = c.cmd.Wait()
	close(c.ended)
}

// answer waits for the child's next line.
func (c *child) answer(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	select {
	case line := <-c.answers:
		return line, nil
	case <-c.ended:
		return "", c.lost()
	case <-ctx.Done():
		return "", fmt.Errorf("couldn't get an answer from the %s: %w", c.name, ctx.Err())
	}
}

// over says whether it has ended.
func (c *child) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// lost is the error of a child that ended by itself.
func (c *child) lost() error {
	if c.err == nil {
		return fmt.Errorf("couldn't go on: the %s has ended", c.name)
	}
	return fmt.Errorf("couldn't go on: the %s has ended: %w", c.name, c.err)
}

// order sends a line and waits until the child says that it is done.
func (c *child) order(ctx context.Context, line string) error {
	_, err := io.WriteString(c.orders, line+"\n")
	if err != nil {
		return fmt.Errorf("couldn't tell the %s: %w", c.name, err)
	}
	answer, err := c.answer(ctx)
	if err != nil {
		return err
	}
	if answer != doneAnswer {
		return fmt.Errorf("couldn't have the %s do %q: %s", c.name, line, answer)
	}
	return nil
}

// stop asks the child to end, and ends it when it doesn't.
func (c *child) stop() error {
	// The end of its orders is a request, too, where signals don't exist. Both
	// fail when it has ended already, which the wait below tells.
	_ = c.orders.Close()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-c.ended:
	case <-timer.C:
		_ = c.cmd.Process.Kill()
		<-c.ended
		return fmt.Errorf("couldn't stop the %s within %s: it was killed", c.name, stopTimeout)
	}
	if c.err != nil {
		return fmt.Errorf("couldn't stop the %s cleanly: %w", c.name, c.err)
	}
	return nil
}

func (c *child) cpu() (time.Duration, error) { return cpuTime(c.cmd.Process.Pid) }

func (c *child) memory() (int64, error) { return residentMemory(c.cmd.Process.Pid) }

const (
	idlePeriod  = 50 * time.Millisecond
	idlePeriods = 4
	idleTimeout = time.Minute
)

// idle waits until the child has nothing more to do: in 0.2 s it uses a
// clock tick at most.
func (c *child) idle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, idleTimeout)
	defer cancel()
	ticker := time.NewTicker(idlePeriod)
	defer ticker.Stop()
	last, err := c.cpu()
	for quiet := 0; err == nil && quiet < idlePeriods; {
		select {
		case <-ticker.C:
		case <-c.ended:
			return c.lost()
		case <-ctx.Done():
			return fmt.Errorf("couldn't see the %s come to rest: %w", c.name, ctx.Err())
		}
		var now time.Duration
		now, err = c.cpu()
		quiet++
		if now-last > tick {
			quiet, last = 0, now
		}
	}
	return err
}

// The orders that a server child obeys, and its answer when it did.
const (
	profileOrder    = "profile "
	profileEndOrder = "profile-end"
	collectOrder    = "collect" // garbage, and give free memory back
	doneAnswer      = "done"
)

// Obey runs in a child: it carries out the orders on in, one a line, answers
// each on out, and calls stop when in ends, so that no child outlives its
// parent. "profile FILE" begins a CPU profile into a file, "profile-end" ends
// it.
func Obey(in io.Reader, out io.Writer, stop func()) {
	defer stop()
	var profile *os.File
	defer func() {
		if profile != nil {
			_ = endProfile(profile)
		}
	}()
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		var err error
		switch path, begin := strings.CutPrefix(scanner.Text(), profileOrder); {
		case begin && profile == nil:
			profile, err = beginProfile(path)
		case scanner.Text() == collectOrder:
			debug.FreeOSMemory()
		case scanner.Text() == profileEndOrder && profile != nil:
			err = endProfile(profile)
			profile = nil
		default:
			err = fmt.Errorf("couldn't obey %q now", scanner.Text())
		}
		answer := doneAnswer
		if err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		_, err = fmt.Fprintln(out, mark+answer)
		if err != nil {
			return
		}
	}
}

func beginProfile(path string) (*os.File, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the CPU profile: %w", err)
	}
	err = pprof.StartCPUProfile(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("couldn't begin the CPU profile: %w", err), file.Close())
	}
	return file, nil
}

func endProfile(file *os.File) error {
	pprof.StopCPUProfile()
	err := file.Close()
	if err != nil {
		return fmt.Errorf("couldn't write the CPU profile: %w", err)
	}
	return nil
}
