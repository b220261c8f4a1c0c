package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// claimGoal is the least ratio of devices onboarded by claim to half of the
// reference's handshakes.
const claimGoal = 0.6

// The topics of fleet provisioning that the bench uses.
const (
	csrTopic      = "$aws/certificates/create-from-csr/json"
	templateName  = "bench"
	registerTopic = "$aws/provisioning-templates/" + templateName + "/provision/json"
)

// Claim measures fleet provisioning by claim with keys of the devices' own: each
// device connects with the claim certificate, subscribes, gets a certificate for
// its CSR, registers with it, and connects again with that certificate; against
// half of the reference's handshakes, because it needs two. In the end every
// device must be in the registry.
func Claim(ctx context.Context, target Target, opts Options) ([]Figure, error) {
	return run(ctx, target, opts, (*stand).claim)
}

// claimant is a device before and after it has a certificate of its own.
type claimant struct {
	claim *device // that it connects with first, under a client id of its own
	key   *ecdsa.PrivateKey
	csr   string
	made  *device
}

// newClaimants makes as many as there are devices, before anything is measured.
func newClaimants(claim *device, devices []*device) ([]*claimant, error) {
	all := make([]*claimant, 0, len(devices))
	for _, d := range devices {
		key, ok := d.certificate.PrivateKey.(*ecdsa.PrivateKey)
		if !ok {
			return nil, errors.New("couldn't make a signing request: a device's key isn't ECDSA")
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: d.thing}}, key)
		if err != nil {
			return nil, fmt.Errorf("couldn't make a signing request: %w", err)
		}
		all = append(all, &claimant{
			claim: &device{certificate: claim.certificate, certificateID: claim.certificateID, thing: d.thing}, key: key,
			csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
		})
	}
	return all, nil
}

func (s *stand) claim(ctx context.Context) ([]Figure, error) {
	claim, err := s.prepareClaim(ctx)
	if err != nil {
		return nil, err
	}
	warmers, err := newClaimants(claim, s.warmers)
	if err != nil {
		return nil, err
	}
	claimants, err := newClaimants(claim, s.devices)
	if err != nil {
		return nil, err
	}
	onboard := func(ctx context.Context, all []*claimant) ([]time.Duration, error) {
		return each(ctx, len(all), s.opts.Concurrency, func(ctx context.Context, n int) (time.Duration, error) {
			return s.door.claim(ctx, all[n])
		})
	}
	_, err = onboard(ctx, warmers)
	if err != nil {
		return nil, fmt.Errorf("couldn't warm up: %w", err)
	}
	var took []time.Duration
	m, err := s.measure(ctx, s.devices, s.opts.CPUProfile, func(ctx context.Context) error {
		var err error
		took, err = onboard(ctx, claimants)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.verifyClaims(ctx, claim, slices.Concat(warmers, claimants))
	if err != nil {
		return nil, err
	}
	return append(m.probes(),
		AtLeast("devices onboarded by claim, CSR", perSecond(len(claimants), m.cpu), deviceUnit, m.reference()/2, claimGoal),
		Plain("devices onboarded, by the clock", perSecond(len(claimants), m.wall), "devices/s"),
		Plain("hello to RegisterThing's answer, p50", milliseconds(percentile(took, 50)), "ms"),
		Plain("hello to RegisterThing's answer, p99", milliseconds(percentile(took, 99)), "ms"),
	), nil
}

// prepareClaim makes the template, and a claim certificate with the minimal
// policy that AWS documents.
func (s *stand) prepareClaim(ctx context.Context) (*device, error) {
	body, err := json.Marshal(claimTemplate(s.facts))
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the template: %w", err)
	}
	err = s.api.Call(ctx, "POST", "/provisioning-templates", object{
		"templateName": templateName, "templateBody": string(body), "enabled": true,
		"provisioningRoleArn": "arn:aws:iam::" + s.facts.Account + ":role/bench",
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("couldn't create the template: %w", err)
	}
	claim, err := s.ca.device(MaxDevices+1, time.Now())
	if err != nil {
		return nil, err
	}
	policy, err := json.Marshal(claimPolicy(s.facts))
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the claim's policy: %w", err)
	}
	var registered struct {
		CertificateArn string `json:"certificateArn"`
	}
	for _, call := range []struct {
		method, path string
		body, out    any
	}{
		{"POST", "/certificate/register-no-ca", object{"certificatePem": certificatePEM(claim.certificate.Leaf.Raw), "status": "ACTIVE"}, &registered},
		{"POST", "/policies/claim", object{"policyDocument": string(policy)}, nil},
		{"PUT", "/target-policies/claim", object{"target": &registered.CertificateArn}, nil},
	} {
		err = s.api.Call(ctx, call.method, call.path, call.body, call.out)
		if err != nil {
			return nil, fmt.Errorf("couldn't make the claim certificate: %w", err)
		}
	}
	return claim, nil
}

// claimTemplate is the template of the JITP bench, for parameters that devices
// send.
func claimTemplate(facts Facts) object {
	ref := func(name string) object { return object{"Ref": name} }
	return object{
		"Parameters": object{"SerialNumber": object{"Type": "String"}, "Country": object{"Type": "String", "Default": country}},
		"Resources": object{
			"thing": object{"Type": "AWS::IoT::Thing", "Properties": object{
				"ThingName":        ref("SerialNumber"),
				"AttributePayload": object{"name": ref("SerialNumber"), "country": ref("Country"), "model": modelName},
			}},
			"certificate": object{"Type": "AWS::IoT::Certificate", "Properties": object{
				"CertificateId": ref("AWS::IoT::Certificate::Id"), "Status": "ACTIVE",
			}},
			"policy": object{"Type": "AWS::IoT::Policy", "Properties": object{"PolicyDocument": devicePolicy(facts)}},
		},
		"DeviceConfiguration": object{"Interval": "60"},
	}
}

func claimPolicy(facts Facts) object {
	resources := func(kind string) []string {
		var list []string
		for _, topic := range []string{"$aws/certificates/create-from-csr/*", "$aws/provisioning-templates/" + templateName + "/provision/*"} {
			list = append(list, fmt.Sprintf("arn:aws:iot:%s:%s:%s/%s", facts.Region, facts.Account, kind, topic))
		}
		return list
	}
	return object{"Version": "2012-10-17", "Statement": []any{
		object{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
		object{"Effect": "Allow", "Action": []string{"iot:Publish", "iot:Receive"}, "Resource": resources("topic")},
		object{"Effect": "Allow", "Action": "iot:Subscribe", "Resource": resources("topicfilter")},
	}}
}

// claim onboards one device. It gives the time from its hello to the answer of
// RegisterThing.
func (d door) claim(ctx context.Context, c *claimant) (time.Duration, error) {
	conn, hello, err := d.open(ctx, c.claim)
	if err != nil {
		return 0, err
	}
	l := newLink(conn, false)
	took, err := l.claim(c, hello)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("device %s: %w", c.claim.thing, err), conn.Close())
	}
	err = l.leave()
	if err != nil {
		return 0, err
	}
	_, err = d.reconnect(ctx, c.made)
	return took, err
}

