package ca

import (
	"context"
	"fmt"
	"math/big"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

const (
	// defaultCRLDays is how long a list is valid where the authority doesn't say.
	defaultCRLDays = 7
	// crlEvery is how often the publisher looks for lists that are due.
	crlEvery = time.Second
	// crlBatch bounds the lists that it signs before it looks again.
	crlBatch = 64
	// crlAgain is when a list is tried again that couldn't be signed.
	crlAgain = time.Minute
)

// lists is how many CRLs an authority has; 0: none.
func lists(a *imprint.CertificateAuthority) int {
	switch {
	case !a.Revocation.CRL || a.Certificate == "" || a.Key == "":
		return 0
	case a.Revocation.CRLShards > 1:
		return a.Revocation.CRLShards
	}
	return 1
}

// planLists makes an authority's CRLs due that aren't there yet, and deletes those that it
// has no more. Who changes an authority's revocation calls it in the same transaction.
func planLists(tx imprint.Tx, a *imprint.CertificateAuthority, now time.Time) error {
	wanted := lists(a)
	for shard := range wanted {
		_, err := tx.RevocationList(a.Tenant, a.ID, shard)
		if err == nil {
			continue
		}
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return err
		}
		err = tx.PutRevocationList(imprint.RevocationList{Tenant: a.Tenant, Authority: a.ID, Shard: shard, DueAt: now})
		if err != nil {
			return err
		}
	}
	return tx.DeleteRevocationLists(a.Tenant, a.ID, wanted)
}

// put stores an authority with what its revocation configuration asks for.
func (e *Engine) put(tx imprint.Tx, a *imprint.CertificateAuthority) error {
	err := nameKey(a)
	if err != nil {
		return err
	}
	err = tx.PutAuthority(*a)
	if err != nil {
		return err
	}
	return planLists(tx, a, e.opts.Clock())
}

// listDue makes the CRL due that a revoked certificate is on.
func listDue(tx imprint.Tx, i *imprint.Issuance, now time.Time) error {
	a, err := tx.Authority(i.Tenant, i.Authority)
	if err != nil {
		return err
	}
	if lists(&a) == 0 {
		return nil
	}
	shard, err := shardOf(&a, i.Serial)
	if err != nil {
		return err
	}
	l, err := tx.RevocationList(i.Tenant, i.Authority, shard)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		l, err = imprint.RevocationList{Tenant: i.Tenant, Authority: i.Authority, Shard: shard}, nil
	}
	if err != nil || !l.DueAt.IsZero() && l.DueAt.Before(now) {
		return err
	}
	l.DueAt = now
	return tx.PutRevocationList(l)
}

func shardOf(a *imprint.CertificateAuthority, serial string) (int, error) {
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		return 0, imprint.Errorf(imprint.CodeInternal, "the record of issuances has the serial number %q", imprint.Excerpt(serial))
	}
	return pki.Points{CRLShards: a.Revocation.CRLShards}.Shard(n), nil
}

// PublishLists signs the CRLs that are due until the context ends: when something was
// revoked, within a second or two, and each again when half of its validity is over. A key
// that can't sign is tried again every minute; the list before it is served meanwhile.
func (e *Engine) PublishLists(ctx context.Context) {
	ticker := time.NewTicker(crlEvery)
	defer ticker.Stop()
	for {
		_, err := e.SignDueLists(ctx)
		if err != nil && ctx.Err() == nil {
			e.opts.Logger.Error("couldn't sign revocation lists", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// SignDueLists signs the CRLs that are due now, and gives how many it signed. One that
// can't be signed keeps no other from it.
func (e *Engine) SignDueLists(ctx context.Context) (int, error) {
	signed := 0
	for {
		var due []imprint.RevocationList
		err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
			var err error
			due, err = tx.DueRevocationLists(e.opts.Clock(), crlBatch)
			return err
		})
		if err != nil || len(due) == 0 {
			return signed, err
		}
		for _, l := range due {
			err = e.signList(ctx, l)
			if err == nil {
				signed++
				continue
			}
			e.opts.Logger.Error("couldn't sign a revocation list", "tenant", l.Tenant.String(), "authority", l.Authority, "shard", l.Shard, "error", err)
			err = e.postpone(ctx, l)
			if err != nil {
				return signed, err
			}
		}
		if len(due) < crlBatch {
			return signed, nil
		}
	}
}

// postpone tries a list again later.
func (e *Engine) postpone(ctx context.Context, l imprint.RevocationList) error {
	return e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		present, err := tx.RevocationList(l.Tenant, l.Authority, l.Shard)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		present.DueAt = e.opts.Clock().Add(crlAgain)
		return tx.PutRevocationList(present)
	})
}

