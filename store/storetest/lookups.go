package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

func testLookups(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	cert := func(tenant imprint.Tenant, n int, age time.Duration) imprint.Certificate {
		return imprint.Certificate{Tenant: tenant, ID: certID(n), Serial: fmt.Sprintf("%x", n%2), CreatedAt: instant.Add(age)}
	}
	ca := func(tenant imprint.Tenant, n int, age time.Duration) imprint.CACertificate {
		return imprint.CACertificate{Tenant: tenant, ID: certID(n), SubjectKey: "key", CreatedAt: instant.Add(age)}
	}
	key := func(account imprint.AccountID, id string) imprint.AccessKey {
		return imprint.AccessKey{ID: id, Account: account, Secret: "secret", CreatedAt: instant}
	}
	settings := func(tenant imprint.Tenant, prefix string) imprint.TenantSettings {
		return imprint.TenantSettings{Tenant: tenant, EndpointPrefix: prefix, CreatedAt: instant}
	}
	update(t, store, func(tx imprint.Tx) error {
		for _, c := range []imprint.Certificate{cert(here, 1, 3), cert(there, 1, time.Second), cert(other, 1, 2*time.Second), cert(here, 3, time.Hour), cert(here, 2, 0)} {
			err := tx.PutCertificate(c)
			if err != nil {
				return err
			}
		}
		for _, c := range []imprint.CACertificate{ca(here, 2, time.Minute), ca(here, 1, time.Hour), ca(here, 3, 0), ca(there, 1, 0), ca(other, 1, 0)} {
			err := tx.PutCA(c)
			if err != nil {
				return err
			}
		}
		for _, k := range []imprint.AccessKey{key("1", "b"), key("1", "a"), key("2", "c")} {
			err := tx.PutAccessKey(k)
			if err != nil {
				return err
			}
		}
		for _, s := range []imprint.TenantSettings{settings(here, "h"), settings(there, "t"), settings(other, "")} {
			err := tx.PutTenantSettings(s)
			if err != nil {
				return err
			}
		}
		for _, tag := range []imprint.Tag{{Key: "z", Value: unusual}, {Key: "a"}, {Key: "z", Value: "again"}} {
			err := tx.PutTag(here, "arn", tag)
			if err != nil {
				return err
			}
		}
		return tx.PutTag(there, "arn", imprint.Tag{Key: "z", Value: "there"})
	})
	view(t, store, func(tx imprint.ReadTx) error {
		checkCertificateLookups(t, tx)
		checkSettingsLookups(t, tx)
		tags, err := tx.Tags(here, "arn")
		same(t, "tags", tags, []imprint.Tag{{Key: "a"}, {Key: "z", Value: "again"}})
		return err
	})
	update(t, store, func(tx imprint.Tx) error {
		err := tx.DeleteTag(here, "arn", "absent")
		if err != nil {
			return err
		}
		err = tx.DeleteTag(here, "arn", "a")
		if err != nil {
			return err
		}
		tags, err := tx.Tags(here, "arn")
		same(t, "tags", tags, []imprint.Tag{{Key: "z", Value: "again"}})
		if err != nil {
			return err
		}
		return tx.DeleteTags(here, "arn")
	})
	view(t, store, func(tx imprint.ReadTx) error {
		tags, err := tx.Tags(here, "arn")
		same(t, "deleted tags", tags, []imprint.Tag{})
		if err != nil {
			return err
		}
		tags, err = tx.Tags(there, "arn")
		same(t, "tags of the other tenant", tags, []imprint.Tag{{Key: "z", Value: "there"}})
		return err
	})
}

