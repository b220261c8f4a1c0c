package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

func connectCheck(v mqtt.Version) string {
	if v == mqtt.V5 {
		return "mqtt.connect.5"
	}
	return "mqtt.connect.3"
}

// mqtt connects as the device, with each version that was asked for.
func (x *examination) mqtt(ctx context.Context) {
	if x.clientID == "" {
		x.skipRest("", "there is no client id to connect with")
		return
	}
	for _, version := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		name := connectCheck(version)
		switch {
		case !slices.Contains(x.opts.MQTT, version):
			x.skip(name, "not asked for")
		case x.caution != "":
			x.skip(name, "%s", x.caution)
		default:
			x.checkConnect(ctx, version)
		}
	}
	if x.connected == 0 {
		x.skipRest("", "no connection was accepted")
		return
	}
	x.converse(ctx)
}

// awsProvisions is how long AWS IoT Core may take to provision a device whose first
// connection it has closed; Imprint is done when it closes.
const awsProvisions = 5 * time.Second

// pace waits until a client id may connect again.
func (x *examination) pace(ctx context.Context, clientID string) {
	if !x.lastConnect[clientID].IsZero() {
		rest(ctx, x.opts.Pace-time.Since(x.lastConnect[clientID]))
	}
}

// rest waits, or until the context ends.
func rest(ctx context.Context, wait time.Duration) {
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// answer is what came of one CONNECT.
type answer struct {
	session *session // nil unless it was accepted
	trouble *finding
}

// ask connects once, at the pace that a client id may have.
func (x *examination) ask(ctx context.Context, version mqtt.Version, clientID string, clean bool) answer {
	x.pace(ctx, clientID)
	s, o, err := x.open(ctx, version, clientID, clean)
	if err != nil {
		return answer{trouble: x.connectTrouble(o, err)}
	}
	if s.connack.Reason != mqtt.Success {
		s.cut()
		return answer{trouble: x.connackTrouble(s.connack, version, clientID)}
	}
	return answer{session: s}
}

// checkConnect connects with one version, and once more where the first
// connection may have been closed by design.
func (x *examination) checkConnect(ctx context.Context, version mqtt.Version) {
	name := connectCheck(version)
	// MQTT 3.1.1, and MQTT 5 alone, come without a clean start, which would end a
	// session that the device has. After MQTT 3.1.1 there is none.
	clean := version == mqtt.V5 && slices.Contains(x.opts.MQTT, mqtt.V311)
	a := x.ask(ctx, version, x.clientID, clean)
	first := a.trouble
	if first != nil && mayBeFirst(first.code) && !x.provisioned {
		if x.at.aws() {
			rest(ctx, awsProvisions)
		}
		a = x.ask(ctx, version, x.clientID, clean)
	}
	if a.trouble != nil {
		trouble := x.refusedConnect(ctx, version, clean, a.trouble)
		x.tell(trouble.as(name, verdictOf(trouble.code)))
		return
	}
	s := a.session
	x.connected = version
	x.stored = x.stored || s.connack.SessionPresent
	detail := fmt.Sprintf("CONNACK: accepted as %q", shown(x.clientID))
	if s.connack.SessionPresent {
		detail += "; the device has a stored session, which is left as it is"
		if version == mqtt.V311 {
			x.caution = "the device has a stored session of MQTT 3.1.1, which a connection with MQTT 5 may end"
		}
	}
	// A session that MQTT 3.1.1 began here ends with the next connection, which is a
	// clean one.
	s.close(!s.connack.SessionPresent)
	if first == nil {
		x.ok(name, "%s", detail)
		return
	}
	x.provisioned = true
	x.tell(Check{Name: name, Verdict: OK, Code: FirstConnectionClosed, Detail: fmt.Sprintf("the first connection was refused (%s), the second accepted: %s", first.detail, detail),
		Fix: FirstConnectionClosed.description().Fix})
}

// mayBeFirst says whether a refusal may be a first connection's.
func mayBeFirst(code Code) bool { return code == ConnectClosed || code == NotAuthorized }

// verdictOf: a device needs only one version of MQTT, and no stored session.
func verdictOf(code Code) Verdict {
	if code == MQTTVersionRefused || code == PersistentRefused {
		return Warning
	}
	return Failed
}

// refusedConnect tries what may be allowed instead.
func (x *examination) refusedConnect(ctx context.Context, version mqtt.Version, clean bool, trouble *finding) *finding {
	if !mayBeFirst(trouble.code) {
		return trouble
	}
	if !clean && version == mqtt.V311 {
		a := x.ask(ctx, version, x.clientID, true)
		if a.session != nil {
			a.session.close(true)
			x.connected = version
			return found(PersistentRefused, "refused without a clean session (%s), accepted with one", trouble.detail)
		}
	}
	common := x.leaf.Subject.CommonName
	if common == "" || common == x.clientID {
		return trouble
	}
	a := x.ask(ctx, version, common, true)
	if a.session == nil {
		return trouble
	}
	a.session.close(true)
	return found(ClientIDNotAllowed, "refused as %q (%s), accepted as %q", shown(x.clientID), trouble.detail, shown(common)).
		with("Let the device use the client id %s; or allow iot:Connect on client/%s in the certificate's policy", shown(common), shown(x.clientID))
}

// connectTrouble says why there was no CONNACK.
func (x *examination) connectTrouble(o *outcome, err error) *finding {
	var garbage *notMQTTError
	var ended *endedError
	var network net.Error
	switch {
	case !o.complete:
		return x.tlsTrouble(o)
	case errors.Is(err, errHTTP):
		return found(NotMQTT, "%v", err).with("For MQTT on this port: --alpn %s; or use port 8883.", mqttALPN)
	case errors.As(err, &garbage):
		return found(NotMQTT, "what came after CONNECT isn't a CONNACK: %s", shown(err.Error()))
	case errors.As(err, &ended):
		return x.connackTrouble(&mqtt.Connack{Reason: ended.packet.Reason, Properties: ended.packet.Properties}, mqtt.V5, x.clientID)
	case errors.Is(err, errTooMuch):
		return found(TLSTooMuch, "%v", err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return x.withoutALPN(o, found(ConnectUnanswered, "CONNECT was sent, and nothing came for %s", x.opts.Timeout))
	}
	_, is := alertOf(err)
	if is {
		late := *o
		late.err = err
		return x.clientTrouble(x.tlsTrouble(&late))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		f := found(ConnectClosed, "the server closed the connection instead of answering CONNECT").with("%s", x.whyFix())
		if x.serverName == "" {
			f.detail += "; no server name was sent, so it may look for the certificate in the wrong account"
		}
		if !o.asked {
			f.detail += "; it never asked for the device's certificate"
		}
		return x.withoutALPN(o, f)
	}
	return found(NotMQTT, "the connection broke after CONNECT: %s", shown(err.Error()))
}

// withoutALPN gives a CONNECT that wasn't answered the fix for a port that speaks HTTP where
// no application protocol was chosen.
func (x *examination) withoutALPN(o *outcome, f *finding) *finding {
	if x.at.alpnPort() && o.state.NegotiatedProtocol == "" {
		f.with("Port %d speaks HTTP without an application protocol: --alpn %s", x.at.port, mqttALPN)
	}
	return f
}

// connackTrouble says what a CONNACK that refuses means (MQTT 5.0 section 3.2.2.2,
// MQTT 3.1.1 section 3.2.2.3).
func (x *examination) connackTrouble(c *mqtt.Connack, version mqtt.Version, clientID string) *finding {
	code := ConnectRefused
	switch c.Reason {
	case mqtt.NotAuthorized, mqtt.Banned:
		code = NotAuthorized
	case mqtt.ClientIdentifierNotValid:
		code = ClientIDRefused
	case mqtt.BadUserNameOrPassword, mqtt.BadAuthenticationMethod:
		code = BadUserNameOrPassword
	case mqtt.ServerUnavailable, mqtt.ServerBusy, mqtt.ServerShuttingDown, mqtt.QuotaExceeded, mqtt.ConnectionRateExceeded:
		code = ServerBusy
	case mqtt.UnsupportedProtocolVersion:
		code = MQTTVersionRefused
	}
	number := fmt.Sprintf("0x%02X", byte(c.Reason))
	if version != mqtt.V5 {
		old, _ := mqtt.ConnackReturnCode(c.Reason)
		number = fmt.Sprint(old)
	}
	f := found(code, "CONNACK %s, %s", number, strings.ToLower(c.Reason.String()))
	if c.Properties.Has(mqtt.PropReasonString) {
		f.detail += fmt.Sprintf(": %q", shown(c.Properties.ReasonString))
	}
	if code == NotAuthorized {
		f.with("%s", x.whyFix())
	}
	return f
}

// whyFix says how to learn why the server doesn't let the device connect.
func (x *examination) whyFix() string {
	switch {
	case x.opts.Explain != "":
		return x.opts.Explain + " " + x.id
	case x.at.aws():
		return fmt.Sprintf("aws iot describe-certificate --certificate-id %s (it has to be ACTIVE), then aws iot list-attached-policies --target with its ARN: one has to allow iot:Connect on client/%s", x.id, shown(x.clientID))
	case x.imprint():
		return "On the server: imprint explain " + x.id
	}
	return fmt.Sprintf("Look at the broker's log and access rules for the certificate %q and the client id %s.", shown(x.leaf.Subject.String()), shown(x.clientID))
}

// converse makes the checks of a connection that was accepted.
func (x *examination) converse(ctx context.Context) {
	clean := !x.stored
	a := x.ask(ctx, x.connected, x.clientID, clean)
	if a.trouble != nil {
		x.tell(a.trouble.as("mqtt.ping", Failed))
		x.skipRest("", "the connection was refused when it was made once more")
		return
	}
	s := a.session
	defer func() { s.close(clean) }()
	if !x.checkPing(s) {
		x.skipRest("", "the connection is gone")
		return
	}
	subscribed, alive := x.checkSubscribe(s)
	if !alive {
		x.skipRest("", "the connection is gone")
		return
	}
	published := x.checkPublish(s)
	x.checkReceive(s, subscribed && published)
}

// live translates the end of a connection that had been accepted. Unanswered is
// the code for a step that took too long, refused the one for a close.
func (x *examination) live(err error, what string, unanswered, refused Code) *finding {
	var ended *endedError
	var garbage *notMQTTError
	var network net.Error
	switch {
	case errors.As(err, &ended) && ended.packet.Reason == mqtt.SessionTakenOver:
		return found(TakenOver, "%v", err)
	case errors.As(err, &ended) && ended.packet.Reason != mqtt.NotAuthorized:
		return found(ConnectionEnded, "%v after %s", err, what)
	case errors.As(err, &ended):
		return found(refused, "%v after %s", err, what)
	case errors.As(err, &garbage):
		return found(NotMQTT, "what came after %s isn't MQTT: %s", what, shown(err.Error()))
	case errors.Is(err, errTooMuch):
		return found(TLSTooMuch, "%v", err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return found(unanswered, "%s was sent, and no answer came for %s", what, x.opts.Timeout)
	}
	return found(refused, "the server closed the connection after %s", what)
}

func (x *examination) checkPing(s *session) bool {
	const name = "mqtt.ping"
	err := s.send(&mqtt.Pingreq{})
	if err == nil {
		err = s.await(mqtt.TypePingresp, &mqtt.Pingresp{})
	}
	if err != nil {
		f := x.live(err, "PINGREQ", PingUnanswered, ConnectionEnded)
		if f.code == ConnectionEnded {
			f.detail += "; another client with this client id ends it, too"
			f.fix = "Switch the device off for the examination; then " + x.whyFix()
		}
		x.tell(f.as(name, Failed))
		return false
	}
	x.ok(name, "PINGREQ is answered")
	return true
}

// checkTopic applies the rules of MQTT and AWS IoT Core's quotas.
func checkTopic(topic string, check func(string) error) *finding {
	err := check(topic)
	switch {
	case err != nil:
		return found(TopicInvalid, "%q isn't legal: %s", shown(topic), shown(err.Error()))
	case len(topic) > 256:
		return found(TopicInvalid, "it has %d bytes", len(topic))
	case strings.Count(topic, "/") > 7 && !strings.HasPrefix(topic, "$"):
		return found(TopicInvalid, "%q has %d slashes", shown(topic), strings.Count(topic, "/"))
	}
	return nil
}

// checkSubscribe subscribes, if asked to. Alive is false when the connection is
// gone.
func (x *examination) checkSubscribe(s *session) (subscribed, alive bool) {
	const name = "mqtt.subscribe"
	filter := x.opts.Subscribe
	if filter == "" {
		x.skip(name, "no filter was given (--subscribe)")
		return false, true
	}
	if f := checkTopic(filter, mqtt.CheckTopicFilter); f != nil {
		x.tell(f.as(name, Failed))
		return false, true
	}
	if x.stored {
		x.skip(name, "the device has a stored session, which a subscription would change: give another --client-id")
		return false, true
	}
	err := s.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: filter, QoS: mqtt.QoS1}}})
	suback := &mqtt.Suback{}
	if err == nil {
		err = s.await(mqtt.TypeSuback, suback)
	}
	fix := fmt.Sprintf("Allow iot:Subscribe on topicfilter/%s, and iot:Receive on topic/%s", shown(filter), shown(strings.NewReplacer("+", "*", "#", "*").Replace(filter)))
	if x.opts.Explain != "" || x.imprint() {
		fix += "; " + x.whyFix()
	}
	switch {
	case err != nil:
		f := x.live(err, "SUBSCRIBE", SubscribeUnanswered, SubscribeRefused)
		if f.code == SubscribeRefused {
			f.with("%s", fix)
		}
		x.tell(f.as(name, Failed))
		return false, false
	case len(suback.Codes) != 1 || suback.Codes[0].Failure():
		reason := "no code"
		if len(suback.Codes) > 0 {
			reason = fmt.Sprintf("0x%02X %s", byte(suback.Codes[0]), strings.ToLower(suback.Codes[0].String()))
		}
		if suback.Properties.Has(mqtt.PropReasonString) {
			reason += fmt.Sprintf(": %q", shown(suback.Properties.ReasonString))
		}
		f := found(SubscribeRefused, "SUBACK %s", reason).with("%s", fix)
		if len(suback.Codes) > 0 {
			f = f.orTopic(suback.Codes[0])
		}
		x.tell(f.as(name, Failed))
		return false, true
	}
	x.ok(name, "SUBACK: %q is granted at QoS %d", shown(filter), suback.Codes[0])
	return true, true
}

