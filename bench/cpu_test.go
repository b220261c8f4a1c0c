package bench_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/bench"
)

// rest are the fields of proc_pid_stat(5) from the third on.
func rest(user, system string) string {
	return "S 1 2 3 0 -1 4194560 500 0 0 0 " + user + " " + system + " 7 8 20 0 9 0 12345 1000 200 18446744073709551615"
}

func TestParseStatAddsUserAndSystemTime(t *testing.T) {
	t.Parallel()
	for _, comm := range []string{"imprint", "a b", "a) b", "(imprint)", ") S 1 2 (", "", "a\nb", "99 88"} {
		line := fmt.Sprintf("4711 (%s) %s\n", comm, rest("150", "50"))
		got, err := bench.ParseStat(line)
		if err != nil || got != 2*time.Second {
			t.Errorf("comm %q: got %s, %v, want 2s", comm, got, err)
		}
	}
}

func TestParseStatRefusesWhatIsNoStatLine(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"empty":           "",
		"no name":         "4711 imprint " + rest("1", "1"),
		"only a closing":  "4711 imprint) " + rest("1", "1"),
		"too few fields":  "4711 (imprint) S 1 2 3 0 -1 4194560 500 0 0 0 150",
		"user no number":  "4711 (imprint) " + rest("x", "1"),
		"system negative": "4711 (imprint) " + rest("1", "-1"),
		"beyond bounds":   "4711 (imprint) " + rest("18446744073709551615", "1"),
	} {
		got, err := bench.ParseStat(line)
		if err == nil {
			t.Errorf("%s: got %s, want an error", name, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("4711 (imprint) " + rest("150", "50"))
	f.Add("1 (a) b) " + rest("0", "0"))
	f.Add("1 ()")
	f.Fuzz(func(t *testing.T, line string) {
		got, err := bench.ParseStat(line)
		if err != nil && got != 0 || got < 0 || got%(10*time.Millisecond) != 0 {
			t.Errorf("got %s, %v of %q", got, err, line)
		}
		if err == nil && !strings.Contains(line, ")") {
			t.Errorf("a line without a name was taken: %q", line)
		}
	})
}
