package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/coder/websocket"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// user runs `imprint user` as the account's operator.
func (s *server) user(t *testing.T, args ...string) string {
	t.Helper()
	run := runTool(t, "", cleanEnv(), program, append(append([]string{"user"}, args...), "--data", s.dir)...)
	if run.exit != 0 {
		t.Fatalf("imprint user %s: exit code %d\n%s", strings.Join(args, " "), run.exit, run.all())
	}
	return run.stdout
}

// allow gives a user a policy of some statements.
func (s *server) allow(t *testing.T, user, statements string) {
	t.Helper()
	document := `{"Version":"2012-10-17","Statement":[` + statements + `]}`
	run := runTool(t, document, cleanEnv(), program, "user", "policy", "put", user, "main", "-", "--data", s.dir)
	if run.exit != 0 {
		t.Fatalf("imprint user policy put: exit code %d\n%s", run.exit, run.all())
	}
}

// addUser adds a user with a policy and gives its access key.
func (s *server) addUser(t *testing.T, name, statements string) aws.Credentials {
	t.Helper()
	var key struct{ AccessKeyID, SecretAccessKey string }
	err := json.Unmarshal([]byte(s.user(t, "add", name, "--key", "--json")), &key)
	if err != nil || key.SecretAccessKey == "" {
		t.Fatalf("got the key %+v, %v", key.AccessKeyID, err)
	}
	s.allow(t, name, statements)
	return aws.Credentials{AccessKeyID: key.AccessKeyID, SecretAccessKey: key.SecretAccessKey}
}

// as makes shell lines be run by another access key.
func as(c aws.Credentials) string {
	return "export AWS_ACCESS_KEY_ID='" + c.AccessKeyID + "' AWS_SECRET_ACCESS_KEY='" + c.SecretAccessKey + "'\n"
}

func TestAnInstallersKeyDoesWhatItsPolicySaysAndNothingElse(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t)
	installer := s.addUser(t, "installer", `{"Effect":"Allow","Action":["iot:CreateThing","iot:CreateProvisioningClaim"],
	 "Resource":["arn:aws:iot:us-east-1:000000000000:thing/kiosk-*","arn:aws:iot:us-east-1:000000000000:provisioningtemplate/line"]},
	 {"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:us-east-1:000000000000:topic/install/*"}`)
	api := s.sdk(t)
	for _, name := range []string{"line", "vault"} {
		must(api.CreateProvisioningTemplate(t.Context(), &iot.CreateProvisioningTemplateInput{
			TemplateName: aws.String(name), Enabled: aws.Bool(true), ProvisioningRoleArn: aws.String(role),
			TemplateBody: aws.String(`{"Parameters":{"Serial":{"Type":"String"}},"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Serial"}}}}}`),
		}))(t)
	}
	whoami := "[ \"$(aws sts get-caller-identity --query '[Account,Arn]' --output text)\" = $'000000000000\\tarn:aws:iam::000000000000:user/%s' ]"
	if run := s.shell(t, t.TempDir(), fmt.Sprintf(whoami, "operator")); run.exit != 0 {
		t.Errorf("the operator isn't told who it is: exit code %d\n%s", run.exit, run.all())
	}
	for _, row := range []struct{ name, script, want string }{
		{"who it is", fmt.Sprintf(whoami, "installer"), ""}, // no policy needed
		{"a claim of the one template", "aws iot create-provisioning-claim --template-name line", ""},
		{"a claim of another template", "aws iot create-provisioning-claim --template-name vault",
			"perform: iot:CreateProvisioningClaim on resource: arn:aws:iot:us-east-1:000000000000:provisioningtemplate/vault"},
		{"the one thing", "aws iot create-thing --thing-name kiosk-7", ""},
		{"another thing", "aws iot create-thing --thing-name vault-1",
			"(AccessDeniedException) when calling the CreateThing operation: User: arn:aws:iam::000000000000:user/installer is not authorized to perform: iot:CreateThing on resource: arn:aws:iot:us-east-1:000000000000:thing/vault-1 because no identity-based policy allows the iot:CreateThing action"},
		{"the hint", "aws iot create-thing --thing-name vault-1", `The missing statement: {"Action":"iot:CreateThing","Effect":"Allow","Resource":"arn:aws:iot:us-east-1:000000000000:thing/vault-1"}`},
		{"another action", "aws iot delete-thing --thing-name kiosk-7", "perform: iot:DeleteThing on resource"},
		{"a list", "aws iot list-things", "perform: iot:ListThings on resource: *"},
		{"another region", "AWS_REGION=eu-west-1 aws iot create-thing --thing-name kiosk-8", "on resource: arn:aws:iot:eu-west-1:000000000000:thing/kiosk-8"},
		{"a topic", "aws iot-data publish --topic install/1 --payload e30=", ""},
		{"another topic", "aws iot-data publish --topic alarms/1 --payload e30=", "(ForbiddenException)"},
		{"its own policy", "imprint user policy list installer", "AccessDeniedException"},
		{"the operator's key", "imprint user key add operator", "AccessDeniedException"},
		{"the attempts", "imprint attempts", "imprint:ListAttempts"},
	} {
		t.Run(row.name, func(t *testing.T) {
			run := s.shell(t, t.TempDir(), as(installer)+row.script)
			if row.want == "" {
				if run.exit != 0 {
					t.Errorf("got exit code %d\n%s", run.exit, run.all())
				}
				return
			}
			if run.exit == 0 || !strings.Contains(run.stderr, row.want) {
				t.Errorf("got exit code %d, want a refusal that has %q\n%s", run.exit, row.want, run.all())
			}
		})
	}
	// A denied request makes no tenant of its region.
	if regions := s.account(t, "list"); strings.Contains(regions, "eu-west-1") {
		t.Errorf("a denied request made a tenant: %s", regions)
	}
	if log := s.stderr.String(); !strings.Contains(log, "msg=denied") || strings.Contains(log, installer.SecretAccessKey) {
		t.Error("the log doesn't have the denials, or has a secret")
	}
	if metrics := s.metrics(t); !strings.Contains(metrics, "imprint_access_denied_total 10\n") {
		t.Errorf("the metrics don't count the denials:\n%s", grepLines(metrics, "denied"))
	}
}

