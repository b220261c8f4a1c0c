package rules_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rules"
)

// enable makes a destination that its owner has confirmed.
func (h *house) enable(tenant imprint.Tenant, id, url string) imprint.RuleDestination {
	h.t.Helper()
	d := imprint.RuleDestination{Tenant: tenant, ID: id, URL: url, Status: imprint.RuleDestinationEnabled, CreatedAt: time.Now()}
	h.update(func(tx imprint.Tx) error { return tx.PutRuleDestination(d) })
	return d
}

// TestARedirectIsntFollowed ensures that the owner of a destination can't send posts
// on to an address that nobody confirmed.
func TestARedirectIsntFollowed(t *testing.T) {
	h, unasked := open(t, nil), receive(t)
	confirmed := httptest.NewServer(http.RedirectHandler(unasked.URL, http.StatusTemporaryRedirect))
	t.Cleanup(confirmed.Close)
	h.enable(home, "d", confirmed.URL)
	onError := republishTo("errors")
	h.put(home, "post", "SELECT * FROM 'in'", &onError, post(confirmed.URL, ""))
	h.offer(home, "in", `{"secret":1}`)
	h.await(t, "the error action", func() bool { return len(h.on("errors")) == 1 })
	if got := readError(t, h.on("errors")[0].Payload).Failures; len(got) != 1 || !strings.Contains(got[0].Message, "307") {
		t.Errorf("failures: got %+v, want one with 307", got)
	}
	unasked.mu.Lock()
	defer unasked.mu.Unlock()
	if len(unasked.posts) != 0 {
		t.Errorf("posts to where nobody asked for them: %q", unasked.posts)
	}
}

// TestADeliveryThatWaitsNeedsItsDestinationStill ensures that nothing is posted to a
// destination that was disabled after the delivery's first try.
func TestADeliveryThatWaitsNeedsItsDestinationStill(t *testing.T) {
	h, r := open(t, nil), receive(t)
	d := h.enable(home, "d", r.URL)
	onError := republishTo("errors")
	h.put(home, "post", "SELECT * FROM 'in'", &onError, post(r.URL, ""))
	r.statuses = []int{503}
	d.Status = imprint.RuleDestinationDisabled
	r.meanwhile = func() {
		err := h.store.Update(context.Background(), func(tx imprint.Tx) error { return tx.PutRuleDestination(d) })
		if err != nil {
			t.Error(err)
		}
	}
	h.offer(home, "in", `{}`)
	h.await(t, "the error action", func() bool { return len(h.on("errors")) == 1 })
	if got := readError(t, h.on("errors")[0].Payload).Failures; len(got) != 1 || !strings.Contains(got[0].Message, "no enabled destination") {
		t.Errorf("failures: got %+v, want one of the destination", got)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.posts) != 1 {
		t.Errorf("posts: got %q, want the first alone", r.posts)
	}
}

// owed is a delivery as an earlier run of the server left it.
func owed(id, url string, failures int, age time.Duration) imprint.RuleDelivery {
	now := time.Now()
	return imprint.RuleDelivery{ID: id, Tenant: home, Rule: "post", Kind: "http", Queue: "http " + url, Failures: failures, DueAt: now, CreatedAt: now.Add(-age),
		Request: fmt.Appendf(nil, `{"url":%q,"body":"e30="}`, url), Origin: []byte(`{"topic":"in","payload":"e30=","properties":{}}`)}
}

// TestFailedDeliveriesWaitLongerEachTime ensures that the pause doubles from one
// second to five minutes.
func TestFailedDeliveriesWaitLongerEachTime(t *testing.T) {
	h := open(t, nil)
	h.end()
	fails := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(fails.Close)
	h.enable(home, "d", fails.URL)
	pauses := map[int]time.Duration{4: 16 * time.Second, 7: 128 * time.Second, 8: 256 * time.Second, 9: 5 * time.Minute, 40: 5 * time.Minute}
	for failures := range pauses {
		h.update(func(tx imprint.Tx) error {
			return tx.PutRuleDelivery(owed(fmt.Sprint(failures), fails.URL, failures, 0))
		})
	}
	before := time.Now().Truncate(time.Millisecond)
	h.begin()
	for failures, pause := range pauses {
		var d imprint.RuleDelivery
		until(t, fmt.Sprintf("a try of the delivery that failed %d times", failures), func() bool {
			h.view(func(tx imprint.ReadTx) error {
				var err error
				d, err = tx.RuleDelivery(fmt.Sprint(failures))
				return err
			})
			return d.Failures == failures+1
		})
		if earliest, latest := before.Add(pause), time.Now().Add(pause); d.DueAt.Before(earliest) || d.DueAt.After(latest) {
			t.Errorf("after %d failures: due %s after the start, want %s", failures+1, d.DueAt.Sub(before), pause)
		}
	}
}

