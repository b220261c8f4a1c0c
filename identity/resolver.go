package identity

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

const (
	shards = 64
	// idlePerShard bounds the identities kept in a shard without a holder.
	idlePerShard = 1024
	// maxSets bounds the compiled policy sets; at the bound the cache begins
	// anew.
	maxSets = 8192
	// maxThings bounds the things of one certificate that are looked at.
	maxThings = 250
)

type certKey struct {
	tenant imprint.Tenant
	id     imprint.CertificateID
}

type thingKey struct {
	tenant imprint.Tenant
	name   imprint.ThingName
}

type policyKey struct {
	tenant imprint.Tenant
	name   imprint.PolicyName
}

// shard holds a part of the certificates. Its lock guards the maps and the refs
// of the identities in them; it is held for map operations only.
type shard struct {
	mu    sync.Mutex
	certs map[certKey]*Identity
	idle  int
}

// Resolver gives identities. It is safe for use by many goroutines.
type Resolver struct {
	store     imprint.Store
	shards    [shards]shard
	stopWatch func()
	changed   func(imprint.Tenant, imprint.CertificateID)

	// mu guards what follows. things finds the certificates of a thing; policies
	// counts the changes of each policy that was ever looked at; sets caches
	// compiled policies; loads are the reads under way, which hear of every
	// commit. mu may be held while a shard's lock is taken, never the reverse.
	mu       sync.Mutex
	things   map[thingKey]map[certKey]struct{}
	policies map[policyKey]*atomic.Uint64
	sets     map[string]*policy.Set
	loads    map[*load]struct{}
}

// load is one read under way. What is committed while it reads may be newer
// than what it read.
type load struct {
	key     certKey
	changes []imprint.Change
}

// NewResolver makes a resolver over a store. Changed, which may be nil, is
// called with each certificate that a commit touched; it must not block. Close
// ends it.
func NewResolver(store imprint.Store, changed func(imprint.Tenant, imprint.CertificateID)) *Resolver {
	r := &Resolver{
		store: store, changed: changed,
		things:   map[thingKey]map[certKey]struct{}{},
		policies: map[policyKey]*atomic.Uint64{},
		sets:     map[string]*policy.Set{},
		loads:    map[*load]struct{}{},
	}
	for i := range r.shards {
		r.shards[i].certs = map[certKey]*Identity{}
	}
	r.stopWatch = store.Watch(r.committed)
	return r
}

// Close stops listening to the store.
func (r *Resolver) Close() { r.stopWatch() }

func (r *Resolver) shard(id imprint.CertificateID) *shard {
	n := 0
	if len(id) >= 2 {
		v, err := strconv.ParseUint(string(id[:2]), 16, 8)
		if err == nil {
			n = int(v) % shards
		}
	}
	return &r.shards[n]
}

// Acquire gives the identity of a certificate in a tenant and holds it until
// Release. Errors: CodeNotFound when it isn't registered there.
func (r *Resolver) Acquire(ctx context.Context, tenant imprint.Tenant, id imprint.CertificateID) (*Identity, error) {
	key := certKey{tenant, id}
	s := r.shard(id)
	s.mu.Lock()
	if found := s.certs[key]; found != nil && !found.Stale() {
		s.hold(found)
		s.mu.Unlock()
		return found, nil
	}
	s.mu.Unlock()

	under := &load{key: key}
	r.mu.Lock()
	r.loads[under] = struct{}{}
	r.mu.Unlock()
	loaded, err := r.load(ctx, key)
	if err != nil {
		r.mu.Lock()
		delete(r.loads, under)
		r.mu.Unlock()
		return nil, err
	}
	r.bind(loaded)
	kept := s.insert(key, loaded)
	r.settle(under, loaded)
	return kept, nil
}

// insert puts a freshly read identity into the shard, held once, unless a
// concurrent read was quicker.
func (s *shard) insert(key certKey, loaded *Identity) *Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.certs[key]
	if before != nil && !before.Stale() {
		s.hold(before)
		return before
	}
	if before != nil && before.refs == 0 {
		s.idle--
	}
	loaded.refs = 1
	s.certs[key] = loaded
	return loaded
}

// bind sets the change counters of the identity's policies. Changes before it
// are in the read's log, changes after it are counted.
func (r *Resolver) bind(loaded *Identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := range loaded.marks {
		m := &loaded.marks[n]
		m.current = r.policies[m.key]
		if m.current == nil {
			m.current = new(atomic.Uint64)
			r.policies[m.key] = m.current
		}
		m.seen = m.current.Load()
	}
}

// settle ends a read: from here on changes find the identity through the
// indexes, and those that came while it was read make it stale at once. A stale
// identity serves its one caller, who asks again at the next packet.
func (r *Resolver) settle(under *load, loaded *Identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.loads, under)
	key := under.key
	for _, a := range loaded.Things {
		tk := thingKey{key.tenant, a.Thing.Name}
		if r.things[tk] == nil {
			r.things[tk] = make(map[certKey]struct{}, 1)
		}
		r.things[tk][key] = struct{}{}
	}
	if slices.ContainsFunc(under.changes, loaded.touchedBy) {
		loaded.stale.Store(true)
	}
}

// touchedBy tells whether a change is about something that the identity shows.
func (i *Identity) touchedBy(c imprint.Change) bool {
	if c.Tenant != i.Certificate.Tenant {
		return false
	}
	switch c.Kind {
	case imprint.ChangeCertificate:
		return c.Key == string(i.Certificate.ID)
	case imprint.ChangeThing:
		return slices.ContainsFunc(i.Things, func(a Attachment) bool { return string(a.Thing.Name) == c.Key })
	case imprint.ChangePolicy:
		return slices.ContainsFunc(i.marks, func(m mark) bool { return string(m.key.name) == c.Key })
	}
	return false
}

