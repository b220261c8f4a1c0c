package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
)

// Bounds of RSA keys, in bits. The lower one is AWS IoT Core's. The upper one
// keeps a stranger from making the server work: checking one signature of a
// 16384-bit key takes some hundred times as long as of a 2048-bit key, and
// crypto/tls draws its line at 8192, too.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// Policy says which keys and signature algorithms are accepted: RSA of 2048 to
// 8192 bits, ECDSA on P-256, P-384 and P-521, SHA-256 or better. The zero
// Policy is AWS IoT Core's list ("X.509 client certificates" in the developer
// guide) as far as Go can check it.
type Policy struct {
	// Ed25519 accepts Ed25519 keys and signatures, too, which TLS allows and
	// AWS IoT Core refuses.
	Ed25519 bool
	// Known are keys that are refused beside the built-in ones; nil: none.
	Known *KnownKeys
}

// DevicePolicy is the policy for device certificates and CSRs: AWS IoT Core's
// list and Ed25519.
func DevicePolicy() Policy { return Policy{Ed25519: true} }

// CheckKey is DevicePolicy().CheckKey.
func CheckKey(cert *x509.Certificate) *imprint.Error { return DevicePolicy().CheckKey(cert) }

// CheckKey says why a certificate's public key or its signature algorithm isn't
// accepted; nil when both are. The code is CodeCertificateWeak, with a hint.
func (p Policy) CheckKey(cert *x509.Certificate) *imprint.Error {
	refusal := p.checkPublicKey(cert.PublicKey)
	if refusal != nil {
		return refusal
	}
	refusal = p.Known.Refusal(cert.RawSubjectPublicKeyInfo)
	if refusal != nil {
		return refusal
	}
	return p.checkSignatureAlgorithm(cert.SignatureAlgorithm)
}

// CheckAuthorityKey says why a certificate's key may not be that of a CA; nil when it may.
// A CA that signs here must have a key that AWS Private CA's CAs may have, too: RSA of 2048
// to 4096 bits with an exponent of 65537 or more, P-256 or P-384. Of one that is here for
// its chain alone no more is asked than of a device. The code is CodeCertificateWeak.
func (p Policy) CheckAuthorityKey(cert *x509.Certificate, signs bool) *imprint.Error {
	refusal := p.CheckKey(cert)
	if refusal == nil {
		refusal = WeakKey(cert.PublicKey)
	}
	if refusal != nil || !signs {
		return refusal
	}
	refusal = smallExponent(cert.PublicKey)
	if refusal != nil {
		return refusal
	}
	if !slices.Contains(authorityKinds, KeyKindOf(cert.PublicKey)) {
		return weak("the CA's key is a %s key", KeyKindOf(cert.PublicKey)).
			WithHint("Keys of CAs that sign here are of these kinds: %s.", joinKinds(authorityKinds))
	}
	return nil
}

// authorityKinds are the keys that a CA may sign with.
var authorityKinds = []KeyKind{KeyP256, KeyP384, KeyRSA2048, KeyRSA3072, KeyRSA4096}

// minExponent is the least public exponent that certificates are made for: with small ones,
// faulty programs were made to accept signatures that nobody made (NIST SP 800-89 section
// 5.3.3; CVE-2006-4339).
const minExponent = 65537

func smallExponent(pub crypto.PublicKey) *imprint.Error {
	key, isRSA := pub.(*rsa.PublicKey)
	if !isRSA || key.E >= minExponent {
		return nil
	}
	return weak("the RSA key's exponent is %d, at least %d is needed", key.E, minExponent).
		WithHint("Make a new key, whose exponent is 65537 where nothing else is said: openssl genrsa 2048")
}

func (p Policy) checkPublicKey(pub crypto.PublicKey) *imprint.Error {
	switch key := pub.(type) {
	case *rsa.PublicKey:
		return checkRSA(key)
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return weak("the key is on the curve %s", key.Curve.Params().Name).
			WithHint("Use P-256: openssl ecparam -genkey -name prime256v1 -noout")
	case ed25519.PublicKey:
		if p.Ed25519 {
			return nil
		}
		return weak("the key is an Ed25519 key, which isn't accepted here").
			WithHint("Use P-256 or RSA-2048, as AWS IoT Core demands.")
	}
	return weak("the key is of a kind that isn't accepted").
		WithHint("DSA, Ed448 and X25519 keys can't be used. Use an RSA key of 2048 bits or more (as rsaEncryption, not marked for RSASSA-PSS alone), or a named curve: P-256, P-384, P-521.")
}

