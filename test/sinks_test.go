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

	"github.com/google/go-cmp/cmp"
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

// keeping is a server with a rule that keeps records in PostgreSQL, in a stream of
// NATS and in a file. Another account has the same rule.
type keeping struct {
	*server
	database *sinktest.Postgres
	bus      *sinktest.NATS
	js       jetstream.JetStream
	log      string // the file
	sender   *device
	other    tenancy
}

// newKeeping starts all of them.
func newKeeping(t *testing.T) *keeping {
	t.Helper()
	k := &keeping{database: sinktest.StartPostgres(t), bus: sinktest.StartNATS(t, ""), log: filepath.Join(t.TempDir(), "log.jsonl")}
	k.js = must(jetstream.New(k.bus.Connect()))(t)
	must(k.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "RECORDS", Subjects: []string{"records.>"}}))(t)
	k.server = startServer(t,
		"--rule-sink", "rows="+k.database.URL("?table=records&create=true&sslmode=disable&password-file="+k.database.PasswordFile),
		"--rule-sink", "bus=nats://127.0.0.1:1,"+k.bus.Address()+"/records.{rule}?jetstream=true", "--rule-sink", "log=file://"+k.log)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "rule.json"), sinkRule)
	_, k.other = k.twoAccounts(t)
	k.aws(t, dir, "iot create-topic-rule --rule-name keep --topic-rule-payload file://rule.json")
	k.as(t, k.other, dir, "iot create-topic-rule --rule-name keep --topic-rule-payload file://rule.json")
	k.sender = k.watcher(t)
	k.other.register(t, k.sender)
	return k
}

// The accounts, as their records name them.
const (
	ownRecords   = "000000000000"
	otherRecords = "111111111111"
)

// rows are an account's records in PostgreSQL, in order; none while it is down.
func (k *keeping) rows(account string) []string {
	found, err := k.database.Rows("SELECT convert_from(data, 'UTF8') FROM records WHERE rule = 'keep' AND account = '" + account + "'")
	if err != nil {
		return nil
	}
	slices.Sort(found)
	return found
}

// lines says how many records the file has.
func (k *keeping) lines() int {
	data, err := os.ReadFile(k.log)
	if err != nil {
		return 0
	}
	return strings.Count(string(data), "\n")
}

// TestRecordsOutliveKillsOfTheServer ensures that what waits for a sink that is
// down is in PostgreSQL once, and in a stream of NATS once, whatever is killed
// before.
func TestRecordsOutliveKillsOfTheServer(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "aws", "bash")
	t.Parallel()
	k := newKeeping(t)
	want := []string{`{"n":"first"}`}
	k.publishLines(t, k.sender, "sender", "in/1", want)
	until(t, "the first row", func() bool { return len(k.rows(ownRecords)) == 1 })

	k.database.Stop()
	k.bus.Stop()
	// The other account's message comes in the midst of the first one's, on the same
	// topic and of the same client id.
	others := []string{`{"n":"of the other account"}`}
	k.connectAs(t, k.sender, k.other.host, "sender").say("in/1", others[0])
	var lines []string
	for n := range 60 {
		lines = append(lines, fmt.Sprintf(`{"n":"%03d"}`, n))
	}
	k.publishLines(t, k.sender, "sender", "in/1", lines)
	// The file's action comes last: what it has, the outbox has for the others.
	until(t, "all records in the file", func() bool { return k.lines() >= 62 })
	until(t, "tries that failed", func() bool { return k.metric(t, `imprint_rule_actions_total{action="firehose",outcome="retried"}`) > 1 })
	k.restart()
	k.database.Start()
	k.bus.Start()
	until(t, "some rows", func() bool { return len(k.rows(ownRecords)) > 1 })
	k.restart() // in the midst of it
	k.checkDelivered(map[string][]string{ownRecords: append(want, lines...), otherRecords: others})
}

// checkDelivered waits until PostgreSQL and the stream have each account's records,
// looks whether they have them once, and whether nothing is owed any more.
func (k *keeping) checkDelivered(want map[string][]string) {
	t := k.t
	t.Helper()
	all := 0
	for account, records := range want {
		slices.Sort(records)
		until(t, "all rows of "+account, func() bool { return len(k.rows(account)) >= len(records) })
		if got := k.rows(account); !slices.Equal(got, records) {
			t.Errorf("rows of %s: got %d\n%v\nwant %d", account, len(got), got, len(records))
		}
		all += len(records)
	}
	var stream jetstream.Stream
	until(t, "all messages in the stream", func() bool {
		var err error
		stream, err = k.js.Stream(t.Context(), "RECORDS")
		return err == nil && stream.CachedInfo().State.Msgs >= uint64(all)
	})
	checkStream(t, stream, want)
	until(t, "an empty outbox", func() bool {
		return k.metric(t, `imprint_rule_actions_total{action="firehose",outcome="done"}`) > 0 && k.metric(t, "imprint_rule_waiting") == 0
	})
	if log := k.stderr.String(); strings.Contains(log, k.database.Password) {
		t.Error("the server's log has the password of PostgreSQL")
	}
}

// checkStream looks whether the stream has each account's records, once.
func checkStream(t *testing.T, stream jetstream.Stream, want map[string][]string) {
	t.Helper()
	got := map[string][]string{}
	state := stream.CachedInfo().State
	for at := state.FirstSeq; at <= state.LastSeq; at++ {
		m := must(stream.GetMsg(t.Context(), at))(t)
		account := m.Header.Get("Imprint-Account")
		got[account] = append(got[account], string(m.Data))
		if m.Subject != "records.keep" || m.Header.Get(nats.MsgIdHdr) == "" {
			t.Errorf("message %d: got subject %s and headers %v", at, m.Subject, m.Header)
		}
	}
	for _, records := range got {
		slices.Sort(records)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the stream (-want +got):\n%s", diff)
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
