package registry

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
)

// writeRead puts an attempt into JSON and back.
func writeRead(t *testing.T, a imprint.Attempt) attemptBody {
	t.Helper()
	text, err := appendBody([]byte("before"), &a)
	if err != nil {
		t.Fatal(err)
	}
	var read attemptBody
	err = json.Unmarshal(text[len("before"):], &read)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return read
}

// Steps come back with their nanoseconds, however far from the attempt's time
// they are.
func TestStepsComeBackWhole(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)
	for name, first := range map[string]time.Time{
		"at once": at, "later": at.Add(123_456_789), "earlier": at.Add(-1), "never": {}, "in another age": at.AddDate(700, 0, 0),
	} {
		steps := []imprint.Step{
			{At: first, Name: "tls", Verdict: imprint.VerdictOK, Detail: "a"},
			{At: at.Add(2), Name: "ca", Verdict: imprint.VerdictFailed, Code: imprint.CodeCAInactive, Detail: "b", Fix: "c"},
			{At: at.Add(3), Name: "policy.publish", Verdict: imprint.VerdictOK, Detail: "allowed", Action: "iot:Publish", Resource: "arn:aws:iot:us-east-1:000000000000:topic/a"},
			{At: at.Add(4), Name: "claim.registered", Verdict: imprint.VerdictOK, Detail: "d", Wire: "sent PUBACK 0x87", Certificate: "ab"},
			{At: at.Add(5), Name: "publish", Verdict: imprint.VerdictFailed, Repeats: 7, LastAt: at.Add(time.Hour), Others: true},
		}
		read := writeRead(t, imprint.Attempt{At: at, Steps: steps})
		if diff := cmp.Diff(steps, read.readSteps(at)); diff != "" {
			t.Errorf("%s: steps differ (-want +got):\n%s", name, diff)
		}
	}
}

// What is written by hand is what encoding/json would write, whatever devices call
// themselves.
func TestBodiesAreWrittenAsJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)
	for _, text := range []string{"", "plain", `"quoted" and \back`, `"`, "\x00\n\t\x1b[2J", "<a>&", "Gerät", "\xff\xfe", "a\"\u2028", "\x7f", `\`, "\u00e9\"\\"} {
		a := imprint.Attempt{
			At: at, EndedAt: at.Add(time.Second), SNI: text, ALPN: text, TLSVersion: text, Subject: text,
			Outcome: imprint.Outcome(text), Code: imprint.Code(text), Repeats: 3, FirstAt: at, Devices: 4, Sample: []string{text, "b"},
			Steps: []imprint.Step{{At: at, Name: text, Detail: text, Fix: text, Action: text, Resource: text, Wire: text}, {At: at.Add(1)}},
		}
		got := writeRead(t, a)
		want := attemptBody{
			EndedAt: millis(a.EndedAt), SNI: text, ALPN: text, TLS: text, Subject: text, Outcome: a.Outcome, Code: a.Code, Repeats: 3, FirstAt: millis(at),
			Devices: 4, Sample: a.Sample, Log: []loggedStep{{Name: text, Detail: text, Fix: text, Action: text, Resource: text, Wire: text}, {After: 1}},
		}
		plain, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		want = attemptBody{}
		err = json.Unmarshal(plain, &want)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: bodies differ (-want +got):\n%s", text, diff)
		}
	}
	if got := writeRead(t, imprint.Attempt{At: at}); !cmp.Equal(got, attemptBody{}) {
		t.Errorf("got %+v of nothing", got)
	}
}
