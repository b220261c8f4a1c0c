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

// aged is what must be known of an audit, or of a mitigation task, to forget it.
type aged struct {
	id      string
	running bool
	at      time.Time
	rows    int64 // of findings, or executions
}

// forgetOld deletes what is older than Keep, and the oldest audits beyond KeepFindings
// and maxTasks.
func (a *Auditor) forgetOld(tenant imprint.Tenant) {
	a.forget(tenant, func(tx imprint.ReadTx, p imprint.Page) (found []aged, next string, err error) {
		page, next, err := tx.AuditTasks(tenant, imprint.AuditTaskFilter{}, p)
		for _, t := range page {
			found = append(found, aged{t.ID, t.Status == imprint.AuditInProgress, t.CreatedAt, t.Findings()})
		}
		return found, next, err
	}, func(tx imprint.Tx, id string) (int, error) {
		return tx.DeleteAuditFindings(tenant, id, "", a.opts.Page)
	}, func(tx imprint.Tx, id string) error { return tx.DeleteAuditTask(tenant, id) })
}

// forget deletes the old ones of a list, rows first. Whatever stays because of an error is
// deleted by a later sweep.
func (a *Auditor) forget(tenant imprint.Tenant, list func(imprint.ReadTx, imprint.Page) ([]aged, string, error), empty func(tx imprint.Tx, id string) (int, error), remove func(tx imprint.Tx, id string) error) {
	var old []string
	before := a.clock().Add(-a.opts.Keep)
	kept, rows := 0, int64(0)
	page := imprint.Page{Limit: a.opts.Page}
	for more := true; more; more = page.Cursor != "" {
		err := a.store.View(a.ctx, func(tx imprint.ReadTx) error {
			tasks, next, err := list(tx, page)
			for _, t := range tasks {
				rows += t.rows
				kept++
				if !t.running && (t.at.Before(before) || kept > 1 && (rows > a.opts.KeepFindings || kept > maxTasks)) {
					old = append(old, t.id)
				}
			}
			page.Cursor = next
			return err
		})
		if err != nil {
			a.sweepFailed(tenant, err)
			return
		}
	}
	for _, id := range old {
		for gone := 1; gone > 0; {
			err := a.store.Update(a.ctx, func(tx imprint.Tx) error {
				n, err := empty(tx, id)
				gone = n
				if err == nil && n == 0 {
					err = remove(tx, id)
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
