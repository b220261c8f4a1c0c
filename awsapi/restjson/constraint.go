package restjson

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxViolations = 10
	maxShown      = 128
)

func (d *decoding) violate(value, at, rule string) {
	if len(d.violations) < maxViolations {
		d.violations = append(d.violations,
			fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: %s", value, at, rule))
	}
}

func (d *decoding) missing(at string) { d.violate("null", at, "Member must not be null") }

func (d *decoding) checkString(shape, s, at string) error {
	row, ok := d.codec.shapes[shape]
	if !ok {
		return nil
	}
	shown := "'" + clip(s) + "'"
	if row.Sensitive {
		shown = "'***Sensitive Data***'"
	}
	length := int64(utf8.RuneCountInString(s))
	if row.Limits.HasMin && length < row.Limits.Min {
		d.violate(shown, at, fmt.Sprintf("Member must have length greater than or equal to %d", row.Limits.Min))
	}
	if row.Limits.HasMax && length > row.Limits.Max {
		d.violate(shown, at, fmt.Sprintf("Member must have length less than or equal to %d", row.Limits.Max))
	}
	if len(row.Enum) > 0 && !slices.Contains(row.Enum, s) {
		d.violate(shown, at, "Member must satisfy enum value set: ["+strings.Join(row.Enum, ", ")+"]")
	}
	if row.Pattern == "" {
		return nil
	}
	pattern, err := d.codec.pattern(row)
	if err != nil {
		return err
	}
	if !pattern.MatchString(s) {
		d.violate(shown, at, "Member must satisfy regular expression pattern: "+row.Pattern)
	}
	return nil
}

func (d *decoding) checkNumber(shape string, n int64, at string) {
	limits := d.codec.shapes[shape].Limits
	shown := fmt.Sprintf("'%d'", n)
	if limits.HasMin && n < limits.Min {
		d.violate(shown, at, fmt.Sprintf("Member must have value greater than or equal to %d", limits.Min))
	}
	if limits.HasMax && n > limits.Max {
		d.violate(shown, at, fmt.Sprintf("Member must have value less than or equal to %d", limits.Max))
	}
}

func (d *decoding) checkSize(row Shape, n int, at string) {
	shown := fmt.Sprintf("'[%d entries]'", n)
	if row.Limits.HasMin && int64(n) < row.Limits.Min {
		d.violate(shown, at, fmt.Sprintf("Member must have length greater than or equal to %d", row.Limits.Min))
	}
	if row.Limits.HasMax && int64(n) > row.Limits.Max {
		d.violate(shown, at, fmt.Sprintf("Member must have length less than or equal to %d", row.Limits.Max))
	}
}

func mismatch(at, want string, got any) *Error {
	return malformed("The member '%s' must be %s, not %s.", at, want, kindOf(got))
}

func kindOf(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case json.Number:
		return "the number " + clip(v.String())
	case []any:
		return "a list"
	}
	return "an object"
}

func sortedNames(object map[string]any) []string {
	return slices.Sorted(maps.Keys(object))
}

// clip shortens a value for a message, at a character's boundary.
func clip(s string) string {
	if len(s) <= maxShown {
		return s
	}
	end := maxShown
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}
