package imprint_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
)

// Every code has a row of its own that says what happened and what to do, and
// statuses and exceptions come together.
func TestErrorTableIsComplete(t *testing.T) {
	t.Parallel()
	seen := map[imprint.Code]bool{}
	for _, row := range imprint.Descriptions() {
		if seen[row.Code] {
			t.Errorf("code %s stands twice in the table", row.Code)
		}
		seen[row.Code] = true
		if row.Meaning == "" || row.Hint == "" {
			t.Errorf("code %s lacks a meaning or a hint", row.Code)
		}
		if (row.Exception == "") != (row.Status == 0) {
			t.Errorf("code %s has exception %q with status %d", row.Code, row.Exception, row.Status)
		}
		if row.Reason != 0 && row.Reason < 0x80 {
			t.Errorf("code %s has reason 0x%02x, which is no refusal", row.Code, row.Reason)
		}
		if got := imprint.Describe(row.Code); got != row {
			t.Errorf("Describe(%s) = %+v, want its row", row.Code, got)
		}
	}
	if got := imprint.Describe("no such code").Code; got != imprint.CodeInternal {
		t.Errorf("Describe of an unknown code gives %s, want %s", got, imprint.CodeInternal)
	}
}

// The outermost code decides, the cause stays readable, and nothing internal is
// told to callers.
func TestErrorCodesSurviveWrapping(t *testing.T) {
	t.Parallel()
	cause := imprint.Errorf(imprint.CodeNotFound, "thing %q isn't there", "x").WithHint("make it")
	wrapped := fmt.Errorf("couldn't describe: %w", cause)
	if got := imprint.CodeOf(wrapped); got != imprint.CodeNotFound {
		t.Errorf("CodeOf = %s, want %s", got, imprint.CodeNotFound)
	}
	if got, want := imprint.HintOf(wrapped), "make it"; got != want {
		t.Errorf("HintOf = %q, want %q", got, want)
	}
	if got, want := imprint.MessageOf(wrapped), `couldn't describe: thing "x" isn't there`; got != want {
		t.Errorf("MessageOf = %q, want %q", got, want)
	}
	secret := errors.New("disk /var/secret broke")
	if got := imprint.MessageOf(secret); strings.Contains(got, "secret") {
		t.Errorf("MessageOf tells an internal cause: %q", got)
	}
	if got := imprint.CodeOf(secret); got != imprint.CodeInternal {
		t.Errorf("CodeOf = %s, want %s", got, imprint.CodeInternal)
	}
	if got := imprint.CodeOf(nil); got != "" {
		t.Errorf("CodeOf(nil) = %s, want nothing", got)
	}
}

func TestNamesAreCheckedOnce(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("ab", 32)
	for _, row := range []struct {
		name  string
		parse func(string) (string, error)
		in    string
		want  string // empty: refused
	}{
		{"account of twelve digits", wrap(imprint.ParseAccountID), "123456789012", "123456789012"},
		{"account with a letter is refused", wrap(imprint.ParseAccountID), "12345678901a", ""},
		{"account with a line break is refused", wrap(imprint.ParseAccountID), "123456789012\n", ""},
		{"region", wrap(imprint.ParseRegion), "eu-central-1", "eu-central-1"},
		{"government region", wrap(imprint.ParseRegion), "us-gov-west-1", "us-gov-west-1"},
		{"region with a slash is refused", wrap(imprint.ParseRegion), "us/east-1", ""},
		{"empty region is refused", wrap(imprint.ParseRegion), "", ""},
		{"certificate id", wrap(imprint.ParseCertificateID), id, id},
		{"certificate id in upper case is folded", wrap(imprint.ParseCertificateID), strings.ToUpper(id), id},
		{"short certificate id is refused", wrap(imprint.ParseCertificateID), id[:63], ""},
		{"thing name", wrap(imprint.ParseThingName), "a:B_9-", "a:B_9-"},
		{"thing name with a slash is refused", wrap(imprint.ParseThingName), "a/b", ""},
		{"thing name of 129 characters is refused", wrap(imprint.ParseThingName), strings.Repeat("a", 129), ""},
		{"thing group name", wrap(imprint.ParseThingGroupName), "a:B_9-", "a:B_9-"},
		{"thing group name with a slash is refused", wrap(imprint.ParseThingGroupName), "a/b", ""},
		{"policy name", wrap(imprint.ParsePolicyName), "p+=,.@-_9", "p+=,.@-_9"},
		{"policy name with a space is refused", wrap(imprint.ParsePolicyName), "a b", ""},
		{"template name of 36", wrap(imprint.ParseTemplateName), strings.Repeat("t", 36), strings.Repeat("t", 36)},
		{"template name of 37 is refused", wrap(imprint.ParseTemplateName), strings.Repeat("t", 37), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := row.parse(row.in)
			if (err == nil) != (row.want != "") || got != row.want {
				t.Errorf("got %q, %v; want %q", got, err, row.want)
			}
			if err != nil && imprint.CodeOf(err) != imprint.CodeInvalidRequest {
				t.Errorf("code = %s, want %s", imprint.CodeOf(err), imprint.CodeInvalidRequest)
			}
		})
	}
}

