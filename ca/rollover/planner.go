package rollover

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
)

// BuiltInName names the CA of the server that signs what AWS IoT Core's own CA would.
const BuiltInName = "device-ca"

// Options are what a Planner needs. Store and Clock must be set.
type Options struct {
	Store imprint.Store
	Clock imprint.Clock
	// Connected says whether a certificate is in use now; nil: nobody knows.
	Connected func(imprint.Tenant, imprint.CertificateID) bool
	// Flush writes the attempts that wait for the trace; nil: none wait.
	Flush func(context.Context) error
	// BuiltIn is the certificate of the server's own device CA; nil: there is none.
	BuiltIn *x509.Certificate
	// ServerChains are the chains that the server shows, each with its leaf first; nil: they
	// aren't known.
	ServerChains func() [][]*x509.Certificate
	Logger       *slog.Logger // [slog.Default]
}

// Planner answers for all tenants. It is safe for concurrent use. Close ends it.
type Planner struct {
	opts      Options
	stopWatch func()
	cancel    context.CancelFunc
	done      chan struct{}
	dropped   atomic.Uint64
	// planned are the tenants with a plan: whose sightings are kept.
	planned atomic.Pointer[map[imprint.Tenant]bool]

	// flushing is held while sightings are written: who is told that all are must not be
	// told while another has some of them in hand.
	flushing sync.Mutex

	mu      sync.Mutex
	pending map[seenKey]time.Time
	graphs  map[imprint.Tenant]*graph
	// changes counts commits that changed CAs: a graph that was read before one isn't kept.
	changes uint64
}

// maxGraphs bounds the tenants whose CAs are in memory; beyond it any one is read again.
const maxGraphs = 64

// New makes a Planner.
func New(ctx context.Context, opts Options) (*Planner, error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	p := &Planner{opts: opts, done: make(chan struct{}), pending: map[seenKey]time.Time{}, graphs: map[imprint.Tenant]*graph{}}
	err := p.readPlanned(ctx)
	if err != nil {
		return nil, err
	}
	p.stopWatch = opts.Store.Watch(p.changed)
	background, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go p.run(background)
	return p, nil
}

// Close ends it, and writes what was seen.
func (p *Planner) Close() {
	p.stopWatch()
	p.cancel()
	<-p.done
	err := p.flush(context.Background())
	if err != nil {
		p.opts.Logger.Error("couldn't write which certificates were seen", "error", err)
	}
}

func (p *Planner) changed(changes []imprint.Change) {
	for _, c := range changes {
		if c.Kind != imprint.ChangeAuthority && c.Kind != imprint.ChangeCA {
			continue
		}
		p.mu.Lock()
		p.changes++
		delete(p.graphs, c.Tenant)
		p.mu.Unlock()
	}
}

// readPlanned reads which tenants have plans.
func (p *Planner) readPlanned(ctx context.Context) error {
	planned := map[imprint.Tenant]bool{}
	err := p.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		tenants, err := tx.RolloverTenants()
		for _, t := range tenants {
			planned[t] = true
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("couldn't read which accounts roll a CA over: %w", err)
	}
	p.planned.Store(&planned)
	return nil
}

// view reads the registry together with the tenant's CAs.
func (p *Planner) view(ctx context.Context, tenant imprint.Tenant, fn func(tx imprint.ReadTx, g *graph) error) error {
	// Before the state is read: what changes after that is no part of it.
	p.mu.Lock()
	kept, seen := p.graphs[tenant], p.changes
	p.mu.Unlock()
	return p.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		if kept != nil {
			return fn(tx, kept)
		}
		g, err := load(tx, tenant, p.opts.BuiltIn)
		if err != nil {
			return fmt.Errorf("couldn't read the CAs: %w", err)
		}
		p.mu.Lock()
		if p.changes == seen {
			if len(p.graphs) >= maxGraphs {
				for old := range p.graphs {
					delete(p.graphs, old)
					break
				}
			}
			p.graphs[tenant] = g
		}
		p.mu.Unlock()
		return fn(tx, g)
	})
}

// Resources are the ARNs of what a CA is here, for decisions about who may ask; "*" for
// the built-in one, and for one that doesn't exist.
func (p *Planner) Resources(ctx context.Context, tenant imprint.Tenant, text string) []string {
	var arns []string
	err := p.view(ctx, tenant, func(_ imprint.ReadTx, g *graph) error {
		m, err := g.find(text)
		if err != nil {
			return err
		}
		arns = nil
		if m.authority != nil {
			arns = append(arns, m.authority.ARN())
		}
		if m.registered != nil {
			arns = append(arns, m.registered.ARN())
		}
		return nil
	})
	if err != nil || len(arns) == 0 {
		return []string{"*"}
	}
	return arns
}

// Certificate gives that of a CA, by what a person calls it. Errors: CodeNotFound,
// CodeInvalidRequest.
func (p *Planner) Certificate(ctx context.Context, tenant imprint.Tenant, text string) (*x509.Certificate, error) {
	var cert *x509.Certificate
	err := p.view(ctx, tenant, func(_ imprint.ReadTx, g *graph) error {
		m, err := g.find(text)
		if err == nil {
			cert = m.cert
		}
		return err
	})
	return cert, err
}
