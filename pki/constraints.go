package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// limits are what a CA's certificate lets stand below it (RFC 5280 section 4.2.1.10). Those
// of all certificates of the chain hold, as for a verifier.
type limits struct {
	cert *x509.Certificate
	// directories are what Go's verifier doesn't know: names of directories.
	permittedDirectories, excludedDirectories [][]relativeName
}

var nameConstraintsID = objectID{2, 5, 29, 30}

// newLimits reads a certificate's limits. It refuses what isn't understood: below it, a
// certificate might be signed that a verifier refuses, or should.
func newLimits(cert *x509.Certificate) (limits, error) {
	l := limits{cert: cert}
	for _, id := range cert.UnhandledCriticalExtensions {
		if !id.Equal(nameConstraintsID) {
			return l, invalid("CA %s has the critical extension %s, which isn't understood", SubjectText(cert.RawSubject), id).
				WithHint("Let its certificate be signed without it, or not as critical.")
		}
	}
	at := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(nameConstraintsID) })
	if at < 0 {
		return l, nil
	}
	wrong := func(what string) error {
		return invalid("CA %s has name constraints with %s, which aren't understood", SubjectText(cert.RawSubject), what).
			WithHint("Constraints of DNS names, addresses, email, URIs and directories are.")
	}
	input := cryptobyte.String(cert.Extensions[at].Value)
	var body cryptobyte.String
	if !input.ReadASN1(&body, cryptobyte_asn1.SEQUENCE) || !input.Empty() {
		return l, wrong("an odd encoding")
	}
	for n, into := range []*[][]relativeName{&l.permittedDirectories, &l.excludedDirectories} {
		var trees cryptobyte.String
		var present bool
		if !body.ReadOptionalASN1(&trees, &present, cryptobyte_asn1.Tag(n).ContextSpecific().Constructed()) {
			return l, wrong("an odd encoding")
		}
		for !trees.Empty() {
			var tree, name cryptobyte.String
			var tag cryptobyte_asn1.Tag
			if !trees.ReadASN1(&tree, cryptobyte_asn1.SEQUENCE) || !tree.ReadAnyASN1(&name, &tag) || !tree.Empty() {
				return l, wrong("distances or an odd encoding")
			}
			switch tag {
			case cryptobyte_asn1.Tag(1).ContextSpecific(), cryptobyte_asn1.Tag(2).ContextSpecific(), cryptobyte_asn1.Tag(6).ContextSpecific(), cryptobyte_asn1.Tag(7).ContextSpecific():
			case cryptobyte_asn1.Tag(4).ContextSpecific().Constructed():
				directory, err := parseName(name)
				if err != nil {
					return l, wrong("a directory name that isn't one")
				}
				*into = append(*into, directory)
			default:
				return l, wrong("names of other kinds")
			}
		}
	}
	return l, nil
}

// PathLimit gives how many CAs a CA's certificate lets stand in a row below it; -1: any
// number.
func PathLimit(cert *x509.Certificate) int {
	if !cert.BasicConstraintsValid || cert.MaxPathLen == 0 && !cert.MaxPathLenZero {
		return -1
	}
	return cert.MaxPathLen
}

// permits says why a subject and names can't stand below the CA; nil when they can. An
// address in the subject counts as an email name.
func (l *limits) permits(subject []byte, names AltNames) error {
	parsed, err := parseName(subject)
	if err != nil {
		return err
	}
	err = l.permitsDirectory(parsed)
	if err != nil {
		return err
	}
	mails := slices.Clone(names.Emails)
	for _, one := range parsed {
		for _, a := range one {
			if text, isText := a.text(); isText && attributeName(a.Type) == "EMAIL" {
				mails = append(mails, text)
			}
		}
	}
	for _, mail := range mails {
		err := withinConstraints("email name", mail, l.cert.PermittedEmailAddresses, l.cert.ExcludedEmailAddresses, underMail)
		if err != nil {
			return err
		}
	}
	for _, name := range names.DNS {
		err := withinConstraints("DNS name", name, l.cert.PermittedDNSDomains, l.cert.ExcludedDNSDomains, underDomain)
		if err != nil {
			return err
		}
		for _, constraint := range l.cert.ExcludedDNSDomains {
			if below, wild := strings.CutPrefix(name, "*."); wild && underDomain(constraint, below) {
				return invalid("the CA's name constraints exclude %q, for which the DNS name %q would stand, too", constraint, name)
			}
		}
	}
	for _, uri := range names.URIs {
		if len(l.cert.PermittedURIDomains)+len(l.cert.ExcludedURIDomains) == 0 {
			continue
		}
		// RFC 5280: what has no host name can't be within constraints.
		if host := uri.Hostname(); host == "" || net.ParseIP(host) != nil {
			return invalid("the CA's name constraints are about the hosts of URIs, and %q has none with a name", uri)
		}
		err := withinConstraints("URI", uri.Hostname(), l.cert.PermittedURIDomains, l.cert.ExcludedURIDomains, underURI)
		if err != nil {
			return err
		}
	}
	return l.permitsAddresses(names.IPs)
}

