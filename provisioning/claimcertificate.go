package provisioning

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
)

// keyWait is how long a request waits for a key when the pool is empty.
const keyWait = 10 * time.Second

// createKeys makes a key and a certificate for it. The private key is in the
// answer and nowhere else.
func (d *demand) createKeys(ctx context.Context) (any, error) {
	err := d.call.format.decode(d.Payload, &struct{}{})
	if err != nil {
		return nil, d.step("claim.payload", err)
	}
	wait, cancel := context.WithTimeout(ctx, keyWait)
	defer cancel()
	pair, err := d.rooms.Keys.Take(wait, d.Tenant.Account)
	if err != nil {
		return nil, d.step("claim.key", imprint.Errorf(imprint.CodeThrottled, "no key was ready in %s: %w", keyWait, err).
			WithHint("Let devices make their keys and send a CSR, or raise --rsa-key-pool."))
	}
	defer pair.Destroy()
	body, err := d.issue(ctx, pki.Request{PublicKey: pair.Public()})
	if err != nil {
		return nil, d.step("claim.certificate", err)
	}
	body.PrivateKey = string(pair.PrivatePEM())
	return body, nil
}

// createFromCSR makes a certificate for a device's own key, or has the tenant's
// certificate provider make it.
func (d *demand) createFromCSR(ctx context.Context) (any, error) {
	var in csrRequest
	err := d.call.format.decode(d.Payload, &in)
	if err == nil && in.CSR == "" {
		err = imprint.Errorf(imprint.CodeClaimRequest, "the payload has no certificateSigningRequest")
	}
	if err != nil {
		return nil, d.step("claim.payload", err)
	}
	csr, err := pki.ParseCSRPEM(in.CSR)
	if err != nil {
		return nil, d.step("claim.csr", err)
	}
	if d.provider != nil {
		cert, err := d.askProvider(ctx, *d.provider, in.CSR, csr)
		if err != nil {
			return nil, d.step("claim.provider", err)
		}
		body, err := d.give(ctx, cert, pki.EncodeCertificatePEM(cert.Raw), nil)
		if err != nil {
			return nil, d.step("claim.certificate", err)
		}
		return body, nil
	}
	body, err := d.issue(ctx, pki.Request{PublicKey: csr.PublicKey, RawSubject: csr.RawSubject})
	if err != nil {
		return nil, d.step("claim.certificate", err)
	}
	return body, nil
}

// issue makes a certificate in pki's two steps and gives it out. One commit has
// its row and the record of its signature.
func (d *demand) issue(ctx context.Context, request pki.Request) (*createdBody, error) {
	token, err := d.rooms.Authority.Prepare(ctx, d.Tenant, d.rooms.Profile, request)
	if err != nil {
		return nil, fmt.Errorf("couldn't prepare the certificate: %w", err)
	}
	var body *createdBody
	_, err = d.rooms.Authority.SignInto(ctx, token, func(issued *pki.Issued, record func(imprint.Tx) error) error {
		var err error
		body, err = d.give(ctx, issued.Certificate, issued.PEM, record)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't sign the certificate: %w", err)
	}
	return body, nil
}

// sign makes a certificate that is in no registry, in pki's two steps.
func (c *Claims) sign(ctx context.Context, profile *pki.Profile, request pki.Request, tenant imprint.Tenant) (*pki.Issued, error) {
	token, err := c.rooms.Authority.Prepare(ctx, tenant, profile, request)
	if err != nil {
		return nil, fmt.Errorf("couldn't prepare the certificate: %w", err)
	}
	issued, err := c.rooms.Authority.Sign(ctx, token)
	if err != nil {
		return nil, fmt.Errorf("couldn't sign the certificate: %w", err)
	}
	return issued, nil
}

// createFromCSROperation is what a certificate provider answers.
const createFromCSROperation = "CreateCertificateFromCsr"

// signingProvider is the tenant's provider for signing requests, nil when the
// built-in CA signs.
func signingProvider(tx imprint.ReadTx, tenant imprint.Tenant) (*imprint.CertificateProvider, error) {
	providers, err := tx.CertificateProviders(tenant)
	if err != nil {
		return nil, fmt.Errorf("couldn't look for a certificate provider: %w", err)
	}
	for n := range providers {
		if slices.Contains(providers[n].Operations, createFromCSROperation) {
			return &providers[n], nil
		}
	}
	return nil, nil
}

// askProvider has a function sign a request (developer guide, "Self-managed
// certificate signing using AWS IoT Core certificate provider").
func (d *demand) askProvider(ctx context.Context, p imprint.CertificateProvider, request string, csr *x509.CertificateRequest) (*x509.Certificate, error) {
	payload, err := json.Marshal(struct {
		CSR       string `json:"certificateSigningRequest"`
		Principal string `json:"principalId"`
		ClientID  string `json:"clientId"`
	}{request, string(d.Claim), string(d.ClientID)})
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the certificate provider's event: %w", err)
	}
	result, took, err := d.invoke(ctx, p.FunctionARN, p.ARN(), payload)
	if err != nil {
		return nil, wrapFunction(imprint.CodeProviderFailed, "certificate provider "+p.Name, p.FunctionARN, err)
	}
	var text string
	err = readMembers(result.Payload, map[string]any{"certificatePem": &text})
	if err != nil || text == "" {
		return nil, imprint.Errorf(imprint.CodeProviderFailed, "certificate provider %s answered no certificatePem: %s", p.Name, imprint.Excerpt(string(result.Payload)))
	}
	cert, err := pki.ParseCertificatePEM(text)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeProviderFailed, "certificate provider %s answered what isn't a certificate: %w", p.Name, err)
	}
	key, comparable := csr.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !comparable || !key.Equal(cert.PublicKey) {
		return nil, imprint.Errorf(imprint.CodeProviderFailed, "certificate provider %s answered a certificate for another key than the request's", p.Name)
	}
	if cert.IsCA {
		return nil, imprint.Errorf(imprint.CodeProviderFailed, "certificate provider %s answered a CA certificate (basicConstraints CA:TRUE), which a device mustn't have: it could sign others", p.Name)
	}
	refusal := d.engine.checkKey(cert)
	if refusal != nil {
		return nil, imprint.Errorf(imprint.CodeProviderFailed, "certificate provider %s answered a certificate that isn't accepted: %w", p.Name, refusal)
	}
	refusal = imprint.ValidityRefusal(cert.NotBefore, cert.NotAfter, d.now)
	if refusal != nil {
		return nil, imprint.Errorf(imprint.CodeProviderFailed, "certificate provider %s answered a certificate that can't be used: %w", p.Name, refusal)
	}
	if len(cert.Raw) > maxCertificate {
		return nil, imprint.Errorf(imprint.CodeProviderFailed, "certificate provider %s answered a certificate of %d bytes, at most %d are taken", p.Name, len(cert.Raw), maxCertificate)
	}
	d.Rec.OK("claim.provider", "certificate provider %s signed in %s", p.Name, took)
	return cert, nil
}

