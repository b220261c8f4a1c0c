package gateway_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/gateway"
)

// busyRules have no room for any message.
type busyRules struct{}

func (r busyRules) Tenant(imprint.Tenant) imprint.TenantRules { return r }
func (busyRules) Idle() bool                                  { return false }
func (busyRules) Offer(context.Context, *imprint.RuleMessage) error {
	return imprint.Errorf(imprint.CodeRulesBusy, "as many messages as allowed wait")
}

// TestADeviceThatTopicRulesHaveNoRoomForMayTryAgain ensures that it is no refusal by
// policy: 503 on a connection that stays. QoS 0 goes to subscribers without the rules.
func TestADeviceThatTopicRulesHaveNoRoomForMayTryAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{broker: broker.Options{Rules: busyRules{}}})
	conn := w.dialHTTPS(t, client("localhost", w.device(t, home)))
	for range 2 {
		got := ask(t, conn, post("/topics/a?qos=1", "x"))
		if got.status != http.StatusServiceUnavailable || got.closed || got.message == "" || got.message == "Forbidden" {
			t.Errorf("QoS 1: got %+v, want 503 with a reason on a connection that stays", got)
		}
	}
	if got := ask(t, conn, post("/topics/a?qos=0", "x")); got.status != http.StatusOK {
		t.Errorf("QoS 0: got %+v, want 200", got)
	}
	counted := map[string]uint64{}
	for outcome, n := range w.gateway.Counters().Requests {
		counted[gateway.HTTPOutcome(outcome).String()] = n
	}
	if counted["unavailable"] != 2 || counted["forbidden"] != 0 {
		t.Errorf("counted: %v, want 2 unavailable", counted)
	}
}
