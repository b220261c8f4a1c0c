package iot

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
)

// certificateRoutes are the operations on device certificates (AWS IoT API
// reference).
func (s *Service) certificateRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateKeysAndCertificate, s.createKeysAndCertificate),
		awsapi.Handle(CreateCertificateFromCsr, s.createCertificateFromCSR),
		awsapi.Handle(RegisterCertificate, s.registerCertificate),
		awsapi.Handle(RegisterCertificateWithoutCA, s.registerCertificateWithoutCA),
		awsapi.HandleFor(DescribeCertificate, func(c awsapi.Caller, in *DescribeCertificateInput) string {
			return certificateResource(c, "cert/", in.CertificateId)
		}, s.describeCertificate),
		awsapi.Handle(ListCertificates, s.listCertificates),
		awsapi.HandleFor(ListCertificatesByCA, func(c awsapi.Caller, in *ListCertificatesByCAInput) string {
			return certificateResource(c, "cacert/", in.CaCertificateId)
		}, s.listCertificatesByCA),
		awsapi.HandleFor(UpdateCertificate, func(c awsapi.Caller, in *UpdateCertificateInput) string {
			return certificateResource(c, "cert/", in.CertificateId)
		}, s.updateCertificate),
		awsapi.HandleFor(DeleteCertificate, func(c awsapi.Caller, in *DeleteCertificateInput) string {
			return certificateResource(c, "cert/", in.CertificateId)
		}, s.deleteCertificate),
	}
}

// describeCertificate describes a device certificate.
func (s *Service) describeCertificate(ctx context.Context, caller awsapi.Caller, in *DescribeCertificateInput) (*DescribeCertificateOutput, error) {
	id, err := imprint.ParseCertificateID(in.CertificateId)
	if err != nil {
		return nil, err
	}
	cert, err := view(ctx, s, func(tx imprint.ReadTx) (imprint.Certificate, error) {
		return certificateOf(tx, tenantOf(caller), id)
	})
	if err != nil {
		return nil, err
	}
	return &DescribeCertificateOutput{CertificateDescription: &CertificateDescription{
		CertificateArn: cert.ARN(), CertificateId: string(cert.ID), CaCertificateId: string(cert.CAID),
		Status: CertificateStatus(cert.Status), CertificatePem: cert.PEM,
		OwnedBy: string(cert.OwnedBy), PreviousOwnedBy: string(cert.PreviousOwner),
		CreationDate: cert.CreatedAt, LastModifiedDate: cert.ModifiedAt,
		CustomerVersion: new(cert.CustomerVersion), GenerationId: cert.GenerationID,
		Validity:        &CertificateValidity{NotBefore: cert.NotBefore, NotAfter: cert.NotAfter},
		CertificateMode: CertificateMode(cert.Mode),
	}}, nil
}

// listCertificates lists by creation time, newest first unless the caller asks
// otherwise.
func (s *Service) listCertificates(ctx context.Context, caller awsapi.Caller, in *ListCertificatesInput) (*ListCertificatesOutput, error) {
	items, next, err := s.certificatePage(ctx, caller, "", page(in.PageSize, in.Marker, in.AscendingOrder))
	if err != nil {
		return nil, err
	}
	return &ListCertificatesOutput{Certificates: items, NextMarker: next}, nil
}

// listCertificatesByCA lists those that a CA signed. It need not be registered
// any more; an id that no CA ever had gives an empty list.
func (s *Service) listCertificatesByCA(ctx context.Context, caller awsapi.Caller, in *ListCertificatesByCAInput) (*ListCertificatesByCAOutput, error) {
	ca, err := imprint.ParseCertificateID(in.CaCertificateId)
	if err != nil {
		return nil, err
	}
	items, next, err := s.certificatePage(ctx, caller, ca, page(in.PageSize, in.Marker, in.AscendingOrder))
	if err != nil {
		return nil, err
	}
	return &ListCertificatesByCAOutput{Certificates: items, NextMarker: next}, nil
}

func (s *Service) certificatePage(ctx context.Context, caller awsapi.Caller, ca imprint.CertificateID, p imprint.Page) ([]Certificate, string, error) {
	var items []Certificate
	next, err := view(ctx, s, func(tx imprint.ReadTx) (string, error) {
		certs, next, err := tx.Certificates(tenantOf(caller), ca, p)
		items = make([]Certificate, 0, len(certs))
		for _, cert := range certs {
			items = append(items, Certificate{CertificateArn: cert.ARN(), CertificateId: string(cert.ID),
				Status: CertificateStatus(cert.Status), CertificateMode: CertificateMode(cert.Mode), CreationDate: cert.CreatedAt})
		}
		return next, err
	})
	return items, next, err
}

// updateCertificate sets ACTIVE, INACTIVE or REVOKED; the present status is no
// error.
func (s *Service) updateCertificate(ctx context.Context, caller awsapi.Caller, in *UpdateCertificateInput) (*UpdateCertificateOutput, error) {
	id, err := imprint.ParseCertificateID(in.CertificateId)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*UpdateCertificateOutput, error) {
		present, err := certificateOf(tx, tenantOf(caller), id)
		if err != nil {
			return nil, err
		}
		next, err := present.ChangeStatus(imprint.CertificateStatus(in.NewStatus), s.rooms.Clock(), newGeneration())
		if err != nil || next.Status == present.Status {
			return nil, err
		}
		err = checkActivation(tx, next, s.rooms.Clock())
		if err != nil {
			return nil, err
		}
		err = tx.PutCertificate(next)
		if err != nil {
			return nil, fmt.Errorf("couldn't change certificate %s: %w", id, err)
		}
		return nil, nil
	})
}

