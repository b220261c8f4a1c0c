package provisioning_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// guarded puts a guard on the claim of a tenant.
func (o *office) guarded(tenant imprint.Tenant, guard imprint.ClaimGuard) {
	o.Helper()
	guard.Tenant, guard.Claim = tenant, claimID
	update(o, o.store, func(tx imprint.Tx) error { return tx.PutClaimGuard(guard) })
}

func (o *office) guard(tenant imprint.Tenant) imprint.ClaimGuard {
	o.Helper()
	var guard imprint.ClaimGuard
	view(o, o.store, func(tx imprint.ReadTx) error {
		found, err := tx.ClaimGuard(tenant, claimID)
		guard = found
		return err
	})
	return guard
}

func serial(text string) map[string]string { return map[string]string{"SerialNumber": text} }

// TestAGuardRefusesWhatItDoesNotAllow ensures each bound that refuses and
// doesn't stop the claim.
func TestAGuardRefusesWhatItDoesNotAllow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		guard imprint.ClaimGuard
		from  string
		ok    bool
	}{
		{name: "before its time", guard: imprint.ClaimGuard{NotBefore: instant.Add(time.Second)}},
		{name: "after its time", guard: imprint.ClaimGuard{NotAfter: instant.Add(-time.Second)}},
		{name: "in its time", guard: imprint.ClaimGuard{NotBefore: instant.Add(-time.Second), NotAfter: instant.Add(time.Second)}, ok: true},
		{name: "from elsewhere", guard: imprint.ClaimGuard{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}},
		{name: "from its network", guard: imprint.ClaimGuard{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("192.0.2.0/28")}}, ok: true},
		{name: "from its network, in IPv6's form", guard: imprint.ClaimGuard{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}}, from: "::ffff:192.0.2.7", ok: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, nil, provisioning.ClaimOptions{})
			o.guarded(home, tt.guard)
			csr, _ := signingRequest(t, "unit")
			out, ok := o.ask(home, csrTopic, object(t, map[string]any{"certificateSigningRequest": csr}), func(r *provisioning.ClaimRequest) {
				if tt.from != "" {
					r.Address = netip.MustParseAddr(tt.from)
				}
			})
			o.create(another) // which has no guard
			if tt.ok {
				if !ok {
					t.Errorf("rejected: %+v", out)
				}
				return
			}
			rejectedWith(t, out, ok, 403, "AccessDenied")
			if !o.guard(home).StoppedAt.IsZero() {
				t.Error("the claim is stopped, and should only be refused")
			}
		})
	}
}

func TestAQuotaStopsTheClaimAndNotTheFleet(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	o.guarded(home, imprint.ClaimGuard{Quota: 2})
	spare := o.create(home)
	for _, name := range []string{"1", "2"} {
		made := o.create(home)
		_, ok := o.register(home, made.Token, serial(name))
		if !ok {
			t.Fatalf("device %s within the quota was rejected", name)
		}
	}
	out, ok := o.register(home, spare.Token, serial("3"))
	rejectedWith(t, out, ok, 403, "AccessDenied")
	checkFailure(t, o.steps(), "claim.guard", imprint.CodeClaimQuota)
	guard := o.guard(home)
	if guard.Devices != 2 || guard.StopCode != imprint.CodeClaimQuota || guard.StoppedAt.IsZero() {
		t.Errorf("guard: got %+v, want stopped with 2 devices", guard)
	}
	out, ok = o.ask(home, keysTopic, "")
	rejectedWith(t, out, ok, 403, "AccessDenied")
	checkFailure(t, o.steps(), "claim.guard", imprint.CodeClaimStopped)
	// Another claim of the tenant, and the same name elsewhere, go on.
	o.create(home, func(r *provisioning.ClaimRequest) { r.Claim = imprint.CertificateID(strings.Repeat("c2", 32)) })
	o.create(another)
	var events []imprint.Event
	view(t, o.store, func(tx imprint.ReadTx) error {
		found, err := tx.Events(10)
		events = found
		return err
	})
	if len(events) != 1 || events[0].Topic != "$aws/events/imprint/claims/stopped/"+string(claimID) || events[0].Tenant != home {
		t.Fatalf("events: got %+v, want one that the claim is stopped", events)
	}
	var told struct{ ClaimCertificateID, Code, AttemptID string }
	err := json.Unmarshal(events[0].Payload, &told)
	if err != nil || told.ClaimCertificateID != string(claimID) || told.Code != string(imprint.CodeClaimQuota) || told.AttemptID == "" {
		t.Errorf("event: got %s, %v", events[0].Payload, err)
	}
	if got := o.claims.Counters().Stopped; got != 1 {
		t.Errorf("stopped claims: got %d, want 1", got)
	}
}

