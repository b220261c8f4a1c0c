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
	CRLs        CRLHistory
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

// CRLHistory is what an authority's CRLs owe to the certificates that are in the field:
// they name lists for as long as they count, whatever the configuration says since.
type CRLHistory struct {
	// Base is where the CRLs of new certificates are, such as http://pki.example.com: as it
	// was when they were configured, whatever the server's own is since.
	Base string `json:"base,omitempty"`
	// Layouts are all the places that certificates may name.
	Layouts []CRLLayout `json:"layouts,omitempty"`
	// Floor is the number above which those of its lists begin: that of the last list of an
	// authority that was made elsewhere.
	Floor int64 `json:"floor,omitempty"`
	// Unknown says that nobody told what it revoked before it came here.
	Unknown bool `json:"unknown,omitempty"`
}

// CRLLayout is a place of CRLs, and among how many lists certificates are divided there.
type CRLLayout struct {
	Base   string `json:"base"`
	Shards int    `json:"shards,omitempty"` // below 2: there is one
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

// ReasonOf gives the reason of a CRLReason. Those that AWS Private CA doesn't know are
// ReasonUnspecified.
func ReasonOf(code int) RevocationReason {
	for _, r := range []RevocationReason{ReasonKeyCompromise, ReasonCACompromise, ReasonAffiliationChanged, ReasonSuperseded, ReasonCessationOfOperation,
		ReasonPrivilegeWithdrawn, ReasonAACompromise} {
		known, _ := r.Code()
		if known == code {
			return r
		}
	}
	return ReasonUnspecified
}

// OfKey says whether the reason is that others may have the key: then every certificate of
// that key is as bad as the one that is revoked.
func (r RevocationReason) OfKey() bool { return r == ReasonKeyCompromise || r == ReasonCACompromise }

// NotFoundAuthority is the error for a certificate authority that doesn't exist.
func NotFoundAuthority(id AuthorityID) *Error {
	return Errorf(CodeNotFound, "certificate authority %q doesn't exist in this account and region", Excerpt(string(id))).
		WithHint("imprint ca list shows those that do.")
}

// WholeList is the shard's number of a list that isn't divided.
const WholeList = -1

// RevocationList is a CRL of an authority, as it is served. Its row stays for ever, since its
// number does.
type RevocationList struct {
	Tenant    Tenant
	Authority AuthorityID
	Shard     int // WholeList, or from 0
	// Number is that of the list in DER, or where there is none yet of the last one; it
	// only grows.
	Number                 int64
	DER                    []byte
	ThisUpdate, NextUpdate time.Time
	// SignedAt is when it was signed; ThisUpdate is a while before.
	SignedAt time.Time
	// DueAt is when it is to be signed anew.
	DueAt time.Time
	// Wanted counts the revocations that it is to tell of: one that comes while it is
	// signed is seen by it.
	Wanted int64
	// Retired says that nobody needs it any more: it is never due.
	Retired bool
}

// AuthorityCertificate is a certificate of a CA that an authority had or has, or that an
// authority made for a CA elsewhere.
type AuthorityCertificate struct {
	Tenant Tenant
	ID     CertificateID
	// Authority is whose it is; empty: one of a CA elsewhere.
	Authority AuthorityID
	// Issuer is the authority that signed it; empty: another CA did.
	Issuer  AuthorityID
	Serial  string // lowercase hex
	KeyHash string // lowercase hex SHA-256 of the SubjectPublicKeyInfo
}

// AdoptedRevocation is a certificate that an authority revoked and of which there is no
// issuance: it stood on the last CRL of an authority that was made elsewhere, or was shown.
type AdoptedRevocation struct {
	Tenant        Tenant
	Authority     AuthorityID
	Serial        string        // lowercase hex
	CertificateID CertificateID // empty: it was on a list
	NotAfter      time.Time     // zero: it isn't known
	RevokedAt     time.Time
	Reason        RevocationReason
	KeyHash       string // as Issuance.KeyHash, also of a registered certificate of that number; empty: it isn't known
}

// Revocation is a reason not to trust a certificate: it was revoked, or an authority by which
// it may be signed was, or one above that.
type Revocation struct {
	Tenant    Tenant
	Authority AuthorityID // of the issuer's name, in Tenant
	// Own says that it is about the certificate itself, not about its authority.
	Own bool
	// CertificateID is the certificate that it is about; empty: it is known by the serial
	// number, or by the issuer's name, alone.
	CertificateID CertificateID
	RevokedAt     time.Time
	Reason        RevocationReason
}

// AuthorityPlace names an authority.
type AuthorityPlace struct {
	Tenant    Tenant
	Authority AuthorityID
}

// ChangeAuthority is the kind of a Change of a certificate authority; its key is the id.
const ChangeAuthority ChangeKind = "authority"

// AuthorityReader reads certificate authorities.
type AuthorityReader interface {
	Authority(Tenant, AuthorityID) (CertificateAuthority, error)
	// AuthorityNamed gives the one of a name that isn't deleted.
	AuthorityNamed(t Tenant, name string) (CertificateAuthority, error)
	// AuthorityOf gives the one that has a certificate, or had it.
	AuthorityOf(Tenant, CertificateID) (CertificateAuthority, error)
	// AuthorityOfKey gives one with a key.
	AuthorityOfKey(t Tenant, keyHash string) (CertificateAuthority, error)
	Authorities(Tenant, Page) ([]CertificateAuthority, string, error) // by id
	// AuthorityCertificate gives one. Errors: CodeNotFound.
	AuthorityCertificate(Tenant, CertificateID) (AuthorityCertificate, error)
	// AuthorityCertificates lists those of an authority, AuthorityCertificatesBy those that
	// it signed for CAs, and AuthorityCertificatesWithKey those of a key, in all regions of the
	// account, at most 1000.
	AuthorityCertificates(Tenant, AuthorityID) ([]AuthorityCertificate, error)
	AuthorityCertificatesBy(Tenant, AuthorityID) ([]AuthorityCertificate, error)
	AuthorityCertificatesWithKey(a AccountID, keyHash string) ([]AuthorityCertificate, error)
	// RevocationList gives a CRL. Errors: CodeNotFound.
	RevocationList(t Tenant, a AuthorityID, shard int) (RevocationList, error)
	// RevocationListSize gives a CRL without its DER, and how many bytes that has; 0: it
	// isn't signed yet. Errors: CodeNotFound.
	RevocationListSize(t Tenant, a AuthorityID, shard int) (RevocationList, int64, error)
	// RevocationLists lists all of an authority without their DER, by shard.
	RevocationLists(Tenant, AuthorityID) ([]RevocationList, error)
	// RevocationListsDue lists the authorities, of all tenants, with lists that are to be
	// signed by a time, at most limit.
	RevocationListsDue(by time.Time, limit int) ([]AuthorityPlace, error)
	// AdoptedRevocation gives the one of a serial number. Errors: CodeNotFound.
	AdoptedRevocation(t Tenant, a AuthorityID, serial string) (AdoptedRevocation, error)
	// Revocations lists what speaks against a certificate, in all tenants: what was revoked
	// under its id or its serial number, and authorities of its issuer's name (DER) that
	// were revoked or stand below one that was. Whether the serial number or the name mean
	// this certificate is for the caller to see.
	Revocations(id CertificateID, serial string, issuer []byte) ([]Revocation, error)
	// AuthorityTenants lists the tenants that have any, at most 10,000.
	AuthorityTenants() ([]Tenant, error)
}

// AuthorityWriter writes certificate authorities.
type AuthorityWriter interface {
	PutAuthority(CertificateAuthority) error
	// DeleteAuthority leaves its lists' numbers and certificates.
	DeleteAuthority(Tenant, AuthorityID) error
	PutAuthorityCertificate(AuthorityCertificate) error
	PutRevocationList(RevocationList) error
	// WantRevocationList counts a revocation that a list is to tell of, and makes it due by
	// a time at the latest.
	WantRevocationList(t Tenant, a AuthorityID, shard int, by time.Time) error
	// DelayRevocationList makes a list due at a time, and not before.
	DelayRevocationList(t Tenant, a AuthorityID, shard int, until time.Time) error
	PutAdoptedRevocation(AdoptedRevocation) error
}
