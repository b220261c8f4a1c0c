package broker_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// TestSessionsBehaveAsTheModelSays plays random clients of two tenants, with the
// same names and topics in both, and compares whatever they get with the model:
// which messages, in which order, with which QoS, RETAIN, DUP, packet id and time
// left, and whether a session is present.
func TestSessionsBehaveAsTheModelSays(t *testing.T) {
	t.Parallel()
	store := openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{})
	m := &model{tenants: [2]imprint.Tenant{first, second}, opts: broker.Options{MaxInflight: 3, MaxTopicAliases: 2}}
	begin := newHouseOn(t, broker.Options{}, store)
	for n, tenant := range m.tenants {
		begin.update(func(tx imprint.Tx) error { return tx.PutTenantSettings(imprint.TenantSettings{Tenant: tenant}) })
		for i := range m.certs[n] {
			m.certs[n][i] = begin.register(tenant, allowAll)
		}
	}
	rapid.Check(t, func(r *rapid.T) {
		m.r, m.tb = r, &modelTB{TB: t, r: r}
		defer m.tb.clean()
		m.start(begin)
		r.Repeat(map[string]func(*rapid.T){
			"":           m.check,
			"connect":    m.connect,
			"connect 2":  m.connect,
			"leave":      m.leave,
			"subscribe":  m.subscribe,
			"subscribe2": m.subscribe,
			"drop":       m.unsubscribe,
			"publish":    m.send,
			"publish 2":  m.send,
			"publish 3":  m.send,
			"ack":        m.ack,
			"ack 2":      m.ack,
			"advance":    m.advance,
			"restart":    m.restart,
			"deactivate": m.toggleCertificate,
			"policy":     m.togglePolicy,
		})
		m.finale()
	})
}

// start forgets what an earlier play has left.
func (m *model) start(begin *house) {
	begin.update(func(tx imprint.Tx) error {
		sessions, err := tx.Sessions(0, 1000)
		if err != nil {
			return err
		}
		for _, s := range sessions {
			err = tx.DeleteSession(s.Key)
			if err != nil {
				return err
			}
		}
		groups, err := tx.ShareGroups(0, 1000)
		for _, g := range groups {
			_ = tx.DeleteShareGroup(g.Key)
		}
		for _, tenant := range m.tenants {
			for _, topic := range modelTopics {
				_ = tx.DeleteRetained(tenant, topic)
			}
		}
		return err
	})
	m.clients = nil
	for tenant := range m.tenants {
		for _, name := range []string{"one", "two", "three"} {
			m.clients = append(m.clients, &modelClient{tenant: tenant, name: name})
		}
		m.groups[tenant] = map[string]*modelGroup{}
		m.retained[tenant] = map[string]*modelMessage{}
		for n := range m.certs[tenant] {
			if m.inactive[tenant][n] {
				begin.setStatus(m.tenants[tenant], m.certs[tenant][n], imprint.CertificateActive)
			}
			if m.deaf[tenant][n] {
				begin.setPolicy(m.tenants[tenant], m.certs[tenant][n], allowAll)
			}
		}
	}
	m.inactive, m.deaf = [2][2]bool{}, [2][2]bool{}
	m.house = &house{store: begin.store, still: time.Now().Truncate(time.Second)}
	m.refresh()
}

func (m *model) check(*rapid.T) { m.settle() }

