package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func taskRows() []row {
	return []row{{
		name: "registration task",
		full: func(t imprint.Tenant) any {
			return imprint.RegistrationTask{Tenant: t, ID: "task", TemplateBody: unusual, Bucket: "bucket", Key: "a/b", RoleARN: "role", StartedBy: "user " + string(t.Region),
				Status: imprint.TaskFailed, Message: unusual, Lines: 3, Offset: 1 << 40, Size: 1 << 41, Version: unusual, Succeeded: 1 << 33, Failed: 2,
				CreatedAt: instant, ModifiedAt: instant.Add(time.Second)}
		},
		bare: func(t imprint.Tenant) any { return imprint.RegistrationTask{Tenant: t, ID: "task"} },
		put:  func(tx imprint.Tx, v any) error { return tx.PutRegistrationTask(v.(imprint.RegistrationTask)) },
		get:  func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.RegistrationTask(t, "task") },
		remove: func(tx imprint.Tx, t imprint.Tenant) error {
			_, err := tx.DeleteRegistrationTask(t, "task", 1)
			return err
		},
	}}
}

func taskLists() []pagedList {
	add := func(status imprint.RegistrationTaskStatus) func(imprint.Tx, imprint.Tenant, int) error {
		return func(tx imprint.Tx, t imprint.Tenant, n int) error {
			return tx.PutRegistrationTask(imprint.RegistrationTask{Tenant: t, ID: string(status) + name(n), Status: status, CreatedAt: at(n), Lines: int64(n)})
		}
	}
	page := func(status imprint.RegistrationTaskStatus) func(imprint.ReadTx, imprint.Tenant, imprint.Page) ([]int, string, error) {
		return func(tx imprint.ReadTx, t imprint.Tenant, p imprint.Page) ([]int, string, error) {
			found, next, err := tx.RegistrationTasks(t, status, p)
			var all []int
			for _, task := range found {
				all = append(all, int(task.Lines))
			}
			return all, next, err
		}
	}
	return []pagedList{
		{"registration tasks", add(imprint.TaskCompleted), page("")},
		{"registration tasks of a status", add(imprint.TaskInProgress), page(imprint.TaskInProgress)},
	}
}

// testTasks ensures that tasks that aren't over are found in all tenants, and that
// reports are read in the order of their lines and deleted in steps.
func testTasks(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, func(tx imprint.Tx) error {
		for n, status := range []imprint.RegistrationTaskStatus{imprint.TaskCompleted, imprint.TaskCancelling, imprint.TaskInProgress, imprint.TaskFailed, imprint.TaskCancelled} {
			for _, tenant := range []imprint.Tenant{here, other} {
				err := tx.PutRegistrationTask(imprint.RegistrationTask{Tenant: tenant, ID: string(status), Status: status, CreatedAt: at(n)})
				if err != nil {
					return err
				}
			}
		}
		for _, line := range []int64{513, 1, 257} {
			for _, kind := range []string{imprint.ReportResults, imprint.ReportErrors} {
				for _, tenant := range []imprint.Tenant{here, there} {
					err := tx.PutRegistrationReport(imprint.RegistrationReport{Tenant: tenant, Task: "Failed", Kind: kind, Line: line, Body: fmt.Appendf(nil, "%s %d\n", kind, line)})
					if err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	var running []string
	view(t, store, func(tx imprint.ReadTx) error {
		running = nil
		found, err := tx.RunningRegistrationTasks()
		for _, task := range found {
			running = append(running, task.ID)
		}
		return err
	})
	same(t, "the tasks that aren't over", running, []string{"Cancelling", "Cancelling", "InProgress", "InProgress"})
	parts := func(tenant imprint.Tenant, kind string, after int64, limit int) string {
		text := ""
		view(t, store, func(tx imprint.ReadTx) error {
			text = ""
			found, err := tx.RegistrationReports(tenant, "Failed", kind, after, limit)
			for _, part := range found {
				text += string(part.Body)
			}
			return err
		})
		return text
	}
	same(t, "a report", parts(here, imprint.ReportErrors, 0, 2), "ERRORS 1\nERRORS 257\n")
	same(t, "the rest of it", parts(here, imprint.ReportErrors, 257, 2), "ERRORS 513\n")
	for n, want := range []bool{false, false, true} {
		var gone bool
		update(t, store, func(tx imprint.Tx) error {
			all, err := tx.DeleteRegistrationTask(here, "Failed", 4)
			gone = all
			return err
		})
		same(t, fmt.Sprintf("deletion %d is the last", n), gone, want)
	}
	same(t, "the report after its task", parts(here, imprint.ReportResults, 0, 9), "")
	same(t, "the report of the other tenant", parts(there, imprint.ReportResults, 0, 1), "RESULTS 1\n")
}

// testTry ensures that what fails inside a change undoes itself alone, for the
// rows and for the watchers.
func testTry(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	var ear heard
	defer store.Watch(ear.add)()
	failure := errors.New("no")
	update(t, store, func(tx imprint.Tx) error {
		err := tx.PutThing(thing(here, "before"))
		if err != nil {
			return err
		}
		err = tx.Try(func() error {
			err := tx.PutThing(thing(here, "inside"))
			if err != nil {
				return err
			}
			return failure
		})
		if !errors.Is(err, failure) {
			t.Errorf("got %v from a Try that fails, want its error", err)
		}
		err = tx.Try(func() error { return tx.PutThing(thing(here, "kept")) })
		if err != nil {
			return err
		}
		err = tx.Try(func() error { return tx.Try(func() error { return nil }) })
		if err == nil {
			t.Error("a Try inside a Try is taken")
		}
		return tx.PutThing(thing(here, "after"))
	})
	same(t, "what watchers hear", ear.take(), []imprint.Change{
		{Kind: imprint.ChangeThing, Tenant: here, Key: "before"}, {Kind: imprint.ChangeThing, Tenant: here, Key: "kept"},
		{Kind: imprint.ChangeThing, Tenant: here, Key: "after"},
	})
	view(t, store, func(tx imprint.ReadTx) error {
		for name, there := range map[imprint.ThingName]bool{"before": true, "inside": false, "kept": true, "after": true} {
			_, err := tx.Thing(here, name)
			if (err == nil) != there {
				t.Errorf("thing %s: got %v, want it to be there %t", name, err, there)
			}
		}
		return nil
	})
	err := store.Update(t.Context(), func(tx imprint.Tx) error {
		err := tx.Try(func() error { return tx.PutThing(thing(here, "lost")) })
		if err != nil {
			return err
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("got %v, want the change's error", err)
	}
	view(t, store, func(tx imprint.ReadTx) error {
		_, err := tx.Thing(here, "lost")
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			t.Errorf("a Try of a change that failed was kept: %v", err)
		}
		return nil
	})
}
