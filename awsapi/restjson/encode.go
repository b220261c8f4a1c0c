package restjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Encode gives the JSON body of a response: the struct, or the struct that a
// pointer points to. Absent members are left out, nothing is null, an empty
// struct and a nil pointer give {}.
func (c *Codec) Encode(value any) ([]byte, error) {
	v := reflect.ValueOf(value)
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return []byte("{}"), nil
		}
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return nil, fmt.Errorf("couldn't encode a %T: want a struct", value)
	}
	var b bytes.Buffer
	if err := c.encodeStruct(&b, v, 0); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (c *Codec) encodeStruct(b *bytes.Buffer, v reflect.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("couldn't encode a %s: it nests deeper than %d levels", v.Type(), maxDepth)
	}
	l, err := c.layoutOf(v.Type())
	if err != nil {
		return err
	}
	b.WriteByte('{')
	first := true
	for _, f := range l.fields {
		member := v.Field(f.index)
		if absent(member, f.required) {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		if err := encodeString(b, f.name); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := c.encodeValue(b, member, depth+1); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func absent(v reflect.Value, required bool) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return v.IsNil()
	case reflect.String:
		return !required && v.Len() == 0
	}
	return !required && v.Type() == timeType && v.Interface().(time.Time).IsZero()
}

func (c *Codec) encodeValue(b *bytes.Buffer, v reflect.Value, depth int) error {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return fmt.Errorf("couldn't encode a nil %s", v.Type())
		}
		v = v.Elem()
	}
	if v.Type() == timeType {
		b.WriteString(epochSeconds(v.Interface().(time.Time)))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		return encodeString(b, v.String())
	case reflect.Bool:
		b.WriteString(strconv.FormatBool(v.Bool()))
		return nil
	case reflect.Int, reflect.Int64:
		b.WriteString(strconv.FormatInt(v.Int(), 10))
		return nil
	case reflect.Struct:
		return c.encodeStruct(b, v, depth)
	case reflect.Slice:
		if v.Type() == blobType {
			return encodeString(b, base64.StdEncoding.EncodeToString(v.Bytes()))
		}
		return c.encodeList(b, v, depth)
	case reflect.Map:
		return c.encodeMap(b, v, depth)
	}
	return fmt.Errorf("couldn't encode a %s", v.Type())
}

func (c *Codec) encodeList(b *bytes.Buffer, v reflect.Value, depth int) error {
	b.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := c.encodeValue(b, v.Index(i), depth+1); err != nil {
			return err
		}
	}
	b.WriteByte(']')
	return nil
}

func (c *Codec) encodeMap(b *bytes.Buffer, v reflect.Value, depth int) error {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	b.WriteByte('{')
	for i, key := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encodeString(b, key.String()); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := c.encodeValue(b, v.MapIndex(key), depth+1); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func encodeString(b *bytes.Buffer, s string) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return fmt.Errorf("couldn't encode a string: %w", err)
	}
	b.Truncate(b.Len() - 1) // the encoder ends with a line feed
	return nil
}

// epochSeconds writes 1549665132 or 1549665132.123.
func epochSeconds(t time.Time) string {
	millis := t.UnixMilli()
	if millis%1000 == 0 {
		return strconv.FormatInt(millis/1000, 10)
	}
	sign := ""
	if millis < 0 {
		sign, millis = "-", -millis
	}
	return fmt.Sprintf("%s%d.%03d", sign, millis/1000, millis%1000)
}
