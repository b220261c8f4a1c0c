package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
)

// Keys makes and opens keys that aren't sealed in the registry: those of modules, TPMs and
// key services (package pki/keys). A name is STORE:LABEL, of a store that the server's
// operator named: who calls the API can reach no other place.
type Keys interface {
	// Check says whether a tenant may have a key of a name. It opens nothing.
	Check(tenant imprint.Tenant, name string) error
	// Open gives the key of a name. Engine keeps it open.
	Open(ctx context.Context, name string) (pki.Signer, error)
	// Generate makes a key of a kind and gives the name that is its from then on.
	Generate(ctx context.Context, name string, kind pki.KeyKind) (string, pki.Signer, error)
	// Stores lists the names of a tenant's stores.
	Stores(tenant imprint.Tenant) []KeyStore
	// List tells which keys are in one of them.
	List(ctx context.Context, tenant imprint.Tenant, store string) ([]StoredKey, error)
}

// KeyStore is a place of keys that the operator named.
type KeyStore struct {
	Name string
	Kind string // file, pkcs11, tpm or awskms
}

// StoredKey is a key that is in a store.
type StoredKey struct {
	Name        string // STORE:LABEL; empty: it can't be used
	Label       string
	Kind        string
	Public      crypto.PublicKey // nil: it isn't known
	Extractable bool
	Problem     string // why it can't be used
}

// Options are what an Engine needs. Store, Sealer, Journal, Clock and Profiles must be set.
type Options struct {
	Store    imprint.Store
	Sealer   imprint.Sealer
	Journal  pki.Journal
	Clock    imprint.Clock
	Profiles *pki.Profiles
	Known    *pki.KnownKeys
	Keys     Keys // nil: keys sealed in the registry alone
	// Renewed runs in the transaction in which a device's certificate that renews another
	// becomes one; nil: nothing is done about the old one. Signer is the certificate of the
	// authority.
	Renewed func(tx imprint.Tx, tenant imprint.Tenant, old imprint.CertificateID, issued *pki.Issued, signer imprint.CertificateID) error
	// BaseURL is where CRLs, OCSP responses and CA certificates are served, such as
	// http://pki.example.com; empty: certificates name no such places.
	BaseURL string
	// Refused is told of each request for a certificate that is refused; nil: nobody is.
	Refused func(context.Context, Refusal)
	Logger  *slog.Logger
}

// Engine is the authorities of all tenants. It is safe for concurrent use.
type Engine struct {
	opts      Options
	stopWatch func()

	mu   sync.Mutex
	open map[place]*opened
	// changes counts the commits that changed authorities: what was read before one isn't
	// kept as open after it.
	changes uint64

	tokens locks

	publishers publishers

	responders responders
	shelf      shelf

	tally tally
}

type place struct {
	tenant imprint.Tenant
	id     imprint.AuthorityID
	// algorithm is that of the signatures; zero: the authority's own.
	algorithm x509.SignatureAlgorithm
	// telling is an authority that signs CRLs and OCSP responses, in any state.
	telling bool
}

// opened is an authority whose key is open, with the row that it was opened for.
type opened struct {
	signing *pki.Authority
	row     imprint.CertificateAuthority
}

// maxOpen bounds the authorities whose keys are in memory.
const maxOpen = 1024

// New makes an Engine. Close ends it.
func New(opts Options) *Engine {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	e := &Engine{opts: opts, open: map[place]*opened{}}
	e.stopWatch = opts.Store.Watch(e.changed)
	return e
}

// Close forgets all keys.
func (e *Engine) Close() {
	e.stopWatch()
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.open)
	e.responders.forget()
}

// Profiles gives the profiles that it issues by.
func (e *Engine) Profiles() *pki.Profiles { return e.opts.Profiles }

// changed forgets authorities that a commit changed, before anybody is told of it.
func (e *Engine) changed(changes []imprint.Change) {
	for _, c := range changes {
		if c.Kind != imprint.ChangeAuthority {
			continue
		}
		e.mu.Lock()
		e.changes++
		// One change may bear on all below it: what is open is looked up anew.
		for at := range e.open {
			if at.tenant == c.Tenant {
				delete(e.open, at)
			}
		}
		e.mu.Unlock()
		e.responders.leave(place{tenant: c.Tenant, id: imprint.AuthorityID(c.Key)})
	}
}

// Authority gives one by its id.
func (e *Engine) Authority(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID) (imprint.CertificateAuthority, error) {
	var a imprint.CertificateAuthority
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := e.authority(tx, tenant, id)
		a = found
		return err
	})
	return a, err
}

// authority gives one that can be seen: a deleted one whose time is over is gone, also
// before it is taken away.
func (e *Engine) authority(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.AuthorityID) (imprint.CertificateAuthority, error) {
	a, err := tx.Authority(tenant, id)
	if err == nil && e.gone(&a) {
		return imprint.CertificateAuthority{}, imprint.NotFoundAuthority(id)
	}
	return a, err
}

