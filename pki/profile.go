package pki

import (
	"crypto"
	"encoding/asn1"
	"encoding/base64"
	"regexp"
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

// defaultNotAfter is the end of all certificates that AWS IoT Core signs. It is
// the last second that a UTCTime can tell (RFC 5280 section 4.1.2.5.1).
func defaultNotAfter() time.Time { return time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC) }

// ProfileConfig says what certificates a profile makes. The zero value is AWS
// IoT Core's profile of CreateKeysAndCertificate and CreateCertificateFromCsr.
type ProfileConfig struct {
	// Name stands in the journal: [a-z0-9-], up to 64 characters. Default:
	// device.
	Name string
	// CommonName is the subject of certificates without a subject from a CSR,
	// up to 64 characters (ub-common-name, RFC 5280 appendix A.1). Default: AWS
	// IoT Certificate, which device code that was written for AWS may look for.
	CommonName string
	// Backdate is how long before now certificates begin, for devices whose
	// clock is behind: up to 24 hours. Default: 2 minutes.
	Backdate time.Duration
	// NotAfter is the fixed end of all certificates. Default:
	// 2049-12-31T23:59:59Z.
	NotAfter time.Time
	// Lifetime, when set, ends certificates that long after they are made, at
	// least a minute, in place of NotAfter. Claim certificates use it.
	Lifetime time.Duration
	// RefuseEd25519 limits device keys to AWS IoT Core's kinds.
	RefuseEd25519 bool
}

// Profile is a checked ProfileConfig.
//
// Its certificates are X.509 v3 with a random serial number of 20 octets,
// SHA-256 as the hash of the signature, and exactly four extensions in this
// order: authorityKeyIdentifier (key identifier alone), subjectKeyIdentifier
// (SHA-1 of the key, RFC 5280 section 4.2.1.2 method 1), basicConstraints
// (critical, empty), keyUsage (critical, digitalSignature alone).
type Profile struct {
	name     string
	subject  []byte // DER, for requests without one
	backdate time.Duration
	notAfter time.Time
	lifetime time.Duration
	keys     Policy
}

var profileName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// NewProfile checks a config. Errors: CodeInvalidRequest.
func NewProfile(config ProfileConfig) (*Profile, error) {
	p := &Profile{name: config.Name, backdate: config.Backdate, notAfter: config.NotAfter.UTC(), lifetime: config.Lifetime,
		keys: Policy{Ed25519: !config.RefuseEd25519}}
	if p.name == "" {
		p.name = "device"
	}
	if !profileName.MatchString(p.name) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "profile name %q does not match [a-z0-9-]{1,64}", imprint.Excerpt(p.name))
	}
	cn := config.CommonName
	if cn == "" {
		cn = DefaultCommonName
	}
	// RFC 5280 appendix A.1: ub-common-name is 64 characters.
	if !utf8.ValidString(cn) || utf8.RuneCountInString(cn) > 64 || strings.TrimSpace(cn) != cn || strings.ContainsFunc(cn, unicode.IsControl) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "common name %q of profile %s isn't 1 to 64 characters without control characters and spaces around them", imprint.Excerpt(cn), p.name)
	}
	subject, err := commonNameDER(cn)
	if err != nil {
		return nil, err
	}
	p.subject = subject
	return p, p.checkTimes(config)
}

func (p *Profile) checkTimes(config ProfileConfig) error {
	if p.backdate == 0 {
		p.backdate = DefaultBackdate
	}
	if p.backdate < 0 || p.backdate > 24*time.Hour {
		return imprint.Errorf(imprint.CodeInvalidRequest, "backdate %s of profile %s isn't between 0 and 24h", p.backdate, p.name)
	}
	if config.Lifetime != 0 && !config.NotAfter.IsZero() {
		return imprint.Errorf(imprint.CodeInvalidRequest, "profile %s has both a lifetime and a fixed end", p.name)
	}
	if config.Lifetime != 0 && config.Lifetime < time.Second {
		return imprint.Errorf(imprint.CodeInvalidRequest, "lifetime %s of profile %s is under a second", config.Lifetime, p.name)
	}
	if config.NotAfter.IsZero() {
		p.notAfter = defaultNotAfter()
	}
	if p.notAfter.Year() > 9999 || p.notAfter.Nanosecond() != 0 {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the end %s of profile %s isn't a whole second before the year 10000", p.notAfter, p.name)
	}
	return nil
}

// Name gives the profile's name.
func (p *Profile) Name() string { return p.name }

// validity gives the window of a certificate that is made now.
func (p *Profile) validity(now time.Time) (notBefore, notAfter time.Time) {
	now = now.UTC().Truncate(time.Second)
	if p.lifetime > 0 {
		return now.Add(-p.backdate), now.Add(p.lifetime).Truncate(time.Second)
	}
	return now.Add(-p.backdate), p.notAfter
}

// Request is what a certificate is asked for with.
type Request struct {
	// PublicKey is the device's key, such as CertificateRequest.PublicKey.
	PublicKey crypto.PublicKey
	// RawSubject is the DER subject of a CSR, copied into the certificate octet
	// for octet. When it is absent or holds no attribute, the profile's common
	// name stands in: RFC 5280 section 4.1.2.6 wants a subject in certificates
	// without subjectAltName.
	RawSubject []byte
}

// subject gives the DER subject of the certificate for a request.
func (p *Profile) subjectOf(r Request) ([]byte, error) {
	if emptyName(r.RawSubject) {
		return p.subject, nil
	}
	if len(r.RawSubject) > maxRawSubject {
		return nil, invalid("the subject is longer than %d bytes", maxRawSubject).
			WithHint("Use a short subject, such as /CN=SERIAL.")
	}
	var name asn1.RawValue
	rest, err := asn1.Unmarshal(r.RawSubject, &name)
	if err != nil || len(rest) != 0 || name.Tag != asn1.TagSequence || !name.IsCompound {
		return nil, invalid("the subject %s isn't a name", base64.StdEncoding.EncodeToString(r.RawSubject[:min(48, len(r.RawSubject))]))
	}
	return r.RawSubject, nil
}
