package test

import (
	"crypto/tls"
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint/mqtt"
)

// tenancy is one account of a server, in one region.
type tenancy struct {
	api  *iot.Client
	host string // of its devices
	key  aws.Credentials
}

// twoAccounts are the server's first account and another one, in one region.
func (s *server) twoAccounts(t *testing.T) (tenancy, tenancy) {
	t.Helper()
	key := s.addAccount(t, "111111111111")
	open := func(key aws.Credentials) tenancy {
		api := s.sdk(t, withKey(key, "us-east-1"))
		endpoint := must(api.DescribeEndpoint(t.Context(), &iot.DescribeEndpointInput{EndpointType: aws.String("iot:Data-ATS")}))(t)
		must(api.CreatePolicy(t.Context(), &iot.CreatePolicyInput{PolicyName: aws.String("all"), PolicyDocument: aws.String(watcherPolicy)}))(t)
		return tenancy{api, aws.ToString(endpoint.EndpointAddress), key}
	}
	return open(s.credentials()), open(key)
}

// register registers a device's certificate without a CA, with everything allowed.
func (a tenancy) register(t *testing.T, d *device) {
	t.Helper()
	out := must(a.api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{
		CertificatePem: aws.String(readFile(t, d.cert)), Status: types.CertificateStatusActive,
	}))(t)
	must(a.api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("all"), Target: out.CertificateArn}))(t)
}

// dialAs completes a TLS handshake under a server name; none is sent when it is
// empty. The server must prove that it stands for the name.
func (s *server) dialAs(t *testing.T, d *device, name string) *wire {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{d.keyPair(t)}, RootCAs: s.roots(t), ServerName: name}
	if name == "" {
		config.ServerName = "127.0.0.1" // an address is never sent
	}
	conn, err := tls.Dial("tcp", s.device(), config)
	if err != nil {
		t.Fatalf("couldn't connect as %q: %v", name, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &wire{t: t, conn: conn}
}

func (s *server) connectAs(t *testing.T, d *device, name, clientID string) *wire {
	t.Helper()
	w := s.dialAs(t, d, name)
	err := w.tryConnect(mqtt.Connect{ClientID: clientID, CleanStart: true}, mqtt.V5)
	if err != nil {
		t.Fatalf("%s couldn't connect as %q: %v", clientID, name, err)
	}
	return w
}

// refusedAs connects in vain and gives the code of the attempt, which the account's
// operator sees.
func (s *server) refusedAs(t *testing.T, a tenancy, d *device, name string) string {
	t.Helper()
	w := s.dialAs(t, d, name)
	err := w.tryConnect(mqtt.Connect{ClientID: "refused", CleanStart: true}, mqtt.V5)
	if err == nil {
		t.Fatalf("%s is let in as %q", d.name, name)
	}
	_ = w.conn.Close()
	s.awaitRefusals(t)
	code := ""
	until(t, "the attempt to end", func() bool {
		run := s.shell(t, t.TempDir(), as(a.key)+"imprint explain --limit 1 --json "+d.id(t))
		var list []attempt
		err := json.Unmarshal([]byte(run.stdout), &list)
		if err != nil || len(list) != 1 || list[0].Ended == 0 {
			return false
		}
		code = list[0].Code
		return true
	})
	return code
}

// TestOneCertificateInTwoAccounts ensures that the server name chooses the account,
// that the accounts share nothing, and that without a server name nobody is let in
// whose account isn't certain.
func TestOneCertificateInTwoAccounts(t *testing.T) {
	need(t, "openssl", "bash", "aws")
	t.Parallel()
	s := startServer(t)
	one, two := s.twoAccounts(t)
	if one.host == two.host || !strings.Contains(two.host, "-ats.iot.us-east-1.") {
		t.Fatalf("got the endpoints %s and %s", one.host, two.host)
	}
	d := selfSigned(t, "shared")
	one.register(t, d)
	two.register(t, d)
	// The same client id, topics and filters in both, at the same time.
	first, second := s.connectAs(t, d, one.host, "twin"), s.connectAs(t, d, two.host, "twin")
	for _, w := range []*wire{first, second} {
		w.subscribe(at1("news/#"), at1("$aws/events/presence/disconnected/twin"))
	}
	first.say("news/1", "of the first")
	second.say("news/1", "of the second")
	first.expect("of the first")
	second.expect("of the second")
	first.expectNothing()
	second.expectNothing()
	for _, a := range []tenancy{one, two} {
		out := must(a.api.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: aws.String(d.id(t))}))(t)
		if mode := out.CertificateDescription.CertificateMode; mode != types.CertificateModeSniOnly {
			t.Errorf("got mode %s, want SNI_ONLY", mode)
		}
	}
	if code := s.refusedAs(t, one, d, ""); code != "SNIRequired" {
		t.Errorf("without a server name: got %s, want SNIRequired", code)
	}
	// What one account does to it is nothing to the other.
	must(one.api.UpdateCertificate(t.Context(), &iot.UpdateCertificateInput{CertificateId: aws.String(d.id(t)), NewStatus: types.CertificateStatusRevoked}))(t)
	first.ended()
	second.say("news/2", "still there")
	second.expect("still there")
	if code := s.refusedAs(t, one, d, one.host); code != "CertificateRevoked" {
		t.Errorf("in the account that revoked it: got %s", code)
	}
	s.connectAs(t, d, two.host, "twin-2").close()
}

