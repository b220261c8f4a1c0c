package provisioning

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/template"
)

const (
	// batchLines and batchBytes bound what is registered in one transaction, for
	// whose time other changes wait.
	batchLines = 512
	batchBytes = 1 << 20
	// signersAtOnce is how many certificates of a batch are made at once: each waits
	// for the journal of signatures, which commits them together.
	signersAtOnce = 32
)

// errStopped says that the task was told to stop.
var errStopped = errors.New("the task was stopped")

// verdict is what became of one line. It is a line of a report.
type verdict struct {
	Line     int64     `json:"lineNumber"`
	Offset   int64     `json:"offset"`
	Code     string    `json:"errorCode,omitempty"`
	Message  string    `json:"errorMessage,omitempty"`
	Hint     string    `json:"hint,omitempty"`
	Response *response `json:"response,omitempty"`
}

// response is that of RegisterThing, as documented for reports. The certificate's
// text isn't kept in the report but in the registry, and put in when it is read.
type response struct {
	CertificatePem string            `json:"CertificatePem,omitempty"`
	ResourceArns   map[string]string `json:"ResourceArns"`
}

// planned is a line that is ready to be written, or why it can't be.
type planned struct {
	line bulkLine
	// parameters are the line's; nil: it has none that can be read.
	parameters map[string]string
	plan       *bulkRegistration
	err        error
	stage      string // the step of the trace that err came at
	cause      error  // err before it was put into AWS's words; nil: that is err itself
	// What follows is of the transaction that was tried last: what came of the line,
	// whether the certificate's row was new, and what failed, at which step.
	result   applied
	made     bool
	failed   error
	failedAt string
}

// batch is some lines, with where the input is behind them.
type batch struct {
	lines []planned
	after bulkPosition
	last  bool // the input is at its end
	err   error
}

// run goes on with a task from where it is stored to be, until the input is at its
// end.
func (b *Bulk) run(ctx context.Context, task imprint.RegistrationTask) error {
	parsed, err := template.Parse([]byte(task.TemplateBody), template.Bulk)
	if err != nil {
		return &inputError{err}
	}
	ctx, cancel := context.WithCancel(ctx)
	batches := make(chan batch, 1)
	var reading sync.WaitGroup
	// The reader is done before its input is let go of and before another begins.
	defer reading.Wait()
	defer cancel()
	task, err = b.begin(ctx, task)
	if err != nil {
		return err
	}
	lines, err := openLines(ctx, b.input, task)
	if err != nil {
		return err
	}
	defer lines.Close()
	if task.Version == "" {
		task.Version, task.Size = lines.version, lines.size
	}
	reading.Go(func() {
		defer close(batches)
		b.read(ctx, task, parsed, lines, batches)
	})
	// Closing ends a read that waits for a slow server.
	stop := context.AfterFunc(ctx, lines.Close)
	defer stop()
	defer cancel()
	for one := range batches {
		if one.err != nil {
			return one.err
		}
		task, err = b.write(ctx, task, parsed, one)
		if err != nil {
			return err
		}
		if one.last {
			return nil
		}
	}
	return ctx.Err()
}

// begin reads where the task is.
func (b *Bulk) begin(ctx context.Context, task imprint.RegistrationTask) (imprint.RegistrationTask, error) {
	err := b.store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.RegistrationTask(task.Tenant, task.ID)
		task = found
		return err
	})
	if err == nil && task.Status != imprint.TaskInProgress {
		err = errStopped
	}
	return task, err
}

// read makes batches until the input or the context ends.
func (b *Bulk) read(ctx context.Context, task imprint.RegistrationTask, parsed *template.Template, lines *bulkLines, to chan<- batch) {
	for {
		one := b.gather(ctx, task, parsed, lines)
		select {
		case to <- one:
		case <-ctx.Done():
			return
		}
		if one.last || one.err != nil {
			return
		}
	}
}

// gather reads and plans the lines of one batch. What came before an error is a
// batch; the error is the next one.
func (b *Bulk) gather(ctx context.Context, task imprint.RegistrationTask, parsed *template.Template, lines *bulkLines) (one batch) {
	defer func() {
		if value := recover(); value != nil {
			one = batch{err: b.panicked(task, value)}
		}
	}()
	one = batch{after: lines.position}
	size := 0
	for len(one.lines) < batchLines && size < batchBytes {
		line, more, err := lines.next()
		if err != nil && len(one.lines) == 0 {
			one.err = err
			return one
		}
		if err != nil {
			break
		}
		one.after = lines.position
		if !more {
			one.last, one.after = true, lines.position
			break
		}
		size += len(line.text)
		one.lines = append(one.lines, b.planLine(task.Tenant, parsed, line))
	}
	one.err = b.foresee(ctx, one.lines)
	if one.err == nil {
		one.err = b.prepare(ctx, task, one.lines)
	}
	return one
}

// foresee refuses the lines for which a certificate would be signed in vain. An error is the
// store's.
func (b *Bulk) foresee(ctx context.Context, lines []planned) error {
	signs := func(p planned) bool { return p.err == nil && p.plan.signs() }
	if !slices.ContainsFunc(lines, signs) {
		return nil
	}
	return b.store.Update(ctx, func(tx imprint.Tx) error {
		for n := range lines {
			p := &lines[n]
			if !signs(*p) {
				continue
			}
			stage, err := p.plan.foresee(tx)
			if isStores(err) {
				return fmt.Errorf("couldn't look at line %d: %w", p.line.at.line, err)
			}
			p.err, p.stage = err, stage
		}
		return nil
	})
}

