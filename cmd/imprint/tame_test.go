package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// TestStrangersDontWriteToTheTerminal ensures that what a device or a function wrote
// can't move a cursor, set a title, hide or turn text, however it is cut into pieces,
// while our colours, letters of all languages and JSON stay what they are.
func TestStrangersDontWriteToTheTerminal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain é 漢字 😀\tx\n":           "plain é 漢字 😀\tx\n",
		"\x1b]0;PWNED\a\x1b[2Jdevice": `\u001b]0;PWNED\u0007\u001b[2Jdevice`,
		"\x1b[31mFAILED\x1b[0m":       "\x1b[31mFAILED\x1b[0m",
		"\x1b[00mok\x1b[0m":           "\x1b[00mok\x1b[0m",
		"\x1b[08mhidden":              `\u001b[08mhidden`,
		"a\rb\r\n":                    "a\\u000db\r\n",
		"\u009b2J\u202ecod\u200f\x7f": `\u009b2J\u202ecod\u200f\u007f`,
		"\x9b\xff":                    "\ufffd\ufffd",
	} {
		var whole, cut bytes.Buffer
		_, _ = io.WriteString(tame(&whole), text)
		if whole.String() != want {
			t.Errorf("%q: got %q, want %q", text, whole.String(), want)
		}
		if strings.Contains(text, "\x1b[") || strings.Contains(text, "\r\n") {
			continue // our colours and line breaks are written in one piece
		}
		pieces := tame(&cut)
		for i := range len(text) {
			_, _ = pieces.Write([]byte(text[i : i+1]))
		}
		if cut.String() != want {
			t.Errorf("%q, byte by byte: got %q, want %q", text, cut.String(), want)
		}
	}
	var out bytes.Buffer
	want := attempt{ClientID: "\x1b]0;x\a\u009b\u202e\x7f"}
	err := printJSON(tame(&out), want)
	var got attempt
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &got)
	}
	if err != nil || got.ClientID != want.ClientID || strings.ContainsAny(out.String(), "\x1b\a\u009b\u202e\x7f") {
		t.Errorf("JSON: got %q from %q, %v", got.ClientID, out.String(), err)
	}
}
