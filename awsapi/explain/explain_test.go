package explain_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/awsapi/explain"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/policy"
)

var (
	home    = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	another = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
	instant = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

// world is a control plane with a device: thing sensor of group lab, whose
// certificate has the common name cn-7.
type world struct {
	*testing.T
	api   *apitest.Server
	store imprint.Store
	cert  imprint.Certificate
	asked []string // of Authorize
	fail  error    // of Flush
}

func (w *world) update(fn func(tx imprint.Tx) error) {
	w.Helper()
	err := w.store.Update(w.Context(), fn)
	if err != nil {
		w.Fatal(err)
	}
}

// policy stores a document and attaches it to a target.
func (w *world) policy(name imprint.PolicyName, target, statements string) {
	w.Helper()
	document := `{"Version":"2012-10-17","Statement":[` + strings.ReplaceAll(statements, "ARN", home.ARN("")) + `]}`
	w.update(func(tx imprint.Tx) error {
		return errors.Join(
			tx.PutPolicy(imprint.Policy{Tenant: home, Name: name, CreatedAt: instant, ModifiedAt: instant, DefaultVersion: 1, LastVersion: 1}),
			tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: home, Policy: name, Version: 1, Document: document, CreatedAt: instant}),
			tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: name, Target: target}))
	})
}

func (w *world) certificate(name string) imprint.Certificate {
	w.Helper()
	leaf, text := iottest.NewCA(w, "CA").Leaf(w, name)
	cert := imprint.Certificate{
		Tenant: home, ID: pki.CertificateID(leaf.Raw), PEM: text, Status: imprint.CertificateActive, Mode: imprint.ModeDefault, OwnedBy: home.Account,
		Serial: leaf.SerialNumber.Text(16), NotBefore: instant.Add(-time.Hour), NotAfter: instant.Add(time.Hour), CreatedAt: instant, ModifiedAt: instant,
		CustomerVersion: 1,
	}
	w.update(func(tx imprint.Tx) error { return tx.PutCertificate(cert) })
	return cert
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store := registrytest.New(t)
	identities := identity.NewResolver(store, nil)
	t.Cleanup(identities.Close)
	w := &world{T: t, store: store}
	w.cert = w.certificate("cn-7")
	w.update(func(tx imprint.Tx) error {
		return errors.Join(
			tx.PutThing(imprint.Thing{Tenant: home, Name: "sensor", Attributes: map[string]string{"site": "lab"}}),
			tx.PutThing(imprint.Thing{Tenant: home, Name: "other"}),
			tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "sensor", Certificate: w.cert.ID}),
			tx.PutThingGroup(imprint.ThingGroup{Tenant: home, Name: "lab"}),
			tx.PutThingGroupMembership(imprint.ThingGroupMembership{Tenant: home, Group: "lab", Thing: "sensor"}))
	})
	w.policy("own", w.cert.ARN(), `{"Effect":"Allow","Action":"iot:Connect","Resource":"ARNclient/${iot:Connection.Thing.ThingName}"},
		{"Sid":"Site","Effect":"Allow","Action":"iot:Publish","Resource":"ARNtopic/${iot:Connection.Thing.Attributes[site]}/${iot:Certificate.Subject.CommonName}"}`)
	w.policy("shared", home.ThingGroupARN("lab"), `{"Effect":"Allow","Action":"iot:Subscribe","Resource":"ARNtopicfilter/all/*"}`)
	explainer := explain.Explainer{Store: store, Identities: identities, Clock: func() time.Time { return instant }, Flush: func(context.Context) error { return w.fail }}
	w.api = apitest.Serve(t, nil, awsapi.Config{Authorize: func(_ context.Context, _ awsapi.Caller, ask awsapi.Ask) error {
		w.asked = append(w.asked, ask.Action+" on "+ask.Resource)
		return nil
	}}, explain.Operations(), explainer.Routes())
	return w
}

func (w *world) call(tenant imprint.Tenant, method, path string, body, out any) error {
	w.Helper()
	return w.api.Call(w, apitest.KeyOf(tenant.Account, imprint.OperatorUser), tenant.Region, method, path, body, out)
}

// ask is a question of members and their values, by turns.
func (w *world) ask(members ...any) (explain.Answer, error) {
	w.Helper()
	body := map[string]any{}
	for i := 0; i < len(members); i += 2 {
		body[members[i].(string)] = members[i+1]
	}
	var out explain.Answer
	err := w.call(home, "POST", explain.Path, body, &out)
	return out, err
}

func TestAnswersAreThoseOfTheConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := string(w.cert.ID)
	for _, tt := range []struct {
		name    string
		members []any
		want    policy.Decision
		thing   string
		said    string // in sentences and notes
	}{
		{"the thing's certificate and client id", []any{"thingName", "sensor", "action", "connect"}, policy.Allowed, "sensor", `statement 1 of policy "own" allows it`},
		{"the certificate's thing", []any{"certificateId", id, "action", "connect"}, policy.Allowed, "sensor", `client id is taken to be "sensor"`},
		{"another client id", []any{"certificateId", id, "clientId", "x", "action", "connect"}, policy.ImplicitDeny, "", `attached to "sensor", and the client id must be a thing's name`},
		{"variables of thing and certificate", []any{"thingName", "sensor", "action", "publish", "topic", "lab/cn-7"}, policy.Allowed, "sensor", `"Site"`},
		{"retain", []any{"thingName", "sensor", "action", "retain", "topic", "lab/cn-7"}, policy.ImplicitDeny, "sensor", "iot:RetainPublish is missing"},
		{"a group's policy", []any{"thingName", "sensor", "action", "subscribe", "topic", "all/x"}, policy.Allowed, "sensor", "No message will arrive"},
		{"a will", []any{"thingName", "sensor", "action", "connect", "willTopic", "w", "persistent", true}, policy.ImplicitDeny, "sensor", "iot:Publish on " + home.ARN("topic/w")},
		{"another thing's name", []any{"certificateId", id, "thingName", "other", "action", "connect"}, policy.ImplicitDeny, "", `isn't attached to thing "other"`},
		{"a thing under another client id", []any{"certificateId", id, "thingName", "sensor", "clientId", "x", "action", "connect"}, policy.ImplicitDeny, "", `another client id than "sensor"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := w.ask(tt.members...)
			if err != nil {
				t.Fatal(err)
			}
			if got.Decision != tt.want || got.ThingName != tt.thing || got.CertificateID != id {
				t.Errorf("got %s for thing %q and certificate %s, want %s for %q", got.Decision, got.ThingName, got.CertificateID, tt.want, tt.thing)
			}
			said := strings.Join(got.Notes, "\n")
			for _, x := range got.Explanations {
				said += "\n" + x.String()
			}
			if !strings.Contains(said, tt.said) {
				t.Errorf("got %q, want %q in it", said, tt.said)
			}
		})
	}
	want := []string{"imprint:ExplainPolicy on " + home.ThingARN("sensor"), "imprint:ExplainPolicy on " + w.cert.ARN()}
	if diff := cmp.Diff(want, w.asked[:2]); diff != "" {
		t.Errorf("authorized (-want +got):\n%s", diff)
	}
	got, err := w.ask("thingName", "sensor", "action", "subscribe", "topic", "all/x")
	if err != nil || !slices.Equal(got.Policies, []string{"own", "shared"}) {
		t.Errorf("policies: got %v, %v", got.Policies, err)
	}
	got, err = w.ask("certificateId", id, "action", "publish", "topic", "x", "clientId", "x", "sourceIp", "192.0.2.1", "serverName", "a.example")
	if err != nil || !slices.Equal(got.Policies, []string{"own"}) {
		t.Errorf("policies without the thing: got %v, %v", got.Policies, err)
	}
}

func TestWhatStandsBeforePoliciesIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cert.Status = imprint.CertificateInactive
	w.update(func(tx imprint.Tx) error { return tx.PutCertificate(w.cert) })
	got, err := w.ask("thingName", "sensor", "action", "connect")
	if err != nil || got.Decision != policy.Allowed || len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "refused before any policy is asked") {
		t.Errorf("got %+v, %v", got, err)
	}
	w.update(func(tx imprint.Tx) error {
		w.cert.Status = imprint.CertificateActive
		return errors.Join(tx.PutCertificate(w.cert),
			tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "other", Certificate: w.cert.ID, Exclusive: true}))
	})
	got, err = w.ask("certificateId", string(w.cert.ID), "thingName", "sensor", "action", "connect")
	if err != nil || got.ThingName != "other" || !strings.Contains(strings.Join(got.Notes, " "), "exclusively") {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestQuestionsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := w.certificate("second")
	w.update(func(tx imprint.Tx) error {
		return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "sensor", Certificate: second.ID})
	})
	id := string(w.cert.ID)
	for part, members := range map[string][]any{
		"must be given":                              {"action", "connect"},
		"several certificates":                       {"thingName", "sensor", "action", "connect"},
		"has no certificate":                         {"thingName", "other", "action", "connect"},
		"cannot be found":                            {"thingName", "nobody", "action", "connect"},
		strings.Repeat("0", 64) + " cannot be found": {"certificateId", strings.Repeat("0", 64), "action", "connect"},
		"enum value set":                             {"certificateId", id, "action", "write"},
		"needs a topic":                              {"certificateId", id, "action", "publish"},
		"has + or #":                                 {"certificateId", id, "action", "publish", "topic", "a/#"},
		"is no address":                              {"certificateId", id, "action", "connect", "sourceIp", "here"},
	} {
		_, err := w.ask(members...)
		var refusal *client.Error
		if !errors.As(err, &refusal) || refusal.Status/100 != 4 || !strings.Contains(refusal.Message, part) {
			t.Errorf("%v: got %v, want %q in it", members, err, part)
		}
	}
	var out explain.Answer
	err := w.call(another, "POST", explain.Path, map[string]any{"certificateId": id, "action": "connect"}, &out)
	var refusal *client.Error
	if !errors.As(err, &refusal) || refusal.Status != 404 {
		t.Errorf("another account: got %v, %+v, want 404", err, out)
	}
}

func (w *world) least(tenant imprint.Tenant, match string, more ...string) (explain.Least, error) {
	w.Helper()
	var out explain.Least
	err := w.call(tenant, "GET", explain.LeastPath+"?"+url.Values{"match": {match}, "since": {instant.Add(-time.Hour).Format(time.RFC3339)}}.Encode()+strings.Join(more, ""), nil, &out)
	return out, err
}

func TestTheLeastPolicyOfATrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	step := func(name string, verdict imprint.Verdict, action policy.Action, resource string) imprint.Step {
		return imprint.Step{At: instant, Name: name, Verdict: verdict, Action: string(action), Resource: home.ARN(resource)}
	}
	list := []imprint.Attempt{
		{Tenant: home, CertificateID: w.cert.ID, ClientID: "sensor", Thing: "sensor", Outcome: imprint.OutcomeClosed, Steps: []imprint.Step{
			{At: instant, Name: "policy.connect", Verdict: imprint.VerdictOK},
			step("policy.publish", imprint.VerdictOK, policy.Publish, "topic/lab/cn-7"),
			step("publish", imprint.VerdictFailed, policy.Publish, "topic/d/sensor/state"),
			step("policy.subscribe", imprint.VerdictFailed, policy.Subscribe, "topicfilter/d/sensor/#"),
			// Denied, and allowed later; what the policies that were are gone allowed.
			step("publish", imprint.VerdictFailed, policy.Publish, "topic/mended/sensor"),
			step("policy.publish", imprint.VerdictOK, policy.Publish, "topic/mended/sensor"),
		}},
		{Tenant: home, CertificateID: w.cert.ID, ClientID: "sensor", Thing: "sensor", Outcome: imprint.OutcomeConnected, Steps: []imprint.Step{
			{At: instant, Name: "policy.connect", Verdict: imprint.VerdictOK},
		}},
		// By HTTPS, without client id and thing.
		{Tenant: home, CertificateID: w.cert.ID, Thing: "sensor", Outcome: imprint.OutcomeClosed, Steps: []imprint.Step{
			step("policy.publish", imprint.VerdictFailed, policy.Publish, "topic/web/sensor/cn-7"),
		}},
		{Tenant: home, CertificateID: imprint.CertificateID(strings.Repeat("ab", 32)), ClientID: "gone", Outcome: imprint.OutcomeRefused, Steps: []imprint.Step{
			step("policy.connect", imprint.VerdictFailed, policy.Connect, "client/gone"),
		}},
		{Tenant: home, ClientID: "silent", Outcome: imprint.OutcomeRefused},
	}
	w.update(func(tx imprint.Tx) error {
		for n, a := range list {
			a.ID, a.At = fmt.Sprintf("%04d", n), instant.Add(time.Duration(n)*time.Minute)
			err := tx.PutAttempt(a)
			if err != nil {
				return err
			}
		}
		return nil
	})
	got, err := w.least(home, "sensor", "&denied=true")
	if err != nil {
		t.Fatal(err)
	}
	arn := home.ARN("")
	want := []explain.Used{
		{Action: "iot:Connect", Resource: arn + "client/sensor", ClientID: "sensor", Allowed: true},
		{Action: "iot:Publish", Resource: arn + "topic/lab/cn-7", ClientID: "sensor", Allowed: true},
		{Action: "iot:Publish", Resource: arn + "topic/d/sensor/state", ClientID: "sensor"},
		{Action: "iot:Subscribe", Resource: arn + "topicfilter/d/sensor/#", ClientID: "sensor"},
		{Action: "iot:Publish", Resource: arn + "topic/mended/sensor", ClientID: "sensor"},
		{Action: "iot:Publish", Resource: arn + "topic/web/sensor/cn-7"},
	}
	if diff := cmp.Diff(want, got.Uses); diff != "" || got.Attempts != 3 {
		t.Errorf("uses of %d attempts (-want +got):\n%s", got.Attempts, diff)
	}
	if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "1 of the connections are still on") {
		t.Errorf("got notes %q", got.Notes)
	}
	if len(got.Policies) != 1 {
		t.Fatalf("got %d policies", len(got.Policies))
	}
	allowed := func(text json.RawMessage) (lines []string) {
		var document struct {
			Statement []struct{ Action, Resource []string }
		}
		err := json.Unmarshal(text, &document)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range document.Statement {
			for _, resource := range st.Resource {
				lines = append(lines, strings.Join(st.Action, ",")+" "+strings.TrimPrefix(resource, arn))
			}
		}
		return lines
	}
	lines := allowed(got.Policies[0])
	if diff := cmp.Diff([]string{
		"iot:Connect client/${iot:Connection.Thing.ThingName}",
		"iot:Publish topic/d/${iot:Connection.Thing.ThingName}/state",
		"iot:Publish topic/lab/${iot:Certificate.Subject.CommonName}",
		"iot:Publish topic/mended/${iot:Connection.Thing.ThingName}",
		"iot:Publish topic/web/sensor/${iot:Certificate.Subject.CommonName}",
		"iot:Subscribe topicfilter/d/${iot:Connection.Thing.ThingName}/#",
		"iot:Receive topic/d/${iot:Connection.Thing.ThingName}/*",
	}, lines); diff != "" {
		t.Errorf("the policy (-want +got):\n%s", diff)
	}
	// Unless they are asked for, what was denied each time, and would be now, is left
	// out and said to be.
	got, err = w.least(home, "sensor")
	if err != nil || len(got.Policies) != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if diff := cmp.Diff([]string{
		"iot:Connect client/${iot:Connection.Thing.ThingName}",
		"iot:Publish topic/lab/${iot:Certificate.Subject.CommonName}",
		"iot:Publish topic/mended/${iot:Connection.Thing.ThingName}",
	}, allowed(got.Policies[0])); diff != "" {
		t.Errorf("the policy without what was denied (-want +got):\n%s", diff)
	}
	left := 0
	for _, use := range got.Uses {
		if use.LeftOut {
			left++
		}
	}
	if left != 3 {
		t.Errorf("got %d of %+v left out, want 3", left, got.Uses)
	}
	_, err = w.least(home, "gone")
	var denied *client.Error
	if !errors.As(err, &denied) || denied.Status != 404 || !strings.Contains(denied.Error(), "were denied") {
		t.Errorf("all was denied: got %v, want 404 with that", err)
	}
	gone, err := w.least(home, "gone", "&denied=true")
	if err != nil || len(gone.Policies) != 1 || !strings.Contains(string(gone.Policies[0]), arn+"client/gone") {
		t.Errorf("a deleted certificate: got %s, %v", gone.Policies, err)
	}
	_, err = w.least(home, another.ThingARN("sensor"))
	if !errors.As(err, &denied) || denied.Status != 400 || !strings.Contains(denied.Error(), "The ARN is one of "+another.String()) {
		t.Errorf("another account's ARN: got %v, want 400 with that", err)
	}
	for _, tt := range []struct {
		tenant imprint.Tenant
		match  string
	}{{home, "silent"}, {home, "nobody"}, {another, "sensor"}} {
		_, err := w.least(tt.tenant, tt.match)
		var refusal *client.Error
		if !errors.As(err, &refusal) || refusal.Status != 404 {
			t.Errorf("%s in %s: got %v, want 404", tt.match, tt.tenant, err)
		}
	}
	if !slices.Contains(w.asked, "imprint:LeastPolicy on *") {
		t.Errorf("authorized: %q", w.asked)
	}
	w.fail = errors.New("the disk broke")
	_, err = w.least(home, "sensor")
	var refusal *client.Error
	if !errors.As(err, &refusal) || refusal.Status != 503 {
		t.Errorf("got %v, want 503", err)
	}
}
