package pki

import (
	"bytes"
	"net"
	"net/url"
	"slices"
	"strings"

	"crypto/x509"
	"crypto/x509/pkix"
)

// SameName says whether two DER names say the same: the same attributes with the same
// text in the same order, in whatever string types they are written.
func SameName(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	first, err := parseName(a)
	if err != nil {
		return false
	}
	second, err := parseName(b)
	if err != nil || len(first) != len(second) {
		return false
	}
	for n := range first {
		if !sameRelativeName(first[n], second[n]) {
			return false
		}
	}
	return true
}

func sameRelativeName(a, b relativeName) bool {
	if len(a) != len(b) {
		return false
	}
	for _, one := range a {
		if !slices.ContainsFunc(b, func(other attributeValue) bool { return sameAttribute(one, other) }) {
			return false
		}
	}
	return true
}

func sameAttribute(a, b attributeValue) bool {
	if !a.Type.Equal(b.Type) {
		return false
	}
	first, isText := a.text()
	second, isTextToo := b.text()
	if isText && isTextToo {
		return first == second
	}
	return bytes.Equal(a.Value.FullBytes, b.Value.FullBytes)
}

// NameValues gives the values of a name's commonName and serialNumber attributes: what a
// device is known by.
func NameValues(der []byte) (commonNames, serialNumbers []string) {
	names, err := parseName(der)
	if err != nil {
		return nil, nil
	}
	for _, one := range names {
		for _, a := range one {
			text, isText := a.text()
			switch {
			case !isText:
			case attributeName(a.Type) == "CN":
				commonNames = append(commonNames, text)
			case attributeName(a.Type) == "SERIALNUMBER":
				serialNumbers = append(serialNumbers, text)
			}
		}
	}
	return commonNames, serialNumbers
}

// Chosen gives the attributes of a subject, as text such as OU=Site 7, that who asked chose
// himself: the profile doesn't fix them, and none of the given names has them. CommonName and
// serialNumber, NameValues, are left out.
func (p *Profile) Chosen(subject []byte, given ...[]byte) ([]string, error) {
	names, err := parseName(subject)
	if err != nil {
		return nil, err
	}
	var known []attributeValue
	for _, der := range given {
		one, err := parseName(der)
		if err != nil {
			return nil, err
		}
		known = append(known, slices.Concat(one...)...)
	}
	var chosen []string
	for _, a := range slices.Concat(names...) {
		name := attributeName(a.Type)
		if name == "CN" || name == "SERIALNUMBER" || slices.ContainsFunc(p.rules.fixed, func(f pkix.AttributeTypeAndValue) bool { return f.Type.Equal(a.Type) }) ||
			slices.ContainsFunc(known, func(k attributeValue) bool { return sameAttribute(a, k) }) {
			continue
		}
		text, _ := a.text()
		chosen = append(chosen, name+"="+text)
	}
	return chosen, nil
}

// ChosenNames gives the names that a request asks for in subjectAltName, as text such as
// dns:host.example.com, which who asked chose himself: they aren't among his own, nor what he is
// known by, and the profile has no pattern for their kind.
func (p *Profile) ChosenNames(asked, own AltNames, known ...string) []string {
	if p.kind == KindAWSDevice {
		return nil // it ignores them
	}
	given := own.texts()
	return slices.DeleteFunc(asked.texts(), func(name string) bool {
		kind, value, _ := strings.Cut(name, ":")
		return p.names.patterns[kind] != nil || slices.Contains(given, name) ||
			slices.ContainsFunc(known, func(k string) bool { return value == k || kind == "dns" && strings.EqualFold(value, k) })
	})
}

// NamesOf gives what a certificate has in its subjectAltName.
func NamesOf(cert *x509.Certificate) AltNames {
	return AltNames{DNS: cert.DNSNames, IPs: cert.IPAddresses, URIs: cert.URIs, Emails: cert.EmailAddresses}
}

// Empty says whether there are none.
func (n *AltNames) Empty() bool { return n.empty() }

// Same says whether two have the same names, in whatever order.
func (n *AltNames) Same(other *AltNames) bool {
	return slices.Equal(n.texts(), other.texts())
}

// texts gives all names with their kinds, in order.
func (n *AltNames) texts() []string {
	var all []string
	add := func(kind string, values []string) {
		for _, value := range values {
			all = append(all, kind+value)
		}
	}
	add("dns:", lower(n.DNS))
	add("ip:", texts(n.IPs, net.IP.String))
	add("uri:", texts(n.URIs, (*url.URL).String))
	add("email:", n.Emails)
	slices.Sort(all)
	return all
}

func lower(names []string) []string { return texts(names, strings.ToLower) }

func texts[T any](values []T, text func(T) string) []string {
	all := make([]string, 0, len(values))
	for _, value := range values {
		all = append(all, text(value))
	}
	return all
}
