package est

import (
	"encoding/asn1"
	"fmt"
	"net/http"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

var (
	oidChallenge = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
	oidEC        = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidRSA       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}

	oidCurves = map[pki.KeyKind]asn1.ObjectIdentifier{
		pki.KeyP256: {1, 2, 840, 10045, 3, 1, 7}, pki.KeyP384: {1, 3, 132, 0, 34},
	}
	oidHashes = map[pki.KeyKind]asn1.ObjectIdentifier{
		pki.KeyP256: {1, 2, 840, 10045, 4, 3, 2}, pki.KeyP384: {1, 2, 840, 10045, 4, 3, 3},
	}
	rsaBits = map[pki.KeyKind]int64{pki.KeyRSA2048: 2048, pki.KeyRSA3072: 3072, pki.KeyRSA4096: 4096}
)

// attributes answers csrattrs: what a request must have, as far as CSR attributes can say
// it. Nothing (204) means anything.
func (v *visit) attributes() error {
	der, err := attributesFor(&v.label, v.profile)
	if err != nil {
		return err
	}
	if der == nil {
		v.w.WriteHeader(http.StatusNoContent)
		v.door.count(v.operation, http.StatusNoContent)
		return nil
	}
	v.send("application/csrattrs", der)
	return nil
}

// attributesFor encodes CsrAttrs (RFC 7030 section 4.5.2): the kind of key when the profile
// takes one kind alone, since several can't be told as a choice; and the challengePassword
// when the label wants requests tied to their connection.
func attributesFor(label *imprint.EnrolmentLabel, profile *pki.Profile) ([]byte, error) {
	var parts []func(*cryptobyte.Builder)
	if label.Binding {
		parts = append(parts, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidChallenge) })
	}
	if kinds := profile.Config().Keys; len(kinds) == 1 {
		kind := kinds[0]
		if curve := oidCurves[kind]; curve != nil {
			parts = append(parts, attribute(oidEC, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(curve) }),
				func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidHashes[kind]) })
		}
		if bits := rsaBits[kind]; bits != 0 {
			parts = append(parts, attribute(oidRSA, func(b *cryptobyte.Builder) { b.AddASN1Int64(bits) }))
		}
	}
	if len(parts) == 0 {
		return nil, nil
	}
	var b cryptobyte.Builder
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, part := range parts {
			part(b)
		}
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("couldn't encode CSR attributes: %w", err)
	}
	return der, nil
}

func attribute(id asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(id)
			b.AddASN1(cryptobyte_asn1.SET, value)
		})
	}
}
