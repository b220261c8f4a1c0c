package provisioning_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/renewal"
	"github.com/imprint-iot/imprint/store/sqlite"
	"github.com/imprint-iot/imprint/trace"
)

// function is a host with one function, which all calls reach.
type function func(context.Context, imprint.FunctionCall) (imprint.FunctionResult, error)

func (f function) Invoke(ctx context.Context, call imprint.FunctionCall) (imprint.FunctionResult, error) {
	return f(ctx, call)
}

func (f function) InvokeLater(ctx context.Context, call imprint.FunctionCall) error {
	_, err := f(ctx, call)
	return err
}

// answering is a function that always answers the same.
func answering(payload string) function {
	return func(context.Context, imprint.FunctionCall) (imprint.FunctionResult, error) {
		return imprint.FunctionResult{Payload: []byte(payload)}, nil
	}
}

// office is what claims are made at: a store with a template in two tenants.
type office struct {
	testing.TB
	store   *sqlite.Store
	claims  *provisioning.Claims
	log     *trace.Log
	ahead   atomic.Int64
	failing *fault
	keys    *pki.KeyPool
	rec     *trace.Recorder // of the last request
	// foresight has no cache unless a test gives it one.
	foresight *foresight
	// afterGlance, when not nil, runs once, after something was read and before the
	// claims hear of it.
	afterGlance func()
}

// glances is the office's store as its claims read it.
type glances struct {
	imprint.Store
	o *office
}

func (g glances) Glance(ctx context.Context, fn func(imprint.ReadTx) error) error {
	err := g.Store.Glance(ctx, fn)
	if after := g.o.afterGlance; after != nil {
		g.o.afterGlance = nil
		after()
	}
	return err
}

func (o *office) now() time.Time { return instant.Add(time.Duration(o.ahead.Load())) }

const (
	keysTopic = "$aws/certificates/create/json"
	csrTopic  = "$aws/certificates/create-from-csr/json"
	provision = "$aws/provisioning-templates/sensors/provision/json"
	hookARN   = "arn:aws:lambda:us-east-1:000000000000:function:hook"
)

var (
	claimID = imprint.CertificateID(strings.Repeat("c1", 32))
	address = netip.MustParseAddr("192.0.2.7")
)

func fleetBody(resources string) string {
	return `{"Parameters":{"SerialNumber":{"Type":"String"},"Site":{"Type":"String","Default":"lab"}},
	"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::Join":["",["sensor-",{"Ref":"SerialNumber"}]]},
	"AttributePayload":{"site":{"Ref":"Site"}}}},
	"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}}` + resources + `},
	"DeviceConfiguration":{"Site":{"Ref":"Site"}}}`
}

const ownPolicy = `,"policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}}}`

func newOffice(tb testing.TB, functions imprint.Functions, opts provisioning.ClaimOptions) *office {
	tb.Helper()
	o := &office{TB: tb, failing: &fault{left: make(chan struct{}, 100)}, foresight: &foresight{TB: tb}}
	dir := tb.TempDir()
	o.store = registrytest.Open(tb, filepath.Join(dir, "registry.db"), faulty(sqlite.Faults{BeforeCommit: o.failing.strike}))
	key, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key"))
	if err != nil {
		tb.Fatal(err)
	}
	authority, err := pki.OpenAuthority(context.Background(), dir, pki.AuthorityConfig{
		Sealer: seal.New(key), Journal: issuelog.New(o.store), Clock: o.now, Key: pki.KeyP256,
	})
	if err != nil {
		tb.Fatal(err)
	}
	keys, err := pki.NewKeyPool(pki.KeyPoolConfig{Size: 1})
	if err != nil {
		tb.Fatal(err)
	}
	o.keys = keys
	tb.Cleanup(keys.Close)
	profile, err := pki.NewProfile(pki.ProfileConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	engine := provisioning.NewEngine(glances{o.store, o}, o.now, provisioning.Options{Identities: o.foresight, Logger: quiet()})
	tb.Cleanup(engine.Close)
	opts.Logger = quiet()
	if opts.CreateRate == 0 {
		opts.CreateRate, opts.RegisterRate = -1, -1
	}
	o.claims, err = provisioning.NewClaims(provisioning.ClaimRooms{
		Engine: engine, Authority: authority, Profile: profile, Keys: keys, Functions: functions, Along: renewal.Along,
	}, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(o.claims.Close)
	o.log = trace.NewLog(o.store, o.now, trace.Options{Logger: quiet(), Linger: time.Microsecond, FoldAfter: -1, SuccessRate: -1})
	tb.Cleanup(o.log.Close)
	for _, tenant := range []imprint.Tenant{home, another} {
		o.template(tenant, fleetBody(ownPolicy), "")
	}
	return o
}

// template stores the template of a tenant anew.
func (o *office) template(tenant imprint.Tenant, body, hook string) {
	o.Helper()
	update(o, o.store, func(tx imprint.Tx) error {
		err := tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: tenant, Template: "sensors", Version: 1, Body: body})
		if err != nil {
			return err
		}
		return tx.PutTemplate(imprint.ProvisioningTemplate{
			Tenant: tenant, Name: "sensors", Type: imprint.TemplateFleet, Enabled: true, DefaultVersion: 1, LastVersion: 1, HookTargetARN: hook,
		})
	})
}

