package iot

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
)

// caRoutes are the operations on the registration code and on CA certificates
// (AWS IoT API reference).
func (s *Service) caRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(GetRegistrationCode, s.getRegistrationCode),
		awsapi.Handle(DeleteRegistrationCode, s.deleteRegistrationCode),
		awsapi.Handle(RegisterCACertificate, s.registerCA),
		awsapi.HandleFor(DescribeCACertificate, func(c awsapi.Caller, in *DescribeCACertificateInput) string {
			return certificateResource(c, "cacert/", in.CertificateId)
		}, s.describeCA),
		awsapi.HandleFor(UpdateCACertificate, func(c awsapi.Caller, in *UpdateCACertificateInput) string {
			return certificateResource(c, "cacert/", in.CertificateId)
		}, s.updateCA),
		awsapi.Handle(ListCACertificates, s.listCAs),
		awsapi.HandleFor(DeleteCACertificate, func(c awsapi.Caller, in *DeleteCACertificateInput) string {
			return certificateResource(c, "cacert/", in.CertificateId)
		}, s.deleteCA),
	}
}

// certificateResource is what identity policies see as the resource of an
// operation on one certificate, its id in lower case like everywhere else.
func certificateResource(caller awsapi.Caller, kind, id string) string {
	parsed, err := imprint.ParseCertificateID(id)
	if err != nil {
		return callerARN(caller, kind+id)
	}
	return callerARN(caller, kind+string(parsed))
}

// describeCA describes a registered CA.
func (s *Service) describeCA(ctx context.Context, caller awsapi.Caller, in *DescribeCACertificateInput) (*DescribeCACertificateOutput, error) {
	id, err := imprint.ParseCertificateID(in.CertificateId)
	if err != nil {
		return nil, err
	}
	ca, err := view(ctx, s, func(tx imprint.ReadTx) (imprint.CACertificate, error) {
		return caOf(tx, tenantOf(caller), id)
	})
	if err != nil {
		return nil, err
	}
	return &DescribeCACertificateOutput{
		CertificateDescription: &CACertificateDescription{
			CertificateArn: ca.ARN(), CertificateId: string(ca.ID), Status: CACertificateStatus(ca.Status),
			CertificatePem: ca.PEM, OwnedBy: string(ca.OwnedBy), CreationDate: ca.CreatedAt,
			AutoRegistrationStatus: autoRegistrationStatus(ca), LastModifiedDate: ca.ModifiedAt,
			CustomerVersion: new(ca.CustomerVersion), GenerationId: ca.GenerationID,
			Validity:        &CertificateValidity{NotBefore: ca.NotBefore, NotAfter: ca.NotAfter},
			CertificateMode: CertificateMode(ca.Mode),
		},
		RegistrationConfig: describeRegistrationConfig(ca.Registration),
	}, nil
}

func autoRegistrationStatus(ca imprint.CACertificate) AutoRegistrationStatus {
	if ca.AutoRegistration {
		return AutoRegistrationStatusEnable
	}
	return AutoRegistrationStatusDisable
}

// updateCA changes status, auto-registration and registrationConfig. Device
// certificates that the CA signed stay what they are. Asking for what is so
// already changes nothing.
func (s *Service) updateCA(ctx context.Context, caller awsapi.Caller, in *UpdateCACertificateInput) (*UpdateCACertificateOutput, error) {
	id, err := imprint.ParseCertificateID(in.CertificateId)
	if err != nil {
		return nil, err
	}
	config, err := parseRegistrationConfig(in.RegistrationConfig)
	if err != nil {
		return nil, err
	}
	remove := in.RemoveAutoRegistration != nil && *in.RemoveAutoRegistration
	if remove && config != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "both registrationConfig and removeAutoRegistration are there").
			WithHint("Send registrationConfig to replace the present one, removeAutoRegistration to take it away.")
	}
	tenant := tenantOf(caller)
	return update(ctx, s, func(tx imprint.Tx) (*UpdateCACertificateOutput, error) {
		present, err := caOf(tx, tenant, id)
		if err != nil {
			return nil, err
		}
		err = checkTemplateName(tx, tenant, config)
		if err != nil {
			return nil, err
		}
		next := present
		if in.NewStatus != nil {
			next.Status = imprint.CAStatus(*in.NewStatus)
		}
		if in.NewAutoRegistrationStatus != nil {
			next.AutoRegistration = *in.NewAutoRegistrationStatus == AutoRegistrationStatusEnable
		}
		if config != nil || remove {
			next.Registration = config
		}
		if next.Status == present.Status && next.AutoRegistration == present.AutoRegistration && sameConfig(next.Registration, present.Registration) {
			return nil, nil
		}
		if next.Status == imprint.CAActive && present.Status != next.Status {
			cert, err := pki.ParseCertificatePEM(present.PEM)
			if err != nil {
				return nil, imprint.Errorf(imprint.CodeInternal, "couldn't read CA certificate %s of the store: %w", id, err)
			}
			_, err = revoked.Check(tx, tenant, cert, s.rooms.Clock())
			if revoked.Is(err) {
				return nil, &imprint.Error{Code: imprint.CodeInvalidRequest, Op: "couldn't activate the CA", Err: err, Hint: imprint.HintOf(err)}
			}
			if err != nil {
				return nil, err
			}
		}
		err = tx.PutCA(next.Changed(s.rooms.Clock(), newGeneration()))
		if err != nil {
			return nil, fmt.Errorf("couldn't change CA certificate %s: %w", id, err)
		}
		return nil, nil
	})
}

