package identity_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/policy"
)

func attach(tx imprint.Tx, target string, names ...imprint.PolicyName) error {
	for _, name := range names {
		err := tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: name, Target: target})
		if err != nil {
			return err
		}
	}
	return nil
}

func acquire(t *testing.T, r *identity.Resolver, n int) *identity.Identity {
	t.Helper()
	who, err := r.Acquire(t.Context(), home, certID(n))
	if err != nil {
		t.Fatalf("Acquire: %v", err)
	}
	t.Cleanup(func() { r.Release(who) })
	return who
}

func TestGroupPoliciesHoldForConnectionsOfTheThingAlone(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	putOne(t, store)
	update(t, store, func(tx imprint.Tx) error {
		err := putDevice(tx, 1, "two", "p")
		if err != nil {
			return err
		}
		err = putDevice(tx, 2, "one", "p")
		if err != nil {
			return err
		}
		err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "one", Certificate: certID(2), Exclusive: true})
		if err != nil {
			return err
		}
		return attach(tx, home.ThingGroupARN("top"), "q")
	})
	r := identity.NewResolver(store, nil)
	t.Cleanup(r.Close)
	who, exclusive := acquire(t, r, 1), acquire(t, r, 2)
	for _, c := range []struct {
		name   string
		who    *identity.Identity
		client imprint.ClientID
		want   policy.Decision
	}{
		{"the thing of the client id's name", who, "one", policy.ExplicitDeny},
		{"a thing in no group", who, "two", policy.Allowed},
		{"no thing", who, "three", policy.Allowed},
		{"no client id", who, "", policy.Allowed},
		{"the exclusive thing whatever the client id", exclusive, "three", policy.ExplicitDeny},
	} {
		if got := decide(c.who, c.who.PoliciesFor(c.client), policy.Connect); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if who.PoliciesFor("two") != who.Policies || who.PoliciesFor("three") != who.Policies {
		t.Error("a connection without groups doesn't decide by the certificate's own set")
	}
}

// A fleet in one group has one set, and one that is in no group another.
func TestThingsOfOneGroupShareTheirPolicies(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	const devices = 50
	update(t, store, func(tx imprint.Tx) error {
		for name, document := range map[imprint.PolicyName]string{"p": allow, "q": allowPublish} {
			err := putPolicy(tx, name, 1, document)
			if err != nil {
				return err
			}
		}
		for n := range devices {
			name := imprint.ThingName(fmt.Sprintf("t%d", n))
			err := putDevice(tx, n, name, "p")
			if err != nil {
				return err
			}
			// Half of them have both policies by the group, half by the certificate.
			if n%2 == 0 {
				err = joinGroup(tx, name, "below", "top")
			} else {
				err = attach(tx, home.CertificateARN(certID(n)), "q")
			}
			if err != nil {
				return err
			}
		}
		err := putGroup(tx, "top")
		if err != nil {
			return err
		}
		return attach(tx, home.ThingGroupARN("top"), "q", "p")
	})
	r := identity.NewResolver(store, nil)
	t.Cleanup(r.Close)
	sets := map[*policy.Set]int{}
	for n := range devices {
		sets[acquire(t, r, n).PoliciesFor(imprint.ClientID(fmt.Sprintf("t%d", n)))]++
	}
	if len(sets) != 1 {
		t.Errorf("%d devices with the same documents have %d sets, want 1", devices, len(sets))
	}
	if c := r.Counters(); c.Sets != 2 || c.Groups != 2 || c.Policies != 2 {
		t.Errorf("got %+v, want 2 sets, groups and policies", c)
	}
}

func TestGroupsLeaveTheIndexesWithTheirIdentities(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	putOne(t, store)
	r := identity.NewResolver(store, nil)
	defer r.Close()
	who, err := r.Acquire(t.Context(), home, certID(1))
	if err != nil {
		t.Fatal(err)
	}
	r.Release(who)
	if c := r.Counters(); c.Groups != 5 || c.Policies != 3 {
		t.Errorf("got %+v, want 5 groups and 3 policies", c)
	}
	update(t, store, func(tx imprint.Tx) error {
		for _, group := range []imprint.ThingGroupName{"leaf", "mover", "lasting"} {
			err := tx.DeleteThingGroup(home, group)
			if err != nil {
				return err
			}
		}
		return nil
	})
	acquire(t, r, 1)
	if c := r.Counters(); c.Groups != 0 || c.Policies != 1 {
		t.Errorf("after the groups are gone got %+v, want no groups and 1 policy", c)
	}
}

