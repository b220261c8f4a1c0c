package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

// maxCandidates bounds how many signatures PickIssuer checks. A tenant holds at
// most imprint.MaxCAsPerSubject CAs of one subject.
const maxCandidates = 4 * imprint.MaxCAsPerSubject

const registrationHint = "Make the verification certificate with the code of aws iot get-registration-code as its only common name; each account and region has its own."

// CheckCARegistration says whether a CA may be registered in a mode, given the
// verification certificate that was sent with it (nil when none was) and the
// tenant's registration code. The checks, in their order:
//
//  1. The CA is an X.509 v3 certificate.
//  2. The mode is DEFAULT and there is a verification certificate, or SNI_ONLY
//     and there is none (CodeInvalidRequest).
//  3. basicConstraints says CA:TRUE.
//  4. now is within the CA's validity.
//  5. The CA's key and signature algorithm are on AWS IoT Core's list.
//  6. The CA issued and signed the verification certificate.
//  7. The verification certificate's subject has one CN, and that is the
//     registration code, in either case of its hex digits
//     (CodeRegistrationCode).
//
// Errors are CodeCertificateValidation where nothing else is said. That the CA
// is self-signed, and what the verification certificate is otherwise, isn't
// asked (AWS IoT Core developer guide, "Register your CA certificate").
func CheckCARegistration(ca, verification *x509.Certificate, code string, mode imprint.CertificateMode, now time.Time) error {
	refusal := notVersion3(ca)
	if refusal != nil {
		return refusal
	}
	refusal = checkMode(mode, verification != nil)
	if refusal != nil {
		return refusal
	}
	refusal = notCA(ca)
	if refusal != nil {
		return refusal
	}
	refusal = imprint.ValidityRefusal(ca.NotBefore, ca.NotAfter, now)
	if refusal != nil {
		return asValidation(refusal, "the CA can't be registered")
	}
	refusal = Policy{}.CheckKey(ca)
	if refusal != nil {
		return asValidation(refusal, "the CA can't be registered")
	}
	if verification == nil {
		return nil
	}
	return checkVerification(ca, verification, code)
}

func checkVerification(ca, verification *x509.Certificate, code string) error {
	if !bytes.Equal(verification.RawIssuer, ca.RawSubject) {
		return invalid("the verification certificate was issued by %q, the CA is %q", SubjectText(verification.RawIssuer), SubjectText(ca.RawSubject)).
			WithHint("Sign the verification certificate with the CA that is being registered, and send the CA's certificate, not its issuer's.")
	}
	refusal := Policy{}.checkSignatureAlgorithm(verification.SignatureAlgorithm)
	if refusal != nil {
		return asValidation(refusal, "the verification certificate can't be checked")
	}
	err := SignedBy(verification, ca)
	if err != nil {
		return invalid("the CA's key didn't sign the verification certificate: %w", err).
			WithHint("It names the CA as its issuer but another key signed it: openssl verify -CAfile CA.pem VERIFICATION.pem shows it. Sign it with the CA's present key.")
	}
	return checkCommonName(verification, code)
}

// checkCommonName compares the only CN with the code.
func checkCommonName(cert *x509.Certificate, code string) error {
	if code == "" {
		return imprint.Errorf(imprint.CodeRegistrationCode, "this tenant has no registration code yet").
			WithHint("Run aws iot get-registration-code and make a verification certificate with that CN.")
	}
	var names []string
	for _, attribute := range cert.Subject.Names {
		if attribute.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			text, _ := attribute.Value.(string)
			names = append(names, text)
		}
	}
	if len(names) != 1 {
		return imprint.Errorf(imprint.CodeRegistrationCode, "the verification certificate has %d common names, one is expected", len(names)).
			WithHint(registrationHint)
	}
	// The code is ASCII hex; folding beyond ASCII can't make another text equal
	// to it, because EqualFold folds no other letter to a-f.
	if !strings.EqualFold(names[0], code) {
		return imprint.Errorf(imprint.CodeRegistrationCode, "the verification certificate's common name is %q, not this tenant's registration code", imprint.Excerpt(names[0])).
			WithHint(registrationHint)
	}
	return nil
}

func notVersion3(ca *x509.Certificate) *imprint.Error {
	if ca.Version == 3 {
		return nil
	}
	return invalid("the CA is an X.509 v%d certificate, v3 is needed", ca.Version).
		WithHint("It was made without extensions. Make it with basicConstraints = critical,CA:TRUE (openssl req -x509 -extensions v3_ca).")
}

