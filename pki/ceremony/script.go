package ceremony

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/keys"
)

// maxScript bounds a script and each file that it names.
const maxScript = 256 << 10

// Script is a checked script: what it asks for can be made, as far as can be told before.
type Script struct {
	text     []byte
	sum      [sha256.Size]byte
	title    string
	day      time.Time
	people   []person
	sealing  *sealing // nil: the keys are in an HSM
	store    keys.URI
	cas      []*step
	profiles *pki.Profiles
}

type person struct {
	Name string `toml:"name"`
	Role string `toml:"role"`
}

// sealing says among whom the key is shared that seals the CA keys.
type sealing struct {
	threshold, total int
	holders          []string
	// present tells that the shares are there already.
	present bool
}

// step makes one CA, or opens one that is there.
type step struct {
	name    string
	issuer  *step // nil: a root
	profile *pki.Profile
	subject []byte
	kind    pki.KeyKind
	end     time.Time
	crlDays int
	revoked []imprint.RevokedSerial
	// csr is set where the key is elsewhere.
	csr *x509.CertificateRequest
	// present is set for a CA that is there already. Its key is sealedKey's, or in the HSM.
	present   *x509.Certificate
	sealedKey string
	label     string
	// trial is it with a key that is thrown away.
	trial *pki.Authority
	// existing takes a key of the HSM that is there already.
	existing bool
}

// written is the form of a script.
type written struct {
	Title  string         `toml:"title"`
	Date   toml.LocalDate `toml:"date"`
	Person []person       `toml:"person"`
	Keys   struct {
		Shares    int      `toml:"shares"`
		Threshold int      `toml:"threshold"`
		Holders   []string `toml:"holders"`
		Existing  bool     `toml:"existing-shares"`
		Store     string   `toml:"store"`
	} `toml:"keys"`
	CA []writtenCA `toml:"ca"`
}

type writtenCA struct {
	Name        string         `toml:"name"`
	Issuer      string         `toml:"issuer"`
	Subject     string         `toml:"subject"`
	Profile     string         `toml:"profile"`
	KeyKind     string         `toml:"key-kind"`
	KeyLabel    string         `toml:"key-label"`
	ExistingKey bool           `toml:"existing-key"`
	NotAfter    toml.LocalDate `toml:"not-after"`
	CRLDays     int            `toml:"crl-days"`
	Revoked     []revoked      `toml:"revoked"`
	CSR         string         `toml:"csr"`
	CSRSHA256   string         `toml:"csr-sha256"`
	Certificate string         `toml:"certificate"`
	SealedKey   string         `toml:"sealed-key"`
}

// revoked is an entry of a CRL.
type revoked struct {
	Serial string         `toml:"serial"`
	Reason string         `toml:"reason"`
	Date   toml.LocalDate `toml:"date"`
}

// ScriptFault is what is wrong with a script, and where.
type ScriptFault struct {
	File         string
	Line, Column int
	Err          error
}

func (f *ScriptFault) Error() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %v", f.File, f.Err)
	}
	return fmt.Sprintf("%s:%d:%d: %v", f.File, f.Line, f.Column, f.Err)
}

func (f *ScriptFault) Unwrap() error { return f.Err }

// position is a line and a column, from 1.
type position struct{ line, column int }

// reader reads one script.
type reader struct {
	file      string
	dir       string
	places    map[string]position // of keys: title, keys.shares, ca.0.subject
	written   written
	script    *Script
	byName    map[string]*step
	csrHashes map[[sha256.Size]byte]string
}

// ReadScript reads a script and the files that it names, which stand beside it. Errors are
// ScriptFaults with the line and column. Profiles are those of `imprint ca profiles`.
func ReadScript(path string, profiles *pki.Profiles) (*Script, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the script: %w", err)
	}
	r := &reader{file: path, dir: filepath.Dir(path), byName: map[string]*step{}, csrHashes: map[[sha256.Size]byte]string{}}
	err = r.parse(text)
	if err != nil {
		return nil, err
	}
	r.script = &Script{text: text, sum: sha256.Sum256(text), title: r.written.Title, people: r.written.Person, profiles: profiles}
	for _, check := range []func() error{r.head, r.keys, r.steps} {
		err = check()
		if err != nil {
			return nil, err
		}
	}
	return r.script, nil
}

