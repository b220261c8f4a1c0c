package imprint

import "time"

// ForeignList is what Imprint keeps of a CRL that somebody else signed: the last one that
// was imported for a CA of a tenant. Whoever comes for the first time with a certificate on
// it is refused.
type ForeignList struct {
	Tenant Tenant
	// ID names it in its entries: random and positive.
	ID int64
	// CA is the certificate of the CA that signed it, and CAPEM that itself: the list counts
	// whatever becomes of the CA here.
	CA    CertificateID
	CAPEM string
	// SubjectKey is the lowercase hex SHA-256 of the CA's DER subject.
	SubjectKey string
	// Scope is the URL that the list says it is about certificates of, where a CA divides
	// its lists; empty: about all of the CA's.
	Scope string
	// Number is the CRL number in decimal digits; it never goes back.
	Number                 string
	ThisUpdate, NextUpdate time.Time
	Hash                   string // lowercase hex SHA-256 of its DER
	Entries                int64
	// Generation is that of its entries: they are written under a new one, which then takes
	// the place of the one before.
	Generation int64
	// Applied says that those registered already are REVOKED, or needn't be.
	Applied bool

	// RefuseStale refuses newcomers of the CA once the list is past NextUpdate; else they are
	// let in with a warning.
	RefuseStale bool
	// KeepRegistered leaves certificates that are registered already as they are.
	KeepRegistered bool

	// URL is where it is fetched from; empty: it is brought.
	URL                   string
	FetchAt               time.Time // zero without URL
	FetchedAt, ImportedAt time.Time // when it was last looked at, and changed
	Failures              int       // fetches that failed since the last that didn't
	LastError             string    // of the last fetch; empty: it was good
}

// Stale says whether the list is past its time.
func (l *ForeignList) Stale(now time.Time) bool { return now.After(l.NextUpdate) }

// ForeignRevocation is an entry of a ForeignList.
type ForeignRevocation struct {
	Serial    string // lowercase hex
	RevokedAt time.Time
	Reason    int // CRLReason of RFC 5280 section 5.3.1
}

// ReasonOnHold is the CRLReason of a certificate that may come back.
const ReasonOnHold = 6

// ForeignListReader reads imported CRLs.
type ForeignListReader interface {
	ForeignList(id int64) (ForeignList, error)
	ForeignLists(Tenant, Page) ([]ForeignList, string, error) // by CA and scope
	// ForeignListsOf lists those of one CA, by scope, at most 1000.
	ForeignListsOf(Tenant, CertificateID) ([]ForeignList, error)
	// ForeignListsBySubject lists those of CAs with a subject, at most 1000.
	ForeignListsBySubject(t Tenant, subjectKey string) ([]ForeignList, error)
	// ForeignListsDue lists those of all tenants that are to be fetched by a time, or whose
	// entries aren't applied, at most limit.
	ForeignListsDue(by time.Time, limit int) ([]ForeignList, error)
	// AllForeignLists lists those of all tenants by ID, from the first after one, at most limit.
	AllForeignLists(after int64, limit int) ([]ForeignList, error)
	ForeignRevocation(list, generation int64, serial string) (ForeignRevocation, error)
	// ForeignRevocations lists entries by serial number, from the first after one, at most
	// limit.
	ForeignRevocations(list, generation int64, after string, limit int) ([]ForeignRevocation, error)
}

// ForeignListWriter writes them.
type ForeignListWriter interface {
	PutForeignList(ForeignList) error
	// DeleteForeignList leaves its entries: DeleteForeignRevocations takes them.
	DeleteForeignList(id int64) error
	PutForeignRevocation(list, generation int64, r ForeignRevocation) error
	// DeleteForeignRevocations deletes entries of a list that aren't of one generation, at
	// most limit in one call, and says how many; generation 0 is none's.
	DeleteForeignRevocations(list, but int64, limit int) (int, error)
}
