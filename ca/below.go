package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// belowPage is how many certificates one transaction of RevokeBelow takes.
const belowPage = 200

// Below says what RevokeBelow did.
type Below struct {
	// Authorities are those of which certificates were revoked now, in the order in which
	// they were visited.
	Authorities []BelowAuthority
	// Next is where to go on; empty: nothing is left.
	Next string
}

// BelowAuthority is an authority with how many certificates of it were revoked.
type BelowAuthority struct {
	ID      imprint.AuthorityID
	Name    string
	Subject []byte
	Changed int
}

// Changed is how many certificates were revoked now.
func (b *Below) Changed() int {
	total := 0
	for _, a := range b.Authorities {
		total += a.Changed
	}
	return total
}

func (b *Below) add(a *imprint.CertificateAuthority, changed int) {
	if changed == 0 {
		return
	}
	at := slices.IndexFunc(b.Authorities, func(one BelowAuthority) bool { return one.ID == a.ID })
	if at < 0 {
		at = len(b.Authorities)
		b.Authorities = append(b.Authorities, BelowAuthority{ID: a.ID, Name: a.Name, Subject: a.Subject})
	}
	b.Authorities[at].Changed += changed
}

// belowCursor is where RevokeBelow is: authorities come by id, of each first what it issued,
// then what was registered for each CA's certificate.
type belowCursor struct {
	Authority  imprint.AuthorityID   `json:"a"`
	Issued     string                `json:"i,omitempty"`
	Registered bool                  `json:"r,omitempty"` // what it issued is done
	CA         imprint.CertificateID `json:"c,omitempty"`
	Page       string                `json:"p,omitempty"`
}

// RevokeBelow revokes all that stands below a revoked authority: the authorities, on every
// level and at first, so that none signs any more; then what they issued, and what the
// registry has because one of them had signed it, page by page, so that others are served
// between. It goes on for as long as ctx lets it, at least for a page, and says where it
// was: the next call takes Next as its cursor. After a crash it may begin anew; what was
// revoked isn't counted again. Certificates of other authorities are left alone.
// Errors: CodeAuthorityState when the authority isn't revoked, CodeInvalidRequest for a cursor
// that isn't one.
func (e *Engine) RevokeBelow(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, cursor string) (Below, error) {
	var done Below
	at, err := readBelow(cursor)
	if err != nil {
		return done, err
	}
	// Who bounds the time gets what was done by then, and where to go on.
	work := context.WithoutCancel(ctx)
	tree, err := e.descendants(work, tenant, id)
	if err != nil {
		return done, err
	}
	err = e.closeTree(work, tree, &done)
	if err != nil {
		return done, err
	}
	slices.SortFunc(tree, func(a, b imprint.CertificateAuthority) int { return bytes.Compare([]byte(a.ID), []byte(b.ID)) })
	for n := range tree {
		a := &tree[n]
		switch {
		case a.ID < at.Authority:
			continue
		case a.ID > at.Authority:
			at = belowCursor{Authority: a.ID}
		}
		finished, err := e.belowOne(ctx, work, a, tree, &at, &done)
		if err != nil || !finished {
			done.Next = at.text()
			return done, err
		}
	}
	return done, nil
}

func readBelow(text string) (belowCursor, error) {
	var at belowCursor
	if text == "" {
		return at, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &at)
	}
	if err != nil {
		return at, imprint.Errorf(imprint.CodeInvalidRequest, "the cursor isn't one that was given").WithHint("Begin without one: what is revoked is passed over.")
	}
	return at, nil
}

func (c belowCursor) text() string {
	data, _ := json.Marshal(c) // strings and a flag
	return base64.RawURLEncoding.EncodeToString(data)
}

// Below gives the authorities that RevokeBelow of one is about, itself first. Errors:
// CodeNotFound, CodeAuthorityState when it isn't revoked.
func (e *Engine) Below(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID) ([]imprint.CertificateAuthority, error) {
	return e.descendants(ctx, tenant, id)
}

