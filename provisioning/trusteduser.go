package provisioning

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// TrustedClaim is a temporary claim certificate with its key, which is kept
// nowhere.
type TrustedClaim struct {
	Claim                           imprint.ProvisioningClaim
	CertificatePEM, Public, Private string
}

// CreateClaim makes the claim certificate that a trusted user hands to a device
// for some minutes: it connects with any client id, and is good for certificates
// and for RegisterThing of one template, and nothing else. By names the user
// (developer guide, "Provisioning by trusted user"). Errors: CodeNotFound,
// CodeInvalidRequest, CodeUnavailable.
func (c *Claims) CreateClaim(ctx context.Context, tenant imprint.Tenant, name imprint.TemplateName, by string) (TrustedClaim, error) {
	err := c.store.View(ctx, func(tx imprint.ReadTx) error { return claimable(tx, tenant, name) })
	if err != nil {
		return TrustedClaim{}, err
	}
	wait, cancel := context.WithTimeout(ctx, keyWait)
	defer cancel()
	pair, err := c.rooms.Keys.Take(wait, tenant.Account)
	if err != nil {
		return TrustedClaim{}, imprint.Errorf(imprint.CodeUnavailable, "no key is ready: %w", err).WithHint("Retry with back-off, or raise --rsa-key-pool.")
	}
	defer pair.Destroy()
	issued, err := c.sign(ctx, c.claim, pki.Request{PublicKey: pair.Public()}, tenant)
	if err != nil {
		return TrustedClaim{}, err
	}
	now := c.clock()
	claim := imprint.ProvisioningClaim{
		Tenant: tenant, Certificate: issued.ID, Template: name, RequestedBy: by, CreatedAt: now,
		ExpiresAt: now.Add(c.opts.ClaimLifetime).Truncate(time.Second),
	}
	err = c.store.Update(ctx, func(tx imprint.Tx) error {
		err := claimable(tx, tenant, name)
		if err != nil {
			return err
		}
		return tx.PutProvisioningClaim(claim)
	})
	if err != nil {
		return TrustedClaim{}, err
	}
	c.count.claims.Add(1)
	return TrustedClaim{Claim: claim, CertificatePEM: issued.PEM, Public: string(pair.PublicPEM()), Private: string(pair.PrivatePEM())}, nil
}

// claimable refuses templates that no device could register with.
func claimable(tx imprint.ReadTx, tenant imprint.Tenant, name imprint.TemplateName) error {
	t, err := tx.Template(tenant, name)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return imprint.Errorf(imprint.CodeNotFound, "Provisioning template %s cannot be found.", name)
	case err != nil:
		return fmt.Errorf("couldn't read template %s: %w", name, err)
	case t.Type != imprint.TemplateFleet:
		return imprint.Errorf(imprint.CodeInvalidRequest, "Provisioning template %s is of type %s.", name, t.Type).
			WithHint("Only templates of type %s have claims.", imprint.TemplateFleet)
	case !t.Enabled:
		return imprint.Errorf(imprint.CodeInvalidRequest, "Provisioning template %s is disabled.", name).
			WithHint("aws iot update-provisioning-template --template-name %s --enabled", name)
	}
	return nil
}
