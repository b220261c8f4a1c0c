package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha1" // RFC 5280 section 4.2.1.2 method 1: an identifier, not a protection
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
)

// maxSubjectText bounds the text form of a subject, in bytes.
const maxSubjectText = 1024

// maxRawSubject bounds a subject that is copied into a certificate, in bytes of
// DER.
const maxRawSubject = 4096

// CertificateID names a certificate as AWS IoT Core does: the lowercase hex
// SHA-256 of its DER.
func CertificateID(der []byte) imprint.CertificateID {
	sum := sha256.Sum256(der)
	return imprint.CertificateID(hex.EncodeToString(sum[:]))
}

// SerialHex gives a serial number in lowercase hex without leading zeros; "0"
// for zero and nil.
func SerialHex(serial *big.Int) string {
	if serial == nil {
		return "0"
	}
	return serial.Text(16)
}

// SubjectKey names a subject for look-ups by issuer: the lowercase hex SHA-256
// of the DER subject. Subjects that differ in string type or order differ.
func SubjectKey(rawSubject []byte) string {
	sum := sha256.Sum256(rawSubject)
	return hex.EncodeToString(sum[:])
}

// SubjectText renders a DER subject for people, as RFC 2253 does, at most 1024
// bytes of it. Characters that a terminal would act on stand as \xNN. What
// isn't a name at all, or is longer than 8 KiB, is rendered as # and hex.
func SubjectText(rawSubject []byte) string {
	if text, plain := plainSubject(rawSubject); plain {
		return text
	}
	if len(rawSubject) > 2*maxRawSubject {
		// Rendering takes time by the square of the number of attributes.
		return bounded("#" + hex.EncodeToString(rawSubject[:maxSubjectText]))
	}
	var rdns pkix.RDNSequence
	rest, err := asn1.Unmarshal(rawSubject, &rdns)
	if err != nil || len(rest) != 0 {
		return bounded("#" + hex.EncodeToString(rawSubject[:min(len(rawSubject), maxSubjectText)]))
	}
	text := rdns.String()
	var b strings.Builder
	for i, r := range text {
		if b.Len() > maxSubjectText {
			break
		}
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			_, size := utf8.DecodeRuneInString(text[i:])
			for _, c := range []byte(text[i : i+size]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
			continue
		}
		b.WriteRune(r)
	}
	return bounded(b.String())
}

// attributeNames are the last byte of 2.5.4.N and the names of RFC 2253.
var attributeNames = map[byte]string{
	3: "CN=", 5: "SERIALNUMBER=", 6: "C=", 7: "L=", 8: "ST=", 9: "STREET=", 10: "O=", 11: "OU=", 17: "POSTALCODE=",
}

// plainSubject renders what most devices' subjects are, which every connection's
// trace shows: short, of attributes that have names, whose values are ASCII in
// which nothing needs an escape. It is false for others.
func plainSubject(raw []byte) (string, bool) {
	if len(raw) > maxSubjectText/2 {
		return "", false
	}
	input := cryptobyte.String(raw)
	var names cryptobyte.String
	if !input.ReadASN1(&names, cryptobyte_asn1.SEQUENCE) || !input.Empty() {
		return "", false
	}
	// The last attribute comes first, so the text is built from its end.
	var text [maxSubjectText]byte
	at := len(text)
	for !names.Empty() {
		var set, attribute, kind, value cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !names.ReadASN1(&set, cryptobyte_asn1.SET) || !set.ReadASN1(&attribute, cryptobyte_asn1.SEQUENCE) || !set.Empty() ||
			!attribute.ReadASN1(&kind, cryptobyte_asn1.OBJECT_IDENTIFIER) || !attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() ||
			len(kind) != 3 || kind[0] != 0x55 || kind[1] != 0x04 || !plainValue(value, tag) {
			return "", false
		}
		name, known := attributeNames[kind[2]]
		if !known || at < len(name)+len(value)+1 {
			return "", false
		}
		if at < len(text) {
			at--
			text[at] = ','
		}
		at -= copy(text[at-len(value):], value)
		at -= copy(text[at-len(name):], name)
	}
	return string(text[at:]), true
}

// plainValue says whether a value is of characters that both a PrintableString
// and RFC 2253 take as they are.
func plainValue(value []byte, tag cryptobyte_asn1.Tag) bool {
	if tag != cryptobyte_asn1.UTF8String && tag != cryptobyte_asn1.PrintableString {
		return false
	}
	for i, c := range value {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == ':', c == '/', c == '=':
		case c == '_' && tag == cryptobyte_asn1.UTF8String:
		case c == ' ' && i > 0 && i < len(value)-1:
		default:
			return false
		}
	}
	return true
}

func bounded(s string) string {
	if len(s) <= maxSubjectText {
		return s
	}
	cut := maxSubjectText - len("...")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// commonNameDER is the subject with one CN, a UTF8String whatever its
// characters, as AWS IoT Core writes it.
func commonNameDER(cn string) ([]byte, error) {
	der, err := asn1.Marshal(pkix.RDNSequence{{{
		Type:  asn1.ObjectIdentifier{2, 5, 4, 3},
		Value: asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagUTF8String, Bytes: []byte(cn)},
	}}})
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the common name: %w", err)
	}
	return der, nil
}

// emptyName says whether a DER subject holds no attribute.
func emptyName(raw []byte) bool { return len(raw) == 0 || bytes.Equal(raw, []byte{0x30, 0x00}) }

// subjectKeyID is method 1 of RFC 5280 section 4.2.1.2: the SHA-1 of the bits of
// the public key, without tag, length and unused-bit octet.
func subjectKeyID(spki []byte) ([]byte, error) {
	input := cryptobyte.String(spki)
	var info, algorithm, bits cryptobyte.String
	if !input.ReadASN1(&info, cryptobyte_asn1.SEQUENCE) || !input.Empty() ||
		!info.ReadASN1(&algorithm, cryptobyte_asn1.SEQUENCE) ||
		!info.ReadASN1(&bits, cryptobyte_asn1.BIT_STRING) || !info.Empty() || len(bits) < 2 {
		return nil, invalid("the public key isn't a SubjectPublicKeyInfo")
	}
	sum := sha1.Sum(bits[1:])
	return sum[:], nil
}

// encodedKey gives the SubjectPublicKeyInfo of a key and its identifier.
func encodedKey(pub crypto.PublicKey) (spki, id []byte, err error) {
	spki, err = x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, nil, invalid("couldn't encode the public key: %w", err)
	}
	id, err = subjectKeyID(spki)
	return spki, id, err
}

// newSerial makes a random positive serial number of exactly 20 octets, the most
// that RFC 5280 section 4.1.2.2 allows: 158 random bits.
func newSerial() (*big.Int, error) {
	var b [20]byte
	_, err := rand.Read(b[:])
	if err != nil {
		return nil, fmt.Errorf("couldn't make a serial number: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}
