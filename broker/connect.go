package broker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
)

// connect reads the CONNECT packet and takes the session in: admission, client
// id, policy, will, takeover, CONNACK. An error says why the connection isn't
// taken in; it is recorded as a step.
func (c *connection) connect(ctx context.Context, in *reader) error {
	packet, err := c.readConnect(ctx, in)
	if err != nil {
		c.refused("mqtt.connect", err)
		return err
	}
	c.peer.Rec.OK("mqtt.connect", "%s, client id %q, keep-alive %d s, clean start %t", c.version, packet.ClientID, packet.KeepAlive, packet.CleanStart)
	c.peer.Rec.Describe(func(a *imprint.Attempt) { a.ClientID = imprint.ClientID(imprint.Excerpt(packet.ClientID)) })
	// Admission comes before anything else of the packet is judged: it is what
	// tells a first connection from a known device.
	who, err := c.peer.Admit(ctx, c.peer.Rec)
	if err != nil {
		c.broker.count.refuse(imprint.CodeOf(err))
		return &endError{code: imprint.CodeOf(err), err: err}
	}
	c.certificate, c.principal = who.Certificate.ID, who.Principal()
	c.realm = c.broker.realm(who.Tenant())
	c.clientID = imprint.ClientID(packet.ClientID)
	err = c.checkConnect(packet, who)
	if err == nil {
		err = c.accept(ctx, packet)
	}
	switch {
	case err == nil:
	case c.bound.Load() == nil:
		c.broker.identities.Release(who)
	default:
		c.unbind()
	}
	return err
}

// readConnect takes the first packet, which must be CONNECT.
func (c *connection) readConnect(ctx context.Context, in *reader) (*mqtt.Connect, error) {
	timeout := c.broker.opts.ConnectTimeout
	header, body, err := in.next(ctx, c.broker.opts.MaxConnectPacket, timeout)
	switch {
	case err == nil:
	case isTimeout(err):
		return nil, end(imprint.CodeConnectTimeout, "no CONNECT packet came within %s of the TLS handshake", timeout)
	case errors.Is(err, io.EOF):
		return nil, end(imprint.CodeConnectionLost, "the device closed the connection before its CONNECT packet")
	default:
		return nil, c.ending(err)
	}
	if header.Type != mqtt.TypeConnect {
		return nil, end(imprint.CodeProtocolViolation, "the first packet is %s, not CONNECT [MQTT-3.1.0-1]", header.Type)
	}
	packet := &mqtt.Connect{}
	err = packet.Decode(header, body, 0)
	// A packet that is refused has these, too, as far as it could be read: the
	// refusal is told as the client wants it.
	c.version = packet.Version
	c.maxPacket = int(packet.Properties.MaximumPacketSize)
	c.reasons = packet.Version == mqtt.V5 && (packet.Properties.RequestProblemInfo == 1 || !packet.Properties.Has(mqtt.PropRequestProblemInfo))
	if err != nil {
		return nil, c.ending(err)
	}
	return packet, nil
}

