package mqtt_test

import (
	"errors"
	"testing"

	"github.com/imprint-iot/imprint/mqtt"
)

const (
	malformed  = mqtt.MalformedPacket
	protocol   = mqtt.ProtocolError
	nameBad    = mqtt.TopicNameInvalid
	filterBad  = mqtt.TopicFilterInvalid
	noVersion  = mqtt.UnsupportedProtocolVersion
	aliasBad   = mqtt.TopicAliasInvalid
	clientBad  = mqtt.ClientIdentifierNotValid
	propertyAt = "MQTT 5.0 section 2.2.2.2"
)

type refusal struct {
	name string
	v    mqtt.Version
	wire string
	code mqtt.ReasonCode
	rule string
}

func TestPacketsThatBreakARuleAreRefusedWithItsCodeAndId(t *testing.T) {
	t.Parallel()
	all := headerRefusals()
	all = append(all, connectRefusals()...)
	all = append(all, publishRefusals()...)
	all = append(all, propertyRefusals()...)
	all = append(all, subscriptionRefusals()...)
	all = append(all, answerRefusals()...)
	for _, r := range all {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			_, err := decode(wire(t, r.wire), r.v)
			checkRefusal(t, err, r.code, r.rule)
		})
	}
}

func headerRefusals() []refusal {
	return []refusal{
		{"type 0", mqtt.V5, "00 00", malformed, "MQTT 5.0 section 2.1.2"},
		{"CONNECT flags", mqtt.V311, "11 00", malformed, "MQTT-2.1.3-1"},
		{"CONNACK flags", mqtt.V311, "28 00", malformed, "MQTT-2.1.3-1"},
		{"PUBLISH QoS 3", mqtt.V311, "36 00", malformed, "MQTT-3.3.1-4"},
		{"PUBLISH QoS 3 with DUP", mqtt.V5, "3e 00", malformed, "MQTT-3.3.1-4"},
		{"PUBLISH QoS 0 with DUP", mqtt.V5, "39 00", malformed, "MQTT-3.3.1-2"},
		{"PUBACK flags", mqtt.V5, "42 00", malformed, "MQTT-2.1.3-1"},
		{"PUBREC flags", mqtt.V5, "52 00", malformed, "MQTT-2.1.3-1"},
		{"PUBREL flags", mqtt.V5, "60 00", malformed, "MQTT-3.6.1-1"},
		{"PUBCOMP flags", mqtt.V5, "72 00", malformed, "MQTT-2.1.3-1"},
		{"SUBSCRIBE flags", mqtt.V311, "80 00", malformed, "MQTT-3.8.1-1"},
		{"SUBACK flags", mqtt.V5, "92 00", malformed, "MQTT-2.1.3-1"},
		{"UNSUBSCRIBE flags", mqtt.V311, "a3 00", malformed, "MQTT-3.10.1-1"},
		{"UNSUBACK flags", mqtt.V5, "b2 00", malformed, "MQTT-2.1.3-1"},
		{"PINGREQ flags", mqtt.V5, "c1 00", malformed, "MQTT-2.1.3-1"},
		{"PINGRESP flags", mqtt.V5, "d8 00", malformed, "MQTT-2.1.3-1"},
		{"DISCONNECT flags", mqtt.V311, "e1 00", malformed, "MQTT-3.14.1-1"},
		{"AUTH flags", mqtt.V5, "f2 00", malformed, "MQTT-3.15.1-1"},
		{"Remaining Length of five bytes", mqtt.V5, "30 80 80 80 80 01", malformed, "MQTT-1.5.5-1"},
		{"Remaining Length with needless bytes in MQTT 5", mqtt.V5, "c0 80 00", malformed, "MQTT-1.5.5-1"},
		{"PINGREQ with content", mqtt.V311, "c0 | 00", malformed, "MQTT-4.8.0-1"},
		{"PINGRESP with content", mqtt.V5, "d0 | 00", malformed, "MQTT-4.13.1-1"},
	}
}

