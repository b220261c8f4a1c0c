package audit_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
)

// The descriptions are found by name, and every check that is offered is looked after
// by a stage: none stays in progress.
func TestEveryOfferedCheckEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	all := audit.Offered()
	if len(all) != 17 {
		t.Errorf("got %d checks, want 17", len(all))
	}
	for _, d := range audit.Descriptions() {
		got, err := audit.Describe(d.Check)
		if err != nil || got != d {
			t.Errorf("Describe(%s): got %+v, %v", d.Check, got, err)
		}
	}
	task := h.await(h.start(h.auditor(), all...).ID)
	for _, run := range task.Runs {
		if run.Status != imprint.AuditRunCompliant {
			t.Errorf("got %+v of an empty registry, want it to be compliant", run)
		}
	}
}

func TestAuditsOfWrongChecksAreRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.auditor()
	h.put(func(tx imprint.Tx) error {
		return tx.PutAuditConfiguration(imprint.AuditConfiguration{Tenant: home, Checks: map[imprint.AuditCheck]imprint.AuditCheckSetting{audit.LoggingDisabled: {Enabled: true}}})
	})
	for _, row := range []struct {
		checks []imprint.AuditCheck
		strict bool
		want   imprint.Code
	}{
		{nil, false, imprint.CodeInvalidRequest}, {[]imprint.AuditCheck{"NONE"}, false, imprint.CodeInvalidRequest},
		{[]imprint.AuditCheck{"IOT_ROLE_ALIAS_OVERLY_PERMISSIVE_CHECK"}, false, imprint.CodeInvalidRequest},
		{[]imprint.AuditCheck{audit.LoggingDisabled, audit.ConflictingClientIDs}, true, imprint.CodeInvalidRequest},
		{[]imprint.AuditCheck{audit.LoggingDisabled, audit.LoggingDisabled}, true, ""},
	} {
		task, err := a.Start(t.Context(), imprint.AuditTask{Tenant: home}, row.checks, row.strict)
		if got := imprint.CodeOf(err); got != row.want || err == nil && len(task.Runs) != 1 {
			t.Errorf("Start of %q, strict %t: got %d runs and %v, want code %q", row.checks, row.strict, len(task.Runs), err, row.want)
		}
	}
}

// blocked makes the trace stage wait until the audit is interrupted, and tells of it.
func (h *house) blocked() (reached <-chan struct{}) {
	at := make(chan struct{}, 16)
	h.opts.Flush = func(ctx context.Context) error {
		at <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	return at
}

func TestCanceledAuditsEndAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	reached := h.blocked()
	a := h.auditor()
	task := h.start(a, audit.LoggingDisabled, audit.ConflictingClientIDs, audit.ThingWithoutCertificate)
	<-reached // it has the turn before the second one asks for it
	waiting := h.start(a, audit.LoggingDisabled)
	if got := h.task(waiting.ID).Runs[0].Status; got != imprint.AuditRunWaiting {
		t.Errorf("a second audit at once: got %s, want %s", got, imprint.AuditRunWaiting)
	}
	for range 8 {
		h.start(a, audit.LoggingDisabled)
	}
	_, err := a.Start(t.Context(), imprint.AuditTask{Tenant: home}, []imprint.AuditCheck{audit.LoggingDisabled}, false)
	if imprint.CodeOf(err) != imprint.CodeLimitExceeded {
		t.Errorf("an eleventh audit: got %v, want LimitExceeded", err)
	}
	if err := a.Cancel(t.Context(), other, task.ID); imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("canceling another's audit: got %v, want NotFound", err)
	}
	err = a.Cancel(t.Context(), home, task.ID)
	if err != nil {
		t.Fatal(err)
	}
	task = h.task(task.ID)
	got := []imprint.AuditRunStatus{task.Run(audit.LoggingDisabled).Status, task.Run(audit.ConflictingClientIDs).Status, task.Run(audit.ThingWithoutCertificate).Status}
	want := []imprint.AuditRunStatus{imprint.AuditRunCompliant, imprint.AuditRunCanceled, imprint.AuditRunCanceled}
	if task.Status != imprint.AuditCanceled || !slices.Equal(got, want) || task.EndedAt.IsZero() {
		t.Errorf("got %s with %s, want CANCELED with %s", task.Status, got, want)
	}
	if err := a.Cancel(t.Context(), home, task.ID); imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("canceling again: got %v, want InvalidRequest", err)
	}
	if got := h.await(waiting.ID).Status; got != imprint.AuditCompleted {
		t.Errorf("the audit that waited: got %s, want COMPLETED", got)
	}
	if h.task(task.ID).Status != imprint.AuditCanceled {
		t.Error("the canceled audit went on")
	}
}

