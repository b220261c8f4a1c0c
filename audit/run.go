package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/pause"
)

// errStopped says that the audit was canceled.
var errStopped = errors.New("the audit was canceled")

// stage reads one kind of rows for all checks that look at it.
type stage struct {
	name   string
	checks []imprint.AuditCheck
	run    func(*walk) error
}

// stages are in their order: of two findings about one resource the first counts.
var stages = []stage{
	{"account", []imprint.AuditCheck{LoggingDisabled}, (*walk).account},
	{"ca certificates", []imprint.AuditCheck{CACertificateExpiring, CACertificateKeyQuality, RevokedCACertificate, RevokedIntermediate}, (*walk).authorities},
	{"claims", []imprint.AuditCheck{ClaimOverQuota, ClaimPolicyTooWide}, (*walk).claims},
	{"policies", []imprint.AuditCheck{PolicyOverlyPermissive, ClaimPolicyTooWide}, (*walk).policies},
	{"templates", []imprint.AuditCheck{TemplateParameterUnresolved}, (*walk).templates},
	{"revocation lists", revocationChecks, (*walk).revocations},
	{"trace", []imprint.AuditCheck{ConflictingClientIDs, DeviceCertificateShared}, (*walk).trace},
	{"certificates", []imprint.AuditCheck{DeviceCertificateShared, DeviceCertificateExpiring, DeviceCertificateAge, DeviceCertificateKeyQuality,
		RevokedDeviceCertificate, RevokedIntermediate, CertificatePending}, (*walk).certificates},
	{"things", []imprint.AuditCheck{ThingWithoutCertificate}, (*walk).things},
}

// launch runs a task that is stored as being in progress.
func (a *Auditor) launch(task imprint.AuditTask) {
	a.tasks.Go(task.Tenant, task.ID, func(ctx context.Context) {
		done, err := a.tasks.Turn(ctx, task.Tenant.Account)
		if err != nil {
			return
		}
		defer done()
		w := &walk{ctx: ctx, auditor: a, tenant: task.Tenant, task: task, now: a.clock(), found: map[string]struct{}{},
			distrusted: map[imprint.CertificateID]distrusted{}, distrustedNames: map[string][]distrusted{}}
		w.all()
		a.forgetOld(task.Tenant)
	})
}

// walk is an audit under way. It is for one goroutine.
type walk struct {
	ctx     context.Context
	auditor *Auditor
	tenant  imprint.Tenant
	now     time.Time // when it began to read

	task   imprint.AuditTask // as it will be stored next
	stored time.Time         // when it was stored last
	// pending are findings that aren't stored yet, found the ids of all of this
	// audit that are or will be.
	pending []imprint.AuditFinding
	found   map[string]struct{}
	// suppressed are the tenant's suppressions that hold, by check and resource.
	suppressed map[string]struct{}
	// distrusted are the CAs that were revoked: of those in the account, all.
	// distrustedNames has the same by their subjects.
	distrusted      map[imprint.CertificateID]distrusted
	distrustedNames map[string][]distrusted
}

// all runs the stages one after another. A stop of the server leaves the task as it
// is stored.
func (w *walk) all() {
	err := w.reset()
	if err == nil {
		err = w.readSuppressions()
	}
	for i := range stages {
		if err != nil {
			break
		}
		err = w.stage(i)
	}
	if err == nil {
		err = w.finish()
	}
	if err != nil && w.ctx.Err() == nil && !errors.Is(err, errStopped) {
		// Nothing but the store can have failed, and it was tried again for long. What
		// is stored says that the audit is in progress; the next start goes on.
		w.auditor.opts.Logger.Error("couldn't go on with an audit", "task", w.task.ID, "tenant", w.tenant.String(), "error", err)
	}
}

// reset takes away what an interrupted run found for checks that begin again.
func (w *walk) reset() error {
	for i := range w.task.Runs {
		run := &w.task.Runs[i]
		if run.Status.Over() {
			continue
		}
		for w.task.Restarts > 0 {
			gone := 0
			err := w.patiently(func() error {
				return w.auditor.store.Update(w.ctx, func(tx imprint.Tx) error {
					n, err := tx.DeleteAuditFindings(w.tenant, w.task.ID, run.Check, w.auditor.opts.Page)
					gone = n
					return err
				})
			})
			if err != nil {
				return err
			}
			if gone == 0 {
				break
			}
		}
		run.Status = imprint.AuditRunInProgress
	}
	return w.patiently(w.flush)
}