func checkCertificateLookups(t *testing.T, tx imprint.ReadTx) {
	t.Helper()
	where := func(items []imprint.Certificate, err error) []string {
		var all []string
		for _, c := range items {
			all = append(all, c.Tenant.String()+" "+string(c.ID[63:]))
		}
		if err != nil {
			t.Errorf("a look-up failed: %v", err)
		}
		return all
	}
	whereCA := func(items []imprint.CACertificate, err error) []string {
		var all []string
		for _, c := range items {
			all = append(all, c.Tenant.String()+" "+string(c.ID[63:]))
		}
		if err != nil {
			t.Errorf("a look-up failed: %v", err)
		}
		return all
	}
	same(t, "registrations of a certificate", where(tx.CertificateTenants(certID(1))),
		[]string{here.String() + " 1", there.String() + " 1", other.String() + " 1"})
	same(t, "registrations of nothing", where(tx.CertificateTenants(certID(99))), []string(nil))
	same(t, "certificates by serial", where(tx.CertificatesBySerial(here, "1")), []string{here.String() + " 1", here.String() + " 3"})
	same(t, "certificates by another serial", where(tx.CertificatesBySerial(there, "0")), []string(nil))
	same(t, "certificates without serial", where(tx.CertificatesBySerial(here, "")), []string(nil))
	same(t, "CAs by subject", whereCA(tx.CAsBySubject(here, "key")),
		[]string{here.String() + " 3", here.String() + " 2", here.String() + " 1"})
	same(t, "CAs by another subject", whereCA(tx.CAsBySubject(here, "no")), []string(nil))
	same(t, "registrations of a CA", whereCA(tx.CATenants("us-east-1", certID(1))), []string{other.String() + " 1", here.String() + " 1"})
}

func checkSettingsLookups(t *testing.T, tx imprint.ReadTx) {
	t.Helper()
	s, err := tx.TenantByPrefix("t")
	if err != nil || s.Tenant != there {
		t.Errorf("TenantByPrefix gave %v, %v", s.Tenant, err)
	}
	for _, prefix := range []string{"", "no"} {
		_, err = tx.TenantByPrefix(prefix)
		wantCode(t, err, imprint.CodeNotFound)
	}
	all, err := imprint.AllTenants(tx)
	if err != nil || len(all) != 3 || all[0].Tenant != there || all[1].Tenant != here || all[2].Tenant != other {
		t.Errorf("AllTenants gave %v, %v", all, err)
	}
	for n, after := range []imprint.Tenant{{}, there, here, other} {
		some, err := tx.TenantList(after, 2)
		want := all[n:min(n+2, len(all))]
		if err != nil || len(some) != len(want) || len(want) > 0 && some[0] != want[0] {
			t.Errorf("TenantList behind %s gave %v, %v, want %v", after, some, err, want)
		}
	}
	keys, err := tx.AccessKeys("1")
	if err != nil || len(keys) != 2 || keys[0].ID != "a" || keys[1].ID != "b" || keys[1].Secret != "secret" {
		t.Errorf("AccessKeys gave %v, %v", keys, err)
	}
}

func testDeletes(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	both := []imprint.Tenant{here, there}
	update(t, store, func(tx imprint.Tx) error {
		for _, tenant := range both {
			for n := 1; n <= 3; n++ {
				err := tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: tenant, Policy: "p", Version: n})
				if err != nil {
					return err
				}
				err = tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: tenant, Template: "t", Version: n})
				if err != nil {
					return err
				}
				err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: tenant, Thing: "t", Certificate: certID(n)})
				if err != nil {
					return err
				}
				err = tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: tenant, Policy: "p", Target: tenant.CertificateARN(certID(n))})
				if err != nil {
					return err
				}
				for _, m := range []imprint.ThingGroupMembership{
					{Tenant: tenant, Group: "g", Thing: imprint.ThingName(name(n))},
					{Tenant: tenant, Group: imprint.ThingGroupName(name(n)), Thing: "t"},
				} {
					err = tx.PutThingGroupMembership(m)
					if err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	for range 2 {
		update(t, store, func(tx imprint.Tx) error {
			err := tx.DeletePolicy(here, "p")
			if err != nil {
				return err
			}
			err = tx.DeleteTemplate(here, "t")
			if err != nil {
				return err
			}
			err = tx.DeleteThing(here, "t")
			if err != nil {
				return err
			}
			err = tx.DeleteThingGroup(here, "g")
			if err != nil {
				return err
			}
			err = tx.DeleteThingAttachment(here, "t", certID(2))
			if err != nil {
				return err
			}
			return tx.DeletePolicyAttachment(imprint.PolicyAttachment{Tenant: here, Policy: "p", Target: here.CertificateARN(certID(2))})
		})
	}
	view(t, store, func(tx imprint.ReadTx) error {
		same(t, "what is left here", countAll(t, tx, here), []int{0, 0, 2, 2, 0, 0})
		same(t, "what is left there", countAll(t, tx, there), []int{3, 3, 3, 3, 3, 3})
		versions, err := tx.PolicyVersions(there, "p")
		if len(versions) == 3 && versions[0].Version != 3 {
			t.Errorf("PolicyVersions begins with %d, want the newest", versions[0].Version)
		}
		return err
	})
}

