package imprint

import "time"

// Issuance is one act of signing by a CA key that Imprint uses. It is stored
// as an intent before the key signs, and again with the certificate after.
// An intent without a certificate means that the server died in between: its
// serial number is never used for another certificate.
type Issuance struct {
	ID     string // sorts by time
	Tenant Tenant
	// Authority is who signs; empty: the built-in device CA.
	Authority AuthorityID
	Profile   string // name of the pki profile
	Serial    string // lowercase hex
	Subject   string // RFC 2253 text
	TBSHash   string // lowercase hex SHA-256 of the bytes to be signed
	// KeyHash is the lowercase hex SHA-256 of the SubjectPublicKeyInfo; empty in records
	// of versions that stored it for some profiles alone.
	KeyHash string
	// KeyReusable is that the profile lets a key have several certificates, and CA that it
	// makes a CA's.
	KeyReusable, CA bool
	// RequestedBy is who asked, such as a user's ARN or a certificate's id.
	RequestedBy string
	// Renews is the certificate whose place it takes, and whose key it may have.
	Renews CertificateID
	// RequestToken makes a repeated request one: AWS Private CA's IdempotencyToken.
	RequestToken string
	// RequestHash is what the request with the token asked for, hashed; empty: there is no
	// token, or a version wrote it that didn't compare.
	RequestHash         string
	At                  time.Time
	NotBefore, NotAfter time.Time
	CertificateID       CertificateID // empty until signed
	// Certificate is its DER. The built-in CA's that are registered are in the registry
	// instead.
	Certificate []byte
	RevokedAt   time.Time // zero: it isn't
	Reason      RevocationReason
}

// RevokedSerial is what a CRL says of one certificate.
type RevokedSerial struct {
	Serial    string // lowercase hex
	RevokedAt time.Time
	Reason    RevocationReason
}

// IssuanceReader reads the record of signatures.
type IssuanceReader interface {
	Issuance(id string) (Issuance, error)
	Issuances(Tenant, Page) ([]Issuance, string, error) // newest first
	// IssuancesBy lists those of one authority, newest first.
	IssuancesBy(Tenant, AuthorityID, Page) ([]Issuance, string, error)
	// IssuanceOf gives the one of a serial number. The built-in CA's aren't found so.
	IssuanceOf(t Tenant, a AuthorityID, serial string) (Issuance, error)
	// KeyIssued says whether any certificate was issued for a key, a CA's included, or in
	// whatever region of the account one was revoked.
	KeyIssued(t Tenant, keyHash string) (bool, error)
	// LostKey tells of a key of an account, in whatever region it was lost, one certificate
	// that was revoked for KEY_COMPROMISE, or of a CA for CERTIFICATE_AUTHORITY_COMPROMISE:
	// one that was issued, as if it were an adopted one, or an adopted one. Errors:
	// CodeNotFound.
	LostKey(a AccountID, keyHash string) (AdoptedRevocation, error)
	// IssuancesWithKey lists those of one key that have a certificate, at most limit and
	// at most 100.
	IssuancesWithKey(t Tenant, q KeyQuery, limit int) ([]Issuance, error)
	// IssuancesRenewing lists those that made a certificate that takes the place of another
	// one, by id, behind after, at most limit and at most 100.
	IssuancesRenewing(t Tenant, old CertificateID, after string, limit int) ([]Issuance, error)
	// IssuancesWithoutKey lists those of all tenants that have a certificate and no KeyHash,
	// by id, behind after, at most limit and at most 100.
	IssuancesWithoutKey(after string, limit int) ([]Issuance, error)
	// ProfileUses gives how many certificates an authority signed by a profile, as
	// CountProfileUse counted.
	ProfileUses(t Tenant, a AuthorityID, profile string) (int64, error)
	// IssuanceOfCertificate gives the one that made a certificate.
	IssuanceOfCertificate(Tenant, CertificateID) (Issuance, error)
	// IssuanceRequested gives the one with a request token of an authority.
	IssuanceRequested(t Tenant, a AuthorityID, token string) (Issuance, error)
	// RevokedBy gives what an authority revoked to yield, adopted ones too, until that returns
	// false; certificates that have ended before after are left out.
	RevokedBy(t Tenant, a AuthorityID, after time.Time, yield func(RevokedSerial) bool) error
}

// KeyQuery chooses among the certificates of one key.
type KeyQuery struct {
	KeyHash string // lowercase hex
	CA      bool   // those of CAs, or all others
	// AfterReason and AfterID are those of the one behind which to begin: they come by reason
	// and id, revoked or not.
	AfterReason RevocationReason
	AfterID     string
}

// IssuanceWriter writes it.
type IssuanceWriter interface {
	PutIssuance(Issuance) error
	// CountProfileUse counts one certificate more.
	CountProfileUse(t Tenant, a AuthorityID, profile string) error
	// AddIssuance stores one whose id isn't there yet; otherwise it does nothing and
	// reports false.
	AddIssuance(Issuance) (bool, error)
	// CompleteIssuance gives an intent its CertificateID and Certificate, and changes
	// nothing else of it. It does nothing and reports false where no intent has the id,
	// or one of another tenant, for other bytes or another serial number.
	CompleteIssuance(Issuance) (bool, error)
}

// Sealer protects a secret at rest. Context is authenticated and not stored: a
// secret sealed for one row can't be opened as another's.
type Sealer interface {
	Seal(plain, context []byte) ([]byte, error)
	Open(sealed, context []byte) ([]byte, error)
}
