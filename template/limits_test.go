package template_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/template"
)

func TestTemplateLengthIsCountedInCharacters(t *testing.T) {
	t.Parallel()
	frame := configured(`"%s"`)
	room := template.MaxTemplateCharacters - len(frame) + len("%s")
	fits := fmt.Sprintf(frame, strings.Repeat("€", room))
	mustParse(t, fits, template.Fleet)
	for name, body := range map[string]string{
		"one character more": fits + " ",
		"a giant input":      strings.Repeat("[", 8<<20),
	} {
		_, err := template.Parse([]byte(body), template.Fleet)
		if err == nil {
			t.Fatalf("%s: got no error, want one", name)
		}
		e := asError(t, err)
		if e.Code != template.CodeLimit || e.Msg != "the template has more than 10240 characters" || e.Line != 0 {
			t.Errorf("%s: got %s: %v, want the length limit without a place", name, e.Code, e)
		}
	}
}

func TestNestingIsLimited(t *testing.T) {
	t.Parallel()
	nested := func(depth int) string {
		return `{"Resources":{"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"a":` +
			strings.Repeat("[", depth) + strings.Repeat("]", depth) + `}}}}}`
	}
	// The list stands in five objects.
	const room = template.MaxDepth - 5
	mustParse(t, nested(room), template.Fleet)
	body := nested(room + 1)
	_, err := template.Parse([]byte(body), template.Fleet)
	if err == nil {
		t.Fatal("got no error, want the depth limit")
	}
	e := asError(t, err)
	line, column := place(body, strings.Repeat("[", room+1))
	if e.Code != template.CodeLimit || e.Line != line || e.Column != column+room {
		t.Errorf("got %s at line %d, column %d, want limit at %d, %d", e.Code, e.Line, e.Column, line, column+room)
	}
	if !strings.HasPrefix(e.Member, "Resources.p.Properties.PolicyDocument.a[0][0]") {
		t.Errorf("got member %s, want the path into the document", e.Member)
	}
}

func TestDepthBombsAreRefused(t *testing.T) {
	t.Parallel()
	for name, unit := range map[string][2]string{
		"lists":   {"[", "]"},
		"objects": {`{"a":`, "1}"},
		"joins":   {`{"Fn::Join":["",[`, `"x"]]}`},
		"cut off": {"[", ""},
	} {
		n := 10000 / (len(unit[0]) + len(unit[1]))
		body := strings.Repeat(unit[0], n) + strings.Repeat(unit[1], n)
		_, err := template.Parse([]byte(body), template.Fleet)
		if err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}

// bomb doubles, and more than doubles, a value with each level of nesting.
func bomb(levels, width int, function func(inner string, width int) string) string {
	value := `{"Ref":"A"}`
	for range levels {
		value = function(value, width)
	}
	return value
}

func TestAmplificationIsRefused(t *testing.T) {
	t.Parallel()
	subs := func(inner string, width int) string {
		return `{"Fn::Sub":["` + strings.Repeat("${x}", width) + `",{"x":` + inner + `}]}`
	}
	joins := func(inner string, width int) string {
		return `{"Fn::Join":[` + inner + `,["` + strings.Repeat(`","`, width) + `"]]}`
	}
	manyRefs := strings.TrimSuffix(strings.Repeat(`{"Ref":"A"},`, 100), ",")
	var members []string
	for i := range 100 {
		members = append(members, fmt.Sprintf(`"v%d":{"Ref":"A"}`, i))
	}
	const aValue, whole = "the evaluated value has more than 65536 bytes", "evaluating the template produces more than 1048576 bytes"
	for name, row := range map[string]struct{ body, a, msg string }{
		"nested Sub":    {configured(bomb(8, 10, subs)), "0123456789", aValue},
		"nested Join":   {configured(bomb(8, 10, joins)), "0123456789", aValue},
		"wide Join":     {configured(`{"Fn::Join":["",[` + manyRefs + `]]}`), strings.Repeat("x", 1000), aValue},
		"empty results": {configured(bomb(15, 50, subs)), "", ""},
		"many values":   {strings.Replace(configured(`""`), `"v":""`, strings.Join(members, ","), 1), strings.Repeat("x", 60000), whole},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := mustParse(t, row.body, template.Fleet).Plan(map[string]string{"A": row.a})
			if row.msg == "" {
				if err != nil {
					t.Fatalf("got %v, want no error", err)
				}
				return
			}
			if err == nil {
				t.Fatal("got no error, want a limit")
			}
			if e := asError(t, err); e.Code != template.CodeLimit || e.Msg != row.msg {
				t.Errorf("got %s: %s, want limit: %s", e.Code, e.Msg, row.msg)
			}
		})
	}
}

func TestAValueOfTheGreatestLengthIsAllowed(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("x", template.MaxValueBytes)
	plan, err := parseAndPlan(configured(`{"Fn::Sub":"${A}"}`), template.Fleet, map[string]string{"A": value})
	if err != nil {
		t.Fatal(err)
	}
	if plan.DeviceConfiguration["v"] != value {
		t.Error("the value came back changed")
	}
}

func TestSplitIsLimited(t *testing.T) {
	t.Parallel()
	body := configured(`{"Fn::Join":["",{"Fn::Split":[",",{"Ref":"A"}]}]}`)
	parsed := mustParse(t, body, template.Fleet)
	_, err := parsed.Plan(map[string]string{"A": strings.Repeat(",", template.MaxListItems-1)})
	if err != nil {
		t.Fatalf("the greatest list: %v", err)
	}
	_, err = parsed.Plan(map[string]string{"A": strings.Repeat(",", template.MaxListItems)})
	if err == nil {
		t.Fatal("got no error, want a limit")
	}
	e := asError(t, err)
	line, column := place(body, `{"Fn::Split"`)
	if e.Code != template.CodeLimit || e.Line != line || e.Column != column {
		t.Errorf("got %s at line %d, column %d, want limit at %d, %d", e.Code, e.Line, e.Column, line, column)
	}
}

func TestLongMemberNamesAreShortenedInErrors(t *testing.T) {
	t.Parallel()
	body := `{"Resources":{"` + strings.Repeat("é", 5000) + `":{"Type":"x","Properties":{}}}}`
	_, err := template.Parse([]byte(body), template.Fleet)
	want := "Resources." + strings.Repeat("é", 128) + "....Type"
	if got := asError(t, err).Member; got != want {
		t.Errorf("got member %q, want %q", got, want)
	}
}
