package provisioning_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

func TestAnomaliesStopTheClaim(t *testing.T) {
	t.Parallel()
	t.Run("requests", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, nil, provisioning.ClaimOptions{})
		o.guarded(home, imprint.ClaimGuard{MaxRequests: 3, Window: time.Minute})
		for range 3 {
			o.create(home)
		}
		o.ahead.Store(int64(time.Minute)) // a new window
		for range 3 {
			o.create(home)
		}
		out, ok := o.ask(home, keysTopic, "")
		rejectedWith(t, out, ok, 403, "AccessDenied")
		if got := o.guard(home).StopCode; got != imprint.CodeClaimAnomaly {
			t.Errorf("stopped by %q, want ClaimAnomaly", got)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, nil, provisioning.ClaimOptions{})
		o.guarded(home, imprint.ClaimGuard{MaxRefusals: 2, Window: time.Minute})
		for range 3 {
			out, ok := o.register(home, "guess", serial("1"))
			rejectedWith(t, out, ok, 400, "InvalidCertificateOwnershipToken")
		}
		if got := o.guard(home).StopCode; got != imprint.CodeClaimAnomaly {
			t.Fatalf("stopped by %q, want ClaimAnomaly", got)
		}
		guard := o.guard(home)
		guard.StoppedAt, guard.StopCode = time.Time{}, ""
		o.guarded(home, guard)
		o.claims.Resume(home, claimID)
		o.create(home)
	})
}

// TestRequestsThatCameTooQuicklyCountAsMisuse ensures it for those that the claim's
// own rate refuses, and for those that never came so far.
func TestRequestsThatCameTooQuicklyCountAsMisuse(t *testing.T) {
	t.Parallel()
	for _, early := range []bool{false, true} {
		o := newOffice(t, nil, provisioning.ClaimOptions{CreateRate: 2, RegisterRate: 2})
		o.guarded(home, imprint.ClaimGuard{MaxRequests: 20, Window: time.Minute})
		for range 2 {
			o.create(home)
		}
		for range 18 {
			if early {
				r := provisioning.ClaimRequest{Tenant: home, Topic: csrTopic, Claim: claimID}
				o.claims.Refuse(r, imprint.Errorf(imprint.CodeThrottled, "four are under way"))
				continue
			}
			out, ok := o.ask(home, csrTopic, "{}")
			rejectedWith(t, out, ok, 429, "TooManyRequests")
		}
		o.ahead.Store(int64(time.Second))
		out, ok := o.ask(home, csrTopic, "{}")
		rejectedWith(t, out, ok, 403, "AccessDenied")
		if got := o.guard(home).StopCode; got != imprint.CodeClaimAnomaly {
			t.Errorf("early %t: stopped by %q, want ClaimAnomaly", early, got)
		}
	}
}

// TestRequestsOfAnotherWindowAreForgotten ensures that a flood long ago doesn't
// stop a claim that is used as it should be.
func TestRequestsOfAnotherWindowAreForgotten(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{CreateRate: 1, RegisterRate: 1})
	o.guarded(home, imprint.ClaimGuard{MaxRequests: 5, Window: time.Minute})
	o.create(home)
	for range 20 {
		out, ok := o.ask(home, csrTopic, "{}")
		rejectedWith(t, out, ok, 429, "TooManyRequests")
	}
	o.ahead.Store(int64(2 * time.Minute))
	o.create(home)
}

// TestTheServersOwnFailuresAreNoMisuse ensures that neither a store that fails nor
// requests to a claim that is stopped already count as refusals.
func TestTheServersOwnFailuresAreNoMisuse(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	o.guarded(home, imprint.ClaimGuard{MaxRefusals: 1, Window: time.Minute})
	made := o.create(home)
	for range 3 {
		o.failing.left <- struct{}{}
		out, ok := o.register(home, made.Token, serial("1"))
		rejectedWith(t, out, ok, 500, "InternalError")
	}
	_, ok := o.register(home, made.Token, serial("1"))
	if guard := o.guard(home); !ok || !guard.StoppedAt.IsZero() {
		t.Errorf("after failures of the store: accepted %t, guard %+v; want it accepted and not stopped", ok, guard)
	}
	guard := o.guard(home)
	o.guarded(home, guard.Stop(imprint.Errorf(imprint.CodeClaimQuota, "over"), instant))
	for range 3 {
		out, ok := o.ask(home, keysTopic, "")
		rejectedWith(t, out, ok, 403, "AccessDenied")
		for _, step := range o.steps() {
			if step.Code == imprint.CodeClaimAnomaly {
				t.Errorf("a stopped claim's request counts as misuse: %+v", step)
			}
		}
	}
}