// account runs `imprint account` as the first account's operator.
func (s *server) account(t *testing.T, args ...string) string {
	t.Helper()
	run := runTool(t, "", cleanEnv(), program, append(append([]string{"account"}, args...), "--data", s.dir)...)
	if run.exit != 0 {
		t.Fatalf("imprint account %s: exit code %d\n%s", strings.Join(args, " "), run.exit, run.all())
	}
	return run.stdout
}

func grepLines(text, word string) string {
	var found strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found.WriteString(line)
		}
	}
	return found.String()
}

// withKey makes an SDK client sign with a key for a region.
func withKey(c aws.Credentials, region string) func(*iot.Options) {
	return func(o *iot.Options) {
		o.Credentials = credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, "")
		o.Region = region
	}
}

func denied(err error) bool {
	return err != nil && strings.Contains(err.Error(), "AccessDeniedException")
}

// TestAChangedPolicyHoldsForTheNextRequest ensures it for policies that grow,
// shrink and go, for keys and for users.
func TestAChangedPolicyHoldsForTheNextRequest(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	const all = `{"Effect":"Allow","Action":"iot:ListThings","Resource":"*","Condition":{"StringEquals":{"aws:RequestedRegion":"us-east-1"}}}`
	anna := s.addUser(t, "anna", all)
	list := func(region string) error {
		_, err := s.sdk(t, withKey(anna, region)).ListThings(t.Context(), &iot.ListThingsInput{})
		return err
	}
	expect := func(what string, err error, want bool) {
		t.Helper()
		if (err == nil) != want {
			t.Errorf("%s: got %v, want allowed to be %t", what, err, want)
		}
	}
	for range 5 {
		expect("in its region", list("us-east-1"), true)
		expect("in another region", list("eu-west-1"), false)
		s.allow(t, "anna", all+`,{"Effect":"Deny","Action":"iot:List*","Resource":"*"}`)
		expect("with a deny", list("us-east-1"), false)
		s.allow(t, "anna", all)
	}
	s.user(t, "policy", "delete", "anna", "main")
	if err := list("us-east-1"); !denied(err) {
		t.Errorf("without a policy: got %v, want AccessDeniedException", err)
	}
	s.allow(t, "anna", all)
	s.user(t, "key", "delete", "anna", anna.AccessKeyID)
	if err := list("us-east-1"); err == nil || !strings.Contains(err.Error(), "UnrecognizedClientException") {
		t.Errorf("with a deleted key: got %v, want UnrecognizedClientException", err)
	}
	// A user of the same name begins anew.
	s.user(t, "delete", "anna")
	anna = s.addUser(t, "anna", `{"Effect":"Deny","Action":"*","Resource":"*"}`)
	expect("as a new user", list("us-east-1"), false)
}

