package bench

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/imprint-iot/imprint/awsapi/client"
)

// The subcommands of `imprint bench` that a function bench starts.
const (
	EchoCommand     = "echo"
	FunctionCommand = "function-runtime"
)

// FunctionOptions are what a person can choose for Function.
type FunctionOptions struct {
	Invocations int // 1 to MaxInvocations
	Messages    io.Writer
}

const (
	// MaxInvocations bounds what a run keeps in memory.
	MaxInvocations = 1_000_000
	warmInvocation = 200
	// addedGoal is what a warm function may add at the median, in ms.
	addedGoal  = 2
	functions  = "/2015-03-31/functions"
	invokePath = functions + "/bench/invocations"
)

// hello is what the function and the process give back.
type hello struct {
	SerialNumber string `json:"serialNumber"`
	Number       int    `json:"number"`
}

// Function measures warm invocations of a Go function that gives back what it gets,
// one at a time over the server's API. What the run itself takes is an invocation
// less the same request as a dry run, which does all but run it; both, and a round
// trip to a process over its pipes, alternate. An answer that isn't the request's
// fails the run.
func Function(ctx context.Context, target Target, opts FunctionOptions) ([]Figure, error) {
	if opts.Invocations < 1 || opts.Invocations > MaxInvocations {
		return nil, fmt.Errorf("couldn't run with %d invocations: 1 to %d are possible", opts.Invocations, MaxInvocations)
	}
	if opts.Messages == nil {
		opts.Messages = io.Discard
	}
	s := &stand{opts: Options{Messages: opts.Messages}}
	figures, err := s.function(ctx, target, opts.Invocations)
	return figures, errors.Join(err, s.close())
}

func (s *stand) function(ctx context.Context, target Target, invocations int) ([]Figure, error) {
	dir, err := os.MkdirTemp("", "imprint-bench-")
	if err != nil {
		return nil, fmt.Errorf("couldn't make a data directory: %w", err)
	}
	s.dir = dir
	// The function is this program, which the caller can run and others may not; it may
	// stand below /tmp.
	user := strconv.Itoa(os.Getuid()) + ":" + strconv.Itoa(os.Getgid())
	s.server, err = startChild("Imprint server", target.Program, append(target.ServerArgs(dir), "--function-user", user, "--function-tmp", "0"), s.opts.Messages)
	if err != nil {
		return nil, err
	}
	err = s.awaitServer(ctx, target)
	if err != nil {
		return nil, err
	}
	run, dry, err := s.invokers()
	if err != nil {
		return nil, err
	}
	err = createFunction(ctx, run, target.Program)
	if err != nil {
		return nil, err
	}
	process, err := startEcho(ctx, target.Program, s.opts.Messages)
	if err != nil {
		return nil, err
	}
	t, err := takeTurns(ctx, run, dry, process, invocations)
	err = errors.Join(err, process.stop())
	if err != nil {
		return nil, err
	}
	return t.figures(), nil
}

// invokers give clients that invoke the function and that only ask whether they may.
func (s *stand) invokers() (run, dry *client.Client, err error) {
	config := client.Config{
		Endpoint: s.facts.APIURL, KeyID: s.facts.KeyID, Secret: s.facts.Secret, Region: s.facts.Region, RootPath: s.facts.RootPath, Service: "lambda",
	}
	run, err = client.New(config)
	if err != nil {
		return nil, nil, err
	}
	config.Header = http.Header{"X-Amz-Invocation-Type": {"DryRun"}}
	dry, err = client.New(config)
	return run, dry, err
}

// createFunction makes the function: this program, which a script in the zip starts.
func createFunction(ctx context.Context, c *client.Client, program string) error {
	var code bytes.Buffer
	w := zip.NewWriter(&code)
	header := &zip.FileHeader{Name: "bootstrap"}
	header.SetMode(0o755)
	part, err := w.CreateHeader(header)
	if err == nil {
		_, err = fmt.Fprintf(part, "#!/bin/sh\nexec '%s' bench %s\n", strings.ReplaceAll(program, "'", `'\''`), FunctionCommand)
	}
	err = errors.Join(err, w.Close())
	if err != nil {
		return fmt.Errorf("couldn't pack the function: %w", err)
	}
	err = c.Call(ctx, "POST", functions, object{
		"FunctionName": "bench", "Runtime": "provided.al2023", "Handler": "bootstrap", "Role": "arn:aws:iam::000000000000:role/bench",
		"MemorySize": 512, "Timeout": 30, "Code": object{"ZipFile": code.Bytes()},
	}, nil)
	if err != nil {
		return fmt.Errorf("couldn't create the function: %w", err)
	}
	return nil
}

// turns are the times of each kind, in the order in which they were taken.
type turns struct{ run, dry, bare, added []time.Duration }