// reply is any answer of the API.
type reply struct {
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

// ask sends a request as a tenant's claim.
func (o *office) ask(tenant imprint.Tenant, topic, payload string, change ...func(*provisioning.ClaimRequest)) (reply, bool) {
	o.Helper()
	o.rec = o.log.Begin(address.String() + ":1")
	r := provisioning.ClaimRequest{Tenant: tenant, Topic: topic, Payload: []byte(payload), Claim: claimID, ClientID: "unit", Address: address, Rec: o.rec}
	for _, fn := range change {
		fn(&r)
	}
	answer := o.claims.Answer(context.Background(), r)
	var out reply
	decode := json.Unmarshal
	if strings.Contains(topic, "/cbor") {
		decode = cbor.Unmarshal
	}
	err := decode(answer.Payload, &out)
	if err != nil {
		o.Fatalf("the answer on %s: %v in %q", answer.Topic, err, answer.Payload)
	}
	end, found := strings.CutPrefix(answer.Topic, topic)
	if !found || end != "/accepted" && end != "/rejected" {
		o.Fatalf("the answer to %s came on %s", topic, answer.Topic)
	}
	return out, end == "/accepted"
}

// steps ends the last request's attempt and gives its steps.
func (o *office) steps() []imprint.Step {
	o.Helper()
	o.rec.End(imprint.OutcomeRefused, "")
	err := o.log.Flush(context.Background())
	if err != nil {
		o.Fatal(err)
	}
	var found imprint.Attempt
	view(o, o.store, func(tx imprint.ReadTx) error {
		found, err = tx.Attempt(o.rec.ID())
		return err
	})
	return found.Steps
}

func signingRequest(tb testing.TB, name string) (string, *ecdsa.PrivateKey) {
	tb.Helper()
	key := newKey(tb)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), key
}

