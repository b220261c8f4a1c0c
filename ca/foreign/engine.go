package foreign

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/outward"
	"github.com/imprint-iot/imprint/pki"
)

// Options are what an Engine needs. Store and Clock must be set.
type Options struct {
	Store imprint.Store
	Clock imprint.Clock
	// PrivateAccount is the only one whose lists are fetched from this machine and private
	// networks, too: whoever may import from a URL makes the server ask there, and sees how
	// that ends. Empty: those of all are.
	PrivateAccount imprint.AccountID
	Logger         *slog.Logger // [slog.Default]
}

// Engine keeps the lists of all tenants. It is safe for concurrent use.
type Engine struct {
	opts Options
	// anywhere fetches for who may reach private addresses, public for others.
	anywhere, public *http.Client
	// one has a *sync.Mutex for each tenant, held while a list takes the place of another: two
	// at once could set a number back. A long list of one tenant keeps no other's waiting.
	one sync.Map

	imported, refused, failed, revoked atomic.Uint64
}

// New makes an Engine.
func New(opts Options) *Engine {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	transport := http.DefaultTransport.(*http.Transport)
	return &Engine{opts: opts, anywhere: newClient(transport), public: newClient(outward.Transport(transport, fetchTime))}
}

// hold waits until nobody else changes lists of a tenant, and gives what ends that.
func (e *Engine) hold(tenant imprint.Tenant) func() {
	found, _ := e.one.LoadOrStore(tenant, &sync.Mutex{})
	one := found.(*sync.Mutex)
	one.Lock()
	return one.Unlock
}

// Counters are what an Engine has done.
type Counters struct {
	// Imported lists, Refused ones, and fetches that Failed before there was a list; and
	// certificates that were registered and that a list Revoked.
	Imported, Refused, Failed, Revoked uint64
}

// Counters gives the present counts.
func (e *Engine) Counters() Counters {
	return Counters{Imported: e.imported.Load(), Refused: e.refused.Load(), Failed: e.failed.Load(), Revoked: e.revoked.Load()}
}

// Request brings a list.
type Request struct {
	CA   *x509.Certificate
	Data []byte // PEM or DER; empty: it is fetched from URL
	// URL is where it is fetched from, now and from now on.
	URL string
	// RefuseStale and KeepRegistered change these settings of the CA's lists; nil: as they
	// are, or false.
	RefuseStale, KeepRegistered *bool
}

const (
	// entriesPart is how many entries one transaction writes, deletes, or looks up.
	entriesPart = 1000
	// maxPerCA bounds the lists of one CA.
	maxPerCA = 1000
)

// Import takes a list in the place of the one that the CA has for its scope. The same list
// again changes nothing but settings. Errors: CodeInvalidRequest for a list that can't be
// believed or fetched, or that is older.
func (e *Engine) Import(ctx context.Context, tenant imprint.Tenant, r Request) (imprint.ForeignList, error) {
	data := r.Data
	if r.URL != "" {
		err := checkURL(r.URL)
		if err == nil {
			data, err = e.fetch(ctx, tenant.Account, r.URL)
		}
		if err != nil {
			return imprint.ForeignList{}, err
		}
	}
	crl, err := pki.ParseForeignCRL(data, r.CA, e.opts.Clock())
	if err == nil && r.URL != "" {
		err = scopeOf(crl, r.URL)
	}
	if err != nil {
		e.refused.Add(1)
		return imprint.ForeignList{}, err
	}
	return e.take(ctx, tenant, r, crl)
}

// scopeOf refuses a part of a divided list that was fetched from another part's place.
func scopeOf(crl *pki.ForeignCRL, url string) error {
	if len(crl.Scope) == 0 {
		return nil
	}
	for _, scope := range crl.Scope {
		if scope == url {
			return nil
		}
	}
	return imprint.Errorf(imprint.CodeInvalidRequest, "the list of %s says that it is that of %s", imprint.Excerpt(url), imprint.Excerpt(strings.Join(crl.Scope, " "))).
		WithHint("A divided list counts for the certificates that name its URL: say that one, or import the file.")
}

