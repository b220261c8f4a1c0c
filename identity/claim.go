package identity

import (
	"encoding/json"
	"fmt"

	"github.com/imprint-iot/imprint"
)

// lookClaim finds a trusted user's temporary claim certificate, which is no
// device certificate: nothing can be attached to it, and what it may do follows
// from its template.
func (l *loading) lookClaim(tx imprint.ReadTx, missing error) error {
	claim, err := tx.ProvisioningClaim(l.key.tenant, l.key.id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return missing
	}
	if err != nil {
		return err
	}
	text, err := claimPolicy(claim.Tenant, claim.Template)
	if err != nil {
		return err
	}
	l.who.Claim = &claim
	l.who.Certificate = imprint.Certificate{
		Tenant: claim.Tenant, ID: claim.Certificate, Status: imprint.CertificateActive, Mode: imprint.ModeDefault,
		OwnedBy: claim.Tenant.Account, NotAfter: claim.ExpiresAt, CreatedAt: claim.CreatedAt, ModifiedAt: claim.CreatedAt, CustomerVersion: 1,
	}
	l.own = []document{{
		name: imprint.PolicyName("claim of " + claim.Template), text: text,
		instead: fmt.Sprintf("a trusted user's claim may ask for certificates and register with template %s, and nothing else; "+
			"for another template: aws iot create-provisioning-claim --template-name NAME", claim.Template),
	}}
	return nil
}

// claimPolicy lets a temporary claim connect with any client id, ask for
// certificates, and register with its template.
func claimPolicy(tenant imprint.Tenant, name imprint.TemplateName) (string, error) {
	type statement struct {
		Effect   string
		Action   []string
		Resource []string
	}
	topics := []string{
		"$aws/certificates/create/*", "$aws/certificates/create-from-csr/*",
		"$aws/provisioning-templates/" + string(name) + "/provision/*",
	}
	resources := func(kind string) []string {
		list := make([]string, len(topics))
		for n, topic := range topics {
			list[n] = tenant.ARN(kind + topic)
		}
		return list
	}
	text, err := json.Marshal(struct {
		Version   string
		Statement []statement
	}{"2012-10-17", []statement{
		{"Allow", []string{"iot:Connect"}, []string{tenant.ARN("client/*")}},
		{"Allow", []string{"iot:Publish", "iot:Receive"}, resources("topic/")},
		{"Allow", []string{"iot:Subscribe"}, resources("topicfilter/")},
	}})
	if err != nil {
		return "", fmt.Errorf("couldn't make the policy of a claim: %w", err)
	}
	return string(text), nil
}