// An audit that is interrupted goes on: what was over stays, what wasn't begins again
// without what it had found, and the audit says so.
func TestInterruptedAuditsGoOn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.opts.Revocations = t.TempDir()
	line := newAuthority(t, "Line", nil)
	leaf := line.leaf("device")
	h.cas(line.row())
	h.certificates(leaf)
	h.policyNamed("wide", statements(`"iot:*"`, "*"))
	revoke(t, h.opts.Revocations, "line.crl", line, false, serialOf(t, leaf.Serial))
	reached := h.blocked()
	a := h.auditor()
	id := h.start(a, audit.PolicyOverlyPermissive, audit.RevokedDeviceCertificate, audit.ThingWithoutCertificate).ID
	<-reached
	if got := len(h.findings(id)); got != 2 {
		t.Errorf("got %d findings before the stop, want 2", got)
	}
	a.Close()
	if got := h.task(id).Status; got != imprint.AuditInProgress {
		t.Fatalf("got %s after the stop, want IN_PROGRESS", got)
	}
	// Meanwhile the list and the policy change.
	revoke(t, h.opts.Revocations, "line.crl", line, false)
	h.policyNamed("wide", goodPolicy)
	h.opts.Flush = nil
	h.auditor()
	task := h.await(id)
	if task.Status != imprint.AuditCompleted || task.Restarts != 1 || !strings.Contains(task.Message, "stopped") {
		t.Errorf("got %+v, want COMPLETED after one restart", task)
	}
	if got := task.Run(audit.PolicyOverlyPermissive); got.Status != imprint.AuditRunNonCompliant || got.Findings != 1 {
		t.Errorf("a check that was over: got %+v, want it as it was", *got)
	}
	if got := task.Run(audit.RevokedDeviceCertificate); got.Status != imprint.AuditRunCompliant || got.Resources != 1 || got.Message != "" {
		t.Errorf("a check that began again: got %+v, want it to be compliant", *got)
	}
	if found := h.findings(id); len(found) != 1 || found[0].Check != audit.PolicyOverlyPermissive {
		t.Errorf("got findings %+v, want that of the policy alone", found)
	}
}

func TestAuditsThatTheServerDiesOfFail(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.put(func(tx imprint.Tx) error {
		return tx.PutAuditTask(imprint.AuditTask{Tenant: home, ID: "cursed", Status: imprint.AuditInProgress, Restarts: 10, CreatedAt: instant,
			Runs: []imprint.AuditRun{{Check: audit.LoggingDisabled, Status: imprint.AuditRunInProgress}}})
	})
	h.auditor()
	task := h.task("cursed")
	if task.Status != imprint.AuditFailed || task.Runs[0].Status != imprint.AuditRunFailed || !strings.Contains(task.Message, "11 times") {
		t.Errorf("got %+v, want FAILED", task)
	}
}

