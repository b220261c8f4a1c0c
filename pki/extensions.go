package pki

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Points are the URLs that certificates of an authority name. Empty ones are left out.
type Points struct {
	// CRL is that of the only list, or, with CRLShards of 2 or more, what comes before
	// the number of the list and ".crl".
	CRL       string
	CRLShards int
	OCSP      string
	Issuer    string // where the authority's own certificate is
}

// Shard gives the number of the CRL that a certificate is on.
func (p Points) Shard(serial *big.Int) int {
	if p.CRLShards < 2 {
		return 0
	}
	return int(new(big.Int).Mod(serial, big.NewInt(int64(p.CRLShards))).Int64())
}

// CRLOf gives the URL of the CRL that a certificate is on.
func (p Points) CRLOf(serial *big.Int) string {
	if p.CRL == "" || p.CRLShards < 2 {
		return p.CRL
	}
	return p.ListURL(p.Shard(serial))
}

// ListURL gives the URL of one of several CRLs.
func (p Points) ListURL(shard int) string { return p.CRL + strconv.Itoa(shard) + ".crl" }

var (
	usageServer = objectID{1, 3, 6, 1, 5, 5, 7, 3, 1}
	usageClient = objectID{1, 3, 6, 1, 5, 5, 7, 3, 2}
	usageOCSP   = objectID{1, 3, 6, 1, 5, 5, 7, 3, 9}
)

// extensionsFor gives the extensions of a draft, in the order in which they stand:
// authorityKeyIdentifier, subjectKeyIdentifier, basicConstraints,
// keyUsage, extendedKeyUsage, subjectAltName, nameConstraints, cRLDistributionPoints,
// authorityInfoAccess, ocsp-nocheck.
func (a *Authority) extensionsFor(p *Profile, d *draft, r Request) ([]pkix.Extension, error) {
	if p.kind == KindAWSDevice {
		return profileExtensions(a.cert.SubjectKeyId, d.keyID)
	}
	basic, err := basicConstraints(p)
	if err != nil {
		return nil, err
	}
	var all []pkix.Extension
	identifiers, err := profileExtensions(a.cert.SubjectKeyId, d.keyID)
	if err != nil {
		return nil, err
	}
	all = append(all, identifiers[0], identifiers[1], basic, keyUsage(p, r.PublicKey))
	usages := p.extendedUsages()
	if len(usages) > 0 {
		der, err := asn1.Marshal(usages)
		if err != nil {
			return nil, fmt.Errorf("couldn't encode extendedKeyUsage: %w", err)
		}
		all = append(all, pkix.Extension{Id: objectID{2, 5, 29, 37}, Value: der})
	}
	if !p.kind.isCA() {
		names, present, err := p.names.extension(r.Names, d.subject)
		if err != nil {
			return nil, err
		}
		if present {
			all = append(all, names)
		}
	}
	if p.constraints != nil {
		all = append(all, pkix.Extension{Id: objectID{2, 5, 29, 30}, Critical: true, Value: p.constraints})
	}
	if p.kind == KindRoot {
		return all, nil
	}
	if p.kind == KindOCSP {
		// RFC 6960 section 4.2.2.2.1: its own status isn't asked.
		return append(all, pkix.Extension{Id: objectID{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{0x05, 0x00}}), nil
	}
	return a.points.extend(all, d.serial)
}

func (p *Profile) extendedUsages() []objectID {
	var usages []objectID
	switch p.kind {
	case KindOperational, KindClaim:
		usages = append(usages, usageClient)
	case KindServer:
		usages = append(usages, usageServer)
	case KindOCSP:
		usages = append(usages, usageOCSP)
	case KindIntermediate:
		if p.clientsOnly {
			usages = append(usages, usageClient)
		}
	}
	return append(usages, p.extraUsages...)
}

func basicConstraints(p *Profile) (pkix.Extension, error) {
	e := pkix.Extension{Id: objectID{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x00}}
	if !p.kind.isCA() {
		return e, nil
	}
	if p.noPathLength {
		e.Value = []byte{0x30, 0x03, 0x01, 0x01, 0xff} // cA TRUE alone
		return e, nil
	}
	der, err := asn1.Marshal(struct {
		CA         bool
		PathLength int
	}{true, p.pathLength})
	if err != nil {
		return e, fmt.Errorf("couldn't encode basicConstraints: %w", err)
	}
	e.Value = der
	return e, nil
}

// keyUsage is a BIT STRING: bit 0 digitalSignature, 2 keyEncipherment, 5 keyCertSign, 6
// cRLSign. CAs have the first because some of them sign OCSP responses themselves (RFC 5280
// section 4.2.1.3); those of AWS Private CA have it, too.
func keyUsage(p *Profile, key crypto.PublicKey) pkix.Extension {
	e := pkix.Extension{Id: objectID{2, 5, 29, 15}, Critical: true, Value: []byte{0x03, 0x02, 0x07, 0x80}}
	_, isRSA := key.(*rsa.PublicKey)
	switch {
	case p.kind.isCA():
		e.Value = []byte{0x03, 0x02, 0x01, 0x86}
	case isRSA && (p.kind == KindServer || p.kind == KindIDevID):
		// TLS 1.2's key exchange by RSA.
		e.Value = []byte{0x03, 0x02, 0x05, 0xa0}
	}
	return e
}

// extend adds what tells a verifier where to ask (RFC 5280 sections 4.2.1.13, 4.2.2.1).
func (p Points) extend(all []pkix.Extension, serial *big.Int) ([]pkix.Extension, error) {
	explicit := cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()
	if list := p.CRLOf(serial); list != "" {
		b := cryptobyte.NewBuilder(nil)
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(explicit, func(b *cryptobyte.Builder) {
					b.AddASN1(explicit, func(b *cryptobyte.Builder) { addGeneralName(b, 6, []byte(list)) })
				})
			})
		})
		der, err := b.Bytes()
		if err != nil {
			return nil, fmt.Errorf("couldn't encode cRLDistributionPoints: %w", err)
		}
		all = append(all, pkix.Extension{Id: objectID{2, 5, 29, 31}, Value: der})
	}
	if p.OCSP == "" && p.Issuer == "" {
		return all, nil
	}
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, access := range []struct {
			last int
			url  string
		}{{1, p.OCSP}, {2, p.Issuer}} {
			if access.url == "" {
				continue
			}
			b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(objectID{1, 3, 6, 1, 5, 5, 7, 48, access.last})
				addGeneralName(b, 6, []byte(access.url))
			})
		}
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("couldn't encode authorityInfoAccess: %w", err)
	}
	return append(all, pkix.Extension{Id: objectID{1, 3, 6, 1, 5, 5, 7, 1, 1}, Value: der}), nil
}

