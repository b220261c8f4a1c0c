package audit

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/pause"
)

// MinuteOf spreads the scheduled audits of a server over the day: the minute, in UTC,
// at which one begins.
func MinuteOf(tenant imprint.Tenant, name string) int {
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(tenant.String() + "/" + name))
	return int(sum.Sum32() % (24 * 60))
}

// Rescheduled tells the Auditor that a schedule was put or deleted.
func (a *Auditor) Rescheduled() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// lookAgain bounds the wait for the next schedule, so that a change of the clock is
// noticed.
const lookAgain = time.Minute

// keepSchedules begins audits when they are due, until Close.
func (a *Auditor) keepSchedules() {
	for {
		wait := lookAgain
		next, err := a.RunDue(a.ctx)
		switch {
		case a.ctx.Err() != nil:
			return
		case err != nil:
			a.opts.Logger.Warn("couldn't begin scheduled audits", "error", err)
		case !next.IsZero():
			wait = min(max(next.Sub(a.clock()), a.opts.Retry), lookAgain)
		}
		timer := time.NewTimer(wait)
		select {
		case <-a.ctx.Done():
		case <-a.wake:
		case <-timer.C:
		}
		timer.Stop()
		if a.ctx.Err() != nil {
			return
		}
	}
}

// dueAtOnce is how many due schedules are read at once.
const dueAtOnce = 100

// RunDue begins the scheduled audits whose time has come and says when the next one
// is due; zero: none is. Those that were missed while the server was down run once.
func (a *Auditor) RunDue(ctx context.Context) (time.Time, error) {
	for {
		var due []imprint.ScheduledAudit
		var next time.Time
		err := a.store.View(ctx, func(tx imprint.ReadTx) error {
			found, err := tx.ScheduledAuditsDue(a.clock(), dueAtOnce)
			if err != nil {
				return err
			}
			due = found
			next, err = tx.NextScheduledAudit()
			return err
		})
		if err != nil || len(due) == 0 {
			return next, err
		}
		for _, schedule := range due {
			err = a.runDue(ctx, schedule)
			if err != nil {
				return time.Time{}, err
			}
		}
	}
}

// runDue begins one scheduled audit, in the transaction that says when the next is.
func (a *Auditor) runDue(ctx context.Context, schedule imprint.ScheduledAudit) error {
	task := imprint.AuditTask{Tenant: schedule.Tenant, ID: uuid.NewString(), Type: imprint.AuditScheduled, Schedule: schedule.Name}
	var begun *imprint.AuditTask
	var refused error
	now := a.clock()
	err := a.store.Update(ctx, func(tx imprint.Tx) error {
		begun, refused = nil, nil
		current, err := tx.ScheduledAudit(schedule.Tenant, schedule.Name)
		if err != nil || current.NextAt.After(now) {
			return ignoreMissing(err)
		}
		current.NextAt = current.Next(now)
		err = tx.PutScheduledAudit(current)
		if err != nil {
			return err
		}
		made, err := a.begin(tx, task, current.Checks, true, now)
		switch imprint.CodeOf(err) {
		case "":
			begun = &made
		case imprint.CodeInvalidRequest, imprint.CodeLimitExceeded:
			refused = err
		default:
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("couldn't begin scheduled audit %s of %s: %w", schedule.Name, schedule.Tenant, err)
	}
	if refused != nil {
		a.opts.Logger.Warn("a scheduled audit is left out", "audit", schedule.Name, "tenant", schedule.Tenant.String(), "error", refused)
	}
	if begun != nil {
		a.launch(*begun)
	}
	return nil
}

// maxTasks bounds the audits of one tenant that are kept.
const maxTasks = 5000

// sweep deletes old audits of all tenants again and again, the first time at once.
func (a *Auditor) sweep() {
	for {
		var tenants []imprint.TenantSettings
		err := a.store.View(a.ctx, func(tx imprint.ReadTx) error {
			found, err := imprint.AllTenants(tx)
			tenants = found
			return err
		})
		if err != nil && a.ctx.Err() == nil {
			a.opts.Logger.Warn("couldn't look for tenants with old audits", "error", err)
		}
		for _, settings := range tenants {
			a.forgetOld(settings.Tenant)
			a.forgetOldMitigations(settings.Tenant)
		}
		if !pause.For(a.ctx, a.opts.SweepEvery) {
			return
		}
	}
}

// forgetOld deletes what is older than Keep, and the oldest audits beyond KeepFindings
// and maxTasks. Whatever stays because of an error is deleted by a later sweep.
func (a *Auditor) forgetOld(tenant imprint.Tenant) {
	var old []string
	before := a.clock().Add(-a.opts.Keep)
	kept, findings := 0, int64(0)
	page := imprint.Page{Limit: a.opts.Page}
	for {
		err := a.store.View(a.ctx, func(tx imprint.ReadTx) error {
			tasks, next, err := tx.AuditTasks(tenant, imprint.AuditTaskFilter{}, page)
			for _, task := range tasks {
				findings += task.Findings()
				kept++
				if task.Status != imprint.AuditInProgress && (task.CreatedAt.Before(before) || kept > 1 && (findings > a.opts.KeepFindings || kept > maxTasks)) {
					old = append(old, task.ID)
				}
			}
			page.Cursor = next
			return err
		})
		if err != nil {
			a.sweepFailed(tenant, err)
			return
		}
		if page.Cursor == "" {
			break
		}
	}
	for _, id := range old {
		for gone := 1; gone > 0; {
			err := a.store.Update(a.ctx, func(tx imprint.Tx) error {
				n, err := tx.DeleteAuditFindings(tenant, id, "", a.opts.Page)
				gone = n
				if err == nil && n == 0 {
					err = tx.DeleteAuditTask(tenant, id)
				}
				return err
			})
			if err != nil {
				a.sweepFailed(tenant, err)
				return
			}
		}
	}
}

func (a *Auditor) sweepFailed(tenant imprint.Tenant, err error) {
	if a.ctx.Err() == nil {
		a.opts.Logger.Warn("couldn't delete old audits", "tenant", tenant.String(), "error", err)
	}
}