// checkConnect decides on client id, policy and will.
func (c *connection) checkConnect(packet *mqtt.Connect, who *identity.Identity) error {
	if packet.Properties.Has(mqtt.PropAuthMethod) {
		err := &endError{code: imprint.CodeProtocolViolation, wire: mqtt.BadAuthenticationMethod,
			err: imprint.Errorf(imprint.CodeProtocolViolation, "the client asks for enhanced authentication (MQTT 5 section 4.12)").
				WithHint("Let the firmware leave the authentication method out of CONNECT (property 0x15): a device is known by its client certificate.")}
		c.refused("mqtt.auth", err)
		return err
	}
	err := c.checkClientID(packet)
	if err != nil {
		c.refused("mqtt.clientid", err)
		return err
	}
	c.peer.Rec.Describe(func(a *imprint.Attempt) {
		a.ClientID = c.clientID
		if thing := who.ThingFor(c.clientID); thing != nil {
			a.Thing = thing.Thing.Name
		}
	})
	bound := c.bind(who)
	c.bound.Store(bound)
	request := policy.Request{
		Action: policy.Connect, ResourcePrefix: c.realm.clientARN, ResourceName: string(c.clientID),
		Vars: bound.vars, Now: c.broker.clock(), ConnectAttributes: connectAttributes(packet),
	}
	if packet.Will != nil {
		request.LastWillTopic = c.realm.topicARN + packet.Will.Topic
	}
	decision, by := bound.policies.Judge(&request)
	if decision != policy.Allowed {
		why := bound.policies.Explain(&request)
		denied := identity.Denied(imprint.CodeConnectDenied, why)
		if why.NearMiss != nil && why.NearMiss.Kind == policy.MissNoPolicy && who.Certificate.ID != "" {
			denied = denied.WithHint("aws iot attach-policy --policy-name NAME --target %s", who.Certificate.ARN())
		}
		if thing := otherThing(why, who, c.clientID); thing != "" {
			denied = denied.WithHint("connect with the thing's name as client id: %s", thing)
		}
		err = denied
		c.refused("policy.connect", err)
		c.announceConnectFailed()
		return err
	}
	c.peer.Rec.OK("policy.connect", "%s", "iot:Connect on client/"+string(c.clientID)+" is allowed by "+by.String())
	err = c.checkWill(packet.Will, bound)
	if err != nil {
		c.refused("mqtt.will", err)
		if imprint.CodeOf(err) == imprint.CodeWillDenied {
			c.announceConnectFailed()
		}
		return err
	}
	// Last, so that nobody uses up the rate of a client id that isn't theirs.
	if !c.realm.mayConnect(c.clientID, c.broker.clock(), c.broker.opts.ConnectRate) {
		err := imprint.Errorf(imprint.CodeConnectRate, "client id %q connects more than %d times a second", c.clientID, c.broker.opts.ConnectRate)
		c.refused("mqtt.connect", err)
		return err
	}
	return nil
}

// otherThing names the thing of a certificate whose policy wants the client id to be a
// thing's name, where that isn't; empty: something else is wrong, or there are several.
func otherThing(why policy.Explanation, who *identity.Identity, client imprint.ClientID) imprint.ThingName {
	miss := why.NearMiss
	if miss == nil || !strings.HasPrefix(strings.ToLower(miss.Variable), "iot:connection.thing.") {
		return ""
	}
	if len(who.Things) != 1 || who.ThingFor(client) != nil {
		return ""
	}
	return who.Things[0].Thing.Name
}

// maxExplained bounds the denials of a connection that have their words at hand: finding
// these costs far more than deciding. Where there are more, one a second is put into words.
const maxExplained = 32

// explained are the latest denials that were put into words, each for as long as its
// device's policies are what they were.
type explained struct {
	bound   *binding
	denials []*imprint.Error // of *identity.Denial
	at      time.Time        // of the last one
}

// explain gives the words for a denial that doesn't end the connection.
func (c *connection) explain(code imprint.Code, bound *binding, request *policy.Request) *imprint.Error {
	if c.explained == nil || c.explained.bound != bound {
		c.explained = &explained{bound: bound}
	}
	e, resource := c.explained, request.Resource()
	for _, known := range e.denials {
		denial, _ := known.Err.(*identity.Denial)
		if known.Code == code && denial != nil && denial.Action == request.Action && denial.Resource == resource {
			return known
		}
	}
	now, full := c.broker.clock(), len(e.denials) >= maxExplained
	if full && now.Sub(e.at) < time.Second {
		words := fmt.Sprintf("%s on %s is denied, like many other requests of this connection", request.Action, resource)
		return &imprint.Error{Code: code, Err: &identity.Denial{Action: request.Action, Resource: resource, Words: words}}
	}
	if full {
		e.denials = slices.Delete(e.denials, 0, 1)
	}
	denied := identity.Denied(code, bound.policies.Explain(request))
	e.denials, e.at = append(e.denials, denied), now
	return denied
}

