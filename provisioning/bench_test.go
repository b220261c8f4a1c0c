//go:build unix

package provisioning_test

import (
	"context"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/provisioning"
)

const benchTemplate = `{
 "Parameters": {"AWS::IoT::Certificate::CommonName": {"Type": "String"}, "AWS::IoT::Certificate::Country": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
 "Resources": {
  "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": ["-", ["unit", {"Ref": "AWS::IoT::Certificate::CommonName"}]]},
    "AttributePayload": {"country": {"Ref": "AWS::IoT::Certificate::Country"}, "line": "1"}}},
  "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
  "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "sensors"}}}}`

const connectPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Publish"],"Resource":["arn:aws:iot:us-east-1:000000000000:client/${iot:Connection.Thing.ThingName}","arn:aws:iot:us-east-1:000000000000:topic/x/${iot:ClientId}"]}]}`

func putPolicy(tx imprint.Tx, tenant imprint.Tenant, name imprint.PolicyName, document string) error {
	err := tx.PutPolicy(imprint.Policy{Tenant: tenant, Name: name, DefaultVersion: 1, LastVersion: 1, CreatedAt: instant, ModifiedAt: instant})
	if err != nil {
		return err
	}
	return tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: tenant, Policy: name, Version: 1, Document: document, CreatedAt: instant})
}

// BenchmarkOnboarding is what the registry does for one device that is
// provisioned and comes again: the look-up that finds nothing, the first
// connection, and the identity of the second, with the traces of both.
func BenchmarkOnboarding(b *testing.B) {
	w := newWorld(b, benchTemplate, provisioning.Options{})
	update(b, w.store, func(tx imprint.Tx) error { return putPolicy(tx, home, "sensors", connectPolicy) })
	identities := identity.NewResolver(w.store, nil)
	b.Cleanup(identities.Close)
	key := newKey(b)
	newcomers := make([]provisioning.Newcomer, b.N)
	for i := range newcomers {
		leaf := w.ca.device(b, pkix.Name{CommonName: fmt.Sprintf("%08d", i), Country: []string{"DE"}}, key)
		newcomers[i] = provisioning.Newcomer{Tenant: home, Leaf: leaf, ID: idOf(leaf)}
	}
	ctx := context.Background()
	var next atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(16)
	before := cpu(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := newcomers[next.Add(1)-1]
			n.Rec = w.log.Begin("192.0.2.1:1000")
			_, err := identities.Acquire(ctx, n.Tenant, n.ID)
			if imprint.CodeOf(err) != imprint.CodeNotFound {
				b.Errorf("Acquire: %v", err)
			}
			err = w.engine.FirstConnection(ctx, n)
			if imprint.CodeOf(err) != imprint.CodeProvisioned {
				b.Errorf("FirstConnection: %v", err)
			}
			n.Rec.End(imprint.OutcomeProvisioned, imprint.CodeProvisioned)
			rec := w.log.Begin("192.0.2.1:1001")
			who, err := identities.Acquire(ctx, n.Tenant, n.ID)
			if err != nil {
				b.Errorf("Acquire: %v", err)
				continue
			}
			rec.OK("certificate", "%s is ACTIVE, %d thing(s) attached", n.ID, len(who.Things))
			rec.Connected()
			identities.Release(who)
			rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
		}
	})
	b.StopTimer()
	err := w.log.Flush(ctx)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// BenchmarkClaim is what the server does for one device by claim, without its connections:
// the certificate for a signing request by a P-256 CA, its registration, the identity of the
// next connection, and the trace of the one with the claim.
func BenchmarkClaim(b *testing.B) {
	o := newOffice(b, nil, provisioning.ClaimOptions{})
	*o.foresight = foresight{Resolver: identity.NewResolver(o.store, nil)}
	b.Cleanup(o.foresight.Close)
	requests := make([]string, min(b.N, 64))
	for i := range requests {
		csr, _ := signingRequest(b, fmt.Sprintf("unit-%d", i))
		requests[i] = object(b, map[string]any{"certificateSigningRequest": csr})
	}
	ctx := context.Background()
	var next atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(32)
	before := cpu(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := next.Add(1)
			rec := o.log.Begin("192.0.2.7:1")
			rec.Connected()
			ask := func(topic, payload string) (answer reply) {
				a := o.claims.Answer(ctx, provisioning.ClaimRequest{
					Tenant: home, Topic: topic, Payload: []byte(payload), Claim: claimID, ClientID: "unit", Address: address, Rec: rec,
				})
				err := json.Unmarshal(a.Payload, &answer)
				if err != nil || a.Refused != "" {
					b.Errorf("%s: %s %v", topic, a.Payload, err)
				}
				return answer
			}
			made := ask(csrTopic, requests[int(n)%len(requests)])
			ask(provision, `{"certificateOwnershipToken":"`+made.Token+`","parameters":{"SerialNumber":"`+fmt.Sprint(n)+`"}}`)
			rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
			who, err := o.foresight.Acquire(ctx, home, imprint.CertificateID(made.ID))
			if err != nil {
				b.Errorf("Acquire: %v", err)
				continue
			}
			o.foresight.Release(who)
		}
	})
	b.StopTimer()
	err := o.log.Flush(ctx)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// cpu is the process's CPU time, which other work on the machine doesn't touch.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
