package acmpca

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
)

// member is one of the subject's, with its attribute.
type member struct {
	value *string
	id    asn1.ObjectIdentifier
}

// members are those of a subject in the order in which a certificate has them.
func (s *subject) members() []member {
	at := func(value *string, last ...int) member {
		return member{value, append(asn1.ObjectIdentifier{2, 5, 4}, last...)}
	}
	return []member{
		at(&s.Country, 6), at(&s.Organization, 10), at(&s.OrganizationalUnit, 11), at(&s.Qualifier, 46), at(&s.State, 8), at(&s.CommonName, 3),
		at(&s.SerialNumber, 5), at(&s.Locality, 7), at(&s.Title, 12), at(&s.Surname, 4), at(&s.GivenName, 42), at(&s.Initials, 43), at(&s.Pseudonym, 65),
		at(&s.GenerationQualifier, 44),
	}
}

// encode gives the DER of a subject. Text that fits is a PrintableString, other a
// UTF8String.
func (s *subject) encode() ([]byte, error) {
	var name pkix.RDNSequence
	add := func(id asn1.ObjectIdentifier, value string) {
		name = append(name, pkix.RelativeDistinguishedNameSET{{Type: id, Value: value}})
	}
	for _, m := range s.members() {
		if *m.value != "" {
			add(m.id, *m.value)
		}
	}
	if len(s.Custom) > 0 && len(name) > 0 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "CustomAttributes stand in the place of the other members of a subject, not beside them")
	}
	for _, c := range s.Custom {
		id, err := objectIdentifier(c.ID)
		if err != nil {
			return nil, err
		}
		add(id, c.Value)
	}
	if len(name) == 0 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the subject is empty").WithHint("Give it a CommonName.")
	}
	der, err := asn1.Marshal(name)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "couldn't encode the subject: %w", err)
	}
	return der, nil
}

func objectIdentifier(text string) (asn1.ObjectIdentifier, error) {
	var id asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.ParseInt(part, 10, 31)
		if err != nil {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "object identifier %q isn't one", imprint.Excerpt(text))
		}
		id = append(id, int(n))
	}
	return id, nil
}

// subjectOf reads a DER subject. What has no member of its own makes all of it custom.
func subjectOf(der []byte) (subject, error) {
	var s subject
	var name pkix.RDNSequence
	rest, err := asn1.Unmarshal(der, &name)
	if err != nil || len(rest) > 0 {
		return s, fmt.Errorf("couldn't read a subject: %w", err)
	}
	fits := true
	for _, set := range name {
		for _, a := range set {
			value, isText := a.Value.(string)
			if !isText || !utf8.ValidString(value) {
				value = fmt.Sprint(a.Value)
			}
			s.Custom = append(s.Custom, customAttribute{ID: a.Type.String(), Value: value})
			found := false
			for _, m := range s.members() {
				if m.id.Equal(a.Type) && *m.value == "" {
					*m.value, found = value, true
				}
			}
			fits = fits && found
		}
	}
	if fits {
		s.Custom = nil
		return s, nil
	}
	return subject{Custom: s.Custom}, nil
}
