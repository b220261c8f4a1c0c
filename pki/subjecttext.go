package pki

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
)

// maxAttributes bounds the attributes of a subject that is given as text.
const maxAttributes = 30

// ParseSubject reads a subject as openssl's -subj writes it, /C=DE/O=Acme/CN=Acme root,
// and gives its DER. A backslash before a slash, a plus or a backslash takes it as a
// character. The names are those of SubjectRules, openssl's own for them, or object
// identifiers. Errors: CodeInvalidRequest.
func ParseSubject(text string) ([]byte, error) {
	if !strings.HasPrefix(text, "/") {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the subject %q doesn't begin with a slash", imprint.Excerpt(text)).
			WithHint("Write it as openssl does: /C=DE/O=Acme/CN=Acme root")
	}
	var name pkix.RDNSequence
	for _, part := range splitSubject(text[1:]) {
		kind, value, found := strings.Cut(part, "=")
		if !found || value == "" || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the subject's part %q isn't NAME=VALUE", imprint.Excerpt(part)).
				WithHint("Write it as openssl does: /C=DE/O=Acme/CN=Acme root")
		}
		id, err := attributeID(subjectAlias(kind))
		if err != nil {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "subject attribute %q isn't known", imprint.Excerpt(kind)).
				WithHint("Use C, ST, L, O, OU, CN, serialNumber, ... or an object identifier.")
		}
		name = append(name, pkix.RelativeDistinguishedNameSET{{Type: id, Value: directoryString(id, value)}})
		if len(name) > maxAttributes {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the subject has more than %d attributes", maxAttributes)
		}
	}
	der, err := asn1.Marshal(name)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the subject: %w", err)
	}
	if len(der) > maxRawSubject {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the subject is longer than %d bytes", maxRawSubject)
	}
	return der, nil
}

// splitSubject divides at the slashes that no backslash stands before.
func splitSubject(text string) []string {
	var parts []string
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case text[i] == '/':
			parts = append(parts, b.String())
			b.Reset()
		default:
			b.WriteByte(text[i])
		}
	}
	return append(parts, b.String())
}

// subjectAlias gives the name of SubjectRules for one of openssl's.
func subjectAlias(name string) string {
	if strings.EqualFold(name, "emailAddress") {
		return "EMAIL"
	}
	return name
}
