package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// testEnrolment ensures that one-time passwords go with their label, and when their time
// is over, a few at a time and the oldest first.
func testEnrolment(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, func(tx imprint.Tx) error {
		for n, label := range []imprint.LabelName{"one", "two"} {
			err := tx.PutEnrolmentLabel(imprint.EnrolmentLabel{Tenant: here, Name: label})
			if err != nil {
				return err
			}
			for i := range 4 {
				err = tx.PutEnrolmentPassword(imprint.EnrolmentPassword{ID: fmt.Sprint(n, i), Tenant: here, Label: label, ExpiresAt: instant.Add(time.Duration(i) * time.Hour)})
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	left := func(label imprint.LabelName) []string {
		var ids []string
		view(t, store, func(tx imprint.ReadTx) error {
			all, _, err := tx.EnrolmentPasswords(here, label, imprint.Page{Limit: 10, Ascending: true})
			for _, p := range all {
				ids = append(ids, p.ID)
			}
			return err
		})
		return ids
	}
	for _, want := range []int{3, 1, 0} {
		var gone int
		update(t, store, func(tx imprint.Tx) error {
			var err error
			gone, err = tx.TrimEnrolmentPasswords(instant.Add(2*time.Hour), 3)
			return err
		})
		same(t, "passwords that are trimmed", gone, want)
	}
	same(t, "what is left of one", left("one"), []string{"0 2", "0 3"})
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteEnrolmentLabel(other, "one") })
	same(t, "what another tenant takes away", left("one"), []string{"0 2", "0 3"})
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteEnrolmentLabel(here, "one") })
	same(t, "what is left of a label that is gone", len(left("one")), 0)
	same(t, "what is left of the other", left("two"), []string{"1 2", "1 3"})
	for n, name := range []imprint.LabelName{"a", "b", "c", "b"} {
		update(t, store, func(tx imprint.Tx) error {
			return tx.KeepLabelName(name, here.Account, instant.Add(time.Duration(n)*time.Minute), 2)
		})
	}
	update(t, store, func(tx imprint.Tx) error { return tx.KeepLabelName("d", "999999999999", instant.Add(-time.Hour), 2) })
	view(t, store, func(tx imprint.ReadTx) error {
		for _, c := range []struct {
			name imprint.LabelName
			at   time.Time
			want imprint.AccountID
		}{{"a", instant.Add(-time.Hour), ""}, {"b", instant.Add(2 * time.Minute), here.Account}, {"b", instant.Add(3 * time.Minute), ""}, {"c", instant, here.Account}, {"d", instant, ""}, {"d", instant.Add(-2 * time.Hour), "999999999999"}} {
			account, err := tx.LabelNameKept(c.name, c.at)
			same(t, "who has the name "+string(c.name), fmt.Sprint(account, err), fmt.Sprint(c.want, nil))
		}
		return nil
	})
}
