package rulesql

import (
	"strings"
	"time"
)

// timeField is a piece of a date pattern: a letter repeated count times, or literal text where
// letter is 0.
type timeField struct {
	letter  byte
	count   int
	literal string
}

// Letters that the two functions know: those of Joda-Time's DateTimeFormat for parse_time(), and
// those of Java's DateTimeFormatter for time_to_epoch() that decide on an instant.
const (
	formatLetters = "GCYxweEyDMdaKhHkmsSzZ"
	parseLetters  = "GuyDMLdEaHkKhmsSAnNVzOXxZ"
)

// splitTimePattern cuts a pattern into fields; 'text' is literal, and two quotes are one.
func splitTimePattern(pattern, letters string) (fields []timeField, problem string) {
	if len(pattern) > MaxPatternBytes {
		return nil, "the date pattern is too long"
	}
	for i := 0; i < len(pattern); {
		c := pattern[i]
		switch {
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			n := 1
			for i+n < len(pattern) && pattern[i+n] == c {
				n++
			}
			if strings.IndexByte(letters, c) < 0 {
				return nil, "the date pattern has the letter " + string(c) + ", which means nothing here; put text in quotes"
			}
			fields = append(fields, timeField{letter: c, count: n})
			i += n
		case c == '\'':
			text, used, ok := quotedLiteral(pattern[i:])
			if !ok {
				return nil, "a quote in the date pattern isn't closed"
			}
			fields = append(fields, timeField{literal: text})
			i += used
		default:
			fields = append(fields, timeField{literal: pattern[i : i+1]})
			i++
		}
	}
	return fields, ""
}

// quotedLiteral reads 'text', in which two quotes are one, as they are alone.
func quotedLiteral(s string) (text string, used int, ok bool) {
	if strings.HasPrefix(s, "''") {
		return "'", 2, true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		return b.String(), i + 1, true
	}
	return "", 0, false
}

// prepareTimePattern splits a constant pattern.
func prepareTimePattern(arg int, format bool) func(args []node) (any, string, string) {
	letters := parseLetters
	if format {
		letters = formatLetters
	}
	return func(args []node) (any, string, string) {
		pattern, ok := literalText(args, arg)
		if !ok {
			return nil, "", ""
		}
		fields, problem := splitTimePattern(pattern, letters)
		if problem != "" {
			return nil, problem, "as in yyyy-MM-dd'T'HH:mm:ss"
		}
		return fields, "", ""
	}
}

// timeFields gives the fields of a call's pattern.
func (ev *Evaluation) timeFields(n *callNode, pattern value, letters string) ([]timeField, bool) {
	if fields, ok := n.prepared.([]timeField); ok {
		return fields, ev.spend(longNumber + len(fields))
	}
	s, ok := ev.toString(pattern)
	if !ok || !ev.spend(len(s)) {
		return nil, false
	}
	fields, problem := splitTimePattern(s, letters)
	if problem != "" {
		ev.problem(n.fn.name, nil, "%s", problem)
		return nil, false
	}
	return fields, true
}

// zone finds a time zone: UTC and its other names, an offset, or what the outside knows.
func (ev *Evaluation) zone(function, name string) (*time.Location, bool) {
	switch strings.ToUpper(name) {
	case "", "UTC", "GMT", "Z", "UT", "ZULU":
		return time.UTC, true
	}
	text := name
	for _, prefix := range [...]string{"UTC", "GMT", "UT"} {
		if strings.HasPrefix(text, prefix) && len(text) > len(prefix) && (text[len(prefix)] == '+' || text[len(prefix)] == '-') {
			text = text[len(prefix):]
			break
		}
	}
	if seconds, used, ok := parseOffset(text); ok && used == len(text) {
		return time.FixedZone(name, seconds), true
	}
	if ev.outside.Location == nil {
		ev.problem(function, nil, "no time zones are given here but UTC and offsets")
		return nil, false
	}
	// It may read a file.
	if len(name) > 64 || !ev.spend(1000) {
		return nil, false
	}
	location, err := ev.outside.Location(name)
	if err != nil {
		ev.problem(function, err, "couldn't find the time zone")
		return nil, false
	}
	return location, true
}

// parseOffset reads +h, +hh, +hhmm, +hh:mm, +hhmmss or +hh:mm:ss.
func parseOffset(s string) (seconds, used int, ok bool) {
	if s == "" || s[0] != '+' && s[0] != '-' {
		return 0, 0, false
	}
	unit, i := 3600, 1
	for part := 0; part < 3; part++ {
		start := i
		if part > 0 && i < len(s) && s[i] == ':' {
			start++
		}
		n := min(leadingDigits(s[start:]), 2)
		if n == 0 || n == 1 && part > 0 {
			break
		}
		number := int(smallDigits(s[start:start+n], ""))
		if part == 0 && number > 18 || part > 0 && number > 59 {
			return 0, 0, false
		}
		seconds += number * unit
		unit /= 60
		i = start + n
		if n == 1 {
			break
		}
	}
	if s[0] == '-' {
		seconds = -seconds
	}
	return seconds, i, i > 1
}
