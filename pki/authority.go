package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
)

// Journal keeps the record of signatures, by Issuance.ID. Its methods may be called
// concurrently.
type Journal interface {
	// Record inserts or replaces and returns nil only when that is durable.
	Record(ctx context.Context, issuance imprint.Issuance) error
	// Put does so in a transaction of the caller's, and is durable with it.
	Put(tx imprint.Tx, issuance imprint.Issuance) error
}

// AuthorityConfig is what an Authority needs. Sealer, Journal and Clock must be
// set.
type AuthorityConfig struct {
	Sealer  imprint.Sealer
	Journal Journal
	Clock   imprint.Clock
	// Key is the kind of the CA key when it is made; a CA that is there already
	// keeps its own. Default: KeyRSA2048, whose signatures every device and AWS
	// tool can read.
	Key KeyKind
	// Known are keys that nobody may use, beside the built-in ones.
	Known *KnownKeys
}

// Signer is a CA key. It is package keys' Signer: a key in a module may take long, or
// never answer, and the context ends that. It must be safe for concurrent use.
type Signer interface {
	Public() crypto.PublicKey
	Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error)
}

// softSigner is a key in memory.
type softSigner struct{ crypto.Signer }

func (s softSigner) Sign(_ context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.Signer.Sign(rand.Reader, digest, opts)
}

// Authority is a CA that signs. It is safe for concurrent use.
type Authority struct {
	id     imprint.AuthorityID // empty: the built-in device CA
	cert   *x509.Certificate
	points Points
	known  *KnownKeys
	// limits are those of cert and of the certificates above it, in that order, and ends is
	// when the first of them ends: nothing below outlives any.
	limits []limits
	ends   time.Time
	// signingEnds is from when on nothing more is signed; zero: with the certificate.
	signingEnds time.Time
	// signer is the CA key. Only sign may touch it: that is what makes every
	// signature one of a linted, recorded certificate.
	signer    Signer
	algorithm x509.SignatureAlgorithm
	hash      crypto.Hash
	// filler stands where a draft's signature would. The linter wants one of the
	// CA's kind and doesn't verify it; nobody could, and the bytes to be signed don't
	// depend on it. So one for the life of the process is enough, made by a key that
	// is thrown away. An RSA key for it is of 1024 bits, because all that it must give
	// is the right kind.
	filler filler
	// linter leaves out subjectLints, strict doesn't: a profile says which.
	linter, strict *linter
	journal        Journal
	clock          imprint.Clock
}

const deviceCAName = "device-ca"

// OpenAuthority opens the device CA in dir, and makes it when there is none:
// key and certificate sealed in device-ca.sealed, the certificate in the clear
// in device-ca.pem. A kill at any moment leaves a state from which the next call
// continues.
//
// Errors with a hint: another master key, a damaged file, a certificate whose
// key is gone.
func OpenAuthority(ctx context.Context, dir string, config AuthorityConfig) (*Authority, error) {
	return openAuthority(ctx, dir, config, durableWrites())
}

func openAuthority(ctx context.Context, dir string, config AuthorityConfig, files fileWrites) (*Authority, error) {
	if config.Sealer == nil || config.Journal == nil || config.Clock == nil {
		return nil, errors.New("couldn't open the device CA: sealer, journal and clock must be given")
	}
	err := ctx.Err()
	if err != nil {
		return nil, err
	}
	if config.Key == "" {
		config.Key = KeyRSA2048
	}
	v, err := openVault(dir, config.Sealer, files)
	if err != nil {
		return nil, err
	}
	p, err := v.loadOrCreate(deviceCAName, func() (*pair, error) {
		now := config.Clock()
		// It must outlive the certificates of the default profile.
		end := now.AddDate(25, 0, 0)
		if end.Before(defaultNotAfter()) {
			end = defaultNotAfter()
		}
		return newCA(config.Key, "Imprint device CA", now.Add(-caBackdate), end)
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't open the device CA: %w", err)
	}
	return newAuthority(p, config)
}

func newAuthority(p *pair, config AuthorityConfig) (*Authority, error) {
	return NewAuthority(IssuerConfig{Certificate: p.cert, Signer: softSigner{p.key}, Journal: config.Journal, Clock: config.Clock, Known: config.Known})
}

// Certificate gives the CA's certificate. It must not be changed.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Token is the permission to sign one certificate, made by Prepare alone. All
// copies of a Token are one: it is used up by the first Sign.
type Token struct{ state *tokenState }

type tokenState struct {
	authority *Authority
	used      atomic.Bool
	// tbs is what was linted and what will be signed.
	tbs      []byte
	issuance imprint.Issuance
}

// Issued is a signed certificate.
type Issued struct {
	ID          imprint.CertificateID
	PEM         string
	Certificate *x509.Certificate
}

// ParseIssued reads a certificate of the record.
func ParseIssued(der []byte) (*Issued, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("couldn't read an issued certificate: %w", err)
	}
	return &Issued{ID: CertificateID(cert.Raw), PEM: EncodeCertificatePEM(cert.Raw), Certificate: cert}, nil
}

