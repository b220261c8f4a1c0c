package pki

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
)

// AltNames are what a request asks for in subjectAltName.
type AltNames struct {
	DNS    []string
	IPs    []net.IP
	URIs   []*url.URL
	Emails []string
	// Others are the kinds of names that no profile takes from a request, such as
	// directoryName.
	Others []string
}

func (n *AltNames) empty() bool {
	return len(n.DNS) == 0 && len(n.IPs) == 0 && len(n.URIs) == 0 && len(n.Emails) == 0
}

func (n *AltNames) count() int { return len(n.DNS) + len(n.IPs) + len(n.URIs) + len(n.Emails) }

// maxAltNames bounds the names of one certificate.
const maxAltNames = 100

// NameRules say what may stand in subjectAltName.
type NameRules struct {
	// DNS, IP, URI and Email let names of these kinds in. KindServer has DNS and IP
	// where no rule is given.
	DNS   bool `json:"dns"`
	IP    bool `json:"ip"`
	URI   bool `json:"uri"`
	Email bool `json:"email"`
	// Patterns are regular expressions, by kind (dns, ip, uri, email), that each name
	// must match whole.
	Patterns map[string]string `json:"patterns"`
	// Required certificates without a name aren't made. KindServer requires one.
	Required bool `json:"required"`
	// HardwareType is an object identifier under the maker's arc. With it, KindIDevID
	// certificates have a hardwareModuleName (RFC 4108 section 5) of that type, whose
	// serial number is the subject's serialNumber.
	HardwareType string `json:"hardwareType"`
}

func (r *NameRules) empty() bool {
	return !r.DNS && !r.IP && !r.URI && !r.Email && !r.Required && len(r.Patterns) == 0 && r.HardwareType == ""
}

type nameRules struct {
	dns, ip, uri, email, required bool
	patterns                      map[string]*regexp.Regexp
	hardwareType                  objectID
}

func newNameRules(config *ProfileConfig) (nameRules, error) {
	given := config.Names
	r := nameRules{dns: given.DNS, ip: given.IP, uri: given.URI, email: given.Email, required: given.Required}
	if config.Kind == KindServer {
		if given.empty() {
			r.dns, r.ip = true, true
		}
		r.required = true
	}
	if config.Kind.isCA() && !given.empty() {
		return r, config.wrong("CAs have no subjectAltName")
	}
	for kind, text := range given.Patterns {
		if !slices.Contains([]string{"dns", "ip", "uri", "email"}, kind) {
			return r, config.wrong("names of the kind %q don't exist", imprint.Excerpt(kind)).WithHint("Kinds: dns, ip, uri, email.")
		}
		pattern, err := wholePattern(text)
		if err != nil {
			return r, config.wrong("the pattern of %s names isn't a regular expression: %w", kind, err)
		}
		if r.patterns == nil {
			r.patterns = map[string]*regexp.Regexp{}
		}
		r.patterns[kind] = pattern
	}
	if given.HardwareType == "" {
		return r, nil
	}
	if config.Kind != KindIDevID {
		return r, config.wrong("hardwareType is for the kind %s", KindIDevID)
	}
	id, err := parseObjectID(given.HardwareType)
	if err != nil {
		return r, config.wrong("hardwareType %q isn't an object identifier", imprint.Excerpt(given.HardwareType))
	}
	r.hardwareType = id
	return r, nil
}

// check refuses names that the profile doesn't take.
func (r *nameRules) check(names AltNames, profile string) error {
	refused := func(kind, name string) error {
		return invalid("the request asks for the %s name %q, which profile %s doesn't allow", kind, imprint.Excerpt(name), profile).
			WithHint("Leave it out of the request's subjectAltName.")
	}
	if n := names.count(); n > maxAltNames {
		return invalid("the request asks for %d names, at most %d are allowed", n, maxAltNames)
	}
	for _, kind := range names.Others {
		if kind == hardwareModule && r.hardwareType != nil {
			continue // it is made of the subject's serialNumber
		}
		return invalid("the request asks for a name of the kind %s, which can't be taken from requests", kind).
			WithHint("Leave it out of the request's subjectAltName: DNS, IP, URI and email names can be asked for.")
	}
	matches := func(kind, name string) bool {
		pattern := r.patterns[kind]
		return pattern == nil || pattern.MatchString(name)
	}
	for _, name := range names.DNS {
		if !r.dns || !hostName(strings.ToLower(name)) || !matches("dns", name) {
			return refused("DNS", name)
		}
	}
	for _, ip := range names.IPs {
		if !r.ip || len(ip) == 0 || !matches("ip", ip.String()) {
			return refused("IP", ip.String())
		}
	}
	for _, uri := range names.URIs {
		if !r.uri || !matches("uri", uri.String()) {
			return refused("URI", uri.String())
		}
	}
	for _, mail := range names.Emails {
		if !r.email || !strings.Contains(mail, "@") || !isASCII(mail) || !matches("email", mail) {
			return refused("email", mail)
		}
	}
	if r.required && names.empty() {
		return invalid("the request has no subjectAltName, which profile %s demands", profile).
			WithHint(`openssl req -new -addext "subjectAltName = DNS:host.example.com"`)
	}
	return nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] < 0x20 {
			return false
		}
	}
	return true
}