func TestChangesOfOtherGroupsLeaveAnIdentityAlone(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	putOne(t, store)
	r := identity.NewResolver(store, nil)
	t.Cleanup(r.Close)
	who := acquire(t, r, 1)
	update(t, store, func(tx imprint.Tx) error {
		err := joinGroup(tx, "another", "leaf", "top", "middle")
		if err != nil {
			return err
		}
		return tx.DeleteThingGroup(home, "denied")
	})
	if !who.Stale() {
		t.Error("a group was written anew, and its member's identity isn't stale")
	}
	who = acquire(t, r, 1)
	update(t, store, func(tx imprint.Tx) error {
		// A member more in a group of its own, and a policy on a group that isn't.
		err := tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: home, Group: "leaf", Thing: "third"})
		if err != nil {
			return err
		}
		err = putGroup(tx, "elsewhere")
		if err != nil {
			return err
		}
		return attach(tx, home.ThingGroupARN("elsewhere"), "q")
	})
	if who.Stale() {
		t.Error("the identity is stale after changes of other groups")
	}
}

// model is the registry of the property test: what is attached to what, by name.
type model struct {
	parents  map[string]string // group to parent; empty for a root
	members  map[[2]string]bool
	attached map[[2]string]bool // target (certificate or group), policy
	versions map[string]int     // policy to its default version
	things   map[[2]string]bool // certificate, thing; exclusively or not
}

const (
	modelCertificates = 2
	modelThings       = 3
	modelPolicies     = 4
)

var modelGroups = []string{"g0", "g1", "g2", "g3", "g4", "g5"}

// effective is the naive recomputation: the policies of the certificate, and of
// every group from those of the connection's thing upwards.
func (m *model) effective(cert, client string) map[string]bool {
	targets := []string{cert}
	thing := ""
	for pair, exclusive := range m.things {
		if pair[0] == cert && (exclusive || pair[1] == client) {
			thing = pair[1]
		}
	}
	for pair := range m.members {
		if pair[1] != thing {
			continue
		}
		for group := pair[0]; group != ""; group = m.parents[group] {
			targets = append(targets, group)
		}
	}
	found := map[string]bool{}
	for pair := range m.attached {
		if slices.Contains(targets, pair[0]) {
			found[fmt.Sprintf("%s-%d", pair[1], m.versions[pair[1]])] = true
		}
	}
	return found
}

func (m *model) ancestors(group string) []imprint.ThingGroupName {
	var above []imprint.ThingGroupName
	for parent := m.parents[group]; parent != ""; parent = m.parents[parent] {
		above = append([]imprint.ThingGroupName{imprint.ThingGroupName(parent)}, above...)
	}
	return above
}

// step draws one change and makes it in the model; the change for the store is
// what it returns.
func (m *model) step(t *rapid.T) func(imprint.Tx) error {
	groups := slices.Sorted(maps.Keys(m.parents))
	group := rapid.SampledFrom(modelGroups).Draw(t, "group")
	cert := rapid.IntRange(0, modelCertificates-1).Draw(t, "certificate")
	certName := fmt.Sprintf("cert%d", cert)
	thing := fmt.Sprintf("t%d", rapid.IntRange(0, modelThings-1).Draw(t, "thing"))
	name := fmt.Sprintf("p%d", rapid.IntRange(0, modelPolicies-1).Draw(t, "policy"))
	_, exists := m.parents[group]
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0: // make a group, or put it elsewhere when nothing is below it
		parent := rapid.SampledFrom(append([]string{""}, groups...)).Draw(t, "parent")
		for _, above := range m.parents {
			if above == group {
				return nil
			}
		}
		if parent == group {
			return nil
		}
		m.parents[group] = parent
		return func(tx imprint.Tx) error { return putGroup(tx, imprint.ThingGroupName(group), m.ancestors(group)...) }
	case 1: // delete a group that has none below it
		for _, above := range m.parents {
			if above == group {
				return nil
			}
		}
		delete(m.parents, group)
		maps.DeleteFunc(m.members, func(pair [2]string, _ bool) bool { return pair[0] == group })
		return func(tx imprint.Tx) error { return tx.DeleteThingGroup(home, imprint.ThingGroupName(group)) }
	case 2:
		return m.stepMembership(group, thing, exists)
	case 3:
		target, key := home.CertificateARN(certID(cert)), [2]string{certName, name}
		if rapid.Bool().Draw(t, "to the group") {
			target, key = home.ThingGroupARN(imprint.ThingGroupName(group)), [2]string{group, name}
		}
		a := imprint.PolicyAttachment{Tenant: home, Policy: imprint.PolicyName(name), Target: target}
		if m.attached[key] {
			delete(m.attached, key)
			return func(tx imprint.Tx) error { return tx.DeletePolicyAttachment(a) }
		}
		m.attached[key] = true
		return func(tx imprint.Tx) error { return tx.PutPolicyAttachment(a) }
	case 4:
		m.versions[name]++
		return func(tx imprint.Tx) error {
			return putPolicy(tx, imprint.PolicyName(name), m.versions[name], modelDocument(name, m.versions[name]))
		}
	}
	return m.stepAttachment(t, cert, thing)
}

func (m *model) stepMembership(group, thing string, exists bool) func(imprint.Tx) error {
	membership := imprint.ThingGroupMembership{Tenant: home, Group: imprint.ThingGroupName(group), Thing: imprint.ThingName(thing)}
	key := [2]string{group, thing}
	if m.members[key] {
		delete(m.members, key)
		return func(tx imprint.Tx) error { return tx.DeleteThingGroupMembership(membership) }
	}
	if !exists {
		return nil
	}
	m.members[key] = true
	return func(tx imprint.Tx) error { return tx.PutThingGroupMembership(membership) }
}

