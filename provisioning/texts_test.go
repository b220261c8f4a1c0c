package provisioning_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// TestALinesNullIsNoText ensures that devices whose serial number is missing don't
// become one thing.
func TestALinesNullIsNoText(t *testing.T) {
	lines := 0
	err := provisioning.ReadBulkLines(strings.NewReader(`{"SerialNumber":null}`), func(_ int64, p map[string]string, err error) error {
		lines++
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("the line was read as %q, %v; want a refusal", p, err)
		}
		return nil
	})
	if err != nil || lines != 1 {
		t.Fatalf("%d lines were read, %v; want one", lines, err)
	}
}

// TestALinesFaultHasItsPlace ensures that of a line that can't be used is said what is
// wrong with it and where, and how to write it; and that no value is told, as it may be a
// secret.
func TestALinesFaultHasItsPlace(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ line, want, hint string }{
		{`nonsense`, "column 2: invalid character 'o' in literal null", "Write one object a line"},
		{`[`, "column 1: a list begins", "no JSON array"},
		{`[{"Name":"a"}]`, "column 1: a list begins", "no JSON array"},
		{`{"Name":"a"},`, "column 13: a comma follows the object", "no comma behind"},
		{`{"Name":"a"} {"Name":"b"}`, "column 14: invalid character '{' after top-level value", "Write one object"},
		{`{"Name":"secret",`, "the line ends within the object", "Write one object"},
		{`Name,Id`, "column 1: invalid character 'N'", "Write one object"},
		{`null`, "column 1: null stands there instead of an object", "Write one object"},
		{`"secret"`, "column 1: a text stands there", "Write one object"},
		{`{"Name":"a","Id": 4711}`, `column 19: the value of "Id" is a number`, "into quotes"},
		{`{"Ü":"ü","Id":null}`, `column 15: the value of "Id" is null`, "leave the parameter out"},
		{`{"On":true}`, `column 7: the value of "On" is true or false`, "into quotes"},
		{`{"Name":"secret","More":{"a":"secret"}}`, `column 25: the value of "More" is an object`, "into quotes"},
		{`{"List":["secret"]}`, `column 9: the value of "List" is a list`, "into quotes"},
	} {
		lines := 0
		err := provisioning.ReadBulkLines(strings.NewReader(row.line), func(_ int64, _ map[string]string, err error) error {
			lines++
			if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), row.want) || !strings.Contains(imprint.HintOf(err), row.hint) {
				t.Errorf("%s: got %v, hint %q; want %q and %q", row.line, err, imprint.HintOf(err), row.want, row.hint)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "4711") {
				t.Errorf("%s: the value is told: %v", row.line, err)
			}
			return nil
		})
		if err != nil || lines != 1 {
			t.Fatalf("%s: %d lines were read, %v; want one", row.line, lines, err)
		}
	}
}
