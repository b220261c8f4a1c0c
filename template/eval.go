package template

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// evaluation is one run of Plan: the parameter values and the work done so far.
// Its recursion is bounded by the nesting of the template's JSON.
type evaluation struct {
	t     *Template
	value []string
	given []source
	work  int
}

// source says where a parameter's value is from; none means that it has no value.
type source uint8

const (
	fromNowhere source = iota
	fromCaller
	fromDefault
)

func (ev *evaluation) fault(at site, code Code, format string, args ...any) *Error {
	return fault(ev.t.text, at, code, fmt.Sprintf(format, args...))
}

// bind looks up the parameters once, so that references are array accesses.
func (ev *evaluation) bind(params map[string]string) error {
	ev.value = make([]string, len(ev.t.params))
	ev.given = make([]source, len(ev.t.params))
	for i := range ev.t.params {
		param := &ev.t.params[i]
		v, given := params[param.Name]
		switch {
		case given:
			err := ev.checkParameter(param, i, v)
			if err != nil {
				return err
			}
			ev.value[i], ev.given[i] = v, fromCaller
		case param.HasDefault:
			ev.value[i], ev.given[i] = param.Default, fromDefault
		case ev.t.kind == JITP && param.Declared:
			// A subject without a declared attribute fails the provisioning even when nothing
			// refers to the parameter.
			return ev.missing(i, ev.t.declared[i])
		}
	}
	return nil
}

func (ev *evaluation) checkParameter(param *Parameter, i int, v string) error {
	var e *Error
	switch {
	case !utf8.ValidString(v):
		e = ev.fault(ev.t.declared[i], CodeBadValue, "the value of parameter %s is not valid UTF-8 text", quote(param.Name))
	case ev.t.kind == Bulk && len(v) > MaxParameterCharacters && utf8.RuneCountInString(v) > MaxParameterCharacters:
		e = ev.fault(ev.t.declared[i], CodeLimit, "the value of parameter %s has more than %d characters",
			quote(param.Name), MaxParameterCharacters)
	case len(v) > MaxValueBytes:
		e = ev.fault(ev.t.declared[i], CodeLimit, "the value of parameter %s has more than %d bytes",
			quote(param.Name), MaxValueBytes)
	default:
		return nil
	}
	e.Parameter = param.Name
	return e
}

func (ev *evaluation) missing(i int, at site) *Error {
	name := ev.t.params[i].Name
	e := ev.fault(at, CodeMissingParameter, "%s", unresolved(name))
	e.Parameter = name
	attribute := subjectName(name)
	switch {
	case ev.t.kind == JITP && attribute != "":
		e.Hint = "the certificate's subject has no " + attribute + "; issue certificates with it, " +
			"give the parameter a Default, or remove it from the template"
	case ev.t.kind != Bulk && name == CertificateIDParameter:
		e.Hint = "the service supplies this parameter; it was not in this call"
	default:
		e.Hint = "send a value for parameter " + name + ", or give it a Default in the template"
	}
	return e
}

// spend counts the bytes of a result and refuses what grows too large.
func (ev *evaluation) spend(at site, size int) error {
	if size > MaxValueBytes {
		return ev.fault(at, CodeLimit, "the evaluated value has more than %d bytes", MaxValueBytes)
	}
	// One more, so that evaluations of empty values are counted as well.
	ev.work += size + 1
	if ev.work > MaxPlanBytes {
		return ev.fault(at, CodeLimit, "evaluating the template produces more than %d bytes", MaxPlanBytes)
	}
	return nil
}

// str evaluates an expression whose type is string.
func (ev *evaluation) str(e *expr) (string, error) {
	switch e.op {
	case opLiteral:
		return e.text, nil
	case opParam:
		if ev.given[e.param] == fromNowhere {
			return "", ev.missing(e.param, e.at)
		}
		v := ev.value[e.param]
		return v, ev.spend(e.at, len(v))
	case opResource:
		return "", ev.resourceReference(e)
	case opJoin:
		return ev.join(e)
	case opSelect:
		return ev.pick(e)
	case opFind:
		return ev.find(e)
	case opSub:
		return ev.sub(e)
	}
	return "", ev.fault(e.at, CodeInvalid, "a list stands where a string is needed")
}

func (ev *evaluation) resourceReference(e *expr) error {
	err := ev.fault(e.at, CodeResourceReference, "%s", unresolved(e.text))
	err.Parameter = e.text
	err.Hint = quote(e.text) + " is a resource of this template, and resources have no value; refer to a parameter"
	return err
}

