package broker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// modelMessage is something that was published.
type modelMessage struct {
	topic, payload string
	qos            mqtt.QoS
	retain         bool
	expires        time.Time
}

func (m *modelMessage) over(now time.Time) bool { return !m.expires.IsZero() && !m.expires.After(now) }

// modelEntry is a QoS 1 message that a session hasn't acknowledged.
type modelEntry struct {
	*modelMessage
	flags    []bool // what RETAIN may be
	sent     bool   // to this session, on any connection
	inflight bool   // on the present connection
	id       uint16
	from     *modelGroup // it came by a shared subscription
	// unsure: a connection whose policy forbids it began to read the queue, and may
	// have ended before it came to this one.
	unsure bool
}

type modelSubscription struct {
	qos                mqtt.QoS
	noLocal, published bool
	group              *modelGroup
}

// modelSession is what MQTT calls the session of a client.
type modelSession struct {
	version   mqtt.Version
	lasting   bool
	expiry    time.Duration
	expiresAt time.Time
	subs      map[string]*modelSubscription
	queue     []*modelEntry
	groups    map[*modelGroup]bool // that it is or was a member of
	will      *modelMessage        // waits for willAt
	willAt    time.Time
}

// modelGroup is a shared subscription. Floating messages were published to it and
// no member has been seen to get them; those in losable may never be.
type modelGroup struct {
	inner    string
	floating map[string]*modelMessage
	losable  map[string]bool
}

// modelClient is one client id in one tenant.
type modelClient struct {
	tenant  int
	name    string
	session *modelSession

	// Of the present connection; live is nil without one.
	live    *client
	cert    int
	window  int
	will    *modelMessage
	delay   time.Duration
	aliases map[uint16]string
	inbox   []*mqtt.Publish
	direct  []*modelEntry // QoS 0 messages that are to come
	loaded  bool          // what the session had waiting has been decided on
}

// modelTB lets a house report to rapid.
type modelTB struct {
	testing.TB
	r        *rapid.T
	cleanups []func()
}

func (t *modelTB) Helper()                   { t.r.Helper() }
func (t *modelTB) Fatal(args ...any)         { t.r.Fatal(args...) }
func (t *modelTB) Fatalf(f string, a ...any) { t.r.Fatalf(f, a...) }
func (t *modelTB) Error(args ...any)         { t.r.Error(args...) }
func (t *modelTB) Errorf(f string, a ...any) { t.r.Errorf(f, a...) }
func (t *modelTB) Logf(f string, a ...any)   { t.r.Logf(f, a...) }
func (t *modelTB) Cleanup(f func())          { t.cleanups = append(t.cleanups, f) }
func (t *modelTB) clean() {
	for len(t.cleanups) > 0 {
		last := t.cleanups[len(t.cleanups)-1]
		t.cleanups = t.cleanups[:len(t.cleanups)-1]
		last()
	}
}

// model is what the broker is compared with.
type model struct {
	*house
	tb       *modelTB
	r        *rapid.T
	opts     broker.Options
	tenants  [2]imprint.Tenant
	certs    [2][2]imprint.CertificateID
	inactive [2][2]bool
	deaf     [2][2]bool // its policy allows no message on topic b
	clients  []*modelClient
	groups   [2]map[string]*modelGroup
	retained [2]map[string]*modelMessage
	serial   int
}

const deafToB = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"},` +
	`{"Effect":"Deny","Action":"iot:Receive","Resource":"arn:aws:iot:*:*:topic/b"}]}`

var (
	modelTopics  = []string{"a", "b", "c/d", "r"}
	modelFilters = []string{"a", "b", "r", "+", "c/#", "$share/g/a", "$share/h/c/+"}
)

// refresh begins anew on the same store.
func (m *model) refresh() {
	m.house = newHouseAt(m.tb, m.opts, m.store, m.still)
}

func (m *model) session(c *modelClient) *modelSession {
	s := c.session
	if s != nil && c.live == nil && !s.expiresAt.After(m.now()) {
		return nil
	}
	return s
}

func (m *model) count(of func(*modelClient) bool) int64 {
	n := int64(0)
	for _, c := range m.clients {
		if of(c) {
			n++
		}
	}
	return n
}

