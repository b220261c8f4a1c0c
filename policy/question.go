package policy

import (
	"fmt"
	"strings"
	"time"
)

// Question is what a person asks about a device, in words of MQTT.
type Question struct {
	// Action is connect, publish, retain, subscribe or receive. Retain stands for a
	// PUBLISH with the retain flag, which needs two actions.
	Action string
	ARN    string // what ARNs of the tenant begin with: arn:aws:iot:us-east-1:000000000000:
	Topic  string // topic or topic filter; for all but connect
	// ClientID is for connect.
	ClientID string

	Vars              *Variables
	Now               time.Time
	ConnectAttributes ConnectAttributes
	LastWillTopic     string // topic of the will, empty without
}

// QuestionActions lists the words for Question.Action.
func QuestionActions() []string {
	return []string{"connect", "publish", "retain", "subscribe", "receive"}
}

// Answer is what was decided about a question. Explanations has one for each action
// that was needed, in the order in which a broker asks; the last decided. Notes tell
// what is allowed and still won't work as meant.
type Answer struct {
	Decision     Decision      `json:"decision"`
	Explanations []Explanation `json:"explanations"`
	Notes        []string      `json:"notes,omitempty"`
}

// Requests gives what a broker decides about a question, in its order. The error
// says what is wrong with the question.
func (q Question) Requests() ([]*Request, error) {
	request := func(action Action, name string) *Request {
		return &Request{Action: action, ResourcePrefix: q.ARN + action.ResourceKind() + "/", ResourceName: name, Vars: q.Vars, Now: q.Now}
	}
	if q.Action == "connect" {
		if q.ClientID == "" {
			return nil, fmt.Errorf("connect needs a client id")
		}
		r := request(Connect, q.ClientID)
		r.ConnectAttributes = q.ConnectAttributes
		all := []*Request{r}
		if q.LastWillTopic != "" {
			r.LastWillTopic = q.ARN + "topic/" + q.LastWillTopic
			r.ConnectAttributes |= LastWill
			all = append(all, request(Publish, q.LastWillTopic))
		}
		return all, nil
	}
	if q.Topic == "" {
		return nil, fmt.Errorf("%s needs a topic", q.Action)
	}
	if q.Action != "subscribe" && strings.ContainsAny(q.Topic, "+#") {
		return nil, fmt.Errorf("topic %q has + or #, which only the filter of a subscription may have", q.Topic)
	}
	switch q.Action {
	case "publish":
		return []*Request{request(Publish, q.Topic)}, nil
	case "retain":
		return []*Request{request(Publish, q.Topic), request(RetainPublish, q.Topic)}, nil
	case "subscribe":
		return []*Request{request(Subscribe, q.Topic)}, nil
	case "receive":
		return []*Request{request(Receive, q.Topic)}, nil
	}
	return nil, fmt.Errorf("there is no action %q; it is one of %s", q.Action, strings.Join(QuestionActions(), ", "))
}

// Answer explains the decisions about a question. The error is that of Requests.
func (s *Set) Answer(q Question) (Answer, error) {
	requests, err := q.Requests()
	if err != nil {
		return Answer{}, err
	}
	var answer Answer
	for _, r := range requests {
		x := s.Explain(r)
		answer.Decision = x.Decision
		answer.Explanations = append(answer.Explanations, x)
		for _, d := range x.Dropped {
			answer.Notes = append(answer.Notes, fmt.Sprintf("%s was meant to deny this, and doesn't: %s in %q has no value: %s.", d.StatementRef, d.Variable, d.Pattern, d.Reason))
		}
		if x.Decision != Allowed {
			return answer, nil
		}
	}
	if q.Action == "subscribe" {
		answer.Notes = append(answer.Notes, s.deaf(q)...)
	}
	return answer, nil
}

// deaf tells whether a subscription that is allowed brings nothing: without
// iot:Receive each message is dropped in silence. A filter with wildcards is looked
// up by its text, which is matched by whatever covers all of its topics.
func (s *Set) deaf(q Question) []string {
	topic := q.Topic
	if rest, shared := strings.CutPrefix(topic, "$share/"); shared {
		_, topic, _ = strings.Cut(rest, "/")
	}
	r := &Request{Action: Receive, ResourcePrefix: q.ARN + "topic/", ResourceName: topic, Vars: q.Vars, Now: q.Now}
	x := s.Explain(r)
	switch {
	case x.Decision == Allowed:
		return nil
	case !strings.ContainsAny(topic, "+#"):
		return []string{fmt.Sprintf("No message will arrive: %s Fix: %s.", x.Sentence, x.Hint)}
	case len(s.hot[Receive.hot()].allow) == 0:
		return []string{fmt.Sprintf("No message will arrive: %s Fix: %s.", x.NearMiss.Sentence, x.Hint)}
	}
	return []string{fmt.Sprintf("Messages arrive on those topics alone that iot:Receive is allowed on; no statement allows it on all of %q.", topic)}
}
