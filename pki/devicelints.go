package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
)

// DeviceLint is a rule for certificates of devices and of their CAs that ZLint has no lint
// for. The rules look at the certificate alone, not at how it was made: what signs asks
// them beside ZLint before a CA key is used, and a checker may ask them of what was issued.
type DeviceLint struct {
	// Name is e_imprint_..., as ZLint names its own.
	Name string
	// Says is the rule, and Source where it is from.
	Says, Source string
	kinds        []ProfileKind
	holds        func(cert, issuer *x509.Certificate) bool
}

// Applies says whether the rule is about certificates of a kind.
func (l *DeviceLint) Applies(kind ProfileKind) bool { return slices.Contains(l.kinds, kind) }

var (
	everyKind   = []ProfileKind{KindAWSDevice, KindOperational, KindIDevID, KindServer, KindClaim, KindIntermediate, KindRoot, KindOCSP}
	leafKinds   = []ProfileKind{KindAWSDevice, KindOperational, KindIDevID, KindServer, KindClaim, KindOCSP}
	deviceKinds = []ProfileKind{KindOperational, KindIDevID, KindClaim}
	clientKinds = []ProfileKind{KindOperational, KindClaim}
	caKinds     = []ProfileKind{KindIntermediate, KindRoot}
)

// MaxDeviceCertificate is how long a device's certificate may be, in octets: devices read
// certificates into buffers of a few KiB.
const MaxDeviceCertificate = 4096

// deviceLints are all of them; docs/ca.md has them as a table.
var deviceLints = []DeviceLint{
	{"e_imprint_serial_number", "the serial number is positive, of 8 to 20 octets", "RFC 5280 section 4.1.2.2; 64 bits that nobody can foresee, so that no collision of hashes helps", everyKind, soundSerial},
	{"e_imprint_key_identifiers", "subjectKeyIdentifier is there, and authorityKeyIdentifier is the CA's", "RFC 5280 sections 4.2.1.1 and 4.2.1.2: devices find the CA by it among those of one name", everyKind, keyIdentifiers},
	{"e_imprint_leaf_is_no_ca", "basicConstraints is critical and says no CA, keyUsage has neither keyCertSign nor cRLSign", "RFC 5280 sections 4.2.1.3 and 4.2.1.9", leafKinds, noCA},
	{"e_imprint_digital_signature", "keyUsage is critical and has digitalSignature", "RFC 8446 section 4.4.2.2: TLS 1.3 signs with the key", leafKinds, signsDigitally},
	{"e_imprint_ca_usages", "basicConstraints and keyUsage are critical, with keyCertSign, cRLSign and no usage of TLS", "RFC 5280 sections 4.2.1.3 and 4.2.1.9: a CA's key speaks for no device", caKinds, caUsages},
	{"e_imprint_path_length", "a bound stands on how many CAs may be below", "who has an intermediate's key must not make CAs without end (RFC 5280 section 4.2.1.9)", []ProfileKind{KindIntermediate}, boundedPath},
	{"e_imprint_client_usage", "extendedKeyUsage has clientAuth", "RFC 5280 section 4.2.1.12; verifiers of mutual TLS ask for it", clientKinds, isClient},
	{"e_imprint_no_any_usage", "extendedKeyUsage has no anyExtendedKeyUsage", "RFC 5280 section 4.2.1.12: it lifts all limits, of OCSP and code signing too", everyKind, noAnyUsage},
	{"e_imprint_device_size", "the certificate has at most 4096 octets", "devices read certificates into buffers of a few KiB, and send them with each handshake", deviceKinds, fitsDevices},
	{"e_imprint_topic_characters", "CN and serialNumber have none of # + $ { }", "policies put them into topics and resources; these would be wildcards and variables there", deviceKinds, plainNames},
	{"e_imprint_names_once", "no name stands twice in subjectAltName", "a request that was put together wrongly", leafKinds, namesOnce},
	{"e_imprint_claim_ends", "a claim certificate has an end", "it is in every device of a batch, and is to be worth nothing some day", []ProfileKind{KindClaim}, hasEnd},
	{"e_imprint_idevid_serial_number", "the subject has one serialNumber, not empty", "IEEE 802.1AR-2018 section 8.6; RFC 8995 section 2.3.1", []ProfileKind{KindIDevID}, oneSerialNumber},
	{"e_imprint_idevid_key", "the key is P-256, P-384 or RSA of 2048 bits or more", "IEEE 802.1AR-2018 section 9", []ProfileKind{KindIDevID}, idevidKey},
	{"e_imprint_hardware_module", "hardwareModuleName has the serial number of the subject", "RFC 4108 section 5, IEEE 802.1AR-2018 section 8.10", []ProfileKind{KindIDevID}, sameModule},
	{"e_imprint_plain_urls", "URLs of CRLs, OCSP and CAs are of http", "RFC 5280 section 8: who checks a certificate must not need another one for it", everyKind, plainURLs},
	{"e_imprint_responder", "extendedKeyUsage is OCSPSigning alone, and ocsp-nocheck is there", "RFC 6960 sections 4.2.2.2 and 4.2.2.2.1", []ProfileKind{KindOCSP}, isResponder},
}

