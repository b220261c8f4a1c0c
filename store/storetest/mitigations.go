package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func mitigationRows() []row {
	yes := true
	action := func(t imprint.Tenant) imprint.MitigationAction {
		return imprint.MitigationAction{Tenant: t, Name: "action", ID: unusual, Kind: imprint.MitigateThingGroup, RoleARN: "role " + string(t.Region),
			Groups: []imprint.ThingGroupName{"a", "b"}, OverrideDynamic: &yes, CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
	}
	return []row{{
		name:   "mitigation action",
		full:   func(t imprint.Tenant) any { return action(t) },
		bare:   func(t imprint.Tenant) any { return imprint.MitigationAction{Tenant: t, Name: "action"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutMitigationAction(v.(imprint.MitigationAction)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.MitigationAction(t, "action") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteMitigationAction(t, "action") },
	}, {
		name: "mitigation task",
		full: func(t imprint.Tenant) any {
			return imprint.MitigationTask{Tenant: t, ID: "task", Status: imprint.AuditCanceled, Token: unusual, StartedBy: "user " + string(t.Region), Audit: "audit", Findings: []string{"f", unusual},
				Reasons: map[imprint.AuditCheck][]string{"A": {unusual}}, Mapping: map[imprint.AuditCheck][]string{"A": {"action"}, "B": {"x", "y"}}, Actions: []imprint.MitigationAction{action(t)},
				Tallies: map[imprint.AuditCheck]imprint.MitigationTally{"A": {Total: 1 << 40, Failed: 1, Succeeded: 2, Skipped: 3}}, Counted: true, Done: unusual, Executions: 1 << 41, Restarts: 2, Message: unusual,
				CreatedAt: instant, EndedAt: instant.Add(time.Minute), ModifiedAt: instant.Add(time.Second)}
		},
		bare:   func(t imprint.Tenant) any { return imprint.MitigationTask{Tenant: t, ID: "task"} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutMitigationTask(v.(imprint.MitigationTask)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.MitigationTask(t, "task") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteMitigationTask(t, "task") },
	}}
}

func mitigationLists() []pagedList {
	return []pagedList{
		{"mitigation actions of a kind", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutMitigationAction(imprint.MitigationAction{Tenant: t, Name: name(n), Kind: imprint.MitigatePolicy, ID: fmt.Sprint(n)})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			found, next, err := tx.MitigationActions(t, imprint.MitigatePolicy, p)
			var all []int
			for _, one := range found {
				n := 0
				_, scanErr := fmt.Sscan(one.ID, &n)
				if scanErr != nil {
					return nil, "", scanErr
				}
				all = append(all, n)
			}
			return all, next, err
		}},
		{"mitigation tasks of an audit", func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutMitigationTask(imprint.MitigationTask{Tenant: t, ID: name(n), Status: imprint.AuditFailed, Audit: "one", Restarts: n, CreatedAt: at(n)})
		}, func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			found, next, err := tx.MitigationTasks(t, imprint.MitigationTaskFilter{From: at(0), To: at(10_000), Status: imprint.AuditFailed, Audit: "one"}, p)
			var all []int
			for _, task := range found {
				all = append(all, task.Restarts)
			}
			return all, next, err
		}},
	}
}

// testMitigations ensures that tasks that aren't over are found in all tenants, that
// tasks are found by what they did, and that executions are deleted in steps and before
// their task.
func testMitigations(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	execution := func(tenant imprint.Tenant, task, finding, action string) imprint.MitigationExecution {
		return imprint.MitigationExecution{Tenant: tenant, Task: task, Finding: finding, Action: action, ActionID: unusual, Status: imprint.MitigationFailed, Code: "c", Message: unusual,
			StartedAt: instant, EndedAt: instant.Add(time.Second)}
	}
	update(t, store, func(tx imprint.Tx) error {
		for n, status := range []imprint.AuditTaskStatus{imprint.AuditCompleted, imprint.AuditInProgress, imprint.AuditFailed} {
			for _, tenant := range []imprint.Tenant{here, other} {
				err := tx.PutMitigationTask(imprint.MitigationTask{Tenant: tenant, ID: string(status), Status: status, CreatedAt: at(n), Findings: []string{"named" + fmt.Sprint(n)}})
				if err != nil {
					return err
				}
			}
		}
		for _, tenant := range []imprint.Tenant{here, there} {
			for _, one := range [][2]string{{"f", "b"}, {"f", "a"}, {"g", "a"}} {
				err := tx.PutMitigationExecution(execution(tenant, "COMPLETED", one[0], one[1]))
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	view(t, store, func(tx imprint.ReadTx) error {
		running, err := tx.RunningMitigationTasks()
		if err != nil {
			return err
		}
		same(t, "the tasks that aren't over", []any{len(running), running[0].Tenant, running[1].Status}, []any{2, here, imprint.AuditInProgress})
		found, err := tx.MitigationExecutions(here, "COMPLETED", "f")
		if err != nil {
			return err
		}
		same(t, "what was done about a finding", found, []imprint.MitigationExecution{execution(here, "COMPLETED", "f", "a"), execution(here, "COMPLETED", "f", "b")})
		for finding, want := range map[string]string{"f": "COMPLETED", "named2": "FAILED", "none": ""} {
			tasks, _, err := tx.MitigationTasks(here, imprint.MitigationTaskFilter{From: at(0), To: at(9), Finding: finding}, imprint.Page{Limit: 9})
			if err != nil {
				return err
			}
			got := ""
			for _, task := range tasks {
				got += task.ID
			}
			same(t, "the tasks of finding "+finding, got, want)
		}
		return nil
	})
	remove := func(limit int) int {
		n := 0
		update(t, store, func(tx imprint.Tx) error {
			gone, err := tx.DeleteMitigationExecutions(here, "COMPLETED", limit)
			n = gone
			if err == nil {
				err = tx.DeleteMitigationTask(here, "COMPLETED")
			}
			return err
		})
		return n
	}
	there := func() bool {
		is := false
		view(t, store, func(tx imprint.ReadTx) error {
			_, err := tx.MitigationTask(here, "COMPLETED")
			is = err == nil
			return nil
		})
		return is
	}
	same(t, "a step", []any{remove(2), there()}, []any{2, true})
	same(t, "no step", remove(0), 0)
	same(t, "the last step", []any{remove(2), there()}, []any{1, false})
}
