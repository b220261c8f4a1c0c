// Package restjson moves typed values in and out of HTTP requests as AWS
// services of the protocol "rest-json" do, and checks the constraints of a
// service's API model on the way in.
//
// A value is a struct whose fields carry one tag each:
//
//	type CreateThingInput struct {
//		ThingName     string  `api:"path thingName ThingName required"`
//		ThingTypeName *string `api:"body thingTypeName ThingTypeName"`
//	}
//
// The words are location (path, query, header, body, payload, blob), name on the
// wire, shape, and optionally "required". The shape names a row of the Shapes
// that the Codec was made with: length, range, pattern, enumeration, and the
// shapes of elements.
//
// A payload is a JSON value that is the whole body. A blob, a []byte, is the body
// as it came; elsewhere a []byte is base64 text.
//
// # Presence
//
// A nil pointer, slice or map is an absent member; an empty slice or map is
// present. Required members are plain values. Strings and times of shapes that
// only travel to the client are plain too, and absent when zero; the
// generator of the types decides which.
//
// # Types on the wire
//
// Go string, bool, int (32 bits on the wire), int64, time.Time, structs, slices
// and maps with string keys. Times are epoch seconds in JSON (with milliseconds
// when there are any) and ISO 8601 in the query; both forms are accepted in
// both places.
//
// # Refusals
//
// Malformed JSON and values of the wrong type are a SerializationException that
// names the member. Broken constraints are collected, ten at most, and worded
// as AWS words them:
//
//	1 validation error detected: Value 'a b' at 'thingName' failed to satisfy
//	constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9:_-]+
//
// Unknown members are ignored, null is the same as absent, names are matched by
// exact case, a name that stands twice in one object is refused, and so is
// nesting deeper than 32. Lengths count characters (code points). Patterns hold
// for the whole value.
//
// # What it does not do
//
// Floating-point members, header or payload members in
// responses, streaming. No part of the AWS IoT APIs that are offered has them.
//
// Source of the rules: the AWS restJson1 protocol of the Smithy specification
// and the AWS IoT API reference.
package restjson