// TestUsersOfOneNameInTwoAccountsAreTwo ensures that users, their policies and
// their keys belong to their account: what one's operator changes is nothing to the
// other's, and a policy that allows everything allows it in its own account alone.
func TestUsersOfOneNameInTwoAccountsAreTwo(t *testing.T) {
	need(t, "bash")
	t.Parallel()
	s := startServer(t)
	mine := s.addUser(t, "anna", `{"Effect":"Allow","Action":"*","Resource":"*"}`)
	operator := s.addAccount(t, "111111111111")
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "policy.json"), `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:CreateThing","Resource":"arn:aws:iot:us-east-1:111111111111:thing/*"}]}`)
	run := s.shell(t, dir, as(operator)+"imprint user add anna --key --json && imprint user policy put anna main policy.json >&2")
	var key struct{ AccessKeyID, SecretAccessKey string }
	err := json.Unmarshal([]byte(run.stdout), &key)
	if err != nil || run.exit != 0 {
		t.Fatalf("got %v, exit code %d\n%s", err, run.exit, run.all())
	}
	theirs := aws.Credentials{AccessKeyID: key.AccessKeyID, SecretAccessKey: key.SecretAccessKey}
	things := func(c aws.Credentials, name string) error {
		_, err := s.sdk(t, withKey(c, "us-east-1")).CreateThing(t.Context(), &iot.CreateThingInput{ThingName: aws.String(name)})
		return err
	}
	// Each makes a thing of the same name, in its own account.
	for _, c := range []aws.Credentials{mine, theirs} {
		if err := things(c, "desk"); err != nil {
			t.Errorf("a user may not do what its policy says: %v", err)
		}
	}
	if _, err := s.sdk(t, withKey(theirs, "us-east-1")).ListThings(t.Context(), &iot.ListThingsInput{}); !denied(err) {
		t.Errorf("the second account's anna has the first one's policy: got %v", err)
	}
	// The first one's everything isn't the second account's user.
	for _, script := range []string{"imprint user policy delete anna main", "imprint user key delete anna " + theirs.AccessKeyID, "imprint user delete anna"} {
		s.shell(t, dir, as(mine)+script)
	}
	if err := things(theirs, "lamp"); err != nil {
		t.Errorf("after the first account's anna was deleted, the second's: %v", err)
	}
	if err := things(mine, "lamp"); err == nil {
		t.Error("the first account's anna is deleted and still makes things")
	}
}

// webSocketAs opens MQTT over WebSocket with a presigned URL of a key.
func (s *server) webSocketAs(t *testing.T, c aws.Credentials, region, clientID string, got chan<- string) (*paho.Client, error) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.httpsURL(t)+"/mqtt", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.RawQuery = url.Values{"X-Amz-Expires": {"300"}}.Encode()
	address, _, err := v4.NewSigner().PresignHTTP(t.Context(), c, r, emptyHash(), "iotdevicegateway", region, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{HTTPClient: s.httpClient(t), Subprotocols: []string{"mqtt"}})
	if err != nil {
		return nil, err
	}
	client := paho.NewClient(paho.ClientConfig{
		Conn: packets.NewThreadSafeConn(websocket.NetConn(t.Context(), ws, websocket.MessageBinary)), PacketTimeout: patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			got <- p.Packet.Topic
			return true, nil
		}},
	})
	_, err = client.Connect(ctx, &paho.Connect{ClientID: clientID, KeepAlive: 60, CleanStart: true})
	return client, err
}