// permits says why what a profile makes for a request can't stand below this authority;
// nil when it can. It is asked before the CA key is used, as verifiers would refuse it
// only after.
func (a *Authority) permits(p *Profile, r Request) error {
	if p.kind.isCA() && a.cert.BasicConstraintsValid {
		limit := a.cert.MaxPathLen
		if limit == 0 && !a.cert.MaxPathLenZero {
			limit = -1
		}
		if limit >= 0 && p.pathLength >= limit {
			return invalid("the CA lets %d CAs stand in a row below it, profile %s needs %d", limit, p.name, p.pathLength+1).
				WithHint("Sign with the CA above it, or use a profile with a smaller pathLength.")
		}
	}
	err := a.permitsUsages(p)
	if err != nil || p.kind.isCA() {
		return err
	}
	return a.permitsNames(r.Names)
}

func (a *Authority) permitsUsages(p *Profile) error {
	if len(a.cert.ExtKeyUsage) == 0 && len(a.cert.UnknownExtKeyUsage) == 0 || slices.Contains(a.cert.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return nil
	}
	usages := p.extendedUsages()
	if len(usages) == 0 && p.kind == KindIntermediate {
		return invalid("the CA is limited to some key usages, an intermediate of profile %s would not be", p.name).WithHint("Set clientsOnly in the profile.")
	}
	known := map[string]x509.ExtKeyUsage{
		usageServer.String(): x509.ExtKeyUsageServerAuth, usageClient.String(): x509.ExtKeyUsageClientAuth, usageOCSP.String(): x509.ExtKeyUsageOCSPSigning,
	}
	for _, usage := range usages {
		kind, isKnown := known[usage.String()]
		if isKnown && slices.Contains(a.cert.ExtKeyUsage, kind) || slices.ContainsFunc(a.cert.UnknownExtKeyUsage, usage.Equal) {
			continue
		}
		return invalid("the CA's extendedKeyUsage doesn't allow %s, which certificates of profile %s have", usage, p.name).
			WithHint("Sign with a CA without that limit.")
	}
	return nil
}

// permitsNames applies the CA's own name constraints (RFC 5280 section 4.2.1.10).
func (a *Authority) permitsNames(names AltNames) error {
	for _, name := range names.DNS {
		err := withinConstraints("DNS name", name, a.cert.PermittedDNSDomains, a.cert.ExcludedDNSDomains, underDomain)
		if err != nil {
			return err
		}
	}
	for _, mail := range names.Emails {
		err := withinConstraints("email name", mail, a.cert.PermittedEmailAddresses, a.cert.ExcludedEmailAddresses, underMail)
		if err != nil {
			return err
		}
	}
	for _, uri := range names.URIs {
		err := withinConstraints("URI", uri.Hostname(), a.cert.PermittedURIDomains, a.cert.ExcludedURIDomains, underURI)
		if err != nil {
			return err
		}
	}
	for _, ip := range names.IPs {
		inside := false
		for _, network := range a.cert.ExcludedIPRanges {
			if network.Contains(ip) {
				return invalid("the CA's name constraints exclude the address %s", ip)
			}
		}
		for _, network := range a.cert.PermittedIPRanges {
			inside = inside || network.Contains(ip)
		}
		if len(a.cert.PermittedIPRanges) > 0 && !inside {
			return invalid("the CA's name constraints don't permit the address %s", ip)
		}
	}
	return nil
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

// underDomain: a constraint holds for a host and all below it.
func underDomain(name, constraint string) bool {
	name, constraint = strings.ToLower(name), strings.ToLower(strings.TrimPrefix(constraint, "."))
	return name == constraint || strings.HasSuffix(name, "."+constraint)
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
