package renewal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

const (
	// duePage is how many renewals are looked at, and each of them changed, before others
	// have a turn.
	duePage = 100
	// keepEnded is how long a renewal is kept that has ended.
	keepEnded = 90 * 24 * time.Hour
	// lookAgain is how long a retirement is put off while the old certificate is connected,
	// unless the grace is shorter.
	lookAgain = time.Hour
	// countEvery is how often expiring certificates are counted.
	countEvery = time.Hour
)

// Run retires what is due, and counts what expires, until the context ends.
func (e *Engine) Run(ctx context.Context) {
	every := min(max(e.opts.Grace/10, time.Second), time.Minute)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var counted time.Time
	for {
		err := e.Retire(ctx)
		if err != nil && ctx.Err() == nil {
			e.opts.Logger.Error("couldn't retire renewed certificates", "error", err)
		}
		if now := time.Now(); now.Sub(counted) >= countEvery {
			counted = now
			err = errors.Join(e.count(ctx), e.trim(ctx))
			if err != nil && ctx.Err() == nil {
				e.opts.Logger.Error("couldn't look after certificates that expire", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Retire makes the old certificates INACTIVE whose grace is over.
func (e *Engine) Retire(ctx context.Context) error {
	for {
		now := e.opts.Clock()
		var due []imprint.Renewal
		err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
			var err error
			due, err = tx.DueRenewals(now, duePage)
			return err
		})
		if err != nil {
			return fmt.Errorf("couldn't look for renewals that are due: %w", err)
		}
		// One that fails keeps nobody else's waiting.
		for _, r := range due {
			err = errors.Join(err, e.retire(ctx, r, now))
		}
		if err != nil || len(due) < duePage {
			return err
		}
	}
}

// trim takes renewals away that ended long ago.
func (e *Engine) trim(ctx context.Context) error {
	for gone := duePage; gone == duePage; {
		err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			var err error
			gone, err = tx.TrimRenewals(e.opts.Clock().Add(-keepEnded), duePage)
			return err
		})
		if err != nil {
			return fmt.Errorf("couldn't take renewals away that have ended: %w", err)
		}
	}
	return nil
}

// outcome is what became of a renewal that was due.
type outcome struct{ retired, postponed, abandoned uint64 }

func (e *Engine) retire(ctx context.Context, due imprint.Renewal, now time.Time) error {
	// What was seen before is written first: a device that went back keeps its old
	// certificate.
	err := e.settle(ctx)
	if err != nil {
		return err
	}
	// The broker isn't asked within the transaction, which must not wait for its locks.
	used, err := e.used(ctx, due)
	if err != nil {
		return err
	}
	var result outcome
	err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		result = outcome{}
		f, err := familyOf(tx, key{due.Tenant, due.Certificate})
		if err != nil {
			return err
		}
		r := f.byMade[due.Certificate]
		if r == nil || r.State != imprint.RenewalProven || r.DueAt.After(now) {
			return nil // it changed meanwhile
		}
		var after imprint.Renewal
		after, result, err = e.conclude(tx, f, *r, used, now)
		if err != nil {
			return err
		}
		return tx.PutRenewal(after)
	})
	if err != nil {
		return fmt.Errorf("couldn't retire certificate %s: %w", due.Renews, err)
	}
	e.counts.retired.Add(result.retired)
	e.counts.postponed.Add(result.postponed)
	e.counts.abandoned.Add(result.abandoned)
	return nil
}

// used says of each certificate whose place a renewal took whether a device is connected
// with it.
func (e *Engine) used(ctx context.Context, due imprint.Renewal) (map[imprint.CertificateID]bool, error) {
	used := map[imprint.CertificateID]bool{}
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		f, err := familyOf(tx, key{due.Tenant, due.Certificate})
		if err != nil {
			return err
		}
		for _, id := range f.all() {
			used[id] = false
		}
		return nil
	})
	for id := range used {
		used[id] = e.opts.InUse(due.Tenant, id)
	}
	return used, err
}

