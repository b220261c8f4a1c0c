// Package storetest checks that an engine keeps the contract of
// imprint.Store. A test of the engine calls Run:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Harness {
//			path := filepath.Join(t.TempDir(), "registry.db")
//			return storetest.Harness{Open: func(f storetest.Fault) (imprint.Store, error) { ... }}
//		})
//	}
//
// and, when the engine's data outlive the process, Kill with KillChild.
//
// What it promises: every method of every interface is called; what is put is
// read back whole; lists are paged at every boundary in both directions; each
// row stands in two tenants under one name; commits that fail, before and after
// they are durable, leave whole states behind.
//
// What it does not do: measure. The engine has benchmarks for that.
package storetest

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/imprint-iot/imprint"
)

// Stage is where a commit can fail.
type Stage string

// The stages. A fault at BeforeCommit and at Commit leaves nothing behind; one
// at AfterCommit comes when the batch is durable.
const (
	BeforeCommit Stage = "fails before commit"
	Commit       Stage = "commit fails"
	AfterCommit  Stage = "fails but persisted"
)

// Fault is asked at each stage of each commit; an error makes the stage fail.
// It must be safe for calls from another goroutine.
type Fault func(Stage) error

// Harness is one registry under test, empty at first.
type Harness struct {
	// Open opens the registry. It is called again after Close, and must find
	// what was kept. The fault may be nil.
	Open func(Fault) (imprint.Store, error)
	// Check says whether the data are sound; nil when the engine has no check.
	Check func(imprint.Store) error
}

// Run checks the engine. Each part opens registries of its own.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	parts := []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"rows come back whole", testRows},
		{"lists are paged", testLists},
		{"look-ups find what they promise", testLookups},
		{"a principal is what its parts are", testPrincipals},
		{"things are found by type and attribute", testThingFilter},
		{"thing groups are found by place and name", testThingGroups},
		{"members are found below a group", testMembersBelow},
		{"things are found by billing group", testBillingGroups},
		{"attempts are found by what a person knows", testAttemptFilter},
		{"attempts are found by what leads to their certificate", testAttemptsByWhatIsKnown},
		{"a certificate leads to the attempts that made it", testAttemptsThatMade},
		{"a certificate leads to the attempt that registered it", testLinkedAttempts},
		{"attempts are trimmed", testTrim},
		{"attempts are found by when they changed", testAttemptsByChange},
		{"attempts that are counted with another are found", testAttemptAliases},
		{"events come oldest first", testEvents},
		{"deletes take what belongs along", testDeletes},
		{"sessions are listed with what is theirs", testSessions},
		{"a session takes what is its own along", testSessionDeletes},
		{"queues keep their order and bounds", testQueues},
		{"queues are emptied by batches", testQueueBatches},
		{"retained messages are listed without packets", testRetained},
		{"deliveries of rules are found when they are due", testRuleDeliveries},
		{"functions are listed with what is theirs", testFunctions},
		{"a function takes what is its own along", testFunctionDeletes},
		{"calls come when they are due", testQueuedCalls},
		{"users have policies and access keys", testUsers},
		{"authorities and what they issued are found", testAuthorities},
		{"what speaks against a certificate is found", testRevocations},
		{"revocation lists that are due are told", testRevocationLists},
		{"rollovers and what was seen meanwhile are found", testSightings},
		{"imported revocation lists are found", testForeignLists},
		{"the log of issuances is told what it lacks", testIssuanceLog},
		{"the rules of profiles are kept, the old ones too", testProfileRules},
		{"passwords end with their time and their label", testEnrolment},
		{"renewals are found from both ends, and what needs one", testRenewals},
		{"an issuance is added once and completed once", testIssuanceSteps},
		{"registration tasks and their reports are found", testTasks},
		{"audits and their findings are found", testAudits},
		{"mitigation tasks and what they did are found", testMitigations},
		{"a part of a change undoes itself", testTry},
		{"what has ended is listed", testDue},
		{"allow lists grow and shrink", testSerials},
		{"a change is whole or absent", testAtomicity},
		{"a failed change undoes itself alone", testNeighbours},
		{"a change that panics or leaves fails alone", testPanics},
		{"increments are never lost", testIncrements},
		{"a cancelled change is not made", testCancel},
		{"a view is a snapshot", testSnapshot},
		{"watchers hear of commits", testWatch},
		{"what is acknowledged survives", testReopen},
		{"a closed store refuses", testClosed},
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.run(t, open(t))
		})
	}
	t.Run("failures leave whole states", func(t *testing.T) {
		t.Parallel()
		testFailures(t, open)
	})
}

// The two tenants share an account, so that the region must tell them apart.
var (
	here  = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	there = imprint.Tenant{Account: "000000000000", Region: "eu-west-1"}
	other = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
)

var instant = time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

func mustOpen(t *testing.T, h Harness) imprint.Store {
	t.Helper()
	store, err := h.Open(nil)
	if err != nil {
		t.Fatalf("couldn't open the store: %v", err)
	}
	t.Cleanup(func() {
		err := store.Close()
		if err != nil {
			t.Errorf("couldn't close the store: %v", err)
		}
	})
	return store
}

func update(t *testing.T, store imprint.Store, fn func(imprint.Tx) error) {
	t.Helper()
	err := store.Update(context.Background(), fn)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
}

func view(t *testing.T, store imprint.Store, fn func(imprint.ReadTx) error) {
	t.Helper()
	err := store.View(context.Background(), fn)
	if err != nil {
		t.Fatalf("View: %v", err)
	}
}

func wantCode(t *testing.T, err error, want imprint.Code) {
	t.Helper()
	if got := imprint.CodeOf(err); got != want {
		t.Errorf("got code %q (%v), want %q", got, err, want)
	}
}

// equalBytes spares cmp a walk over each byte of large packets.
var equalBytes = cmp.FilterValues(
	func(a, b []byte) bool { return len(a) > 0 && bytes.Equal(a, b) },
	cmp.Comparer(func(_, _ []byte) bool { return true }))

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{}), equalBytes); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}

// certID makes a legal certificate id out of a number.
func certID(n int) imprint.CertificateID { return imprint.CertificateID(fmt.Sprintf("%064x", n)) }

func thing(tenant imprint.Tenant, name string) imprint.Thing {
	return imprint.Thing{Tenant: tenant, Name: imprint.ThingName(name), ID: "id of " + name, Version: 1,
		CreatedAt: instant, ModifiedAt: instant}
}
