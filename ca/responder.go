package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

const (
	// ocspRenew is how long before its end a responder's certificate is made anew.
	ocspRenew = 3 * 24 * time.Hour
	// ownSignatures is how many responses a second an authority's own key signs, when it
	// has no responder; twice as many at once.
	ownSignatures = 100
	// maxWaiting bounds the requests that wait for an authority's key.
	maxWaiting = 32
)

// responder is a certificate and key by which an authority's OCSP responses are signed,
// made when the first request comes and never stored: the authority's own key is used once
// in days, not for each request (RFC 6960 section 4.2.2.2). There is one for each authority
// that was asked, so that as many are in memory as operators made.
//
// An authority that makes no certificates (disabled, deleted, revoked, below a revoked
// one), or below which no responder can stand, signs responses itself.
type responder struct {
	issuer *x509.Certificate
	*pki.Responder
}

// lasts says whether a responder's certificate is still good for a while: or for as long
// as its issuer's, which is as long as one can be.
func (r *responder) lasts(now time.Time) bool {
	cert := r.Certificate()
	if !cert.NotAfter.Before(r.issuer.NotAfter) {
		return now.Before(cert.NotAfter)
	}
	return now.Before(cert.NotAfter.Add(-min(ocspRenew, cert.NotAfter.Sub(cert.NotBefore)/4)))
}

// gate is what strangers' requests may do to the key of one authority.
type gate struct {
	turn    chan struct{} // holds one while the key is used
	waiting chan struct{}
	own     *rate.Limiter

	mu     sync.Mutex
	failed error
	until  time.Time
}

// gate gives that of an authority.
func (r *responders) gate(at place) *gate {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.gates[at]
	if g == nil {
		g = &gate{turn: make(chan struct{}, 1), waiting: make(chan struct{}, maxWaiting), own: rate.NewLimiter(ownSignatures, 2*ownSignatures)}
		if r.gates == nil {
			r.gates = map[place]*gate{}
		}
		r.gates[at] = g
	}
	return g
}

// enter waits for its turn, with few others and not for long: a key that is slow must not
// hold the connections that others are served by.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	select {
	case g.waiting <- struct{}{}:
		defer func() { <-g.waiting }()
	default:
		return nil, errBusy()
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case g.turn <- struct{}{}:
		return func() { <-g.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-limit.C:
		return nil, errBusy()
	}
}

// failure gives what failed a moment ago.
func (g *gate) failure(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed == nil || !now.Before(g.until) {
		return nil
	}
	return g.failed
}

func (g *gate) fail(err error, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed, g.until = err, until
}

// respond signs an answer: by a responder, which is made when there is none, or by the
// authority's own key. What fails is tried again after ocspAgain, and logged once.
func (e *Engine) respond(ctx context.Context, row *imprint.CertificateAuthority, issuer *x509.Certificate, said pki.OCSPAnswer, seen uint64) (answer, error) {
	at := place{tenant: row.Tenant, id: row.ID}
	now := e.opts.Clock()
	said.ProducedAt, said.ThisUpdate, said.NextUpdate = now, now.Add(-ocspBackdate), now.Add(ocspValid)
	if said.ThisUpdate.Before(issuer.NotBefore) {
		said.ThisUpdate = issuer.NotBefore
	}
	by := e.responders.made(at, issuer, now)
	if by != nil {
		return by.sign(said)
	}
	g := e.responders.gate(at)
	err := g.failure(now)
	if err != nil {
		return answer{}, err
	}
	leave, err := g.enter(ctx)
	if err != nil {
		return answer{}, err
	}
	defer leave()
	err = g.failure(now)
	if err != nil {
		return answer{}, err
	}
	by = e.responders.made(at, issuer, now) // by whoever had the turn before
	if by != nil {
		return by.sign(said)
	}
	a, err := e.respondByKey(ctx, row, issuer, said, seen, g)
	if err != nil && imprint.CodeOf(err) != imprint.CodeThrottled {
		err = fmt.Errorf("couldn't sign an OCSP response: %w", err)
		g.fail(err, e.opts.Clock().Add(ocspAgain))
		e.opts.Logger.Error("couldn't sign an OCSP response; trying again in a while", "tenant", row.Tenant.String(), "authority", row.ID, "after", ocspAgain, "error", err)
	}
	return a, err
}

