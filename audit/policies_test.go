package audit_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
)

// statements makes a document of pairs of actions and resources.
func statements(pairs ...string) string {
	var list []string
	for n := 0; n < len(pairs); n += 2 {
		list = append(list, `{"Effect":"Allow","Action":`+pairs[n]+`,"Resource":"`+pairs[n+1]+`"}`)
	}
	return `{"Version":"2012-10-17","Statement":[` + strings.Join(list, ",") + `]}`
}

const narrow = "arn:aws:iot:us-east-1:000000000000:"

var goodPolicy = statements(`"iot:Connect"`, narrow+"client/${iot:Connection.Thing.ThingName}", `["iot:Publish","iot:Receive","iot:RetainPublish"]`, narrow+"topic/devices/${iot:Connection.Thing.ThingName}/*",
	`"iot:Subscribe"`, narrow+"topicfilter/devices/${iot:Connection.Thing.ThingName}/*", `"iot:*ThingShadow"`, narrow+"thing/${iot:Connection.Thing.ThingName}")

var goodClaim = statements(`"iot:Connect"`, "*", `["iot:Publish","iot:Receive"]`, narrow+"topic/$aws/certificates/create*", `["iot:Publish","iot:Receive"]`, narrow+"topic/$aws/provisioning-templates/line/provision/*",
	`"iot:Subscribe"`, narrow+"topicfilter/$aws/certificates/create*", `"iot:Subscribe"`, narrow+"topicfilter/$aws/provisioning-templates/line/provision/*")

func TestPoliciesThatAreTooWideAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for name, document := range map[imprint.PolicyName]string{
		"good": goodPolicy, "own-id": statements(`"iot:Connect"`, narrow+"client/${iot:ClientId}"), "claim": goodClaim, "fixed": statements(`"iot:Publish"`, narrow+"topic/news/*"),
		"elsewhere": statements(`"iot:*"`, "arn:aws:iot:eu-west-1:000000000000:*"), "garbage": "no policy",
		"denied":   `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"*"},{"Effect":"Deny","Action":"iot:Publish","NotResource":"` + narrow + `topic/a/*"}]}`,
		"attached": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}]}`,
	} {
		h.policyNamed(name, document)
	}
	h.finds(audit.PolicyOverlyPermissive, 8)
	line := newAuthority(t, "Line", nil)
	user := line.leaf("user")
	h.policyNamed("everything", statements(`"iot:*"`, "*"), user.ARN(), "arn:aws:iot:us-east-1:000000000000:thinggroup/g")
	h.policyNamed("connect", statements(`"iot:Connect"`, narrow+"client/*"))
	h.policyNamed("topics", statements(`"iot:Publish"`, "arn:aws:iot:*:*:topic/*"))
	h.policyNamed("hash", statements(`"iot:Subscribe"`, narrow+"topicfilter/#"))
	h.policyNamed("all-but", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Receive","NotResource":"`+narrow+`topic/secret"}]}`)
	h.policyNamed("wide-claim", statements(`"iot:Publish"`, narrow+"topic/$aws/certificates/create/*", `"iot:Publish"`, narrow+"topic/*"))
	const code = " ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS"
	found := h.finds(audit.PolicyOverlyPermissive, 14, "IOT_POLICY/everything:2"+code, "IOT_POLICY/connect:2"+code, "IOT_POLICY/topics:2"+code, "IOT_POLICY/hash:2"+code, "IOT_POLICY/all-but:2"+code, "IOT_POLICY/wide-claim:2"+code)
	for _, f := range found {
		if f.Resource.ID == "everything" && (len(f.Related) != 1 || f.Related[0].ID != string(user.ID) || !strings.Contains(f.Mitigation, "create-policy-version --policy-name everything --set-as-default") || f.Severity != imprint.AuditCritical) {
			t.Errorf("got %+v", f)
		}
	}
}

func TestClaimPoliciesThatAreTooWideAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	claim, off := line.leaf("claim"), with(line.leaf("off"), status(imprint.CertificateInactive))
	h.certificates(claim, off)
	guard := func(c imprint.Certificate) {
		h.put(func(tx imprint.Tx) error { return tx.PutClaimGuard(imprint.ClaimGuard{Tenant: home, Claim: c.ID}) })
	}
	guard(claim)
	guard(off)
	// The policy of a device may be as wide as it is: it isn't a claim's.
	h.policyNamed("device", statements(`"iot:*"`, "*"), off.ARN())
	h.policyNamed("claim", goodClaim, claim.ARN())
	h.finds(audit.ClaimPolicyTooWide, 1)
	h.policyNamed("news", statements(`"iot:Subscribe"`, narrow+"topicfilter/*"), claim.ARN())
	h.policyNamed("any-template", statements(`"iot:Publish"`, narrow+"topic/$aws/provisioning-templates/*"))
	const code = " CLAIM_POLICY_ALLOWS_MORE_THAN_PROVISIONING"
	found := h.finds(audit.ClaimPolicyTooWide, 3, "IOT_POLICY/news:2"+code, "IOT_POLICY/any-template:2"+code)
	for _, f := range found {
		if f.Resource.ID == "news" && (len(f.Related) != 1 || f.Related[0].ID != string(claim.ID)) {
			t.Errorf("got %+v, want the claim as related resource", f)
		}
	}
}

// What is found as the policy of a claim isn't found once more as that of devices.
func TestPoliciesAreFoundOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	claim := line.leaf("claim")
	h.certificates(claim)
	h.put(func(tx imprint.Tx) error { return tx.PutClaimGuard(imprint.ClaimGuard{Tenant: home, Claim: claim.ID}) })
	h.policyNamed("wide-claim", statements(`"iot:Publish"`, narrow+"topic/$aws/provisioning-templates/line/provision/json", `"iot:Publish"`, narrow+"topic/*"))
	h.policyNamed("news", statements(`"iot:Subscribe"`, narrow+"topicfilter/*"), claim.ARN())
	h.policyNamed("device", statements(`"iot:*"`, "*"))
	a := h.auditor()
	task := h.await(h.start(a, audit.ClaimPolicyTooWide, audit.PolicyOverlyPermissive).ID)
	var got []string
	for _, f := range h.findings(task.ID) {
		got = append(got, string(f.Check)+" "+f.Resource.ID)
	}
	slices.Sort(got)
	want := []string{string(audit.ClaimPolicyTooWide) + " news", string(audit.ClaimPolicyTooWide) + " wide-claim", string(audit.PolicyOverlyPermissive) + " device"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// Without the check of claims they are found all the same.
	task = h.await(h.start(a, audit.PolicyOverlyPermissive).ID)
	if n := len(h.findings(task.ID)); n != 3 {
		t.Errorf("got %d findings of the other check alone, want 3", n)
	}
}

func TestClaimsOverTheirQuotaAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	guarded := func(name string, quota, devices int, change func(*imprint.ClaimGuard)) imprint.Certificate {
		c := line.leaf(name)
		h.certificates(c)
		g := imprint.ClaimGuard{Tenant: home, Claim: c.ID, Quota: quota, Devices: devices}
		if change != nil {
			change(&g)
		}
		h.put(func(tx imprint.Tx) error { return tx.PutClaimGuard(g) })
		return c
	}
	guarded("some", 10, 9, nil)
	guarded("unbounded", 0, 9, nil)
	off := guarded("off", 10, 20, nil)
	off.Status = imprint.CertificateInactive
	h.certificates(off)
	h.put(func(tx imprint.Tx) error {
		return tx.PutClaimGuard(imprint.ClaimGuard{Tenant: home, Claim: "f00d", Quota: 1, Devices: 2})
	})
	h.finds(audit.ClaimOverQuota, 1)
	over := guarded("over", 10, 12, nil)
	stopped := guarded("stopped", 10, 10, func(g *imprint.ClaimGuard) { g.StoppedAt, g.StopCode = instant, imprint.CodeClaimQuota })
	full := guarded("full", 10, 10, nil)
	found := h.finds(audit.ClaimOverQuota, 4, device(over, "CLAIM_OVER_QUOTA"), device(stopped, "CLAIM_OVER_QUOTA"), device(full, "CLAIM_QUOTA_USED_UP"))
	for _, f := range found {
		if !strings.Contains(f.Mitigation, "imprint claim guard "+f.Resource.ID+" --quota") || (f.Severity == imprint.AuditLow) != (f.Code == "CLAIM_QUOTA_USED_UP") {
			t.Errorf("got %+v", f)
		}
	}
}
