package translog

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// FindingKind says what doesn't agree.
type FindingKind string

// The kinds.
const (
	// FindingDamage: a file of the log isn't what its checkpoint signs, or the log was set
	// back behind a checkpoint that is remembered.
	FindingDamage FindingKind = "DAMAGED"
	// FindingNotInLog: a certificate is in the registry, and one of our CAs signed it, or
	// it is in the record of signatures; the log doesn't have it.
	FindingNotInLog FindingKind = "NOT_IN_LOG"
	// FindingNotIssued: the log has it, and the record of signatures doesn't.
	FindingNotIssued FindingKind = "NOT_IN_RECORD"
	// FindingDiffers: both have it, and say different things of it.
	FindingDiffers FindingKind = "DIFFERS"
	// FindingSigner: the CA that it names didn't sign it.
	FindingSigner FindingKind = "WRONG_SIGNER"
	// FindingTwice: the log has it twice.
	FindingTwice FindingKind = "LOGGED_TWICE"
	// FindingRegistry: a row of the registry isn't the certificate that it is named for.
	FindingRegistry FindingKind = "REGISTRY"
	// FindingCheck: AuditConfig.Check refuses what was issued.
	FindingCheck FindingKind = "CHECK"
)

// Finding is one thing that doesn't agree.
type Finding struct {
	Kind FindingKind `json:"kind"`
	// Path is a file of the log, for damage.
	Path        string                `json:"path,omitempty"`
	Tenant      imprint.Tenant        `json:"tenant,omitzero"`
	Certificate imprint.CertificateID `json:"certificateId,omitempty"`
	Issuance    string                `json:"issuance,omitempty"`
	// Index is the entry's; -1: there is none.
	Index   int64  `json:"index"`
	Problem string `json:"problem"`
}

// AuditConfig is what an audit compares. Store, Source and Verifier must be set.
type AuditConfig struct {
	Store    imprint.Store
	Source   tiles.Source
	Verifier *tiles.Verifier
	// DeviceCA is the certificate of the built-in device CA. Nil: there is none, and what
	// names it as its signer is a finding.
	DeviceCA *x509.Certificate
	// Remembered are checkpoints that someone kept, beside the registry's own.
	Remembered []tiles.Checkpoint
	// Check looks at each certificate again, such as Recheck's; signer is the certificate of its
	// CA, nil when that is gone. Its error is a finding. May be nil.
	Check func(der []byte, signer *x509.Certificate, issuance imprint.Issuance) error
	// Grace is how long after its preparation an issuance may wait for the log before that
	// is a finding. [10 minutes]
	Grace time.Duration
	Clock imprint.Clock // [time.Now]
	// Report is called with each finding.
	Report func(Finding)
}

// Audited is what an audit looked at. Only Findings is of what is wrong.
type Audited struct {
	Checkpoint tiles.Checkpoint `json:"-"`
	// Entries of the log, issuances with a certificate in the record of signatures, and
	// certificates in the registry, of which Ours have the name of one of our CAs as issuer.
	Entries      int64 `json:"entries"`
	Issuances    int64 `json:"issuances"`
	Certificates int64 `json:"certificates"`
	Ours         int64 `json:"ours"`
	// Waiting issuances aren't in the checkpoint's tree yet, and may still wait.
	Waiting int64 `json:"waiting"`
	// Unregistered certificates are in the log and not in their tenant's registry: they were
	// deleted there, or never device certificates.
	Unregistered int64 `json:"unregistered"`
	// WithoutBytes are entries that have a certificate's id alone.
	WithoutBytes int64 `json:"withoutBytes"`
	// Unchecked entries are those whose CA the store doesn't have any more, so that nobody
	// can say here who signed them.
	Unchecked int64 `json:"unchecked"`
	// Rechecked certificates were checked again by AuditConfig.Check.
	Rechecked int64 `json:"rechecked"`
	Findings  int64 `json:"findings"`
}

// auditPage is how many rows are read at once.
const auditPage = 1000

// Audit proves that the registry, the log and the record of signatures agree, or tells
// where they don't: to AuditConfig.Report, with the number in Audited.Findings. The error
// is one that kept it from finishing. It may run beside a server that issues. Its memory
// doesn't grow with their sizes.
//
// It reads, in this order: the registry's certificates; the checkpoint and all of the log,
// each entry with its issuance; the record of signatures. Certificates of the registry are
// compared with those two as sums over buckets of ids, under a key of this run. Only when
// sums differ, it reads again, what is in those buckets.
func Audit(ctx context.Context, config AuditConfig) (Audited, error) {
	if config.Store == nil || config.Source == nil || config.Verifier == nil {
		return Audited{}, errors.New("couldn't audit: store, source and verifier must be given")
	}
	if config.Clock == nil {
		config.Clock = time.Now
	}
	if config.Grace == 0 {
		config.Grace = 10 * time.Minute
	}
	a := &audit{ctx: ctx, config: config, registry: newSums(), known: newSums(), authorities: make(map[authorityKey]*x509.Certificate)}
	for _, part := range []func() error{a.readNames, a.readRegistry, a.readLog, a.readIssuances, a.compare} {
		err := part()
		if err != nil {
			return a.done, fmt.Errorf("couldn't finish the audit: %w", err)
		}
	}
	return a.done, nil
}

type authorityKey struct {
	tenant imprint.Tenant
	id     imprint.AuthorityID
}

type audit struct {
	ctx    context.Context
	config AuditConfig
	done   Audited

	state imprint.IssuanceLog
	// names are the subjects of our CAs, as issuers have them, with all certificates of
	// each: there are few.
	names map[string][]*x509.Certificate
	// authorities are CAs by id, as they are asked for; nil for one that is gone.
	authorities map[authorityKey]*x509.Certificate

	// registry and known are the sums over the certificates of the registry that have one of
	// names as issuer: as the registry lists them, and as the log and what waits for it have
	// them.
	registry, known *sums
	// recorded counts the entries whose issuance has their index, unrecorded keeps those
	// whose issuance hasn't any, as it is while the server records a batch.
	recorded   int64
	unrecorded []unrecorded
	batch      []indexed
}

type unrecorded struct {
	index    int64
	issuance string
}

type indexed struct {
	index int64
	entry tiles.Entry
}

// maxUnrecorded bounds unrecorded: a batch of the log has at most 4096.
const maxUnrecorded = 8192

func (a *audit) find(f Finding) {
	a.done.Findings++
	if a.config.Report != nil {
		a.config.Report(f)
	}
}

func (a *audit) view(fn func(imprint.ReadTx) error) error { return a.config.Store.View(a.ctx, fn) }