// await waits until the broker has noticed what happened to connections and
// sessions.
func (m *model) await() {
	m.Helper()
	m.eventually("connections and stored sessions as in the model", func() bool {
		got := m.broker.Counters()
		return got.Connected == m.count(func(c *modelClient) bool { return c.live != nil }) &&
			got.Stored == m.count(func(c *modelClient) bool { return c.session != nil && c.session.lasting })
	})
}

// read gives the next packet that isn't a message.
func (m *model) read(c *modelClient) mqtt.Packet {
	m.Helper()
	for {
		p := m.packet(c)
		if p == nil {
			m.Fatalf("%d/%s: the connection ended: %s", c.tenant, c.name, m.steps(c))
		}
		if got, ok := p.(*mqtt.Publish); ok {
			c.inbox = append(c.inbox, got)
			continue
		}
		return p
	}
}

// packet gives the next packet, nil at the end.
func (m *model) packet(c *modelClient) mqtt.Packet {
	m.Helper()
	p, err := c.live.receive()
	if err != nil {
		if strings.Contains(err.Error(), "timeout") {
			m.Fatalf("%s: nothing comes, want %v", c.name, m.wanted(c))
		}
		return nil
	}
	got, ok := p.(*mqtt.Publish)
	if ok && got.Properties.Has(mqtt.PropTopicAlias) {
		if len(got.Topic) > 0 {
			c.aliases[got.Properties.TopicAlias] = string(got.Topic)
		}
		got.Topic = []byte(c.aliases[got.Properties.TopicAlias])
	}
	return p
}

// next gives the message of the queue that is to come next; nil when the window
// is full or none waits.
func (m *model) next(c *modelClient) *modelEntry {
	if c.session == nil {
		return nil
	}
	inflight := 0
	for _, e := range c.session.queue {
		if e.inflight {
			inflight++
		}
	}
	if inflight >= c.window {
		return nil
	}
	s := c.session
	s.queue = slices.DeleteFunc(s.queue, func(e *modelEntry) bool { return !e.inflight && e.over(m.now()) })
	for at := 0; at < len(s.queue); at++ {
		e := s.queue[at]
		switch {
		case e.inflight || e.unsure:
		case m.keeps(c, e.topic):
			// Its policy has changed since: it is decided on when it is its turn.
			s.queue = slices.Delete(s.queue, at, at+1)
			at--
			if e.from != nil {
				e.from.floating[e.payload] = e.modelMessage
			}
		default:
			return e
		}
	}
	return nil
}

// steps tells what the trace knows of a connection that ended unexpectedly.
func (m *model) steps(c *modelClient) string {
	var text strings.Builder
	m.eventually("the trace has the connection", func() bool {
		m.must(m.log.Flush(context.Background()))
		return m.store.View(context.Background(), func(tx imprint.ReadTx) error {
			found, err := tx.Attempt(c.live.attempt)
			for _, step := range found.Steps {
				fmt.Fprintf(&text, "%s %s; ", step.Name, step.Detail)
			}
			return err
		}) == nil
	})
	return text.String()
}

func (m *model) wanted(c *modelClient) []string {
	var all []string
	for _, e := range c.direct {
		all = append(all, "QoS 0 "+e.topic+" "+e.payload)
	}
	if e := m.next(c); e != nil {
		all = append(all, fmt.Sprintf("QoS 1 %s %s DUP %t", e.topic, e.payload, e.sent))
	}
	return all
}

