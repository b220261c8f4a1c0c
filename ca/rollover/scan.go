package rollover

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// registered looks at one certificate of the registry.
func (l *look) registered(c *imprint.Certificate) error {
	l.answer.Counts.Looked++
	if c.Status == imprint.CertificateRevoked || l.now.After(c.NotAfter) {
		return nil // it is off already
	}
	signers := l.signersOf(c)
	switch l.fate(signers) {
	case carried:
		if l.inUse(c) {
			l.answer.Counts.Carried++
		}
	case fails:
		return l.failing(c)
	}
	if l.inUse(c) && l.to != nil && l.replaces(signers) {
		return l.replacing(c)
	}
	return nil
}

// failing looks at a certificate that fails.
func (l *look) failing(c *imprint.Certificate) error {
	counts, item := &l.answer.Counts, itemOf(c)
	_, err := l.tx.ClaimGuard(l.q.Tenant, c.ID)
	switch {
	case err == nil && l.inUse(c):
		item.Kind = KindClaim
		counts.Claims++
		l.keep(item)
		return nil
	case err != nil && imprint.CodeOf(err) != imprint.CodeNotFound:
		return err
	case c.Status == imprint.CertificatePendingActivation, c.Status == imprint.CertificatePendingTransfer:
		item.Kind = KindWaiting
		counts.Waiting++
		l.keep(item)
		return nil
	case c.Status != imprint.CertificateActive:
		item.Kind = KindInactive
		counts.Inactive++
		l.answer.Items = append(l.answer.Items, item)
		return nil
	}
	counts.Certificates++
	things, _, err := l.tx.CertificateThings(l.q.Tenant, c.ID, imprint.Page{Limit: maxThings, Ascending: true})
	if err != nil {
		return err
	}
	if len(things) == 0 {
		item.Kind = KindCertificate
		counts.Loose++
		err = l.seen(&item)
		if item.Unseen {
			counts.Unseen++
		}
		if err != nil {
			return err
		}
		l.keep(item)
		return nil
	}
	l.end(c.NotAfter)
	for _, attached := range things {
		device := item
		device.Kind, device.Thing = KindDevice, attached.Thing
		err = l.device(c, device)
		if err != nil {
			return err
		}
	}
	return nil
}

func itemOf(c *imprint.Certificate) Item {
	return Item{Certificate: c.ID, Subject: c.Subject, Serial: c.Serial, Signer: c.CAID, NotAfter: c.NotAfter}
}

// keep lists an item and remembers its end.
func (l *look) keep(item Item) {
	l.answer.Items = append(l.answer.Items, item)
	l.end(item.NotAfter)
}

func (l *look) end(at time.Time) {
	if at.After(l.answer.Counts.LastEnd) {
		l.answer.Counts.LastEnd = at
	}
}

// seen tells when an item's certificate was last seen.
func (l *look) seen(item *Item) error {
	var err error
	item.SeenAt, err = l.p.seenAt(l.tx, l.q.Tenant, item.Certificate)
	item.Unseen = l.now.Sub(item.SeenAt) > l.q.Unseen
	return err
}

// device looks at one thing of a certificate that fails. It counts at the oldest of those
// that it has, so once.
func (l *look) device(c *imprint.Certificate, item Item) error {
	others, err := l.othersOf(item.Thing, c.ID)
	if err != nil {
		return err
	}
	for n := range others {
		o := &others[n]
		if l.inUse(o) && older(o, c) && l.fate(l.signersOf(o)) == fails {
			return nil
		}
	}
	counts := &l.answer.Counts
	counts.Devices++
	err = l.seen(&item)
	if err != nil {
		return err
	}
	for n := range others {
		o := &others[n]
		if !l.inUse(o) || !l.replaces(l.signersOf(o)) {
			continue
		}
		proven, err := l.p.seenAt(l.tx, l.q.Tenant, o.ID)
		if err != nil {
			return err
		}
		if item.Moved == "" || proven.After(item.ProvenAt) {
			item.Moved, item.ProvenAt = o.ID, proven
		}
	}
	switch {
	case item.Moved == "" && item.Unseen:
		counts.Unseen++
	case item.Moved != "":
		item.Unseen = false // it has what it needs
		counts.Moved++
	}
	if !item.ProvenAt.IsZero() {
		counts.Proven++
	}
	l.answer.Items = append(l.answer.Items, item)
	return nil
}

