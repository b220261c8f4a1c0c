package test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/internal/foreign"
)

// jsModules is where scripts/test-tools put the packages of test/js.
func jsModules(t *testing.T) string {
	t.Helper()
	sum := sha256.Sum256([]byte(readFile(t, "js/package-lock.json")))
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		cache = filepath.Join(os.Getenv("HOME"), ".cache")
	}
	dir := filepath.Join(cache, "imprint-test", "js-"+hex.EncodeToString(sum[:8]), "node_modules")
	_, err := os.Stat(filepath.Join(dir, "aws-iot-device-sdk-v2"))
	if err == nil {
		return dir
	}
	foreign.Missing(t, "AWS's device SDK for Node", "run scripts/test-tools")
	return ""
}

// jsConfig is the argument of device.cjs. Members are named as the SDK names
// them.
type jsConfig struct {
	Version       int        `json:"version"` // 4 or 5
	Host          string     `json:"host"`
	Port          int        `json:"port"`
	Proxy         int        `json:"proxy,omitempty"` // a tunnel's
	CA            string     `json:"ca"`
	Cert          string     `json:"cert"`
	Key           string     `json:"key"`
	ClientID      string     `json:"clientId"`
	Behavior      string     `json:"behavior,omitempty"` // clean, rejoin or always
	KeepAlive     int        `json:"keepAlive,omitempty"`
	Aliases       bool       `json:"aliases,omitempty"`
	SessionExpiry int        `json:"sessionExpiryIntervalSeconds,omitempty"`
	WillDelay     int        `json:"willDelayIntervalSeconds,omitempty"`
	Will          *jsMessage `json:"will,omitempty"`
}

// jsMessage is a PUBLISH in the SDK's names; binary members are base64.
type jsMessage struct {
	Topic         string       `json:"topicName"`
	Payload       base64Text   `json:"payload"`
	QoS           int          `json:"qos"`
	Retain        bool         `json:"retain,omitempty"`
	Dup           bool         `json:"dup,omitempty"`
	Format        *int         `json:"payloadFormat,omitempty"`
	Expiry        *int         `json:"messageExpiryIntervalSeconds,omitempty"`
	ResponseTopic string       `json:"responseTopic,omitempty"`
	Correlation   base64Text   `json:"correlationData,omitempty"`
	ContentType   string       `json:"contentType,omitempty"`
	User          []jsProperty `json:"userProperties,omitempty"`
}

type jsProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type jsSubscription struct {
	Filter            string `json:"topicFilter"`
	QoS               int    `json:"qos"`
	NoLocal           bool   `json:"noLocal,omitempty"`
	RetainAsPublished bool   `json:"retainAsPublished,omitempty"`
	RetainHandling    int    `json:"retainHandlingType,omitempty"`
}

// base64Text is bytes that travel as base64.
type base64Text string

func (b base64Text) MarshalText() ([]byte, error) {
	return []byte(base64.StdEncoding.EncodeToString([]byte(b))), nil
}

func (b *base64Text) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.DecodeString(string(text))
	*b = base64Text(raw)
	return err
}

// jsLine is one line of the program's output.
type jsLine struct {
	N      int             `json:"n"`
	Error  string          `json:"error"`
	Result json.RawMessage `json:"result"`

	Event          string         `json:"event"`
	SessionPresent bool           `json:"sessionPresent"`
	Connack        map[string]any `json:"connack"`
	Reason         *int           `json:"reason"`
	Message        *jsMessage     `json:"message"`
}

// jsDevice is a running device.cjs.
type jsDevice struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	said  *said
	done  chan struct{}

	mu sync.Mutex // guards n
	n  int
	// seen counts the events of a kind that were waited for.
	seen map[string]int
}

// jsDevice starts a device of a tenant; it doesn't connect yet.
func (s *side) jsDevice(t *testing.T, config jsConfig) *jsDevice {
	t.Helper()
	need(t, "node")
	modules := jsModules(t)
	port, err := strconv.Atoi(s.stage.port())
	if err != nil {
		t.Fatal(err)
	}
	if config.Port == 0 {
		config.Port = port
	}
	if config.CA == "" {
		config.CA = s.stage.at().CABundle
	}
	config.Host = s.host
	config.Cert, config.Key = s.device.cert, s.device.key
	argument, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &jsDevice{t: t, name: config.ClientID, said: newSaid(), done: make(chan struct{}), seen: map[string]int{}}
	d.cmd = exec.CommandContext(ctx, "node", "js/device.cjs", string(argument))
	d.cmd.Env = cleanEnv("NODE_PATH=" + modules)
	d.cmd.Stdout, d.cmd.Stderr = d.said, os.Stderr
	d.stdin, err = d.cmd.StdinPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatalf("couldn't start node: %v", err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-d.done
	})
	return d
}

