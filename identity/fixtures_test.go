package identity_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	home    = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	instant = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

const (
	allow = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`
	// allowPublish says nothing of connections.
	allowPublish = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}]}`
	deny         = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"iot:Connect","Resource":"*"}]}`
)

func certID(n int) imprint.CertificateID {
	return imprint.CertificateID(fmt.Sprintf("%02x%062x", n%256, n))
}

func update(tb testing.TB, store imprint.Store, fn func(imprint.Tx) error) {
	tb.Helper()
	err := store.Update(context.Background(), fn)
	if err != nil {
		tb.Fatalf("couldn't update the store: %v", err)
	}
}

func certificate(n int, status imprint.CertificateStatus) imprint.Certificate {
	return imprint.Certificate{Tenant: home, ID: certID(n), Status: status, Mode: imprint.ModeDefault, NotAfter: instant.Add(time.Hour)}
}

func putPolicy(tx imprint.Tx, name imprint.PolicyName, version int, document string) error {
	err := tx.PutPolicy(imprint.Policy{Tenant: home, Name: name, DefaultVersion: version, LastVersion: version})
	if err != nil {
		return err
	}
	return tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: home, Policy: name, Version: version, Document: document})
}

// putDevice registers certificate n with a thing and a policy.
func putDevice(tx imprint.Tx, n int, thing imprint.ThingName, policy imprint.PolicyName) error {
	err := tx.PutCertificate(certificate(n, imprint.CertificateActive))
	if err != nil {
		return err
	}
	err = tx.PutThing(imprint.Thing{Tenant: home, Name: thing, Version: 1})
	if err != nil {
		return err
	}
	err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: thing, Certificate: certID(n)})
	if err != nil {
		return err
	}
	return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: policy, Target: home.CertificateARN(certID(n))})
}

// putGroup makes a group, or moves it below other ancestors.
func putGroup(tx imprint.Tx, name imprint.ThingGroupName, ancestors ...imprint.ThingGroupName) error {
	return tx.PutThingGroup(imprint.ThingGroup{Tenant: home, Name: name, ID: string(name), Ancestors: ancestors, Version: 1})
}

// joinGroup makes a group and puts a thing into it.
func joinGroup(tx imprint.Tx, thing imprint.ThingName, name imprint.ThingGroupName, ancestors ...imprint.ThingGroupName) error {
	err := putGroup(tx, name, ancestors...)
	if err != nil {
		return err
	}
	return tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: home, Group: name, Thing: thing})
}
