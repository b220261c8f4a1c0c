package ca

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

const (
	// defaultCRLDays is how long a list is valid where the authority doesn't say.
	defaultCRLDays = 7
	// crlAgain is when a list is tried again that couldn't be signed.
	crlAgain = time.Minute
	// crlPause is the shortest time between two signatures of one list: a fleet that is
	// revoked would have every list signed each second.
	crlPause = 5 * time.Second
	// crlBackdate is how much earlier than it is a list says that it was made, for clocks
	// that are a little behind.
	crlBackdate = time.Hour
	// crlTogether bounds the lists of one authority whose entries are in memory at once.
	crlTogether = 256
)

// planLists makes an authority's CRLs due that aren't there yet, and retires those that
// nobody needs. Who changes an authority calls it in the same transaction.
func planLists(tx imprint.Tx, a *imprint.CertificateAuthority, now time.Time) error {
	present, err := tx.RevocationLists(a.Tenant, a.ID)
	if err != nil {
		return err
	}
	wanted := listsOf(a)
	for _, l := range present {
		at := slices.Index(wanted, l.Shard)
		if at < 0 {
			err = retire(tx, l)
		} else {
			wanted = slices.Delete(wanted, at, at+1)
			if l.Retired {
				l.Retired, l.DueAt = false, now
				err = tx.PutRevocationList(l)
			}
		}
		if err != nil {
			return err
		}
	}
	for _, shard := range wanted {
		err = tx.PutRevocationList(imprint.RevocationList{Tenant: a.Tenant, Authority: a.ID, Shard: shard, Number: a.CRLs.Floor, DueAt: now})
		if err != nil {
			return err
		}
	}
	return nil
}

// retire takes a list out of use. Its number stays: what comes after it is newer.
func retire(tx imprint.Tx, l imprint.RevocationList) error {
	if l.Retired {
		return nil
	}
	return tx.PutRevocationList(imprint.RevocationList{Tenant: l.Tenant, Authority: l.Authority, Shard: l.Shard, Number: l.Number, Wanted: l.Wanted, Retired: true})
}

// put stores an authority with what its revocation configuration asks for.
func (e *Engine) put(tx imprint.Tx, a *imprint.CertificateAuthority) error {
	err := nameKey(a)
	if err != nil {
		return err
	}
	err = e.layOut(tx, a)
	if err != nil {
		return err
	}
	err = tx.PutAuthority(*a)
	if err != nil {
		return err
	}
	return planLists(tx, a, e.opts.Clock())
}

// listDue makes the CRLs due that a revoked certificate is on.
func listDue(tx imprint.Tx, tenant imprint.Tenant, id imprint.AuthorityID, serial string, now time.Time) error {
	a, err := tx.Authority(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil // it has no key any more, and so no lists
	}
	if err != nil || len(listsOf(&a)) == 0 {
		return err
	}
	on, err := listsWith(&a, serial)
	if err != nil {
		return err
	}
	for _, shard := range on {
		err = tx.WantRevocationList(tenant, id, shard, now)
		if err != nil {
			return err
		}
	}
	return nil
}

// signLists signs the lists of one authority that are due, with what is revoked now, and
// gives how many. What is revoked while one is signed is counted in its row, and makes it due
// again at once. The first that can't be signed ends it: the key is the same for all.
func (e *Engine) signLists(ctx context.Context, at imprint.AuthorityPlace) (int, error) {
	began := e.opts.Clock()
	var row imprint.CertificateAuthority
	var due []imprint.RevocationList
	err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		var err error
		row, due, err = e.dueOf(tx, at, began)
		return err
	})
	if err != nil || len(due) == 0 {
		return 0, err
	}
	by, err := e.openRow(ctx, &row, 0)
	if err != nil {
		return 0, e.postpone(ctx, due, err)
	}
	signed := 0
	for some := range slices.Chunk(due, crlTogether) {
		entries, err := e.entries(ctx, &row, some, began)
		if err != nil {
			return signed, e.postpone(ctx, due[signed:], err)
		}
		for _, l := range some {
			err = e.signList(ctx, by, l, entries[l.Shard], began)
			if err != nil {
				return signed, e.postpone(ctx, due[signed:], err)
			}
			signed++
		}
	}
	return signed, nil
}

