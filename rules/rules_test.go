package rules_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rules"
)

// TestRulesOfATenantSeeItsMessagesAlone ensures that a rule gets what its FROM
// takes, of its own tenant, from the moment when its commit is acknowledged.
func TestRulesOfATenantSeeItsMessagesAlone(t *testing.T) {
	h := open(t, nil)
	h.offer(home, "plant/1/state", `{"t":70}`) // no rule yet
	if !h.Tenant(home).Idle() {
		t.Error("a tenant without rules isn't idle")
	}
	h.put(home, "hot", "SELECT t AS value, topic(2) AS plant, clientid() AS client FROM 'plant/+/state' WHERE t > 50", nil, republishTo("hot/${topic(2)}"))
	h.put(other, "hot", "SELECT * FROM 'plant/#'", nil, republishTo("theirs"))
	if h.Tenant(home).Idle() {
		t.Error("a tenant with a rule is idle")
	}
	h.offer(home, "plant/1/state", `{"t":10}`)
	h.offer(home, "plant/1/other", `{"t":70}`)
	h.offer(home, "plant/2/state", `{"t":70}`)
	h.await(t, "the hot plant", func() bool { return len(h.on("hot/2")) == 1 })
	got := h.on("hot/2")[0]
	if want := `{"value":70,"plant":"2","client":"device-1"}`; string(got.Payload) != want || got.tenant != home || got.QoS != 1 || got.Depth != 1 {
		t.Errorf("republished: got %s of %s, QoS %d, depth %d; want %s of %s, 1, 1", got.Payload, got.tenant, got.QoS, got.Depth, want, home)
	}
	h.update(func(tx imprint.Tx) error { return tx.DeleteTopicRule(home, "hot") })
	h.offer(home, "plant/3/state", `{"t":70}`)
	if !h.Tenant(home).Idle() {
		t.Error("a tenant whose last rule was deleted isn't idle")
	}
	if found := len(h.on("hot/3")) + len(h.on("theirs")) + len(h.on("hot/1")); found != 0 {
		t.Errorf("%d messages went to rules that don't match", found)
	}
}

// TestBasicIngestGoesToTheNamedRule ensures that FROM plays no part and topic()
// sees the rest.
func TestBasicIngestGoesToTheNamedRule(t *testing.T) {
	h := open(t, nil)
	h.put(home, "one", "SELECT topic() AS topic FROM 'nothing/like/it'", nil, republishTo("one"))
	h.put(home, "two", "SELECT * FROM '#'", nil, republishTo("two"))
	h.offer(home, "$aws/rules/one/a/b", `{}`)
	h.offer(home, "$aws/rules/none/a/b", `{}`)
	h.await(t, "the named rule", func() bool { return len(h.on("one")) == 1 })
	if got := string(h.on("one")[0].Payload); got != `{"topic":"a/b"}` {
		t.Errorf("topic() of Basic Ingest: got %s", got)
	}
	if got := h.Counters(); got.Missing != 1 || got.Matched != 1 {
		t.Errorf("counters: got %d missing, %d matched; want 1, 1", got.Missing, got.Matched)
	}
}

// TestLambdaActionsInvokeForTheRule ensures that the function's queue gets what
// SELECT gives, and decides by the rule's ARN.
func TestLambdaActionsInvokeForTheRule(t *testing.T) {
	h := open(t, nil)
	h.put(home, "call", "SELECT a FROM 'in'", nil, invoke("f"))
	h.offer(home, "in", `{"a":1,"b":2}`)
	h.await(t, "the call", func() bool { return len(h.calls) == 1 })
	want := imprint.FunctionCall{Tenant: home, ARN: home.FunctionARN("f"), Payload: []byte(`{"a":1}`), Principal: "iot.amazonaws.com", SourceARN: home.RuleARN("call")}
	if diff := cmp.Diff(want, h.calls[0]); diff != "" {
		t.Errorf("the call (-want +got):\n%s", diff)
	}
}

