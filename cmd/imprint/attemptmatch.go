package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// otherFileError is about a file that has nothing to do with certificates, and may well have a
// device's name.
type otherFileError struct{ error }

// wordOf is matchOf where words needn't be certificates: what a file of that name is, where it
// has nothing to do with them, is a note, and the word itself is meant. The word - stands for
// what standard input has, a certificate or a line.
func wordOf(in io.Reader, word string) (match string, notes []string, err error) {
	if word == "-" {
		match, err = piped(in)
		return match, nil, err
	}
	match, err = matchOf(word)
	var other otherFileError
	if errors.As(err, &other) {
		return word, []string{fmt.Sprintf("There is a file %s here, which holds no certificate: %s is looked for as a name.", word, word)}, nil
	}
	return match, nil, err
}

// maxPiped bounds what is read from standard input: a certificate, or a chain.
const maxPiped = 1 << 20

// piped gives what standard input names.
func piped(in io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxPiped))
	if err != nil {
		return "", fmt.Errorf("couldn't read standard input: %w", err)
	}
	line := strings.TrimSpace(string(data))
	if line == "" {
		return "", usageError{errNothing}
	}
	match, err := certificateOf("standard input", data)
	var other otherFileError
	if errors.As(err, &other) && !strings.ContainsRune(line, '\n') {
		return line, nil
	}
	return match, err
}

var errNothing = errors.New("nothing to explain: give a certificate id or file, serial number, thing, client id, address, ARN or attempt id")

// matchOf turns a certificate file, PEM or DER, into the certificate's id and leaves
// other words alone: client ids and things may look like paths.
func matchOf(word string) (string, error) {
	if strings.TrimSpace(word) == "" {
		return "", usageError{errNothing}
	}
	data, err := os.ReadFile(word)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) || ofCertificate(word) {
			return "", usageError{fmt.Errorf("couldn't read the certificate: %w", err)}
		}
		return word, nil // no file of that name: the word itself is meant
	}
	return certificateOf(word, data)
}

// certificateOf gives the id of the certificate that a file of that name holds.
func certificateOf(word string, data []byte) (string, error) {
	certificates, kinds := certificatesIn(data)
	if len(certificates) == 0 {
		if request := requestIn(data); request != nil {
			return "", usageError{imprint.Errorf(imprint.CodeInvalidRequest, "%s is a certificate signing request, subject %q: attempts are known by certificates", word, pki.SubjectText(request.RawSubject)).
				WithHint("Give the certificate that was made of it, the thing's name, or the serial number in its subject.")}
		}
		if len(kinds) > 0 {
			return "", usageError{fmt.Errorf("%s holds no certificate, but %s", word, strings.Join(kinds, ", "))}
		}
		err := fmt.Errorf("%s holds neither a certificate in PEM nor one in DER", word)
		if !ofCertificate(word) {
			err = otherFileError{err}
		}
		return "", usageError{err}
	}
	// A device's own certificate is meant, also where its CA stands first.
	at := max(0, slices.IndexFunc(certificates, func(c *x509.Certificate) bool { return !c.IsCA }))
	return string(pki.CertificateID(certificates[at].Raw)), nil
}

// ofCertificate says whether a file's name is that of a certificate, whatever it holds.
func ofCertificate(name string) bool {
	return slices.Contains([]string{".pem", ".crt", ".cer", ".der", ".csr"}, filepath.Ext(name))
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
