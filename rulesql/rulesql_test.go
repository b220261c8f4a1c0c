package rulesql_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/rulesql"
)

const second, first = rulesql.Version20160323, rulesql.Version20151008

var noon = time.Date(2026, 3, 14, 12, 0, 0, 250e6, time.UTC)

// message is what the tests evaluate against, with another payload.
func message(payload string) *rulesql.Message {
	return &rulesql.Message{
		Topic:     "plant/7/state",
		Payload:   []byte(payload),
		ClientID:  "press-7",
		Principal: "4f1d",
		SourceIP:  "192.0.2.7",
		TraceID:   "0b0e7f2e-3f5e-4c2a-9a64-0d6c9f1f5b11",
		AccountID: "000000000000",
		Time:      noon,
		Properties: rulesql.Properties{
			HasFormat: true, UTF8: true, ContentType: "application/json", ResponseTopic: "answers/7", Correlation: []byte{0, 255},
			User: []rulesql.UserProperty{{Name: "line", Value: "A"}, {Name: "shift", Value: "1"}, {Name: "line", Value: "B"}},
		},
	}
}

func parse(t testing.TB, sql string, v rulesql.Version) *rulesql.Statement {
	t.Helper()
	s, err := rulesql.Parse(sql, v)
	if err != nil {
		t.Fatalf("Parse(%s): %v", sql, err)
	}
	return s
}

func evaluation(t testing.TB, sql, payload string, v rulesql.Version) *rulesql.Evaluation {
	t.Helper()
	return rulesql.NewEvaluation(parse(t, sql, v), message(payload), &rulesql.Outside{
		Random:   bytes.NewReader(bytes.Repeat([]byte{0x80}, 1024)),
		Location: time.LoadLocation,
	})
}

// selected evaluates a statement that must match.
func selected(t testing.TB, sql, payload string, v rulesql.Version) string {
	t.Helper()
	result, err := evaluation(t, sql, payload, v).Select(context.Background())
	if err != nil {
		t.Fatalf("Select of %s: %v", sql, err)
	}
	if !result.Matched {
		t.Fatalf("%s doesn't match %s", sql, payload)
	}
	return string(result.Payload)
}

// undefined is what a value that is Undefined gives.
const undefined = ""

type expressionTest struct {
	expression string
	want       string // JSON; undefined
}

// checkExpressions evaluates expressions against a payload with members of all types.
func checkExpressions(t *testing.T, v rulesql.Version, tests []expressionTest) {
	t.Helper()
	const payload = `{"i":7,"d":2.5,"s":"press","n":"12.50","yes":true,"no":false,"nil":null,"a":[1,"two",3.5],` +
		`"o":{"k":"v","deep":{"er":[10,20]}},"text":"TRUE","odd-key":1,"t":"  x\t"}`
	for _, test := range tests {
		got := selected(t, "SELECT VALUE ("+test.expression+") FROM 't'", payload, v)
		if got != test.want {
			t.Errorf("version %s: %s = %s, want %s", v, test.expression, got, test.want)
		}
	}
}