// TestTheErrorActionTellsOfAllFailures ensures that one message has every action
// that failed, and the original message.
func TestTheErrorActionTellsOfAllFailures(t *testing.T) {
	h := open(t, nil)
	h.failing = imprint.Errorf(imprint.CodeFunctionDenied, "not allowed")
	onError := republishTo("errors/${topic(1)}")
	h.put(home, "fails", "SELECT a FROM 'in'", &onError, invoke("f"), republishTo("out"), invoke("g"))
	h.offer(home, "in", `{"a":1,"b":2}`)
	h.await(t, "the error action", func() bool { return len(h.on("errors/in")) == 1 })
	got := readError(t, h.on("errors/in")[0].Payload)
	if got.Rule != "fails" || got.Topic != "in" || got.Client != "device-1" || string(got.Payload) != `{"a":1,"b":2}` || len(got.Trace) != 36 {
		t.Errorf("the error action's message: got %+v", got)
	}
	if len(got.Failures) != 2 || got.Failures[0].Action != "LambdaAction" || got.Failures[1].Resource != home.FunctionARN("g") || got.Failures[0].Message != "not allowed" {
		t.Errorf("failures: got %+v, want those of f and g", got.Failures)
	}
	if len(h.on("out")) != 1 {
		t.Errorf("the action between those that failed ran %d times, want once", len(h.on("out")))
	}
}

// TestAnEventIsDoneWhenItsActionsAreHandedOver ensures that who waits for an event
// hears of a store that failed, and no error action runs for what comes again.
func TestAnEventIsDoneWhenItsActionsAreHandedOver(t *testing.T) {
	h := open(t, nil)
	onError := republishTo("errors")
	h.put(home, "jitr", "SELECT * FROM '$aws/events/certificates/registered/+'", &onError, invoke("f"))
	offer := func(failing error) error {
		h.mu.Lock()
		h.failing = failing
		h.mu.Unlock()
		done := make(chan error, 1)
		err := h.Tenant(home).Offer(t.Context(), &imprint.RuleMessage{Topic: "$aws/events/certificates/registered/ca", Payload: []byte(`{}`), Done: func(err error) { done <- err }})
		if err != nil {
			t.Fatal(err)
		}
		return <-done
	}
	if err := offer(imprint.Errorf(imprint.CodeUnavailable, "the disk is full")); imprint.CodeOf(err) != imprint.CodeUnavailable && !strings.Contains(fmt.Sprint(err), "disk is full") {
		t.Errorf("a store that fails: got %v", err)
	}
	if err := offer(nil); err != nil {
		t.Errorf("an event that was handed over: got %v", err)
	}
	if err := offer(imprint.Errorf(imprint.CodeFunctionMissing, "no such function")); err != nil {
		t.Errorf("a failure that the error action has: got %v", err)
	}
	if got := len(h.on("errors")); got != 1 {
		t.Errorf("the error action ran %d times, want once", got)
	}
}

