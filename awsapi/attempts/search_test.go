package attempts_test

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/attempts"
)

func digits(n int) imprint.CertificateID {
	return imprint.CertificateID(fmt.Sprintf("%02x", n) + strings.Repeat("ab", 31))
}

// fingerprint writes an id as openssl x509 -fingerprint -sha256 does.
func fingerprint(id imprint.CertificateID) string {
	var pairs []string
	for n := 0; n < len(id); n += 2 {
		pairs = append(pairs, strings.ToUpper(string(id[n:n+2])))
	}
	return strings.Join(pairs, ":")
}

// told is a step that went well.
func told(name, detail string) imprint.Step {
	return imprint.Step{At: instant, Name: name, Verdict: imprint.VerdictOK, Detail: detail}
}

func made(id imprint.CertificateID) imprint.Step {
	s := told("claim.registered", "a device")
	s.Certificate = id
	return s
}

// TestAWordLeadsToADevicesWholeTimeline ensures that a certificate is shown with the
// connection of the claim that made it, and that its device's label, the first digits of
// an id, a CA, a template and a policy find what they should.
func TestAWordLeadsToADevicesWholeTimeline(t *testing.T) {
	t.Parallel()
	const ca = "ca00000000000000000000000000000000000000000000000000000000000000"
	parameter := func(value string) imprint.Step {
		return told("template.parameter", fmt.Sprintf("SerialNumber = %q (the device's request)", value))
	}
	w := newWorld(t,
		// A claim makes two devices on one connection.
		imprint.Attempt{Tenant: home, CertificateID: digits(9), ClientID: "line", Outcome: imprint.OutcomeClosed, Steps: []imprint.Step{
			told("claim.request", "x"), parameter("77"), made(digits(1)), told("claim.request", "x"), parameter("78"), made(digits(2)),
		}},
		imprint.Attempt{Tenant: home, CertificateID: digits(1), Thing: "sensor-77", Outcome: imprint.OutcomeClosed},
		imprint.Attempt{Tenant: home, CertificateID: digits(2), Thing: "sensor-78", Outcome: imprint.OutcomeConnected},
		imprint.Attempt{Tenant: home, CertificateID: digits(3), Subject: "SERIALNUMBER=SN-5,CN=x", Outcome: imprint.OutcomeProvisioned,
			Steps: []imprint.Step{told("ca", "signed by registered CA "+ca), told("template", "template line-7, version 2"), told("policy", "policy wide attached")}},
		imprint.Attempt{Tenant: home, CertificateID: digits(3), Subject: "SERIALNUMBER=SN-5,CN=x", Outcome: imprint.OutcomeConnected,
			Steps: []imprint.Step{told("policy.connect", `iot:Connect on client/x is allowed by statement 1 of policy "wide"`)}},
		imprint.Attempt{Tenant: another, CertificateID: digits(4), Subject: "SERIALNUMBER=SN-5", Outcome: imprint.OutcomeConnected},
		imprint.Attempt{Tenant: home, CertificateID: imprint.CertificateID(strings.Repeat("4829130a", 8)), Outcome: imprint.OutcomeConnected},
		imprint.Attempt{Tenant: home, CertificateID: digits(6), Subject: "SERIALNUMBER=482913", Outcome: imprint.OutcomeConnected},
	)
	err := w.store.Update(t.Context(), func(tx imprint.Tx) error {
		err := tx.PutCA(imprint.CACertificate{Tenant: home, ID: ca, PEM: "PEM"})
		if err == nil {
			err = tx.PutThing(imprint.Thing{Tenant: home, Name: "sensor-78"})
		}
		if err == nil {
			err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "sensor-78", Certificate: digits(2)})
		}
		if err == nil {
			err = tx.PutThing(imprint.Thing{Tenant: home, Name: "sensor-9"})
		}
		for _, name := range []imprint.PolicyName{"wide", "line-7", "idle", "sensor-9"} {
			if err == nil {
				err = tx.PutPolicy(imprint.Policy{Tenant: home, Name: name})
			}
		}
		if err == nil {
			err = tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: home, Name: "line-7", Type: imprint.TemplateJITP})
		}
		if err != nil {
			return err
		}
		return tx.PutAttempt(imprint.Attempt{ID: "0190abcdef1234567890", Tenant: home, At: instant, Address: "192.0.2.77:1", Outcome: imprint.OutcomeRefused, Code: imprint.CodeNotTLS})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, match, want, note string }{
		{"a certificate, with the claim's connection", string(digits(1)), "1 0", ""},
		{"the other device of that connection", string(digits(2)), "2 0", ""},
		{"its thing", "sensor-78", "2 0", ""},
		{"the claim", string(digits(9)), "0", ""},
		{"a parameter of a claim's request", "77", "1 0", "leads to certificate " + string(digits(1))},
		{"the other one", "78", "2 0", "serial number of a device"},
		{"a subject's serial number", "SN-5", "4 3", "leads to certificate " + string(digits(3))},
		{"no part of one", "SN", "", ""},
		{"the first digits of a certificate", string(digits(3)[:12]), "4 3", string(digits(3)[:12]) + " is the beginning of " + string(digits(3)) + "."},
		{"a subject's serial number, with which another id begins", "482913", "7", "It leads to certificate " + string(digits(6))},
		{"digits with which an id begins", "4829130", "6", "4829130 is the beginning of " + strings.Repeat("4829130a", 8)},
		{"the same in upper case", strings.ToUpper(string(digits(3)[:12])), "4 3", ""},
		{"the first digits of an attempt", "0190abcdef12", "190abcdef1234567890", ""},
		{"too few digits", "0190a", "", ""},
		{"a CA", ca, "3", "is a CA"},
		{"a CA's ARN", home.CACertificateARN(ca), "3", "is a CA"},
		{"a template", home.TemplateARN("line-7"), "3", "provisioning template"},
		{"a policy", home.PolicyARN("wide"), "4 3", "is a policy"},
		{"another policy", home.PolicyARN("wid"), "", ""},
		{"a policy by its name", "wide", "4 3", "wide is a policy: these attempts tell of it. Ask for a device by its thing"},
		{"a template by its name", "line-7", "3", "line-7 is a provisioning template: these attempts used it."},
		{"which a policy has, too", "line-7", "3", "line-7 is also the name of a policy: imprint explain " + home.PolicyARN("line-7")},
		{"a policy that nobody used", "idle", "", "No attempt of the newest 100000 tells of policy idle."},
		{"a thing that has a policy's name", "sensor-9", "", "Thing sensor-9 is registered, without a certificate."},
		{"a thing's ARN", home.ThingARN("sensor-78"), "2 0", ""},
		{"one of the same name in another account", another.ThingARN("sensor-78"), "", "one of " + another.String()},
		{"the fingerprint that openssl prints", "sha256 Fingerprint=" + fingerprint(digits(3)), "4 3", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := w.list(t, home, url.Values{"match": {row.match}})
			if err != nil || ids(got) != row.want || !strings.Contains(strings.Join(got.Notes, " "), row.note) {
				t.Errorf("got %q with notes %q, %v, want %q with %q", ids(got), got.Notes, err, row.want, row.note)
			}
		})
	}
	err = w.store.Update(t.Context(), func(tx imprint.Tx) error {
		return tx.PutAttempt(imprint.Attempt{ID: "0190abcdef12ffffffff", Tenant: home, At: instant, Outcome: imprint.OutcomeRefused})
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.list(t, home, url.Values{"match": {"0190abcdef12"}})
	if err != nil || len(got.Attempts) > 0 || !strings.Contains(got.Notes[0], "Several ids begin with 0190abcdef12: 0190abcdef1234567890, 0190abcdef12ffffffff") {
		t.Errorf("digits of two attempts: got %q with notes %q, %v", ids(got), got.Notes, err)
	}
}

// TestWhatIsNotFoundIsSaidTruly ensures that of a word without attempts is told what the
// server knows: that no trace is kept, what is registered, who is on, that not all
// attempts are kept, and which handshakes died before a certificate was shown.
func TestWhatIsNotFoundIsSaidTruly(t *testing.T) {
	t.Parallel()
	failed := []imprint.Step{{At: instant, Name: "tls", Verdict: imprint.VerdictFailed, Code: imprint.CodeServerNotTrusted, Detail: "x", Fix: "y"}}
	w := newWorld(t,
		imprint.Attempt{Tenant: home, Address: "192.0.2.8:1", Outcome: imprint.OutcomeRefused, Code: imprint.CodeServerNotTrusted, Steps: failed, Repeats: 3, FirstAt: instant},
		imprint.Attempt{Tenant: another, Address: "192.0.2.9:1", Outcome: imprint.OutcomeRefused, Code: imprint.CodeServerNotTrusted, Steps: failed},
		// A line of a bulk registration is nobody's handshake.
		imprint.Attempt{Tenant: home, Address: "task:7", Outcome: imprint.OutcomeRefused, Code: imprint.CodeInvalidRequest, Steps: []imprint.Step{{
			At: instant, Name: imprint.StepBulkLine, Verdict: imprint.VerdictFailed, Code: imprint.CodeInvalidRequest, Detail: "x", Fix: "y"}}},
	)
	err := w.store.Update(t.Context(), func(tx imprint.Tx) error {
		err := tx.PutCertificate(imprint.Certificate{Tenant: home, ID: certificate, Status: imprint.CertificateActive, Subject: "CN=x", PEM: "PEM"})
		if err == nil {
			err = tx.PutThing(imprint.Thing{Tenant: home, Name: "sensor"})
		}
		if err == nil {
			err = tx.PutPolicy(imprint.Policy{Tenant: home, Name: "wide"})
		}
		if err == nil {
			err = tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: home, Name: "line", DefaultVersion: 1})
		}
		if err == nil {
			err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "sensor", Certificate: certificate})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const stranger = "In the last hour 4 attempts ended before a certificate was shown, and may be this device's: 4 from 192.0.2.8 (ServerNotTrusted at tls). `imprint explain 192.0.2.8`"
	keeping := attempts.Keeping{}
	live := []attempts.Live{}
	w.recorded.Keeping = func() attempts.Keeping { return keeping }
	w.recorded.Connected = func(_ imprint.Tenant, client imprint.ClientID, id imprint.CertificateID) []attempts.Live {
		if client == "sensor" || id == certificate {
			return live
		}
		return nil
	}
	for _, step := range []struct {
		match string
		set   func()
		want  []string
	}{
		{"nobody", func() {}, []string{stranger}},
		{"wide", func() {}, []string{"No attempt of the newest 100000 tells of policy wide.", stranger}},
		{"line", func() {}, []string{"No attempt of the newest 100000 tells of provisioning template line.", stranger}},
		{certificate, func() {}, []string{"Certificate " + certificate + ` is registered and ACTIVE, subject "CN=x".`, stranger}},
		{"sensor", func() {}, []string{"Thing sensor is registered, with certificate " + certificate + ".", stranger}},
		{"sensor", func() {
			live = []attempts.Live{{ClientID: "sensor", Certificate: certificate, Address: netip.MustParseAddr("192.0.2.5")}}
			keeping = attempts.Keeping{SuccessRate: 100, Unsampled: 7}
		}, []string{"Thing sensor is registered, with certificate " + certificate + ".", `It is connected now: client id "sensor" from 192.0.2.5.`,
			"Of devices that are let in without a failure, 100 attempts a second are kept (--trace-success-rate), and 7 weren't kept since the server began: it may be one of those.", stranger}},
		{"sensor", func() { keeping.Off = true }, []string{"This server records no attempts: it runs with --trace=false."}},
	} {
		step.set()
		w.now = instant.Add(time.Minute)
		got, err := w.list(t, home, url.Values{"match": {step.match}})
		if err != nil || len(got.Attempts) > 0 || strings.Join(got.Notes, "\n") != strings.Join(step.want, "\n") {
			t.Errorf("%s: got %q, %v, want %q", step.match, got.Notes, err, step.want)
		}
	}
}

