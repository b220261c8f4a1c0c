package test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint/mqtt"
)

// member is a certificate of the first tenant with a thing of its own and a
// policy that only lets it connect.
func (s *stage) member(t *testing.T, api *iot.Client, thing, policy string) (side, string) {
	t.Helper()
	must(api.CreatePolicy(t.Context(), &iot.CreatePolicyInput{PolicyName: aws.String(thing), PolicyDocument: aws.String(policy)}))(t)
	d := selfSigned(t, thing)
	registered := must(api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{
		CertificatePem: aws.String(readFile(t, d.cert)), Status: types.CertificateStatusActive,
	}))(t)
	must(api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String(thing), Target: registered.CertificateArn}))(t)
	must(api.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: aws.String(thing)}))(t)
	must(api.AttachThingPrincipal(t.Context(), &iot.AttachThingPrincipalInput{ThingName: aws.String(thing), Principal: registered.CertificateArn}))(t)
	who := *s.one
	who.device, who.pair = d, d.keyPair(t)
	return who, aws.ToString(registered.CertificateArn)
}

// allowed tells whether an MQTT 5 client's QoS 1 message on a topic is accepted
// now.
func allowed(t *testing.T, w *wire, topic string) bool {
	t.Helper()
	reason, err := w.tryPublish(mqtt.Publish{Topic: []byte(topic), Payload: []byte("x"), QoS: 1})
	if err != nil {
		t.Fatalf("couldn't publish on %s: %v", topic, err)
	}
	return reason == mqtt.Success
}

const mayConnect = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`

// TestGroupPoliciesDecideForTheNextPacket ensures that policies of the thing's
// groups and of their ancestors count, and that joining, leaving, attaching and
// detaching hold for the next packet of a connection that is on.
func TestGroupPoliciesDecideForTheNextPacket(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	api := s.sdk(t)
	who, _ := s.member(t, api, "press-1", mayConnect)
	must(api.CreateThingGroup(t.Context(), &iot.CreateThingGroupInput{ThingGroupName: aws.String("plant")}))(t)
	line := must(api.CreateThingGroup(t.Context(), &iot.CreateThingGroupInput{ThingGroupName: aws.String("line"), ParentGroupName: aws.String("plant")}))(t)
	plant := must(api.DescribeThingGroup(t.Context(), &iot.DescribeThingGroupInput{ThingGroupName: aws.String("plant")}))(t)
	s.createPolicy(t, "reports", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/reports/${iot:Connection.Thing.ThingName}"}]}`)
	s.createPolicy(t, "alarms", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/alarms"}]}`)
	attach := func(policy string, target *string) {
		must(api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String(policy), Target: target}))(t)
	}
	attach("reports", line.ThingGroupArn)
	w := who.open(t, persistent("press-1", mqtt.V5), mqtt.V5)
	check := func(when string, reports, alarms bool) {
		t.Helper()
		if got := allowed(t, w, "reports/press-1"); got != reports {
			t.Errorf("%s: reports/press-1 allowed: got %t, want %t", when, got, reports)
		}
		if got := allowed(t, w, "alarms"); got != alarms {
			t.Errorf("%s: alarms allowed: got %t, want %t", when, got, alarms)
		}
	}
	check("in no group", false, false)
	must(api.AddThingToThingGroup(t.Context(), &iot.AddThingToThingGroupInput{ThingGroupName: aws.String("line"), ThingName: aws.String("press-1")}))(t)
	check("in the line's group", true, false)
	attach("alarms", plant.ThingGroupArn)
	check("with a policy of the group above", true, true)
	must(api.DetachPolicy(t.Context(), &iot.DetachPolicyInput{PolicyName: aws.String("alarms"), Target: plant.ThingGroupArn}))(t)
	check("without it", true, false)
	must(api.RemoveThingFromThingGroup(t.Context(), &iot.RemoveThingFromThingGroupInput{ThingGroupName: aws.String("line"), ThingName: aws.String("press-1")}))(t)
	check("out of the group", false, false)
}

// TestThingAttributesDecideForTheNextPacket ensures that a changed attribute
// holds for a connection that is on.
func TestThingAttributesDecideForTheNextPacket(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	api := s.sdk(t)
	who, _ := s.member(t, api, "van-1", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
		{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:*:topic/${iot:Connection.Thing.Attributes[site]}/data"}]}`)
	w := who.open(t, persistent("van-1", mqtt.V5), mqtt.V5)
	for _, site := range []string{"north", "south"} {
		if allowed(t, w, site+"/data") {
			t.Errorf("%s/data is allowed before the attribute says so", site)
		}
		must(api.UpdateThing(t.Context(), &iot.UpdateThingInput{ThingName: aws.String("van-1"),
			AttributePayload: &types.AttributePayload{Attributes: map[string]string{"site": site}}}))(t)
		if !allowed(t, w, site+"/data") {
			t.Errorf("%s/data is denied although the attribute allows it", site)
		}
	}
	if allowed(t, w, "north/data") {
		t.Error("north/data is still allowed after the attribute has changed")
	}
}

// TestAnInactiveCAKeepsTheSessionsOfItsDevices ensures that a CA's status only
// decides on registrations, as on AWS IoT Core: a device that is on stays on, and
// comes again.
func TestAnInactiveCAKeepsTheSessionsOfItsDevices(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	line := s.line(t, "keeps")
	d := line.device(t, "kept-1", "P-256")
	stage := &stage{server: s}
	who := &side{stage: stage, region: s.at().Region, host: "localhost", device: d, pair: d.keyPair(t), roots: s.roots(t)}
	_, err := who.tryOpen(t, "", persistent("kept-1", mqtt.V5), mqtt.V5)
	if err == nil {
		t.Fatal("the first connection stayed open, want it closed once the device is provisioned")
	}
	w := who.open(t, persistent("kept-1", mqtt.V5), mqtt.V5)
	cas := must(s.sdk(t).ListCACertificates(t.Context(), &iot.ListCACertificatesInput{}))(t)
	for _, ca := range cas.Certificates {
		must(s.sdk(t).UpdateCACertificate(t.Context(), &iot.UpdateCACertificateInput{CertificateId: ca.CertificateId, NewStatus: types.CACertificateStatusInactive}))(t)
	}
	w.ping()
	w.close()
	who.open(t, persistent("kept-1", mqtt.V5), mqtt.V5).ping()
}