// descendants gives an authority that must be revoked, and then those below it, level by
// level.
func (e *Engine) descendants(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID) ([]imprint.CertificateAuthority, error) {
	var tree []imprint.CertificateAuthority
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		tree = nil
		a, err := tx.Authority(tenant, id)
		if err != nil {
			return err
		}
		if a.RevokedAt.IsZero() {
			return imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s isn't revoked", called(&a)).WithHint("Revoke its certificate first: imprint ca revoke")
		}
		below := map[imprint.AuthorityID][]imprint.CertificateAuthority{}
		err = each(tx, tenant, func(other *imprint.CertificateAuthority) error {
			if other.Parent != "" && other.Certificate != "" {
				below[other.Parent] = append(below[other.Parent], *other)
			}
			return nil
		})
		tree = append(tree, a)
		for n := 0; n < len(tree); n++ {
			for _, child := range below[tree[n].ID] {
				if !slices.ContainsFunc(tree, func(seen imprint.CertificateAuthority) bool { return seen.ID == child.ID }) {
					tree = append(tree, child)
				}
			}
		}
		return err
	})
	return tree, err
}

// closeTree revokes the authorities of a tree below its first one, from the top.
func (e *Engine) closeTree(ctx context.Context, tree []imprint.CertificateAuthority, done *Below) error {
	for n := range tree[1:] {
		a := &tree[n+1]
		if !a.RevokedAt.IsZero() {
			continue
		}
		err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			return e.takeAuthority(tx, a, imprint.ReasonCACompromise, false)
		})
		if err != nil {
			return fmt.Errorf("couldn't revoke certificate authority %s: %w", called(a), err)
		}
		parent := slices.IndexFunc(tree, func(p imprint.CertificateAuthority) bool { return p.ID == a.Parent })
		done.add(&tree[max(0, parent)], 1)
	}
	return nil
}

// belowOne revokes what one authority signed, from a place on. It says whether all is done.
func (e *Engine) belowOne(ctx, work context.Context, a *imprint.CertificateAuthority, tree []imprint.CertificateAuthority, at *belowCursor, done *Below) (bool, error) {
	for !at.Registered {
		changed, next, err := e.issuedPage(work, a, at.Issued)
		if err != nil {
			return false, err
		}
		done.add(a, changed)
		at.Issued, at.Registered = next, next == ""
		if ctx.Err() != nil {
			return false, nil
		}
	}
	cas, err := e.registeredBy(work, a, tree)
	if err != nil {
		return false, err
	}
	for _, id := range cas {
		switch {
		case id < at.CA:
			continue
		case id > at.CA:
			at.CA, at.Page = id, ""
		}
		for more := true; more; {
			changed, next, err := e.registeredPage(work, a.Tenant, id, at.Page)
			if err != nil {
				return false, err
			}
			done.add(a, changed)
			more, at.Page = next != "", next
			if !more {
				at.CA, at.Page = id+"~", "" // behind it, before the next one
			}
			if ctx.Err() != nil {
				return false, nil
			}
		}
	}
	return true, nil
}

// issuedPage revokes one page of what an authority issued.
func (e *Engine) issuedPage(ctx context.Context, a *imprint.CertificateAuthority, cursor string) (changed int, next string, err error) {
	var todo []string
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		todo = nil
		all, more, err := tx.IssuancesBy(a.Tenant, a.ID, imprint.Page{Limit: belowPage, Cursor: cursor, Ascending: true})
		next = more
		for _, i := range all {
			if i.CertificateID != "" && i.RevokedAt.IsZero() {
				todo = append(todo, i.ID)
			}
		}
		return err
	})
	if err != nil || len(todo) == 0 {
		return 0, next, err
	}
	err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		changed = 0
		for _, id := range todo {
			i, err := tx.Issuance(id)
			if err != nil || !i.RevokedAt.IsZero() {
				if err != nil {
					return err
				}
				continue
			}
			_, err = e.takeIssued(tx, i, imprint.ReasonCACompromise, false)
			if err != nil {
				return err
			}
			changed++
		}
		return nil
	})
	return changed, next, err
}