// pick draws a client.
func (m *model) pick(r *rapid.T, of func(*modelClient) bool) *modelClient {
	var all []*modelClient
	for _, c := range m.clients {
		if of(c) {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		r.Skip("no such client")
	}
	return all[rapid.IntRange(0, len(all)-1).Draw(r, "client")]
}

func online(c *modelClient) bool { return c.live != nil }

func (m *model) connect(r *rapid.T) {
	c := m.pick(r, func(*modelClient) bool { return true })
	cert := rapid.IntRange(0, 1).Draw(r, "certificate")
	if m.inactive[c.tenant][cert] {
		r.Skip("inactive")
	}
	v := rapid.SampledFrom(versions).Draw(r, "version")
	packet := &mqtt.Connect{ClientID: c.name, KeepAlive: 60, CleanStart: rapid.IntRange(0, 3).Draw(r, "clean") == 0}
	expiry, window, aliases := time.Duration(0), m.opts.MaxInflight, 0
	if v == mqtt.V5 {
		seconds := rapid.SampledFrom([]uint32{0, 100, 1000}).Draw(r, "expiry")
		expiry = time.Duration(seconds) * time.Second
		packet.Properties.SessionExpiry = seconds
		window = rapid.IntRange(1, 4).Draw(r, "receive maximum")
		packet.Properties.ReceiveMaximum = uint16(window)
		window = min(window, m.opts.MaxInflight)
		aliases = rapid.IntRange(0, 1).Draw(r, "aliases")
		packet.Properties.TopicAliasMaximum = uint16(aliases)
		packet.Properties.Mark(mqtt.PropSessionExpiry, mqtt.PropReceiveMaximum, mqtt.PropTopicAliasMaximum)
	} else if !packet.CleanStart {
		expiry = time.Hour
	}
	will, delay := m.drawWill(r, c, v, packet)

	s := m.session(c)
	present := s != nil && s.lasting && s.expiry > 0 && s.version == v && !packet.CleanStart
	old := c.live
	next := &modelClient{tenant: c.tenant, name: c.name}
	next.live = m.door(m.tenants[c.tenant], m.certs[c.tenant][cert], v)
	next.live.send(packet)
	ack, err := next.live.receive()
	m.must(err)
	got, ok := ack.(*mqtt.Connack)
	if !ok || got.Reason != mqtt.Success || got.SessionPresent != present {
		m.Fatalf("%d/%s: got %s, want success with session present %t", c.tenant, c.name, ack.Detail(), present)
	}
	c.cert = cert
	m.enter(c, next, old, present, expiry, v)
	c.window, c.will, c.delay = window, will, delay
	c.aliases = map[uint16]string{}
	m.resume(c)
	m.await()
}

// drawWill gives a CONNECT a will, where it is certain when it will come.
func (m *model) drawWill(r *rapid.T, c *modelClient, v mqtt.Version, packet *mqtt.Connect) (*modelMessage, time.Duration) {
	if rapid.IntRange(0, 3).Draw(r, "will") > 0 {
		return nil, 0
	}
	will := m.message(c.tenant, "b", rapid.SampledFrom([]mqtt.QoS{0, 1}).Draw(r, "will QoS"))
	packet.Will = &mqtt.Will{Topic: will.topic, Payload: []byte(will.payload), QoS: will.qos}
	others := m.count(func(c *modelClient) bool { return c.delay > 0 || c.session != nil && c.session.will != nil })
	if v != mqtt.V5 || others > 0 || rapid.Bool().Draw(r, "at once") {
		return will, 0
	}
	packet.Will.Properties.WillDelay = 60
	packet.Will.Properties.Mark(mqtt.PropWillDelay)
	return will, time.Minute
}

// enter puts a connection into the place of the one before.
func (m *model) enter(c, next *modelClient, old *client, present bool, expiry time.Duration, v mqtt.Version) {
	was := *c
	s := c.session
	if old != nil {
		// The old connection ends now; what it had under way is nobody's.
		m.drain(old)
	}
	c.live, c.inbox, c.direct, c.will, c.delay = next.live, nil, nil, nil, 0
	if !present {
		if s != nil {
			m.end(c)
		}
		c.session = &modelSession{version: v, lasting: expiry > 0, subs: map[string]*modelSubscription{}, groups: map[*modelGroup]bool{}}
	}
	c.session.expiry, c.session.expiresAt = expiry, time.Time{}
	c.session.will = nil
	for _, e := range c.session.queue {
		e.inflight = false
	}
	if old != nil && was.will != nil && (was.delay == 0 || !present) {
		m.publish(c.tenant, nil, was.will)
	}
}

// resume decides what of a session's queue a new connection is to get.
func (m *model) resume(c *modelClient) {
	s := c.session
	c.loaded = len(s.queue) == 0
	s.queue = slices.DeleteFunc(s.queue, func(e *modelEntry) bool { return e.over(m.now()) })
	for _, e := range s.queue {
		e.unsure = e.unsure || m.keeps(c, e.topic)
	}
}

// drain reads a connection that has ended to its end.
func (m *model) drain(c *client) {
	for {
		_, err := c.receive()
		if err != nil {
			break
		}
	}
	_ = c.conn.Close()
}

func (m *model) leave(r *rapid.T) {
	c := m.pick(r, online)
	if rapid.Bool().Draw(r, "cut") {
		_ = c.live.conn.Close()
		m.gone(c, true)
		m.await()
		return
	}
	packet := &mqtt.Disconnect{}
	if c.session.version == mqtt.V5 && c.session.expiry > 0 && rapid.Bool().Draw(r, "other expiry") {
		seconds := rapid.SampledFrom([]uint32{0, 50}).Draw(r, "expiry")
		packet.Properties.SessionExpiry = seconds
		packet.Properties.Mark(mqtt.PropSessionExpiry)
		c.session.expiry = time.Duration(seconds) * time.Second
	}
	c.live.send(packet)
	m.drain(c.live)
	m.gone(c, false)
	m.await()
}

func (m *model) subscribe(r *rapid.T) {
	c := m.pick(r, online)
	packet := &mqtt.Subscribe{PacketID: 5}
	for range rapid.IntRange(1, 2).Draw(r, "filters") {
		f := mqtt.Subscription{
			Filter: rapid.SampledFrom(modelFilters).Draw(r, "filter"), QoS: rapid.SampledFrom([]mqtt.QoS{0, 1, 1}).Draw(r, "QoS"),
		}
		if c.session.version == mqtt.V5 {
			f.NoLocal = f.Filter[0] != '$' && rapid.Bool().Draw(r, "no local")
			f.RetainAsPublished = rapid.Bool().Draw(r, "as published")
			f.RetainHandling = byte(rapid.IntRange(0, 2).Draw(r, "handling"))
		}
		if !slices.ContainsFunc(packet.Filters, func(other mqtt.Subscription) bool { return other.Filter == f.Filter }) {
			packet.Filters = append(packet.Filters, f)
		}
	}
	c.live.send(packet)
	got, ok := m.read(c).(*mqtt.Suback)
	if !ok {
		m.Fatalf("%s: got %v, want SUBACK", c.name, got)
	}
	m.take(c)
	for n, f := range packet.Filters {
		if got.Codes[n] != mqtt.ReasonCode(f.QoS) {
			m.Fatalf("%s: got %s for %s, want QoS %d", c.name, got.Codes[n], f.Filter, f.QoS)
		}
		_, existed := c.session.subs[f.Filter]
		sub := &modelSubscription{qos: f.QoS, noLocal: f.NoLocal, published: f.RetainAsPublished}
		if _, inner, shared, _ := mqtt.ParseSharedFilter(f.Filter); shared {
			g := m.groups[c.tenant][f.Filter]
			if g == nil {
				g = &modelGroup{inner: inner, floating: map[string]*modelMessage{}, losable: map[string]bool{}}
				m.groups[c.tenant][f.Filter] = g
			}
			sub.group, c.session.groups[g] = g, true
		}
		c.session.subs[f.Filter] = sub
		m.loosen(c.tenant, c.session)
		kept := m.retained[c.tenant][f.Filter]
		if kept == nil || kept.over(m.now()) || f.RetainHandling == 2 || f.RetainHandling == 1 && existed || m.keeps(c, f.Filter) {
			continue
		}
		m.hand(c, &modelEntry{modelMessage: kept, flags: []bool{true}}, min(kept.qos, f.QoS))
	}
}

func (m *model) unsubscribe(r *rapid.T) {
	c := m.pick(r, online)
	filter := rapid.SampledFrom(modelFilters).Draw(r, "filter")
	c.live.send(&mqtt.Unsubscribe{PacketID: 6, Filters: []string{filter}})
	got, ok := m.read(c).(*mqtt.Unsuback)
	if !ok {
		m.Fatalf("%s: got %v, want UNSUBACK", c.name, got)
	}
	_, existed := c.session.subs[filter]
	if c.session.version == mqtt.V5 && (got.Codes[0] == mqtt.Success) != existed {
		m.Fatalf("%s: got %s for %s, want it to have existed: %t", c.name, got.Codes[0], filter, existed)
	}
	delete(c.session.subs, filter)
	m.loosen(c.tenant, c.session)
}

func (m *model) send(r *rapid.T) {
	c := m.pick(r, online)
	topic := rapid.SampledFrom(modelTopics).Draw(r, "topic")
	msg := m.message(c.tenant, topic, rapid.SampledFrom([]mqtt.QoS{0, 1, 1}).Draw(r, "QoS"))
	packet := &mqtt.Publish{Topic: []byte(topic), QoS: msg.qos, PacketID: 9 * uint16(msg.qos)}
	if topic == "r" || topic == "b" {
		msg.retain = rapid.Bool().Draw(r, "retain")
		if msg.retain && rapid.IntRange(0, 3).Draw(r, "empty") == 0 {
			msg.payload = ""
		}
		seconds := rapid.SampledFrom([]uint32{0, 30, 300}).Draw(r, "message expiry")
		if c.session.version == mqtt.V5 && seconds > 0 {
			msg.expires = m.now().Add(time.Duration(seconds) * time.Second)
			packet.Properties.MessageExpiry = seconds
			packet.Properties.Mark(mqtt.PropMessageExpiry)
		}
	}
	packet.Payload, packet.Retain = []byte(msg.payload), msg.retain
	c.live.send(packet)
	if msg.qos == 0 {
		c.live.send(&mqtt.Pingreq{})
	}
	switch got := m.read(c).(type) {
	case *mqtt.Pingresp:
	case *mqtt.Ack:
		if got.PacketID != packet.PacketID || got.Reason != mqtt.Success {
			m.Fatalf("%s: got %s, want success", c.name, got.Detail())
		}
	default:
		m.Fatalf("%s: got %s, want an answer", c.name, got.Detail())
	}
	if msg.retain {
		delete(m.retained[c.tenant], topic)
		if msg.payload != "" {
			m.retained[c.tenant][topic] = msg
		}
	}
	m.publish(c.tenant, c, msg)
}

func (m *model) ack(r *rapid.T) {
	c := m.pick(r, func(c *modelClient) bool {
		return c.live != nil && slices.ContainsFunc(c.session.queue, func(e *modelEntry) bool { return e.inflight })
	})
	all := rapid.Bool().Draw(r, "all")
	c.session.queue = slices.DeleteFunc(c.session.queue, func(e *modelEntry) bool {
		if !e.inflight || !all && !rapid.Bool().Draw(r, "this") {
			return false
		}
		c.live.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: e.id})
		return true
	})
}

