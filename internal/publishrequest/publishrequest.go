// Package publishrequest reads the HTTP form of a message, which devices with a
// certificate and operators with an access key send alike (AWS IoT data plane
// API of 2015-05-28, operation Publish):
//
//	POST /topics/{topic}?qos=1&retain=true&contentType=&responseTopic=&messageExpiry=
//	x-amz-mqtt5-user-properties: base64 of [{"name":"value"},...]
//	x-amz-mqtt5-payload-format-indicator: UNSPECIFIED_BYTES or UTF8_DATA
//	x-amz-mqtt5-correlation-data: base64
//
// What it guarantees: the topic is the path's rest, percent-decoded exactly
// once and otherwise untouched, so that // and %2F mean what they say; each
// member is there once at most and well formed; the properties can stand in an
// MQTT 5 packet. Limits of a service (topic length, payload) are the broker's.
package publishrequest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// Prefix is what the path of a message begins with.
const Prefix = "/topics/"

// Headers of the MQTT 5 members.
const (
	HeaderUserProperties  = "X-Amz-Mqtt5-User-Properties"
	HeaderPayloadFormat   = "X-Amz-Mqtt5-Payload-Format-Indicator"
	HeaderCorrelationData = "X-Amz-Mqtt5-Correlation-Data"
)

// maxUserProperties bounds how many pairs a message may have.
const maxUserProperties = 256

// Topic gives the topic that a path names. The path is as it came over the
// wire. Errors: CodeInvalidRequest.
func Topic(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, Prefix)
	if !ok || rest == "" {
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "the path names no topic: it must be %s and the topic", Prefix)
	}
	topic, err := url.PathUnescape(rest)
	if err != nil {
		return "", imprint.Errorf(imprint.CodeInvalidRequest, "the topic in the path isn't percent-encoded well: %w", err)
	}
	return topic, nil
}

// Request is a message without its topic and payload.
type Request struct {
	QoS        mqtt.QoS
	Retain     bool
	Properties mqtt.Properties
}

// Parse reads query and headers. Errors: CodeInvalidRequest,
// CodeQoSNotSupported.
func Parse(rawQuery string, header http.Header) (Request, error) {
	var r Request
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return r, imprint.Errorf(imprint.CodeInvalidRequest, "the query string isn't well formed: %w", err)
	}
	var m Members
	var qos, retain, expiry string
	for _, member := range []struct {
		name   string
		values []string
		to     *string
	}{
		{"qos", query["qos"], &qos},
		{"retain", query["retain"], &retain},
		{"messageExpiry", query["messageExpiry"], &expiry},
		{"contentType", query["contentType"], &m.ContentType},
		{"responseTopic", query["responseTopic"], &m.ResponseTopic},
		{HeaderUserProperties, header.Values(HeaderUserProperties), &m.UserProperties},
		{HeaderPayloadFormat, header.Values(HeaderPayloadFormat), &m.PayloadFormat},
		{HeaderCorrelationData, header.Values(HeaderCorrelationData), &m.CorrelationData},
	} {
		if len(member.values) > 1 {
			return r, imprint.Errorf(imprint.CodeInvalidRequest, "%s is given %d times", member.name, len(member.values))
		}
		if len(member.values) == 1 {
			*member.to = member.values[0]
		}
	}
	err = r.setFlags(qos, retain)
	if err != nil {
		return r, err
	}
	if expiry != "" {
		seconds, err := strconv.ParseInt(expiry, 10, 64)
		if err != nil {
			return r, imprint.Errorf(imprint.CodeInvalidRequest, "messageExpiry is %q, not a number of seconds", imprint.Excerpt(expiry))
		}
		m.MessageExpiry = &seconds
	}
	r.Properties, err = m.Properties()
	return r, err
}

func (r *Request) setFlags(qos, retain string) error {
	switch qos {
	case "", "0":
	case "1":
		r.QoS = 1
	case "2":
		return imprint.Errorf(imprint.CodeQoSNotSupported, "qos is 2")
	default:
		return imprint.Errorf(imprint.CodeInvalidRequest, "qos is %q, not 0 or 1", imprint.Excerpt(qos))
	}
	switch {
	case strings.EqualFold(retain, "true"):
		r.Retain = true
	case retain != "" && !strings.EqualFold(retain, "false"):
		return imprint.Errorf(imprint.CodeInvalidRequest, "retain is %q, not true or false", imprint.Excerpt(retain))
	}
	return nil
}

// Members are the MQTT 5 members as text; empty ones are absent.
type Members struct {
	ContentType, ResponseTopic string
	UserProperties             string // base64 of JSON
	PayloadFormat              string
	CorrelationData            string // base64
	MessageExpiry              *int64 // seconds
}

