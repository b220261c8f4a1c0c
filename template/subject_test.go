package template_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/template"
)

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type nameSET []attribute

// attr is an X.520 attribute with a value of any string type.
func attr(arc, tag int, content string) attribute {
	return attribute{asn1.ObjectIdentifier{2, 5, 4, arc}, asn1.RawValue{Class: asn1.ClassUniversal, Tag: tag, Bytes: []byte(content)}}
}

// subject is a certificate with that subject, one set for each argument.
func subject(t testing.TB, sets ...nameSET) *x509.Certificate {
	t.Helper()
	raw, err := asn1.Marshal(sets)
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{RawSubject: raw}
}

func TestSubjectParametersOfAnIssuedCertificate(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	unsigned := &x509.Certificate{
		SerialNumber: big.NewInt(4711), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0),
		Subject: pkix.Name{
			Country: []string{"FR"}, Organization: []string{"Example"}, OrganizationalUnit: []string{"Bulbs"},
			Province: []string{"Rhône"}, CommonName: "bulb-17", SerialNumber: "SN-0017", Locality: []string{"Lyon"},
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 46}, Value: "q1"}},
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, unsigned, unsigned, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"AWS::IoT::Certificate::Country":                    "FR",
		"AWS::IoT::Certificate::Organization":               "Example",
		"AWS::IoT::Certificate::OrganizationalUnit":         "Bulbs",
		"AWS::IoT::Certificate::DistinguishedNameQualifier": "q1",
		"AWS::IoT::Certificate::StateName":                  "Rhône",
		"AWS::IoT::Certificate::CommonName":                 "bulb-17",
		"AWS::IoT::Certificate::SerialNumber":               "SN-0017",
		"AWS::IoT::Certificate::Id":                         certID,
	}
	if diff := cmp.Diff(want, template.SubjectParameters(cert, certID)); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	if got := len(template.JITPParameters()); got != len(want) {
		t.Errorf("got %d JITP parameters, want %d", got, len(want))
	}
}

func TestSubjectParametersReadEveryStringType(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		tag           int
		content, want string
		absent        bool
	}{
		"UTF8String":                          {tag: asn1.TagUTF8String, content: "é€", want: "é€"},
		"PrintableString":                     {tag: asn1.TagPrintableString, content: "a b", want: "a b"},
		"PrintableString with an asterisk":    {tag: asn1.TagPrintableString, content: "a*_@", want: "a*_@"},
		"NumericString":                       {tag: asn1.TagNumericString, content: "17", want: "17"},
		"IA5String":                           {tag: asn1.TagIA5String, content: "a@example.com", want: "a@example.com"},
		"VisibleString":                       {tag: 26, content: "v", want: "v"},
		"TeletexString as ISO 8859-1":         {tag: asn1.TagT61String, content: "Rh\xf4ne", want: "Rhône"},
		"BMPString":                           {tag: asn1.TagBMPString, content: "\x00a\x20\xac", want: "a€"},
		"UniversalString":                     {tag: 28, content: "\x00\x00\x00a\x00\x01\xf6\x00", want: "a😀"},
		"an empty string is a value":          {tag: asn1.TagUTF8String, content: "", want: ""},
		"malformed UTF8String is absent":      {tag: asn1.TagUTF8String, content: "\xff", absent: true},
		"odd BMPString is absent":             {tag: asn1.TagBMPString, content: "\x00a\x00", absent: true},
		"odd UniversalString is absent":       {tag: 28, content: "\x00\x00a", absent: true},
		"surrogate UniversalString is absent": {tag: 28, content: "\x00\x00\xd8\x00", absent: true},
		"an integer is absent":                {tag: asn1.TagInteger, content: "\x01", absent: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			params := template.SubjectParameters(subject(t, nameSET{attr(3, row.tag, row.content)}), certID)
			got, present := params["AWS::IoT::Certificate::CommonName"]
			if present == row.absent || got != row.want {
				t.Errorf("got %q, present %v, want %q, present %v", got, present, row.want, !row.absent)
			}
		})
	}
}

func TestSubjectParametersTakeTheFirstValue(t *testing.T) {
	t.Parallel()
	cert := subject(t,
		nameSET{attr(11, asn1.TagUTF8String, "first"), attr(3, asn1.TagUTF8String, "in a set")},
		nameSET{attr(11, asn1.TagUTF8String, "second")})
	want := map[string]string{
		"AWS::IoT::Certificate::OrganizationalUnit": "first",
		"AWS::IoT::Certificate::CommonName":         "in a set",
		"AWS::IoT::Certificate::Id":                 certID,
	}
	if diff := cmp.Diff(want, template.SubjectParameters(cert, certID)); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
}

func TestSubjectParametersWithoutASubject(t *testing.T) {
	t.Parallel()
	want := map[string]string{"AWS::IoT::Certificate::Id": certID}
	for name, cert := range map[string]*x509.Certificate{
		"no certificate": nil, "no subject": {}, "malformed subject": {RawSubject: []byte{0x30, 0x80}},
		"bytes after the subject": {RawSubject: []byte{0x30, 0, 0}},
	} {
		if diff := cmp.Diff(want, template.SubjectParameters(cert, certID)); diff != "" {
			t.Errorf("%s: parameters (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzSubjectParameters(f *testing.F) {
	f.Add([]byte{0x30, 0})
	f.Add(subject(f, nameSET{attr(3, asn1.TagUTF8String, "x")}, nameSET{attr(5, asn1.TagBMPString, "\x00a")}).RawSubject)
	known := map[string]bool{}
	for _, name := range template.JITPParameters() {
		known[name] = true
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		params := template.SubjectParameters(&x509.Certificate{RawSubject: raw}, certID)
		if params["AWS::IoT::Certificate::Id"] != certID {
			t.Errorf("got id %q, want the given one", params["AWS::IoT::Certificate::Id"])
		}
		for name := range params {
			if !known[name] {
				t.Errorf("got parameter %q, which is none of the eight", name)
			}
		}
	})
}
