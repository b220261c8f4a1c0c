package imprint

import "time"

// CertificateStatus is the state of a device certificate. Only ACTIVE
// certificates connect.
type CertificateStatus string

// The statuses of AWS IoT Core. REGISTER_INACTIVE is deprecated there and never
// made here.
const (
	CertificateActive            CertificateStatus = "ACTIVE"
	CertificateInactive          CertificateStatus = "INACTIVE"
	CertificateRevoked           CertificateStatus = "REVOKED"
	CertificatePendingTransfer   CertificateStatus = "PENDING_TRANSFER"
	CertificatePendingActivation CertificateStatus = "PENDING_ACTIVATION"
)

// CertificateMode says how a certificate finds its tenant: DEFAULT certificates
// by themselves or by SNI, SNI_ONLY certificates by SNI alone.
type CertificateMode string

// The two modes of AWS IoT Core.
const (
	ModeDefault CertificateMode = "DEFAULT"
	ModeSNIOnly CertificateMode = "SNI_ONLY"
)

// Certificate is a device certificate in a tenant's registry. Its private key
// is never part of it.
type Certificate struct {
	Tenant Tenant
	ID     CertificateID
	PEM    string // as it was given, byte for byte
	Status CertificateStatus
	Mode   CertificateMode
	// CAID is the registered CA that signed it; empty when there is none.
	CAID                   CertificateID
	OwnedBy, PreviousOwner AccountID
	Serial                 string // lowercase hex without leading zeros, for look-ups by a person
	Subject                string // RFC 2253 text, for people
	NotBefore, NotAfter    time.Time
	CreatedAt, ModifiedAt  time.Time
	CustomerVersion        int    // starts at 1, +1 for each change by the customer
	GenerationID           string // changes with each update
	Attempt                string // the attempt that registered it; empty: it is found by the certificate, or none was recorded
}

// ARN names the certificate.
func (c Certificate) ARN() string { return c.Tenant.CertificateARN(c.ID) }

// ChangeStatus gives the certificate as an operator's UpdateCertificate leaves
// it. Only ACTIVE, INACTIVE and REVOKED can be asked for (others:
// CodeInvalidRequest); a certificate in transfer can't change, and a revoked
// one stays revoked (CodeCertificateState). Asking for the present status is
// legal and changes nothing.
func (c Certificate) ChangeStatus(to CertificateStatus, now time.Time, generation string) (Certificate, error) {
	switch to {
	case CertificateActive, CertificateInactive, CertificateRevoked:
	default:
		return c, Errorf(CodeInvalidRequest, "a certificate can't be set to %s", to).
			WithHint("ACTIVE, INACTIVE and REVOKED can be set.")
	}
	if c.Status == to {
		return c, nil
	}
	switch c.Status {
	case CertificatePendingTransfer:
		return c, Errorf(CodeCertificateState, "certificate %s is PENDING_TRANSFER", c.ID)
	case CertificateRevoked:
		return c, Errorf(CodeCertificateState, "certificate %s is REVOKED and stays so", c.ID)
	}
	c.Status = to
	return c.changed(now, generation), nil
}

// Activate gives the certificate as a provisioning flow leaves it at its end:
// from PENDING_ACTIVATION to the status that the template asks for.
// Errors: CodeCertificateState for any other status before, CodeInvalidRequest
// for a status that templates can't set.
func (c Certificate) Activate(to CertificateStatus, now time.Time, generation string) (Certificate, error) {
	if c.Status != CertificatePendingActivation {
		return c, Errorf(CodeCertificateState, "certificate %s is %s, not PENDING_ACTIVATION", c.ID, c.Status)
	}
	return c.ChangeStatus(to, now, generation)
}

func (c Certificate) changed(now time.Time, generation string) Certificate {
	c.ModifiedAt = now
	c.CustomerVersion++
	c.GenerationID = generation
	return c
}

