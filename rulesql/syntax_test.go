package rulesql_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/rulesql"
)

// A text that is no statement is refused where it goes wrong, with what to write instead.
func TestSyntaxErrorsTellWhereAndWhat(t *testing.T) {
	t.Parallel()
	tests := []struct {
		sql          string
		line, column int
		msg, hint    string // parts
	}{
		{"", 1, 1, "expected SELECT, not the end", "SELECT ... FROM"},
		{"SELEC a", 1, 1, "expected SELECT, not SELEC", ""},
		{"SELECT", 1, 7, "expected a value, not the end", ""},
		{"SELECT a FROM t/x", 1, 15, "must be in quotes, not t", "FROM 'sensors/+/state'"},
		{"SELECT a FROM 't/#/x'", 1, 15, "'t/#/x' is no topic filter", "+ stands for one level"},
		{"SELECT a FROM '$share/g/x'", 1, 15, "share a subscription", ""},
		{"SELECT a FROM '$aws/rules/x/#'", 1, 15, "Basic Ingest", "leave FROM out"},
		{"SELECT a\nFROM 't'\n  WHERE b ==", 3, 12, "expected a value, not =", ""},
		{"SELECT a FROM 't' WHERE", 1, 24, "expected a value, not the end", ""},
		{"SELECT 'größe' ? FROM 't'", 1, 16, "unexpected character '?'", ""},
		{"SELECT 'abc FROM t", 1, 8, "a text has no end", "quote"},
		{"SELECT lenght(a) FROM 't'", 1, 8, "there is no function lenght()", "did you mean length()?"},
		{"SELECT a.0.b FROM 't'", 1, 10, "expected a name behind the point, not 0", "get(object, 'key')"},
		{"SELECT 0abc FROM 't'", 1, 8, "0abc is neither a number nor a name", "get(object"},
		{"SELECT a[0] FROM 't'", 1, 9, "unexpected [", "get(array, 0)"},
		{"SELECT a b FROM 't'", 1, 10, "unexpected b", "AS"},
		{"SELECT a FROM 't' WHERE a LIKE 'x%'", 1, 27, "unexpected LIKE", "startswith"},
		{"SELECT a FROM 't' LIMIT 1", 1, 19, "unexpected LIMIT", "one message"},
		{"SELECT a FROM 't' -- why", 1, 19, "no comments", "leave it out"},
		{"SELECT a FROM 't';", 1, 18, "unexpected character ';'", "no semicolon"},
		{"SELECT `a b` FROM 't'", 1, 8, "unexpected character", "get(object, 'key')"},
		{"SELECT CASE WHEN a THEN b END FROM 't'", 1, 13, "CASE has no value", "CASE true WHEN"},
		{"SELECT CASE a THEN b END FROM 't'", 1, 15, "expected WHEN, not THEN", ""},
		{"SELECT CASE a WHEN 1 ELSE 2 END FROM 't'", 1, 22, "expected THEN, not ELSE", ""},
		{"SELECT CASE a WHEN 1 THEN 2 FROM 't'", 1, 29, "expected END, not FROM", ""},
		{"SELECT end FROM 't'", 1, 8, "expected a value, not END", "get(*, 'end')"},
		{"SELECT {a: 1} FROM 't'", 1, 9, "must be in quotes, not a", ""},
		{"SELECT [1, 2 FROM 't'", 1, 14, `expected "," or ], not FROM`, ""},
		{"SELECT (a FROM 't'", 1, 11, `expected ")" to close the parenthesis, not FROM`, ""},
		{"SELECT VALUE a, b FROM 't'", 1, 15, "SELECT VALUE has one item", "array literal"},
		{"SELECT VALUE a AS b FROM 't'", 1, 16, "has no name", ""},
		{"SELECT a AS 1 FROM 't'", 1, 13, "expected a name behind AS, not 1", ""},
		{"SELECT (SELECT a) FROM 't'", 1, 9, "the nested SELECT has no FROM", ""},
		{"SELECT (SELECT a b FROM c) FROM 't'", 1, 18, "unexpected b in the nested SELECT", ""},
		{"SELECT cast(a) FROM 't'", 1, 14, "expected AS, not )", "cast(value AS Int)"},
		{"SELECT cast(a AS Long) FROM 't'", 1, 18, "there is no type Long", "Decimal"},
		{"SELECT 1 + * FROM 't'", 1, 12, `"*" has no value`, "encode(*, 'base64')"},
		{"SELECT a = NOT b FROM 't'", 1, 12, "NOT can't stand here", "parentheses"},
		{"SELECT 1e5000 FROM 't'", 1, 8, "out of range", ""},
		{"SELECT @a FROM 't'", 1, 8, "the variable @a isn't set", "SET @a"},
		{"SET @a = 1, @a = 2 SELECT @a FROM 't'", 1, 13, "@a is set twice", ""},
		{"SET @a = @b, @b = 2 SELECT @a FROM 't'", 1, 10, "@b isn't set", ""},
		{"SET a = 1 SELECT a FROM 't'", 1, 5, "expected a variable, not a", ""},
		{"SET @ = 1 SELECT a FROM 't'", 1, 5, "no name behind it", ""},
		{"SELECT regexp_matches(a, '(?=x)') FROM 't'", 1, 8, "lookahead", "time proportional"},
		{"SELECT regexp_matches(a, 'a*+') FROM 't'", 1, 8, "possessive", ""},
		{`SELECT regexp_matches(a, '(x)\1') FROM 't'`, 1, 8, "back references", ""},
		{"SELECT regexp_matches(a, '[a&&b]') FROM 't'", 1, 8, "intersections", ""},
		{"SELECT regexp_matches(a, '[a[b]]') FROM 't'", 1, 8, "class inside another", ""},
		{"SELECT regexp_matches(a, '(') FROM 't'", 1, 8, "'(' is no regular expression: missing closing )", ""},
		{"SELECT regexp_matches(a, '(((a{100}){100}){100})') FROM 't'", 1, 8, "", ""},
		{"SELECT regexp_matches(a, '(abcdefgh){900}') FROM 't'", 1, 8, "too large", "smaller counts"},
		{"SELECT parse_time('jj', 0) FROM 't'", 1, 8, "the letter j", ""},
		{"SELECT time_to_epoch(a, \"yyyy'T\") FROM 't'", 1, 8, "a quote in the date pattern isn't closed", ""},
		{"SELECT '\xff' FROM 't'", 1, 1, "not valid UTF-8", ""},
		{"SELECT ${a} FROM 't'", 1, 8, "unexpected character '$'", "fields of actions"},
	}
	for _, test := range tests {
		_, err := rulesql.Parse(test.sql, second)
		var fault *rulesql.SyntaxError
		if !errors.As(err, &fault) {
			t.Errorf("Parse(%q) gives %v, want a SyntaxError", test.sql, err)
			continue
		}
		if fault.Line != test.line || fault.Column != test.column || !strings.Contains(fault.Msg, test.msg) || !strings.Contains(fault.Hint, test.hint) {
			t.Errorf("Parse(%q) gives %v, want line %d, column %d, %q, %q", test.sql, fault, test.line, test.column, test.msg, test.hint)
		}
	}
}