// registeredBy gives the ids under which the registry may have devices of an authority: its
// certificates, those that it made for CAs elsewhere, and registered CAs that it signed, or
// that stand below those. They are in order.
func (e *Engine) registeredBy(ctx context.Context, a *imprint.CertificateAuthority, tree []imprint.CertificateAuthority) ([]imprint.CertificateID, error) {
	var ids []imprint.CertificateID
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		own, err := tx.AuthorityCertificates(a.Tenant, a.ID)
		if err != nil {
			return err
		}
		made, err := tx.AuthorityCertificatesBy(a.Tenant, a.ID)
		if err != nil {
			return err
		}
		ids = nil
		for _, c := range own {
			ids = append(ids, c.ID)
		}
		for _, c := range made {
			if c.Authority == "" {
				ids = append(ids, c.ID)
			}
		}
		more, err := registeredBelow(tx, a)
		ids = append(ids, more...)
		return err
	})
	slices.Sort(ids)
	return slices.Compact(ids), err
}

// registeredBelow finds registered CAs that an authority signed, or that one of those did,
// and that aren't certificates of authorities themselves.
func registeredBelow(tx imprint.ReadTx, a *imprint.CertificateAuthority) ([]imprint.CertificateID, error) {
	issuer, err := pki.ParseCertificatePEM(a.Certificate)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the certificate of authority %s: %w", called(a), err)
	}
	var all []*x509.Certificate
	cursor := ""
	for {
		page, next, err := tx.CAs(a.Tenant, "", imprint.Page{Limit: 100, Cursor: cursor, Ascending: true})
		if err != nil {
			return nil, err
		}
		for _, one := range page {
			cert, err := pki.ParseCertificatePEM(one.PEM)
			if err != nil {
				return nil, fmt.Errorf("couldn't read CA certificate %s of the store: %w", one.ID, err)
			}
			all = append(all, cert)
		}
		if next == "" {
			break
		}
		cursor = next
	}
	var ids []imprint.CertificateID
	signers := []*x509.Certificate{issuer}
	for len(signers) > 0 {
		signer := signers[0]
		signers = signers[1:]
		for n, cert := range all {
			if cert == nil || !bytes.Equal(cert.RawIssuer, signer.RawSubject) || cert.CheckSignatureFrom(signer) != nil {
				continue
			}
			all[n] = nil
			id := pki.CertificateID(cert.Raw)
			_, err = tx.AuthorityOf(a.Tenant, id)
			if err == nil {
				continue // it is visited by itself, or stands below another CA by now
			}
			if imprint.CodeOf(err) != imprint.CodeNotFound {
				return nil, err
			}
			ids = append(ids, id)
			signers = append(signers, cert)
		}
	}
	return ids, nil
}

// registeredPage revokes one page of what is registered for a CA's certificate, and closes
// its registration.
func (e *Engine) registeredPage(ctx context.Context, tenant imprint.Tenant, id imprint.CertificateID, cursor string) (changed int, next string, err error) {
	var todo []imprint.CertificateID
	open := false
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		todo = nil
		registered, err := tx.CA(tenant, id)
		if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
			return err
		}
		open = err == nil && registered.Status != imprint.CAInactive
		all, more, err := tx.Certificates(tenant, id, imprint.Page{Limit: belowPage, Cursor: cursor, Ascending: true})
		next = more
		for _, c := range all {
			if c.Status != imprint.CertificateRevoked {
				todo = append(todo, c.ID)
			}
		}
		return err
	})
	if err != nil || len(todo) == 0 && !open {
		return 0, next, err
	}
	err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		changed = 0
		err := e.closeRegistration(tx, tenant, id)
		for _, device := range todo {
			if err != nil {
				return err
			}
			var row imprint.Certificate
			row, err = tx.Certificate(tenant, device)
			if imprint.CodeOf(err) == imprint.CodeNotFound {
				err = nil
				continue
			}
			if err == nil && row.Status != imprint.CertificateRevoked {
				err = e.revokeRow(tx, row)
				changed++
			}
		}
		return err
	})
	return changed, next, err
}
