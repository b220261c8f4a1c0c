package rulesql_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/imprint-iot/imprint/rulesql"
)

// corpus is statements of every construct.
var corpus = []string{
	"SELECT * FROM 't'", "SELECT *, topic(2) AS id FROM 'a/+/#' WHERE heat > 50 AND NOT kind IN ('a', 'b')",
	"SELECT VALUE transform('enrichArray', (SELECT a, b FROM o), (SELECT VALUE c FROM o)) FROM 't'",
	"SET @a = (heat - 32) * 5 / 9, @b = {'x': [@a, nil]} SELECT @a, @b.x AS p.q, o.* FROM 't' WHERE @a < 1e30",
	"SELECT CASE kind WHEN 'oven' THEN -heat ELSE cast(heat AS String) || 'x' END AS c FROM 't'",
	"SELECT regexp_replace(kind, '(o)(v+)', '$2$1') AS r, regexp_substr(kind, kind) AS s FROM 't'",
	"SELECT parse_time('yyyy-MM-dd HH:mm:ss.SSS z', heat, '+01:00') AS p, time_to_epoch(kind, 'yyyy MMM d') AS e FROM 't'",
	"SELECT decode(encode(*, 'base64'), 'base64') AS d, md2(kind) AS m, power(heat, heat) AS w, trunc(heat, 3) AS u FROM 't'",
	"SELECT (SELECT VALUE x.n + 1 FROM list AS x WHERE EXISTS(SELECT * FROM list)) AS n, get(list, 0).n AS g FROM 't'",
	"SELECT concat(list, kind), substring(kind, 1, heat), lpad(kind, heat), replace(kind, 'o', kind), bitnot(heat), round(heat / 3.5) FROM 't'",
}

const fuzzPayload = `{"kind":"oven","heat":180.5,"o":{"a":1,"b":null,"c":[{"x":1},{"y":[2]}]},"list":[{"n":1},{"n":"2"},{}],"nil":null}`

// check evaluates and looks at what every result must be.
func check(t *testing.T, s *rulesql.Statement, payload string) {
	t.Helper()
	ev := rulesql.NewEvaluation(s, message(payload), &rulesql.Outside{Random: bytes.NewReader(make([]byte, 1<<16))})
	result, err := ev.Select(context.Background())
	if err != nil {
		var limit *rulesql.LimitError
		if !errors.As(err, &limit) {
			t.Fatalf("%s of %q gives the error %v", s.Text(), payload, err)
		}
		return
	}
	if !result.Matched {
		return
	}
	if len(result.Payload) > rulesql.MaxResultBytes && !result.Unchanged {
		t.Fatalf("%s of %q gives %d bytes", s.Text(), payload, len(result.Payload))
	}
	if !result.Unchanged && len(result.Payload) > 0 && !json.Valid(result.Payload) {
		t.Fatalf("%s of %q gives %q, which is no JSON", s.Text(), payload, result.Payload)
	}
	again, err := rulesql.NewEvaluation(s, message(payload), &rulesql.Outside{Random: bytes.NewReader(make([]byte, 1<<16))}).Select(context.Background())
	if err != nil || !bytes.Equal(again.Payload, result.Payload) {
		t.Fatalf("%s of %q gives %q, then %q, %v", s.Text(), payload, result.Payload, again.Payload, err)
	}
}

// Parse takes or refuses any text, and what it takes can be evaluated.
func FuzzParse(f *testing.F) {
	for _, sql := range corpus {
		f.Add(sql, false)
		f.Add(sql, true)
	}
	f.Fuzz(func(t *testing.T, sql string, old bool) {
		v := second
		if old {
			v = first
		}
		s, err := rulesql.Parse(sql, v)
		if err != nil {
			var fault *rulesql.SyntaxError
			if !errors.As(err, &fault) || fault.Line < 1 || fault.Column < 1 || fault.Msg == "" {
				t.Fatalf("Parse(%q) gives the error %#v", sql, err)
			}
			return
		}
		check(t, s, fuzzPayload)
		check(t, s, "\xff")
	})
}

