package iot

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/pki"
)

// caRegistration is a checked request of RegisterCACertificate.
type caRegistration struct {
	ca           imprint.CACertificate
	cert         *x509.Certificate
	verification *x509.Certificate // nil when none was sent
	code         string            // the registration code that it was checked with
	tags         []Tag
}

// registerCA registers a CA, in mode DEFAULT with proof that the caller has its
// key, in mode SNI_ONLY without (AWS IoT developer guide, "Register your CA
// certificate"; AWS IoT API reference, RegisterCACertificate).
func (s *Service) registerCA(ctx context.Context, caller awsapi.Caller, in *RegisterCACertificateInput) (*RegisterCACertificateOutput, error) {
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	code, err := view(ctx, s, func(tx imprint.ReadTx) (string, error) { return registrationCode(tx, tenant) })
	if err != nil {
		return nil, err
	}
	// Signatures are checked here and not in the transaction, where all other
	// writers would wait for it.
	registration, err := s.checkCARequest(tenant, code, in)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*RegisterCACertificateOutput, error) {
		err := s.storeCA(tx, registration)
		if err != nil {
			return nil, err
		}
		return &RegisterCACertificateOutput{CertificateArn: registration.ca.ARN(), CertificateId: string(registration.ca.ID)}, nil
	})
}

// checkCARequest checks everything that needs no store but the code.
func (s *Service) checkCARequest(tenant imprint.Tenant, code string, in *RegisterCACertificateInput) (*caRegistration, error) {
	cert, err := pki.ParseCertificatePEM(in.CaCertificate)
	if err != nil {
		return nil, fmt.Errorf("caCertificate: %w", err)
	}
	mode := imprint.ModeDefault
	if in.CertificateMode != nil {
		mode = imprint.CertificateMode(*in.CertificateMode)
	}
	var verification *x509.Certificate
	if in.VerificationCertificate != nil {
		// In mode SNI_ONLY the certificate is refused whatever it is.
		verification = &x509.Certificate{}
		if mode == imprint.ModeDefault {
			verification, err = pki.ParseCertificatePEM(*in.VerificationCertificate)
		}
		if err != nil {
			return nil, fmt.Errorf("verificationCertificate: %w", err)
		}
	}
	err = pki.CheckCARegistration(cert, verification, code, mode, s.rooms.Clock())
	if err != nil {
		return nil, err
	}
	registration := &caRegistration{ca: s.newCA(tenant, cert, in, mode), cert: cert, verification: verification, code: code, tags: in.Tags}
	registration.ca.Registration, err = parseRegistrationConfig(in.RegistrationConfig)
	if err != nil {
		return nil, err
	}
	err = checkTags(in.Tags)
	if err != nil {
		return nil, err
	}
	first, err := firstConnectionOf(in.Tags)
	if first != nil {
		registration.ca.FirstConnection = *first
	}
	return registration, err
}

// storeCA checks the registration against what is stored, and stores it.
func (s *Service) storeCA(tx imprint.Tx, registration *caRegistration) error {
	ca := registration.ca
	code, err := registrationCode(tx, ca.Tenant)
	if err != nil {
		return err
	}
	if code != registration.code {
		// Deleted, or made anew, since the check.
		err = pki.CheckCARegistration(registration.cert, registration.verification, code, ca.Mode, ca.CreatedAt)
	}
	if err != nil {
		return err
	}
	err = checkNewCA(tx, ca)
	if err != nil {
		return err
	}
	err = s.refuseRevoked(tx, ca.Tenant, registration.cert)
	if err != nil {
		return err
	}
	err = checkTemplateName(tx, ca.Tenant, ca.Registration)
	if err != nil {
		return err
	}
	err = tx.PutCA(ca)
	if err != nil {
		return fmt.Errorf("couldn't store CA certificate %s: %w", ca.ID, err)
	}
	return putTags(tx, ca.Tenant, ca.ARN(), registration.tags)
}

// checkNewCA says whether the CA may be in its tenant beside those that are
// registered: once in a tenant, in mode DEFAULT once in a region, and at most
// imprint.MaxCAsPerSubject of one subject in a tenant.
func checkNewCA(tx imprint.ReadTx, ca imprint.CACertificate) error {
	_, err := tx.CA(ca.Tenant, ca.ID)
	if err == nil {
		return imprint.Errorf(imprint.CodeAlreadyExists, "The CA certificate is already registered.").WithResource(string(ca.ID), ca.ARN())
	}
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return fmt.Errorf("couldn't look for CA certificate %s: %w", ca.ID, err)
	}
	err = checkOnlyDefault(tx, ca)
	if err != nil {
		return err
	}
	same, err := tx.CAsBySubject(ca.Tenant, ca.SubjectKey)
	if err != nil {
		return fmt.Errorf("couldn't look for CA certificates of the subject %s: %w", ca.Subject, err)
	}
	if len(same) >= imprint.MaxCAsPerSubject {
		return imprint.Errorf(imprint.CodeLimitExceeded, "%d CA certificates with the subject %q are registered, at most %d are allowed",
			len(same), ca.Subject, imprint.MaxCAsPerSubject).
			WithHint("Delete those that sign no more, or give the new CA another subject.")
	}
	return nil
}

// checkOnlyDefault says whether a CA in mode DEFAULT is the only one of its
// region; other modes have no such rule.
func checkOnlyDefault(tx imprint.ReadTx, ca imprint.CACertificate) error {
	if ca.Mode != imprint.ModeDefault {
		return nil
	}
	registrations, err := tx.CATenants(ca.Tenant.Region, ca.ID)
	if err != nil {
		return fmt.Errorf("couldn't look for CA certificate %s in other accounts: %w", ca.ID, err)
	}
	for _, other := range registrations {
		if other.Mode == imprint.ModeDefault {
			// Whose it is, is not for this caller to know.
			return imprint.Errorf(imprint.CodeAlreadyExists, "The CA certificate is already registered in mode DEFAULT by another account of this region.").
				WithHint("One account of a region can hold a CA in mode DEFAULT; register it with --certificate-mode SNI_ONLY.").
				WithResource(string(ca.ID), "")
		}
	}
	return nil
}
