package pki

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
)

// The defaults of a profile are what AWS IoT Core's own certificates hold.
const (
	DefaultCommonName = "AWS IoT Certificate"
	DefaultBackdate   = 2 * time.Minute
)

// maxResponder bounds how long a responder's certificate counts: with ocsp-nocheck nobody
// can take it back.
const maxResponder = 31 * 24 * time.Hour

// defaultNotAfter is the end of all certificates that AWS IoT Core signs. It is
// the last second that a UTCTime can tell (RFC 5280 section 4.1.2.5.1).
func defaultNotAfter() time.Time { return time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC) }

// NoExpiry is the end of a certificate without one (RFC 5280 section 4.1.2.5).
func NoExpiry() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

// ProfileKind is what the certificates of a profile are for. It decides their
// extensions, and what the rest of the config may say.
type ProfileKind string

// The kinds.
const (
	// KindAWSDevice has AWS IoT Core's own four extensions and nothing else.
	KindAWSDevice ProfileKind = "aws-device"
	// KindOperational is a device's certificate in its owner's fleet: for TLS clients.
	KindOperational ProfileKind = "operational"
	// KindIDevID is the maker's certificate for the life of a device, IEEE 802.1AR:
	// its subject has a serialNumber, it has no extendedKeyUsage, and no end unless
	// the config says so.
	KindIDevID ProfileKind = "idevid"
	// KindServer is for TLS servers.
	KindServer ProfileKind = "server"
	// KindClaim is a claim certificate's, short or bound to a batch.
	KindClaim ProfileKind = "claim"
	// KindIntermediate is a CA under another one.
	KindIntermediate ProfileKind = "intermediate"
	// KindRoot signs itself.
	KindRoot ProfileKind = "root"
	// KindOCSP signs OCSP responses for its issuer (RFC 6960 section 4.2.2.2).
	KindOCSP ProfileKind = "ocsp"
)

// isCA says whether certificates of the kind are CA certificates.
func (k ProfileKind) isCA() bool { return k == KindIntermediate || k == KindRoot }

// ProfileConfig says what certificates a profile makes. The zero value is AWS
// IoT Core's profile of CreateKeysAndCertificate and CreateCertificateFromCsr.
type ProfileConfig struct {
	// Name stands in the journal: [a-z0-9-], up to 64 characters. Default:
	// device.
	Name string `json:"name"`
	// Kind decides the extensions. Default: KindAWSDevice.
	Kind ProfileKind `json:"kind"`
	// CommonName is the subject of certificates without a subject from a CSR,
	// up to 64 characters (ub-common-name, RFC 5280 appendix A.1). Default, for
	// KindAWSDevice alone: AWS IoT Certificate, which device code that was written for
	// AWS may look for. Other kinds refuse a request without subject unless they have
	// a common name or, KindServer, names.
	CommonName string `json:"commonName"`
	// Backdate is how long before now certificates begin, for devices whose
	// clock is behind: up to 48 hours. They never begin before their CA. Default: 2
	// minutes.
	Backdate time.Duration `json:"backdate"`
	// NotAfter is the fixed end of all certificates. Default, where Lifetime and
	// Unlimited say nothing: 2049-12-31T23:59:59Z for KindAWSDevice, none for
	// KindIDevID; other kinds must say.
	NotAfter time.Time `json:"notAfter"`
	// Lifetime, when set, ends certificates that long after they are made, at
	// least a second, in place of NotAfter. Claim certificates use it.
	Lifetime time.Duration `json:"lifetime"`
	// Unlimited certificates end at NoExpiry.
	Unlimited bool `json:"unlimited"`
	// MaxCertificates is how many certificates one authority signs by the profile, of all
	// time; 0: any number. With rules for the subject, and an authority that signs by no
	// other profile, it is the order of a factory: so many of these, and nothing else.
	MaxCertificates int `json:"maxCertificates"`
	// ShortenToCA ends a certificate with its CA where it would end later. Without it
	// such a request is refused.
	ShortenToCA bool `json:"shortenToCA"`
	// RefuseEd25519 limits device keys to AWS IoT Core's kinds.
	RefuseEd25519 bool `json:"refuseEd25519"`
	// Keys are the kinds of keys that are accepted; empty: all that Policy accepts.
	Keys []KeyKind `json:"keys"`
	// AllowSmallExponent lets RSA keys have an exponent under 65537, for chips that make
	// no others.
	AllowSmallExponent bool `json:"allowSmallExponent"`
	// AllowKeyReuse lets one key have several certificates. KindAWSDevice always does,
	// as AWS IoT Core does.
	AllowKeyReuse bool `json:"allowKeyReuse"`
	// Subject and Names are the rules for what a request may say.
	Subject SubjectRules `json:"subject"`
	Names   NameRules    `json:"names"`
	// PathLength is, for CAs, how many CAs may stand below one. Default 0.
	PathLength int `json:"pathLength"`
	// NoPathLength is, for roots, that nothing bounds how many CAs may stand below.
	NoPathLength bool `json:"noPathLength"`
	// Constraints are, for KindIntermediate, the names that may stand below it.
	Constraints NameConstraints `json:"constraints"`
	// ClientsOnly puts extendedKeyUsage clientAuth into an intermediate, which
	// verifiers take as a limit of all that stands below it.
	ClientsOnly bool `json:"clientsOnly"`
	// ExtraKeyUsages are object identifiers in extendedKeyUsage beside the kind's own.
	ExtraKeyUsages []string `json:"extraKeyUsages"`
}

