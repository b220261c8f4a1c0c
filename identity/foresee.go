package identity

import "github.com/imprint-iot/imprint"

// awaited counts how often a change was told since somebody began to wait for it.
type awaited struct{ refs, heard int }

// foreseen is an identity that was read inside the transaction that makes it.
type foreseen struct {
	r     *Resolver
	l     *loading
	began uint64 // of the log of changes, before anything was read
	// awaits are the changes that the transaction itself makes of what the identity
	// shows, and how often each had been told before.
	awaits []imprint.Change
	before []int
}

// Foresee reads the identity of a device inside the transaction that makes it, as
// the last thing there, where all that it shows is in memory: the device's next
// connection then needs no look-up. The function that it returns must be called
// once, when the transaction has ended, and keeps the identity if that committed.
//
// The rule of [Resolver.Acquire] holds. A transaction tells each change of its own
// once; so an identity whose certificate or thing was told about more often, or one
// of whose policies or groups was told about at all, may show what is over, and is
// not kept. Neither is one that would need more than one look-up.
//
// Known is what tx.Principal would give, for who wrote all of it in this transaction;
// nil: it is read.
func (r *Resolver) Foresee(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID, known *imprint.Principal) (settle func(committed bool)) {
	r.mu.Lock()
	began := r.recent.now
	r.mu.Unlock()
	f := &foreseen{r: r, began: began, l: &loading{r: r, key: certKey{tenant, id}, who: &Identity{}}}
	var err error
	if known == nil {
		err = f.l.look(tx)
	} else {
		err = f.l.take(*known)
	}
	if err != nil {
		return func(bool) {} // the connection finds out by itself
	}
	f.await()
	return f.settle
}

func (f *foreseen) await() {
	key := f.l.key
	f.awaits = append(f.awaits, imprint.Change{Kind: imprint.ChangeCertificate, Tenant: key.tenant, Key: string(key.id)})
	for _, name := range f.l.who.names {
		f.awaits = append(f.awaits, imprint.Change{Kind: imprint.ChangeThing, Tenant: key.tenant, Key: string(name)})
	}
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	for _, c := range f.awaits {
		a := f.r.awaited[c]
		if a == nil {
			a = &awaited{}
			f.r.awaited[c] = a
		}
		a.refs++
		f.before = append(f.before, a.heard)
	}
}

func (f *foreseen) settle(committed bool) {
	now, current := f.heard()
	if !committed || !current {
		return
	}
	err := f.l.compile()
	if err != nil {
		return // the connection finds out by itself
	}
	f.r.Release(f.r.publish(f.l.key, f.l.who, nil, now))
}

// heard ends the waiting and says whether nobody but the transaction has changed
// what the identity shows, and until which moment of the log.
func (f *foreseen) heard() (now uint64, current bool) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	current = true
	for n, c := range f.awaits {
		a := f.r.awaited[c]
		current = current && a.heard == f.before[n]+1
		a.refs--
		if a.refs == 0 {
			delete(f.r.awaited, c)
		}
	}
	for n := range f.l.who.marks {
		m := &f.l.who.marks[n]
		current = current && !f.r.recent.since(imprint.Change{Kind: m.kind, Tenant: f.l.key.tenant, Key: m.name}, f.began)
	}
	return f.r.recent.now, current
}
