package rules_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/sinktest"
	"github.com/imprint-iot/imprint/rules"
)

// place is where a sink writes to.
type place struct {
	setting     string // the sink's, without its name
	secret      string // that no error may tell
	stop, start func()
	// times says how often a record is there whose data has a mark.
	times func(mark string) int
	// repeated is how often a record is there that was put twice.
	repeated int
}

func openSink(t *testing.T, setting string) rules.Sink {
	t.Helper()
	sinks, err := rules.OpenSinks([]string{"place=" + setting})
	if err != nil {
		t.Fatal(err)
	}
	return sinks["place"]
}

func record(id, data string) rules.Record {
	return rules.Record{ID: id, At: time.Now(), Tenant: home, Rule: "my_rule", Data: []byte(data)}
}

// putUntil puts a record again and again, as the outbox does, and says how often.
func putUntil(t *testing.T, sink rules.Sink, r rules.Record) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for tries := 1; ; tries++ {
		err := sink.Put(ctx, r)
		if err == nil {
			return tries
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Errorf("the sink didn't come back: %v", err)
			return tries
		}
	}
}

// checkSink is what every sink must do: keep what it took, say what it can't take
// within a bound, and work again once its place is back.
func checkSink(t *testing.T, at place) {
	t.Helper()
	sink := openSink(t, at.setting)
	const binary = "\x00\xff' \" \\ "
	putUntil(t, sink, record("id-1", "one"+binary))
	if got := at.times("one" + binary); got != 1 {
		t.Errorf("a record is there %d times, want once", got)
	}
	putUntil(t, sink, record("id-1", "one"+binary))
	if got := at.times("one" + binary); got != at.repeated {
		t.Errorf("a record that came twice is there %d times, want %d", got, at.repeated)
	}
	at.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	began := time.Now()
	err := sink.Put(ctx, record("id-2", "two"))
	if err == nil {
		t.Error("a record was taken while its place was down")
	}
	if at.secret != "" && strings.Contains(fmt.Sprint(err), at.secret) {
		t.Errorf("the error tells the secret: %v", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %s to say that the place is down", took)
	}
	at.start()
	putUntil(t, sink, record("id-2", "two"))
	if got := at.times("two"); got < 1 {
		t.Error("a record that was tried again isn't there")
	}
	var writers sync.WaitGroup
	tries := make([]int, 40)
	for n := range tries {
		writers.Go(func() {
			tries[n] = putUntil(t, sink, record(fmt.Sprint("many-", n), fmt.Sprintf("<many %d>", n)))
		})
	}
	writers.Wait()
	for n, tried := range tries {
		most := 1
		if at.repeated > 1 {
			most = tried // a try that failed may have come through
		}
		if got := at.times(fmt.Sprintf("<many %d>", n)); got < 1 || got > most {
			t.Errorf("record %d of many at once is there %d times after %d tries, want once to %d times", n, got, tried, most)
		}
	}
	err = sink.Close()
	if err != nil {
		t.Errorf("the sink doesn't close: %v", err)
	}
}

func TestFileSink(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "there")
	move := func(from, to string) {
		err := os.Rename(from, to)
		if err != nil {
			t.Fatal(err)
		}
	}
	err := os.Mkdir(dir, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	checkSink(t, place{
		setting:  "file://" + dir + "/records",
		stop:     func() { move(dir, dir+".away") },
		start:    func() { move(dir+".away", dir) },
		repeated: 2,
		times: func(mark string) int {
			data, err := os.ReadFile(filepath.Join(dir, "records"))
			if err != nil {
				t.Error(err)
			}
			return strings.Count(string(data), mark)
		},
	})
}

func count(t *testing.T, p *sinktest.Postgres, query string) int {
	t.Helper()
	rows, err := p.Rows(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return len(rows)
}

// TestPostgresSink ensures that each record is one row, in a table whose name
// needs quotes.
func TestPostgresSink(t *testing.T) {
	database := sinktest.StartPostgres(t)
	setting := database.URL(`?table=public.My"%20Table&create=true&sslmode=disable&password-file=` + database.PasswordFile)
	checkSink(t, place{
		setting: setting, secret: database.Password, stop: database.Stop, start: database.Start, repeated: 1,
		times: func(mark string) int {
			return count(t, database, `SELECT id FROM public."My"" Table" WHERE position('\x`+fmt.Sprintf("%x", mark)+`'::bytea in data) > 0`)
		},
	})
	rows, err := database.Rows(`SELECT account, region, rule, at BETWEEN now() - interval '5 min' AND now() FROM "My"" Table" WHERE id = 'id-1'`)
	if err != nil || len(rows) != 1 || rows[0] != "000000000000|us-east-1|my_rule|true" {
		t.Errorf("the row's other columns: got %q, %v", rows, err)
	}
}

// TestPostgresSinkTakesTheOwnersTable ensures that no table is created unasked,
// that data may be jsonb, and that what the table can't take is given up at once.
func TestPostgresSinkTakesTheOwnersTable(t *testing.T) {
	database := sinktest.StartPostgres(t)
	passwords := filepath.Join(t.TempDir(), "pgpass")
	escaped := strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(database.Password)
	err := os.WriteFile(passwords, []byte("127.0.0.1:*:*:"+database.User+":"+escaped+"\n127.0.0.1:*:*:writer:w\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	sink := openSink(t, database.URL("?table=records&sslmode=disable&connections=2&timeout=2s&passfile="+passwords))
	defer func() { _ = sink.Close() }()
	err = sink.Put(t.Context(), record("id-1", `{"a":1}`))
	if err == nil || !strings.Contains(err.Error(), `relation "records" does not exist`) {
		t.Errorf("without the table: got %v", err)
	}
	database.Exec("CREATE TABLE records (id text PRIMARY KEY, at timestamptz, account text, region text, rule text, data jsonb, seen timestamptz DEFAULT now())")
	database.Exec("CREATE ROLE writer LOGIN PASSWORD 'w'; GRANT INSERT, SELECT (id) ON records TO writer")
	for range 2 {
		putUntil(t, sink, record("id-1", `{"a": {"b": 2}}`))
	}
	if got := count(t, database, "SELECT 1 FROM records WHERE data->'a'->>'b' = '2'"); got != 1 {
		t.Errorf("%d rows have the JSON, want one", got)
	}
	writer := openSink(t, strings.Replace(database.URL("?table=records&sslmode=disable&passfile="+passwords), database.User+"@", "writer@", 1))
	defer func() { _ = writer.Close() }()
	putUntil(t, writer, record("id-1", `{}`))
	putUntil(t, writer, record("id-2", `{"a": {"b": 2}}`))
	if got := count(t, database, "SELECT 1 FROM records WHERE data->'a'->>'b' = '2'"); got != 2 {
		t.Errorf("%d rows have the JSON once a user with few rights wrote, want two", got)
	}
	// A statement of the table's own that takes long is ended.
	database.Exec("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$")
	database.Exec("CREATE TRIGGER slow BEFORE INSERT ON records FOR EACH ROW WHEN (NEW.id = 'slow') EXECUTE FUNCTION slow()")
	began := time.Now()
	err = sink.Put(t.Context(), record("slow", `{}`))
	if err == nil || !strings.Contains(err.Error(), "statement timeout") || time.Since(began) > patience/4 {
		t.Errorf("a statement that takes long: got %v after %s", err, time.Since(began))
	}

	h := open(t, func(o *rules.Options) { o.Sinks = map[string]rules.Sink{"table": sink} })
	onError := republishTo("errors")
	h.put(home, "keep", "SELECT * FROM 'in'", &onError, imprint.RuleAction{Firehose: &imprint.FirehoseRuleAction{RoleARN: "arn", Stream: "table"}})
	h.offer(home, "in", "not JSON")
	h.await(t, "the error action", func() bool { return len(h.on("errors")) == 1 })
	if got := readError(t, h.on("errors")[0].Payload).Failures; len(got) != 1 || got[0].Action != "FirehoseAction" || got[0].Resource != "table" || !strings.Contains(got[0].Message, "json") {
		t.Errorf("failures: got %+v", got)
	}
}

// TestNATSSink ensures that a record is with the server's subscribers when it
// counts as delivered.
func TestNATSSink(t *testing.T) {
	const secret = "a secret of NATS"
	server := sinktest.StartNATS(t, `authorization { users = [ {user: imprint, password: "`+secret+`"} ] }`)
	secrets := filepath.Join(t.TempDir(), "password")
	err := os.WriteFile(secrets, []byte(secret+"\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	back := make(chan struct{}, 10)
	conn := server.Connect(nats.UserInfo("imprint", secret), nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	subscription, err := conn.SubscribeSync("imprint.*.*.>")
	if err != nil {
		t.Fatal(err)
	}
	var came []*nats.Msg
	// What the server sent before it answers is here; the subscription stands there.
	flush := func() {
		err := conn.Flush()
		if err != nil {
			t.Error(err)
		}
		for waiting, _, err := subscription.Pending(); waiting > 0 && err == nil; waiting-- {
			m, err := subscription.NextMsg(patience)
			if err != nil {
				t.Error(err)
				return
			}
			came = append(came, m)
		}
	}
	flush()
	checkSink(t, place{
		setting: "nats://imprint@" + server.Address() + "/imprint.{account}.{region}.{rule}?password-file=" + secrets, secret: secret,
		stop: server.Stop,
		start: func() {
			server.Start()
			<-back
			flush()
		},
		repeated: 2,
		times: func(mark string) int {
			flush()
			n := 0
			for _, m := range came {
				n += strings.Count(string(m.Data), mark)
			}
			return n
		},
	})
	m := came[0]
	if m.Subject != "imprint.000000000000.us-east-1.my_rule" || m.Header.Get("Nats-Msg-Id") != "id-1" || m.Header.Get("Imprint-Rule") != "my_rule" || m.Header.Get("Imprint-Account") != "000000000000" {
		t.Errorf("got subject %s and headers %v", m.Subject, m.Header)
	}
}

// TestNATSSinkWithJetStream ensures that a record counts when it is in a stream,
// and is there once.
func TestNATSSinkWithJetStream(t *testing.T) {
	server := sinktest.StartNATS(t, "")
	js, err := jetstream.New(server.Connect())
	if err != nil {
		t.Fatal(err)
	}
	sink := openSink(t, "nats://"+server.Address()+"/records?jetstream=true")
	err = sink.Put(t.Context(), record("id-0", "no stream"))
	if !errors.Is(err, jetstream.ErrNoStreamResponse) {
		t.Errorf("without a stream: got %v", err)
	}
	err = sink.Close()
	if err != nil {
		t.Error(err)
	}
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "RECORDS", Subjects: []string{"records"}})
	if err != nil {
		t.Fatal(err)
	}
	checkSink(t, place{
		setting: "nats://127.0.0.1:1," + server.Address() + "/records?jetstream=true", stop: server.Stop, start: server.Start, repeated: 1,
		times: func(mark string) int { return inStream(t, js, mark) },
	})
}

// inStream counts the messages of the stream that have a mark.
func inStream(t *testing.T, js jetstream.JetStream, mark string) int {
	t.Helper()
	stream, err := js.Stream(t.Context(), "RECORDS")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	state := stream.CachedInfo().State
	for at := state.FirstSeq; at <= state.LastSeq; at++ {
		m, err := stream.GetMsg(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		n += strings.Count(string(m.Data), mark)
	}
	return n
}

// TestNATSSinkSeesWhatItMayNotPublish ensures that a record that NATS throws away
// isn't one that was delivered, and that the sink works once it may.
func TestNATSSinkSeesWhatItMayNotPublish(t *testing.T) {
	server := sinktest.StartNATS(t, `no_auth_user: guest
authorization { users = [ {user: guest, password: guest, permissions: {publish: "imprint.allowed"}} ] }`)
	sink := openSink(t, "nats://"+server.Address()+"/imprint.{rule}")
	defer func() { _ = sink.Close() }()
	allowed, denied := record("id-1", "one"), record("id-2", "two")
	allowed.Rule, denied.Rule = "allowed", "denied"
	for n := range 3 {
		putUntil(t, sink, allowed)
		err := sink.Put(t.Context(), denied)
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("try %d of a subject that isn't allowed: got %v", n, err)
		}
	}
}

// TestSettingsOfSinksAreChecked ensures that a URL that can't work is refused at
// the start, with what to do, and that nothing of it is told that may be secret.
func TestSettingsOfSinksAreChecked(t *testing.T) {
	for _, c := range []struct{ name, setting, text string }{
		{"no form", "nonsense", "NAME=URL"},
		{"no URL", "x=nats://h:port/s", "no valid URL"},
		{"no scheme", "x=/var/log", `scheme ""`},
		{"unknown scheme", "x=mysql://h/db", `scheme "mysql"`},
		{"password", "x=postgres://u:hunter2@h/db?table=t", "a file"},
		{"password of several hosts", "x=nats://u:hunter2@a,b/s", "a file"},
		{"file without path", "x=file://log", "absolute path"},
		{"misspelt parameter", "x=file:///log?fsync=no", "parameter fsync"},
		{"password as a parameter", "x=postgres://u@h/db?table=t&password=hunter2", "parameter password"},
		{"no subject", "x=nats://h", "no subject"},
		{"wildcard", "x=nats://h/a.*", "no subject"},
		{"empty token", "x=nats://h/a..b", "no subject"},
		{"subject of the server", "x=nats://h/$SYS.a", "no subject"},
		{"unknown placeholder", "x=nats://h/a.{topic}", "no subject"},
		{"no host", "x=nats:///a", "no host"},
		{"bool", "x=nats://h/a?jetstream=perhaps", "true or false"},
		{"missing file", "x=nats://h/a?credentials=/nowhere/creds", "can't be read"},
		{"user without password", "x=nats://u@h/a", "belong together"},
		{"certificate without key", "x=tls://h/a?cert=" + os.Args[0], "belong together"},
		{"no table", "x=postgres://u@h/db", "TABLE"},
		{"deep table", "x=postgres://u@h/db?table=a.b.c", "TABLE"},
		{"long table", "x=postgres://u@h/db?table=" + strings.Repeat("x", 64), "TABLE"},
		{"connections", "x=postgres://u@h/db?table=t&connections=0", "1 to 64"},
		{"timeout", "x=postgres://u@h/db?table=t&timeout=1h", "timeout"},
		{"sslmode", "x=postgres://u@h/db?table=t&sslmode=sometimes", "doesn't take its URL"},
		{"password with a question mark", "x=postgres://u:1?hunter2@h/db?table=t&table=t", "sink x"},
		{"hosts", "x=nats://" + strings.Repeat("h,", 20) + "h/a", "at most 16"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sinks, err := rules.OpenSinks([]string{"first=file:///first", c.setting})
			said := imprint.CodeOf(err)
			var e *imprint.Error
			if said != imprint.CodeInvalidRequest || !errors.As(err, &e) || sinks != nil {
				t.Fatalf("got %v (%s) and sinks %v, want %s", err, said, sinks, imprint.CodeInvalidRequest)
			}
			if text := err.Error() + " " + e.Hint; !strings.Contains(text, c.text) || e.Hint == "" || strings.Contains(text, "hunter2") {
				t.Errorf("got %q, want it to have %q, a hint and no secret", text, c.text)
			}
		})
	}
}

// TestHostsOfOneSinkMayHaveCommas ensures that a list of settings that was cut at
// commas is understood.
func TestHostsOfOneSinkMayHaveCommas(t *testing.T) {
	sinks, err := rules.OpenSinks([]string{"log=file:///log", "bus=nats://a:1", "b", "c:3/subject?jetstream=true", "rows=postgres://u@a", "b/db?table=t"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"log", "bus", "rows"} {
		if sinks[name] == nil {
			t.Errorf("there is no sink %s in %v", name, sinks)
			continue
		}
		err := sinks[name].Close()
		if err != nil {
			t.Error(err)
		}
	}
	if len(sinks) != 3 {
		t.Errorf("got %d sinks, want 3", len(sinks))
	}
}