// stage runs one stage, and ends the checks that no later one looks after. What goes
// wrong in it is the failure of its checks, not of the audit.
func (w *walk) stage(i int) error {
	s := stages[i]
	if !slices.ContainsFunc(s.checks, w.wants) {
		return nil
	}
	err := w.guarded(s.run)
	if w.ctx.Err() != nil || errors.Is(err, errStopped) {
		return errStopped
	}
	if err != nil {
		w.auditor.opts.Logger.Error("couldn't do checks of an audit", "task", w.task.ID, "tenant", w.tenant.String(), "stage", s.name, "error", err)
		for _, check := range s.checks {
			w.fail(check, string(imprint.CodeOf(err)), "The "+s.name+" couldn't be read: "+imprint.MessageOf(err))
		}
	}
	for _, check := range s.checks {
		run := w.task.Run(check)
		later := slices.ContainsFunc(stages[i+1:], func(s stage) bool { return slices.Contains(s.checks, check) })
		if run == nil || run.Status.Over() || later {
			continue
		}
		w.conclude(run)
	}
	return w.patiently(w.flush)
}

// conclude ends a check. What couldn't be looked at must not pass for compliant.
func (w *walk) conclude(run *imprint.AuditRun) {
	switch {
	case run.NonCompliant > run.Suppressed:
		run.Status = imprint.AuditRunNonCompliant
	case run.Code != "":
		run.Status = imprint.AuditRunFailed
	default:
		run.Status = imprint.AuditRunCompliant
	}
	if run.NonCompliant > run.Findings {
		run.Message = fmt.Sprintf("The first %d of %d non-compliant resources are listed. %s", run.Findings, run.NonCompliant, run.Message)
	}
	w.auditor.tally.ran(w.tenant, *run)
}

// guarded makes a panic the stage's error.
func (w *walk) guarded(fn func(*walk) error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			w.auditor.opts.Logger.Error("an audit panicked", "task", w.task.ID, "panic", value, "stack", string(debug.Stack()))
			err = imprint.Errorf(imprint.CodeInternal, "the audit panicked: %v", value)
		}
	}()
	return fn(w)
}

// finish ends the task.
func (w *walk) finish() error {
	status, failed := imprint.AuditCompleted, 0
	for _, run := range w.task.Runs {
		if run.Status == imprint.AuditRunFailed {
			failed++
		}
	}
	if failed == len(w.task.Runs) {
		status = imprint.AuditFailed
	}
	w.auditor.close(&w.task, status, "")
	err := w.patiently(w.flush)
	if err != nil {
		return err
	}
	if status == imprint.AuditFailed {
		w.auditor.tally.failed.Add(1)
		return nil
	}
	w.auditor.tally.completed.Add(1)
	return nil
}

// wants says whether a check is under way.
func (w *walk) wants(check imprint.AuditCheck) bool {
	run := w.task.Run(check)
	return run != nil && !run.Status.Over()
}

// days is the threshold of a check as a time from now on.
func (w *walk) days(check imprint.AuditCheck) time.Duration {
	run := w.task.Run(check)
	if run == nil {
		return 0
	}
	return time.Duration(run.ThresholdDays) * 24 * time.Hour
}

// seen counts a resource that a check looked at.
func (w *walk) seen(check imprint.AuditCheck) {
	run := w.task.Run(check)
	if run != nil && !run.Status.Over() {
		run.Resources++
	}
}

// fail notes that a check couldn't look at everything.
func (w *walk) fail(check imprint.AuditCheck, code, message string) {
	run := w.task.Run(check)
	if run != nil && !run.Status.Over() {
		run.Code, run.Message = code, message
	}
}

// note tells something about a check that is no failure.
func (w *walk) note(check imprint.AuditCheck, message string) {
	run := w.task.Run(check)
	if run != nil && !run.Status.Over() && run.Message == "" {
		run.Message = message
	}
}

// flaw is what is wrong with a resource.
type flaw struct {
	resource   imprint.AuditResource
	related    []imprint.AuditResource
	severity   imprint.AuditSeverity // empty: the check's
	code       string
	reason     string
	mitigation string
}

