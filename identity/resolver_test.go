package identity_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/policy"
)

// change is one thing that an operator does to device 1, and how an identity
// shows that it knows.
type change struct {
	name  string
	make  func(imprint.Tx, int) error
	shown func(*identity.Identity, int) bool
}

func decision(who *identity.Identity) policy.Decision {
	return decide(who, who.Policies, policy.Connect)
}

// groupDecision is that of a connection that belongs to thing one.
func groupDecision(who *identity.Identity) policy.Decision {
	return decide(who, who.PoliciesFor("one"), policy.Connect)
}

func decide(who *identity.Identity, policies *policy.Set, action policy.Action) policy.Decision {
	return policies.Decide(&policy.Request{
		Action: action, ResourcePrefix: home.ARN("client/"), ResourceName: "c", Now: instant,
		Vars: who.Variables(identity.Connection{ClientID: "c"}),
	})
}

// changes are made again and again, with the number of the round.
func changes() []change {
	toggled := func(round int, odd, even string) string {
		if round%2 == 1 {
			return odd
		}
		return even
	}
	return []change{
		{"status", func(tx imprint.Tx, round int) error {
			return tx.PutCertificate(certificate(1, imprint.CertificateStatus(toggled(round, "INACTIVE", "ACTIVE"))))
		}, func(who *identity.Identity, round int) bool {
			return string(who.Certificate.Status) == toggled(round, "INACTIVE", "ACTIVE")
		}},
		{"policy document", func(tx imprint.Tx, round int) error {
			return putPolicy(tx, "p", round+10, toggled(round, deny, allow))
		}, func(who *identity.Identity, round int) bool {
			return (decision(who) == policy.ExplicitDeny) == (round%2 == 1)
		}},
		{"policy attachment", func(tx imprint.Tx, round int) error {
			a := imprint.PolicyAttachment{Tenant: home, Policy: "q", Target: home.CertificateARN(certID(1))}
			if round%2 == 1 {
				return tx.PutPolicyAttachment(a)
			}
			return tx.DeletePolicyAttachment(a)
		}, func(who *identity.Identity, round int) bool {
			return (decision(who) == policy.ExplicitDeny) == (round%2 == 1)
		}},
		{"thing attribute", func(tx imprint.Tx, round int) error {
			return tx.PutThing(imprint.Thing{Tenant: home, Name: "one", Version: int64(round + 2)})
		}, func(who *identity.Identity, round int) bool {
			return len(who.Things) > 0 && who.Things[0].Thing.Version == int64(round+2)
		}},
		{"thing attachment", func(tx imprint.Tx, round int) error {
			return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "one", Certificate: certID(1), Exclusive: round%2 == 1})
		}, func(who *identity.Identity, round int) bool {
			return len(who.Things) > 0 && who.Things[0].Exclusive == (round%2 == 1)
		}},
	}
}

// groupChanges are those of the groups of device 1's thing, as putOne makes them.
// An odd round lets the groups deny.
func groupChanges() []change {
	shown := func(who *identity.Identity, round int) bool {
		return (groupDecision(who) == policy.ExplicitDeny) == (round%2 == 1) && (decision(who) != policy.ExplicitDeny)
	}
	attachment := func(group imprint.ThingGroupName) func(imprint.Tx, int) error {
		return func(tx imprint.Tx, round int) error {
			a := imprint.PolicyAttachment{Tenant: home, Policy: "q", Target: home.ThingGroupARN(group)}
			if round%2 == 1 {
				return tx.PutPolicyAttachment(a)
			}
			return tx.DeletePolicyAttachment(a)
		}
	}
	return []change{
		{"group membership", func(tx imprint.Tx, round int) error {
			m := imprint.ThingGroupMembership{Tenant: home, Group: "denied", Thing: "one"}
			if round%2 == 1 {
				return tx.PutThingGroupMembership(m)
			}
			return tx.DeleteThingGroupMembership(m)
		}, shown},
		{"policy attachment to a group", attachment("leaf"), shown},
		{"policy attachment to a group's ancestor", attachment("top"), shown},
		{"document of a group's policy", func(tx imprint.Tx, round int) error {
			document := allow
			if round%2 == 1 {
				document = deny
			}
			return putPolicy(tx, "g", round+10, document)
		}, shown},
		{"place of a group", func(tx imprint.Tx, round int) error {
			if round%2 == 1 {
				return putGroup(tx, "mover", "denied")
			}
			return putGroup(tx, "mover")
		}, shown},
		{"deletion and return of a group", func(tx imprint.Tx, round int) error {
			if round%2 == 1 {
				return tx.DeleteThingGroup(home, "lasting")
			}
			return joinGroup(tx, "one", "lasting")
		}, func(who *identity.Identity, round int) bool {
			got := decide(who, who.PoliciesFor("one"), policy.Publish)
			return (got == policy.ImplicitDeny) == (round%2 == 1) && decide(who, who.Policies, policy.Publish) == policy.ImplicitDeny
		}},
	}
}

