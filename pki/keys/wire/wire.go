// Package wire is what Imprint and imprint-pkcs11, the process that loads a PKCS#11
// module, say to each other over the latter's standard input and output.
//
// A message is a frame: its length in four bytes, big-endian, then that many bytes, at
// most MaxFrame. Within a frame every field has a fixed place; texts and byte strings
// have their length before them in two bytes. A frame that is longer, shorter or has
// anything behind its last field isn't valid, and whoever gets one gives up the other
// side.
//
// The first request is OpHello and says which module and token the process is for, the
// second may be OpLogin. After that requests may overlap; an answer carries the number
// of its request. A PIN travels in OpLogin alone.
//
// Both programs are built from one source tree. Version tells them apart when they
// weren't.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/cryptobyte"
)

const (
	// Version changes with every change of a message.
	Version = 1
	// MaxFrame bounds a message. The longest is a list of 200 keys.
	MaxFrame = 256 << 10
	// MaxItems bounds a list of keys.
	MaxItems = 200
)

// Op is what is asked.
type Op uint8

// The requests.
const (
	OpHello    Op = 1 + iota // load Module, find the token of Token
	OpLogin                  // log in with PIN
	OpFind                   // the key of Label and KeyID
	OpSign                   // a signature of Digest with it
	OpGenerate               // make a key of Kind with Label and KeyID
	OpList                   // all private keys, or those of Label and KeyID
)

// Scheme is how a digest is signed.
type Scheme uint8

// The schemes. Of PSS the salt is as long as the digest.
const (
	ECDSA Scheme = 1 + iota
	PKCS1
	PSS
)

// Token says which of the module's tokens is meant. Empty texts match all.
type Token struct {
	Label, Manufacturer, Model, Serial string
	// Slot is a decimal number.
	Slot string
}

// Request is one request; which fields matter, its Op says.
type Request struct {
	ID      uint32
	Op      Op
	Version uint16
	Module  string
	Token   Token
	PIN     []byte
	Label   string
	KeyID   []byte
	Kind    string
	Scheme  Scheme
	// Hash has the bits of the digest: 256, 384 or 512.
	Hash   uint16
	Digest []byte
}

// Code is how a request ended.
type Code uint8

// The codes. After Device the process should be ended and another started.
const (
	OK        Code = iota
	Device         // the module or token doesn't work as it should, or not any more
	NoToken        // no token of that description is there
	Ambiguous      // several tokens or keys fit
	NoKey          // no key fits
	Exists         // a key is there already
	PIN            // the token took the PIN for wrong, or is locked
	Refused        // the token can't or won't do this
	Protocol       // the request was not understood
)

// Item is a key.
type Item struct {
	Label string
	KeyID []byte
	// Public is the key as SubjectPublicKeyInfo; empty when the token doesn't tell.
	Public      []byte
	Extractable bool
	Problem     string
}

// Response is the answer to the request of the same ID.
type Response struct {
	ID   uint32
	Code Code
	// Message says to people what went wrong.
	Message string
	// Token is the one that was found, by its own description (OpHello).
	Token Token
	// LoginRequired and LastTry are the token's words about PINs (OpHello).
	LoginRequired, LastTry bool
	Signature              []byte
	// Items has one key (OpFind, OpGenerate) or many (OpList).
	Items []Item
}

// errForm is what any frame that isn't a message gives.
var errForm = errors.New("the frame isn't a message of this version")

// Marshal gives the request's bytes.
func (r *Request) Marshal() ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddUint32(r.ID)
	b.AddUint8(uint8(r.Op))
	b.AddUint16(r.Version)
	addText(b, r.Module)
	addToken(b, r.Token)
	addBytes(b, r.PIN)
	addText(b, r.Label)
	addBytes(b, r.KeyID)
	addText(b, r.Kind)
	b.AddUint8(uint8(r.Scheme))
	b.AddUint16(r.Hash)
	addBytes(b, r.Digest)
	return bytesOf(b)
}

// Unmarshal reads what Marshal gave.
func (r *Request) Unmarshal(data []byte) error {
	s := cryptobyte.String(data)
	var op, scheme uint8
	*r = Request{}
	ok := s.ReadUint32(&r.ID) && s.ReadUint8(&op) && s.ReadUint16(&r.Version) && readText(&s, &r.Module) && readToken(&s, &r.Token) &&
		readBytes(&s, &r.PIN) && readText(&s, &r.Label) && readBytes(&s, &r.KeyID) && readText(&s, &r.Kind) &&
		s.ReadUint8(&scheme) && s.ReadUint16(&r.Hash) && readBytes(&s, &r.Digest)
	if !ok || !s.Empty() {
		return errForm
	}
	r.Op, r.Scheme = Op(op), Scheme(scheme)
	return nil
}

