package restjson

import (
	"fmt"
	"regexp"
	"sync"
)

// Limits bound a length in characters (strings), a number of entries (lists)
// or a value (numbers). The zero value bounds nothing.
type Limits struct {
	Min, Max       int64
	HasMin, HasMax bool
}

// Between bounds both ends, both included.
func Between(least, most int64) Limits {
	return Limits{Min: least, Max: most, HasMin: true, HasMax: true}
}

// AtLeast bounds the lower end.
func AtLeast(least int64) Limits { return Limits{Min: least, HasMin: true} }

// AtMost bounds the upper end.
func AtMost(most int64) Limits { return Limits{Max: most, HasMax: true} }

// Shape is what a model says about values of one shape beyond their Go type.
type Shape struct {
	Limits Limits
	// Pattern is the model's regular expression, which the whole value must
	// match. It is what messages show.
	Pattern string
	// RE2 is the same expression in Go's syntax, where that differs.
	RE2 string
	// Enum lists the only legal values.
	Enum []string
	// Member is the shape of a list's elements; Key and Value are those of a
	// map.
	Member, Key, Value string
	// Sensitive keeps values out of messages.
	Sensitive bool
}

// Shapes are the rows of a model by name. Shapes that constrain nothing may be
// left out.
type Shapes map[string]Shape

// Codec decodes requests into, and encodes responses from, tagged structs. It
// is safe for concurrent use.
type Codec struct {
	shapes      Shapes
	invalidCode string
	patterns    sync.Map // pattern text to func() (*regexp.Regexp, error)
	layouts     sync.Map // reflect.Type to *layout
}

// New makes a Codec. invalidCode is the error code of broken constraints, such
// as InvalidRequestException.
func New(shapes Shapes, invalidCode string) *Codec {
	return &Codec{shapes: shapes, invalidCode: invalidCode}
}

// pattern gives the compiled, anchored expression of a shape, compiled at its
// first use.
func (c *Codec) pattern(s Shape) (*regexp.Regexp, error) {
	text := s.RE2
	if text == "" {
		text = s.Pattern
	}
	found, ok := c.patterns.Load(text)
	if !ok {
		found, _ = c.patterns.LoadOrStore(text, sync.OnceValues(func() (*regexp.Regexp, error) {
			return regexp.Compile(`^(?:` + text + `)$`)
		}))
	}
	compiled, err := found.(func() (*regexp.Regexp, error))()
	if err != nil {
		return nil, fmt.Errorf("couldn't compile a pattern of the model: %w", err)
	}
	return compiled, nil
}

// Error is a refusal of a request that the caller may read. Its HTTP status is
// 400.
type Error struct {
	Code    string
	Message string
}

// Error renders "code: message".
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// CodeSerialization is the code of malformed JSON and of values that have the
// wrong type.
const CodeSerialization = "SerializationException"

func malformed(format string, args ...any) *Error {
	return &Error{Code: CodeSerialization, Message: fmt.Sprintf(format, args...)}
}