// connectAttributes are the values of the condition key iot:ConnectAttributes.
func connectAttributes(packet *mqtt.Connect) policy.ConnectAttributes {
	var attributes policy.ConnectAttributes
	persistent := !packet.CleanStart
	if packet.Version == mqtt.V5 {
		persistent = packet.Properties.SessionExpiry > 0
	}
	if persistent {
		attributes |= policy.PersistentConnect
	}
	if packet.Will != nil {
		attributes |= policy.LastWill
	}
	return attributes
}

// checkClientID applies AWS IoT Core's rules and makes up an id where the
// client leaves it to the server.
func (c *connection) checkClientID(packet *mqtt.Connect) error {
	switch {
	case packet.ClientID == "" && c.version != mqtt.V5 && !packet.CleanStart:
		return imprint.Errorf(imprint.CodeClientIDInvalid, "an empty client id needs a clean session [MQTT-3.1.3-8]")
	case packet.ClientID == "":
		var raw [16]byte
		// crypto/rand.Read never fails; it ends the program instead.
		_, _ = rand.Read(raw[:])
		c.clientID = imprint.ClientID("auto-" + hex.EncodeToString(raw[:]))
	case len(packet.ClientID) > c.broker.opts.MaxClientIDBytes:
		return imprint.Errorf(imprint.CodeClientIDInvalid, "the client id is %d bytes long, at most %d are allowed", len(packet.ClientID), c.broker.opts.MaxClientIDBytes)
	case strings.HasPrefix(packet.ClientID, "$"):
		return imprint.Errorf(imprint.CodeClientIDInvalid, "the client id begins with $")
	}
	return nil
}

// checkWill authorizes the will now, so that it needs no policy when it is due.
func (c *connection) checkWill(w *mqtt.Will, bound *binding) error {
	if w == nil {
		return nil
	}
	if w.QoS > 1 {
		return imprint.Errorf(imprint.CodeQoSNotSupported, "the will has QoS %d", w.QoS)
	}
	err := c.broker.checkTopic(w.Topic)
	if err != nil {
		return err
	}
	if strings.HasPrefix(w.Topic, "$") {
		return imprint.Errorf(imprint.CodeReservedTopic, "the will's topic %q begins with $", w.Topic)
	}
	if len(w.Payload) > c.broker.opts.MaxPayload {
		return imprint.Errorf(imprint.CodePacketTooLarge, "the will's payload is %d bytes long, at most %d are allowed", len(w.Payload), c.broker.opts.MaxPayload)
	}
	request := policy.Request{
		Action: policy.Publish, ResourcePrefix: c.realm.topicARN, ResourceName: w.Topic,
		Vars: bound.vars, Now: c.broker.clock(),
	}
	if bound.policies.Decide(&request) != policy.Allowed {
		return identity.Denied(imprint.CodeWillDenied, bound.policies.Explain(&request))
	}
	request.Action = policy.RetainPublish
	if w.Retain && bound.policies.Decide(&request) != policy.Allowed {
		return identity.Denied(imprint.CodeWillDenied, bound.policies.Explain(&request))
	}
	c.uses.note(usePublish, w.Topic)
	if w.Retain {
		c.uses.note(useRetain, w.Topic)
	}
	c.will = newWill(w)
	c.will.clientID, c.will.principal = c.clientID, c.principal
	return nil
}

// sessionExpiry is how long the session is kept after the connection; 0 when it
// ends with it. MQTT 3.1.1 clients can't say: the server's default holds.
func (c *connection) sessionExpiry(packet *mqtt.Connect) time.Duration {
	opts := &c.broker.opts
	if c.version != mqtt.V5 {
		if packet.CleanStart {
			return 0
		}
		return opts.SessionExpiry
	}
	return min(time.Duration(packet.Properties.SessionExpiry)*time.Second, opts.MaxSessionExpiry)
}

