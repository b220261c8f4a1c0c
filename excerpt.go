package imprint

import "strings"

// Excerpt gives at most 256 bytes of a stranger's text, as valid UTF-8, to be
// quoted in an error, a log or a trace step.
func Excerpt(s string) string {
	const most = 256
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
