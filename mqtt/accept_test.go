package mqtt_test

import (
	"bytes"
	"testing"

	"github.com/imprint-iot/imprint/mqtt"
)

type fixture struct {
	name string
	v    mqtt.Version
	wire string
	want mqtt.Packet
	// long says that Append writes a shorter form or another order of properties.
	long bool
}

func TestPacketsDecodeToTheirValuesAndEncodeToTheirBytes(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			raw := wire(t, f.wire)
			got, err := decode(raw, f.v)
			if err != nil {
				t.Fatalf("got error %v, want none", err)
			}
			if diff := same(f.want, got); diff != "" {
				t.Errorf("decoded value (-want +got):\n%s", diff)
			}
			prefix := []byte("kept")
			out := got.Append(prefix, f.v)
			if !bytes.HasPrefix(out, prefix) {
				t.Fatalf("got %x, want the bytes before the packet untouched", out)
			}
			out = out[len(prefix):]
			if !f.long && !bytes.Equal(out, raw) {
				t.Errorf("encoded bytes: got %x, want %x", out, raw)
			}
			again, err := decode(out, f.v)
			if err != nil {
				t.Fatalf("second decode: got error %v, want none", err)
			}
			if diff := same(f.want, again); diff != "" {
				t.Errorf("second decoded value (-want +got):\n%s", diff)
			}
			if got.Detail() == "" {
				t.Error("got an empty detail, want a line")
			}
		})
	}
}

func fixtures() []fixture {
	all := connectFixtures()
	all = append(all, connackFixtures()...)
	all = append(all, publishFixtures()...)
	all = append(all, ackFixtures()...)
	all = append(all, subscriptionFixtures()...)
	return append(all, controlFixtures()...)
}

func connectFixtures() []fixture {
	return []fixture{
		{"CONNECT 3.1.1 of the least size", mqtt.V311, "10 | s:MQTT 04 02 0000 0000",
			&mqtt.Connect{Version: mqtt.V311, CleanStart: true}, false},
		{"CONNECT 3.1.1 with every field", mqtt.V311, "10 | s:MQTT 04 ee 003c s:dev-1 s:will/t s:bye s:?SDK=Go s:pw",
			&mqtt.Connect{Version: mqtt.V311, CleanStart: true, KeepAlive: 60, ClientID: "dev-1",
				Will:        &mqtt.Will{Topic: "will/t", Payload: []byte("bye"), QoS: 1, Retain: true},
				HasUsername: true, Username: "?SDK=Go", HasPassword: true, Password: []byte("pw")}, false},
		{"CONNECT 3.1.1 that keeps its session", mqtt.V311, "10 | s:MQTT 04 00 ffff s:é",
			&mqtt.Connect{Version: mqtt.V311, KeepAlive: 65535, ClientID: "é"}, false},
		{"CONNECT 3.1.1 with a QoS 2 will of no bytes", mqtt.V311, "10 | s:MQTT 04 14 0000 s:c s:w 0000",
			&mqtt.Connect{Version: mqtt.V311, ClientID: "c", Will: &mqtt.Will{Topic: "w", QoS: 2}}, false},
		{"CONNECT 3.1.1 with empty user name and password", mqtt.V311, "10 | s:MQTT 04 c2 0000 s:c 0000 0000",
			&mqtt.Connect{Version: mqtt.V311, CleanStart: true, ClientID: "c", HasUsername: true, HasPassword: true}, false},
		{"CONNECT 3.1.1 with a needlessly long Remaining Length", mqtt.V311, "10 8c 80 00 s:MQTT 04 02 0000 0000",
			&mqtt.Connect{Version: mqtt.V311, CleanStart: true}, true},
		{"CONNECT 5 of the least size", mqtt.V5, "10 | s:MQTT 05 00 0000 [ ] 0000",
			&mqtt.Connect{Version: mqtt.V5}, false},
		{"CONNECT 5 with a password and no user name", mqtt.V5, "10 | s:MQTT 05 42 001e [ ] s:c s:pw",
			&mqtt.Connect{Version: mqtt.V5, CleanStart: true, KeepAlive: 30, ClientID: "c", HasPassword: true, Password: []byte("pw")}, false},
		{"CONNECT 5 with every property", mqtt.V5,
			"10 | s:MQTT 05 02 0000 [ 11 00000e10 15 s:SCRAM 16 s:data 17 00 19 01 21 0064 22 0008 27 00020000 26 s:k s:1 26 s:k s:2 ] s:c",
			&mqtt.Connect{Version: mqtt.V5, CleanStart: true, ClientID: "c", Properties: props(mqtt.Properties{
				SessionExpiry: 3600, AuthMethod: "SCRAM", AuthData: []byte("data"), RequestResponseInfo: 1,
				ReceiveMaximum: 100, TopicAliasMaximum: 8, MaximumPacketSize: 131072,
				User: []mqtt.UserProperty{{Key: "k", Value: "1"}, {Key: "k", Value: "2"}},
			}, mqtt.PropSessionExpiry, mqtt.PropAuthMethod, mqtt.PropAuthData, mqtt.PropRequestProblemInfo,
				mqtt.PropRequestResponseInfo, mqtt.PropReceiveMaximum, mqtt.PropTopicAliasMaximum, mqtt.PropMaximumPacketSize)}, false},
		{"CONNECT 5 with every will property", mqtt.V5,
			"10 | s:MQTT 05 0c 0000 [ ] s:c [ 01 01 02 0000003c 03 s:text/plain 08 s:r/t 09 s:corr 18 0000000a 26 s: s: ] s:w s:gone",
			&mqtt.Connect{Version: mqtt.V5, ClientID: "c", Will: &mqtt.Will{Topic: "w", Payload: []byte("gone"), QoS: 1,
				Properties: props(mqtt.Properties{PayloadFormat: 1, MessageExpiry: 60, ContentType: "text/plain",
					ResponseTopic: "r/t", CorrelationData: []byte("corr"), WillDelay: 10, User: []mqtt.UserProperty{{}},
				}, mqtt.PropPayloadFormat, mqtt.PropMessageExpiry, mqtt.PropContentType, mqtt.PropResponseTopic,
					mqtt.PropCorrelationData, mqtt.PropWillDelay)}}, false},
	}
}

