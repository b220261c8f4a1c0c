package audit

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/cancelable"
)

// Options tune an Auditor. Zero values give the defaults in brackets.
type Options struct {
	// Concurrent is how many audits run at once, of all tenants; others wait [1].
	Concurrent int
	// Page is how many rows are read in one transaction [500].
	Page int
	// Rest is how much longer than a page took its reading rests [1].
	Rest float64
	// MaxFindings is how many findings are kept of one check of one audit [10,000].
	MaxFindings int
	// Keep is how long audits are kept with their findings [180 days, AWS's], and
	// KeepFindings how many findings of one tenant, the newest audit's always
	// [200,000].
	Keep         time.Duration
	KeepFindings int64
	// SweepEvery is how often what was kept so long is looked for [1 h].
	SweepEvery time.Duration
	// Window is how far back the trace is looked at [24 h].
	Window time.Duration
	// MaxClients is how many client ids, and how many certificates, of the trace are kept
	// in memory [100,000].
	MaxClients int
	// Pending is how long a certificate may wait for its activation [4 h].
	Pending time.Duration
	// Revocations is the directory of certificate revocation lists; empty: none.
	Revocations string
	// Flush writes what of the trace isn't in the store yet; nil: all is.
	Flush func(context.Context) error
	// Sharing gives the clients that are connected at this moment with a certificate
	// that others of the tenant are connected with, too, those of one certificate one
	// after another: of at most a number of certificates, and of each at most as many
	// clients. Nil: nobody is connected.
	Sharing func(ctx context.Context, tenant imprint.Tenant, certificates, clients int) []imprint.LiveClient
	// Logging says why attempts aren't recorded as they should be, and what to type;
	// nil, and empty: they are.
	Logging func() (reason, mitigation string)
	// Retry is the pause after an error of the store [1 s].
	Retry  time.Duration
	Logger *slog.Logger // [slog.Default]
}

func (o Options) withDefaults() Options {
	number := func(value *int, otherwise int) {
		if *value <= 0 {
			*value = otherwise
		}
	}
	span := func(value *time.Duration, otherwise time.Duration) {
		if *value <= 0 {
			*value = otherwise
		}
	}
	number(&o.Concurrent, 1)
	number(&o.Page, 500)
	number(&o.MaxFindings, 10_000)
	span(&o.Keep, 180*24*time.Hour)
	span(&o.SweepEvery, time.Hour)
	span(&o.Window, 24*time.Hour)
	number(&o.MaxClients, 100_000)
	span(&o.Pending, 4*time.Hour)
	span(&o.Retry, time.Second)
	if o.Rest == 0 {
		o.Rest = 1
	}
	if o.KeepFindings <= 0 {
		o.KeepFindings = 200_000
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// MaxSuppressions is how many suppressions a tenant may have: an audit has them in
// memory.
const MaxSuppressions = 10_000

// MaxRunning is how many audits of one tenant may be in progress.
const MaxRunning = 10

// maxRestarts is how many interruptions an audit outlives: one that the server dies
// of would otherwise come again for ever.
const maxRestarts = 10

// Auditor runs audits. It is safe for use by many goroutines.
type Auditor struct {
	store imprint.Store
	clock imprint.Clock
	opts  Options

	tasks *cancelable.Tasks
	ctx   context.Context // theirs, ends with Close
	wake  chan struct{}   // a schedule has changed
	// mitigations are tasks of their own: what was found needn't wait for an audit.
	mitigations *cancelable.Tasks

	tally tally
}

// New makes what runs audits, and goes on with those that a stop of the server
// interrupted. Close ends it.
func New(ctx context.Context, store imprint.Store, clock imprint.Clock, opts Options) (*Auditor, error) {
	a := &Auditor{store: store, clock: clock, opts: opts.withDefaults(), wake: make(chan struct{}, 1)}
	a.tasks = cancelable.New(ctx, a.opts.Concurrent)
	a.ctx = a.tasks.Context()
	a.mitigations = cancelable.New(ctx, 1)
	err := a.resume(ctx)
	if err == nil {
		err = a.resumeMitigations(ctx)
	}
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("couldn't look for audits that were interrupted: %w", err)
	}
	a.tasks.Beside(a.keepSchedules)
	a.tasks.Beside(a.sweep)
	return a, nil
}

// Close interrupts all audits and mitigation tasks and waits for them.
func (a *Auditor) Close() {
	a.mitigations.Close()
	a.tasks.Close()
}

// resume begins the unfinished checks of interrupted audits again.
func (a *Auditor) resume(ctx context.Context) error {
	var left []imprint.AuditTask
	err := a.store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.RunningAuditTasks()
		left = found
		return err
	})
	if err != nil {
		return err
	}
	for _, task := range left {
		task.Restarts++
		task.Message = fmt.Sprintf("The server stopped during this audit, %d time(s): the checks that weren't over began again.", task.Restarts)
		for i := range task.Runs {
			if run := &task.Runs[i]; !run.Status.Over() {
				*run = imprint.AuditRun{Check: run.Check, Status: imprint.AuditRunWaiting, ThresholdDays: run.ThresholdDays}
			}
		}
		task.ModifiedAt = a.clock()
		if task.Restarts > maxRestarts {
			a.close(&task, imprint.AuditFailed, fmt.Sprintf("The server stopped %d times during this audit.", task.Restarts))
		}
		err = a.store.Update(ctx, func(tx imprint.Tx) error { return tx.PutAuditTask(task) })
		if err != nil {
			return err
		}
		if task.Status == imprint.AuditInProgress {
			a.launch(task)
		}
	}
	return nil
}

