package pki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
)

// IssuerConfig is what an Authority needs whose key and certificate are there already.
// Certificate, Signer, Journal and Clock must be set.
type IssuerConfig struct {
	ID          imprint.AuthorityID
	Certificate *x509.Certificate
	// Chain are the certificates above it, each signed by the next: what it signs stays
	// within their limits and ends with the first of them. Empty: nothing is known of them.
	Chain  []*x509.Certificate
	Signer Signer
	// Algorithm is that of the signatures. Default: ECDSA with the hash of the curve's
	// size, RSA PKCS #1 v1.5 with SHA-256.
	Algorithm x509.SignatureAlgorithm
	Journal   Journal
	Clock     imprint.Clock
	Points    Points
	Known     *KnownKeys
	// SigningEnds is from when on it signs nothing more; zero: with its certificate.
	SigningEnds time.Time
}

// NewAuthority makes an authority of a key and its certificate. Errors: CodeInvalidRequest
// and CodeCertificateValidation for a certificate that isn't a CA's or another key's, and
// for an algorithm that isn't the key's.
func NewAuthority(config IssuerConfig) (*Authority, error) {
	if config.Certificate == nil || config.Signer == nil || config.Journal == nil || config.Clock == nil {
		return nil, errors.New("couldn't make an authority: certificate, signer, journal and clock must be given")
	}
	refusal := notCA(config.Certificate)
	if refusal != nil {
		return nil, fmt.Errorf("couldn't use the CA: %w", refusal)
	}
	public, comparable := config.Signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !comparable || !public.Equal(config.Certificate.PublicKey) {
		return nil, invalid("the CA's certificate is of another key").WithHint("Import the certificate that was made from this CA's request.")
	}
	if len(config.Certificate.SubjectKeyId) == 0 {
		return nil, invalid("the CA's certificate has no subjectKeyIdentifier (RFC 5280 section 4.2.1.2)").WithHint("Sign it again with subjectKeyIdentifier = hash.")
	}
	return newIssuer(config)
}

// newIssuer does without the checks that a root's own certificate can't pass yet.
func newIssuer(config IssuerConfig) (*Authority, error) {
	a := &Authority{
		id: config.ID, cert: config.Certificate, points: config.Points, known: config.Known, signingEnds: config.SigningEnds,
		signer: config.Signer, journal: config.Journal, clock: config.Clock,
	}
	err := a.takeLimits(config)
	if err != nil {
		return nil, err
	}
	a.algorithm, a.hash, err = signingAlgorithm(config.Signer.Public(), config.Algorithm)
	if err != nil {
		return nil, err
	}
	throwaway, err := throwawayKey(config.Signer.Public())
	if err != nil {
		return nil, fmt.Errorf("couldn't make the throwaway key: %w", err)
	}
	a.filler, err = newFiller(throwaway, a.algorithm)
	if err != nil {
		return nil, err
	}
	a.linter, err = newLinter(subjectLints)
	if err != nil {
		return nil, err
	}
	a.strict, err = newLinter(nil)
	return a, err
}

// takeLimits reads what the authority's certificate and those above it allow.
func (a *Authority) takeLimits(config IssuerConfig) error {
	a.ends = config.Certificate.NotAfter
	if !config.Certificate.BasicConstraintsValid {
		return nil // a root that has no certificate yet
	}
	for _, cert := range append([]*x509.Certificate{config.Certificate}, config.Chain...) {
		l, err := newLimits(cert)
		if err != nil {
			return err
		}
		a.limits = append(a.limits, l)
		if cert.NotAfter.Before(a.ends) {
			a.ends = cert.NotAfter
		}
	}
	return nil
}

// signingAlgorithm checks an algorithm against a key, or chooses it, and gives its hash.
func signingAlgorithm(key crypto.PublicKey, wanted x509.SignatureAlgorithm) (x509.SignatureAlgorithm, crypto.Hash, error) {
	type choice struct {
		algorithm x509.SignatureAlgorithm
		hash      crypto.Hash
	}
	var choices []choice
	switch pub := key.(type) {
	case *rsa.PublicKey:
		choices = []choice{{x509.SHA256WithRSA, crypto.SHA256}, {x509.SHA384WithRSA, crypto.SHA384}, {x509.SHA512WithRSA, crypto.SHA512}}
	case *ecdsa.PublicKey:
		choices = []choice{{x509.ECDSAWithSHA256, crypto.SHA256}, {x509.ECDSAWithSHA384, crypto.SHA384}, {x509.ECDSAWithSHA512, crypto.SHA512}}
		if wanted == 0 && pub.Curve == elliptic.P384() {
			wanted = x509.ECDSAWithSHA384
		}
		if wanted == 0 && pub.Curve == elliptic.P521() {
			wanted = x509.ECDSAWithSHA512
		}
	case ed25519.PublicKey:
		return 0, 0, imprint.Errorf(imprint.CodeInvalidRequest, "CA keys are RSA or ECDSA: AWS IoT Core and many devices can't check Ed25519")
	default:
		return 0, 0, imprint.Errorf(imprint.CodeInvalidRequest, "a %T can't be a CA's key", key)
	}
	if wanted == 0 {
		return choices[0].algorithm, choices[0].hash, nil
	}
	at := slices.IndexFunc(choices, func(c choice) bool { return c.algorithm == wanted })
	if at < 0 {
		return 0, 0, imprint.Errorf(imprint.CodeInvalidRequest, "the CA's key can't sign by %s", wanted)
	}
	return choices[at].algorithm, choices[at].hash, nil
}

