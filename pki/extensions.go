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
// only after. Each certificate of the chain may have limits of its own.
func (a *Authority) permits(p *Profile, subject []byte, r Request) error {
	for depth, l := range a.limits {
		// How many CAs would stand in a row below this one.
		if limit := PathLimit(l.cert); p.kind.isCA() && limit >= 0 && depth+1+p.pathLength > limit {
			return invalid("the CA %s lets %d CAs stand in a row below it, profile %s needs %d", SubjectText(l.cert.RawSubject), limit, p.name, depth+1+p.pathLength).
				WithHint("Sign with the CA above it, or use a profile with a smaller pathLength.")
		}
		err := permitsUsages(l.cert, p)
		if err != nil {
			return err
		}
		names := r.Names
		if p.kind.isCA() {
			names = AltNames{} // CAs have none
		}
		err = l.permits(subject, names)
		if err != nil {
			return err
		}
	}
	return nil
}

func permitsUsages(cert *x509.Certificate, p *Profile) error {
	if len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0 || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny) {
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
		if isKnown && slices.Contains(cert.ExtKeyUsage, kind) || slices.ContainsFunc(cert.UnknownExtKeyUsage, usage.Equal) {
			continue
		}
		return invalid("the CA's extendedKeyUsage doesn't allow %s, which certificates of profile %s have", usage, p.name).
			WithHint("Sign with a CA without that limit.")
	}
	return nil
}