// Refusal says why a certificate of this status and validity can't connect at
// the given time; nil when it can.
func (c Certificate) Refusal(now time.Time) *Error {
	switch c.Status {
	case CertificateActive:
	case CertificateInactive:
		return Errorf(CodeCertificateInactive, "certificate %s is INACTIVE", c.ID).WithHint("%s", c.activateCommand())
	case CertificateRevoked:
		return Errorf(CodeCertificateRevoked, "certificate %s is REVOKED", c.ID)
	case CertificatePendingTransfer:
		return Errorf(CodeCertificateTransfer, "certificate %s is PENDING_TRANSFER", c.ID)
	case CertificatePendingActivation:
		return Errorf(CodeCertificatePending, "certificate %s is PENDING_ACTIVATION", c.ID).WithHint("%s", c.activateCommand())
	default:
		return Errorf(CodeCertificateInactive, "certificate %s is %s", c.ID, c.Status)
	}
	return ValidityRefusal(c.NotBefore, c.NotAfter, now)
}

// activateCommand is what an operator types to let the certificate in.
func (c Certificate) activateCommand() string {
	return "aws iot update-certificate --new-status ACTIVE --certificate-id " + string(c.ID)
}

// ValidityRefusal says why a certificate can't be used at the given time; nil
// when it can.
func ValidityRefusal(notBefore, notAfter, now time.Time) *Error {
	if now.Before(notBefore) {
		return Errorf(CodeCertificateNotYetValid, "the certificate is valid from %s, the clock says %s",
			notBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if now.After(notAfter) {
		return Errorf(CodeCertificateExpired, "the certificate was valid until %s, the clock says %s",
			notAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// CAStatus is the state of a registered CA: it gates new registrations only.
type CAStatus string

// The two statuses of a registered CA.
const (
	CAActive   CAStatus = "ACTIVE"
	CAInactive CAStatus = "INACTIVE"
)

// FirstConnection says what happens to the connection on which a device was
// provisioned.
type FirstConnection string

const (
	// FirstConnectionDefault follows the server's option.
	FirstConnectionDefault FirstConnection = ""
	// FirstConnectionClose closes it, as AWS IoT Core does.
	FirstConnectionClose FirstConnection = "close"
	// FirstConnectionHold keeps it and accepts the device once it is
	// provisioned, which AWS IoT Core can't.
	FirstConnectionHold FirstConnection = "hold"
)

// FirstConnectionTag is the key of the CA certificate's tag that sets
// CACertificate.FirstConnection, so that every AWS client can set it.
const FirstConnectionTag = "imprint:first-connection"

// RegistrationConfig makes a CA's auto-registration just-in-time provisioning.
// Either TemplateBody with RoleARN, or TemplateName.
type RegistrationConfig struct {
	TemplateBody string
	RoleARN      string
	TemplateName TemplateName
}

// CACertificate is a CA registered in a tenant.
type CACertificate struct {
	Tenant                Tenant
	ID                    CertificateID
	PEM                   string
	Status                CAStatus
	Mode                  CertificateMode
	AutoRegistration      bool
	Registration          *RegistrationConfig // nil: auto-registration is JITR
	FirstConnection       FirstConnection
	OwnedBy               AccountID
	SubjectKey            string // lowercase hex SHA-256 of the DER subject: what look-ups by issuer use
	Subject               string // RFC 2253 text, for people
	Serial                string
	NotBefore, NotAfter   time.Time
	CreatedAt, ModifiedAt time.Time
	CustomerVersion       int
	GenerationID          string
}

// ARN names the CA certificate.
func (c CACertificate) ARN() string { return c.Tenant.CACertificateARN(c.ID) }

// Changed gives the CA with the marks of one more change by the customer.
func (c CACertificate) Changed(now time.Time, generation string) CACertificate {
	c.ModifiedAt = now
	c.CustomerVersion++
	c.GenerationID = generation
	return c
}