// take stores a list and its entries, and applies them.
func (e *Engine) take(ctx context.Context, tenant imprint.Tenant, r Request, crl *pki.ForeignCRL) (imprint.ForeignList, error) {
	defer e.hold(tenant)()
	l, err := e.present(ctx, tenant, r.CA, strings.Join(crl.Scope, " "))
	if err != nil {
		return l, err
	}
	if r.RefuseStale != nil {
		l.RefuseStale = *r.RefuseStale
	}
	if r.KeepRegistered != nil {
		l.Applied = l.Applied && (*r.KeepRegistered || !l.KeepRegistered)
		l.KeepRegistered = *r.KeepRegistered
	}
	now := e.opts.Clock()
	l.FetchedAt, l.Failures, l.LastError = now, 0, ""
	if r.URL != "" {
		l.URL = r.URL
	}
	fresh := l.Hash != crl.Hash
	if fresh {
		err = notOlder(&l, crl)
		if err != nil {
			e.refused.Add(1)
			return l, err
		}
		before := l.Generation
		l.Generation++
		err = e.write(ctx, &l, crl)
		if err != nil {
			return l, err
		}
		l.Number, l.ThisUpdate, l.NextUpdate, l.Hash, l.Entries = crl.Number.String(), crl.ThisUpdate, crl.NextUpdate, crl.Hash, int64(crl.Len())
		l.ImportedAt, l.Applied = now, false
		e.opts.Logger.Info("a revocation list was imported", "tenant", tenant.String(), "ca", l.CA, "number", l.Number, "entries", l.Entries, "next", l.NextUpdate, "generation", before+1)
	}
	l.FetchAt = nextFetch(&l, now)
	err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error { return tx.PutForeignList(l) })
	if err != nil {
		return l, fmt.Errorf("couldn't store the revocation list: %w", err)
	}
	if fresh {
		e.imported.Add(1)
	}
	if !l.Applied {
		l, err = e.apply(ctx, l)
	}
	if err == nil {
		err = e.forget(ctx, l.ID, l.Generation)
	}
	return l, err
}

// present gives the list that a CA has for a scope, or a new one.
func (e *Engine) present(ctx context.Context, tenant imprint.Tenant, ca *x509.Certificate, scope string) (imprint.ForeignList, error) {
	id := pki.CertificateID(ca.Raw)
	var all []imprint.ForeignList
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		all, err = tx.ForeignListsOf(tenant, id)
		return err
	})
	if err != nil {
		return imprint.ForeignList{}, fmt.Errorf("couldn't read the CA's lists: %w", err)
	}
	for _, l := range all {
		if l.Scope == scope {
			return l, nil
		}
	}
	if len(all) >= maxPerCA {
		return imprint.ForeignList{}, imprint.Errorf(imprint.CodeLimitExceeded, "the CA has %d lists already", len(all)).WithHint("imprint ca crl forget")
	}
	l := imprint.ForeignList{Tenant: tenant, ID: randomID(), CA: id, CAPEM: pki.EncodeCertificatePEM(ca.Raw), SubjectKey: pki.SubjectKey(ca.RawSubject), Scope: scope, Applied: true}
	if len(all) > 0 {
		l.RefuseStale, l.KeepRegistered = all[0].RefuseStale, all[0].KeepRegistered
	}
	return l, nil
}

// randomID makes a positive number.
func randomID() int64 {
	var raw [8]byte
	// crypto/rand.Read never fails; it ends the program instead.
	_, _ = rand.Read(raw[:])
	return int64(binary.BigEndian.Uint64(raw[:])>>1) | 1
}

