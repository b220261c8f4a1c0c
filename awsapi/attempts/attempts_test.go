package attempts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/attempts"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

var (
	home    = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	abroad  = imprint.Tenant{Account: "000000000000", Region: "eu-west-1"}
	another = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
	instant = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

const (
	certificate = "0a3c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635"
	serial      = "a1b2c3d4e5f60718"
)

// world is a control plane with recorded attempts.
type world struct {
	api     *apitest.Server
	store   imprint.Store
	flushed atomic.Int64
	failing error
	// recorded may be changed before the first request, and now is its clock's time.
	recorded *attempts.Recorded
	now      time.Time
}

func newWorld(t *testing.T, list ...imprint.Attempt) *world {
	t.Helper()
	store := registrytest.New(t)
	err := store.Update(t.Context(), func(tx imprint.Tx) error {
		for n, a := range list {
			a.ID, a.At = fmt.Sprintf("%04d", n), instant.Add(time.Duration(n)*time.Minute)
			err := tx.PutAttempt(a)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{store: store}
	recorded := attempts.Recorded{Store: store, Home: home, Flush: func(context.Context) error {
		w.flushed.Add(1)
		return w.failing
	}, Clock: func() time.Time { return w.now },
		Keeping: func() attempts.Keeping { return w.recorded.Keeping() },
		Connected: func(tenant imprint.Tenant, client imprint.ClientID, id imprint.CertificateID) []attempts.Live {
			return w.recorded.Connected(tenant, client, id)
		},
	}
	w.recorded = &attempts.Recorded{
		Keeping:   func() attempts.Keeping { return attempts.Keeping{} },
		Connected: func(imprint.Tenant, imprint.ClientID, imprint.CertificateID) []attempts.Live { return nil },
	}
	w.api = apitest.Serve(t, nil, awsapi.Config{}, attempts.Operations(), recorded.Routes())
	return w
}

type page struct {
	Attempts []struct {
		AttemptID string  `json:"attemptId"`
		Account   string  `json:"account"`
		Ended     float64 `json:"ended"`
		Steps     []struct {
			Step, Verdict, Code, Fix string
		} `json:"steps"`
	} `json:"attempts"`
	NextToken string   `json:"nextToken"`
	Notes     []string `json:"notes"`
}

func (w *world) list(t *testing.T, tenant imprint.Tenant, query url.Values) (page, error) {
	t.Helper()
	var out page
	err := w.get(t, tenant, attempts.Path, query, &out)
	return out, err
}

// get reads a page of the API as the operator of a tenant.
func (w *world) get(t *testing.T, tenant imprint.Tenant, path string, query url.Values, out any) error {
	t.Helper()
	return w.api.Call(t, apitest.KeyOf(tenant.Account, imprint.OperatorUser), tenant.Region, "GET", path+"?"+query.Encode(), nil, out)
}

func ids(p page) string {
	var all []string
	for _, a := range p.Attempts {
		all = append(all, strings.TrimLeft(a.AttemptID[:3], "0")+a.AttemptID[3:])
	}
	return strings.Join(all, " ")
}

func recorded() []imprint.Attempt {
	failed := []imprint.Step{{At: instant, Name: "ca", Verdict: imprint.VerdictFailed, Code: imprint.CodeCAInactive, Detail: "off", Fix: "on"}}
	return []imprint.Attempt{
		{Tenant: home, CertificateID: certificate, Serial: serial, Thing: "AA:BB:CC:DD:EE:FF", ClientID: "one", Address: "192.0.2.1:1000", Outcome: imprint.OutcomeConnected},
		{Tenant: abroad, CertificateID: certificate, Serial: serial, Outcome: imprint.OutcomeRefused, Steps: failed},
		{Tenant: another, CertificateID: certificate, Serial: serial, Outcome: imprint.OutcomeRefused, Steps: failed},
		{Address: "192.0.2.9:1000", Outcome: imprint.OutcomeRefused, Steps: failed},
		{Tenant: home, Serial: "1000", Thing: "deadbeef01", Address: "[2001:db8::1]:7", Outcome: imprint.OutcomeRefused, Steps: failed, EndedAt: instant},
		{Tenant: home, Serial: "deadbeef01", Outcome: imprint.OutcomeClosed},
	}
}

// octets puts colons between the octets of hex digits.
func octets(hex string) string {
	for at := len(hex) - 2; at > 0; at -= 2 {
		hex = hex[:at] + ":" + hex[at:]
	}
	return hex
}

func TestWhatAPersonPastesIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, recorded()...)
	// What the device that was let in is known by.
	err := w.store.Update(t.Context(), func(tx imprint.Tx) error {
		err := tx.PutCertificate(imprint.Certificate{Tenant: home, ID: certificate, Serial: serial, PEM: "PEM"})
		if err == nil {
			err = tx.PutThing(imprint.Thing{Tenant: home, Name: "AA:BB:CC:DD:EE:FF"})
		}
		if err == nil {
			err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "AA:BB:CC:DD:EE:FF", Certificate: certificate})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, match, want string }{
		{"certificate id", certificate, "0"},
		{"certificate id in upper case, with its leading zero", strings.ToUpper(certificate), "0"},
		{"certificate id by openssl x509 -fingerprint -sha256", "sha256 Fingerprint=" + octets(strings.ToUpper(certificate)) + "\n", "0"},
		{"certificate id by an older openssl", "SHA256 Fingerprint=" + octets(strings.ToUpper(certificate)), "0"},
		{"certificate id with colons", octets(certificate), "0"},
		{"certificate ARN", home.CertificateARN(certificate), "0"},
		{"thing name that looks like a serial number", "AA:BB:CC:DD:EE:FF", "0"},
		{"thing ARN", home.ThingARN("AA:BB:CC:DD:EE:FF"), "0"},
		{"serial as stored", serial, "0"},
		{"serial by openssl x509 -serial", "serial=A1B2C3D4E5F60718", "0"},
		{"serial by openssl x509 -text", " a1:b2:c3:d4:e5:f6:07:18\n", "0"},
		{"serial with leading zeros", "00:A1:B2:C3:D4:E5:F6:07:18", "0"},
		{"serial with 0x", "0xA1B2C3D4E5F60718", "0"},
		{"small serial by openssl x509 -text", "4096 (0x1000)", "4"},
		{"serial in decimal", "4096", "4"},
		{"a thing's name goes before a serial of that text", "deadbeef01", "5 4"},
		{"client id", "one", "0"},
		{"peer address", "192.0.2.1:1000", "0"},
		{"IPv6 address", "2001:db8::1", "4"},
		{"an unassigned one by its address", "192.0.2.9", "3"},
		{"nothing", "nothing", ""},
		{"an ARN of nothing", home.ThingARN("x"), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := w.list(t, home, url.Values{"match": {row.match}})
			if err != nil || ids(got) != row.want {
				t.Errorf("got %q, %v, want %q", ids(got), err, row.want)
			}
		})
	}
}

// Operators see their own tenant; those of the home tenant also what died before
// a tenant was known.
func TestTenantsSeeTheirOwnAttempts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, recorded()...)
	for _, row := range []struct {
		tenant imprint.Tenant
		query  url.Values
		want   string
	}{
		{home, nil, "5 4 3 0"},
		{home, url.Values{"failed": {"true"}}, "4 3"},
		{home, url.Values{"match": {certificate}}, "0"},
		{home, url.Values{"since": {instant.Add(4 * time.Minute).Format(time.RFC3339)}}, "5 4"},
		{abroad, nil, "1"},
		{abroad, url.Values{"match": {certificate}}, "1"},
		{abroad, url.Values{"match": {"192.0.2.9"}}, ""},
		{another, nil, "2"},
		{another, url.Values{"match": {serial}}, "2"},
		{another, url.Values{"match": {"192.0.2.1"}}, ""},
		{imprint.Tenant{Account: "222222222222", Region: "us-east-1"}, nil, ""},
	} {
		got, err := w.list(t, row.tenant, row.query)
		if err != nil || ids(got) != row.want {
			t.Errorf("%s with %v: got %q, %v, want %q", row.tenant, row.query, ids(got), err, row.want)
		}
	}
}

