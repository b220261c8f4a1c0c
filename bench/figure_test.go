package bench_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/bench"
)

func TestAtLeastComparesTheRatioWithTheGoal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		value, reference, goal float64
		ratio                  *float64
		met                    bool
	}{
		"above":               {900, 1000, 0.8, new(0.9), true},
		"exactly":             {800, 1000, 0.8, new(0.8), true},
		"below":               {790, 1000, 0.8, new(0.79), false},
		"without reference":   {790, 0, 0.8, nil, false},
		"nothing was reached": {0, 1000, 0.8, new(0.0), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := bench.AtLeast("x", test.value, "1/s", test.reference, test.goal)
			want := bench.Figure{Name: "x", Value: test.value, Unit: "1/s", Reference: &test.reference, Ratio: test.ratio, Goal: &test.goal, Bound: new(bench.Least), Met: &test.met}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the figure differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAtMostComparesTheRatioWithTheGoal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		value, reference, goal float64
		met                    bool
	}{
		"below":             {30, 29, 1.25, true},
		"exactly":           {35, 28, 1.25, true},
		"above":             {36, 28, 1.25, false},
		"without reference": {1, 0, 1.25, false},
	} {
		got := bench.AtMost("x", test.value, "kB", test.reference, test.goal)
		if *got.Met != test.met || *got.Bound != bench.Most || *got.Goal != test.goal || *got.Reference != test.reference {
			t.Errorf("%s: got %+v, want met %t", name, got, test.met)
		}
		if test.reference > 0 && *got.Ratio != test.value/test.reference {
			t.Errorf("%s: got ratio %v, want %v", name, *got.Ratio, test.value/test.reference)
		}
	}
}

func TestWithinComparesTheValueWithTheGoal(t *testing.T) {
	t.Parallel()
	for value, met := range map[float64]bool{1.9: true, 2: true, 2.1: false} {
		goal := 2.0
		want := bench.Figure{Name: "x", Value: value, Unit: "ms", Goal: &goal, Bound: new(bench.Most), Met: &met}
		if diff := cmp.Diff(want, bench.Within("x", value, "ms", goal)); diff != "" {
			t.Errorf("the figure differs (-want +got):\n%s", diff)
		}
	}
}

func TestBesideHasARatioAndNoGoal(t *testing.T) {
	t.Parallel()
	got := bench.Beside("x", 3, "ms", 2)
	if diff := cmp.Diff(bench.Figure{Name: "x", Value: 3, Unit: "ms", Reference: new(2.0), Ratio: new(1.5)}, got); diff != "" {
		t.Errorf("the figure differs (-want +got):\n%s", diff)
	}
	got = bench.Beside("x", 3, "ms", 0)
	if got.Ratio != nil {
		t.Errorf("got ratio %v of nothing, want none", *got.Ratio)
	}
}

