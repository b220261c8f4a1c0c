package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// testIssuanceLog ensures that the issuances that the log lacks are exactly the completed
// ones without an index, in order, and that completing or changing one keeps its index.
func testIssuanceLog(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	view(t, store, func(tx imprint.ReadTx) error {
		l, err := tx.IssuanceLog()
		same(t, "a log that isn't there", l, imprint.IssuanceLog{})
		return err
	})
	put := func(id string, tenant imprint.Tenant, certificate imprint.CertificateID) {
		update(t, store, func(tx imprint.Tx) error {
			return tx.PutIssuance(imprint.Issuance{ID: id, Tenant: tenant, CertificateID: certificate})
		})
	}
	put("c", here, certID(3))
	put("a", there, certID(1))
	put("b", here, "")
	put("d", here, certID(4))
	waiting := func(want ...string) {
		t.Helper()
		view(t, store, func(tx imprint.ReadTx) error {
			got, err := tx.UnloggedIssuances(10)
			same(t, "what waits", fmt.Sprint(got, err), fmt.Sprint(want, nil))
			count, err := tx.UnloggedCount(2)
			same(t, "how many wait, up to two", fmt.Sprint(count, err), fmt.Sprint(min(len(want), 2), nil))
			return err
		})
	}
	waiting("a", "c", "d")
	update(t, store, func(tx imprint.Tx) error {
		err := tx.SetLogIndex("c", 7)
		if err != nil {
			return err
		}
		return tx.PutIssuanceLog(imprint.IssuanceLog{Size: 8, Pending: []string{"a", "d"}, Checkpoint: unusual})
	})
	put("c", here, certID(3))
	waiting("a", "d")
	put("b", here, certID(2))
	waiting("a", "b", "d")
	update(t, store, func(tx imprint.Tx) error { return tx.SetLogIndex("c", -1) })
	waiting("a", "b", "c", "d")
	update(t, store, func(tx imprint.Tx) error { return tx.SetLogIndex("a", 0) })
	view(t, store, func(tx imprint.ReadTx) error {
		l, err := tx.IssuanceLog()
		same(t, "the log", fmt.Sprint(l, err), fmt.Sprint(imprint.IssuanceLog{Size: 8, Pending: []string{"a", "d"}, Checkpoint: unusual}, nil))
		i, err := tx.LoggedIssuance("a")
		same(t, "one with its index", fmt.Sprint(i.ID, i.Tenant, i.LogIndex, err), fmt.Sprint("a", there, 0, nil))
		_, err = tx.LoggedIssuance("z")
		wantCode(t, err, imprint.CodeNotFound)
		i, err = tx.LoggedIssuanceOf(there, certID(1))
		same(t, "that of a certificate", fmt.Sprint(i.ID, i.LogIndex, err), fmt.Sprint("a", 0, nil))
		for _, id := range []imprint.CertificateID{certID(3), certID(9), ""} {
			_, err = tx.LoggedIssuanceOf(there, id) // another tenant's, nobody's, and that of intents
			wantCode(t, err, imprint.CodeNotFound)
		}
		var ids []string
		for after := ""; ; {
			page, err := tx.LoggedIssuances(after, 3)
			if err != nil || len(page) == 0 {
				break
			}
			for _, i := range page {
				ids = append(ids, fmt.Sprint(i.ID, i.LogIndex))
				after = i.ID
			}
		}
		same(t, "those of all tenants", fmt.Sprint(ids), fmt.Sprint([]string{"a0", "b-1", "c-1", "d-1"}))
		return nil
	})
	err := store.Update(t.Context(), func(tx imprint.Tx) error { return tx.SetLogIndex("z", 1) })
	wantCode(t, err, imprint.CodeNotFound)
}

// testProfileRules ensures that all rules that a profile ever had are kept, by name and time.
func testProfileRules(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	put := func(name string, from int64, rules string) {
		update(t, store, func(tx imprint.Tx) error {
			return tx.PutProfileRules(imprint.ProfileRules{Name: name, From: time.UnixMilli(from), Rules: rules})
		})
	}
	put("b", 5, "{}")
	put("a", 9, unusual)
	put("a", 1, "{}")
	put("a", 1, `{"lifetime":1}`)
	view(t, store, func(tx imprint.ReadTx) error {
		all, err := tx.ProfileRules()
		got := ""
		for _, p := range all {
			got += fmt.Sprintln(p.Name, p.From.UnixMilli(), p.Rules)
		}
		same(t, "the rules", got, fmt.Sprintln("a", 1, `{"lifetime":1}`)+fmt.Sprintln("a", 9, unusual)+fmt.Sprintln("b", 5, "{}"))
		return err
	})
}

// testIssuanceSteps ensures that an intent is added where there is none, and that only its
// own intent is completed, once.
func testIssuanceSteps(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	intent := imprint.Issuance{
		ID: "i", Tenant: here, Authority: "a", Profile: "p", Serial: "0a", Subject: "CN=x", TBSHash: "bb", KeyHash: "cc", RequestedBy: "me",
		At: instant, NotBefore: instant, NotAfter: instant,
	}
	step := func(what string, want bool, do func(tx imprint.Tx) (bool, error)) {
		t.Helper()
		var got bool
		update(t, store, func(tx imprint.Tx) error {
			var err error
			got, err = do(tx)
			return err
		})
		same(t, what, got, want)
	}
	holds := func(want imprint.Issuance) {
		t.Helper()
		view(t, store, func(tx imprint.ReadTx) error {
			got, err := tx.Issuance("i")
			same(t, "the issuance", got, want)
			return err
		})
	}
	done := intent
	done.CertificateID, done.Certificate = certID(1), []byte{1, 2}
	complete := func(change func(*imprint.Issuance)) func(tx imprint.Tx) (bool, error) {
		i := done
		change(&i)
		return func(tx imprint.Tx) (bool, error) { return tx.CompleteIssuance(i) }
	}
	step("completed before its intent", false, complete(func(*imprint.Issuance) {}))
	step("added", true, func(tx imprint.Tx) (bool, error) { return tx.AddIssuance(intent) })
	step("added again", false, func(tx imprint.Tx) (bool, error) { return tx.AddIssuance(done) })
	holds(intent)
	step("completed by another tenant", false, complete(func(i *imprint.Issuance) { i.Tenant = there }))
	step("completed for other bytes", false, complete(func(i *imprint.Issuance) { i.TBSHash = "bc" }))
	step("completed with another serial", false, complete(func(i *imprint.Issuance) { i.Serial = "0b" }))
	holds(intent)
	step("completed", true, complete(func(i *imprint.Issuance) { i.Profile = "other" }))
	step("completed again", false, complete(func(i *imprint.Issuance) { i.CertificateID = certID(2) }))
	holds(done)
	view(t, store, func(tx imprint.ReadTx) error {
		waiting, err := tx.UnloggedIssuances(10)
		same(t, "what waits for the log", fmt.Sprint(waiting, err), fmt.Sprint([]string{"i"}, nil))
		return nil
	})
}