// Of many findings some are kept and all are counted, over pages of any size.
func TestFindingsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const things = 1234
	h.put(func(tx imprint.Tx) error {
		for n := range things {
			err := tx.PutThing(imprint.Thing{Tenant: home, Name: imprint.ThingName(fmt.Sprintf("thing-%04d", n))})
			if err != nil {
				return err
			}
		}
		return nil
	})
	h.opts.Page, h.opts.MaxFindings = 700, 900
	a := h.auditor()
	task := h.await(h.start(a, audit.ThingWithoutCertificate).ID)
	run := task.Runs[0]
	if run.Resources != things || run.NonCompliant != things || run.Findings != 900 || !strings.Contains(run.Message, "first 900 of 1234") {
		t.Errorf("got %+v, want 900 of 1234 kept", run)
	}
	if got := len(h.findings(task.ID)); got != 900 {
		t.Errorf("got %d findings, want 900", got)
	}
	a.Close()
	c := a.Counters()
	if c.Completed != 1 || c.Findings[imprint.AuditMedium] != things || c.NonCompliant[audit.ThingWithoutCertificate] != things {
		t.Errorf("got counters %+v", c)
	}
}

// Old audits, and the oldest beyond a number of findings, go with their findings; one
// that isn't over and the newest stay.
func TestOldAuditsAreDeleted(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	put := func(id string, age time.Duration, status imprint.AuditTaskStatus, findings int) {
		h.put(func(tx imprint.Tx) error {
			err := tx.PutAuditTask(imprint.AuditTask{Tenant: home, ID: id, Status: status, CreatedAt: instant.Add(-age), Runs: []imprint.AuditRun{{Check: "A", Status: imprint.AuditRunNonCompliant, Findings: int64(findings)}}})
			for n := 0; err == nil && n < findings; n++ {
				err = tx.PutAuditFinding(imprint.AuditFinding{Tenant: home, ID: fmt.Sprintf("%s-%d", id, n), Task: id, Check: "A"})
			}
			return err
		})
	}
	put("ancient", 181*day, imprint.AuditCompleted, 5)
	put("over", 3*day, imprint.AuditCompleted, 1)
	put("big", 2*day, imprint.AuditCompleted, 7)
	put("new", day, imprint.AuditCompleted, 2)
	h.opts.KeepFindings, h.opts.Page, h.opts.SweepEvery = 9, 3, time.Hour
	a := h.auditor()
	// An audit forgets what is old when it is over.
	last := h.await(h.start(a, audit.LoggingDisabled).ID)
	left := func() string {
		var ids []string
		err := h.store.View(t.Context(), func(tx imprint.ReadTx) error {
			found, _, err := tx.AuditTasks(home, imprint.AuditTaskFilter{}, imprint.Page{Limit: 99})
			for _, task := range found {
				if task.ID != last.ID {
					ids = append(ids, task.ID)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(ids, " ")
	}
	h.eventually("the audits that are left are new and big", func() bool { return left() == "new big" })
	for id, want := range map[string]int{"ancient": 0, "over": 0, "big": 7, "new": 2} {
		if got := len(h.findings(id)); got != want {
			t.Errorf("%s has %d findings left, want %d", id, got, want)
		}
	}
}

func TestScheduledAuditsRunWhenTheyAreDue(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	schedule := func(name string, checks ...imprint.AuditCheck) imprint.ScheduledAudit {
		return imprint.ScheduledAudit{Tenant: home, Name: name, Frequency: imprint.AuditDaily, Checks: checks, Minute: 600, NextAt: time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)}
	}
	h.put(func(tx imprint.Tx) error {
		err := tx.PutAuditConfiguration(imprint.AuditConfiguration{Tenant: home, Checks: map[imprint.AuditCheck]imprint.AuditCheckSetting{audit.LoggingDisabled: {Enabled: true}}})
		if err == nil {
			err = tx.PutScheduledAudit(schedule("daily", audit.LoggingDisabled))
		}
		if err == nil {
			err = tx.PutScheduledAudit(schedule("disabled", audit.ConflictingClientIDs))
		}
		return err
	})
	a := h.auditor()
	tasks := func() []imprint.AuditTask {
		var found []imprint.AuditTask
		err := h.store.View(t.Context(), func(tx imprint.ReadTx) error {
			page, _, err := tx.AuditTasks(home, imprint.AuditTaskFilter{Type: imprint.AuditScheduled}, imprint.Page{Limit: 99})
			found = page
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	run := func(at time.Time, want time.Time) {
		t.Helper()
		h.hands.set(at)
		next, err := a.RunDue(t.Context())
		if err != nil || !next.Equal(want) {
			t.Errorf("RunDue at %s: got %s, %v; want %s", at, next, err, want)
		}
	}
	run(instant, time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC))
	if got := len(tasks()); got != 0 {
		t.Errorf("got %d audits before the time, want none", got)
	}
	run(instant.Add(6*time.Hour), time.Date(2026, 3, 5, 10, 0, 0, 0, time.UTC))
	found := tasks()
	if len(found) != 1 || found[0].Schedule != "daily" {
		t.Fatalf("got %+v, want one audit of the schedule whose check is enabled", found)
	}
	if got := h.await(found[0].ID); got.Status != imprint.AuditCompleted || got.Runs[0].Status != imprint.AuditRunCompliant {
		t.Errorf("got %+v", got)
	}
	// Days without a server are made up for once.
	run(instant.AddDate(0, 0, 7), time.Date(2026, 3, 11, 10, 0, 0, 0, time.UTC))
	if got := len(tasks()); got != 2 {
		t.Errorf("got %d audits after a week, want 2", got)
	}
}

// The schedule is looked at when somebody changes it, without a wait.
func TestAScheduleThatIsPutIsNoticed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.auditor()
	h.put(func(tx imprint.Tx) error {
		err := tx.PutAuditConfiguration(imprint.AuditConfiguration{Tenant: home, Checks: map[imprint.AuditCheck]imprint.AuditCheckSetting{audit.LoggingDisabled: {Enabled: true}}})
		if err != nil {
			return err
		}
		return tx.PutScheduledAudit(imprint.ScheduledAudit{Tenant: home, Name: "now", Frequency: imprint.AuditDaily, Checks: []imprint.AuditCheck{audit.LoggingDisabled}, NextAt: instant})
	})
	a.Rescheduled()
	h.eventually("the audit is over", func() bool { return a.Counters().Completed == 1 })
}

// A directory that isn't there has no lists, one that can't be read is no compliance.
func TestRevocationListsAreLookedForAgainAtEachAudit(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.opts.Revocations = filepath.Join(t.TempDir(), "absent")
	a := h.auditor()
	run := h.await(h.start(a, audit.RevokedCACertificate).ID).Runs[0]
	if run.Status != imprint.AuditRunCompliant || !strings.Contains(run.Message, "No revocation lists") {
		t.Errorf("without a directory: got %+v, want a note", run)
	}
	err := os.WriteFile(h.opts.Revocations, nil, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	run = h.await(h.start(a, audit.RevokedCACertificate).ID).Runs[0]
	if run.Status != imprint.AuditRunFailed {
		t.Errorf("with a file in its place: got %+v, want a failed check", run)
	}
}

// An audit that is ended in the store, by whomever, isn't written over.
func TestWhatEndedAnAuditStays(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	at, on := make(chan struct{}), make(chan struct{})
	h.opts.Flush = func(context.Context) error { close(at); <-on; return nil }
	a := h.auditor()
	id := h.start(a, audit.ConflictingClientIDs).ID
	<-at
	h.put(func(tx imprint.Tx) error {
		task, err := tx.AuditTask(home, id)
		if err != nil {
			return err
		}
		task.Status = imprint.AuditCanceled
		return tx.PutAuditTask(task)
	})
	last := h.start(a, audit.LoggingDisabled)
	close(on)
	h.await(last.ID)
	if got := h.task(id); got.Status != imprint.AuditCanceled || a.Counters().Completed > 1 {
		t.Errorf("got %+v, want it to stay CANCELED", got)
	}
}
