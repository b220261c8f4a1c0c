package identity_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/policy"
)

// TestADenialOfAClaimNamesNoPolicyToEdit ensures that who is refused as a trusted user's claim
// is sent for another claim: what it may do stands in no policy that can be edited.
func TestADenialOfAClaimNamesNoPolicyToEdit(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	update(t, store, func(tx imprint.Tx) error {
		return tx.PutProvisioningClaim(imprint.ProvisioningClaim{Tenant: home, Certificate: certID(1), Template: "fleet", CreatedAt: instant, ExpiresAt: instant})
	})
	r := identity.NewResolver(store, nil)
	t.Cleanup(r.Close)
	who, err := r.Acquire(t.Context(), home, certID(1))
	if err != nil {
		t.Fatal(err)
	}
	for topic, allowed := range map[string]bool{
		"$aws/provisioning-templates/fleet/provision/json": true,
		"$aws/provisioning-templates/other/provision/json": false,
	} {
		x := who.Policies.Explain(&policy.Request{
			Action: policy.Publish, ResourcePrefix: home.ARN("topic/"), ResourceName: topic, Now: instant,
			Vars: who.Variables(identity.Connection{ClientID: "c"}),
		})
		sent := strings.Contains(x.Hint, "create-provisioning-claim --template-name")
		if (x.Decision == policy.Allowed) != allowed || sent == allowed || strings.Contains(x.Hint, "statement") {
			t.Errorf("%s: got %s, fix %q", topic, x.Decision, x.Hint)
		}
	}
}
