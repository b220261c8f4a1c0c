package broker

import (
	"context"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/trace"
)

// Requests are messages that clients publish to topics of the service, and that
// it answers on topics below: no subscriber gets them. An answer goes to the
// connection that asked and to nobody else, because it may hold a private key: it
// takes no part in routing, and it is in no queue but the memory of that
// connection.

// Reserved answers requests. Its methods may be called concurrently.
type Reserved interface {
	// Answers tells whether requests are published to a topic.
	Answers(topic string) bool
	// Answer does what a request asks for. The context ends with the connection.
	Answer(ctx context.Context, r Request) Answer
	// Refuse answers a request that isn't done, because of why. It has no payload.
	Refuse(r Request, why error) Answer
}

// Request is a message to a topic of the service.
type Request struct {
	Tenant      imprint.Tenant
	Topic       string
	Payload     []byte                // the receiver's own
	Certificate imprint.CertificateID // of the connection; empty: an operator's
	ClientID    imprint.ClientID
	Address     netip.Addr
	Rec         *trace.Recorder // of the connection
}

// Answer is a message to the connection that asked. Its payload is overwritten
// once it was handed over.
type Answer struct {
	Topic   string
	Payload []byte
	Refused imprint.Code // why the request was refused, for the counts; empty: it wasn't
	Says    string       // the refusal as the client reads it, for the trace
}

// requests are those of one connection.
type requests struct {
	rate    bucket // the connection's reader's
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	count   atomic.Int64
}

// answers tells whether clients may publish to a topic of the service.
func (b *Broker) answers(topic string) bool {
	return b.opts.Reserved != nil && b.opts.Reserved.Answers(topic)
}

// request takes a message to a topic of the service. PUBACK says that it came,
// and nothing about what comes of it. It goes with the answer, in one write, unless
// that takes longer than Options.RequestPuback. RETAIN has no meaning there.
func (c *connection) request(ctx context.Context, topic string, packet *mqtt.Publish) {
	if c.requests == nil {
		c.requests = &requests{}
		c.requests.ctx, c.requests.cancel = context.WithCancel(ctx)
	}
	r := Request{
		Tenant: c.realm.tenant, Topic: topic,
		Certificate: c.certificate, ClientID: c.clientID, Address: c.peer.Address, Rec: c.peer.Rec,
	}
	err := c.startRequest()
	if err != nil {
		c.broker.count.requestsThrottled.Add(1)
		c.refused("request", err)
		writes := c.respond(ctx, c.broker.opts.Reserved.Refuse(r, err), func() {
			if packet.QoS == 1 {
				c.acknowledge(packet.PacketID, mqtt.Success, nil)
			}
		})
		if writes {
			c.write(true)
		}
		return
	}
	c.broker.count.requests.Add(1)
	r.Payload = append([]byte(nil), packet.Payload...)
	acknowledge := func() {}
	if packet.QoS == 1 {
		acknowledge = c.acknowledgeSoon(packet.PacketID)
	}
	c.requests.running.Go(func() {
		a := c.broker.answer(c.requests.ctx, r)
		if a.Refused != "" {
			c.broker.count.refuse(a.Refused)
		}
		writes := c.respond(c.requests.ctx, a, acknowledge)
		// First, as a client that doesn't read would keep the place from others.
		c.requestEnded()
		if writes {
			c.write(true)
		}
	})
}

// acknowledgeSoon acknowledges a request after Options.RequestPuback, or when the function that it
// returns is called.
func (c *connection) acknowledgeSoon(id uint16) (now func()) {
	c.awaitStore(id)
	timer := time.AfterFunc(c.broker.opts.RequestPuback, func() { c.answerStored(id, nil) })
	return func() {
		// Otherwise the client may have used the identifier again already.
		if timer.Stop() {
			c.answerStored(id, nil)
		}
	}
}

// startRequest counts a request, unless as many as allowed are under way or they
// come too quickly. Errors: CodeThrottled.
func (c *connection) startRequest() error {
	perSecond := c.broker.opts.RequestRate
	if perSecond > 0 && !c.requests.rate.take(c.broker.clock(), perSecond) {
		return imprint.Errorf(imprint.CodeThrottled, "the connection made more than %d requests a second", perSecond).
			WithHint("Wait for the answer to one request before the next.")
	}
	own := c.requests.count.Add(1)
	if own <= int64(c.broker.opts.MaxRequestsPerConnection) && c.broker.requesting.begin(c.realm.tenant.Account, c.broker.opts.MaxRequests) {
		return nil
	}
	c.requests.count.Add(-1)
	return imprint.Errorf(imprint.CodeThrottled, "too many requests are under way").
		WithHint("Wait for the answer to one request before the next.")
}