// TestAClaimIsStoppedOnceAndForGood ensures that the refusal that stops a claim is in
// its attempt, that a device that hangs up doesn't keep it from being stopped, and
// that who comes to the same end meanwhile causes no second event.
func TestAClaimIsStoppedOnceAndForGood(t *testing.T) {
	t.Parallel()
	var o *office
	var within func()
	o = newOffice(t, function(func(context.Context, imprint.FunctionCall) (imprint.FunctionResult, error) {
		within()
		return imprint.FunctionResult{Payload: []byte(`{"allowProvisioning":false}`)}, nil
	}), provisioning.ClaimOptions{})
	o.template(home, fleetBody(ownPolicy), hookARN)
	o.guarded(home, imprint.ClaimGuard{MaxRefusals: 1, Window: time.Minute})
	first, second := o.create(home), o.create(home)
	within = func() {}
	out, ok := o.register(home, first.Token, serial("1"))
	rejectedWith(t, out, ok, 403, "AccessDenied")

	// The second device is gone when the hook has said no.
	ctx, cancel := context.WithCancel(t.Context())
	within = cancel
	rec := o.log.Begin(address.String() + ":2")
	o.claims.Answer(ctx, provisioning.ClaimRequest{Tenant: home, Topic: provision, Claim: claimID, ClientID: "gone", Address: address, Rec: rec,
		Payload: []byte(object(t, map[string]any{"certificateOwnershipToken": second.Token, "parameters": serial("2")}))})
	o.rec = rec
	steps := o.steps()
	if !slices.ContainsFunc(steps, func(s imprint.Step) bool { return s.Name == "claim.guard" && s.Code == imprint.CodeClaimAnomaly }) {
		t.Errorf("got the steps %+v, want claim.guard with %s", steps, imprint.CodeClaimAnomaly)
	}
	if got := o.guard(home); got.StopCode != imprint.CodeClaimAnomaly {
		t.Fatalf("guard: got %+v, want it stopped", got)
	}
	if !strings.Contains(detail(t, steps), "is stopped: more than 1 requests") {
		t.Errorf("the attempt's last step is %q, want it to tell that the claim is stopped", detail(t, steps))
	}

	// It goes on, and is stopped while a third device's hook is asked.
	guard := o.guard(home)
	guard.StoppedAt, guard.StopCode, guard.StopReason = time.Time{}, "", ""
	o.guarded(home, guard)
	o.claims.Resume(home, claimID)
	within = func() {
		within = func() {}
		for range 2 {
			o.register(home, "guess", serial("4"))
		}
	}
	o.register(home, o.create(home).Token, serial("3"))
	events := 0
	view(t, o.store, func(tx imprint.ReadTx) error {
		found, err := tx.Events(home, 10)
		events = len(found)
		return err
	})
	if got := o.claims.Counters().Stopped; got != 2 || events != 2 {
		t.Errorf("two stops: got %d counted and %d events", got, events)
	}
}

// TestMissedRequestsCountOnce ensures that requests that nobody looked a guard up for
// count with the next one and with no later one, that a claim which is let go on
// begins without them, and that refusals for other reasons than the rate aren't such.
func TestMissedRequestsCountOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{CreateRate: 2, RegisterRate: 2})
	o.guarded(home, imprint.ClaimGuard{MaxRequests: 20, Window: time.Minute})
	second := 0
	wait := func() {
		second++
		o.ahead.Store(int64(second) * int64(time.Second))
	}
	for range 2 {
		o.create(home)
	}
	missed := func() {
		for range 8 {
			out, ok := o.ask(home, csrTopic, "{}")
			rejectedWith(t, out, ok, 429, "TooManyRequests")
		}
	}
	missed()
	for range 4 { // 2 + 8 + 8
		wait()
		o.create(home)
		o.create(home)
	}
	if guard := o.guard(home); !guard.StoppedAt.IsZero() {
		t.Fatalf("stopped after 18 requests of 20: %s", guard.StopReason)
	}
	// While it is stopped, its devices go on asking.
	guard := o.guard(home)
	o.guarded(home, guard.Stop(imprint.Errorf(imprint.CodeClaimQuota, "over"), o.now()))
	missed()
	missed()
	missed()
	o.guarded(home, guard)
	o.claims.Resume(home, claimID)
	wait()
	o.create(home)
	for range 30 {
		o.claims.Refuse(provisioning.ClaimRequest{Tenant: home, Topic: csrTopic, Claim: claimID}, imprint.Errorf(imprint.CodeReservedTopic, "no topic of the API"))
	}
	o.create(home)
	if guard := o.guard(home); !guard.StoppedAt.IsZero() {
		t.Errorf("stopped by what doesn't count: %s", guard.StopReason)
	}
}