// Properties gives them as properties of a PUBLISH. Errors: CodeInvalidRequest.
func (m Members) Properties() (mqtt.Properties, error) {
	var p mqtt.Properties
	for _, set := range []func(*mqtt.Properties) error{
		m.setTexts, m.setPayloadFormat, m.setCorrelationData, m.setExpiry, m.setUserProperties,
	} {
		err := set(&p)
		if err != nil {
			return mqtt.Properties{}, err
		}
	}
	return p, nil
}

func (m Members) setTexts(p *mqtt.Properties) error {
	if m.ContentType != "" {
		if !isText(m.ContentType) {
			return imprint.Errorf(imprint.CodeInvalidRequest, "contentType isn't UTF-8 text that MQTT can carry")
		}
		p.ContentType = m.ContentType
		p.Mark(mqtt.PropContentType)
	}
	if m.ResponseTopic != "" {
		if !mqtt.ValidTopicName(m.ResponseTopic) {
			return imprint.Errorf(imprint.CodeInvalidRequest, "responseTopic %q is not a valid topic name", imprint.Excerpt(m.ResponseTopic))
		}
		p.ResponseTopic = m.ResponseTopic
		p.Mark(mqtt.PropResponseTopic)
	}
	return nil
}

func (m Members) setPayloadFormat(p *mqtt.Properties) error {
	switch m.PayloadFormat {
	case "":
		return nil
	case "UNSPECIFIED_BYTES":
	case "UTF8_DATA":
		p.PayloadFormat = 1
	default:
		return imprint.Errorf(imprint.CodeInvalidRequest, "the payload format indicator is %q, not UNSPECIFIED_BYTES or UTF8_DATA", imprint.Excerpt(m.PayloadFormat))
	}
	p.Mark(mqtt.PropPayloadFormat)
	return nil
}

func (m Members) setCorrelationData(p *mqtt.Properties) error {
	if m.CorrelationData == "" {
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(m.CorrelationData)
	if err != nil {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the correlation data isn't base64: %w", err)
	}
	if len(data) > math.MaxUint16 {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the correlation data has %d bytes, MQTT can carry %d", len(data), math.MaxUint16)
	}
	p.CorrelationData = data
	p.Mark(mqtt.PropCorrelationData)
	return nil
}

func (m Members) setExpiry(p *mqtt.Properties) error {
	if m.MessageExpiry == nil {
		return nil
	}
	if *m.MessageExpiry < 0 {
		return imprint.Errorf(imprint.CodeInvalidRequest, "messageExpiry is %d seconds", *m.MessageExpiry)
	}
	p.MessageExpiry = uint32(min(*m.MessageExpiry, math.MaxUint32))
	p.Mark(mqtt.PropMessageExpiry)
	return nil
}

// setUserProperties reads the JSON array of one-member objects. SDKs send it as
// it is or, where they take it for text, as a JSON string once more.
func (m Members) setUserProperties(p *mqtt.Properties) error {
	if m.UserProperties == "" {
		return nil
	}
	text, err := base64.StdEncoding.DecodeString(m.UserProperties)
	if err != nil {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the user properties aren't base64: %w", err)
	}
	var wrapped string
	if json.Unmarshal(text, &wrapped) == nil {
		text = []byte(wrapped)
	}
	var list []map[string]string
	d := json.NewDecoder(bytes.NewReader(text))
	err = d.Decode(&list)
	if err == nil {
		_, err = d.Token()
	}
	if err != io.EOF { // nothing may follow
		return imprint.Errorf(imprint.CodeInvalidRequest, `the user properties must be a JSON list such as [{"name":"value"}]`)
	}
	if len(list) > maxUserProperties {
		return imprint.Errorf(imprint.CodeInvalidRequest, "there are %d user properties, at most %d are allowed", len(list), maxUserProperties)
	}
	for _, pair := range list {
		if len(pair) != 1 {
			return imprint.Errorf(imprint.CodeInvalidRequest, "each user property must be an object with one member, one has %d", len(pair))
		}
		for name, value := range pair {
			if !isText(name) || !isText(value) {
				return imprint.Errorf(imprint.CodeInvalidRequest, "a user property isn't text that MQTT can carry")
			}
			p.User = append(p.User, mqtt.UserProperty{Key: name, Value: value})
		}
	}
	return nil
}

// isText tells whether MQTT can carry a string (MQTT 5 section 1.5.4).
func isText(s string) bool {
	return len(s) <= math.MaxUint16 && utf8.ValidString(s) && !strings.Contains(s, "\x00")
}
