package test

import (
	"context"
	"encoding/json"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// noConnack says that a client saw no CONNACK.
const noConnack = -1

// mosquittoRun is one run of mosquitto_pub.
type mosquittoRun struct {
	toolRun
	connack int // its return or reason code, noConnack when none came
	puback  int // likewise
}

var (
	connackLine = regexp.MustCompile(`received CONNACK \((\d+)\)`)
	pubackLine  = regexp.MustCompile(`received PUBACK \(Mid: \d+, RC:(\d+)\)`)
)

func code(t *testing.T, line *regexp.Regexp, text string) int {
	t.Helper()
	found := line.FindStringSubmatch(text)
	if found == nil {
		return noConnack
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// mosquittoArgs connect as a device.
func (s *server) mosquittoArgs(d *device, clientID string) []string {
	return []string{"-d", "-h", "localhost", "-p", s.port(), "--cafile", s.at().CABundle, "--cert", d.cert, "--key", d.key, "-i", clientID}
}

// publish runs mosquitto_pub, with MQTT 3.1.1 and QoS 1 unless more says
// otherwise.
func (s *server) publish(t *testing.T, d *device, clientID, topic string, more ...string) mosquittoRun {
	t.Helper()
	return s.publishWith(t, nil, d, clientID, topic, more...)
}

// publishWith is publish with more environment.
func (s *server) publishWith(t *testing.T, env []string, d *device, clientID, topic string, more ...string) mosquittoRun {
	t.Helper()
	args := append(s.mosquittoArgs(d, clientID), "-V", "311", "-q", "1", "-t", topic, "-m", "hello")
	run := runTool(t, "", cleanEnv(env...), "mosquitto_pub", append(args, more...)...)
	return mosquittoRun{toolRun: run, connack: code(t, connackLine, run.all()), puback: code(t, pubackLine, run.all())}
}

// join takes a device through its first connection and its second.
func (s *server) join(t *testing.T, d *device) {
	t.Helper()
	s.joinWith(t, d, nil)
}

func (s *server) joinWith(t *testing.T, d *device, env []string) {
	t.Helper()
	first := s.publishWith(t, env, d, d.name, "d/"+d.name+"/x")
	checkSilentClose(t, first)
	second := s.publishWith(t, env, d, d.name, "d/"+d.name+"/x")
	if second.exit != 0 || second.connack != 0 || second.puback != 0 {
		t.Fatalf("second connection of %s: got exit code %d, CONNACK %d, PUBACK %d; want 0, 0, 0\n%s", d.name, second.exit, second.connack, second.puback, second.all())
	}
}

// checkSilentClose says whether a connection ended as AWS IoT Core ends a
// refused MQTT 3.1.1 one.
func checkSilentClose(t *testing.T, run mosquittoRun) {
	t.Helper()
	if run.exit == 0 || run.connack != noConnack || !strings.Contains(run.all(), "sending CONNECT") {
		t.Fatalf("got exit code %d, CONNACK %d; want CONNECT answered by a close without CONNACK\n%s", run.exit, run.connack, run.all())
	}
}

// subscriber is a running mosquitto_sub.
type subscriber struct {
	t    *testing.T
	cmd  *exec.Cmd
	said *said
	done chan struct{}
}

// subscribe starts mosquitto_sub and waits until all filters are granted.
func (s *server) subscribe(t *testing.T, d *device, clientID string, filters ...string) *subscriber {
	t.Helper()
	sub := s.trySubscribe(t, d, clientID, nil, filters...)
	sub.said.wait(t, "SUBACK", func(text string) bool { return strings.Contains(text, "received SUBACK") })
	return sub
}

func (s *server) trySubscribe(t *testing.T, d *device, clientID string, more []string, filters ...string) *subscriber {
	t.Helper()
	path := toolPath(t, "mosquitto_sub")
	args := append(s.mosquittoArgs(d, clientID), "-V", "311", "-q", "1", "-F", "message %t %p")
	for _, f := range filters {
		args = append(args, "-t", f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	sub := &subscriber{t: t, said: newSaid(), done: make(chan struct{})}
	// Written to a pipe, mosquitto_sub would keep its lines for itself.
	sub.cmd = exec.CommandContext(ctx, "stdbuf", append([]string{"-oL", path}, append(args, more...)...)...)
	sub.cmd.Env = cleanEnv()
	sub.cmd.Stdout, sub.cmd.Stderr = sub.said, sub.said
	err := sub.cmd.Start()
	if err != nil {
		cancel()
		t.Fatalf("couldn't start mosquitto_sub: %v", err)
	}
	go func() {
		_ = sub.cmd.Wait()
		close(sub.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-sub.done
	})
	return sub
}

// kill ends the process without a word, so that its connection is cut.
func (sub *subscriber) kill() {
	_ = sub.cmd.Process.Kill()
	<-sub.done
}

// messages lists what came on a topic so far.
func messages(text, topic string) []string {
	var list []string
	for line := range strings.Lines(text) {
		payload, found := strings.CutPrefix(line, "message "+topic+" ")
		if found {
			list = append(list, strings.TrimSuffix(payload, "\n"))
		}
	}
	return list
}

// await waits for the n-th message on a topic and gives it.
func (sub *subscriber) await(t *testing.T, topic string, n int) string {
	t.Helper()
	text := sub.said.wait(t, "message on "+topic, func(text string) bool {
		return strings.HasSuffix(text, "\n") && len(messages(text, topic)) >= n
	})
	return messages(text, topic)[n-1]
}

// awaitTime waits for the first event on a topic and gives when that happened.
func (sub *subscriber) awaitTime(t *testing.T, topic string) time.Time {
	t.Helper()
	return time.UnixMilli(number(t, sub.awaitJSON(t, topic, 1)["timestamp"]))
}

// awaitJSON is await for JSON objects; numbers stay as they were written.
func (sub *subscriber) awaitJSON(t *testing.T, topic string, n int) map[string]any {
	t.Helper()
	text := sub.await(t, topic, n)
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var object map[string]any
	err := decoder.Decode(&object)
	if err != nil {
		t.Fatalf("message on %s: %v: %s", topic, err, text)
	}
	return object
}
