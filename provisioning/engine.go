// Package provisioning runs first connections: what happens when a device
// comes whose certificate isn't registered yet, or waits for activation.
//
// One Engine turns a template plan into stored resources; each flow is one
// file over it (jitp.go). All of a device's resources are written in one
// transaction: a template that fails half-way leaves nothing behind but the
// certificate, registered PENDING_ACTIVATION, as AWS IoT Core leaves it.
//
// Sources: AWS IoT Core developer guide, "Just-in-time provisioning",
// "Just-in-time registration" and "Provisioning templates". AWS provisions
// after it closed the connection; Imprint does so before, so that the first
// retry of the device succeeds.
//
// Two connections of one device at the same time provision it once. A change of
// a CA or a template that was acknowledged holds for every registration after
// it.
package provisioning

import (
	"context"
	"crypto/x509"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/pki"
)

// Options tune an Engine.
type Options struct {
	// Hold keeps the first connection of a device that could be provisioned
	// and lets it in, for every CA that doesn't say otherwise with its tag
	// imprint:first-connection. The default closes it, as AWS IoT Core does.
	Hold bool
	// Identities, when not nil, keep the identity of each device that was made for
	// the connection that it makes next.
	Identities Identities
	// Known are keys that no device may have, beside the built-in ones.
	Known  *pki.KnownKeys
	Logger *slog.Logger // [slog.Default]
}

// Identities is the part of the connection path's cache that flows use. Foresee is
// called as the last thing in a transaction, and what it returns once that has
// ended. Known is what is attached to the certificate then, where the flow wrote all
// of it; nil: it must be read.
type Identities interface {
	Foresee(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID, known *imprint.Principal) (settle func(committed bool))
}

// makeDevice is Update for a change that makes a device; made is what it wrote, nil
// when it made none.
func (e *Engine) makeDevice(ctx context.Context, change func(tx imprint.Tx) (made *application, err error)) error {
	settle := func(bool) {}
	err := e.store.Update(ctx, func(tx imprint.Tx) error {
		settle(false) // of a run before
		settle = func(bool) {}
		made, err := change(tx)
		if err == nil && e.opts.Identities != nil && made != nil && made.applied.cert.Status == imprint.CertificateActive {
			settle = e.opts.Identities.Foresee(tx, made.cert.Tenant, made.cert.ID, made.principal())
		}
		return err
	})
	settle(err == nil)
	return err
}

// Engine runs first connections against one store.
type Engine struct {
	store imprint.Store
	clock imprint.Clock
	opts  Options

	provisioned, pending, refused, unsure atomic.Uint64

	stopWatch func()
	mu        sync.RWMutex
	changed   map[imprint.AccountID]*changes // since the start
	cas       *fair.Memory[caKey, *issuers]  // registered CAs by tenant and subject
	documents documents
}

// NewEngine makes an engine. Close ends it.
func NewEngine(store imprint.Store, clock imprint.Clock, opts Options) *Engine {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	e := &Engine{
		store: store, clock: clock, opts: opts, changed: map[imprint.AccountID]*changes{},
		cas: fair.NewMemory[caKey, *issuers](maxCachedSubjects), documents: documents{known: fair.NewMemory[string, error](maxDocuments)},
	}
	e.stopWatch = store.Watch(e.committed)
	return e
}

// checkKey says why a certificate's key isn't a device's; nil when it may be.
func (e *Engine) checkKey(leaf *x509.Certificate) *imprint.Error {
	policy := pki.DevicePolicy()
	policy.Known = e.opts.Known
	return policy.CheckKey(leaf)
}

// Counters are what the engine has done since it was made.
type Counters struct {
	// Provisioned devices, certificates left PENDING_ACTIVATION, and newcomers
	// refused before anything was registered.
	Provisioned, Pending, Refused uint64
	// Unsure are those of them that were let in although a revocation list of their CA is past
	// its time.
	Unsure uint64
}

// Counters gives the present counts.
func (e *Engine) Counters() Counters {
	return Counters{Provisioned: e.provisioned.Load(), Pending: e.pending.Load(), Refused: e.refused.Load(), Unsure: e.unsure.Load()}
}

// Close stops listening to the store.
func (e *Engine) Close() { e.stopWatch() }