func (c *connection) requestEnded() {
	c.requests.count.Add(-1)
	c.broker.requesting.end(c.realm.tenant.Account)
}

// requesting counts the requests under way of all connections.
type requesting struct {
	mu       sync.Mutex
	all      int
	accounts map[imprint.AccountID]int
}

// begin counts a request, unless its account has as many as it leaves to others.
func (r *requesting) begin(account imprint.AccountID, most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !fair.MayTake(r.accounts[account], most-r.all) {
		return false
	}
	r.accounts[account]++
	r.all++
	return true
}

func (r *requesting) end(account imprint.AccountID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all--
	r.accounts[account]--
	if r.accounts[account] == 0 {
		delete(r.accounts, account)
	}
}

// answer keeps a failure of a handler from ending the server.
func (b *Broker) answer(ctx context.Context, r Request) (a Answer) {
	defer func() {
		reason := recover()
		if reason == nil {
			return
		}
		b.opts.Logger.Error("a request failed", "tenant", r.Tenant.String(), "topic", r.Topic, "panic", reason, "stack", string(debug.Stack()))
		err := imprint.Errorf(imprint.CodeInternal, "the request failed")
		r.Rec.Fail("request", err)
		a = b.opts.Reserved.Refuse(r, err)
	}()
	return b.opts.Reserved.Answer(ctx, r)
}

// respond gives an answer to this connection's client, if it has subscribed to
// its topic and may receive it, behind the request's PUBACK. It reports that the caller
// is to write what there is.
func (c *connection) respond(ctx context.Context, a Answer, acknowledge func()) (writes bool) {
	defer clear(a.Payload)
	how, wanted := c.wantsAnswer(ctx, a.Topic)
	writes = c.takeWriter()
	acknowledge()
	if wanted {
		c.sendAnswer(&a, how)
	}
	return writes
}

// wantsAnswer says how an answer may be sent, and records why it may not.
func (c *connection) wantsAnswer(ctx context.Context, topic string) (delivery, bool) {
	if c.ended.Load() != nil {
		return delivery{}, false
	}
	qos, subscribed := c.session.listens(topic)
	if !subscribed {
		c.refused("answer", imprint.Errorf(imprint.CodeAnswerUnread, "the answer on %s isn't sent: the client hasn't subscribed to it", topic).
			WithHint("Subscribe to %s before the request.", topic))
		return delivery{}, false
	}
	bound := c.bound.Load() // before the decision: what comes after it decides anew
	if !c.mayReceive(ctx, c.realm, topic, c.broker.clock()) {
		// What was decided about the topic is a step of the attempt, with the fix.
		c.refused("answer", imprint.Errorf(imprint.CodeReceiveDenied, "the answer on %s isn't sent: no policy allows iot:Receive", topic).
			WithHint("Allow iot:Receive on %s%s", c.realm.topicARN, topic))
		return delivery{}, false
	}
	return delivery{qos: min(1, qos), bound: bound}, true
}

func (c *connection) sendAnswer(a *Answer, how delivery) {
	m := outgoing{Publish: mqtt.Publish{QoS: how.qos, Topic: []byte(a.Topic), Payload: a.Payload}}
	_, taken := c.session.deliver(c, &m, how)
	clear(m.scratch)
	switch {
	case !taken:
		c.peer.Rec.Info("answer", "not sent: the connection is over, or takes no more")
	case a.Refused != "":
		c.peer.Rec.InfoWith("answer", "sent "+a.Says, "the refusal was sent on %s", a.Topic)
	}
}

// listens gives the QoS of the session's best subscription to a topic. Shared
// ones don't count: their messages may be another's.
func (s *session) listens(topic string) (mqtt.QoS, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	qos, found := mqtt.QoS(0), false
	for _, sub := range s.subscriptions {
		if sub.share == "" && s.broker.match(sub.inner, topic) {
			qos, found = max(qos, sub.qos), true
		}
	}
	return qos, found
}

// endRequests ends the connection's requests and waits for them. What they
// haven't stored by then isn't done.
func (c *connection) endRequests() {
	if c.requests == nil {
		return
	}
	c.requests.cancel()
	c.requests.running.Wait()
}
