package ceremony

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// maxRecord bounds a record.
const maxRecord = 4 << 20

// Fault is the first line of a record that isn't as it was written.
type Fault struct {
	Line int
	Err  error
}

func (f *Fault) Error() string { return fmt.Sprintf("line %d: %v", f.Line, f.Err) }

func (f *Fault) Unwrap() error { return f.Err }

// Report is what a record says that is as it was written.
type Report struct {
	Title       string
	ScriptID    string
	Began       time.Time
	Ended       time.Time
	Lines       int
	People      []string
	Networks    []string
	Set         string // of shares; empty: an HSM
	Threshold   int
	Total       int
	Store       string
	SignedBy    *x509.Certificate
	SignedName  string
	Authorities []Authority
	CRLs        []string
}

// Authority is a CA of a record.
type Authority struct {
	Name        string
	Issuer      string // empty: a root, or one that was there already
	Present     bool   // it was there already
	Certificate *x509.Certificate
}

// Verify checks a record: each line is as it was written and where it was written, the CA
// that the record names has signed all of them, the certificates in it are of those CAs
// that the script in it asks for, and each is signed by its issuer. Where root is given, it
// is the CA that signed, or one above it that is in the record. The first line that isn't as
// it was written is in the Fault.
func Verify(record []byte, root *x509.Certificate) (*Report, error) {
	v := &verifier{report: &Report{}, certificates: map[string]Authority{}, intents: map[string]int{}}
	if len(record) > maxRecord {
		return nil, errors.New("the record is longer than 4 MiB")
	}
	if len(record) == 0 {
		return nil, &Fault{1, errors.New("the record is empty")}
	}
	text := record
	for len(text) > 0 {
		v.n++
		one, rest, ended := bytes.Cut(text, []byte("\n"))
		if !ended {
			return nil, v.fault("it doesn't end with a line feed: the record was cut, or the line changed")
		}
		err := v.take(one)
		if err != nil {
			return nil, err
		}
		text = rest
	}
	if v.state != ended {
		v.n++
		return nil, v.fault("it is missing: the record ends without the signature of a CA")
	}
	return v.report, v.trusts(root)
}

// state is how far a record is.
type state int

const (
	nothing state = iota
	running
	finished // the end is said, and the signature misses
	ended
)

type verifier struct {
	n        int
	state    state
	prev     [sha256.Size]byte
	last     time.Time
	recorder ed25519.PublicKey
	script   written
	report   *Report
	// held is what was done before the first key; opened says that it was looked at.
	held   held
	opened bool
	// certificates are the CAs by name.
	certificates map[string]Authority
	// intents are serial numbers that may be signed; the hash of the certificate when it was.
	intents map[string]int
	signed  map[string]bool
}

func (v *verifier) fault(format string, args ...any) error {
	return &Fault{v.n, imprint.Errorf(imprint.CodeCertificateValidation, format, args...).WithHint("Compare with another copy of the record: each witness has one.")}
}

// take checks the next line.
func (v *verifier) take(text []byte) error {
	at := bytes.LastIndexByte(text, ' ')
	if at < 0 {
		return v.fault("it was changed: it has no signature")
	}
	body := text[:at]
	signature, err := base64.StdEncoding.Strict().DecodeString(string(text[at+1:]))
	if err != nil || base64.StdEncoding.EncodeToString(signature) != string(text[at+1:]) {
		return v.fault("it was changed: its signature isn't one")
	}
	var l line
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&l)
	if err != nil {
		return v.fault("it was changed: it can't be read: %v", err)
	}
	if v.state == nothing {
		if l.Step != stepBegin || len(l.Recorder) != ed25519.PublicKeySize {
			return v.fault("it was changed, or the line before it is missing: a record begins with the script")
		}
		v.recorder = l.Recorder
	}
	if !ed25519.Verify(v.recorder, append([]byte(lineContext), body...), signature) {
		return v.fault("it was changed: its signature doesn't fit")
	}
	if l.N != v.n {
		return v.fault("a line is missing or stands elsewhere: line %d stands here", l.N)
	}
	if l.Prev != hex.EncodeToString(v.prev[:]) {
		// Its own bytes are as they were, so it is the one before that isn't.
		v.n--
		return v.fault("it was changed: the line after it has another hash of it")
	}
	if l.At.Before(v.last) {
		return v.fault("its time is before that of the line before")
	}
	err = v.means(&l)
	if err != nil {
		return err
	}
	v.last, v.prev = l.At, sha256.Sum256(text)
	v.report.Lines = v.n
	return nil
}

// means follows what a line says.
func (v *verifier) means(l *line) error {
	switch {
	case v.state == ended:
		return v.fault("it stands behind the signature that ends the record")
	case v.state == finished && l.Step != stepSignature:
		return v.fault("the CA's signature is missing here")
	case l.Step == stepBegin && v.state != nothing:
		return v.fault("another record begins here")
	}
	switch l.Step {
	case stepBegin:
		return v.begin(l)
	case stepMachine, stepPerson, stepConfirmed, stepShares, stepUnlocked, stepStore:
		if v.opened {
			return v.fault("it stands behind the first key: what it says was to be done before")
		}
		return v.before(l)
	}
	if !v.opened {
		v.opened = true
		err := v.demand()
		if err != nil {
			return err
		}
	}
	switch l.Step {
	case stepKey:
	case stepIntent:
		v.intents[l.Serial] = v.n
	case stepSigned:
		if v.intents[l.Serial] == 0 {
			return v.fault("serial number %s was signed without intent", imprint.Excerpt(l.Serial))
		}
		if v.signed == nil {
			v.signed = map[string]bool{}
		}
		v.signed[l.SHA256] = true
	case stepPresent, stepCertificate:
		return v.certificate(l)
	case stepCRL:
		return v.crl(l)
	case stepEnd:
		v.state, v.report.Ended = finished, l.At
		return v.complete()
	case stepSignature:
		return v.signature(l)
	default:
		return v.fault("step %q isn't known: is the record of a later version?", imprint.Excerpt(l.Step))
	}
	return nil
}