// DeviceLints lists the rules.
func DeviceLints() []DeviceLint { return slices.Clone(deviceLints) }

// LintDevice gives the rules that a certificate of a kind breaks. The issuer is its CA's
// certificate, its own for a root.
func LintDevice(cert, issuer *x509.Certificate, kind ProfileKind) []DeviceLint {
	var broken []DeviceLint
	for _, l := range deviceLints {
		if l.Applies(kind) && !l.holds(cert, issuer) {
			broken = append(broken, l)
		}
	}
	return broken
}

// ownRules is LintDevice as a refusal.
func ownRules(cert, issuer *x509.Certificate, kind ProfileKind) error {
	broken := LintDevice(cert, issuer, kind)
	if len(broken) == 0 {
		return nil
	}
	texts := make([]string, len(broken))
	for n, l := range broken {
		texts[n] = l.Name + ": " + l.Says
	}
	return imprint.Errorf(imprint.CodeCertificateValidation, "the certificate would break %d rule(s): %s", len(broken), strings.Join(texts, "; ")).
		WithHint("docs/ca.md says of each rule where it is from. Change the request, or the profile.")
}

func soundSerial(cert, _ *x509.Certificate) bool {
	n := len(cert.SerialNumber.Bytes())
	return cert.SerialNumber.Sign() == 1 && n >= 8 && n <= 20 && cert.SerialNumber.BitLen() < 160
}

func keyIdentifiers(cert, issuer *x509.Certificate) bool {
	return len(cert.SubjectKeyId) > 0 && len(cert.AuthorityKeyId) > 0 && bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId)
}

func criticalExtension(cert *x509.Certificate, last int) bool {
	return slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Critical && e.Id.Equal(objectID{2, 5, 29, last}) })
}

func noCA(cert, _ *x509.Certificate) bool {
	return criticalExtension(cert, 19) && !cert.IsCA && cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) == 0
}

func signsDigitally(cert, _ *x509.Certificate) bool {
	return criticalExtension(cert, 15) && cert.KeyUsage&x509.KeyUsageDigitalSignature != 0
}

func caUsages(cert, _ *x509.Certificate) bool {
	// A CA that answers OCSP itself may have digitalSignature.
	const must, may = x509.KeyUsageCertSign | x509.KeyUsageCRLSign, x509.KeyUsageDigitalSignature
	return criticalExtension(cert, 19) && criticalExtension(cert, 15) && cert.IsCA && cert.KeyUsage&must == must && cert.KeyUsage&^(must|may) == 0
}

func boundedPath(cert, _ *x509.Certificate) bool { return PathLimit(cert) >= 0 }