// list evaluates an expression whose type is list, or the arguments of another one.
func (ev *evaluation) list(e *expr) ([]string, error) {
	if e.op == opSplit {
		return ev.split(e)
	}
	out := make([]string, len(e.args))
	for i, arg := range e.args {
		v, err := ev.str(arg)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

func (ev *evaluation) join(e *expr) (string, error) {
	delimiter, err := ev.str(e.args[0])
	if err != nil {
		return "", err
	}
	items, err := ev.list(e.args[1])
	if err != nil {
		return "", err
	}
	size := 0
	for i, item := range items {
		if i > 0 {
			size += len(delimiter)
		}
		size += len(item)
	}
	// Before the bytes are made: a short template can ask for very many.
	err = ev.spend(e.at, size)
	if err != nil {
		return "", err
	}
	return strings.Join(items, delimiter), nil
}

func (ev *evaluation) split(e *expr) ([]string, error) {
	delimiter, err := ev.str(e.args[0])
	if err != nil {
		return nil, err
	}
	if delimiter == "" {
		return nil, ev.fault(e.args[0].at, CodeBadValue, "the delimiter of Fn::Split must not be empty")
	}
	source, err := ev.str(e.args[1])
	if err != nil {
		return nil, err
	}
	if items := strings.Count(source, delimiter) + 1; items > MaxListItems {
		return nil, ev.fault(e.at, CodeLimit, "Fn::Split gives %d items, more than %d", items, MaxListItems)
	}
	err = ev.spend(e.at, len(source))
	if err != nil {
		return nil, err
	}
	return strings.Split(source, delimiter), nil
}

func (ev *evaluation) pick(e *expr) (string, error) {
	index, err := ev.str(e.args[0])
	if err != nil {
		return "", err
	}
	items, err := ev.list(e.args[1])
	if err != nil {
		return "", err
	}
	i, ok := parseIndex(index)
	if !ok {
		return "", ev.fault(e.args[0].at, CodeBadValue, "%s", notIndex(index))
	}
	if i >= len(items) {
		return "", ev.fault(e.args[0].at, CodeIndexOutOfRange, "%s", indexProblem(index, len(items)))
	}
	return items[i], ev.spend(e.at, 0)
}

func (ev *evaluation) find(e *expr) (string, error) {
	var path [3]string
	for i, arg := range e.args {
		v, err := ev.str(arg)
		if err != nil {
			return "", err
		}
		path[i] = v
	}
	keys, known := ev.t.mappings[path[0]]
	if !known {
		return "", ev.missingKey(e.args[0], "map "+quote(path[0]), "Mappings has "+names(ev.t.mappings))
	}
	subs, known := keys[path[1]]
	if !known {
		return "", ev.missingKey(e.args[1], "key "+quote(path[1])+" in map "+quote(path[0]), "the map has "+names(keys))
	}
	v, known := subs[path[2]]
	if !known {
		return "", ev.missingKey(e.args[2],
			"sub-key "+quote(path[2])+" under key "+quote(path[1])+" in map "+quote(path[0]), "the key has "+names(subs))
	}
	return v, ev.spend(e.at, 0)
}

func (ev *evaluation) missingKey(arg *expr, what, hint string) error {
	e := ev.fault(arg.at, CodeMissingMapKey, "Fn::FindInMap finds no %s", what)
	e.Parameter = ev.parameterOf(arg)
	e.Hint = hint
	return e
}

// parameterOf names the first parameter that a value depends on.
func (ev *evaluation) parameterOf(e *expr) string {
	if e.op == opParam {
		return ev.t.params[e.param].Name
	}
	for _, arg := range e.args {
		if name := ev.parameterOf(arg); name != "" {
			return name
		}
	}
	return ""
}

func (ev *evaluation) sub(e *expr) (string, error) {
	values, err := ev.list(e)
	if err != nil {
		return "", err
	}
	size := 0
	for _, piece := range e.pieces {
		size += len(piece.text)
		if piece.text == "" {
			size += len(values[piece.arg])
		}
	}
	err = ev.spend(e.at, size)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.Grow(size)
	for _, piece := range e.pieces {
		b.WriteString(piece.text)
		if piece.text == "" {
			b.WriteString(values[piece.arg])
		}
	}
	return b.String(), nil
}

// field evaluates a property and checks its value.
func (ev *evaluation) field(f field) (string, error) {
	v, err := ev.str(f.value)
	if err != nil || f.check == nil || f.value.op == opLiteral {
		return v, err
	}
	problem := f.check(v)
	if problem == "" {
		return v, nil
	}
	e := ev.fault(f.value.at, CodeBadValue, "%s", problem)
	e.Parameter = ev.parameterOf(f.value)
	if e.Parameter != "" {
		e.Hint = "the value depends on parameter " + e.Parameter
	}
	return "", e
}
