package storetest

import (
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// testLinkedAttempts ensures that the attempt that registered a certificate is found by it,
// by its thing and its serial number, whichever of the two is stored first, whether or not
// the certificate's row names the attempt, and after the row is gone.
func testLinkedAttempts(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	first := func(n, cert int) imprint.Attempt {
		return imprint.Attempt{
			ID: attemptID(n), Tenant: here, At: instant.Add(time.Duration(n) * time.Minute), CertificateID: certID(cert),
			Serial: "f" + attemptID(cert), Thing: imprint.ThingName("thing-" + attemptID(cert)), Outcome: imprint.OutcomeProvisioned, Code: imprint.CodeProvisioned,
			Steps: []imprint.Step{
				{At: instant, Name: "ca", Verdict: imprint.VerdictOK},
				{At: instant, Name: "register", Verdict: imprint.VerdictOK, Certificate: certID(cert)},
			},
		}
	}
	later := func(n, cert int, outcome imprint.Outcome) imprint.Attempt {
		a := first(n, cert)
		a.Steps, a.Outcome, a.Code = a.Steps[:1], outcome, ""
		return a
	}
	pending := first(8, 5) // registered by its CA alone: its thing is made later
	pending.Thing, pending.Outcome, pending.Code = "", imprint.OutcomeRefused, imprint.CodeRegisteredPending
	claim := first(6, 9)
	claim.Steps[1].Certificate, claim.Outcome = certID(4), imprint.OutcomeClosed
	register := func(tx imprint.Tx, tenant imprint.Tenant, n int, attempt string) error {
		err := tx.PutCertificate(imprint.Certificate{Tenant: tenant, ID: certID(n), Serial: "f" + attemptID(n), Attempt: attempt})
		if err != nil {
			return err
		}
		name := imprint.ThingName("thing-" + attemptID(n))
		err = tx.PutThing(imprint.Thing{Tenant: tenant, Name: name})
		if err != nil {
			return err
		}
		return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: tenant, Thing: name, Certificate: certID(n)})
	}
	update(t, store, func(tx imprint.Tx) error {
		for n, attempt := range map[int]string{1: attemptID(1), 2: attemptID(9), 4: attemptID(6), 5: attemptID(8)} {
			err := register(tx, here, n, attempt)
			if err != nil {
				return err
			}
		}
		for _, a := range []imprint.Attempt{
			later(0, 1, imprint.OutcomeRefused), first(1, 1), later(2, 1, imprint.OutcomeClosed),
			first(3, 2), // the row names another one
			first(4, 3), // no row yet
			later(5, 3, imprint.OutcomeClosed),
			claim, pending,
		} {
			err := tx.PutAttempt(a)
			if err == nil {
				err = tx.PutAttempt(a) // again, as it is when it ends
			}
			if err != nil {
				return err
			}
		}
		return register(tx, here, 3, attemptID(4))
	})
	expect := func(when string, tenant imprint.Tenant, match, want string) {
		t.Helper()
		for _, f := range []imprint.AttemptFilter{{Tenant: tenant, Match: match}, {Tenant: tenant, Match: match, Since: instant.Add(-time.Hour)}} {
			for _, limit := range []int{1, 7} {
				if got := walkAttempts(t, store, f, imprint.Page{Limit: limit}); got != want {
					t.Errorf("%s, %s of %s by pages of %d: got %q, want %q", when, match, tenant, limit, got, want)
				}
			}
		}
	}
	made := func(when string, n int, want string) {
		t.Helper()
		got := ""
		view(t, store, func(tx imprint.ReadTx) error {
			list, err := tx.AttemptsMaking(here, certID(n), 10)
			got = ""
			for _, a := range list {
				got += a.ID[5:]
			}
			return err
		})
		if got != want {
			t.Errorf("%s, what made certificate %d: got %q, want %q", when, n, got, want)
		}
	}
	registered := func(when string) {
		t.Helper()
		expect(when, here, string(certID(1)), "210")
		expect(when, here, string(certID(2)), "3")
		expect(when, here, string(certID(3)), "54")
		expect(when, here, string(certID(9)), "6")
		expect(when, there, string(certID(1)), "")
		made(when, 1, "") // its own
		made(when, 4, "6")
	}
	registered("registered")
	expect("registered", here, "thing-"+attemptID(1), "210")
	expect("registered", here, "f"+attemptID(1), "210")
	expect("registered", here, "thing-"+attemptID(3), "54")
	expect("registered", there, "thing-"+attemptID(1), "")
	expect("registered", here, "thing-"+attemptID(5), "8")
	update(t, store, func(tx imprint.Tx) error {
		// Another account's registration, by an attempt that nobody kept.
		return register(tx, there, 1, attemptID(7))
	})
	registered("registered by two")
	update(t, store, func(tx imprint.Tx) error {
		for _, n := range []int{1, 2, 3, 4} {
			err := tx.DeleteCertificate(here, certID(n))
			if err != nil {
				return err
			}
		}
		return nil
	})
	registered("deleted")
	update(t, store, func(tx imprint.Tx) error {
		_, err := tx.TrimAttempts(instant.Add(time.Hour), -1, 100)
		return err
	})
	expect("trimmed", here, string(certID(1)), "")
	made("trimmed", 4, "")
}
