package translog

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// The bounds of an Auditor.
const (
	// FindingsKept is how many findings of a run are kept; Audited.Findings counts them all.
	FindingsKept = 10_000
	runsKept     = 4
)

// Auditor runs audits beside a server, one at a time, and keeps what the last ones found.
// It is safe for concurrent use.
type Auditor struct {
	config func() (AuditConfig, error)
	clock  imprint.Clock
	life   context.Context
	end    context.CancelFunc
	runs   sync.WaitGroup

	mu   sync.Mutex
	kept []*Run // oldest first
}

// Run is an audit. Audited is what it had looked at when it ended.
type Run struct {
	ID        string
	StartedAt time.Time
	EndedAt   time.Time // zero: it runs
	Audited   Audited
	Findings  []Finding // the first FindingsKept
	Err       error     // why it couldn't finish
}

// NewAuditor makes an Auditor of audits with a config, which is asked for at the beginning of
// each; Remembered and Report are set here. Close ends it.
func NewAuditor(clock imprint.Clock, config func() (AuditConfig, error)) *Auditor {
	a := &Auditor{config: config, clock: clock}
	a.life, a.end = context.WithCancel(context.Background())
	return a
}

// Close ends the audit that runs.
func (a *Auditor) Close() {
	a.end()
	a.runs.Wait()
}

// Start starts an audit of a log that must begin with the remembered checkpoints, and gives
// its id. Errors: CodeLimitExceeded when one runs, those of the config.
func (a *Auditor) Start(remembered []tiles.Checkpoint) (string, error) {
	config, err := a.config()
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.kept); n > 0 && a.kept[n-1].EndedAt.IsZero() {
		return "", imprint.Errorf(imprint.CodeLimitExceeded, "audit %s of the issuance log runs already", a.kept[n-1].ID).
			WithHint("Wait for its end, or look at what it finds.")
	}
	r := &Run{ID: rand.Text(), StartedAt: a.clock()}
	a.kept = append(a.kept, r)
	a.kept = slices.Clone(a.kept[max(0, len(a.kept)-runsKept):])
	config.Remembered = remembered
	config.Report = func(f Finding) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(r.Findings) < FindingsKept {
			r.Findings = append(r.Findings, f)
		}
	}
	a.runs.Go(func() {
		audited, err := Audit(a.life, config)
		a.mu.Lock()
		defer a.mu.Unlock()
		r.Audited, r.Err, r.EndedAt = audited, err, a.clock()
	})
	return r.ID, nil
}

// Run gives one of the last audits. Errors: CodeNotFound.
func (a *Auditor) Run(id string) (Run, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.kept {
		if r.ID == id {
			found := *r
			found.Findings = slices.Clip(found.Findings)
			return found, nil
		}
	}
	return Run{}, imprint.Errorf(imprint.CodeNotFound, "audit %q of the issuance log isn't one of the last %d", imprint.Excerpt(id), runsKept).
		WithHint("Start another one: imprint ca audit")
}