// notOlder refuses a list that isn't newer than the one that is there.
func notOlder(l *imprint.ForeignList, crl *pki.ForeignCRL) error {
	before, ok := new(big.Int).SetString(l.Number, 10)
	if !ok {
		return nil // there is none yet
	}
	refusal := func(format string, args ...any) error {
		return imprint.Errorf(imprint.CodeInvalidRequest, format, args...).
			WithHint("An old list would make revoked certificates good again. If the CA began its numbers anew, forget the list first: imprint ca crl forget --ca %s", l.CA)
	}
	switch crl.Number.Cmp(before) {
	case -1:
		return refusal("the list has number %s, and number %s is here", crl.Number, before)
	case 0:
		return refusal("another list with number %s is here", before)
	}
	if crl.ThisUpdate.Before(l.ThisUpdate) {
		return refusal("the list has number %s and is of %s, before number %s of %s", crl.Number, crl.ThisUpdate.UTC().Format(time.RFC3339), before, l.ThisUpdate.UTC().Format(time.RFC3339))
	}
	return nil
}

// write writes the entries of a generation that nobody reads yet. Those of one that was
// begun and never came to be are deleted first.
func (e *Engine) write(ctx context.Context, l *imprint.ForeignList, crl *pki.ForeignCRL) error {
	err := e.forget(ctx, l.ID, l.Generation-1)
	if err != nil {
		return err
	}
	part := make([]imprint.ForeignRevocation, 0, entriesPart)
	put := func() error {
		err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			for _, entry := range part {
				err := tx.PutForeignRevocation(l.ID, l.Generation, entry)
				if err != nil {
					return err
				}
			}
			return nil
		})
		part = part[:0]
		if err != nil {
			return fmt.Errorf("couldn't store the entries: %w", err)
		}
		return nil
	}
	for entry := range crl.Entries {
		part = append(part, entry)
		if len(part) == entriesPart {
			err = put()
			if err != nil {
				return err
			}
		}
	}
	return put()
}

// forget deletes entries of other generations than one.
func (e *Engine) forget(ctx context.Context, list, but int64) error {
	for {
		deleted := 0
		err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			var err error
			deleted, err = tx.DeleteForeignRevocations(list, but, entriesPart)
			return err
		})
		if err != nil {
			return fmt.Errorf("couldn't delete old entries: %w", err)
		}
		if deleted < entriesPart {
			return nil
		}
	}
}

// apply revokes what is on a list and registered already, and remembers that.
func (e *Engine) apply(ctx context.Context, l imprint.ForeignList) (imprint.ForeignList, error) {
	ca, err := pki.ParseCertificatePEM(l.CAPEM)
	if err != nil {
		return l, fmt.Errorf("couldn't read the CA of a revocation list: %w", err)
	}
	for after := ""; !l.KeepRegistered; {
		var found []imprint.ForeignRevocation
		concerned := map[imprint.CertificateID]imprint.ForeignRevocation{}
		err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
			var err error
			found, err = tx.ForeignRevocations(l.ID, l.Generation, after, entriesPart)
			for _, entry := range found {
				if err == nil {
					err = registeredWith(tx, l.Tenant, ca, entry, concerned)
				}
			}
			return err
		})
		if err == nil && len(concerned) > 0 {
			err = e.revoke(ctx, l.Tenant, concerned)
		}
		if err != nil {
			return l, fmt.Errorf("couldn't revoke what is on the list: %w", err)
		}
		if len(found) < entriesPart {
			break
		}
		after = found[len(found)-1].Serial
	}
	err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		present, err := tx.ForeignList(l.ID)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return nil // forgotten meanwhile
		}
		if err != nil || present.Generation != l.Generation {
			return err // the newer list is applied by itself
		}
		present.Applied = true
		l = present
		return tx.PutForeignList(present)
	})
	return l, err
}

// registeredWith finds the tenant's certificates of a CA with a serial number that are in
// use, or may be.
func registeredWith(tx imprint.ReadTx, tenant imprint.Tenant, ca *x509.Certificate, entry imprint.ForeignRevocation, to map[imprint.CertificateID]imprint.ForeignRevocation) error {
	all, err := tx.CertificatesBySerial(tenant, entry.Serial)
	for _, c := range all {
		if c.Status == imprint.CertificateRevoked {
			continue
		}
		cert, parseErr := pki.ParseCertificatePEM(c.PEM)
		if parseErr == nil && string(cert.RawIssuer) == string(ca.RawSubject) && ca.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil {
			to[c.ID] = entry
		}
	}
	return err
}