// everyChange are the changes of everything that an identity shows.
func everyChange() []change { return append(changes(), groupChanges()...) }

// putOne makes device 1 with thing one, which is in groups leaf (below top and
// middle), mover and lasting.
func putOne(t *testing.T, store imprint.Store) {
	t.Helper()
	update(t, store, func(tx imprint.Tx) error {
		for name, document := range map[imprint.PolicyName]string{"p": allow, "q": deny, "g": allow, "r": allowPublish} {
			err := putPolicy(tx, name, 1, document)
			if err != nil {
				return err
			}
		}
		err := putDevice(tx, 1, "one", "p")
		if err != nil {
			return err
		}
		for _, group := range []struct {
			name      imprint.ThingGroupName
			ancestors []imprint.ThingGroupName
			policy    imprint.PolicyName
			joined    bool
		}{
			{"top", nil, "", false}, {"middle", []imprint.ThingGroupName{"top"}, "g", false}, {"leaf", []imprint.ThingGroupName{"top", "middle"}, "p", true},
			{"denied", nil, "q", false}, {"mover", nil, "", true}, {"lasting", nil, "r", true},
		} {
			err = putGroup(tx, group.name, group.ancestors...)
			if err != nil {
				return err
			}
			if group.joined {
				err = joinGroup(tx, "one", group.name, group.ancestors...)
			}
			if err != nil {
				return err
			}
			if group.policy != "" {
				err = tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: group.policy, Target: home.ThingGroupARN(group.name)})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func TestAnIdentityIsStaleOnceAChangeIsAcknowledged(t *testing.T) {
	t.Parallel()
	for _, c := range everyChange() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			store := registrytest.New(t)
			putOne(t, store)
			r := identity.NewResolver(store, nil)
			defer r.Close()
			for round := 1; round < 4; round++ {
				before, err := r.Acquire(t.Context(), home, certID(1))
				if err != nil {
					t.Fatal(err)
				}
				update(t, store, func(tx imprint.Tx) error { return c.make(tx, round) })
				if !before.Stale() {
					t.Errorf("round %d: the identity isn't stale", round)
				}
				after, err := r.Acquire(t.Context(), home, certID(1))
				if err != nil {
					t.Fatal(err)
				}
				if after.Stale() || !c.shown(after, round) {
					t.Errorf("round %d: the new identity is stale: %t, shows the change: %t", round, after.Stale(), c.shown(after, round))
				}
				r.Release(before)
				r.Release(after)
			}
		})
	}
}

func TestChangesElsewhereLeaveAnIdentityAlone(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	putOne(t, store)
	r := identity.NewResolver(store, nil)
	defer r.Close()
	who, err := r.Acquire(t.Context(), home, certID(1))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release(who)
	update(t, store, func(tx imprint.Tx) error {
		err := putPolicy(tx, "unrelated", 1, deny)
		if err != nil {
			return err
		}
		err = tx.PutThing(imprint.Thing{Tenant: imprint.Tenant{Account: "111111111111", Region: "us-east-1"}, Name: "one", Version: 1})
		if err != nil {
			return err
		}
		return putDevice(tx, 2, "two", "unrelated")
	})
	if who.Stale() {
		t.Error("the identity is stale after changes of other things")
	}
}

// Every certificate that a commit changed is told, also one that nobody has
// loaded: a device may be on with an identity that left the cache.
func TestChangedCertificatesAreToldWhenTheyAreStale(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	putOne(t, store)
	var r *identity.Resolver
	var mu sync.Mutex
	told := map[imprint.CertificateID]int{}
	var who *identity.Identity
	r = identity.NewResolver(store, func(tenant imprint.Tenant, id imprint.CertificateID) {
		mu.Lock()
		defer mu.Unlock()
		told[id]++
		if tenant != home || id == certID(1) && !who.Stale() {
			t.Errorf("told of %s/%s, stale: %t", tenant, id, who.Stale())
		}
	})
	defer r.Close()
	who, err := r.Acquire(t.Context(), home, certID(1))
	if err != nil {
		t.Fatal(err)
	}
	update(t, store, func(tx imprint.Tx) error {
		err := tx.PutCertificate(certificate(1, imprint.CertificateRevoked))
		if err != nil {
			return err
		}
		return tx.PutCertificate(certificate(77, imprint.CertificateActive))
	})
	r.Release(who)
	mu.Lock()
	defer mu.Unlock()
	if told[certID(1)] != 1 || told[certID(77)] != 1 {
		t.Errorf("told %v, want both certificates once", told)
	}
}

