package identity

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

const (
	shards = 64
	// idlePerShard bounds the identities kept in a shard without a holder.
	idlePerShard = 512
	// maxSets bounds the compiled policy sets that are found by their
	// documents; at the bound any one goes.
	maxSets = 2048
	// maxAttached bounds the things of a certificate that are looked at, and the
	// policies of it and of each group. Flows keep the latter far below.
	maxAttached = 250
)

type certKey struct {
	tenant imprint.Tenant
	id     imprint.CertificateID
}

type thingKey struct {
	tenant imprint.Tenant
	name   imprint.ThingName
}

// resource is a policy or a group.
type resource struct {
	tenant imprint.Tenant
	name   string
}

// shard holds a part of the certificates. Its lock guards the maps and the refs
// of the identities in them; it is held for map operations only.
type shard struct {
	mu    sync.Mutex
	certs map[certKey]*Identity
	idle  int
}

// Resolver gives identities. It is safe for use by many goroutines.
//
// How a change finds what it touches. An identity in a shard is also in the
// indexes by thing, policy and group; both happen in one step under mu (publish),
// and so does leaving them. A commit's notice is handled under mu, too
// (committed). A notice therefore comes either after publish, and finds the
// identity through the indexes, or before it; then publish finds the notice in
// the log of recent changes, whatever moment of the read it came in, and the
// identity is stale from its first moment. A notice that came before the read
// began is about a commit that the read sees.
type Resolver struct {
	store     imprint.Store
	shards    [shards]shard
	stopWatch func()
	changed   func(imprint.Tenant, imprint.CertificateID)

	// mu guards what follows. It may be held while a shard's lock is taken,
	// never the reverse. Things, policies and groups hold what identities in the
	// shards show, and nothing else, so that they are bounded as those are. Policies
	// and groups count their changes instead of knowing who shows them: a group may
	// have millions of things.
	mu       sync.Mutex
	things   map[thingKey][]*Identity
	policies map[resource]*watched
	groups   map[resource]*watched
	recent   recent
	// awaited are the changes that foreseen identities wait for.
	awaited map[imprint.Change]*awaited

	sets setCache
}

// watched counts the changes of a policy or a group.
type watched struct {
	changes atomic.Uint64
	refs    int // identities in the shards that show it
	// known is what was read when changes stood at knownAt; nil when nobody knows
	// it.
	known   *known
	knownAt uint64
}

// NewResolver makes a resolver over a store. Changed, which may be nil, is
// called for each certificate whose row or attachments a commit changed, after
// its identities became stale and before the change is acknowledged; it must
// not block. Close ends it.
func NewResolver(store imprint.Store, changed func(imprint.Tenant, imprint.CertificateID)) *Resolver {
	r := &Resolver{
		store: store, changed: changed,
		things:   map[thingKey][]*Identity{},
		policies: map[resource]*watched{},
		groups:   map[resource]*watched{},
		awaited:  map[imprint.Change]*awaited{},
		sets:     setCache{sets: map[setKey]*policy.Set{}},
	}
	for i := range r.shards {
		r.shards[i].certs = map[certKey]*Identity{}
	}
	r.stopWatch = store.Watch(r.committed)
	return r
}

// Close stops listening to the store.
func (r *Resolver) Close() { r.stopWatch() }

// shard picks by the first two hex digits of the id, which is a hash.
func (r *Resolver) shard(id imprint.CertificateID) *shard {
	n := 0
	for i := range min(2, len(id)) {
		n = n<<4 | int(id[i]&0xf+id[i]>>6*9)
	}
	return &r.shards[n%shards]
}

// Acquire gives the identity of a certificate in a tenant and holds it until
// Release. Errors: CodeNotFound when it isn't registered there.
//
// It shows every change that was acknowledged before the call. One that is
// committed during the call may be missing: then the identity is stale.
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
	r.mu.Lock()
	began := r.recent.now
	r.mu.Unlock()
	loaded, findings, err := r.load(ctx, key)
	if err != nil {
		return nil, err
	}
	return r.publish(key, loaded, findings, began), nil
}

// publish puts a freshly read identity into its shard and the indexes, held
// once, unless a concurrent read was quicker: then that one is held.
func (r *Resolver) publish(key certKey, loaded *Identity, findings []finding, began uint64) *Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.shard(key.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.certs[key]
	if before != nil && !before.Stale() {
		s.hold(before)
		return before
	}
	if before != nil {
		if before.refs == 0 {
			s.idle--
		}
		r.unlink(key, before)
	}
	if r.changedSince(key, loaded, began) {
		loaded.stale.Store(true)
	}
	loaded.refs = 1
	s.certs[key] = loaded
	r.link(key, loaded)
	if !loaded.stale.Load() {
		r.remember(key.tenant, findings)
	}
	return loaded
}

// watchedOf is the index of a kind of resource. The caller holds mu.
func (r *Resolver) watchedOf(kind imprint.ChangeKind) map[resource]*watched {
	if kind == imprint.ChangeThingGroup {
		return r.groups
	}
	return r.policies
}

// remember keeps what is known to be current, for the next certificate with the
// same policies and groups. The caller holds mu.
func (r *Resolver) remember(tenant imprint.Tenant, findings []finding) {
	for n := range findings {
		f := &findings[n]
		w := r.watchedOf(f.kind)[resource{tenant, f.name}]
		w.known, w.knownAt = &f.known, w.changes.Load()
	}
}