// conclude decides on a renewal that is due.
func (e *Engine) conclude(tx imprint.Tx, f *family, r imprint.Renewal, used map[imprint.CertificateID]bool, now time.Time) (imprint.Renewal, outcome, error) {
	cert, err := tx.Certificate(r.Tenant, r.Certificate)
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return r, outcome{}, err
	}
	newer := f.replaced(r.Certificate)
	switch {
	case newer:
		// It was renewed itself, and its successor is proven: it may be INACTIVE already.
	case err != nil || cert.Status == imprint.CertificateRevoked || now.After(cert.NotAfter):
		r.State, r.EndedAt, r.DueAt = imprint.RenewalAbandoned, now, time.Time{}
		r.Reason = "the new certificate is deleted, revoked or has ended"
		retired, err := e.retireLost(tx, f, r)
		if retired > 0 {
			r.Reason = "the new certificate was revoked because others have its key, which the old one has, too"
		}
		return r, outcome{abandoned: 1, retired: retired}, err
	case cert.Status != imprint.CertificateActive:
		r.State, r.ProvenAt, r.DueAt = imprint.RenewalPending, time.Time{}, time.Time{}
		r.Reason = fmt.Sprintf("the new certificate is %s", cert.Status)
		return r, outcome{postponed: 1}, nil
	}
	ends := f.endedBy(r)
	for _, id := range ends {
		connected, asked := used[id]
		if connected || !asked {
			r.DueAt = now.Add(min(lookAgain, e.opts.Grace))
			r.Reason = "a device is connected with certificate " + string(id)
			return r, outcome{postponed: 1}, nil
		}
	}
	var result outcome
	for _, id := range ends {
		was, err := e.deactivate(tx, r.Tenant, id)
		if err != nil {
			return r, result, err
		}
		if was {
			result.retired++
		}
		other := f.byMade[id]
		if other == nil || !other.Open() {
			continue
		}
		other.State, other.EndedAt, other.DueAt, other.Reason = imprint.RenewalAbandoned, now, time.Time{}, "certificate "+string(r.Certificate)+" took its place"
		result.abandoned++
		err = tx.PutRenewal(*other)
		if err != nil {
			return r, result, err
		}
	}
	r.State, r.EndedAt, r.DueAt, r.Reason = imprint.RenewalDone, now, time.Time{}, ""
	return r, result, nil
}

// retireLost makes the certificates of a family INACTIVE that have the key of one that was
// revoked because others have it. Whoever revokes it takes them along (package ca), but not
// what an earlier version left, or records without the key don't tell.
func (e *Engine) retireLost(tx imprint.Tx, f *family, r imprint.Renewal) (uint64, error) {
	made, err := tx.IssuanceOfCertificate(r.Tenant, r.Certificate)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return 0, nil
	}
	if err != nil || made.Reason != imprint.ReasonKeyCompromise {
		return 0, err
	}
	lost := made.KeyHash
	if lost == "" {
		lost, err = registeredKey(tx, r.Tenant, r.Certificate)
		if err != nil || lost == "" {
			return 0, err
		}
	}
	var retired uint64
	for _, id := range f.all() {
		own, err := registeredKey(tx, r.Tenant, id)
		if err != nil {
			return retired, err
		}
		if own != lost {
			continue
		}
		was, err := e.deactivate(tx, r.Tenant, id)
		if err != nil {
			return retired, err
		}
		if was {
			retired++
		}
	}
	return retired, nil
}

// registeredKey names the key of a certificate of the registry; empty: it isn't there.
func registeredKey(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID) (string, error) {
	registered, err := tx.Certificate(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	cert, err := pki.ParseCertificatePEM(registered.PEM)
	if err != nil {
		return "", fmt.Errorf("couldn't read certificate %s of the registry: %w", id, err)
	}
	return pki.KeyHash(cert.PublicKey)
}

// replaced says whether something that came of a certificate was proven after it.
func (f *family) replaced(id imprint.CertificateID) bool {
	for _, r := range f.renewals {
		if f.above(id, r.Certificate) && r.ProvenAt.After(f.proven(id)) {
			return true
		}
	}
	return false
}

// endedBy are the certificates whose place a renewal took: the one that it renews, those
// that this came of, and the others that came of these and weren't proven later.
func (f *family) endedBy(r imprint.Renewal) []imprint.CertificateID {
	var ends []imprint.CertificateID
	for _, id := range f.all() {
		older := f.above(id, r.Certificate)
		aside := id != r.Certificate && !older && !f.above(r.Certificate, id) && !f.proven(id).After(r.ProvenAt)
		if older || aside {
			ends = append(ends, id)
		}
	}
	return ends
}
