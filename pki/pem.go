package pki

import (
	"bytes"
	"encoding/pem"
	"strings"

	"crypto/x509"

	"github.com/imprint-iot/imprint"
)

// MaxPEM is the length of the longest PEM text that is read, the limit of the
// AWS IoT API for certificatePem and caCertificate rounded up.
const MaxPEM = 64 << 10

const (
	beginMark = "-----BEGIN "
	endMark   = "-----END "

	typeCertificate = "CERTIFICATE"
	typeRequest     = "CERTIFICATE REQUEST"
	typeNewRequest  = "NEW CERTIFICATE REQUEST"
)

// ParseCertificatePEM reads one certificate. White space around it and text in
// front of it, such as openssl x509 -text prints, are allowed; a second PEM
// block, headers inside the block and text behind it are not.
//
// Errors: CodeCertificateValidation with a hint at the likely mistake.
func ParseCertificatePEM(text string) (*x509.Certificate, error) {
	der, refusal := oneBlock(text, "certificate", typeCertificate)
	if refusal != nil {
		return nil, refusal
	}
	return ParseCertificateDER(der)
}

// maxChain bounds how many certificates ParseCertificatesPEM reads.
const maxChain = 16

// ParseCertificatesPEM reads a chain: one certificate after the other, with text or
// nothing between them. Errors as ParseCertificatePEM, and for more than 16.
func ParseCertificatesPEM(text string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	rest := []byte(text)
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != typeCertificate || len(block.Headers) > 0 {
			return nil, invalid("the chain holds a PEM block %q", imprint.Excerpt(block.Type)).WithHint("Send certificates alone.")
		}
		if len(all) == maxChain {
			return nil, invalid("the chain has more than %d certificates", maxChain)
		}
		cert, err := ParseCertificateDER(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, invalid("the chain holds no certificate").WithHint("Send PEM: -----BEGIN CERTIFICATE----- ...")
	}
	return all, nil
}

// ParseCertificateDER reads one certificate of at most MaxPEM bytes. Errors as
// ParseCertificatePEM.
func ParseCertificateDER(der []byte) (*x509.Certificate, error) {
	if len(der) > MaxPEM {
		return nil, invalid("the certificate is longer than %d bytes", MaxPEM)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, invalid("couldn't read the certificate: %w", err).
			WithHint("The PEM block holds no legal X.509 certificate: look at it with openssl x509 -in FILE -noout -text, and make it anew.")
	}
	return cert, nil
}

// EncodeCertificatePEM gives the PEM form: 64 columns, LF, LF at the end.
func EncodeCertificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: der}))
}

// ParseCSRPEM reads one certificate signing request (PKCS#10, RFC 2986) under
// the same rules as ParseCertificatePEM, checks that its key is acceptable and
// that it is signed with that key. SHA-1 is good enough for this signature: it
// proves that the device has the key, and the certificate doesn't inherit it.
//
// Errors: CodeCertificateValidation, or CodeCertificateWeak for the key, with a
// hint.
func (p Policy) ParseCSRPEM(text string) (*x509.CertificateRequest, error) {
	der, refusal := oneBlock(text, "certificate signing request", typeRequest, typeNewRequest)
	if refusal != nil {
		return nil, refusal
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, invalid("couldn't read the certificate signing request: %w", err).
			WithHint("Make it with: openssl req -new -key KEY -subj /CN=NAME -out FILE")
	}
	// Before the signature: checking that costs what the key's size makes it.
	refusal = p.checkPublicKey(csr.PublicKey)
	if refusal != nil {
		return nil, refusal
	}
	err = csr.CheckSignature()
	if err != nil {
		return nil, invalid("the certificate signing request isn't signed by the key that it carries: %w", err).
			WithHint("Sign it with the private key of its public key, with SHA-256: openssl req -new -sha256 -key KEY. With RSASSA-PSS the salt must be as long as the hash.")
	}
	return csr, nil
}

// ParseCSRPEM is DevicePolicy().ParseCSRPEM.
func ParseCSRPEM(text string) (*x509.CertificateRequest, error) {
	return DevicePolicy().ParseCSRPEM(text)
}

