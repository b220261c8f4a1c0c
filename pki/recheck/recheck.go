package recheck

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/imprint-iot/imprint"
)

// inspection is one certificate that is looked at.
type inspection struct {
	c        *certificate
	signer   *certificate // nil: it is gone
	issuance *imprint.Issuance
	rules    *Rules
	problems []string
}

func (i *inspection) wrong(format string, args ...any) {
	i.problems = append(i.problems, fmt.Sprintf(format, args...))
}

// Certificate tells what is wrong with a certificate; none: nothing. Signer is the DER of its
// CA's certificate, its own for a root; nil when that is gone.
func Certificate(der, signer []byte, issuance imprint.Issuance, rules Rules) []string {
	c, err := parse(der)
	if err != nil {
		return []string{"the certificate can't be read: " + err.Error()}
	}
	i := &inspection{c: c, issuance: &issuance, rules: &rules}
	if signer != nil {
		i.signer, err = parse(signer)
		if err != nil {
			i.wrong("the CA's certificate can't be read: %v", err)
		}
	}
	i.frame()
	i.record()
	i.times()
	i.subject()
	i.key()
	i.extensions()
	i.devices(der)
	i.permitted(der, signer)
	i.problems = append(i.problems, lints(der, rules.Kind)...)
	return i.problems
}

// algorithms are those that may sign, by the octets of their identifiers.
var algorithms = map[string]string{
	"300d06092a864886f70d01010b0500": "sha256WithRSAEncryption", "300d06092a864886f70d01010c0500": "sha384WithRSAEncryption", "300d06092a864886f70d01010d0500": "sha512WithRSAEncryption",
	"300a06082a8648ce3d040302": "ecdsa-with-SHA256", "300a06082a8648ce3d040303": "ecdsa-with-SHA384", "300a06082a8648ce3d040304": "ecdsa-with-SHA512",
}

// frame checks what every certificate must be.
func (i *inspection) frame() {
	c := i.c
	if c.version != 2 {
		i.wrong("it is of version %d, not 3", c.version+1)
	}
	if len(c.serialOctets) > 20 || c.serialOctets[0]&0x80 != 0 || c.serial.BitLen() < 64 {
		i.wrong("its serial number %x isn't positive with 64 to 159 bits", c.serialOctets)
	}
	if !bytes.Equal(c.inner, c.outer) {
		i.wrong("two algorithms are named, %x and %x", c.inner, c.outer)
	}
	if algorithms[hex.EncodeToString(c.outer)] == "" {
		i.wrong("it is signed by the algorithm %x", c.outer)
	}
	if i.rules.Kind == kindRoot && !bytes.Equal(c.issuer, c.subject) {
		i.wrong("it is a root, and its issuer isn't its subject")
	}
	if i.signer != nil && !bytes.Equal(c.issuer, i.signer.subject) {
		i.wrong("its issuer isn't the subject of its CA")
	}
}

// record compares it with the record of its signature.
func (i *inspection) record() {
	c, r := i.c, i.issuance
	if c.serial.Text(16) != r.Serial {
		i.wrong("its serial number is %s, and the record says %s", c.serial.Text(16), r.Serial)
	}
	if !r.NotBefore.IsZero() && !r.NotBefore.Equal(c.notBefore.Time) || !r.NotAfter.IsZero() && !r.NotAfter.Equal(c.notAfter.Time) {
		i.wrong("it is valid from %s until %s, and the record says %s and %s", c.notBefore.Format(time.RFC3339), c.notAfter.Format(time.RFC3339),
			r.NotBefore.UTC().Format(time.RFC3339), r.NotAfter.UTC().Format(time.RFC3339))
	}
	sum := sha256.Sum256(c.spki)
	if r.KeyHash != "" && hex.EncodeToString(sum[:]) != r.KeyHash {
		i.wrong("its key is %x, and the record says %s", sum, r.KeyHash)
	}
}

// times checks the validity.
func (i *inspection) times() {
	c := i.c
	for _, t := range []instant{c.notBefore, c.notAfter} {
		if t.utc != (t.Year() < 2050) { // RFC 5280 section 4.1.2.5
			i.wrong("the time %s is in the wrong encoding for its year", t.Format(time.RFC3339))
		}
	}
	if !c.notBefore.Before(c.notAfter.Time) {
		i.wrong("it ends before it begins")
	}
	if i.signer != nil && (c.notBefore.Before(i.signer.notBefore.Time) || c.notAfter.After(i.signer.notAfter.Time)) {
		i.wrong("it is valid from %s until %s, and its CA from %s until %s", c.notBefore.Format(time.RFC3339), c.notAfter.Format(time.RFC3339),
			i.signer.notBefore.Format(time.RFC3339), i.signer.notAfter.Format(time.RFC3339))
	}
	// A second, because certificates have whole ones.
	if earliest := i.issuance.At.Add(-i.rules.Backdate - time.Second); c.notBefore.Before(earliest) {
		i.wrong("it begins at %s, and was prepared at %s: more than %s before", c.notBefore.Format(time.RFC3339), i.issuance.At.UTC().Format(time.RFC3339), i.rules.Backdate)
	}
	latest := i.rules.NotAfter
	if i.rules.Lifetime > 0 {
		latest = i.issuance.At.Add(i.rules.Lifetime + time.Second)
	}
	if !latest.IsZero() && c.notAfter.After(latest) {
		i.wrong("it ends at %s, and profile %s lets none end after %s", c.notAfter.Format(time.RFC3339), i.rules.Name, latest.UTC().Format(time.RFC3339))
	}
}