// checkActivation refuses to make a certificate ACTIVE that its issuer revoked, and while its
// CA is INACTIVE; one that was deleted since forbids nothing.
func checkActivation(tx imprint.ReadTx, cert imprint.Certificate, now time.Time) error {
	if cert.Status != imprint.CertificateActive {
		return nil
	}
	leaf, err := pki.ParseCertificatePEM(cert.PEM)
	if err != nil {
		return imprint.Errorf(imprint.CodeInternal, "couldn't read certificate %s of the store: %w", cert.ID, err)
	}
	_, err = revoked.Check(tx, cert.Tenant, leaf, now)
	if imprint.CodeOf(err) == imprint.CodeRevocationListStale {
		err = nil // it is registered: only newcomers need a current list
	}
	if revoked.Is(err) {
		return &imprint.Error{Code: imprint.CodeCertificateState, Op: "couldn't activate the certificate", Err: err, Hint: imprint.HintOf(err)}
	}
	if err != nil || cert.CAID == "" {
		return err
	}
	ca, err := tx.CA(cert.Tenant, cert.CAID)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return nil
	case err != nil:
		return fmt.Errorf("couldn't read CA certificate %s: %w", cert.CAID, err)
	case ca.Status != imprint.CAActive:
		return inactiveCA(ca)
	}
	return nil
}

func inactiveCA(ca imprint.CACertificate) error {
	return imprint.Errorf(imprint.CodeCertificateState, "CA certificate %s, which signed the certificate, is %s", ca.ID, ca.Status).
		WithHint("Run: aws iot update-ca-certificate --new-status ACTIVE --certificate-id %s", ca.ID)
}

// deleteCertificate deletes a certificate that is not ACTIVE and that nothing is
// attached to. forceDelete detaches policies, and nothing else. The order of
// the checks is AWS IoT Core's.
func (s *Service) deleteCertificate(ctx context.Context, caller awsapi.Caller, in *DeleteCertificateInput) (*DeleteCertificateOutput, error) {
	id, err := imprint.ParseCertificateID(in.CertificateId)
	if err != nil {
		return nil, err
	}
	force := in.ForceDelete != nil && *in.ForceDelete
	return update(ctx, s, func(tx imprint.Tx) (*DeleteCertificateOutput, error) {
		cert, err := certificateOf(tx, tenantOf(caller), id)
		if err != nil {
			return nil, err
		}
		err = checkDeletable(tx, cert)
		if err != nil {
			return nil, err
		}
		err = dropPolicies(tx, cert, force)
		if err != nil {
			return nil, err
		}
		err = tx.DeleteCertificate(cert.Tenant, id)
		if err != nil {
			return nil, fmt.Errorf("couldn't delete certificate %s: %w", id, err)
		}
		return nil, nil
	})
}

func checkDeletable(tx imprint.ReadTx, cert imprint.Certificate) error {
	switch cert.Status {
	case imprint.CertificateActive:
		return imprint.Errorf(imprint.CodeCertificateState, "Certificate must be deactivated (not ACTIVE) before deletion. Id: %s", cert.ID)
	case imprint.CertificatePendingTransfer:
		return imprint.Errorf(imprint.CodeCertificateState, "Certificate is being transferred (PENDING_TRANSFER). Id: %s", cert.ID)
	}
	things, _, err := tx.CertificateThings(cert.Tenant, cert.ID, imprint.Page{Limit: 1})
	if err != nil {
		return fmt.Errorf("couldn't read the things of certificate %s: %w", cert.ID, err)
	}
	if len(things) > 0 {
		return imprint.Errorf(imprint.CodeDeleteConflict, "Things must be detached before deletion (arn: %s)", cert.ARN())
	}
	return nil
}

// dropPolicies detaches the certificate's policies when force says so, and
// refuses when there are some and it doesn't.
func dropPolicies(tx imprint.Tx, cert imprint.Certificate, force bool) error {
	for {
		attached, _, err := tx.TargetPolicies(cert.Tenant, cert.ARN(), imprint.Page{Limit: maxPageSize, Ascending: true})
		if err != nil {
			return fmt.Errorf("couldn't read the policies of certificate %s: %w", cert.ID, err)
		}
		if len(attached) == 0 {
			return nil
		}
		if !force {
			return imprint.Errorf(imprint.CodeDeleteConflict, "Certificate policies must be detached before deletion (arn: %s)", cert.ARN())
		}
		for _, attachment := range attached {
			err := tx.DeletePolicyAttachment(attachment)
			if err != nil {
				return fmt.Errorf("couldn't detach policy %s: %w", attachment.Policy, err)
			}
		}
	}
}

// certificateOf reads a certificate as the caller knows it.
func certificateOf(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID) (imprint.Certificate, error) {
	cert, err := tx.Certificate(tenant, id)
	return cert, explainNotFound(err, "Certificate", string(id))
}
