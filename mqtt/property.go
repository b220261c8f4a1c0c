package mqtt

import "strconv"

// PropertyID is the identifier of an MQTT 5 property (MQTT 5.0 table 2-4).
type PropertyID byte

// The properties of MQTT 5.0.
const (
	PropPayloadFormat           PropertyID = 0x01
	PropMessageExpiry           PropertyID = 0x02
	PropContentType             PropertyID = 0x03
	PropResponseTopic           PropertyID = 0x08
	PropCorrelationData         PropertyID = 0x09
	PropSubscriptionID          PropertyID = 0x0B
	PropSessionExpiry           PropertyID = 0x11
	PropAssignedClientID        PropertyID = 0x12
	PropServerKeepAlive         PropertyID = 0x13
	PropAuthMethod              PropertyID = 0x15
	PropAuthData                PropertyID = 0x16
	PropRequestProblemInfo      PropertyID = 0x17
	PropWillDelay               PropertyID = 0x18
	PropRequestResponseInfo     PropertyID = 0x19
	PropResponseInfo            PropertyID = 0x1A
	PropServerReference         PropertyID = 0x1C
	PropReasonString            PropertyID = 0x1F
	PropReceiveMaximum          PropertyID = 0x21
	PropTopicAliasMaximum       PropertyID = 0x22
	PropTopicAlias              PropertyID = 0x23
	PropMaximumQoS              PropertyID = 0x24
	PropRetainAvailable         PropertyID = 0x25
	PropUser                    PropertyID = 0x26
	PropMaximumPacketSize       PropertyID = 0x27
	PropWildcardAvailable       PropertyID = 0x28
	PropSubscriptionIDAvailable PropertyID = 0x29
	PropSharedAvailable         PropertyID = 0x2A
)

// String gives the name in the specification, or the number.
func (id PropertyID) String() string {
	if info, ok := id.info(); ok {
		return info.name
	}
	return "property " + strconv.Itoa(int(id))
}

// kind is the wire form of a property's value.
type kind byte

const (
	kindNone kind = iota
	kindFlag      // a byte that may be 0 or 1 only
	kindUint16
	kindUint32
	kindVarint
	kindString
	kindBinary
	kindPair
)

type propertyInfo struct {
	name string
	kind kind
	in   packetMask
}

// propertyTable is MQTT 5.0 table 2-4. It is never written to.
var propertyTable = [...]propertyInfo{
	PropPayloadFormat:           {"Payload Format Indicator", kindFlag, inPublish | inWill},
	PropMessageExpiry:           {"Message Expiry Interval", kindUint32, inPublish | inWill},
	PropContentType:             {"Content Type", kindString, inPublish | inWill},
	PropResponseTopic:           {"Response Topic", kindString, inPublish | inWill},
	PropCorrelationData:         {"Correlation Data", kindBinary, inPublish | inWill},
	PropSubscriptionID:          {"Subscription Identifier", kindVarint, inPublish | inSubscribe},
	PropSessionExpiry:           {"Session Expiry Interval", kindUint32, inConnect | inConnack | inDisconnect},
	PropAssignedClientID:        {"Assigned Client Identifier", kindString, inConnack},
	PropServerKeepAlive:         {"Server Keep Alive", kindUint16, inConnack},
	PropAuthMethod:              {"Authentication Method", kindString, inConnect | inConnack | inAuth},
	PropAuthData:                {"Authentication Data", kindBinary, inConnect | inConnack | inAuth},
	PropRequestProblemInfo:      {"Request Problem Information", kindFlag, inConnect},
	PropWillDelay:               {"Will Delay Interval", kindUint32, inWill},
	PropRequestResponseInfo:     {"Request Response Information", kindFlag, inConnect},
	PropResponseInfo:            {"Response Information", kindString, inConnack},
	PropServerReference:         {"Server Reference", kindString, inConnack | inDisconnect},
	PropReasonString:            {"Reason String", kindString, inConnack | inAnyAck | inSuback | inUnsuback | inDisconnect | inAuth},
	PropReceiveMaximum:          {"Receive Maximum", kindUint16, inConnect | inConnack},
	PropTopicAliasMaximum:       {"Topic Alias Maximum", kindUint16, inConnect | inConnack},
	PropTopicAlias:              {"Topic Alias", kindUint16, inPublish},
	PropMaximumQoS:              {"Maximum QoS", kindFlag, inConnack},
	PropRetainAvailable:         {"Retain Available", kindFlag, inConnack},
	PropUser:                    {"User Property", kindPair, inConnect | inConnack | inPublish | inWill | inAnyAck | inSubscribe | inSuback | inUnsubscribe | inUnsuback | inDisconnect | inAuth},
	PropMaximumPacketSize:       {"Maximum Packet Size", kindUint32, inConnect | inConnack},
	PropWildcardAvailable:       {"Wildcard Subscription Available", kindFlag, inConnack},
	PropSubscriptionIDAvailable: {"Subscription Identifier Available", kindFlag, inConnack},
	PropSharedAvailable:         {"Shared Subscription Available", kindFlag, inConnack},
}