// TestAnAddressIsNoServerName ensures that a device whose TLS library sends the address that
// it connects to, as mosquitto does, is one that sends no server name: a certificate in mode
// DEFAULT finds its account, and one that several accounts have is told what is missing.
func TestAnAddressIsNoServerName(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "bash")
	t.Parallel()
	s := startServer(t)
	one, two := s.twoAccounts(t)
	d := s.line(t, "By address").device(t, "by-address", "P-256")
	s.join(t, d)
	if run := s.publish(t, d, d.name, "d/"+d.name+"/x", "-h", "127.0.0.1"); run.exit != 0 || run.puback != 0 {
		t.Errorf("a device of one account: got exit code %d, PUBACK %d\n%s", run.exit, run.puback, run.all())
	}
	shared := selfSigned(t, "shared")
	one.register(t, shared)
	two.register(t, shared)
	if run := s.publish(t, shared, "shared", "d/x", "-h", "127.0.0.1"); run.exit == 0 {
		t.Errorf("a device of two accounts is let in\n%s", run.all())
	}
	list := s.awaitExplained(t, shared.id(t), 1)
	if len(list) != 1 || list[0].Code != "SNIRequired" {
		t.Fatalf("a device of two accounts: got %+v, want SNIRequired", list)
	}
	said := false
	for _, step := range list[0].Steps {
		said = said || step.Name == "tls.hello" && strings.Contains(step.Detail, "the address 127.0.0.1 is no server name")
	}
	if !said {
		t.Errorf("the trace doesn't tell of the address: %+v", list[0].Steps)
	}
}

