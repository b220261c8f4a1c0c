package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/template"
)

// Bounds of what is read of files: a batch of certificates, and parameters.
const (
	maxCertificatesFile = 8 << 20
	maxParametersFile   = 1 << 20
)

// testDevice is a device to try a template with.
type testDevice struct {
	name, subject string
	run           provisioning.DryRun
}

// devices makes one dry run a certificate and signing request; without them one
// of the parameters alone.
func (f *templateFlags) devices(s *templateSubject, given map[string]string) ([]testDevice, error) {
	var all []testDevice
	common := s.run
	common.Parameters = given
	for _, path := range f.certs {
		certs, err := readCertificates(path)
		if err != nil {
			return nil, err
		}
		for _, cert := range devicesOf(certs) {
			one := testDevice{name: path, subject: pki.SubjectText(cert.RawSubject), run: common}
			if len(certs) > 1 {
				one.name = fmt.Sprintf("%s (%s)", path, pki.SerialHex(cert.SerialNumber))
			}
			one.run.Leaf = cert
			all = append(all, one)
		}
	}
	for _, path := range f.csrs {
		text, err := readSmallFile(path, pki.MaxPEM)
		if err != nil {
			return nil, err
		}
		csr, err := pki.ParseCSRPEM(string(text))
		if err != nil {
			return nil, fmt.Errorf("couldn't read %s: %w", path, err)
		}
		one := testDevice{name: path, subject: pki.SubjectText(csr.RawSubject), run: common}
		one.run.CSR = csr
		all = append(all, one)
	}
	if len(all) > 0 || f.input != "" {
		return all, nil
	}
	if s.kind == template.JITP && len(given) == 0 {
		return nil, usageError{errors.New("a JITP template needs a device: name its certificate by --cert or its signing request by --csr")}
	}
	return []testDevice{{name: "the parameters", run: common}}, nil
}

// readCertificates reads the certificates of a PEM file. Other blocks are skipped,
// as files of devices have keys in them.
func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := readSmallFile(path, maxCertificatesFile)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for rest := text; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := pki.ParseCertificateDER(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("couldn't read certificate %d of %s: %w", len(all)+1, path, err)
		}
		all = append(all, cert)
	}
	if len(all) > 0 {
		return all, nil
	}
	cert, err := pki.ParseCertificatePEM(string(text)) // says what is wrong with it
	if err != nil {
		return nil, fmt.Errorf("couldn't read %s: %w", path, err)
	}
	return []*x509.Certificate{cert}, nil
}

// devicesOf leaves CAs out, as of a chain behind a device's certificate.
func devicesOf(certs []*x509.Certificate) []*x509.Certificate {
	var all []*x509.Certificate
	for _, cert := range certs {
		if !cert.IsCA {
			all = append(all, cert)
		}
	}
	if len(all) == 0 {
		return certs[:1]
	}
	return all
}

// sampleCertificates are those that lint compares a template with.
func (f *templateFlags) sampleCertificates(ctx context.Context, s *templateSubject) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, path := range f.certs {
		certs, err := readCertificates(path)
		if err != nil {
			return nil, err
		}
		all = append(all, devicesOf(certs)...)
	}
	registry, connected := s.run.Registry.(templateRegistry)
	if len(all) > 0 || f.caID == "" || !connected {
		return all, nil
	}
	certs, err := registry.certificatesOf(ctx, s.run.RegisteredCA.ID)
	if err != nil || len(certs) == 0 {
		return nil, err
	}
	return devicesOf(certs), nil
}

// givenParameters are those of --parameters, and over them those of -p.
func (f *templateFlags) givenParameters() (map[string]string, error) {
	given := map[string]string{}
	if f.parameters != "" {
		text, err := readSmallFile(f.parameters, maxParametersFile)
		if err != nil {
			return nil, err
		}
		given, err = parseParameters(text)
		if err != nil {
			return nil, fmt.Errorf("couldn't read %s: %w", f.parameters, err)
		}
	}
	for _, assignment := range f.assignments {
		name, value, found := strings.Cut(assignment, "=")
		if !found || name == "" {
			return nil, usageError{fmt.Errorf("-p %q isn't NAME=VALUE", assignment)}
		}
		given[name] = value
	}
	return given, nil
}

