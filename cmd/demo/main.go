// Command demo takes devices through Imprint's main job and shows each step
// with its time: a CA is registered with a just-in-time provisioning template,
// a device that the server never heard of connects, is provisioned, connects
// again and does what its policy allows; another one lacks a field of its
// subject, and the server says so.
//
// The operator is AWS's own Go SDK and the device is the Eclipse Paho MQTT 5
// client: nothing on their side knows of Imprint.
//
//	go run ./cmd/demo -imprint bin/imprint
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	program := flag.String("imprint", "bin/imprint", "the imprint program")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err := run(ctx, *program)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// step runs one step of the demo and prints how long it took.
func step(title string, fn func() (string, error)) error {
	began := time.Now()
	result, err := fn()
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	fmt.Printf("%7.1f ms  %s\n", float64(time.Since(began).Microseconds())/1000, title)
	for line := range strings.Lines(strings.TrimRight(result, "\n")) {
		fmt.Printf("            %s\n", strings.TrimRight(line, "\n"))
	}
	return nil
}

func run(ctx context.Context, program string) error {
	var s *server
	err := step("start a server on an empty directory: keys, certificates, registry, tenant", func() (string, error) {
		started, err := startServer(ctx, program)
		s = started
		if err != nil {
			return "", err
		}
		return "devices at " + s.env["IMPRINT_MQTT"] + ", AWS IoT API at " + s.env["AWS_ENDPOINT_URL_IOT"], nil
	})
	if s != nil {
		defer s.stop()
	}
	if err != nil {
		return err
	}
	f := &factory{}
	op, err := newOperator(s.env)
	if err != nil {
		return err
	}
	for _, one := range []struct {
		title string
		fn    func() (string, error)
	}{
		{"operator: register the factory's CA with auto-registration and a template (AWS SDK)", func() (string, error) { return op.registerCA(ctx, f) }},
		{"factory: make device sensor-0017's key and certificate", func() (string, error) { return f.makeDevice("sensor-0017") }},
		{"device: first connection (Paho, MQTT 5); provisioned, then closed as AWS closes it", func() (string, error) { return firstConnection(ctx, s, f) }},
		{"operator: look at what exists now (AWS SDK)", func() (string, error) { return op.describe(ctx, "sensor-0017") }},
		{"device: second connection; publish and subscribe what the policy allows", func() (string, error) { return secondConnection(ctx, s, f) }},
		{"device: publish what the policy doesn't allow", func() (string, error) { return forbiddenPublish(ctx, s, f) }},
		{"factory: make a device whose subject lacks its common name", func() (string, error) { return f.makeDevice("") }},
		{"device: its first connection is refused", func() (string, error) { return refusedConnection(ctx, s, f) }},
	} {
		err = step(one.title, one.fn)
		if err != nil {
			return err
		}
	}
	fmt.Println("\nWhy isn't the last device connected?   $ imprint explain DEVICE.pem")
	err = s.explain(ctx, f.id)
	if err != nil {
		return err
	}
	fmt.Println("\nThe timeline of the good device:       $ imprint explain sensor-0017")
	return s.explain(ctx, "sensor-0017")
}

// server is an Imprint server in a temporary directory.
type server struct {
	program string
	dir     string
	cmd     *exec.Cmd
	died    chan error        // how the process ended
	env     map[string]string // what `imprint env` exports
}

func startServer(ctx context.Context, program string) (*server, error) {
	dir, err := os.MkdirTemp("", "imprint-demo-")
	if err != nil {
		return nil, fmt.Errorf("couldn't make a temporary directory: %w", err)
	}
	s := &server{program: program, dir: dir}
	s.cmd = exec.Command(program, "serve", "--data", dir, "--mqtt-address", "127.0.0.1:0", "--api-address", "127.0.0.1:0", "--https-address", "", "--log-level", "warn")
	var said, complaints bytes.Buffer
	ready := &watcher{marker: "is ready", seen: make(chan struct{})}
	s.cmd.Stdout = ready
	s.cmd.Stderr = &complaints
	err = s.cmd.Start()
	if err != nil {
		return s, fmt.Errorf("couldn't start %s: %w", program, err)
	}
	s.died = make(chan error, 1)
	go func() { s.died <- s.cmd.Wait() }()
	select {
	case <-ready.seen:
	case err = <-s.died:
		s.died <- err
		return s, fmt.Errorf("the server ended at once (%w): %s", err, complaints.String())
	case <-ctx.Done():
		return s, ctx.Err()
	}
	env := exec.CommandContext(ctx, program, "env", "--data", dir)
	env.Stdout = &said
	err = env.Run()
	if err != nil {
		return s, fmt.Errorf("couldn't run imprint env: %w", err)
	}
	s.env = map[string]string{}
	for line := range strings.Lines(said.String()) {
		name, value, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if found {
			s.env[name] = strings.Trim(value, "'")
		}
	}
	return s, nil
}

// watcher tells when a text was written to it.
type watcher struct {
	marker string
	seen   chan struct{}
	buf    bytes.Buffer
	done   bool
}

func (w *watcher) Write(p []byte) (int, error) {
	if !w.done {
		w.buf.Write(p)
		if strings.Contains(w.buf.String(), w.marker) {
			w.done = true
			close(w.seen)
		}
	}
	return len(p), nil
}

// stop ends the server and removes its directory.
func (s *server) stop() {
	if s.died != nil {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		deadline := time.AfterFunc(15*time.Second, func() { _ = s.cmd.Process.Kill() })
		<-s.died
		deadline.Stop()
	}
	_ = os.RemoveAll(s.dir)
}

func (s *server) explain(ctx context.Context, what string) error {
	cmd := exec.CommandContext(ctx, s.program, "explain", "--data", s.dir, what)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if err != nil {
		return fmt.Errorf("couldn't run imprint explain: %w", err)
	}
	return nil
}
