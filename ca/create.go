package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// Spec says what authority to make.
type Spec struct {
	Name       string // may be empty
	Type       imprint.AuthorityType
	RawSubject []byte
	// Kind is that of its key. Default: P-256.
	Kind pki.KeyKind
	// KeyURI is where its key is to be, STORE:LABEL; empty: sealed in the registry.
	KeyURI string
	// KeyIsThere takes the key that is there already, made by other means or left
	// behind by a creation that failed.
	KeyIsThere bool
	// Algorithm is AWS Private CA's name of the one it signs by; empty: the key's own.
	Algorithm string
	// Profile makes its certificate at once: a root's own, or with Parent an
	// intermediate's. Empty: it waits for Import.
	Profile string
	Parent  imprint.AuthorityID
	// NotAfter is when its certificate ends; zero: the profile says.
	NotAfter time.Time
	// Profiles are those that it may sign by; AllProfiles: every one. Empty: those of
	// devices and servers, and those of CAs that Create makes below it.
	Profiles         []string
	SigningEnds      time.Time
	Revocation       imprint.RevocationConfiguration
	ShortLived       bool
	Tags             map[string]string
	IdempotencyToken string
	// TokenFor is how long the token makes repeated requests one; zero: it does not.
	TokenFor time.Duration
	// LastCRLs are, for Adopt, the last ones that the authority signed elsewhere, PEM or DER:
	// what stands there is revoked here, too, and the numbers of its lists go on.
	// IssuedNothing says that there is nothing to revoke.
	LastCRLs      [][]byte
	IssuedNothing bool
	By            string // who asks
}