// accept takes the connection in and answers CONNACK. An error means that the
// broker doesn't know the connection.
func (c *connection) accept(ctx context.Context, packet *mqtt.Connect) error {
	c.id = uuid.NewString()
	c.keepAlive = c.broker.clampKeepAlive(packet.KeepAlive)
	c.window = c.broker.opts.MaxInflight
	connack := mqtt.Connack{}
	a := arrival{connection: c, cleanStart: packet.CleanStart, expiry: c.sessionExpiry(packet), connack: &connack}
	if c.version == mqtt.V5 {
		if most := int(packet.Properties.ReceiveMaximum); most > 0 {
			c.window = min(c.window, most)
		}
		c.aliasMaximum = int32(min(int(packet.Properties.TopicAliasMaximum), c.broker.opts.MaxTopicAliases))
		c.describeServer(packet, a.expiry, &connack)
	}
	err := c.enter(ctx, a)
	if err != nil {
		c.refused("mqtt.connack", err)
		return err
	}
	c.broker.count.connects.Add(1)
	if c.broker.opts.Seen != nil {
		c.broker.opts.Seen(c.realm.tenant, c.certificate)
	}
	// A certificate that changed since Admit looked, and before the session could
	// be found by its certificate, is noticed here.
	c.current(ctx)
	c.uncork()
	c.flush()
	switch {
	case connack.SessionPresent:
		c.peer.Rec.OK("connected", "CONNACK 0 sent, the session is resumed; keep-alive %s, session kept for %s", c.keepAlive, a.expiry)
	case a.expiry > 0:
		c.peer.Rec.OK("connected", "CONNACK 0 sent; keep-alive %s, session kept for %s", c.keepAlive, a.expiry)
	default:
		c.peer.Rec.OK("connected", "CONNACK 0 sent; keep-alive %s", c.keepAlive)
	}
	c.peer.Rec.Connected()
	c.announceConnected()
	if connack.SessionPresent {
		c.session.joinGroups()
	}
	return nil
}

// enter makes the connection the one of its client id, and what the client is
// about to be told durable.
func (c *connection) enter(ctx context.Context, a arrival) error {
	if size := len(a.connack.Append(nil, c.version)); c.maxPacket > 0 && size > c.maxPacket {
		return end(imprint.CodePacketTooLarge, "the client takes packets of at most %d bytes, CONNACK has %d", c.maxPacket, size)
	}
	before, err := c.broker.enter(a)
	if err != nil {
		return err
	}
	err = c.broker.settleArrival(ctx, a, before)
	if err != nil {
		// CONNACK was never sent: the refusal takes its place.
		c.session.mu.Lock()
		giveBuffer(c.out.pending)
		c.out.pending, c.out.closing = nil, true
		if s := c.session; s.durable != nil && !a.connack.SessionPresent && s.conn.Load() == c {
			// Nobody was told of the new session: the next one to come finds none.
			s.durable.expiry = 0
		}
		c.session.mu.Unlock()
		c.will = nil
		c.withdraw()
	}
	return err
}

// clampKeepAlive applies the range that AWS IoT Core documents; 0 can't switch
// it off.
func (b *Broker) clampKeepAlive(seconds uint16) time.Duration {
	asked := time.Duration(seconds) * time.Second
	if asked == 0 {
		return b.opts.MaxKeepAlive
	}
	return min(max(asked, b.opts.MinKeepAlive), b.opts.MaxKeepAlive)
}

