package imprint

// IssuanceLog is how far the Merkle log of issuances (package pki/translog) has come, as
// the registry knows it. The zero value: there is no log yet.
type IssuanceLog struct {
	// Size is how many entries of the log are recorded at their issuances.
	Size int64
	// Pending are the issuances that are being added as the entries from Size on. They
	// stand here before they are added: what is added again after a crash is the same.
	Pending []string
	// Checkpoint is the log's signed tree head that was remembered last: what a log that
	// was set back or exchanged doesn't agree with.
	Checkpoint string
}

// LoggedIssuance is an issuance with its place in the log.
type LoggedIssuance struct {
	Issuance
	LogIndex int64 // -1: it has none yet
}

// IssuanceLogReader reads what the registry knows of the Merkle log of issuances.
type IssuanceLogReader interface {
	IssuanceLog() (IssuanceLog, error)
	LoggedIssuance(id string) (LoggedIssuance, error)
	// LoggedIssuanceOf gives the one that a tenant's certificate came of.
	LoggedIssuanceOf(t Tenant, id CertificateID) (LoggedIssuance, error)
	// LoggedIssuances lists those of all tenants behind an id, by id, at most limit and
	// 10,000 of them.
	LoggedIssuances(after string, limit int) ([]LoggedIssuance, error)
	// UnloggedIssuances lists the ids of the completed ones without a place in the log, by
	// id, at most limit and 10,000 of them.
	UnloggedIssuances(limit int) ([]string, error)
	// UnloggedCount counts them up to limit.
	UnloggedCount(limit int) (int64, error)
}

// IssuanceLogWriter writes it.
type IssuanceLogWriter interface {
	PutIssuanceLog(IssuanceLog) error
	// SetLogIndex gives an issuance its place in the log; -1 takes it away.
	SetLogIndex(id string, index int64) error
}
