package attempts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/attempts"
	"github.com/imprint-iot/imprint/awsapi/client"
)

type counted struct {
	Groups []struct {
		Key               string
		Attempts, Devices int
		First, Last       float64
		AttemptID         string `json:"attemptId"`
		Code, Step, Fix   string
	}
	Complete bool
	Read     int `json:"attemptsRead"`
}

func (w *world) group(t *testing.T, tenant imprint.Tenant, query url.Values) (counted, error) {
	t.Helper()
	var out counted
	err := w.get(t, tenant, attempts.GroupsPath, query, &out)
	return out, err
}

// TestAttemptsAreCountedByWhatTheyHaveInCommon ensures that groups count attempts,
// those that were folded too, and devices, the caller's own alone.
func TestAttemptsAreCountedByWhatTheyHaveInCommon(t *testing.T) {
	t.Parallel()
	refused := func(tenant imprint.Tenant, certificate imprint.CertificateID, step string, repeats int, first time.Time) imprint.Attempt {
		return imprint.Attempt{
			Tenant: tenant, CertificateID: certificate, Address: "192.0.2.1:1", Thing: imprint.ThingName(certificate), Outcome: imprint.OutcomeRefused, Code: imprint.CodeCAInactive,
			Steps: []imprint.Step{{At: instant, Name: step, Verdict: imprint.VerdictFailed, Code: imprint.CodeCAInactive, Fix: "do " + step}}, Repeats: repeats, FirstAt: first,
		}
	}
	many := refused(another, "c", "ca", 99, instant)
	many.Devices, many.Sample = 70, []string{"e", "c"}
	w := newWorld(t,
		refused(home, "a", "ca", 0, time.Time{}),
		refused(home, "a", "ca", 40, instant.Add(-time.Hour)),
		refused(home, "b", "ca", 0, time.Time{}),
		refused(home, "b", "template", 0, time.Time{}),
		many,
		imprint.Attempt{Tenant: home, CertificateID: "d", Address: "[2001:db8::1]:5", Outcome: imprint.OutcomeConnected},
	)
	type row struct {
		Key               string
		Attempts, Devices int
		Example, Fix      string
	}
	for _, want := range []struct {
		tenant imprint.Tenant
		query  url.Values
		rows   []row
	}{
		{home, url.Values{"by": {"reason"}, "failed": {"true"}}, []row{{"CAInactive at ca", 43, 2, "0002", "do ca"}, {"CAInactive at template", 1, 1, "0003", "do template"}}},
		{home, url.Values{"by": {"reason"}}, []row{{"CAInactive at ca", 43, 2, "0002", "do ca"}, {"CAInactive at template", 1, 1, "0003", "do template"}, {"connected", 1, 1, "0005", ""}}},
		{home, url.Values{"by": {"certificate"}, "failed": {"true"}}, []row{{"a", 42, 1, "0001", "do ca"}, {"b", 2, 1, "0003", "do template"}}},
		{home, url.Values{"by": {"address"}}, []row{{"192.0.2.1", 44, 2, "0003", "do template"}, {"2001:db8::1", 1, 1, "0005", ""}}},
		{home, url.Values{"by": {"thing"}, "match": {"b"}}, []row{{"b", 2, 1, "0003", "do template"}}},
		{home, url.Values{"by": {"client"}, "since": {instant.Add(5 * time.Minute).Format(time.RFC3339)}}, []row{{"(none)", 1, 1, "0005", ""}}},
		{another, url.Values{"by": {"reason"}}, []row{{"CAInactive at ca", 100, 70, "0004", "do ca"}}},
		{another, url.Values{"by": {"certificate"}}, []row{{"(many devices)", 100, 70, "0004", "do ca"}}},
		{abroad, url.Values{"by": {"reason"}}, nil},
	} {
		got, err := w.group(t, want.tenant, want.query)
		if err != nil || !got.Complete {
			t.Fatalf("%v: got %+v, %v", want.query, got, err)
		}
		var rows []row
		for _, g := range got.Groups {
			rows = append(rows, row{g.Key, g.Attempts, g.Devices, g.AttemptID, g.Fix})
		}
		if diff := cmp.Diff(want.rows, rows); diff != "" {
			t.Errorf("%s with %v differs:\n%s", want.tenant, want.query, diff)
		}
	}
	got, err := w.group(t, home, url.Values{"by": {"certificate"}, "match": {"a"}})
	if err != nil || got.Groups[0].First != float64(instant.Add(-time.Hour).Unix()) || got.Groups[0].Last != float64(instant.Add(time.Minute).Unix()) {
		t.Errorf("the times: got %+v, %v", got, err)
	}
	for _, query := range []url.Values{{}, {"by": {"colour"}}} {
		_, err := w.group(t, home, query)
		var refusal *client.Error
		if !errors.As(err, &refusal) || refusal.Status != 400 {
			t.Errorf("%v: got %v, want a refusal with 400", query, err)
		}
	}
}

