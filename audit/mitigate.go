package audit

import (
	"context"
	"errors"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/pause"
)

const (
	// findingsMitigatedAtOnce and changesAtOnce bound one transaction of a task; the
	// first finding of a transaction may have more changes.
	findingsMitigatedAtOnce = 25
	changesAtOnce           = 1000
)

// errTooMuch says that a transaction has become too long.
var errTooMuch = errors.New("too many changes for one transaction")

// launchMitigation runs a task that is stored as being in progress.
func (a *Auditor) launchMitigation(task imprint.MitigationTask) {
	a.mitigations.Go(task.Tenant, task.ID, func(ctx context.Context) {
		done, err := a.mitigations.Turn(ctx, task.Tenant.Account)
		if err != nil {
			return
		}
		defer done()
		m := &mitigating{walk: &walk{ctx: ctx, auditor: a, tenant: task.Tenant}, id: task.ID}
		err = m.all()
		if err != nil && ctx.Err() == nil && !errors.Is(err, errStopped) {
			// What is stored says that the task is in progress; the next start goes on.
			a.opts.Logger.Error("couldn't go on with a mitigation task", "task", task.ID, "tenant", task.Tenant.String(), "error", err)
		}
		a.forgetOldMitigations(task.Tenant)
	})
}

// mitigating is a task under way: all that it must know is in the store. Each of its
// transactions has some findings, what the actions change, what came of them, and
// where the next one begins: whatever is killed in between is wholly done or not at
// all, and done once. It is for one goroutine.
type mitigating struct {
	*walk
	id string
}

func (m *mitigating) all() error {
	err := m.count()
	for over := false; err == nil && !over; {
		began := time.Now()
		over, err = m.step()
		if err == nil && !over && !pause.For(m.ctx, time.Duration(m.auditor.opts.Rest*float64(time.Since(began)))) {
			err = errStopped
		}
	}
	return err
}

// running reads the task. It is errStopped when somebody else has ended it.
func (m *mitigating) running(tx imprint.ReadTx) (imprint.MitigationTask, error) {
	task, err := tx.MitigationTask(m.tenant, m.id)
	if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && task.Status != imprint.AuditInProgress {
		err = errStopped
	}
	return task, err
}

// targets reads the next findings of a task, and gives where those after them begin;
// empty: nowhere. Findings that were deleted since are left out.
func (m *mitigating) targets(tx imprint.ReadTx, task *imprint.MitigationTask, from string, limit int) ([]imprint.AuditFinding, string, error) {
	if task.Audit != "" {
		page, next, err := tx.AuditFindings(m.tenant, imprint.AuditFindingFilter{Task: task.Audit}, imprint.Page{Limit: limit, Cursor: from, Ascending: true})
		return slices.DeleteFunc(page, func(f imprint.AuditFinding) bool { return !Targets(task, &f) }), next, err
	}
	begin := 0
	if from != "" {
		number, err := strconv.Atoi(from)
		if err != nil {
			return nil, "", imprint.Errorf(imprint.CodeInternal, "couldn't read how far task %s is: %w", m.id, err)
		}
		begin = min(number, len(task.Findings))
	}
	end := min(begin+limit, len(task.Findings))
	var found []imprint.AuditFinding
	for _, id := range task.Findings[begin:end] {
		f, err := tx.AuditFinding(m.tenant, id)
		switch {
		case imprint.CodeOf(err) == imprint.CodeNotFound:
		case err != nil:
			return nil, "", err
		default:
			found = append(found, f)
		}
	}
	if end == len(task.Findings) {
		return found, "", nil
	}
	return found, strconv.Itoa(end), nil
}

// count makes the totals, which no page of findings has.
func (m *mitigating) count() error {
	tallies := map[imprint.AuditCheck]imprint.MitigationTally{}
	for from, counted := "", false; !counted; {
		began := time.Now()
		var page []imprint.AuditFinding
		next, before := "", false
		err := m.patiently(func() error {
			return m.auditor.store.View(m.ctx, func(tx imprint.ReadTx) error {
				task, err := m.running(tx)
				if before = task.Counted; err != nil || before {
					return err
				}
				page, next, err = m.targets(tx, &task, from, m.auditor.opts.Page)
				return err
			})
		})
		if err != nil || before {
			return err
		}
		for _, f := range page {
			t := tallies[f.Check]
			t.Total++
			tallies[f.Check] = t
		}
		from, counted = next, next == ""
		if !counted && !pause.For(m.ctx, time.Duration(m.auditor.opts.Rest*float64(time.Since(began)))) {
			return errStopped
		}
	}
	return m.patiently(func() error {
		return m.auditor.store.Update(m.ctx, func(tx imprint.Tx) error {
			task, err := m.running(tx)
			if err != nil {
				return err
			}
			task.Tallies, task.Counted, task.ModifiedAt = tallies, true, m.auditor.clock()
			return tx.PutMitigationTask(task)
		})
	})
}