// Profile is a checked ProfileConfig.
//
// Its certificates are X.509 v3 with a random serial number of 20 octets; the hash
// of the signature is the CA's. Those of KindAWSDevice have exactly four extensions in
// this order: authorityKeyIdentifier (key identifier alone), subjectKeyIdentifier
// (SHA-1 of the key, RFC 5280 section 4.2.1.2 method 1), basicConstraints
// (critical, empty), keyUsage (critical, digitalSignature alone). Others have what
// extensionsFor gives, in its order.
type Profile struct {
	name         string
	kind         ProfileKind
	subject      []byte // DER, for requests without one; nil: there must be one
	backdate     time.Duration
	notAfter     time.Time
	lifetime     time.Duration
	shorten      bool
	keys         Policy
	kinds        []KeyKind
	reuse        bool
	smallRSA     bool // exponents under 65537
	rules        subjectRules
	names        nameRules
	pathLength   int
	noPathLength bool
	constraints  []byte // DER of the extension; nil: none
	clientsOnly  bool
	extraUsages  []objectID
	subjectLints bool
	config       ProfileConfig // with what the checks filled in
}

var profileName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// wrong is what a config says that it may not.
func (c *ProfileConfig) wrong(format string, args ...any) *imprint.Error {
	return imprint.Errorf(imprint.CodeInvalidRequest, "profile "+c.Name+": "+format, args...)
}

// NewProfile checks a config. Errors: CodeInvalidRequest.
func NewProfile(config ProfileConfig) (*Profile, error) {
	if config.Name == "" {
		config.Name = "device"
	}
	if !profileName.MatchString(config.Name) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "profile name %q does not match [a-z0-9-]{1,64}", imprint.Excerpt(config.Name))
	}
	if config.Kind == "" {
		config.Kind = KindAWSDevice
	}
	p := &Profile{
		name: config.Name, kind: config.Kind, backdate: config.Backdate, notAfter: config.NotAfter.UTC(), lifetime: config.Lifetime,
		shorten: config.ShortenToCA, keys: Policy{Ed25519: !config.RefuseEd25519}, kinds: slices.Clone(config.Keys), smallRSA: config.AllowSmallExponent,
		reuse: config.AllowKeyReuse || config.Kind == KindAWSDevice, pathLength: config.PathLength, noPathLength: config.NoPathLength, clientsOnly: config.ClientsOnly,
		subjectLints: config.Kind != KindAWSDevice,
	}
	for _, check := range []func(*ProfileConfig) error{p.takeKind, p.takeCommonName, p.takeTimes, p.takeKeys, p.takeNames, p.takeCA} {
		err := check(&config)
		if err != nil {
			return nil, err
		}
	}
	config.Backdate, config.NotAfter = p.backdate, p.notAfter
	config.AllowKeyReuse = p.reuse
	config.Names.DNS, config.Names.IP, config.Names.Required = p.names.dns, p.names.ip, p.names.required
	if p.kind == KindAWSDevice && config.CommonName == "" {
		config.CommonName = DefaultCommonName
	}
	if p.kind == KindIDevID && !slices.Contains(config.Subject.Required, "SERIALNUMBER") {
		config.Subject.Required = append(slices.Clone(config.Subject.Required), "SERIALNUMBER")
	}
	p.config = config
	return p, nil
}

// Config gives the rules, with the defaults that hold where the given config said
// nothing. It must not be changed.
func (p *Profile) Config() ProfileConfig { return p.config }

func (p *Profile) takeKind(config *ProfileConfig) error {
	switch config.Kind {
	case KindAWSDevice:
		if config.ClientsOnly || len(config.ExtraKeyUsages) > 0 || !config.Subject.empty() || !config.Names.empty() {
			return config.wrong("%s certificates are just like AWS IoT Core's: rules for subject, names and usages don't fit", KindAWSDevice).
				WithHint("Use the kind %s.", KindOperational)
		}
	case KindOperational, KindIDevID, KindServer, KindClaim, KindIntermediate, KindRoot, KindOCSP:
	default:
		return config.wrong("kind %q isn't one", imprint.Excerpt(string(config.Kind))).
			WithHint("Kinds: aws-device, operational, idevid, server, claim, intermediate, root, ocsp.")
	}
	return nil
}

