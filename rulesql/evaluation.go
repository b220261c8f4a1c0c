package rulesql

import (
	"context"
	"fmt"
)

// Evaluation is one message meeting one statement: Select gives the payload for the actions,
// Expand the fields of actions. They share the decoded payload, the variables and the limits.
// An Evaluation serves one goroutine; it keeps nothing once it is dropped.
type Evaluation struct {
	statement *Statement
	message   *Message
	outside   *Outside
	version   Version

	ctx context.Context // of the Select or Expand under way, for calls to the outside

	parsed  bool  // payload has been looked at
	payload value // Undefined, or kindBytes, while it is no JSON

	vars  []value // variables that have their value, in the order of SET
	stack []value // arguments of the calls under way

	steps, texts, calls int
	err                 error // the limit that was exceeded

	problems     []Problem
	problemCount int
}

// Problem tells why something in an evaluation is Undefined although the statement is right: a
// service that isn't there, a function that failed, a payload that is no JSON.
type Problem struct {
	// Function is the function or construct concerned, such as get_thing_shadow.
	Function string
	// Reason is a sentence for the rule's log.
	Reason string
	// Err is the cause that the outside gave, if it was one.
	Err error
}

// String gives "function: reason: cause".
func (p Problem) String() string {
	s := p.Function + ": " + p.Reason
	if p.Err != nil {
		s += ": " + p.Err.Error()
	}
	return s
}

// Result is what Select gives.
type Result struct {
	// Matched says that there is no WHERE clause or that it is true. Otherwise actions don't run.
	Matched bool
	// Payload is for the actions. It may be the message's own payload: don't change it.
	Payload []byte
	// Unchanged says that Payload is the message's, byte by byte, JSON or not. Otherwise it is JSON,
	// or empty for SELECT VALUE of something Undefined.
	Unchanged bool
}

// NewEvaluation starts the evaluation of a statement against a message. Neither is copied.
// outside may be nil.
func NewEvaluation(s *Statement, m *Message, outside *Outside) *Evaluation {
	if outside == nil {
		outside = &Outside{}
	}
	return &Evaluation{statement: s, message: m, outside: outside, version: s.version}
}

// Select evaluates SET, WHERE and, if that is true, SELECT. The error is a *LimitError.
// ctx is for the outside's functions.
func (ev *Evaluation) Select(ctx context.Context) (Result, error) {
	ev.ctx = ctx
	if ev.statement.where != nil {
		matched := ev.statement.where.eval(ev, nil).isTrue()
		if ev.err != nil {
			return Result{}, ev.err
		}
		if !matched {
			return Result{}, nil
		}
	}
	return ev.result()
}

// Problems gives what went wrong so far, at most MaxProblems of them, and how many there were.
func (ev *Evaluation) Problems() (problems []Problem, all int) {
	return ev.problems, ev.problemCount
}

func (ev *Evaluation) problem(function string, err error, format string, args ...any) {
	ev.problemCount++
	if len(ev.problems) < MaxProblems {
		ev.problems = append(ev.problems, Problem{Function: function, Reason: fmt.Sprintf(format, args...), Err: err})
	}
}

// spend counts steps; it is false once the evaluation has used too many or hit another limit.
func (ev *Evaluation) spend(n int) bool {
	ev.steps += n
	if ev.steps > MaxSteps {
		ev.exceed("the statement takes more than %d steps for this message", MaxSteps)
	}
	return ev.err == nil
}

func (ev *Evaluation) exceed(format string, args ...any) {
	if ev.err == nil {
		ev.err = &LimitError{Msg: fmt.Sprintf(format, args...), Hint: "let the rule look at less of the message, or let devices send smaller ones"}
	}
}

// room says whether a text of n bytes may be made, and counts it.
func (ev *Evaluation) room(n int) bool {
	if n > MaxResultBytes {
		ev.exceed("a text is longer than the %d bytes that a rule may make", MaxResultBytes)
		return false
	}
	ev.texts += n
	if ev.texts > MaxTextBytes {
		ev.exceed("the statement makes more than %d bytes of text for this message", MaxTextBytes)
		return false
	}
	return ev.spend(1 + n/textCharging)
}

// keep counts a text that was made, and gives it, or nothing if it is too much.
func (ev *Evaluation) keep(s string) string {
	if !ev.room(len(s)) {
		return ""
	}
	return s
}

// root is the payload as a value: JSON, or kindBytes. An empty payload is the empty object.
func (ev *Evaluation) root() value {
	if ev.parsed {
		return ev.payload
	}
	ev.parsed = true
	if len(ev.message.Payload) == 0 {
		ev.payload = objectValue(&object{})
		return ev.payload
	}
	if !ev.spend(1 + len(ev.message.Payload)/textCharging) {
		return undefined()
	}
	root, ok := parsePayload(ev.message.Payload, ev.version)
	if !ok {
		root = value{kind: kindBytes}
		ev.problem("payload", nil, "the payload is no JSON document, so that nothing in it can be named")
	}
	ev.payload = root
	return root
}

// all is the payload with everything decoded, for expressions that take it as a value.
func (ev *Evaluation) all() value {
	root := ev.root()
	if root.kind == kindObject {
		o := root.object()
		for i := range o.members {
			if !ev.spend(1 + len(o.members[i].val.text)/textCharging) {
				return undefined()
			}
			o.members[i].val = ev.look(o.members[i].val)
		}
	}
	return root
}

// member gives a member of the payload.
func (ev *Evaluation) member(key string) value {
	o := ev.root().object()
	if o == nil {
		return undefined()
	}
	i := o.find(key)
	if i < 0 {
		return undefined()
	}
	v := o.members[i].val
	if v.kind == kindRaw {
		v = ev.look(v)
		o.members[i].val = v
	}
	return v
}

// variable gives the value of a variable; those before it get theirs first, each once.
func (ev *Evaluation) variable(i int) value {
	for len(ev.vars) <= i && ev.err == nil {
		v := ev.statement.sets[len(ev.vars)].node.eval(ev, nil)
		ev.vars = append(ev.vars, v)
	}
	if i < len(ev.vars) {
		return ev.vars[i]
	}
	return undefined()
}