func (l *link) claim(c *claimant, hello time.Time) (time.Duration, error) {
	err := l.join(c.claim, wish{})
	if err != nil {
		return 0, err
	}
	err = l.awaitAnswers()
	if err != nil {
		return 0, err
	}
	var created struct {
		ID    string `json:"certificateId"`
		PEM   string `json:"certificatePem"`
		Token string `json:"certificateOwnershipToken"`
	}
	err = l.ask(csrTopic, object{"certificateSigningRequest": c.csr}, &created)
	if err != nil {
		return 0, err
	}
	var registered struct {
		ThingName string `json:"thingName"`
	}
	err = l.ask(registerTopic, object{"certificateOwnershipToken": created.Token, "parameters": object{"SerialNumber": c.claim.thing}}, &registered)
	if err != nil {
		return 0, err
	}
	took := time.Since(hello)
	block, _ := pem.Decode([]byte(created.PEM))
	if block == nil || registered.ThingName != c.claim.thing {
		return 0, fmt.Errorf("the answers don't name the device: thing %q", registered.ThingName)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return 0, fmt.Errorf("couldn't read the certificate: %w", err)
	}
	sum := sha256.Sum256(leaf.Raw)
	c.made = &device{
		certificate:   tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: c.key, Leaf: leaf},
		certificateID: hex.EncodeToString(sum[:]), thing: registered.ThingName,
	}
	if c.made.certificateID != created.ID {
		return 0, fmt.Errorf("the certificate is %s, and the answer says %s", c.made.certificateID, created.ID)
	}
	return took, nil
}

// awaitAnswers subscribes to the answers of both calls, as AWS's SDKs do.
func (l *link) awaitAnswers() error {
	var filters []mqtt.Subscription
	for _, topic := range []string{csrTopic, registerTopic} {
		for _, end := range []string{"/accepted", "/rejected"} {
			filters = append(filters, mqtt.Subscription{Filter: topic + end, QoS: 1})
		}
	}
	return l.subscribe(filters...)
}

// ask publishes a request with QoS 1 and reads its answer, in either order with
// the PUBACK.
func (l *link) ask(topic string, request object, into any) error {
	payload, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("couldn't encode a request: %w", err)
	}
	packet := mqtt.Publish{Topic: []byte(topic), Payload: payload, QoS: 1, PacketID: 2}
	_, err = l.conn.Write(packet.Append(nil, mqtt.V311))
	if err != nil {
		return fmt.Errorf("couldn't send a request: %w", err)
	}
	for acknowledged, answered := false, false; !acknowledged || !answered; {
		header, body, err := l.next()
		if err != nil {
			return fmt.Errorf("couldn't read the answer on %s: %w", topic, err)
		}
		if header.Type == mqtt.TypePuback {
			acknowledged = true
			continue
		}
		var answer mqtt.Publish
		err = answer.Decode(header, body, mqtt.V311)
		if err != nil {
			return fmt.Errorf("couldn't read the answer on %s: %w", topic, err)
		}
		if string(answer.Topic) != topic+"/accepted" {
			return fmt.Errorf("%s says %.200s", strings.TrimPrefix(string(answer.Topic), "$aws/"), answer.Payload)
		}
		err = json.Unmarshal(answer.Payload, into)
		if err != nil {
			return fmt.Errorf("couldn't decode the answer on %s: %w", topic, err)
		}
		ack := mqtt.Ack{Type: mqtt.TypePuback, PacketID: answer.PacketID}
		_, err = l.conn.Write(ack.Append(nil, mqtt.V311))
		if err != nil {
			return fmt.Errorf("couldn't acknowledge the answer: %w", err)
		}
		answered = true
	}
	return nil
}

// verifyClaims says whether the registry holds exactly the devices that came, and
// the claim.
func (s *stand) verifyClaims(ctx context.Context, claim *device, all []*claimant) error {
	made := make([]*device, 0, len(all)+1)
	for _, c := range all {
		made = append(made, c.made)
	}
	err := s.verifyThings(ctx, made)
	if err != nil {
		return err
	}
	err = s.verifyCertificates(ctx, append(slices.Clone(made), claim))
	if err != nil {
		return err
	}
	for n := range min(samples, len(made)) {
		err = s.verifySample(ctx, made[n*len(made)/min(samples, len(made))])
		if err != nil {
			return err
		}
	}
	return nil
}
