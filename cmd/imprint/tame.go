package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tamed is a writer for a person's terminal that takes the power of what strangers
// wrote: a device's client id, a function's log, another server's answer may hold
// sequences that a terminal obeys (ECMA-48), or characters that turn text round.
// Everything but line breaks, tabs and our own colours is written as JSON writes it
// (\u001b), so that JSON stays JSON.
type tamed struct {
	to   io.Writer
	rest []byte // the begin of a character that is still to come whole
}

func tame(to io.Writer) *tamed { return &tamed{to: to} }

// Write takes all of b unless writing fails.
func (t *tamed) Write(b []byte) (int, error) {
	data := append(t.rest, b...)
	t.rest = nil
	var out strings.Builder
	out.Grow(len(data))
	for len(data) > 0 {
		if length := ownColour(data); length > 0 {
			out.Write(data[:length])
			data = data[length:]
			continue
		}
		r, size := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && size == 1 && !utf8.FullRune(data):
			t.rest = slices.Clone(data)
			size = len(data)
		case r == utf8.RuneError && size == 1:
			out.WriteRune(utf8.RuneError)
		case r == '\r' && len(data) > 1 && data[1] == '\n', r == '\n', r == '\t':
			out.WriteRune(r)
		case r <= 0xffff && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'):
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.Write(data[:size])
		}
		data = data[size:]
	}
	_, err := io.WriteString(t.to, out.String())
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// ownColour gives the length of one of our own colours at the begin of data; 0: there is
// none. Only those that painterFor writes pass: others hide text.
func ownColour(data []byte) int {
	const size = len("\x1b[00m")
	if len(data) < size || data[0] != 0x1b || data[1] != '[' || data[size-1] != 'm' {
		if len(data) >= 4 && string(data[:4]) == "\x1b[0m" {
			return 4
		}
		return 0
	}
	for _, p := range []paint{plain, bold, bad, good} {
		if string(data[2:size-1]) == pad(p) {
			return size
		}
	}
	if string(data[:4]) == "\x1b[0m" {
		return 4
	}
	return 0
}
