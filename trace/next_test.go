package trace_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/trace"
)

// TestTheNextMoveFollowsFromTheSteps ensures that a claim's device is expected to come
// with its new certificate, and one that was thrown out to be thrown out again.
func TestTheNextMoveFollowsFromTheSteps(t *testing.T) {
	t.Parallel()
	registered := []imprint.Step{{Name: "claim.registered", Verdict: imprint.VerdictOK, Certificate: "ab"}}
	refused := []imprint.Step{{Name: "claim.guard", Verdict: imprint.VerdictFailed, Code: imprint.CodeClaimQuota}}
	lost := imprint.Step{Name: "session", Verdict: imprint.VerdictFailed, Code: imprint.CodeConnectionLost}
	beside := []imprint.Step{{Name: "rule", Verdict: imprint.VerdictFailed}, {Name: "function", Verdict: imprint.VerdictFailed}, {Name: "event", Verdict: imprint.VerdictFailed}}
	for _, row := range []struct {
		attempt imprint.Attempt
		want    string
	}{
		{imprint.Attempt{Outcome: imprint.OutcomeClosed, Code: imprint.CodeClientDisconnect, Steps: beside}, "when it wants to"},
		{imprint.Attempt{Outcome: imprint.OutcomeClosed, Code: imprint.CodeClientDisconnect, Steps: registered}, "connects with its new certificate"},
		{imprint.Attempt{Outcome: imprint.OutcomeClosed, Code: imprint.CodeConnectionLost, Steps: registered}, "connects with its new certificate"},
		{imprint.Attempt{Outcome: imprint.OutcomeClosed, Code: imprint.CodeClientDisconnect}, "None: the device ended"},
		{imprint.Attempt{Outcome: imprint.OutcomeClosed, Code: imprint.CodeClientDisconnect, Steps: refused}, "refused again until the fix is done"},
		{imprint.Attempt{Outcome: imprint.OutcomeClosed, Code: imprint.CodeConnectionLost, Steps: append(refused, lost)}, "refused again until the fix is done"},
		{imprint.Attempt{Outcome: imprint.OutcomeClosed, Code: imprint.CodeConnectionLost, Steps: []imprint.Step{lost}}, "and comes again."},
		{imprint.Attempt{Outcome: imprint.OutcomeClosed, Code: imprint.CodePublishDenied}, "is closed again"},
		{imprint.Attempt{Outcome: imprint.OutcomeRefused, Code: imprint.CodeConnectDenied}, "fails in the same way"},
		{imprint.Attempt{Outcome: imprint.OutcomeConnected}, ""},
	} {
		if got := trace.NextOf(&row.attempt); !strings.Contains(got, row.want) || (got == "") != (row.want == "") {
			t.Errorf("%s %s: got %q, want %q in it", row.attempt.Outcome, row.attempt.Code, got, row.want)
		}
	}
}