// TestCAsInTwoAccounts ensures that a CA is in many accounts in mode SNI_ONLY and in
// one in mode DEFAULT, and that its devices are provisioned where the server name
// says.
func TestCAsInTwoAccounts(t *testing.T) {
	need(t, "openssl", "bash", "aws")
	t.Parallel()
	s := startServer(t)
	one, two := s.twoAccounts(t)
	f := newFactory(t, "Shared", "P-256")
	sniOnly := func(a tenancy) error {
		_, err := a.api.RegisterCACertificate(t.Context(), &iot.RegisterCACertificateInput{
			CaCertificate: aws.String(readFile(t, f.cert)), CertificateMode: types.CertificateModeSniOnly, SetAsActive: true, AllowAutoRegistration: true,
			RegistrationConfig: &types.RegistrationConfig{TemplateBody: aws.String(jitpTemplate("all", "")), RoleArn: aws.String(role)},
		})
		return err
	}
	for _, a := range []tenancy{one, two} {
		if err := sniOnly(a); err != nil {
			t.Fatal(err)
		}
	}
	d := f.device(t, "unit", "P-256")
	if code := s.refusedAs(t, one, d, ""); code != "SNIRequired" {
		t.Errorf("a first connection without a server name: got %s, want SNIRequired", code)
	}
	if code := s.refusedAs(t, two, d, two.host); code != "ProvisionedReconnect" {
		t.Errorf("a first connection: got %s, want ProvisionedReconnect", code)
	}
	s.connectAs(t, d, two.host, "unit").close()
	must(two.api.DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: aws.String("unit")}))(t)
	_, err := one.api.DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: aws.String("unit")})
	if err == nil {
		t.Error("the thing is in both accounts")
	}
	if code := s.refusedAs(t, one, d, one.host); code != "ProvisionedReconnect" {
		t.Errorf("its first connection to the other account: got %s", code)
	}
	s.connectAs(t, d, one.host, "unit-1").close()

	// In mode DEFAULT a CA is one account's, and so are its devices.
	own := newFactory(t, "Own", "P-256")
	inDefault := func(a tenancy) error {
		code := must(a.api.GetRegistrationCode(t.Context(), &iot.GetRegistrationCodeInput{}))(t)
		_, err := a.api.RegisterCACertificate(t.Context(), &iot.RegisterCACertificateInput{
			CaCertificate: aws.String(readFile(t, own.cert)), VerificationCertificate: aws.String(readFile(t, own.verification(t, aws.ToString(code.RegistrationCode)))),
			SetAsActive: true,
		})
		return err
	}
	if err := inDefault(two); err != nil {
		t.Fatal(err)
	}
	if err := inDefault(one); err == nil || !strings.Contains(err.Error(), "ResourceAlreadyExistsException") {
		t.Errorf("a second account in mode DEFAULT: got %v", err)
	}
	e := own.device(t, "owned", "P-256")
	out := must(two.api.RegisterCertificate(t.Context(), &iot.RegisterCertificateInput{CertificatePem: aws.String(readFile(t, e.cert)), Status: types.CertificateStatusActive}))(t)
	must(two.api.AttachPolicy(t.Context(), &iot.AttachPolicyInput{PolicyName: aws.String("all"), Target: out.CertificateArn}))(t)
	_, err = one.api.RegisterCertificateWithoutCA(t.Context(), &iot.RegisterCertificateWithoutCAInput{CertificatePem: aws.String(readFile(t, e.cert))})
	if err == nil || !strings.Contains(err.Error(), "ResourceAlreadyExistsException") {
		t.Errorf("a certificate in mode DEFAULT in a second account: got %v", err)
	}
	// Its registration chooses the account where the server name doesn't.
	nameless, watch := s.connectAs(t, e, "", "owned"), s.connectAs(t, e, two.host, "watch")
	watch.subscribe(at1("news/#"))
	nameless.say("news/1", "without a name")
	watch.expect("without a name")
	if code := s.refusedAs(t, one, e, one.host); code != "CANotRegistered" {
		t.Errorf("in the other account: got %s, want CANotRegistered", code)
	}
}

// TestAccountsAreManagedFromTheFirst ensures that an account's operator manages its
// own users alone, and no accounts.
func TestAccountsAreManagedFromTheFirst(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t)
	other := s.addAccount(t, "111111111111")
	dir := t.TempDir()
	run := s.shell(t, dir, as(other)+"imprint user add anna >/dev/null; imprint user list; aws iot create-thing --thing-name theirs --query thingArn --output text")
	if run.exit != 0 || !strings.HasPrefix(run.stdout, "anna ") || !strings.Contains(run.stdout, "arn:aws:iot:us-east-1:111111111111:thing/theirs") {
		t.Errorf("got exit code %d\n%s", run.exit, run.all())
	}
	if users := s.user(t, "list"); users != "" {
		t.Errorf("the first account has the users %s", users)
	}
	run = s.shell(t, dir, as(other)+"imprint account add 222222222222")
	if run.exit == 0 || !strings.Contains(run.stderr, "accounts are managed from the server's first account, 000000000000") {
		t.Errorf("got exit code %d\n%s", run.exit, run.all())
	}
	things := s.aws(t, dir, "iot list-things --query 'things[].thingName' --output text")
	if things != "" && things != "None" {
		t.Errorf("the first account has the things %s", things)
	}
	// They outlive a restart, with their endpoints.
	before := s.account(t, "list")
	s.signal(killed)
	s.start()
	if after := s.account(t, "list"); after != before || !strings.Contains(after, "111111111111") {
		t.Errorf("got the accounts\n%s\nand after a restart\n%s", before, after)
	}
}
