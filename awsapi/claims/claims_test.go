package claims_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/access"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/claims"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

var (
	home    = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	abroad  = imprint.Tenant{Account: "000000000000", Region: "eu-west-1"}
	another = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
	instant = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

var (
	claim = imprint.CertificateID(strings.Repeat("c1", 32))
	bare  = imprint.CertificateID(strings.Repeat("b0", 32)) // home's alone, and without a guard
)

// world is a control plane with guards; the claim is a certificate of three
// tenants.
type world struct {
	api     *apitest.Server
	store   imprint.Store
	resumed []imprint.Tenant
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store := registrytest.New(t)
	w := &world{store: store}
	w.update(t, func(tx imprint.Tx) error {
		err := tx.PutCertificate(imprint.Certificate{Tenant: home, ID: bare, PEM: "PEM", Status: imprint.CertificateActive})
		for _, tenant := range []imprint.Tenant{home, abroad, another} {
			err = errors.Join(err, tx.PutCertificate(imprint.Certificate{Tenant: tenant, ID: claim, PEM: "PEM", Mode: imprint.ModeSNIOnly, Status: imprint.CertificateActive}))
		}
		return err
	})
	guard, err := access.NewGuard(store, func() time.Time { return instant }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guard.Close)
	guards := claims.Guards{Store: store, Clock: func() time.Time { return instant }, Resumed: func(tenant imprint.Tenant, _ imprint.CertificateID) {
		w.resumed = append(w.resumed, tenant)
	}}
	w.api = apitest.Serve(t, nil, awsapi.Config{Authorize: guard.Authorize}, claims.Operations(), guards.Routes())
	return w
}

func (w *world) update(t *testing.T, fn func(imprint.Tx) error) {
	t.Helper()
	err := w.store.Update(t.Context(), fn)
	if err != nil {
		t.Fatal(err)
	}
}

// guardOf is what the store has.
func (w *world) guardOf(t *testing.T, tenant imprint.Tenant, id imprint.CertificateID) (imprint.ClaimGuard, error) {
	t.Helper()
	var guard imprint.ClaimGuard
	err := w.store.View(t.Context(), func(tx imprint.ReadTx) error {
		found, err := tx.ClaimGuard(tenant, id)
		guard = found
		return err
	})
	return guard, err
}

// shown is a guard as the API answers it.
type shown struct {
	CertificateID   string   `json:"certificateId"`
	Quota           int      `json:"quota"`
	NotAfter        float64  `json:"notAfter"`
	Networks        []string `json:"networks"`
	SerialParameter string   `json:"serialParameter"`
	MaxRequests     int      `json:"maxRequests"`
	WindowSeconds   int      `json:"windowSeconds"`
	Devices         int      `json:"devices"`
	Serials         int      `json:"serials"`
	StopCode        string   `json:"stopCode"`
}

// call makes a request as a user of a tenant's account.
func (w *world) call(t *testing.T, tenant imprint.Tenant, user imprint.UserName, method, path string, body, out any) error {
	t.Helper()
	return w.api.Call(t, apitest.KeyOf(tenant.Account, user), tenant.Region, method, claims.Path+path, body, out)
}

func (w *world) must(t *testing.T, tenant imprint.Tenant, method, path string, body, out any) {
	t.Helper()
	err := w.call(t, tenant, imprint.OperatorUser, method, path, body, out)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
}

func one(id imprint.CertificateID) string { return "/" + string(id) }

type object = map[string]any

// TestAGuardIsChangedMemberByMember ensures that a request changes what it has and
// leaves the rest, that 0 takes a bound away, that what was counted stays, and that
// a change made twice is one.
func TestAGuardIsChangedMemberByMember(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	until := instant.Add(time.Hour)
	got := shown{}
	for range 2 {
		w.must(t, home, "PUT", one(claim), object{"quota": 5, "notAfter": until.Unix(), "networks": []string{"192.0.2.7/24", "2001:db8::1"}, "serialParameter": "SerialNumber"}, &got)
	}
	want := shown{CertificateID: string(claim), Quota: 5, NotAfter: float64(until.Unix()), Networks: []string{"192.0.2.0/24", "2001:db8::1/128"}, SerialParameter: "SerialNumber"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w.update(t, func(tx imprint.Tx) error {
		guard, err := tx.ClaimGuard(home, claim)
		guard.Devices = 3
		return errors.Join(err, tx.PutClaimGuard(guard.Stop(imprint.Errorf(imprint.CodeClaimQuota, "over"), instant)))
	})
	got = shown{}
	w.must(t, home, "PUT", one(claim), object{"maxRequests": 9, "windowSeconds": 60, "notAfter": 0}, &got)
	want.Devices, want.StopCode, want.MaxRequests, want.WindowSeconds, want.NotAfter = 3, string(imprint.CodeClaimQuota), 9, 60, 0
	described := shown{}
	w.must(t, home, "GET", one(claim), nil, &described)
	if fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(described) != fmt.Sprint(want) {
		t.Errorf("got %+v, described %+v, want %+v", got, described, want)
	}
	if len(w.resumed) != 0 {
		t.Errorf("a change of bounds let the claim go on in %v", w.resumed)
	}
	for range 2 { // what isn't stopped any more may be told to go on
		described = shown{}
		w.must(t, home, "PUT", one(claim), object{"resume": true, "networks": []string{}}, &described)
	}
	if described.StopCode != "" || described.Devices != 3 || described.Quota != 5 || len(described.Networks) != 0 || !slices.Equal(w.resumed, []imprint.Tenant{home, home}) {
		t.Errorf("got %+v, resumed in %v; want it to go on, its count, quota and no networks", described, w.resumed)
	}
}

// TestAClaimWhoseQuotaIsUsedUpIsResumedWithAHigherOneAlone ensures that nobody is told that a
// claim goes on which its next request stops again.
func TestAClaimWhoseQuotaIsUsedUpIsResumedWithAHigherOneAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, home, "PUT", one(claim), object{"quota": 3}, nil)
	w.update(t, func(tx imprint.Tx) error {
		guard, err := tx.ClaimGuard(home, claim)
		guard.Devices = 3
		return errors.Join(err, tx.PutClaimGuard(guard.Stop(imprint.Errorf(imprint.CodeClaimQuota, "over"), instant)))
	})
	for _, body := range []object{{"resume": true}, {"resume": true, "quota": 2}} {
		err := w.call(t, home, imprint.OperatorUser, "PUT", one(claim), body, nil)
		apitest.WantRefusal(t, fmt.Sprint(body), err, 400, "InvalidRequestException", "--quota N --resume")
	}
	for _, quota := range []int{4, 0} {
		got := shown{}
		w.must(t, home, "PUT", one(claim), object{"resume": true, "quota": quota}, &got)
		if got.StopCode != "" || got.Quota != quota {
			t.Errorf("with a quota of %d: got %+v, want it to go on", quota, got)
		}
	}
	if len(w.resumed) != 2 {
		t.Errorf("it was let go on %d times, want 2", len(w.resumed))
	}
}