func countAll(t *testing.T, tx imprint.ReadTx, tenant imprint.Tenant) []int {
	t.Helper()
	p := imprint.Page{Limit: 100}
	policies, err := tx.PolicyVersions(tenant, "p")
	if err != nil {
		t.Errorf("PolicyVersions: %v", err)
	}
	templates, _, err := tx.TemplateVersions(tenant, "t", p)
	if err != nil {
		t.Errorf("TemplateVersions: %v", err)
	}
	things, _, err := tx.ThingPrincipals(tenant, "t", p)
	if err != nil {
		t.Errorf("ThingPrincipals: %v", err)
	}
	targets, _, err := tx.PolicyTargets(tenant, "p", p)
	if err != nil {
		t.Errorf("PolicyTargets: %v", err)
	}
	groups, _, err := tx.ThingMemberships(tenant, "t", p)
	if err != nil {
		t.Errorf("ThingMemberships: %v", err)
	}
	members, _, err := tx.ThingGroupMembers(tenant, "g", false, p)
	if err != nil {
		t.Errorf("ThingGroupMembers: %v", err)
	}
	return []int{len(policies), len(templates), len(things), len(targets), len(groups), len(members)}
}

func testThingFilter(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	update(t, store, func(tx imprint.Tx) error {
		for n, attributes := range []map[string]string{
			nil, {"color": "red"}, {"color": "RED"}, {"Color": "red"}, {"color": "redder"}, {"size": "red"},
			{"a": `x"color":"red`}, {"color": ""}, {"c%lor": "50%_\\"}, {"color": "red", "more": unusual},
		} {
			for _, tenant := range []imprint.Tenant{here, there} {
				one := thing(tenant, fmt.Sprintf("t%d", n))
				one.Attributes = attributes
				if n%2 == 1 {
					one.TypeName = "odd"
				}
				err := tx.PutThing(one)
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	type filter = imprint.ThingFilter
	for _, c := range []struct {
		name   string
		filter filter
		want   string
	}{
		{"nothing selects all", filter{}, "t0t1t2t3t4t5t6t7t8t9"},
		{"type", filter{TypeName: "odd"}, "t1t3t5t7t9"},
		{"absent type", filter{TypeName: "even"}, ""},
		{"name and value", filter{AttributeName: "color", AttributeValue: "red"}, "t1t9"},
		{"name and prefix", filter{AttributeName: "color", AttributeValue: "red", PrefixValue: true}, "t1t4t9"},
		{"name alone", filter{AttributeName: "color"}, "t1t2t4t7t9"},
		{"value alone", filter{AttributeValue: "red"}, "t1t3t5t9"},
		{"pattern characters stand for themselves", filter{AttributeName: "c%lor", AttributeValue: "50%_", PrefixValue: true}, "t8"},
		{"patterns don't match", filter{AttributeName: "c%", AttributeValue: "%"}, ""},
		{"type, name and value", filter{TypeName: "odd", AttributeName: "color", AttributeValue: "red"}, "t1t9"},
		{"not ASCII", filter{AttributeName: "more", AttributeValue: unusual}, "t9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, limit := range []int{1, 3, 10} {
				got := ""
				p := imprint.Page{Limit: limit, Ascending: true}
				view(t, store, func(tx imprint.ReadTx) error {
					for {
						things, next, err := tx.Things(here, c.filter, p)
						for _, one := range things {
							got += string(one.Name)
						}
						if err != nil || next == "" {
							return err
						}
						p.Cursor = next
					}
				})
				if got != c.want {
					t.Errorf("by pages of %d got %s, want %s", limit, got, c.want)
				}
			}
		})
	}
}
