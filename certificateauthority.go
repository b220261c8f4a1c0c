package imprint

import (
	"regexp"
	"time"
)

// AuthorityID names a certificate authority whose key Imprint uses: a UUID in lower
// case, unique in its tenant. The empty one is the built-in device CA.
type AuthorityID string

var authorityIDPattern = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// ParseAuthorityID checks an id. Errors: CodeInvalidRequest.
func ParseAuthorityID(s string) (AuthorityID, error) {
	if !authorityIDPattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, "certificate authority id %q isn't a UUID in lower case", Excerpt(s)).
			WithHint("imprint ca list shows them.")
	}
	return AuthorityID(s), nil
}

// AuthorityARN names a certificate authority as AWS Private CA does, in the partition of
// the region.
func (t Tenant) AuthorityARN(id AuthorityID) string {
	return "arn:" + t.Region.Partition() + ":acm-pca:" + string(t.Region) + ":" + string(t.Account) + ":certificate-authority/" + string(id)
}

// AuthorityType is the place of a certificate authority in a hierarchy, as AWS Private
// CA names it.
type AuthorityType string

// The types.
const (
	AuthorityRoot        AuthorityType = "ROOT"
	AuthoritySubordinate AuthorityType = "SUBORDINATE"
)

// AuthorityStatus is the state of a certificate authority, as AWS Private CA names it.
// EXPIRED isn't stored: it follows from the certificate.
type AuthorityStatus string

// The states. A deleted one can be restored until its time is over.
const (
	AuthorityPending  AuthorityStatus = "PENDING_CERTIFICATE"
	AuthorityActive   AuthorityStatus = "ACTIVE"
	AuthorityDisabled AuthorityStatus = "DISABLED"
	AuthorityDeleted  AuthorityStatus = "DELETED"
	AuthorityExpired  AuthorityStatus = "EXPIRED"
)

// CertificateAuthority is a CA of a tenant whose key Imprint uses, or whose
// certificate alone it holds, for a hierarchy that ends elsewhere.
type CertificateAuthority struct {
	Tenant Tenant
	ID     AuthorityID
	// Name is what people call it, unique among the tenant's that aren't deleted; may
	// be empty.
	Name   string
	Type   AuthorityType
	Status AuthorityStatus
	// Key is the URI of its key (package pki/keys). Empty: its key is elsewhere, and
	// nothing can be signed by it here.
	Key string
	// SealedKey is a software key, sealed.
	SealedKey []byte
	// KeyAlgorithm and SigningAlgorithm are AWS Private CA's names, such as
	// EC_prime256v1 and SHA256WITHECDSA.
	KeyAlgorithm, SigningAlgorithm string
	// KeyHash is the lowercase hex SHA-256 of the key's SubjectPublicKeyInfo.
	KeyHash string
	Subject []byte // DER of the name
	CSR     string // PEM; empty for one without a key here
	// Certificate is PEM, empty before there is one. Chain is PEM of those above it,
	// each signed by the next.
	Certificate, Chain  string
	CertificateID       CertificateID
	Serial              string // lowercase hex
	SubjectKeyID        string // lowercase hex
	NotBefore, NotAfter time.Time
	// Parent is the CA above it when Imprint holds that one, too.
	Parent AuthorityID
	// Profiles are the names of those that it may sign by; all: every one. Empty: what
	// package ca lets one sign without.
	Profiles []string
	// SigningEnds is from when on it signs nothing more, though its certificate goes
	// on; zero: with its certificate.
	SigningEnds time.Time
	Revocation  RevocationConfiguration
	// ShortLived is AWS Private CA's mode SHORT_LIVED_CERTIFICATE: certificates end
	// within seven days.
	ShortLived           bool
	Tags                 map[string]string
	IdempotencyToken     string
	CreatedAt, ChangedAt time.Time
	// RestorableUntil is when a deleted one is gone for good.
	RestorableUntil time.Time
	// RevokedAt is when its own certificate was revoked; zero: it wasn't.
	RevokedAt        time.Time
	RevocationReason RevocationReason
}

// ARN names it.
func (a *CertificateAuthority) ARN() string { return a.Tenant.AuthorityARN(a.ID) }

// RevocationConfiguration says how a certificate authority tells what it revoked.
type RevocationConfiguration struct {
	CRL bool `json:"crl,omitempty"`
	// CRLDays is how long a CRL is valid.
	CRLDays int `json:"crlDays,omitempty"`
	// CRLShards is among how many CRLs the certificates are divided, by their serial
	// numbers; below 2: there is one.
	CRLShards int `json:"crlShards,omitempty"`
	// CRLHost and OCSPHost stand in URLs in place of the server's own host.
	CRLHost  string `json:"crlHost,omitempty"`
	OCSP     bool   `json:"ocsp,omitempty"`
	OCSPHost string `json:"ocspHost,omitempty"`
}