// give registers a certificate PENDING_ACTIVATION together with its ownership
// token, and makes the answer that hands both out. Record, if there is one, writes
// what else belongs into the transaction.
func (d *demand) give(ctx context.Context, cert *x509.Certificate, text string, record func(imprint.Tx) error) (*createdBody, error) {
	id := pki.CertificateID(cert.Raw)
	token, hash := newOwnershipToken(id)
	row := d.Claims.row(d.Tenant, cert, text)
	row.Attempt = d.Rec.StoredID()
	pending := imprint.PendingCertificate{
		Tenant: d.Tenant, Certificate: id, Claim: d.Claim, ClientID: d.ClientID, TokenHash: hash,
		CreatedAt: d.now, ExpiresAt: d.now.Add(d.opts.TokenLifetime),
	}
	err := d.store.Update(ctx, func(tx imprint.Tx) error {
		// What the CA has just signed, under a serial number of its own, nobody can have
		// registered before, or revoked.
		if record == nil {
			err := d.checkProvided(tx, cert, row)
			if err != nil {
				return err
			}
		}
		err := tx.PutCertificate(row)
		if err != nil {
			return fmt.Errorf("couldn't store certificate %s: %w", id, err)
		}
		err = tx.PutPendingCertificate(pending)
		if err != nil {
			return fmt.Errorf("couldn't store the ownership of certificate %s: %w", id, err)
		}
		if record == nil {
			return nil
		}
		return record(tx)
	})
	if err != nil {
		return nil, err
	}
	d.count.created.Add(1)
	d.Rec.Made("claim.certificate", id, "certificate %s is registered PENDING_ACTIVATION; its token is good until %s", id, pending.ExpiresAt.UTC().Format(time.RFC3339))
	return &createdBody{CertificateID: string(id), CertificatePEM: text, Token: token}, nil
}

// checkProvided refuses a certificate provider's certificate that is registered already, or
// was revoked.
func (d *demand) checkProvided(tx imprint.ReadTx, cert *x509.Certificate, row imprint.Certificate) error {
	err := checkUnregistered(tx, row)
	if err != nil {
		return err
	}
	_, err = revoked.Check(tx, d.Tenant, cert, d.now)
	if revoked.Is(err) {
		return imprint.Errorf(imprint.CodeProviderFailed, "the certificate provider answered a certificate that can't be used: %w", err)
	}
	return err
}

