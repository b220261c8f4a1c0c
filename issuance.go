package imprint

import "time"

// Issuance is one act of signing by a CA key that Imprint holds. It is stored
// as an intent before the key signs, and again with the certificate's id after.
// An intent without a certificate means that the server died in between: its
// serial number is never used for another certificate.
type Issuance struct {
	ID            string // sorts by time
	Tenant        Tenant
	Profile       string // name of the pki profile
	Serial        string // lowercase hex
	Subject       string // RFC 2253 text
	TBSHash       string // lowercase hex SHA-256 of the bytes to be signed
	At            time.Time
	CertificateID CertificateID // empty until signed
}

// IssuanceReader reads the record of signatures.
type IssuanceReader interface {
	Issuance(id string) (Issuance, error)
	Issuances(Tenant, Page) ([]Issuance, string, error) // newest first
}

// IssuanceWriter writes it.
type IssuanceWriter interface {
	PutIssuance(Issuance) error
}

// Sealer protects a secret at rest. Context is authenticated and not stored: a
// secret sealed for one row can't be opened as another's.
type Sealer interface {
	Seal(plain, context []byte) ([]byte, error)
	Open(sealed, context []byte) ([]byte, error)
}
