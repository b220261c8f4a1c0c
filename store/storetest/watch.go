package storetest

import (
	"context"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
)

// heard collects what a watcher is told.
type heard struct {
	mu  sync.Mutex
	all []imprint.Change
}

func (h *heard) add(changes []imprint.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, changes...)
}

func (h *heard) take() []imprint.Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.all
	h.all = nil
	return all
}

func testWatch(t *testing.T, h Harness) {
	store := mustOpen(t, h)
	var ear, second heard
	stop := store.Watch(ear.add)
	stopSecond := store.Watch(second.add)
	defer stopSecond()
	cert := imprint.Certificate{Tenant: here, ID: certID(1)}
	attached := imprint.ThingAttachment{Tenant: here, Thing: "t", Certificate: certID(1)}
	onCert := imprint.PolicyAttachment{Tenant: here, Policy: "p", Target: here.CertificateARN(certID(1))}
	onGroup := imprint.PolicyAttachment{Tenant: here, Policy: "p", Target: here.ThingGroupARN("g")}
	onIdentity := imprint.PolicyAttachment{Tenant: here, Policy: "p", Target: "us-east-1:identity"}
	type change = imprint.Change
	certChange := change{Kind: imprint.ChangeCertificate, Tenant: here, Key: string(certID(1))}
	thingChange := change{Kind: imprint.ChangeThing, Tenant: here, Key: "t"}
	groupChange := change{Kind: imprint.ChangeThingGroup, Tenant: here, Key: "g"}
	member := imprint.ThingGroupMembership{Tenant: here, Group: "g", Thing: "t"}
	policyChange := change{Kind: imprint.ChangePolicy, Tenant: here, Key: "p"}
	templateChange := change{Kind: imprint.ChangeTemplate, Tenant: here, Key: "l"}
	keyChange := change{Kind: imprint.ChangeAccessKey, Tenant: imprint.Tenant{Account: here.Account}, Key: "k"}
	guardChange := change{Kind: imprint.ChangeClaimGuard, Tenant: here, Key: string(certID(1))}
	providerChange := change{Kind: imprint.ChangeProvider, Tenant: here, Key: "c"}
	ruleChange := change{Kind: imprint.ChangeTopicRule, Tenant: here, Key: "r"}
	for _, c := range []struct {
		name string
		do   func(imprint.Tx) error
		want []change
	}{
		{"PutCertificate", func(tx imprint.Tx) error { return tx.PutCertificate(cert) }, []change{certChange}},
		{"PutCA", func(tx imprint.Tx) error { return tx.PutCA(imprint.CACertificate{Tenant: here, ID: certID(2)}) },
			[]change{{Kind: imprint.ChangeCA, Tenant: here, Key: string(certID(2))}}},
		{"DeleteCA", func(tx imprint.Tx) error { return tx.DeleteCA(here, certID(2)) },
			[]change{{Kind: imprint.ChangeCA, Tenant: here, Key: string(certID(2))}}},
		{"PutTopicRule", func(tx imprint.Tx) error { return tx.PutTopicRule(imprint.TopicRule{Tenant: here, Name: "r"}) }, []change{ruleChange}},
		{"PutRuleDestination", func(tx imprint.Tx) error {
			return tx.PutRuleDestination(imprint.RuleDestination{Tenant: here, ID: "r"})
		}, []change{ruleChange}},
		{"PutRuleDelivery", func(tx imprint.Tx) error { return tx.PutRuleDelivery(imprint.RuleDelivery{ID: "r", Tenant: here}) }, nil},
		{"DeleteTopicRule", func(tx imprint.Tx) error { return tx.DeleteTopicRule(here, "r") }, []change{ruleChange}},
		{"DeleteTopicRule of nothing", func(tx imprint.Tx) error { return tx.DeleteTopicRule(here, "r") }, nil},
		{"DeleteRuleDestination", func(tx imprint.Tx) error { return tx.DeleteRuleDestination(here, "r") }, []change{ruleChange}},
		{"PutThing", func(tx imprint.Tx) error { return tx.PutThing(thing(here, "t")) }, []change{thingChange}},
		{"PutThingAttachment", func(tx imprint.Tx) error { return tx.PutThingAttachment(attached) }, []change{certChange, thingChange}},
		{"DeleteThingAttachment", func(tx imprint.Tx) error { return tx.DeleteThingAttachment(here, "t", certID(1)) }, []change{certChange, thingChange}},
		{"PutPolicy", func(tx imprint.Tx) error { return tx.PutPolicy(imprint.Policy{Tenant: here, Name: "p"}) }, []change{policyChange}},
		{"PutPolicyVersion", func(tx imprint.Tx) error {
			return tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: here, Policy: "p", Version: 1})
		}, []change{policyChange}},
		{"DeletePolicyVersion", func(tx imprint.Tx) error { return tx.DeletePolicyVersion(here, "p", 1) }, []change{policyChange}},
		{"PutPolicyAttachment on a certificate", func(tx imprint.Tx) error { return tx.PutPolicyAttachment(onCert) }, []change{certChange}},
		{"PutPolicyAttachment on a group", func(tx imprint.Tx) error { return tx.PutPolicyAttachment(onGroup) }, []change{groupChange}},
		{"PutPolicyAttachment on an identity", func(tx imprint.Tx) error { return tx.PutPolicyAttachment(onIdentity) }, []change{policyChange}},
		{"DeletePolicyAttachment from a group", func(tx imprint.Tx) error { return tx.DeletePolicyAttachment(onGroup) }, []change{groupChange}},
		{"DeletePolicyAttachment of nothing", func(tx imprint.Tx) error { return tx.DeletePolicyAttachment(onGroup) }, nil},
		{"PutThingGroup", func(tx imprint.Tx) error { return tx.PutThingGroup(group(here, "g")) }, []change{groupChange}},
		{"PutThingGroupMembership", func(tx imprint.Tx) error { return tx.PutThingGroupMembership(member) }, []change{thingChange}},
		{"DeleteThingGroupMembership", func(tx imprint.Tx) error { return tx.DeleteThingGroupMembership(member) }, []change{thingChange}},
		{"DeleteThingGroupMembership of nothing", func(tx imprint.Tx) error { return tx.DeleteThingGroupMembership(member) }, nil},
		{"DeleteThingGroup with members", steps(
			func(tx imprint.Tx) error { return tx.PutThingGroupMembership(member) },
			func(tx imprint.Tx) error { return tx.DeleteThingGroup(here, "g") }), []change{thingChange, groupChange}},
		{"DeleteThingGroup of nothing", func(tx imprint.Tx) error { return tx.DeleteThingGroup(here, "g") }, nil},
		{"DeletePolicyAttachment", func(tx imprint.Tx) error { return tx.DeletePolicyAttachment(onCert) }, []change{certChange}},
		{"DeletePolicy", func(tx imprint.Tx) error { return tx.DeletePolicy(here, "p") }, []change{policyChange}},
		{"PutTemplate", func(tx imprint.Tx) error {
			return tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: here, Name: "l"})
		}, []change{templateChange}},
		{"PutTemplateVersion", func(tx imprint.Tx) error {
			return tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: here, Template: "l", Version: 1})
		}, []change{templateChange}},
		{"DeleteTemplateVersion", func(tx imprint.Tx) error { return tx.DeleteTemplateVersion(here, "l", 1) }, []change{templateChange}},
		{"DeleteTemplate", func(tx imprint.Tx) error { return tx.DeleteTemplate(here, "l") }, []change{templateChange}},
		{"PutClaimGuard", func(tx imprint.Tx) error {
			return tx.PutClaimGuard(imprint.ClaimGuard{Tenant: here, Claim: certID(1)})
		}, []change{guardChange}},
		{"DeleteClaimGuard", func(tx imprint.Tx) error { return tx.DeleteClaimGuard(here, certID(1)) }, []change{guardChange}},
		{"DeleteClaimGuard of nothing", func(tx imprint.Tx) error { return tx.DeleteClaimGuard(here, certID(1)) }, nil},
		{"PutCertificateProvider", func(tx imprint.Tx) error {
			return tx.PutCertificateProvider(imprint.CertificateProvider{Tenant: here, Name: "c"})
		}, []change{providerChange}},
		{"DeleteCertificateProvider", func(tx imprint.Tx) error { return tx.DeleteCertificateProvider(here, "c") }, []change{providerChange}},
		{"DeleteCertificateProvider of nothing", func(tx imprint.Tx) error { return tx.DeleteCertificateProvider(here, "c") }, nil},
		{"PutTenantSettings", func(tx imprint.Tx) error { return tx.PutTenantSettings(imprint.TenantSettings{Tenant: here}) },
			[]change{{Kind: imprint.ChangeSettings, Tenant: here}}},
		{"PutThingType", func(tx imprint.Tx) error { return tx.PutThingType(imprint.ThingType{Tenant: here, Name: "k"}) }, nil},
		{"DeleteThingType", func(tx imprint.Tx) error { return tx.DeleteThingType(here, "k") }, nil},
		{"PutBillingGroup", func(tx imprint.Tx) error {
			return tx.PutBillingGroup(imprint.BillingGroup{Tenant: here, Name: "b"})
		}, nil},
		{"DeleteBillingGroup", func(tx imprint.Tx) error { return tx.DeleteBillingGroup(here, "b") }, nil},
		{"PutEventConfigurations", func(tx imprint.Tx) error {
			return tx.PutEventConfigurations(imprint.EventConfigurations{Tenant: here})
		}, nil},
		{"PutAccessKey", func(tx imprint.Tx) error {
			return tx.PutAccessKey(imprint.AccessKey{ID: "k", Account: here.Account})
		}, []change{keyChange}},
		{"DeleteAccessKey", func(tx imprint.Tx) error { return tx.DeleteAccessKey("k") }, []change{keyChange}},
		{"PutEvent", func(tx imprint.Tx) error { return tx.PutEvent(imprint.Event{ID: "e", Tenant: here}) },
			[]change{{Kind: imprint.ChangeEvent, Tenant: here, Key: "e"}}},
		{"DeleteEvents", func(tx imprint.Tx) error { return tx.DeleteEvents(here, []string{"e"}) }, nil},
		{"DeleteThing", func(tx imprint.Tx) error { return tx.DeleteThing(here, "t") }, []change{thingChange}},
		{"DeleteThing of nothing", func(tx imprint.Tx) error { return tx.DeleteThing(here, "t") }, nil},
		{"DeleteCertificate", func(tx imprint.Tx) error { return tx.DeleteCertificate(here, certID(1)) }, []change{certChange}},
		{"PutAttempt", func(tx imprint.Tx) error { return tx.PutAttempt(imprint.Attempt{ID: "a"}) }, nil},
	} {
		update(t, store, c.do)
		same(t, c.name, ear.take(), c.want)
		same(t, c.name+" at the second watcher", second.take(), c.want)
	}
	checkUntold(t, store, &ear)
	second.take()
	stop()
	update(t, store, func(tx imprint.Tx) error { return tx.PutCertificate(cert) })
	same(t, "after stop", ear.take(), []change(nil))
	same(t, "at the second watcher after the first stopped", second.take(), []change{certChange})
}

// checkUntold ensures that failed changes are not told, alone or in company.
func checkUntold(t *testing.T, store imprint.Store, ear *heard) {
	t.Helper()
	bad := func(tx imprint.Tx) error {
		err := tx.PutThing(thing(here, "bad"))
		if err != nil {
			return err
		}
		return errOwn
	}
	err := store.Update(context.Background(), bad)
	if err == nil {
		t.Error("a failing change was acknowledged")
	}
	same(t, "told of a failed change", ear.take(), []imprint.Change(nil))
	good := func(tx imprint.Tx) error { return tx.PutThing(thing(here, "good")) }
	together(store, []func(imprint.Tx) error{bad, good, bad, func(imprint.Tx) error { panic("on purpose") }})
	same(t, "told of a batch", ear.take(), []imprint.Change{{Kind: imprint.ChangeThing, Tenant: here, Key: "good"}})
}