func connackFixtures() []fixture {
	all := []fixture{
		{"CONNACK 3.1.1 with a session", mqtt.V311, "20 | 01 00", &mqtt.Connack{SessionPresent: true}, false},
		{"CONNACK 3.1.1 unacceptable level", mqtt.V311, "20 | 00 01", &mqtt.Connack{Reason: mqtt.UnsupportedProtocolVersion}, false},
		{"CONNACK 3.1.1 identifier rejected", mqtt.V311, "20 | 00 02", &mqtt.Connack{Reason: mqtt.ClientIdentifierNotValid}, false},
		{"CONNACK 3.1.1 server unavailable", mqtt.V311, "20 | 00 03", &mqtt.Connack{Reason: mqtt.ServerUnavailable}, false},
		{"CONNACK 3.1.1 bad user name", mqtt.V311, "20 | 00 04", &mqtt.Connack{Reason: mqtt.BadUserNameOrPassword}, false},
		{"CONNACK 3.1.1 not authorized", mqtt.V311, "20 | 00 05", &mqtt.Connack{Reason: mqtt.NotAuthorized}, false},
		{"CONNACK 5 refused", mqtt.V5, "20 | 00 87 [ 1f s:no ]",
			&mqtt.Connack{Reason: mqtt.NotAuthorized, Properties: props(mqtt.Properties{ReasonString: "no"}, mqtt.PropReasonString)}, false},
		{"CONNACK 5 with every property", mqtt.V5,
			"20 | 01 00 [ 11 00000e10 12 s:id 13 001e 15 s:m 16 s:d 1a s:ri 1c s:sr 1f s:rs 21 0064 22 0008 24 01 25 01 27 00020000 28 01 29 00 2a 01 26 s:a s:b ]",
			&mqtt.Connack{SessionPresent: true, Properties: props(mqtt.Properties{
				SessionExpiry: 3600, AssignedClientID: "id", ServerKeepAlive: 30, AuthMethod: "m", AuthData: []byte("d"),
				ResponseInfo: "ri", ServerReference: "sr", ReasonString: "rs", ReceiveMaximum: 100, TopicAliasMaximum: 8,
				MaximumQoS: 1, RetainAvailable: 1, MaximumPacketSize: 131072, WildcardAvailable: 1, SharedAvailable: 1,
				User: []mqtt.UserProperty{{Key: "a", Value: "b"}},
			}, mqtt.PropSessionExpiry, mqtt.PropAssignedClientID, mqtt.PropServerKeepAlive, mqtt.PropAuthMethod, mqtt.PropAuthData,
				mqtt.PropResponseInfo, mqtt.PropServerReference, mqtt.PropReasonString, mqtt.PropReceiveMaximum,
				mqtt.PropTopicAliasMaximum, mqtt.PropMaximumQoS, mqtt.PropRetainAvailable, mqtt.PropMaximumPacketSize,
				mqtt.PropWildcardAvailable, mqtt.PropSubscriptionIDAvailable, mqtt.PropSharedAvailable)}, false},
	}
	return all
}

