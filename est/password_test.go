package est_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
)

// TestWhoCameWithAPasswordIsFoundByItsUserName: what a device was given says nothing of its
// address. The password is nowhere, also where a device sends it as its name.
func TestWhoCameWithAPasswordIsFoundByItsUserName(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", withPasswords)
	secret := l.password("seven", "one", "")
	request := csr(t, newKey(t), name("sensor-17"))
	l.with("one", "wrong-secret").post("seven", "simpleenroll", request).want(t, 401, "isn't right")
	l.with("two", "wrong-secret").post("eight", "simpleenroll", request).want(t, 404, "doesn't exist")
	l.with("one", secret).post("seven", "simpleenroll", request).certificate(t)
	long := strings.Repeat("n", 5000)
	for _, odd := range []string{long, "a\x00b", secret} {
		l.with(odd, secret).post("seven", "simpleenroll", request).want(t, 401, "of that user name isn't right")
	}
	l.with(secret, "").post("seven", "simpleenroll", request).want(t, 401, "of that user name isn't right")
	l.with(secret, "one").post("seven", "simpleenroll", request).want(t, 401, "of that user name isn't right")
	l.trace.Close()
	fatal(t, l.store.View(t.Context(), func(tx imprint.ReadTx) error {
		for word, want := range map[string][]imprint.Outcome{
			"one": {imprint.OutcomeEnrolled, imprint.OutcomeRefused}, "two": nil,
			"wrong-secret": nil, secret: nil, long: nil, "a\x00b": nil,
		} {
			list, _, err := tx.Attempts(imprint.AttemptFilter{Tenant: home, Unassigned: true, Match: word}, imprint.Page{Limit: 100})
			if err != nil {
				return err
			}
			var got []imprint.Outcome
			for _, a := range list {
				got = append(got, a.Outcome)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%.20q finds attempts %v, want %v", word, got, want)
			}
		}
		all, _, err := tx.Attempts(imprint.AttemptFilter{}, imprint.Page{Limit: 100})
		if text := fmt.Sprintf("%+v", all); len(all) == 0 || strings.Contains(text, secret) || strings.Contains(text, "wrong-secret") {
			t.Errorf("a password stands in the trace: %s", text)
		}
		return err
	}))
}

// Of many requests that come at once with one password, one gets a certificate.
func TestAPasswordIsUsedOnceAlsoAtOnce(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("seven", withPasswords)
	secret := l.password("seven", "one", "")
	const clients = 12
	got := make([]answer, clients)
	var all sync.WaitGroup
	for n := range clients {
		request := csr(t, newKey(t), name(fmt.Sprint("sensor-", n)))
		all.Go(func() { got[n] = l.with("one", secret).post("seven", "simpleenroll", request) })
	}
	all.Wait()
	given := 0
	for _, a := range got {
		if a.status == http.StatusOK {
			given++
			continue
		}
		a.want(t, 401, "was used")
	}
	issued := 0
	fatal(t, l.store.View(t.Context(), func(tx imprint.ReadTx) error {
		list, _, err := tx.IssuancesBy(home, l.seven.ID, imprint.Page{Limit: 100})
		for _, i := range list {
			if i.CertificateID != "" {
				issued++
			}
		}
		return err
	}))
	if given != 1 || issued != 1 {
		t.Errorf("%d clients got a certificate and %d are on record, want 1", given, issued)
	}
}