// Any payload goes through every construct.
func FuzzEvaluate(f *testing.F) {
	for _, payload := range []string{fuzzPayload, "", "80", "[1]", `{"kind":"\ud83d\ude00","heat":1e999,"list":[1,2]}`, `{"a":{"a":1,"a":2}}`, "\xff"} {
		f.Add([]byte(payload))
	}
	var statements []*rulesql.Statement
	for _, sql := range corpus {
		statements = append(statements, parse(f, sql, second))
		s, err := rulesql.Parse(sql, first)
		if err == nil {
			statements = append(statements, s)
		}
	}
	star := parse(f, "SELECT *, 1 AS one FROM 't'", second)
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, s := range statements {
			check(t, s, string(payload))
		}
		// A payload is an object for SELECT exactly if it is one for encoding/json, which takes text
		// that isn't UTF-8, too.
		result, err := rulesql.NewEvaluation(star, message(string(payload)), nil).Select(context.Background())
		if err != nil {
			return
		}
		if len(payload) == 0 || !utf8.Valid(payload) || bytes.Count(payload, []byte("["))+bytes.Count(payload, []byte("{")) >= rulesql.MaxPayloadDepth {
			return
		}
		var object map[string]json.RawMessage
		isObject := json.Unmarshal(payload, &object) == nil && object != nil
		if isObject == result.Unchanged {
			t.Fatalf("%q: unchanged %v", payload, result.Unchanged)
		}
	})
}

// Any text of an action's field is taken or refused, and expands.
func FuzzSubstitution(f *testing.F) {
	for _, text := range []string{"a/${topic(2)}", "$$aws/${kind}", "${get({'a': '}'}, 'a')}", "${", "$$${o}"} {
		f.Add(text, true)
		f.Add(text, false)
	}
	s := parse(f, corpus[0], second)
	f.Fuzz(func(t *testing.T, text string, topic bool) {
		read := s.ParseSubstitution
		if topic {
			read = s.ParseTopic
		}
		sub, err := read(text)
		if err != nil {
			var fault *rulesql.SyntaxError
			if !errors.As(err, &fault) || fault.Line < 1 || fault.Column < 1 {
				t.Fatalf("%q gives the error %#v", text, err)
			}
			return
		}
		got, err := rulesql.NewEvaluation(s, message(fuzzPayload), nil).Expand(context.Background(), sub)
		if err == nil && !strings.Contains(text, "$") && got != text {
			t.Fatalf("%q expands to %q", text, got)
		}
	})
}

// A pattern that is the same in Java and in Go matches as Go's does; any other doesn't panic.
func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{{"a+b*", "aab"}, {`(?<x>\d+)[a-f\s]`, "12 f"}, {`\Qa.b\E`, "a.b"}, {`[\p{Alpha}\h]`, "x"}, {`a|(b{2,3}?)`, "bbb"}} {
		f.Add(seed[0], seed[1])
	}
	s := parse(f, "SELECT VALUE regexp_matches(t, p) FROM 't'", second)
	simple := regexp.MustCompile(`^[a-z0-9|()*?{},. -]*$`)
	f.Fuzz(func(t *testing.T, pattern, text string) {
		payload, err := json.Marshal(map[string]string{"p": pattern, "t": text})
		if err != nil {
			t.Fatal(err)
		}
		result, err := rulesql.NewEvaluation(s, message(string(payload)), nil).Select(context.Background())
		if err != nil || len(result.Payload) == 0 || !simple.MatchString(pattern) || strings.Contains(pattern, "(?") {
			return
		}
		var decoded map[string]string
		err = json.Unmarshal(payload, &decoded)
		if err != nil {
			t.Fatal(err)
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			t.Fatalf("%q is taken, but Go says %v", pattern, err)
		}
		if got, want := string(result.Payload) == "true", re.MatchString(decoded["t"]); got != want {
			t.Fatalf("%q in %q: %v, want %v", pattern, decoded["t"], got, want)
		}
	})
}