func TestPagesJoinToTheWholeList(t *testing.T) {
	t.Parallel()
	var list []imprint.Attempt
	for range 23 {
		list = append(list, imprint.Attempt{Tenant: home, Thing: "t"}, imprint.Attempt{Tenant: another, Thing: "t"})
	}
	w := newWorld(t, list...)
	for _, query := range []url.Values{{"maxResults": {"10"}}, {"maxResults": {"10"}, "match": {"t"}}} {
		got, last := 0, "9999"
		for {
			p, err := w.list(t, home, query)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range p.Attempts {
				if a.AttemptID >= last || a.Account != string(home.Account) {
					t.Errorf("got %s of %s after %s", a.AttemptID, a.Account, last)
				}
				last = a.AttemptID
				got++
			}
			if p.NextToken == "" {
				break
			}
			query.Set("nextToken", p.NextToken)
		}
		if got != 23 {
			t.Errorf("got %d attempts, want 23", got)
		}
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, query := range map[string]url.Values{
		"a page of nothing":  {"maxResults": {"0"}},
		"a page too large":   {"maxResults": {"251"}},
		"a marker of no one": {"nextToken": {"AAAA"}},
		"a match too long":   {"match": {strings.Repeat("x", 513)}},
		"a time that isn't":  {"since": {"yesterday"}},
	} {
		_, err := w.list(t, home, query)
		var refusal *client.Error
		if !errors.As(err, &refusal) || refusal.Status != 400 {
			t.Errorf("%s: got %v, want a refusal with 400", name, err)
		}
	}
}

func TestAnswersWaitForTheTrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, recorded()...)
	got, err := w.list(t, home, url.Values{"match": {"4096"}})
	if err != nil || w.flushed.Load() != 1 || len(got.Attempts) != 1 || got.Attempts[0].Ended == 0 {
		t.Fatalf("got %+v, %v after %d flushes", got, err, w.flushed.Load())
	}
	step := got.Attempts[0].Steps[0]
	if step.Step != "ca" || step.Verdict != "failed" || step.Code != string(imprint.CodeCAInactive) || step.Fix != "on" {
		encoded, _ := json.Marshal(step)
		t.Errorf("got step %s", encoded)
	}
	w.failing = errors.New("the disk broke")
	_, err = w.list(t, home, nil)
	var refusal *client.Error
	if !errors.As(err, &refusal) || refusal.Status != 503 {
		t.Errorf("got %v, want 503", err)
	}
}

