package broker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

const (
	noPublish   = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Subscribe","iot:Receive"],"Resource":"*"}]}`
	noSubscribe = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Publish","iot:Receive"],"Resource":"*"}]}`
	noRetain    = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Subscribe","iot:Receive","iot:Publish"],"Resource":"*"}]}`
	noReceive   = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Connect","iot:Publish","iot:Subscribe"],"Resource":"*"}]}`
	noConnect   = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Publish","iot:Subscribe","iot:Receive"],"Resource":"*"}]}`
)

func TestRefusedConnectIsAnsweredAsItsVersionWants(t *testing.T) {
	t.Parallel()
	will := func(w mqtt.Will) *mqtt.Connect {
		c := connectAs("dev")
		c.Will = &w
		return c
	}
	for _, row := range []struct {
		name     string
		document string
		connect  *mqtt.Connect
		code     imprint.Code
		v5       mqtt.ReasonCode
		v311     mqtt.ReasonCode // with RefusedConnectGetsReason
	}{
		{"policy denies connect", noConnect, connectAs("dev"), imprint.CodeConnectDenied, mqtt.NotAuthorized, mqtt.NotAuthorized},
		{"client id too long", allowAll, connectAs(strings.Repeat("x", 129)), imprint.CodeClientIDInvalid, mqtt.ClientIdentifierNotValid, mqtt.ClientIdentifierNotValid},
		{"client id with $", allowAll, connectAs("$x"), imprint.CodeClientIDInvalid, mqtt.ClientIdentifierNotValid, mqtt.ClientIdentifierNotValid},
		{"will denied", noPublish, will(mqtt.Will{Topic: "w"}), imprint.CodeWillDenied, mqtt.NotAuthorized, mqtt.NotAuthorized},
		{"will with QoS 2", allowAll, will(mqtt.Will{Topic: "w", QoS: 2}), imprint.CodeQoSNotSupported, mqtt.QoSNotSupported, mqtt.NotAuthorized},
		{"will retained and RetainPublish denied", noRetain, will(mqtt.Will{Topic: "w", Retain: true}), imprint.CodeWillDenied, mqtt.NotAuthorized, mqtt.NotAuthorized},
		{"will on reserved topic", allowAll, will(mqtt.Will{Topic: "$aws/x"}), imprint.CodeReservedTopic, mqtt.TopicNameInvalid, mqtt.NotAuthorized},
		{"will with too many slashes", allowAll, will(mqtt.Will{Topic: "a/b/c/d/e/f/g/h/i"}), imprint.CodeTopicInvalid, mqtt.TopicNameInvalid, mqtt.NotAuthorized},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for _, answers := range []bool{false, true} {
				h := newHouse(t, broker.Options{RefusedConnectGetsReason: answers})
				id := h.register(first, row.document)
				for _, v := range versions {
					c := h.door(first, id, v)
					c.send(row.connect)
					want := row.v311
					if v == mqtt.V5 {
						want = row.v5
					}
					if v == mqtt.V5 || answers {
						if got := expect[*mqtt.Connack](c).Reason; got != want {
							t.Errorf("%s: got %s, want %s", v, got, want)
						}
					}
					c.closed()
					if got := c.ended(row.code).Outcome; got != imprint.OutcomeRefused {
						t.Errorf("outcome: got %s, want refused", got)
					}
				}
				if got := h.broker.Counters(); got.Refused != 2 || got.Connects != 0 {
					t.Errorf("counters: got %+v, want 2 refused", got)
				}
			}
		})
	}
}

func TestRefusedCertificateStatus(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		h.setStatus(first, id, imprint.CertificateInactive)
		c := h.door(first, id, v)
		c.send(connectAs("dev"))
		if v == mqtt.V5 {
			if got := expect[*mqtt.Connack](c).Reason; got != mqtt.NotAuthorized {
				h.Errorf("got %s, want not authorized", got)
			}
		}
		c.closed()
		c.ended(imprint.CodeCertificateInactive)
	})
}

