package rulesql

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// valueFunctions work on values of any type.
var valueFunctions = []function{
	{name: "isnull", least: 1, most: 1, call: func(_ *Evaluation, _ *callNode, args []value) value {
		return boolValue(args[0].kind == kindNull)
	}},
	{name: "isundefined", least: 1, most: 1, second: true, call: func(_ *Evaluation, _ *callNode, args []value) value {
		return boolValue(args[0].isUndefined())
	}},
	{name: "nanvl", least: 2, most: 2, call: orElse},
	{name: "get_or_default", least: 1, most: 2, second: true, call: orElse},
	{name: "get", least: 2, most: 2, call: get},
	{name: "encode", least: 2, most: 2, second: true, bytes: true, call: encode},
	{name: "decode", least: 2, most: 6, second: true, bytes: true, call: decode},
	{name: "transform", least: 3, most: 3, second: true, call: transform},
	{name: "parse_time", least: 2, most: 3, second: true, call: parseTime, prepare: prepareTimePattern(0, true)},
	{name: "time_to_epoch", least: 2, most: 2, second: true, call: timeToEpoch, prepare: prepareTimePattern(1, false)},
}

// orElse is nanvl() and get_or_default(): numbers are never NaN here, so both look for nothing.
func orElse(_ *Evaluation, _ *callNode, args []value) value {
	switch {
	case args[0].kind != kindUndefined && args[0].kind != kindNull:
		return args[0]
	case len(args) == 2:
		return args[1]
	}
	return undefined()
}

func get(ev *Evaluation, _ *callNode, args []value) value {
	from, key := args[0], args[1]
	if from.kind == kindObject {
		if key.kind != kindString {
			return undefined()
		}
		return ev.look(from.object().get(key.text))
	}
	i, ok := ev.toInt(key)
	if !ok || i < 0 {
		return undefined()
	}
	switch from.kind {
	case kindArray:
		if i < len(from.items()) {
			return from.items()[i]
		}
	case kindString:
		if !ev.spend(len(from.text) / textCharging) {
			return undefined()
		}
		start := byteOffset(from.text, i)
		if start < len(from.text) {
			_, size := utf8.DecodeRuneInString(from.text[start:])
			return stringValue(from.text[start : start+size])
		}
	}
	return undefined()
}

// encode knows base64 alone.
func encode(ev *Evaluation, _ *callNode, args []value) value {
	if args[1].text != "base64" {
		return undefined()
	}
	if args[0].kind == kindBytes {
		if !ev.room(base64.StdEncoding.EncodedLen(len(ev.message.Payload))) {
			return undefined()
		}
		return stringValue(base64.StdEncoding.EncodeToString(ev.message.Payload))
	}
	s, ok := ev.toString(args[0])
	if !ok || !ev.room(base64.StdEncoding.EncodedLen(len(s))) {
		return undefined()
	}
	return stringValue(base64.StdEncoding.EncodeToString([]byte(s)))
}

// proto is what decode() needs a schema from outside for.
const proto = "proto"

// decode gives the JSON value that the bytes are, or the text, or Null for what can't be decoded.
func decode(ev *Evaluation, _ *callNode, args []value) value {
	if args[1].text == proto {
		ev.problem("decode", nil, "Protobuf payloads need a schema that is kept outside, and nothing keeps one here")
		return undefined()
	}
	if len(args) != 2 || args[1].text != "base64" {
		return undefined()
	}
	encoded := ""
	switch args[0].kind {
	case kindBytes:
		encoded = string(ev.message.Payload)
	case kindString:
		encoded = args[0].text
	case kindUndefined:
		return undefined()
	default:
		return value{kind: kindNull}
	}
	if !ev.room(len(encoded)) {
		return undefined()
	}
	encoded = strings.TrimRight(encoded, "=")
	decoded, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil || !utf8.Valid(decoded) {
		return value{kind: kindNull}
	}
	text := string(decoded)
	if v, ok := parseJSON(text, ev.version); ok {
		return v
	}
	return stringValue(text)
}

// transform adds the members of an object to each object of an array.
func transform(ev *Evaluation, _ *callNode, args []value) value {
	if args[0].text != "enrichArray" || args[1].kind != kindObject || args[2].kind != kindArray {
		return undefined()
	}
	add := args[1].object()
	out := make([]value, 0, len(args[2].items()))
	for _, item := range args[2].items() {
		if item.kind != kindObject {
			return undefined()
		}
		if !ev.spend(len(item.object().members) + len(add.members)) {
			return undefined()
		}
		enriched := item.object().clone(len(add.members))
		for _, m := range add.members {
			enriched.set(m.key, m.val)
		}
		out = append(out, objectValue(&enriched))
	}
	text, ok := ev.encode(nil, arrayValue(out))
	if !ok {
		return undefined()
	}
	if len(text) > MaxTransformBytes {
		ev.problem("transform", nil, "the result is longer than %d bytes", MaxTransformBytes)
		return undefined()
	}
	return arrayValue(out)
}