func TestAQuotaHoldsHoweverManyAskAtOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	o.guarded(home, imprint.ClaimGuard{Quota: 5})
	var tokens []string
	for range 20 {
		tokens = append(tokens, o.create(home).Token)
	}
	var accepted atomic.Int64
	var all sync.WaitGroup
	for n, token := range tokens {
		payload := []byte(object(t, map[string]any{"certificateOwnershipToken": token, "parameters": serial(string(rune('a' + n)))}))
		all.Go(func() {
			answer := o.claims.Answer(context.Background(), provisioning.ClaimRequest{Tenant: home, Topic: provision, Payload: payload, Claim: claimID, Address: address})
			if strings.HasSuffix(answer.Topic, "/accepted") {
				accepted.Add(1)
			}
		})
	}
	all.Wait()
	if accepted.Load() != 5 || o.guard(home).Devices != 5 || len(o.things(home)) != 5 {
		t.Errorf("accepted %d, counted %d, things %d; want 5", accepted.Load(), o.guard(home).Devices, len(o.things(home)))
	}
}

func TestOnlySerialsOfTheAllowListAreRegistered(t *testing.T) {
	t.Parallel()
	asked := 0
	o := newOffice(t, function(func(context.Context, imprint.FunctionCall) (imprint.FunctionResult, error) {
		asked++
		return imprint.FunctionResult{Payload: []byte(`{"allowProvisioning":true}`)}, nil
	}), provisioning.ClaimOptions{})
	o.template(home, fleetBody(ownPolicy), hookARN)
	o.guarded(home, imprint.ClaimGuard{SerialParameter: "SerialNumber"})
	update(t, o.store, func(tx imprint.Tx) error {
		_, err := tx.AddClaimSerials(home, claimID, []string{"1", "2"})
		return err
	})
	for _, parameters := range []map[string]string{serial("3"), {}} {
		out, ok := o.register(home, o.create(home).Token, parameters)
		rejectedWith(t, out, ok, 403, "AccessDenied")
		checkFailure(t, o.steps(), "claim.guard", imprint.CodeClaimNotAllowed)
	}
	if asked != 0 {
		t.Errorf("the hook was asked %d time(s) about devices that the guard refuses", asked)
	}
	_, ok := o.register(home, o.create(home).Token, serial("1"))
	if !ok {
		t.Error("a serial number of the list was rejected")
	}
	out, ok := o.register(home, o.create(home).Token, serial("1"))
	rejectedWith(t, out, ok, 403, "AccessDenied")
	guard := o.guard(home)
	guard.SerialReuse = true
	o.guarded(home, guard)
	_, ok = o.register(home, o.create(home).Token, serial("1"))
	if !ok {
		t.Error("a serial number was rejected that may come again")
	}
}

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

