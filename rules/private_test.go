package rules_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rules"
)

// ask makes a destination of a tenant and gives it once its owner was asked, or couldn't be.
func (h *house) ask(tenant imprint.Tenant, id, url string, over func(imprint.RuleDestination) bool) imprint.RuleDestination {
	h.t.Helper()
	h.update(func(tx imprint.Tx) error {
		_, err := rules.Ask(tx, imprint.RuleDestination{Tenant: tenant, ID: id, URL: url, CreatedAt: time.Now()}, time.Now())
		return err
	})
	var d imprint.RuleDestination
	until(h.t, "the question of "+id, func() bool {
		h.view(func(tx imprint.ReadTx) error {
			var err error
			d, err = tx.RuleDestination(tenant, id)
			return err
		})
		return over(d)
	})
	return d
}

// TestPrivateAddressesAreTheFirstAccountsAlone ensures that another account's rules
// don't reach this machine, neither to ask nor to post, by an address or by a name that
// leads there.
func TestPrivateAddressesAreTheFirstAccountsAlone(t *testing.T) {
	var reached atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(server.Close)
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	h := open(t, func(o *rules.Options) { o.PrivateAccount = home.Account })
	failed := func(d imprint.RuleDestination) bool { return d.Status == imprint.RuleDestinationError }
	for id, url := range map[string]string{"address": server.URL + "/in", "name": "https://localhost" + port + "/in", "secure": "https://127.0.0.1" + port + "/in"} {
		d := h.ask(other, id, url, failed)
		if !strings.Contains(d.StatusReason, "only the server's first account") {
			t.Errorf("%s: got %q", url, d.StatusReason)
		}
	}
	onError := republishTo("errors")
	h.put(other, "post", "SELECT * FROM 'in'", &onError, post(server.URL+"/in/x", server.URL+"/in"))
	h.update(func(tx imprint.Tx) error {
		d, err := tx.RuleDestination(other, "address")
		if err != nil {
			return err
		}
		d.Status = imprint.RuleDestinationEnabled // as before the flag was taken away
		return tx.PutRuleDestination(d)
	})
	h.offer(other, "in", `{}`)
	h.await(t, "the error of the post", func() bool { return len(h.on("errors")) == 1 })
	if got := readError(t, h.on("errors")[0].Payload).Failures; len(got) != 1 || !strings.Contains(got[0].Message, "only the server's first account") {
		t.Errorf("failures: got %+v", got)
	}
	if got := reached.Load(); got != 0 {
		t.Errorf("the server was reached %d times by another account", got)
	}
	h.ask(home, "own", server.URL+"/in", func(imprint.RuleDestination) bool { return reached.Load() == 1 })
}

// TestWhatAnUnconfirmedAddressAnswersIsntTold ensures that a destination's state says no
// more than the status of the answer.
func TestWhatAnUnconfirmedAddressAnswersIsntTold(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "hunter2 "+r.URL.RawQuery, http.StatusNotFound)
	}))
	t.Cleanup(server.Close)
	h := open(t, nil)
	d := h.ask(home, "d", server.URL+"/secret", func(d imprint.RuleDestination) bool { return d.Status == imprint.RuleDestinationError })
	if !strings.Contains(d.StatusReason, "404") || strings.Contains(d.StatusReason, "hunter2") || strings.Contains(d.StatusReason, "confirmationToken") {
		t.Errorf("got %q", d.StatusReason)
	}
}

// TestAConfirmationIsWaitedForADay ensures that a token is good for ConfirmAge and no
// longer, and that the destination's state says so.
func TestAConfirmationIsWaitedForADay(t *testing.T) {
	h, r := open(t, nil), receive(t)
	asked := h.ask(home, "d", r.URL+"/in", func(imprint.RuleDestination) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.token != ""
	})
	late := asked.ModifiedAt.Add(rules.ConfirmAge)
	confirm := func(now time.Time) error {
		return h.store.Update(t.Context(), func(tx imprint.Tx) error { return rules.Confirm(tx, nil, r.token, now) })
	}
	err := confirm(late)
	if imprint.CodeOf(err) != imprint.CodeUnauthorized {
		t.Errorf("a token after a day: got %v, want %s", err, imprint.CodeUnauthorized)
	}
	if got := rules.AsOf(asked, late); got.Status != imprint.RuleDestinationError || !strings.Contains(got.StatusReason, "timed out") {
		t.Errorf("after a day: got %+v", got)
	}
	soon := late.Add(-time.Millisecond)
	if got := rules.AsOf(asked, soon); got != asked {
		t.Errorf("within a day: got %+v, want %+v", got, asked)
	}
	err = confirm(soon)
	if err != nil {
		t.Errorf("a token within a day: %v", err)
	}
}
