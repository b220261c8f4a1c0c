package restjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// maxDepth bounds nesting in a request's body. The deepest value of the AWS IoT
// model, a property value in an action of a topic rule, is ten levels down.
const maxDepth = 32

// parse reads one JSON text into maps, slices, strings, json.Numbers, booleans
// and nils. The error is an *Error.
func parse(body []byte) (any, error) {
	if !utf8.Valid(body) {
		return nil, malformed("The body isn't UTF-8.")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	value, err := parseValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("The body has something after its JSON value.")
	}
	return value, nil
}

func parseValue(d *json.Decoder, depth int) (any, error) {
	token, err := next(d)
	if err != nil {
		return nil, err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return token, nil
	}
	if depth >= maxDepth {
		return nil, malformed("The body nests deeper than %d levels.", maxDepth)
	}
	if delim == '[' {
		return parseList(d, depth+1)
	}
	return parseObject(d, depth+1)
}

func parseList(d *json.Decoder, depth int) (any, error) {
	list := []any{}
	for d.More() {
		value, err := parseValue(d, depth)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := next(d)
	return list, err
}

func parseObject(d *json.Decoder, depth int) (any, error) {
	object := map[string]any{}
	for d.More() {
		token, err := next(d)
		if err != nil {
			return nil, err
		}
		// The decoder lets nothing but a string stand here.
		name, ok := token.(string)
		if !ok {
			return nil, malformed("The body isn't valid JSON: a member has no name.")
		}
		if _, twice := object[name]; twice {
			return nil, malformed("The member %q stands twice in one object.", clip(name))
		}
		value, err := parseValue(d, depth)
		if err != nil {
			return nil, err
		}
		object[name] = value
	}
	_, err := next(d)
	return object, err
}

func next(d *json.Decoder) (json.Token, error) {
	token, err := d.Token()
	if err == nil {
		return token, nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, malformed("The body isn't valid JSON: it ends too early.")
	}
	return nil, malformed("The body isn't valid JSON: %s (at byte %d).", clip(err.Error()), d.InputOffset())
}
