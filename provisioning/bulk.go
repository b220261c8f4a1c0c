package provisioning

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/cancelable"
	"github.com/imprint-iot/imprint/internal/pause"
	"github.com/imprint-iot/imprint/template"
	"github.com/imprint-iot/imprint/trace"
)

// Bulk registration: a template over each line of a file, a JSON object with its
// parameters.
//
// Lines are registered in batches, each in one transaction with its verdicts and
// with how far the input is done: after kill -9 a task goes on behind the last
// batch that is on disk, no line is registered twice, and none is left out. A line
// that fails leaves nothing behind and stops nobody. Of an input only the batches
// at hand are in memory, whatever its size. One task at a time runs in a tenant, as
// AWS IoT Core has it.
//
// Source: AWS IoT Core developer guide, "Bulk registration", and API reference,
// StartThingRegistrationTask.

// BulkOptions tune Bulk. Zero values give the defaults in brackets.
type BulkOptions struct {
	// Concurrent is how many tasks run at once, of all tenants, and of one account as
	// many as it leaves to others, one at least; others wait [4].
	Concurrent int
	// Keep is how long tasks that are over are kept with their reports [30 days].
	Keep time.Duration
	// SweepEvery is how often tasks that were kept so long are looked for [1 h].
	SweepEvery time.Duration
	// Retry is the first pause after an error that isn't a line's fault [1 s]; it
	// doubles up to 30 s.
	Retry time.Duration
	// Trace is told of lines: of all that fail, and of so many that go well as it keeps
	// of these [nothing is told].
	Trace  *trace.Log
	Logger *slog.Logger // [slog.Default]
}

// Bulk runs bulk registrations. It is safe for use by many goroutines.
type Bulk struct {
	claims *Claims
	input  BulkInput
	store  imprint.Store
	clock  imprint.Clock
	opts   BulkOptions

	registered, failed atomic.Uint64

	tasks *cancelable.Tasks
	ctx   context.Context // theirs, ends with Close
}

// NewBulk makes what runs tasks, and goes on with those that a stop of the server
// interrupted. Close ends it; what it does then goes on at the next start.
func NewBulk(ctx context.Context, claims *Claims, input BulkInput, opts BulkOptions) (*Bulk, error) {
	if opts.Concurrent <= 0 {
		opts.Concurrent = 4
	}
	if opts.Keep <= 0 {
		opts.Keep = 30 * 24 * time.Hour
	}
	if opts.SweepEvery <= 0 {
		opts.SweepEvery = time.Hour
	}
	if opts.Retry <= 0 {
		opts.Retry = time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	b := &Bulk{
		claims: claims, input: input, store: claims.store, clock: claims.clock, opts: opts,
		tasks: cancelable.New(ctx, opts.Concurrent),
	}
	b.ctx = b.tasks.Context()
	var left []imprint.RegistrationTask
	err := b.store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.RunningRegistrationTasks()
		left = found
		return err
	})
	if err != nil {
		b.tasks.Close()
		return nil, fmt.Errorf("couldn't look for bulk registrations that were interrupted: %w", err)
	}
	for _, task := range left {
		b.launch(task)
	}
	b.tasks.Beside(b.sweep)
	return b, nil
}

// Close interrupts all tasks and waits for them.
func (b *Bulk) Close() { b.tasks.Close() }

// BulkCounters are the lines since the Bulk was made.
type BulkCounters struct{ Registered, Failed uint64 }

// Counters gives the present counts.
func (b *Bulk) Counters() BulkCounters {
	return BulkCounters{Registered: b.registered.Load(), Failed: b.failed.Load()}
}

// Start begins a task. It is durable when Start returns. Errors:
// CodeInvalidRequest for a template that isn't one, and when the tenant has a task
// that isn't over.
func (b *Bulk) Start(ctx context.Context, task imprint.RegistrationTask) (imprint.RegistrationTask, error) {
	_, err := template.Parse([]byte(task.TemplateBody), template.Bulk)
	if err != nil {
		return task, invalidTemplate(err)
	}
	now := b.clock()
	task.ID, task.Status, task.CreatedAt, task.ModifiedAt = uuid.NewString(), imprint.TaskInProgress, now, now
	err = b.store.Update(ctx, func(tx imprint.Tx) error {
		for _, status := range []imprint.RegistrationTaskStatus{imprint.TaskInProgress, imprint.TaskCancelling} {
			running, _, err := tx.RegistrationTasks(task.Tenant, status, imprint.Page{Limit: 1})
			if err != nil {
				return err
			}
			if len(running) > 0 {
				return imprint.Errorf(imprint.CodeInvalidRequest, "Registration task %s is %s: an account runs one task at a time.", running[0].ID, status).
					WithHint("Wait for its end, or stop it: aws iot stop-thing-registration-task --task-id %s", running[0].ID)
			}
		}
		return tx.PutRegistrationTask(task)
	})
	if err != nil {
		return task, err
	}
	b.launch(task)
	return task, nil
}

// Stop lets a task end where it is. Errors: CodeNotFound, and CodeInvalidRequest
// for one that is over.
func (b *Bulk) Stop(ctx context.Context, tenant imprint.Tenant, id string) error {
	err := b.store.Update(ctx, func(tx imprint.Tx) error {
		task, err := tx.RegistrationTask(tenant, id)
		if err != nil {
			return err
		}
		if !task.Status.Running() {
			return imprint.Errorf(imprint.CodeInvalidRequest, "Registration task %s is over: it is %s.", id, task.Status)
		}
		task.Status, task.ModifiedAt = imprint.TaskCancelling, b.clock()
		return tx.PutRegistrationTask(task)
	})
	if err != nil {
		return err
	}
	b.tasks.Cancel(tenant, id)
	return nil
}