// dueOf gives an authority with its lists that are to be signed now. Those that were signed a
// moment ago wait, and those that nobody needs are retired.
func (e *Engine) dueOf(tx imprint.Tx, at imprint.AuthorityPlace, now time.Time) (imprint.CertificateAuthority, []imprint.RevocationList, error) {
	all, err := tx.RevocationLists(at.Tenant, at.Authority)
	if err != nil {
		return imprint.CertificateAuthority{}, nil, err
	}
	// A disabled authority still says what it revoked, and so does a revoked one; an
	// expired one has no valid certificates to speak of.
	row, err := e.authority(tx, at.Tenant, at.Authority)
	gone := imprint.CodeOf(err) == imprint.CodeNotFound
	if err != nil && !gone {
		return row, nil, err
	}
	var wanted []int
	if !gone && Status(&row, now) != imprint.AuthorityExpired {
		wanted = listsOf(&row)
	}
	var due []imprint.RevocationList
	for _, l := range all {
		ready := l.SignedAt.Add(crlPause)
		switch {
		case !slices.Contains(wanted, l.Shard):
			err = retire(tx, l)
		case l.Retired || l.DueAt.After(now):
		case ready.After(now) && !l.SignedAt.After(now):
			err = tx.DelayRevocationList(l.Tenant, l.Authority, l.Shard, ready)
		default:
			due = append(due, l)
		}
		if err != nil {
			return row, nil, err
		}
	}
	return row, due, nil
}

// entries reads what stands on some lists, and in the same moment which revocations they tell
// of by that.
func (e *Engine) entries(ctx context.Context, row *imprint.CertificateAuthority, some []imprint.RevocationList, began time.Time) (map[int][]imprint.RevokedSerial, error) {
	wanted := make(map[int]bool, len(some))
	// An entry stays until it was on a list that was made after its certificate's end (RFC 5280
	// section 3.3), and on a regular one, whatever was signed between.
	after := began.Add(-validity(row))
	for _, l := range some {
		wanted[l.Shard] = true
		if !l.ThisUpdate.IsZero() && l.ThisUpdate.Before(after) {
			after = l.ThisUpdate
		}
	}
	entries := map[int][]imprint.RevokedSerial{}
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		clear(entries)
		present, err := tx.RevocationLists(row.Tenant, row.ID)
		if err != nil {
			return err
		}
		for n, l := range some {
			at := slices.IndexFunc(present, func(p imprint.RevocationList) bool { return p.Shard == l.Shard })
			if at >= 0 {
				some[n] = present[at]
			}
		}
		var broken error
		err = tx.RevokedBy(row.Tenant, row.ID, after, func(r imprint.RevokedSerial) bool {
			on, err := listsWith(row, r.Serial)
			if err != nil {
				broken = err
				return false
			}
			for _, shard := range on {
				if wanted[shard] {
					entries[shard] = append(entries[shard], r)
				}
			}
			return true
		})
		if broken != nil {
			return broken
		}
		return err
	})
	return entries, err
}

func validity(a *imprint.CertificateAuthority) time.Duration {
	days := a.Revocation.CRLDays
	if days == 0 {
		days = defaultCRLDays
	}
	return time.Duration(days) * 24 * time.Hour
}

func (e *Engine) signList(ctx context.Context, by *opened, l imprint.RevocationList, entries []imprint.RevokedSerial, began time.Time) error {
	valid := validity(&by.row)
	list := pki.CRL{
		Number: max(l.Number, by.row.CRLs.Floor) + 1, ThisUpdate: began.Add(-crlBackdate), NextUpdate: began.Add(valid), Divided: l.Shard != imprint.WholeList,
		URLs: urlsOf(&by.row, l.Shard), Entries: entries,
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
		if present.Number >= list.Number || present.Retired {
			return nil // another publisher was quicker, or nobody needs it any more
		}
		due := began.Add(valid / 2)
		if present.Wanted != l.Wanted {
			due = began // something was revoked meanwhile
		}
		return tx.PutRevocationList(imprint.RevocationList{
			Tenant: l.Tenant, Authority: l.Authority, Shard: l.Shard, Number: list.Number, DER: der, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate,
			SignedAt: began, DueAt: due, Wanted: present.Wanted,
		})
	})
}

// postpone tries lists again later that couldn't be signed, and gives why they couldn't.
func (e *Engine) postpone(ctx context.Context, lists []imprint.RevocationList, why error) error {
	until := e.opts.Clock().Add(crlAgain)
	err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		for _, l := range lists {
			err := tx.DelayRevocationList(l.Tenant, l.Authority, l.Shard, until)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w, and couldn't put that off: %w", why, err)
	}
	return why
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
	switch {
	case err != nil:
	case l.Retired:
		err = unpublished(id, shard)
	case l.DER == nil:
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

func unpublished(id imprint.AuthorityID, shard int) error {
	return imprint.Errorf(imprint.CodeNotFound, "revocation list %d of certificate authority %s isn't published any more", shard, id)
}