// signList signs one list with what is revoked now. What is revoked while it is signed
// makes it due again, and is seen by that.
func (e *Engine) signList(ctx context.Context, l imprint.RevocationList) error {
	began := e.opts.Clock()
	// A disabled authority still says what it revoked, and so does a revoked one; an
	// expired one has no valid certificates to speak of.
	row, err := e.Authority(ctx, l.Tenant, l.Authority)
	gone := imprint.CodeOf(err) == imprint.CodeNotFound
	if err != nil && !gone {
		return err
	}
	if gone || lists(&row) <= l.Shard || Status(&row, began) == imprint.AuthorityExpired {
		return e.opts.Store.Update(ctx, func(tx imprint.Tx) error { return tx.DeleteRevocationLists(l.Tenant, l.Authority, l.Shard) })
	}
	by, err := e.openRow(ctx, &row, 0)
	if err != nil {
		return err
	}
	days := by.row.Revocation.CRLDays
	if days == 0 {
		days = defaultCRLDays
	}
	valid := time.Duration(days) * 24 * time.Hour
	list := pki.CRL{ThisUpdate: began, NextUpdate: began.Add(valid), Shard: l.Shard}
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		present, err := tx.RevocationList(l.Tenant, l.Authority, l.Shard)
		if err != nil {
			return err
		}
		list.Number, list.Entries = present.Number+1, nil
		var broken error
		err = tx.RevokedBy(l.Tenant, l.Authority, began, func(r imprint.RevokedSerial) bool {
			shard, err := shardOf(&by.row, r.Serial)
			if err != nil {
				broken = err
				return false
			}
			if shard == l.Shard {
				list.Entries = append(list.Entries, r)
			}
			return true
		})
		if broken != nil {
			return broken
		}
		return err
	})
	if err != nil {
		return err
	}
	der, err := by.signing.SignCRL(ctx, list)
	if err != nil {
		return err
	}
	return e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		present, err := tx.RevocationList(l.Tenant, l.Authority, l.Shard)
		if err != nil {
			return err
		}
		if present.Number >= list.Number {
			return nil // another node was quicker
		}
		due := began.Add(valid / 2)
		if !present.DueAt.Equal(l.DueAt) {
			due = present.DueAt // something was revoked meanwhile
		}
		return tx.PutRevocationList(imprint.RevocationList{
			Tenant: l.Tenant, Authority: l.Authority, Shard: l.Shard, Number: list.Number, DER: der, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate, DueAt: due,
		})
	})
}

// List gives a CRL as it is served. Errors: CodeNotFound where there is none, CodeUnavailable
// when it wasn't signed yet.
func (e *Engine) List(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, shard int) (imprint.RevocationList, error) {
	var l imprint.RevocationList
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		l, err = tx.RevocationList(tenant, id, shard)
		return err
	})
	if err == nil && l.DER == nil {
		err = unsigned(id, shard)
	}
	if err != nil {
		return l, fmt.Errorf("couldn't give a revocation list: %w", err)
	}
	return l, nil
}

func unsigned(id imprint.AuthorityID, shard int) error {
	return imprint.Errorf(imprint.CodeUnavailable, "revocation list %d of certificate authority %s isn't signed yet", shard, id).
		WithHint("It is within seconds, unless the authority's key can't be used: the log says why.")
}