// find keeps a finding, unless the check has found something about the resource
// already, or has as many findings as are kept.
func (w *walk) find(check imprint.AuditCheck, f flaw) {
	run := w.task.Run(check)
	if run == nil || run.Status.Over() {
		return
	}
	id := findingID(w.task.ID, check, f.resource)
	if _, known := w.found[id]; known {
		return
	}
	run.NonCompliant++
	_, suppressed := w.suppressed[string(check)+"\n"+f.resource.Key()]
	if suppressed {
		run.Suppressed++
	}
	if run.Findings >= int64(w.auditor.opts.MaxFindings) {
		return
	}
	run.Findings++
	w.found[id] = struct{}{}
	severity := f.severity
	if severity == "" {
		d, err := Describe(check)
		if err == nil {
			severity = d.Severity
		}
	}
	w.pending = append(w.pending, imprint.AuditFinding{
		Tenant: w.tenant, ID: id, Task: w.task.ID, TaskStartedAt: w.task.CreatedAt, Check: check, FoundAt: w.auditor.clock(), Severity: severity,
		Resource: f.resource, Related: f.related, Code: f.code, Reason: f.reason, Mitigation: f.mitigation,
		Suppressed: suppressed,
	})
}

// readSuppressions takes those that hold when the audit begins.
func (w *walk) readSuppressions() error {
	w.suppressed = map[string]struct{}{}
	return w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		page, next, err := tx.AuditSuppressions(w.tenant, imprint.AuditSuppressionFilter{}, p)
		for _, s := range page {
			if s.Holds(w.now) {
				w.suppressed[string(s.Check)+"\n"+s.Resource.Key()] = struct{}{}
			}
		}
		return next, err
	})
}

// foundOf says whether a check has a finding about a resource.
func (w *walk) foundOf(check imprint.AuditCheck, resource imprint.AuditResource) bool {
	_, found := w.found[findingID(w.task.ID, check, resource)]
	return found
}

func findingID(task string, check imprint.AuditCheck, r imprint.AuditResource) string {
	sum := sha256.Sum256([]byte(task + "\n" + string(check) + "\n" + r.Key()))
	return hex.EncodeToString(sum[:16])
}

const (
	// storeEvery is how often progress is stored while nothing is found.
	storeEvery = 5 * time.Second
	// findingsAtOnce bounds one transaction.
	findingsAtOnce = 500
)

// pages calls fn for one page after another until there is none, each in a
// transaction of its own, and stores what was found.
func (w *walk) pages(fn func(tx imprint.ReadTx, p imprint.Page) (next string, err error)) error {
	p := imprint.Page{Limit: w.auditor.opts.Page, Ascending: true}
	for {
		began := time.Now()
		before := w.task.Runs
		pending, known := len(w.pending), w.found
		next := ""
		err := w.patiently(func() error {
			// A page that has to be read again counts once.
			w.task.Runs = slices.Clone(before)
			for _, f := range w.pending[pending:] {
				delete(known, f.ID)
			}
			w.pending = w.pending[:pending]
			return w.auditor.store.View(w.ctx, func(tx imprint.ReadTx) error {
				cursor, err := fn(tx, p)
				next = cursor
				return err
			})
		})
		if err != nil {
			return err
		}
		if len(w.pending) > 0 || time.Since(w.stored) > storeEvery {
			err = w.patiently(w.flush)
			if err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		p.Cursor = next
		if !pause.For(w.ctx, time.Duration(w.auditor.opts.Rest*float64(time.Since(began)))) {
			return errStopped
		}
	}
}

// tries is how often what the store refuses is tried again.
const tries = 5

// patiently tries again while the store can't answer.
func (w *walk) patiently(fn func() error) error {
	again := w.auditor.opts.Retry
	for n := 1; ; n++ {
		err := fn()
		if err == nil || errors.Is(err, errStopped) || w.ctx.Err() != nil || n == tries || imprint.CodeOf(err) != imprint.CodeUnavailable {
			return err
		}
		if !pause.For(w.ctx, again) {
			return errStopped
		}
		again *= 2
	}
}

// flush stores the task with its findings. It is errStopped when somebody else has
// ended the task.
func (w *walk) flush() error {
	for {
		part := w.pending[:min(len(w.pending), findingsAtOnce)]
		err := w.auditor.store.Update(w.ctx, func(tx imprint.Tx) error {
			now, err := tx.AuditTask(w.tenant, w.task.ID)
			if err != nil {
				return err
			}
			if now.Status != imprint.AuditInProgress {
				return errStopped
			}
			for _, f := range part {
				err = tx.PutAuditFinding(f)
				if err != nil {
					return err
				}
			}
			if len(part) < len(w.pending) {
				return nil // progress is stored with the last part
			}
			w.task.ModifiedAt = w.auditor.clock()
			return tx.PutAuditTask(w.task)
		})
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return errStopped
		}
		if err != nil {
			return err
		}
		w.pending = w.pending[len(part):]
		if len(w.pending) == 0 {
			w.pending, w.stored = nil, time.Now()
			return nil
		}
	}
}