// throwawayKey makes a key of the kind of the CA's.
func throwawayKey(key crypto.PublicKey) (crypto.Signer, error) {
	ec, isEC := key.(*ecdsa.PublicKey)
	if isEC {
		return ecdsa.GenerateKey(ec.Curve, rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, 1024)
}

// ID names the authority; empty for the built-in device CA.
func (a *Authority) ID() imprint.AuthorityID { return a.id }

// NewRoot makes a self-signed CA for a key, by a profile of KindRoot, in the two steps
// of every certificate: linted and recorded before the key signs. The request's public
// key is the signer's.
func NewRoot(ctx context.Context, tenant imprint.Tenant, config IssuerConfig, profile *Profile, request Request) (*Issued, error) {
	a, token, err := PrepareRoot(ctx, tenant, config, profile, request)
	if err != nil {
		return nil, err
	}
	return a.Sign(ctx, token)
}

// PrepareRoot is the first step of NewRoot. The authority that it gives signs the token
// and nothing else: it has no certificate yet.
func PrepareRoot(ctx context.Context, tenant imprint.Tenant, config IssuerConfig, profile *Profile, request Request) (*Authority, *Token, error) {
	a, request, err := newRoot(config, profile, request)
	if err != nil {
		return nil, nil, err
	}
	token, err := a.Prepare(ctx, tenant, profile, request)
	if err != nil {
		return nil, nil, err
	}
	return a, token, nil
}

// CheckRoot refuses what PrepareRoot would, and records nothing.
func CheckRoot(config IssuerConfig, profile *Profile, request Request) error {
	a, request, err := newRoot(config, profile, request)
	if err != nil {
		return err
	}
	return a.Check(profile, request)
}

func newRoot(config IssuerConfig, profile *Profile, request Request) (*Authority, Request, error) {
	if profile == nil || profile.kind != KindRoot {
		return nil, request, imprint.Errorf(imprint.CodeInvalidRequest, "a root is made by a profile of the kind %s", KindRoot)
	}
	request.PublicKey = config.Signer.Public()
	subject, err := profile.subjectOf(request)
	if err != nil {
		return nil, request, err
	}
	_, keyID, err := encodedKey(request.PublicKey)
	if err != nil {
		return nil, request, err
	}
	// It stands in for the certificate that is about to be made: what a draft takes
	// from its issuer.
	now := config.Clock()
	// The next second is past the end of what stands in for it.
	config.Clock = func() time.Time { return now }
	notBefore, notAfter := profile.validity(now)
	if !request.NotBefore.IsZero() {
		notBefore = request.NotBefore.UTC().Truncate(time.Second)
	}
	config.Certificate = &x509.Certificate{
		RawSubject: subject, PublicKey: request.PublicKey, SubjectKeyId: keyID, NotBefore: notBefore, NotAfter: notAfter, MaxPathLen: -1,
	}
	a, err := newIssuer(config)
	return a, request, err
}

// NewSoftSigner makes a signer of a key in memory.
func NewSoftSigner(key crypto.Signer) Signer { return softSigner{key} }

// NewSigningRequest makes the PEM of a PKCS #10 request for a CA's key. The key signs
// nothing but the request itself, which no verifier takes for a certificate. Errors: the
// signer's.
func NewSigningRequest(ctx context.Context, signer Signer, rawSubject []byte) (string, error) {
	algorithm, _, err := signingAlgorithm(signer.Public(), 0)
	if err != nil {
		return "", err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: rawSubject, SignatureAlgorithm: algorithm}, boundSigner{ctx, signer})
	if err != nil {
		return "", fmt.Errorf("couldn't make the signing request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// boundSigner gives crypto/x509 a signer for one call.
type boundSigner struct {
	ctx    context.Context
	signer Signer
}

func (b boundSigner) Public() crypto.PublicKey { return b.signer.Public() }

func (b boundSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return b.signer.Sign(b.ctx, digest, opts)
}