func TestJSONHasEveryMemberOfEveryFigure(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := bench.PrintJSON(&out, []bench.Figure{
		bench.Plain("p50", 1.5, "ms"),
		bench.AtLeast("reconnects", 850, "reconnects/CPU-s", 1000, 0.8),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	err = json.Unmarshal(out.Bytes(), &got)
	if err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{"figure": "p50", "value": 1.5, "unit": "ms", "reference": nil, "ratio": nil, "goal": nil, "bound": nil, "met": nil},
		{"figure": "reconnects", "value": 850.0, "unit": "reconnects/CPU-s", "reference": 1000.0, "ratio": 0.85, "goal": 0.8, "bound": "least", "met": true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("JSON differs (-want +got):\n%s", diff)
	}
}

func TestJSONOfNoFiguresIsAnEmptyArray(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := bench.PrintJSON(&out, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(out.String()); got != "[]" {
		t.Errorf("got %s, want []", got)
	}
}

func TestTableShowsOneFigureALine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := bench.PrintTable(&out, []bench.Figure{
		bench.Plain("p50", 1.5, "ms"),
		bench.Plain("rate", 12.34, "1/s"),
		bench.AtLeast("reconnects", 850.4, "1/CPU-s", 1000, 0.8),
		bench.AtLeast("devices", 1, "1/CPU-s", 0, 0.8),
		bench.AtMost("memory", 30, "kB", 20, 1.25),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `FIGURE      VALUE  UNIT     REFERENCE  RATIO  GOAL     MET
p50         1.50   ms       -          -      -        -
rate        12.3   1/s      -          -      -        -
reconnects  850    1/CPU-s  1000       0.85   0.80     yes
devices     1.00   1/CPU-s  0.00       -      0.80     no
memory      30.0   kB       20.0       1.50   <= 1.25  no
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("the table differs (-want +got):\n%s", diff)
	}
}

func TestPrintersReportWritersThatFail(t *testing.T) {
	t.Parallel()
	figures := []bench.Figure{bench.Plain("p50", 1, "ms")}
	for name, print := range map[string]func(io.Writer, []bench.Figure) error{"table": bench.PrintTable, "JSON": bench.PrintJSON} {
		err := print(failing{}, figures)
		if !errors.Is(err, errFull) {
			t.Errorf("%s: got %v, want %v", name, err, errFull)
		}
	}
}

var errFull = errors.New("full")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }

func TestPerSecondCountsATickAtLeast(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		n     int
		spent time.Duration
		want  float64
	}{{1000, 2 * time.Second, 500}, {20, 0, 2000}, {20, 10 * time.Millisecond, 2000}, {0, time.Second, 0}} {
		got := bench.PerSecond(test.n, test.spent)
		if got != test.want {
			t.Errorf("%d in %s: got %v per second, want %v", test.n, test.spent, got, test.want)
		}
	}
}

func TestPercentileIsTheNearestRank(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i)
	}
	for _, test := range []struct {
		all  []time.Duration
		p    float64
		want time.Duration
	}{{nil, 50, 0}, {[]time.Duration{7}, 50, 7}, {[]time.Duration{7}, 99, 7}, {[]time.Duration{2, 1}, 50, 1},
		{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100}, {hundred, 0, 1}} {
		got := bench.Percentile(test.all, test.p)
		if got != test.want {
			t.Errorf("p%v of %d: got %d, want %d", test.p, len(test.all), got, test.want)
		}
	}
}

func TestPercentileIsOneOfTheValuesAndSplitsThem(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Map(rapid.Int64Range(0, 1000), func(n int64) time.Duration { return time.Duration(n) }), 1, 200).Draw(t, "all")
		p := rapid.Float64Range(0, 100).Draw(t, "p")
		got := bench.Percentile(all, p)
		notAbove, below, among := 0, 0, false
		for _, d := range all {
			if d <= got {
				notAbove++
			}
			if d < got {
				below++
			}
			among = among || d == got
		}
		share := p / 100 * float64(len(all))
		if !among || float64(notAbove) < share-1e-9 || below > 0 && float64(below) >= share+1e-9 {
			t.Fatalf("p%v of %v: got %d, which %d don't exceed and %d are below", p, all, got, notAbove, below)
		}
	})
}

func TestCompareNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	err := bench.Compare("things", []string{"b", "a"}, []string{"a", "b"})
	if err != nil {
		t.Errorf("equal sets: got %v, want no error", err)
	}
	for want, found := range map[string][]string{
		"1 things are there, 2 came": {"a"},
		"is c, where b is expected":  {"c", "a"},
		"is a, where b is expected":  {"a", "a"},
	} {
		err := bench.Compare("things", found, []string{"a", "b"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q in it", found, err, want)
		}
	}
}

func TestChildrenDontSeeSettingsOfOtherServers(t *testing.T) {
	t.Parallel()
	got := bench.ChildEnvironment([]string{"PATH=/bin", "IMPRINT_HOLD=true", "IMPRINT_MASTER_KEY=x", "IMPRINT_CONFIG=y", "TMPDIR=/d"})
	want := []string{"PATH=/bin", "IMPRINT_MASTER_KEY=x", "TMPDIR=/d"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the environment differs (-want +got):\n%s", diff)
	}
}

func TestConnackIsReadHoweverItIsCut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ in, want string }{
		"accepted":   {"\x20\x02\x00\x00", ""},
		"refused":    {"\x20\x02\x00\x05", "CONNACK says"},
		"closed":     {"", "EOF"},
		"cut off":    {"\x20\x02\x00", "EOF"},
		"other":      {"\xd0\x00", "PINGRESP came"},
		"too long":   {"\x30\xff\x01", "bytes came"},
		"no packet":  {"\x00\x00", "couldn't read CONNACK"},
		"no CONNACK": {"\x20\x03\x00\x00\x00", "couldn't read CONNACK"},
		"no end":     {"\x20\xff\xff\xff\xff", "couldn't read CONNACK"},
	} {
		for _, r := range []io.Reader{strings.NewReader(test.in), iotest.OneByteReader(strings.NewReader(test.in))} {
			err := bench.ReadConnack(r)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("%s: got %v, want no error", name, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%s: got %v, want %q in it", name, err, test.want)
			}
		}
	}
}