func (e *Engine) gone(a *imprint.CertificateAuthority) bool {
	return a.Status == imprint.AuthorityDeleted && !a.RestorableUntil.After(e.opts.Clock())
}

// Find gives one by its id, its ARN or its name.
func (e *Engine) Find(ctx context.Context, tenant imprint.Tenant, text string) (imprint.CertificateAuthority, error) {
	var a imprint.CertificateAuthority
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		a, err = e.find(tx, tenant, text)
		return err
	})
	return a, err
}

func (e *Engine) find(tx imprint.ReadTx, tenant imprint.Tenant, text string) (imprint.CertificateAuthority, error) {
	prefix := tenant.AuthorityARN("")
	if len(text) > len(prefix) && text[:len(prefix)] == prefix {
		text = text[len(prefix):]
	}
	id, err := imprint.ParseAuthorityID(text)
	if err == nil {
		return e.authority(tx, tenant, id)
	}
	return tx.AuthorityNamed(tenant, text)
}

// Status gives the state at a time: EXPIRED follows from the certificate.
func Status(a *imprint.CertificateAuthority, now time.Time) imprint.AuthorityStatus {
	if a.Status == imprint.AuthorityActive && !a.NotAfter.IsZero() && now.After(a.NotAfter) {
		return imprint.AuthorityExpired
	}
	return a.Status
}

// state refuses authorities that may not sign.
func state(a *imprint.CertificateAuthority, now time.Time) error {
	status := Status(a, now)
	switch {
	case !a.RevokedAt.IsZero():
		return imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s was revoked at %s", called(a), a.RevokedAt.Format(time.RFC3339)).
			WithHint("Make another one: a revoked CA's certificates are refused.")
	case status != imprint.AuthorityActive:
		return imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s is %s", called(a), status).WithHint("%s", nextStep(status))
	case a.Key == "":
		return imprint.Errorf(imprint.CodeAuthorityState, "the key of certificate authority %s isn't here", called(a)).
			WithHint("Sign where its key is, and import the certificates.")
	}
	return nil
}

func nextStep(status imprint.AuthorityStatus) string {
	switch status {
	case imprint.AuthorityPending:
		return "Sign its request with the CA above it and import the certificate: imprint ca import"
	case imprint.AuthorityDisabled:
		return "imprint ca update --status ACTIVE"
	case imprint.AuthorityDeleted:
		return "imprint ca restore, while it can be"
	case imprint.AuthorityExpired:
		return "Sign with its successor."
	}
	return ""
}

// called is what people know an authority by.
func called(a *imprint.CertificateAuthority) string {
	if a.Name != "" {
		return a.Name
	}
	return string(a.ID)
}

// signing gives an authority that may sign now, with its key. The algorithm is that of
// its signatures; zero: its own.
func (e *Engine) signing(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, algorithm x509.SignatureAlgorithm) (*opened, error) {
	at := place{tenant: tenant, id: id, algorithm: algorithm}
	e.mu.Lock()
	found, seen := e.open[at], e.changes
	e.mu.Unlock()
	if found != nil {
		return found, state(&found.row, e.opts.Clock())
	}
	var row imprint.CertificateAuthority
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		row, err = tx.Authority(tenant, id)
		if err != nil {
			return err
		}
		err = e.unbroken(tx, &row)
		if err == nil {
			row.Chain, err = wholeChain(tx, &row)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = state(&row, e.opts.Clock())
	if err != nil {
		return nil, err
	}
	found, err = e.openRow(ctx, &row, algorithm)
	if err != nil {
		return nil, err
	}
	e.keepOpen(at, found, seen)
	return found, nil
}

// generation counts the commits that changed authorities.
func (e *Engine) generation() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changes
}

// keepOpen keeps an authority whose row was read at a generation, unless it is stale by now.
func (e *Engine) keepOpen(at place, one *opened, seen uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.changes != seen {
		return
	}
	if len(e.open) >= maxOpen {
		for other := range e.open { // any: the others needn't be opened again
			delete(e.open, other)
			break
		}
	}
	e.open[at] = one
}

