package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func attemptID(n int) string { return fmt.Sprintf("%06d", n) }

func testAttemptFilter(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	failed := []imprint.Step{{Name: "x", Verdict: imprint.VerdictFailed}}
	attempts := []imprint.Attempt{
		{Tenant: here, Address: "192.0.2.1:1000", Outcome: imprint.OutcomeRefused},
		{Tenant: here, Address: "192.0.2.1:2000", CertificateID: certID(1), Serial: "ff", Thing: "one", ClientID: "one"},
		{Tenant: there, Address: "[2001:db8::1]:1000", CertificateID: certID(1), Serial: "ff", Steps: failed},
		{Address: "192.0.2.10:1000", Outcome: imprint.OutcomeRefused},
		{Tenant: here, ClientID: "ff", Outcome: imprint.OutcomeProvisioned, Code: imprint.CodeProvisioned},
		{Tenant: here, Thing: "two", ClientID: unusual, Outcome: imprint.OutcomeClosed, Steps: failed},
	}
	update(t, store, func(tx imprint.Tx) error {
		for i, a := range attempts {
			a.ID, a.At = attemptID(i), instant.Add(time.Duration(i)*time.Minute)
			err := tx.PutAttempt(a)
			if err != nil {
				return err
			}
		}
		return nil
	})
	type filter = imprint.AttemptFilter
	for _, c := range []struct {
		name   string
		filter filter
		want   string
	}{
		{"nothing selects all", filter{}, "543210"},
		{"tenant", filter{Tenant: here}, "5410"},
		{"tenant and unassigned", filter{Tenant: here, Unassigned: true}, "54310"},
		{"another tenant and unassigned", filter{Tenant: there, Unassigned: true}, "32"},
		{"unassigned without a tenant", filter{Unassigned: true}, "543210"},
		{"failed, tenant and unassigned", filter{Tenant: here, Unassigned: true, FailedOnly: true}, "530"},
		{"address, tenant and unassigned", filter{Tenant: there, Unassigned: true, Match: "192.0.2.10"}, "3"},
		{"address, tenant alone", filter{Tenant: there, Match: "192.0.2.10"}, ""},
		{"failed", filter{FailedOnly: true}, "5320"},
		{"failed in a tenant", filter{Tenant: here, FailedOnly: true}, "50"},
		{"since", filter{Since: instant.Add(3 * time.Minute)}, "543"},
		{"since, failed", filter{Since: instant.Add(3 * time.Minute), FailedOnly: true}, "53"},
		{"certificate", filter{Match: string(certID(1))}, "21"},
		{"certificate in a tenant", filter{Match: string(certID(1)), Tenant: there}, "2"},
		{"serial or client id", filter{Match: "ff"}, "421"},
		{"failed and serial", filter{Match: "ff", FailedOnly: true}, "2"},
		{"since and serial", filter{Match: "ff", Since: instant.Add(2 * time.Minute)}, "42"},
		{"thing and client id of one attempt", filter{Match: "one"}, "1"},
		{"client id that is not ASCII", filter{Match: unusual}, "5"},
		{"address with port", filter{Match: "192.0.2.1:2000"}, "1"},
		{"address without port", filter{Match: "192.0.2.1"}, "10"},
		{"IPv6 address with port", filter{Match: "[2001:db8::1]:1000"}, "2"},
		{"IPv6 address without port", filter{Match: "2001:db8::1"}, "2"},
		{"IPv6 address in brackets", filter{Match: "[2001:db8::1]"}, "2"},
		{"address with another port", filter{Match: "192.0.2.1:3000"}, ""},
		{"nothing like it", filter{Match: "no"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, limit := range []int{1, 2, 7} {
				for _, ascending := range []bool{false, true} {
					want := c.want
					if ascending {
						want = backwards(want)
					}
					got := walkAttempts(t, store, c.filter, imprint.Page{Limit: limit, Ascending: ascending})
					if got != want {
						t.Errorf("by pages of %d, ascending %t, got %q, want %q", limit, ascending, got, want)
					}
				}
			}
		})
	}
}