func connectRefusals() []refusal {
	return []refusal{
		{"CONNECT without content", mqtt.V311, "10 00", malformed, "MQTT-4.13.1-1"},
		{"CONNECT with another protocol name", mqtt.V311, "10 | s:MQTX 04 02 0000 0000", noVersion, "MQTT-3.1.2-1"},
		{"CONNECT of MQTT 3.1", mqtt.V311, "10 | s:MQIsdp 03 02 0000 s:c", noVersion, "MQTT-3.1.2-1"},
		{"CONNECT with level 3", mqtt.V311, "10 | s:MQTT 03 02 0000 s:c", noVersion, "MQTT-3.1.2-2"},
		{"CONNECT with level 6 and unknown content", mqtt.V5, "10 | s:MQTT 06", noVersion, "MQTT-3.1.2-2"},
		{"CONNECT with the bridge bit", mqtt.V311, "10 | s:MQTT 84 02 0000 s:c", noVersion, "MQTT-3.1.2-2"},
		{"CONNECT that ends before its flags", mqtt.V311, "10 | s:MQTT 04", malformed, "MQTT-4.8.0-1"},
		{"CONNECT 5 with needless Remaining Length", mqtt.V5, "10 8d 00 s:MQTT 05 02 0000 00 0000", malformed, "MQTT-1.5.5-1"},
		{"CONNECT 3.1.1 reserved flag", mqtt.V311, "10 | s:MQTT 04 03 0000 s:c", malformed, "MQTT-3.1.2-3"},
		{"CONNECT 5 reserved flag", mqtt.V5, "10 | s:MQTT 05 03 0000 [ ] s:c", malformed, "MQTT-3.1.2-3"},
		{"CONNECT 3.1.1 will QoS 3", mqtt.V311, "10 | s:MQTT 04 1e 0000 s:c s:w s:p", malformed, "MQTT-3.1.2-14"},
		{"CONNECT 5 will QoS 3", mqtt.V5, "10 | s:MQTT 05 1e 0000 [ ] s:c [ ] s:w s:p", malformed, "MQTT-3.1.2-12"},
		{"CONNECT 3.1.1 will QoS without will", mqtt.V311, "10 | s:MQTT 04 0a 0000 s:c", malformed, "MQTT-3.1.2-13"},
		{"CONNECT 5 will QoS without will", mqtt.V5, "10 | s:MQTT 05 0a 0000 [ ] s:c", malformed, "MQTT-3.1.2-11"},
		{"CONNECT 3.1.1 Will Retain without will", mqtt.V311, "10 | s:MQTT 04 22 0000 s:c", malformed, "MQTT-3.1.2-15"},
		{"CONNECT 5 Will Retain without will", mqtt.V5, "10 | s:MQTT 05 22 0000 [ ] s:c", malformed, "MQTT-3.1.2-13"},
		{"CONNECT 3.1.1 password without user name", mqtt.V311, "10 | s:MQTT 04 42 0000 s:c s:pw", malformed, "MQTT-3.1.2-22"},
		{"CONNECT 3.1.1 empty client id without clean session", mqtt.V311, "10 | s:MQTT 04 00 0000 0000", clientBad, "MQTT-3.1.3-8"},
		{"CONNECT without client id", mqtt.V311, "10 | s:MQTT 04 02 0000", malformed, "MQTT-4.8.0-1"},
		{"CONNECT client id with U+0000", mqtt.V311, "10 | s:MQTT 04 02 0000 0002 6100", malformed, "MQTT-1.5.3-2"},
		{"CONNECT client id with a surrogate", mqtt.V311, "10 | s:MQTT 04 02 0000 0003 eda080", malformed, "MQTT-1.5.3-1"},
		{"CONNECT 5 client id that is no UTF-8", mqtt.V5, "10 | s:MQTT 05 02 0000 [ ] 0001 ff", malformed, "MQTT-1.5.4-1"},
		{"CONNECT user name with U+0000", mqtt.V5, "10 | s:MQTT 05 82 0000 [ ] s:c 0001 00", malformed, "MQTT-1.5.4-2"},
		{"CONNECT will topic empty", mqtt.V311, "10 | s:MQTT 04 06 0000 s:c 0000 s:p", nameBad, "MQTT-4.7.3-1"},
		{"CONNECT 3.1.1 will topic with wildcard", mqtt.V311, "10 | s:MQTT 04 06 0000 s:c s:a/# s:p", nameBad, "MQTT-4.7.1-1"},
		{"CONNECT 5 will topic with wildcard", mqtt.V5, "10 | s:MQTT 05 06 0000 [ ] s:c [ ] s:+ s:p", nameBad, "MQTT-4.7.0-1"},
		{"CONNECT without the will payload of its flag", mqtt.V311, "10 | s:MQTT 04 06 0000 s:c s:w", malformed, "MQTT-4.8.0-1"},
		{"CONNECT without the user name of its flag", mqtt.V311, "10 | s:MQTT 04 82 0000 s:c", malformed, "MQTT-4.8.0-1"},
		{"CONNECT without the password of its flag", mqtt.V311, "10 | s:MQTT 04 c2 0000 s:c s:u", malformed, "MQTT-4.8.0-1"},
		{"CONNECT 3.1.1 with bytes after the end", mqtt.V311, "10 | s:MQTT 04 02 0000 s:c 00", malformed, "MQTT-4.8.0-1"},
		{"CONNECT 5 with bytes after the end", mqtt.V5, "10 | s:MQTT 05 02 0000 [ ] s:c 00", malformed, "MQTT-4.13.1-1"},
		{"CONNECT 5 without property length", mqtt.V5, "10 | s:MQTT 05 02 0000", malformed, "MQTT-4.13.1-1"},
	}
}

