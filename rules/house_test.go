package rules_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/rules"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen.
const patience = 2 * time.Minute

var (
	home  = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	other = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
)

// published is a message that a rule republished.
type published struct {
	tenant imprint.Tenant
	imprint.RuleMessage
}

// outside stands at the other side of the engine: what it republishes and what it
// invokes comes here.
type outside struct {
	mu       sync.Mutex
	messages []published
	calls    []imprint.FunctionCall
	failing  error // of functions
	bursting bool  // functions panic
	more     chan struct{}
	engine   *rules.Engine
	loops    bool // what is republished is offered again, as the broker does
}

func (o *outside) told() {
	close(o.more)
	o.more = make(chan struct{})
}

// Republish implements imprint.Republisher.
func (o *outside) Republish(ctx context.Context, t imprint.Tenant, m imprint.RuleMessage) error {
	o.mu.Lock()
	m.Payload = bytes.Clone(m.Payload)
	o.messages = append(o.messages, published{t, m})
	loops := o.loops
	o.told()
	o.mu.Unlock()
	if loops {
		return o.engine.Tenant(t).Offer(ctx, &m)
	}
	return nil
}

// Invoke implements imprint.Functions: it answers with its payload.
func (o *outside) Invoke(_ context.Context, call imprint.FunctionCall) (imprint.FunctionResult, error) {
	err := o.InvokeLater(context.Background(), call)
	return imprint.FunctionResult{Payload: call.Payload}, err
}

// InvokeLater implements imprint.Functions.
func (o *outside) InvokeLater(_ context.Context, call imprint.FunctionCall) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, call)
	o.told()
	if o.bursting {
		panic("a bug in functions")
	}
	return o.failing
}

// await waits until ok holds; it is asked with the lock held. What the engine counts, it
// counts after it came here: nothing tells of that.
func (o *outside) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		o.mu.Lock()
		done, more := ok(), o.more
		o.mu.Unlock()
		if done {
			return
		}
		select {
		case <-more:
		case <-ticker.C:
		case <-timer.C:
			t.Fatalf("waited for %s; got messages %+v, calls %+v", what, o.messages, o.calls)
		}
	}
}

// on gives the messages of a topic. The caller holds the lock.
func (o *outside) on(topic string) []published {
	var found []published
	for _, m := range o.messages {
		if m.Topic == topic {
			found = append(found, m)
		}
	}
	return found
}

// house is an engine on a real store.
type house struct {
	*rules.Engine
	*outside
	store imprint.Store
	dir   string
	opts  rules.Options
	t     *testing.T
}

func open(t *testing.T, change func(*rules.Options)) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), outside: &outside{more: make(chan struct{})}}
	h.opts = rules.Options{Functions: h.outside, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), RoomPatience: 50 * time.Millisecond}
	if change != nil {
		change(&h.opts)
	}
	h.store = registrytest.Open(t, filepath.Join(h.dir, "registry.db"))
	h.begin()
	t.Cleanup(h.end)
	return h
}

func (h *house) begin() {
	h.Engine = rules.New(h.store, time.Now, h.opts)
	h.outside.engine = h.Engine
	h.Start(h.outside)
}

func (h *house) end() {
	err := h.Close()
	if err != nil {
		h.t.Error(err)
	}
}

func (h *house) update(fn func(imprint.Tx) error) {
	h.t.Helper()
	err := h.store.Update(h.t.Context(), fn)
	if err != nil {
		h.t.Fatal(err)
	}
}

// until asks ok again and again until it holds.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-timer.C:
			t.Fatalf("waited for %s", what)
		}
	}
}

// view reads the store.
func (h *house) view(fn func(imprint.ReadTx) error) {
	h.t.Helper()
	err := h.store.View(h.t.Context(), fn)
	if err != nil {
		h.t.Fatal(err)
	}
}

// owed counts the deliveries of a tenant that are stored.
func (h *house) owed(tenant imprint.Tenant) (n int) {
	h.t.Helper()
	h.view(func(tx imprint.ReadTx) (err error) {
		n, err = tx.RuleDeliveryUnits(tenant)
		return err
	})
	return n
}

// put stores a rule that must be valid.
func (h *house) put(tenant imprint.Tenant, name, sql string, onError *imprint.RuleAction, actions ...imprint.RuleAction) {
	h.t.Helper()
	r := imprint.TopicRule{Tenant: tenant, Name: imprint.RuleName(name), SQL: sql, SQLVersion: "2016-03-23", Actions: actions, ErrorAction: onError,
		Revision: name + sql, CreatedAt: time.Now(), ModifiedAt: time.Now()}
	_, err := rules.Check(r, h.Offered())
	if err != nil {
		h.t.Fatal(err)
	}
	h.update(func(tx imprint.Tx) error { return tx.PutTopicRule(r) })
}

func (h *house) offer(tenant imprint.Tenant, topic, payload string) {
	h.t.Helper()
	err := h.Tenant(tenant).Offer(h.t.Context(), &imprint.RuleMessage{
		Topic: topic, Payload: []byte(payload), ClientID: "device-1", Principal: "principal", MQTT: true, QoS: 1, Wait: true,
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func republishTo(topic string) imprint.RuleAction {
	return imprint.RuleAction{Republish: &imprint.RepublishRuleAction{RoleARN: "arn:aws:iam::000000000000:role/r", Topic: topic, QoS: 1}}
}

func invoke(name string) imprint.RuleAction {
	return imprint.RuleAction{Lambda: &imprint.LambdaRuleAction{FunctionARN: home.FunctionARN(imprint.FunctionName(name))}}
}

// errorMessage is the payload of an error action.
type errorMessage struct {
	Rule     string `json:"ruleName"`
	Topic    string `json:"topic"`
	Trace    string `json:"cloudwatchTraceId"`
	Client   string `json:"clientId"`
	Payload  []byte `json:"base64OriginalPayload"`
	Failures []struct {
		Action   string `json:"failedAction"`
		Resource string `json:"failedResource"`
		Message  string `json:"errorMessage"`
	} `json:"failures"`
}

func readError(t *testing.T, payload []byte) errorMessage {
	t.Helper()
	var m errorMessage
	err := json.Unmarshal(payload, &m)
	if err != nil {
		t.Fatalf("the error action's message isn't JSON: %v: %s", err, payload)
	}
	return m
}
