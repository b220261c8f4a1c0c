package mqtt

import "fmt"

// ReasonCode is the result of an operation in MQTT 5 (section 2.4). Codes below
// 0x80 mean success.
type ReasonCode byte

// The reason codes of MQTT 5.0, table 2-6.
const (
	Success                             ReasonCode = 0x00 // also Normal disconnection and Granted QoS 0
	GrantedQoS1                         ReasonCode = 0x01
	GrantedQoS2                         ReasonCode = 0x02
	DisconnectWithWill                  ReasonCode = 0x04
	NoMatchingSubscribers               ReasonCode = 0x10
	NoSubscriptionExisted               ReasonCode = 0x11
	ContinueAuthentication              ReasonCode = 0x18
	Reauthenticate                      ReasonCode = 0x19
	UnspecifiedError                    ReasonCode = 0x80
	MalformedPacket                     ReasonCode = 0x81
	ProtocolError                       ReasonCode = 0x82
	ImplementationSpecificError         ReasonCode = 0x83
	UnsupportedProtocolVersion          ReasonCode = 0x84
	ClientIdentifierNotValid            ReasonCode = 0x85
	BadUserNameOrPassword               ReasonCode = 0x86
	NotAuthorized                       ReasonCode = 0x87
	ServerUnavailable                   ReasonCode = 0x88
	ServerBusy                          ReasonCode = 0x89
	Banned                              ReasonCode = 0x8A
	ServerShuttingDown                  ReasonCode = 0x8B
	BadAuthenticationMethod             ReasonCode = 0x8C
	KeepAliveTimeout                    ReasonCode = 0x8D
	SessionTakenOver                    ReasonCode = 0x8E
	TopicFilterInvalid                  ReasonCode = 0x8F
	TopicNameInvalid                    ReasonCode = 0x90
	PacketIdentifierInUse               ReasonCode = 0x91
	PacketIdentifierNotFound            ReasonCode = 0x92
	ReceiveMaximumExceeded              ReasonCode = 0x93
	TopicAliasInvalid                   ReasonCode = 0x94
	PacketTooLarge                      ReasonCode = 0x95
	MessageRateTooHigh                  ReasonCode = 0x96
	QuotaExceeded                       ReasonCode = 0x97
	AdministrativeAction                ReasonCode = 0x98
	PayloadFormatInvalid                ReasonCode = 0x99
	RetainNotSupported                  ReasonCode = 0x9A
	QoSNotSupported                     ReasonCode = 0x9B
	UseAnotherServer                    ReasonCode = 0x9C
	ServerMoved                         ReasonCode = 0x9D
	SharedSubscriptionsNotSupported     ReasonCode = 0x9E
	ConnectionRateExceeded              ReasonCode = 0x9F
	MaximumConnectTime                  ReasonCode = 0xA0
	SubscriptionIdentifiersNotSupported ReasonCode = 0xA1
	WildcardSubscriptionsNotSupported   ReasonCode = 0xA2
)

// packetMask is a set of the places where a reason code or a property may
// stand: bit 1<<PacketType, and bit 0 for the will in a CONNECT.
type packetMask uint16

const (
	inWill        packetMask = 1
	inConnect     packetMask = 1 << TypeConnect
	inConnack     packetMask = 1 << TypeConnack
	inPublish     packetMask = 1 << TypePublish
	inPuback      packetMask = 1 << TypePuback
	inPubrec      packetMask = 1 << TypePubrec
	inPubrel      packetMask = 1 << TypePubrel
	inPubcomp     packetMask = 1 << TypePubcomp
	inSubscribe   packetMask = 1 << TypeSubscribe
	inSuback      packetMask = 1 << TypeSuback
	inUnsubscribe packetMask = 1 << TypeUnsubscribe
	inUnsuback    packetMask = 1 << TypeUnsuback
	inDisconnect  packetMask = 1 << TypeDisconnect
	inAuth        packetMask = 1 << TypeAuth

	inAnyAck = inPuback | inPubrec | inPubrel | inPubcomp
)