func TestWhatComesBeforeConnectEndsTheConnection(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		for name, bytes := range map[string][]byte{
			"another packet first":   (&mqtt.Pingreq{}).Append(nil, v),
			"reserved packet type":   {0x00, 0x00},
			"length without end":     {0x10, 0xff, 0xff, 0xff, 0xff},
			"CONNECT over its limit": {0x10, 0xff, 0xff, 0x7f},
			"reserved connect flag":  {0x10, 0x0d, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x03, 0, 60, 0, 1, 'x'},
		} {
			c := h.door(first, id, v)
			c.write(bytes)
			c.closed()
			if name == "CONNECT over its limit" {
				c.ended(imprint.CodePacketTooLarge)
				continue
			}
			c.ended(imprint.CodeProtocolViolation)
		}
		if got := h.broker.Counters(); got.ProtocolErrors != 5 || got.Refused != 5 {
			h.Errorf("counters: got %+v, want 5 protocol errors, 5 refused", got)
		}
	})
}

func TestUnknownProtocolLevelsGetAnAnswer(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	for level, form := range map[byte]mqtt.Version{3: mqtt.V311, 6: mqtt.V5} {
		c := h.door(first, id, form)
		c.write([]byte{0x10, 0x0d, 0, 4, 'M', 'Q', 'T', 'T', level, 0x02, 0, 60, 0, 1, 'x'})
		if got := expect[*mqtt.Connack](c).Reason; got != mqtt.UnsupportedProtocolVersion {
			t.Errorf("level %d: got %s, want unsupported", level, got)
		}
		c.closed()
		c.ended(imprint.CodeUnsupportedVersion)
	}
}

func TestConnectThatDripsInIsCutAtTheTimeout(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{ConnectTimeout: 150 * time.Millisecond})
	id := h.register(first, allowAll)
	c := h.door(first, id, mqtt.V5)
	whole := connectAs("dev").Append(nil, mqtt.V5)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := range whole { // more than the timeout in all, never long between two
		<-tick.C
		_, err := c.conn.Write(whole[i : i+1])
		if err != nil {
			break
		}
	}
	c.closed()
	c.ended(imprint.CodeConnectTimeout)
}

func TestEmptyClientIDs(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	c := h.on(first, id, mqtt.V311, connectAs(""))
	c.silent()
	c = h.door(first, id, mqtt.V311)
	c.send(&mqtt.Connect{KeepAlive: 60})
	c.closed()
	c.ended(imprint.CodeClientIDInvalid)
	c = h.door(first, id, mqtt.V5)
	c.send(&mqtt.Connect{KeepAlive: 60})
	if got := expect[*mqtt.Connack](c).Properties.AssignedClientID; got == "" || len(got) > 128 {
		t.Errorf("assigned client id: got %q, want one", got)
	}
}

func TestConnackDescribesTheServer(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	for asked, want := range map[uint16]uint16{0: 1200, 10: 30, 30: 0, 60: 0, 1200: 0, 3600: 1200} {
		c := h.door(first, id, mqtt.V5)
		connect := connectAs("dev")
		connect.KeepAlive = asked
		connect.Properties.SessionExpiry = 0xFFFFFFFF
		connect.Properties.Mark(mqtt.PropSessionExpiry)
		c.send(connect)
		p := expect[*mqtt.Connack](c).Properties
		if p.ServerKeepAlive != want {
			t.Errorf("keep-alive %d: got %d, want %d", asked, p.ServerKeepAlive, want)
		}
		if !p.Has(mqtt.PropSessionExpiry) || p.SessionExpiry != 604800 {
			t.Errorf("session expiry: got %d (%t), want the maximum of seven days", p.SessionExpiry, p.Has(mqtt.PropSessionExpiry))
		}
		if p.MaximumQoS != 1 || !p.Has(mqtt.PropRetainAvailable) || p.RetainAvailable != 1 || p.ReceiveMaximum != 100 ||
			p.TopicAliasMaximum != 8 || p.WildcardAvailable != 1 || !p.Has(mqtt.PropSharedAvailable) || p.SharedAvailable != 1 ||
			!p.Has(mqtt.PropSubscriptionIDAvailable) || p.SubscriptionIDAvailable != 0 || p.MaximumPacketSize == 0 {
			t.Errorf("got %+v", p)
		}
		_ = c.conn.Close()
	}
}

func TestKeepAliveEndsASilentConnection(t *testing.T) {
	bothVersions(t, broker.Options{MinKeepAlive: time.Second, MaxKeepAlive: time.Second}, func(h *house, v mqtt.Version) {
		c := h.on(first, h.register(first, allowAll), v, connectAs("dev"))
		c.told(mqtt.KeepAliveTimeout)
		c.ended(imprint.CodeKeepAliveTimeout)
	})
}

func TestEnhancedAuthenticationIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	c := h.door(first, h.register(first, allowAll), mqtt.V5)
	connect := connectAs("dev")
	connect.Properties.AuthMethod = "SCRAM"
	connect.Properties.Mark(mqtt.PropAuthMethod)
	c.send(connect)
	if got := expect[*mqtt.Connack](c).Reason; got != mqtt.BadAuthenticationMethod {
		t.Errorf("got %s, want bad authentication method", got)
	}
	c.closed()
}

// misuse is a packet that ends its connection.
type misuse struct {
	name   string
	packet mqtt.Packet
	only5  bool
	code   imprint.Code
	reason mqtt.ReasonCode
}

func misuses() []misuse {
	alias := func(n uint16) *mqtt.Publish {
		p := &mqtt.Publish{Topic: []byte("a")}
		p.Properties.TopicAlias = n
		p.Properties.Mark(mqtt.PropTopicAlias)
		return p
	}
	unset := alias(3)
	unset.Topic = nil
	identified := &mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a"}}}
	identified.Properties.SubscriptionIDs = []uint32{1}
	marked := &mqtt.Publish{Topic: []byte("a")}
	marked.Properties.SubscriptionIDs = []uint32{1}
	longer := &mqtt.Disconnect{}
	longer.Properties.SessionExpiry = 5
	longer.Properties.Mark(mqtt.PropSessionExpiry)
	many := &mqtt.Subscribe{PacketID: 1}
	for range 9 {
		many.Filters = append(many.Filters, mqtt.Subscription{Filter: "a"})
	}
	return []misuse{
		{"second CONNECT", connectAs("dev"), false, imprint.CodeProtocolViolation, mqtt.ProtocolError},
		{"QoS 2 publish", &mqtt.Publish{Topic: []byte("a"), QoS: 2, PacketID: 1}, false, imprint.CodeQoSNotSupported, mqtt.QoSNotSupported},
		{"QoS 2 subscribe", &mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a", QoS: 2}}}, false, imprint.CodeQoSNotSupported, mqtt.QoSNotSupported},
		{"PUBREL", &mqtt.Ack{Type: mqtt.TypePubrel, PacketID: 1}, false, imprint.CodeQoSNotSupported, mqtt.QoSNotSupported},
		{"packet of the server", &mqtt.Pingresp{}, false, imprint.CodeProtocolViolation, mqtt.ProtocolError},
		{"packet id 0", &mqtt.Subscribe{Filters: []mqtt.Subscription{{Filter: "a"}}}, false, imprint.CodeProtocolViolation, 0},
		{"publish with packet id 0", &mqtt.Publish{Topic: []byte("a"), QoS: 1}, false, imprint.CodeProtocolViolation, 0},
		{"wildcard in a topic name", &mqtt.Publish{Topic: []byte("a/+")}, false, imprint.CodeTopicInvalid, mqtt.TopicNameInvalid},
		{"misplaced wildcard", &mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a#"}}}, false, imprint.CodeFilterInvalid, mqtt.TopicFilterInvalid},
		{"too many filters", many, false, imprint.CodeQuotaExceeded, mqtt.QuotaExceeded},
		{"payload over the limit", &mqtt.Publish{Topic: []byte("a"), Payload: make([]byte, 128<<10+1)}, false, imprint.CodePacketTooLarge, mqtt.PacketTooLarge},
		{"packet over the limit", &mqtt.Publish{Topic: []byte("a"), Payload: make([]byte, 256<<10)}, false, imprint.CodePacketTooLarge, mqtt.PacketTooLarge},
		{"reserved topic QoS 0", &mqtt.Publish{Topic: []byte("$aws/events/presence/connected/x")}, false, imprint.CodeReservedTopic, mqtt.TopicNameInvalid},
		{"AUTH", &mqtt.Auth{}, true, imprint.CodeProtocolViolation, mqtt.ProtocolError},
		{"alias 0 or over the maximum", alias(9), true, imprint.CodeProtocolViolation, mqtt.TopicAliasInvalid},
		{"alias never set", unset, true, imprint.CodeProtocolViolation, mqtt.ProtocolError},
		{"subscription identifier", identified, true, imprint.CodeProtocolViolation, mqtt.SubscriptionIdentifiersNotSupported},
		{"publish with subscription identifier", marked, true, imprint.CodeProtocolViolation, mqtt.ProtocolError},
		{"DISCONNECT raises session expiry", longer, true, imprint.CodeProtocolViolation, mqtt.ProtocolError},
	}
}

func TestMisusedConnectionsEndWithTheReason(t *testing.T) {
	t.Parallel()
	for _, row := range misuses() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, broker.Options{})
			id := h.register(first, allowAll)
			for _, v := range versions {
				if row.only5 && v != mqtt.V5 {
					continue
				}
				c := h.on(first, id, v, connectAs("dev"))
				c.send(row.packet)
				if v == mqtt.V5 && row.reason == 0 {
					if got := expect[*mqtt.Disconnect](c).Reason; got != mqtt.MalformedPacket && got != mqtt.ProtocolError {
						t.Errorf("got %s, want malformed packet or protocol error", got)
					}
					c.closed()
				} else {
					c.told(row.reason)
				}
				c.ended(row.code)
			}
		})
	}
}

func TestClientsThatTakeNoConnackAreRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	c := h.door(first, h.register(first, allowAll), mqtt.V5)
	connect := connectAs("dev")
	connect.Properties.MaximumPacketSize = 10
	connect.Properties.Mark(mqtt.PropMaximumPacketSize)
	c.send(connect)
	if got := expect[*mqtt.Connack](c).Reason; got != mqtt.PacketTooLarge {
		t.Errorf("got %s, want packet too large", got)
	}
	c.closed()
}

// TestConnectionsEndWithTheirCredentials ensures that a connection that proved
// who it is by credentials with an end doesn't outlive them, busy or not.
func TestConnectionsEndWithTheirCredentials(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		h.until = h.now().Add(300 * time.Millisecond)
		quiet := h.on(first, id, v, connectAs("quiet"))
		quiet.told(mqtt.MaximumConnectTime)
		quiet.ended(imprint.CodeConnectionExpired)

		h.until = h.now().Add(time.Hour)
		busy := h.on(first, id, v, connectAs("busy"))
		busy.silent()
		h.ahead.Store(int64(2 * time.Hour))
		busy.send(&mqtt.Pingreq{})
		for {
			p, err := busy.receive()
			if err != nil {
				break
			}
			if d, ok := p.(*mqtt.Disconnect); ok && d.Reason != mqtt.MaximumConnectTime {
				h.Errorf("got %s, want the maximum connect time", d.Reason)
			}
		}
		busy.ended(imprint.CodeConnectionExpired)
	})
}

// TestDisconnectsThatOnlyAServerMaySend ensures that a client may end its connection with
// the reasons of a client alone, and can't send the server elsewhere.
func TestDisconnectsThatOnlyAServerMaySend(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	of := []mqtt.ReasonCode{
		mqtt.Success, mqtt.DisconnectWithWill, mqtt.UnspecifiedError, mqtt.MalformedPacket, mqtt.ProtocolError,
		mqtt.ImplementationSpecificError, mqtt.TopicNameInvalid, mqtt.ReceiveMaximumExceeded, mqtt.TopicAliasInvalid, mqtt.PacketTooLarge,
		mqtt.MessageRateTooHigh, mqtt.QuotaExceeded, mqtt.AdministrativeAction, mqtt.PayloadFormatInvalid,
	}
	for code := range 256 {
		reason := mqtt.ReasonCode(code)
		if !reason.AllowedIn(mqtt.TypeDisconnect) {
			continue
		}
		c := h.on(first, id, mqtt.V5, connectAs("dev"))
		c.send(&mqtt.Disconnect{Reason: reason})
		if slices.Contains(of, reason) {
			c.closed()
			c.ended(imprint.CodeClientDisconnect)
			continue
		}
		c.told(mqtt.ProtocolError)
		c.ended(imprint.CodeProtocolViolation)
	}
	for _, reason := range []mqtt.ReasonCode{mqtt.Success, mqtt.UnspecifiedError} {
		c := h.on(first, id, mqtt.V5, connectAs("dev"))
		packet := &mqtt.Disconnect{Reason: reason}
		packet.Properties.ServerReference = "elsewhere"
		packet.Properties.Mark(mqtt.PropServerReference)
		c.send(packet)
		c.told(mqtt.ProtocolError)
		c.ended(imprint.CodeProtocolViolation)
	}
}
