package provisioning_test

import (
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// What a token is refused with says what became of its certificate, and no more than the
// registry still knows.
func TestATokenThatIsOverSaysWhatBecameOfItsCertificate(t *testing.T) {
	t.Parallel()
	activate := func(o *office, id string) {
		update(o, o.store, func(tx imprint.Tx) error {
			cert, err := tx.Certificate(home, imprint.CertificateID(id))
			if err != nil {
				return err
			}
			cert.Status = imprint.CertificateActive
			return tx.PutCertificate(cert)
		})
	}
	later := func(o *office) {
		o.ahead.Store(int64(time.Hour + time.Minute))
		_, err := o.claims.Sweep(o.Context())
		if err != nil {
			o.Fatal(err)
		}
	}
	for _, row := range []struct {
		name   string
		before func(o *office, made reply)
		want   string
	}{
		{"registered", func(o *office, made reply) { o.register(home, made.Token, map[string]string{"SerialNumber": "0"}) }, "was used already, or expired after an operator"},
		{"activated by an operator", func(o *office, made reply) { activate(o, made.ID) }, "became ACTIVE without its ownership token"},
		{"activated by an operator, and the time is over", func(o *office, made reply) {
			activate(o, made.ID)
			later(o)
		}, "was used already, or expired after an operator"},
		{"attached by an operator, and the time is over", func(o *office, made reply) {
			update(o, o.store, func(tx imprint.Tx) error {
				return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "x", Certificate: imprint.CertificateID(made.ID)})
			})
			later(o)
		}, "has expired; certificate"},
		{"the time is over", func(o *office, _ reply) { o.ahead.Store(int64(time.Hour + time.Minute)) }, "expired at"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, nil, provisioning.ClaimOptions{})
			made := o.create(home)
			row.before(o, made)
			// Neither a template that doesn't fit nor what the device sends is told first.
			for _, parameters := range []map[string]string{{"SerialNumber": "1"}, {}} {
				out, ok := o.register(home, made.Token, parameters)
				rejectedWith(t, out, ok, 400, "InvalidCertificateOwnershipToken")
				if !strings.Contains(out.Message, row.want) {
					t.Errorf("message: got %q, want %q in it", out.Message, row.want)
				}
				steps := o.steps()
				if last := steps[len(steps)-1]; last.Name != "claim.token" || last.Verdict != imprint.VerdictFailed || last.Fix == "" {
					t.Errorf("the trace ends with %+v, want a failed claim.token with a fix", last)
				}
			}
		})
	}
}

// The token is looked at in the transaction that makes the device, and before it only
// where somebody else is asked about the request.
func TestATokenIsReadOnceUnlessAHookIsAsked(t *testing.T) {
	t.Parallel()
	o := newOffice(t, answering(`{"allowProvisioning":true}`), provisioning.ClaimOptions{})
	for n, row := range []struct {
		hook  string
		looks bool
	}{{"", false}, {hookARN, true}} {
		o.template(home, fleetBody(ownPolicy), row.hook)
		serial := func(round int) map[string]string {
			return map[string]string{"SerialNumber": string(rune('a' + 2*n + round))}
		}
		_, ok := o.register(home, o.create(home).Token, serial(0)) // reads the template
		if !ok {
			t.Fatal("the first device was rejected")
		}
		made := o.create(home)
		looked := false
		o.afterGlance = func() { looked = true }
		_, ok = o.register(home, made.Token, serial(1))
		o.afterGlance = nil
		if !ok || looked != row.looks {
			t.Errorf("hook %q: accepted %t, a look before: %t; want true, %t", row.hook, ok, looked, row.looks)
		}
	}
}