func publishRefusals() []refusal {
	return []refusal{
		{"PUBLISH without topic", mqtt.V311, "30 00", malformed, "MQTT-4.8.0-1"},
		{"PUBLISH with a topic longer than itself", mqtt.V311, "30 | 0005 t:abc", malformed, "MQTT-4.8.0-1"},
		{"PUBLISH 3.1.1 with an empty topic", mqtt.V311, "30 | 0000 t:p", nameBad, "MQTT-4.7.3-1"},
		{"PUBLISH 5 with an empty topic and no alias", mqtt.V5, "30 | 0000 [ ] t:p", protocol, "MQTT 5.0 section 3.3.2.1"},
		{"PUBLISH topic with #", mqtt.V311, "30 | s:a/#", nameBad, "MQTT-3.3.2-2"},
		{"PUBLISH topic with +", mqtt.V5, "30 | s:a+b [ ]", nameBad, "MQTT-3.3.2-2"},
		{"PUBLISH 3.1.1 topic with U+0000", mqtt.V311, "30 | 0003 610062", malformed, "MQTT-1.5.3-2"},
		{"PUBLISH 5 topic with U+0000", mqtt.V5, "30 | 0003 610062 [ ]", malformed, "MQTT-1.5.4-2"},
		{"PUBLISH 5 topic in an overlong encoding", mqtt.V5, "30 | 0002 c0af [ ]", malformed, "MQTT-1.5.4-1"},
		{"PUBLISH 3.1.1 packet id 0", mqtt.V311, "32 | s:a 0000", protocol, "MQTT-2.3.1-1"},
		{"PUBLISH 5 packet id 0", mqtt.V5, "34 | s:a 0000 [ ]", protocol, "MQTT-2.2.1-3"},
		{"PUBLISH QoS 1 without packet id", mqtt.V311, "32 | s:a 00", malformed, "MQTT-4.8.0-1"},
		{"PUBLISH 5 without property length", mqtt.V5, "30 | s:a", malformed, "MQTT-4.13.1-1"},
		{"PUBLISH 5 with more properties announced than there are", mqtt.V5, "30 | s:a 05 01 00", malformed, "MQTT-4.13.1-1"},
		{"PUBLISH 5 with a property length of five bytes", mqtt.V5, "30 | s:a 80 80 80 80 01", malformed, "MQTT-1.5.5-1"},
		{"PUBLISH 5 with a needless byte in the property length", mqtt.V5, "30 | s:a 80 00", malformed, "MQTT-1.5.5-1"},
	}
}