// describeServer fills the CONNACK's properties (MQTT 5 section 3.2.2.3).
func (c *connection) describeServer(packet *mqtt.Connect, expiry time.Duration, connack *mqtt.Connack) {
	opts := c.broker.opts
	p := &connack.Properties
	p.ReceiveMaximum = uint16(opts.MaxInflight)
	p.MaximumQoS = 1
	p.RetainAvailable = 1
	p.MaximumPacketSize = uint32(opts.maxPacket())
	p.TopicAliasMaximum = uint16(opts.MaxTopicAliases)
	p.WildcardAvailable = 1
	p.SubscriptionIDAvailable = 0
	p.SharedAvailable = 1
	p.Mark(mqtt.PropReceiveMaximum, mqtt.PropMaximumQoS, mqtt.PropRetainAvailable, mqtt.PropMaximumPacketSize,
		mqtt.PropTopicAliasMaximum, mqtt.PropWildcardAvailable, mqtt.PropSubscriptionIDAvailable, mqtt.PropSharedAvailable)
	if effective := uint32(expiry / time.Second); effective != packet.Properties.SessionExpiry {
		p.SessionExpiry = effective
		p.Mark(mqtt.PropSessionExpiry)
	}
	if effective := uint16(c.keepAlive / time.Second); effective != packet.KeepAlive {
		p.ServerKeepAlive = effective
		p.Mark(mqtt.PropServerKeepAlive)
	}
	if packet.ClientID == "" {
		p.AssignedClientID = string(c.clientID)
		p.Mark(mqtt.PropAssignedClientID)
	}
}

// refuse answers a connection that isn't taken in, and ends its record.
func (c *connection) refuse(why *endError) {
	outcome := imprint.OutcomeRefused
	if why.code == imprint.CodeProvisioned {
		outcome = imprint.OutcomeProvisioned
		c.peer.Rec.OK("close", "closed as AWS IoT Core closes a first connection; the device's next one is let in")
	}
	if misuse(why.code) {
		c.broker.count.protocolErrors.Add(1)
	}
	reply, wire := c.refusal(why)
	if c.version != 0 {
		c.peer.Rec.Sent(wire)
	}
	if reply != nil {
		_ = c.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
		_, err := c.conn.Write(reply)
		if err != nil {
			c.peer.Rec.Info("mqtt.connack", "the refusal couldn't be sent: %v", err)
		}
	}
	c.peer.Rec.End(outcome, why.code)
	if reply != nil && halfClose(c.conn) {
		// Who doesn't hang up must not keep others from being looked at.
		if c.peer.Admitted != nil {
			c.peer.Admitted()
		}
		farewell(c.conn)
	}
}

// refusal is the CONNACK for a refused connection: a reason for MQTT 5, mostly
// nothing for 3.1.1, where AWS IoT Core closes without a word. Wire says it in words.
func (c *connection) refusal(why *endError) (reply []byte, wire string) {
	reason := why.reason(mqtt.TypeConnack)
	form := mqtt.V311
	switch {
	case why.code == imprint.CodeUnsupportedVersion:
		// The level isn't known here; both forms are understood by what speaks
		// them: 3.1.1 clients read return code 1, later ones the reason.
		reason = mqtt.UnsupportedProtocolVersion
		if c.version > mqtt.V5 {
			form = mqtt.V5
		}
	case reason == 0 || c.version == 0:
		return nil, closedWithout(mqtt.TypeConnack)
	case c.version == mqtt.V5:
		connack := &mqtt.Connack{Reason: reason}
		c.tell(&connack.Properties, why.err)
		return connack.Append(nil, mqtt.V5), sent(mqtt.TypeConnack, mqtt.V5, reason)
	case !c.broker.opts.RefusedConnectGetsReason || why.code == imprint.CodeProtocolViolation:
		return nil, closedWithout(mqtt.TypeConnack)
	default:
		_, fits := mqtt.ConnackReturnCode(reason)
		if !fits {
			reason = mqtt.NotAuthorized
		}
	}
	return (&mqtt.Connack{Reason: reason}).Append(nil, form), sent(mqtt.TypeConnack, form, reason)
}
