package rulesql

import (
	"context"
	"errors"
	"strings"
)

// Substitution is a field of an action: text with "${expression}" in it. It belongs to the
// statement that made it, whose variables and version it uses; names in it are members of the
// original payload, never aliases of SELECT. It never changes.
type Substitution struct {
	statement *Statement
	pieces    []piece
	external  []string
	warnings  []Warning
}

// piece is an expression, or text where node is nil.
type piece struct {
	text string
	node node
	name string // the expression as written
}

// ParseSubstitution reads a field of an action. The error is a *SyntaxError whose place is in
// text. Source: AWS IoT Core developer guide, "Substitution templates".
func (s *Statement) ParseSubstitution(text string) (*Substitution, error) {
	return s.substitution(text, false)
}

// ParseTopic reads the topic of a republish action: as ParseSubstitution, and "$$" stands for
// "$", which a topic can't have otherwise (developer guide, "Republish").
func (s *Statement) ParseTopic(text string) (*Substitution, error) {
	return s.substitution(text, true)
}

func (s *Statement) substitution(text string, topic bool) (*Substitution, error) {
	sub := &Substitution{statement: s}
	if len(text) > MaxStatementBytes {
		return nil, &SyntaxError{Line: 1, Column: 1, Msg: "the text is longer than 256 KiB"}
	}
	var plain strings.Builder
	count := 0
	for i := 0; i < len(text); {
		switch {
		case topic && strings.HasPrefix(text[i:], "$$"):
			plain.WriteByte('$')
			i += 2
		case strings.HasPrefix(text[i:], "${"):
			count++
			if count > MaxSubstitutions {
				return nil, syntaxErrorAt(text, i, "", "more than %d substitutions", MaxSubstitutions)
			}
			n, end, fault := sub.expression(text, i+2)
			if fault != nil {
				return nil, fault
			}
			sub.pieces = append(sub.pieces, piece{text: plain.String()}, piece{node: n, name: text[i:end]})
			plain.Reset()
			i = end
		case topic && text[i] == '$':
			return nil, syntaxErrorAt(text, i, `write "$$" for a "$" in a topic`, `a "$" without "{" behind it`)
		default:
			end := strings.IndexByte(text[i+1:], '$')
			if end < 0 {
				end = len(text) - i - 1
			}
			plain.WriteString(text[i : i+1+end])
			i += 1 + end
		}
	}
	sub.pieces = append(sub.pieces, piece{text: plain.String()})
	return sub, nil
}

// expression parses what is between "${" and "}"; end is behind it.
func (sub *Substitution) expression(text string, from int) (n node, end int, fault *SyntaxError) {
	p, fault := newParser(sub.statement, text, from, true)
	if fault != nil {
		return nil, 0, fault
	}
	n, fault = p.expression()
	if fault != nil {
		return nil, 0, fault
	}
	last := p.peek()
	fault = p.end()
	if fault != nil {
		return nil, 0, fault
	}
	for _, name := range p.external {
		sub.usesExternal(name)
	}
	sub.warnings = append(sub.warnings, p.warnings...)
	return n, last.end, nil
}

func (sub *Substitution) usesExternal(name string) {
	for _, known := range sub.external {
		if known == name {
			return
		}
	}
	sub.external = append(sub.external, name)
}

// External is as for Statement.
func (sub *Substitution) External() []string { return append([]string(nil), sub.external...) }

// Warnings is as for Statement.
func (sub *Substitution) Warnings() []Warning { return append([]Warning(nil), sub.warnings...) }

// Constant gives the text where there is nothing to substitute.
func (sub *Substitution) Constant() (text string, ok bool) {
	if len(sub.pieces) != 1 {
		return "", false
	}
	return sub.pieces[0].text, true
}

// Beginning gives the text before the first substitution.
func (sub *Substitution) Beginning() string {
	if len(sub.pieces) == 0 || sub.pieces[0].node != nil {
		return ""
	}
	return sub.pieces[0].text
}

// Expand gives the text for the message of ev. What is Undefined or Null becomes nothing, with a
// Problem. The error is a *LimitError unless the substitution belongs to another statement.
func (ev *Evaluation) Expand(ctx context.Context, sub *Substitution) (string, error) {
	if sub.statement != ev.statement {
		return "", errors.New("the substitution belongs to another statement")
	}
	ev.ctx = ctx
	if text, ok := sub.Constant(); ok {
		return text, nil
	}
	var b strings.Builder
	for _, piece := range sub.pieces {
		text := piece.text
		if piece.node != nil {
			var ok bool
			text, ok = ev.toString(piece.node.eval(ev, nil))
			if ev.err != nil {
				return "", ev.err
			}
			if !ok {
				ev.problem(excerpt(piece.name), nil, "there is no value to substitute")
			}
		}
		if b.Len()+len(text) > MaxResultBytes {
			ev.exceed("a text is longer than the %d bytes that a rule may make", MaxResultBytes)
			return "", ev.err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}