// isStores says whether an error is the store's, which isn't a line's fault.
func isStores(err error) bool {
	code := imprint.CodeOf(err)
	return code == imprint.CodeInternal || code == imprint.CodeUnavailable
}

// planLine evaluates the template for one line.
func (b *Bulk) planLine(tenant imprint.Tenant, parsed *template.Template, line bulkLine) planned {
	p := planned{line: line}
	if line.err != nil {
		p.err, p.stage = line.err, imprint.StepBulkLine
		return p
	}
	p.parameters, p.err = line.parameters()
	p.line.text = nil
	if p.err != nil {
		p.stage = imprint.StepBulkLine
		return p
	}
	plan, stage, err := b.claims.evaluateBulk(tenant, parsed, p.parameters)
	if err != nil {
		p.err, p.stage, p.cause = failedPlan(err), stage, err
		return p
	}
	p.plan = plan
	return p
}

// prepare makes or reads the certificates of lines, some at once. An error ends the task.
func (b *Bulk) prepare(ctx context.Context, task imprint.RegistrationTask, lines []planned) error {
	var signing sync.WaitGroup
	var failed atomic.Pointer[error]
	turns := make(chan struct{}, signersAtOnce)
	for n := range lines {
		p := &lines[n]
		if p.err != nil || p.plan.plan.Certificate == nil || p.plan.plan.Certificate.Source == template.SourceID {
			continue
		}
		turns <- struct{}{}
		signing.Go(func() {
			defer func() {
				if value := recover(); value != nil {
					err := b.panicked(task, value)
					failed.Store(&err)
				}
				<-turns
			}()
			p.err = p.plan.prepare(ctx)
			if p.err != nil {
				p.stage = certificateStage(p.err)
			}
		})
	}
	signing.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// write registers a batch: devices, verdicts and progress in one transaction.
func (b *Bulk) write(ctx context.Context, task imprint.RegistrationTask, parsed *template.Template, one batch) (imprint.RegistrationTask, error) {
	var next imprint.RegistrationTask
	err := b.store.Update(ctx, func(tx imprint.Tx) error {
		now, err := tx.RegistrationTask(task.Tenant, task.ID)
		if err != nil {
			return err
		}
		if now.Status != imprint.TaskInProgress {
			return errStopped
		}
		next = now
		next.Version, next.Size, next.ModifiedAt = task.Version, task.Size, b.clock()
		next.Lines, next.Offset = one.after.line, one.after.offset
		var good, bad report
		for n := range one.lines {
			v, err := b.writeLine(tx, &one.lines[n])
			if err != nil {
				return err
			}
			to := &good
			if v.Response == nil {
				to = &bad
			}
			err = to.add(v)
			if err != nil {
				return err
			}
		}
		next.Succeeded += good.count
		next.Failed += bad.count
		err = good.put(tx, task, imprint.ReportResults)
		if err == nil {
			err = bad.put(tx, task, imprint.ReportErrors)
		}
		if err != nil {
			return err
		}
		return tx.PutRegistrationTask(next)
	})
	if err != nil {
		return task, err
	}
	b.tell(task, parsed, one.lines)
	b.registered.Add(uint64(next.Succeeded - task.Succeeded))
	b.failed.Add(uint64(next.Failed - task.Failed))
	return next, nil
}

// writeLine registers one device, or nothing of it. An error is the store's, which
// isn't the line's fault.
func (b *Bulk) writeLine(tx imprint.Tx, p *planned) (verdict, error) {
	v := verdict{Line: p.line.at.line, Offset: p.line.at.offset}
	err := p.err
	p.failed, p.failedAt = p.err, p.stage
	if err == nil {
		err = tx.Try(func() error {
			p.result = applied{}
			cert, fresh, err := p.plan.certificate(tx)
			if err != nil {
				p.result.stage = certificateStage(err)
				return err
			}
			p.made = fresh
			return p.plan.write(tx, cert, fresh, &p.result)
		})
		p.failed, p.failedAt = err, p.result.stage
	}
	switch {
	case err == nil:
		v.Response = &response{ResourceArns: p.plan.registered(p.result).Resources}
		return v, nil
	case isStores(err):
		return v, fmt.Errorf("couldn't register line %d: %w", v.Line, err)
	}
	err = failedRegistration(err)
	v.Code, v.Message, v.Hint = imprint.Describe(imprint.CodeOf(err)).Exception, imprint.MessageOf(err), imprint.HintOf(err)
	if v.Code == "" {
		v.Code = imprint.Describe(imprint.CodeRegistrationFailure).Exception
	}
	return v, nil
}

// report gathers verdicts of one kind.
type report struct {
	body  []byte
	first int64
	count int64
}

func (r *report) add(v verdict) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("couldn't encode a verdict: %w", err)
	}
	if r.count == 0 {
		r.first = v.Line
	}
	r.count++
	r.body = append(append(r.body, text...), '\n')
	return nil
}

func (r *report) put(tx imprint.Tx, task imprint.RegistrationTask, kind string) error {
	if r.count == 0 {
		return nil
	}
	return tx.PutRegistrationReport(imprint.RegistrationReport{Tenant: task.Tenant, Task: task.ID, Kind: kind, Line: r.first, Body: r.body})
}