func takeTurns(ctx context.Context, run, dry *client.Client, process *echo, invocations int) (turns, error) {
	var t turns
	for n := range warmInvocation + invocations {
		sent := hello{SerialNumber: "SN-000017", Number: n}
		var got struct {
			hello
			ErrorMessage string `json:"errorMessage"` // of a function that failed
		}
		began := time.Now()
		err := dry.Call(ctx, "POST", invokePath, sent, nil)
		dryTook := time.Since(began)
		if err != nil {
			return t, fmt.Errorf("couldn't ask for a dry run: %w", err)
		}
		began = time.Now()
		err = run.Call(ctx, "POST", invokePath, sent, &got)
		runTook := time.Since(began)
		if err != nil {
			return t, fmt.Errorf("couldn't invoke the function: %w", err)
		}
		if got.hello != sent {
			return t, fmt.Errorf("couldn't invoke the function: it answered %+v to %+v", got, sent)
		}
		bareTook, err := process.roundTrip(n)
		if err != nil {
			return t, err
		}
		if n < warmInvocation {
			continue
		}
		t.run, t.dry, t.bare = append(t.run, runTook), append(t.dry, dryTook), append(t.bare, bareTook)
		t.added = append(t.added, runTook-dryTook)
	}
	return t, nil
}

func (t turns) figures() []Figure {
	at := func(all []time.Duration, p float64) float64 { return milliseconds(percentile(all, p)) }
	return []Figure{
		Plain("bare process round trip, p50", at(t.bare, 50), "ms"),
		Plain("bare process round trip, p99", at(t.bare, 99), "ms"),
		Plain("request without a run, p50", at(t.dry, 50), "ms"),
		Plain("request without a run, p99", at(t.dry, 99), "ms"),
		Plain("request with a warm run, p50", at(t.run, 50), "ms"),
		Plain("request with a warm run, p99", at(t.run, 99), "ms"),
		Beside("the run itself, p50", at(t.added, 50), "ms", at(t.bare, 50)),
		Beside("the run itself, p99", at(t.added, 99), "ms", at(t.bare, 99)),
		Within("added to a bare process round trip, p50", at(t.added, 50)-at(t.bare, 50), "ms", addedGoal),
	}
}

// echo is a process that gives back each line.
type echo struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startEcho(ctx context.Context, program string, messages io.Writer) (*echo, error) {
	cmd := exec.CommandContext(ctx, program, "bench", EchoCommand)
	cmd.Stderr = messages
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("couldn't make a pipe: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("couldn't make a pipe: %w", err)
	}
	err = cmd.Start()
	if err != nil {
		return nil, fmt.Errorf("couldn't start the process that echoes: %w", err)
	}
	return &echo{cmd: cmd, in: in, out: bufio.NewReader(out)}, nil
}

// roundTrip sends what an invocation sends, and waits until it is back.
func (e *echo) roundTrip(n int) (time.Duration, error) {
	line := fmt.Sprintf(`{"serialNumber":"SN-000017","number":%d}`+"\n", n)
	began := time.Now()
	_, err := io.WriteString(e.in, line)
	if err != nil {
		return 0, fmt.Errorf("couldn't write to the process that echoes: %w", err)
	}
	got, err := e.out.ReadString('\n')
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("couldn't get %q back from the process that echoes: %w", line, err)
	}
	if got != line {
		return 0, fmt.Errorf("couldn't get %q back from the process that echoes: %q came", line, got)
	}
	return took, nil
}

func (e *echo) stop() error {
	_ = e.in.Close()
	err := e.cmd.Wait()
	if err != nil {
		return fmt.Errorf("couldn't stop the process that echoes: %w", err)
	}
	return nil
}

// Echo gives back each line until its input ends: the reference process.
func Echo(_ context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			_, err = io.WriteString(out, line)
		}
		if err != nil {
			return fmt.Errorf("couldn't echo: %w", err)
		}
	}
}

// maxEvent is more than a bench sends.
const maxEvent = 64 << 10

// ServeFunction is a function that gives back its events, over the Runtime API of AWS
// Lambda (version 2018-06-01), until it is killed.
func ServeFunction(ctx context.Context, _ io.Reader, _ io.Writer) error {
	base := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"
	for {
		id, event, err := exchange(ctx, http.MethodGet, base+"next", nil)
		if err == nil {
			_, _, err = exchange(ctx, http.MethodPost, base+id+"/response", event)
		}
		if err != nil {
			return err
		}
	}
}

func exchange(ctx context.Context, method, url string, body []byte) (id string, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return "", nil, fmt.Errorf("couldn't make a request of the runtime: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", nil, fmt.Errorf("couldn't reach the Runtime API: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(response.Body, maxEvent))
	if err != nil {
		return "", nil, fmt.Errorf("couldn't read the answer of the Runtime API: %w", err)
	}
	if response.StatusCode/100 != 2 {
		return "", nil, fmt.Errorf("couldn't use the Runtime API: %s", response.Status)
	}
	return response.Header.Get("Lambda-Runtime-Aws-Request-Id"), answer, nil
}
