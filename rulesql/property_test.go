package rulesql_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/rulesql"
)

var (
	keys  = rapid.StringMatching(`[a-c]{1,2}|k [é"]`)
	texts = rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-c é"\\/]{0,8}`))
	// Numbers up to 30 digits, so that sums and products of two stay exact or are rounded at 34.
	decimals = rapid.StringMatching(`-?(0|[1-9][0-9]{0,14})(\.[0-9]{0,14}[1-9])?`)
	integers = rapid.StringMatching(`0|-?[1-9][0-9]{0,32}`)
)

// documents makes JSON values of encoding/json's types, with numbers that it keeps as they are.
func documents(depth int) *rapid.Generator[any] {
	scalars := []*rapid.Generator[any]{
		rapid.Just(any(nil)), rapid.Bool().AsAny(), texts.AsAny(),
		rapid.Custom(func(t *rapid.T) any { return json.Number(decimals.Draw(t, "number")) }),
	}
	if depth == 0 {
		return rapid.OneOf(scalars...)
	}
	inner := rapid.Deferred(func() *rapid.Generator[any] { return documents(depth - 1) })
	return rapid.OneOf(append(scalars, rapid.SliceOfN(inner, 0, 4).AsAny(), rapid.MapOfN(keys, inner, 0, 4).AsAny())...)
}

func marshal(t *rapid.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func unmarshal(t *rapid.T, text string) any {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

// sameNumbers compares numbers by value.
var sameNumbers = cmp.Comparer(func(a, b json.Number) bool {
	x, okX := new(big.Rat).SetString(a.String())
	y, okY := new(big.Rat).SetString(b.String())
	return okX && okY && x.Cmp(y) == 0
})

func evaluated(t *rapid.T, sql, payload string, v rulesql.Version) string {
	s, err := rulesql.Parse(sql, v)
	if err != nil {
		t.Fatalf("Parse(%s): %v", sql, err)
	}
	result, err := rulesql.NewEvaluation(s, message(payload), nil).Select(context.Background())
	if err != nil {
		t.Fatalf("Select of %s: %v", sql, err)
	}
	return string(result.Payload)
}

// A document comes out as it went in, whether it was decoded, copied, or went through base64.
func TestDocumentsSurvive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.SampledFrom([]rulesql.Version{first, second}).Draw(t, "version")
		payload := marshal(t, map[string]any{"m": documents(3).Draw(t, "document"), "z": documents(1).Draw(t, "other")})
		want := unmarshal(t, payload)
		statements := []string{"SELECT m, z FROM 't'", "SELECT *, z AS z FROM 't'", "SELECT *, m AS m FROM 't'"}
		if v == second {
			statements = append(statements, "SELECT VALUE decode(encode(*, 'base64'), 'base64') FROM 't'", "SELECT VALUE {'m': m, 'z': z} FROM 't'")
		}
		for _, sql := range statements {
			got := unmarshal(t, evaluated(t, sql, payload, v))
			if diff := cmp.Diff(want, got, sameNumbers); diff != "" {
				t.Fatalf("%s of %s (-want +got):\n%s", sql, payload, diff)
			}
		}
	})
}

// "=" agrees with comparing documents, and is the opposite of "<>".
func TestEqualityIsOfValues(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := documents(2).Draw(t, "a"), documents(2).Draw(t, "b")
		if rapid.Bool().Draw(t, "same") {
			b = a
		}
		payload := marshal(t, map[string]any{"a": a, "b": b})
		got := evaluated(t, "SELECT VALUE [a = b, a <> b, b = a] FROM 't'", payload, second)
		same := cmp.Equal(unmarshal(t, marshal(t, a)), unmarshal(t, marshal(t, b)), sameNumbers)
		if want := fmt.Sprintf("[%v,%v,%v]", same, !same, same); got != want {
			t.Fatalf("%s gives %s, want %s", payload, got, want)
		}
	})
}

func rational(t *rapid.T, text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("%q is no number", text)
	}
	return r
}

// Sums, differences, products and quotients are right to 34 digits, and comparisons exact.
func TestArithmeticAgreesWithRationals(t *testing.T) {
	t.Parallel()
	operations := map[string]func(z, x, y *big.Rat) *big.Rat{"+": (*big.Rat).Add, "-": (*big.Rat).Sub, "*": (*big.Rat).Mul, "/": (*big.Rat).Quo}
	// Half a unit of the 34th digit.
	tolerance := new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Exp(big.NewInt(10), big.NewInt(33), nil))
	rapid.Check(t, func(t *rapid.T) {
		a, b := decimals.Draw(t, "a"), decimals.Draw(t, "b")
		x, y := rational(t, a), rational(t, b)
		operator := rapid.SampledFrom([]string{"+", "-", "*", "/"}).Draw(t, "operator")
		if operator == "/" && (y.Sign() == 0 || x.IsInt() && y.IsInt()) {
			return // by zero, or of Ints: other tests
		}
		got := rational(t, evaluated(t, "SELECT VALUE a "+operator+" b FROM 't'", `{"a":`+a+`,"b":`+b+`}`, second))
		want := operations[operator](new(big.Rat), x, y)
		difference := new(big.Rat).Sub(got, want)
		bound := new(big.Rat).Mul(new(big.Rat).Abs(want), tolerance)
		if difference.Abs(difference).Cmp(bound) > 0 {
			t.Fatalf("%s %s %s = %s, want %s", a, operator, b, got.FloatString(40), want.FloatString(40))
		}
		compared := evaluated(t, "SELECT VALUE [a < b, a = b, a > b] FROM 't'", `{"a":`+a+`,"b":`+b+`}`, second)
		order := x.Cmp(y)
		if want := fmt.Sprintf("[%v,%v,%v]", order < 0, order == 0, order > 0); compared != want {
			t.Fatalf("comparing %s and %s gives %s, want %s", a, b, compared, want)
		}
	})
}