func wrap[T ~string](parse func(string) (T, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		v, err := parse(s)
		return string(v), err
	}
}

func TestARNsRoundTrip(t *testing.T) {
	t.Parallel()
	tenant := imprint.Tenant{Account: "123456789012", Region: "eu-west-1"}
	id := imprint.CertificateID(strings.Repeat("0f", 32))
	arn := tenant.CertificateARN(id)
	if want := "arn:aws:iot:eu-west-1:123456789012:cert/" + string(id); arn != want {
		t.Errorf("ARN = %s, want %s", arn, want)
	}
	got, err := tenant.ParseCertificateARN(arn)
	if err != nil || got != id {
		t.Errorf("ParseCertificateARN = %s, %v; want %s", got, err, id)
	}
	for _, bad := range []string{
		"", "arn:aws:iot", "arn:aws:s3:::bucket", tenant.ThingARN("x"),
		imprint.Tenant{Account: "123456789012", Region: "eu-west-2"}.CertificateARN(id),
		"arn:aws:iot:eu-west-1:123456789012:cert/nothex", strings.Repeat("a", 4000),
	} {
		_, err = tenant.ParseCertificateARN(bad)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("ParseCertificateARN(%.60q) = %v, want %s", bad, err, imprint.CodeInvalidRequest)
		}
	}
	thing, err := tenant.ParseThingARN(tenant.ThingARN("a:b"))
	if err != nil || thing != "a:b" {
		t.Errorf("ParseThingARN = %s, %v; want a:b", thing, err)
	}
	group, err := tenant.ParseThingGroupARN(tenant.ThingGroupARN("a:b"))
	if err != nil || group != "a:b" {
		t.Errorf("ParseThingGroupARN = %s, %v; want a:b", group, err)
	}
	for _, bad := range []string{tenant.ThingARN("x"), tenant.ARN("thinggroup/a/b"), imprint.Tenant{Account: "123456789012", Region: "eu-west-2"}.ThingGroupARN("x")} {
		_, err = tenant.ParseThingGroupARN(bad)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("ParseThingGroupARN(%q) = %v, want %s", bad, err, imprint.CodeInvalidRequest)
		}
	}
}

// The legal changes of a certificate's status are AWS IoT Core's.
func TestCertificateStatusChanges(t *testing.T) {
	t.Parallel()
	const (
		active, inactive, revoked = imprint.CertificateActive, imprint.CertificateInactive, imprint.CertificateRevoked
		pending, transfer         = imprint.CertificatePendingActivation, imprint.CertificatePendingTransfer
	)
	now := time.UnixMilli(1767225600123)
	for _, row := range []struct {
		from, to imprint.CertificateStatus
		want     imprint.Code // empty: legal
	}{
		{active, inactive, ""}, {active, revoked, ""}, {inactive, active, ""}, {inactive, revoked, ""},
		{pending, active, ""}, {pending, inactive, ""}, {pending, revoked, ""},
		{revoked, active, imprint.CodeCertificateState}, {revoked, inactive, imprint.CodeCertificateState}, {revoked, revoked, ""},
		{transfer, active, imprint.CodeCertificateState}, {transfer, revoked, imprint.CodeCertificateState},
		{active, pending, imprint.CodeInvalidRequest}, {active, transfer, imprint.CodeInvalidRequest},
		{active, "NONSENSE", imprint.CodeInvalidRequest}, {active, "", imprint.CodeInvalidRequest},
	} {
		t.Run(fmt.Sprintf("%s to %s", row.from, row.to), func(t *testing.T) {
			t.Parallel()
			before := imprint.Certificate{Status: row.from, CustomerVersion: 3, GenerationID: "old"}
			after, err := before.ChangeStatus(row.to, now, "new")
			if got := imprint.CodeOf(err); got != row.want {
				t.Fatalf("error = %v, want code %q", err, row.want)
			}
			want := before
			if row.want == "" && row.from != row.to {
				want = imprint.Certificate{Status: row.to, CustomerVersion: 4, GenerationID: "new", ModifiedAt: now}
			}
			if diff := cmp.Diff(want, after); diff != "" {
				t.Errorf("certificate (-want +got):\n%s", diff)
			}
		})
	}
}

