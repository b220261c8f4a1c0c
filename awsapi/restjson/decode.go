package restjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Source is where the members of one request come from.
type Source struct {
	Path   map[string]string // labels, unescaped
	Query  url.Values
	Header http.Header
	Body   []byte
}

// decoding is the state of one Decode.
type decoding struct {
	codec      *Codec
	violations []string
}

// Decode fills the struct that into points to and checks every constraint. The
// error is an *Error, or another error if the type itself can't be decoded
// into.
func (c *Codec) Decode(src Source, into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("couldn't decode into a %T: want a pointer to a struct", into)
	}
	v = v.Elem()
	l, err := c.layoutOf(v.Type())
	if err != nil {
		return err
	}
	var body any
	if (l.hasBody || l.payload) && len(bytes.TrimSpace(src.Body)) > 0 {
		body, err = parse(src.Body)
		if err != nil {
			return err
		}
	}
	d := &decoding{codec: c}
	object, isObject := body.(map[string]any)
	if l.hasBody && body != nil && !isObject {
		return malformed("The body must be a JSON object, not %s.", kindOf(body))
	}
	for _, f := range l.fields {
		target := v.Field(f.index)
		switch f.location {
		case inBody:
			err = d.member(target, f, object[f.name], f.name)
		case inPayload:
			err = d.member(target, f, body, f.name)
		case inBlob:
			if len(src.Body) > 0 {
				target.SetBytes(src.Body)
			}
		default:
			err = d.text(target, f, src)
		}
		if err != nil {
			return err
		}
	}
	return d.verdict()
}

func (d *decoding) verdict() error {
	n := len(d.violations)
	if n == 0 {
		return nil
	}
	noun := "errors"
	if n == 1 {
		noun = "error"
	}
	return &Error{Code: d.codec.invalidCode,
		Message: fmt.Sprintf("%d validation %s detected: %s", n, noun, strings.Join(d.violations, "; "))}
}

// member decodes a member of a JSON object; nil is absent.
func (d *decoding) member(target reflect.Value, f field, value any, at string) error {
	if value == nil {
		if f.required {
			d.missing(at)
		}
		return nil
	}
	return d.value(target, f.shape, value, at)
}

// value decodes a JSON value that is not null.
func (d *decoding) value(target reflect.Value, shape string, value any, at string) error {
	if target.Kind() == reflect.Pointer {
		fresh := reflect.New(target.Type().Elem())
		target.Set(fresh)
		target = fresh.Elem()
	}
	if target.Type() == timeType {
		return d.time(target, value, at)
	}
	if target.Type() == blobType {
		return d.blob(target, shape, value, at)
	}
	switch target.Kind() {
	case reflect.String:
		s, ok := value.(string)
		if !ok {
			return mismatch(at, "a string", value)
		}
		target.SetString(s)
		return d.checkString(shape, s, at)
	case reflect.Bool:
		b, ok := value.(bool)
		if !ok {
			return mismatch(at, "a boolean", value)
		}
		target.SetBool(b)
		return nil
	case reflect.Int, reflect.Int64:
		n, ok := wholeNumber(value, target.Kind())
		if !ok {
			return mismatch(at, "a whole number", value)
		}
		target.SetInt(n)
		d.checkNumber(shape, n, at)
		return nil
	case reflect.Slice:
		return d.list(target, shape, value, at)
	case reflect.Map:
		return d.entries(target, shape, value, at)
	case reflect.Struct:
		return d.object(target, value, at)
	}
	return fmt.Errorf("couldn't decode %s into a %s", at, target.Type())
}

// blob decodes base64 text; its limits bound the bytes.
func (d *decoding) blob(target reflect.Value, shape string, value any, at string) error {
	text, ok := value.(string)
	if !ok {
		return mismatch(at, "base64 text", value)
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return malformed("The member '%s' isn't base64 text.", at)
	}
	target.SetBytes(data)
	d.checkSize(d.codec.shapes[shape], len(data), at)
	return nil
}

