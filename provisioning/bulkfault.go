package provisioning

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
)

const lineForm = `Write one object a line: {"SerialNumber":"1","CSR":"-----BEGIN..."}`

// lineFault says what keeps a line from being an object of texts, with the column, and
// never a value: that may be a secret.
func lineFault(text []byte) error {
	fail := func(offset int, hint, format string, args ...any) error {
		column := utf8.RuneCount(text[:min(max(offset, 0), len(text))]) + 1
		return imprint.Errorf(imprint.CodeInvalidRequest, "the line isn't a JSON object whose values are texts: column %d: %s", column, fmt.Sprintf(format, args...)).
			WithHint("%s", hint)
	}
	if len(text) > 0 && text[0] == '[' {
		return fail(0, "The file is no JSON array: without [ and ], and no comma behind a line. "+lineForm, "a list begins")
	}
	var anything any
	err := json.Unmarshal(text, &anything)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		if text[len(text)-1] == ',' && int(syntax.Offset) == len(text) && json.Valid(text[:len(text)-1]) {
			return fail(len(text)-1, "Lines have no comma behind them. "+lineForm, "a comma follows the object")
		}
		what := syntax.Error()
		if what == "unexpected end of JSON input" {
			what = "the line ends within the object: an object is on one line alone"
		}
		return fail(int(syntax.Offset)-1, lineForm, "%s", what)
	}
	if _, object := anything.(map[string]any); !object {
		return fail(0, lineForm, "%s stands there instead of an object", kindOf(anything))
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	_, _ = decoder.Token() // {
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			break
		}
		offset := int(decoder.InputOffset())
		offset += len(text[offset:]) - len(bytes.TrimLeft(text[offset:], " \t:"))
		var value any
		err = decoder.Decode(&value)
		if err != nil {
			break
		}
		if _, isText := value.(string); !isText {
			return fail(offset, "Put it into quotes, or leave the parameter out. "+lineForm, "the value of %q is %s", imprint.Excerpt(fmt.Sprint(name)), kindOf(value))
		}
	}
	return imprint.Errorf(imprint.CodeInvalidRequest, "the line isn't a JSON object whose values are texts").WithHint(lineForm)
}

// kindOf names the kind of a JSON value.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case float64:
		return "a number"
	case string:
		return "a text"
	case []any:
		return "a list"
	}
	return "an object"
}

// inOtherCase gives a name that differs from a parameter's by case alone; empty: none.
func inOtherCase(parameters map[string]string, name string) string {
	for given := range parameters {
		if strings.EqualFold(given, name) {
			return given
		}
	}
	return ""
}