// subject checks the name by the profile's rules.
func (i *inspection) subject() {
	names, err := readName(i.c.subject)
	if err != nil {
		i.wrong("its subject can't be read: %v", err)
		return
	}
	_, named := i.c.extension(idNames)
	if len(names) == 0 && !(i.rules.Kind == kindServer && named) {
		i.wrong("it has no subject")
	}
	if len(names) == 1 && i.rules.CommonName != "" && names[0] == (attribute{attributes["CN"], i.rules.CommonName}) {
		return // the profile's own
	}
	if i.rules.Kind == kindDevice {
		return // the subject is the device's, as it is
	}
	rules := &i.rules.Subject
	ids := func(list []string) (all []string) {
		for _, name := range list {
			all = append(all, idOf(name))
		}
		return all
	}
	required, allowed := ids(rules.Required), ids(rules.Allowed)
	fixed, patterns := byID(rules.Fixed), byID(rules.Patterns)
	counts := map[string]int{}
	for _, a := range names {
		counts[a.id]++
		value, isFixed := fixed[a.id]
		switch {
		case isFixed && a.value != value:
			i.wrong("its subject has %s %q, and profile %s fixes %q", a.id, imprint.Excerpt(a.value), i.rules.Name, value)
		case len(allowed) > 0 && !isFixed && !slices.Contains(allowed, a.id) && !slices.Contains(required, a.id):
			i.wrong("its subject has %s, which profile %s doesn't allow", a.id, i.rules.Name)
		}
		if pattern, has := patterns[a.id]; has && !whole(pattern, a.value) {
			i.wrong("its subject's %s %q doesn't match %s", a.id, imprint.Excerpt(a.value), pattern)
		}
		if slices.Contains(required, a.id) && strings.TrimSpace(a.value) == "" {
			i.wrong("its subject's %s is empty", a.id)
		}
		if strings.ContainsFunc(a.value, unicode.IsControl) {
			i.wrong("its subject's %s has control characters", a.id)
		}
	}
	for _, id := range required {
		if counts[id] != 1 {
			i.wrong("its subject has %s %d times, and profile %s demands it once", id, counts[id], i.rules.Name)
		}
	}
	for id := range fixed {
		if counts[id] == 0 {
			i.wrong("its subject lacks %s, which profile %s fixes", id, i.rules.Name)
		}
	}
}

func idOf(name string) string {
	id, known := attributes[strings.ToUpper(name)]
	if known {
		return id
	}
	return name
}

func byID(rules map[string]string) map[string]string {
	all := make(map[string]string, len(rules))
	for name, value := range rules {
		all[idOf(name)] = value
	}
	return all
}

// whole says whether an expression matches all of a text. One that can't be read matches
// nothing.
func whole(expression, text string) bool {
	pattern, err := regexp.Compile(`\A(?:` + expression + `)\z`)
	return err == nil && pattern.MatchString(text)
}

// permitted has crypto/x509 verify the certificate against its CA alone: signature, path
// length, the CA's usages and name constraints.
func (i *inspection) permitted(der, signer []byte) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		i.wrong("crypto/x509 can't read it: %v", err)
		return
	}
	i.places(leaf)
	if signer == nil {
		return
	}
	ca, err := x509.ParseCertificate(signer)
	if err != nil {
		return // parse told
	}
	if i.rules.Kind == kindRoot {
		err = leaf.CheckSignatureFrom(ca)
		if err != nil {
			i.wrong("it didn't sign itself: %v", err)
		}
		return
	}
	if leaf.IsCA && ca.BasicConstraintsValid && (ca.MaxPathLenZero || ca.MaxPathLen > 0) && (ca.MaxPathLen == 0 || leaf.MaxPathLen >= ca.MaxPathLen) {
		i.wrong("its CA lets %d CAs stand in a row below it", ca.MaxPathLen)
	}
	if i.signer != nil && i.directories() {
		ca.UnhandledCriticalExtensions = slices.DeleteFunc(ca.UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool { return id.String() == idConstraints })
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	leaf.UnhandledCriticalExtensions = nil // extensions tells of each
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: leaf.NotBefore, KeyUsages: usagesOf(leaf)})
	if err != nil {
		i.wrong("it can't be verified below its CA: %v", err)
	}
}

// usagesOf are those that a certificate is for: its CA must permit one.
func usagesOf(leaf *x509.Certificate) []x509.ExtKeyUsage {
	if len(leaf.ExtKeyUsage) == 0 {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	return leaf.ExtKeyUsage
}
