package provisioning_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

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
		elsewhere, err := tx.Events(another, 10)
		if err != nil {
			return err
		}
		events, err = tx.Events(home, 10)
		events = append(events, elsewhere...)
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
