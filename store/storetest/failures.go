package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imprint-iot/imprint"
)

func testReopen(t *testing.T, h Harness) {
	store, err := h.Open(nil)
	if err != nil {
		t.Fatalf("couldn't open the store: %v", err)
	}
	for i := range 3 {
		update(t, store, func(tx imprint.Tx) error { return tx.PutThing(thing(here, name(i))) })
		err = store.Close()
		if err != nil {
			t.Fatalf("couldn't close the store: %v", err)
		}
		store, err = h.Open(nil)
		if err != nil {
			t.Fatalf("couldn't open the store again: %v", err)
		}
		if got := len(thingNames(t, store, here)); got != i+1 {
			t.Errorf("got %d things, want %d", got, i+1)
		}
	}
	err = store.Ready(context.Background())
	if err != nil {
		t.Errorf("Ready: %v", err)
	}
	err = store.Close()
	if err != nil {
		t.Errorf("couldn't close the store: %v", err)
	}
}

// testClosed also ensures that Close answers every Update with its outcome.
func testClosed(t *testing.T, h Harness) {
	store, err := h.Open(nil)
	if err != nil {
		t.Fatalf("couldn't open the store: %v", err)
	}
	var kept atomic.Int64
	var wg sync.WaitGroup
	first := make(chan struct{}, 64)
	for w := range 8 {
		wg.Go(func() {
			for n := range 1000 {
				err := store.Update(context.Background(), func(tx imprint.Tx) error {
					return tx.PutThing(thing(here, fmt.Sprintf("%d-%d", w, n)))
				})
				if err != nil {
					wantCode(t, err, imprint.CodeUnavailable)
					return
				}
				kept.Add(1)
				if n == 0 {
					first <- struct{}{}
				}
			}
		})
	}
	<-first
	for range 2 {
		err = store.Close()
		if err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	wg.Wait()
	nothing := func(imprint.ReadTx) error { return nil }
	wantCode(t, store.Update(context.Background(), func(imprint.Tx) error { return nil }), imprint.CodeUnavailable)
	wantCode(t, store.View(context.Background(), nothing), imprint.CodeUnavailable)
	wantCode(t, store.Ready(context.Background()), imprint.CodeUnavailable)
	store = mustOpen(t, h)
	if got := len(thingNames(t, store, here)); got != int(kept.Load()) {
		t.Errorf("got %d things, %d were acknowledged", got, kept.Load())
	}
}

var errInjected = errors.New("injected fault")

// call is one representative change of several rows, from a state where it
// wasn't made to one where it was.
type call struct {
	name   string
	before func(imprint.Tx) error
	do     func(imprint.Tx) error
	// state gives a text that differs before and after, and nothing in between
	// gives either.
	state func(imprint.ReadTx) string
	// silent: watchers hear nothing of such rows.
	silent bool
}

func testFailures(t *testing.T, open func(*testing.T) Harness) {
	for _, c := range failureCalls() {
		for _, stage := range []Stage{BeforeCommit, Commit, AfterCommit} {
			t.Run(c.name+" "+string(stage), func(t *testing.T) {
				t.Parallel()
				checkFailure(t, open(t), c, stage)
			})
		}
	}
}

// marks is a tenant for what is acknowledged around the failing call.
var marks = imprint.Tenant{Account: "222222222222", Region: "us-east-1"}

func checkFailure(t *testing.T, h Harness, c call, stage Stage) {
	var armed atomic.Bool
	store, err := h.Open(func(s Stage) error {
		if s == stage && armed.CompareAndSwap(true, false) {
			return errInjected
		}
		return nil
	})
	if err != nil {
		t.Fatalf("couldn't open the store: %v", err)
	}
	update(t, store, c.before)
	update(t, store, func(tx imprint.Tx) error { return tx.PutThing(thing(marks, "acknowledged")) })
	before := stateOf(t, store, c)
	var ear heard
	store.Watch(ear.add)
	armed.Store(true)
	err = store.Update(context.Background(), c.do)
	wantCode(t, err, imprint.CodeUnavailable)
	if !errors.Is(err, errInjected) {
		t.Errorf("got %v, want the fault in the chain", err)
	}
	told := len(ear.take())
	if stage == BeforeCommit && told != 0 || stage == AfterCommit && (told == 0) != c.silent {
		t.Errorf("watchers were told of %d changes", told)
	}
	now := stateOf(t, store, c)

	// The store works on: a reload shows the same, and what came after.
	update(t, store, func(tx imprint.Tx) error { return tx.PutThing(thing(marks, "after")) })
	err = store.Ready(context.Background())
	if err != nil {
		t.Errorf("Ready after the fault: %v", err)
	}
	err = store.Close()
	if err != nil {
		t.Fatalf("couldn't close the store: %v", err)
	}
	store, err = h.Open(nil)
	if err != nil {
		t.Fatalf("couldn't open the store again: %v", err)
	}
	defer func() {
		err := store.Close()
		if err != nil {
			t.Errorf("couldn't close the store: %v", err)
		}
	}()
	reloaded := stateOf(t, store, c)
	same(t, "the state after a reload", reloaded, now)
	same(t, "what was acknowledged", thingNames(t, store, marks), []string{"acknowledged", "after"})
	if stage != AfterCommit {
		same(t, "the state after a failed commit", reloaded, before)
	}
	update(t, store, c.do)
	whole := stateOf(t, store, c)
	if stage == AfterCommit {
		same(t, "the state after a persisted failure", reloaded, whole)
	}
	if whole == before {
		t.Errorf("the call changes nothing: %s", whole)
	}
	if h.Check != nil {
		err = h.Check(store)
		if err != nil {
			t.Errorf("the data aren't sound: %v", err)
		}
	}
}

func stateOf(t *testing.T, store imprint.Store, c call) string {
	t.Helper()
	var state string
	view(t, store, func(tx imprint.ReadTx) error {
		state = c.state(tx)
		return nil
	})
	return state
}

// steps runs changes one after the other.
func steps(all ...func(imprint.Tx) error) func(imprint.Tx) error {
	return func(tx imprint.Tx) error {
		for _, step := range all {
			err := step(tx)
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func failureCalls() []call {
	cert := imprint.Certificate{Tenant: here, ID: certID(7), Status: imprint.CertificatePendingActivation, CAID: certID(1), Serial: "7", CreatedAt: instant}
	active := cert
	active.Status = imprint.CertificateActive
	attach := imprint.PolicyAttachment{Tenant: here, Policy: "p", Target: cert.ARN()}
	joined := imprint.ThingAttachment{Tenant: here, Thing: "device", Certificate: cert.ID}
	provision := steps(
		func(tx imprint.Tx) error { return tx.PutCertificate(cert) },
		func(tx imprint.Tx) error { return tx.PutEvent(imprint.Event{ID: "e7", Tenant: here, Topic: "t"}) },
		func(tx imprint.Tx) error { return tx.PutThing(thing(here, "device")) },
		func(tx imprint.Tx) error { return tx.PutThingAttachment(joined) },
		func(tx imprint.Tx) error { return tx.PutPolicyAttachment(attach) },
		func(tx imprint.Tx) error { return tx.PutCertificate(active) })
	version := func(n int) func(imprint.Tx) error {
		return steps(
			func(tx imprint.Tx) error {
				return tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: here, Policy: "p", Version: n, Document: "{}"})
			},
			func(tx imprint.Tx) error {
				return tx.PutPolicy(imprint.Policy{Tenant: here, Name: "p", DefaultVersion: n, LastVersion: n})
			})
	}
	nothing := func(imprint.Tx) error { return nil }
	return append(append(sessionCalls(), registryCalls()...), []call{
		{"provisioning a device", nothing, provision, deviceState, false},
		{"joining a group with a policy", steps(provision, func(tx imprint.Tx) error { return tx.PutThingGroup(group(here, "g")) }), steps(
			func(tx imprint.Tx) error { return tx.PutThingGroup(group(here, "h", "g")) },
			func(tx imprint.Tx) error {
				return tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: here, Group: "h", Thing: "device"})
			},
			func(tx imprint.Tx) error {
				return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: here, Policy: "p", Target: here.ThingGroupARN("g")})
			}), groupState, false},
		{"deleting a device", provision, steps(
			func(tx imprint.Tx) error { return tx.DeleteThingAttachment(here, "device", cert.ID) },
			func(tx imprint.Tx) error { return tx.DeletePolicyAttachment(attach) },
			func(tx imprint.Tx) error { return tx.DeleteThing(here, "device") },
			func(tx imprint.Tx) error { return tx.DeleteCertificate(here, cert.ID) },
			func(tx imprint.Tx) error { return tx.DeleteEvents(here, []string{"e7"}) }), deviceState, false},
		{"a new policy version", version(1), version(2), policyState, false},
		{"deleting a policy", steps(version(1), version(2)),
			func(tx imprint.Tx) error { return tx.DeletePolicy(here, "p") }, policyState, false},
		{"an access key", nothing, func(tx imprint.Tx) error {
			return tx.PutAccessKey(imprint.AccessKey{ID: "AKIA", Account: "1", Secret: "s"})
		}, func(tx imprint.ReadTx) string {
			k, err := tx.AccessKey("AKIA")
			return fmt.Sprint(k.Secret, imprint.CodeOf(err))
		}, false},
		{"the tenant's settings and CA", nothing, steps(
			func(tx imprint.Tx) error {
				return tx.PutTenantSettings(imprint.TenantSettings{Tenant: here, RegistrationCode: "c"})
			},
			func(tx imprint.Tx) error { return tx.PutCA(imprint.CACertificate{Tenant: here, ID: certID(1)}) }),
			func(tx imprint.ReadTx) string {
				s, err := tx.TenantSettings(here)
				_, caErr := tx.CA(here, certID(1))
				return fmt.Sprint(s.RegistrationCode, imprint.CodeOf(err), imprint.CodeOf(caErr))
			}, false},
		{"trimming attempts", steps(
			func(tx imprint.Tx) error { return tx.PutAttempt(imprint.Attempt{ID: "1", At: instant, Thing: "x"}) },
			func(tx imprint.Tx) error { return tx.PutAttempt(imprint.Attempt{ID: "2", At: instant, Thing: "x"}) }),
			func(tx imprint.Tx) error {
				_, err := tx.TrimAttempts(instant, 1, 10)
				return err
			}, func(tx imprint.ReadTx) string {
				all, _, err := tx.Attempts(imprint.AttemptFilter{}, imprint.Page{Limit: 10})
				matching, _, matchErr := tx.Attempts(imprint.AttemptFilter{Match: "x"}, imprint.Page{Limit: 10})
				return fmt.Sprint(len(all), len(matching), err, matchErr)
			}, true},
		{"an intent that is completed, with its certificate", func(tx imprint.Tx) error {
			_, err := tx.AddIssuance(imprint.Issuance{ID: "i", Tenant: here})
			return err
		},
			steps(func(tx imprint.Tx) error {
				_, err := tx.CompleteIssuance(imprint.Issuance{ID: "i", Tenant: here, CertificateID: certID(8)})
				return err
			}, func(tx imprint.Tx) error { return tx.PutCertificate(imprint.Certificate{Tenant: here, ID: certID(8)}) }),
			func(tx imprint.ReadTx) string {
				i, err := tx.Issuance("i")
				_, certErr := tx.Certificate(here, certID(8))
				return fmt.Sprint(i.CertificateID, imprint.CodeOf(err), imprint.CodeOf(certErr))
			}, false},
		{"an issuance and its certificate", func(tx imprint.Tx) error { return tx.PutIssuance(imprint.Issuance{ID: "i", Tenant: here}) },
			steps(func(tx imprint.Tx) error {
				return tx.PutIssuance(imprint.Issuance{ID: "i", Tenant: here, CertificateID: certID(8)})
			}, func(tx imprint.Tx) error { return tx.PutCertificate(imprint.Certificate{Tenant: here, ID: certID(8)}) }),
			func(tx imprint.ReadTx) string {
				i, err := tx.Issuance("i")
				_, certErr := tx.Certificate(here, certID(8))
				return fmt.Sprint(i.CertificateID, imprint.CodeOf(err), imprint.CodeOf(certErr))
			}, false},
	}...)
}