// SHA256 is the hash of the script's bytes: what its reviewers have on their paper.
func (s *Script) SHA256() []byte { return s.sum[:] }

// Title is what the script calls the ceremony.
func (s *Script) Title() string { return s.title }

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxScript+1))
	err = errors.Join(err, f.Close())
	if err == nil && len(data) > maxScript {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxScript)
	}
	return data, err
}

// parse reads the form, and where each key stands.
func (r *reader) parse(text []byte) error {
	decoder := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	err := decoder.Decode(&r.written)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		line, column := unknown.Errors[0].Position()
		return &ScriptFault{r.file, line, column, imprint.Errorf(imprint.CodeInvalidRequest, "%s isn't known in a script", strings.Join(unknown.Errors[0].Key(), ".")).
			WithHint("docs/ceremony.md lists what a script may say.")}
	case errors.As(err, &wrong):
		line, column := wrong.Position()
		return &ScriptFault{r.file, line, column, imprint.Errorf(imprint.CodeInvalidRequest, "%w", wrong).WithHint("The script is TOML: https://toml.io")}
	case err != nil:
		return &ScriptFault{r.file, 0, 0, err}
	}
	r.places = map[string]position{}
	var parser unstable.Parser
	parser.Reset(text)
	table, tables := "", map[string]int{}
	for parser.NextExpression() {
		expression := parser.Expression()
		var path []string
		var first position
		for it := expression.Key(); it.Next(); {
			at := parser.Shape(it.Node().Raw).Start
			if len(path) == 0 {
				first = position{at.Line, at.Column}
			}
			path = append(path, string(it.Node().Data))
		}
		name := strings.Join(path, ".")
		switch expression.Kind {
		case unstable.Table:
			table = name + "."
			r.places[name] = first
		case unstable.ArrayTable:
			table = fmt.Sprintf("%s.%d.", name, tables[name])
			tables[name]++
			r.places[strings.TrimSuffix(table, ".")] = first
		case unstable.KeyValue:
			r.places[table+name] = first
		}
	}
	return nil
}

// fault gives what is wrong with a key, or with its table where it is missing.
func (r *reader) fault(key string, err error) error {
	for at := key; at != ""; {
		found, known := r.places[at]
		if known {
			return &ScriptFault{r.file, found.line, found.column, err}
		}
		cut := strings.LastIndexByte(at, '.')
		if cut < 0 {
			break
		}
		at = at[:cut]
	}
	return &ScriptFault{r.file, 1, 1, err}
}

func (r *reader) bad(key, format string, args ...any) error {
	return r.fault(key, imprint.Errorf(imprint.CodeInvalidRequest, format, args...).WithHint("docs/ceremony.md has an example of each line."))
}

const maxPeople, maxCAs, maxText = 100, 100, 200

func printable(text string) bool {
	return text != "" && len(text) <= maxText && !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\uFFFD' })
}

func (r *reader) head() error {
	w := r.written
	if !printable(w.Title) {
		return r.bad("title", "title must say in a line what the ceremony is for")
	}
	if w.Date.Year == 0 {
		return r.bad("date", "date must be the day of the ceremony, such as 2026-12-01")
	}
	r.script.day = w.Date.AsTime(time.UTC)
	if len(w.Person) < 2 || len(w.Person) > maxPeople {
		return r.bad("person", "the people must be named, at least two: who acts and who watches, each with name and role")
	}
	for n, p := range w.Person {
		if !printable(p.Name) || !printable(p.Role) {
			return r.bad(fmt.Sprintf("person.%d", n), "a person has a name and a role")
		}
	}
	return nil
}

