package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// testPrincipals compares what one look-up gives with what separate ones give.
func testPrincipals(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, func(tx imprint.Tx) error {
		for _, tenant := range []imprint.Tenant{here, there} {
			for n := range 4 {
				err := putPrincipal(tx, tenant, n)
				if err != nil {
					return err
				}
			}
		}
		// What is attached to a certificate that doesn't exist makes none of it.
		err := attachThings(tx, here, 9, 1)
		if err != nil {
			return err
		}
		return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: here, Policy: "p", Target: here.CertificateARN(certID(9))})
	})
	for _, look := range []struct {
		name string
		run  func(context.Context, func(imprint.ReadTx) error) error
	}{{"view", store.View}, {"glance", store.Glance}} {
		err := look.run(t.Context(), func(tx imprint.ReadTx) error {
			for _, tenant := range []imprint.Tenant{here, there} {
				for n := range 4 {
					for _, limit := range []int{1, 2, 100} {
						got, err := tx.Principal(tenant, certID(n), limit)
						if err != nil {
							return err
						}
						want, err := principalByParts(tx, tenant, certID(n), limit)
						same(t, fmt.Sprintf("%s: principal %d of %s up to %d", look.name, n, tenant, limit), got, want)
						if err != nil {
							return err
						}
					}
				}
			}
			_, err := tx.Principal(here, certID(9), 100)
			wantCode(t, err, imprint.CodeNotFound)
			_, err = tx.Principal(other, certID(1), 100)
			wantCode(t, err, imprint.CodeNotFound)
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", look.name, err)
		}
	}
}

// putPrincipal makes certificate n with n things, of which the last doesn't
// exist, and n policies. The first thing is in n groups.
func putPrincipal(tx imprint.Tx, tenant imprint.Tenant, n int) error {
	err := tx.PutCertificate(imprint.Certificate{
		Tenant: tenant, ID: certID(n), PEM: "pem", Status: imprint.CertificateInactive, Mode: imprint.ModeSNIOnly, CAID: certID(100),
		OwnedBy: tenant.Account, PreviousOwner: "222222222222", Serial: "1", Subject: unusual, NotBefore: instant, NotAfter: instant.Add(time.Hour),
		CreatedAt: instant.Add(time.Minute), ModifiedAt: instant.Add(time.Second), CustomerVersion: n + 1, GenerationID: "generation",
	})
	if err != nil {
		return err
	}
	err = attachThings(tx, tenant, n, n)
	if err != nil {
		return err
	}
	for i := range n {
		policy := imprint.PolicyName(fmt.Sprintf("%s-policy-%d", tenant.Region, n-i))
		err = tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: tenant, Policy: policy, Target: tenant.CertificateARN(certID(n))})
		if err != nil {
			return err
		}
		group := imprint.ThingGroupName(fmt.Sprintf("%s-group-%d", tenant.Region, n-i))
		for _, which := range []int{0, n - 1} {
			err = tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: tenant, Thing: principalThing(n, which), Group: group})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func principalThing(n, which int) imprint.ThingName {
	return imprint.ThingName(fmt.Sprintf("thing-%d-of-%d", which, n))
}

func attachThings(tx imprint.Tx, tenant imprint.Tenant, n, count int) error {
	for i := range count {
		name := principalThing(n, i)
		if i == 0 || i < count-1 {
			made := thing(tenant, string(name))
			made.TypeName, made.BillingGroup, made.Version = "type", "billing", int64(i+2)
			made.Attributes = map[string]string{"a": unusual, "region": string(tenant.Region)}
			made.ModifiedAt = instant.Add(time.Hour)
			err := tx.PutThing(made)
			if err != nil {
				return err
			}
		}
		err := tx.PutThingAttachment(imprint.ThingAttachment{Tenant: tenant, Thing: name, Certificate: certID(n), Exclusive: i == 0})
		if err != nil {
			return err
		}
	}
	return nil
}

// principalByParts is what Principal replaces.
func principalByParts(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID, limit int) (imprint.Principal, error) {
	var p imprint.Principal
	var err error
	p.Certificate, err = tx.Certificate(tenant, id)
	if err != nil {
		return p, err
	}
	p.Certificate.PEM, p.Certificate.Serial, p.Certificate.Subject, p.Certificate.GenerationID = "", "", "", ""
	attached, _, err := tx.CertificateThings(tenant, id, imprint.Page{Limit: limit, Ascending: true})
	if err != nil {
		return p, err
	}
	for _, a := range attached {
		one := imprint.PrincipalThing{Attachment: a}
		found, err := tx.Thing(tenant, a.Thing)
		if err == nil {
			one.Thing = &found
		} else if imprint.CodeOf(err) != imprint.CodeNotFound {
			return p, err
		}
		memberships, _, err := tx.ThingMemberships(tenant, a.Thing, imprint.Page{Limit: 100, Ascending: true})
		if err != nil {
			return p, err
		}
		for _, m := range memberships {
			one.Groups = append(one.Groups, m.Group)
		}
		p.Things = append(p.Things, one)
	}
	policies, _, err := tx.TargetPolicies(tenant, p.Certificate.ARN(), imprint.Page{Limit: limit, Ascending: true})
	for _, a := range policies {
		p.Policies = append(p.Policies, a.Policy)
	}
	return p, err
}