// older says which of two certificates a scan comes to first.
func older(a, b *imprint.Certificate) bool {
	if !a.CreatedAt.Equal(b.CreatedAt) {
		return a.CreatedAt.Before(b.CreatedAt)
	}
	return a.ID < b.ID
}

// othersOf gives the certificates of a thing beside one.
func (l *look) othersOf(thing imprint.ThingName, than imprint.CertificateID) ([]imprint.Certificate, error) {
	principals, _, err := l.tx.ThingPrincipals(l.q.Tenant, thing, imprint.Page{Limit: maxThings, Ascending: true})
	if err != nil {
		return nil, err
	}
	var all []imprint.Certificate
	for _, attached := range principals {
		if attached.Certificate == than {
			continue
		}
		c, err := l.tx.Certificate(l.q.Tenant, attached.Certificate)
		switch imprint.CodeOf(err) {
		case "":
			all = append(all, c)
		case imprint.CodeNotFound:
		default:
			return nil, err
		}
	}
	return all, nil
}

// replacing looks at a certificate of the CA that takes the place: a thing that has none
// that fails has finished.
func (l *look) replacing(c *imprint.Certificate) error {
	things, _, err := l.tx.CertificateThings(l.q.Tenant, c.ID, imprint.Page{Limit: maxThings, Ascending: true})
	if err != nil {
		return err
	}
	for _, attached := range things {
		others, err := l.othersOf(attached.Thing, c.ID)
		if err != nil {
			return err
		}
		counted := slices.ContainsFunc(others, func(o imprint.Certificate) bool {
			if !l.inUse(&o) {
				return false
			}
			signers := l.signersOf(&o)
			return l.fate(signers) == fails || older(&o, c) && l.replaces(signers)
		})
		if counted {
			continue // where it fails, or at the older one
		}
		l.answer.Counts.Finished++
		proven := false
		for _, id := range append([]imprint.CertificateID{c.ID}, idsOf(others, func(o *imprint.Certificate) bool { return l.inUse(o) && l.replaces(l.signersOf(o)) })...) {
			at, err := l.p.seenAt(l.tx, l.q.Tenant, id)
			if err != nil {
				return err
			}
			proven = proven || !at.IsZero()
		}
		if proven {
			l.answer.Counts.FinishedProven++
		}
	}
	return nil
}

func idsOf(all []imprint.Certificate, keep func(*imprint.Certificate) bool) []imprint.CertificateID {
	var ids []imprint.CertificateID
	for n := range all {
		if keep(&all[n]) {
			ids = append(ids, all[n].ID)
		}
	}
	return ids
}

// issued looks at what a failing authority issued and nobody has registered: factories sign
// certificates whose devices come much later.
func (l *look) issued(at place, limit int) (place, error) {
	page, next, err := l.tx.IssuancesBy(l.q.Tenant, at.authority, imprint.Page{Limit: limit, Cursor: at.cursor, Ascending: true})
	if err != nil {
		return at, err
	}
	for n := range page {
		err = l.issuance(&page[n])
		if err != nil {
			return at, err
		}
	}
	if next != "" {
		return place{authority: at.authority, cursor: next}, nil
	}
	return l.afterAuthority(at.authority), nil
}

func (l *look) issuance(i *imprint.Issuance) error {
	if i.CertificateID == "" || !i.RevokedAt.IsZero() || l.now.After(i.NotAfter) {
		return nil
	}
	_, err := l.tx.Certificate(l.q.Tenant, i.CertificateID)
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return err // registered, so it was counted; or the store can't answer
	}
	l.answer.Counts.Looked++
	cert, err := pki.ParseCertificateDER(i.Certificate)
	if err != nil || cert.IsCA || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return nil // no device's
	}
	l.answer.Counts.Unregistered++
	l.keep(Item{Kind: KindUnregistered, Certificate: i.CertificateID, Subject: i.Subject, Serial: i.Serial, NotAfter: i.NotAfter, Signer: l.signerID(i.Authority)})
	return nil
}

func (l *look) signerID(id imprint.AuthorityID) imprint.CertificateID {
	for _, m := range l.g.all {
		if m.authority != nil && m.authority.ID == id {
			return m.id
		}
	}
	return ""
}