// TestAPanicOfARuleFailsThatRuleAlone ensures that a panic in a statement or an action
// doesn't end the server, is told to the error action, and ends an event, which would come
// again at each start.
func TestAPanicOfARuleFailsThatRuleAlone(t *testing.T) {
	h := open(t, nil)
	h.bursting = true
	for _, row := range []struct {
		sql, failed string
		action      imprint.RuleAction
	}{
		{`SELECT aws_lambda("` + home.FunctionARN("f") + `", {}) AS back FROM 'in'`, "RuleEvaluation", republishTo("never")},
		{`SELECT * FROM 'in'`, "LambdaAction", invoke("f")},
	} {
		onError := republishTo("errors/" + row.failed)
		h.put(home, row.failed, row.sql, &onError, row.action, republishTo("beside/"+row.failed))
	}
	onError := invoke("f")
	h.put(home, "both", "SELECT * FROM 'in'", &onError, invoke("f"))
	done := make(chan error, 1)
	err := h.Tenant(home).Offer(t.Context(), &imprint.RuleMessage{Topic: "in", Payload: []byte(`{}`), Done: func(err error) { done <- err }})
	if err != nil {
		t.Fatal(err)
	}
	if err = <-done; err != nil {
		t.Errorf("the event: got %v, want it to be over", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, failed := range []string{"RuleEvaluation", "LambdaAction"} {
		got := h.on("errors/" + failed)
		if len(got) != 1 || readError(t, got[0].Payload).Failures[0].Action != failed {
			t.Errorf("the error action of %s: got %+v, want to be told once", failed, got)
		}
	}
	if len(h.on("never")) != 0 || len(h.on("beside/LambdaAction")) != 1 {
		t.Errorf("got %+v, want the action beside the one that panicked, and none of the statement that did", h.messages)
	}
	if got := h.Counters().Errors; got != 1 {
		t.Errorf("errors of statements: got %d, want 1", got)
	}
}

// TestRulesThatRepublishToEachOtherEnd ensures that a loop has a bound.
func TestRulesThatRepublishToEachOtherEnd(t *testing.T) {
	h := open(t, func(o *rules.Options) { o.MaxDepth = 5 })
	h.loops = true
	h.put(home, "ping", "SELECT * FROM 'a'", nil, republishTo("b"))
	h.put(home, "pong", "SELECT * FROM 'b'", nil, republishTo("a"))
	h.offer(home, "a", `{}`)
	h.await(t, "the end of the loop", func() bool { return h.Counters().Looped == 1 })
	if got := len(h.messages); got != 6 {
		t.Errorf("the loop published %d messages, want 6", got)
	}
}

// TestAFullQueueRefuses ensures that what can't wait is refused and counted, and
// that one tenant leaves room for others. What is offered once more is counted then alone.
func TestAFullQueueRefuses(t *testing.T) {
	h := open(t, func(o *rules.Options) { o.MaxQueued, o.Workers = 10, 1 })
	h.end()
	h.Engine = rules.New(h.store, time.Now, h.opts) // not started: everything waits
	h.put(home, "all", "SELECT * FROM '#'", nil, republishTo("x"))
	h.put(other, "all", "SELECT * FROM '#'", nil, republishTo("x"))
	for n := range 5 {
		h.offer(home, fmt.Sprint("t/", n), `{}`)
	}
	err := h.Tenant(home).Offer(t.Context(), &imprint.RuleMessage{Topic: "t", Again: true})
	if imprint.CodeOf(err) != imprint.CodeRulesBusy {
		t.Errorf("a message too many, which comes again: got %v, want %s", err, imprint.CodeRulesBusy)
	}
	err = h.Tenant(home).Offer(t.Context(), &imprint.RuleMessage{Topic: "t", Wait: true})
	if imprint.CodeOf(err) != imprint.CodeRulesBusy {
		t.Errorf("a message too many: got %v, want %s", err, imprint.CodeRulesBusy)
	}
	h.offer(other, "t", `{}`)
	if got := h.Counters(); got.Dropped != 1 || got.Waiting != 6 {
		t.Errorf("counters: got %d dropped, %d waiting; want 1, 6", got.Dropped, got.Waiting)
	}
	h.Start(h.outside)
	h.await(t, "what waited", func() bool { return len(h.on("x")) == 6 })
}

// TestOnlyWhatNobodyComesAgainWithIsLost ensures that events that wait when the server ends,
// which stay stored, aren't told of as lost.
func TestOnlyWhatNobodyComesAgainWithIsLost(t *testing.T) {
	var log strings.Builder
	h := open(t, func(o *rules.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	h.end()
	h.Engine = rules.New(h.store, time.Now, h.opts) // not started: everything waits
	h.put(home, "all", "SELECT * FROM '#'", nil, republishTo("x"))
	h.offer(home, "t", `{}`)
	for range 2 {
		err := h.Tenant(home).Offer(t.Context(), &imprint.RuleMessage{Topic: "t", Done: func(error) {}})
		if err != nil {
			t.Fatal(err)
		}
	}
	h.end()
	if !strings.Contains(log.String(), "are lost\" messages=1\n") {
		t.Errorf("got the log %q, want one message lost", log.String())
	}
}

// TestCheckRefusesWhatCantRun ensures that a rule that is taken can run.
func TestCheckRefusesWhatCantRun(t *testing.T) {
	for _, c := range []struct {
		name string
		rule imprint.TopicRule
		code imprint.Code
		text string
	}{
		{"statement", imprint.TopicRule{SQL: "SELECT FROM 'a'"}, imprint.CodeSQLParse, "line 1, column 8"},
		{"version", imprint.TopicRule{SQL: "SELECT * FROM 'a'", SQLVersion: "2999-01-01"}, imprint.CodeInvalidRequest, "2999"},
		{"substitution", imprint.TopicRule{SQL: "SELECT * FROM 'a'", Actions: []imprint.RuleAction{republishTo("${")}}, imprint.CodeSQLParse, "republish.topic"},
		{"dollar in a topic", imprint.TopicRule{SQL: "SELECT * FROM 'a'", Actions: []imprint.RuleAction{republishTo("$aws/x")}}, imprint.CodeSQLParse, "$"},
		{"wildcard in a topic", imprint.TopicRule{SQL: "SELECT * FROM 'a'", Actions: []imprint.RuleAction{republishTo("a/#")}}, imprint.CodeInvalidRequest, "wildcard"},
		{"wildcard in an error's topic", imprint.TopicRule{SQL: "SELECT * FROM 'a'", ErrorAction: func() *imprint.RuleAction {
			a := republishTo("a/+/b")
			return &a
		}()}, imprint.CodeInvalidRequest, "wildcard"},
		{"function", imprint.TopicRule{SQL: "SELECT * FROM 'a'", Actions: []imprint.RuleAction{{Lambda: &imprint.LambdaRuleAction{FunctionARN: "x"}}}}, imprint.CodeInvalidRequest, "ARN"},
		{"plain http", imprint.TopicRule{SQL: "SELECT * FROM 'a'", Actions: []imprint.RuleAction{{HTTP: &imprint.HTTPRuleAction{URL: "http://example.com/"}}}}, imprint.CodeInvalidRequest, "https"},
		{"url without confirmation", imprint.TopicRule{SQL: "SELECT * FROM 'a'", Actions: []imprint.RuleAction{{HTTP: &imprint.HTTPRuleAction{URL: "https://example.com/${a}"}}}}, imprint.CodeInvalidRequest, "confirmationUrl"},
		{"shadows", imprint.TopicRule{SQL: "SELECT * FROM 'a' WHERE get_thing_shadow('t', 'r').state.on"}, imprint.CodeInvalidRequest, "no device shadows"},
		{"secrets", imprint.TopicRule{SQL: "SELECT * FROM 'a'", Actions: []imprint.RuleAction{republishTo("x/${get_secret('s', 'SecretString', 'r')}")}}, imprint.CodeInvalidRequest, "get_secret"},
		{"tables", imprint.TopicRule{SQL: "SELECT get_dynamodb('t', 'k', 'v', 'r') AS x FROM 'a'"}, imprint.CodeInvalidRequest, "DynamoDB"},
		{"predictions", imprint.TopicRule{SQL: "SELECT machinelearning_predict('m', 'r', *) AS x FROM 'a'"}, imprint.CodeInvalidRequest, "Machine Learning"},
		{"Protobuf", imprint.TopicRule{SQL: "SELECT VALUE decode(*, 'proto', 'bucket', 'schema.desc', 'schema', 'Reading') FROM 'a'"}, imprint.CodeInvalidRequest, "schema"},
		{"Protobuf in an action", imprint.TopicRule{SQL: "SELECT * FROM 'a'", Actions: []imprint.RuleAction{republishTo("x/${decode(*, 'proto', 'bucket', 'schema.desc', 'schema', 'Reading').id}")}}, imprint.CodeInvalidRequest, "schema"},
		{"no kind", imprint.TopicRule{SQL: "SELECT * FROM 'a'", Actions: []imprint.RuleAction{{}}}, imprint.CodeInvalidRequest, "lambda, republish, http"},
		{"outside in an error action", imprint.TopicRule{SQL: "SELECT * FROM 'a'", ErrorAction: func() *imprint.RuleAction {
			a := republishTo("${aws_lambda('arn', a)}")
			return &a
		}()}, imprint.CodeInvalidRequest, "aws_lambda"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.rule.SQLVersion == "" {
				c.rule.SQLVersion = "2016-03-23"
			}
			_, err := rules.Check(c.rule, rules.Offered{})
			if imprint.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v (%s), want %s with %q", err, imprint.CodeOf(err), c.code, c.text)
			}
		})
	}
}

// TestStatementsReachFunctionsAndTheRegistry ensures that aws_lambda() and
// get_registry_data() are served by this server.
func TestStatementsReachFunctionsAndTheRegistry(t *testing.T) {
	h := open(t, nil)
	h.update(func(tx imprint.Tx) error {
		return tx.PutThing(imprint.Thing{Tenant: home, Name: "t1", ID: "id", Attributes: map[string]string{"site": "north"}, Version: 1})
	})
	h.put(home, "ask", `SELECT aws_lambda("`+home.FunctionARN("f")+`", {"x": a}).x AS back, get_registry_data("DescribeThing", "t1", "role").attributes.site AS site FROM 'in'`, nil, republishTo("out"))
	h.offer(home, "in", `{"a":1}`)
	h.await(t, "the answer", func() bool { return len(h.on("out")) == 1 })
	if got, want := string(h.on("out")[0].Payload), `{"back":1,"site":"north"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	h.mu.Lock()
	h.failing = errors.New("broken")
	h.mu.Unlock()
	h.offer(home, "in", `{"a":1}`)
	h.await(t, "the answer without the function", func() bool { return len(h.on("out")) == 2 })
	if got, want := string(h.on("out")[1].Payload), `{"site":"north"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	h.await(t, "the problem to be counted", func() bool { return h.Counters().Problems > 0 })
}

// TestARuleThatDoesNothingShowsInTheCounters ensures that they tell a rule whose FROM
// doesn't match, or that is disabled, from one whose WHERE isn't true, and that
// nobody else hears of it. The rules of the other tenant would take the messages.
func TestARuleThatDoesNothingShowsInTheCounters(t *testing.T) {
	h := open(t, func(o *rules.Options) { o.Workers = 1 }) // one message after the other
	onError := republishTo("errors")
	for _, tenant := range []imprint.Tenant{home, other} {
		from, where := "a/#", "n > 5"
		if tenant == other {
			from, where = "#", "n > 0"
		}
		h.put(tenant, "from", "SELECT n FROM '"+from+"'", &onError, republishTo("from"))
		h.put(tenant, "where", "SELECT n FROM 'a' WHERE "+where, &onError, republishTo("where"))
		h.update(func(tx imprint.Tx) error {
			return tx.PutTopicRule(imprint.TopicRule{Tenant: tenant, Name: "off", SQL: "SELECT n FROM 'a'", SQLVersion: "2016-03-23", Disabled: tenant == home,
				Actions: []imprint.RuleAction{republishTo("off")}, Revision: "r", CreatedAt: time.Now(), ModifiedAt: time.Now()})
		})
	}
	h.offer(home, "a", `{"n":1}`)
	h.offer(home, "a", `{"n":6}`)
	h.await(t, "the message of WHERE's rule", func() bool { return len(h.on("where")) == 1 })
	if got := h.Counters(); got.Matched != 2 || got.Selected != 1 || len(h.messages) != 1 {
		t.Errorf("got %d matches, %d selections and the messages %+v; want two matches of WHERE's rule and one selection", got.Matched, got.Selected, h.messages)
	}
	h.offer(other, "a", `{"n":1}`)
	h.await(t, "the messages of the other tenant", func() bool { return len(h.on("from")) == 1 && len(h.on("where")) == 2 && len(h.on("off")) == 1 })
	if got := h.Counters(); got.Matched != 5 || got.Selected != 4 || len(h.messages) != 4 {
		t.Errorf("got %d matches, %d selections and %d messages, want 5, 4 and 4", got.Matched, got.Selected, len(h.messages))
	}
}