func TestDeletedAndUnknownCertificatesAreNotFound(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	putOne(t, store)
	r := identity.NewResolver(store, nil)
	defer r.Close()
	_, err := r.Acquire(t.Context(), home, certID(9))
	if got := imprint.CodeOf(err); got != imprint.CodeNotFound {
		t.Errorf("got %s (%v), want %s", got, err, imprint.CodeNotFound)
	}
	who, err := r.Acquire(t.Context(), home, certID(1))
	if err != nil {
		t.Fatal(err)
	}
	r.Release(who)
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteCertificate(home, certID(1)) })
	_, err = r.Acquire(t.Context(), home, certID(1))
	if got := imprint.CodeOf(err); got != imprint.CodeNotFound {
		t.Errorf("got %s (%v), want %s", got, err, imprint.CodeNotFound)
	}
	_, err = r.Acquire(t.Context(), imprint.Tenant{Account: "111111111111", Region: "us-east-1"}, certID(1))
	if got := imprint.CodeOf(err); got != imprint.CodeNotFound {
		t.Errorf("in another tenant got %s (%v), want %s", got, err, imprint.CodeNotFound)
	}
}

func TestCertificatesWithTheSameDocumentsShareTheirPolicies(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	putOne(t, store)
	update(t, store, func(tx imprint.Tx) error {
		err := putDevice(tx, 2, "two", "p")
		if err != nil {
			return err
		}
		return putDevice(tx, 3, "three", "q")
	})
	r := identity.NewResolver(store, nil)
	defer r.Close()
	var sets []*policy.Set
	for n := 1; n <= 3; n++ {
		who, err := r.Acquire(t.Context(), home, certID(n))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release(who)
		sets = append(sets, who.Policies)
	}
	if sets[0] != sets[1] || sets[0] == sets[2] {
		t.Errorf("sets are %p %p %p, want the first two the same and the third another", sets[0], sets[1], sets[2])
	}
}

func TestTheCacheIsBoundedAndIndexesShrinkWithIt(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	const devices = 700 // all in one shard, which keeps 512
	update(t, store, func(tx imprint.Tx) error {
		for n := range devices {
			name := fmt.Sprintf("p%d", n)
			err := putPolicy(tx, imprint.PolicyName(name), 1, allow)
			if err != nil {
				return err
			}
			err = putDevice(tx, n*256, imprint.ThingName(name), imprint.PolicyName(name))
			if err != nil {
				return err
			}
		}
		return nil
	})
	r := identity.NewResolver(store, nil)
	defer r.Close()
	held, err := r.Acquire(t.Context(), home, certID(0))
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < devices; n++ {
		who, err := r.Acquire(t.Context(), home, certID(n*256))
		if err != nil {
			t.Fatal(err)
		}
		r.Release(who)
	}
	c := r.Counters()
	if c.Identities != 513 || c.Idle != 512 || c.Things != 513 || c.Policies != 513 {
		t.Errorf("got %+v, want 513 identities, 512 of them idle, with as many things and policies", c)
	}
	again, err := r.Acquire(t.Context(), home, certID(0))
	if err != nil {
		t.Fatal(err)
	}
	if again != held {
		t.Error("a held identity left the cache")
	}
	r.Release(again)
	r.Release(held)
}

// Many goroutines acquire and release while everything changes; in the end each
// identity shows the last change, and nothing is held.
func TestAcquireAndReleaseWhileEverythingChanges(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	putOne(t, store)
	update(t, store, func(tx imprint.Tx) error { return putDevice(tx, 2, "one", "p") })
	r := identity.NewResolver(store, func(imprint.Tenant, imprint.CertificateID) {})
	defer r.Close()
	var readers, writers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				who, err := r.Acquire(t.Context(), home, certID(1+rand.IntN(2)))
				if err != nil {
					t.Errorf("Acquire: %v", err)
					return
				}
				_ = decision(who)
				r.Release(who)
			}
		})
	}
	all := everyChange()
	for _, c := range all {
		writers.Go(func() {
			for round := range 11 {
				update(t, store, func(tx imprint.Tx) error { return c.make(tx, round) })
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	who, err := r.Acquire(t.Context(), home, certID(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if !c.shown(who, 10) {
			t.Errorf("%s: the last change isn't shown", c.name)
		}
	}
	r.Release(who)
	if c := r.Counters(); c.Identities != c.Idle || c.Things != 1 {
		t.Errorf("got %+v, want all identities idle and one thing", c)
	}
}

func TestWhichThingAConnectionBelongsTo(t *testing.T) {
	t.Parallel()
	one := identity.Attachment{Thing: imprint.Thing{Name: "one"}}
	two := identity.Attachment{Thing: imprint.Thing{Name: "two"}}
	exclusive := identity.Attachment{Thing: imprint.Thing{Name: "own"}, Exclusive: true}
	for _, row := range []struct {
		name   string
		things []identity.Attachment
		client imprint.ClientID
		want   imprint.ThingName
	}{
		{"the attached one that is named like the client id", []identity.Attachment{one, two}, "two", "two"},
		{"none when the client id is another", []identity.Attachment{one, two}, "three", ""},
		{"the exclusive one whatever the client id", []identity.Attachment{exclusive}, "two", "own"},
		{"none without an attachment", nil, "one", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := imprint.ThingName("")
			if a := (&identity.Identity{Things: row.things}).ThingFor(row.client); a != nil {
				got = a.Thing.Name
			}
			if got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}