func propertyRefusals() []refusal {
	publish := func(name, properties string, code mqtt.ReasonCode, rule string) refusal {
		return refusal{"PUBLISH " + name, mqtt.V5, "30 | s:a [ " + properties + " ]", code, rule}
	}
	connect := func(name, properties string, code mqtt.ReasonCode, rule string) refusal {
		return refusal{"CONNECT " + name, mqtt.V5, "10 | s:MQTT 05 02 0000 [ " + properties + " ] s:c", code, rule}
	}
	will := func(name, properties string, code mqtt.ReasonCode, rule string) refusal {
		return refusal{"will " + name, mqtt.V5, "10 | s:MQTT 05 06 0000 [ ] s:c [ " + properties + " ] s:w s:p", code, rule}
	}
	connack := func(name, properties string, code mqtt.ReasonCode, rule string) refusal {
		return refusal{"CONNACK " + name, mqtt.V5, "20 | 00 00 [ " + properties + " ]", code, rule}
	}
	return []refusal{
		publish("with unknown property 0x00", "00", malformed, propertyAt),
		publish("with unknown property 0x7e", "7e 00", malformed, propertyAt),
		publish("with a property identifier of two bytes", "81 00 01", malformed, propertyAt),
		publish("with a property of CONNECT", "21 0001", malformed, propertyAt),
		publish("with a reason string", "1f s:r", malformed, propertyAt),
		publish("with a will delay", "18 00000001", malformed, propertyAt),
		publish("with a repeated byte", "01 01 01 01", protocol, propertyAt),
		publish("with a repeated integer", "02 00000001 02 00000001", protocol, propertyAt),
		publish("with a repeated string", "03 s: 03 s:", protocol, propertyAt),
		publish("with repeated correlation data", "09 0000 09 0000", protocol, propertyAt),
		publish("with a repeated alias", "23 0001 23 0001", protocol, propertyAt),
		publish("with payload format 2", "01 02", protocol, propertyAt),
		publish("with topic alias 0", "23 0000", aliasBad, "MQTT-3.3.2-8"),
		publish("with subscription identifier 0", "0b 00", protocol, "MQTT 5.0 section 3.8.2.1.2"),
		publish("with a subscription identifier of five bytes", "0b 80808080 01", malformed, "MQTT-1.5.5-1"),
		publish("with a needless byte in a subscription identifier", "0b 81 00", malformed, "MQTT-1.5.5-1"),
		publish("with a wildcard in the response topic", "08 s:a/+", protocol, "MQTT-3.3.2-14"),
		publish("with an empty response topic", "08 s:", protocol, "MQTT-4.7.3-1"),
		publish("with a content type that is no UTF-8", "03 0001 80", malformed, "MQTT-1.5.4-1"),
		publish("with U+0000 in a user property's value", "26 s:k 0001 00", malformed, "MQTT-1.5.4-2"),
		publish("with a user property's name alone", "26 s:k", malformed, "MQTT-4.13.1-1"),
		publish("with half an integer", "02 0000", malformed, "MQTT-4.13.1-1"),
		publish("with a string beyond its properties", "03 0004 t:abc", malformed, "MQTT-4.13.1-1"),
		connect("with receive maximum 0", "21 0000", protocol, "MQTT 5.0 section 3.1.2.11.3"),
		connect("with maximum packet size 0", "27 00000000", protocol, "MQTT 5.0 section 3.1.2.11.4"),
		connect("with request problem information 2", "17 02", protocol, propertyAt),
		connect("with request response information 2", "19 ff", protocol, propertyAt),
		connect("with authentication data and no method", "16 s:d", protocol, "MQTT 5.0 section 3.1.2.11.10"),
		connect("with an assigned client id", "12 s:c", malformed, propertyAt),
		connect("with a will property", "18 00000001", malformed, propertyAt),
		connect("with a repeated session expiry", "11 00000001 11 00000001", protocol, propertyAt),
		will("with a topic alias", "23 0001", malformed, propertyAt),
		will("with a repeated delay", "18 00000001 18 00000001", protocol, propertyAt),
		will("with a wildcard in the response topic", "08 s:#", protocol, "MQTT-3.3.2-14"),
		connack("with maximum QoS 2", "24 02", protocol, propertyAt),
		connack("with retain available 2", "25 02", protocol, propertyAt),
		connack("with wildcard available 2", "28 02", protocol, propertyAt),
		connack("with subscription identifiers available 2", "29 02", protocol, propertyAt),
		connack("with shared available 2", "2a 02", protocol, propertyAt),
		connack("with receive maximum 0", "21 0000", protocol, "MQTT 5.0 section 3.1.2.11.3"),
		connack("with request problem information", "17 01", malformed, propertyAt),
	}
}

