package provisioning_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
)

const installer = "arn:aws:iam::000000000000:user/installer"

func TestATrustedUsersClaimEnds(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	claim, err := o.claims.CreateClaim(context.Background(), home, "sensors", installer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertificatePEM(claim.CertificatePEM)
	if err != nil || pki.CertificateID(cert.Raw) != claim.Claim.Certificate || !strings.Contains(claim.Private, "RSA PRIVATE KEY") {
		t.Errorf("claim: got %+v, %v", claim.Claim, err)
	}
	if got := claim.Claim.ExpiresAt; !got.Equal(instant.Add(5*time.Minute)) || !cert.NotAfter.Equal(got) {
		t.Errorf("the claim ends at %s, its certificate at %s; want both in five minutes", got, cert.NotAfter)
	}
	_, err = o.certificate(home, string(claim.Claim.Certificate))
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("the claim among the device certificates: got %v, want NotFound", err)
	}
	as := func(r *provisioning.ClaimRequest) { r.Claim = claim.Claim.Certificate }
	made := o.create(home, as)
	out, ok := o.ask(home, "$aws/provisioning-templates/others/provision/json", object(t, map[string]any{"certificateOwnershipToken": made.Token}), as)
	rejectedWith(t, out, ok, 403, "AccessDenied")
	o.ahead.Store(int64(5*time.Minute + time.Second))
	out, ok = o.ask(home, keysTopic, "", as)
	rejectedWith(t, out, ok, 403, "AccessDenied")
	checkFailure(t, o.steps(), "claim", imprint.CodeClaimExpired)
	// A connection that lives on may still register what it was given in time.
	got, ok := o.register(home, made.Token, serial("1"), as)
	if !ok || got.Thing != "sensor-1" {
		t.Errorf("RegisterThing after the claim's end: got %t %+v", ok, got)
	}
	view(t, o.store, func(tx imprint.ReadTx) error {
		row, err := tx.ProvisioningClaim(home, claim.Claim.Certificate)
		if row.Thing != "sensor-1" || string(row.Device) != made.ID || row.Devices != 1 || row.RequestedBy != installer {
			t.Errorf("what came of the claim: got %+v", row)
		}
		return err
	})
	o.ahead.Store(int64(8 * 24 * time.Hour))
	_, err = o.claims.Sweep(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	view(t, o.store, func(tx imprint.ReadTx) error {
		_, err := tx.ProvisioningClaim(home, claim.Claim.Certificate)
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			t.Errorf("the claim after a week: got %v, want NotFound", err)
		}
		return nil
	})
}

func TestClaimsAreMadeForUsableTemplatesAlone(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	for _, tt := range []struct {
		name   string
		change func(*imprint.ProvisioningTemplate)
		code   imprint.Code
	}{
		{"absent", nil, imprint.CodeNotFound},
		{"disabled", func(p *imprint.ProvisioningTemplate) { p.Enabled = false }, imprint.CodeInvalidRequest},
		{"jitp", func(p *imprint.ProvisioningTemplate) { p.Type = imprint.TemplateJITP }, imprint.CodeInvalidRequest},
	} {
		if tt.change != nil {
			update(t, o.store, func(tx imprint.Tx) error {
				p := imprint.ProvisioningTemplate{Tenant: home, Name: imprint.TemplateName(tt.name), Type: imprint.TemplateFleet, Enabled: true}
				tt.change(&p)
				return tx.PutTemplate(p)
			})
		}
		_, err := o.claims.CreateClaim(context.Background(), home, imprint.TemplateName(tt.name), installer)
		if got := imprint.CodeOf(err); got != tt.code {
			t.Errorf("%s: got %s (%v), want %s", tt.name, got, err, tt.code)
		}
	}
}

// TestASweepDeletesAllClaimsThatAreOver ensures that the claims of users who make them
// quicker than one batch a sweep don't pile up.
func TestASweepDeletesAllClaimsThatAreOver(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	const many = 1000
	id := func(n int) imprint.CertificateID { return imprint.CertificateID(fmt.Sprint(n)) }
	update(t, o.store, func(tx imprint.Tx) error {
		for n := range many {
			err := tx.PutProvisioningClaim(imprint.ProvisioningClaim{Tenant: home, Certificate: id(n), Template: "sensors", ExpiresAt: instant.Add(-8 * 24 * time.Hour)})
			if err != nil {
				return err
			}
		}
		return tx.PutProvisioningClaim(imprint.ProvisioningClaim{Tenant: home, Certificate: id(many), Template: "sensors", ExpiresAt: instant})
	})
	_, err := o.claims.Sweep(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	view(t, o.store, func(tx imprint.ReadTx) error {
		left, err := tx.ProvisioningClaimsDue(instant.Add(time.Hour), many+1)
		if len(left) != 1 || left[0].Certificate != id(many) {
			t.Errorf("%d claims are left, want the one that isn't long over", len(left))
		}
		return err
	})
}