// listCAs lists by creation time, newest first unless the caller asks otherwise.
func (s *Service) listCAs(ctx context.Context, caller awsapi.Caller, in *ListCACertificatesInput) (*ListCACertificatesOutput, error) {
	var name imprint.TemplateName
	var err error
	if in.TemplateName != nil {
		name, err = imprint.ParseTemplateName(*in.TemplateName)
	}
	if err != nil {
		return nil, err
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*ListCACertificatesOutput, error) {
		cas, next, err := tx.CAs(tenantOf(caller), name, page(in.PageSize, in.Marker, in.AscendingOrder))
		if err != nil {
			return nil, err
		}
		out := &ListCACertificatesOutput{Certificates: make([]CACertificate, 0, len(cas)), NextMarker: next}
		for _, ca := range cas {
			out.Certificates = append(out.Certificates, CACertificate{CertificateArn: ca.ARN(), CertificateId: string(ca.ID),
				Status: CACertificateStatus(ca.Status), CreationDate: ca.CreatedAt})
		}
		return out, nil
	})
}

// deleteCA deletes an INACTIVE CA with its tags. Device certificates that it
// signed stay registered and work.
func (s *Service) deleteCA(ctx context.Context, caller awsapi.Caller, in *DeleteCACertificateInput) (*DeleteCACertificateOutput, error) {
	id, err := imprint.ParseCertificateID(in.CertificateId)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*DeleteCACertificateOutput, error) {
		ca, err := caOf(tx, tenantOf(caller), id)
		if err != nil {
			return nil, err
		}
		if ca.Status != imprint.CAInactive {
			return nil, imprint.Errorf(imprint.CodeCertificateState, "CA certificate must be deactivated (not ACTIVE) before deletion. Id: %s", id).
				WithHint("Run: aws iot update-ca-certificate --new-status INACTIVE --certificate-id %s", id)
		}
		err = tx.DeleteTags(ca.Tenant, ca.ARN())
		if err != nil {
			return nil, fmt.Errorf("couldn't delete the tags of CA certificate %s: %w", id, err)
		}
		err = tx.DeleteCA(ca.Tenant, id)
		if err != nil {
			return nil, fmt.Errorf("couldn't delete CA certificate %s: %w", id, err)
		}
		return nil, nil
	})
}

// caOf reads a CA as the caller knows it.
func caOf(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID) (imprint.CACertificate, error) {
	ca, err := tx.CA(tenant, id)
	return ca, explainNotFound(err, "CA certificate", string(id))
}

// newCA describes a CA as it is registered.
func (s *Service) newCA(tenant imprint.Tenant, cert *x509.Certificate, in *RegisterCACertificateInput, mode imprint.CertificateMode) imprint.CACertificate {
	now := s.rooms.Clock()
	ca := imprint.CACertificate{
		Tenant: tenant, ID: pki.CertificateID(cert.Raw), PEM: in.CaCertificate, Status: imprint.CAInactive, Mode: mode,
		AutoRegistration: in.AllowAutoRegistration != nil && *in.AllowAutoRegistration, OwnedBy: tenant.Account,
		SubjectKey: pki.SubjectKey(cert.RawSubject), Subject: pki.SubjectText(cert.RawSubject), Serial: pki.SerialHex(cert.SerialNumber),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, CreatedAt: now, ModifiedAt: now,
		CustomerVersion: 1, GenerationID: newGeneration(),
	}
	if in.SetAsActive != nil && *in.SetAsActive {
		ca.Status = imprint.CAActive
	}
	return ca
}