// advance sets the clock on, past the ends of sessions, messages and wills.
func (m *model) advance(r *rapid.T) {
	by := rapid.SampledFrom([]time.Duration{20 * time.Second, 70 * time.Second, 200 * time.Second}).Draw(r, "by")
	m.ahead.Add(int64(by))
	for _, c := range m.clients {
		s := c.session
		if s == nil || c.live != nil {
			continue
		}
		if !s.expiresAt.After(m.now()) {
			m.end(c)
		} else if s.will != nil && !s.willAt.After(m.now()) {
			m.publish(c.tenant, nil, s.will)
			s.will = nil
		}
	}
	m.broker.LookAtTheClock()
	m.await()
}

func noWill(c *modelClient) bool { return c.live == nil || c.will == nil }

// restart ends the broker and begins another one on the same store.
func (m *model) restart(r *rapid.T) {
	if m.count(noWill) < int64(len(m.clients)) {
		r.Skip("wills would come in any order")
	}
	for _, c := range m.clients {
		if c.live != nil {
			m.gone(c, false)
		}
	}
	ahead := m.ahead.Load()
	m.tb.clean()
	still := m.still.Add(time.Duration(ahead))
	m.still = still
	m.refresh()
	m.await()
}

func (m *model) toggleCertificate(r *rapid.T) {
	tenant, n := rapid.IntRange(0, 1).Draw(r, "tenant"), rapid.IntRange(0, 1).Draw(r, "certificate")
	status := imprint.CertificateActive
	if !m.inactive[tenant][n] {
		status = imprint.CertificateInactive
		concerned := func(c *modelClient) bool { return c.live != nil && c.tenant == tenant && c.cert == n }
		if m.count(func(c *modelClient) bool { return concerned(c) && c.will != nil }) > 0 {
			r.Skip("wills would come in any order")
		}
		m.setStatus(m.tenants[tenant], m.certs[tenant][n], status)
		for _, c := range m.clients {
			if concerned(c) {
				m.drain(c.live)
				m.gone(c, false)
			}
		}
	} else {
		m.setStatus(m.tenants[tenant], m.certs[tenant][n], status)
	}
	m.inactive[tenant][n] = !m.inactive[tenant][n]
	m.await()
}

