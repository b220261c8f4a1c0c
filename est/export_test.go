package est

import "crypto/x509"

// Read reads a body as the door does, with the request's attributes.
func Read(text []byte) (*x509.CertificateRequest, error) {
	csr, err := parseRequest(text)
	if err != nil {
		return nil, err
	}
	attributes, err := attributesOf(csr)
	for _, value := range attributes {
		challenge(value)
	}
	return csr, err
}