func (l *limits) permitsAddresses(ips []net.IP) error {
	for _, ip := range ips {
		for _, network := range l.cert.ExcludedIPRanges {
			if network.Contains(ip) {
				return invalid("the CA's name constraints exclude the address %s", ip)
			}
		}
		if len(l.cert.PermittedIPRanges) > 0 && !slices.ContainsFunc(l.cert.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(ip) }) {
			return invalid("the CA's name constraints don't permit the address %s", ip)
		}
	}
	return nil
}

// permitsDirectory: an empty subject is in no directory, though RFC 5280 lets it pass.
func (l *limits) permitsDirectory(subject []relativeName) error {
	text := func(name []relativeName) string {
		der, err := encodeName(name)
		if err != nil {
			return "a name that can't be written"
		}
		return SubjectText(der)
	}
	for _, directory := range l.excludedDirectories {
		if underDirectory(subject, directory) {
			return invalid("the CA's name constraints exclude the subject %s: %s", text(subject), text(directory))
		}
	}
	if len(l.permittedDirectories) == 0 || slices.ContainsFunc(l.permittedDirectories, func(d []relativeName) bool { return underDirectory(subject, d) }) {
		return nil
	}
	return invalid("the CA's name constraints don't permit the subject %s, but what is below %s", text(subject), text(l.permittedDirectories[0])).
		WithHint("Put the directory's attributes first into the subject, in its order.")
}

// underDirectory says whether a name begins with another one.
func underDirectory(name, directory []relativeName) bool {
	if len(name) < len(directory) {
		return false
	}
	for n, want := range directory {
		got := name[n]
		if len(got) != len(want) {
			return false
		}
		for _, a := range want {
			if !slices.ContainsFunc(got, a.same) {
				return false
			}
		}
	}
	return true
}

// same compares as RFC 5280 section 7.1 does for text: without regard to case and to how
// much space there is.
func (a attributeValue) same(b attributeValue) bool {
	if !a.Type.Equal(b.Type) {
		return false
	}
	one, isText := a.text()
	two, both := b.text()
	if !isText || !both {
		return bytes.Equal(a.Value.FullBytes, b.Value.FullBytes)
	}
	return strings.EqualFold(strings.Join(strings.Fields(one), " "), strings.Join(strings.Fields(two), " "))
}

func withinConstraints(kind, name string, permitted, excluded []string, under func(name, constraint string) bool) error {
	for _, constraint := range excluded {
		if under(name, constraint) {
			return invalid("the CA's name constraints exclude the %s %q: %s", kind, name, constraint)
		}
	}
	if len(permitted) == 0 || slices.ContainsFunc(permitted, func(constraint string) bool { return under(name, constraint) }) {
		return nil
	}
	return invalid("the CA's name constraints don't permit the %s %q, but %s", kind, name, strings.Join(permitted, ", "))
}

// underDomain: a constraint holds for a host and all below it. One that begins with a dot
// holds for what is below alone; excluding counts it for the host, too.
func underDomain(name, constraint string) bool {
	name, constraint = strings.ToLower(name), strings.ToLower(strings.TrimPrefix(constraint, "."))
	return constraint == "" || name == constraint || strings.HasSuffix(name, "."+constraint)
}

// underURI: a constraint without a leading dot is one host, with it all below.
func underURI(host, constraint string) bool {
	host, constraint = strings.ToLower(host), strings.ToLower(constraint)
	if strings.HasPrefix(constraint, ".") {
		return strings.HasSuffix(host, constraint)
	}
	return host == constraint
}

// underMail: a constraint is a mailbox, a host, or with a leading dot all hosts below.
func underMail(mail, constraint string) bool {
	if strings.Contains(constraint, "@") {
		return strings.EqualFold(mail, constraint)
	}
	_, host, _ := strings.Cut(mail, "@")
	return underURI(host, constraint)
}
