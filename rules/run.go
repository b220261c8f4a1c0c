package rules

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rulesql"
)

// runPatience bounds the run of one rule for one message: calls of functions in
// statements take up to two seconds each.
const runPatience = time.Minute

// run is one rule meeting one message.
type run struct {
	tenant     *tenant
	rule       *rule
	message    *imprint.RuleMessage
	snapshot   *snapshot
	sql        *rulesql.Message
	evaluation *rulesql.Evaluation
	payload    []byte
	unchanged  bool // the payload is the message's own, JSON or not
	// again says that this is the error action of a delivery that was given up.
	again bool
}

// failure is an action that failed, as the error action's message tells it.
type failure struct {
	Action   string `json:"failedAction"`
	Resource string `json:"failedResource"`
	Message  string `json:"errorMessage"`

	err error
}

// drop counts a message that the rules don't have, unless its publisher hears of it and
// counts by itself.
func (e *Engine) drop(m *imprint.RuleMessage) {
	if m.Done == nil {
		e.count.dropped.Add(1)
	}
}

// run runs a message's rules, and tells who waits for that.
func (e *Engine) run(ctx context.Context, t *tenant, w work) {
	var failed error
	for _, r := range w.rules {
		bounded, cancel := context.WithTimeout(ctx, runPatience)
		failed = errors.Join(failed, e.runRule(bounded, t, w, r))
		cancel()
	}
	if w.message.Done != nil {
		w.message.Done(failed)
	}
}

// runRule runs one rule. The error is the store's, which kept an action from
// being handed over.
func (e *Engine) runRule(ctx context.Context, t *tenant, w work, r *rule) error {
	e.count.matched.Add(1)
	u := e.newRun(t, r, w.message, w.snapshot)
	result, err := e.evaluate(ctx, u)
	defer func() { e.tellProblems(u) }()
	if err != nil {
		e.count.errors.Add(1)
		failed := []failure{{Action: "RuleEvaluation", Resource: r.record.ARN(), Message: err.Error(), err: imprint.Errorf(imprint.CodeRuleAction, "%w", err)}}
		e.fail(ctx, u, failed)
		return nil
	}
	if !result.Matched {
		return nil
	}
	e.count.selected.Add(1)
	u.payload, u.unchanged = result.Payload, result.Unchanged
	var failures []failure
	var stored error
	for _, a := range r.actions {
		resource, err := e.act(ctx, u, a)
		if err == nil {
			e.step(u, imprint.VerdictOK, nil, fmt.Sprintf("rule %s: %s to %s", r.record.Name, a.kind, resource))
			continue
		}
		if code := imprint.CodeOf(err); code == imprint.CodeInternal || code == imprint.CodeUnavailable {
			stored = errors.Join(stored, err)
		}
		e.count.of(a.kind).failed.Add(1)
		failures = append(failures, failure{Action: actionName(a.kind), Resource: resource, Message: err.Error(), err: err})
	}
	if stored != nil && u.message.Done != nil {
		// Whoever waits comes again with the message: that isn't the end yet.
		return stored
	}
	e.fail(ctx, u, failures)
	return nil
}

func (e *Engine) evaluate(ctx context.Context, u *run) (result rulesql.Result, err error) {
	defer e.recovered(u, &err)
	return u.evaluation.Select(ctx)
}

// recovered makes an error of a panic, when it is deferred: else a message ended the server,
// and a stored event did so at each start again.
func (e *Engine) recovered(u *run, err *error) {
	value := recover()
	if value == nil {
		return
	}
	e.opts.Logger.Error("a topic rule panicked", "tenant", u.tenant.name.String(), "rule", u.rule.record.Name,
		"topic", imprint.Excerpt(u.message.Topic), "panic", value, "stack", string(debug.Stack()))
	*err = imprint.Errorf(imprint.CodeRuleAction, "an internal error, which the server's log is about")
}

func (e *Engine) newRun(t *tenant, r *rule, m *imprint.RuleMessage, s *snapshot) *run {
	u := &run{tenant: t, rule: r, message: m, snapshot: s}
	u.sql = &rulesql.Message{
		Topic: m.Topic, Payload: m.Payload, ClientID: string(m.ClientID), Principal: m.Principal, SourceIP: m.SourceIP,
		AccountID: string(t.name.Account), Time: e.clock(),
		Properties: rulesql.Properties{
			HasFormat: m.Properties.HasFormat, UTF8: m.Properties.UTF8, ContentType: m.Properties.ContentType,
			ResponseTopic: m.Properties.ResponseTopic, Correlation: m.Properties.Correlation,
		},
	}
	if m.MQTT {
		u.sql.TraceID = uuid.NewString()
	}
	for _, p := range m.Properties.User {
		u.sql.Properties.User = append(u.sql.Properties.User, rulesql.UserProperty{Name: p.Key, Value: p.Value})
	}
	u.evaluation = rulesql.NewEvaluation(r.statement, u.sql, e.outside(u))
	return u
}