func (v *verifier) begin(l *line) error {
	sum := sha256.Sum256([]byte(l.Script))
	if l.ScriptID != hex.EncodeToString(sum[:]) {
		return v.fault("the script isn't the one whose hash stands beside it")
	}
	err := toml.Unmarshal([]byte(l.Script), &v.script)
	if err != nil {
		return v.fault("the script can't be read: %v", err)
	}
	if l.Title != v.script.Title {
		return v.fault("its title is %q, and that of the script %q", imprint.Excerpt(l.Title), imprint.Excerpt(v.script.Title))
	}
	v.state = running
	v.report.Title, v.report.ScriptID, v.report.Began = l.Title, l.ScriptID, l.At
	return nil
}

// asked gives what the script says of a CA.
func (v *verifier) asked(name string) (writtenCA, bool) {
	for _, ca := range v.script.CA {
		if ca.Name == name {
			return ca, true
		}
	}
	return writtenCA{}, false
}

func (v *verifier) certificate(l *line) error {
	cert, err := x509.ParseCertificate(l.DER)
	if err != nil {
		return v.fault("its certificate can't be read: %v", err)
	}
	sum := sha256.Sum256(l.DER)
	ca, found := v.asked(l.CA)
	switch {
	case l.SHA256 != hex.EncodeToString(sum[:]):
		return v.fault("its fingerprint isn't that of its certificate")
	case !found:
		return v.fault("the script knows no CA %q", imprint.Excerpt(l.CA))
	case l.Issuer != ca.Issuer || (l.Step == stepPresent) != (ca.Certificate != ""):
		return v.fault("CA %s isn't made as the script says", l.CA)
	}
	if _, twice := v.certificates[l.CA]; twice {
		return v.fault("CA %s has two certificates", l.CA)
	}
	if ca.Subject != "" {
		want, err := pki.ParseSubject(ca.Subject)
		if err != nil || !bytes.Equal(want, cert.RawSubject) {
			return v.fault("the certificate of CA %s is for %s, and the script says %s", l.CA, cert.Subject, imprint.Excerpt(ca.Subject))
		}
	}
	if ca.CSR != "" && !strings.EqualFold(l.CSRID, ca.CSRSHA256) {
		return v.fault("the certificate of CA %s is of another request than the script says", l.CA)
	}
	one := Authority{Name: l.CA, Issuer: ca.Issuer, Present: l.Step == stepPresent, Certificate: cert}
	if !one.Present {
		if !v.signed[l.SHA256] {
			return v.fault("the certificate of CA %s was never signed", l.CA)
		}
		issuer := cert
		if ca.Issuer != "" {
			issuer = v.certificates[ca.Issuer].Certificate
		}
		if issuer == nil || cert.CheckSignatureFrom(issuer) != nil {
			return v.fault("the certificate of CA %s isn't signed by its issuer", l.CA)
		}
	}
	v.certificates[l.CA] = one
	v.report.Authorities = append(v.report.Authorities, one)
	return nil
}

func (v *verifier) crl(l *line) error {
	list, err := x509.ParseRevocationList(l.DER)
	if err != nil {
		return v.fault("its CRL can't be read: %v", err)
	}
	issuer := v.certificates[l.CA].Certificate
	if issuer == nil || list.CheckSignatureFrom(issuer) != nil {
		return v.fault("its CRL isn't signed by CA %q", imprint.Excerpt(l.CA))
	}
	v.report.CRLs = append(v.report.CRLs, l.CA)
	return nil
}

// complete says whether all that the script asks for was done.
func (v *verifier) complete() error {
	for _, ca := range v.script.CA {
		if v.certificates[ca.Name].Certificate == nil {
			return v.fault("the ceremony ends here, and CA %s has no certificate", imprint.Excerpt(ca.Name))
		}
	}
	return nil
}

func (v *verifier) signature(l *line) error {
	by := v.certificates[l.By]
	if v.state != finished || by.Certificate == nil || len(v.script.CA) == 0 || l.By != v.script.CA[0].Name {
		return v.fault("the record isn't signed by the first CA of the script at its end")
	}
	err := verifySignature(by.Certificate, l, v.prev)
	if err != nil {
		return v.fault("the signature of CA %s isn't over the lines above: %v", l.By, err)
	}
	v.state, v.report.SignedBy, v.report.SignedName = ended, by.Certificate, by.Name
	return nil
}

// trusts says whether the record is of a CA that is known from elsewhere.
func (v *verifier) trusts(root *x509.Certificate) error {
	if root == nil || root.Equal(v.report.SignedBy) {
		return nil
	}
	if v.report.SignedBy.CheckSignatureFrom(root) == nil {
		return nil
	}
	return imprint.Errorf(imprint.CodeCertificateValidation, "the record is signed by %s with the fingerprint %s, and not by the given CA", v.report.SignedBy.Subject, pki.CertificateID(v.report.SignedBy.Raw)).
		WithHint("A whole record can be forged together with its root: only the fingerprint of the root, from elsewhere, tells.")
}
