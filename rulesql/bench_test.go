package rulesql_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/imprint-iot/imprint/rulesql"
)

// reading is a message as devices send them, 263 bytes.
const reading = `{"device":"press-0017","seq":482910,"heat":71.25,"pressure":1013.4,"status":"running","coords":{"lat":47.615694,"lon":-122.3359976},` +
	`"axes":[{"n":"x","v":0.12},{"n":"y","v":-0.5},{"n":"z","v":9.81}],"firmware":"4.2.1","uptime":918273,"alarms":[],"tags":["line-a","north"]}`

func benchmark(b *testing.B, sql, payload string) {
	s := parse(b, sql, second)
	m := message(payload)
	outside := &rulesql.Outside{}
	ctx := context.Background()
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		_, err := rulesql.NewEvaluation(s, m, outside).Select(ctx)
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSelectStar(b *testing.B) { benchmark(b, "SELECT * FROM 't'", reading) }

func BenchmarkSelectStarWhereTopic(b *testing.B) {
	benchmark(b, "SELECT * FROM 't' WHERE topic(2) = '7'", reading)
}

func BenchmarkSelectStarWherePath(b *testing.B) {
	benchmark(b, "SELECT * FROM 't' WHERE heat > 70", reading)
}

func BenchmarkWhereRefuses(b *testing.B) {
	benchmark(b, "SELECT * FROM 't' WHERE heat > 100 AND status = 'running'", reading)
}

func BenchmarkSelectStarAndMore(b *testing.B) {
	benchmark(b, "SELECT *, topic(2) AS id, timestamp() AS ts FROM 't'", reading)
}

func BenchmarkSelectPaths(b *testing.B) {
	benchmark(b, "SELECT device, heat * 1.8 + 32 AS f, coords.lat FROM 't'", reading)
}

func BenchmarkNestedSelect(b *testing.B) {
	benchmark(b, "SELECT (SELECT VALUE v FROM axes WHERE n <> 'z') AS v FROM 't'", reading)
}

func BenchmarkEncodeBinary(b *testing.B) {
	benchmark(b, "SELECT encode(*, 'base64') AS data FROM 't'", "\xff"+reading)
}

func BenchmarkRegularExpression(b *testing.B) {
	benchmark(b, "SELECT regexp_substr(device, '[0-9]+') AS n FROM 't'", reading)
}

// BenchmarkUnmarshal is what decoding alone costs with encoding/json, to compare with.
func BenchmarkUnmarshal(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(reading)))
	for b.Loop() {
		var v map[string]any
		err := json.Unmarshal([]byte(reading), &v)
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	const sql = "SELECT device, heat * 1.8 + 32 AS f, coords.lat FROM 'plant/+/state' WHERE heat > 70 AND regexp_matches(device, '^press-')"
	b.ReportAllocs()
	for b.Loop() {
		_, err := rulesql.Parse(sql, second)
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSubstitution(b *testing.B) {
	s := parse(b, "SELECT * FROM 't'", second)
	sub, err := s.ParseTopic("out/${topic(2)}/${status}")
	if err != nil {
		b.Fatal(err)
	}
	m := message(reading)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		_, err := rulesql.NewEvaluation(s, m, nil).Expand(ctx, sub)
		if err != nil {
			b.Fatal(err)
		}
	}
}