func (r *reader) keys() error {
	k := r.written.Keys
	if k.Store != "" {
		if k.Shares != 0 || k.Threshold != 0 || len(k.Holders) > 0 || k.Existing {
			return r.bad("keys.store", "the keys are either in a store or sealed by shares, not both")
		}
		uri, err := keys.ParseURI(k.Store)
		if err != nil {
			return r.fault("keys.store", err)
		}
		if uri.Scheme() != "pkcs11" && uri.Scheme() != "tpm" {
			return r.bad("keys.store", "the store is a PKCS#11 token or a TPM: %s isn't one that works without a network and without shares", uri.Scheme())
		}
		_, err = keys.NewNamed(nil, nil, keys.Place{Name: storeName, URI: uri})
		if err != nil {
			return r.fault("keys.store", err)
		}
		r.script.store = uri
		return nil
	}
	s := &sealing{threshold: k.Threshold, total: k.Shares, holders: k.Holders, present: k.Existing}
	r.script.sealing = s
	if k.Existing {
		if k.Shares != 0 || len(k.Holders) > 0 || k.Threshold != 0 {
			return r.bad("keys.existing-shares", "shares that are there already say themselves how many are needed: leave shares, threshold and holders out")
		}
		return nil
	}
	if k.Shares < 2 || k.Shares > 50 {
		return r.bad("keys.shares", "shares must be 2 to 50, not %d", k.Shares)
	}
	if k.Threshold < 2 || k.Threshold > k.Shares {
		return r.bad("keys.threshold", "threshold, how many shares are needed, must be 2 to %d, not %d", k.Shares, k.Threshold)
	}
	if len(k.Holders) != k.Shares {
		return r.bad("keys.holders", "holders must name the holder of each of the %d shares, and names %d", k.Shares, len(k.Holders))
	}
	seen := map[string]bool{}
	for _, holder := range k.Holders {
		if !printable(holder) || seen[holder] {
			return r.bad("keys.holders", "each share has a holder of its own: %q is empty or named twice", holder)
		}
		seen[holder] = true
	}
	return nil
}

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

func (r *reader) steps() error {
	if len(r.written.CA) == 0 || len(r.written.CA) > maxCAs {
		return r.bad("ca", "the script must make 1 to %d CAs, each in a table [[ca]]", maxCAs)
	}
	for n, ca := range r.written.CA {
		at := func(key string) string { return fmt.Sprintf("ca.%d.%s", n, key) }
		if !namePattern.MatchString(ca.Name) || ca.Name == "record" {
			return r.bad(at("name"), "the name %q isn't 1 to 64 small letters, digits and dashes: its files are called after it", ca.Name)
		}
		if r.byName[ca.Name] != nil {
			return r.bad(at("name"), "another CA is called %s, too", ca.Name)
		}
		s := &step{name: ca.Name, crlDays: ca.CRLDays, label: ca.KeyLabel, existing: ca.ExistingKey}
		err := r.step(s, ca, at)
		if err != nil {
			return err
		}
		r.byName[ca.Name] = s
		r.script.cas = append(r.script.cas, s)
	}
	first := r.script.cas[0]
	if first.csr != nil || first.issuer != nil {
		return r.bad("ca.0", "the first CA signs the record, so it is a root, or one that is there already (certificate = ...)")
	}
	return nil
}