func deviceState(tx imprint.ReadTx) string {
	c, err := tx.Certificate(here, certID(7))
	_, thingErr := tx.Thing(here, "device")
	p := imprint.Page{Limit: 10}
	things, _, _ := tx.CertificateThings(here, certID(7), p)
	principals, _, _ := tx.ThingPrincipals(here, "device", p)
	policies, _, _ := tx.TargetPolicies(here, here.CertificateARN(certID(7)), p)
	bySerial, _ := tx.CertificatesBySerial(here, "7")
	byCA, _, _ := tx.Certificates(here, certID(1), p)
	events, _ := tx.Events(here, 10)
	return fmt.Sprint(c.Status, imprint.CodeOf(err), imprint.CodeOf(thingErr), len(things), len(principals), len(policies),
		len(bySerial), len(byCA), len(events))
}

func groupState(tx imprint.ReadTx) string {
	p := imprint.Page{Limit: 10, Ascending: true}
	h, err := tx.ThingGroup(here, "h")
	below, _, _ := tx.ThingGroups(here, imprint.ThingGroupFilter{Parent: "g"}, p)
	memberships, _, _ := tx.ThingMemberships(here, "device", p)
	members, _, _ := tx.ThingGroupMembers(here, "g", true, p)
	policies, _, _ := tx.TargetPolicies(here, here.ThingGroupARN("g"), p)
	return fmt.Sprint(h.Ancestors, imprint.CodeOf(err), len(below), len(memberships), len(members), len(policies))
}

func policyState(tx imprint.ReadTx) string {
	p, err := tx.Policy(here, "p")
	versions, versionsErr := tx.PolicyVersions(here, "p")
	return fmt.Sprint(p.DefaultVersion, imprint.CodeOf(err), len(versions), versionsErr)
}