// TestAUsersPoliciesDecideOverWebSocket ensures that they decide about client ids,
// topics and filters, and that a change holds for the next packet of a connection
// that is open.
func TestAUsersPoliciesDecideOverWebSocket(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	const arn = "arn:aws:iot:us-east-1:000000000000:"
	const base = `{"Effect":"Allow","Action":"iot:Connect","Resource":"` + arn + `client/${aws:username}-*"},
	 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"` + arn + `topic/desk/${iot:ClientId}/*"},
	 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"` + arn + `topicfilter/desk/*"}`
	anna := s.addUser(t, "anna", base)
	got := make(chan string, 16)
	_, err := s.webSocketAs(t, anna, "us-east-1", "bert-1", got)
	if err == nil {
		t.Error("anna may connect as bert-1")
	}
	_, err = s.webSocketAs(t, anna, "eu-west-1", "anna-1", got)
	if err == nil {
		t.Error("anna may connect in another region")
	}
	c, err := s.webSocketAs(t, anna, "us-east-1", "anna-1", got)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "desk/#", QoS: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(topic string) error {
		_, err := c.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte("x")})
		return err
	}
	if err := publish("desk/anna-1/a"); err != nil {
		t.Fatal(err)
	}
	if topic := <-got; topic != "desk/anna-1/a" {
		t.Errorf("got a message on %s", topic)
	}
	// More, while the connection is open, then less.
	s.allow(t, "anna", base+`,{"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"`+arn+`topic/desk/all"}`)
	if err := publish("desk/all"); err != nil {
		t.Errorf("after the policy grew: %v", err)
	}
	if topic := <-got; topic != "desk/all" {
		t.Errorf("got a message on %s", topic)
	}
	s.allow(t, "anna", base)
	if err := publish("desk/all"); err == nil {
		t.Error("after the policy shrank, the topic may still be published to")
	}
	second, err := s.webSocketAs(t, anna, "us-east-1", "anna-2", got)
	if err != nil {
		t.Fatal(err)
	}
	idle, err := s.webSocketAs(t, anna, "us-east-1", "anna-3", got)
	if err != nil {
		t.Fatal(err)
	}
	s.user(t, "key", "delete", "anna", anna.AccessKeyID)
	_, err = second.Publish(ctx, &paho.Publish{Topic: "desk/anna-2/a", QoS: 1})
	if err == nil {
		t.Error("a deleted key still publishes")
	}
	if attempts := s.awaitExplained(t, "anna-2", 1); attempts[0].Code != "AccessDenied" {
		t.Errorf("got the attempt %+v, want it ended by AccessDenied", attempts[0])
	}
	select {
	case <-idle.Done():
	case <-time.After(patience): // less than the keep-alive, at which it would be noticed anyway
		t.Error("an idle connection outlives its key")
	}
}

// TestAKeyThatCallsTooOftenIsThrottledAlone ensures that the bound is a key's: the
// other account's goes on, and so does the key that waits.
func TestAKeyThatCallsTooOftenIsThrottledAlone(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t, "--api-rate", "5")
	one, two := s.twoAccounts(t)
	once := func(o *iot.Options) { o.RetryMaxAttempts = 1 }
	var calls sync.WaitGroup
	var accepted, throttled atomic.Int64
	for range 30 {
		calls.Go(func() {
			_, err := one.api.ListThings(t.Context(), &iot.ListThingsInput{}, once)
			switch {
			case err == nil:
				accepted.Add(1)
			case strings.Contains(err.Error(), "ThrottlingException"):
				throttled.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if accepted.Load() == 0 || throttled.Load() == 0 {
		t.Errorf("of 30 calls at once %d were accepted and %d throttled, want some of each", accepted.Load(), throttled.Load())
	}
	_, err := two.api.ListThings(t.Context(), &iot.ListThingsInput{}, once)
	if err != nil {
		t.Errorf("the other account's key: got %v", err)
	}
	until(t, "a call of the key that waited", func() bool {
		_, err := one.api.ListThings(t.Context(), &iot.ListThingsInput{}, once)
		return err == nil
	})
}