// parseParameters reads an object of texts, and says where it isn't one.
func parseParameters(text []byte) (map[string]string, error) {
	fail := func(off int, hint, format string, args ...any) error {
		before := text[:min(max(off, 0), len(text))]
		line := bytes.Count(before, []byte("\n")) + 1
		column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
		return imprint.Errorf(imprint.CodeInvalidRequest, "line %d, column %d: %s", line, column, fmt.Sprintf(format, args...)).WithHint("%s", hint)
	}
	const form = `The file is one object of texts: {"SerialNumber": "SN-17", "Site": "lab"}`
	if !utf8.Valid(text) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "it isn't UTF-8 text").WithHint(form)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	// next gives a token with the offset of its first byte.
	next := func() (json.Token, int, error) {
		off := int(decoder.InputOffset())
		for off < len(text) && strings.IndexByte(" \t\r\n,:", text[off]) >= 0 {
			off++
		}
		token, err := decoder.Token()
		var syntax *json.SyntaxError
		switch {
		case errors.As(err, &syntax):
			return nil, off, fail(int(syntax.Offset)-1, form, "%s", syntax)
		case err != nil:
			return nil, off, fail(len(text), form, "the file ends too early")
		}
		return token, off, nil
	}
	token, off, err := next()
	if err != nil {
		return nil, err
	}
	if token != json.Delim('{') {
		return nil, fail(off, form, "an object is expected")
	}
	given := map[string]string{}
	for decoder.More() {
		key, off, err := next()
		if err != nil {
			return nil, err
		}
		name, _ := key.(string)
		if _, twice := given[name]; twice {
			return nil, fail(off, "Keep one of the two.", "parameter %q is there twice", imprint.Excerpt(name))
		}
		value, off, err := next()
		if err != nil {
			return nil, err
		}
		text, isText := value.(string)
		if !isText {
			return nil, fail(off, "Parameters are texts: write numbers in quotes, and no objects or lists.", "the value of %q isn't a text", imprint.Excerpt(name))
		}
		given[name] = text
	}
	_, _, err = next()
	if err != nil {
		return nil, err
	}
	rest := text[decoder.InputOffset():]
	after := bytes.TrimLeft(rest, " \t\r\n")
	if len(after) > 0 {
		return nil, fail(len(text)-len(after), "An input of bulk registration, a JSON object a line, is given by --input.", "something follows the object")
	}
	return given, nil
}

// testInput tries each line of a bulk registration's input.
func (f *templateFlags) testInput(ctx context.Context, s *templateSubject, given map[string]string, r *testReport) error {
	input := io.Reader(f.cmd.InOrStdin())
	if f.input != "-" {
		file, err := os.Open(f.input)
		if err != nil {
			return usageError{fmt.Errorf("couldn't read the input: %w", err)}
		}
		defer func() { _ = file.Close() }()
		input = file
	}
	owners := map[string]string{}
	err := provisioning.ReadBulkLines(input, func(line int64, parameters map[string]string, refusal error) error {
		err := ctx.Err()
		if err != nil {
			return err
		}
		one := testDevice{name: fmt.Sprintf("line %d", line), run: s.run}
		if refusal != nil {
			step := provisioning.DryRunStep{Name: "bulk.line", Verdict: imprint.VerdictFailed, Code: imprint.CodeOf(refusal), Detail: refusal.Error(), Fix: imprint.HintOf(refusal)}
			r.addDevice(one, &provisioning.DryRunResult{Steps: []provisioning.DryRunStep{step}}, true)
			return nil
		}
		one.run.Parameters = maps.Clone(given)
		maps.Copy(one.run.Parameters, parameters)
		result, err := one.run.Run(ctx)
		if err != nil {
			return fmt.Errorf("couldn't look on the server for what %s names: %w", s.source, err)
		}
		result.Shares(owners, one.name)
		r.addDevice(one, result, true)
		return nil
	})
	if err == nil && r.Tested == 0 {
		err = imprint.Errorf(imprint.CodeInvalidRequest, "%s has no lines", f.input).WithHint(`Write one object a line: {"SerialNumber":"1","CSR":"-----BEGIN..."}`)
	}
	return err
}
