package policy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/policy"
)

func TestSyntaxErrors(t *testing.T) {
	t.Parallel()
	st := func(s string) string { return "{\"Version\":\"2012-10-17\",\n\"Statement\":[\n" + s + "]}" }
	const rest = `"Action":"iot:Connect","Resource":"*"`
	for _, tt := range []struct {
		name, doc    string
		line, column int
		member, part string // part must appear in the message or the hint
	}{
		{"empty", "", 1, 1, "", "end of the document"},
		{"not an object", "[]", 1, 1, "", "an array"},
		{"cut off", `{"Version"`, 1, 11, "", "expected ':'"},
		{"single quotes", `{'Version':1}`, 1, 2, "", "double quotes"},
		{"trailing comma", "{\"Version\":\"2012-10-17\",\n}", 2, 1, "", "trailing comma"},
		{"text after the end", `{} x`, 1, 4, "", "after the document"},
		{"no UTF-8", "{\"\xff\":1}", 1, 3, "", "UTF-8"},
		{"byte order mark", "\ufeff{}", 1, 1, "", "unexpected character"},
		{"control character", "{\"a\tb\":1}", 1, 4, "", "control character"},
		{"bad escape", `{"a\x":1}`, 1, 4, "", "unknown escape"},
		{"half surrogate", `{"\ud800":1}`, 1, 3, "", "surrogate"},
		{"leading zero", `{"a":01}`, 1, 6, "", "malformed number"},
		{"columns count characters", `{"éé":01}`, 1, 7, "", "malformed number"},
		{"too deep", strings.Repeat("[", 40), 1, 12, "", "nesting"},
		{"duplicate member", "{\"Version\":\"2012-10-17\",\n \"Version\":\"2012-10-17\"}", 2, 2, "", "twice"},
		{"unknown member", `{"version":"2012-10-17"}`, 1, 2, "version", `did you mean "Version"?`},
		{"unknown version", `{"Version":"2012-10-18"}`, 1, 12, "Version", "2012-10-17"},
		{"version is no string", `{"Version":2012}`, 1, 12, "Version", "a number"},
		{"no statement", `{"Version":"2012-10-17"}`, 1, 1, "", "Statement is missing"},
		{"empty statements", st(""), 2, 13, "Statement", "no statements"},
		{"statement is a string", `{"Statement":"x"}`, 1, 14, "Statement", "a string"},
		{"statement item is a string", st(`"x"`), 3, 1, "Statement[0]", "an object"},
		{"effect missing", st(`{` + rest + `}`), 3, 1, "Statement[0]", "Effect is missing"},
		{"effect in lower case", st(`{"Effect":"allow",` + rest + `}`), 3, 11, "Statement[0].Effect", `did you mean "Allow"?`},
		{"unknown statement member", st(`{"Effect":"Allow","Resources":"*"}`), 3, 19, "Statement[0].Resources", `did you mean "Resource"?`},
		{"single statement has no index", `{"Statement":{"Effect":"x"}}`, 1, 24, "Statement.Effect", "neither"},
		{"principal", st(`{"Effect":"Allow","Principal":"*",` + rest + `}`), 3, 19, "Statement[0].Principal", "not allowed"},
		{"action missing", st(`{"Effect":"Allow","Resource":"*"}`), 3, 1, "Statement[0]", "Action"},
		{"both actions", st(`{"Effect":"Allow","NotAction":"*",` + rest + `}`), 3, 35, "Statement[0].Action", "keep one"},
		{"both resources", st(`{"Effect":"Allow","NotResource":"*",` + rest + `}`), 3, 60, "Statement[0].Resource", "keep one"},
		{"resource missing", st(`{"Effect":"Allow","Action":"*"}`), 3, 1, "Statement[0]", "Resource"},
		{"action without service", st(`{"Effect":"Allow","Action":["iot:Connect","Publish"],"Resource":"*"}`), 3, 43, "Statement[0].Action[1]", "iot:Publish"},
		{"action with a space", st(`{"Effect":"Allow","Action":"iot:Con nect","Resource":"*"}`), 3, 28, "Statement[0].Action", "iot:Connect"},
		{"empty actions", st(`{"Effect":"Allow","Action":[],"Resource":"*"}`), 3, 28, "Statement[0].Action", "empty"},
		{"action is a number", st(`{"Effect":"Allow","Action":[1],"Resource":"*"}`), 3, 29, "Statement[0].Action[0]", "a number"},
		{"resource is no ARN", st(`{"Effect":"Allow","Action":"*","Resource":"topic/a"}`), 3, 43, "Statement[0].Resource", "arn:aws:iot"},
		{"ARN too short", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:iot:topic/a"}`), 3, 43, "Statement[0].Resource", "4 of 6"},
		{"ARN with an empty service", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws::::x"}`), 3, 43, "Statement[0].Resource", "part 3"},
		{"open variable", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:iot:r:a:topic/${x"}`), 3, 43, "Statement[0].Resource", "closing brace"},
		{"empty variable", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:iot:r:a:topic/${}"}`), 3, 43, "Statement[0].Resource", "without a name"},
		{"nested variable", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:iot:r:a:topic/${a${b}}"}`), 3, 43, "Statement[0].Resource", "inside"},
		{"unknown operator", st(`{"Effect":"Allow",` + rest + `,"Condition":{"StringEqual":{"a:b":"c"}}}`), 3, 70, "Statement[0].Condition.StringEqual", `"StringEquals"`},
		{"unknown prefix", st(`{"Effect":"Allow",` + rest + `,"Condition":{"ForAnyValues:StringEquals":{"a:b":"c"}}}`), 3, 70, "Statement[0].Condition.ForAnyValues:StringEquals", "ForAnyValue"},
		{"Null takes no suffix", st(`{"Effect":"Allow",` + rest + `,"Condition":{"NullIfExists":{"a:b":"true"}}}`), 3, 70, "Statement[0].Condition.NullIfExists", "no suffix"},
		{"condition is no object", st(`{"Effect":"Allow",` + rest + `,"Condition":[]}`), 3, 69, "Statement[0].Condition", "an array"},
		{"operator without keys", st(`{"Effect":"Allow",` + rest + `,"Condition":{"Bool":{}}}`), 3, 77, "Statement[0].Condition.Bool", "without condition keys"},
		{"key without prefix", st(`{"Effect":"Allow",` + rest + `,"Condition":{"Bool":{"x":"true"}}}`), 3, 78, "Statement[0].Condition.Bool.x", "condition key"},
		{"key twice in another case", st(`{"Effect":"Allow",` + rest + `,"Condition":{"Bool":{"a:b":"true","A:B":"true"}}}`), 3, 91, "Statement[0].Condition.Bool.A:B", "twice"},
		{"malformed bool", st(`{"Effect":"Allow",` + rest + `,"Condition":{"Bool":{"a:b":["true","yes"]}}}`), 3, 92, "Statement[0].Condition.Bool.a:b[1]", "true or false"},
		{"malformed number", st(`{"Effect":"Allow",` + rest + `,"Condition":{"NumericEquals":{"a:b":"1.x"}}}`), 3, 93, "Statement[0].Condition.NumericEquals.a:b", "digits"},
		{"malformed date", st(`{"Effect":"Allow",` + rest + `,"Condition":{"DateEquals":{"a:b":"1.5.2026"}}}`), 3, 90, "Statement[0].Condition.DateEquals.a:b", "1970"},
		{"malformed range", st(`{"Effect":"Allow",` + rest + `,"Condition":{"IpAddress":{"a:b":"1.2.3/8"}}}`), 3, 89, "Statement[0].Condition.IpAddress.a:b", "192.0.2.0/24"},
		{"malformed base64", st(`{"Effect":"Allow",` + rest + `,"Condition":{"BinaryEquals":{"a:b":"!"}}}`), 3, 92, "Statement[0].Condition.BinaryEquals.a:b", "base64"},
		{"malformed ARN value", st(`{"Effect":"Allow",` + rest + `,"Condition":{"ArnLike":{"a:b":"x"}}}`), 3, 87, "Statement[0].Condition.ArnLike.a:b", "arn:aws:iot"},
		{"value is null", st(`{"Effect":"Allow",` + rest + `,"Condition":{"Bool":{"a:b":null}}}`), 3, 84, "Statement[0].Condition.Bool.a:b", "null"},
		{"too long", doc(allow("iot:Publish", arn+"topic/"+strings.Repeat("x", 2048))), 1, 1, "", "at most 2048"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := policy.Parse([]byte(tt.doc))
			var syntax *policy.SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("Parse error = %v, want a *SyntaxError", err)
			}
			if syntax.Line != tt.line || syntax.Column != tt.column || syntax.Member != tt.member {
				t.Errorf("at %d:%d %q, want %d:%d %q (%v)", syntax.Line, syntax.Column, syntax.Member, tt.line, tt.column, tt.member, err)
			}
			if !strings.Contains(syntax.Msg+" "+syntax.Hint, tt.part) {
				t.Errorf("error %q does not say %q", err, tt.part)
			}
		})
	}
}

func TestSizeDoesNotCountWhitespace(t *testing.T) {
	t.Parallel()
	base := doc(allow("iot:Publish", arn+"topic/"))
	exact := doc(allow("iot:Publish", arn+"topic/"+strings.Repeat("é", 2048-len([]rune(base)))))
	mustParse(t, exact+strings.Repeat(" \n\t\r", 1000))
	over := strings.Replace(exact, "é", "éx", 1)
	_, err := policy.Parse([]byte(over))
	if err == nil {
		t.Error("2049 characters are accepted, want an error")
	}
	_, err = policy.ParseWith([]byte(over), policy.ParseOptions{MaxCharacters: 2049})
	if err != nil {
		t.Errorf("with a limit of 2049: %v", err)
	}
	_, err = policy.ParseWith([]byte(over), policy.ParseOptions{MaxCharacters: -1})
	if err != nil {
		t.Errorf("without a limit: %v", err)
	}
	_, err = policy.ParseWith([]byte(exact+strings.Repeat(" ", policy.MaxBytes)), policy.ParseOptions{MaxCharacters: -1})
	if err == nil {
		t.Error("more than MaxBytes are accepted, want an error")
	}
}
