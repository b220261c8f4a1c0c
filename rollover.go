package imprint

import "time"

// Rollover is the plan by which the devices of one CA move to another.
type Rollover struct {
	Tenant Tenant
	// From is the certificate of the CA that ends, To that of the one that takes its place;
	// To is empty while there is none.
	From, To CertificateID
	// Devices and Certificates are how many depended on From when the plan was made: where
	// its progress begins.
	Devices, Certificates int64
	// LastEnd is the end of the last certificate that depended on From then.
	LastEnd time.Time
	// RenewFrom and RenewUntil are the window in which devices get certificates of To.
	RenewFrom, RenewUntil time.Time
	StartedAt             time.Time
	StartedBy             string // ARN of who made it
}

// Sighting is when a certificate was seen in a connection that was let in. Sightings are
// kept for tenants with a Rollover alone.
type Sighting struct {
	Tenant      Tenant
	Certificate CertificateID
	// FirstAt is the first such connection, LastAt one not more than an hour before the last.
	FirstAt, LastAt time.Time
}

// RolloverReader reads rollovers and sightings.
type RolloverReader interface {
	Rollover(t Tenant, from CertificateID) (Rollover, error)
	Rollovers(Tenant, Page) ([]Rollover, string, error) // by the certificate of the CA that ends
	// RolloverTenants lists the tenants that have any, at most 10,000.
	RolloverTenants() ([]Tenant, error)
	Sighting(Tenant, CertificateID) (Sighting, error)
}

// RolloverWriter writes them.
type RolloverWriter interface {
	PutRollover(Rollover) error
	DeleteRollover(t Tenant, from CertificateID) error
	// PutSighting keeps the earlier FirstAt, and leaves a row whose LastAt is less than an
	// hour older as it is.
	PutSighting(Sighting) error
	// DeleteSightings deletes a tenant's, at most limit in one call, and says how many.
	DeleteSightings(t Tenant, limit int) (int, error)
}