// stepAttachment attaches a certificate to a thing, exclusively where it is its
// only one, or detaches it.
func (m *model) stepAttachment(t *rapid.T, cert int, thing string) func(imprint.Tx) error {
	certName := fmt.Sprintf("cert%d", cert)
	key := [2]string{certName, thing}
	if _, attached := m.things[key]; attached {
		delete(m.things, key)
		return func(tx imprint.Tx) error {
			return tx.DeleteThingAttachment(home, imprint.ThingName(thing), certID(cert))
		}
	}
	others, taken := 0, false
	for pair, exclusive := range m.things {
		if pair[0] == certName {
			others++
			taken = taken || exclusive
		}
	}
	if taken {
		return nil
	}
	exclusive := others == 0 && rapid.Bool().Draw(t, "exclusive")
	m.things[key] = exclusive
	return func(tx imprint.Tx) error {
		return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: imprint.ThingName(thing), Certificate: certID(cert), Exclusive: exclusive})
	}
}

// modelDocument allows what names the policy and its version, and nothing else.
func modelDocument(name string, version int) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/%s-%d"}]}`, name, version)
}

func allowedBy(policies *policy.Set, m *model) map[string]bool {
	found := map[string]bool{}
	for name, last := range m.versions {
		for version := 1; version <= last; version++ {
			topic := fmt.Sprintf("%s-%d", name, version)
			request := policy.Request{Action: policy.Publish, ResourcePrefix: home.ARN("topic/"), ResourceName: topic, Now: instant,
				Vars: policy.NewVariables(policy.Binding{})}
			if policies.Decide(&request) == policy.Allowed {
				found[topic] = true
			}
		}
	}
	return found
}

// Whatever happens to groups, memberships, attachments and policies: an identity
// that isn't stale, however long it is held, decides by exactly the policies that
// a naive walk over certificate, thing, groups and ancestors gives.
func TestEffectivePoliciesEqualANaiveRecomputation(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{parents: map[string]string{}, members: map[[2]string]bool{}, attached: map[[2]string]bool{}, versions: map[string]int{}, things: map[[2]string]bool{}}
		update(t, store, func(tx imprint.Tx) error { return m.begin(tx) })
		r := identity.NewResolver(store, nil)
		defer r.Close()
		held := make([]*identity.Identity, modelCertificates)
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			change := m.step(rt)
			if change != nil {
				update(t, store, change)
			}
			for cert := range held {
				if held[cert] != nil && held[cert].Stale() {
					r.Release(held[cert])
					held[cert] = nil
				}
				if held[cert] == nil {
					who, err := r.Acquire(t.Context(), home, certID(cert))
					if err != nil {
						rt.Fatalf("Acquire: %v", err)
					}
					held[cert] = who
				}
				m.compare(rt, cert, held[cert])
			}
		}
	})
}

// begin takes away what an earlier model left, and makes what every model has.
func (m *model) begin(tx imprint.Tx) error {
	targets := []string{}
	for n := range modelCertificates {
		targets = append(targets, home.CertificateARN(certID(n)))
		err := tx.PutCertificate(certificate(n, imprint.CertificateActive))
		for thing := 0; thing < modelThings && err == nil; thing++ {
			err = tx.DeleteThingAttachment(home, imprint.ThingName(fmt.Sprintf("t%d", thing)), certID(n))
		}
		if err != nil {
			return err
		}
	}
	for _, group := range modelGroups {
		targets = append(targets, home.ThingGroupARN(imprint.ThingGroupName(group)))
		err := tx.DeleteThingGroup(home, imprint.ThingGroupName(group))
		if err != nil {
			return err
		}
	}
	for n := range modelThings {
		err := tx.PutThing(imprint.Thing{Tenant: home, Name: imprint.ThingName(fmt.Sprintf("t%d", n)), Version: 1})
		if err != nil {
			return err
		}
	}
	for n := range modelPolicies {
		name := fmt.Sprintf("p%d", n)
		m.versions[name] = 1
		err := putPolicy(tx, imprint.PolicyName(name), 1, modelDocument(name, 1))
		for i := 0; i < len(targets) && err == nil; i++ {
			err = tx.DeletePolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: imprint.PolicyName(name), Target: targets[i]})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *model) compare(t *rapid.T, cert int, who *identity.Identity) {
	for _, client := range []string{"t0", "t1", "t2", "other"} {
		got := slices.Sorted(maps.Keys(allowedBy(who.PoliciesFor(imprint.ClientID(client)), m)))
		want := slices.Sorted(maps.Keys(m.effective(fmt.Sprintf("cert%d", cert), client)))
		if !slices.Equal(got, want) {
			t.Fatalf("certificate %d as %s: got %s, want %s", cert, client, strings.Join(got, " "), strings.Join(want, " "))
		}
	}
}
