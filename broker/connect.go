package broker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/policy"
)

// connect reads the CONNECT packet and takes the session in: admission, client
// id, policy, will, takeover, CONNACK. An error says why the connection isn't
// taken in; it is recorded as a step.
func (s *session) connect(ctx context.Context, in *reader) error {
	packet, err := s.readConnect(in)
	if err != nil {
		s.peer.Rec.Fail("mqtt.connect", err)
		return err
	}
	s.version = packet.Version
	s.peer.Rec.OK("mqtt.connect", "%s, client id %q, keep-alive %d s, clean start %t", s.version, packet.ClientID, packet.KeepAlive, packet.CleanStart)
	// Admission comes before anything else of the packet is judged: it is what
	// tells a first connection from a known device.
	who, err := s.peer.Admit(ctx, s.peer.Rec)
	if err != nil {
		return &endError{code: imprint.CodeOf(err), err: err}
	}
	s.certificate = who.Certificate.ID
	s.realm = s.broker.realm(who.Certificate.Tenant)
	s.clientID = imprint.ClientID(packet.ClientID)
	bound := &binding{who: who}
	err = s.checkConnect(packet, bound)
	if err == nil {
		s.bound.Store(bound)
		err = s.accept(ctx, packet)
	}
	if err != nil {
		s.bound.Store(nil)
		s.broker.identities.Release(who)
	}
	return err
}

// readConnect takes the first packet, which must be CONNECT.
func (s *session) readConnect(in *reader) (*mqtt.Connect, error) {
	timeout := s.broker.opts.ConnectTimeout
	header, body, err := in.next(s.broker.opts.MaxConnectPacket, timeout)
	switch {
	case err == nil:
	case isTimeout(err):
		return nil, end(imprint.CodeConnectTimeout, "no CONNECT packet came within %s of the TLS handshake", timeout)
	case errors.Is(err, io.EOF):
		return nil, end(imprint.CodeConnectionLost, "the device closed the connection before its CONNECT packet")
	default:
		return nil, s.ending(err)
	}
	if header.Type != mqtt.TypeConnect {
		return nil, end(imprint.CodeProtocolViolation, "the first packet is %s, not CONNECT [MQTT-3.1.0-1]", header.Type)
	}
	packet := &mqtt.Connect{}
	err = packet.Decode(header, body, 0)
	if err != nil {
		s.version = packet.Version
		return nil, s.ending(err)
	}
	return packet, nil
}

// checkConnect decides on client id, policy and will.
func (s *session) checkConnect(packet *mqtt.Connect, bound *binding) error {
	if packet.Properties.Has(mqtt.PropAuthMethod) {
		err := end(imprint.CodeProtocolViolation, "the client asks for enhanced authentication (MQTT 5 section 4.12)").
			telling(mqtt.BadAuthenticationMethod)
		s.peer.Rec.Fail("mqtt.auth", err)
		return err
	}
	err := s.checkClientID(packet)
	if err != nil {
		s.peer.Rec.Fail("mqtt.clientid", err)
		return err
	}
	s.peer.Rec.Describe(func(a *imprint.Attempt) {
		a.ClientID = s.clientID
		if thing := bound.who.ThingFor(s.clientID); thing != nil {
			a.Thing = thing.Thing.Name
		}
	})
	bound.vars = s.peer.Variables(bound.who, s.clientID)
	request := policy.Request{
		Action: policy.Connect, ResourcePrefix: s.realm.clientARN, ResourceName: string(s.clientID),
		Vars: bound.vars, Now: s.broker.clock(), ConnectAttributes: connectAttributes(packet),
	}
	if packet.Will != nil {
		request.LastWillTopic = s.realm.topicARN + packet.Will.Topic
	}
	if bound.who.Policies.Decide(&request) != policy.Allowed {
		why := bound.who.Policies.Explain(&request)
		err = denied(imprint.CodeConnectDenied, why)
		s.peer.Rec.Fail("policy.connect", err)
		s.announceConnectFailed()
		return err
	}
	s.peer.Rec.OK("policy.connect", "iot:Connect on client/%s is allowed", s.clientID)
	err = s.checkWill(packet.Will, bound)
	if err != nil {
		s.peer.Rec.Fail("mqtt.will", err)
		if imprint.CodeOf(err) == imprint.CodeWillDenied {
			s.announceConnectFailed()
		}
		return err
	}
	return nil
}

// maxExplained bounds how many denials of one session are explained: finding
// words costs far more than deciding, and a trace keeps only so many steps.
const maxExplained = 64