// RevocationReason is why a certificate was revoked: AWS Private CA's names for the
// reasons of RFC 5280 section 5.3.1.
type RevocationReason string

// The reasons.
const (
	ReasonUnspecified          RevocationReason = "UNSPECIFIED"
	ReasonKeyCompromise        RevocationReason = "KEY_COMPROMISE"
	ReasonCACompromise         RevocationReason = "CERTIFICATE_AUTHORITY_COMPROMISE"
	ReasonAffiliationChanged   RevocationReason = "AFFILIATION_CHANGED"
	ReasonSuperseded           RevocationReason = "SUPERSEDED"
	ReasonCessationOfOperation RevocationReason = "CESSATION_OF_OPERATION"
	ReasonPrivilegeWithdrawn   RevocationReason = "PRIVILEGE_WITHDRAWN"
	ReasonAACompromise         RevocationReason = "A_A_COMPROMISE"
)

// Code gives the CRLReason of RFC 5280; false for a name that isn't a reason.
func (r RevocationReason) Code() (int, bool) {
	switch r {
	case ReasonUnspecified:
		return 0, true
	case ReasonKeyCompromise:
		return 1, true
	case ReasonCACompromise:
		return 2, true
	case ReasonAffiliationChanged:
		return 3, true
	case ReasonSuperseded:
		return 4, true
	case ReasonCessationOfOperation:
		return 5, true
	case ReasonPrivilegeWithdrawn:
		return 9, true
	case ReasonAACompromise:
		return 10, true
	}
	return 0, false
}

// NotFoundAuthority is the error for a certificate authority that doesn't exist.
func NotFoundAuthority(id AuthorityID) *Error {
	return Errorf(CodeNotFound, "certificate authority %q doesn't exist in this account and region", Excerpt(string(id))).
		WithHint("imprint ca list shows those that do.")
}

// RevocationList is a CRL of an authority, as it is served.
type RevocationList struct {
	Tenant    Tenant
	Authority AuthorityID
	Shard     int
	// Number is that of the list in DER, or where there is none yet of the last one; it
	// only grows.
	Number                 int64
	DER                    []byte
	ThisUpdate, NextUpdate time.Time
	// DueAt is when it is to be signed anew.
	DueAt time.Time
}

// ChangeAuthority is the kind of a Change of a certificate authority; its key is the id.
const ChangeAuthority ChangeKind = "authority"

// AuthorityReader reads certificate authorities.
type AuthorityReader interface {
	Authority(Tenant, AuthorityID) (CertificateAuthority, error)
	// AuthorityNamed gives the one of a name that isn't deleted.
	AuthorityNamed(t Tenant, name string) (CertificateAuthority, error)
	// AuthorityOf gives the one with a certificate.
	AuthorityOf(Tenant, CertificateID) (CertificateAuthority, error)
	// AuthorityOfKey gives one with a key.
	AuthorityOfKey(t Tenant, keyHash string) (CertificateAuthority, error)
	Authorities(Tenant, Page) ([]CertificateAuthority, string, error) // by id
	// RevocationList gives a CRL. Errors: CodeNotFound.
	RevocationList(t Tenant, a AuthorityID, shard int) (RevocationList, error)
	// RevocationListSize gives a CRL without its DER, and how many bytes that has; 0: it
	// isn't signed yet. Errors: CodeNotFound.
	RevocationListSize(t Tenant, a AuthorityID, shard int) (RevocationList, int64, error)
	// DueRevocationLists lists those, of all tenants, that are to be signed by a time,
	// the earliest first, at most limit, without their DER.
	DueRevocationLists(by time.Time, limit int) ([]RevocationList, error)
	// AuthorityTenants lists the tenants that have any, at most 10,000.
	AuthorityTenants() ([]Tenant, error)
}

// AuthorityWriter writes certificate authorities.
type AuthorityWriter interface {
	PutAuthority(CertificateAuthority) error
	// DeleteAuthority deletes its CRLs, too.
	DeleteAuthority(Tenant, AuthorityID) error
	PutRevocationList(RevocationList) error
	// DeleteRevocationLists deletes an authority's from a shard's number on.
	DeleteRevocationLists(t Tenant, a AuthorityID, from int) error
}
