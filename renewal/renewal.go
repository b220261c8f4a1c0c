package renewal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
)

// Options are what an Engine needs. Store and Clock must be set.
type Options struct {
	Store imprint.Store
	Clock imprint.Clock
	// InUse says whether a device is connected with a certificate now; nil: never.
	InUse func(imprint.Tenant, imprint.CertificateID) bool
	// Grace is how long an old certificate stays ACTIVE after the new one has connected
	// [24 h].
	Grace time.Duration
	// Window is when certificates may be renewed; the zero one is the last third of their
	// life.
	Window imprint.RenewalWindow
	// Warning is how long before its end a certificate counts as expiring [30 days].
	Warning time.Duration
	Logger  *slog.Logger // [slog.Default]
}

// Engine follows the renewals of all tenants. It is safe for concurrent use.
type Engine struct {
	opts      Options
	stopWatch func()
	cancel    context.CancelFunc
	done      chan struct{}

	settling sync.Mutex // is taken before mu

	mu sync.Mutex
	// families are the certificates of which a connection bears on an open renewal. One
	// too many costs a look, one too few would let an old certificate be retired that is
	// in use.
	families map[key]struct{}
	// seen are connections, and learn renewals, that the worker has yet to look at.
	seen  map[key]time.Time
	learn map[key]struct{}
	wake  chan struct{}

	counts   counters
	expiring atomic.Pointer[imprint.Expiring]
}

type key struct {
	tenant imprint.Tenant
	id     imprint.CertificateID
}

type counters struct{ proven, fellBack, retired, postponed, abandoned atomic.Uint64 }

// Counters are what happened since the Engine was made.
type Counters struct {
	// Renewals Proven by a connection; devices that FellBack to an older
	// certificate; old certificates Retired; retirements Postponed because the old one was
	// connected; renewals Abandoned.
	Proven, FellBack, Retired, Postponed, Abandoned uint64
}

// loadPage is how many open renewals are read at once.
const loadPage = 1000

// New makes an Engine, which knows all open renewals when it returns. Close ends it.
func New(ctx context.Context, opts Options) (*Engine, error) {
	if opts.Grace == 0 {
		opts.Grace = 24 * time.Hour
	}
	if opts.Warning == 0 {
		opts.Warning = 30 * 24 * time.Hour
	}
	if opts.InUse == nil {
		opts.InUse = func(imprint.Tenant, imprint.CertificateID) bool { return false }
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e := &Engine{
		opts: opts, cancel: cancel, done: make(chan struct{}), families: map[key]struct{}{}, seen: map[key]time.Time{}, learn: map[key]struct{}{}, wake: make(chan struct{}, 1),
	}
	e.stopWatch = opts.Store.Watch(e.changed)
	err := e.load(ctx)
	if err != nil {
		e.stopWatch()
		cancel()
		return nil, err
	}
	go e.work(own)
	return e, nil
}

// Close ends the Engine, after it has written what it knows.
func (e *Engine) Close() {
	e.stopWatch()
	e.cancel()
	<-e.done
}

// Counters gives the present counts.
func (e *Engine) Counters() Counters {
	c := &e.counts
	return Counters{c.proven.Load(), c.fellBack.Load(), c.retired.Load(), c.postponed.Load(), c.abandoned.Load()}
}

// load learns the families of all open renewals.
func (e *Engine) load(ctx context.Context) error {
	var last imprint.Renewal
	for {
		var page []imprint.Renewal
		err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
			var err error
			page, err = tx.OpenRenewals(last.Tenant, last.Certificate, loadPage)
			for _, r := range page {
				if err != nil {
					break
				}
				err = e.meet(tx, key{r.Tenant, r.Certificate})
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("couldn't read the renewals: %w", err)
		}
		if len(page) < loadPage {
			return nil
		}
		last = page[len(page)-1]
	}
}

// meet remembers a certificate's family, while it has an open renewal.
func (e *Engine) meet(tx imprint.ReadTx, of key) error {
	f, err := familyOf(tx, of)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range f.all() {
		if f.open() {
			e.families[key{of.tenant, id}] = struct{}{}
		} else {
			delete(e.families, key{of.tenant, id})
		}
	}
	return nil
}

// changed hears of renewals before their issuance is acknowledged: from then on
// connections with either certificate are noticed.
func (e *Engine) changed(changes []imprint.Change) {
	for _, c := range changes {
		if c.Kind != imprint.ChangeRenewal {
			continue
		}
		made, old, _ := strings.Cut(c.Key, "/")
		e.mu.Lock()
		for _, id := range []string{made, old} {
			e.families[key{c.Tenant, imprint.CertificateID(id)}] = struct{}{}
		}
		e.learn[key{c.Tenant, imprint.CertificateID(made)}] = struct{}{}
		e.mu.Unlock()
		e.rouse()
	}
}

func (e *Engine) rouse() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Saw is told of each connection that was let in. It never blocks, and costs a look into a
// map where nothing is renewed.
func (e *Engine) Saw(tenant imprint.Tenant, id imprint.CertificateID) {
	of := key{tenant, id}
	e.mu.Lock()
	_, known := e.families[of]
	if known {
		e.seen[of] = e.opts.Clock()
	}
	e.mu.Unlock()
	if known {
		e.rouse()
	}
}

// retryAfter is the pause after a commit that failed.
const retryAfter = 200 * time.Millisecond

// work looks at what was seen until the Engine is closed, and then once more.
func (e *Engine) work(ctx context.Context) {
	defer close(e.done)
	for {
		select {
		case <-e.wake:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			err := e.settle(last)
			if err != nil {
				e.opts.Logger.Error("couldn't write which renewed certificates have connected; their next connections tell again", "error", err)
			}
			return
		}
		err := e.settle(ctx)
		if err != nil && ctx.Err() == nil {
			e.opts.Logger.Error("couldn't write which renewed certificates have connected", "error", err)
			time.AfterFunc(retryAfter, e.rouse)
		}
	}
}

// settle looks at all that was seen until now, in its order.
func (e *Engine) settle(ctx context.Context) error {
	// Who is told that all is settled must not be told while another has some of it in hand.
	e.settling.Lock()
	defer e.settling.Unlock()
	e.mu.Lock()
	seen, learn := e.seen, e.learn
	e.seen, e.learn = map[key]time.Time{}, map[key]struct{}{}
	e.mu.Unlock()
	var failed error
	for of := range learn {
		err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error { return e.meet(tx, of) })
		if err != nil {
			e.again(of, time.Time{})
			failed = errors.Join(failed, err)
		}
	}
	order := slices.SortedFunc(maps.Keys(seen), func(a, b key) int { return seen[a].Compare(seen[b]) })
	for _, of := range order {
		err := e.prove(ctx, of, seen[of])
		if err != nil {
			e.again(of, seen[of])
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// again puts back what couldn't be done, unless something newer came.
func (e *Engine) again(of key, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case at.IsZero():
		e.learn[of] = struct{}{}
	case e.seen[of].Before(at):
		e.seen[of] = at
	}
}