func subscriptionRefusals() []refusal {
	subscribe := func(name, filter string, code mqtt.ReasonCode, rule string) refusal {
		return refusal{"SUBSCRIBE 5 " + name, mqtt.V5, "82 | 0001 [ ] " + filter, code, rule}
	}
	return []refusal{
		{"SUBSCRIBE 3.1.1 packet id 0", mqtt.V311, "82 | 0000 s:a 00", protocol, "MQTT-2.3.1-1"},
		{"SUBSCRIBE 5 packet id 0", mqtt.V5, "82 | 0000 [ ] s:a 00", protocol, "MQTT-2.2.1-3"},
		{"SUBSCRIBE 3.1.1 without filter", mqtt.V311, "82 | 0001", protocol, "MQTT-3.8.3-3"},
		{"SUBSCRIBE 5 without filter", mqtt.V5, "82 | 0001 [ ]", protocol, "MQTT-3.8.3-2"},
		{"SUBSCRIBE 3.1.1 QoS 3", mqtt.V311, "82 | 0001 s:a 03", malformed, "MQTT-3.8.3-4"},
		{"SUBSCRIBE 3.1.1 reserved bits", mqtt.V311, "82 | 0001 s:a 04", malformed, "MQTT-3.8.3-4"},
		{"SUBSCRIBE 3.1.1 filter without options", mqtt.V311, "82 | 0001 s:a", malformed, "MQTT-4.8.0-1"},
		{"SUBSCRIBE 3.1.1 with an empty filter", mqtt.V311, "82 | 0001 s: 00", filterBad, "MQTT-4.7.3-1"},
		{"SUBSCRIBE 3.1.1 with misplaced #", mqtt.V311, "82 | 0001 s:a# 00", filterBad, "MQTT-4.7.1-2"},
		{"SUBSCRIBE 3.1.1 with misplaced +", mqtt.V311, "82 | 0001 s:+a 00", filterBad, "MQTT-4.7.1-3"},
		{"SUBSCRIBE 3.1.1 with a bad second filter", mqtt.V311, "82 | 0001 s:a 00 s:#/a 00", filterBad, "MQTT-4.7.1-2"},
		{"SUBSCRIBE filter with U+0000", mqtt.V311, "82 | 0001 0001 00 00", malformed, "MQTT-1.5.3-2"},
		subscribe("QoS 3", "s:a 03", protocol, "MQTT 5.0 section 3.8.3.1"),
		subscribe("retain handling 3", "s:a 30", protocol, "MQTT 5.0 section 3.8.3.1"),
		subscribe("reserved bits", "s:a 40", malformed, "MQTT-3.8.3-5"),
		subscribe("with misplaced #", "s:#/a 00", filterBad, "MQTT-4.7.1-1"),
		subscribe("with misplaced +", "s:a/b+ 00", filterBad, "MQTT-4.7.1-2"),
		subscribe("shared with No Local", "s:$share/g/a 04", protocol, "MQTT-3.8.3-4"),
		subscribe("shared without name", "s:$share//a 00", filterBad, "MQTT-4.8.2-1"),
		subscribe("shared with a wildcard in the name", "s:$share/+/a 00", filterBad, "MQTT-4.8.2-2"),
		subscribe("shared without filter", "s:$share/g 00", filterBad, "MQTT-4.8.2-2"),
		{"SUBSCRIBE 5 with two identifiers", mqtt.V5, "82 | 0001 [ 0b 01 0b 02 ] s:a 00", protocol, propertyAt},
		{"SUBSCRIBE 5 with identifier 0", mqtt.V5, "82 | 0001 [ 0b 00 ] s:a 00", protocol, "MQTT 5.0 section 3.8.2.1.2"},
		{"SUBSCRIBE 5 with a reason string", mqtt.V5, "82 | 0001 [ 1f s:r ] s:a 00", malformed, propertyAt},
		{"UNSUBSCRIBE 3.1.1 packet id 0", mqtt.V311, "a2 | 0000 s:a", protocol, "MQTT-2.3.1-1"},
		{"UNSUBSCRIBE 5 packet id 0", mqtt.V5, "a2 | 0000 [ ] s:a", protocol, "MQTT-2.2.1-3"},
		{"UNSUBSCRIBE 3.1.1 without filter", mqtt.V311, "a2 | 0001", protocol, "MQTT-3.10.3-2"},
		{"UNSUBSCRIBE 5 without filter", mqtt.V5, "a2 | 0001 [ ]", protocol, "MQTT-3.10.3-2"},
		{"UNSUBSCRIBE with an empty filter", mqtt.V311, "a2 | 0001 s:", filterBad, "MQTT-4.7.3-1"},
		{"UNSUBSCRIBE with half a filter", mqtt.V311, "a2 | 0001 0003 t:a", malformed, "MQTT-4.8.0-1"},
		{"UNSUBSCRIBE 5 shared without filter", mqtt.V5, "a2 | 0001 [ ] s:$share/g/", filterBad, "MQTT-4.8.2-2"},
		{"UNSUBSCRIBE 5 with an identifier", mqtt.V5, "a2 | 0001 [ 0b 01 ] s:a", malformed, propertyAt},
	}
}