// openRow opens an authority's key, whatever its state: what it revoked must be told for as
// long as its certificate counts.
func (e *Engine) openRow(ctx context.Context, row *imprint.CertificateAuthority, algorithm x509.SignatureAlgorithm) (*opened, error) {
	cert, err := pki.ParseCertificatePEM(row.Certificate)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the certificate of authority %s: %w", called(row), err)
	}
	chain, err := parseChain(row.Chain)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the chain of authority %s: %w", called(row), err)
	}
	signer, err := e.openKey(ctx, row)
	if err != nil {
		return nil, err
	}
	if algorithm == 0 {
		algorithm = algorithms[row.SigningAlgorithm]
	}
	authority, err := pki.NewAuthority(pki.IssuerConfig{
		ID: row.ID, Certificate: cert, Chain: chain, Signer: signer, Algorithm: algorithm, Journal: e.opts.Journal, Clock: e.opts.Clock,
		Points: e.points(row), Known: e.opts.Known, SigningEnds: row.SigningEnds,
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't use authority %s: %w", called(row), err)
	}
	return &opened{signing: authority, row: *row}, nil
}

// maxDepth bounds how many authorities stand above one.
const maxDepth = 10

// unlisted refuses an authority that an imported list of a CA elsewhere has, or has one above
// it. Its certificate is read only where there are lists.
func (e *Engine) unlisted(tx imprint.ReadTx, a *imprint.CertificateAuthority) error {
	found, err := revoked.AnyLists(tx, a.Tenant)
	if err != nil || !found || a.Certificate == "" {
		return err
	}
	cert, err := pki.ParseCertificatePEM(a.Certificate)
	if err != nil {
		return fmt.Errorf("couldn't read the certificate of authority %s: %w", called(a), err)
	}
	_, err = revoked.Listed(tx, a.Tenant, cert, e.opts.Clock())
	if revoked.Is(err) {
		return imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s signs nothing: %w", called(a), err).
			WithHint("Make another one below a CA that is trusted, or import a newer list if that says otherwise: imprint ca crl import")
	}
	return err
}

// unbroken refuses an authority below one that was revoked, and one that an imported list of
// a CA elsewhere has, or has one above it.
func (e *Engine) unbroken(tx imprint.ReadTx, a *imprint.CertificateAuthority) error {
	err := e.unlisted(tx, a)
	if err != nil {
		return err
	}
	above := a.Parent
	for range maxDepth {
		if above == "" {
			return nil
		}
		parent, err := tx.Authority(a.Tenant, above)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return nil // it never had a certificate: those that had keep their row, also when they are gone
		}
		if err != nil {
			return err
		}
		if !parent.RevokedAt.IsZero() {
			return imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s, above %s, was revoked at %s", called(&parent), called(a), parent.RevokedAt.Format(time.RFC3339)).
				WithHint("Make another one below a CA that is trusted.")
		}
		above = parent.Parent
	}
	return imprint.Errorf(imprint.CodeAuthorityState, "more than %d authorities stand above %s", maxDepth, called(a))
}

// points are the URLs in what an authority signs.
func (e *Engine) points(a *imprint.CertificateAuthority) pki.Points {
	var p pki.Points
	at := pathOf(a)
	base := e.opts.BaseURL
	if base == "" {
		base = a.CRLs.Base
	}
	if l := e.layoutOf(a); a.Revocation.CRL && l.Base != "" {
		p.CRL, p.CRLShards = crlURL(a, l), l.Shards
	}
	url := base
	if a.Revocation.OCSPHost != "" {
		url = "http://" + a.Revocation.OCSPHost
	}
	if a.Revocation.OCSP && url != "" {
		p.OCSP = url + "/ocsp/" + at
	}
	if base != "" && (a.Revocation.CRL || a.Revocation.OCSP) {
		p.Issuer = base + "/ca/" + at + ".cer"
	}
	return p
}

// algorithms are AWS Private CA's names of signature algorithms.
var algorithms = map[string]x509.SignatureAlgorithm{
	"SHA256WITHECDSA": x509.ECDSAWithSHA256, "SHA384WITHECDSA": x509.ECDSAWithSHA384, "SHA512WITHECDSA": x509.ECDSAWithSHA512,
	"SHA256WITHRSA": x509.SHA256WithRSA, "SHA384WITHRSA": x509.SHA384WithRSA, "SHA512WITHRSA": x509.SHA512WithRSA,
}

// AlgorithmOf gives the signature algorithm of AWS Private CA's name.
func AlgorithmOf(name string) (x509.SignatureAlgorithm, bool) {
	algorithm, known := algorithms[name]
	return algorithm, known
}

// kinds are AWS Private CA's names of key algorithms.
var kinds = map[string]pki.KeyKind{
	"RSA_2048": pki.KeyRSA2048, "RSA_3072": pki.KeyRSA3072, "RSA_4096": pki.KeyRSA4096, "EC_prime256v1": pki.KeyP256, "EC_secp384r1": pki.KeyP384,
}

// KindOf gives the key kind of AWS Private CA's name.
func KindOf(name string) (pki.KeyKind, bool) {
	kind, known := kinds[name]
	return kind, known
}

func kindName(key crypto.PublicKey) string {
	kind := pki.KeyKindOf(key)
	for name, known := range kinds {
		if known == kind {
			return name
		}
	}
	return ""
}