// TestWhoMadeACertificateIsListedOnce ensures that the claim's attempt which registered a
// certificate stands once in a list of several pages, where it belongs to its address, too, and
// is newer than the certificate's own attempts; and is there where it doesn't.
func TestWhoMadeACertificateIsListedOnce(t *testing.T) {
	t.Parallel()
	device := imprint.Attempt{Tenant: home, CertificateID: digits(1), Address: "192.0.2.7:1", Outcome: imprint.OutcomeRefused}
	claim := imprint.Attempt{Tenant: home, CertificateID: digits(9), Address: "192.0.2.7:2", Outcome: imprint.OutcomeClosed, Steps: []imprint.Step{made(digits(1))}}
	elsewhere := claim
	elsewhere.Address = "192.0.2.8:1"
	w := newWorld(t, device, device, claim, elsewhere, device, device)
	for _, size := range []string{"1", "2", "4", "250"} {
		got := w.all(t, url.Values{"match": {"192.0.2.7"}, "maxResults": {size}})
		slices.Sort(got)
		if want := []string{"0", "1", "2", "3", "4", "5"}; !slices.Equal(got, want) {
			t.Errorf("pages of %s have the attempts %v, want %v", size, got, want)
		}
	}
}

// all gives the ids of a list, page by page.
func (w *world) all(t *testing.T, query url.Values) []string {
	t.Helper()
	var got []string
	for {
		p, err := w.list(t, home, query)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Fields(ids(p))...)
		if p.NextToken == "" {
			return got
		}
		query.Set("nextToken", p.NextToken)
	}
}

// TestWhatAWordLeadsToHasPages: what is found in another way than literally is shown to its end,
// too.
func TestWhatAWordLeadsToHasPages(t *testing.T) {
	t.Parallel()
	device := imprint.Attempt{Tenant: home, CertificateID: digits(1), Subject: "SERIALNUMBER=SN-1", Outcome: imprint.OutcomeRefused}
	w := newWorld(t, device, device, device, device, device)
	for _, word := range []string{string(digits(1))[:12], "SN-1"} {
		got := w.all(t, url.Values{"match": {word}, "maxResults": {"2"}})
		if want := []string{"4", "3", "2", "1", "0"}; !slices.Equal(got, want) {
			t.Errorf("%s leads to the attempts %v, want %v", word, got, want)
		}
	}
}
