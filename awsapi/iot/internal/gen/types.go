package main

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// goName gives the exported Go name of a member or shape.
func goName(name string) string {
	return strings.ToUpper(name[:1]) + name[1:]
}

// locations gives the words of the tags for those of the model.
var locations = map[string]string{
	"uri": "path", "querystring": "query", "header": "header", "body": "body", "payload": "payload", "": "body",
}

// goType gives the Go type of a shape where a value is always there.
func (m *model) goType(name string) (string, error) {
	s, err := m.shape(name)
	if err != nil {
		return "", err
	}
	switch s.Type {
	case "string":
		if len(s.Enum) > 0 {
			return goName(name), nil
		}
		return "string", nil
	case "boolean":
		return "bool", nil
	case "integer":
		return "int", nil
	case "long":
		return "int64", nil
	case "timestamp":
		return "time.Time", nil
	case "structure":
		return goName(name), nil
	case "list":
		inner, err := m.goType(s.Member)
		return "[]" + inner, err
	case "map":
		key, err := m.goType(s.Key)
		if err != nil {
			return "", err
		}
		value, err := m.goType(s.Value)
		return "map[" + key + "]" + value, err
	}
	return "", fmt.Errorf("shape %s: the type %s isn't understood", name, s.Type)
}

// fieldType gives the Go type of a member. Optional members are pointers so
// that absent and zero differ; strings and times that only go to the client
// are plain, because an empty one is never sent.
func (m *model) fieldType(mem member, fromClient bool) (string, error) {
	plain, err := m.goType(mem.Shape)
	if err != nil {
		return "", err
	}
	switch m.byName[mem.Shape].Type {
	case "list", "map":
		return plain, nil
	case "structure":
		return "*" + plain, nil
	case "string", "timestamp":
		if !fromClient {
			return plain, nil
		}
	}
	if mem.Required {
		return plain, nil
	}
	return "*" + plain, nil
}

func (m *model) writeStruct(b *bytes.Buffer, name string, ms members, fromClient bool) error {
	if len(ms) == 0 {
		fmt.Fprintf(b, "type %s struct{}\n\n", name)
		return nil
	}
	fmt.Fprintf(b, "type %s struct {\n", name)
	seen := make(map[string]bool)
	for _, mem := range ms {
		if seen[goName(mem.name)] {
			return fmt.Errorf("%s has the member %s twice", name, goName(mem.name))
		}
		seen[goName(mem.name)] = true
		typ, err := m.fieldType(mem, fromClient)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", name, mem.name, err)
		}
		where, ok := locations[mem.Location]
		if !ok {
			return fmt.Errorf("%s.%s: the location %s isn't understood", name, mem.name, mem.Location)
		}
		tag := where + " " + mem.wire() + " " + mem.Shape
		if mem.Required {
			tag += " required"
		}
		fmt.Fprintf(b, "%s %s `api:%q`\n", goName(mem.name), typ, tag)
	}
	b.WriteString("}\n\n")
	return nil
}

func writeInputs(b *bytes.Buffer, m *model) error {
	for _, op := range m.Operations {
		fmt.Fprintf(b, "// %sInput is the request of %s.\n", op.name, op.name)
		if err := m.writeStruct(b, op.name+"Input", op.Request, true); err != nil {
			return err
		}
	}
	return nil
}

func writeOutputs(b *bytes.Buffer, m *model) error {
	for _, op := range m.Operations {
		for _, mem := range op.Response {
			if mem.Location != "body" {
				return fmt.Errorf("%s: response member %s travels in %s", op.name, mem.name, mem.Location)
			}
		}
		fmt.Fprintf(b, "// %sOutput is the response of %s.\n", op.name, op.name)
		if err := m.writeStruct(b, op.name+"Output", op.Response, false); err != nil {
			return err
		}
	}
	return nil
}

func writeShapes(b *bytes.Buffer, m *model) error {
	for _, s := range m.Shapes {
		if s.Type != "structure" {
			continue
		}
		fmt.Fprintf(b, "// %s is a structure of the API model.\n", goName(s.name))
		if err := m.writeStruct(b, goName(s.name), s.Members, m.fromClient[s.name]); err != nil {
			return err
		}
	}
	return nil
}

func writeEnums(b *bytes.Buffer, m *model) error {
	for _, s := range m.Shapes {
		if len(s.Enum) == 0 {
			continue
		}
		if s.Type != "string" {
			return fmt.Errorf("shape %s: an enumeration of a %s isn't understood", s.name, s.Type)
		}
		name := goName(s.name)
		fmt.Fprintf(b, "// %s is an enumeration of the API model.\ntype %s string\n\n", name, name)
		fmt.Fprintf(b, "// Values of %s.\nconst (\n", name)
		for _, value := range s.Enum {
			fmt.Fprintf(b, "%s%s %s = %q\n", name, constantName(value), name, value)
		}
		b.WriteString(")\n\n")
	}
	return nil
}

// constantName turns IN_PROGRESS, in-progress and InProgress into InProgress.
func constantName(value string) string {
	var b strings.Builder
	for _, word := range strings.FieldsFunc(value, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		rest := word[1:]
		if word == strings.ToUpper(word) {
			rest = strings.ToLower(rest)
		}
		b.WriteString(strings.ToUpper(word[:1]) + rest)
	}
	return b.String()
}