func notCA(ca *x509.Certificate) *imprint.Error {
	if ca.BasicConstraintsValid && ca.IsCA {
		return nil
	}
	return invalid("the certificate isn't a CA: basicConstraints CA:TRUE is missing").
		WithHint("Make the CA with basicConstraints = critical,CA:TRUE (openssl req -x509 -extensions v3_ca), and send the CA's certificate, not a device's.")
}

func checkMode(mode imprint.CertificateMode, verified bool) *imprint.Error {
	switch {
	case mode == imprint.ModeDefault && !verified:
		return imprint.Errorf(imprint.CodeInvalidRequest, "mode DEFAULT needs a verification certificate").
			WithHint("Run aws iot get-registration-code, sign a certificate with that CN by the CA, send it as verificationCertificate; or register the CA with --certificate-mode SNI_ONLY.")
	case mode == imprint.ModeSNIOnly && verified:
		return imprint.Errorf(imprint.CodeInvalidRequest, "mode SNI_ONLY takes no verification certificate").
			WithHint("Leave verificationCertificate out, or use mode DEFAULT.")
	case mode != imprint.ModeDefault && mode != imprint.ModeSNIOnly:
		return imprint.Errorf(imprint.CodeInvalidRequest, "certificate mode %q isn't DEFAULT or SNI_ONLY", imprint.Excerpt(string(mode)))
	}
	return nil
}

// asValidation gives a refusal of the devices' door the code that the control
// plane has for it.
func asValidation(refusal *imprint.Error, what string) *imprint.Error {
	return &imprint.Error{Code: imprint.CodeCertificateValidation, Op: what, Err: refusal.Err, Hint: imprint.HintOf(refusal)}
}

// SignedBy says whether ca's key made leaf's signature; it looks at nothing else,
// neither names nor validity nor extensions. Errors: CodeCASignature, or
// CodeCertificateWeak for algorithms and keys that can't be trusted or checked.
func SignedBy(leaf, ca *x509.Certificate) error {
	policy := DevicePolicy()
	refusal := policy.checkSignatureAlgorithm(leaf.SignatureAlgorithm)
	if refusal != nil {
		return refusal
	}
	refusal = policy.checkPublicKey(ca.PublicKey)
	if refusal != nil {
		return refusal
	}
	err := ca.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature)
	if err != nil {
		return imprint.Errorf(imprint.CodeCASignature, "the signature isn't by the CA %q: %w", SubjectText(ca.RawSubject), err)
	}
	return nil
}

// PickIssuer gives the index of the candidate that signed leaf. Only candidates
// whose subject is the leaf's issuer count, byte for byte; the one whose
// subjectKeyIdentifier is the leaf's authorityKeyIdentifier is tried first, so
// that there is one signature to check whatever the number of CAs of one name.
// At most 40 signatures are checked.
//
// Errors: CodeCANotRegistered when no candidate has the name, CodeCASignature
// when none of those signed it, CodeCertificateWeak for a signature algorithm
// that isn't accepted.
func PickIssuer(leaf *x509.Certificate, candidates []*x509.Certificate) (int, error) {
	refusal := DevicePolicy().checkSignatureAlgorithm(leaf.SignatureAlgorithm)
	if refusal != nil {
		return -1, refusal
	}
	named, tried := 0, 0
	for _, identified := range []bool{true, false} {
		for i, ca := range candidates {
			if ca == nil || !bytes.Equal(ca.RawSubject, leaf.RawIssuer) {
				continue
			}
			if identified {
				named++
			}
			if sameKeyID(leaf, ca) != identified || tried == maxCandidates {
				continue
			}
			tried++
			if SignedBy(leaf, ca) == nil {
				return i, nil
			}
		}
	}
	if named == 0 {
		return -1, imprint.Errorf(imprint.CodeCANotRegistered, "no CA has the certificate's issuer %q as its subject", SubjectText(leaf.RawIssuer))
	}
	return -1, imprint.Errorf(imprint.CodeCASignature, "%d CA(s) have the issuer's name %q, but none of their keys made this signature", named, SubjectText(leaf.RawIssuer))
}

func sameKeyID(leaf, ca *x509.Certificate) bool {
	return len(leaf.AuthorityKeyId) != 0 && bytes.Equal(leaf.AuthorityKeyId, ca.SubjectKeyId)
}
