package rulesql_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/imprint-iot/imprint/rulesql"
)

// What is JSON, and what isn't, is what encoding/json says.
func TestPayloadsAreJSONAsEncodingJSONSays(t *testing.T) {
	t.Parallel()
	values := []string{
		`1`, `01`, `-`, `-1`, `1.`, `1.5`, `.5`, `1e5`, `1e`, `1e+`, `1E-5`, `+1`, `1x`, `"a`, `"a\`, `"\x"`, `"\u12"`, `"\u12G4"`, `"\u00e9"`, "\"\t\"",
		`"\ud83d\u0041"`, `tru`, `true`, `false`, `nul`, `null`, `[`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `[ ]`, `{`, `{}`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,}`,
		`{a:1}`, `{"a" : 1 , "b":[ {} ]}`, `{"a":1}}`, `{1:1}`, ` `, `NaN`, `'a'`, `{"\q":1}`, `{"a\u0062":1}`,
	}
	s := parse(t, "SELECT m AS m FROM 't'", second)
	star := parse(t, "SELECT *, 1 AS one FROM 't'", second)
	for _, v := range values {
		payload := `{"m":` + v + `}`
		ev := rulesql.NewEvaluation(s, message(payload), nil)
		_, err := ev.Select(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		_, problems := ev.Problems()
		if valid := json.Valid([]byte(payload)); valid != (problems == 0) {
			t.Errorf("%s is JSON: %v, want %v", payload, problems == 0, valid)
		}
		// As an array, it is read at once and not member by member.
		ev = rulesql.NewEvaluation(star, message(`[`+v+`]`), nil)
		_, err = ev.Select(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		_, problems = ev.Problems()
		if valid := json.Valid([]byte(`[` + v + `]`)); valid != (problems == 1) {
			t.Errorf("[%s]: %d problems, valid: %v", v, problems, valid)
		}
	}
}

// A payload that is nested too deep is taken for no JSON.
func TestDeepPayloadsAreNoJSON(t *testing.T) {
	t.Parallel()
	for depth, want := range map[int]int{rulesql.MaxPayloadDepth - 1: 0, rulesql.MaxPayloadDepth: 1, 100_000: 1} {
		payload := make([]byte, 0, 2*depth+10)
		payload = append(payload, `{"m":`...)
		for range depth {
			payload = append(payload, '[')
		}
		for range depth {
			payload = append(payload, ']')
		}
		payload = append(payload, '}')
		for _, sql := range []string{"SELECT *, 1 AS one FROM 't'", "SELECT m FROM 't'"} {
			ev := evaluation(t, sql, string(payload), second)
			_, err := ev.Select(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			// SELECT * says, too, that the payload goes on as it is.
			if problems, all := ev.Problems(); (all > 0) != (want > 0) {
				t.Errorf("%s of depth %d: problems %v", sql, depth, problems)
			}
		}
	}
}
