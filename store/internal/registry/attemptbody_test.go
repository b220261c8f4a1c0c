package registry

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
)

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
		var body attemptBody
		body.writeSteps(at, steps)
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var read attemptBody
		err = json.Unmarshal(text, &read)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(steps, read.readSteps(at)); diff != "" {
			t.Errorf("%s: steps differ (-want +got):\n%s", name, diff)
		}
	}
}
