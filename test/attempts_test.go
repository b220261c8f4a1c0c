package test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/mqtt"
)

// TestAStormOfOneDevicesFailuresIsFolded ensures that a device that comes in vain
// again and again is a few entries with a count, that the fleet's failures are
// counted by reason, and that mosquitto's client hears of them as they happen, in its
// own account alone.
func TestAStormOfOneDevicesFailuresIsFolded(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	mine, others := s.twoAccounts(t)
	watcher, stranger := selfSigned(t, "watcher"), selfSigned(t, "stranger")
	mine.register(t, watcher)
	others.register(t, watcher)
	ears := s.subscribe(t, watcher, "watcher", "$imprint/attempts/refused/#")
	foreign := s.connect(t, watcher, "watcher", dialing{host: others.host})
	foreign.ask(t, "$imprint/attempts/refused/#")
	const storm = 30
	for range storm {
		w := s.dialAs(t, stranger, mine.host)
		err := w.tryConnect(mqtt.Connect{ClientID: "stranger", CleanStart: true}, mqtt.V5)
		if err == nil {
			t.Fatal("a stranger was let in")
		}
		_ = w.conn.Close()
	}
	s.awaitRefusals(t)
	run := s.imprint(t, "explain", "--json", "--limit", "100", stranger.cert)
	var entries []struct {
		Code, Next string
		Repeats    int
		FirstAt    float64
	}
	err := json.Unmarshal([]byte(run.stdout), &entries)
	if err != nil {
		t.Fatalf("%v\n%s", err, run.all())
	}
	var told []string
	for _, e := range entries {
		told = append(told, fmt.Sprintf("%s %d", e.Code, 1+e.Repeats))
	}
	if diff := cmp.Diff([]string{"CANotRegistered 1", "CANotRegistered 1", "CANotRegistered 28"}, told); diff != "" {
		t.Errorf("the entries differ:\n%s", diff)
	}
	if last := entries[len(entries)-1]; last.FirstAt == 0 || last.Next == "" {
		t.Errorf("the last entry has no time or no next move: %+v", last)
	}
	text := s.imprint(t, "explain", stranger.cert).stdout
	if !strings.Contains(text, "in the same way 27 times before, since 20") || !strings.Contains(text, "next: The device comes again") {
		t.Errorf("explain says\n%s", text)
	}
	groups := s.imprint(t, "attempts", "--failed", "--since", "1h", "--group-by", "reason").stdout
	lines := strings.Split(groups, "\n")
	if len(lines) < 3 || !strings.HasPrefix(strings.TrimSpace(lines[1]), "30 ") || !strings.Contains(lines[1], "CANotRegistered at ca") || !strings.Contains(lines[1], "imprint explain ") || !strings.Contains(lines[2], "-> ") {
		t.Errorf("attempts --group-by reason says\n%s", groups)
	}
	run = s.imprint(t, "attempts", "--group-by", "colour")
	if run.exit == 0 || !strings.Contains(run.all(), "reason") {
		t.Errorf("groups by colour: exit code %d\n%s", run.exit, run.all())
	}
	topic := "$imprint/attempts/refused/stranger"
	ears.said.wait(t, "the folded attempts", func(text string) bool {
		// Attempts that are written together are told in no order.
		return slices.ContainsFunc(messages(text, topic), func(message string) bool {
			var heard struct {
				Repeats int
				Code    string
			}
			err := json.Unmarshal([]byte(message), &heard)
			return err == nil && heard.Code == "CANotRegistered" && heard.Repeats == storm-3
		})
	})
	// Its own message comes behind whatever was sent before.
	foreign.ask(t, "after")
	foreign.send(t, "after", "all", 1)
	if got := foreign.receive(t); got.topic != "after" {
		t.Errorf("another account heard %+v", got)
	}
}

// TestToolsAreToldWhatIsFound ensures that who asks for JSON, or follows a device, is told
// what a word was taken for and why nothing is found, as people are; and that client ids
// may look like paths.
func TestToolsAreToldWhatIsFound(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	mine, _ := s.twoAccounts(t)
	d := selfSigned(t, "device")
	mine.register(t, d)
	s.connect(t, d, "line1/sensor-7", dialing{host: mine.host})
	s.connect(t, d, "line1/sensor-7", dialing{host: mine.host})
	if run := s.imprint(t, "explain", "--limit", "1", "line1/sensor-7"); !strings.HasPrefix(run.stdout, "These are the latest 1: --limit shows older ones, too.") {
		t.Errorf("the latest of two attempts: got\n%s", run.all())
	}
	const policy = "arn:aws:iot:us-east-1:000000000000:policy/all"
	unknown := strings.Repeat("ab", 32)
	for _, row := range []struct {
		word     string
		attempts bool
		note     string
	}{
		{"line1/sensor-7", true, ""}, {"./line1/sensor-8", false, "There is no file of that name either"},
		{policy, true, "all is a policy: these attempts tell of it."}, {unknown, false, "No certificate " + unknown + " is registered"},
	} {
		people, tools := s.imprint(t, "explain", row.word), s.imprint(t, "explain", "--json", row.word)
		var list []attempt
		err := json.Unmarshal([]byte(tools.stdout), &list)
		if err != nil || len(list) > 0 != row.attempts || (tools.exit == 0) != row.attempts || people.exit != tools.exit {
			t.Errorf("%s: got %d attempts, %v, exit codes %d and %d\n%s", row.word, len(list), err, people.exit, tools.exit, tools.all())
		}
		if !strings.Contains(people.all(), row.note) || !strings.Contains(tools.stderr, row.note) {
			t.Errorf("%s: want %q in\n%s\nand in\n%s", row.word, row.note, people.all(), tools.stderr)
		}
	}
	s.follow(t, "explain", policy).wait(t, "what the word was taken for, and the attempt", func(text string) bool {
		return strings.HasPrefix(text, "all is a policy: these attempts tell of it.") && strings.Contains(text, "policy.connect")
	})
	s.follow(t, "explain", unknown).wait(t, "why nothing is found", func(text string) bool { return strings.HasPrefix(text, "No certificate "+unknown) })
}
