package nearest_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/internal/nearest"
)

func TestTheNameThatWasMeantIsFound(t *testing.T) {
	t.Parallel()
	names := []string{"iot:Publish", "iot:Subscribe", "iot:Connect", "iot:Receive", "iot:Reconnect"}
	for written, want := range map[string]string{
		"iot:Publsh":             "iot:Publish",
		"IOT:PUBLISH":            "iot:Publish",
		"iot:Conect":             "iot:Connect",
		"s3:GetObject":           "",
		"":                       "",
		strings.Repeat("x", 65):  "",
		strings.Repeat("ab", 32): "",
	} {
		if got := nearest.Name(written, names); got != want {
			t.Errorf("%q: got %q, want %q", written, got, want)
		}
	}
}

// TestDistanceIsOne ensures what a distance is: none between equals, the same both
// ways, and no shorter than the way over a third.
func TestDistanceIsOne(t *testing.T) {
	t.Parallel()
	word := rapid.StringMatching(`[a-cA-C]{0,8}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		ab := nearest.Distance(a, b)
		if (ab == 0) != strings.EqualFold(a, b) || ab != nearest.Distance(b, a) || ab > nearest.Distance(a, c)+nearest.Distance(c, b) ||
			ab > max(len(a), len(b)) {
			t.Errorf("%q to %q: got %d", a, b, ab)
		}
	})
}