// info reports false when the specification does not define the property.
func (id PropertyID) info() (propertyInfo, bool) {
	if int(id) >= len(propertyTable) || propertyTable[id].kind == kindNone {
		return propertyInfo{}, false
	}
	return propertyTable[id], true
}

// UserProperty is one name-value pair. Names may repeat (MQTT 5.0 section
// 3.3.2.3.7).
type UserProperty struct {
	Key, Value string
}

// Properties are the MQTT 5 properties of one packet or of one will. A value
// counts only if its bit in Present is set, and is zero otherwise; User and
// SubscriptionIDs need no bit. In MQTT 3.1.1 there are none.
//
//	p := mqtt.Properties{MaximumQoS: 1, ReceiveMaximum: 100}
//	p.Mark(mqtt.PropMaximumQoS, mqtt.PropReceiveMaximum)
type Properties struct {
	Present PropertySet

	// Intervals in seconds, sizes in bytes.
	MessageExpiry     uint32
	SessionExpiry     uint32
	WillDelay         uint32
	MaximumPacketSize uint32
	ServerKeepAlive   uint16
	ReceiveMaximum    uint16
	TopicAliasMaximum uint16
	TopicAlias        uint16

	// Each 0 or 1.
	PayloadFormat           byte
	RequestProblemInfo      byte
	RequestResponseInfo     byte
	MaximumQoS              byte
	RetainAvailable         byte
	WildcardAvailable       byte
	SubscriptionIDAvailable byte
	SharedAvailable         byte

	ContentType      string
	ResponseTopic    string
	AssignedClientID string
	AuthMethod       string
	ResponseInfo     string
	ServerReference  string
	ReasonString     string
	CorrelationData  []byte // aliases the body when decoded
	AuthData         []byte // aliases the body when decoded

	SubscriptionIDs []uint32       // 1 to MaxRemaining; several in PUBLISH only
	User            []UserProperty // in the order of the wire [MQTT-3.3.2-18]
}

// PropertySet is a set of property identifiers, a bit each.
type PropertySet uint64

// Has reports whether the property is in the set.
func (s PropertySet) Has(id PropertyID) bool {
	return id < 64 && s&(1<<id) != 0
}

// Has reports whether the packet carries the property.
func (p *Properties) Has(id PropertyID) bool {
	switch id {
	case PropUser:
		return len(p.User) > 0
	case PropSubscriptionID:
		return len(p.SubscriptionIDs) > 0
	}
	return p.Present.Has(id)
}

// Mark says that the values of these properties are set. It ignores PropUser,
// PropSubscriptionID and numbers that are no property.
func (p *Properties) Mark(ids ...PropertyID) {
	for _, id := range ids {
		_, ok := id.info()
		if ok && id != PropUser && id != PropSubscriptionID {
			p.Present |= 1 << id
		}
	}
}

// Empty reports whether there is no property at all.
func (p *Properties) Empty() bool {
	return p.Present == 0 && len(p.User) == 0 && len(p.SubscriptionIDs) == 0
}

// flag is where the value of a property of kindFlag lives.
func (p *Properties) flag(id PropertyID) *byte {
	switch id {
	case PropPayloadFormat:
		return &p.PayloadFormat
	case PropRequestProblemInfo:
		return &p.RequestProblemInfo
	case PropRequestResponseInfo:
		return &p.RequestResponseInfo
	case PropMaximumQoS:
		return &p.MaximumQoS
	case PropRetainAvailable:
		return &p.RetainAvailable
	case PropWildcardAvailable:
		return &p.WildcardAvailable
	case PropSubscriptionIDAvailable:
		return &p.SubscriptionIDAvailable
	}
	return &p.SharedAvailable
}

// short is where the value of a property of kindUint16 lives.
func (p *Properties) short(id PropertyID) *uint16 {
	switch id {
	case PropServerKeepAlive:
		return &p.ServerKeepAlive
	case PropReceiveMaximum:
		return &p.ReceiveMaximum
	case PropTopicAliasMaximum:
		return &p.TopicAliasMaximum
	}
	return &p.TopicAlias
}

// long is where the value of a property of kindUint32 lives.
func (p *Properties) long(id PropertyID) *uint32 {
	switch id {
	case PropMessageExpiry:
		return &p.MessageExpiry
	case PropSessionExpiry:
		return &p.SessionExpiry
	case PropWillDelay:
		return &p.WillDelay
	}
	return &p.MaximumPacketSize
}

// text is where the value of a property of kindString lives.
func (p *Properties) text(id PropertyID) *string {
	switch id {
	case PropContentType:
		return &p.ContentType
	case PropResponseTopic:
		return &p.ResponseTopic
	case PropAssignedClientID:
		return &p.AssignedClientID
	case PropAuthMethod:
		return &p.AuthMethod
	case PropResponseInfo:
		return &p.ResponseInfo
	case PropServerReference:
		return &p.ServerReference
	}
	return &p.ReasonString
}

// data is where the value of a property of kindBinary lives.
func (p *Properties) data(id PropertyID) *[]byte {
	switch id {
	case PropCorrelationData:
		return &p.CorrelationData
	}
	return &p.AuthData
}
