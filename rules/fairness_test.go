package rules_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
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
	until(t, "more deliveries than a round looks at", func() bool { return h.owed(home) >= 1100 })
	// The destination has its third of the places, and the rest of its deliveries wait.
	until(t, "the destination that waits", func() bool {
		n, err := h.Waits(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
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

// fourTenants are two of one account, whose rules are slow, one of another account whose
// are, too, and one of a third.
func fourTenants() (slow []imprint.Tenant, quick imprint.Tenant) {
	return []imprint.Tenant{home, {Account: home.Account, Region: "eu-west-1"}, other}, imprint.Tenant{Account: "222222222222", Region: "us-east-1"}
}

// TestSlowAccountsLeaveWorkersToOthers ensures that an account has the same share of the
// workers in one region and in many, and that slow rules of several accounts leave workers
// to one whose rules aren't.
func TestSlowAccountsLeaveWorkersToOthers(t *testing.T) {
	hang := &slowFunctions{entered: make(chan struct{}, 100), release: make(chan struct{})}
	h := open(t, func(o *rules.Options) { o.Functions, o.Workers = hang, 8 })
	t.Cleanup(func() { close(hang.release) })
	h.end()
	h.Engine = rules.New(h.store, time.Now, h.opts)
	slow, quick := fourTenants()
	for _, tenant := range slow {
		h.put(tenant, "call", "SELECT * FROM 'in'", nil, imprint.RuleAction{Lambda: &imprint.LambdaRuleAction{FunctionARN: tenant.FunctionARN("f")}})
		for range 10 {
			h.offer(tenant, "in", `{}`)
		}
	}
	h.put(quick, "say", "SELECT * FROM 'in'", nil, republishTo("x"))
	h.Start(h.outside)
	const first, second = 4, 2 // each has one more as long as it has fewer than it leaves
	for range first + second {
		<-hang.entered
	}
	for n := range 3 {
		h.offer(quick, "in", `{}`)
		h.await(t, "a message of the account whose rules are quick", func() bool { return len(h.on("x")) == n+1 })
	}
	if more := len(hang.entered); more > 0 {
		t.Errorf("%d more workers wait for functions, want %d in all", more, first+second)
	}
}

// TestAccountsLeaveRoomInTheQueueToOthers ensures the same of its places and bytes.
func TestAccountsLeaveRoomInTheQueueToOthers(t *testing.T) {
	const size = 4000
	for _, tt := range []struct {
		name   string
		change func(*rules.Options)
		most   []int // that each tenant of fourTenants gets in
	}{
		{"places", func(o *rules.Options) { o.MaxQueued = 16 }, []int{8, 0, 4, 2}},
		{"bytes", func(o *rules.Options) { o.MaxQueuedBytes = 16 * (512 + len("t") + size) }, []int{8, 0, 4, 2}}, // of 16 such messages
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t, tt.change)
			h.end()
			h.Engine = rules.New(h.store, time.Now, h.opts) // not started: everything waits
			slow, quick := fourTenants()
			var got []int
			for _, tenant := range append(slow, quick) {
				h.put(tenant, "all", "SELECT * FROM '#'", nil, republishTo("x"))
				n := 0
				for h.Tenant(tenant).Offer(t.Context(), &imprint.RuleMessage{Topic: "t", Payload: make([]byte, size)}) == nil {
					n++
				}
				got = append(got, n)
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.most) {
				t.Errorf("messages that find room: got %v, want %v", got, tt.most)
			}
			h.Start(h.outside)
		})
	}
}

// TestDeliveriesOfAnAccountAreBoundedInAllItsRegions ensures that what waits in one region of
// an account, also from an earlier run, counts in its others, and not for other accounts.
func TestDeliveriesOfAnAccountAreBoundedInAllItsRegions(t *testing.T) {
	h := open(t, func(o *rules.Options) { o.MaxDeliveries = 3 })
	west := imprint.Tenant{Account: home.Account, Region: "us-west-2"}
	nowhere := httptest.NewServer(http.NotFoundHandler())
	nowhere.Close() // what is owed to it stays
	onError := republishTo("errors")
	h.update(func(tx imprint.Tx) error {
		// It counts as two, as it has 8 KiB.
		err := tx.PutRuleDelivery(imprint.RuleDelivery{ID: "old", Tenant: west, Rule: "post", Kind: "http", Queue: "http x", DueAt: time.Now().Add(time.Hour), CreatedAt: time.Now(), Request: make([]byte, imprint.OwedUnit)})
		if err != nil {
			return err
		}
		for _, tenant := range []imprint.Tenant{home, other} {
			err := tx.PutRuleDestination(imprint.RuleDestination{Tenant: tenant, ID: "d", URL: nowhere.URL, Status: imprint.RuleDestinationEnabled, CreatedAt: time.Now()})
			if err != nil {
				return err
			}
		}
		return nil
	})
	for tenant, most := range map[imprint.Tenant]int{home: 1, other: 3} {
		h.put(tenant, "post", "SELECT * FROM 'in'", &onError, post(nowhere.URL+"/x", ""))
		for range 3 {
			h.offer(tenant, "in", `{}`)
		}
		// Each message ends as a delivery or as a failure.
		h.await(t, "the messages that find no room", func() bool { return len(h.on("errors")) == 3-most })
		until(t, "the deliveries that find room", func() bool { return h.owed(tenant) >= most })
		h.mu.Lock()
		for _, m := range h.on("errors") {
			if f := readError(t, m.Payload).Failures; len(f) != 1 || !strings.Contains(f[0].Message, "as many deliveries of account "+string(home.Account)+" wait as may (3,") {
				t.Errorf("the error action's message: got %+v", f)
			}
		}
		h.messages = nil
		h.mu.Unlock()
	}
}

// TestAConfirmationTakesNoDeliverysRoom ensures that the question to a destination's owner
// counts neither while it waits nor after it.
func TestAConfirmationTakesNoDeliverysRoom(t *testing.T) {
	h, r := open(t, func(o *rules.Options) { o.MaxDeliveries = 1 }), receive(t)
	nowhere := httptest.NewServer(http.NotFoundHandler())
	nowhere.Close() // what is owed to it stays
	onError := republishTo("errors")
	h.update(func(tx imprint.Tx) error {
		_, err := rules.Ask(tx, imprint.RuleDestination{Tenant: home, ID: "asked", URL: nowhere.URL, CreatedAt: time.Now()}, time.Now())
		if err != nil {
			return err
		}
		return tx.PutRuleDestination(imprint.RuleDestination{Tenant: home, ID: "d", URL: r.URL, Status: imprint.RuleDestinationEnabled, CreatedAt: time.Now()})
	})
	h.put(home, "post", "SELECT * FROM 'in'", &onError, post(r.URL+"/x", ""))
	h.offer(home, "in", `{}`)
	until(t, "the delivery", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.posts)+len(h.on("errors")) > 0
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if failed := h.on("errors"); len(failed) > 0 {
		t.Errorf("a delivery beside a question found no room: %s", failed[0].Payload)
	}
}