// step checks what one CA needs.
func (r *reader) step(s *step, ca writtenCA, at func(string) string) error {
	err := r.crl(s, ca, at)
	if err != nil {
		return err
	}
	if s.label == "" {
		s.label = s.name
	}
	if r.script.sealing == nil {
		place, err := keys.NewNamed(nil, nil, keys.Place{Name: storeName, URI: r.script.store})
		if err == nil {
			err = place.Check("", storeName+":"+s.label)
		}
		if err != nil {
			return r.fault(at("key-label"), err)
		}
	}
	if r.script.sealing != nil && (ca.KeyLabel != "" || ca.ExistingKey) {
		return r.bad(at("key-label"), "key-label and existing-key are for keys in a store")
	}
	if ca.Certificate != "" {
		return r.presentCA(s, ca, at)
	}
	if ca.SealedKey != "" {
		return r.bad(at("sealed-key"), "a sealed-key belongs to a CA that is there already: name its certificate, too")
	}
	if ca.Issuer != "" {
		s.issuer = r.byName[ca.Issuer]
		if s.issuer == nil {
			return r.bad(at("issuer"), "%q signs it, and stands nowhere above in the script", imprint.Excerpt(ca.Issuer))
		}
		if s.issuer.csr != nil {
			return r.bad(at("issuer"), "%q can't sign: its key is elsewhere", ca.Issuer)
		}
	}
	s.profile, err = r.profile(ca, s.issuer == nil)
	if err != nil {
		return r.fault(at("profile"), err)
	}
	if ca.NotAfter.Year != 0 {
		s.end = ca.NotAfter.AsTime(time.UTC)
	}
	if ca.CSR != "" {
		return r.request(s, ca, at)
	}
	if ca.CSRSHA256 != "" {
		return r.bad(at("csr-sha256"), "csr-sha256 is the hash of a csr, and none is named")
	}
	s.subject, err = pki.ParseSubject(ca.Subject)
	if err != nil {
		return r.fault(at("subject"), err)
	}
	if ca.KeyKind == "" {
		ca.KeyKind = string(pki.KeyP384)
	}
	kind, err := keys.ParseKind(ca.KeyKind)
	if err != nil {
		return r.fault(at("key-kind"), err)
	}
	s.kind = pki.KeyKind(kind)
	return r.tried(s, at)
}

var serialPattern = regexp.MustCompile(`^[0-9a-f]{1,40}$`)

// crl reads what the CRL of a CA says. That of one which is there already must say what it
// revoked before: a list without it would take all of that back.
func (r *reader) crl(s *step, ca writtenCA, at func(string) string) error {
	_, said := r.places[at("revoked")]
	if ca.CRLDays < 0 || ca.CRLDays > 5000 {
		return r.bad(at("crl-days"), "a CRL is valid for 1 to 5000 days")
	}
	if ca.Certificate == "" && said || ca.CRLDays == 0 && said {
		return r.bad(at("revoked"), "revoked says what stands on the CRL of a CA that is there already")
	}
	if ca.Certificate != "" && ca.CRLDays > 0 && !said {
		return r.bad(at("crl-days"), "a CRL of a CA that is there already must have all that it revoked: write revoked = [], or what it is")
	}
	for _, one := range ca.Revoked {
		serial := strings.TrimLeft(strings.ToLower(strings.ReplaceAll(one.Serial, ":", "")), "0")
		reason := imprint.RevocationReason(one.Reason)
		_, known := reason.Code()
		if !serialPattern.MatchString(serial) || one.Date.Year == 0 || one.Reason != "" && !known {
			return r.bad(at("revoked"), "an entry is {serial = \"HEX\", date = 2026-12-01, reason = \"KEY_COMPROMISE\"}; the reason may be left out: %q isn't", imprint.Excerpt(one.Serial))
		}
		s.revoked = append(s.revoked, imprint.RevokedSerial{Serial: serial, RevokedAt: one.Date.AsTime(time.UTC), Reason: reason})
	}
	return nil
}

// tried prepares a certificate with keys that are thrown away: what breaks a profile is
// told before the people have come together.
func (r *reader) tried(s *step, at func(string) string) error {
	err := rehearse(context.Background(), r.script, s)
	if err != nil {
		return r.fault(at("name"), fmt.Errorf("the profile forbids it: %w", err))
	}
	return nil
}

func (r *reader) profile(ca writtenCA, root bool) (*pki.Profile, error) {
	wanted, kind := ca.Profile, pki.KindIntermediate
	if root {
		kind = pki.KindRoot
	}
	if wanted == "" {
		wanted = string(kind)
	}
	p, err := r.script.profiles.Profile(wanted)
	if err != nil {
		return nil, err
	}
	if p.Kind() != kind {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "profile %s is of the kind %s, and %s is needed: a CA without issuer is a root", p.Name(), p.Kind(), kind)
	}
	return p, nil
}