// extension encodes the names (RFC 5280 section 4.2.1.6); false when there are none.
func (r *nameRules) extension(names AltNames, subject []byte) (pkix.Extension, bool, error) {
	var hardware string
	if r.hardwareType != nil {
		parsed, err := parseName(subject)
		if err != nil {
			return pkix.Extension{}, false, err
		}
		for _, one := range parsed {
			for _, a := range one {
				if attributeName(a.Type) == "SERIALNUMBER" {
					hardware, _ = a.text()
				}
			}
		}
	}
	if names.empty() && hardware == "" {
		return pkix.Extension{}, false, nil
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if hardware != "" {
			addHardwareModule(b, r.hardwareType, hardware)
		}
		for _, mail := range names.Emails {
			addGeneralName(b, 1, []byte(mail))
		}
		for _, name := range names.DNS {
			addGeneralName(b, 2, []byte(name))
		}
		for _, uri := range names.URIs {
			addGeneralName(b, 6, []byte(uri.String()))
		}
		for _, ip := range names.IPs {
			raw := ip
			if v4 := ip.To4(); v4 != nil {
				raw = v4
			}
			addGeneralName(b, 7, raw)
		}
	})
	der, err := b.Bytes()
	if err != nil {
		return pkix.Extension{}, false, invalid("couldn't encode subjectAltName: %w", err)
	}
	return pkix.Extension{Id: objectID{2, 5, 29, 17}, Critical: emptyName(subject), Value: der}, true, nil
}

func addGeneralName(b *cryptobyte.Builder, tag uint8, value []byte) {
	b.AddASN1(cryptobyte_asn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
}

// addHardwareModule writes an otherName of RFC 4108 section 5.
func addHardwareModule(b *cryptobyte.Builder, kind asn1.ObjectIdentifier, serial string) {
	explicit := cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()
	b.AddASN1(explicit, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(hardwareModuleID)
		b.AddASN1(explicit, func(b *cryptobyte.Builder) {
			b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(kind)
				b.AddASN1OctetString([]byte(serial))
			})
		})
	})
}

const hardwareModule = "hardwareModuleName"

// otherNames gives the kinds of names in a request that crypto/x509 doesn't read.
func otherNames(extensions []pkix.Extension) []string {
	at := slices.IndexFunc(extensions, func(e pkix.Extension) bool { return e.Id.Equal(objectID{2, 5, 29, 17}) })
	if at < 0 {
		return nil
	}
	input := cryptobyte.String(extensions[at].Value)
	var names cryptobyte.String
	if !input.ReadASN1(&names, cryptobyte_asn1.SEQUENCE) {
		return []string{"that can't be read"}
	}
	var kinds []string
	for !names.Empty() {
		var name cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !names.ReadAnyASN1(&name, &tag) {
			return append(kinds, "that can't be read")
		}
		switch number := tag & 0x1f; number {
		case 1, 2, 6, 7:
		case 0:
			var id asn1.ObjectIdentifier
			kind := "otherName"
			if name.ReadASN1ObjectIdentifier(&id) {
				kind += " " + id.String()
			}
			if id.Equal(hardwareModuleID) {
				kind = hardwareModule
			}
			kinds = append(kinds, kind)
		case 4:
			kinds = append(kinds, "directoryName")
		case 8:
			kinds = append(kinds, "registeredID")
		default:
			kinds = append(kinds, "number "+strconv.Itoa(int(number)))
		}
	}
	return kinds
}