func publishFixtures() []fixture {
	return []fixture{
		{"PUBLISH 3.1.1 QoS 0", mqtt.V311, "30 | s:a/b t:hello", &mqtt.Publish{Topic: []byte("a/b"), Payload: []byte("hello")}, false},
		{"PUBLISH 3.1.1 QoS 1 redelivered and retained", mqtt.V311, "3b | s:a/b 0007 t:hi",
			&mqtt.Publish{Topic: []byte("a/b"), Payload: []byte("hi"), PacketID: 7, QoS: 1, Dup: true, Retain: true}, false},
		{"PUBLISH 3.1.1 QoS 2 without payload", mqtt.V311, "34 | s:/ ffff", &mqtt.Publish{Topic: []byte("/"), PacketID: 65535, QoS: 2}, false},
		{"PUBLISH 5 with a byte order mark in the topic", mqtt.V5, "30 | 0004 efbbbf61 [ ]", &mqtt.Publish{Topic: []byte("\uFEFFa")}, false},
		{"PUBLISH 5 with an alias for its topic", mqtt.V5, "32 | 0000 0001 [ 23 0008 ] t:x",
			&mqtt.Publish{Payload: []byte("x"), PacketID: 1, QoS: 1, Properties: props(mqtt.Properties{TopicAlias: 8}, mqtt.PropTopicAlias)}, false},
		{"PUBLISH 5 with every property", mqtt.V5,
			"30 | s:t [ 01 00 02 00000000 03 s: 08 s:re/ply 09 0000 23 0001 0b 01 0b ffffff7f 26 s:k s:v 26 s:a s:é ] t:p",
			&mqtt.Publish{Topic: []byte("t"), Payload: []byte("p"), Properties: props(mqtt.Properties{
				ResponseTopic: "re/ply", TopicAlias: 1, SubscriptionIDs: []uint32{1, mqtt.MaxRemaining},
				User: []mqtt.UserProperty{{Key: "k", Value: "v"}, {Key: "a", Value: "é"}},
			}, mqtt.PropPayloadFormat, mqtt.PropMessageExpiry, mqtt.PropContentType, mqtt.PropResponseTopic,
				mqtt.PropCorrelationData, mqtt.PropTopicAlias)}, false},
		{"PUBLISH 5 with properties in another order", mqtt.V5, "30 | s:t [ 26 s:k s:v 03 s:ct 26 s:l s:w 01 01 ]",
			&mqtt.Publish{Topic: []byte("t"), Properties: props(mqtt.Properties{ContentType: "ct", PayloadFormat: 1,
				User: []mqtt.UserProperty{{Key: "k", Value: "v"}, {Key: "l", Value: "w"}},
			}, mqtt.PropContentType, mqtt.PropPayloadFormat)}, true},
	}
}

