package policy_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/policy"
)

func answered(t *testing.T, set *policy.Set, action, topic, clientID string) policy.Answer {
	t.Helper()
	a, err := set.Answer(policy.Question{Action: action, ARN: arn, Topic: topic, ClientID: clientID, Vars: connected()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAnswersFollowWhatABrokerAsks(t *testing.T) {
	t.Parallel()
	set := compile(t, doc(allow("iot:Connect", arn+"client/dev1"), allow("iot:Publish", arn+"topic/a"), allow("iot:Publish", arn+"topic/r"),
		allow("iot:RetainPublish", arn+"topic/r"), allow("iot:Subscribe", arn+"topicfilter/*"), allow("iot:Receive", arn+"topic/a"), allow("iot:Receive", arn+"topic/w/*")))
	for _, tt := range []struct {
		action, topic, clientID string
		want                    policy.Decision
		actions                 string // that were decided, in order
		note                    string
	}{
		{"connect", "", "dev1", yes, "iot:Connect", ""},
		{"connect", "", "dev2", no, "iot:Connect", ""},
		{"publish", "a", "", yes, "iot:Publish", ""},
		{"retain", "a", "", no, "iot:Publish iot:RetainPublish", ""},
		{"retain", "b", "", no, "iot:Publish", ""},
		{"retain", "r", "", yes, "iot:Publish iot:RetainPublish", ""},
		{"receive", "a", "", yes, "iot:Receive", ""},
		{"receive", "b", "", no, "iot:Receive", ""},
		{"subscribe", "a", "", yes, "iot:Subscribe", ""},
		{"subscribe", "$share/g/a", "", yes, "iot:Subscribe", ""},
		{"subscribe", "w/#", "", yes, "iot:Subscribe", ""},
		{"subscribe", "b", "", yes, "iot:Subscribe", "No message will arrive: iot:Receive on " + arn + "topic/b"},
		{"subscribe", "+", "", yes, "iot:Subscribe", "on those topics alone"},
	} {
		a := answered(t, set, tt.action, tt.topic, tt.clientID)
		var actions []string
		for _, x := range a.Explanations {
			actions = append(actions, string(x.Action))
		}
		if a.Decision != tt.want || strings.Join(actions, " ") != tt.actions {
			t.Errorf("%s %s%s: got %s by %s, want %s by %s", tt.action, tt.topic, tt.clientID, a.Decision, actions, tt.want, tt.actions)
		}
		notes := strings.Join(a.Notes, "\n")
		if (notes == "") != (tt.note == "") || !strings.Contains(notes, tt.note) {
			t.Errorf("%s %s: got notes %q, want %q", tt.action, tt.topic, notes, tt.note)
		}
	}
	deaf := answered(t, compile(t, doc(allow("iot:Subscribe", arn+"topicfilter/*"))), "subscribe", "a/#", "")
	if deaf.Decision != yes || len(deaf.Notes) != 1 || !strings.Contains(deaf.Notes[0], "iot:Receive is missing") {
		t.Errorf("got %+v, want a note on iot:Receive", deaf)
	}
	dropped := answered(t, compile(t, doc(allow("*", "*"), deny("iot:Publish", arn+"topic/${x:y}"))), "publish", "a", "")
	if dropped.Decision != yes || len(dropped.Notes) != 1 || !strings.Contains(dropped.Notes[0], "${x:y}") {
		t.Errorf("got %+v, want a note on the dropped Deny", dropped)
	}
}

func TestAConnectWithAWillNeedsItsTopic(t *testing.T) {
	t.Parallel()
	set := compile(t, doc(`{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"ArnEquals":{"iot:LastWillTopic":"`+arn+`topic/w"},
		"ForAnyValue:StringEquals":{"iot:ConnectAttributes":"LastWill"}}}`, allow("iot:Publish", arn+"topic/v")))
	for topic, want := range map[string]string{"": "iot:Connect", "v": "iot:Connect", "w": "iot:Publish"} {
		a, err := set.Answer(policy.Question{Action: "connect", ARN: arn, ClientID: "dev1", LastWillTopic: topic, Vars: connected()})
		if err != nil || a.Decision != no || string(a.Explanations[len(a.Explanations)-1].Action) != want {
			t.Errorf("will %q: got %+v, %v; want a refusal of %s", topic, a, err, want)
		}
	}
}

func TestQuestionsThatAreNone(t *testing.T) {
	t.Parallel()
	for part, q := range map[string]policy.Question{
		"needs a client id": {Action: "connect"}, "needs a topic": {Action: "publish"}, "has + or #": {Action: "retain", Topic: "a/+"},
		"no action": {Action: "write", Topic: "a"},
	} {
		_, err := policy.Compile().Answer(q)
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%+v: got %v, want %q in it", q, err, part)
		}
	}
}