// step deals with the next findings. What makes a transaction of several fail is
// looked for one by one; a finding that alone makes it fail has failed.
func (m *mitigating) step() (over bool, err error) {
	over, err = m.apply(findingsMitigatedAtOnce, nil)
	if !m.fails(err) {
		return over, err
	}
	over, err = m.apply(1, nil)
	if !m.fails(err) {
		return over, err
	}
	m.auditor.opts.Logger.Error("couldn't apply a mitigation action", "task", m.id, "tenant", m.tenant.String(), "error", err)
	return m.apply(1, err)
}

// fails says that an error is of what was to be done, not of the store or of a stop.
func (m *mitigating) fails(err error) bool {
	return err != nil && m.ctx.Err() == nil && !errors.Is(err, errStopped) && imprint.CodeOf(err) != imprint.CodeUnavailable
}

// apply deals with at most limit findings in one transaction. With a failure, that is
// what comes of them.
func (m *mitigating) apply(limit int, failure error) (over bool, err error) {
	err = m.patiently(func() (err error) {
		defer func() {
			if value := recover(); value != nil {
				m.auditor.opts.Logger.Error("a mitigation action panicked", "task", m.id, "panic", value, "stack", string(debug.Stack()))
				err = imprint.Errorf(imprint.CodeInternal, "a mitigation action panicked: %v", value)
			}
		}()
		return m.auditor.store.Update(m.ctx, func(tx imprint.Tx) error {
			task, err := m.running(tx)
			if err != nil {
				return err
			}
			findings, next, err := m.targets(tx, &task, task.Done, limit)
			if err != nil {
				return err
			}
			task.Tallies = maps.Clone(task.Tallies)
			if task.Tallies == nil {
				task.Tallies = map[imprint.AuditCheck]imprint.MitigationTally{}
			}
			changes := 0
			for n := range findings {
				made, err := m.finding(tx, &task, &findings[n], failure)
				if err != nil {
					return err
				}
				changes += made
				if changes > changesAtOnce && limit > 1 {
					return errTooMuch
				}
			}
			task.Done, task.ModifiedAt, over = next, m.auditor.clock(), next == ""
			if over {
				m.auditor.endMitigation(&task, imprint.AuditCompleted)
			}
			return tx.PutMitigationTask(task)
		})
	})
	return over, err
}

// finding applies the actions of a finding's check to it, one after another; one that
// fails doesn't stop the next. It gives how many changes that were.
func (m *mitigating) finding(tx imprint.Tx, task *imprint.MitigationTask, f *imprint.AuditFinding, failure error) (changes int, err error) {
	failed, done := false, false
	for _, name := range task.Mapping[f.Check] {
		at := slices.IndexFunc(task.Actions, func(a imprint.MitigationAction) bool { return a.Name == name })
		if at < 0 {
			return changes, imprint.Errorf(imprint.CodeInternal, "task %s has no action %s", task.ID, name)
		}
		action := &task.Actions[at]
		began := m.auditor.clock()
		var o outcome
		switch {
		case failure != nil:
			o = failedOf(failure)
		case f.Suppressed:
			o = skipped("The finding is suppressed.")
		default:
			o, err = remedy(tx, action, f, began)
		}
		if err != nil {
			return changes, err
		}
		changes += o.changes
		failed, done = failed || o.status == imprint.MitigationFailed, done || o.status == imprint.MitigationCompleted
		err = tx.PutMitigationExecution(imprint.MitigationExecution{
			Tenant: m.tenant, Task: task.ID, Finding: f.ID, Action: name, ActionID: action.ID, Status: o.status, Code: o.code, Message: o.message,
			StartedAt: began, EndedAt: m.auditor.clock(),
		})
		if err != nil {
			return changes, err
		}
		task.Executions++
	}
	t := task.Tallies[f.Check]
	switch {
	case failed:
		t.Failed++
	case done:
		t.Succeeded++
	default:
		t.Skipped++
	}
	task.Tallies[f.Check] = t
	return changes, nil
}
