package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// matchOf turns a certificate file, PEM or DER, into the certificate's id and leaves
// other words alone: client ids and things may look like paths.
func matchOf(word string) (string, error) {
	if strings.TrimSpace(word) == "" {
		return "", usageError{errors.New("nothing to explain: give a certificate id or file, serial number, thing, client id, address, ARN or attempt id")}
	}
	data, err := os.ReadFile(word)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) || slices.Contains([]string{".pem", ".crt", ".cer", ".der", ".csr"}, filepath.Ext(word)) {
			return "", usageError{fmt.Errorf("couldn't read the certificate: %w", err)}
		}
		return word, nil // no file of that name: the word itself is meant
	}
	certificates, kinds := certificatesIn(data)
	if len(certificates) == 0 {
		if request := requestIn(data); request != nil {
			return "", usageError{imprint.Errorf(imprint.CodeInvalidRequest, "%s is a certificate signing request, subject %q: attempts are known by certificates", word, pki.SubjectText(request.RawSubject)).
				WithHint("Give the certificate that was made of it, the thing's name, or the serial number in its subject.")}
		}
		what := "neither a certificate in PEM nor one in DER"
		if len(kinds) > 0 {
			what = "no certificate, but " + strings.Join(kinds, ", ")
		}
		return "", usageError{fmt.Errorf("%s holds %s", word, what)}
	}
	// A device's own certificate is meant, also where its CA stands first.
	at := max(0, slices.IndexFunc(certificates, func(c *x509.Certificate) bool { return !c.IsCA }))
	return string(pki.CertificateID(certificates[at].Raw)), nil
}

// certificatesIn reads the certificates of a file, and says what else it holds.
func certificatesIn(data []byte) (certificates []*x509.Certificate, kinds []string) {
	single, err := x509.ParseCertificate(data)
	if err == nil {
		return []*x509.Certificate{single}, nil
	}
	for rest := data; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return certificates, kinds
		}
		one, err := x509.ParseCertificate(block.Bytes)
		if block.Type == "CERTIFICATE" && err == nil {
			certificates = append(certificates, one)
			continue
		}
		kinds = append(kinds, block.Type)
	}
}

// requestIn reads a signing request, PEM or DER; nil: it is none.
func requestIn(data []byte) *x509.CertificateRequest {
	block, _ := pem.Decode(bytes.TrimSpace(data))
	if block != nil {
		data = block.Bytes
	}
	request, err := x509.ParseCertificateRequest(data)
	if err != nil {
		return nil
	}
	return request
}