// take checks messages that came.
func (m *model) take(c *modelClient) {
	m.Helper()
	for _, got := range c.inbox {
		var want *modelEntry
		switch next := m.next(c); {
		case got.QoS == 0 && len(c.direct) > 0 && matchesEntry(c.direct[0], got):
			want, c.direct = c.direct[0], c.direct[1:]
		case got.QoS == 1 && next != nil && matchesEntry(next, got):
			want = next
		default:
			want = m.forbidden(c, got)
			if want == nil {
				want = m.floated(c, got)
			}
		}
		if want == nil {
			m.Fatalf("%d/%s: got %s %q, want %v", c.tenant, c.name, got.Detail(), got.Payload, m.wanted(c))
		}
		if !slices.Contains(want.flags, got.Retain) {
			m.Fatalf("%d/%s: got %s %q, want RETAIN %v", c.tenant, c.name, got.Detail(), got.Payload, want.flags)
		}
		if got.Dup != want.sent {
			m.Fatalf("%d/%s: got %s %q, want DUP %t", c.tenant, c.name, got.Detail(), got.Payload, want.sent)
		}
		m.checkExpiry(c, got, want)
		if got.QoS == 0 {
			continue
		}
		if want.sent && want.id != got.PacketID {
			m.Fatalf("%d/%s: got %s again, want packet id %d as before", c.tenant, c.name, got.Detail(), want.id)
		}
		want.sent, want.inflight, want.id = true, true, got.PacketID
		c.loaded = true
	}
	c.inbox = nil
}

func matchesEntry(e *modelEntry, got *mqtt.Publish) bool {
	return e.topic == string(got.Topic) && e.payload == string(got.Payload)
}

// checkExpiry wants a message to tell the time that it has left.
func (m *model) checkExpiry(c *modelClient, got *mqtt.Publish, want *modelEntry) {
	m.Helper()
	if c.session.version != mqtt.V5 {
		return
	}
	left := uint32(0)
	if !want.expires.IsZero() {
		left = uint32(want.expires.Sub(m.now()) / time.Second)
	}
	if want.over(m.now()) || got.Properties.MessageExpiry != left {
		m.Fatalf("%d/%s: got %s %q, want %d s left", c.tenant, c.name, got.Detail(), got.Payload, left)
	}
}

// forbidden finds a message that an earlier connection wasn't to get.
func (m *model) forbidden(c *modelClient, got *mqtt.Publish) *modelEntry {
	if c.session == nil || got.QoS == 0 || m.keeps(c, string(got.Topic)) {
		return nil
	}
	for _, e := range c.session.queue {
		if e.inflight {
			continue
		}
		if !e.unsure {
			return nil // it would have come before that one
		}
		if matchesEntry(e, got) {
			e.unsure = false
			return e
		}
	}
	return nil
}

// floated finds a message that came by a shared subscription.
func (m *model) floated(c *modelClient, got *mqtt.Publish) *modelEntry {
	if c.session == nil {
		return nil
	}
	for g := range c.session.groups {
		found := g.floating[string(got.Payload)]
		if found == nil || found.topic != string(got.Topic) || got.QoS > found.qos {
			continue
		}
		delete(g.floating, found.payload)
		e := &modelEntry{modelMessage: found, flags: []bool{false}, from: g}
		// It may have been on its way to the session's connection before.
		e.sent, e.id = got.Dup && c.session.lasting, got.PacketID
		if got.QoS == 1 {
			at := 0
			for n, e := range c.session.queue {
				if e.inflight {
					at = n + 1 // what is unsure may stand before
				}
			}
			c.session.queue = slices.Insert(c.session.queue, at, e)
		}
		return e
	}
	return nil
}

// settle reads what has come to every client and waits for what must come.
func (m *model) settle() {
	m.Helper()
	for _, c := range m.clients {
		if c.live != nil {
			m.settleOne(c)
		}
	}
}

func (m *model) settleOne(c *modelClient) {
	m.Helper()
	c.live.send(&mqtt.Pingreq{})
	p := m.read(c)
	if _, ok := p.(*mqtt.Pingresp); !ok {
		m.Fatalf("%d/%s: got %s, want PINGRESP: %s", c.tenant, c.name, p.Detail(), m.steps(c))
	}
	for m.take(c); len(c.direct) > 0 || m.next(c) != nil; m.take(c) {
		switch p := m.packet(c).(type) {
		case *mqtt.Publish:
			c.inbox = append(c.inbox, p)
		default:
			m.Fatalf("%s: got %v, want %v", c.name, p, m.wanted(c))
		}
	}
}

// deaf tells that a connected client's policy keeps a topic from it.
func (m *model) keeps(c *modelClient, topic string) bool {
	return topic == "b" && m.deaf[c.tenant][c.cert]
}