// Prepare builds the certificate for a request, with a throwaway key's signature in
// the place of its own, lints it and records the intent. The tenant stands in the record.
//
// Errors: CodeCertificateWeak for the key, CodeCertificateValidation for a
// subject that can't stand in a certificate, CodeInternal when the CA or the
// clock doesn't allow the validity, the journal's errors.
func (a *Authority) Prepare(ctx context.Context, tenant imprint.Tenant, profile *Profile, request Request) (*Token, error) {
	err := ctx.Err()
	if err != nil {
		return nil, err
	}
	if profile == nil || tenant == (imprint.Tenant{}) {
		return nil, errors.New("couldn't prepare a certificate: tenant and profile must be given")
	}
	now := a.clock()
	draft, state, err := a.examine(now, profile, request)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(state.tbs)
	state.issuance = imprint.Issuance{
		ID: issuanceID(now), Tenant: tenant, Authority: a.id, Profile: profile.name, Serial: SerialHex(draft.serial),
		Subject: SubjectText(draft.subject), TBSHash: hex.EncodeToString(sum[:]), At: now, NotBefore: draft.notBefore, NotAfter: draft.notAfter,
		RequestedBy: request.By, RequestToken: request.Token, RequestHash: request.tokenHash(profile), Renews: request.Renews,
		KeyHash: hashOf(draft.spki), KeyReusable: profile.reuse, CA: draft.isCA,
	}
	err = a.journal.Record(ctx, state.issuance)
	if err != nil {
		return nil, fmt.Errorf("couldn't record the intent to sign: %w", err)
	}
	return &Token{state: state}, nil
}

// Check refuses what Prepare would, and records nothing.
func (a *Authority) Check(profile *Profile, request Request) error {
	_, _, err := a.examine(a.clock(), profile, request)
	return err
}

// examine builds the certificate for a request, lints it and compares it with the profile.
func (a *Authority) examine(now time.Time, profile *Profile, request Request) (*draft, *tokenState, error) {
	if request.Algorithm != 0 && request.Algorithm != a.algorithm {
		return nil, nil, imprint.Errorf(imprint.CodeInvalidRequest, "the authority signs by %s, not by %s", a.algorithm, request.Algorithm)
	}
	d, err := a.draft(now, profile, request)
	if err != nil {
		return nil, nil, err
	}
	if !a.signingEnds.IsZero() && !now.Before(a.signingEnds) {
		return nil, nil, imprint.Errorf(imprint.CodeCAExpired, "the CA signs nothing more since %s", a.signingEnds.UTC().Format(time.RFC3339)).
			WithHint("Sign with its successor: imprint ca list")
	}
	linter := a.linter
	if profile.subjectLints {
		linter = a.strict
	}
	err = linter.check(d.der)
	if err != nil {
		return nil, nil, err
	}
	state, err := a.inspect(d, profile.kind)
	if err != nil {
		return nil, nil, fmt.Errorf("couldn't prepare a certificate: %w", err)
	}
	return d, state, nil
}

// Sign signs what a token stands for with the CA key and records the
// certificate's id. When the second record fails, the certificate is thrown
// away: nobody gets one that the journal doesn't know.
//
// Errors: CodeInternal for a token that is used up or another authority's; the
// journal's errors.
func (a *Authority) Sign(ctx context.Context, token *Token) (*Issued, error) {
	issued, record, err := a.sign(ctx, token)
	if err != nil {
		return nil, err
	}
	// It may stand nowhere else, as claims of trusted users do.
	record.Certificate = issued.Certificate.Raw
	err = a.journal.Record(ctx, record)
	if err != nil {
		return nil, fmt.Errorf("couldn't record the signed certificate: %w", err)
	}
	return issued, nil
}

