package ceremony

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// A record is lines of
//
//	JSON SIGNATURE
//
// The JSON has the number of the line, its time and the SHA-256 of the line before, with
// all of its bytes but the line feed. The signature, base64 of Ed25519, is over
// lineContext and the JSON, by a key that is made when the record begins, whose public half
// stands in the first line, and which is thrown away when it ends. So the first line that
// somebody changed is known even if he has computed all hashes anew. The last line has the
// signature of a CA of the ceremony over signatureContext and the hash of the line before.
// Neither context begins as a DER SEQUENCE does, so no such signature is one of a
// certificate.
const (
	lineContext      = "imprint ceremony record line, version 1\n"
	signatureContext = "imprint ceremony record, version 1\n"
)

// Steps of a record.
const (
	stepBegin       = "begin"
	stepMachine     = "machine"
	stepPerson      = "person"
	stepConfirmed   = "confirmed"
	stepShares      = "shares"
	stepUnlocked    = "unlocked"
	stepStore       = "store"
	stepKey         = "key"
	stepPresent     = "present"
	stepIntent      = "intent"
	stepSigned      = "signed"
	stepCertificate = "certificate"
	stepCRL         = "crl"
	stepEnd         = "end"
	stepSignature   = "signature"
)

// line is the JSON of one line; its members are those of its step.
type line struct {
	N    int       `json:"n"`
	At   time.Time `json:"at"`
	Prev string    `json:"prev"`
	Step string    `json:"step"`

	// begin
	Title    string `json:"title,omitempty"`
	Script   string `json:"script,omitempty"`
	ScriptID string `json:"scriptSha256,omitempty"`
	Program  string `json:"program,omitempty"`
	Recorder []byte `json:"recorder,omitempty"`
	// machine
	Networks []string `json:"networks,omitempty"`
	// person, confirmed
	Name string `json:"name,omitempty"`
	Role string `json:"role,omitempty"`
	// shares, unlocked
	Set       string   `json:"set,omitempty"`
	Threshold int      `json:"threshold,omitempty"`
	Total     int      `json:"total,omitempty"`
	Holders   []string `json:"holders,omitempty"`
	Given     []int    `json:"given,omitempty"`
	// store, key
	Store string `json:"store,omitempty"`
	CA    string `json:"ca,omitempty"`
	Kind  string `json:"kind,omitempty"`
	KeyID string `json:"keySha256,omitempty"` // of the SubjectPublicKeyInfo
	// intent, signed
	Profile string `json:"profile,omitempty"`
	Serial  string `json:"serial,omitempty"`
	Subject string `json:"subject,omitempty"`
	TBS     string `json:"tbsSha256,omitempty"`
	// present, certificate, crl
	Issuer  string     `json:"issuer,omitempty"`
	CSRID   string     `json:"csrSha256,omitempty"`
	DER     []byte     `json:"der,omitempty"`
	SHA256  string     `json:"sha256,omitempty"`
	Until   *time.Time `json:"until,omitempty"`
	File    string     `json:"file,omitempty"`
	Revoked int        `json:"revoked,omitempty"`
	// signature
	By        string `json:"by,omitempty"` // the CA's name
	Hash      string `json:"hash,omitempty"`
	Signature []byte `json:"signature,omitempty"`
}

// recorder writes a record.
type recorder struct {
	clock  imprint.Clock
	key    ed25519.PrivateKey
	public ed25519.PublicKey
	text   bytes.Buffer
	n      int
	prev   [sha256.Size]byte
	last   time.Time
}

func newRecorder(clock imprint.Clock) (*recorder, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the record's key: %w", err)
	}
	return &recorder{clock: clock, key: key, public: public}, nil
}

// maxBackwards is how far the clock may go back during a ceremony, as it may for a leap
// second.
const maxBackwards = time.Second

// add writes a line.
func (r *recorder) add(l line) error {
	now := r.clock().UTC().Truncate(time.Millisecond)
	if now.Before(r.last.Add(-maxBackwards)) {
		return imprint.Errorf(imprint.CodeInternal, "the clock went back from %s to %s", r.last.Format(time.RFC3339), now.Format(time.RFC3339)).
			WithHint("Set the machine's clock, let nothing change it, and begin again.")
	}
	if now.Before(r.last) {
		now = r.last
	}
	r.n++
	l.N, l.At, l.Prev, r.last = r.n, now, hex.EncodeToString(r.prev[:]), now
	body, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("couldn't write a line of the record: %w", err)
	}
	signature := ed25519.Sign(r.key, append([]byte(lineContext), body...))
	whole := append(append(body, ' '), base64.StdEncoding.EncodeToString(signature)...)
	r.prev = sha256.Sum256(whole)
	r.text.Write(whole)
	r.text.WriteByte('\n')
	return nil
}

func (r *recorder) destroy() { clear(r.key) }

// Record and Put are the journal of package pki: what is intended stands in the record
// before it is signed, and what was signed after.
func (r *recorder) Record(_ context.Context, i imprint.Issuance) error {
	l := line{Step: stepIntent, Profile: i.Profile, Serial: i.Serial, Subject: i.Subject, TBS: i.TBSHash}
	if i.CertificateID != "" {
		l.Step, l.SHA256 = stepSigned, string(i.CertificateID)
	}
	return r.add(l)
}

// Put is never called: there is no registry.
func (r *recorder) Put(imprint.Tx, imprint.Issuance) error {
	return errors.New("a ceremony has no registry")
}

// sign ends the record with the signature of a CA.
func (r *recorder) sign(ctx context.Context, name string, signer pki.Signer) error {
	hash := recordHash(signer.Public())
	signature, err := signer.Sign(ctx, recordDigest(hash, r.prev), hash)
	if err != nil {
		return fmt.Errorf("couldn't sign the record: %w", err)
	}
	return r.add(line{Step: stepSignature, By: name, Hash: hash.String(), Signature: signature})
}

func recordHash(public crypto.PublicKey) crypto.Hash {
	ec, isEC := public.(*ecdsa.PublicKey)
	if isEC && ec.Curve == elliptic.P384() {
		return crypto.SHA384
	}
	return crypto.SHA256
}

func recordDigest(hash crypto.Hash, prev [sha256.Size]byte) []byte {
	h := hash.New()
	h.Write([]byte(signatureContext + hex.EncodeToString(prev[:]) + "\n"))
	return h.Sum(nil)
}

// verifySignature checks what sign wrote.
func verifySignature(cert *x509.Certificate, l *line, prev [sha256.Size]byte) error {
	hash := recordHash(cert.PublicKey)
	if l.Hash != hash.String() {
		return fmt.Errorf("it is over %q, not %s", imprint.Excerpt(l.Hash), hash)
	}
	digest := recordDigest(hash, prev)
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(key, digest, l.Signature) {
			return errors.New("ECDSA verification fails")
		}
		return nil
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, hash, digest, l.Signature)
	}
	return fmt.Errorf("it is by a %T", cert.PublicKey)
}