// TestADeliveryEndsAtItsAge ensures that what fails for too long goes to the error
// action with the last failure, and that what is young doesn't.
func TestADeliveryEndsAtItsAge(t *testing.T) {
	h := open(t, func(o *rules.Options) { o.DeliveryAge = time.Hour })
	h.end()
	r := receive(t)
	r.statuses = []int{503, 503}
	h.enable(home, "d", r.URL)
	onError := republishTo("errors")
	h.put(home, "post", "SELECT * FROM 'in'", &onError, post(r.URL, ""))
	h.update(func(tx imprint.Tx) error {
		err := tx.PutRuleDelivery(owed("old", r.URL, 9, 61*time.Minute))
		if err == nil {
			err = tx.PutRuleDelivery(owed("young", r.URL, 9, 58*time.Minute))
		}
		return err
	})
	h.begin()
	r.await(t, "a try of both", func() bool { return len(r.posts) == 2 })
	h.await(t, "the error action", func() bool { return len(h.on("errors")) == 1 })
	got := readError(t, h.on("errors")[0].Payload)
	if len(got.Failures) != 1 || got.Failures[0].Action != "HttpAction" || got.Failures[0].Resource != r.URL ||
		!strings.Contains(got.Failures[0].Message, "503") || got.Topic != "in" || string(got.Payload) != "{}" {
		t.Errorf("the error action's message: got %+v", got)
	}
	err := h.store.View(t.Context(), func(tx imprint.ReadTx) error {
		_, err := tx.RuleDelivery("young")
		return err
	})
	if err != nil {
		t.Errorf("the young delivery: %v", err)
	}
}

// TestWaitingMessagesAreBoundedInBytes ensures that large messages find no room
// before their number is reached.
func TestWaitingMessagesAreBoundedInBytes(t *testing.T) {
	h := open(t, func(o *rules.Options) { o.MaxQueuedBytes = 10_000 })
	h.end()
	h.Engine = rules.New(h.store, time.Now, h.opts) // not started: everything waits
	h.put(home, "all", "SELECT * FROM '#'", nil, republishTo("x"))
	large := fmt.Sprintf(`{"a":"%s"}`, strings.Repeat("x", 4000))
	h.offer(home, "t", large)
	h.offer(home, "t", large)
	err := h.Tenant(home).Offer(t.Context(), &imprint.RuleMessage{Topic: "t", Payload: []byte(large), Wait: true})
	if imprint.CodeOf(err) != imprint.CodeRulesBusy {
		t.Errorf("a message too large: got %v, want %s", err, imprint.CodeRulesBusy)
	}
	h.Start(h.outside)
	h.await(t, "what waited", func() bool { return len(h.on("x")) == 2 })
	h.offer(home, "t", large)
	h.await(t, "one more, as there is room again", func() bool { return len(h.on("x")) == 3 })
}

// slowFunctions don't answer before they are released.
type slowFunctions struct {
	*outside
	entered, release chan struct{}
}

// InvokeLater implements imprint.Functions.
func (s *slowFunctions) InvokeLater(context.Context, imprint.FunctionCall) error {
	s.entered <- struct{}{}
	<-s.release
	return nil
}

// TestOneTenantHasHalfOfTheWorkers ensures that rules of one tenant that are slow leave
// workers to those of another.
func TestOneTenantHasHalfOfTheWorkers(t *testing.T) {
	slow := &slowFunctions{entered: make(chan struct{}, 4), release: make(chan struct{})}
	h := open(t, func(o *rules.Options) { o.Functions, o.Workers = slow, 2 })
	t.Cleanup(func() { close(slow.release) })
	h.put(home, "call", "SELECT * FROM 'in'", nil, invoke("f"))
	h.put(other, "say", "SELECT * FROM 'in'", nil, republishTo("x"))
	for range 4 {
		h.offer(home, "in", `{}`)
	}
	<-slow.entered
	select {
	case <-slow.entered:
		t.Error("the tenant has both workers")
	case <-time.After(100 * time.Millisecond): // nothing tells of it: the test is for its absence
	}
	h.offer(other, "in", `{}`)
	h.await(t, "the other tenant's message", func() bool { return len(h.on("x")) == 1 })
}

// bursting is a sink with a bug.
type bursting struct{}

func (bursting) Put(context.Context, rules.Record) error { panic("a bug in the sink") }
func (bursting) Close() error                            { return nil }

// TestADeliveryThatPanicsIsGivenUp ensures that a panic in a delivery, or in the question
// to a destination's owner, doesn't end the server, and that neither comes again.
func TestADeliveryThatPanicsIsGivenUp(t *testing.T) {
	h := open(t, func(o *rules.Options) {
		o.Sinks = map[string]rules.Sink{"place": bursting{}}
		o.ConfirmURL = func() string { panic("a bug in the address") }
	})
	onError := republishTo("errors")
	h.put(home, "keep", "SELECT * FROM 'in'", &onError, imprint.RuleAction{Firehose: &imprint.FirehoseRuleAction{RoleARN: "arn", Stream: "place"}})
	h.offer(home, "in", `{}`)
	h.await(t, "the error action", func() bool { return len(h.on("errors")) == 1 })
	h.update(func(tx imprint.Tx) error {
		_, err := rules.Ask(tx, imprint.RuleDestination{Tenant: home, ID: "d", URL: "http://192.0.2.1/", CreatedAt: time.Now()}, time.Now())
		return err
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for waiting := 1; waiting > 0; {
		err := h.store.View(ctx, func(tx imprint.ReadTx) error {
			queues, err := tx.DeliveryQueues(home, "", 10)
			waiting = len(queues)
			return err
		})
		if err != nil {
			t.Fatalf("deliveries wait still: %v", err)
		}
	}
	if got := h.Counters().Actions[rules.ActionFirehose]; got.Failed != 1 || got.Retried != 0 {
		t.Errorf("got %+v, want one that failed", got)
	}
}
