package iot

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
)

// registerCertificate registers a certificate that a registered CA signed.
func (s *Service) registerCertificate(ctx context.Context, caller awsapi.Caller, in *RegisterCertificateInput) (*RegisterCertificateOutput, error) {
	status, err := initialStatus(in.Status, in.SetAsActive)
	if err != nil {
		return nil, err
	}
	leaf, err := s.parseDevice(in.CertificatePem)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	if now.After(leaf.NotAfter) {
		return nil, asValidation(imprint.ValidityRefusal(leaf.NotBefore, leaf.NotAfter, now))
	}
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	ca, err := s.signerOf(ctx, tenant, leaf, in.CaCertificatePem)
	if err != nil {
		return nil, err
	}
	err = checkSigner(ca, now)
	if err != nil {
		return nil, err
	}
	cert := s.newCertificate(tenant, leaf, in.CertificatePem)
	cert.Status, cert.Mode, cert.CAID = status, ca.Mode, ca.ID
	err = s.storeRegistered(ctx, cert, leaf)
	if err != nil {
		return nil, err
	}
	return &RegisterCertificateOutput{CertificateArn: cert.ARN(), CertificateId: string(cert.ID)}, nil
}

// registerCertificateWithoutCA registers a certificate by itself: nobody asks
// who signed it, and devices must name their tenant by SNI.
func (s *Service) registerCertificateWithoutCA(ctx context.Context, caller awsapi.Caller, in *RegisterCertificateWithoutCAInput) (*RegisterCertificateWithoutCAOutput, error) {
	status, err := initialStatus(in.Status, nil)
	if err != nil {
		return nil, err
	}
	leaf, err := s.parseDevice(in.CertificatePem)
	if err != nil {
		return nil, err
	}
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	cert := s.newCertificate(tenant, leaf, in.CertificatePem)
	cert.Status, cert.Mode = status, imprint.ModeSNIOnly
	err = s.storeRegistered(ctx, cert, leaf)
	if err != nil {
		return nil, err
	}
	return &RegisterCertificateWithoutCAOutput{CertificateArn: cert.ARN(), CertificateId: string(cert.ID)}, nil
}

// initialStatus gives the status that a registration asks for: status when it is
// there, else the deprecated setAsActive, else INACTIVE.
func initialStatus(status *CertificateStatus, setAsActive *bool) (imprint.CertificateStatus, error) {
	if status == nil {
		if setAsActive != nil && *setAsActive {
			return imprint.CertificateActive, nil
		}
		return imprint.CertificateInactive, nil
	}
	switch *status {
	case CertificateStatusActive, CertificateStatusInactive, CertificateStatusRevoked:
		return imprint.CertificateStatus(*status), nil
	}
	return "", imprint.Errorf(imprint.CodeInvalidRequest, "a certificate can't be registered as %s", *status).
		WithHint("ACTIVE, INACTIVE and REVOKED can be asked for.")
}

// parseDevice reads a certificate whose key and signature algorithm are
// acceptable.
func (s *Service) parseDevice(text string) (*x509.Certificate, error) {
	leaf, err := pki.ParseCertificatePEM(text)
	if err != nil {
		return nil, fmt.Errorf("certificatePem: %w", err)
	}
	policy := pki.DevicePolicy()
	policy.Known = s.rooms.Known
	refusal := policy.CheckKey(leaf)
	if refusal != nil {
		return nil, asValidation(refusal)
	}
	return leaf, nil
}

// asValidation gives what the devices' door would refuse the code that the
// control plane has for it.
func asValidation(err error) error {
	return &imprint.Error{Code: imprint.CodeCertificateValidation, Op: "couldn't accept the certificate", Err: err, Hint: imprint.HintOf(err)}
}

