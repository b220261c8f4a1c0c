package template

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// parser fills a Template from a node tree.
type parser struct {
	t         *Template
	index     map[string]int  // parameter name to its place in t.params
	resources map[string]bool // logical names
}

func (p *parser) fault(at site, code Code, format string, args ...any) *Error {
	return fault(p.t.text, at, code, fmt.Sprintf(format, args...))
}

// want refuses a node of another kind.
func (p *parser) want(n *node, path string, kind nodeKind) error {
	if n.kind == kind {
		return nil
	}
	e := p.fault(site{n.off, path}, CodeInvalid, "must be %s, not %s", (&node{kind: kind}).describe(), n.describe())
	if kind == nodeString && (n.kind == nodeNumber || n.kind == nodeBool) {
		e.Hint = "write it in quotes"
	}
	return e
}

// object refuses a node that is no object or has members other than the known ones.
func (p *parser) object(n *node, path string, known ...string) error {
	err := p.want(n, path, nodeObject)
	if err != nil {
		return err
	}
	for _, m := range n.members {
		if slices.Contains(known, m.name) {
			continue
		}
		e := p.fault(site{m.off, join(path, m.name)}, CodeInvalid, "unknown member %s", quote(m.name))
		e.Hint = unknownHint(m.name, known)
		return e
	}
	return nil
}

func unknownHint(name string, known []string) string {
	for _, k := range known {
		if strings.EqualFold(k, name) || strings.EqualFold(strings.ReplaceAll(name, "_", ""), k) {
			return "did you mean " + k + "?"
		}
	}
	if len(known) == 0 {
		return "nothing is allowed here"
	}
	return "known here: " + strings.Join(known, ", ")
}

// document parses the sections. Parameters, mappings and resource names come first, because
// sections may stand in any order and refer to them.
func (p *parser) document(root *node) error {
	if root.kind == nodeObject {
		err := p.sectionsOfKind(root)
		if err != nil {
			return err
		}
	}
	err := p.object(root, "", "Parameters", "Mappings", "Resources", "DeviceConfiguration", "Version")
	if err != nil {
		return err
	}
	steps := []struct {
		section string
		parse   func(*node) error
	}{
		{"Version", func(n *node) error { return p.want(n, "Version", nodeString) }},
		{"Parameters", p.parameters},
		{"Mappings", p.mappings},
		{"Resources", p.resourceSection},
		{"DeviceConfiguration", p.deviceConfiguration},
	}
	for _, step := range steps {
		n := root.get(step.section)
		if n == nil {
			continue
		}
		err := step.parse(n)
		if err != nil {
			return err
		}
	}
	if root.get("Resources") == nil {
		e := p.fault(site{off: root.off}, CodeInvalid, "the template has no Resources section")
		e.Hint = `add "Resources" with a thing, a certificate and policies`
		return e
	}
	return nil
}

func (p *parser) sectionsOfKind(root *node) error {
	if p.t.kind == Fleet {
		return nil
	}
	for _, m := range root.members {
		if m.name == "Mappings" || m.name == "DeviceConfiguration" {
			e := p.fault(site{m.off, m.name}, CodeInvalid, "a %s template has no %s section", p.t.kind, m.name)
			e.Hint = "the section belongs to templates of type FLEET_PROVISIONING"
			return e
		}
	}
	return nil
}