// launch runs a task that is stored as running.
func (b *Bulk) launch(task imprint.RegistrationTask) {
	b.tasks.Go(task.Tenant, task.ID, func(ctx context.Context) { b.see(ctx, task) })
}

// see sees a task to its end, unless the server stops before.
func (b *Bulk) see(ctx context.Context, task imprint.RegistrationTask) {
	again := b.opts.Retry
	for {
		done, err := b.attempt(ctx, task)
		status, message := imprint.TaskCompleted, ""
		var fatal *inputError
		switch {
		case b.ctx.Err() != nil:
			return // the next start goes on
		case done:
		case ctx.Err() != nil || errors.Is(err, errStopped):
			status = imprint.TaskCancelled
		case errors.As(err, &fatal):
			status, message = imprint.TaskFailed, fatal.Error()
			if hint := imprint.HintOf(fatal); hint != imprint.Describe(imprint.CodeOf(fatal)).Hint {
				message += " " + hint
			}
		case err != nil:
			b.opts.Logger.Warn("couldn't go on with a bulk registration", "task", task.ID, "tenant", task.Tenant.String(), "error", err)
			if !pause.For(ctx, again) {
				continue // to see why
			}
			again = min(2*again, 30*time.Second)
			continue
		}
		err = b.finish(task, status, message)
		if err == nil {
			b.forgetOld(task.Tenant)
			return
		}
		b.opts.Logger.Error("couldn't end a bulk registration", "task", task.ID, "tenant", task.Tenant.String(), "error", err)
		if !pause.For(b.ctx, again) {
			return
		}
	}
}

// attempt waits for its turn and runs a task as far as it comes; done says that the
// input is at its end.
func (b *Bulk) attempt(ctx context.Context, task imprint.RegistrationTask) (done bool, err error) {
	over, err := b.tasks.Turn(ctx, task.Tenant.Account)
	if err != nil {
		return false, err
	}
	defer func() {
		over()
		if value := recover(); value != nil {
			done, err = false, b.panicked(task, value)
		}
	}()
	err = b.run(ctx, task)
	return err == nil, err
}

// panicked logs a panic over a line, and gives what ends the task, which would come to the
// line again and again. Each goroutine of a task recovers so: else the line ended the server.
func (b *Bulk) panicked(task imprint.RegistrationTask, value any) error {
	b.opts.Logger.Error("a bulk registration panicked", "task", task.ID, "panic", value, "stack", string(debug.Stack()))
	return &inputError{imprint.Errorf(imprint.CodeInternal, "an internal error ended the task at a line that the server's log is about")}
}

// finish stores how a task ended.
func (b *Bulk) finish(task imprint.RegistrationTask, status imprint.RegistrationTaskStatus, message string) error {
	return b.store.Update(b.ctx, func(tx imprint.Tx) error {
		now, err := tx.RegistrationTask(task.Tenant, task.ID)
		if err != nil {
			return err
		}
		now.Status, now.Message, now.ModifiedAt = status, message, b.clock()
		return tx.PutRegistrationTask(now)
	})
}

const (
	// keptTasks is how many tasks are looked at for those that are too old.
	keptTasks = 1000
	// partsAtOnce is how many parts of a report are deleted in one transaction.
	partsAtOnce = 64
)

// sweep deletes old tasks of all tenants again and again, the first time at once.
func (b *Bulk) sweep() {
	for {
		var tenants []imprint.TenantSettings
		err := b.store.View(b.ctx, func(tx imprint.ReadTx) error {
			found, err := imprint.AllTenants(tx)
			tenants = found
			return err
		})
		if err != nil && b.ctx.Err() == nil {
			b.opts.Logger.Warn("couldn't look for tenants with old bulk registrations", "error", err)
		}
		for _, settings := range tenants {
			b.forgetOld(settings.Tenant)
		}
		if !pause.For(b.ctx, b.opts.SweepEvery) {
			return
		}
	}
}

// forgetOld deletes tasks that have been over for long. Whatever stays because of
// an error is deleted by a later sweep.
func (b *Bulk) forgetOld(tenant imprint.Tenant) {
	var old []imprint.RegistrationTask
	before := b.clock().Add(-b.opts.Keep)
	err := b.store.View(b.ctx, func(tx imprint.ReadTx) error {
		old = nil
		found, _, err := tx.RegistrationTasks(tenant, "", imprint.Page{Limit: keptTasks, Ascending: true})
		for _, task := range found {
			if !task.Status.Running() && task.ModifiedAt.Before(before) {
				old = append(old, task)
			}
		}
		return err
	})
	for _, task := range old {
		gone := false
		for err == nil && !gone {
			err = b.store.Update(b.ctx, func(tx imprint.Tx) error {
				all, err := tx.DeleteRegistrationTask(tenant, task.ID, partsAtOnce)
				gone = all
				return err
			})
		}
	}
	if err != nil && b.ctx.Err() == nil {
		b.opts.Logger.Warn("couldn't delete old bulk registrations", "tenant", tenant.String(), "error", err)
	}
}