// signerOf finds the registered CA that signed a leaf: the one that the caller
// names by its PEM, or the only one that it can be. Errors:
// CodeCertificateValidation when there is none, CodeCertificateConflict when
// registered CAs of one subject and one key can't be told apart.
func (s *Service) signerOf(ctx context.Context, tenant imprint.Tenant, leaf *x509.Certificate, named *string) (imprint.CACertificate, error) {
	if named != nil {
		return s.namedSigner(ctx, tenant, leaf, *named)
	}
	candidates, err := view(ctx, s, func(tx imprint.ReadTx) ([]imprint.CACertificate, error) {
		return tx.CAsBySubject(tenant, pki.SubjectKey(leaf.RawIssuer))
	})
	if err != nil {
		return imprint.CACertificate{}, fmt.Errorf("couldn't look for the certificate's CA: %w", err)
	}
	parsed := make([]*x509.Certificate, len(candidates))
	for i, ca := range candidates {
		parsed[i], err = pki.ParseCertificatePEM(ca.PEM)
		if err != nil {
			return imprint.CACertificate{}, imprint.Errorf(imprint.CodeInternal, "couldn't read CA certificate %s of the store: %w", ca.ID, err)
		}
	}
	chosen, err := pki.PickIssuer(leaf, parsed)
	if err != nil {
		return imprint.CACertificate{}, asValidation(err)
	}
	for i, other := range parsed {
		if i != chosen && bytes.Equal(other.RawSubjectPublicKeyInfo, parsed[chosen].RawSubjectPublicKeyInfo) {
			return imprint.CACertificate{}, imprint.Errorf(imprint.CodeCertificateConflict,
				"CA certificates %s and %s have the same subject and key, and either may have signed the certificate", candidates[chosen].ID, candidates[i].ID)
		}
	}
	return candidates[chosen], nil
}

// namedSigner gives the registered CA with a PEM text, if it signed the leaf.
func (s *Service) namedSigner(ctx context.Context, tenant imprint.Tenant, leaf *x509.Certificate, text string) (imprint.CACertificate, error) {
	parsed, err := pki.ParseCertificatePEM(text)
	if err != nil {
		return imprint.CACertificate{}, fmt.Errorf("caCertificatePem: %w", err)
	}
	id := pki.CertificateID(parsed.Raw)
	ca, err := view(ctx, s, func(tx imprint.ReadTx) (imprint.CACertificate, error) { return tx.CA(tenant, id) })
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return imprint.CACertificate{}, imprint.Errorf(imprint.CodeCertificateValidation, "the CA certificate %s that caCertificatePem holds isn't registered", id).
			WithHint("Register it first: aws iot register-ca-certificate.")
	case err != nil:
		return imprint.CACertificate{}, fmt.Errorf("couldn't read CA certificate %s: %w", id, err)
	}
	_, err = pki.PickIssuer(leaf, []*x509.Certificate{parsed})
	if err != nil {
		return imprint.CACertificate{}, asValidation(err)
	}
	return ca, nil
}

// checkSigner says whether a CA may sign new registrations now.
func checkSigner(ca imprint.CACertificate, now time.Time) error {
	if ca.Status != imprint.CAActive {
		return inactiveCA(ca)
	}
	refusal := imprint.ValidityRefusal(ca.NotBefore, ca.NotAfter, now)
	if refusal != nil {
		return &imprint.Error{Code: imprint.CodeCertificateValidation, Op: "couldn't accept the CA " + string(ca.ID), Err: refusal,
			Hint: imprint.Describe(imprint.CodeCAExpired).Hint}
	}
	return nil
}

