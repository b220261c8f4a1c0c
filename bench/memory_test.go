package bench_test

import (
	"testing"

	"github.com/imprint-iot/imprint/bench"
)

const rollup = `00400000-7fff8c5f1000 ---p 00000000 00:00 0                              [rollup]
Rss:               36276 kB
Pss:               30102 kB
Anonymous:         21004 kB
`

func TestParseRollupGivesTheResidentBytes(t *testing.T) {
	t.Parallel()
	got, err := bench.ParseRollup(rollup)
	if err != nil || got != 36276<<10 {
		t.Errorf("got %d, %v, want %d", got, err, 36276<<10)
	}
}

func TestParseRollupRefusesWhatIsNoRollup(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty": "", "no size": "Rss:\n", "no unit": "Rss: 12\n", "another unit": "Rss: 12 MB\n", "negative": "Rss: -12 kB\n",
		"beyond bounds": "Rss: 18446744073709551615 kB\n", "another line": "Pss: 12 kB\n",
	} {
		got, err := bench.ParseRollup(text)
		if err == nil {
			t.Errorf("%s: got %d, want an error", name, got)
		}
	}
}

func FuzzParseRollup(f *testing.F) {
	f.Add(rollup)
	f.Add("Rss: 0 kB")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := bench.ParseRollup(text)
		if got < 0 || got%1024 != 0 || err != nil && got != 0 {
			t.Errorf("got %d, %v of %q", got, err, text)
		}
	})
}