// testAttemptsByChange ensures that what failed or ended since a time is found however long
// ago the connection began, that it outlives what is as old and didn't change, and that
// those who are on are known.
func testAttemptsByChange(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	at := func(minutes, seconds int) time.Time {
		return instant.Add(time.Duration(minutes)*time.Minute + time.Duration(seconds)*time.Second)
	}
	failed := func(first, last time.Time) []imprint.Step {
		return []imprint.Step{{At: first, Name: "publish", Verdict: imprint.VerdictFailed, Repeats: 2, LastAt: last}, {At: at(90, 0), Name: "fine", Verdict: imprint.VerdictOK}}
	}
	attempts := []imprint.Attempt{
		{Tenant: here, At: at(0, 0), Outcome: imprint.OutcomeConnected, Steps: failed(at(20, 0), at(60, 0)), ClientID: "c"},
		{Tenant: here, At: at(1, 0), Outcome: imprint.OutcomeClosed, EndedAt: at(30, 0), ClientID: "c"},
		{Tenant: here, At: at(2, 0), Outcome: imprint.OutcomeConnected, ClientID: "d"},
		{At: at(3, 0), Outcome: imprint.OutcomeRefused, EndedAt: at(3, 2)},
		{Tenant: here, At: at(50, 0), Outcome: imprint.OutcomeRefused, EndedAt: at(50, 0), ClientID: "c"},
		{Tenant: there, At: at(51, 0), Outcome: imprint.OutcomeClosed, EndedAt: at(51, 5), ClientID: "c"},
	}
	fill := func() {
		update(t, store, func(tx imprint.Tx) error {
			for i, a := range attempts {
				a.ID = attemptID(i)
				err := tx.PutAttempt(a)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	fill()
	type filter = imprint.AttemptFilter
	for _, c := range []struct {
		filter filter
		want   string
	}{
		{filter{Since: at(0, 0)}, "543210"},
		{filter{Since: at(3, 1)}, "54310"},
		{filter{Since: at(3, 2)}, "54310"},
		{filter{Since: at(3, 3)}, "5410"},
		{filter{Since: at(30, 0)}, "5410"},
		{filter{Since: at(31, 0)}, "540"},
		{filter{Since: at(51, 3)}, "50"},
		{filter{Since: at(60, 0)}, "0"},
		{filter{Since: at(61, 0)}, ""},
		{filter{Since: at(31, 0), Tenant: here}, "40"},
		{filter{Since: at(3, 1), Tenant: here, Unassigned: true}, "4310"},
		{filter{Since: at(10, 0), FailedOnly: true}, "40"},
		{filter{Since: at(10, 0), Tenant: here, Unassigned: true, FailedOnly: true, Match: "c"}, "40"},
		{filter{Since: at(10, 0), Match: "c"}, "5410"},
		{filter{Since: at(10, 0), Match: "d"}, ""},
		{filter{Since: at(10, 0), Match: attemptID(0)}, "0"},
	} {
		for _, limit := range []int{1, 2, 7} {
			for _, ascending := range []bool{false, true} {
				want := c.want
				if ascending {
					want = backwards(want)
				}
				got := walkAttempts(t, store, c.filter, imprint.Page{Limit: limit, Ascending: ascending})
				if got != want {
					t.Errorf("%+v, by pages of %d, ascending %t: got %q, want %q", c.filter, limit, ascending, got, want)
				}
			}
		}
	}
	live := func(after string, limit int, want ...string) {
		t.Helper()
		view(t, store, func(tx imprint.ReadTx) error {
			got, err := tx.LiveAttempts(after, limit)
			if !slices.Equal(got, want) {
				t.Errorf("after %q at most %d are on: got %q, want %q", after, limit, got, want)
			}
			return err
		})
	}
	live("", 10, attemptID(0), attemptID(2))
	live("", 1, attemptID(0))
	live(attemptID(0), 10, attemptID(2))
	live("", 0)
	for _, c := range []struct {
		name        string
		before      time.Time
		keep, limit int
		want        int
		left        string
	}{
		{"before a time", at(40, 0), -1, 100, 3, "045"},
		{"before a time, bounded", at(40, 0), -1, 1, 1, "02345"},
		{"beyond a number", at(0, 0), 4, 100, 2, "0145"},
		{"beyond a small number", at(0, 0), 1, 100, 5, "0"},
		{"all", at(0, 0), 0, 100, 6, ""},
	} {
		fill()
		update(t, store, func(tx imprint.Tx) error {
			got, err := tx.TrimAttempts(c.before, c.keep, c.limit)
			if got != c.want {
				t.Errorf("%s: trimmed %d, want %d", c.name, got, c.want)
			}
			return err
		})
		if left := walkAttempts(t, store, filter{}, imprint.Page{Limit: 3, Ascending: true}); left != c.left {
			t.Errorf("%s: left %q, want %q", c.name, left, c.left)
		}
	}
	fill()
	update(t, store, func(tx imprint.Tx) error {
		a, err := tx.Attempt(attemptID(0))
		if err != nil {
			return err
		}
		a.Outcome, a.EndedAt = imprint.OutcomeClosed, at(70, 0)
		return tx.PutAttempt(a)
	})
	live("", 10, attemptID(2))
	if got := walkAttempts(t, store, filter{Since: at(61, 0)}, imprint.Page{Limit: 3}); got != "0" {
		t.Errorf("what ended since is %q", got)
	}
}

// testAttemptsByWhatIsKnown ensures that the attempts of a device that was let in are
// found by the thing and the serial number that lead to its certificate now, and those
// of one that wasn't by what they hold, or, without a thing, by what leads to their certificate.
func testAttemptsByWhatIsKnown(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	failed := []imprint.Step{{Name: "x", Verdict: imprint.VerdictFailed}}
	attempts := []imprint.Attempt{
		{Tenant: here, CertificateID: certID(1), Serial: "ff", Thing: "one", ClientID: "one", Outcome: imprint.OutcomeConnected},
		{Tenant: here, CertificateID: certID(1), Serial: "ff", Thing: "one", ClientID: "one", Outcome: imprint.OutcomeRefused},
		{Tenant: here, CertificateID: certID(1), Serial: "ff", Thing: "two", ClientID: "two", Outcome: imprint.OutcomeClosed},
		{Tenant: here, CertificateID: certID(1), Serial: "ff", Thing: "one", ClientID: "one", Outcome: imprint.OutcomeClosed, Steps: failed},
		{Tenant: there, CertificateID: certID(1), Serial: "ff", Thing: "one", Outcome: imprint.OutcomeClosed},
		{Tenant: here, CertificateID: certID(2), Serial: "fe", Thing: "one", Outcome: imprint.OutcomeClosed},
		// It failed before anybody asked which thing the certificate is of.
		{Tenant: here, CertificateID: certID(1), Serial: "ff", Outcome: imprint.OutcomeRefused},
	}
	update(t, store, func(tx imprint.Tx) error {
		for i, a := range attempts {
			a.ID, a.At = attemptID(i), instant.Add(time.Duration(i)*time.Minute)
			err := tx.PutAttempt(a)
			if err != nil {
				return err
			}
		}
		for n, serial := range []string{"ff", "fe"} {
			err := tx.PutCertificate(imprint.Certificate{Tenant: here, ID: certID(n + 1), Serial: serial, PEM: "PEM"})
			if err != nil {
				return err
			}
		}
		for _, name := range []imprint.ThingName{"one", "two"} {
			err := tx.PutThing(imprint.Thing{Tenant: here, Name: name})
			if err == nil {
				err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: here, Thing: name, Certificate: certID(1)})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	expect := func(tenant imprint.Tenant, match, want string) {
		t.Helper()
		for _, limit := range []int{1, 7} {
			got := walkAttempts(t, store, imprint.AttemptFilter{Tenant: tenant, Match: match}, imprint.Page{Limit: limit})
			if got != want {
				t.Errorf("%s of %s, by pages of %d: got %q, want %q", match, tenant, limit, got, want)
			}
		}
	}
	expect(here, "one", "6310")
	expect(here, "two", "62")
	expect(here, "ff", "63210")
	expect(here, "fe", "5")
	expect(here, string(certID(1)), "63210")
	expect(there, "one", "")
	// What doesn't lead to the certificate any more finds what failed alone.
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteThingAttachment(here, "one", certID(1)) })
	expect(here, "one", "31")
	expect(here, "ff", "63210")
	update(t, store, func(tx imprint.Tx) error {
		return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: here, Thing: "one", Certificate: certID(2)})
	})
	expect(here, "one", "531")
}

// testAttemptsThatMade ensures that a certificate leads to the attempts that made it, in
// its own tenant, as long as they are kept, and the first digits of an id to what has it.
func testAttemptsThatMade(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	making := func(n ...int) []imprint.Step {
		steps := []imprint.Step{{At: instant, Name: "claim.request", Verdict: imprint.VerdictInfo}}
		for _, one := range n {
			steps = append(steps, imprint.Step{At: instant, Name: "claim.registered", Verdict: imprint.VerdictOK, Certificate: certID(one)},
				imprint.Step{At: instant, Name: "claim.registered", Verdict: imprint.VerdictOK, Certificate: certID(one)})
		}
		return steps
	}
	update(t, store, func(tx imprint.Tx) error {
		for i, a := range []imprint.Attempt{
			{Tenant: here, CertificateID: certID(9), Outcome: imprint.OutcomeClosed, Steps: making(1, 2)},
			{Tenant: here, CertificateID: certID(9), Outcome: imprint.OutcomeClosed, Steps: making(2)},
			{Tenant: there, CertificateID: certID(9), Outcome: imprint.OutcomeClosed, Steps: making(1)},
			{Tenant: here, CertificateID: certID(1), Outcome: imprint.OutcomeClosed, Steps: making()},
			{CertificateID: certID(8), Outcome: imprint.OutcomeRefused},
		} {
			a.ID, a.At = attemptID(i), instant.Add(time.Duration(i)*time.Minute)
			err := tx.PutAttempt(a)
			if err == nil {
				err = tx.PutAttempt(a) // again, as it is when it ends
			}
			if err != nil {
				return err
			}
		}
		return tx.PutCertificate(imprint.Certificate{Tenant: here, ID: certID(3), PEM: "PEM"})
	})
	expect := func(tenant imprint.Tenant, n int, want string) {
		t.Helper()
		got := ""
		view(t, store, func(tx imprint.ReadTx) error {
			list, err := tx.AttemptsMaking(tenant, certID(n), 10)
			got = ""
			for _, a := range list {
				got += a.ID[len(a.ID)-1:]
			}
			return err
		})
		if got != want {
			t.Errorf("certificate %d in %s: got %q, want %q", n, tenant, got, want)
		}
	}
	expect(here, 1, "0")
	expect(here, 2, "10")
	expect(there, 1, "2")
	expect(here, 9, "")
	words := func(tenant imprint.Tenant, unassigned bool, prefix string) (found []string) {
		t.Helper()
		view(t, store, func(tx imprint.ReadTx) error {
			var err error
			found, err = tx.AttemptWords(tenant, unassigned, prefix, 10)
			return err
		})
		return found
	}
	for _, row := range []struct {
		tenant     imprint.Tenant
		unassigned bool
		prefix     string
		want       []string
	}{
		{here, false, attemptID(0), []string{attemptID(0)}},
		{here, false, attemptID(2), nil},
		{here, false, attemptID(4), nil},
		{here, true, attemptID(4), []string{attemptID(4)}},
		{here, false, string(certID(9)[:20]), []string{string(certID(9))}},
		{here, false, string(certID(3)[:20]), []string{string(certID(3))}},
		{there, false, string(certID(3)[:20]), nil},
		{here, false, "%", nil},
		{here, false, "", nil},
	} {
		got := words(row.tenant, row.unassigned, row.prefix)
		// What an id of another kind begins with is found, too.
		for _, want := range row.want {
			if !slices.Contains(got, want) {
				t.Errorf("%s of %s: got %q, want %q in it", row.prefix, row.tenant, got, want)
			}
		}
		if row.want == nil && slices.ContainsFunc(got, func(word string) bool { return word == row.prefix }) {
			t.Errorf("%s of %s: got %q", row.prefix, row.tenant, got)
		}
	}
	update(t, store, func(tx imprint.Tx) error {
		for range 2 {
			_, err := tx.TrimAttempts(instant.Add(time.Minute), -1, 100)
			if err != nil {
				return err
			}
		}
		return nil
	})
	expect(here, 1, "")
	expect(here, 2, "1")
}

func backwards(s string) string {
	reversed := ""
	for _, r := range s {
		reversed = string(r) + reversed
	}
	return reversed
}

func walkAttempts(t *testing.T, store imprint.Store, f imprint.AttemptFilter, p imprint.Page) string {
	t.Helper()
	got := ""
	view(t, store, func(tx imprint.ReadTx) error {
		for {
			found, next, err := tx.Attempts(f, p)
			for _, a := range found {
				got += a.ID[5:]
			}
			if err != nil || next == "" {
				return err
			}
			p.Cursor = next
		}
	})
	return got
}

func testTrim(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	fill := func() {
		update(t, store, func(tx imprint.Tx) error {
			for i := range 10 {
				err := tx.PutAttempt(imprint.Attempt{ID: attemptID(i), At: instant.Add(time.Duration(i) * time.Minute), Thing: "t"})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	for _, c := range []struct {
		name        string
		before      time.Time
		keep, limit int
		want        int
		left        string
	}{
		{"nothing to do", instant, 10, 100, 0, "0123456789"},
		{"before a time", instant.Add(3 * time.Minute), 10, 100, 3, "3456789"},
		{"before a time, bounded", instant.Add(5 * time.Minute), 10, 2, 2, "23456789"},
		{"beyond a number", instant, 4, 100, 6, "6789"},
		{"beyond a number, bounded", instant, 4, 5, 5, "56789"},
		{"both", instant.Add(3 * time.Minute), 4, 100, 6, "6789"},
		{"both, bounded", instant.Add(3 * time.Minute), 4, 5, 5, "56789"},
		{"all", instant, 0, 100, 10, ""},
		{"no bound in number", instant, -1, 100, 0, "0123456789"},
		{"no rows allowed", instant.Add(time.Hour), 0, 0, 0, "0123456789"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fill()
			var got int
			update(t, store, func(tx imprint.Tx) error {
				var err error
				got, err = tx.TrimAttempts(c.before, c.keep, c.limit)
				return err
			})
			left := walkAttempts(t, store, imprint.AttemptFilter{}, imprint.Page{Limit: 3, Ascending: true})
			if got != c.want || left != c.left {
				t.Errorf("trimmed %d and left %q, want %d and %q", got, left, c.want, c.left)
			}
			matching := walkAttempts(t, store, imprint.AttemptFilter{Match: "t"}, imprint.Page{Limit: 3, Ascending: true})
			if matching != c.left {
				t.Errorf("the look-up gives %q, want %q", matching, c.left)
			}
		})
	}
}

// testAttemptAliases ensures that words lead to the row that a fold has now, in their own
// tenant, that the latest fold of a word is the one that is found, and that aliases are
// bounded and go with what they lead to.
func testAttemptAliases(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, func(tx imprint.Tx) error {
		for n, a := range []imprint.Attempt{
			{Tenant: here, Fold: attemptID(0)},
			{Tenant: there, Fold: attemptID(1)},
			{Fold: attemptID(2)},
			{Tenant: here, Fold: attemptID(3), ClientID: "d"},
		} {
			a.ID, a.At, a.Outcome = attemptID(n), instant, imprint.OutcomeRefused
			err := tx.PutAttempt(a)
			if err != nil {
				return err
			}
		}
		for _, a := range []imprint.AttemptAlias{
			{Tenant: here, Word: "a", Fold: attemptID(0)}, {Tenant: there, Word: "a", Fold: attemptID(1)}, {Word: "a", Fold: attemptID(2)},
			{Tenant: here, Word: "b", Fold: attemptID(0)}, {Tenant: here, Word: "b", Fold: attemptID(3)}, {Tenant: here, Word: "b", Fold: attemptID(3)},
			{Tenant: here, Word: "d", Fold: attemptID(0)},
		} {
			err := tx.PutAttemptAlias(a)
			if err != nil {
				return err
			}
		}
		return nil
	})
	expect := func(f imprint.AttemptFilter, want string) {
		t.Helper()
		for _, limit := range []int{1, 7} {
			got := walkAttempts(t, store, f, imprint.Page{Limit: limit})
			if got != want {
				t.Errorf("%+v, by pages of %d: got %q, want %q", f, limit, got, want)
			}
		}
	}
	type filter = imprint.AttemptFilter
	expect(filter{Match: "a"}, "210")
	expect(filter{Match: "a", Tenant: here}, "0")
	expect(filter{Match: "a", Tenant: here, Unassigned: true}, "20")
	expect(filter{Match: "b", Tenant: here}, "3")
	expect(filter{Match: "b", Tenant: there}, "")
	expect(filter{Match: "d", Tenant: here}, "30")
	expect(filter{Match: "d", Tenant: here, FailedOnly: true}, "30")
	// The row of a fold is replaced by that of its latest attempt.
	update(t, store, func(tx imprint.Tx) error {
		err := tx.DeleteAttempt(attemptID(0))
		if err != nil {
			return err
		}
		return tx.PutAttempt(imprint.Attempt{ID: attemptID(5), At: instant, Tenant: here, Fold: attemptID(0), Outcome: imprint.OutcomeRefused})
	})
	expect(filter{Match: "a", Tenant: here}, "5")
	expect(filter{Match: "d", Tenant: here}, "53")
	trim := func(keep, limit, want int) {
		t.Helper()
		update(t, store, func(tx imprint.Tx) error {
			got, err := tx.TrimAttemptAliases(keep, limit)
			if got != want {
				t.Errorf("keeping %d, by %d: trimmed %d aliases, want %d", keep, limit, got, want)
			}
			return err
		})
	}
	trim(-1, 10, 2) // those of the fold that is older than any attempt
	trim(2, 0, 0)
	trim(2, 10, 1)
	expect(filter{Match: "a"}, "2")
	trim(-1, 10, 0)
	update(t, store, func(tx imprint.Tx) error {
		_, err := tx.TrimAttempts(instant.Add(time.Hour), 0, 10)
		return err
	})
	trim(100, 1, 1)
	trim(100, 10, 1)
	trim(0, 10, 0)
}

func testEvents(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	event := func(id string) imprint.Event {
		return imprint.Event{ID: id, Tenant: there, Topic: "$aws/events/" + unusual, Payload: []byte(`{"a":"` + id + `"}`), At: instant, AttemptID: "attempt " + id}
	}
	update(t, store, func(tx imprint.Tx) error {
		for _, id := range []string{"3", "1", "2", "0"} {
			err := tx.PutEvent(event(id))
			if err != nil {
				return err
			}
		}
		return errors.Join(tx.PutEvent(imprint.Event{ID: "0", Tenant: here}), tx.PutEvent(imprint.Event{ID: "4"}))
	})
	list := func(tenant imprint.Tenant, limit int) []imprint.Event {
		var events []imprint.Event
		view(t, store, func(tx imprint.ReadTx) error {
			var err error
			events, err = tx.Events(tenant, limit)
			return err
		})
		return events
	}
	tenants := func() []imprint.Tenant {
		var tenants []imprint.Tenant
		view(t, store, func(tx imprint.ReadTx) error {
			var err error
			tenants, err = tx.EventTenants()
			return err
		})
		return tenants
	}
	units := func(tenant imprint.Tenant) int {
		var n int
		view(t, store, func(tx imprint.ReadTx) error {
			var err error
			n, err = tx.EventUnits(tenant)
			return err
		})
		return n
	}
	same(t, "the units", []int{units(there), units(here), units(imprint.Tenant{Account: "2", Region: "r"})}, []int{4, 1, 0})
	same(t, "the oldest two", list(there, 2), []imprint.Event{event("0"), event("1")})
	same(t, "no events", list(there, 0), []imprint.Event(nil))
	same(t, "tenants", tenants(), []imprint.Tenant{{}, there, here})
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteEvents(there, []string{"1", "absent", "0", "1", "4"}) })
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteEvents(there, nil) })
	same(t, "what is left", list(there, 100), []imprint.Event{event("2"), event("3")})
	same(t, "an event of the same id in another tenant", list(here, 100), []imprint.Event{{ID: "0", Tenant: here}})
	same(t, "an event of no tenant", list(imprint.Tenant{}, 100), []imprint.Event{{ID: "4"}})
	update(t, store, func(tx imprint.Tx) error { return tx.DeleteEvents(there, []string{"2", "3"}) })
	same(t, "the units of none", units(there), 0)
	same(t, "tenants of what is left", tenants(), []imprint.Tenant{{}, here})
	large := imprint.Event{ID: "5", Tenant: there, Topic: "täglich", Payload: bytes.Repeat([]byte("ü"), imprint.OwedUnit-4)}
	exact := imprint.Event{ID: "6", Tenant: there, Topic: "täglich", Payload: bytes.Repeat([]byte("ü"), imprint.OwedUnit-3)}
	update(t, store, func(tx imprint.Tx) error { return errors.Join(tx.PutEvent(large), tx.PutEvent(exact)) })
	same(t, "the units of large ones", units(there), imprint.OwedUnits(len(large.Topic)+len(large.Payload))+imprint.OwedUnits(len(exact.Topic)+len(exact.Payload)))
}
