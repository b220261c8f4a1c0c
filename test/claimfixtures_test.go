package test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/fxamacker/cbor/v2"
)

// fleet is a tenant that is ready for provisioning by claim: a template, a claim
// certificate with the minimal policy that AWS documents, and the policy of the
// devices.
type fleet struct {
	*side
	api     *iot.Client
	claim   *device
	claimID string
}

// fleetTemplate says what the device is to be called in its tenant.
const fleetTemplate = `{"Parameters":{"SerialNumber":{"Type":"String"},"Site":{"Type":"String","Default":"lab"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
"Mappings":{"Urls":{"lab":{"Api":"https://lab.example.net"},"plant":{"Api":"https://plant.example.net"}}},
"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::Join":["",["sensor-",{"Ref":"SerialNumber"}]]},
   "AttributePayload":{"serial":{"Ref":"SerialNumber"},"site":{"Ref":"Site"}}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"all"}}},
"DeviceConfiguration":{"ApiUrl":{"Fn::FindInMap":["Urls",{"Ref":"Site"},"Api"]},"Interval":"60"}}`

// claimPolicy is the minimal policy of a claim certificate.
func claimPolicy(account, region string) string {
	topics := func(kind string) string {
		var list []string
		for _, topic := range []string{"certificates/create/*", "certificates/create-from-csr/*", "provisioning-templates/sensors/provision/*"} {
			list = append(list, fmt.Sprintf("%q", "arn:aws:iot:"+region+":"+account+":"+kind+"/$aws/"+topic))
		}
		return strings.Join(list, ",")
	}
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":[` + topics("topic") + `]},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":[` + topics("topicfilter") + `]}]}`
}

// fleet makes a side of a stage ready, under the same names in each.
func (s *side) fleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{side: s, api: s.stage.sdk(t, withKey(s.key, s.region)), claim: selfSigned(t, "claim")}
	must(f.api.CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateInput{
		TemplateName: aws.String("sensors"), TemplateBody: aws.String(fleetTemplate), ProvisioningRoleArn: aws.String(role), Enabled: aws.Bool(true),
	}))(t)
	must(f.api.CreatePolicy(t.Context(), &iot.CreatePolicyInput{PolicyName: aws.String("claim"), PolicyDocument: aws.String(claimPolicy(s.account, s.region))}))(t)
	f.claimID = f.register(t, f.claim)
	return f
}

// register makes a certificate a claim certificate.
func (f *fleet) register(t *testing.T, d *device) string {
	t.Helper()
	out := must(f.api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{
		CertificatePem: aws.String(readFile(t, d.cert)), Status: types.CertificateStatusActive,
	}))(t)
	must(f.api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("claim"), Target: out.CertificateArn}))(t)
	return aws.ToString(out.CertificateId)
}

// as gives the side with another certificate.
func (f *fleet) as(t *testing.T, d *device) *side {
	t.Helper()
	other := *f.side
	other.device, other.pair = d, d.keyPair(t)
	return &other
}

// asker is a client that asks the fleet provisioning API.
type asker interface {
	// ask publishes a request, with QoS 1, and gives the topic and payload of the
	// answer.
	ask(t *testing.T, topic string, payload []byte) (string, []byte)
	leave(t *testing.T)
}

type asker5 struct{ *mqtt5 }

// open5 connects with Paho for MQTT 5 and subscribes to all answers.
func (f *fleet) open5(t *testing.T, d *device, id, format string) asker {
	t.Helper()
	c := f.stage.connect(t, d, id, dialing{host: f.host})
	for _, topic := range claimTopics(format) {
		if got := c.mqtt5Reasons(t, topic+"/accepted", topic+"/rejected"); got != "[1 1]" {
			t.Fatalf("SUBACK of %s: got %s, want [1 1]", topic, got)
		}
	}
	return asker5{c}
}

func (c *mqtt5) mqtt5Reasons(t *testing.T, filters ...string) string {
	t.Helper()
	return fmt.Sprint(c.ask(t, filters...))
}

func (a asker5) ask(t *testing.T, topic string, payload []byte) (string, []byte) {
	t.Helper()
	if got := a.send(t, topic, string(payload), 1); got != 0 {
		t.Fatalf("PUBACK of %s: got %#x, want 0", topic, got)
	}
	m := a.receive(t)
	return m.topic, []byte(m.payload)
}

func (a asker5) leave(*testing.T) { a.cut() }

type asker3 struct{ *mqtt3 }

// open3 is open5 with Paho for MQTT 3.1.1.
func (f *fleet) open3(t *testing.T, d *device, id, format string) asker {
	t.Helper()
	c := f.as(t, d).old(t, id, "", nil)
	c.on()
	for _, topic := range claimTopics(format) {
		c.subscribe(topic+"/accepted", 1)
		c.subscribe(topic+"/rejected", 1)
	}
	return asker3{c}
}

func (a asker3) ask(t *testing.T, topic string, payload []byte) (string, []byte) {
	t.Helper()
	a.publish(topic, string(payload), false)
	m := a.receive()
	return m.Topic(), m.Payload()
}

func (a asker3) leave(*testing.T) { a.Disconnect(50) }

// claimTopics are the API's topics in a format.
func claimTopics(format string) []string {
	return []string{"$aws/certificates/create/" + format, "$aws/certificates/create-from-csr/" + format, "$aws/provisioning-templates/sensors/provision/" + format}
}

// claimed is what the API answers.
type claimed struct {
	ID            string            `json:"certificateId"`
	PEM           string            `json:"certificatePem"`
	Key           string            `json:"privateKey"`
	Token         string            `json:"certificateOwnershipToken"`
	Configuration map[string]string `json:"deviceConfiguration"`
	Thing         string            `json:"thingName"`
	Status        int               `json:"statusCode"`
	Code          string            `json:"errorCode"`
	Message       string            `json:"errorMessage"`
}

// call asks and decodes the answer.
func call(t *testing.T, a asker, topic string, request map[string]any) (claimed, bool) {
	t.Helper()
	encode, decode := json.Marshal, json.Unmarshal
	if strings.HasSuffix(topic, "/cbor") {
		encode, decode = cbor.Marshal, cbor.Unmarshal
	}
	var payload []byte
	if request != nil {
		var err error
		payload, err = encode(request)
		if err != nil {
			t.Fatal(err)
		}
	}
	answer, body := a.ask(t, topic, payload)
	if answer != topic+"/accepted" && answer != topic+"/rejected" {
		t.Fatalf("the answer to %s came on %s", topic, answer)
	}
	var out claimed
	err := decode(body, &out)
	if err != nil {
		t.Fatalf("the answer on %s: %v in %q", answer, err, body)
	}
	return out, strings.HasSuffix(answer, "/accepted")
}

// mustCall is call that must be accepted.
func mustCall(t *testing.T, a asker, topic string, request map[string]any) claimed {
	t.Helper()
	out, ok := call(t, a, topic, request)
	if !ok {
		t.Fatalf("%s was rejected: %d %s %s", topic, out.Status, out.Code, out.Message)
	}
	return out
}

// mustReject is call that must be rejected.
func mustReject(t *testing.T, a asker, topic string, request map[string]any, status int, code string) claimed {
	t.Helper()
	out, ok := call(t, a, topic, request)
	if ok || out.Status != status || out.Code != code || out.Message == "" {
		t.Errorf("%s: got accepted %t, %d %s %q; want rejected, %d %s", topic, ok, out.Status, out.Code, out.Message, status, code)
	}
	return out
}

// onboard makes a device of a claim connection, with a key of the server's or of
// its own, and gives the device and the answer to RegisterThing.
func (f *fleet) onboard(t *testing.T, a asker, format, serial string, ownKey bool) (*device, claimed) {
	t.Helper()
	topics := claimTopics(format)
	dir := t.TempDir()
	d := &device{name: "sensor-" + serial, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	var made claimed
	if ownKey {
		d.key = filepath.Join(dir, "own.key")
		csr := filepath.Join(dir, "device.csr")
		writeFile(t, filepath.Join(dir, "openssl.cnf"), opensslConfig)
		openssl(t, dir, append([]string{"req", "-new", "-nodes", "-subj", "/CN=" + d.name, "-keyout", d.key, "-out", csr}, keyKinds["P-256"]...)...)
		made = mustCall(t, a, topics[1], map[string]any{"certificateSigningRequest": readFile(t, csr)})
		if made.Key != "" {
			t.Error("CreateCertificateFromCsr answered a private key")
		}
	} else {
		made = mustCall(t, a, topics[0], map[string]any{})
		writeFile(t, d.key, made.Key)
	}
	writeFile(t, d.cert, made.PEM)
	if got := certificateID(t, made.PEM); got != made.ID {
		t.Errorf("certificateId: got %s, want %s", made.ID, got)
	}
	_, err := tls.LoadX509KeyPair(d.cert, d.key)
	if err != nil {
		t.Fatalf("certificate and key don't belong together: %v", err)
	}
	registered := mustCall(t, a, topics[2], map[string]any{
		"certificateOwnershipToken": made.Token, "parameters": map[string]string{"SerialNumber": serial, "Site": "plant"},
	})
	return d, registered
}

// checkOnboarded looks at what a device became and lets it connect.
func (f *fleet) checkOnboarded(t *testing.T, d *device, registered claimed) {
	t.Helper()
	if registered.Thing != d.name || registered.Configuration["ApiUrl"] != "https://plant.example.net" || registered.Configuration["Interval"] != "60" {
		t.Errorf("answer to RegisterThing: got %+v, want thing %s and its configuration", registered, d.name)
	}
	thing := must(f.api.DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: aws.String(d.name)}))(t)
	if thing.Attributes["site"] != "plant" || "sensor-"+thing.Attributes["serial"] != d.name {
		t.Errorf("attributes of %s: got %v", d.name, thing.Attributes)
	}
	cert := must(f.api.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: aws.String(d.id(t))}))(t)
	if cert.CertificateDescription.Status != types.CertificateStatusActive {
		t.Errorf("certificate of %s: got %s, want ACTIVE", d.name, cert.CertificateDescription.Status)
	}
	c := f.stage.connect(t, d, d.name, dialing{host: f.host})
	c.ask(t, "from/"+d.name)
	c.send(t, "from/"+d.name, "hello", 1)
	if got := c.receive(t); got.payload != "hello" {
		t.Errorf("message of %s: got %+v", d.name, got)
	}
	c.cut()
}

// quickSweep are settings under which what nobody takes up is soon deleted.
func quickSweep(lifetime time.Duration) []string {
	return []string{"IMPRINT_CLAIM_RATE=0", "IMPRINT_CLAIM_TOKEN_LIFETIME=" + lifetime.String()}
}