var hardwareModuleID = objectID{1, 3, 6, 1, 5, 5, 7, 8, 4}

// NameConstraints are the names that may stand below an intermediate (RFC 5280 section
// 4.2.1.10).
type NameConstraints struct {
	PermittedDNS    []string `json:"permittedDNS"`
	ExcludedDNS     []string `json:"excludedDNS"`
	PermittedIPs    []string `json:"permittedIPs"` // CIDR
	ExcludedIPs     []string `json:"excludedIPs"`
	PermittedEmails []string `json:"permittedEmails"`
	ExcludedEmails  []string `json:"excludedEmails"`
	PermittedURIs   []string `json:"permittedURIs"` // host names
	ExcludedURIs    []string `json:"excludedURIs"`
	// PermittedDirectories and ExcludedDirectories are what subjects may or may not begin
	// with, as openssl's -subj has it: /O=Acme/OU=Site 7. OpenSSL's verifier holds to them;
	// Go's and others don't know them and refuse every certificate below such a CA.
	PermittedDirectories []string `json:"permittedDirectories"`
	ExcludedDirectories  []string `json:"excludedDirectories"`
}

func (c *NameConstraints) empty() bool {
	for _, list := range [][]string{c.PermittedDNS, c.ExcludedDNS, c.PermittedIPs, c.ExcludedIPs, c.PermittedEmails, c.ExcludedEmails, c.PermittedURIs, c.ExcludedURIs,
		c.PermittedDirectories, c.ExcludedDirectories} {
		if len(list) > 0 {
			return false
		}
	}
	return true
}

// tagDirectory is directoryName's among general names.
const tagDirectory = 4

type subtree struct {
	tag   uint8
	value []byte
}

func (c *NameConstraints) encode(config *ProfileConfig) ([]byte, error) {
	if c.empty() {
		return nil, nil
	}
	permitted, err := c.subtrees(config, c.PermittedDNS, c.PermittedIPs, c.PermittedEmails, c.PermittedURIs, c.PermittedDirectories)
	if err != nil {
		return nil, err
	}
	excluded, err := c.subtrees(config, c.ExcludedDNS, c.ExcludedIPs, c.ExcludedEmails, c.ExcludedURIs, c.ExcludedDirectories)
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for n, trees := range [][]subtree{permitted, excluded} {
			if len(trees) == 0 {
				continue
			}
			b.AddASN1(cryptobyte_asn1.Tag(n).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				for _, tree := range trees {
					b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						if tree.tag == tagDirectory {
							// A Name is a CHOICE, so its tag is explicit.
							b.AddASN1(cryptobyte_asn1.Tag(tagDirectory).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(tree.value) })
							return
						}
						addGeneralName(b, tree.tag, tree.value)
					})
				}
			})
		}
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, config.wrong("couldn't encode the constraints: %w", err)
	}
	return der, nil
}

func (c *NameConstraints) subtrees(config *ProfileConfig, dns, ips, emails, uris, directories []string) ([]subtree, error) {
	var trees []subtree
	for _, texts := range []struct {
		kind string
		tag  uint8
		all  []string
	}{{"email", 1, emails}, {"DNS", 2, dns}, {"URI", 6, uris}} {
		for _, text := range texts.all {
			host := strings.TrimPrefix(text, ".")
			if texts.kind == "email" {
				_, after, mailbox := strings.Cut(text, "@")
				if mailbox {
					host = after
				}
			}
			if !hostName(strings.ToLower(host)) || strings.HasPrefix(host, "*") || !isASCII(text) {
				return nil, config.wrong("the %s constraint %q isn't a host or domain", texts.kind, imprint.Excerpt(text))
			}
			trees = append(trees, subtree{texts.tag, []byte(text)})
		}
	}
	for _, text := range ips {
		_, network, err := net.ParseCIDR(text)
		if err != nil {
			return nil, config.wrong("the IP constraint %q isn't a network such as 192.0.2.0/24", imprint.Excerpt(text))
		}
		trees = append(trees, subtree{7, slices.Concat(network.IP, net.IP(network.Mask))})
	}
	for _, text := range directories {
		der, err := ParseSubject(text)
		if err != nil {
			return nil, config.wrong("the directory constraint %q isn't a name: %w", imprint.Excerpt(text), err)
		}
		trees = append(trees, subtree{tagDirectory, der})
	}
	return trees, nil
}
