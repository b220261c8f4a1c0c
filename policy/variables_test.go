package policy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/imprint-iot/imprint/policy"
)

func attribute(last int, value string) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, last}, Value: value}
}

// names gives every attribute that is a policy variable, with a prefix.
func names(prefix string) []pkix.AttributeTypeAndValue {
	var out []pkix.AttributeTypeAndValue
	for _, last := range []int{46, 6, 10, 11, 8, 3, 5, 12, 4, 42, 43, 65, 44} {
		out = append(out, attribute(last, fmt.Sprintf("%s%d", prefix, last)))
	}
	return out
}

func generalNames(t *testing.T, prefix string) []byte {
	t.Helper()
	rdns := pkix.RDNSequence{{attribute(6, "US")}, {attribute(10, "IoT")}, {attribute(11, "Smart,Home")}, {attribute(3, "Bulb")}}
	directory, err := asn1.Marshal(rdns)
	if err != nil {
		t.Fatal(err)
	}
	context := func(tag int, content []byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: tag == 4, Bytes: content}
	}
	der, err := asn1.Marshal([]asn1.RawValue{
		context(1, []byte(prefix+"@example.com")), context(2, []byte(prefix+".example.com")), context(4, directory),
		context(6, []byte("urn:"+prefix)), context(7, []byte{192, 0, 2, 1}), context(2, []byte("second.example.com")),
	})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certificate(t *testing.T, subject, issuer []pkix.AttributeTypeAndValue) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := new(big.Int).SetString("921285cbb7a5e086", 16)
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{ExtraNames: subject}, ExtraExtensions: []pkix.Extension{
		{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: generalNames(t, "subject")},
		{Id: asn1.ObjectIdentifier{2, 5, 29, 18}, Value: generalNames(t, "issuer")},
	}}
	parent := &x509.Certificate{Subject: pkix.Name{ExtraNames: issuer}}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// resolves checks the value of a variable in a resource, "" for unresolved.
func resolves(t *testing.T, vars *policy.Variables, variable, want string) {
	t.Helper()
	set := compile(t, doc(allow("iot:Publish", arn+"topic/${"+variable+"}")))
	text := want
	if want == "" {
		text = "${" + variable + "}"
	}
	r := ask(policy.Publish, "topic/", text)
	r.Vars = vars
	x := set.Explain(r)
	got := x.Variables[0]
	if set.Decide(r) != yes || got.Value != want || got.Resolved != (want != "") {
		t.Errorf("${%s} = %+v, want %q", variable, got, want)
	}
}

func TestEveryVariableResolves(t *testing.T) {
	t.Parallel()
	cert := policy.NewCertificateVariables(certificate(t, names("s"), names("i")))
	vars := policy.NewVariables(policy.Binding{
		ClientID: "dev1", SourceIP: netip.MustParseAddr("2001:db8::1"), DomainName: "iot.example.com",
		Thing:       &policy.Thing{Name: "thing1", TypeName: "lamp", Attributes: map[string]string{"site": "A1"}},
		Certificate: cert, CertificateID: "abc", ExposeCertificateID: true,
		Keys: policy.NewKeys(map[string][]string{"aws:PrincipalArn": {"arn:x"}}),
	})
	want := map[string]string{
		"iot:ClientId": "dev1", "iot:clientid": "dev1", "aws:SourceIp": "2001:db8::1", "iot:DomainName": "iot.example.com",
		"aws:CurrentTime": "2026-05-04T03:02:01Z", "aws:EpochTime": "1777863721", "aws:SecureTransport": "true",
		"iot:Connection.Thing.ThingName": "thing1", "iot:Connection.Thing.ThingTypeName": "lamp",
		"iot:Connection.Thing.IsAttached": "true", "iot:Connection.Thing.Attributes[site]": "A1",
		"iot:Connection.Thing.Attributes[SITE]": "", "iot:Connection.Thing.Attributes[none]": "",
		"iot:CertificateId": "abc", "iot:Certificate.SerialNumber": "10525622389124227206",
		"iot:Certificate.AvailableKeys": "", "aws:principalarn": "arn:x", "x:none": "",
	}
	order := []string{"DistinguishedNameQualifier", "Country", "Organization", "OrganizationalUnit", "State", "CommonName",
		"SerialNumber", "Title", "Surname", "GivenName", "Initials", "Pseudonym", "GenerationQualifier"}
	for side, prefix := range map[string]string{"Subject": "s", "Issuer": "i"} {
		for i, a := range names(prefix) {
			want["iot:Certificate."+side+"."+order[i]] = a.Value.(string)
		}
		base, low := "iot:Certificate."+side+".AlternativeName.", strings.ToLower(side)
		want[base+"RFC822Name"] = low + "@example.com"
		want[base+"DNSName"] = low + ".example.com"
		want[base+"DNSName.1"] = "second.example.com"
		want[base+"DNSName.2"] = ""
		want[base+"DNSName.List"] = ""
		want[base+"DirectoryName"] = `cn=Bulb,ou=Smart\,Home,o=IoT,c=US`
		want[base+"UniformResourceIdentifier"] = "urn:" + low
		want[base+"IPAddress"] = "192.0.2.1"
	}
	for variable, value := range want {
		resolves(t, vars, variable, value)
	}
	if got := len(cert.AvailableKeys()); got != 37 {
		t.Errorf("AvailableKeys has %d names, want 37: %v", got, cert.AvailableKeys())
	}
}