// SignInto is Sign for who stores the certificate anyway: one commit makes both
// durable, the certificate's row and its record. Store is called once with what was
// signed. In the transaction in which it stores that it calls record; it may do so
// again when the transaction is run again. It gives the certificate to nobody before
// SignInto has returned it.
//
// Errors: those of Sign and of store; CodeInternal when store returns nil without
// having recorded.
func (a *Authority) SignInto(ctx context.Context, token *Token, store func(issued *Issued, record func(imprint.Tx) error) error) (*Issued, error) {
	issued, entry, err := a.sign(ctx, token)
	if err != nil {
		return nil, err
	}
	recorded := false
	err = store(issued, func(tx imprint.Tx) error {
		err := a.journal.Put(tx, entry)
		if err != nil {
			return fmt.Errorf("couldn't record the signed certificate: %w", err)
		}
		recorded = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !recorded {
		return nil, imprint.Errorf(imprint.CodeInternal, "certificate %s was stored without its record", issued.ID)
	}
	return issued, nil
}

// sign signs what a token stands for. Nobody may get the certificate before the
// journal has the record that stands beside it.
func (a *Authority) sign(ctx context.Context, token *Token) (*Issued, imprint.Issuance, error) {
	var none imprint.Issuance
	if token == nil || token.state == nil || token.state.authority != a {
		return nil, none, imprint.Errorf(imprint.CodeInternal, "couldn't sign: the token isn't this authority's")
	}
	state := token.state
	err := ctx.Err()
	if err != nil {
		return nil, none, err
	}
	if !state.used.CompareAndSwap(false, true) {
		return nil, none, imprint.Errorf(imprint.CodeInternal, "couldn't sign: the token for serial number %s was used before", state.issuance.Serial)
	}
	digest := sha256.Sum256(state.tbs)
	if hex.EncodeToString(digest[:]) != state.issuance.TBSHash {
		return nil, none, imprint.Errorf(imprint.CodeInternal, "couldn't sign: the bytes to be signed changed since they were linted")
	}
	toSign := digest[:]
	if a.hash != crypto.SHA256 {
		h := a.hash.New()
		h.Write(state.tbs)
		toSign = h.Sum(nil)
	}
	signature, err := a.signer.Sign(ctx, toSign, a.hash)
	if err != nil {
		return nil, none, fmt.Errorf("couldn't sign with the CA key: %w", err)
	}
	cert, err := a.assemble(state, signature)
	if err != nil {
		return nil, none, err
	}
	record := state.issuance
	record.CertificateID = CertificateID(cert.Raw)
	if a.id != "" {
		record.Certificate = cert.Raw
	}
	return &Issued{ID: record.CertificateID, PEM: EncodeCertificatePEM(cert.Raw), Certificate: cert}, record, nil
}

// assemble puts the signature behind the bytes that were signed and checks the
// result as a stranger would.
func (a *Authority) assemble(state *tokenState, signature []byte) (*x509.Certificate, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(state.tbs)+len(a.filler.algorithm)+len(signature)+16))
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(state.tbs)
		b.AddBytes(a.filler.algorithm)
		b.AddASN1BitString(signature)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("couldn't put the certificate together: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("couldn't read back the signed certificate: %w", err)
	}
	if !bytes.Equal(cert.RawTBSCertificate, state.tbs) {
		return nil, imprint.Errorf(imprint.CodeInternal, "the signed certificate isn't the linted one")
	}
	err = a.cert.CheckSignature(a.algorithm, cert.RawTBSCertificate, cert.Signature)
	if err != nil {
		return nil, fmt.Errorf("couldn't verify the signature that the CA key made: %w", err)
	}
	return cert, nil
}

// issuanceID sorts by time: milliseconds, then 80 random bits.
func issuanceID(now time.Time) string {
	var tail [10]byte
	_, _ = rand.Read(tail[:]) // never fails; crypto/rand ends the program instead
	return fmt.Sprintf("%012x%x", max(now.UnixMilli(), 0), tail)
}