// TestAStoppedClaimTakesNothingFromTheOthers ensures that the requests of a claim
// that its guard refuses aren't taken from the rate of the tenant, and that they
// are bounded themselves.
func TestAStoppedClaimTakesNothingFromTheOthers(t *testing.T) {
	t.Parallel()
	for _, guard := range []imprint.ClaimGuard{
		{StoppedAt: instant, StopCode: imprint.CodeClaimQuota, StopReason: "over"},
		{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
	} {
		o := newOffice(t, nil, provisioning.ClaimOptions{CreateRate: 5, RegisterRate: 5})
		o.guarded(home, guard)
		statuses := map[int]int{}
		for range 100 {
			out, ok := o.ask(home, csrTopic, "{}")
			if ok {
				t.Fatal("accepted")
			}
			statuses[out.Status]++
		}
		if statuses[403] != 5 || statuses[429] != 95 {
			t.Errorf("got the statuses %v, want 5 times 403 and then 429", statuses)
		}
		for range 5 {
			o.create(home, func(r *provisioning.ClaimRequest) { r.Claim = imprint.CertificateID(strings.Repeat("c2", 32)) })
		}
	}
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

// TestDevicesAreToldNothingOfOthers ensures that what only operators may know is in
// the trace and not in a rejection.
func TestDevicesAreToldNothingOfOthers(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	others := imprint.CertificateID(strings.Repeat("c2", 32))
	token := o.create(home, func(r *provisioning.ClaimRequest) { r.Claim = others }).Token
	out, ok := o.register(home, token, serial("1"))
	rejectedWith(t, out, ok, 400, "InvalidCertificateOwnershipToken")
	told := out.Message
	if text := detail(t, o.steps()); !strings.Contains(text, string(others)) {
		t.Errorf("the trace says %q, and nothing of the other claim", text)
	}
	o.guarded(home, imprint.ClaimGuard{SerialParameter: "SerialNumber"})
	update(t, o.store, func(tx imprint.Tx) error {
		_, err := tx.AddClaimSerials(home, claimID, []string{"1"})
		return err
	})
	device := o.create(home)
	_, ok = o.register(home, device.Token, serial("1"))
	if !ok {
		t.Fatal("a serial number of the list was rejected")
	}
	out, ok = o.register(home, o.create(home).Token, serial("1"))
	rejectedWith(t, out, ok, 403, "AccessDenied")
	if text := detail(t, o.steps()); !strings.Contains(text, device.ID) {
		t.Errorf("the trace says %q, and nothing of the other device", text)
	}
	out2, ok := o.ask(home, provision, `{"parameters":{"SerialNumber":7}}`)
	rejectedWith(t, out2, ok, 400, "InvalidPayload")
	for _, text := range []string{told, out.Message, out2.Message} {
		for _, inside := range []string{string(others), device.ID, "Go ", "registerRequest", "provisioning."} {
			if strings.Contains(text, inside) {
				t.Errorf("a device is told %q, which has %q", text, inside)
			}
		}
	}
}

// detail is that of the last step.
func detail(t *testing.T, steps []imprint.Step) string {
	t.Helper()
	if len(steps) == 0 {
		t.Fatal("the attempt has no steps")
	}
	return steps[len(steps)-1].Detail
}

// TestAFullQuotaGivesOutNoCertificates ensures that a claim which has registered all
// that it may is stopped by the next request for a certificate, too.
func TestAFullQuotaGivesOutNoCertificates(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	o.guarded(home, imprint.ClaimGuard{Quota: 1})
	_, ok := o.register(home, o.create(home).Token, serial("1"))
	if !ok {
		t.Fatal("a device within the quota was rejected")
	}
	out, ok := o.ask(home, keysTopic, "")
	rejectedWith(t, out, ok, 403, "AccessDenied")
	checkFailure(t, o.steps(), "claim.guard", imprint.CodeClaimQuota)
	if got := o.guard(home).StopCode; got != imprint.CodeClaimQuota {
		t.Errorf("stopped by %q, want the quota", got)
	}
}

// TestAGuardIsLookedAtAgainWhenTheDeviceIsWritten ensures that what an operator
// changes while the hook is asked holds for the device, and that a hook can't give a
// device a serial number that isn't in the list.
func TestAGuardIsLookedAtAgainWhenTheDeviceIsWritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change    func(tx imprint.Tx, guard imprint.ClaimGuard) error
		overrides string
		code      imprint.Code
	}{
		"stopped": {func(tx imprint.Tx, g imprint.ClaimGuard) error {
			return tx.PutClaimGuard(g.Stop(imprint.Errorf(imprint.CodeClaimAnomaly, "too many"), instant))
		}, "{}", imprint.CodeClaimStopped},
		"its time is over": {func(tx imprint.Tx, g imprint.ClaimGuard) error {
			g.NotAfter = instant.Add(-time.Second)
			return tx.PutClaimGuard(g)
		}, "{}", imprint.CodeClaimNotAllowed},
		"from another network": {func(tx imprint.Tx, g imprint.ClaimGuard) error {
			g.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
			return tx.PutClaimGuard(g)
		}, "{}", imprint.CodeClaimNotAllowed},
		"the list is emptied": {func(tx imprint.Tx, g imprint.ClaimGuard) error {
			_, err := tx.DeleteClaimSerials(g.Tenant, g.Claim, 10)
			return err
		}, "{}", imprint.CodeClaimNotAllowed},
		"the serial was registered": {func(tx imprint.Tx, g imprint.ClaimGuard) error {
			return tx.PutClaimSerial(imprint.ClaimSerial{Tenant: g.Tenant, Claim: g.Claim, Serial: "1", Device: imprint.CertificateID(strings.Repeat("d0", 32))})
		}, "{}", imprint.CodeClaimNotAllowed},
		"the hook names another serial":  {nil, `{"SerialNumber":"9"}`, imprint.CodeClaimNotAllowed},
		"the hook names one of the list": {nil, `{"SerialNumber":"2"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o *office
			o = newOffice(t, function(func(context.Context, imprint.FunctionCall) (imprint.FunctionResult, error) {
				if c.change != nil {
					update(t, o.store, func(tx imprint.Tx) error {
						guard, err := tx.ClaimGuard(home, claimID)
						if err != nil {
							return err
						}
						return c.change(tx, guard)
					})
				}
				return imprint.FunctionResult{Payload: []byte(`{"allowProvisioning":true,"parameterOverrides":` + c.overrides + `}`)}, nil
			}), provisioning.ClaimOptions{})
			o.template(home, fleetBody(ownPolicy), hookARN)
			o.guarded(home, imprint.ClaimGuard{SerialParameter: "SerialNumber"})
			update(t, o.store, func(tx imprint.Tx) error {
				_, err := tx.AddClaimSerials(home, claimID, []string{"1", "2"})
				return err
			})
			out, ok := o.register(home, o.create(home).Token, serial("1"))
			if c.code == "" {
				if !ok {
					t.Errorf("rejected: %+v", out)
				}
				return
			}
			rejectedWith(t, out, ok, 403, "AccessDenied")
			checkFailure(t, o.steps(), "claim.guard", c.code)
			if len(o.things(home)) != 0 || o.guard(home).Devices != 0 {
				t.Errorf("things %v, %d devices counted; want none", o.things(home), o.guard(home).Devices)
			}
		})
	}
}

// TestARequestWithoutASerialSaysSo ensures that the trace names the parameter.
func TestARequestWithoutASerialSaysSo(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	o.guarded(home, imprint.ClaimGuard{SerialParameter: "SerialNumber"})
	out, ok := o.register(home, o.create(home).Token, map[string]string{})
	rejectedWith(t, out, ok, 403, "AccessDenied")
	if text := detail(t, o.steps()); !strings.Contains(text, "no parameter SerialNumber") {
		t.Errorf("the trace says %q", text)
	}
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
		found, err := tx.Events(10)
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

// TestClaimsOfOneTenantShareItsRate ensures that claims that each keep their own rate
// can't take more than the tenant's, and that another tenant's claim of the same
// certificate isn't bound by it.
func TestClaimsOfOneTenantShareItsRate(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{CreateRate: 4, RegisterRate: 4})
	as := func(text string) func(*provisioning.ClaimRequest) {
		return func(r *provisioning.ClaimRequest) { r.Claim = imprint.CertificateID(strings.Repeat(text, 32)) }
	}
	for range 2 {
		o.create(home, as("c2"))
		o.create(home, as("c3"))
	}
	out, ok := o.ask(home, csrTopic, "{}", as("c3"))
	rejectedWith(t, out, ok, 429, "TooManyRequests")
	if text := detail(t, o.steps()); !strings.Contains(text, "the account's devices") {
		t.Errorf("the trace says %q, want whose rate it was", text)
	}
	o.create(another, as("c3"))
	o.ahead.Store(int64(time.Second))
	for range 4 {
		o.create(home, as("c2"))
	}
	out, ok = o.ask(home, csrTopic, "{}", as("c2"))
	rejectedWith(t, out, ok, 429, "TooManyRequests")
	if text := detail(t, o.steps()); !strings.Contains(text, "the claim certificate") {
		t.Errorf("the trace says %q, want whose rate it was", text)
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

// What was read for one request holds for the next ones, until it is changed.
func TestWhatBindsAClaimHoldsForItsNextRequest(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	csr, _ := signingRequest(t, "unit-1")
	ask := func() (reply, bool) {
		return o.ask(home, csrTopic, object(t, map[string]any{"certificateSigningRequest": csr}))
	}
	guard := imprint.ClaimGuard{Tenant: home, Claim: claimID}
	stopped := guard.Stop(imprint.Errorf(imprint.CodeClaimAnomaly, "too many"), instant)
	put := func(g imprint.ClaimGuard) {
		update(t, o.store, func(tx imprint.Tx) error { return tx.PutClaimGuard(g) })
	}
	allowed := func(what string) {
		t.Helper()
		out, ok := ask()
		if !ok {
			t.Errorf("%s: refused: %+v", what, out)
		}
	}
	refused := func(what string) {
		t.Helper()
		_, ok := ask()
		if ok {
			t.Errorf("%s: allowed", what)
		}
	}
	allowed("a claim without a guard")
	allowed("it again")
	put(stopped)
	refused("a claim that is stopped")
	put(guard)
	allowed("a claim that goes on")
	update(t, o.store, func(tx imprint.Tx) error { return tx.DeleteClaimGuard(home, claimID) })
	o.afterGlance = func() { put(stopped) }
	allowed("a claim that is stopped after it was looked at")
	refused("its next request")

	update(t, o.store, func(tx imprint.Tx) error { return tx.DeleteClaimGuard(home, claimID) })
	allowed("a claim whose guard is gone")
	provider := imprint.CertificateProvider{Tenant: home, Name: "maker", FunctionARN: hookARN, Operations: []string{"CreateCertificateFromCsr"}}
	update(t, o.store, func(tx imprint.Tx) error { return tx.PutCertificateProvider(provider) })
	refused("with a certificate provider and no functions") // the built-in CA isn't asked
	update(t, o.store, func(tx imprint.Tx) error { return tx.DeleteCertificateProvider(home, "maker") })
	allowed("without the provider")
}
