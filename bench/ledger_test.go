package bench_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/bench"
)

func TestLedgerRefusesWhatIsLostRepeatedOrOvertaken(t *testing.T) {
	t.Parallel()
	type message struct {
		publisher uint32
		number    uint64
		dup       bool
	}
	for name, test := range map[string]struct {
		come []message
		want string // of the last one's error; empty: none
	}{
		"in order":                    {[]message{{0, 0, false}, {0, 1, false}, {0, 2, false}}, ""},
		"publishers in turns":         {[]message{{0, 0, false}, {1, 0, false}, {0, 1, false}, {1, 1, false}}, ""},
		"first one lost":              {[]message{{0, 1, false}}, "1 were lost or overtaken"},
		"some lost":                   {[]message{{0, 0, false}, {0, 4, false}}, "3 were lost or overtaken"},
		"overtaken":                   {[]message{{0, 0, false}, {0, 2, false}, {0, 1, false}}, "1 were lost or overtaken"},
		"of one publisher lost":       {[]message{{0, 0, false}, {1, 0, false}, {1, 2, false}}, "number 2 of publisher 1"},
		"twice":                       {[]message{{0, 0, false}, {0, 0, false}}, "came again, without DUP"},
		"twice, marked":               {[]message{{0, 0, false}, {0, 0, true}, {0, 1, false}}, ""},
		"marked, but never came":      {[]message{{0, 0, false}, {0, 2, true}}, "1 were lost or overtaken"},
		"of nobody":                   {[]message{{2, 0, false}}, "publisher 2, of 2"},
		"of nobody, beyond all bound": {[]message{{1<<32 - 1, 0, false}}, "publisher 4294967295, of 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := bench.NewLedger(2)
			var err error
			for _, m := range test.come {
				if err != nil {
					break
				}
				err = l.Take(m.publisher, m.number, m.dup)
			}
			switch {
			case test.want == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestLedgerCountsExactlyWhatCameInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const publishers = 3
		l := bench.NewLedger(publishers)
		var next [publishers]uint64
		for range rapid.IntRange(1, 100).Draw(t, "messages") {
			p := rapid.IntRange(0, publishers-1).Draw(t, "publisher")
			n := uint64(max(0, int(next[p])+rapid.SampledFrom([]int{0, 0, 0, -1, 1, 2}).Draw(t, "offset")))
			dup := rapid.Bool().Draw(t, "dup")
			err := l.Take(uint32(p), n, dup)
			right := n == next[p] || n < next[p] && dup
			if (err == nil) != right {
				t.Fatalf("number %d, dup %t, where %d is next: got %v", n, dup, next[p], err)
			}
			if n == next[p] {
				next[p]++
			}
			if got := l.Count(p); got != next[p] {
				t.Fatalf("got a count of %d, want %d", got, next[p])
			}
		}
	})
}

func TestStampsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		publisher, number := rapid.Uint32().Draw(t, "publisher"), rapid.Uint64().Draw(t, "number")
		due := time.Duration(rapid.Int64Min(0).Draw(t, "due"))
		size := rapid.IntRange(bench.MinPayload, 300).Draw(t, "size")
		payload := bench.PutStamp(publisher, number, due, size)
		p, n, d, err := bench.StampParts(payload, size)
		if err != nil || p != publisher || n != number || d != due {
			t.Fatalf("got %d, %d, %s, %v, want %d, %d, %s", p, n, d, err, publisher, number, due)
		}
		_, _, _, err = bench.StampParts(payload[:size-1], size)
		if err == nil {
			t.Fatal("a payload that was cut off was taken")
		}
	})
}