// orTopic turns a refusal for which no policy is to blame into one of the topic.
func (f *finding) orTopic(reason mqtt.ReasonCode) *finding {
	if reason == mqtt.TopicFilterInvalid || reason == mqtt.TopicNameInvalid {
		return found(TopicInvalid, "%s", f.detail)
	}
	return f
}

// checkPublish publishes at QoS 1, if asked to.
func (x *examination) checkPublish(s *session) bool {
	const name = "mqtt.publish"
	topic := x.opts.Publish
	if topic == "" {
		x.skip(name, "no topic was given (--publish)")
		return false
	}
	if f := checkTopic(topic, mqtt.CheckTopicName); f != nil {
		x.tell(f.as(name, Failed))
		return false
	}
	err := s.send(&mqtt.Publish{Topic: []byte(topic), Payload: []byte(x.opts.Payload), QoS: mqtt.QoS1, PacketID: 2})
	puback := &mqtt.Ack{}
	if err == nil {
		err = s.await(mqtt.TypePuback, puback)
	}
	fix := fmt.Sprintf("Allow iot:Publish on topic/%s", shown(topic))
	if x.opts.Explain != "" || x.imprint() {
		fix += "; " + x.whyFix()
	}
	switch {
	case err != nil:
		f := x.live(err, "PUBLISH", PublishUnanswered, PublishRefused)
		if f.code == PublishRefused {
			f.with("%s", fix)
		}
		x.tell(f.as(name, Failed))
		return false
	case puback.Reason.Failure():
		reason := fmt.Sprintf("0x%02X %s", byte(puback.Reason), strings.ToLower(puback.Reason.String()))
		if puback.Properties.Has(mqtt.PropReasonString) {
			reason += fmt.Sprintf(": %q", shown(puback.Properties.ReasonString))
		}
		x.tell(found(PublishRefused, "PUBACK %s", reason).with("%s", fix).orTopic(puback.Reason).as(name, Failed))
		return false
	}
	x.ok(name, "PUBACK: the message on %q is taken", shown(topic))
	return true
}

// checkReceive waits for the message that was published, where it was subscribed
// to.
func (x *examination) checkReceive(s *session, both bool) {
	const name = "mqtt.receive"
	if !both || !mqtt.Match(x.opts.Subscribe, x.opts.Publish) {
		x.skip(name, "a filter that is granted and a topic that is taken, which match, are needed")
		return
	}
	arrived := func() bool {
		return slices.ContainsFunc(s.inbox, func(h heard) bool { return h.topic == x.opts.Publish })
	}
	_ = s.conn.SetDeadline(time.Now().Add(s.timeout))
	for !arrived() {
		header, body, err := s.read()
		if err == nil && header.Type == mqtt.TypePublish {
			err = s.keep(header, body)
		}
		if err != nil {
			x.tell(found(MessageNotReceived, "the message on %q didn't come within %s", shown(x.opts.Publish), s.timeout).
				with("Allow iot:Receive on topic/%s", shown(x.opts.Publish)).as(name, Failed))
			return
		}
	}
	x.ok(name, "the message came back")
}