// explain gives the words for a denial that doesn't end the connection, as long
// as the session hasn't had too many.
func (s *session) explain(code imprint.Code, bound *binding, request *policy.Request) *imprint.Error {
	if s.explained >= maxExplained {
		return imprint.Errorf(code, "%s on %s is denied, like %d requests before it", request.Action, request.Resource(), s.explained)
	}
	s.explained++
	return denied(code, bound.who.Policies.Explain(request))
}

// denied makes the refusal of a policy decision, with the decision in words.
func denied(code imprint.Code, why policy.Explanation) *imprint.Error {
	var text strings.Builder
	text.WriteString(why.Sentence)
	for _, v := range why.Variables {
		if v.Resolved {
			fmt.Fprintf(&text, " ${%s} is %q.", v.Name, v.Value)
			continue
		}
		fmt.Fprintf(&text, " ${%s} has no value: %s.", v.Name, v.Reason)
	}
	err := imprint.Errorf(code, "%s", text.String())
	err.Hint = why.Hint
	return err
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
func (s *session) checkClientID(packet *mqtt.Connect) error {
	switch {
	case packet.ClientID == "" && s.version != mqtt.V5 && !packet.CleanStart:
		return imprint.Errorf(imprint.CodeClientIDInvalid, "an empty client id needs a clean session [MQTT-3.1.3-8]")
	case packet.ClientID == "":
		var raw [16]byte
		// crypto/rand.Read never fails; it ends the program instead.
		_, _ = rand.Read(raw[:])
		s.clientID = imprint.ClientID("auto-" + hex.EncodeToString(raw[:]))
	case len(packet.ClientID) > s.broker.opts.MaxClientIDBytes:
		return imprint.Errorf(imprint.CodeClientIDInvalid, "the client id is %d bytes long, at most %d are allowed", len(packet.ClientID), s.broker.opts.MaxClientIDBytes)
	case strings.HasPrefix(packet.ClientID, "$"):
		return imprint.Errorf(imprint.CodeClientIDInvalid, "the client id begins with $")
	}
	return nil
}

// checkWill authorizes the will now, so that it needs no policy when it is due.
func (s *session) checkWill(w *mqtt.Will, bound *binding) error {
	if w == nil {
		return nil
	}
	if w.QoS > 1 {
		return imprint.Errorf(imprint.CodeQoSNotSupported, "the will has QoS %d", w.QoS)
	}
	err := s.checkTopic(w.Topic)
	if err != nil {
		return err
	}
	if strings.HasPrefix(w.Topic, "$") {
		return imprint.Errorf(imprint.CodeReservedTopic, "the will's topic %q begins with $", w.Topic)
	}
	if len(w.Payload) > s.broker.opts.MaxPayload {
		return imprint.Errorf(imprint.CodePacketTooLarge, "the will's payload is %d bytes long, at most %d are allowed", len(w.Payload), s.broker.opts.MaxPayload)
	}
	if w.Retain {
		return imprint.Errorf(imprint.CodeRetainNotOffered, "the will asks to be retained")
	}
	request := policy.Request{
		Action: policy.Publish, ResourcePrefix: s.realm.topicARN, ResourceName: w.Topic,
		Vars: bound.vars, Now: s.broker.clock(),
	}
	if bound.who.Policies.Decide(&request) != policy.Allowed {
		return denied(imprint.CodeWillDenied, bound.who.Policies.Explain(&request))
	}
	s.will = newWill(w)
	return nil
}

// accept takes the session in and answers CONNACK. An error means that the
// broker doesn't know the session.
func (s *session) accept(ctx context.Context, packet *mqtt.Connect) error {
	s.id = uuid.NewString()
	s.keepAlive = s.broker.clampKeepAlive(packet.KeepAlive)
	s.window = s.broker.opts.MaxInflight
	connack := mqtt.Connack{}
	if s.version == mqtt.V5 {
		if most := int(packet.Properties.ReceiveMaximum); most > 0 {
			s.window = min(s.window, most)
		}
		s.maxPacket = int(packet.Properties.MaximumPacketSize)
		s.expiring = packet.Properties.SessionExpiry > 0
		s.describeServer(packet, &connack)
	}
	// CONNACK stands in the buffer before anybody can find the session, so that
	// whoever ends it at once can't get ahead of it.
	s.out.pending = connack.Append(takeBuffer(), s.version)
	err := s.enter(len(s.out.pending))
	if err != nil {
		s.peer.Rec.Fail("mqtt.connack", err)
		giveBuffer(s.out.pending)
		s.out.pending = nil
		return err
	}
	s.broker.count.connects.Add(1)
	// A certificate that changed since Admit looked, and before the session could
	// be found by its certificate, is noticed here.
	s.current(ctx)
	s.flush()
	s.peer.Rec.OK("connected", "CONNACK sent; keep-alive %s", s.keepAlive)
	s.peer.Rec.Connected()
	s.announceConnected()
	return nil
}

// enter makes the session the one of its client id and ends the one before it.
func (s *session) enter(connack int) error {
	if s.maxPacket > 0 && connack > s.maxPacket {
		return end(imprint.CodePacketTooLarge, "the client takes packets of at most %d bytes, CONNACK has %d", s.maxPacket, connack)
	}
	old, ok := s.broker.enter(s)
	if !ok {
		return end(imprint.CodeServerShutdown, "the server is shutting down")
	}
	if old != nil {
		s.broker.count.takeovers.Add(1)
		s.peer.Rec.Info("takeover", "an earlier connection with this client id is ended")
		old.kick(imprint.CodeTakenOver)
	}
	return nil
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
func (s *session) describeServer(packet *mqtt.Connect, connack *mqtt.Connack) {
	opts := s.broker.opts
	p := &connack.Properties
	p.ReceiveMaximum = uint16(opts.MaxInflight)
	p.MaximumQoS = 1
	p.RetainAvailable = 0
	p.MaximumPacketSize = uint32(opts.maxPacket())
	p.TopicAliasMaximum = uint16(opts.MaxTopicAliases)
	p.WildcardAvailable = 1
	p.SubscriptionIDAvailable = 0
	p.SharedAvailable = 0
	p.Mark(mqtt.PropReceiveMaximum, mqtt.PropMaximumQoS, mqtt.PropRetainAvailable, mqtt.PropMaximumPacketSize,
		mqtt.PropTopicAliasMaximum, mqtt.PropWildcardAvailable, mqtt.PropSubscriptionIDAvailable, mqtt.PropSharedAvailable)
	if packet.Properties.SessionExpiry > 0 {
		p.SessionExpiry = 0
		p.Mark(mqtt.PropSessionExpiry)
	}
	if effective := uint16(s.keepAlive / time.Second); effective != packet.KeepAlive {
		p.ServerKeepAlive = effective
		p.Mark(mqtt.PropServerKeepAlive)
	}
	if packet.ClientID == "" {
		p.AssignedClientID = string(s.clientID)
		p.Mark(mqtt.PropAssignedClientID)
	}
}

// refuse answers a connection that isn't taken in, and ends its record.
func (s *session) refuse(why *endError) {
	outcome := imprint.OutcomeRefused
	if why.code == imprint.CodeProvisioned {
		outcome = imprint.OutcomeProvisioned
		s.peer.Rec.OK("close", "closed as AWS IoT Core closes a first connection; the device's next one is let in")
	}
	if misuse(why.code) {
		s.broker.count.protocolErrors.Add(1)
	}
	reply := s.refusal(why)
	if reply != nil {
		_ = s.conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
		_, err := s.conn.Write(reply)
		if err != nil {
			s.peer.Rec.Info("mqtt.connack", "the refusal couldn't be sent: %v", err)
		}
	}
	s.peer.Rec.End(outcome, why.code)
}

// refusal is the CONNACK for a refused connection: a reason for MQTT 5, mostly
// nothing for 3.1.1, where AWS IoT Core closes without a word.
func (s *session) refusal(why *endError) []byte {
	reason := why.reason(mqtt.TypeConnack)
	switch {
	case why.code == imprint.CodeUnsupportedVersion:
		// The level isn't known here; both forms are understood by what speaks
		// them: 3.1.1 clients read return code 1, later ones the reason.
		form := mqtt.V311
		if s.version > mqtt.V5 {
			form = mqtt.V5
		}
		return (&mqtt.Connack{Reason: mqtt.UnsupportedProtocolVersion}).Append(nil, form)
	case reason == 0 || s.version == 0:
		return nil
	case s.version == mqtt.V5:
		return (&mqtt.Connack{Reason: reason}).Append(nil, mqtt.V5)
	case !s.broker.opts.RefusedConnectGetsReason || why.code == imprint.CodeProtocolViolation:
		return nil
	}
	_, fits := mqtt.ConnackReturnCode(reason)
	if !fits {
		reason = mqtt.NotAuthorized
	}
	return (&mqtt.Connack{Reason: reason}).Append(nil, mqtt.V311)
}
