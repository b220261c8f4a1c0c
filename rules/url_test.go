package rules_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rules"
)

// TestARefusedURLSaysWhy ensures that who reads of a URL that a device's text broke learns by
// what.
func TestARefusedURLSaysWhy(t *testing.T) {
	t.Parallel()
	for text, why := range map[string]string{
		"https://example.com/a\r\nb": "control character",
		"https://example.com/%zz":    "%zz",
		"ftp://example.com/":         "isn't an https URL",
	} {
		err := rules.CheckURL(text)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: got %v, want it to have %q", text, err, why)
		}
	}
}