func (p *Profile) takeCommonName(config *ProfileConfig) error {
	cn := config.CommonName
	if cn == "" && config.Kind == KindAWSDevice {
		cn = DefaultCommonName
	}
	if cn == "" {
		return nil
	}
	// RFC 5280 appendix A.1: ub-common-name is 64 characters.
	if !utf8.ValidString(cn) || utf8.RuneCountInString(cn) > 64 || strings.TrimSpace(cn) != cn || strings.ContainsFunc(cn, unicode.IsControl) {
		return config.wrong("common name %q isn't 1 to 64 characters without control characters and spaces around them", imprint.Excerpt(cn))
	}
	subject, err := commonNameDER(cn)
	p.subject = subject
	return err
}

func (p *Profile) takeTimes(config *ProfileConfig) error {
	if config.MaxCertificates < 0 || config.MaxCertificates > 0 && config.Kind == KindRoot {
		return config.wrong("maxCertificates %d isn't how many certificates an authority may sign; a root signs itself without it", config.MaxCertificates)
	}
	if p.backdate == 0 {
		p.backdate = DefaultBackdate
	}
	if p.backdate < 0 || p.backdate > 48*time.Hour {
		return config.wrong("backdate %s isn't between 0 and 48h", p.backdate)
	}
	if config.Kind == KindOCSP && (config.Lifetime <= 0 || config.Lifetime > maxResponder) {
		return config.wrong("certificates of OCSP responders end within %d days of being made: verifiers don't ask whether one is revoked (RFC 6960 section 4.2.2.2.1)", maxResponder/(24*time.Hour)).
			WithHint("Give it a lifetime, such as 14d.")
	}
	ways := 0
	for _, given := range []bool{config.Lifetime != 0, !config.NotAfter.IsZero(), config.Unlimited} {
		if given {
			ways++
		}
	}
	switch {
	case ways > 1:
		return config.wrong("it has several of a lifetime, a fixed end and no end")
	case config.Lifetime != 0 && config.Lifetime < time.Second:
		return config.wrong("lifetime %s is under a second", config.Lifetime)
	case config.Lifetime != 0:
		return nil
	case config.Unlimited, ways == 0 && config.Kind == KindIDevID:
		p.notAfter = NoExpiry()
	case ways == 0 && config.Kind == KindAWSDevice:
		p.notAfter = defaultNotAfter()
	case ways == 0:
		return config.wrong("it says nothing of when its certificates end").WithHint("Give it a lifetime, such as 8760h, a notAfter, or unlimited.")
	}
	if p.notAfter.Year() > 9999 || p.notAfter.Nanosecond() != 0 {
		return config.wrong("the end %s isn't a whole second before the year 10000", p.notAfter)
	}
	return nil
}

func (p *Profile) takeKeys(config *ProfileConfig) error {
	for _, kind := range config.Keys {
		if !knownKind(kind) {
			return config.wrong("key kind %q isn't one", imprint.Excerpt(string(kind))).WithHint("Key kinds: %s.", joinKinds(knownKeyKinds))
		}
	}
	for _, text := range config.ExtraKeyUsages {
		id, err := parseObjectID(text)
		if err != nil {
			return config.wrong("key usage %q isn't an object identifier", imprint.Excerpt(text))
		}
		p.extraUsages = append(p.extraUsages, id)
	}
	return nil
}

func (p *Profile) takeNames(config *ProfileConfig) error {
	var err error
	p.rules, err = newSubjectRules(config)
	if err != nil {
		return err
	}
	p.names, err = newNameRules(config)
	return err
}

func (p *Profile) takeCA(config *ProfileConfig) error {
	if !config.Kind.isCA() {
		if config.PathLength != 0 || config.NoPathLength || !config.Constraints.empty() || config.ClientsOnly {
			return config.wrong("pathLength, constraints and clientsOnly are for CAs alone")
		}
		return nil
	}
	if config.PathLength < 0 || config.PathLength > 8 {
		return config.wrong("pathLength %d isn't between 0 and 8", config.PathLength)
	}
	if config.NoPathLength && (config.Kind != KindRoot || config.PathLength != 0) {
		return config.wrong("noPathLength is for roots, in the place of pathLength")
	}
	if config.Kind == KindRoot && (!config.Constraints.empty() || config.ClientsOnly) {
		return config.wrong("verifiers don't look at constraints and usages of a root").WithHint("Put them into the intermediates.")
	}
	if len(config.ExtraKeyUsages) > 0 {
		return config.wrong("extraKeyUsages aren't for CAs")
	}
	var err error
	p.constraints, err = config.Constraints.encode(config)
	return err
}