func object(tb testing.TB, members map[string]any) string {
	tb.Helper()
	text, err := json.Marshal(members)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// create gives a certificate for a signing request.
func (o *office) create(tenant imprint.Tenant, change ...func(*provisioning.ClaimRequest)) reply {
	o.Helper()
	csr, _ := signingRequest(o, "unit")
	out, ok := o.ask(tenant, csrTopic, object(o, map[string]any{"certificateSigningRequest": csr}), change...)
	if !ok {
		o.Fatalf("CreateCertificateFromCsr was rejected: %+v", out)
	}
	return out
}

// register sends RegisterThing.
func (o *office) register(tenant imprint.Tenant, token string, parameters map[string]string, change ...func(*provisioning.ClaimRequest)) (reply, bool) {
	o.Helper()
	return o.ask(tenant, provision, object(o, map[string]any{"certificateOwnershipToken": token, "parameters": parameters}), change...)
}

func (o *office) certificate(tenant imprint.Tenant, id string) (imprint.Certificate, error) {
	var cert imprint.Certificate
	err := o.store.View(context.Background(), func(tx imprint.ReadTx) error {
		found, err := tx.Certificate(tenant, imprint.CertificateID(id))
		cert = found
		return err
	})
	return cert, err
}

// things lists a tenant's things.
func (o *office) things(tenant imprint.Tenant) []string {
	o.Helper()
	var names []string
	view(o, o.store, func(tx imprint.ReadTx) error {
		list, _, err := tx.Things(tenant, imprint.ThingFilter{}, imprint.Page{Limit: 100, Ascending: true})
		names = nil
		for _, thing := range list {
			names = append(names, string(thing.Name))
		}
		return err
	})
	return names
}

func rejectedWith(tb testing.TB, out reply, ok bool, status int, code string) {
	tb.Helper()
	if ok || out.Status != status || out.Code != code || out.Message == "" {
		tb.Errorf("got accepted %t, %d %s %q; want rejected, %d %s", ok, out.Status, out.Code, out.Message, status, code)
	}
}

func TestADeviceBecomesOfAClaim(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	for _, tenant := range []imprint.Tenant{home, another} {
		made := o.create(tenant)
		cert, err := o.certificate(tenant, made.ID)
		if err != nil || cert.Status != imprint.CertificatePendingActivation || cert.PEM != made.PEM {
			t.Errorf("before: got %s, %v; want PENDING_ACTIVATION", cert.Status, err)
		}
		got, ok := o.register(tenant, made.Token, map[string]string{"SerialNumber": "1", "Unknown": "ignored", "AWS::IoT::Certificate::Id": "a lie"})
		if want := (reply{Thing: "sensor-1", Configuration: map[string]string{"Site": "lab"}}); !ok || !cmp.Equal(got, want) {
			t.Errorf("RegisterThing: got %t %+v, want %+v", ok, got, want)
		}
		cert, err = o.certificate(tenant, made.ID)
		if err != nil || cert.Status != imprint.CertificateActive {
			t.Errorf("after: got %s, %v; want ACTIVE", cert.Status, err)
		}
		out, ok := o.register(tenant, made.Token, map[string]string{"SerialNumber": "1"})
		rejectedWith(t, out, ok, 400, "InvalidCertificateOwnershipToken")
	}
	if c := o.claims.Counters(); c.Created != 2 || c.Registered != 2 || c.Rejected != 2 {
		t.Errorf("counters: got %+v", c)
	}
}

func TestKeysComeWithACertificateThatFitsThem(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	empty, err := cbor.Marshal(map[string]string{})
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []struct{ topic, payload string }{
		{keysTopic, ""}, {keysTopic, "{}"}, {"$aws/certificates/create/cbor", ""}, {"$aws/certificates/create/cbor", string(empty)},
	} {
		made, ok := o.ask(home, request.topic, request.payload)
		block, _ := pem.Decode([]byte(made.Key))
		if !ok || block == nil || block.Type != "RSA PRIVATE KEY" {
			t.Fatalf("%s %q: got %t, %+v", request.topic, request.payload, ok, made)
		}
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := pki.ParseCertificatePEM(made.PEM)
		if err != nil || !key.PublicKey.Equal(cert.PublicKey) {
			t.Errorf("the certificate is for another key: %v", err)
		}
	}
}

// TestCBORMayBeMarkedAsThat ensures that the tag that stands before CBOR of some libraries,
// 55799, changes nothing, and that no other tag is taken.
func TestCBORMayBeMarkedAsThat(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	const mark, topic = "\xd9\xd9\xf7", "$aws/certificates/create/cbor"
	out, ok := o.ask(home, topic, mark+"\xa0")
	if !ok || out.PEM == "" {
		t.Errorf("with the mark: got %t %+v, want a certificate", ok, out)
	}
	for _, payload := range []string{mark, mark + mark + "\xa0", mark + "\x80", "\xd9\xd9\xf8\xa0"} {
		out, ok := o.ask(home, topic, payload)
		rejectedWith(t, out, ok, 400, "InvalidPayload")
	}
}

// TestEveryRejectionHasItsCode ensures the table of docs/fleet-provisioning.md.
func TestEveryRejectionHasItsCode(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	const create = "$aws/certificates/create"
	for _, tt := range []struct {
		name, topic, payload string
		change               func(*provisioning.ClaimRequest)
		status               int
		code, message        string
	}{
		{name: "JSON that isn't", topic: csrTopic, payload: "{", status: 400, code: "InvalidPayload"},
		{name: "JSON with the wrong type", topic: provision, payload: `{"parameters":{"SerialNumber":7}}`, status: 400, code: "InvalidPayload", message: "The payload isn't a valid JSON request."},
		{name: "JSON with null for a text", topic: provision, payload: `{"parameters":{"SerialNumber":null}}`, status: 400, code: "InvalidPayload"},
		{name: "CBOR with null for a text", topic: strings.Replace(provision, "/json", "/cbor", 1), payload: "\xa1\x6aparameters\xa1\x6cSerialNumber\xf6", status: 400, code: "InvalidPayload"},
		{name: "a CSR under a name in other case", topic: csrTopic, payload: `{"CertificateSigningRequest":"hello"}`, status: 400, code: "InvalidPayload"},
		{name: "a token under a name in other case", topic: provision, payload: `{"CERTIFICATEOWNERSHIPTOKEN":"x"}`, status: 400, code: "InvalidCertificateOwnershipToken", message: "Certificate ownership token cannot be empty."},
		{name: "one in CBOR", topic: strings.Replace(provision, "/json", "/cbor", 1), payload: "\xa1\x78\x19CERTIFICATEOWNERSHIPTOKEN\x61x", status: 400, code: "InvalidCertificateOwnershipToken", message: "Certificate ownership token cannot be empty."},
		{name: "JSON that is null", topic: provision, payload: "null", status: 400, code: "InvalidPayload"},
		{name: "keys: half of JSON", topic: keysTopic, payload: "{", status: 400, code: "InvalidPayload"},
		{name: "keys: no text", topic: keysTopic, payload: "\xff", status: 400, code: "InvalidPayload"},
		{name: "keys: a list", topic: keysTopic, payload: "[]", status: 400, code: "InvalidPayload"},
		{name: "keys: null", topic: keysTopic, payload: " null", status: 400, code: "InvalidPayload"},
		{name: "keys: CBOR's null", topic: create + "/cbor", payload: "\xf6", status: 400, code: "InvalidPayload", message: "The payload isn't a valid CBOR request."},
		{name: "keys: a list in CBOR", topic: create + "/cbor", payload: "\x80", status: 400, code: "InvalidPayload"},
		{name: "CBOR that isn't", topic: create + "-from-csr/cbor", payload: "{}", status: 400, code: "InvalidPayload"},
		{name: "CBOR that is too deep", topic: create + "-from-csr/cbor", payload: strings.Repeat("\x81", 20) + "\x00", status: 400, code: "InvalidPayload"},
		{name: "no CSR", topic: csrTopic, payload: "{}", status: 400, code: "InvalidPayload"},
		{name: "a CSR that isn't", topic: csrTopic, payload: `{"certificateSigningRequest":"hello"}`, status: 400, code: "InvalidCsr"},
		{name: "no token", topic: provision, payload: "{}", status: 400, code: "InvalidCertificateOwnershipToken", message: "Certificate ownership token cannot be empty."},
		{name: "a token that isn't", topic: provision, payload: `{"certificateOwnershipToken":"x"}`, status: 400, code: "InvalidCertificateOwnershipToken"},
		{name: "no claim", topic: keysTopic, change: func(r *provisioning.ClaimRequest) { r.Claim = "" }, status: 403, code: "AccessDenied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, ok := o.ask(home, tt.topic, tt.payload, func(r *provisioning.ClaimRequest) {
				if tt.change != nil {
					tt.change(r)
				}
			})
			rejectedWith(t, out, ok, tt.status, tt.code)
			if tt.message != "" && out.Message != tt.message {
				t.Errorf("message: got %q, want %q", out.Message, tt.message)
			}
			steps := o.steps()
			last := steps[len(steps)-1]
			if last.Verdict != imprint.VerdictFailed || last.Fix == "" {
				t.Errorf("the trace ends with %+v, want a failed step with a fix", last)
			}
			if empty := strings.HasSuffix(tt.message, "cannot be empty."); empty != strings.Contains(last.Fix, "as the member certificateOwnershipToken") {
				t.Errorf("fix: got %q, and the token is empty: %t", last.Fix, empty)
			}
		})
	}
}

func TestATemplateThatFailsLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, topic, body string
		change            func(*imprint.ProvisioningTemplate)
		parameters        map[string]string
		status            int
		code, message     string
	}{
		{name: "no such template", topic: strings.Replace(provision, "sensors", "others", 1), status: 404, code: "ResourceNotFound"},
		{name: "a disabled one", change: func(p *imprint.ProvisioningTemplate) { p.Enabled = false }, status: 403, code: "AccessDenied"},
		{name: "one of another type", change: func(p *imprint.ProvisioningTemplate) { p.Type = imprint.TemplateJITP }, status: 404, code: "ResourceNotFound"},
		{name: "a parameter is missing", parameters: map[string]string{}, status: 400, code: "InvalidParameters", message: "Cannot resolve reference value: SerialNumber"},
		{name: "an illegal name", parameters: map[string]string{"SerialNumber": "a b"}, status: 400, code: "InvalidParameters"},
		{name: "a policy is missing after the thing", body: fleetBody(`,"policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"absent"}}`), status: 404, code: "ResourceNotFound"},
		{name: "a group is missing", body: strings.Replace(fleetBody(""), `"AttributePayload"`, `"ThingGroups":["absent"],"AttributePayload"`, 1), status: 404, code: "ResourceNotFound"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, nil, provisioning.ClaimOptions{})
			if tt.body != "" {
				o.template(home, tt.body, "")
			}
			if tt.change != nil {
				update(t, o.store, func(tx imprint.Tx) error {
					p, err := tx.Template(home, "sensors")
					if err != nil {
						return err
					}
					tt.change(&p)
					return tx.PutTemplate(p)
				})
			}
			parameters := tt.parameters
			if parameters == nil {
				parameters = map[string]string{"SerialNumber": "1"}
			}
			topic := tt.topic
			if topic == "" {
				topic = provision
			}
			made := o.create(home)
			out, ok := o.ask(home, topic, object(t, map[string]any{"certificateOwnershipToken": made.Token, "parameters": parameters}))
			rejectedWith(t, out, ok, tt.status, tt.code)
			if tt.message != "" && out.Message != tt.message {
				t.Errorf("message: got %q, want %q", out.Message, tt.message)
			}
			cert, err := o.certificate(home, made.ID)
			if err != nil || cert.Status != imprint.CertificatePendingActivation || len(o.things(home)) > 0 {
				t.Errorf("left behind: certificate %s (%v), things %v; want PENDING_ACTIVATION, none", cert.Status, err, o.things(home))
			}
			// The token is still good.
			o.template(home, fleetBody(ownPolicy), "")
			got, ok := o.register(home, made.Token, map[string]string{"SerialNumber": "2"})
			if !ok || got.Thing != "sensor-2" {
				t.Errorf("after the template was mended: got %t %+v", ok, got)
			}
		})
	}
}