// oneBlock gives the bytes of the single PEM block of one of the types. What
// says, for people, what is looked for.
func oneBlock(text, what string, types ...string) ([]byte, *imprint.Error) {
	if len(text) > MaxPEM {
		return nil, invalid("the %s is longer than %d bytes", what, MaxPEM).
			WithHint("Send one %s, not a bundle.", what)
	}
	start := lineStart(text)
	if start < 0 {
		return nil, noBlock(text, what, types[0])
	}
	block, rest := pem.Decode([]byte(text[start:]))
	// Decode skips blocks that it can't read; counting shows that it did.
	// Everything up to rest must be the one block.
	if n := strings.Count(text, beginMark); n != 1 {
		return nil, invalid("the text holds %d PEM blocks, one %s is expected", n, what).
			WithHint("Send the %s alone, without chain, key or parameters.", what)
	}
	if block == nil {
		return nil, invalid("the PEM block of the %s is damaged", what).
			WithHint("Its base64 lines or its END line are broken: copy the whole file, from %s%s----- to the END line.", beginMark, types[0])
	}
	if len(bytes.TrimSpace(rest)) != 0 || strings.Count(text, endMark) != 1 {
		return nil, invalid("there is text behind the PEM block of the %s", what).
			WithHint("Remove what follows the END line.")
	}
	if len(block.Headers) != 0 {
		return nil, invalid("the PEM block of the %s has headers", what).
			WithHint("Remove the lines with a colon between BEGIN and the base64 text.")
	}
	for _, t := range types {
		if block.Type == t {
			return block.Bytes, nil
		}
	}
	return nil, wrongType(block.Type, what, types[0])
}

// lineStart finds the first BEGIN that stands at the start of a line.
func lineStart(text string) int {
	if strings.HasPrefix(text, beginMark) {
		return 0
	}
	for _, lead := range []string{"\n", "\r"} {
		if i := strings.Index(text, lead+beginMark); i >= 0 {
			return i + 1
		}
	}
	// Indented with spaces or tabs from the very start, as here-documents leave
	// it: surrounding white space is allowed.
	trimmed := strings.TrimLeft(text, " \t\r\n")
	if strings.HasPrefix(trimmed, beginMark) {
		return len(text) - len(trimmed)
	}
	return -1
}

func noBlock(text, what, want string) *imprint.Error {
	e := invalid("the text holds no PEM block at the start of a line")
	switch {
	case strings.TrimSpace(text) == "":
		return invalid("the %s is empty", what).WithHint("Give the content of the file: with the AWS CLI, file://FILE.")
	case strings.Contains(text, `\n`) && strings.Contains(text, beginMark):
		return e.WithHint(`Its line breaks are the two characters \n: they were escaped once too often. Send real line breaks.`)
	case strings.HasPrefix(text, "file:"):
		return e.WithHint("It is the name of a file, not its content: the AWS CLI wants exactly file://FILE.")
	case text[0] == 0x30:
		return e.WithHint("It looks like DER. Convert it: openssl x509 -inform DER -in FILE -out FILE.pem (openssl req for a CSR).")
	case strings.HasPrefix(text, "\ufeff"):
		return e.WithHint("It begins with a byte order mark: save the file as UTF-8 without BOM.")
	}
	return e.WithHint("Send the whole PEM file, beginning with %s%s-----.", beginMark, want)
}

func wrongType(got, what, want string) *imprint.Error {
	e := invalid("the PEM block isn't a %s but %q", what, imprint.Excerpt(got))
	switch {
	case strings.HasSuffix(got, "PRIVATE KEY"):
		return e.WithHint("This is a private key: never send it anywhere. Send the %s (%s).", what, want)
	case got == typeRequest || got == typeNewRequest:
		return e.WithHint("This is a signing request: let the CA sign it and send the certificate.")
	case got == typeCertificate:
		return e.WithHint("This is a certificate: send the request that it was made from (openssl req -new).")
	case got == "TRUSTED CERTIFICATE" || got == "X509 CERTIFICATE":
		return e.WithHint("Convert it: openssl x509 -in FILE -out FILE.pem")
	}
	return e.WithHint("Send a PEM block of the type %s.", want)
}

func invalid(format string, args ...any) *imprint.Error {
	return imprint.Errorf(imprint.CodeCertificateValidation, format, args...)
}
