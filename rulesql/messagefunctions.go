package rulesql

import (
	"encoding/base64"
	"strings"

	"github.com/google/uuid"
)

// messageFunctions tell of the message and of the rule.
var messageFunctions = []function{
	{name: "topic", least: 0, most: 1, call: topic},
	{name: "clientid", least: 0, most: 0, call: clientID},
	{name: "principal", least: 0, most: 0, call: known(func(ev *Evaluation) string { return ev.message.Principal })},
	{name: "sourceip", least: 0, most: 0, call: known(func(ev *Evaluation) string { return ev.message.SourceIP })},
	{name: "traceid", least: 0, most: 0, call: known(func(ev *Evaluation) string { return ev.message.TraceID })},
	{name: "accountid", least: 0, most: 0, call: known(func(ev *Evaluation) string { return ev.message.AccountID })},
	{name: "sql_version", least: 0, most: 0, call: known(func(ev *Evaluation) string { return string(ev.version) })},
	{name: "timestamp", least: 0, most: 0, call: timestamp},
	{name: "newuuid", least: 0, most: 0, call: newUUID},
	{name: "get_mqtt_property", least: 1, most: 1, second: true, call: mqttProperty},
	{name: "get_user_properties", least: 0, most: 1, second: true, call: userProperties},
}

// known gives a text, or Undefined where nothing is known.
func known(get func(ev *Evaluation) string) callFunction {
	return func(ev *Evaluation, _ *callNode, _ []value) value {
		s := get(ev)
		if s == "" {
			return undefined()
		}
		return stringValue(s)
	}
}

// topic is the whole topic, or a level of it, counted from 1.
func topic(ev *Evaluation, _ *callNode, args []value) value {
	rest := ev.message.Topic
	if len(args) == 0 {
		return stringValue(rest)
	}
	n, ok := ev.toInt(args[0])
	if !ok || n < 1 {
		return undefined()
	}
	for {
		level, behind, more := strings.Cut(rest, "/")
		if n == 1 {
			return stringValue(level)
		}
		if !more {
			return undefined()
		}
		rest = behind
		n--
	}
}

func clientID(ev *Evaluation, _ *callNode, _ []value) value {
	if ev.message.ClientID == "" {
		return stringValue("n/a")
	}
	return stringValue(ev.message.ClientID)
}

func timestamp(ev *Evaluation, _ *callNode, _ []value) value {
	return intValue(ev.message.Time.UnixMilli())
}

func newUUID(ev *Evaluation, _ *callNode, _ []value) value {
	var b [16]byte
	if !ev.random("newuuid", b[:]) {
		return undefined()
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return stringValue(uuid.UUID(b).String())
}

// mqttProperty gives correlation data in base64, as the republish action takes it.
func mqttProperty(ev *Evaluation, _ *callNode, args []value) value {
	p := &ev.message.Properties
	s := ""
	switch args[0].text {
	case "format_indicator":
		if p.HasFormat {
			s = "UNSPECIFIED_BYTES"
		}
		if p.HasFormat && p.UTF8 {
			s = "UTF8_DATA"
		}
	case "content_type":
		s = p.ContentType
	case "response_topic":
		s = p.ResponseTopic
	case "correlation_data":
		if !ev.room(base64.StdEncoding.EncodedLen(len(p.Correlation))) {
			return undefined()
		}
		s = base64.StdEncoding.EncodeToString(p.Correlation)
	}
	if s == "" {
		return undefined()
	}
	return stringValue(s)
}

// userProperties gives all of them as an array of objects with one member, or of one name: its
// value, an array of values if it is there more than once.
func userProperties(ev *Evaluation, _ *callNode, args []value) value {
	all := ev.message.Properties.User
	if !ev.spend(len(all)) {
		return undefined()
	}
	if len(args) == 0 {
		items := make([]value, 0, len(all))
		for _, p := range all {
			items = append(items, objectValue(&object{members: []member{{p.Name, stringValue(p.Value)}}}))
		}
		return arrayValue(items)
	}
	var found []value
	for _, p := range all {
		if args[0].kind == kindString && p.Name == args[0].text {
			found = append(found, stringValue(p.Value))
		}
	}
	switch len(found) {
	case 0:
		return undefined()
	case 1:
		return found[0]
	}
	return arrayValue(found)
}