func answerRefusals() []refusal {
	return []refusal{
		{"CONNACK 3.1.1 reserved flags", mqtt.V311, "20 | 02 00", malformed, "MQTT 3.1.1 section 3.2.2.1"},
		{"CONNACK 5 reserved flags", mqtt.V5, "20 | 80 00 [ ]", malformed, "MQTT-3.2.2-1"},
		{"CONNACK 3.1.1 return code 6", mqtt.V311, "20 | 00 06", protocol, "MQTT 3.1.1 section 3.2.2.3"},
		{"CONNACK 3.1.1 refusal with session", mqtt.V311, "20 | 01 05", protocol, "MQTT-3.2.2-4"},
		{"CONNACK 5 refusal with session", mqtt.V5, "20 | 01 87 [ ]", protocol, "MQTT-3.2.2-6"},
		{"CONNACK 5 reason of another packet", mqtt.V5, "20 | 00 8e [ ]", protocol, "MQTT-3.2.2-8"},
		{"CONNACK 5 without property length", mqtt.V5, "20 | 00 00", malformed, "MQTT-4.13.1-1"},
		{"CONNACK 3.1.1 with properties", mqtt.V311, "20 | 00 00 00", malformed, "MQTT-4.8.0-1"},
		{"PUBACK 3.1.1 packet id 0", mqtt.V311, "40 | 0000", protocol, "MQTT-2.3.1-6"},
		{"PUBACK 5 packet id 0", mqtt.V5, "40 | 0000", protocol, "MQTT-2.2.1-5"},
		{"PUBACK 3.1.1 with a reason", mqtt.V311, "40 | 0001 00", malformed, "MQTT-4.8.0-1"},
		{"PUBACK with half a packet id", mqtt.V5, "40 | 00", malformed, "MQTT-4.13.1-1"},
		{"PUBACK reason of another packet", mqtt.V5, "40 | 0001 92", protocol, "MQTT-3.4.2-1"},
		{"PUBREC undefined reason", mqtt.V5, "50 | 0001 7f", protocol, "MQTT-3.5.2-1"},
		{"PUBREL reason of another packet", mqtt.V5, "62 | 0001 10", protocol, "MQTT-3.6.2-1"},
		{"PUBCOMP reason of another packet", mqtt.V5, "70 | 0001 87", protocol, "MQTT-3.7.2-1"},
		{"PUBACK with a content type", mqtt.V5, "40 | 0001 00 [ 03 s:a ]", malformed, propertyAt},
		{"PUBREL with a repeated reason string", mqtt.V5, "62 | 0001 00 [ 1f s: 1f s: ]", protocol, propertyAt},
		{"PUBACK with bytes after the properties", mqtt.V5, "40 | 0001 00 [ ] 00", malformed, "MQTT-4.13.1-1"},
		{"SUBACK 3.1.1 packet id 0", mqtt.V311, "90 | 0000 00", protocol, "MQTT-2.3.1-7"},
		{"SUBACK 5 packet id 0", mqtt.V5, "90 | 0000 [ ] 00", protocol, "MQTT-2.2.1-6"},
		{"SUBACK 3.1.1 reserved code", mqtt.V311, "90 | 0001 87", protocol, "MQTT-3.9.3-2"},
		{"SUBACK 5 reason of another packet", mqtt.V5, "90 | 0001 [ ] 11", protocol, "MQTT-3.9.3-2"},
		{"SUBACK 3.1.1 without code", mqtt.V311, "90 | 0001", protocol, "MQTT-3.8.4-5"},
		{"SUBACK 5 without code", mqtt.V5, "90 | 0001 [ ]", protocol, "MQTT-3.8.4-6"},
		{"UNSUBACK 3.1.1 with a code", mqtt.V311, "b0 | 0001 00", malformed, "MQTT-4.8.0-1"},
		{"UNSUBACK 3.1.1 packet id 0", mqtt.V311, "b0 | 0000", protocol, "MQTT-2.3.1-7"},
		{"UNSUBACK 5 packet id 0", mqtt.V5, "b0 | 0000 [ ] 00", protocol, "MQTT-2.2.1-6"},
		{"UNSUBACK 5 without code", mqtt.V5, "b0 | 0001 [ ]", protocol, "MQTT-3.11.3-2"},
		{"UNSUBACK 5 reason of another packet", mqtt.V5, "b0 | 0001 [ ] 01", protocol, "MQTT-3.11.3-2"},
		{"DISCONNECT 3.1.1 with a reason", mqtt.V311, "e0 | 00", malformed, "MQTT-4.8.0-1"},
		{"DISCONNECT reason of another packet", mqtt.V5, "e0 | 85", protocol, "MQTT-3.14.2-1"},
		{"DISCONNECT with bytes after the properties", mqtt.V5, "e0 | 00 [ ] 00", malformed, "MQTT-4.13.1-1"},
		{"DISCONNECT with receive maximum", mqtt.V5, "e0 | 00 [ 21 0001 ]", malformed, propertyAt},
		{"AUTH in MQTT 3.1.1", mqtt.V311, "f0 00", protocol, "MQTT 3.1.1 section 2.2.1"},
		{"AUTH reason of another packet", mqtt.V5, "f0 | 80 [ 15 s:m ]", protocol, "MQTT-3.15.2-1"},
		{"AUTH without method", mqtt.V5, "f0 | 18 [ ]", protocol, "MQTT 5.0 section 3.15.2.2.2"},
		{"AUTH with data and no method", mqtt.V5, "f0 | 18 [ 16 s:d ]", protocol, "MQTT 5.0 section 3.1.2.11.10"},
		{"AUTH without property length", mqtt.V5, "f0 | 18", malformed, "MQTT-4.13.1-1"},
	}
}