// Marshal gives the response's bytes.
func (r *Response) Marshal() ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddUint32(r.ID)
	b.AddUint8(uint8(r.Code))
	addText(b, r.Message)
	addToken(b, r.Token)
	addBool(b, r.LoginRequired)
	addBool(b, r.LastTry)
	addBytes(b, r.Signature)
	if len(r.Items) > MaxItems {
		return nil, fmt.Errorf("%d keys are too many for a message", len(r.Items))
	}
	b.AddUint16(uint16(len(r.Items)))
	for _, item := range r.Items {
		addText(b, item.Label)
		addBytes(b, item.KeyID)
		addBytes(b, item.Public)
		addBool(b, item.Extractable)
		addText(b, item.Problem)
	}
	return bytesOf(b)
}

// Unmarshal reads what Marshal gave.
func (r *Response) Unmarshal(data []byte) error {
	s := cryptobyte.String(data)
	var code uint8
	var items uint16
	*r = Response{}
	ok := s.ReadUint32(&r.ID) && s.ReadUint8(&code) && readText(&s, &r.Message) && readToken(&s, &r.Token) &&
		readBool(&s, &r.LoginRequired) && readBool(&s, &r.LastTry) && readBytes(&s, &r.Signature) && s.ReadUint16(&items)
	if !ok || items > MaxItems {
		return errForm
	}
	r.Code = Code(code)
	for range items {
		var item Item
		ok = readText(&s, &item.Label) && readBytes(&s, &item.KeyID) && readBytes(&s, &item.Public) && readBool(&s, &item.Extractable) && readText(&s, &item.Problem)
		if !ok {
			return errForm
		}
		r.Items = append(r.Items, item)
	}
	if !s.Empty() {
		return errForm
	}
	return nil
}

func addText(b *cryptobyte.Builder, text string) { addBytes(b, []byte(text)) }

func addBytes(b *cryptobyte.Builder, data []byte) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(data) })
}

func addBool(b *cryptobyte.Builder, yes bool) {
	var n uint8
	if yes {
		n = 1
	}
	b.AddUint8(n)
}

func addToken(b *cryptobyte.Builder, t Token) {
	for _, text := range []string{t.Label, t.Manufacturer, t.Model, t.Serial, t.Slot} {
		addText(b, text)
	}
}

func bytesOf(b *cryptobyte.Builder) ([]byte, error) {
	data, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("couldn't write a message: %w", err)
	}
	return data, nil
}

func readText(s *cryptobyte.String, text *string) bool {
	var data []byte
	ok := readBytes(s, &data)
	*text = string(data)
	return ok
}

func readBytes(s *cryptobyte.String, data *[]byte) bool {
	var field cryptobyte.String
	ok := s.ReadUint16LengthPrefixed(&field)
	if ok && len(field) > 0 {
		*data = field
	}
	return ok
}

func readBool(s *cryptobyte.String, yes *bool) bool {
	var n uint8
	ok := s.ReadUint8(&n)
	*yes = n == 1
	return ok && n <= 1
}

func readToken(s *cryptobyte.String, t *Token) bool {
	for _, text := range []*string{&t.Label, &t.Manufacturer, &t.Model, &t.Serial, &t.Slot} {
		if !readText(s, text) {
			return false
		}
	}
	return true
}

// Write writes one frame, in one call of w.Write, and then overwrites its copy.
func Write(w io.Writer, message []byte) error {
	if len(message) > MaxFrame {
		return fmt.Errorf("a message of %d bytes is too long", len(message))
	}
	frame := make([]byte, 4+len(message))
	defer clear(frame)
	binary.BigEndian.PutUint32(frame, uint32(len(message)))
	copy(frame[4:], message)
	_, err := w.Write(frame)
	if err != nil {
		return fmt.Errorf("couldn't write a message: %w", err)
	}
	return nil
}

// Read reads one frame. io.EOF means that the other side ended between two.
func Read(r io.Reader) ([]byte, error) {
	var head [4]byte
	_, err := io.ReadFull(r, head[:])
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't read a message: %w", err)
	}
	length := binary.BigEndian.Uint32(head[:])
	if length > MaxFrame {
		return nil, fmt.Errorf("a message of %d bytes is too long", length)
	}
	message := make([]byte, length)
	_, err = io.ReadFull(r, message)
	if err != nil {
		return nil, fmt.Errorf("couldn't read a message: %w", err)
	}
	return message, nil
}

// ExitNotBuilt is the exit status of an imprint-pkcs11 that was built without PKCS#11.
const ExitNotBuilt = 3
