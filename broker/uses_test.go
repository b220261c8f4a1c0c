package broker_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// decisions gives what policies decided in a client's attempt, once that has ended.
func (c *client) decisions() []string {
	c.Helper()
	var all []string
	for _, s := range c.steps() {
		if s.Action != "" {
			all = append(all, fmt.Sprintf("%s %s %s %s", s.Name, s.Verdict, s.Action, s.Resource))
		}
	}
	return all
}

// steps ends a client's connection and gives the steps of its attempt.
func (c *client) steps() []imprint.Step {
	c.Helper()
	_ = c.conn.Close()
	var a imprint.Attempt
	c.eventually("the attempt ended", func() bool {
		c.must(c.log.Flush(context.Background()))
		c.must(c.store.View(context.Background(), func(tx imprint.ReadTx) error {
			var err error
			a, err = tx.Attempt(c.attempt)
			if imprint.CodeOf(err) == imprint.CodeNotFound {
				return nil
			}
			return err
		}))
		return !a.EndedAt.IsZero()
	})
	return a.Steps
}

// TestTheTraceTellsWhatPoliciesAllowedAndDenied ensures that a connection's end
// leaves in the trace what it used, each once, and what it was denied: the least
// policy is made of both.
func TestTheTraceTellsWhatPoliciesAllowedAndDenied(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{DeniedSubscribeGetsReason: true})
	arn := first.ARN("")
	id := h.register(first, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":["`+
		arn+`client/*","`+arn+`topic/a/*","`+arn+`topicfilter/a/*"]}]}`)
	connect := connectAs("dev")
	connect.Will = &mqtt.Will{Topic: "a/will", Retain: true}
	c := h.on(first, id, mqtt.V5, connect)
	for n := range 3 {
		for _, topic := range []string{"a/1", "a/2", "b"} {
			c.send(&mqtt.Publish{Topic: []byte(topic), QoS: 1, PacketID: 1, Retain: n == 2 && topic == "a/1"})
			expect[*mqtt.Ack](c)
		}
	}
	c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a/#"}, {Filter: "b/#"}}})
	expect[*mqtt.Suback](c)
	want := []string{
		"publish failed iot:Publish " + arn + "topic/b",
		"policy.subscribe failed iot:Subscribe " + arn + "topicfilter/b/#",
		"policy.publish ok iot:Publish " + arn + "topic/a/will", "policy.retain ok iot:RetainPublish " + arn + "topic/a/will",
		"policy.publish ok iot:Publish " + arn + "topic/a/1", "policy.publish ok iot:Publish " + arn + "topic/a/2",
		"policy.retain ok iot:RetainPublish " + arn + "topic/a/1", "policy.subscribe ok iot:Subscribe " + arn + "topicfilter/a/#",
	}
	if diff := cmp.Diff(want, c.decisions()); diff != "" {
		t.Errorf("decisions (-want +got):\n%s", diff)
	}
	denied := h.door(first, h.register(first, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"iot:*","Resource":"*"}]}`), mqtt.V5)
	denied.send(connectAs("dev"))
	expect[*mqtt.Connack](denied)
	if diff := cmp.Diff([]string{"policy.connect failed iot:Connect " + arn + "client/dev"}, denied.decisions()); diff != "" {
		t.Errorf("decisions on CONNECT (-want +got):\n%s", diff)
	}
}

// TestEachDenialHasItsWords ensures that a device that is denied one thing over and over
// is told of another in words of its own, and that of many different ones at once not all
// are looked into.
func TestEachDenialHasItsWords(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	arn := first.ARN("")
	c := h.on(first, h.register(first, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`), mqtt.V5, connectAs("dev"))
	publish := func(topic string) {
		t.Helper()
		c.send(&mqtt.Publish{Topic: []byte(topic), QoS: 1, PacketID: 1})
		expect[*mqtt.Ack](c)
	}
	for range 100 {
		publish("a")
	}
	publish("b")
	for n := range 60 {
		publish(fmt.Sprintf("c/%d", n))
	}
	publish("a")
	steps := map[string]imprint.Step{}
	failed := 0
	for _, s := range c.steps() {
		if s.Verdict == imprint.VerdictFailed {
			steps[s.Resource] = s
			failed += 1 + s.Repeats
		}
	}
	a, b := steps[arn+"topic/a"], steps[arn+"topic/b"]
	if a.Repeats != 100 || !strings.Contains(b.Fix, "attached policies") || !strings.Contains(b.Detail, "topic/b") {
		t.Errorf("the steps are %+v and %+v", a, b)
	}
	// The last one is that the connection was closed.
	if failed != 163 || len(steps) > 34 {
		t.Errorf("%d steps count %d failures, want 163", len(steps), failed)
	}
}

// TestAllowedTopicsAreBounded ensures that a connection that uses ever new topics
// leaves a bounded trace.
func TestAllowedTopicsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	c := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("dev"))
	for n := range 100 {
		c.send(&mqtt.Publish{Topic: fmt.Append(nil, "t/", n), QoS: 1, PacketID: 1})
		expect[*mqtt.Ack](c)
	}
	if got := len(c.decisions()); got != 16 {
		t.Errorf("got %d decisions, want 16", got)
	}
}

// TestWordsForOneTopicHoldUpNoOther has the record of a connection be busy when a message
// is kept from it: who has another message of a known topic for it goes on.
func TestWordsForOneTopicHoldUpNoOther(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	rec := h.log.Begin("192.0.2.44:5000")
	kept := broker.NewKept(rec)
	h.broker.Keep(kept, "a")
	busy, letGo := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer close(letGo)
	all.Go(func() {
		rec.Describe(func(*imprint.Attempt) {
			close(busy)
			<-letGo
		})
	})
	<-busy
	all.Go(func() { h.broker.Keep(kept, "b") })
	h.eventually("b is known", func() bool { return kept.Knows("b") })
	went := make(chan struct{})
	all.Go(func() {
		h.broker.Keep(kept, "a", "b")
		close(went)
	})
	select {
	case <-went:
	case <-time.After(patience):
		t.Error("a message of a known topic waits for the words of another one")
	}
}
