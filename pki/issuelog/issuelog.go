// Package issuelog keeps the record of signatures in the store: package pki's
// Journal on imprint.Store.
//
//	authority, err := pki.OpenAuthority(ctx, dir, pki.AuthorityConfig{Journal: issuelog.New(store), ...})
//
// Every signature stands there twice under one id: as an intent before the CA
// key signs, and with the certificate's id after. Each is durable when Record
// returns, or with the transaction that Put is given. Records of one id may only be completed: the intent is never
// overwritten by another one, nor a certificate's id by another, and a revocation stays.
//
// Which key may have which certificate is decided here, where the record is: a key that was
// lost gets none, a CA's key no device's, one key one certificate unless the profile lets it
// have more or the new one renews the old (keyrules.go).
//
// What it does not do: it doesn't delete. Unfinished lists what a crash left.
package issuelog

import (
	"context"
	"fmt"

	"github.com/imprint-iot/imprint"
)

// Log is a journal of signatures, safe for concurrent use.
type Log struct {
	store imprint.Store
	room  func() error
}

// New makes a Log on a store.
func New(store imprint.Store) *Log { return &Log{store: store} }

// Within is a Log on the same store that records an intent only while room gives no error:
// what follows the record, such as the Merkle log of issuances, may be too far behind. What
// was begun may always be completed.
func (l *Log) Within(room func() error) *Log { return &Log{store: l.store, room: room} }

// Record stores an issuance durably. Recording the same twice is no error.
// Errors: CodeInternal when the id is already that of another signature or of
// another certificate; the store's; those of Within.
func (l *Log) Record(ctx context.Context, issuance imprint.Issuance) error {
	if l.room != nil && issuance.CertificateID == "" {
		err := l.room()
		if err != nil {
			return err
		}
	}
	err := l.store.Update(ctx, func(tx imprint.Tx) error { return put(tx, issuance) })
	if err != nil {
		return fmt.Errorf("couldn't record issuance %s: %w", issuance.ID, err)
	}
	return nil
}

// Put is Record in a transaction of the store that the caller makes durable.
func (l *Log) Put(tx imprint.Tx, issuance imprint.Issuance) error {
	err := put(tx, issuance)
	if err != nil {
		return fmt.Errorf("couldn't record issuance %s: %w", issuance.ID, err)
	}
	return nil
}

func put(tx imprint.Tx, issuance imprint.Issuance) error {
	err := allowed(tx, issuance)
	if err != nil {
		return err
	}
	// Nearly always the intent is new, and its signature the first.
	add := tx.AddIssuance
	if issuance.CertificateID != "" {
		add = tx.CompleteIssuance
	}
	done, err := add(issuance)
	if err != nil || done {
		return err
	}
	present, err := tx.Issuance(issuance.ID)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
	case err != nil:
		return fmt.Errorf("couldn't look for issuance %s: %w", issuance.ID, err)
	case !continues(present, issuance):
		return imprint.Errorf(imprint.CodeInternal, "issuance %s is already that of another signature", issuance.ID)
	case issuance.RevokedAt.IsZero():
		// Who signed knows nothing of a revocation since.
		issuance.RevokedAt, issuance.Reason = present.RevokedAt, present.Reason
	}
	return tx.PutIssuance(issuance)
}

// continues says whether next may stand in the place of present: the same bytes
// to be signed, and the same certificate or the first one.
func continues(present, next imprint.Issuance) bool {
	return present.Tenant == next.Tenant && present.TBSHash == next.TBSHash && present.Serial == next.Serial &&
		(present.CertificateID == "" || present.CertificateID == next.CertificateID)
}

// Unfinished gives the intents without a certificate among one page of a
// tenant's issuances, newest first, and the cursor of the next page, empty on
// the last one. Their serial numbers are never used again.
func (l *Log) Unfinished(ctx context.Context, tenant imprint.Tenant, page imprint.Page) ([]imprint.Issuance, string, error) {
	var open []imprint.Issuance
	var next string
	err := l.store.View(ctx, func(tx imprint.ReadTx) error {
		open = nil
		all, cursor, err := tx.Issuances(tenant, page)
		if err != nil {
			return err
		}
		next = cursor
		for _, one := range all {
			if one.CertificateID == "" {
				open = append(open, one)
			}
		}
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("couldn't list unfinished issuances: %w", err)
	}
	return open, next, nil
}