// The first version lacks what came with the second, and the error says so.
func TestTheFirstVersionLacksTheSecondsLanguage(t *testing.T) {
	t.Parallel()
	for _, expression := range []string{
		"{'a': 1}", "[1, 2]", "(SELECT a FROM b)", "encode(*, 'base64')", "decode(a, 'base64')", "length(a)", "isUndefined(a)",
		"parse_time('yyyy', 0)", "cast(a AS Boolean)", "cast(a AS Decimal)", "get_thing_shadow('a', 'b')", "transform('enrichArray', a, b)",
	} {
		sql := "SELECT " + expression + " AS x FROM 't'"
		_, err := rulesql.Parse(sql, first)
		var fault *rulesql.SyntaxError
		if !errors.As(err, &fault) || !strings.Contains(fault.Hint, "2016-03-23") {
			t.Errorf("Parse(%s) as 2015-10-08 gives %v", sql, err)
		}
		parse(t, sql, second)
		parse(t, sql, rulesql.VersionBeta)
	}
	_, err := rulesql.Parse("SET @a = 1 SELECT @a FROM 't'", first)
	if err == nil {
		t.Error("2015-10-08 takes SET")
	}
}

func TestVersionsAreKnown(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]rulesql.Version{"": first, "2015-10-08": first, "2016-03-23": second, "beta": rulesql.VersionBeta} {
		got, err := rulesql.ParseVersion(name)
		if err != nil || got != want {
			t.Errorf("ParseVersion(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
	_, err := rulesql.ParseVersion("2017")
	if err == nil {
		t.Error("ParseVersion takes 2017")
	}
	_, err = rulesql.Parse("SELECT * FROM 't'", "2017")
	if err == nil {
		t.Error("Parse takes version 2017")
	}
}

// A call with the wrong number of arguments is Undefined, as the developer guide says, and a warning.
func TestAWrongNumberOfArgumentsIsAWarning(t *testing.T) {
	t.Parallel()
	s := parse(t, "SELECT floor(1, 2) AS a, topic() AS t FROM 't' WHERE isUndefined(substring('a'))", second)
	warnings := s.Warnings()
	if len(warnings) != 2 || warnings[0].Column != 8 || !strings.Contains(warnings[0].Msg, "floor() with this number of arguments is always Undefined; it takes one") {
		t.Errorf("warnings are %+v", warnings)
	}
	if got, want := selected(t, s.Text(), `{}`, second), `{"t":"plant/7/state"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// External names what a statement may ask the outside for.
func TestExternalFunctionsAreNamed(t *testing.T) {
	t.Parallel()
	s := parse(t, "SELECT aws_lambda('f', *) AS a, aws_lambda('g', {'x': 1}) AS b FROM 't' WHERE get_thing_shadow('a', 'r').x = 1", second)
	if got, want := s.External(), []string{"aws_lambda", "get_thing_shadow"}; !slices.Equal(got, want) {
		t.Errorf("external functions are %v, want %v", got, want)
	}
	sub, err := s.ParseSubstitution("${get_secret('i', 'SecretString', 'r')}${topic()}")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := sub.External(), []string{"get_secret"}; !slices.Equal(got, want) {
		t.Errorf("external functions are %v, want %v", got, want)
	}
}

// What is too long, too deep or too much is refused before any work is done with it.
func TestStatementsAreBounded(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"length":        "SELECT '" + strings.Repeat("x", rulesql.MaxStatementBytes) + "' FROM 't'",
		"parentheses":   "SELECT " + strings.Repeat("(", 5000) + "a" + strings.Repeat(")", 5000) + " FROM 't'",
		"signs":         "SELECT " + strings.Repeat("- ", 5000) + "a FROM 't'",
		"negations":     "SELECT " + strings.Repeat("NOT ", 5000) + "a FROM 't'",
		"calls":         "SELECT " + strings.Repeat("abs(", 5000) + "a" + strings.Repeat(")", 5000) + " FROM 't'",
		"arrays":        "SELECT " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + " FROM 't'",
		"nested":        "SELECT " + strings.Repeat("(SELECT a FROM ", 5000) + "b" + strings.Repeat(")", 5000) + " FROM 't'",
		"nodes":         "SELECT a" + strings.Repeat("+a", rulesql.MaxNodes) + " FROM 't'",
		"path":          "SELECT a" + strings.Repeat(".a", rulesql.MaxNodes) + " FROM 't'",
		"alias":         "SELECT a AS " + strings.Repeat("a.", 500) + "b FROM 't'",
		"variables":     "SET @a = 1" + manyVariables(rulesql.MaxVariables) + " SELECT a FROM 't'",
		"variable name": "SET @" + strings.Repeat("a", rulesql.MaxVariableCharacters+1) + " = 1 SELECT a FROM 't'",
	} {
		_, err := rulesql.Parse(sql, second)
		var fault *rulesql.SyntaxError
		if !errors.As(err, &fault) {
			t.Errorf("%s: got %v, want a SyntaxError", name, err)
		}
	}
}

func manyVariables(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(", @v")
		b.WriteString(strings.Repeat("i", i))
		b.WriteString(" = 1")
	}
	return b.String()
}