func TestOverridesThatSayFailAreAConflict(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	o.template(home, strings.Replace(fleetBody(""), `{"site":{"Ref":"Site"}}}`, `{"site":{"Ref":"Site"}}},"OverrideSettings":{"AttributePayload":"FAIL"}`, 1), "")
	update(t, o.store, func(tx imprint.Tx) error {
		return tx.PutThing(imprint.Thing{Tenant: home, Name: "sensor-1", Attributes: map[string]string{"site": "old"}})
	})
	out, ok := o.register(home, o.create(home).Token, map[string]string{"SerialNumber": "1"})
	rejectedWith(t, out, ok, 409, "ResourceConflict")
}

func FuzzClaimRequest(f *testing.F) {
	f.Add("json", []byte(`{"certificateOwnershipToken":"x","parameters":{"a":"b"}}`))
	f.Add("cbor", []byte("\xa1\x78\x19certificateSigningRequest\x61x"))
	f.Add("cbor", []byte("\xbf\x61a\x61b\xff"))
	f.Add("json", []byte("[[[[[[[[[["))
	o := newOffice(f, nil, provisioning.ClaimOptions{})
	f.Fuzz(func(t *testing.T, format string, payload []byte) {
		for _, topic := range []string{"$aws/certificates/create-from-csr/", "$aws/provisioning-templates/sensors/provision/"} {
			answer := o.claims.Answer(context.Background(), provisioning.ClaimRequest{
				Tenant: home, Topic: topic + format, Payload: payload, Claim: claimID, Address: address,
			})
			if !strings.HasPrefix(answer.Topic, topic+format+"/") {
				t.Errorf("the answer to %s came on %s", topic+format, answer.Topic)
			}
		}
	})
}