// revoke makes certificates REVOKED, and INACTIVE those that are on hold: that may end.
func (e *Engine) revoke(ctx context.Context, tenant imprint.Tenant, concerned map[imprint.CertificateID]imprint.ForeignRevocation) error {
	changed := 0
	err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		changed = 0
		for id, entry := range concerned {
			c, err := tx.Certificate(tenant, id)
			if imprint.CodeOf(err) == imprint.CodeNotFound {
				continue
			}
			if err != nil {
				return err
			}
			to := imprint.CertificateRevoked
			if entry.Reason == imprint.ReasonOnHold {
				to = imprint.CertificateInactive
			}
			if c.Status == to || c.Status == imprint.CertificateRevoked || c.Status == imprint.CertificatePendingTransfer {
				continue // one in transfer is refused when it is accepted and activated
			}
			c, err = c.ChangeStatus(to, e.opts.Clock(), uuid.NewString())
			if err != nil {
				return err
			}
			err = tx.PutCertificate(c)
			if err != nil {
				return err
			}
			changed++
		}
		return nil
	})
	if err == nil {
		e.revoked.Add(uint64(changed))
	}
	return err
}

// Settings change how a CA's lists count.
type Settings struct {
	RefuseStale, KeepRegistered *bool
	URL                         *string // empty: it isn't fetched any more
}

// Set changes the settings of all lists of a CA; a URL that of its only one. Errors:
// CodeNotFound.
func (e *Engine) Set(ctx context.Context, tenant imprint.Tenant, ca imprint.CertificateID, s Settings) ([]imprint.ForeignList, error) {
	if s.URL != nil && *s.URL != "" {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "where a list is fetched from is said when it is imported").WithHint("imprint ca crl import --ca CA URL")
	}
	defer e.hold(tenant)()
	var all []imprint.ForeignList
	err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		var err error
		all, err = tx.ForeignListsOf(tenant, ca)
		if err == nil && len(all) == 0 {
			err = noLists(ca)
		}
		for n := range all {
			l := &all[n]
			if s.RefuseStale != nil {
				l.RefuseStale = *s.RefuseStale
			}
			if s.KeepRegistered != nil {
				l.Applied = l.Applied && (*s.KeepRegistered || !l.KeepRegistered)
				l.KeepRegistered = *s.KeepRegistered
			}
			if s.URL != nil {
				l.URL, l.FetchAt, l.Failures, l.LastError = "", time.Time{}, 0, ""
			}
			if err == nil {
				err = tx.PutForeignList(*l)
			}
		}
		return err
	})
	for n := range all {
		if err == nil && !all[n].Applied {
			all[n], err = e.apply(ctx, all[n])
		}
	}
	return all, err
}

func noLists(ca imprint.CertificateID) error {
	return imprint.Errorf(imprint.CodeNotFound, "no revocation list was imported for CA certificate %s", ca).WithHint("imprint ca crl list shows those that were.")
}

// Forget deletes all lists of a CA. What they revoked stays so.
func (e *Engine) Forget(ctx context.Context, tenant imprint.Tenant, ca imprint.CertificateID) error {
	defer e.hold(tenant)()
	var all []imprint.ForeignList
	err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		var err error
		all, err = tx.ForeignListsOf(tenant, ca)
		if err == nil && len(all) == 0 {
			err = noLists(ca)
		}
		for _, l := range all {
			if err == nil {
				err = tx.DeleteForeignList(l.ID)
			}
		}
		return err
	})
	for _, l := range all {
		if err == nil {
			err = e.forget(ctx, l.ID, 0)
		}
	}
	return err
}

// Lists gives a page of a tenant's lists.
func (e *Engine) Lists(ctx context.Context, tenant imprint.Tenant, page imprint.Page) ([]imprint.ForeignList, string, error) {
	var all []imprint.ForeignList
	var next string
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		all, next, err = tx.ForeignLists(tenant, page)
		return err
	})
	return all, next, err
}