// A provisioning flow activates only what waits for activation.
func TestActivateNeedsPendingActivation(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1)
	_, err := imprint.Certificate{Status: imprint.CertificateInactive}.Activate(imprint.CertificateActive, now, "g")
	if got := imprint.CodeOf(err); got != imprint.CodeCertificateState {
		t.Errorf("activating an INACTIVE certificate: %v, want %s", err, imprint.CodeCertificateState)
	}
	got, err := imprint.Certificate{Status: imprint.CertificatePendingActivation}.Activate(imprint.CertificateInactive, now, "g")
	if err != nil || got.Status != imprint.CertificateInactive {
		t.Errorf("Activate = %s, %v; want INACTIVE", got.Status, err)
	}
}

func TestRefusalNamesWhyACertificateCantConnect(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	valid := imprint.Certificate{Status: imprint.CertificateActive, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	with := func(change func(*imprint.Certificate)) imprint.Certificate {
		c := valid
		change(&c)
		return c
	}
	for _, row := range []struct {
		name string
		cert imprint.Certificate
		want imprint.Code
	}{
		{"active and valid", valid, ""},
		{"inactive", with(func(c *imprint.Certificate) { c.Status = imprint.CertificateInactive }), imprint.CodeCertificateInactive},
		{"revoked", with(func(c *imprint.Certificate) { c.Status = imprint.CertificateRevoked }), imprint.CodeCertificateRevoked},
		{"pending", with(func(c *imprint.Certificate) { c.Status = imprint.CertificatePendingActivation }), imprint.CodeCertificatePending},
		{"in transfer", with(func(c *imprint.Certificate) { c.Status = imprint.CertificatePendingTransfer }), imprint.CodeCertificateTransfer},
		{"unknown status", with(func(c *imprint.Certificate) { c.Status = "X" }), imprint.CodeCertificateInactive},
		{"expired", with(func(c *imprint.Certificate) { c.NotAfter = now.Add(-time.Second) }), imprint.CodeCertificateExpired},
		{"not yet valid", with(func(c *imprint.Certificate) { c.NotBefore = now.Add(time.Second) }), imprint.CodeCertificateNotYetValid},
		{"valid to the second", with(func(c *imprint.Certificate) { c.NotAfter = now }), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			refusal := row.cert.Refusal(now)
			got := imprint.Code("")
			if refusal != nil {
				got = refusal.Code
			}
			if got != row.want {
				t.Errorf("refusal = %v, want code %q", refusal, row.want)
			}
		})
	}
}

func TestAttributesAreBounded(t *testing.T) {
	t.Parallel()
	many := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprintf("a%d", i)] = "v"
		}
		return m
	}
	for _, row := range []struct {
		name  string
		thing imprint.Thing
		ok    bool
	}{
		{"three without a type", imprint.Thing{Attributes: many(3)}, true},
		{"four without a type", imprint.Thing{Attributes: many(4)}, false},
		{"fifty with a type", imprint.Thing{TypeName: "t", Attributes: many(50)}, true},
		{"fifty-one with a type", imprint.Thing{TypeName: "t", Attributes: many(51)}, false},
		{"value with a space", imprint.Thing{Attributes: map[string]string{"a": "b c"}}, false},
		{"empty value", imprint.Thing{Attributes: map[string]string{"a": ""}}, true},
		{"value of 801", imprint.Thing{Attributes: map[string]string{"a": strings.Repeat("v", 801)}}, false},
		{"name with a star", imprint.Thing{Attributes: map[string]string{"*": "v"}}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			err := row.thing.CheckAttributes()
			if (err == nil) != row.ok {
				t.Errorf("CheckAttributes = %v, want ok %t", err, row.ok)
			}
		})
	}
}

