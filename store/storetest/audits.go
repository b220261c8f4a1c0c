package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func auditRows() []row {
	return []row{{
		name: "audit configuration",
		full: func(t imprint.Tenant) any {
			return imprint.AuditConfiguration{Tenant: t, RoleARN: unusual + string(t.Region), Checks: map[imprint.AuditCheck]imprint.AuditCheckSetting{"A": {Enabled: true, Days: 7}, "B": {}},
				Targets: map[string]imprint.AuditNotificationTarget{"SNS": {TargetARN: unusual, RoleARN: "r", Enabled: true}}, CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.AuditConfiguration{Tenant: t} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutAuditConfiguration(v.(imprint.AuditConfiguration)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.AuditConfiguration(t) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteAuditConfiguration(t) },
	}, {
		name: "audit",
		full: func(t imprint.Tenant) any {
			return imprint.AuditTask{Tenant: t, ID: "audit", Type: imprint.AuditScheduled, Schedule: unusual, StartedBy: "user " + string(t.Region), Status: imprint.AuditFailed,
				Message: unusual, Runs: []imprint.AuditRun{{Check: "A", Status: imprint.AuditRunFailed, ThresholdDays: 3, Resources: 1 << 40, NonCompliant: 1 << 33, Findings: 9, Code: "c", Message: unusual}},
				Restarts: 2, CreatedAt: instant, EndedAt: instant.Add(time.Minute), ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.AuditTask{Tenant: t, ID: "audit"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutAuditTask(v.(imprint.AuditTask)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.AuditTask(t, "audit") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteAuditTask(t, "audit") },
	}, {
		name: "audit finding",
		full: func(t imprint.Tenant) any {
			return imprint.AuditFinding{Tenant: t, ID: "finding", Task: "other", TaskStartedAt: instant, Check: "A", FoundAt: instant.Add(time.Second), Severity: imprint.AuditHigh,
				Resource: imprint.AuditResource{Kind: imprint.AuditPolicy, ID: unusual, Version: 3, Info: map[string]string{"k": unusual}},
				Related:  []imprint.AuditResource{{Kind: imprint.AuditThing, ID: "thing " + string(t.Region)}}, Code: "c", Reason: unusual, Mitigation: unusual, Suppressed: true}
		},
		bare: func(t imprint.Tenant) any { return imprint.AuditFinding{Tenant: t, ID: "finding"} },
		put:  func(tx imprint.Tx, v any) error { return tx.PutAuditFinding(v.(imprint.AuditFinding)) },
		get:  func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.AuditFinding(t, "finding") },
	}, {
		name: "audit suppression",
		full: func(t imprint.Tenant) any {
			return imprint.AuditSuppression{Tenant: t, Check: "A", Resource: imprint.AuditResource{Kind: imprint.AuditPolicy, ID: unusual, Version: 3}, ExpiresAt: instant, Description: unusual + string(t.Region),
				Token: "t", CreatedAt: instant.Add(time.Second)}
		},
		bare: func(t imprint.Tenant) any {
			return imprint.AuditSuppression{Tenant: t, Check: "A", Resource: imprint.AuditResource{Kind: imprint.AuditPolicy, ID: unusual, Version: 3}}
		},
		put: func(tx imprint.Tx, v any) error { return tx.PutAuditSuppression(v.(imprint.AuditSuppression)) },
		get: func(tx imprint.ReadTx, t imprint.Tenant) (any, error) {
			return tx.AuditSuppression(t, "A", imprint.AuditPolicy+"/"+unusual+":3")
		},
		remove: func(tx imprint.Tx, t imprint.Tenant) error {
			return tx.DeleteAuditSuppression(t, "A", imprint.AuditPolicy+"/"+unusual+":3")
		},
	}, {
		name: "scheduled audit",
		full: func(t imprint.Tenant) any {
			return imprint.ScheduledAudit{Tenant: t, Name: "nightly", Frequency: imprint.AuditMonthly, DayOfMonth: imprint.LastDayOfMonth, DayOfWeek: "SUN " + string(t.Region),
				Checks: []imprint.AuditCheck{"A", "B"}, Minute: 1439, NextAt: instant, CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.ScheduledAudit{Tenant: t, Name: "nightly"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutScheduledAudit(v.(imprint.ScheduledAudit)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.ScheduledAudit(t, "nightly") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteScheduledAudit(t, "nightly") },
	}}
}

func auditLists() []pagedList {
	tasks := func(f imprint.AuditTaskFilter) func(imprint.ReadTx, imprint.Tenant, imprint.Page) ([]int, string, error) {
		return func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			found, next, err := tx.AuditTasks(t, f, p)
			var all []int
			for _, task := range found {
				all = append(all, task.Restarts)
			}
			return all, next, err
		}
	}
	addTask := func(kind imprint.AuditTaskType, status imprint.AuditTaskStatus) func(imprint.Tx, imprint.Tenant, int) error {
		return func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutAuditTask(imprint.AuditTask{Tenant: t, ID: string(kind+"/") + string(status) + name(n), Type: kind, Status: status, Restarts: n, CreatedAt: at(n)})
		}
	}
	findings := func(f imprint.AuditFindingFilter) func(imprint.ReadTx, imprint.Tenant, imprint.Page) ([]int, string, error) {
		return func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			found, next, err := tx.AuditFindings(t, f, p)
			var all []int
			for _, one := range found {
				all = append(all, one.Resource.Version)
			}
			return all, next, err
		}
	}
	addFinding := func(task string, check imprint.AuditCheck) func(imprint.Tx, imprint.Tenant, int) error {
		return func(tx imprint.Tx, t imprint.Tenant, n int) error {
			f := imprint.AuditFinding{Tenant: t, ID: task + name(n), Task: task, Check: check, FoundAt: at(n), Resource: imprint.AuditResource{Kind: "k", ID: "same", Version: n}}
			f.Resource.Info = map[string]string{"n": name(n)}
			return tx.PutAuditFinding(f)
		}
	}
	return []pagedList{
		{"audits", addTask(imprint.AuditOnDemand, imprint.AuditFailed), tasks(imprint.AuditTaskFilter{Type: imprint.AuditOnDemand, Status: imprint.AuditFailed})},
		{"audits of a time", addTask(imprint.AuditScheduled, imprint.AuditInProgress),
			tasks(imprint.AuditTaskFilter{From: at(0), To: at(10_000), Type: imprint.AuditScheduled})},
		{"findings of a task", addFinding("one", "A"), findings(imprint.AuditFindingFilter{Task: "one"})},
		{"findings of a time and check", addFinding("two", "B"), findings(imprint.AuditFindingFilter{From: at(0), To: at(10_000), Check: "B"})},
		{"audit suppressions", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutAuditSuppression(imprint.AuditSuppression{Tenant: t, Check: "A", Resource: imprint.AuditResource{Kind: "k", ID: "same", Version: n + 1}, ExpiresAt: at(n)})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			found, next, err := tx.AuditSuppressions(t, imprint.AuditSuppressionFilter{Check: "A"}, p)
			var all []int
			for _, one := range found {
				all = append(all, one.Resource.Version-1)
			}
			return all, next, err
		}},
		{"scheduled audits", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutScheduledAudit(imprint.ScheduledAudit{Tenant: t, Name: name(n), Minute: n})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			found, next, err := tx.ScheduledAudits(t, p)
			var all []int
			for _, one := range found {
				all = append(all, one.Minute)
			}
			return all, next, err
		}},
	}
}

// testAudits ensures that audits that aren't over and schedules that are due are found
// in all tenants, that filters select what they say, and that findings are deleted
// in steps and before their task.
func testAudits(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	minute := func(n int) time.Time { return instant.Add(time.Duration(n) * time.Minute) }
	next := func() time.Time {
		var found time.Time
		view(t, store, func(tx imprint.ReadTx) error {
			one, err := tx.NextScheduledAudit()
			found = one
			return err
		})
		return found
	}
	if got := next(); !got.IsZero() {
		t.Errorf("the next scheduled audit of none: got %s, want none", got)
	}
	update(t, store, func(tx imprint.Tx) error {
		for n, status := range []imprint.AuditTaskStatus{imprint.AuditCompleted, imprint.AuditInProgress, imprint.AuditFailed} {
			for _, tenant := range []imprint.Tenant{here, other} {
				err := tx.PutAuditTask(imprint.AuditTask{Tenant: tenant, ID: string(status), Status: status, CreatedAt: minute(n)})
				if err == nil {
					err = tx.PutScheduledAudit(imprint.ScheduledAudit{Tenant: tenant, Name: name(n), NextAt: minute(n)})
				}
				if err != nil {
					return err
				}
			}
		}
		for n, check := range []imprint.AuditCheck{"A", "B", "A", "B", "B"} {
			for _, tenant := range []imprint.Tenant{here, there} {
				err := tx.PutAuditFinding(imprint.AuditFinding{Tenant: tenant, ID: name(n), Task: "COMPLETED", Check: check, FoundAt: minute(n), Resource: imprint.AuditResource{Kind: "k", ID: name(n)}})
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	view(t, store, func(tx imprint.ReadTx) error {
		running, err := tx.RunningAuditTasks()
		if err != nil {
			return err
		}
		same(t, "the audits that aren't over", []any{len(running), running[0].Tenant, running[1].Status}, []any{2, here, imprint.AuditInProgress})
		due, err := tx.ScheduledAuditsDue(minute(1), 3)
		if err != nil {
			return err
		}
		same(t, "what is due", []any{len(due), due[0].Name, due[1].Name, due[2].Name}, []any{3, name(0), name(0), name(1)})
		one, _, err := tx.AuditFindings(here, imprint.AuditFindingFilter{Task: "COMPLETED", Resource: "k/" + name(2)}, imprint.Page{Limit: 9})
		if err != nil {
			return err
		}
		same(t, "the finding about a resource", []any{len(one), one[0].ID}, []any{1, name(2)})
		some, _, err := tx.AuditFindings(here, imprint.AuditFindingFilter{From: minute(1), To: minute(3)}, imprint.Page{Limit: 9})
		if err != nil {
			return err
		}
		same(t, "the findings of a time", []any{len(some), some[0].ID, some[2].ID}, []any{3, name(3), name(1)})
		return nil
	})
	same(t, "the next scheduled audit", next(), minute(0))
	remove := func(check imprint.AuditCheck, limit int) int {
		n := 0
		update(t, store, func(tx imprint.Tx) error {
			gone, err := tx.DeleteAuditFindings(here, "COMPLETED", check, limit)
			n = gone
			if err == nil {
				err = tx.DeleteAuditTask(here, "COMPLETED")
			}
			return err
		})
		return n
	}
	for step, want := range []int{2, 2, 1, 0} {
		view(t, store, func(tx imprint.ReadTx) error {
			_, err := tx.AuditTask(here, "COMPLETED")
			if gone := imprint.CodeOf(err) == imprint.CodeNotFound; gone != (step == 3) {
				t.Errorf("deletion %d: the task is gone %t: %v", step, gone, err)
			}
			return nil
		})
		check := imprint.AuditCheck("")
		if step == 0 {
			check = "A"
		}
		same(t, fmt.Sprintf("deletion %d", step), remove(check, 2), want)
	}
	view(t, store, func(tx imprint.ReadTx) error {
		left, _, err := tx.AuditFindings(there, imprint.AuditFindingFilter{Task: "COMPLETED"}, imprint.Page{Limit: 9})
		same(t, "the findings of the other tenant", len(left), 5)
		return err
	})
}
