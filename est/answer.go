package est

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/smallstep/pkcs7"

	"github.com/imprint-iot/imprint"
)

// statusError is a refusal whose status doesn't follow from its code.
type statusError struct {
	status int
	err    *imprint.Error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func withStatus(status int, err *imprint.Error) error { return &statusError{status, err} }

// statusOf gives the status of a refusal.
func statusOf(err error) int {
	var own *statusError
	if errors.As(err, &own) {
		return own.status
	}
	switch imprint.CodeOf(err) {
	case imprint.CodeEnrolmentLabel, imprint.CodeNotFound:
		return http.StatusNotFound
	case imprint.CodeEnrolmentUnproven, imprint.CodeEnrolmentPassword:
		return http.StatusUnauthorized
	case imprint.CodeEnrolmentRate, imprint.CodeThrottled:
		return http.StatusTooManyRequests
	case imprint.CodeEnrolmentRequest, imprint.CodeEnrolmentBinding, imprint.CodeCertificateValidation, imprint.CodeCertificateWeak, imprint.CodeKeyReused, imprint.CodeInvalidRequest:
		return http.StatusBadRequest
	case imprint.CodeAuthorityState, imprint.CodeKeyUnavailable, imprint.CodeKeyRefused, imprint.CodeUnavailable, imprint.CodeCAExpired, imprint.CodeConflictingUpdate, imprint.CodeOverloaded:
		return http.StatusServiceUnavailable
	case imprint.CodeInternal:
		return http.StatusInternalServerError
	}
	return http.StatusForbidden
}

// retryAfter is how many seconds a client is asked to wait.
var retryAfter = map[int]string{http.StatusTooManyRequests: "60", http.StatusServiceUnavailable: "30"}

// refuse answers with the reason in words, and ends the attempt.
func (v *visit) refuse(err error) {
	status := statusOf(err)
	if status == http.StatusUnauthorized && !v.label.Passwords {
		status = http.StatusForbidden // a 401 would ask for a password
	}
	if status == http.StatusUnauthorized {
		v.w.Header().Set("WWW-Authenticate", `Basic realm="est", charset="UTF-8"`)
	}
	if seconds := retryAfter[status]; seconds != "" {
		v.w.Header().Set("Retry-After", seconds)
	}
	if status == http.StatusInternalServerError {
		v.door.opts.Logger.Error("an EST request failed", "operation", v.operation, "label", string(v.label.Name), "error", err)
	}
	var text strings.Builder
	_, _ = fmt.Fprintln(&text, imprint.MessageOf(err))
	if hint := imprint.HintOf(err); hint != "" {
		_, _ = fmt.Fprintln(&text, hint)
	}
	if id := v.rec.ID(); id != "" {
		_, _ = fmt.Fprintln(&text, "attempt", id)
	}
	v.rec.FailWith("est."+v.operation, err, fmt.Sprintf("sent HTTP %d", status))
	v.rec.End(imprint.OutcomeRefused, imprint.CodeOf(err))
	v.door.count(v.operation, status)
	v.header("text/plain; charset=utf-8")
	v.w.WriteHeader(status)
	// The client may be gone; nobody is left to tell.
	_, _ = v.w.Write([]byte(text.String()))
}

func (v *visit) header(contentType string) {
	h := v.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// send answers with a body in base64. The header that says so isn't HTTP's and means
// nothing (RFC 8951 section 3), but clients of before look for it.
func (v *visit) send(contentType string, der []byte) {
	v.header(contentType)
	v.w.Header().Set("Content-Transfer-Encoding", "base64")
	v.done(encode(der))
}

func (v *visit) done(body []byte) {
	v.door.count(v.operation, http.StatusOK)
	// Clients look for the length, and net/http leaves it out of longer answers.
	v.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	// The client may be gone; nobody is left to tell.
	_, _ = v.w.Write(body)
}

// encode gives base64 without line breaks: RFC 8951 section 3 wants that of RFC 4648, which
// forbids them, and strongSwan's client reads no other.
func encode(der []byte) []byte {
	text := make([]byte, base64.StdEncoding.EncodedLen(len(der)))
	base64.StdEncoding.Encode(text, der)
	return text
}

// certsOnly is a PKCS#7 SignedData with certificates and no signature (RFC 5272 section
// 4.1).
func certsOnly(certificates ...[]byte) ([]byte, error) {
	der, err := pkcs7.DegenerateCertificate(bytes.Join(certificates, nil))
	if err != nil {
		return nil, fmt.Errorf("couldn't encode PKCS#7: %w", err)
	}
	return der, nil
}

const (
	typePKCS7     = "application/pkcs7-mime"
	typeCertsOnly = "application/pkcs7-mime; smime-type=certs-only"
)

// sendKey answers with a key and its certificate (RFC 7030 section 4.4.2).
func (v *visit) sendKey(pkcs8, certificates []byte) error {
	var body bytes.Buffer
	parts := multipart.NewWriter(&body)
	for _, part := range []struct {
		contentType string
		der         []byte
	}{{"application/pkcs8", pkcs8}, {typeCertsOnly, certificates}} {
		w, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {part.contentType}, "Content-Transfer-Encoding": {"base64"}})
		if err != nil {
			return fmt.Errorf("couldn't write a part: %w", err)
		}
		_, err = w.Write(encode(part.der))
		if err != nil {
			return fmt.Errorf("couldn't write a part: %w", err)
		}
	}
	err := parts.Close()
	if err != nil {
		return fmt.Errorf("couldn't end the parts: %w", err)
	}
	v.header("multipart/mixed; boundary=" + parts.Boundary())
	v.done(body.Bytes())
	clear(body.Bytes())
	return nil
}

func versionName(version uint16) string { return tls.VersionName(version) }
