package keys

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	// refusedFor is how long a refusal of a key store counts: a wrong PIN is corrected
	// by people, and each look at it takes a process.
	refusedFor = 5 * time.Second
	// absentFor is how long a key store counts as gone that couldn't be opened: so many
	// who ask for its keys don't start a process each.
	absentFor = time.Second
)

// Place is a key store that an operator gave a name.
type Place struct {
	Name string
	// Account may have keys there.
	Account imprint.AccountID
	// URI names the store and no key in it.
	URI URI
}

// Trouble hears of an error with a key as the operator should read it, with the paths that
// callers aren't told.
type Trouble func(key string, err error)

// Named are key stores by the names that an operator gave them. Who asks for a key says
// NAME:LABEL and can say nothing else, so no file, module or device can be reached that
// the operator didn't name:
//
//	hsm:line7     the key with the label line7 in the PKCS#11 token that is called hsm
//	tpm:line7     the file line7.tss, where the place's URI is tpm:file=/DIRECTORY/
//	tpm:0x81008001  a handle, where it names no directory
//	disk:line7    the file line7.sealed of the directory
//	cloud:line7   the alias line7 of the region of AWS KMS
//
// Behind it may stand ;id=, in percent-encoding, for one of several keys of a label.
// Generate gives it.
//
// A key is opened once and stays open. One that was refused, because of a wrong PIN for
// example, is opened anew when it is used again, at most every five seconds. It is safe
// for concurrent use.
type Named struct {
	store   *Store
	places  []Place
	trouble Trouble

	mu     sync.Mutex
	open   map[string]*namedKey // by name and label
	failed map[string]failure
}

// failure is why something can't be opened until a time.
type failure struct {
	cause error
	until time.Time
}

// failureOf says how long an error counts; not at all where the caller went away.
func failureOf(ctx context.Context, err error) (failure, bool) {
	f := failure{cause: err}
	switch imprint.CodeOf(err) {
	case imprint.CodeKeyRefused:
		f.until = time.Now().Add(refusedFor)
	case imprint.CodeKeyUnavailable:
		f.until = time.Now().Add(absentFor)
	default:
		return f, false
	}
	return f, ctx.Err() == nil
}

func (f failure) holds() bool { return f.cause != nil && time.Now().Before(f.until) }

