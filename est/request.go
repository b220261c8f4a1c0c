package est

import (
	"bytes"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// maxBody bounds a request: the longest signing request is far shorter.
const maxBody = 64 << 10

// body reads a request's signing request.
func (v *visit) body() (*x509.CertificateRequest, error) {
	kind, _, err := mime.ParseMediaType(v.r.Header.Get("Content-Type"))
	if err != nil || kind != "application/pkcs10" {
		return nil, withStatus(http.StatusUnsupportedMediaType, imprint.Errorf(imprint.CodeEnrolmentRequest, "the request's Content-Type is %q", imprint.Excerpt(v.r.Header.Get("Content-Type"))).
			WithHint("Send it as application/pkcs10."))
	}
	text, err := io.ReadAll(http.MaxBytesReader(v.w, v.r.Body, maxBody))
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return nil, withStatus(http.StatusRequestEntityTooLarge, imprint.Errorf(imprint.CodeEnrolmentRequest, "the request is longer than %d bytes", maxBody).
			WithHint("Send one certificate signing request and nothing else."))
	}
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeEnrolmentRequest, "the request broke off: %w", err)
	}
	csr, err := parseRequest(text)
	if err != nil {
		return nil, err
	}
	v.rec.OK("est.request", "subject %q, %s", pki.SubjectText(csr.RawSubject), pki.KeyKindOf(csr.PublicKey))
	return csr, nil
}

// parseRequest reads base64 of DER with line breaks anywhere, as RFC 8951 section 3.1
// demands, and what clients send instead: PEM, or DER itself.
func parseRequest(text []byte) (*x509.CertificateRequest, error) {
	// DER may end with what looks like white space.
	rest, der := cryptobyte.String(text), cryptobyte.String(nil)
	if rest.ReadASN1Element(&der, cryptobyte_asn1.SEQUENCE) && len(bytes.TrimSpace(rest)) == 0 {
		return pki.ParseCSRPEM(asPEM(der))
	}
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
		return nil, imprint.Errorf(imprint.CodeEnrolmentRequest, "the request is empty")
	case bytes.HasPrefix(text, []byte("-----BEGIN ")):
		return pki.ParseCSRPEM(string(text))
	case text[0] == 0x30: // DER that ends too early: base64 of it begins with M
		return pki.ParseCSRPEM(asPEM(text))
	}
	plain, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(text), nil)))
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeEnrolmentRequest, "the request isn't base64: %w", err)
	}
	return pki.ParseCSRPEM(asPEM(plain))
}

func asPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// The attributes of signing requests that mean something here.
const (
	attrChallenge    = "1.2.840.113549.1.9.7"
	attrSubject      = "1.3.6.1.5.5.7.7.36"         // id-cmc-changeSubjectName
	attrDecryptKey   = "1.2.840.113549.1.9.16.2.37" // RFC 7030 section 4.4.1.1
	attrDecryptAsymm = "1.2.840.113549.1.9.16.2.54" // section 4.4.1.2
)

// attributesOf gives the values of a request's attributes by object identifier, the first
// of each, in DER. crypto/x509 gives only those that are of another form.
func attributesOf(csr *x509.CertificateRequest) (map[string][]byte, error) {
	unreadable := imprint.Errorf(imprint.CodeEnrolmentRequest, "the request's attributes can't be read")
	input := cryptobyte.String(csr.RawTBSCertificateRequest)
	var body, list cryptobyte.String
	var present bool
	if !input.ReadASN1(&body, cryptobyte_asn1.SEQUENCE) || !body.SkipASN1(cryptobyte_asn1.INTEGER) || !body.SkipASN1(cryptobyte_asn1.SEQUENCE) ||
		!body.SkipASN1(cryptobyte_asn1.SEQUENCE) || !body.ReadOptionalASN1(&list, &present, cryptobyte_asn1.Tag(0).Constructed().ContextSpecific()) {
		return nil, unreadable
	}
	found := map[string][]byte{}
	for !list.Empty() {
		var one, values, first cryptobyte.String
		var id asn1.ObjectIdentifier
		var tag cryptobyte_asn1.Tag
		if !list.ReadASN1(&one, cryptobyte_asn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&id) || !one.ReadASN1(&values, cryptobyte_asn1.SET) || !values.ReadAnyASN1Element(&first, &tag) {
			return nil, unreadable
		}
		if found[id.String()] == nil {
			found[id.String()] = first
		}
	}
	return found, nil
}

// challenge gives the text of a challengePassword, a DirectoryString.
func challenge(der []byte) (string, bool) {
	input := cryptobyte.String(der)
	var text cryptobyte.String
	var tag cryptobyte_asn1.Tag
	if !input.ReadAnyASN1(&text, &tag) || !input.Empty() {
		return "", false
	}
	return string(text), tag == cryptobyte_asn1.PrintableString || tag == cryptobyte_asn1.UTF8String || tag == cryptobyte_asn1.IA5String || tag == cryptobyte_asn1.T61String
}

// exporterLabel and exporterLength are those of tls-exporter (RFC 9266 section 2).
const (
	exporterLabel  = "EXPORTER-Channel-Binding"
	exporterLength = 32
)

// binding gives what ties a request to its connection: tls-unique in TLS 1.2 (RFC 5929), in
// TLS 1.3, which has none, tls-exporter (RFC 9266).
func binding(state *tls.ConnectionState) ([]byte, string, error) {
	if state.Version >= tls.VersionTLS13 {
		value, err := state.ExportKeyingMaterial(exporterLabel, nil, exporterLength)
		if err != nil {
			return nil, "", fmt.Errorf("couldn't derive tls-exporter: %w", err)
		}
		return value, "tls-exporter", nil
	}
	if len(state.TLSUnique) == 0 {
		return nil, "", imprint.Errorf(imprint.CodeEnrolmentBinding, "the connection has no tls-unique value").WithHint("Connect without resuming a session.")
	}
	return state.TLSUnique, "tls-unique", nil
}

// checkBinding wants a request to have the value of this connection.
func (v *visit) checkBinding(attributes map[string][]byte) error {
	if !v.label.Binding {
		return nil
	}
	want, kind, err := binding(v.r.TLS)
	if err != nil {
		return err
	}
	der, present := attributes[attrChallenge]
	if !present {
		return imprint.Errorf(imprint.CodeEnrolmentBinding, "the request has no challengePassword, which label %s demands", v.label.Name).
			WithHint("Put the base64 of the connection's %s there.", kind)
	}
	text, isText := challenge(der)
	got, err := base64.StdEncoding.DecodeString(text)
	if !isText || err != nil || subtle.ConstantTimeCompare(got, want) != 1 {
		return imprint.Errorf(imprint.CodeEnrolmentBinding, "the request's challengePassword isn't the base64 of this connection's %s", kind).
			WithHint("Make the request within the connection that sends it.")
	}
	v.rec.OK("est.binding", "the request is tied to the connection by %s", kind)
	return nil
}
