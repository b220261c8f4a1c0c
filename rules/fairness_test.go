package rules_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rules"
)

// TestAHangingDestinationOfOneTenantLeavesOthersTheirs ensures that more deliveries
// of one tenant than a round looks at, to a server that doesn't answer, hold up
// neither those of another tenant nor those to its own other destinations, the
// questions of new ones among them.
func TestAHangingDestinationOfOneTenantLeavesOthersTheirs(t *testing.T) {
	h := open(t, func(o *rules.Options) { o.HTTPTimeout = 2 * patience })
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(hangs.Close)
	t.Cleanup(func() { close(release) })
	good := receive(t)
	h.update(func(tx imprint.Tx) error {
		for _, d := range []imprint.RuleDestination{
			{Tenant: home, ID: "a", URL: hangs.URL, Status: imprint.RuleDestinationEnabled, CreatedAt: time.Now()},
			{Tenant: other, ID: "b", URL: good.URL, Status: imprint.RuleDestinationEnabled, CreatedAt: time.Now()},
		} {
			err := tx.PutRuleDestination(d)
			if err != nil {
				return err
			}
		}
		return nil
	})
	h.put(home, "post", "SELECT * FROM 'in'", nil, post(hangs.URL+"/x", ""))
	h.put(other, "post", "SELECT * FROM 'in'", nil, post(good.URL+"/x", ""))
	for n := range 1200 {
		h.offer(home, "in", fmt.Sprintf(`{"n":%d}`, n))
	}
	for full := 0; full < 1100; {
		err := h.store.View(t.Context(), func(tx imprint.ReadTx) error {
			n, err := tx.RuleDeliveryCount(home)
			full = n
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// The destination has its third of the places, and the rest of its deliveries wait.
	for n := 0; n != 1; {
		var err error
		n, err = h.Waits(t.Context())
		if err != nil {
			t.Fatal(err)
		}
	}
	h.offer(other, "in", `{"mine":1}`)
	good.await(t, "the other tenant's delivery", func() bool { return len(good.posts) == 1 })
	own := receive(t)
	h.update(func(tx imprint.Tx) error {
		return tx.PutRuleDestination(imprint.RuleDestination{Tenant: home, ID: "c", URL: own.URL, Status: imprint.RuleDestinationEnabled, CreatedAt: time.Now()})
	})
	h.put(home, "own", "SELECT * FROM 'own'", nil, post(own.URL+"/x", ""))
	h.offer(home, "own", `{"mine":2}`)
	own.await(t, "the delivery to the tenant's other destination", func() bool { return len(own.posts) == 1 })
	h.update(func(tx imprint.Tx) error {
		_, err := rules.Ask(tx, imprint.RuleDestination{Tenant: home, ID: "d", URL: own.URL, CreatedAt: time.Now()}, time.Now())
		return err
	})
	own.await(t, "the confirmation of the tenant's new destination", func() bool { return len(own.asked) == 1 })
}