// beside gives a file that the script names, which stands in its directory or below.
func (r *reader) beside(key, name string) ([]byte, string, error) {
	if !filepath.IsLocal(name) {
		return nil, "", r.bad(key, "%q isn't a file beside the script", imprint.Excerpt(name))
	}
	path := filepath.Join(r.dir, name)
	data, err := readFile(path)
	if err != nil {
		return nil, "", r.fault(key, imprint.Errorf(imprint.CodeInvalidRequest, "couldn't read the file: %w", err))
	}
	return data, path, nil
}

// request reads the request of a CA whose key is elsewhere.
func (r *reader) request(s *step, ca writtenCA, at func(string) string) error {
	if s.issuer == nil {
		return r.bad(at("csr"), "a root signs its own request where its key is")
	}
	if ca.Subject != "" || ca.KeyKind != "" || ca.ExistingKey || ca.KeyLabel != "" {
		return r.bad(at("csr"), "subject and key are those of the csr: leave them out")
	}
	if ca.CRLDays != 0 {
		return r.bad(at("crl-days"), "a CRL is signed where the key is")
	}
	text, _, err := r.beside(at("csr"), ca.CSR)
	if err != nil {
		return err
	}
	s.csr, err = pki.ParseCSRPEM(string(text))
	if err != nil {
		return r.fault(at("csr"), err)
	}
	sum := sha256.Sum256(s.csr.Raw)
	if want, err := hex.DecodeString(ca.CSRSHA256); err != nil || !bytes.Equal(want, sum[:]) {
		return r.fault(at("csr-sha256"), imprint.Errorf(imprint.CodeInvalidRequest, "csr-sha256 isn't the hash of the request, which is %x", sum).
			WithHint("Ask who made the request, over another way than the one by which it came: openssl req -in FILE -outform der | sha256sum"))
	}
	if before, twice := r.csrHashes[sum]; twice {
		return r.bad(at("csr"), "%s has the same request", before)
	}
	r.csrHashes[sum] = s.name
	s.subject = s.csr.RawSubject
	return r.tried(s, at)
}

// presentCA reads a CA of an earlier ceremony.
func (r *reader) presentCA(s *step, ca writtenCA, at func(string) string) error {
	if ca.Subject != "" || ca.KeyKind != "" || ca.Profile != "" || ca.Issuer != "" || ca.CSR != "" || ca.CSRSHA256 != "" || ca.ExistingKey || ca.NotAfter.Year != 0 {
		return r.bad(at("certificate"), "a CA that is there already has its certificate and its key, and nothing else to choose")
	}
	text, _, err := r.beside(at("certificate"), ca.Certificate)
	if err != nil {
		return err
	}
	s.present, err = pki.ParseCertificatePEM(string(text))
	if err != nil {
		return r.fault(at("certificate"), err)
	}
	if !s.present.IsCA {
		return r.bad(at("certificate"), "the certificate isn't a CA's")
	}
	s.subject, s.kind = s.present.RawSubject, pki.KeyKindOf(s.present.PublicKey)
	if r.script.sealing == nil {
		if ca.SealedKey != "" {
			return r.bad(at("sealed-key"), "the keys are in a store: leave sealed-key out")
		}
		return nil
	}
	if !r.script.sealing.present {
		return r.bad("keys", "CA %s is there already, and so are the shares of its key: write existing-shares = true", s.name)
	}
	if ca.SealedKey == "" {
		return r.bad(at("certificate"), "where its key is isn't said: sealed-key = \"NAME.sealed\"")
	}
	if !strings.HasSuffix(ca.SealedKey, sealedSuffix) {
		return r.bad(at("sealed-key"), "a sealed key's file is called NAME%s", sealedSuffix)
	}
	_, s.sealedKey, err = r.beside(at("sealed-key"), ca.SealedKey)
	if err != nil {
		return err
	}
	s.sealedKey, err = filepath.Abs(s.sealedKey)
	return err
}

const sealedSuffix = ".sealed"

// storeName is what the place of keys is called.
const storeName = "store"
