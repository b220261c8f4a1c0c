package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// listID makes a number for each tenant: lists are found by it alone.
func listID(t imprint.Tenant) int64 {
	for n, tenant := range []imprint.Tenant{here, there, other} {
		if t == tenant {
			return int64(n+1) << 40
		}
	}
	return 1
}

func foreignListRows() []row {
	return []row{{
		name: "foreign list",
		full: func(t imprint.Tenant) any {
			return imprint.ForeignList{Tenant: t, ID: listID(t), CA: certID(1), CAPEM: unusual, SubjectKey: "ab", Scope: "http://x/" + unusual, Number: "1208925819614629174706176",
				ThisUpdate: instant, NextUpdate: instant.Add(time.Hour), Hash: "cd", Entries: 1 << 40, Generation: 7, Applied: true, RefuseStale: true, KeepRegistered: true,
				URL: "http://y", FetchAt: instant.Add(time.Minute), FetchedAt: instant.Add(1e6), ImportedAt: instant.Add(2e6), Failures: 3, LastError: unusual}
		},
		bare:   func(t imprint.Tenant) any { return imprint.ForeignList{Tenant: t, ID: listID(t)} },
		put:    func(tx imprint.Tx, v any) error { return tx.PutForeignList(v.(imprint.ForeignList)) },
		get:    func(tx imprint.ReadTx, t imprint.Tenant) (any, error) { return tx.ForeignList(listID(t)) },
		remove: func(tx imprint.Tx, t imprint.Tenant) error { return tx.DeleteForeignList(listID(t)) },
	}}
}

// testForeignLists ensures that imported lists are found by CA, subject and time, and that
// entries go by generation.
func testForeignLists(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	lists := []imprint.ForeignList{
		{ID: 1, Tenant: here, CA: certID(1), SubjectKey: "s", Applied: true},                                               // never due
		{ID: 2, Tenant: here, CA: certID(1), SubjectKey: "s", Scope: "b", Applied: true, URL: "u", FetchAt: instant},       // due
		{ID: 3, Tenant: here, CA: certID(2), SubjectKey: "s", URL: "u", FetchAt: instant.Add(time.Hour)},                   // not applied
		{ID: 4, Tenant: there, CA: certID(1), SubjectKey: "s", Applied: true, URL: "u", FetchAt: instant.Add(time.Minute)}, // not yet
	}
	update(t, store, func(tx imprint.Tx) error {
		for _, l := range lists {
			err := tx.PutForeignList(l)
			if err != nil {
				return err
			}
			for generation := range int64(3) {
				for n := range 4 {
					err = tx.PutForeignRevocation(l.ID, generation, imprint.ForeignRevocation{Serial: fmt.Sprintf("%d%d", generation, n), RevokedAt: instant, Reason: n})
					if err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	ids := func(found []imprint.ForeignList, err error) string {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		var all []int64
		for _, l := range found {
			all = append(all, l.ID)
		}
		return fmt.Sprint(all)
	}
	view(t, store, func(tx imprint.ReadTx) error {
		same(t, "those of a CA", ids(tx.ForeignListsOf(here, certID(1))), "[1 2]")
		same(t, "those of a subject", ids(tx.ForeignListsBySubject(here, "s")), "[1 3 2]")
		same(t, "those that are due", ids(tx.ForeignListsDue(instant, 10)), "[3 2]")
		same(t, "the first that is due", ids(tx.ForeignListsDue(instant, 1)), "[3]")
		same(t, "all, after one", ids(tx.AllForeignLists(1, 2)), "[2 3]")
		entry, err := tx.ForeignRevocation(2, 1, "12")
		same(t, "an entry", fmt.Sprint(entry, err), fmt.Sprint(imprint.ForeignRevocation{Serial: "12", RevokedAt: instant, Reason: 2}, nil))
		_, err = tx.ForeignRevocation(2, 2, "12")
		wantCode(t, err, imprint.CodeNotFound)
		entries, err := tx.ForeignRevocations(2, 1, "10", 2)
		same(t, "entries after one", fmt.Sprint(len(entries), entries[0].Serial, err), fmt.Sprint(2, "11", nil))
		return nil
	})
	for _, want := range []int{5, 3, 0} {
		update(t, store, func(tx imprint.Tx) error {
			n, err := tx.DeleteForeignRevocations(2, 1, 5)
			same(t, "how many were deleted", n, want)
			return err
		})
	}
	view(t, store, func(tx imprint.ReadTx) error {
		entries, err := tx.ForeignRevocations(2, 1, "", 10)
		same(t, "what stays of the list", len(entries), 4)
		if err != nil {
			return err
		}
		entries, err = tx.ForeignRevocations(3, 2, "", 10)
		same(t, "what stays of another", len(entries), 4)
		return err
	})
	err := store.Update(t.Context(), func(tx imprint.Tx) error {
		return tx.PutForeignList(imprint.ForeignList{ID: 9, Tenant: here, CA: certID(1), Scope: "b"})
	})
	if err == nil {
		t.Error("a CA has two lists of one scope")
	}
}
