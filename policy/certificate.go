package policy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// maxAttributeValues is how many values of one attribute are kept.
const maxAttributeValues = 5

// refusedInCertificate keep a certificate attribute from being substituted
// (developer guide, "X.509 Certificate policy variable limitations").
const refusedInCertificate = "*$+?#"

// certSlot is one attribute of the subject (0...) or the issuer (sideIssuer...).
type certSlot uint8

const (
	sideSubject certSlot = 0
	sideIssuer  certSlot = certSlot(len(certNames))
)

// certNames are the names after "iot:Certificate.Subject." and "iot:Certificate.Issuer.".
var certNames = [...]string{
	"DistinguishedNameQualifier", "Country", "Organization", "OrganizationalUnit", "State", "CommonName",
	"SerialNumber", "Title", "Surname", "GivenName", "Initials", "Pseudonym", "GenerationQualifier",
	"AlternativeName.RFC822Name", "AlternativeName.DNSName", "AlternativeName.DirectoryName",
	"AlternativeName.UniformResourceIdentifier", "AlternativeName.IPAddress",
}

const firstAlternativeName = 13

// directoryAttribute gives the place in certNames and the short name of an
// attribute type under 2.5.4 (X.520); -1 for one that is no policy variable.
func directoryAttribute(oid asn1.ObjectIdentifier) (int, string) {
	if len(oid) != 4 || oid[0] != 2 || oid[1] != 5 || oid[2] != 4 {
		if oid.Equal(asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}) {
			return -1, "dc"
		}
		return -1, oid.String()
	}
	switch oid[3] {
	case 3:
		return 5, "cn"
	case 4:
		return 8, "sn"
	case 5:
		return 6, "serialNumber"
	case 6:
		return 1, "c"
	case 7:
		return -1, "l"
	case 8:
		return 4, "st"
	case 9:
		return -1, "street"
	case 10:
		return 2, "o"
	case 11:
		return 3, "ou"
	case 12:
		return 7, "title"
	case 42:
		return 9, "givenName"
	case 43:
		return 10, "initials"
	case 44:
		return 12, "generationQualifier"
	case 46:
		return 0, "dnQualifier"
	case 65:
		return 11, "pseudonym"
	}
	return -1, oid.String()
}

// CertificateVariables are the iot:Certificate.* values of one certificate. They
// never change and may be shared by all connections of that certificate.
type CertificateVariables struct {
	serial bound
	slots  []slotValues
}

// slotValues are the values of one attribute. Bit i of refused keeps value i from being substituted.
type slotValues struct {
	slot    certSlot
	refused uint8
	values  []string
}

// NewCertificateVariables reads subject, issuer, both alternative names and the
// serial number. The serial number is decimal; values of distinguished names
// carry a backslash before the characters , " \ + = < > ; and a
// DirectoryName reads "cn=...,ou=...,c=..." (developer guide, "Using X.509
// certificate policy variables"). An alternative name that is not valid DER is
// left out.
func NewCertificateVariables(cert *x509.Certificate) *CertificateVariables {
	v := &CertificateVariables{}
	if cert.SerialNumber != nil {
		v.serial = bound{text: cert.SerialNumber.String(), present: true}
	}
	v.addName(sideSubject, cert.Subject.Names)
	v.addName(sideIssuer, cert.Issuer.Names)
	for _, ext := range cert.Extensions {
		switch {
		case ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}):
			v.addAlternativeNames(sideSubject, ext.Value)
		case ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 18}):
			v.addAlternativeNames(sideIssuer, ext.Value)
		}
	}
	return v
}

func (v *CertificateVariables) addName(side certSlot, names []pkix.AttributeTypeAndValue) {
	for _, name := range names {
		place, _ := directoryAttribute(name.Type)
		text, ok := name.Value.(string)
		if place >= 0 && ok {
			v.add(side+certSlot(place), text, escapeName(text))
		}
	}
}

// add appends a value; raw is what the limits are applied to.
func (v *CertificateVariables) add(slot certSlot, raw, text string) {
	i := 0
	for i < len(v.slots) && v.slots[i].slot != slot {
		i++
	}
	if i == len(v.slots) {
		v.slots = append(v.slots, slotValues{slot: slot})
	}
	s := &v.slots[i]
	if len(s.values) == maxAttributeValues {
		return
	}
	if raw == "" || strings.ContainsAny(raw, refusedInCertificate) || utf8.RuneCountInString(raw) > maxValueChars {
		s.refused |= 1 << len(s.values)
	}
	s.values = append(s.values, text)
}

func escapeName(s string) string {
	const special = `,"\+=<>;`
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// addAlternativeNames reads GeneralNames (RFC 5280 section 4.2.1.6).
func (v *CertificateVariables) addAlternativeNames(side certSlot, der []byte) {
	var names []asn1.RawValue
	rest, err := asn1.Unmarshal(der, &names)
	if err != nil || len(rest) > 0 {
		return
	}
	side += firstAlternativeName
	for _, name := range names {
		if name.Class != asn1.ClassContextSpecific {
			continue
		}
		text := string(name.Bytes)
		switch name.Tag {
		case 1:
			v.add(side, text, text)
		case 2:
			v.add(side+1, text, text)
		case 4:
			directory, ok := directoryName(name.Bytes)
			if ok {
				v.add(side+2, directory, directory)
			}
		case 6:
			v.add(side+3, text, text)
		case 7:
			address, ok := netip.AddrFromSlice(name.Bytes)
			if ok {
				v.add(side+4, address.String(), address.String())
			}
		}
	}
}

// directoryName writes a Name most specific part first, as in RFC 4514.
func directoryName(der []byte) (string, bool) {
	var rdns pkix.RDNSequence
	rest, err := asn1.Unmarshal(der, &rdns)
	if err != nil || len(rest) > 0 {
		return "", false
	}
	parts := make([]string, 0, len(rdns))
	for i := len(rdns) - 1; i >= 0; i-- {
		for _, attribute := range rdns[i] {
			text, ok := attribute.Value.(string)
			if !ok {
				return "", false
			}
			_, short := directoryAttribute(attribute.Type)
			parts = append(parts, short+"="+escapeName(text))
		}
	}
	return strings.Join(parts, ","), true
}

// at gives one value, present if the attribute has that many.
func (v *CertificateVariables) at(slot certSlot, index int) bound {
	for i := range v.slots {
		s := &v.slots[i]
		if s.slot == slot && index < len(s.values) {
			return bound{text: s.values[index], present: true, refused: s.refused&(1<<index) != 0}
		}
	}
	return bound{}
}

func (v *CertificateVariables) list(slot certSlot) []string {
	for i := range v.slots {
		if v.slots[i].slot == slot {
			return v.slots[i].values
		}
	}
	return nil
}

// AvailableKeys lists the certificate variables that have a value, by the name
// of their first value. It is the value of iot:Certificate.AvailableKeys.
func (v *CertificateVariables) AvailableKeys() []string {
	var out []string
	for slot := range 2 * sideIssuer {
		if v.list(slot) == nil {
			continue
		}
		if slot < sideIssuer {
			out = append(out, "iot:Certificate.Subject."+certNames[slot])
			continue
		}
		out = append(out, "iot:Certificate.Issuer."+certNames[slot-sideIssuer])
	}
	if v.serial.present {
		out = append(out, "iot:Certificate.SerialNumber")
	}
	return out
}