func TestMultipleCertificateValues(t *testing.T) {
	t.Parallel()
	var subject []pkix.AttributeTypeAndValue
	for i := range 7 {
		subject = append(subject, attribute(11, fmt.Sprint("ou", i)))
	}
	cert := certificate(t, subject, names("i"))
	vars := policy.NewVariables(policy.Binding{Certificate: policy.NewCertificateVariables(cert)})
	const ou = "iot:Certificate.Subject.OrganizationalUnit"
	for suffix, want := range map[string]string{"": "ou0", ".1": "ou1", ".4": "ou4", ".5": "", ".6": ""} {
		resolves(t, vars, ou+suffix, want)
	}
	for condition, want := range map[string]policy.Decision{
		`"ForAnyValue:StringEquals":{"` + ou + `.List":["ou4"]}`:                                      yes,
		`"ForAnyValue:StringEquals":{"` + ou + `.List":["ou5"]}`:                                      no,
		`"ForAllValues:StringLike":{"` + ou + `.list":["ou?"]}`:                                       yes,
		`"ForAllValues:StringLike":{"` + ou + `.List":["ou[0]"]}`:                                     no,
		`"StringEquals":{"` + ou + `":["ou1"]}`:                                                       no,
		`"StringEquals":{"` + ou + `.1":["ou1"]}`:                                                     yes,
		`"ForAnyValue:StringEquals":{"iot:Certificate.AvailableKeys":["` + ou + `"]}`:                 yes,
		`"ForAnyValue:StringLike":{"iot:Certificate.AvailableKeys":["iot:*.Subject.Country"]}`:        no,
		`"Null":{"iot:Certificate.Subject.CommonName":"true","iot:Certificate.SerialNumber":"false"}`: yes,
	} {
		r := ask(policy.Publish, "topic/", "x")
		r.Vars = vars
		check(t, compile(t, conditional(condition)), r, want)
	}
}

func TestCertificateValuesThatAreNotSubstituted(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"plain": "plain", "a*b": "", "a$b": "", "a+b": "", "a?b": "", "a#b": "",
		strings.Repeat("x", 1024): strings.Repeat("x", 1024), strings.Repeat("x", 1025): "",
		strings.Repeat("é", 1024): strings.Repeat("é", 1024),
		`O=A, "B"; <C>\`:          `O\=A\, \"B\"\; \<C\>\\`,
	} {
		cert := &x509.Certificate{Subject: pkix.Name{Names: []pkix.AttributeTypeAndValue{attribute(3, value)}}}
		vars := policy.NewVariables(policy.Binding{Certificate: policy.NewCertificateVariables(cert)})
		// %q of the resource helper escapes the backslashes for JSON.
		set := compile(t, doc(fmt.Sprintf(`{"Effect":"Allow","Action":"*","Resource":%q}`, arn+"topic/${iot:Certificate.Subject.CommonName}")))
		r := ask(policy.Publish, "topic/", want)
		r.Vars = vars
		got := set.Decide(r)
		if (got == yes) != (want != "") {
			t.Errorf("value %.20q as %.20q: %v", value, want, got)
		}
	}
}

func TestSubstitutionRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		binding  policy.Binding
		variable string
		want     string
	}{
		{"client id with a star", policy.Binding{ClientID: "a*"}, "iot:ClientId", ""},
		{"client id with a question mark", policy.Binding{ClientID: "a?"}, "iot:ClientId", ""},
		{"client id with a dollar sign", policy.Binding{ClientID: "$a"}, "iot:ClientId", ""},
		{"client id plus", policy.Binding{ClientID: "+"}, "iot:ClientId", "+"},
		{"client id plus refused on request", policy.Binding{ClientID: "+", RefuseInSubstitution: "+#*?$"}, "iot:ClientId", ""},
		{"no client id outside a connection", policy.Binding{ClientID: "a", NoConnection: true}, "iot:ClientId", ""},
		{"no thing outside a connection", policy.Binding{Thing: &policy.Thing{Name: "t"}, NoConnection: true}, "iot:Connection.Thing.ThingName", ""},
		{"IsAttached without a thing", policy.Binding{}, "iot:Connection.Thing.IsAttached", "false"},
		{"no type", policy.Binding{Thing: &policy.Thing{Name: "t"}}, "iot:Connection.Thing.ThingTypeName", ""},
		{"certificate id is off by default", policy.Binding{CertificateID: "abc"}, "iot:CertificateId", ""},
		{"insecure transport", policy.Binding{InsecureTransport: true}, "aws:SecureTransport", "false"},
		{"no certificate", policy.Binding{}, "iot:Certificate.SerialNumber", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resolves(t, policy.NewVariables(tt.binding), tt.variable, tt.want)
		})
	}
}

func TestRequestKeysWinOverBindingKeys(t *testing.T) {
	t.Parallel()
	vars := policy.NewVariables(policy.Binding{Keys: policy.NewKeys(map[string][]string{"x:k": {"a"}})})
	r := ask(policy.Publish, "topic/", "t")
	r.Vars = vars
	set := compile(t, conditional(`"StringEquals":{"x:k":"a"}`))
	check(t, set, r, yes)
	r.Keys = policy.NewKeys(map[string][]string{"x:k": {"b"}})
	check(t, set, r, no)
}

func TestMalformedAlternativeNamesAreLeftOut(t *testing.T) {
	t.Parallel()
	cert := &x509.Certificate{SerialNumber: big.NewInt(7), Extensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 0x80}}}}
	want := []string{"iot:Certificate.SerialNumber"}
	if diff := cmp.Diff(want, slices.Clone(policy.NewCertificateVariables(cert).AvailableKeys())); diff != "" {
		t.Errorf("AvailableKeys (-want +got):\n%s", diff)
	}
}