// respondByKey uses the authority's key, whose turn it is.
func (e *Engine) respondByKey(ctx context.Context, row *imprint.CertificateAuthority, issuer *x509.Certificate, said pki.OCSPAnswer, seen uint64, g *gate) (answer, error) {
	authority, err := e.telling(ctx, row, seen)
	if err != nil {
		return answer{}, err
	}
	by, err := e.makeResponder(ctx, row, issuer, authority)
	if err != nil {
		return answer{}, err
	}
	if by != nil {
		return e.responders.add(place{tenant: row.Tenant, id: row.ID}, by).sign(said)
	}
	if !g.own.AllowN(e.opts.Clock(), 1) {
		return answer{}, errBusy()
	}
	if said.NextUpdate.After(issuer.NotAfter) {
		said.NextUpdate = issuer.NotAfter
	}
	der, err := authority.SignOCSP(ctx, said)
	return answer{der, said.ProducedAt, said.NextUpdate}, err
}

// sign signs an answer, which counts no longer than the responder's certificate.
func (r *responder) sign(said pki.OCSPAnswer) (answer, error) {
	if end := r.Certificate().NotAfter; said.NextUpdate.After(end) {
		said.NextUpdate = end
	}
	der, err := r.SignOCSP(said)
	return answer{der, said.ProducedAt, said.NextUpdate}, err
}

// makeResponder makes the certificate of a responder; nil: the authority signs itself. The
// engine's own responder may be signed after SigningEnds: what was signed until then is to
// be told of for years.
func (e *Engine) makeResponder(ctx context.Context, row *imprint.CertificateAuthority, issuer *x509.Certificate, authority *pki.Authority) (*responder, error) {
	profile, err := e.opts.Profiles.Profile("ocsp")
	if err != nil {
		return nil, err
	}
	if profile.Kind() != pki.KindOCSP {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "profile %s is of the kind %s, not %s", profile.Name(), profile.Kind(), pki.KindOCSP)
	}
	makes := func(tx imprint.ReadTx) error {
		present, err := tx.Authority(row.Tenant, row.ID)
		if err != nil {
			return err
		}
		err = state(&present, e.opts.Clock())
		if err != nil {
			return err
		}
		return e.unbroken(tx, &present)
	}
	if !authority.Delegates(profile) {
		return nil, nil
	}
	err = e.opts.Store.View(ctx, makes)
	if imprint.CodeOf(err) == imprint.CodeAuthorityState {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	key, err := pki.NewResponderKey()
	if err != nil {
		return nil, err
	}
	token, err := authority.Prepare(ctx, row.Tenant, profile, pki.Request{PublicKey: key.Public(), By: "ocsp"})
	if err != nil {
		return nil, err
	}
	// A stranger's request is no way to have a certificate of an authority that makes
	// none since a moment ago, or that stands below a revoked one.
	issued, err := authority.SignInto(ctx, token, func(_ *pki.Issued, record func(imprint.Tx) error) error {
		return e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			err := makes(tx)
			if err != nil {
				return err
			}
			return record(tx)
		})
	})
	if imprint.CodeOf(err) == imprint.CodeAuthorityState {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &responder{issuer, pki.NewResponder(issued.Certificate, key)}, nil
}

// made gives an authority's responder, if there is one that lasts.
func (r *responders) made(at place, issuer *x509.Certificate, now time.Time) *responder {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := r.open[at]
	if found == nil || !found.issuer.Equal(issuer) || !found.lasts(now) {
		return nil
	}
	return found
}

func (r *responders) add(at place, made *responder) *responder {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = map[place]*responder{}
	}
	r.open[at] = made
	return made
}

// telling gives an authority that signs what tells of its revocations, whatever its state
// and also after its SigningEnds. Seen is the generation before the row was read.
func (e *Engine) telling(ctx context.Context, row *imprint.CertificateAuthority, seen uint64) (*pki.Authority, error) {
	at := place{tenant: row.Tenant, id: row.ID, telling: true}
	e.mu.Lock()
	found := e.open[at]
	e.mu.Unlock()
	if found != nil && found.row.CertificateID == row.CertificateID {
		return found.signing, nil
	}
	unbounded := *row
	unbounded.SigningEnds = time.Time{}
	made, err := e.openRow(ctx, &unbounded, 0)
	if err != nil {
		return nil, err
	}
	e.keepOpen(at, made, seen)
	return made.signing, nil
}