func isClient(cert, _ *x509.Certificate) bool {
	return slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
}

func noAnyUsage(cert, _ *x509.Certificate) bool {
	return !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

func fitsDevices(cert, _ *x509.Certificate) bool { return len(cert.Raw) <= MaxDeviceCertificate }

// subjectTexts gives the values of an attribute of a subject.
func subjectTexts(cert *x509.Certificate, name string) []string {
	parsed, err := parseName(cert.RawSubject)
	if err != nil {
		return nil
	}
	var texts []string
	for _, one := range parsed {
		for _, a := range one {
			if attributeName(a.Type) == name {
				text, _ := a.text()
				texts = append(texts, text)
			}
		}
	}
	return texts
}

func plainNames(cert, _ *x509.Certificate) bool {
	for _, text := range slices.Concat(subjectTexts(cert, "CN"), subjectTexts(cert, "SERIALNUMBER")) {
		if strings.ContainsAny(text, "#+${}") {
			return false
		}
	}
	return true
}

func namesOnce(cert, _ *x509.Certificate) bool {
	seen := map[string]bool{}
	var names []string
	for _, name := range cert.DNSNames {
		names = append(names, "dns "+strings.ToLower(name))
	}
	for _, mail := range cert.EmailAddresses {
		names = append(names, "email "+mail)
	}
	for _, uri := range cert.URIs {
		names = append(names, "uri "+uri.String())
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, "ip "+ip.String())
	}
	for _, name := range names {
		if seen[name] {
			return false
		}
		seen[name] = true
	}
	return true
}

func hasEnd(cert, _ *x509.Certificate) bool { return cert.NotAfter.Before(NoExpiry()) }

func oneSerialNumber(cert, _ *x509.Certificate) bool {
	texts := subjectTexts(cert, "SERIALNUMBER")
	return len(texts) == 1 && strings.TrimSpace(texts[0]) != ""
}

func idevidKey(cert, _ *x509.Certificate) bool {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		return key.Curve == elliptic.P256() || key.Curve == elliptic.P384()
	}
	return false
}

// sameModule holds where there is no hardwareModuleName.
func sameModule(cert, _ *x509.Certificate) bool {
	at := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(objectID{2, 5, 29, 17}) })
	if at < 0 {
		return true
	}
	input := cryptobyte.String(cert.Extensions[at].Value)
	var names cryptobyte.String
	if !input.ReadASN1(&names, cryptobyte_asn1.SEQUENCE) {
		return false
	}
	explicit := cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()
	for !names.Empty() {
		var name, value, module, serial cryptobyte.String
		var tag cryptobyte_asn1.Tag
		var id, kind objectID
		if !names.ReadAnyASN1(&name, &tag) {
			return false
		}
		if tag != explicit || !name.ReadASN1ObjectIdentifier(&id) || !id.Equal(hardwareModuleID) {
			continue
		}
		if !name.ReadASN1(&value, explicit) || !value.ReadASN1(&module, cryptobyte_asn1.SEQUENCE) || !module.ReadASN1ObjectIdentifier(&kind) ||
			!module.ReadASN1(&serial, cryptobyte_asn1.OCTET_STRING) || !slices.Contains(subjectTexts(cert, "SERIALNUMBER"), string(serial)) {
			return false
		}
	}
	return true
}

func plainURLs(cert, _ *x509.Certificate) bool {
	for _, text := range slices.Concat(cert.CRLDistributionPoints, cert.OCSPServer, cert.IssuingCertificateURL) {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" {
			return false
		}
	}
	return true
}

func isResponder(cert, _ *x509.Certificate) bool {
	return len(cert.ExtKeyUsage) == 1 && cert.ExtKeyUsage[0] == x509.ExtKeyUsageOCSPSigning && len(cert.UnknownExtKeyUsage) == 0 &&
		slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(objectID{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}) })
}
