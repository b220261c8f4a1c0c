package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

// Whether a policy is too wide is asked of the policy itself: what may a device that
// has it do with what belongs to somebody else? The names below stand for that
// somebody; no policy has them in it.
const (
	self     = "imprint-audit-device"
	stranger = "imprint-audit-stranger"
)

// reach is a request about what belongs to a stranger.
type reach struct {
	action policy.Action
	name   string // after the kind of the resource
	what   string
}

// everyone are the requests that no device's policy should allow, each kind once.
var everyone = []reach{
	{policy.Connect, stranger, "connect as any client id"},
	{policy.Publish, stranger + "/topic", "publish on any topic"},
	{policy.RetainPublish, stranger + "/topic", "publish retained messages on any topic"},
	{policy.Subscribe, stranger + "/topic", "subscribe to any topic"},
	{policy.Subscribe, "#", "subscribe to all topics at once"},
	{policy.Receive, stranger + "/topic", "receive from any topic"},
	{policy.GetThingShadow, stranger, "read any thing's shadow"},
	{policy.UpdateThingShadow, stranger, "change any thing's shadow"},
	{policy.DeleteThingShadow, stranger, "delete any thing's shadow"},
}

// unclaimed are the requests that no claim certificate's policy should allow. Those
// connect with any client id: devices that share a claim have no names yet.
var unclaimed = append([]reach{
	{policy.Publish, "$aws/provisioning-templates/" + stranger + "/provision/json", "provision by any template"},
}, everyone[1:]...)

// reaches lists what a policy allows of the requests, in words.
func (w *walk) reaches(set *policy.Set, requests []reach) []string {
	var found []string
	vars := policy.NewVariables(policy.Binding{ClientID: self})
	for _, r := range requests {
		decision := set.Decide(&policy.Request{Action: r.action, ResourcePrefix: w.tenant.ARN(r.action.ResourceKind() + "/"), ResourceName: r.name, Vars: vars, Now: w.now})
		if decision == policy.Allowed && !slices.Contains(found, r.what) {
			found = append(found, r.what)
		}
	}
	return found
}

// policies looks at the default version of all policies.
func (w *walk) policies() error {
	return w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		page, next, err := tx.Policies(w.tenant, p)
		for i := range page {
			if err == nil {
				err = w.policy(tx, page[i])
			}
		}
		return next, err
	})
}

func (w *walk) policy(tx imprint.ReadTx, p imprint.Policy) error {
	version, err := tx.PolicyVersion(w.tenant, p.Name, p.DefaultVersion)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	w.seen(PolicyOverlyPermissive)
	doc, err := policy.Parse([]byte(version.Document))
	if err != nil {
		return nil // it allows nothing, and storing it was refused by every version
	}
	requests := everyone
	if forClaims(doc) {
		w.seen(ClaimPolicyTooWide)
		err = w.claimPolicy(tx, version, doc, nil)
		if err != nil {
			return err
		}
		requests = everyone[1:]
	}
	wide := w.reaches(policy.Compile(policy.Named{Name: string(p.Name), Doc: doc}), requests)
	if len(wide) == 0 || !w.wants(PolicyOverlyPermissive) || w.foundOf(ClaimPolicyTooWide, policyVersion(version)) {
		return nil // or it was found as the policy of a claim, which says more
	}
	related, err := w.targets(tx, p.Name)
	if err != nil {
		return err
	}
	w.find(PolicyOverlyPermissive, flaw{
		resource: policyVersion(version), related: related, code: "ALLOWS_BROAD_ACCESS_TO_IOT_DATA_PLANE_ACTIONS",
		reason:     "Every device with this policy may " + sentence(wide) + ".",
		mitigation: w.narrower(version),
	})
	return nil
}

func policyVersion(v imprint.PolicyVersion) imprint.AuditResource {
	return imprint.AuditResource{Kind: imprint.AuditPolicy, ID: string(v.Policy), Version: v.Version}
}

