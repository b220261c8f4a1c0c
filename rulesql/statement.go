package rulesql

import (
	"slices"
	"unicode/utf8"

	"github.com/imprint-iot/imprint/mqtt"
)

// Statement is a parsed and validated statement. It never changes and may be used by any number
// of goroutines. Only Parse makes one.
type Statement struct {
	text    string
	version Version

	filter    string
	hasFilter bool

	sets      []setting
	selection selection
	where     node // nil without

	external []string
	warnings []Warning
}

// setting is one variable of the SET clause.
type setting struct {
	name string
	node node
}

// Parse reads a statement. The error is a *SyntaxError.
// Source: AWS IoT Core developer guide, "AWS IoT SQL reference".
func Parse(text string, v Version) (*Statement, error) {
	known, err := ParseVersion(string(v))
	if err != nil {
		return nil, &SyntaxError{Line: 1, Column: 1, Msg: err.Error()}
	}
	s := &Statement{text: text, version: known}
	p, fault := newParser(s, text, 0, false)
	if fault != nil {
		return nil, fault
	}
	fault = p.statement()
	if fault != nil {
		return nil, fault
	}
	s.external, s.warnings = p.external, p.warnings
	return s, nil
}

// Text gives the statement as it was given to Parse.
func (s *Statement) Text() string { return s.text }

// Version gives the version that it was parsed as.
func (s *Statement) Version() Version { return s.version }

// Filter gives the topic filter of FROM. ok is false without FROM: then only Basic Ingest
// reaches the rule.
func (s *Statement) Filter() (filter string, ok bool) { return s.filter, s.hasFilter }

// Matches says whether FROM takes a message published on topic. As for subscriptions at AWS IoT
// Core, "a/#" doesn't take "a", and a wildcard at the start takes no "$" topic. FROM plays no part
// for Basic Ingest.
func (s *Statement) Matches(topic string) bool {
	return s.hasFilter && mqtt.Match(s.filter, topic)
}

// External names the functions that it may ask the outside for, such as aws_lambda, each once;
// decode is among them where it decodes Protobuf, which takes a schema from there. An error action may use none (developer guide, "Error handling").
func (s *Statement) External() []string { return slices.Clone(s.external) }

// Warnings tells what is Undefined whatever the message is.
func (s *Statement) Warnings() []Warning { return slices.Clone(s.warnings) }

func newParser(s *Statement, text string, from int, braces bool) (*parser, *SyntaxError) {
	if len(text) > MaxStatementBytes {
		return nil, &SyntaxError{Line: 1, Column: 1, Msg: "the text is longer than 256 KiB"}
	}
	if !utf8.ValidString(text) {
		return nil, &SyntaxError{Line: 1, Column: 1, Msg: "the text is not valid UTF-8"}
	}
	tokens, fault := lex(text, from, braces)
	if fault != nil {
		return nil, fault
	}
	return &parser{s: s, text: text, tokens: tokens}, nil
}