// row is a certificate without a registered CA, as fleet provisioning gives it
// out.
func (c *Claims) row(tenant imprint.Tenant, cert *x509.Certificate, text string) imprint.Certificate {
	now := c.clock()
	return imprint.Certificate{
		Tenant: tenant, ID: pki.CertificateID(cert.Raw), PEM: text, Status: imprint.CertificatePendingActivation,
		Mode: imprint.ModeDefault, OwnedBy: tenant.Account, Serial: pki.SerialHex(cert.SerialNumber), Subject: pki.SubjectText(cert.RawSubject),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, CreatedAt: now, ModifiedAt: now, CustomerVersion: 1, GenerationID: uuid.NewString(),
	}
}

// checkUnregistered refuses a certificate that is registered already: in the
// tenant, or in another account of its region, where one of the two would be in
// mode DEFAULT.
func checkUnregistered(tx imprint.ReadTx, cert imprint.Certificate) error {
	registrations, err := tx.CertificateTenants(cert.ID)
	if err != nil {
		return fmt.Errorf("couldn't look for certificate %s: %w", cert.ID, err)
	}
	for _, other := range registrations {
		if other.Tenant == cert.Tenant {
			return imprint.Errorf(imprint.CodeAlreadyExists, "certificate %s is registered already", cert.ID).WithResource(string(cert.ID), cert.ARN())
		}
		if other.Tenant.Region == cert.Tenant.Region && (other.Mode == imprint.ModeDefault || cert.Mode == imprint.ModeDefault) {
			return imprint.Errorf(imprint.CodeCertificateConflict, "certificate %s is registered in another account of the region, and one of the registrations would be in mode DEFAULT", cert.ID)
		}
	}
	return nil
}

// An ownership token names its certificate and holds a secret:
// version (1) | certificate id (32) | secret (32), in base64.
const (
	tokenVersion  = 1
	tokenIDSize   = 32
	tokenSecret   = 32
	tokenSize     = 1 + tokenIDSize + tokenSecret
	maxTokenBytes = 4096
)

// newOwnershipToken makes a token, and what the store knows it by.
func newOwnershipToken(id imprint.CertificateID) (token, hash string) {
	raw := make([]byte, tokenSize)
	raw[0] = tokenVersion
	_, _ = hex.Decode(raw[1:], []byte(id)) // ids are 64 hex digits
	_, _ = rand.Read(raw[1+tokenIDSize:])  // never fails; crypto/rand ends the program instead
	sum := sha256.Sum256(raw[1+tokenIDSize:])
	return base64.RawURLEncoding.EncodeToString(raw), hex.EncodeToString(sum[:])
}

// readOwnershipToken is its inverse.
func readOwnershipToken(token string) (id imprint.CertificateID, hash string, err error) {
	if token == "" {
		return "", "", imprint.Errorf(imprint.CodeClaimToken, "Certificate ownership token cannot be empty.").
			WithHint("Send the token that came with the certificate, as the member certificateOwnershipToken, spelt like that.")
	}
	malformed := imprint.Errorf(imprint.CodeClaimToken, "the certificate ownership token is malformed")
	if len(token) > maxTokenBytes {
		return "", "", malformed
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != tokenSize || raw[0] != tokenVersion {
		return "", "", malformed
	}
	sum := sha256.Sum256(raw[1+tokenIDSize:])
	return imprint.CertificateID(hex.EncodeToString(raw[1 : 1+tokenIDSize])), hex.EncodeToString(sum[:]), nil
}

// checkToken decides whether a token's hash is the one of what waits, and good
// for a claim now.
func (c *Claims) checkToken(p imprint.PendingCertificate, hash string, claim imprint.CertificateID, now time.Time) error {
	switch {
	case subtle.ConstantTimeCompare([]byte(p.TokenHash), []byte(hash)) != 1:
		return imprint.Errorf(imprint.CodeClaimToken, "the certificate ownership token isn't one of this server's")
	case p.Used:
		return errTokenUsed(p.Certificate)
	case now.After(p.ExpiresAt):
		return imprint.Errorf(imprint.CodeClaimToken, "the certificate ownership token expired at %s", p.ExpiresAt.UTC().Format(time.RFC3339))
	case p.Claim != claim && !c.opts.AnyClaim:
		refusal := imprint.Errorf(imprint.CodeClaimToken, "the certificate ownership token was given to claim certificate %s", p.Claim).
			WithHint("Register with the claim certificate that asked for the token, or let the server take tokens from any: --claim-token-any-claim.")
		return told{refusal, "The certificate ownership token is invalid."}
	}
	return nil
}

func errTokenUsed(id imprint.CertificateID) error {
	return imprint.Errorf(imprint.CodeClaimToken, "the certificate ownership token was used already, for certificate %s", id).
		WithHint(hintRegistered)
}

const hintRegistered = "The device is registered: it connects with that certificate, or begins anew with another."
