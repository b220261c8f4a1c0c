package restjson

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

type location string

const (
	inPath    location = "path"
	inQuery   location = "query"
	inHeader  location = "header"
	inBody    location = "body"
	inPayload location = "payload"
	inBlob    location = "blob"
)

// field is one tagged member of a struct.
type field struct {
	index    int
	location location
	name     string
	shape    string
	required bool
}

// layout is what the tags of a struct type say, read once.
type layout struct {
	fields  []field
	hasBody bool
	payload bool
	blob    bool
}

var (
	timeType = reflect.TypeFor[time.Time]()
	blobType = reflect.TypeFor[[]byte]()
)

// layoutOf reads and keeps the tags of a struct type.
func (c *Codec) layoutOf(t reflect.Type) (*layout, error) {
	if known, ok := c.layouts.Load(t); ok {
		return known.(*layout), nil
	}
	l := &layout{}
	for i := range t.NumField() {
		f, err := parseTag(t.Field(i))
		if err != nil {
			return nil, fmt.Errorf("couldn't read the tags of %s: %w", t, err)
		}
		f.index = i
		l.hasBody = l.hasBody || f.location == inBody
		l.payload = l.payload || f.location == inPayload
		l.blob = l.blob || f.location == inBlob
		l.fields = append(l.fields, f)
	}
	if l.hasBody && (l.payload || l.blob) || l.payload && l.blob {
		return nil, fmt.Errorf("couldn't read the tags of %s: body members beside a payload", t)
	}
	c.layouts.Store(t, l)
	return l, nil
}

func parseTag(sf reflect.StructField) (field, error) {
	words := strings.Fields(sf.Tag.Get("api"))
	if len(words) != 3 && (len(words) != 4 || words[3] != "required") {
		return field{}, fmt.Errorf("field %s has the tag %q", sf.Name, sf.Tag)
	}
	f := field{location: location(words[0]), name: words[1], shape: words[2], required: len(words) == 4}
	switch f.location {
	case inPath, inQuery, inHeader, inBody, inPayload:
	case inBlob:
		if sf.Type != blobType {
			return field{}, fmt.Errorf("field %s is a blob and a %s", sf.Name, sf.Type)
		}
	default:
		return field{}, fmt.Errorf("field %s has the location %q", sf.Name, words[0])
	}
	return f, nil
}

// Check reads the tags of a struct type and of all that it holds, and compiles
// the patterns of its shapes. It is meant for tests of generated types: a type
// that passes never fails for a reason of its own later.
func (c *Codec) Check(t reflect.Type) error {
	return c.check(t, make(map[reflect.Type]bool))
}

func (c *Codec) check(t reflect.Type, seen map[reflect.Type]bool) error {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == timeType || seen[t] {
		return nil
	}
	seen[t] = true
	l, err := c.layoutOf(t)
	if err != nil {
		return err
	}
	for _, f := range l.fields {
		if err := c.checkPatterns(f.shape, 0); err != nil {
			return fmt.Errorf("member %s of %s: %w", f.name, t, err)
		}
		if err := c.check(t.Field(f.index).Type, seen); err != nil {
			return err
		}
	}
	return nil
}

func (c *Codec) checkPatterns(name string, depth int) error {
	s, ok := c.shapes[name]
	if !ok || depth > maxDepth {
		return nil
	}
	if s.Pattern != "" {
		if _, err := c.pattern(s); err != nil {
			return err
		}
	}
	for _, inner := range []string{s.Member, s.Key, s.Value} {
		if err := c.checkPatterns(inner, depth+1); err != nil {
			return err
		}
	}
	return nil
}