// Name gives the profile's name.
func (p *Profile) Name() string { return p.name }

// Kind gives what its certificates are for.
func (p *Profile) Kind() ProfileKind { return p.kind }

// ReusesKeys says whether one key may have several certificates of the profile.
func (p *Profile) ReusesKeys() bool { return p.reuse }

// End gives when a certificate ends at the latest that is made now.
func (p *Profile) End(now time.Time) time.Time {
	_, end := p.validity(now)
	return end
}

// validity gives the window of a certificate that is made now.
func (p *Profile) validity(now time.Time) (notBefore, notAfter time.Time) {
	now = now.UTC().Truncate(time.Second)
	if p.lifetime > 0 {
		return now.Add(-p.backdate), now.Add(p.lifetime).Truncate(time.Second)
	}
	return now.Add(-p.backdate), p.notAfter
}

// checkKey refuses keys that the profile doesn't take.
func (p *Profile) checkKey(key crypto.PublicKey) *imprint.Error {
	refusal := p.keys.checkPublicKey(key)
	if refusal != nil {
		return refusal
	}
	refusal = WeakKey(key)
	if refusal != nil {
		return refusal
	}
	if !p.smallRSA {
		refusal = smallExponent(key)
		if refusal != nil {
			return refusal
		}
	}
	kind := KeyKindOf(key)
	if len(p.kinds) > 0 && !slices.Contains(p.kinds, kind) {
		return weak("the key is of the kind %s, which profile %s doesn't take", kind, p.name).
			WithHint("Make a key of one of these kinds: %s.", joinKinds(p.kinds))
	}
	return nil
}

// Request is what a certificate is asked for with.
type Request struct {
	// PublicKey is the device's key, such as CertificateRequest.PublicKey.
	PublicKey crypto.PublicKey
	// RawSubject is the DER subject of a CSR, copied into the certificate octet
	// for octet unless the profile has rules for it. When it is absent or holds no
	// attribute, the profile's common name stands in: RFC 5280 section 4.1.2.6 wants
	// a subject in certificates without subjectAltName.
	RawSubject []byte
	// Names are for subjectAltName. KindAWSDevice takes none and ignores them, as AWS
	// IoT Core does.
	Names AltNames
	// NotBefore and NotAfter, when set, are asked for in place of the profile's: within
	// the profile's.
	NotBefore, NotAfter time.Time
	// Algorithm is that of the signature; zero: the authority's own.
	Algorithm x509.SignatureAlgorithm
	// By and Token stand in the record: who asked, and what makes repeated requests
	// one.
	By, Token string
	// Asked is the validity in the caller's words, where NotBefore and NotAfter follow from
	// the present time: what repeated requests with a Token have in common.
	Asked string
	// TokenFor is how long the Token makes repeated requests one; zero: for ever.
	TokenFor time.Duration
	// Renews is a certificate that may have the same key, because this one takes its
	// place.
	Renews imprint.CertificateID
}

// Hash is of all that a request asks for by a profile: two requests with one Token and one
// Hash are one.
func (r *Request) Hash(p *Profile) string {
	h := sha256.New()
	write := func(parts ...string) {
		for _, part := range parts {
			fmt.Fprintf(h, "%d:%s\n", len(part), part)
		}
	}
	key, err := x509.MarshalPKIXPublicKey(r.PublicKey)
	if err != nil {
		key = nil // it gets no certificate
	}
	validity := []string{r.Asked, ""}
	if r.Asked == "" {
		validity = []string{r.NotBefore.UTC().Format(time.RFC3339), r.NotAfter.UTC().Format(time.RFC3339)}
	}
	write(p.name, string(key), string(r.RawSubject), validity[0], validity[1], r.Algorithm.String(), string(r.Renews))
	write(r.Names.DNS...)
	write("email")
	write(r.Names.Emails...)
	write("uri")
	for _, uri := range r.Names.URIs {
		write(uri.String())
	}
	write("ip")
	for _, ip := range r.Names.IPs {
		write(ip.String())
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (r *Request) tokenHash(p *Profile) string {
	if r.Token == "" {
		return ""
	}
	return r.Hash(p)
}

// RequestOf takes what a certificate signing request asks for. That its signature is
// right is ParseCSRPEM's to check.
func RequestOf(csr *x509.CertificateRequest) Request {
	return Request{PublicKey: csr.PublicKey, RawSubject: csr.RawSubject, Names: AltNames{
		DNS: csr.DNSNames, IPs: csr.IPAddresses, URIs: csr.URIs, Emails: csr.EmailAddresses, Others: otherNames(csr.Extensions),
	}}
}