// TestGuardsAreOfOneTenant ensures that the same certificate has a guard and a list
// of its own in each account and region.
func TestGuardsAreOfOneTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, home, "PUT", one(claim), object{"quota": 1}, nil)
	w.must(t, home, "POST", one(claim)+"/serials", object{"serials": []string{"1", "2"}}, nil)
	for _, tenant := range []imprint.Tenant{another, abroad} {
		const missing = "ResourceNotFoundException"
		name := tenant.String()
		apitest.WantRefusal(t, name+" describes it", w.call(t, tenant, imprint.OperatorUser, "GET", one(claim), nil, nil), 404, missing, "")
		apitest.WantRefusal(t, name+" deletes it", w.call(t, tenant, imprint.OperatorUser, "DELETE", one(claim), nil, nil), 404, missing, "")
		apitest.WantRefusal(t, name+" adds to its list", w.call(t, tenant, imprint.OperatorUser, "POST", one(claim)+"/serials", object{"serials": []string{"3"}}, nil), 404, missing, "")
		apitest.WantRefusal(t, name+" empties its list", w.call(t, tenant, imprint.OperatorUser, "DELETE", one(claim)+"/serials", nil, nil), 404, missing, "")
		apitest.WantRefusal(t, name+" guards what it hasn't", w.call(t, tenant, imprint.OperatorUser, "PUT", one(bare), object{"quota": 9}, nil), 404, missing, string(bare))
		w.must(t, tenant, "PUT", one(claim), object{"quota": 2}, nil)
		w.must(t, tenant, "POST", one(claim)+"/serials", object{"serials": []string{"1"}}, nil)
		w.must(t, tenant, "DELETE", one(claim), nil, nil)
	}
	var list struct{ Guards []shown }
	w.must(t, home, "GET", "", nil, &list)
	if len(list.Guards) != 1 || list.Guards[0].Quota != 1 || list.Guards[0].Serials != 2 {
		t.Errorf("guards: got %+v, want home's with its two serial numbers", list.Guards)
	}
	w.must(t, another, "GET", "", nil, &list)
	if len(list.Guards) != 0 {
		t.Errorf("guards of the other account: got %+v, want none", list.Guards)
	}
}

