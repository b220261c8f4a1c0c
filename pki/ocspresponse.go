package pki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1" // RFC 6960 section 4.2.1: what responders are named by
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// OCSPAnswer is what a response says of one certificate (RFC 6960 section 4.2.1).
type OCSPAnswer struct {
	Serial *big.Int
	// Hash, NameHash and KeyHash name the issuer as the request does; SHA-1 or SHA-256.
	Hash              crypto.Hash
	NameHash, KeyHash []byte
	// RevokedAt zero: the certificate is good. Reason is the code of RFC 5280 section
	// 5.3.1; 0 is left out.
	RevokedAt              time.Time
	Reason                 int
	ProducedAt             time.Time
	ThisUpdate, NextUpdate time.Time
}

// Responder is a certificate and its key by which responses of its issuer are signed.
type Responder struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewResponderKey makes a key for a Responder.
func NewResponderKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("couldn't make a responder's key: %w", err)
	}
	return key, nil
}

// NewResponder makes one of a certificate and the key of NewResponderKey that it is of.
func NewResponder(cert *x509.Certificate, key *ecdsa.PrivateKey) *Responder {
	return &Responder{cert: cert, key: key}
}

// Certificate gives the responder's. It must not be changed.
func (r *Responder) Certificate() *x509.Certificate { return r.cert }

// SignOCSP signs a response, which holds the responder's certificate.
func (r *Responder) SignOCSP(answer OCSPAnswer) ([]byte, error) {
	return answer.sign(r.cert, ecdsaWithSHA256, r.cert.Raw, func(tbs []byte) ([]byte, error) {
		h := crypto.SHA256.New()
		h.Write(tbs)
		return ecdsa.SignASN1(rand.Reader, r.key, h.Sum(nil))
	})
}

// ecdsaWithSHA256 is its AlgorithmIdentifier (RFC 5758 section 3.2).
var ecdsaWithSHA256 = []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02}

// SignOCSP signs a response with the authority's own key (RFC 6960 section 4.2.2.2), for
// authorities that have no responder. The key signs a ResponseData that is built here,
// which no verifier takes for a certificate. Errors: the signer's.
func (a *Authority) SignOCSP(ctx context.Context, answer OCSPAnswer) ([]byte, error) {
	return answer.sign(a.cert, a.filler.algorithm, nil, func(tbs []byte) ([]byte, error) {
		h := a.hash.New()
		h.Write(tbs)
		return a.signer.Sign(ctx, h.Sum(nil), a.hash)
	})
}

// sign makes an OCSPResponse with the status successful. It is written here because
// x/crypto/ocsp takes the time of production from the system's clock.
func (answer *OCSPAnswer) sign(by *x509.Certificate, algorithm, certificate []byte, sign func(tbs []byte) ([]byte, error)) ([]byte, error) {
	tbs, err := answer.encode(by)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the OCSP response: %w", err)
	}
	signature, err := sign(tbs)
	if err != nil {
		return nil, fmt.Errorf("couldn't sign the OCSP response: %w", err)
	}
	explicit := cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+len(certificate)+128))
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0) // successful
		b.AddASN1(explicit, func(b *cryptobyte.Builder) {
			b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(objectID{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}) // id-pkix-ocsp-basic
				b.AddASN1(cryptobyte_asn1.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(tbs)
						b.AddBytes(algorithm)
						b.AddASN1BitString(signature)
						if certificate != nil {
							b.AddASN1(explicit, func(b *cryptobyte.Builder) {
								b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(certificate) })
							})
						}
					})
				})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the OCSP response: %w", err)
	}
	return der, nil
}

// encode writes the ResponseData. The responder is named by its key, as RFC 5019 section
// 2.2.2 wants: all have one name.
func (answer *OCSPAnswer) encode(by *x509.Certificate) ([]byte, error) {
	key, err := publicKeyBits(by)
	if err != nil {
		return nil, err
	}
	id := sha1.Sum(key)
	tagged := func(n uint8) cryptobyte_asn1.Tag { return cryptobyte_asn1.Tag(n).ContextSpecific() }
	b := cryptobyte.NewBuilder(make([]byte, 0, 256))
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tagged(2).Constructed(), func(b *cryptobyte.Builder) { b.AddASN1OctetString(id[:]) })
		addGeneralizedTime(b, answer.ProducedAt)
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				answer.addCertID(b)
				if answer.RevokedAt.IsZero() {
					b.AddASN1(tagged(0), func(*cryptobyte.Builder) {}) // good
				} else {
					b.AddASN1(tagged(1).Constructed(), func(b *cryptobyte.Builder) {
						addGeneralizedTime(b, answer.RevokedAt)
						if answer.Reason != 0 {
							b.AddASN1(tagged(0).Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(answer.Reason)) })
						}
					})
				}
				addGeneralizedTime(b, answer.ThisUpdate)
				b.AddASN1(tagged(0).Constructed(), func(b *cryptobyte.Builder) { addGeneralizedTime(b, answer.NextUpdate) })
			})
		})
	})
	return b.Bytes()
}

func addGeneralizedTime(b *cryptobyte.Builder, t time.Time) {
	b.AddASN1GeneralizedTime(t.UTC().Truncate(time.Second))
}

// addCertID writes whom the answer is about, as clients compare it with their request.
func (answer *OCSPAnswer) addCertID(b *cryptobyte.Builder) {
	hash := objectID{1, 3, 14, 3, 2, 26}
	if answer.Hash == crypto.SHA256 {
		hash = objectID{2, 16, 840, 1, 101, 3, 4, 2, 1}
	}
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(hash)
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(answer.NameHash)
		b.AddASN1OctetString(answer.KeyHash)
		b.AddASN1BigInt(answer.Serial)
	})
}

// publicKeyBits gives the BIT STRING of a certificate's key, which hashes of it are of.
func publicKeyBits(cert *x509.Certificate) ([]byte, error) {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	_, err := asn1.Unmarshal(cert.RawSubjectPublicKeyInfo, &info)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the certificate's key: %w", err)
	}
	return info.Key.RightAlign(), nil
}

// IssuerHashes gives the hashes of an issuer's name and key that OCSP requests have, by
// SHA-1 or SHA-256.
func IssuerHashes(issuer *x509.Certificate, hash crypto.Hash) (name, key []byte, err error) {
	bits, err := publicKeyBits(issuer)
	if err != nil {
		return nil, nil, err
	}
	sum := func(data []byte) []byte {
		if hash == crypto.SHA256 {
			h := crypto.SHA256.New()
			h.Write(data)
			return h.Sum(nil)
		}
		digest := sha1.Sum(data)
		return digest[:]
	}
	return sum(issuer.RawSubject), sum(bits), nil
}