func (s *shard) hold(i *Identity) {
	if i.refs == 0 {
		s.idle--
	}
	i.refs++
}

// Release gives back what Acquire gave.
func (r *Resolver) Release(i *Identity) {
	key := certKey{i.Certificate.Tenant, i.Certificate.ID}
	s := r.shard(key.id)
	s.mu.Lock()
	i.refs--
	if i.refs > 0 || s.certs[key] != i {
		s.mu.Unlock()
		return
	}
	s.idle++
	var evicted *Identity
	if s.idle > idlePerShard {
		evicted = s.evict()
	}
	s.mu.Unlock()
	if evicted != nil {
		r.forget(evicted)
	}
}

// evict drops one identity without a holder. Map order picks it: random enough
// for a cache whose misses cost one indexed read.
func (s *shard) evict() *Identity {
	for key, i := range s.certs {
		if i.refs == 0 {
			delete(s.certs, key)
			s.idle--
			return i
		}
	}
	return nil
}

// forget takes an evicted identity out of the indexes, unless its certificate
// was read again meanwhile.
func (r *Resolver) forget(i *Identity) {
	key := certKey{i.Certificate.Tenant, i.Certificate.ID}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.shard(key.id)
	s.mu.Lock()
	again := s.certs[key] != nil
	s.mu.Unlock()
	if again {
		return
	}
	for _, a := range i.Things {
		tk := thingKey{key.tenant, a.Thing.Name}
		delete(r.things[tk], key)
		if len(r.things[tk]) == 0 {
			delete(r.things, tk)
		}
	}
}

// load reads an identity from the store.
func (r *Resolver) load(ctx context.Context, key certKey) (*Identity, error) {
	i := &Identity{}
	err := r.store.View(ctx, func(tx imprint.ReadTx) error {
		cert, err := tx.Certificate(key.tenant, key.id)
		if err != nil {
			return err
		}
		i.Certificate = cert
		i.Certificate.PEM = ""
		err = loadThings(tx, key, i)
		if err != nil {
			return err
		}
		return r.loadPolicies(tx, i)
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't look up certificate %s: %w", key.id, err)
	}
	return i, nil
}

func loadThings(tx imprint.ReadTx, key certKey, i *Identity) error {
	attached, _, err := tx.CertificateThings(key.tenant, key.id, imprint.Page{Limit: maxThings, Ascending: true})
	if err != nil {
		return err
	}
	i.Things = make([]Attachment, 0, len(attached))
	for _, a := range attached {
		thing, err := tx.Thing(key.tenant, a.Thing)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		i.Things = append(i.Things, Attachment{Thing: thing, Exclusive: a.Exclusive})
	}
	return nil
}

func (r *Resolver) loadPolicies(tx imprint.ReadTx, i *Identity) error {
	tenant := i.Certificate.Tenant
	attached, _, err := tx.TargetPolicies(tenant, i.Certificate.ARN(), imprint.Page{Limit: 250, Ascending: true})
	if err != nil {
		return err
	}
	type source struct {
		name     imprint.PolicyName
		document string
	}
	sources := make([]source, 0, len(attached))
	for _, a := range attached {
		i.marks = append(i.marks, mark{key: policyKey{tenant, a.Policy}})
		p, err := tx.Policy(tenant, a.Policy)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		version, err := tx.PolicyVersion(tenant, a.Policy, p.DefaultVersion)
		if err != nil {
			return err
		}
		sources = append(sources, source{a.Policy, version.Document})
	}
	sort.Slice(sources, func(a, b int) bool { return sources[a].name < sources[b].name })
	var key strings.Builder
	for _, s := range sources {
		key.WriteString(string(s.name))
		key.WriteByte(0)
		key.WriteString(s.document)
		key.WriteByte(0)
	}
	r.mu.Lock()
	set := r.sets[key.String()]
	r.mu.Unlock()
	if set != nil {
		i.Policies = set
		return nil
	}
	named := make([]policy.Named, 0, len(sources))
	for _, s := range sources {
		doc, err := policy.Parse([]byte(s.document))
		if err != nil {
			return imprint.Errorf(imprint.CodeInternal, "stored policy %s isn't valid: %w", s.name, err)
		}
		named = append(named, policy.Named{Name: string(s.name), Doc: doc})
	}
	i.Policies = policy.Compile(named...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sets) >= maxSets {
		clear(r.sets)
	}
	r.sets[key.String()] = i.Policies
	return nil
}

// committed marks what a commit touched. It runs on the committer's goroutine,
// before the change is acknowledged.
func (r *Resolver) committed(changes []imprint.Change) {
	touched := make([]certKey, 0, len(changes))
	r.mu.Lock()
	for under := range r.loads {
		under.changes = append(under.changes, changes...)
	}
	for _, c := range changes {
		switch c.Kind {
		case imprint.ChangeCertificate:
			touched = append(touched, certKey{c.Tenant, imprint.CertificateID(c.Key)})
		case imprint.ChangeThing:
			for key := range r.things[thingKey{c.Tenant, imprint.ThingName(c.Key)}] {
				touched = append(touched, key)
			}
		case imprint.ChangePolicy:
			if counter := r.policies[policyKey{c.Tenant, imprint.PolicyName(c.Key)}]; counter != nil {
				counter.Add(1)
			}
		}
	}
	r.mu.Unlock()
	for _, key := range touched {
		r.touch(key)
	}
}

func (r *Resolver) touch(key certKey) {
	s := r.shard(key.id)
	s.mu.Lock()
	found := s.certs[key]
	if found != nil {
		found.stale.Store(true)
	}
	s.mu.Unlock()
	if found != nil && r.changed != nil {
		r.changed(key.tenant, key.id)
	}
}