func (d *decoding) object(target reflect.Value, value any, at string) error {
	object, ok := value.(map[string]any)
	if !ok {
		return mismatch(at, "an object", value)
	}
	l, err := d.codec.layoutOf(target.Type())
	if err != nil {
		return err
	}
	for _, f := range l.fields {
		if err := d.member(target.Field(f.index), f, object[f.name], at+"."+f.name); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoding) list(target reflect.Value, shape string, value any, at string) error {
	list, ok := value.([]any)
	if !ok {
		return mismatch(at, "a list", value)
	}
	row := d.codec.shapes[shape]
	d.checkSize(row, len(list), at)
	slice := reflect.MakeSlice(target.Type(), len(list), len(list))
	for i, element := range list {
		place := at + "." + strconv.Itoa(i+1) + ".member"
		if element == nil {
			return mismatch(place, "a value", nil)
		}
		if err := d.value(slice.Index(i), row.Member, element, place); err != nil {
			return err
		}
	}
	target.Set(slice)
	return nil
}

func (d *decoding) entries(target reflect.Value, shape string, value any, at string) error {
	object, ok := value.(map[string]any)
	if !ok {
		return mismatch(at, "an object", value)
	}
	row := d.codec.shapes[shape]
	d.checkSize(row, len(object), at)
	filled := reflect.MakeMapWithSize(target.Type(), len(object))
	for _, name := range sortedNames(object) {
		if object[name] == nil {
			return mismatch(at+"."+clip(name), "a value", nil)
		}
		key := reflect.New(target.Type().Key()).Elem()
		key.SetString(name)
		if err := d.checkString(row.Key, name, at+"."+clip(name)+".key"); err != nil {
			return err
		}
		entry := reflect.New(target.Type().Elem()).Elem()
		if err := d.value(entry, row.Value, object[name], at+"."+clip(name)+".value"); err != nil {
			return err
		}
		filled.SetMapIndex(key, entry)
	}
	target.Set(filled)
	return nil
}

// text decodes a member that travels outside the body.
func (d *decoding) text(target reflect.Value, f field, src Source) error {
	values := textValues(f, src)
	if target.Kind() == reflect.Slice {
		if len(values) == 0 {
			if f.required {
				d.missing(f.name)
			}
			return nil
		}
		list := make([]any, len(values))
		for i, value := range values {
			list[i] = value
		}
		return d.list(target, f.shape, list, f.name)
	}
	switch len(values) {
	case 0:
		if f.required {
			d.missing(f.name)
		}
		return nil
	case 1:
	default:
		return &Error{Code: d.codec.invalidCode, Message: fmt.Sprintf("The parameter %s is given %d times.", f.name, len(values))}
	}
	value, err := d.fromText(target, f, values[0])
	if err != nil {
		return err
	}
	return d.value(target, f.shape, value, f.name)
}

func textValues(f field, src Source) []string {
	switch f.location {
	case inPath:
		if value, ok := src.Path[f.name]; ok {
			return []string{value}
		}
		return nil
	case inQuery:
		return src.Query[f.name]
	}
	return src.Header.Values(f.name)
}

// fromText turns text into what JSON would have given for the target's type.
func (d *decoding) fromText(target reflect.Value, f field, text string) (any, error) {
	invalid := func(want string) error {
		return &Error{Code: d.codec.invalidCode, Message: fmt.Sprintf("The parameter %s must be %s, not '%s'.", f.name, want, clip(text))}
	}
	if !utf8.ValidString(text) {
		return nil, &Error{Code: d.codec.invalidCode, Message: fmt.Sprintf("The parameter %s isn't UTF-8.", f.name)}
	}
	t := target.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == timeType {
		if _, ok := timeFrom(text); !ok {
			return nil, invalid("a time such as 2024-01-01T00:00:00Z")
		}
		return text, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return nil, invalid("true or false")
		}
		return text == "true", nil
	case reflect.Int, reflect.Int64:
		number := json.Number(text)
		if _, ok := wholeNumber(number, t.Kind()); !ok {
			return nil, invalid("a whole number")
		}
		return number, nil
	}
	return text, nil
}

func (d *decoding) time(target reflect.Value, value any, at string) error {
	var text string
	switch v := value.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	when, ok := timeFrom(text)
	if !ok {
		return mismatch(at, "a time in epoch seconds", value)
	}
	target.Set(reflect.ValueOf(when))
	return nil
}

// timeFrom reads epoch seconds, rounded to milliseconds, or ISO 8601, between
// the years 1 and 9999.
func timeFrom(text string) (time.Time, bool) {
	if len(text) > maxNumber {
		return time.Time{}, false
	}
	when, err := time.Parse(time.RFC3339, text)
	if err == nil {
		return when.UTC(), when.UTC().Year() > 0
	}
	if !isDecimal(text) {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(seconds) || math.Abs(seconds) > 253402300799 {
		return time.Time{}, false
	}
	when = time.UnixMilli(int64(math.Round(seconds * 1000))).UTC()
	return when, when.Year() > 0 && when.Year() < 10000
}

// wholeNumber reads an integer that fits the kind: reflect.Int means the 32
// bits that the model's integers have. 5.0 and 1e3 are whole.
func wholeNumber(value any, kind reflect.Kind) (int64, bool) {
	number, ok := value.(json.Number)
	if !ok || !isDecimal(number.String()) {
		return 0, false
	}
	bits := 64
	if kind == reflect.Int {
		bits = 32
	}
	n, err := strconv.ParseInt(number.String(), 10, bits)
	if err == nil {
		return n, true
	}
	const exact = 1 << 53
	f, err := strconv.ParseFloat(number.String(), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > exact {
		return 0, false
	}
	if bits == 32 && (f > math.MaxInt32 || f < math.MinInt32) {
		return 0, false
	}
	return int64(f), true
}

// maxNumber bounds the text of a number or time.
const maxNumber = 40

// isDecimal keeps out what strconv reads beyond JSON: hexadecimal, Inf, NaN.
func isDecimal(text string) bool {
	return text != "" && len(text) <= maxNumber && strings.Trim(text, "0123456789+-.eE") == ""
}
