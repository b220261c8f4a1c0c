package template

import (
	"maps"
	"slices"
	"strings"
)

// reference compiles the use of a name by Ref or Fn::Sub: a parameter before a resource.
func (p *parser) reference(name string, at site) (*expr, error) {
	i, known := p.index[name]
	if !known && name == CertificateIDParameter && p.t.kind != Bulk {
		i, known = p.addParameter(Parameter{Name: name}, at), true
	}
	if known {
		line, column := position(p.t.text, at.off)
		param := &p.t.params[i]
		param.References = append(param.References, Reference{at.member, line, column})
		return &expr{op: opParam, param: i, at: at}, nil
	}
	if p.resources[name] {
		return &expr{op: opResource, text: name, at: at}, nil
	}
	e := p.fault(at, CodeUnresolved, "%s", unresolved(name))
	e.Parameter = name
	e.Hint = p.unresolvedHint(name)
	return nil, e
}

// unresolved is AWS's wording.
func unresolved(name string) string { return "Cannot resolve reference value: " + name }

func (p *parser) unresolvedHint(name string) string {
	if p.t.kind == JITP && isJITPParameter(name) {
		return "declare it in Parameters; its value comes from the certificate's subject"
	}
	if strings.HasPrefix(name, "AWS::") && !isJITPParameter(name) {
		return "CloudFormation's pseudo parameters do not exist in provisioning templates; write the value, or declare a parameter"
	}
	if strings.HasPrefix(name, "iot:") || strings.HasPrefix(name, "aws:") {
		return "to keep a policy variable inside Fn::Sub write ${!" + name + "}"
	}
	for _, param := range p.t.params {
		if strings.EqualFold(param.Name, name) {
			return "did you mean " + param.Name + "? Names are case-sensitive"
		}
	}
	if p.t.kind == JITP {
		return "the parameters of a JITP template come from the certificate: " + strings.Join(JITPParameters(), ", ")
	}
	return `declare it in Parameters: {"Type": "String"}`
}

// names lists the keys of a map for a hint, sorted and at most ten.
func names[V any](m map[string]V) string {
	keys := slices.Sorted(maps.Keys(m))
	if len(keys) == 0 {
		return "none"
	}
	const most = 10
	if len(keys) > most {
		keys = append(keys[:most], "...")
	}
	return strings.Join(keys, ", ")
}

// subCall compiles {"Fn::Sub": "text"} and {"Fn::Sub": ["text", {"name": value}]} to the pieces of
// the text: literals, variables of the map, references.
func (p *parser) subCall(n *node, at site) (*expr, error) {
	text := n
	sub := &expr{op: opSub, at: at}
	variables := map[string]int{}
	if n.kind != nodeString {
		const form = `{"Fn::Sub": ["text with ${name}", {"name": "value"}]} or {"Fn::Sub": "text"}`
		err := p.arguments(n, at, "Fn::Sub", 2, form)
		if err != nil {
			return nil, err
		}
		text = n.items[0]
		variables, err = p.subVariables(sub, n.items[1])
		if err != nil {
			return nil, err
		}
	}
	if text.kind != nodeString {
		return nil, p.fault(site{text.off, at.member}, CodeInvalid,
			"the text of Fn::Sub must be a string, not %s", text.describe())
	}
	err := p.subPieces(sub, text.text, variables, site{text.off, at.member})
	if err != nil {
		return nil, err
	}
	return sub, nil
}

// subVariables appends the variables to the arguments and returns their numbers by name.
func (p *parser) subVariables(sub *expr, n *node) (map[string]int, error) {
	if n.kind != nodeObject || n.isFunction() {
		got := n.describe()
		if n.kind == nodeObject {
			got = "a function"
		}
		return nil, p.fault(site{n.off, sub.at.member}, CodeInvalid,
			"the variables of Fn::Sub must be an object of names and values, not %s", got)
	}
	variables := make(map[string]int, len(n.members))
	for _, m := range n.members {
		value, err := p.stringExpr(m.value, sub.at.member)
		if err != nil {
			return nil, err
		}
		variables[m.name] = len(sub.args)
		sub.args = append(sub.args, value)
	}
	return variables, nil
}

// subPieces cuts the text at ${name}. ${!name} stands for the characters ${name}.
func (p *parser) subPieces(sub *expr, text string, variables map[string]int, at site) error {
	literal := func(s string) {
		if s != "" {
			sub.pieces = append(sub.pieces, piece{text: s})
		}
	}
	for {
		before, rest, found := strings.Cut(text, "${")
		literal(before)
		if !found {
			return nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || name == "" {
			e := p.fault(at, CodeInvalid, "the text of Fn::Sub has a ${ without a name and a closing }")
			e.Hint = "write ${name}, or ${!name} for the characters ${name}"
			return e
		}
		text = after
		if kept, escaped := strings.CutPrefix(name, "!"); escaped {
			literal("${" + kept + "}")
			continue
		}
		number, known := variables[name]
		if !known {
			value, err := p.reference(name, at)
			if err != nil {
				return err
			}
			number = len(sub.args)
			sub.args = append(sub.args, value)
		}
		sub.pieces = append(sub.pieces, piece{arg: number})
	}
}