// TestACertificateThatWasGivenToAClaimIsFound ensures that who asks for a device's
// certificate, which hasn't connected yet, finds the connection that it came of: by
// the claim until it is registered, by the thing from then on; and by itself once it
// has connected. Other tenants find nothing.
func TestACertificateThatWasGivenToAClaimIsFound(t *testing.T) {
	t.Parallel()
	claim := imprint.CertificateID(strings.Repeat("c1", 32))
	w := newWorld(t, imprint.Attempt{Tenant: home, CertificateID: claim, Thing: "other"}, imprint.Attempt{Tenant: home, CertificateID: claim, Thing: "sensor"})
	change := func(fn func(tx imprint.Tx) error) {
		t.Helper()
		err := w.store.Update(t.Context(), fn)
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(tenant imprint.Tenant, want string) {
		t.Helper()
		found, err := w.list(t, tenant, url.Values{"match": {certificate}})
		if err != nil || ids(found) != want {
			t.Errorf("got the attempts %q, %v; want %q", ids(found), err, want)
		}
	}
	expect(home, "")
	change(func(tx imprint.Tx) error {
		err := tx.PutCertificate(imprint.Certificate{Tenant: home, ID: certificate, PEM: "PEM", Status: imprint.CertificatePendingActivation})
		if err != nil {
			return err
		}
		return tx.PutPendingCertificate(imprint.PendingCertificate{Tenant: home, Certificate: certificate, Claim: claim, TokenHash: "hash", CreatedAt: instant, ExpiresAt: instant})
	})
	expect(home, "1 0")
	change(func(tx imprint.Tx) error {
		err := tx.PutThing(imprint.Thing{Tenant: home, Name: "sensor"})
		if err != nil {
			return err
		}
		return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "sensor", Certificate: certificate})
	})
	expect(home, "1")
	expect(another, "")
	change(func(tx imprint.Tx) error {
		return tx.PutAttempt(imprint.Attempt{Tenant: home, ID: "0002", At: instant.Add(time.Hour), CertificateID: certificate})
	})
	expect(home, "2")
}
