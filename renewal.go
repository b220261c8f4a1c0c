package imprint

import "time"

// RenewalState is how far a renewal is.
type RenewalState string

// The states of a renewal. The old certificate stays ACTIVE in all but the third.
const (
	// RenewalPending: the new certificate was made, and nobody has connected with it since
	// the old one was used last.
	RenewalPending RenewalState = "PENDING"
	// RenewalProven: a connection with it was let in; the old one is retired when its grace
	// is over.
	RenewalProven RenewalState = "PROVEN"
	// RenewalDone: the old one is INACTIVE.
	RenewalDone RenewalState = "DONE"
	// RenewalAbandoned: the new certificate is revoked, deleted, expired, or was never used
	// and others took its place.
	RenewalAbandoned RenewalState = "ABANDONED"
)

// Renewal is one certificate that takes the place of another.
type Renewal struct {
	Tenant      Tenant
	Certificate CertificateID // the new one
	Renews      CertificateID // the old one
	State       RenewalState
	CreatedAt   time.Time
	ProvenAt    time.Time // zero: it isn't
	DueAt       time.Time // when the old one is to be retired; zero unless it is proven
	EndedAt     time.Time // zero: it goes on
	Reason      string    // why it is as it is, where that isn't plain
}

// Open says whether the old certificate may yet be retired.
func (r *Renewal) Open() bool { return r.State == RenewalPending || r.State == RenewalProven }

// Expiring is how many certificates end soon.
type Expiring struct {
	All int64
	// Alone are those without a renewal under way.
	Alone int64
}

// ChangeRenewal is the kind of a Change of a renewal; its key is the new certificate, a
// slash, and the old one.
const ChangeRenewal ChangeKind = "renewal"

// RenewalReader reads renewals, and the certificates that need one.
type RenewalReader interface {
	// Renewal gives the one that made a certificate.
	Renewal(t Tenant, made CertificateID) (Renewal, error)
	// RenewalsOf lists those of an old certificate, oldest first, at most 100.
	RenewalsOf(t Tenant, old CertificateID) ([]Renewal, error)
	// DueRenewals lists those of all tenants whose old certificate is to be retired by a
	// time, the earliest first.
	DueRenewals(by time.Time, limit int) ([]Renewal, error)
	// OpenRenewals lists all tenants' that are open, by tenant and new certificate, behind
	// that pair.
	OpenRenewals(t Tenant, made CertificateID, limit int) ([]Renewal, error)
	// ExpiringCertificates lists ACTIVE certificates that end between two times, the
	// earliest first. Those that end with 2049 or later, as AWS IoT Core's do, are never
	// among them.
	ExpiringCertificates(t Tenant, after, before time.Time, p Page) ([]Certificate, string, error)
	// CountExpiring counts them.
	CountExpiring(t Tenant, after, before time.Time) (Expiring, error)
}

// RenewalWriter writes them.
type RenewalWriter interface {
	PutRenewal(Renewal) error
	// TrimRenewals deletes those that ended before a time, at most limit in one call, and
	// returns how many.
	TrimRenewals(before time.Time, limit int) (int, error)
}