func (p *parser) parameters(section *node) error {
	err := p.want(section, "Parameters", nodeObject)
	if err != nil {
		return err
	}
	for _, m := range section.members {
		err := p.parameter(m, join("Parameters", m.name))
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) parameter(m member, path string) error {
	at := site{m.off, path}
	if m.name == "" {
		return p.fault(at, CodeInvalid, "a parameter must have a name")
	}
	if p.t.kind == JITP && !isJITPParameter(m.name) {
		e := p.fault(at, CodeInvalid, "a JITP template cannot declare parameter %s", quote(m.name))
		e.Parameter = m.name
		e.Hint = "the parameters of a JITP template come from the certificate: " + strings.Join(JITPParameters(), ", ")
		return e
	}
	err := p.object(m.value, path, "Type", "Default")
	if err != nil {
		return err
	}
	typ := m.value.get("Type")
	if typ == nil {
		e := p.fault(at, CodeInvalid, "parameter %s has no Type", quote(m.name))
		e.Hint = `add "Type": "String"`
		return e
	}
	err = p.want(typ, path+".Type", nodeString)
	if err != nil {
		return err
	}
	if typ.text != "String" {
		e := p.fault(site{typ.off, path + ".Type"}, CodeInvalid, "parameter type %s is not known", quote(typ.text))
		e.Hint = "the only type is String"
		return e
	}
	line, column := position(p.t.text, m.off)
	param := Parameter{Name: m.name, Declared: true, Line: line, Column: column}
	if def := m.value.get("Default"); def != nil {
		err := p.want(def, path+".Default", nodeString)
		if err != nil {
			return err
		}
		if n := utf8.RuneCountInString(def.text); n > MaxParameterCharacters {
			return p.fault(site{def.off, path + ".Default"}, CodeLimit,
				"the default has %d characters, a parameter value may have %d", n, MaxParameterCharacters)
		}
		param.Default, param.HasDefault = def.text, true
	}
	p.addParameter(param, at)
	return nil
}

func (p *parser) addParameter(param Parameter, at site) int {
	i := len(p.t.params)
	p.index[param.Name] = i
	p.t.params = append(p.t.params, param)
	p.t.declared = append(p.t.declared, at)
	return i
}

// mappings parses {"Map":{"Key":{"SubKey":"value"}}}, all literal.
func (p *parser) mappings(section *node) error {
	p.t.mappings = make(mappings)
	err := p.mapLevel(section, "Mappings")
	if err != nil {
		return err
	}
	for _, m := range section.members {
		path := join("Mappings", m.name)
		err := p.mapLevel(m.value, path)
		if err != nil {
			return err
		}
		keys := make(map[string]map[string]string)
		for _, k := range m.value.members {
			subs, err := p.mapKey(k.value, join(path, k.name))
			if err != nil {
				return err
			}
			keys[k.name] = subs
		}
		p.t.mappings[m.name] = keys
	}
	return nil
}

func (p *parser) mapKey(n *node, path string) (map[string]string, error) {
	err := p.mapLevel(n, path)
	if err != nil {
		return nil, err
	}
	subs := make(map[string]string)
	for _, s := range n.members {
		subPath := join(path, s.name)
		if s.value.kind == nodeObject && s.value.isFunction() {
			return nil, p.functionInMapping(s.value, subPath)
		}
		err := p.want(s.value, subPath, nodeString)
		if err != nil {
			return nil, err
		}
		subs[s.name] = s.value.text
	}
	return subs, nil
}

func (p *parser) mapLevel(n *node, path string) error {
	err := p.want(n, path, nodeObject)
	if err != nil {
		return err
	}
	if n.isFunction() {
		return p.functionInMapping(n, path)
	}
	return nil
}

func (p *parser) functionInMapping(n *node, path string) error {
	e := p.fault(site{n.off, path}, CodeInvalid, "functions cannot be used inside Mappings")
	e.Hint = "write the value itself"
	return e
}

// namedValue is a member whose name is literal and whose value is evaluated.
type namedValue struct {
	name  string
	value field
}

// deviceConfiguration parses the flat object that the device gets back.
func (p *parser) deviceConfiguration(n *node) error {
	const path = "DeviceConfiguration"
	err := p.want(n, path, nodeObject)
	if err != nil {
		return err
	}
	if n.isFunction() {
		e := p.fault(site{n.off, path}, CodeInvalid, "must be an object of names and values, not a function")
		e.Hint = "use the function as the value of a member"
		return e
	}
	p.t.device = make([]namedValue, 0, len(n.members))
	for _, m := range n.members {
		memberPath := join(path, m.name)
		value := m.value
		switch {
		case value.kind == nodeNumber || value.kind == nodeBool:
			literal := *value
			literal.kind = nodeString
			value = &literal
		case value.kind == nodeObject && !value.isFunction():
			e := p.fault(site{value.off, memberPath}, CodeInvalid, "DeviceConfiguration must be flat: %s is an object", quote(m.name))
			e.Hint = "nested objects are not supported; use one member a value"
			return e
		}
		f, err := p.field(value, memberPath, nil)
		if err != nil {
			return err
		}
		p.t.device = append(p.t.device, namedValue{m.name, f})
	}
	return nil
}