// TestAWindowBeginsAnewWhenTheClockIsSetBack ensures that a claim isn't bound by
// requests of a time that is yet to come.
func TestAWindowBeginsAnewWhenTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	o.guarded(home, imprint.ClaimGuard{MaxRequests: 3, Window: time.Minute})
	o.ahead.Store(int64(time.Hour))
	for range 3 {
		o.create(home)
	}
	o.ahead.Store(0)
	for range 3 {
		o.create(home)
	}
}

// TestWaitingForKeysIsNoMisuse ensures that devices which all start at once, and for
// which no keys are ready, don't stop their claim.
func TestWaitingForKeysIsNoMisuse(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	o.guarded(home, imprint.ClaimGuard{MaxRefusals: 1, Window: time.Minute})
	o.keys.Close() // no more are made
	throttled := 0
	for range 4 { // the first may find a key that was made before
		out, ok := o.ask(home, keysTopic, "")
		if !ok {
			rejectedWith(t, out, ok, 429, "TooManyRequests")
			throttled++
		}
	}
	if guard := o.guard(home); throttled < 3 || !guard.StoppedAt.IsZero() {
		t.Errorf("%d of 4 requests found no key, stopped: %q; want 3 at least and that it isn't stopped", throttled, guard.StopReason)
	}
}

// TestCountsOfManyClaimsAreBounded ensures that the counts of more claims than are
// remembered at once begin anew, in place of growing without a bound.
func TestCountsOfManyClaimsAreBounded(t *testing.T) {
	t.Parallel()
	const many = 10_000
	other := func(n int) imprint.CertificateID { return imprint.CertificateID(fmt.Sprintf("%064x", n)) }
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	o.guarded(home, imprint.ClaimGuard{MaxRequests: 3, Window: time.Minute})
	update(t, o.store, func(tx imprint.Tx) error {
		for n := range many {
			err := tx.PutClaimGuard(imprint.ClaimGuard{Tenant: home, Claim: other(n), MaxRequests: 3, Window: time.Minute})
			if err != nil {
				return err
			}
		}
		return nil
	})
	for range 3 {
		o.create(home)
	}
	for n := range many {
		o.claims.Answer(t.Context(), provisioning.ClaimRequest{Tenant: home, Topic: provision, Payload: []byte("{}"), Claim: other(n), Address: address})
	}
	o.create(home) // the fourth, if they were counted still

	miss := func(claim imprint.CertificateID) {
		o.claims.Refuse(provisioning.ClaimRequest{Tenant: home, Topic: csrTopic, Claim: claim}, imprint.Errorf(imprint.CodeThrottled, "four are under way"))
	}
	for range 5 {
		miss(claimID)
	}
	for n := range many {
		miss(other(n))
	}
	o.create(home)
}

// TestAnAccountsClaimsMakeNoOthersBeForgotten ensures that an account with claims without
// end resets neither the rate of another account's claim nor what is counted against it.
func TestAnAccountsClaimsMakeNoOthersBeForgotten(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{CreateRate: 2, RegisterRate: 2})
	o.guarded(home, imprint.ClaimGuard{MaxRequests: 5, Window: time.Minute})
	for range 2 {
		o.create(home)
	}
	early := provisioning.ClaimRequest{Tenant: home, Topic: csrTopic, Claim: claimID}
	tooQuick := imprint.Errorf(imprint.CodeThrottled, "four are under way")
	o.claims.Refuse(early, tooQuick)
	for n := range 10_001 {
		id := imprint.CertificateID(fmt.Sprintf("%064x", n))
		o.claims.Refuse(provisioning.ClaimRequest{Tenant: another, Topic: csrTopic, Claim: id}, tooQuick)
		o.ask(another, keysTopic, "", func(r *provisioning.ClaimRequest) { r.Claim = id })
	}
	out, ok := o.ask(home, csrTopic, "{}")
	rejectedWith(t, out, ok, 429, "TooManyRequests")
	o.ahead.Store(int64(time.Second))
	o.create(home) // the third, with two that came too quickly
	out, ok = o.ask(home, csrTopic, "{}")
	rejectedWith(t, out, ok, 403, "AccessDenied")
	if got := o.guard(home).StopCode; got != imprint.CodeClaimAnomaly {
		t.Errorf("stopped by %q, want ClaimAnomaly", got)
	}
}