// known gives what was read of a policy or a group, nil unless that is unchanged.
// Like all that a load reads, it is checked again by publish.
func (r *Resolver) known(kind imprint.ChangeKind, tenant imprint.Tenant, name string) *known {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.watchedOf(kind)[resource{tenant, name}]
	if w == nil || w.knownAt != w.changes.Load() {
		return nil
	}
	return w.known
}

// changedSince tells whether something that the identity shows may have
// changed after the log of changes stood at began. The caller holds mu.
func (r *Resolver) changedSince(key certKey, i *Identity, began uint64) bool {
	if r.recent.since(imprint.Change{Kind: imprint.ChangeCertificate, Tenant: key.tenant, Key: string(key.id)}, began) {
		return true
	}
	for _, name := range i.names {
		if r.recent.since(imprint.Change{Kind: imprint.ChangeThing, Tenant: key.tenant, Key: string(name)}, began) {
			return true
		}
	}
	for n := range i.marks {
		if r.recent.since(imprint.Change{Kind: i.marks[n].kind, Tenant: key.tenant, Key: i.marks[n].name}, began) {
			return true
		}
	}
	return false
}

// link puts an identity into the indexes. The caller holds mu.
func (r *Resolver) link(key certKey, i *Identity) {
	for _, name := range i.names {
		tk := thingKey{key.tenant, name}
		r.things[tk] = append(r.things[tk], i)
	}
	for n := range i.marks {
		m := &i.marks[n]
		index, at := r.watchedOf(m.kind), resource{key.tenant, m.name}
		w := index[at]
		if w == nil {
			w = &watched{}
			index[at] = w
		}
		w.refs++
		m.watched, m.seen = w, w.changes.Load()
	}
}

// unlink takes an identity out of the indexes as it leaves its shard. It is
// made stale, as no change finds it any more. The caller holds mu.
func (r *Resolver) unlink(key certKey, i *Identity) {
	i.stale.Store(true)
	for _, name := range i.names {
		tk := thingKey{key.tenant, name}
		shown := slices.DeleteFunc(r.things[tk], func(other *Identity) bool { return other == i })
		if len(shown) == 0 {
			delete(r.things, tk)
			continue
		}
		r.things[tk] = shown
	}
	for n := range i.marks {
		m := &i.marks[n]
		m.watched.refs--
		if m.watched.refs == 0 {
			delete(r.watchedOf(m.kind), resource{key.tenant, m.name})
		}
	}
}

func (s *shard) hold(i *Identity) {
	if i.refs == 0 {
		s.idle--
	}
	i.refs++
}

// Release gives back what Acquire gave.
func (r *Resolver) Release(i *Identity) {
	if i.operator != nil {
		return
	}
	key := certKey{i.Certificate.Tenant, i.Certificate.ID}
	s := r.shard(key.id)
	s.mu.Lock()
	i.refs--
	if i.refs > 0 || s.certs[key] != i {
		s.mu.Unlock()
		return
	}
	s.idle++
	full := s.idle > idlePerShard
	s.mu.Unlock()
	if full {
		r.evict(s)
	}
}

// evict drops one identity without a holder. Map order picks it: random enough
// for a cache whose misses cost a few indexed reads.
func (r *Resolver) evict(s *shard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle <= idlePerShard {
		return
	}
	for key, i := range s.certs {
		if i.refs == 0 {
			delete(s.certs, key)
			s.idle--
			r.unlink(key, i)
			return
		}
	}
}

// Counters are what the resolver holds now.
type Counters struct {
	// Identities in the cache, those of them without a holder, and what they
	// show: things, policies, groups. Sets are the compiled policies that are kept.
	Identities, Idle, Things, Policies, Groups, Sets int
}

// Counters gives the present counts.
func (r *Resolver) Counters() Counters {
	r.mu.Lock()
	c := Counters{Things: len(r.things), Policies: len(r.policies), Groups: len(r.groups), Sets: r.sets.len()}
	r.mu.Unlock()
	for n := range r.shards {
		s := &r.shards[n]
		s.mu.Lock()
		c.Identities += len(s.certs)
		c.Idle += s.idle
		s.mu.Unlock()
	}
	return c
}

// committed marks what a commit touched. It runs on the committer's goroutine,
// before the change is acknowledged.
func (r *Resolver) committed(changes []imprint.Change) {
	r.mark(changes)
	if r.changed == nil {
		return
	}
	for _, c := range changes {
		if c.Kind == imprint.ChangeCertificate {
			r.changed(c.Tenant, imprint.CertificateID(c.Key))
		}
	}
}

func (r *Resolver) mark(changes []imprint.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		switch c.Kind {
		case imprint.ChangeCertificate:
			r.touch(certKey{c.Tenant, imprint.CertificateID(c.Key)})
		case imprint.ChangeThing:
			for _, i := range r.things[thingKey{c.Tenant, imprint.ThingName(c.Key)}] {
				i.stale.Store(true)
			}
		case imprint.ChangePolicy, imprint.ChangeThingGroup:
			if w := r.watchedOf(c.Kind)[resource{c.Tenant, c.Key}]; w != nil {
				w.changes.Add(1)
			}
		default:
			continue
		}
		r.recent.add(c)
		if a := r.awaited[c]; a != nil {
			a.heard++
		}
	}
}

func (r *Resolver) touch(key certKey) {
	s := r.shard(key.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.certs[key]; found != nil {
		found.stale.Store(true)
	}
}
