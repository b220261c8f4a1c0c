package rulesql_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/rulesql"
)

// Substitutions see the original payload, functions, operators and variables, and no alias.
func TestSubstitutions(t *testing.T) {
	t.Parallel()
	s := parse(t, "SET @line = concat('L', zone) SELECT zone AS area FROM 't'", second)
	ev := rulesql.NewEvaluation(s, message(`{"zone":7,"o":{"k":"v"},"d":2.50,"nil":null}`), nil)
	tests := []struct{ text, want string }{
		{"plain", "plain"},
		{"", ""},
		{"${topic()}/again", "plant/7/state/again"},
		{"a/${zone + 1}/${o.k}", "a/8/v"},
		{"${@line}", "L7"},
		{"${o}${d}", `{"k":"v"}2.50`},
		{"${area}|${nil}|${missing}", "||"},
		{"${get({'a}': '}'}, 'a}')}", "}"},
		{"${ topic(2) }", "7"},
		{"$ {x} $$ $", "$ {x} $$ $"},
		{"cost $5", "cost $5"},
	}
	for _, test := range tests {
		sub, err := s.ParseSubstitution(test.text)
		if err != nil {
			t.Errorf("ParseSubstitution(%s): %v", test.text, err)
			continue
		}
		got, err := ev.Expand(context.Background(), sub)
		if err != nil || got != test.want {
			t.Errorf("%s gives %q, %v, want %q", test.text, got, err, test.want)
		}
		if _, constant := sub.Constant(); constant == strings.Contains(test.text, "${") {
			t.Errorf("%s is constant: %v", test.text, constant)
		}
	}
	if problems, all := ev.Problems(); all != 3 || !strings.Contains(problems[0].String(), "${area}: there is no value to substitute") {
		t.Errorf("problems are %v", problems)
	}
}

// In topics of republish actions, "$$" is "$".
func TestTopicsOfRepublishActions(t *testing.T) {
	t.Parallel()
	s := parse(t, "SELECT * FROM 't'", second)
	ev := rulesql.NewEvaluation(s, message(`{"a":1}`), nil)
	for text, want := range map[string]string{
		"$$aws/things/${topic(2)}/shadow/update": "$aws/things/7/shadow/update",
		"a/$${topic()}":                          "a/${topic()}",
		"a/b":                                    "a/b",
	} {
		sub, err := s.ParseTopic(text)
		if err != nil {
			t.Errorf("ParseTopic(%s): %v", text, err)
			continue
		}
		got, err := ev.Expand(context.Background(), sub)
		if err != nil || got != want {
			t.Errorf("%s gives %q, %v, want %q", text, got, err, want)
		}
	}
	_, err := s.ParseTopic("a/$aws")
	var fault *rulesql.SyntaxError
	if !errors.As(err, &fault) || fault.Column != 3 || !strings.Contains(fault.Hint, "$$") {
		t.Errorf(`ParseTopic("a/$aws") gives %v`, err)
	}
}

func TestSubstitutionErrorsTellWhere(t *testing.T) {
	t.Parallel()
	s := parse(t, "SELECT * FROM 't'", second)
	for text, want := range map[string]string{
		"ab${":                       `line 1, column 3: "${" has no end`,
		"ab${topic(}":                "line 1, column 11: expected a value, not the end",
		"ab\n${a b}":                 "line 2, column 5: unexpected b",
		"${}":                        "line 1, column 3: expected a value, not the end",
		"${@x}":                      "line 1, column 3: the variable @x isn't set",
		strings.Repeat("${a}", 65):   "more than 64 substitutions",
		strings.Repeat("x", 300<<10): "longer than 256 KiB",
	} {
		_, err := s.ParseSubstitution(text)
		var fault *rulesql.SyntaxError
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSubstitution(%.40q) gives %v, want %s", text, err, want)
		}
	}
}

// A substitution's variables are its statement's, so that it works with no other one.
func TestSubstitutionsStayWithTheirStatement(t *testing.T) {
	t.Parallel()
	one, other := parse(t, "SELECT * FROM 't'", second), parse(t, "SELECT * FROM 't'", second)
	sub, err := one.ParseSubstitution("${a}")
	if err != nil {
		t.Fatal(err)
	}
	_, err = rulesql.NewEvaluation(other, message(`{}`), nil).Expand(context.Background(), sub)
	if err == nil {
		t.Error("a substitution of another statement expands")
	}
}