func ackFixtures() []fixture {
	why := props(mqtt.Properties{ReasonString: "why", User: []mqtt.UserProperty{{Key: "a", Value: "b"}}}, mqtt.PropReasonString)
	return []fixture{
		{"PUBACK 3.1.1", mqtt.V311, "40 | 0001", &mqtt.Ack{Type: mqtt.TypePuback, PacketID: 1}, false},
		{"PUBREC 3.1.1", mqtt.V311, "50 | 0002", &mqtt.Ack{Type: mqtt.TypePubrec, PacketID: 2}, false},
		{"PUBREL 3.1.1", mqtt.V311, "62 | 0003", &mqtt.Ack{Type: mqtt.TypePubrel, PacketID: 3}, false},
		{"PUBCOMP 3.1.1", mqtt.V311, "70 | ffff", &mqtt.Ack{Type: mqtt.TypePubcomp, PacketID: 65535}, false},
		{"PUBACK 5 without reason", mqtt.V5, "40 | 0001", &mqtt.Ack{Type: mqtt.TypePuback, PacketID: 1}, false},
		{"PUBACK 5 with Success spelled out", mqtt.V5, "40 | 0001 00", &mqtt.Ack{Type: mqtt.TypePuback, PacketID: 1}, true},
		{"PUBACK 5 with no properties spelled out", mqtt.V5, "40 | 0001 10 [ ]",
			&mqtt.Ack{Type: mqtt.TypePuback, PacketID: 1, Reason: mqtt.NoMatchingSubscribers}, true},
		{"PUBACK 5 with a reason", mqtt.V5, "40 | 0001 87", &mqtt.Ack{Type: mqtt.TypePuback, PacketID: 1, Reason: mqtt.NotAuthorized}, false},
		{"PUBACK 5 with properties", mqtt.V5, "40 | 0001 00 [ 1f s:why 26 s:a s:b ]", &mqtt.Ack{Type: mqtt.TypePuback, PacketID: 1, Properties: why}, false},
		{"PUBREC 5 with properties", mqtt.V5, "50 | 0001 97 [ 1f s:why 26 s:a s:b ]",
			&mqtt.Ack{Type: mqtt.TypePubrec, PacketID: 1, Reason: mqtt.QuotaExceeded, Properties: why}, false},
		{"PUBREL 5 with properties", mqtt.V5, "62 | 0001 92 [ 1f s:why 26 s:a s:b ]",
			&mqtt.Ack{Type: mqtt.TypePubrel, PacketID: 1, Reason: mqtt.PacketIdentifierNotFound, Properties: why}, false},
		{"PUBCOMP 5 with properties", mqtt.V5, "70 | 0001 92 [ 1f s:why 26 s:a s:b ]",
			&mqtt.Ack{Type: mqtt.TypePubcomp, PacketID: 1, Reason: mqtt.PacketIdentifierNotFound, Properties: why}, false},
	}
}