// Ints divide as Go's, towards zero, and a = (a / b) * b + a % b.
func TestIntsDivideTowardsZero(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := integers.Draw(t, "a"), rapid.StringMatching(`-?[1-9][0-9]{0,15}`).Draw(t, "b")
		x, y := rational(t, a).Num(), rational(t, b).Num()
		quotient, rest := new(big.Int).QuoRem(x, y, new(big.Int))
		got := evaluated(t, "SELECT VALUE [a / b, a % b, mod(a, b), floor(a), -a] FROM 't'", `{"a":`+a+`,"b":`+b+`}`, second)
		want := fmt.Sprintf("[%v,%v,%v,%v,%v]", quotient, rest, rest, x, new(big.Int).Neg(x))
		if got != want {
			t.Fatalf("%s by %s gives %s, want %s", a, b, got, want)
		}
	})
}

// Rounding functions agree with exact arithmetic.
func TestRounding(t *testing.T) {
	t.Parallel()
	half := big.NewRat(1, 2)
	rapid.Check(t, func(t *rapid.T) {
		a := decimals.Draw(t, "a")
		x := rational(t, a)
		floor := new(big.Int).Div(x.Num(), x.Denom()) // Euclidean, and the denominator is positive
		ceil := new(big.Int).Set(floor)
		if !x.IsInt() {
			ceil.Add(ceil, big.NewInt(1))
		}
		away := new(big.Rat).Add(new(big.Rat).Abs(x), half)
		round := new(big.Int).Quo(away.Num(), away.Denom())
		if x.Sign() < 0 {
			round.Neg(round)
		}
		got := evaluated(t, "SELECT VALUE [floor(a), ceil(a), round(a), trunc(a, 0), sign(a)] FROM 't'", `{"a":`+a+`}`, second)
		want := fmt.Sprintf("[%v,%v,%v,%v,%v]", floor, ceil, round, new(big.Int).Quo(x.Num(), x.Denom()), x.Sign())
		if got != want {
			t.Fatalf("%s gives %s, want %s", a, got, want)
		}
	})
}

// substring(), length() and get() count characters as runes.
func TestTextsAreRunes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := texts.Draw(t, "s")
		from, to := rapid.IntRange(-3, 12).Draw(t, "from"), rapid.IntRange(-3, 12).Draw(t, "to")
		payload := marshal(t, map[string]any{"s": s, "lo": from, "hi": to})
		got := unmarshal(t, evaluated(t, "SELECT VALUE [substring(s, lo, hi), substring(s, lo), length(s), numbytes(s)] FROM 't'", payload, second))
		var decoded string
		err := json.Unmarshal([]byte(marshal(t, s)), &decoded)
		if err != nil {
			t.Fatal(err)
		}
		runes := []rune(decoded)
		low, high := min(max(from, 0), len(runes)), min(max(to, 0), len(runes))
		want := []any{string(runes[low:max(low, high)]), string(runes[low:]), json.Number(fmt.Sprint(len(runes))), json.Number(fmt.Sprint(len(decoded)))}
		if diff := cmp.Diff(any(want), got, sameNumbers); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", payload, diff)
		}
	})
}

// What parse_time() writes, time_to_epoch() reads, in every zone, since offsets are of whole minutes.
func TestTimesComeBack(t *testing.T) {
	t.Parallel()
	patterns := []string{
		"yyyy-MM-dd HH:mm:ss.SSS Z", "dd MMMM yyyy, hh:mm:ss.SSS a Z", "EEE, d MMM yyyy H:m:s SSS Z", "yyyyMMddHHmmssSSSZ", "yyyy-DDD'T'HH:mm:ss.SSSZ",
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SampledFrom(patterns).Draw(t, "pattern")
		zone := rapid.SampledFrom([]string{"UTC", "America/Belize", "Asia/Kolkata", "+02:00", "Europe/Berlin"}).Draw(t, "zone")
		when := rapid.Int64Range(-600_000_000_000, 4_000_000_000_000).Draw(t, "when")
		s, err := rulesql.Parse(fmt.Sprintf("SELECT VALUE time_to_epoch(parse_time(\"%s\", w, '%s'), \"%s\") FROM 't'", pattern, zone, pattern), second)
		if err != nil {
			t.Fatal(err)
		}
		payload := fmt.Sprintf(`{"w":%d}`, when)
		result, err := rulesql.NewEvaluation(s, message(payload), &rulesql.Outside{Location: time.LoadLocation}).Select(context.Background())
		if err != nil || string(result.Payload) != fmt.Sprint(when) {
			t.Fatalf("%d in %s as %s comes back as %s, %v", when, zone, pattern, result.Payload, err)
		}
	})
}