// outside is what a rule's statement may ask for.
func (e *Engine) outside(u *run) *rulesql.Outside {
	return &rulesql.Outside{
		Random:   rand.Reader,
		Location: e.zones.location,
		Lambda: func(ctx context.Context, arn string, payload []byte) ([]byte, error) {
			result, err := e.opts.Functions.Invoke(ctx, imprint.FunctionCall{
				Tenant: u.tenant.name, ARN: arn, Payload: payload, Timeout: lambdaTimeout, Principal: servicePrincipal,
				SourceARN: u.rule.record.ARN(), AttemptID: u.message.AttemptID,
			})
			return result.Payload, err
		},
		RegistryData: func(ctx context.Context, operation, thing, _ string) ([]byte, error) {
			return e.registryData(ctx, u.tenant.name, operation, thing)
		},
	}
}

// lambdaTimeout is how long aws_lambda() waits (developer guide, "Functions").
const lambdaTimeout = 2 * time.Second

// fail tells of failed actions: the log, the trace, and the rule's error action.
func (e *Engine) fail(ctx context.Context, u *run, failures []failure) {
	if len(failures) == 0 {
		return
	}
	for _, f := range failures {
		e.logFailure(u, f)
		e.step(u, imprint.VerdictFailed, f.err, fmt.Sprintf("rule %s: %s to %s: %s", u.rule.record.Name, f.Action, f.Resource, f.Message))
	}
	if u.rule.onError == nil {
		return
	}
	payload, err := u.errorMessage(failures)
	if err != nil {
		e.opts.Logger.Error("couldn't encode the message of an error action", "rule", u.rule.record.Name, "error", err)
		return
	}
	onError := *u
	onError.payload, onError.unchanged, onError.again = payload, false, true
	resource, err := e.act(ctx, &onError, u.rule.onError)
	if err != nil {
		e.count.of(u.rule.onError.kind).failed.Add(1)
		e.logFailure(u, failure{Action: "ErrorAction/" + actionName(u.rule.onError.kind), Resource: resource, Message: err.Error(), err: err})
	}
}

// errorMessage is the payload of the error action (developer guide, "Error action
// message format").
func (u *run) errorMessage(failures []failure) ([]byte, error) {
	client := string(u.message.ClientID)
	if client == "" {
		client = "N/A"
	}
	trace := u.sql.TraceID
	if trace == "" {
		trace = uuid.NewString()
	}
	return json.Marshal(struct {
		Rule     string    `json:"ruleName"`
		Topic    string    `json:"topic"`
		Trace    string    `json:"cloudwatchTraceId"`
		Client   string    `json:"clientId"`
		Payload  []byte    `json:"base64OriginalPayload"`
		Failures []failure `json:"failures"`
	}{string(u.rule.record.Name), u.message.Topic, trace, client, append([]byte{}, u.message.Payload...), failures})
}

func (e *Engine) logFailure(u *run, f failure) {
	if !u.rule.logs.Allow() {
		e.count.unlogged.Add(1)
		return
	}
	e.opts.Logger.Warn("an action of a topic rule failed", "tenant", u.tenant.name.String(), "rule", u.rule.record.Name, "action", f.Action,
		"resource", imprint.Excerpt(f.Resource), "topic", imprint.Excerpt(u.message.Topic), "client", u.message.ClientID,
		"error", f.Message, "fix", imprint.HintOf(f.err))
}

// tellProblems logs what was Undefined in a statement because something failed.
func (e *Engine) tellProblems(u *run) {
	problems, all := u.evaluation.Problems()
	if all == 0 {
		return
	}
	e.count.problems.Add(uint64(all))
	if !u.rule.logs.Allow() {
		e.count.unlogged.Add(1)
		return
	}
	e.opts.Logger.Warn("something in the statement of a topic rule is Undefined", "tenant", u.tenant.name.String(), "rule", u.rule.record.Name,
		"topic", imprint.Excerpt(u.message.Topic), "first", problems[0].String(), "all", all)
	e.step(u, imprint.VerdictInfo, nil, fmt.Sprintf("rule %s: %s", u.rule.record.Name, problems[0].String()))
}

// step writes into the attempt that caused the message, if there is one.
func (e *Engine) step(u *run, verdict imprint.Verdict, err error, detail string) {
	if u.message.AttemptID == "" || e.opts.Attempts == nil {
		return
	}
	s := imprint.Step{At: e.clock(), Name: "rule", Verdict: verdict, Detail: detail}
	if verdict == imprint.VerdictFailed {
		s.Code, s.Fix = imprint.CodeOf(err), imprint.HintOf(err)
	}
	e.opts.Attempts.Append(u.message.AttemptID, s)
}

// actionName is what error messages call a kind of action.
func actionName(kind ActionKind) string {
	switch kind {
	case ActionLambda:
		return "LambdaAction"
	case ActionRepublish:
		return "RepublishAction"
	case ActionHTTP:
		return "HttpAction"
	case ActionFirehose:
		return "FirehoseAction"
	}
	return "KafkaAction"
}
