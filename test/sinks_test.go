package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/imprint-iot/imprint/internal/sinktest"
)

// publishLines publishes each line as a message of its own.
func (s *server) publishLines(t *testing.T, d *device, clientID, topic string, lines []string) {
	t.Helper()
	args := append(s.mosquittoArgs(d, clientID), "-V", "311", "-q", "1", "-t", topic, "-l")
	run := runTool(t, strings.Join(lines, "\n")+"\n", cleanEnv(), "mosquitto_pub", args...)
	if acknowledged := strings.Count(run.all(), "received PUBACK"); run.exit != 0 || acknowledged != len(lines) {
		t.Fatalf("got exit code %d and %d acknowledgements, want 0 and %d\n%s", run.exit, acknowledged, len(lines), run.all())
	}
}

// restart kills the server and starts it again.
func (s *server) restart() {
	s.t.Helper()
	s.signal(killed)
	s.start()
}

const sinkRule = `{"awsIotSqlVersion":"2016-03-23","sql":"SELECT n FROM 'in/+'","actions":[
 {"firehose":{"roleArn":"arn:aws:iam::000000000000:role/r","deliveryStreamName":"rows"}},
 {"firehose":{"roleArn":"arn:aws:iam::000000000000:role/r","deliveryStreamName":"bus"}},
 {"firehose":{"roleArn":"arn:aws:iam::000000000000:role/r","deliveryStreamName":"log","separator":"\n"}}]}`

// TestRecordsOutliveKillsOfTheServer ensures that what waits for a sink that is
// down is in PostgreSQL once, and in a stream of NATS once, whatever is killed
// before.
func TestRecordsOutliveKillsOfTheServer(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "aws", "bash")
	t.Parallel()
	database, bus := sinktest.StartPostgres(t), sinktest.StartNATS(t, "")
	conn := bus.Connect()
	js := must(jetstream.New(conn))(t)
	must(js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "RECORDS", Subjects: []string{"records.>"}}))(t)
	log := filepath.Join(t.TempDir(), "log.jsonl")
	s := startServer(t,
		"--rule-sink", "rows="+database.URL("?table=records&create=true&sslmode=disable&password-file="+database.PasswordFile),
		"--rule-sink", "bus=nats://127.0.0.1:1,"+bus.Address()+"/records.{rule}?jetstream=true", "--rule-sink", "log=file://"+log)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "rule.json"), sinkRule)
	s.aws(t, dir, "iot create-topic-rule --rule-name keep --topic-rule-payload file://rule.json")
	d := s.watcher(t)
	s.publishLines(t, d, "sender", "in/1", []string{`{"n":"first"}`})
	rows := func() []string {
		found, err := database.Rows("SELECT convert_from(data, 'UTF8') FROM records WHERE rule = 'keep' AND account = '000000000000'")
		if err != nil {
			return nil
		}
		slices.Sort(found)
		return found
	}
	until(t, "the first row", func() bool { return len(rows()) == 1 })

	database.Stop()
	bus.Stop()
	lines := []string{}
	for n := range 60 {
		lines = append(lines, fmt.Sprintf(`{"n":"%03d"}`, n))
	}
	s.publishLines(t, d, "sender", "in/1", lines)
	// The file's action comes last: what it has, the outbox has for the others.
	until(t, "all records in the file", func() bool {
		data, err := os.ReadFile(log)
		return err == nil && strings.Count(string(data), "\n") >= 61
	})
	until(t, "tries that failed", func() bool { return s.metric(t, `imprint_rule_actions_total{action="firehose",outcome="retried"}`) > 1 })
	s.restart()
	database.Start()
	bus.Start()
	until(t, "some rows", func() bool { return len(rows()) > 1 })
	s.restart() // in the midst of it
	want := append(lines, `{"n":"first"}`)
	until(t, "all rows", func() bool { return len(rows()) >= len(want) })
	slices.Sort(want)
	if got := rows(); !slices.Equal(got, want) {
		t.Errorf("rows: got %d\n%v\nwant %d", len(got), got, len(want))
	}
	var stream jetstream.Stream
	until(t, "all messages in the stream", func() bool {
		var err error
		stream, err = js.Stream(t.Context(), "RECORDS")
		return err == nil && stream.CachedInfo().State.Msgs >= uint64(len(want))
	})
	checkStream(t, stream, want)
	until(t, "an empty outbox", func() bool {
		return s.metric(t, `imprint_rule_actions_total{action="firehose",outcome="done"}`) > 0 && s.metric(t, "imprint_rule_waiting") == 0
	})
	if log := s.stderr.String(); strings.Contains(log, database.Password) {
		t.Error("the server's log has the password of PostgreSQL")
	}
}

func checkStream(t *testing.T, stream jetstream.Stream, want []string) {
	t.Helper()
	var got []string
	state := stream.CachedInfo().State
	for at := state.FirstSeq; at <= state.LastSeq; at++ {
		m := must(stream.GetMsg(t.Context(), at))(t)
		got = append(got, string(m.Data))
		if m.Subject != "records.keep" || m.Header.Get(nats.MsgIdHdr) == "" || m.Header.Get("Imprint-Account") != "000000000000" {
			t.Errorf("message %d: got subject %s and headers %v", at, m.Subject, m.Header)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the stream: got %d messages\n%v\nwant %d", len(got), got, len(want))
	}
}

// TestASinkThatCantWorkEndsTheStart ensures that the server says at its start what
// is wrong with a sink, and what to do.
func TestASinkThatCantWorkEndsTheStart(t *testing.T) {
	t.Parallel()
	for sink, want := range map[string][]string{
		"x=kafka://broker:9092/topic":              {"no Kafka client", "-tags kafka"},
		"x=postgres://u:hunter2@db/x?table=t":      {"password", "file"},
		"x=postgres://u@db/x":                      {"table", "SCHEMA.TABLE"},
		"x=nats://host/subject?credentials=/no/it": {"credentials", "can't be read"},
		"x=nonsense": {"scheme", "nats://"},
	} {
		run := runTool(t, "", cleanEnv(), program, "serve", "--data", t.TempDir(), "--rule-sink", sink)
		for _, text := range want {
			if run.exit == 0 || !strings.Contains(run.all(), text) || strings.Contains(run.all(), "hunter2") {
				t.Errorf("--rule-sink %s: got exit code %d and %s, want %q and no password", sink, run.exit, run.all(), text)
			}
		}
	}
}

// slowOwner is the owner of a URL that answers as a test wants.
type slowOwner struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	// answer is asked for each delivery; a status of 0 keeps the answer back until
	// the client is gone.
	answer func(body string) int
}

// own starts an owner that confirms destinations by itself.
func own(t *testing.T, client *http.Client) *slowOwner {
	t.Helper()
	o := &slowOwner{answer: func(string) int { return http.StatusOK }}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := readBody(r)
		if r.Header.Get("x-amz-rules-engine-message-type") == "DestinationConfirmation" {
			confirm(client, body)
			return
		}
		o.mu.Lock()
		o.bodies = append(o.bodies, r.URL.Path+" "+body)
		status := o.answer(body)
		o.mu.Unlock()
		if status == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *slowOwner) set(answer func(string) int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = answer
}

// times says how often a delivery came.
func (o *slowOwner) times(delivery string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, b := range o.bodies {
		if b == delivery {
			n++
		}
	}
	return n
}