// publish says who gets a message.
func (m *model) publish(tenant int, from *modelClient, msg *modelMessage) {
	for _, c := range m.clients {
		if c.tenant != tenant || m.session(c) == nil {
			continue
		}
		qos, flags := c.session.match(msg, c == from)
		if flags == nil || c.live != nil && m.keeps(c, msg.topic) {
			continue
		}
		m.hand(c, &modelEntry{modelMessage: msg, flags: flags}, qos)
	}
	for _, g := range m.groups[tenant] {
		if mqtt.Match(g.inner, msg.topic) {
			m.share(tenant, g, msg)
		}
	}
}

// match gives the QoS that a session gets a message with, and what RETAIN may be;
// no flags when it doesn't get it.
func (s *modelSession) match(msg *modelMessage, own bool) (mqtt.QoS, []bool) {
	best := -1
	var flags []bool
	for filter, sub := range s.subs {
		if sub.group != nil || own && sub.noLocal || !mqtt.Match(filter, msg.topic) {
			continue
		}
		if int(sub.qos) > best {
			best, flags = int(sub.qos), nil
		}
		if int(sub.qos) == best {
			flags = append(flags, sub.published && msg.retain)
		}
	}
	return min(mqtt.QoS(max(best, 0)), msg.qos), flags
}

func (m *model) hand(c *modelClient, e *modelEntry, qos mqtt.QoS) {
	switch {
	case qos == 1 && (c.session.lasting || c.live != nil):
		c.session.queue = append(c.session.queue, e)
	case qos == 0 && c.live != nil:
		c.direct = append(c.direct, e)
	}
}

func (m *model) members(tenant int, g *modelGroup) (online, keepers int) {
	for _, c := range m.clients {
		if c.tenant != tenant || m.session(c) == nil {
			continue
		}
		for _, sub := range c.session.subs {
			if sub.group != g {
				continue
			}
			if c.live != nil {
				online++
			}
			if c.session.lasting && sub.qos == 1 {
				keepers++
			}
		}
	}
	return online, keepers
}

func (m *model) share(tenant int, g *modelGroup, msg *modelMessage) {
	online, keepers := m.members(tenant, g)
	if online == 0 && (keepers == 0 || msg.qos == 0) {
		return
	}
	g.floating[msg.payload] = msg
	g.losable[msg.payload] = keepers == 0 || msg.qos == 0
}

// loosen follows a change of the members of groups: without a keeper nothing is
// promised, also not of what a session got while there was one.
func (m *model) loosen(tenant int, s *modelSession) {
	for g := range s.groups {
		_, keepers := m.members(tenant, g)
		if keepers > 0 {
			continue
		}
		for payload := range g.floating {
			g.losable[payload] = true
		}
		for _, c := range m.clients {
			if c.session == nil {
				continue
			}
			for _, e := range c.session.queue {
				if e.from == g {
					g.losable[e.payload] = true
				}
			}
		}
	}
}

// end is the end of a client's session.
func (m *model) end(c *modelClient) {
	s := c.session
	c.session = nil
	for _, e := range s.queue {
		if e.from != nil {
			e.from.floating[e.payload] = e.modelMessage // another member is to get it
		}
	}
	m.loosen(c.tenant, s)
	if s.will != nil {
		m.publish(c.tenant, nil, s.will)
	}
}

// gone is the end of a client's connection.
func (m *model) gone(c *modelClient, will bool) {
	s := c.session
	c.live, c.inbox, c.direct = nil, nil, nil
	w, delay := c.will, c.delay
	if !will {
		w = nil
	}
	switch {
	case s == nil: // another one has taken its place
		delay = 0
	case !s.lasting || s.expiry == 0:
		m.end(c)
		delay = 0
	default:
		s.expiresAt = m.now().Add(s.expiry)
		for _, e := range s.queue {
			e.inflight = false
		}
	}
	if w != nil && delay > 0 {
		s.will, s.willAt = w, m.now().Add(delay)
		return
	}
	if w != nil {
		m.publish(c.tenant, nil, w)
	}
}

func (m *model) message(tenant int, topic string, qos mqtt.QoS) *modelMessage {
	m.serial++
	return &modelMessage{topic: topic, payload: fmt.Sprintf("%d:%d", tenant, m.serial), qos: qos}
}