// Start begins an audit, which is durable when Start returns. Of the task, the
// members Tenant, Type, Schedule and StartedBy count. With strict, only checks that
// the tenant has enabled may run. Errors: CodeInvalidRequest; CodeLimitExceeded while
// MaxRunning others are in progress.
func (a *Auditor) Start(ctx context.Context, task imprint.AuditTask, checks []imprint.AuditCheck, strict bool) (imprint.AuditTask, error) {
	task.ID = uuid.NewString()
	now := a.clock()
	err := a.store.Update(ctx, func(tx imprint.Tx) error {
		made, err := a.begin(tx, task, checks, strict, now)
		task = made
		return err
	})
	if err != nil {
		return task, err
	}
	a.launch(task)
	return task, nil
}

// begin puts a task that has an id.
func (a *Auditor) begin(tx imprint.Tx, task imprint.AuditTask, checks []imprint.AuditCheck, strict bool, now time.Time) (imprint.AuditTask, error) {
	config, err := Configuration(tx, task.Tenant)
	if err != nil {
		return task, err
	}
	task.Runs, err = newRuns(config, checks, strict)
	if err != nil {
		return task, err
	}
	running, err := tx.RunningAuditTasks()
	if err != nil {
		return task, err
	}
	count := 0
	for _, one := range running {
		if one.Tenant == task.Tenant {
			count++
		}
	}
	if count >= MaxRunning {
		return task, imprint.Errorf(imprint.CodeLimitExceeded, "%d audits are in progress", count).
			WithHint("Wait for one, or cancel it: aws iot cancel-audit-task --task-id ID")
	}
	task.Status, task.CreatedAt, task.ModifiedAt = imprint.AuditInProgress, now, now
	return task, tx.PutAuditTask(task)
}

// Configuration reads what a tenant set, nothing by default.
func Configuration(tx imprint.ReadTx, tenant imprint.Tenant) (imprint.AuditConfiguration, error) {
	config, err := tx.AuditConfiguration(tenant)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return imprint.AuditConfiguration{Tenant: tenant}, nil
	}
	if err != nil {
		return config, fmt.Errorf("couldn't read the configuration of audits: %w", err)
	}
	return config, nil
}

// Cancel ends an audit where it is. Errors: CodeNotFound, and CodeInvalidRequest for
// one that is over.
func (a *Auditor) Cancel(ctx context.Context, tenant imprint.Tenant, id string) error {
	err := a.store.Update(ctx, func(tx imprint.Tx) error {
		task, err := tx.AuditTask(tenant, id)
		if err != nil {
			return err
		}
		if task.Status != imprint.AuditInProgress {
			return imprint.Errorf(imprint.CodeInvalidRequest, "audit %s is over: it is %s", id, task.Status)
		}
		a.close(&task, imprint.AuditCanceled, "")
		return tx.PutAuditTask(task)
	})
	if err != nil {
		return err
	}
	a.tally.canceled.Add(1)
	a.tasks.Cancel(tenant, id)
	return nil
}

// close ends a task in memory; checks that aren't over end with it.
func (a *Auditor) close(task *imprint.AuditTask, status imprint.AuditTaskStatus, message string) {
	now := a.clock()
	task.Status, task.EndedAt, task.ModifiedAt = status, now, now
	if message != "" {
		task.Message = message
	}
	for i := range task.Runs {
		if run := &task.Runs[i]; !run.Status.Over() {
			run.Status, run.Message = imprint.AuditRunCanceled, message
			if status == imprint.AuditFailed {
				run.Status = imprint.AuditRunFailed
			}
		}
	}
}

// Counters are what an Auditor did since it was made, and how many resources the last
// audit of each check and tenant found.
type Counters struct {
	Completed, Failed, Canceled uint64
	Findings                    map[imprint.AuditSeverity]uint64
	NonCompliant                map[imprint.AuditCheck]int64 // of all tenants together
}

type tally struct {
	completed, failed, canceled atomic.Uint64

	mu       sync.Mutex
	findings map[imprint.AuditSeverity]uint64
	last     map[imprint.Tenant]map[imprint.AuditCheck]int64
}

// Counters gives the present counts.
func (a *Auditor) Counters() Counters {
	t := &a.tally
	c := Counters{Completed: t.completed.Load(), Failed: t.failed.Load(), Canceled: t.canceled.Load(),
		Findings: map[imprint.AuditSeverity]uint64{}, NonCompliant: map[imprint.AuditCheck]int64{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	for severity, n := range t.findings {
		c.Findings[severity] = n
	}
	for _, checks := range t.last {
		for check, n := range checks {
			c.NonCompliant[check] += n
		}
	}
	return c
}

// ran counts a check that is over.
func (t *tally) ran(tenant imprint.Tenant, run imprint.AuditRun) {
	if run.Status != imprint.AuditRunCompliant && run.Status != imprint.AuditRunNonCompliant {
		return
	}
	d, err := Describe(run.Check)
	if err != nil {
		return // a check of a newer version
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last, t.findings = map[imprint.Tenant]map[imprint.AuditCheck]int64{}, map[imprint.AuditSeverity]uint64{}
	}
	if t.last[tenant] == nil {
		t.last[tenant] = map[imprint.AuditCheck]int64{}
	}
	t.last[tenant][run.Check] = run.NonCompliant - run.Suppressed
	t.findings[d.Severity] += uint64(run.NonCompliant - run.Suppressed)
}