func subscriptionFixtures() []fixture {
	user := mqtt.Properties{User: []mqtt.UserProperty{{Key: "a", Value: "b"}}}
	why := props(mqtt.Properties{ReasonString: "why", User: user.User}, mqtt.PropReasonString)
	return []fixture{
		{"SUBSCRIBE 3.1.1", mqtt.V311, "82 | 000a s:a/b 01 s:c/# 02 s:+/d/+ 00",
			&mqtt.Subscribe{PacketID: 10, Filters: []mqtt.Subscription{{Filter: "a/b", QoS: 1}, {Filter: "c/#", QoS: 2}, {Filter: "+/d/+"}}}, false},
		{"SUBSCRIBE 3.1.1 with what MQTT 5 calls a broken shared filter", mqtt.V311, "82 | 000a s:$share/x 00",
			&mqtt.Subscribe{PacketID: 10, Filters: []mqtt.Subscription{{Filter: "$share/x"}}}, false},
		{"SUBSCRIBE 5 with every option", mqtt.V5, "82 | 0001 [ ] s:# 2e s:+ 10",
			&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{
				{Filter: "#", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}, {Filter: "+", RetainHandling: 1}}}, false},
		{"SUBSCRIBE 5 shared, with every property", mqtt.V5, "82 | 0001 [ 0b 8001 26 s:a s:b ] s:$share/g/a/+ 01",
			&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "$share/g/a/+", QoS: 1}},
				Properties: mqtt.Properties{SubscriptionIDs: []uint32{128}, User: user.User}}, false},
		{"SUBACK 3.1.1", mqtt.V311, "90 | 000a 00 01 02 80",
			&mqtt.Suback{PacketID: 10, Codes: []mqtt.ReasonCode{mqtt.Success, mqtt.GrantedQoS1, mqtt.GrantedQoS2, mqtt.UnspecifiedError}}, false},
		{"SUBACK 5", mqtt.V5, "90 | 000a [ 1f s:why 26 s:a s:b ] 01 87 8f a1",
			&mqtt.Suback{PacketID: 10, Properties: why, Codes: []mqtt.ReasonCode{mqtt.GrantedQoS1, mqtt.NotAuthorized,
				mqtt.TopicFilterInvalid, mqtt.SubscriptionIdentifiersNotSupported}}, false},
		{"UNSUBSCRIBE 3.1.1", mqtt.V311, "a2 | 000b s:a/b s:#", &mqtt.Unsubscribe{PacketID: 11, Filters: []string{"a/b", "#"}}, false},
		{"UNSUBSCRIBE 5", mqtt.V5, "a2 | 000b [ 26 s:a s:b ] s:$share/g/#",
			&mqtt.Unsubscribe{PacketID: 11, Filters: []string{"$share/g/#"}, Properties: user}, false},
		{"UNSUBACK 3.1.1", mqtt.V311, "b0 | 000b", &mqtt.Unsuback{PacketID: 11}, false},
		{"UNSUBACK 5", mqtt.V5, "b0 | 000b [ 1f s:why 26 s:a s:b ] 00 11 8f",
			&mqtt.Unsuback{PacketID: 11, Properties: why,
				Codes: []mqtt.ReasonCode{mqtt.Success, mqtt.NoSubscriptionExisted, mqtt.TopicFilterInvalid}}, false},
	}
}

func controlFixtures() []fixture {
	return []fixture{
		{"PINGREQ 3.1.1", mqtt.V311, "c0 00", &mqtt.Pingreq{}, false},
		{"PINGREQ 5", mqtt.V5, "c0 00", &mqtt.Pingreq{}, false},
		{"PINGRESP 3.1.1", mqtt.V311, "d0 00", &mqtt.Pingresp{}, false},
		{"PINGRESP 5", mqtt.V5, "d0 00", &mqtt.Pingresp{}, false},
		{"DISCONNECT 3.1.1", mqtt.V311, "e0 00", &mqtt.Disconnect{}, false},
		{"DISCONNECT 5 without reason", mqtt.V5, "e0 00", &mqtt.Disconnect{}, false},
		{"DISCONNECT 5 with Normal disconnection spelled out", mqtt.V5, "e0 | 00 [ ]", &mqtt.Disconnect{}, true},
		{"DISCONNECT 5 with a reason", mqtt.V5, "e0 | 8e", &mqtt.Disconnect{Reason: mqtt.SessionTakenOver}, false},
		{"DISCONNECT 5 with every property", mqtt.V5, "e0 | 04 [ 11 00000000 1c s:other 1f s:why 26 s:a s:b ]",
			&mqtt.Disconnect{Reason: mqtt.DisconnectWithWill, Properties: props(mqtt.Properties{ServerReference: "other",
				ReasonString: "why", User: []mqtt.UserProperty{{Key: "a", Value: "b"}},
			}, mqtt.PropSessionExpiry, mqtt.PropServerReference, mqtt.PropReasonString)}, false},
		{"AUTH without content", mqtt.V5, "f0 00", &mqtt.Auth{}, false},
		{"AUTH with every property", mqtt.V5, "f0 | 18 [ 15 s:m 16 s:d 1f s:r 26 s:a s:b ]",
			&mqtt.Auth{Reason: mqtt.ContinueAuthentication, Properties: props(mqtt.Properties{AuthMethod: "m", AuthData: []byte("d"),
				ReasonString: "r", User: []mqtt.UserProperty{{Key: "a", Value: "b"}},
			}, mqtt.PropAuthMethod, mqtt.PropAuthData, mqtt.PropReasonString)}, false},
	}
}