func TestEveryTruncationOfAPacketIsIncompleteOrRefused(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures() {
		raw := wire(t, f.wire)
		for n := range len(raw) {
			h, ok, err := mqtt.ParseFixedHeader(raw[:n])
			if err != nil {
				t.Errorf("%s cut to %d bytes: got error %v, want none from the header", f.name, n, err)
			}
			if ok && h.Size+h.Remaining <= n {
				t.Errorf("%s cut to %d bytes: got a packet of %d bytes, want more to be asked for", f.name, n, h.Size+h.Remaining)
			}
			if !ok {
				continue
			}
			err = mqtt.NewPacket(h.Type).Decode(h, raw[h.Size:n], f.v)
			var refused *mqtt.Error
			if !errors.As(err, &refused) {
				t.Errorf("%s with a body cut to %d bytes: got %v, want an *mqtt.Error", f.name, n-h.Size, err)
			}
		}
	}
}

func TestDecodeRefusesAHeaderOfAnotherPacket(t *testing.T) {
	t.Parallel()
	for typ := mqtt.TypeConnect; typ <= mqtt.TypeAuth; typ++ {
		h := mqtt.FixedHeader{Type: typ%mqtt.TypeAuth + 1, Size: 2}
		if typ >= mqtt.TypePuback && typ <= mqtt.TypePubcomp {
			h.Type = mqtt.TypePublish
		}
		err := mqtt.NewPacket(typ).Decode(h, nil, mqtt.V5)
		var refused *mqtt.Error
		if !errors.As(err, &refused) {
			t.Errorf("%s given the header of %s: got %v, want an *mqtt.Error", typ, h.Type, err)
		}
	}
}

func TestConnectKeepsTheLevelThatItRefuses(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"00", "03", "06", "84", "ff"} {
		raw := wire(t, "10 | s:MQTT "+level+" 02 0000 s:c")
		p, err := decode(raw, mqtt.V311)
		checkRefusal(t, err, noVersion, "MQTT-3.1.2-2")
		if got, want := p.(*mqtt.Connect).Version, mqtt.Version(wire(t, level)[0]); got != want {
			t.Errorf("got level %d, want %d", got, want)
		}
	}
}