// TestWhatFailedSinceIsFoundHoweverLongADeviceIsOn ensures that whoever asks what failed
// lately hears of devices that were on before, and is told of the latest failure.
func TestWhatFailedSinceIsFoundHoweverLongADeviceIsOn(t *testing.T) {
	t.Parallel()
	denied := func(first, last int) imprint.Attempt {
		at := func(minutes int) time.Time { return instant.Add(time.Duration(minutes) * time.Minute) }
		return imprint.Attempt{Tenant: home, CertificateID: certificate, ClientID: "sensor", Outcome: imprint.OutcomeConnected, Steps: []imprint.Step{{
			At: at(first), Name: "publish", Verdict: imprint.VerdictFailed, Code: imprint.CodePublishDenied, Repeats: 6, LastAt: at(last), Fix: fmt.Sprint(last),
		}}}
	}
	w := newWorld(t, denied(10, 600), denied(10, 20), denied(10, 590))
	since := instant.Add(500 * time.Minute).Format(time.RFC3339)
	var list struct {
		Attempts []struct {
			AttemptID string `json:"attemptId"`
			Changed   float64
			Steps     []struct {
				Repeats int
				LastAt  float64
			}
		}
	}
	err := w.get(t, home, attempts.Path, url.Values{"since": {since}, "failed": {"true"}, "match": {"sensor"}}, &list)
	last := float64(instant.Add(600 * time.Minute).Unix())
	if err != nil || len(list.Attempts) != 2 || list.Attempts[1].AttemptID != "0000" || list.Attempts[1].Changed != last ||
		list.Attempts[1].Steps[0].Repeats != 6 || list.Attempts[1].Steps[0].LastAt != last {
		t.Errorf("got %+v, %v", list, err)
	}
	got, err := w.group(t, home, url.Values{"by": {"reason"}, "failed": {"true"}, "since": {since}})
	if err != nil || len(got.Groups) != 1 || got.Groups[0].Attempts != 2 || got.Groups[0].Last != last || got.Groups[0].AttemptID != "0000" || got.Groups[0].Fix != "600" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestReasonsAreThoseOfTheStepThatFailed ensures that a device that stayed on, and was
// refused something, is counted by that and not by how its connection ended, and that
// handshakes that died of different things are apart.
func TestReasonsAreThoseOfTheStepThatFailed(t *testing.T) {
	t.Parallel()
	failed := func(name string, code imprint.Code) imprint.Step {
		return imprint.Step{At: instant, Name: name, Verdict: imprint.VerdictFailed, Code: code, Fix: "mend " + string(code)}
	}
	attempt := func(outcome imprint.Outcome, code imprint.Code, steps ...imprint.Step) imprint.Attempt {
		return imprint.Attempt{Tenant: home, CertificateID: certificate, Outcome: outcome, Code: code, Steps: steps}
	}
	w := newWorld(t,
		attempt(imprint.OutcomeClosed, imprint.CodeClientDisconnect, failed("publish", imprint.CodePublishDenied)),
		attempt(imprint.OutcomeClosed, imprint.CodeConnectionLost, failed("policy.subscribe", imprint.CodeSubscribeDenied), failed("session", imprint.CodeConnectionLost)),
		attempt(imprint.OutcomeClosed, imprint.CodeConnectionLost, failed("session", imprint.CodeConnectionLost)),
		attempt(imprint.OutcomeRefused, imprint.CodeServerNotTrusted, failed("tls", imprint.CodeServerNotTrusted)),
		attempt(imprint.OutcomeRefused, imprint.CodeTLSVersion, failed("tls", imprint.CodeTLSVersion)),
		attempt(imprint.OutcomeClosed, imprint.CodeClientDisconnect),
	)
	got, err := w.group(t, home, url.Values{"by": {"reason"}})
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, g := range got.Groups {
		told[g.Key] = g.Fix
	}
	want := map[string]string{
		"PublishDenied at publish": "mend PublishDenied", "SubscribeDenied at policy.subscribe": "mend SubscribeDenied", "ConnectionLost at session": "mend ConnectionLost",
		"ServerNotTrusted at tls": "mend ServerNotTrusted", "TLSVersionRefused at tls": "mend TLSVersionRefused", "ClientDisconnect": "",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("the groups differ:\n%s", diff)
	}
}

// TestLinesOfOneTaskAreDevices ensures that lines of a bulk registration are counted as so
// many devices, though they have no certificate and one place.
func TestLinesOfOneTaskAreDevices(t *testing.T) {
	t.Parallel()
	line := func(address string) imprint.Attempt {
		return imprint.Attempt{Tenant: home, Address: address, Outcome: imprint.OutcomeRefused, Code: imprint.CodeInvalidRequest,
			Steps: []imprint.Step{{At: instant, Name: imprint.StepBulkLine, Verdict: imprint.VerdictFailed, Code: imprint.CodeInvalidRequest, Fix: "mend it"}}}
	}
	w := newWorld(t, line("task:1"), line("task:2"), line("task:3"))
	got, err := w.group(t, home, url.Values{"by": {"reason"}})
	if err != nil || len(got.Groups) != 1 || got.Groups[0].Devices != 3 || got.Groups[0].Key != "InvalidRequest at bulk.line" {
		t.Errorf("got %+v, %v, want one reason of three devices", got.Groups, err)
	}
}

// subscribers stand for a broker.
type subscribers struct {
	tenants map[imprint.Tenant]bool
	gate    chan struct{}
	mu      sync.Mutex
	events  []imprint.Event
	got     chan struct{}
}

func (s *subscribers) Heard(tenant imprint.Tenant, _ string) bool { return s.tenants[tenant] }

func (s *subscribers) PublishEvent(_ context.Context, event imprint.Event, done func(error)) {
	<-s.gate
	s.mu.Lock()
	s.events = append(s.events, event)
	s.mu.Unlock()
	s.got <- struct{}{}
	done(nil)
}

// TestAttemptsAreToldToThoseWhoListen ensures that each attempt is told to its own
// tenant alone, under a topic that its names can't break out of, and that whoever
// doesn't keep up holds up nobody.
func TestAttemptsAreToldToThoseWhoListen(t *testing.T) {
	t.Parallel()
	heard := &subscribers{tenants: map[imprint.Tenant]bool{home: true}, gate: make(chan struct{}), got: make(chan struct{}, 1<<14)}
	a := attempts.NewAnnouncer(heard, home, slog.New(slog.NewTextHandler(io.Discard, nil)))
	defer a.Close()
	a.Tell([]imprint.Attempt{
		{ID: "1", Tenant: home, ClientID: "a/b+#", Outcome: imprint.OutcomeRefused, Code: imprint.CodeCAInactive, Repeats: 3, FirstAt: instant, Devices: 2, Sample: []string{"x"}},
		{ID: "2", Tenant: another, ClientID: "c", Outcome: imprint.OutcomeRefused},
		{ID: "3", Address: "[2001:db8::1]:5", Outcome: imprint.OutcomeRefused, Code: imprint.CodeNotTLS},
		{ID: "4", Tenant: home, CertificateID: certificate, Outcome: imprint.OutcomeConnected},
	})
	const flood = 10_000
	a.Tell(make([]imprint.Attempt, flood))
	close(heard.gate)
	for range 3 {
		<-heard.got
	}
	heard.mu.Lock()
	defer heard.mu.Unlock()
	var topics []string
	for _, event := range heard.events[:3] {
		if event.Tenant != home {
			t.Errorf("told %s", event.Tenant)
		}
		topics = append(topics, event.Topic)
	}
	if diff := cmp.Diff([]string{"$imprint/attempts/refused/a_b__", "$imprint/attempts/refused/2001:db8::1", "$imprint/attempts/connected/" + certificate}, topics); diff != "" {
		t.Errorf("the topics differ:\n%s", diff)
	}
	var told struct {
		AttemptID, Code, Next string
		Repeats               int
		FirstAt               float64
		Devices               int
		Sample                []string
	}
	err := json.Unmarshal(heard.events[0].Payload, &told)
	if err != nil || told.AttemptID != "1" || told.Code != "CAInactive" || told.Repeats != 3 || told.FirstAt == 0 || told.Devices != 2 || len(told.Sample) != 1 || !strings.Contains(told.Next, "fix") {
		t.Errorf("got the payload %s, %v", heard.events[0].Payload, err)
	}
	if _, dropped := a.Counts(); dropped < flood-5000 {
		t.Errorf("got %d dropped", dropped)
	}
}

// TestAttemptsThatKnewNoThingAreCountedWithTheirCertificates ensures that what ended before a
// thing was looked up is counted with the thing of the certificate, if that has one.
func TestAttemptsThatKnewNoThingAreCountedWithTheirCertificates(t *testing.T) {
	t.Parallel()
	refused := func(n int, thing imprint.ThingName) imprint.Attempt {
		return imprint.Attempt{Tenant: home, CertificateID: digits(n), Thing: thing, Outcome: imprint.OutcomeRefused, Code: imprint.CodeClientKey}
	}
	w := newWorld(t, refused(1, "one"), refused(1, ""), refused(1, ""), refused(2, ""), refused(3, ""), refused(3, ""))
	err := w.store.Update(t.Context(), func(tx imprint.Tx) error {
		for _, a := range []imprint.ThingAttachment{{Thing: "one", Certificate: digits(1)}, {Thing: "two", Certificate: digits(2)}, {Thing: "both", Certificate: digits(2)}} {
			a.Tenant = home
			err := tx.PutThing(imprint.Thing{Tenant: home, Name: a.Thing})
			if err == nil {
				err = tx.PutThingAttachment(a)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.group(t, home, url.Values{"by": {"thing"}})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, g := range got.Groups {
		counts[g.Key] = g.Attempts
	}
	if diff := cmp.Diff(map[string]int{"one": 3, "(none)": 3}, counts); diff != "" {
		t.Errorf("attempts by thing (-want +got):\n%s", diff)
	}
}