func TestMergeAttributes(t *testing.T) {
	t.Parallel()
	thing := imprint.Thing{Attributes: map[string]string{"keep": "1", "change": "1", "drop": "1"}}
	update := map[string]string{"change": "2", "drop": "", "add": "3"}
	if diff := cmp.Diff(map[string]string{"keep": "1", "change": "2", "add": "3"}, thing.MergeAttributes(update, true)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"change": "2", "drop": "", "add": "3"}, thing.MergeAttributes(update, false)); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"keep": "1", "change": "1", "drop": "1"}, thing.Attributes); diff != "" {
		t.Errorf("the thing itself changed (-want +got):\n%s", diff)
	}
}

func TestThingGroupsKnowTheirPlace(t *testing.T) {
	t.Parallel()
	root := imprint.ThingGroup{Name: "g1"}
	deepest := root
	for n := 2; n <= imprint.MaxGroupDepth; n++ {
		above, err := deepest.Below()
		if err != nil {
			t.Fatalf("a group at depth %d is refused: %v", n, err)
		}
		deepest = imprint.ThingGroup{Name: imprint.ThingGroupName(fmt.Sprintf("g%d", n)), Ancestors: above}
	}
	want := []imprint.ThingGroupName{"g1", "g2", "g3", "g4", "g5", "g6"}
	if diff := cmp.Diff(want, deepest.Ancestors); diff != "" {
		t.Errorf("the ancestors differ (-want +got):\n%s", diff)
	}
	_, err := deepest.Below()
	if got := imprint.CodeOf(err); got != imprint.CodeInvalidRequest {
		t.Errorf("a group at depth %d gives %q, want %s", imprint.MaxGroupDepth+1, got, imprint.CodeInvalidRequest)
	}
	if root.Parent() != "" || root.Root() != "g1" || deepest.Parent() != "g6" || deepest.Root() != "g1" {
		t.Errorf("got parents %q and %q, roots %q and %q", root.Parent(), deepest.Parent(), root.Root(), deepest.Root())
	}
}

func TestAThingIsInOneGroupOfAHierarchyAndInTenAtMost(t *testing.T) {
	t.Parallel()
	below := imprint.ThingGroup{Name: "below", Ancestors: []imprint.ThingGroupName{"r0"}}
	var roots []imprint.ThingGroup
	for n := range imprint.MaxGroupsPerThing {
		roots = append(roots, imprint.ThingGroup{Name: imprint.ThingGroupName(fmt.Sprintf("r%d", n))})
	}
	for _, row := range []struct {
		name    string
		present []imprint.ThingGroup
		want    imprint.Code
	}{
		{"the first", nil, ""},
		{"the tenth", roots[1:], ""},
		{"an ancestor is there", roots[:1], imprint.CodeInvalidRequest},
		{"a sibling is there", []imprint.ThingGroup{{Name: "beside", Ancestors: []imprint.ThingGroupName{"r0"}}}, imprint.CodeInvalidRequest},
		{"the eleventh", append([]imprint.ThingGroup{{Name: "x"}}, roots[1:]...), imprint.CodeInvalidRequest},
	} {
		if got := imprint.CodeOf(below.CheckJoin("sensor", row.present)); got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}

// TestAStoppedClaimIsResumedAsItCanBe ensures that who is told to let a claim go on is told to
// raise its quota where that is used up.
func TestAStoppedClaimIsResumedAsItCanBe(t *testing.T) {
	t.Parallel()
	for want, guard := range map[string]imprint.ClaimGuard{
		"guard c --quota N --resume": {Claim: "c", Quota: 2, Devices: 2},
		"guard c --resume":           {Claim: "c", Quota: 2, Devices: 1},
	} {
		now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
		refusal := guard.Stop(imprint.Errorf(imprint.CodeClaimQuota, "over"), now).Check(netip.Addr{}, now)
		if refusal == nil || !strings.HasSuffix(refusal.Hint, want) {
			t.Errorf("got %+v, want a hint that ends with %q", refusal, want)
		}
	}
}

// TestAClaimsFirstReasonToStopStays ensures that what comes after it changes nothing.
func TestAClaimsFirstReasonToStopStays(t *testing.T) {
	t.Parallel()
	first := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	guard := imprint.ClaimGuard{}.Stop(imprint.Errorf(imprint.CodeClaimQuota, "over"), first)
	again := guard.Stop(imprint.Errorf(imprint.CodeClaimAnomaly, "too many"), first.Add(time.Hour))
	if guard.StopCode != imprint.CodeClaimQuota || guard.StopReason != "over" || !again.StoppedAt.Equal(first) || again.StopCode != guard.StopCode || again.StopReason != "over" {
		t.Errorf("got %+v and then %+v, want the first reason", guard, again)
	}
}