// reasons holds the name of each code and the packets that may carry it. It is
// never written to.
var reasons = [256]struct {
	name string
	in   packetMask
}{
	Success:                             {"Success", inConnack | inPuback | inPubrec | inPubrel | inPubcomp | inSuback | inUnsuback | inDisconnect | inAuth},
	GrantedQoS1:                         {"Granted QoS 1", inSuback},
	GrantedQoS2:                         {"Granted QoS 2", inSuback},
	DisconnectWithWill:                  {"Disconnect with Will Message", inDisconnect},
	NoMatchingSubscribers:               {"No matching subscribers", inPuback | inPubrec},
	NoSubscriptionExisted:               {"No subscription existed", inUnsuback},
	ContinueAuthentication:              {"Continue authentication", inAuth},
	Reauthenticate:                      {"Re-authenticate", inAuth},
	UnspecifiedError:                    {"Unspecified error", inConnack | inPuback | inPubrec | inSuback | inUnsuback | inDisconnect},
	MalformedPacket:                     {"Malformed Packet", inConnack | inDisconnect},
	ProtocolError:                       {"Protocol Error", inConnack | inDisconnect},
	ImplementationSpecificError:         {"Implementation specific error", inConnack | inPuback | inPubrec | inSuback | inUnsuback | inDisconnect},
	UnsupportedProtocolVersion:          {"Unsupported Protocol Version", inConnack},
	ClientIdentifierNotValid:            {"Client Identifier not valid", inConnack},
	BadUserNameOrPassword:               {"Bad User Name or Password", inConnack},
	NotAuthorized:                       {"Not authorized", inConnack | inPuback | inPubrec | inSuback | inUnsuback | inDisconnect},
	ServerUnavailable:                   {"Server unavailable", inConnack},
	ServerBusy:                          {"Server busy", inConnack | inDisconnect},
	Banned:                              {"Banned", inConnack},
	ServerShuttingDown:                  {"Server shutting down", inDisconnect},
	BadAuthenticationMethod:             {"Bad authentication method", inConnack | inDisconnect},
	KeepAliveTimeout:                    {"Keep Alive timeout", inDisconnect},
	SessionTakenOver:                    {"Session taken over", inDisconnect},
	TopicFilterInvalid:                  {"Topic Filter invalid", inSuback | inUnsuback | inDisconnect},
	TopicNameInvalid:                    {"Topic Name invalid", inConnack | inPuback | inPubrec | inDisconnect},
	PacketIdentifierInUse:               {"Packet Identifier in use", inPuback | inPubrec | inSuback | inUnsuback},
	PacketIdentifierNotFound:            {"Packet Identifier not found", inPubrel | inPubcomp},
	ReceiveMaximumExceeded:              {"Receive Maximum exceeded", inDisconnect},
	TopicAliasInvalid:                   {"Topic Alias invalid", inDisconnect},
	PacketTooLarge:                      {"Packet too large", inConnack | inDisconnect},
	MessageRateTooHigh:                  {"Message rate too high", inDisconnect},
	QuotaExceeded:                       {"Quota exceeded", inConnack | inPuback | inPubrec | inSuback | inDisconnect},
	AdministrativeAction:                {"Administrative action", inDisconnect},
	PayloadFormatInvalid:                {"Payload format invalid", inConnack | inPuback | inPubrec | inDisconnect},
	RetainNotSupported:                  {"Retain not supported", inConnack | inDisconnect},
	QoSNotSupported:                     {"QoS not supported", inConnack | inDisconnect},
	UseAnotherServer:                    {"Use another server", inConnack | inDisconnect},
	ServerMoved:                         {"Server moved", inConnack | inDisconnect},
	SharedSubscriptionsNotSupported:     {"Shared Subscriptions not supported", inSuback | inDisconnect},
	ConnectionRateExceeded:              {"Connection rate exceeded", inConnack | inDisconnect},
	MaximumConnectTime:                  {"Maximum connect time", inDisconnect},
	SubscriptionIdentifiersNotSupported: {"Subscription Identifiers not supported", inSuback | inDisconnect},
	WildcardSubscriptionsNotSupported:   {"Wildcard Subscriptions not supported", inSuback | inDisconnect},
}

// String gives the name in the specification, or the code in hexadecimal when
// the specification does not define it.
func (c ReasonCode) String() string {
	if reasons[c].name != "" {
		return reasons[c].name
	}
	return fmt.Sprintf("reason code 0x%02X", byte(c))
}

// Failure reports whether the code is 0x80 or above.
func (c ReasonCode) Failure() bool {
	return c >= 0x80
}

// FromServerOnly reports whether a DISCONNECT with the code can only be a server's (MQTT
// 5 section 3.14.2.1).
func (c ReasonCode) FromServerOnly() bool {
	switch c {
	case NotAuthorized, ServerBusy, ServerShuttingDown, BadAuthenticationMethod, KeepAliveTimeout, SessionTakenOver,
		TopicFilterInvalid, RetainNotSupported, QoSNotSupported, UseAnotherServer, ServerMoved,
		SharedSubscriptionsNotSupported, ConnectionRateExceeded, MaximumConnectTime,
		SubscriptionIdentifiersNotSupported, WildcardSubscriptionsNotSupported:
		return true
	}
	return false
}

// AllowedIn reports whether an MQTT 5 packet of type t may carry the code.
func (c ReasonCode) AllowedIn(t PacketType) bool {
	return t <= TypeAuth && reasons[c].in&(1<<t) != 0
}
