package iot

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/pki"
)

// keyWait is how long CreateKeysAndCertificate waits for a key when the pool is
// empty.
const keyWait = 20 * time.Second

// createKeysAndCertificate makes an RSA-2048 key and a certificate for it. The
// private key is in the answer and nowhere else.
func (s *Service) createKeysAndCertificate(ctx context.Context, caller awsapi.Caller, in *CreateKeysAndCertificateInput) (*CreateKeysAndCertificateOutput, error) {
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	pair, err := s.takeKey(ctx, tenant.Account)
	if err != nil {
		return nil, err
	}
	defer pair.Destroy()
	cert, err := s.issue(ctx, tenant, pki.Request{PublicKey: pair.Public()}, in.SetAsActive)
	if err != nil {
		return nil, err
	}
	return &CreateKeysAndCertificateOutput{
		CertificateArn: cert.ARN(), CertificateId: string(cert.ID), CertificatePem: cert.PEM,
		KeyPair: &KeyPair{PublicKey: string(pair.PublicPEM()), PrivateKey: string(pair.PrivatePEM())},
	}, nil
}

func (s *Service) takeKey(ctx context.Context, account imprint.AccountID) (*pki.KeyPair, error) {
	ctx, cancel := context.WithTimeout(ctx, keyWait)
	defer cancel()
	pair, err := s.rooms.Keys.Take(ctx, account)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeUnavailable, "no key is ready: %w", err).
			WithHint("Retry with back-off, or make keys on the devices and use create-certificate-from-csr.")
	}
	return pair, nil
}

// createCertificateFromCSR makes a certificate for the key and the subject of a
// signing request. Each call makes another one.
func (s *Service) createCertificateFromCSR(ctx context.Context, caller awsapi.Caller, in *CreateCertificateFromCsrInput) (*CreateCertificateFromCsrOutput, error) {
	csr, err := pki.ParseCSRPEM(in.CertificateSigningRequest)
	if err != nil {
		return nil, asCSRError(err)
	}
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	cert, err := s.issue(ctx, tenant, pki.Request{PublicKey: csr.PublicKey, RawSubject: csr.RawSubject}, in.SetAsActive)
	if err != nil {
		return nil, asCSRError(err)
	}
	return &CreateCertificateFromCsrOutput{CertificateArn: cert.ARN(), CertificateId: string(cert.ID), CertificatePem: cert.PEM}, nil
}

// asCSRError gives what is wrong with a signing request the code that
// CreateCertificateFromCsr declares: it has no CertificateValidationException.
func asCSRError(err error) error {
	switch imprint.CodeOf(err) {
	case imprint.CodeCertificateValidation, imprint.CodeCertificateWeak:
		return &imprint.Error{Code: imprint.CodeInvalidRequest, Op: "certificateSigningRequest", Err: err, Hint: imprint.HintOf(err)}
	}
	return err
}

// issue signs a certificate in pki's two steps and registers it in mode DEFAULT.
// It returns once that and the record of its signature are durable, by one commit. A
// certificate that was signed and couldn't be stored stands in the record of
// signatures as an intent and is given to nobody.
func (s *Service) issue(ctx context.Context, tenant imprint.Tenant, request pki.Request, setAsActive *bool) (imprint.Certificate, error) {
	token, err := s.rooms.Authority.Prepare(ctx, tenant, s.rooms.Profile, request)
	if err != nil {
		return imprint.Certificate{}, fmt.Errorf("couldn't prepare the certificate: %w", err)
	}
	var cert imprint.Certificate
	_, err = s.rooms.Authority.SignInto(ctx, token, func(issued *pki.Issued, record func(imprint.Tx) error) error {
		cert = s.newCertificate(tenant, issued.Certificate, issued.PEM)
		if setAsActive != nil && *setAsActive {
			cert.Status = imprint.CertificateActive
		}
		_, err := update(ctx, s, func(tx imprint.Tx) (imprint.Certificate, error) {
			err := tx.PutCertificate(cert)
			if err != nil {
				return cert, fmt.Errorf("couldn't store certificate %s: %w", cert.ID, err)
			}
			return cert, record(tx)
		})
		return err
	})
	if err != nil {
		return imprint.Certificate{}, fmt.Errorf("couldn't sign the certificate: %w", err)
	}
	return cert, nil
}

// newCertificate describes a certificate as it is registered: INACTIVE, in mode
// DEFAULT, without a CA.
func (s *Service) newCertificate(tenant imprint.Tenant, cert *x509.Certificate, text string) imprint.Certificate {
	now := s.rooms.Clock()
	return imprint.Certificate{
		Tenant: tenant, ID: pki.CertificateID(cert.Raw), PEM: text,
		Status: imprint.CertificateInactive, Mode: imprint.ModeDefault, OwnedBy: tenant.Account,
		Serial: pki.SerialHex(cert.SerialNumber), Subject: pki.SubjectText(cert.RawSubject),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, CreatedAt: now, ModifiedAt: now,
		CustomerVersion: 1, GenerationID: newGeneration(),
	}
}