func (m *model) togglePolicy(r *rapid.T) {
	tenant, n := rapid.IntRange(0, 1).Draw(r, "tenant"), rapid.IntRange(0, 1).Draw(r, "certificate")
	if m.count(func(c *modelClient) bool { return c.live != nil && !c.loaded }) > 0 {
		r.Skip("a queue may still be read")
	}
	document := allowAll
	if !m.deaf[tenant][n] {
		document = deafToB
	}
	m.setPolicy(m.tenants[tenant], m.certs[tenant][n], document)
	m.deaf[tenant][n] = !m.deaf[tenant][n]
}

// finale brings every stored session back and takes all that there is.
func (m *model) finale() {
	for tenant := range m.tenants {
		for n := range m.certs[tenant] {
			m.setStatus(m.tenants[tenant], m.certs[tenant][n], imprint.CertificateActive)
			m.inactive[tenant][n] = false
		}
	}
	m.settle()
	for _, c := range m.clients {
		s := m.session(c)
		if s == nil || c.live != nil {
			continue
		}
		next := &modelClient{live: m.door(m.tenants[c.tenant], m.certs[c.tenant][0], s.version)}
		next.live.send(lasting(s.version, c.name, 1000))
		got := expect[*mqtt.Connack](next.live)
		if !got.SessionPresent {
			m.Fatalf("%s: its session is gone", c.name)
		}
		m.enter(c, next, nil, true, time.Hour, s.version)
		c.cert, c.window, c.aliases = 0, m.opts.MaxInflight, map[uint16]string{}
		m.resume(c)
	}
	m.eventually("every message has come", func() bool {
		m.settle()
		left := 0
		for _, c := range m.clients {
			if c.live == nil {
				continue
			}
			c.session.queue = slices.DeleteFunc(c.session.queue, func(e *modelEntry) bool {
				if e.inflight {
					c.live.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: e.id})
				}
				return e.inflight || e.unsure
			})
			left += len(c.session.queue)
		}
		for _, groups := range m.groups {
			for _, g := range groups {
				for payload := range g.floating {
					if !g.losable[payload] {
						left++
					}
				}
			}
		}
		return left == 0
	})
	m.settle()
}