// MaxAuthorities bounds those of one tenant.
const MaxAuthorities = 1000

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9 ._-]{0,63}$`)

// Create makes an authority and its key. A request with the token of an earlier one, and
// for the same, gets that one's authority. A root with a profile is ACTIVE after, and so is
// an intermediate with profile and parent; others wait for their certificate. Errors:
// CodeInvalidRequest, CodeAlreadyExists for a name, CodeLimitExceeded, those of Issue and
// of the key's store.
func (e *Engine) Create(ctx context.Context, tenant imprint.Tenant, spec Spec) (imprint.CertificateAuthority, error) {
	var a imprint.CertificateAuthority
	err := e.check(&spec)
	if err != nil {
		return a, err
	}
	if spec.IdempotencyToken != "" {
		defer e.tokens.hold("create\x00" + tenant.String() + "\x00" + spec.IdempotencyToken)()
	}
	found := false
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		a, found, err = e.created(tx, tenant, &spec)
		if err != nil || found {
			return err
		}
		return e.mayCreate(tx, tenant, &spec)
	})
	if err != nil || found {
		return a, err
	}
	now := e.opts.Clock()
	a = imprint.CertificateAuthority{
		Tenant: tenant, ID: imprint.AuthorityID(uuid.NewString()), Name: spec.Name, Type: spec.Type, Status: imprint.AuthorityPending,
		Subject: spec.RawSubject, Parent: spec.Parent, Profiles: spec.Profiles, SigningEnds: spec.SigningEnds, Revocation: spec.Revocation,
		ShortLived: spec.ShortLived, Tags: spec.Tags, IdempotencyToken: spec.IdempotencyToken, CreatedAt: now, ChangedAt: now,
	}
	signer, err := e.makeKeyFor(ctx, &a, &spec)
	if err != nil {
		return a, err
	}
	inStore := a.Key != sealedKey
	err = e.register(ctx, &a, signer, &spec)
	if err != nil && inStore && !spec.KeyIsThere {
		err = leftBehind(err, a.Key)
	}
	if err != nil || spec.Profile == "" {
		return a, err
	}
	return e.certify(ctx, a, signer, spec)
}

// register stores a new authority that has its key, and its request for a certificate.
func (e *Engine) register(ctx context.Context, a *imprint.CertificateAuthority, signer pki.Signer, spec *Spec) error {
	refusal := pki.WeakKey(signer.Public())
	if refusal != nil {
		return refusal
	}
	kind := pki.KeyKindOf(signer.Public())
	if spec.Algorithm != "" && strings.HasSuffix(spec.Algorithm, "RSA") != strings.HasPrefix(string(kind), "rsa") {
		return imprint.Errorf(imprint.CodeInvalidRequest, "a key of the kind %s can't sign by %s", kind, spec.Algorithm)
	}
	a.KeyAlgorithm = kindName(signer.Public())
	a.SigningAlgorithm = spec.Algorithm
	if a.SigningAlgorithm == "" {
		a.SigningAlgorithm = defaultAlgorithm(kind)
	}
	var err error
	a.CSR, err = pki.NewSigningRequest(ctx, signer, spec.RawSubject)
	if err != nil {
		return err
	}
	// The row comes first: a crash leaves an authority without a certificate, never a
	// certificate whose key nobody has.
	return e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		err := e.mayCreate(tx, a.Tenant, spec)
		if err != nil {
			return err
		}
		if a.Key != sealedKey {
			err = e.unused(tx, a, signer.Public())
			if err != nil {
				return err
			}
		}
		return e.put(tx, a)
	})
}

// created gives the authority that a request with the same token made, while the token
// holds.
func (e *Engine) created(tx imprint.ReadTx, tenant imprint.Tenant, spec *Spec) (imprint.CertificateAuthority, bool, error) {
	if spec.IdempotencyToken == "" || spec.TokenFor <= 0 {
		return imprint.CertificateAuthority{}, false, nil
	}
	var made imprint.CertificateAuthority
	found := false
	err := each(tx, tenant, func(a *imprint.CertificateAuthority) error {
		// One that was deleted is nobody's answer: its key may be gone.
		if found || a.IdempotencyToken != spec.IdempotencyToken || a.Status == imprint.AuthorityDeleted || e.opts.Clock().Sub(a.CreatedAt) > spec.TokenFor {
			return nil
		}
		made, found = *a, true
		kind := kinds[a.KeyAlgorithm]
		if a.Type != spec.Type || !bytes.Equal(a.Subject, spec.RawSubject) || kind != spec.Kind || spec.Algorithm != "" && a.SigningAlgorithm != spec.Algorithm ||
			a.Name != spec.Name || a.ShortLived != spec.ShortLived || a.Revocation != spec.Revocation || !maps.Equal(a.Tags, spec.Tags) {
			return imprint.Errorf(imprint.CodeInvalidRequest, "the request token was used for another certificate authority, %s", a.ARN()).WithHint("Choose another token.")
		}
		return nil
	})
	return made, found && err == nil, err
}

func checkName(name string) error {
	if name != "" && !namePattern.MatchString(name) {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the name %q isn't 1 to 64 letters, digits, spaces, dots, dashes and underscores, beginning with a letter or digit", imprint.Excerpt(name))
	}
	return nil
}

func (e *Engine) check(spec *Spec) error {
	err := checkName(spec.Name)
	if err != nil {
		return err
	}
	if spec.Type != imprint.AuthorityRoot && spec.Type != imprint.AuthoritySubordinate {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the type %q isn't %s or %s", imprint.Excerpt(string(spec.Type)), imprint.AuthorityRoot, imprint.AuthoritySubordinate)
	}
	if spec.Kind == "" {
		spec.Kind = pki.KeyP256
	}
	if spec.Algorithm != "" && algorithms[spec.Algorithm] == 0 {
		return imprint.Errorf(imprint.CodeInvalidRequest, "signing algorithm %q isn't known", imprint.Excerpt(spec.Algorithm))
	}
	if spec.Algorithm != "" && strings.HasSuffix(spec.Algorithm, "RSA") != strings.HasPrefix(string(spec.Kind), "rsa") {
		return imprint.Errorf(imprint.CodeInvalidRequest, "a key of the kind %s can't sign by %s", spec.Kind, spec.Algorithm)
	}
	if spec.Type == imprint.AuthorityRoot && spec.Parent != "" {
		return imprint.Errorf(imprint.CodeInvalidRequest, "a root has no parent")
	}
	if spec.Type == imprint.AuthoritySubordinate && spec.Profile != "" && spec.Parent == "" {
		return imprint.Errorf(imprint.CodeInvalidRequest, "who signs the intermediate isn't said").WithHint("Name its parent, or let another CA sign its request: imprint ca csr")
	}
	err = e.checkProfiles(spec.Profiles)
	if err != nil {
		return err
	}
	return checkRevocation(spec.Revocation)
}

func checkRevocation(r imprint.RevocationConfiguration) error {
	if r.CRLDays < 0 || r.CRLDays > 5000 || r.CRLShards < 0 || r.CRLShards > 4096 {
		return imprint.Errorf(imprint.CodeInvalidRequest, "a CRL is valid for 1 to 5000 days, and there are at most 4096 of one authority")
	}
	return nil
}

// answerable refuses OCSP where nothing could sign a response.
func answerable(a *imprint.CertificateAuthority) error {
	if a.Revocation.OCSP && a.Key == "" {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the key of certificate authority %s isn't here: nothing can sign OCSP responses", called(a)).
			WithHint("Leave OCSP off, and let the responder be where the key is.")
	}
	return nil
}

func (e *Engine) mayCreate(tx imprint.ReadTx, tenant imprint.Tenant, spec *Spec) error {
	err := e.freeName(tx, tenant, spec.Name)
	if err != nil {
		return err
	}
	count := 0
	err = each(tx, tenant, func(a *imprint.CertificateAuthority) error {
		if !e.gone(a) {
			count++
		}
		return nil
	})
	if err != nil {
		return err
	}
	if count >= MaxAuthorities {
		return imprint.Errorf(imprint.CodeLimitExceeded, "the tenant has %d certificate authorities, as many as allowed", MaxAuthorities).
			WithHint("Delete those that nobody needs.")
	}
	return nil
}

func defaultAlgorithm(kind pki.KeyKind) string {
	switch kind {
	case pki.KeyP256:
		return "SHA256WITHECDSA"
	case pki.KeyP384:
		return "SHA384WITHECDSA"
	}
	return "SHA256WITHRSA"
}

// certify makes the certificate of a new authority.
func (e *Engine) certify(ctx context.Context, a imprint.CertificateAuthority, signer pki.Signer, spec Spec) (imprint.CertificateAuthority, error) {
	profile, err := e.profileOf(&spec)
	if err != nil {
		return a, err
	}
	request := pki.Request{PublicKey: signer.Public(), RawSubject: spec.RawSubject, NotAfter: spec.NotAfter, By: spec.By}
	if spec.Type == imprint.AuthorityRoot {
		issued, err := pki.NewRoot(ctx, a.Tenant, pki.IssuerConfig{
			ID: a.ID, Signer: signer, Algorithm: algorithms[a.SigningAlgorithm], Journal: e.opts.Journal, Clock: e.opts.Clock, Known: e.opts.Known,
		}, profile, request)
		if err != nil {
			return a, e.undo(ctx, &a, &spec, err)
		}
		return e.install(ctx, a.Tenant, a.ID, issued.PEM, "")
	}
	issued, chain, err := e.issue(ctx, a.Tenant, spec.Parent, profile, request, true, nil)
	if err != nil {
		return a, e.undo(ctx, &a, &spec, err)
	}
	return e.install(ctx, a.Tenant, a.ID, issued.PEM, chain)
}

// undoTime bounds the undoing of a creation whose caller went away.
const undoTime = 10 * time.Second

// undo takes away a new authority for which no certificate was made, so that its name is
// free for the next try, and gives why.
func (e *Engine) undo(ctx context.Context, a *imprint.CertificateAuthority, spec *Spec, why error) error {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	err := e.opts.Store.Update(limited, func(tx imprint.Tx) error {
		row, err := tx.Authority(a.Tenant, a.ID)
		if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && row.Certificate != "" {
			return nil // somebody made something of it meanwhile
		}
		if err != nil {
			return err
		}
		return tx.DeleteAuthority(a.Tenant, a.ID)
	})
	if err != nil {
		e.opts.Logger.Error("couldn't take away a certificate authority that got no certificate", "tenant", a.Tenant.String(), "authority", a.ID, "error", err)
	}
	if a.Key != sealedKey && !spec.KeyIsThere {
		return leftBehind(why, a.Key)
	}
	return why
}

// Import gives an authority the certificate that another CA made from its request, with
// those above it, each signed by the next, the root last or left out. Without any it takes
// the newest one that was made here for its key, as a crash may have kept it from having.
// Errors: CodeCertificateValidation, CodeCertificateWeak, CodeAuthorityState, CodeNotFound
// where none is on record.
func (e *Engine) Import(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, certificate, chain string) (imprint.CertificateAuthority, error) {
	if certificate != "" {
		return e.install(ctx, tenant, id, certificate, chain)
	}
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		a, err := e.authority(tx, tenant, id)
		if err != nil {
			return err
		}
		i, err := recorded(tx, &a)
		if err != nil {
			return err
		}
		certificate, chain = pki.EncodeCertificatePEM(i.Certificate), ""
		if i.Authority == id {
			return nil
		}
		by, err := tx.Authority(tenant, i.Authority)
		chain = by.Certificate + by.Chain
		return err
	})
	if err != nil {
		return imprint.CertificateAuthority{}, err
	}
	return e.install(ctx, tenant, id, certificate, chain)
}

func (e *Engine) install(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, certificate, chain string) (imprint.CertificateAuthority, error) {
	var a imprint.CertificateAuthority
	cert, err := pki.ParseCertificatePEM(certificate)
	if err != nil {
		return a, err
	}
	above, err := parseChain(chain)
	if err != nil {
		return a, err
	}
	above, err = e.checkInstall(ctx, &a, cert, above, func(tx imprint.ReadTx) error {
		a, err = tx.Authority(tenant, id)
		return err
	})
	if err != nil {
		return a, err
	}
	err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		a, err = e.installInto(tx, tenant, id, cert, above)
		return err
	})
	return a, err
}

// installInto gives an authority its certificate, which was looked at, with those above it.
func (e *Engine) installInto(tx imprint.Tx, tenant imprint.Tenant, id imprint.AuthorityID, cert *x509.Certificate, above []*x509.Certificate) (imprint.CertificateAuthority, error) {
	a, err := tx.Authority(tenant, id)
	if err == nil {
		err = fits(&a, cert, e.opts.Clock())
	}
	if err == nil {
		err = replaces(tx, &a, cert, above)
	}
	if err == nil {
		err = e.nobodyElses(tx, &a, cert)
	}
	if err != nil {
		return a, err
	}
	// As we write them: a file may lack the last line feed.
	a.Certificate, a.Chain = pki.EncodeCertificatePEM(cert.Raw), chainText(above)
	a.CertificateID, a.Serial, a.SubjectKeyID = pki.CertificateID(cert.Raw), pki.SerialHex(cert.SerialNumber), hex.EncodeToString(cert.SubjectKeyId)
	a.NotBefore, a.NotAfter = cert.NotBefore, cert.NotAfter
	if a.Status != imprint.AuthorityDisabled {
		a.Status = imprint.AuthorityActive
	}
	a.ChangedAt = e.opts.Clock()
	a.Parent, err = signerOf(tx, &a, cert)
	issuer := a.Parent
	if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		issuer = a.ID
	}
	if err == nil {
		err = tx.PutAuthorityCertificate(certificateOf(tenant, cert, a.ID, issuer))
	}
	if err == nil {
		err = e.put(tx, &a)
	}
	if err == nil {
		err = takeBelow(tx, &a, cert)
	}
	if err == nil {
		err = e.takeListed(tx, &a)
	}
	return a, err
}

// takeListed revokes the CAs that an authority signed and that stand on a CRL of before.
func (e *Engine) takeListed(tx imprint.Tx, a *imprint.CertificateAuthority) error {
	made, err := tx.AuthorityCertificatesBy(a.Tenant, a.ID)
	for _, c := range made {
		if err != nil {
			return err
		}
		var listed imprint.AdoptedRevocation
		listed, err = tx.AdoptedRevocation(a.Tenant, a.ID, c.Serial)
		switch {
		case imprint.CodeOf(err) == imprint.CodeNotFound:
			err = nil
		case err == nil && (listed.CertificateID == "" || listed.CertificateID == c.ID):
			err = e.takeCA(tx, a.Tenant, c.ID, listed.Reason, listed.Reason.OfKey())
		}
	}
	return err
}

// takeBelow makes an authority the parent of those that it signed and that came here before
// it.
func takeBelow(tx imprint.Tx, a *imprint.CertificateAuthority, cert *x509.Certificate) error {
	below, err := orphansOf(tx, a.Tenant, cert)
	for _, other := range below {
		if err != nil {
			return err
		}
		other.Parent = a.ID
		var row imprint.AuthorityCertificate
		row, err = tx.AuthorityCertificate(other.Tenant, other.CertificateID)
		if err == nil {
			row.Issuer = a.ID
			err = tx.PutAuthorityCertificate(row)
		}
		if err == nil {
			err = tx.PutAuthority(other)
		}
	}
	return err
}

// orphansOf gives the authorities that a CA signed and that have no parent here.
func orphansOf(tx imprint.ReadTx, tenant imprint.Tenant, cert *x509.Certificate) ([]imprint.CertificateAuthority, error) {
	var below []imprint.CertificateAuthority
	err := each(tx, tenant, func(other *imprint.CertificateAuthority) error {
		if other.Parent != "" || other.Certificate == "" || bytes.Equal(other.Subject, cert.RawSubject) {
			return nil
		}
		own, err := pki.ParseCertificatePEM(other.Certificate)
		if err != nil {
			return fmt.Errorf("couldn't read the certificate of authority %s: %w", called(other), err)
		}
		if bytes.Equal(own.RawIssuer, cert.RawSubject) && own.CheckSignatureFrom(cert) == nil {
			below = append(below, *other)
		}
		return nil
	})
	return below, err
}

// signerOf gives the authority of the tenant that signed a certificate, whichever of its own
// certificates is in the chain; none: it is elsewhere. What that one has revoked isn't
// taken.
func signerOf(tx imprint.ReadTx, a *imprint.CertificateAuthority, cert *x509.Certificate) (imprint.AuthorityID, error) {
	var found imprint.AuthorityID
	err := each(tx, a.Tenant, func(other *imprint.CertificateAuthority) error {
		if other.Certificate == "" && other.ID != a.ID || !bytes.Equal(other.Subject, cert.RawIssuer) {
			return nil
		}
		err := revokedBy(tx, other, cert)
		if err != nil || found != "" || other.ID == a.ID {
			return err
		}
		signer, err := pki.ParseCertificatePEM(other.Certificate)
		if err != nil {
			return fmt.Errorf("couldn't read the certificate of authority %s: %w", called(other), err)
		}
		if cert.CheckSignatureFrom(signer) == nil {
			found = other.ID
		}
		return nil
	})
	return found, err
}

// revokedBy refuses a CA's certificate that an authority revoked.
func revokedBy(tx imprint.ReadTx, issuer *imprint.CertificateAuthority, cert *x509.Certificate) error {
	serial := pki.SerialHex(cert.SerialNumber)
	var at time.Time
	issued, err := tx.IssuanceOf(issuer.Tenant, issuer.ID, serial)
	switch {
	case err == nil && issued.CertificateID == pki.CertificateID(cert.Raw):
		at = issued.RevokedAt
	case err != nil && imprint.CodeOf(err) != imprint.CodeNotFound:
		return err
	default:
		adopted, err := tx.AdoptedRevocation(issuer.Tenant, issuer.ID, serial)
		if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
			return err
		}
		if adopted.CertificateID == "" || adopted.CertificateID == pki.CertificateID(cert.Raw) {
			at = adopted.RevokedAt
		}
	}
	if at.IsZero() {
		return nil
	}
	return imprint.Errorf(imprint.CodeCertificateValidation, "the certificate was revoked at %s", at.Format(time.RFC3339)).
		WithHint("Let the request be signed again.")
}

// fits says whether a certificate may be an authority's.
func fits(a *imprint.CertificateAuthority, cert *x509.Certificate, now time.Time) error {
	if a.Status == imprint.AuthorityDeleted || !a.RevokedAt.IsZero() {
		return imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s is deleted or revoked", called(a))
	}
	if !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return imprint.Errorf(imprint.CodeCertificateValidation, "the certificate isn't a CA's").
			WithHint("Let it be signed with basicConstraints CA:TRUE and keyUsage keyCertSign, cRLSign.")
	}
	err := imprint.ValidityRefusal(cert.NotBefore, cert.NotAfter, now)
	if err != nil {
		return err
	}
	if a.Type == imprint.AuthorityRoot && !selfSigned(cert) {
		return imprint.Errorf(imprint.CodeCertificateValidation, "certificate authority %s is a root, and the certificate is by %s", called(a), pki.SubjectText(cert.RawIssuer)).
			WithHint("A cross-certificate goes to verifiers, with the root's chain; the root keeps its own certificate.")
	}
	if !bytes.Equal(cert.RawSubject, a.Subject) {
		return imprint.Errorf(imprint.CodeCertificateValidation, "the certificate's subject %s isn't that of the request, %s", pki.SubjectText(cert.RawSubject), pki.SubjectText(a.Subject))
	}
	return ofItsKey(a, cert)
}

// ofItsKey refuses a certificate of another key than an authority's: that of its request, or,
// where it was made elsewhere and has none, that of its present certificate. Anybody can make a
// CA of its name.
func ofItsKey(a *imprint.CertificateAuthority, cert *x509.Certificate) error {
	var public crypto.PublicKey
	is, hint := "the request", "Sign the request that imprint ca csr gives now."
	switch {
	case a.CSR != "":
		csr, err := pki.ParseCSRPEM(a.CSR)
		if err != nil {
			return fmt.Errorf("couldn't read the request of authority %s: %w", called(a), err)
		}
		public = csr.PublicKey
	case a.Certificate != "":
		present, err := pki.ParseCertificatePEM(a.Certificate)
		if err != nil {
			return fmt.Errorf("couldn't read the certificate of authority %s: %w", called(a), err)
		}
		public = present.PublicKey
		is, hint = "the present certificate", "A CA of another key is another authority: imprint ca adopt"
	default:
		return nil
	}
	own, comparable := public.(interface{ Equal(crypto.PublicKey) bool })
	if !comparable || !own.Equal(cert.PublicKey) {
		return imprint.Errorf(imprint.CodeCertificateValidation, "the certificate is of another key than that of %s", is).WithHint("%s", hint)
	}
	return nil
}

// maxChain bounds the certificates above one.
const maxChain = 8

func parseChain(text string) ([]*x509.Certificate, error) {
	if text == "" {
		return nil, nil
	}
	all, err := pki.ParseCertificatesPEM(text)
	if err != nil {
		return nil, err
	}
	if len(all) > maxChain {
		return nil, imprint.Errorf(imprint.CodeCertificateValidation, "the chain has %d certificates, at most %d are accepted", len(all), maxChain)
	}
	return all, nil
}