// sentence joins words as people do.
func sentence(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// narrower says how a policy is mended, with what the linter says of its width.
func (w *walk) narrower(v imprint.PolicyVersion) string {
	var fixes []string
	for _, f := range policy.Lint([]byte(v.Document), policy.LintOptions{Region: string(w.tenant.Region), Account: string(w.tenant.Account)}) {
		fix := fmt.Sprintf("%s: %s", f.Member, f.Fix)
		if f.Code.Wide() && len(fixes) < 3 && !slices.Contains(fixes, fix) {
			fixes = append(fixes, fix)
		}
	}
	text := fmt.Sprintf("aws iot create-policy-version --policy-name %s --set-as-default --policy-document file://narrower.json", v.Policy)
	if len(fixes) > 0 {
		text += ", with " + strings.Join(fixes, "; ")
	}
	return text
}

// targets names what a policy is attached to.
func (w *walk) targets(tx imprint.ReadTx, name imprint.PolicyName) ([]imprint.AuditResource, error) {
	attached, _, err := tx.PolicyTargets(w.tenant, name, imprint.Page{Limit: maxRelated, Ascending: true})
	if err != nil {
		return nil, err
	}
	var related []imprint.AuditResource
	for _, a := range attached {
		id, err := w.tenant.ParseCertificateARN(a.Target)
		if err == nil {
			related = append(related, deviceCertificate(id))
		}
	}
	return related, nil
}

// forClaims tells the policy of claim certificates by the topics of fleet
// provisioning that it names.
func forClaims(doc *policy.Document) bool {
	return slices.ContainsFunc(doc.Statements(), func(s policy.Statement) bool {
		return s.Effect == policy.Allow && slices.ContainsFunc(s.Resources, func(r string) bool {
			return strings.Contains(r, ":topic/$aws/certificates/create") || strings.Contains(r, ":topic/$aws/provisioning-templates/")
		})
	})
}

// claimPolicy finds what a claim's policy allows beside fleet provisioning.
func (w *walk) claimPolicy(tx imprint.ReadTx, version imprint.PolicyVersion, doc *policy.Document, claim *imprint.CertificateID) error {
	wide := w.reaches(policy.Compile(policy.Named{Name: string(version.Policy), Doc: doc}), unclaimed)
	if len(wide) == 0 || !w.wants(ClaimPolicyTooWide) {
		return nil
	}
	related, err := w.targets(tx, version.Policy)
	if err != nil {
		return err
	}
	if claim != nil && !slices.ContainsFunc(related, func(r imprint.AuditResource) bool { return r.ID == string(*claim) }) {
		related = append(related, deviceCertificate(*claim))
	}
	w.find(ClaimPolicyTooWide, flaw{
		resource: policyVersion(version), related: related, code: "CLAIM_POLICY_ALLOWS_MORE_THAN_PROVISIONING",
		reason: "Whoever has the claim certificate, which many devices share, may " + sentence(wide) + ".",
		mitigation: fmt.Sprintf("aws iot create-policy-version --policy-name %s --set-as-default --policy-document file://claim.json, with iot:Connect, and the topics $aws/certificates/create*/* and $aws/provisioning-templates/NAME/provision/* of the templates that it is for (docs/fleet-provisioning.md has one)",
			version.Policy),
	})
	return nil
}

// claims looks at the claim certificates that have a guard.
func (w *walk) claims() error {
	return w.pages(func(tx imprint.ReadTx, p imprint.Page) (string, error) {
		page, next, err := tx.ClaimGuards(w.tenant, p)
		for i := range page {
			if err == nil {
				err = w.claim(tx, page[i])
			}
		}
		return next, err
	})
}

func (w *walk) claim(tx imprint.ReadTx, g imprint.ClaimGuard) error {
	cert, err := tx.Certificate(w.tenant, g.Claim)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil || cert.Status != imprint.CertificateActive {
		return err
	}
	if g.Quota > 0 {
		w.seen(ClaimOverQuota)
		f := flaw{resource: described(cert), mitigation: fmt.Sprintf("%s, or, if more devices are to come: imprint claim guard %s --quota NUMBER --resume", deactivate(g.Claim), g.Claim)}
		switch {
		case g.Devices > g.Quota || g.StopCode == imprint.CodeClaimQuota:
			f.code, f.reason = "CLAIM_OVER_QUOTA", fmt.Sprintf("The claim certificate registered %d devices of %d, and more were asked for: it may have leaked.", g.Devices, g.Quota)
			w.find(ClaimOverQuota, f)
		case g.Devices == g.Quota:
			f.severity, f.code = imprint.AuditLow, "CLAIM_QUOTA_USED_UP"
			f.reason = fmt.Sprintf("The claim certificate registered all %d devices that it is for, and is still ACTIVE.", g.Quota)
			w.find(ClaimOverQuota, f)
		}
	}
	if !w.wants(ClaimPolicyTooWide) {
		return nil
	}
	attached, _, err := tx.TargetPolicies(w.tenant, cert.ARN(), imprint.Page{Limit: imprint.MaxPoliciesPerCertificate, Ascending: true})
	for _, a := range attached {
		if err != nil {
			return err
		}
		err = w.claimed(tx, a.Policy, g.Claim)
	}
	return err
}

// claimed looks at a policy that is attached to a claim certificate. Those that name
// fleet provisioning's topics are counted with all policies.
func (w *walk) claimed(tx imprint.ReadTx, name imprint.PolicyName, claim imprint.CertificateID) error {
	p, err := tx.Policy(w.tenant, name)
	if err != nil {
		return ignoreMissing(err)
	}
	version, err := tx.PolicyVersion(w.tenant, name, p.DefaultVersion)
	if err != nil {
		return ignoreMissing(err)
	}
	doc, err := policy.Parse([]byte(version.Document))
	if err != nil {
		return nil // it allows nothing
	}
	if !forClaims(doc) {
		w.seen(ClaimPolicyTooWide)
	}
	return w.claimPolicy(tx, version, doc, &claim)
}

func ignoreMissing(err error) error {
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	return err
}