func checkRSA(key *rsa.PublicKey) *imprint.Error {
	bits := key.N.BitLen()
	switch {
	case bits < minRSABits:
		return weak("the RSA key has %d bits, at least %d are needed", bits, minRSABits).
			WithHint("Make a new key: openssl genrsa 2048")
	case bits > maxRSABits:
		return weak("the RSA key has %d bits, at most %d are accepted", bits, maxRSABits).
			WithHint("2048 bits do; 4096 are plenty.")
	case key.E < 3 || key.E%2 == 0 || key.N.Bit(0) == 0:
		return weak("the RSA key isn't one: its modulus or exponent (%d) is impossible", key.E).
			WithHint("Make a new key: openssl genrsa 2048")
	}
	return nil
}

func (p Policy) checkSignatureAlgorithm(algorithm x509.SignatureAlgorithm) *imprint.Error {
	switch algorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return nil
	case x509.PureEd25519:
		if p.Ed25519 {
			return nil
		}
		return weak("the certificate is signed with Ed25519, which isn't accepted here").
			WithHint("Let a CA with a P-256 or RSA-2048 key sign it, as AWS IoT Core demands.")
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
		return weak("the certificate is signed with %s, which is broken", algorithm).
			WithHint("Sign it again with SHA-256: openssl x509 -req -sha256 ...")
	case x509.DSAWithSHA256:
		return weak("the certificate is signed with %s, which this server can't verify", algorithm).
			WithHint("Let a CA with a P-256 or RSA-2048 key sign it.")
	}
	return weak("the certificate's signature algorithm isn't known").
		WithHint("Sign it with sha256WithRSAEncryption or ecdsa-with-SHA256. With RSASSA-PSS the salt must be as long as the hash.")
}

// Role is what a certificate is meant for.
type Role string

// The roles that Mistakes knows.
const (
	RoleDevice Role = "device"
	RoleCA     Role = "ca"
)

// Mistakes lists everything that a person may have got wrong in a certificate
// for a role, the refusals first, each with a hint: for command lines and web
// pages that check before they send. Not every one of them is a reason for a
// server to refuse; CheckKey, CheckCARegistration and
// imprint.ValidityRefusal decide that.
func (p Policy) Mistakes(cert *x509.Certificate, role Role, now time.Time) []*imprint.Error {
	var found []*imprint.Error
	add := func(e *imprint.Error) {
		if e != nil {
			found = append(found, e)
		}
	}
	add(p.checkPublicKey(cert.PublicKey))
	add(p.checkSignatureAlgorithm(cert.SignatureAlgorithm))
	add(imprint.ValidityRefusal(cert.NotBefore, cert.NotAfter, now))
	if role == RoleCA {
		add(notCA(cert))
		if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 {
			add(invalid("the CA's keyUsage lacks keyCertSign").
				WithHint("Add keyUsage = critical,keyCertSign,cRLSign to the extensions and sign it again."))
		}
		if len(cert.SubjectKeyId) == 0 {
			add(invalid("the CA has no subjectKeyIdentifier").
				WithHint("Add subjectKeyIdentifier = hash, so that its devices find it among CAs of one name."))
		}
		return found
	}
	if cert.IsCA {
		add(invalid("the device's certificate is a CA certificate").
			WithHint("Sign it with basicConstraints = critical,CA:FALSE; who has its key could make certificates of its own."))
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		add(invalid("the certificate's keyUsage lacks digitalSignature, which TLS needs").
			WithHint("Add keyUsage = critical,digitalSignature and sign it again."))
	}
	if !clientUsage(cert) {
		add(invalid("the certificate's extendedKeyUsage lacks clientAuth").
			WithHint("Add clientAuth, or leave extendedKeyUsage out."))
	}
	if cert.SerialNumber.Cmp(big.NewInt(0)) <= 0 {
		add(invalid("the serial number isn't positive").WithHint("Let the CA choose random serial numbers: openssl x509 -req -CAcreateserial"))
	}
	return found
}

func clientUsage(cert *x509.Certificate) bool {
	if len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0 {
		return true
	}
	for _, usage := range cert.ExtKeyUsage {
		if usage == x509.ExtKeyUsageClientAuth || usage == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}

func weak(format string, args ...any) *imprint.Error {
	return imprint.Errorf(imprint.CodeCertificateWeak, format, args...)
}