// lines are the output so far.
func (d *jsDevice) lines(text string) []jsLine {
	var list []jsLine
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var one jsLine
		err := json.Unmarshal([]byte(line), &one)
		if err != nil {
			d.t.Errorf("%s said %q: %v", d.name, line, err)
			continue
		}
		list = append(list, one)
	}
	return list
}

// await waits for the next event of a kind that wasn't waited for yet.
func (d *jsDevice) await(event string) jsLine {
	d.t.Helper()
	var found []jsLine
	d.said.wait(d.t, d.name+" to be "+event, func(text string) bool {
		found = found[:0]
		for _, line := range d.lines(text) {
			if line.Event == event {
				found = append(found, line)
			}
		}
		return len(found) > d.seen[event]
	})
	d.seen[event]++
	return found[d.seen[event]-1]
}

// do gives a command and decodes its result; it must succeed.
func (d *jsDevice) do(command string, arguments map[string]any, result any) {
	d.t.Helper()
	line := d.try(command, arguments)
	if line.Error != "" {
		d.t.Fatalf("%s, %s: %s", d.name, command, line.Error)
	}
	if result == nil {
		return
	}
	err := json.Unmarshal(line.Result, result)
	if err != nil {
		d.t.Fatalf("%s, %s: %v in %s", d.name, command, err, line.Result)
	}
}

// ask sends a command and gives its number.
func (d *jsDevice) ask(command string, arguments map[string]any) int {
	d.t.Helper()
	d.mu.Lock()
	d.n++
	n := d.n
	d.mu.Unlock()
	line := map[string]any{"n": n, "do": command}
	for name, value := range arguments {
		line[name] = value
	}
	text, err := json.Marshal(line)
	if err == nil {
		_, err = d.stdin.Write(append(text, '\n'))
	}
	if err != nil {
		d.t.Fatalf("%s, %s: %v", d.name, command, err)
	}
	return n
}

// answer waits for the answer to a command.
func (d *jsDevice) answer(n int) jsLine {
	d.t.Helper()
	var found *jsLine
	d.said.wait(d.t, d.name+" to answer", func(text string) bool {
		for _, line := range d.lines(text) {
			if line.N == n {
				found = &line
				return true
			}
		}
		return false
	})
	return *found
}

func (d *jsDevice) try(command string, arguments map[string]any) jsLine {
	d.t.Helper()
	return d.answer(d.ask(command, arguments))
}

// connect starts the client and waits until it is on.
func (d *jsDevice) connect() jsLine {
	d.t.Helper()
	n := d.ask("start", nil)
	on := d.await("connected")
	d.answer(n)
	return on
}

func (d *jsDevice) subscribe(subscriptions ...jsSubscription) []int {
	d.t.Helper()
	var codes []int
	d.do("subscribe", map[string]any{"subscriptions": subscriptions}, &codes)
	return codes
}

// publish gives the reason of the PUBACK.
func (d *jsDevice) publish(m jsMessage) int {
	d.t.Helper()
	var reason int
	d.do("publish", map[string]any{"packet": m}, &reason)
	return reason
}

// stop disconnects. Packet is the DISCONNECT of MQTT 5, a normal one when nil:
// without any, the SDK would close without a word.
func (d *jsDevice) stop(packet map[string]any) {
	d.t.Helper()
	if packet == nil {
		packet = map[string]any{"reasonCode": 0}
	}
	n := d.ask("stop", map[string]any{"packet": packet})
	d.await("stopped")
	d.answer(n)
}

// kill ends the process without a word.
func (d *jsDevice) kill() {
	_ = d.cmd.Process.Kill()
	select {
	case <-d.done:
	case <-time.After(patience):
		d.t.Errorf("%s doesn't end", d.name)
	}
}

// received waits for n messages and gives their payloads.
func (d *jsDevice) received(n int) []string {
	d.t.Helper()
	var payloads []string
	for range n {
		payloads = append(payloads, string(d.await("message").Message.Payload))
	}
	return payloads
}
