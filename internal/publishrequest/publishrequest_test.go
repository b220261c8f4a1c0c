package publishrequest_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/publishrequest"
	"github.com/imprint-iot/imprint/mqtt"
)

func TestTopicsAreDecodedExactlyOnce(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/topics/a": "a", "/topics/a/b": "a/b", "/topics/a%2Fb": "a/b", "/topics//": "/", "/topics/%252F": "%2F",
		"/topics/a//b": "a//b", "/topics/../a": "../a", "/topics/a+b": "a+b", "/topics/%00": "\x00",
	} {
		got, err := publishrequest.Topic(path)
		if err != nil || got != want {
			t.Errorf("Topic(%q) = %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"", "/", "/topics", "/topics/", "/topic/a", "topics/a", "/topics/%", "/topics/%2", "/topics/%zz", "/TOPICS/a"} {
		_, err := publishrequest.Topic(path)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("Topic(%q): got %v, want %s", path, err, imprint.CodeInvalidRequest)
		}
	}
}

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestUserPropertiesComeAsAListOrAsItsText(t *testing.T) {
	t.Parallel()
	want := []mqtt.UserProperty{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}, {Key: "a", Value: "3"}}
	for _, text := range []string{`[{"a":"1"},{"b":"2"},{"a":"3"}]`, ` [ {"a":"1"}, {"b":"2"}, {"a":"3"} ] `, `"[{\"a\":\"1\"},{\"b\":\"2\"},{\"a\":\"3\"}]"`} {
		got, err := publishrequest.Parse("", http.Header{publishrequest.HeaderUserProperties: {encoded(text)}})
		if diff := cmp.Diff(want, got.Properties.User); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", text, err, diff)
		}
	}
}

func TestMembersThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, query, header, value string
		code                       imprint.Code
	}{
		{"qos 2", "qos=2", "", "", imprint.CodeQoSNotSupported},
		{"qos of text", "qos=one", "", "", imprint.CodeInvalidRequest},
		{"qos twice", "qos=1&qos=1", "", "", imprint.CodeInvalidRequest},
		{"retain", "retain=yes", "", "", imprint.CodeInvalidRequest},
		{"a query that isn't one", "a=%zz", "", "", imprint.CodeInvalidRequest},
		{"expiry below nothing", "messageExpiry=-1", "", "", imprint.CodeInvalidRequest},
		{"expiry of text", "messageExpiry=1h", "", "", imprint.CodeInvalidRequest},
		{"response topic with a wildcard", "responseTopic=%23", "", "", imprint.CodeInvalidRequest},
		{"content type that isn't UTF-8", "contentType=%ff", "", "", imprint.CodeInvalidRequest},
		{"payload format", "", publishrequest.HeaderPayloadFormat, "UTF8", imprint.CodeInvalidRequest},
		{"correlation data", "", publishrequest.HeaderCorrelationData, "*", imprint.CodeInvalidRequest},
		{"correlation data beyond MQTT", "", publishrequest.HeaderCorrelationData, encoded(strings.Repeat("x", 1<<16)), imprint.CodeInvalidRequest},
		{"user properties, not base64", "", publishrequest.HeaderUserProperties, "[]", imprint.CodeInvalidRequest},
		{"user properties, not JSON", "", publishrequest.HeaderUserProperties, encoded("a=b"), imprint.CodeInvalidRequest},
		{"user properties, an object", "", publishrequest.HeaderUserProperties, encoded(`{"a":"b"}`), imprint.CodeInvalidRequest},
		{"user properties, two members", "", publishrequest.HeaderUserProperties, encoded(`[{"a":"b","c":"d"}]`), imprint.CodeInvalidRequest},
		{"user properties, a number", "", publishrequest.HeaderUserProperties, encoded(`[{"a":1}]`), imprint.CodeInvalidRequest},
		{"user properties and more", "", publishrequest.HeaderUserProperties, encoded(`[] x`), imprint.CodeInvalidRequest},
		{"user properties with U+0000", "", publishrequest.HeaderUserProperties, encoded(`[{"a":"\u0000"}]`), imprint.CodeInvalidRequest},
		{"too many user properties", "", publishrequest.HeaderUserProperties, encoded("[" + strings.Repeat(`{"a":"b"},`, 256) + `{"a":"b"}]`), imprint.CodeInvalidRequest},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			if row.header != "" {
				header.Set(row.header, row.value)
			}
			_, err := publishrequest.Parse(row.query, header)
			if imprint.CodeOf(err) != row.code {
				t.Errorf("got %v, want %s", err, row.code)
			}
		})
	}
}

func TestExpiryBeyondTheProtocolIsTheLongest(t *testing.T) {
	t.Parallel()
	got, err := publishrequest.Parse("messageExpiry=99999999999&retain=TRUE&qos=1", nil)
	if err != nil || got.Properties.MessageExpiry != 1<<32-1 || !got.Retain || got.QoS != 1 {
		t.Errorf("got %+v, %v; want the longest expiry, RETAIN and QoS 1", got, err)
	}
}

// A topic that a path names is named by the path that escapes it, too, and what
// is decoded isn't decoded again.
func FuzzTopic(f *testing.F) {
	for _, seed := range []string{"/topics/a", "/topics//", "/topics/%2F", "/topics/%252F", "/topics/%zz", "/topics/", "", "/topics/a?b", "/topics/\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		topic, err := publishrequest.Topic(path)
		if err != nil {
			if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
				t.Errorf("Topic(%q): got %v, want %s", path, err, imprint.CodeInvalidRequest)
			}
			return
		}
		again, err := publishrequest.Topic("/topics/" + url.PathEscape(topic))
		if err != nil || again != topic {
			t.Errorf("Topic(%q) = %q, and of its escaped form %q, %v", path, topic, again, err)
		}
		if strings.Count(topic, "/") < strings.Count(path, "/")-2 {
			t.Errorf("Topic(%q) = %q lost a slash", path, topic)
		}
	})
}

// Whatever query and headers say, what is parsed can stand in a packet.
func FuzzMembers(f *testing.F) {
	f.Add("qos=1&retain=true&contentType=a&responseTopic=b&messageExpiry=5", encoded(`[{"a":"b"}]`), "UTF8_DATA", "AAE=")
	f.Add("qos=2", "", "", "*")
	f.Fuzz(func(t *testing.T, query, user, format, correlation string) {
		got, err := publishrequest.Parse(query, http.Header{
			publishrequest.HeaderUserProperties: {user}, publishrequest.HeaderPayloadFormat: {format}, publishrequest.HeaderCorrelationData: {correlation},
		})
		if err != nil {
			return
		}
		sent := mqtt.Publish{Topic: []byte("a"), Properties: got.Properties}
		raw := sent.Append(nil, mqtt.V5)
		header, ok, err := mqtt.ParseFixedHeader(raw)
		var read mqtt.Publish
		if err == nil && ok {
			err = read.Decode(header, raw[header.Size:], mqtt.V5)
		}
		if diff := cmp.Diff(got.Properties, read.Properties); err != nil || !ok || diff != "" {
			t.Errorf("%v (-sent +read):\n%s", err, diff)
		}
	})
}
