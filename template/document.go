package template

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"
)

// documentSpec is a policy document before evaluation: either a string property, or a JSON object
// compiled to pieces. A document without functions is finished when it is parsed.
type documentSpec struct {
	text   *field
	pieces []documentPiece
	done   bool
	final  string
	hash   string
	at     site
}

// documentPiece is finished JSON text, or a value to be evaluated and written as JSON.
type documentPiece struct {
	text  string
	value *expr
}

func (p *parser) policyDocument(n *node, path string) (*documentSpec, error) {
	spec := &documentSpec{at: site{n.off, path}}
	if n.kind != nodeObject || n.isFunction() {
		f, err := p.field(n, path, checkDocument)
		if err != nil {
			return nil, p.withinDocument(err, n)
		}
		spec.text = &f
		if f.value.op == opLiteral {
			spec.finish(f.value.text)
		}
		return spec, nil
	}
	w := &documentWriter{p: p, spec: spec}
	err := w.value(n, path)
	if err != nil {
		return nil, err
	}
	if len(spec.pieces) == 0 {
		spec.finish(w.buf.String())
		return spec, nil
	}
	w.flush()
	return spec, nil
}

// withinDocument puts the error of a literal document that is no JSON at the character at fault, inside
// the string.
func (p *parser) withinDocument(err error, n *node) error {
	var fault *Error
	var syntax *json.SyntaxError
	if n.kind != nodeString || !errors.As(err, &fault) || !errors.As(json.Unmarshal([]byte(n.text), new(json.RawMessage)), &syntax) {
		return err
	}
	off := int(syntax.Offset)
	if off > 0 && off < len(n.text) {
		off-- // it counts the offending byte; at the end of the text there is none
	}
	fault.Line, fault.Column = position(p.t.text, rawOffset(p.t.text, n.off, off))
	fault.Msg += ": " + syntax.Error()
	return fault
}

func (s *documentSpec) finish(text string) {
	s.done, s.final, s.hash = true, text, generatedName(text)
}

// generatedName names a policy by its document: the lower-case hexadecimal SHA-256 of the text. That
// the name is a hash is documented, which one is not.
func generatedName(document string) string {
	sum := sha256.Sum256([]byte(document))
	return hex.EncodeToString(sum[:])
}

// documentWriter writes a node tree as compact JSON in the order of the source. Its recursion is
// bounded by MaxDepth, as the tree is.
type documentWriter struct {
	p    *parser
	spec *documentSpec
	buf  bytes.Buffer
}

func (w *documentWriter) flush() {
	if w.buf.Len() > 0 {
		w.spec.pieces = append(w.spec.pieces, documentPiece{text: w.buf.String()})
		w.buf.Reset()
	}
}

func (w *documentWriter) value(n *node, path string) error {
	switch n.kind {
	case nodeNull:
		w.buf.WriteString("null")
	case nodeString:
		writeJSONString(&w.buf, n.text)
	case nodeArray:
		return w.array(n, path)
	case nodeObject:
		return w.object(n, path)
	default:
		w.buf.WriteString(n.text)
	}
	return nil
}

func (w *documentWriter) array(n *node, path string) error {
	w.buf.WriteByte('[')
	for i, item := range n.items {
		if i > 0 {
			w.buf.WriteByte(',')
		}
		err := w.value(item, path+"["+strconv.Itoa(i)+"]")
		if err != nil {
			return err
		}
	}
	w.buf.WriteByte(']')
	return nil
}

func (w *documentWriter) object(n *node, path string) error {
	if n.isFunction() {
		e, err := w.p.function(n, path)
		if err != nil {
			return err
		}
		w.flush()
		w.spec.pieces = append(w.spec.pieces, documentPiece{value: e})
		return nil
	}
	w.buf.WriteByte('{')
	for i, m := range n.members {
		if i > 0 {
			w.buf.WriteByte(',')
		}
		writeJSONString(&w.buf, m.name)
		w.buf.WriteByte(':')
		err := w.value(m.value, join(path, m.name))
		if err != nil {
			return err
		}
	}
	w.buf.WriteByte('}')
	return nil
}

// writeJSONString writes a JSON string without escaping <, > and &, which policies may contain.
func writeJSONString(buf *bytes.Buffer, s string) {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	// A string cannot fail to encode and a buffer cannot fail to take it.
	_ = enc.Encode(s)
	buf.Truncate(buf.Len() - 1) // the encoder ends with a newline
}

// document evaluates a policy document; it returns the text and the name made from it.
func (ev *evaluation) document(spec *documentSpec) (string, string, error) {
	if spec.done {
		return spec.final, spec.hash, nil
	}
	if spec.text != nil {
		text, err := ev.field(*spec.text)
		if err != nil {
			return "", "", err
		}
		return text, generatedName(text), nil
	}
	var buf bytes.Buffer
	for _, piece := range spec.pieces {
		buf.WriteString(piece.text)
		if piece.value == nil {
			continue
		}
		err := ev.documentValue(&buf, piece.value)
		if err != nil {
			return "", "", err
		}
	}
	err := ev.spend(spec.at, buf.Len())
	if err != nil {
		return "", "", err
	}
	return buf.String(), generatedName(buf.String()), nil
}

func (ev *evaluation) documentValue(buf *bytes.Buffer, e *expr) error {
	if !e.isList() {
		v, err := ev.str(e)
		if err != nil {
			return err
		}
		writeJSONString(buf, v)
		return nil
	}
	items, err := ev.list(e)
	if err != nil {
		return err
	}
	buf.WriteByte('[')
	for i, item := range items {
		if i > 0 {
			buf.WriteByte(',')
		}
		writeJSONString(buf, item)
	}
	buf.WriteByte(']')
	return nil
}