// TestAListMayBeSentAgain ensures that an upload that broke off is sent again
// without harm, whatever its length, and is emptied whole.
func TestAListMayBeSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, home, "PUT", one(claim), object{"quota": 1}, nil)
	var serials []string
	for n := range 2500 { // more than two transactions
		serials = append(serials, fmt.Sprint("SN-", n))
	}
	type outcome struct{ Changed, Total int }
	add := func(part []string, want outcome) {
		t.Helper()
		var got outcome
		w.must(t, home, "POST", one(claim)+"/serials", object{"serials": part}, &got)
		if got != want {
			t.Errorf("adding %d: got %+v, want %+v", len(part), got, want)
		}
	}
	add(serials[:1200], outcome{1200, 1200})
	add(serials, outcome{1300, 2500})
	add(serials, outcome{0, 2500})
	add([]string{"x", "x"}, outcome{1, 2501})
	var got outcome
	for _, want := range []outcome{{2501, 0}, {0, 0}} {
		w.must(t, home, "DELETE", one(claim)+"/serials", nil, &got)
		if got != want {
			t.Errorf("emptying it: got %+v, want %+v", got, want)
		}
	}
	// A guard that is deleted takes its list along; a new one begins without.
	add(serials[:3], outcome{3, 3})
	w.must(t, home, "DELETE", one(claim), nil, nil)
	apitest.WantRefusal(t, "deleting it again", w.call(t, home, imprint.OperatorUser, "DELETE", one(claim), nil, nil), 404, "ResourceNotFoundException", "")
	w.must(t, home, "PUT", one(claim), object{"quota": 1}, nil)
	add(serials[:3], outcome{3, 3})
}

// TestATimeThatEndsBeforeItBeginsIsRefusedBesideWhatIsThere ensures that the two ends
// are compared, too, when they are set one after the other.
func TestATimeThatEndsBeforeItBeginsIsRefusedBesideWhatIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, home, "PUT", one(claim), object{"notBefore": 1_800_000_000}, nil)
	apitest.WantRefusal(t, "an earlier end", w.call(t, home, imprint.OperatorUser, "PUT", one(claim), object{"notAfter": 1_700_000_000}, nil), 400, "InvalidRequestException", "never be used")
	w.must(t, home, "PUT", one(claim), object{"notAfter": 1_900_000_000}, nil)
	w.must(t, home, "PUT", one(claim), object{"notBefore": 0, "notAfter": 1_700_000_000}, nil)
}

// TestIPv4NetworksMayBeWrittenAsIPv6 ensures that they match the addresses that
// devices have.
func TestIPv4NetworksMayBeWrittenAsIPv6(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, home, "PUT", one(claim), object{"networks": []string{"::ffff:127.0.0.0/104", "::ffff:192.0.2.1", "::/0"}}, nil)
	guard, err := w.guardOf(t, home, claim)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(guard.Networks), "[127.0.0.0/8 192.0.2.1/32 ::/0]"; got != want {
		t.Errorf("got the networks %s, want %s", got, want)
	}
}

// TestWhatIsNoGuardIsRefused ensures that bad input changes nothing.
func TestWhatIsNoGuardIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, home, "PUT", one(claim), object{"quota": 1}, nil)
	before, err := w.guardOf(t, home, claim)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]object{
		"a negative quota": {"quota": -1}, "a network that is none": {"networks": []string{"192.0.2.0/33"}},
		"a host name for a network": {"networks": []string{"example.com"}}, "a bound without a window": {"maxRequests": 5},
		"refusals without a window": {"maxRefusals": 5}, "a window of years": {"maxRequests": 5, "windowSeconds": 400 * 24 * 3600},
		"a time that ends before it begins": {"notBefore": 1_800_000_000, "notAfter": 1_700_000_000},
		"too many networks":                 {"networks": slices.Repeat([]string{"192.0.2.1"}, imprint.MaxClaimNetworks+1)},
		"a long parameter":                  {"serialParameter": strings.Repeat("x", imprint.MaxClaimSerial+1)},
	} {
		apitest.WantRefusal(t, name, w.call(t, home, imprint.OperatorUser, "PUT", one(claim), body, nil), 400, "InvalidRequestException", "")
	}
	apitest.WantRefusal(t, "a quota that is a text", w.call(t, home, imprint.OperatorUser, "PUT", one(claim), object{"quota": "5"}, nil), 400, "SerializationException", "quota")
	for name, serials := range map[string][]string{
		"no serial": {}, "an empty one": {"1", ""}, "a long one": {strings.Repeat("x", imprint.MaxClaimSerial+1)},
		"too many at once": slices.Repeat([]string{"1"}, claims.MaxSerials+1),
	} {
		apitest.WantRefusal(t, name, w.call(t, home, imprint.OperatorUser, "POST", one(claim)+"/serials", object{"serials": serials}, nil), 400, "InvalidRequestException", "")
	}
	for name, path := range map[string]string{"no id": "/xyz", "a short id": "/c1c1", "a page of nothing": "?maxResults=0", "a marker of no one": "?nextToken=AAAA"} {
		apitest.WantRefusal(t, name, w.call(t, home, imprint.OperatorUser, "GET", path, nil, nil), 400, "InvalidRequestException", "")
	}
	after, err := w.guardOf(t, home, claim)
	if err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("guard after refusals: got %+v, %v, want %+v", after, err, before)
	}
}

