package template

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// subjectAttribute is a JITP parameter that comes from an attribute of the subject. All of them are
// X.520 attributes, 2.5.4.arc.
type subjectAttribute struct {
	parameter string
	name      string
	arc       int
}

// The table of the developer guide, page "Just-in-time provisioning".
var subjectAttributes = [...]subjectAttribute{
	{"AWS::IoT::Certificate::Country", "country (C, 2.5.4.6)", 6},
	{"AWS::IoT::Certificate::Organization", "organization (O, 2.5.4.10)", 10},
	{"AWS::IoT::Certificate::OrganizationalUnit", "organizational unit (OU, 2.5.4.11)", 11},
	{"AWS::IoT::Certificate::DistinguishedNameQualifier", "dnQualifier (2.5.4.46)", 46},
	{"AWS::IoT::Certificate::StateName", "state or province (ST, 2.5.4.8)", 8},
	{"AWS::IoT::Certificate::CommonName", "common name (CN, 2.5.4.3)", 3},
	{"AWS::IoT::Certificate::SerialNumber", "serialNumber (2.5.4.5)", 5},
}

// JITPParameters lists the eight parameters that a JITP template may declare.
func JITPParameters() []string {
	names := make([]string, 0, len(subjectAttributes)+1)
	for _, a := range subjectAttributes {
		names = append(names, a.parameter)
	}
	return append(names, CertificateIDParameter)
}

func isJITPParameter(name string) bool {
	return slices.Contains(JITPParameters(), name)
}

// subjectName describes the subject attribute behind a parameter, or gives "".
func subjectName(parameter string) string {
	for _, a := range subjectAttributes {
		if a.parameter == parameter {
			return a.name
		}
	}
	return ""
}

// SubjectField names the field of a certificate's subject that a JITP parameter comes
// from, such as "country (C, 2.5.4.6)"; empty for others.
func SubjectField(parameter string) string { return subjectName(parameter) }

// The types of a subject on the wire (RFC 5280, section 4.1.2.4). encoding/asn1 reads a slice type
// whose name ends in SET as a SET.
type attributeTypeAndValue struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type relativeNameSET []attributeTypeAndValue

// SubjectParameters gives the JITP parameters of a certificate: those of the eight whose
// attribute its subject has, and AWS::IoT::Certificate::Id, which is certificateID.
//
// Attributes are found by object identifier. The first value counts when an attribute appears
// several times, in the order of the encoding. SerialNumber is the subject's serialNumber
// attribute (2.5.4.5), not the serial number of the certificate. Values of type UTF8String,
// PrintableString, NumericString, IA5String, VisibleString, TeletexString (as ISO 8859-1),
// BMPString and UniversalString are understood; a value of another type, or one that is malformed,
// counts as absent. Only cert.RawSubject is read, as x509.ParseCertificate fills it.
//
// Source: AWS IoT developer guide, "Just-in-time provisioning". That the first of several values
// counts is not documented.
func SubjectParameters(cert *x509.Certificate, certificateID string) map[string]string {
	params := make(map[string]string, len(subjectAttributes)+1)
	params[CertificateIDParameter] = certificateID
	if cert == nil {
		return params
	}
	var name []relativeNameSET
	rest, err := asn1.Unmarshal(cert.RawSubject, &name)
	if err != nil || len(rest) > 0 {
		return params
	}
	for _, set := range name {
		for _, attribute := range set {
			addSubject(params, attribute)
		}
	}
	return params
}

func addSubject(params map[string]string, attribute attributeTypeAndValue) {
	oid := attribute.Type
	if len(oid) != 4 || oid[0] != 2 || oid[1] != 5 || oid[2] != 4 {
		return
	}
	for _, a := range subjectAttributes {
		if a.arc != oid[3] {
			continue
		}
		if _, known := params[a.parameter]; known {
			return
		}
		value, ok := decodeString(attribute.Value)
		if ok {
			params[a.parameter] = value
		}
		return
	}
}

const (
	tagVisibleString   = 26
	tagUniversalString = 28
)

func decodeString(v asn1.RawValue) (string, bool) {
	if v.Class != asn1.ClassUniversal || v.IsCompound {
		return "", false
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagNumericString, asn1.TagIA5String, tagVisibleString:
		return string(v.Bytes), utf8.Valid(v.Bytes)
	case asn1.TagT61String:
		runes := make([]rune, len(v.Bytes))
		for i, b := range v.Bytes {
			runes[i] = rune(b)
		}
		return string(runes), true
	case asn1.TagBMPString:
		if len(v.Bytes)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(v.Bytes)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(v.Bytes[2*i:])
		}
		return string(utf16.Decode(units)), true
	case tagUniversalString:
		return decodeUTF32(v.Bytes)
	}
	return "", false
}

func decodeUTF32(b []byte) (string, bool) {
	if len(b)%4 != 0 {
		return "", false
	}
	runes := make([]rune, 0, len(b)/4)
	for ; len(b) > 0; b = b[4:] {
		r := binary.BigEndian.Uint32(b)
		if r > utf8.MaxRune || !utf8.ValidRune(rune(r)) {
			return "", false
		}
		runes = append(runes, rune(r))
	}
	return string(runes), true
}