var (
	placePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	labelPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$`)
)

// NewNamed names stores. What it tells callers has names of stores in it and no paths;
// trouble, which may be nil, hears all. Errors: CodeInvalidRequest for a name that can't be one or
// stands there twice, and for a URI that names a key.
func NewNamed(store *Store, trouble Trouble, places ...Place) (*Named, error) {
	for n, place := range places {
		if !placePattern.MatchString(place.Name) || place.Name == "sealed" {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "%q can't be the name of a key store", imprint.Excerpt(place.Name)).
				WithHint("Names are a letter and up to 31 more letters, digits and dashes, in lower case, and not sealed.")
		}
		if slices.ContainsFunc(places[:n], func(p Place) bool { return p.Name == place.Name }) {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "two key stores are called %s", place.Name)
		}
		u := place.URI
		inDirectory := u.file == "" || strings.HasSuffix(u.file, "/")
		if u.scheme == "" || !inDirectory || u.scheme == schemeFile && u.file == "" || u.object+u.id+u.keyID != "" || u.handle != 0 {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the URI of key store %s names a key, and must name a place of keys", place.Name).
				WithHint("Leave object, id, handle and key-id out; a directory ends in a slash.")
		}
	}
	if trouble == nil {
		trouble = func(string, error) {}
	}
	return &Named{store: store, places: places, trouble: trouble, open: map[string]*namedKey{}, failed: map[string]failure{}}, nil
}

// Places lists them.
func (n *Named) Places() []Place { return n.places }

// reference is what NAME:LABEL;id= says.
type reference struct {
	place Place
	label string
	id    string // bytes
}

func (n *Named) parse(text string) (reference, error) {
	var r reference
	bad := func(format string, args ...any) error {
		return imprint.Errorf(imprint.CodeInvalidRequest, "%q names no key: "+format, append([]any{imprint.Excerpt(text)}, args...)...).
			WithHint("Write STORE:LABEL with the name of a key store that the server was started with. Here are: %s.", n.names())
	}
	name, rest, found := strings.Cut(text, ":")
	if !found {
		return r, bad("it isn't of the form STORE:LABEL")
	}
	at := slices.IndexFunc(n.places, func(p Place) bool { return p.Name == name })
	if at < 0 {
		return r, bad("there is no such key store")
	}
	r.place = n.places[at]
	label, id, pinned := strings.Cut(rest, ";id=")
	if !labelPattern.MatchString(label) {
		return r, bad("a label is 1 to 64 letters, digits, spaces, dots, dashes and underscores, and begins with a letter or digit")
	}
	r.label = label
	if !pinned {
		return r, nil
	}
	plain, err := unescape(id)
	if err != nil || plain == "" || len(plain) > 255 || escape(plain) != id && escapeBytes(plain) != strings.ToUpper(id) {
		return r, bad("its id isn't percent-encoded as it should be")
	}
	r.id = plain
	return r, nil
}

func (n *Named) names() string {
	if len(n.places) == 0 {
		return "none"
	}
	var all []string
	for _, place := range n.places {
		all = append(all, place.Name)
	}
	return strings.Join(all, ", ")
}

// uri gives the key's URI.
func (r reference) uri() (URI, error) {
	u := r.place.URI
	switch u.scheme {
	case schemePKCS11:
		u.object, u.id = r.label, r.id
		return u, nil
	case schemeFile:
		u.file += r.label + sealedSuffix
	case schemeTPM:
		if u.file != "" {
			u.file += r.label + tssSuffix
			break
		}
		// A handle is read where all are.
		handle, err := parseTPMURI("handle=" + escape(r.label))
		if err != nil {
			return URI{}, fmt.Errorf("the label of a key in %s is its handle: %w", r.place.Name, err)
		}
		u.handle = handle.handle
	case schemeAWSKMS:
		u.keyID = "alias/" + r.label
		if r.id != "" {
			u.keyID = r.id
		}
		return u, validKMS(u)
	}
	if r.id != "" {
		return URI{}, imprint.Errorf(imprint.CodeInvalidRequest, "keys in %s have no ids", r.place.Name)
	}
	return u, nil
}

// validKMS lets nothing through that ParseURI wouldn't.
func validKMS(u URI) error {
	_, err := ParseURI(u.String())
	return err
}

// Check says whether an account may have a key of a name. Nothing is opened. Errors:
// CodeInvalidRequest, CodeAccessDenied.
func (n *Named) Check(account imprint.AccountID, text string) error {
	r, err := n.parse(text)
	if err != nil {
		return err
	}
	if r.place.Account != account {
		return imprint.Errorf(imprint.CodeAccessDenied, "key store %s isn't for account %s", r.place.Name, account).
			WithHint("The server's operator names a store for it: imprint serve --ca-key-store NAME@%s=URI", account)
	}
	_, err = r.uri()
	return err
}

// Open opens the key of a name that Check has let through, once for all. Errors: those of
// Store.Open, and CodeKeyUnavailable for a store that isn't named any more.
func (n *Named) Open(ctx context.Context, text string) (Signer, error) {
	r, err := n.parse(text)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "%w", err).
			WithHint("Start the server with the key stores that it had: imprint serve --ca-key-store NAME=URI. Here are: %s.", n.names())
	}
	n.mu.Lock()
	found, before := n.open[text], n.failed[text]
	n.mu.Unlock()
	if found != nil {
		return found, nil
	}
	if before.holds() {
		return nil, before.cause
	}
	uri, err := r.uri()
	if err != nil {
		return nil, err
	}
	signer, err := n.store.Open(ctx, uri)
	if err != nil {
		err = n.told(text, uri, err)
		n.note(ctx, text, err)
		return nil, err
	}
	return n.keep(text, uri, signer), nil
}

// maxFailed bounds the failures that are remembered, as callers choose their names; beyond
// it any one is forgotten.
const maxFailed = 1000

func (n *Named) note(ctx context.Context, text string, err error) {
	f, counts := failureOf(ctx, err)
	if !counts {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.failed) >= maxFailed {
		for old := range n.failed {
			delete(n.failed, old)
			break
		}
	}
	n.failed[text] = f
}

// keep gives the one key of a name: another caller may have opened it meanwhile.
func (n *Named) keep(text string, uri URI, signer Signer) *namedKey {
	n.mu.Lock()
	defer n.mu.Unlock()
	if found := n.open[text]; found != nil {
		_ = signer.Close() // nothing was signed with it
		return found
	}
	made := &namedKey{named: n, name: text, uri: uri, public: signer.Public(), signer: signer}
	n.open[text] = made
	return made
}

// Generate makes the key of a name and gives the name that is just this key's from then
// on. Errors: those of Store.Generate.
func (n *Named) Generate(ctx context.Context, text string, kind Kind) (Signer, string, error) {
	r, err := n.parse(text)
	if err != nil {
		return nil, "", err
	}
	if r.id != "" {
		return nil, "", imprint.Errorf(imprint.CodeInvalidRequest, "the id of a new key is chosen by its store").WithHint("Write STORE:LABEL.")
	}
	uri, err := r.uri()
	if err != nil {
		return nil, "", err
	}
	signer, made, err := n.store.Generate(ctx, uri, kind)
	if err != nil {
		return nil, "", n.told(text, uri, err)
	}
	switch made.scheme {
	case schemePKCS11:
		text += ";id=" + escapeBytes(made.id)
	case schemeAWSKMS:
		text += ";id=" + escape(made.keyID)
	}
	return n.keep(text, made, signer), text, nil
}

// Stored is a key in a place.
type Stored struct {
	// Name is what Open takes; empty where the label can't stand in one.
	Name string
	Info
}

// List tells which keys are in a place of an account. Errors: CodeNotFound, those of
// Store.List.
func (n *Named) List(ctx context.Context, account imprint.AccountID, name string) ([]Stored, error) {
	at := slices.IndexFunc(n.places, func(p Place) bool { return p.Name == name && p.Account == account })
	if at < 0 {
		return nil, imprint.Errorf(imprint.CodeNotFound, "key store %q doesn't exist", imprint.Excerpt(name)).WithHint("imprint ca keys lists them.")
	}
	infos, err := n.store.List(ctx, n.places[at].URI)
	if err != nil {
		return nil, n.told(name, n.places[at].URI, err)
	}
	var all []Stored
	for _, info := range infos {
		one := Stored{Info: info}
		one.Problem = without(one.Problem, name, info.URI)
		label, id := info.Label, ""
		switch info.URI.scheme {
		case schemePKCS11:
			id = ";id=" + escapeBytes(info.URI.id)
		case schemeTPM:
			if info.URI.file == "" {
				label = "0x" + strconv.FormatUint(uint64(info.URI.handle), 16)
			}
		case schemeAWSKMS:
			label, id = "key", ";id="+escape(info.URI.keyID)
		}
		if text := name + ":" + label + strings.TrimSuffix(id, ";id="); info.Problem == "" && labelPattern.MatchString(label) {
			one.Name = text
		}
		one.Label = label
		all = append(all, one)
	}
	return all, nil
}

// Close closes all keys, and not the Store.
func (n *Named) Close() error {
	n.mu.Lock()
	all := n.open
	n.open = map[string]*namedKey{}
	n.mu.Unlock()
	for _, key := range all {
		key.drop()
	}
	return nil
}

// namedKey is the one open key of a name.
type namedKey struct {
	named  *Named
	name   string
	uri    URI
	public crypto.PublicKey

	mu     sync.Mutex
	signer Signer // nil: it is opened when it is used
	failed failure
}

func (k *namedKey) Public() crypto.PublicKey { return k.public }

// Close does nothing: others use the key, too.
func (k *namedKey) Close() error { return nil }

func (k *namedKey) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	for {
		signer, err := k.ready(ctx)
		if err != nil {
			return nil, err
		}
		signature, err := signer.Sign(ctx, digest, opts)
		switch {
		case err == nil:
			return signature, nil
		case imprint.CodeOf(err) == imprint.CodeKeyRefused:
			k.refuse(ctx, signer, k.named.hide(k.name, k.uri, err))
		case imprint.CodeOf(err) == imprint.CodeInternal && !k.has(signer):
			continue // it was replaced just when it was to sign
		}
		return nil, k.named.told(k.name, k.uri, err)
	}
}

// ready gives the signer, and opens it where it was given up.
func (k *namedKey) ready(ctx context.Context) (Signer, error) {
	k.mu.Lock()
	signer, before := k.signer, k.failed
	k.mu.Unlock()
	if signer != nil {
		return signer, nil
	}
	if before.holds() {
		return nil, before.cause
	}
	signer, err := k.named.store.Open(ctx, k.uri)
	if err != nil {
		err = k.named.told(k.name, k.uri, err)
		k.refuse(ctx, nil, err)
		return nil, err
	}
	if !samePublic(signer.Public(), k.public) {
		_ = signer.Close() // nothing was signed with it
		return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "another key is at %s now", k.name).WithHint("Put the key back, or issue a new CA.")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signer != nil {
		_ = signer.Close() // another caller was quicker
		return k.signer, nil
	}
	k.signer, k.failed = signer, failure{}
	return signer, nil
}

func (k *namedKey) has(signer Signer) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.signer == signer
}

// refuse gives a signer up that was refused, so that a corrected PIN is seen without a
// restart.
func (k *namedKey) refuse(ctx context.Context, signer Signer, cause error) {
	f, counts := failureOf(ctx, cause)
	k.mu.Lock()
	if k.signer != signer || !counts {
		k.mu.Unlock()
		return
	}
	k.signer, k.failed = nil, f
	k.mu.Unlock()
	if signer != nil {
		_ = signer.Close() // what it had to say is the cause
	}
}

func (k *namedKey) drop() {
	k.mu.Lock()
	signer := k.signer
	k.signer = nil
	k.mu.Unlock()
	if signer != nil {
		_ = signer.Close() // the process ends anyway
	}
}

// told tells the operator all, and gives what callers are told.
func (n *Named) told(name string, uri URI, err error) error {
	n.trouble(name, err)
	return n.hide(name, uri, err)
}

// hide gives an error without what only the operator should read: where modules, PINs and
// files are.
func (n *Named) hide(name string, uri URI, err error) error {
	told := hidden{text: without(err.Error(), name, uri), err: err}
	var known *imprint.Error
	if !errors.As(err, &known) {
		return told
	}
	return imprint.Errorf(known.Code, "%w", told).WithHint("%s", without(imprint.HintOf(err), name, uri))
}

// hidden is an error in other words.
type hidden struct {
	text string
	err  error
}

func (h hidden) Error() string { return h.text }

func (h hidden) Unwrap() error { return h.err }

// without replaces what a URI says by the name that stands for it.
func without(text, name string, uri URI) string {
	var pairs []string
	add := func(secret, word string) {
		if secret != "" {
			pairs = append(pairs, secret, word)
		}
	}
	// The longest come first.
	add(uri.String(), name)
	add(uri.token.pinSource, "PIN-FILE")
	add(uri.authSource, "PASSWORD-FILE")
	add(uri.file, name)
	add(uri.token.module, "MODULE")
	add(strings.TrimPrefix(uri.device, unixPrefix), "DEVICE")
	add(uri.endpoint, "ENDPOINT")
	return strings.NewReplacer(pairs...).Replace(text)
}