// TestAUsersPolicyDecidesAboutEachGuard ensures that each operation is asked for by
// its name and the certificate's ARN, and that who may not do it changes nothing.
func TestAUsersPolicyDecidesAboutEachGuard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(t, home, "PUT", one(claim), object{"quota": 1}, nil)
	w.must(t, home, "PUT", one(bare), object{"quota": 1}, nil)
	w.update(t, func(tx imprint.Tx) error {
		document := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["imprint:DescribeClaimGuard","imprint:AddClaimSerials"],"Resource":"` + home.CertificateARN(claim) + `"}}`
		return errors.Join(tx.PutUser(imprint.User{Account: home.Account, Name: "line"}),
			tx.PutUserPolicy(imprint.UserPolicy{Account: home.Account, User: "line", Name: "p", Document: document}))
	})
	for _, c := range []struct {
		method, path string
		body         any
		ok           bool
	}{
		{"GET", one(claim), nil, true},
		{"POST", one(claim) + "/serials", object{"serials": []string{"1"}}, true},
		{"GET", one(bare), nil, false},
		{"POST", one(bare) + "/serials", object{"serials": []string{"1"}}, false},
		{"PUT", one(claim), object{"quota": 0, "resume": true}, false},
		{"DELETE", one(claim) + "/serials", nil, false},
		{"DELETE", one(claim), nil, false},
		{"GET", "", nil, false},
	} {
		err := w.call(t, home, "line", c.method, c.path, c.body, nil)
		if c.ok {
			if err != nil {
				t.Errorf("%s %s: got %v, want it to be allowed", c.method, c.path, err)
			}
			continue
		}
		apitest.WantRefusal(t, c.method+" "+c.path, err, 403, "AccessDeniedException", "user/line is not authorized to perform: imprint:")
	}
	// A Deny holds however the request writes the certificate's id.
	w.update(t, func(tx imprint.Tx) error {
		document := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"imprint:*","Resource":"*"},
			{"Effect":"Deny","Action":"imprint:*","Resource":"` + home.CertificateARN(claim) + `"}]}`
		return errors.Join(tx.PutUser(imprint.User{Account: home.Account, Name: "others"}),
			tx.PutUserPolicy(imprint.UserPolicy{Account: home.Account, User: "others", Name: "p", Document: document}))
	})
	loud := one(imprint.CertificateID(strings.ToUpper(string(claim))))
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"GET", loud, nil}, {"PUT", loud, object{"quota": 0}}, {"DELETE", loud, nil},
		{"POST", loud + "/serials", object{"serials": []string{"2"}}}, {"DELETE", loud + "/serials", nil},
	} {
		err := w.call(t, home, "others", c.method, c.path, c.body, nil)
		apitest.WantRefusal(t, c.method+" "+c.path, err, 403, "AccessDeniedException", "with an explicit deny")
	}
	// A user of that name in another account has nothing of the policy.
	apitest.WantRefusal(t, "the other account's line", w.call(t, another, "line", "GET", one(claim), nil, nil), 403, "AccessDeniedException", "")
	guard, err := w.guardOf(t, home, claim)
	if err != nil || guard.Quota != 1 || guard.Serials != 1 || len(w.resumed) != 0 {
		t.Errorf("guard: got %+v, %v, resumed in %v; want quota 1 and one serial number", guard, err, w.resumed)
	}
}