// storeRegistered stores a certificate that isn't registered in its tenant yet.
// Its CA must still be what it was when it was looked at, and its issuer mustn't have revoked
// it, unless it is registered as what it is.
func (s *Service) storeRegistered(ctx context.Context, cert imprint.Certificate, leaf *x509.Certificate) error {
	_, err := update(ctx, s, func(tx imprint.Tx) (imprint.Certificate, error) {
		err := checkNewCertificate(tx, cert)
		if err == nil {
			err = refuseNoDevice(tx, cert)
		}
		if err != nil {
			return cert, err
		}
		if cert.Status != imprint.CertificateRevoked {
			err = s.refuseRevoked(tx, cert.Tenant, leaf)
			if err != nil {
				return cert, err
			}
		}
		if cert.CAID != "" {
			ca, err := tx.CA(cert.Tenant, cert.CAID)
			if err != nil {
				return cert, explainLostCA(err, cert.CAID)
			}
			if ca.Status != imprint.CAActive {
				return cert, inactiveCA(ca)
			}
		}
		err = tx.PutCertificate(cert)
		if err != nil {
			return cert, fmt.Errorf("couldn't store certificate %s: %w", cert.ID, err)
		}
		return cert, nil
	})
	return err
}

// refuseNoDevice refuses what the server knows as another thing than a device: a trusted
// user's claim, which would end with it, and, of what is registered by its CA, a registered
// CA itself, which first connections refuse, too.
func refuseNoDevice(tx imprint.ReadTx, cert imprint.Certificate) error {
	_, err := tx.ProvisioningClaim(cert.Tenant, cert.ID)
	if err == nil {
		return imprint.Errorf(imprint.CodeCertificateValidation, "the certificate is a trusted user's claim, not a device's").
			WithHint("Register the certificate that the device got for the claim.")
	}
	if imprint.CodeOf(err) == imprint.CodeNotFound && cert.CAID != "" {
		_, err = tx.CA(cert.Tenant, cert.ID)
		if err == nil {
			return imprint.Errorf(imprint.CodeCertificateValidation, "the certificate is registered CA %s itself, not one of its devices", cert.ID).
				WithHint("Register a certificate that the CA signed, with a key of the device's own.")
		}
	}
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	return fmt.Errorf("couldn't look for certificate %s among claims and CAs: %w", cert.ID, err)
}

// refuseRevoked refuses what a certificate authority of this server, or an imported list,
// revoked.
func (s *Service) refuseRevoked(tx imprint.ReadTx, tenant imprint.Tenant, cert *x509.Certificate) error {
	_, err := revoked.Check(tx, tenant, cert, s.rooms.Clock())
	if revoked.Is(err) {
		return asValidation(err)
	}
	return err
}

func explainLostCA(err error, ca imprint.CertificateID) error {
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return imprint.Errorf(imprint.CodeCertificateValidation, "CA certificate %s was deleted just now", ca)
	}
	return fmt.Errorf("couldn't read CA certificate %s: %w", ca, err)
}

// checkNewCertificate says whether a certificate may be registered beside the
// registrations that it has: once in a tenant, and in one account of a region
// alone when a registration is in mode DEFAULT (AWS IoT developer guide,
// "Register a client certificate", multi-account registration).
func checkNewCertificate(tx imprint.ReadTx, cert imprint.Certificate) error {
	present, err := tx.Certificate(cert.Tenant, cert.ID)
	if err == nil {
		return imprint.Errorf(imprint.CodeAlreadyExists, "The certificate is already provisioned or registered").
			WithResource(string(cert.ID), present.ARN())
	}
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return fmt.Errorf("couldn't look for certificate %s: %w", cert.ID, err)
	}
	registrations, err := tx.CertificateTenants(cert.ID)
	if err != nil {
		return fmt.Errorf("couldn't look for certificate %s in other accounts: %w", cert.ID, err)
	}
	for _, other := range registrations {
		if other.Tenant.Region != cert.Tenant.Region || (other.Mode != imprint.ModeDefault && cert.Mode != imprint.ModeDefault) {
			continue
		}
		// Whose it is, is not for this caller to know.
		return imprint.Errorf(imprint.CodeAlreadyExists, "The certificate is already registered by another account of this region, and one of the registrations would be in mode DEFAULT").
			WithHint("Several accounts of a region can hold a certificate if all register it in mode SNI_ONLY.").
			WithResource(string(cert.ID), "")
	}
	return nil
}
