package sigv4

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	timeLayout      = "20060102T150405Z"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	maxDetail       = 16 << 10
)

// AccessKey is what the server knows of a caller's key.
type AccessKey struct {
	ID      string
	Secret  string
	Account string // twelve digits
	// PrincipalARN names who holds the key, such as
	// arn:aws:iam::123456789012:user/line-operator.
	PrincipalARN string
	// SessionToken is set for temporary credentials: the request must then
	// carry exactly it.
	SessionToken string
	// Expires is when temporary credentials end; the zero time is never.
	Expires time.Time
}

// KeySource finds access keys. It returns an error that wraps ErrUnknownKey for
// a key that doesn't exist or is switched off; any other error counts as a
// failure of the server.
type KeySource interface {
	AccessKey(ctx context.Context, id string) (AccessKey, error)
}

// Config says what a Verifier accepts.
type Config struct {
	// Keys finds access keys. Required.
	Keys KeySource
	// Services are the service names that a credential scope may have, such as
	// "iot" and "execute-api". Required.
	Services []string
	// Regions are the regions that a scope may have. Empty means any.
	Regions []string
	// Skew is how far the request's time may be from the server's, either way.
	// Zero means five minutes.
	Skew time.Duration
	// AllowUnsignedPayload accepts "x-amz-content-sha256: UNSIGNED-PAYLOAD",
	// that is, requests whose body isn't covered by the signature.
	AllowUnsignedPayload bool
	// MaxExpiry is how long a presigned URL may hold at most. Zero accepts none.
	MaxExpiry time.Duration
	// Now is the server's clock. Nil means time.Now.
	Now func() time.Time
	// CacheSize bounds the derived keys that are kept (twice this number at
	// most). Zero means 1024.
	CacheSize int
}

// Verifier checks signatures. It is safe for concurrent use.
type Verifier struct {
	config Config
	cache  *keyCache
	decoy  string // stands in for the secret of unknown keys
}

// Identity is who signed a request, and for which region and service.
type Identity struct {
	Key     AccessKey
	Region  string
	Service string
}

// Claim is an Authorization header, or a presigned URL, that passed every check that needs neither
// the key nor the body. Only Parse makes one that Verify accepts.
type Claim struct {
	authorization Authorization
	timestamp     string // of the request, in the layout of x-amz-date
	presigned     *presigned
}

// KeyID gives the access key id that the caller claims to hold.
func (c Claim) KeyID() string { return c.authorization.KeyID }

// New makes a Verifier. It fails when the Config lacks Keys or Services.
func New(config Config) (*Verifier, error) {
	if config.Keys == nil || len(config.Services) == 0 {
		return nil, errors.New("couldn't make a signature verifier: Keys and Services must be set")
	}
	if config.Skew == 0 {
		config.Skew = 5 * time.Minute
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.CacheSize <= 0 {
		config.CacheSize = 1024
	}
	config.Services = slices.Clone(config.Services)
	config.Regions = slices.Clone(config.Regions)
	return &Verifier{config: config, cache: newKeyCache(config.CacheSize), decoy: rand.Text()}, nil
}

// Parse checks everything about the Authorization header, or the presigned URL
// where those are accepted, that needs neither the key nor the body, so that a server can refuse before it reads the body.
// The error is an *Error.
func (v *Verifier) Parse(r *http.Request) (Claim, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 && v.config.MaxExpiry > 0 && isPresigned(r) {
		return v.parsePresigned(r)
	}
	if len(headers) == 0 {
		return Claim{}, refuse(CodeMissing, "The request has no Authorization header. Sign it with an access key of this server (Signature Version 4).")
	}
	if len(headers) > 1 {
		return Claim{}, refuse(CodeIncomplete, "The request has %d Authorization headers.", len(headers))
	}
	a, err := ParseAuthorization(headers[0])
	if err != nil {
		return Claim{}, err
	}
	if err := v.checkScope(a); err != nil {
		return Claim{}, err
	}
	if err := checkSignedHeaders(r, a); err != nil {
		return Claim{}, err
	}
	timestamp, err := v.checkTime(r, a)
	if err != nil {
		return Claim{}, err
	}
	return Claim{authorization: a, timestamp: timestamp}, nil
}

func (v *Verifier) checkScope(a Authorization) error {
	if !slices.Contains(v.config.Services, a.Service) {
		return refuse(CodeInvalid, "Credential should be scoped to correct service: %q isn't one of %s.",
			a.Service, strings.Join(v.config.Services, ", "))
	}
	if len(v.config.Regions) > 0 && !slices.Contains(v.config.Regions, a.Region) {
		return refuse(CodeInvalid, "Credential should be scoped to a valid region: %q isn't one of %s.",
			a.Region, strings.Join(v.config.Regions, ", "))
	}
	return nil
}

// checkSignedHeaders wants host signed, and every x-amz... header: parameters
// of operations travel in them (x-amzn-principal). Tracing proxies add
// x-amzn-trace-id on the way, and no SDK signs it.
func checkSignedHeaders(r *http.Request, a Authorization) error {
	if !a.Signs("host") {
		return refuse(CodeIncomplete, "The host header isn't signed.")
	}
	for name := range r.Header {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, "x-amz") || lower == "x-amzn-trace-id" {
			continue
		}
		if !a.Signs(lower) {
			return refuse(CodeIncomplete, "The header %s is there but isn't signed.", clip(lower, 64))
		}
	}
	for _, name := range a.SignedHeaders {
		if len(headerValues(r, name)) == 0 {
			return refuse(CodeIncomplete, "The header %s is signed but isn't there.", clip(name, 64))
		}
	}
	return nil
}

// checkTime gives the request's time in the layout of x-amz-date.
func (v *Verifier) checkTime(r *http.Request, a Authorization) (string, error) {
	at, err := requestTime(r, a)
	if err != nil {
		return "", err
	}
	timestamp := at.UTC().Format(timeLayout)
	if a.Date != timestamp[:8] {
		return "", refuse(CodeInvalid, "Date in Credential scope does not match YYYYMMDD from the request's time: %q and %q.", a.Date, timestamp[:8])
	}
	now := v.config.Now().UTC()
	if off := now.Sub(at); off > v.config.Skew || off < -v.config.Skew {
		word := "Signature expired"
		if off < 0 {
			word = "Signature not yet current"
		}
		return "", refuse(CodeInvalid, "%s: the request's time is %s, the server's time is %s: %s apart, where %s is allowed. Check the clock of both machines.",
			word, timestamp, now.Format(timeLayout), off.Abs().Round(time.Second), v.config.Skew)
	}
	return timestamp, nil
}

func requestTime(r *http.Request, a Authorization) (time.Time, error) {
	name, layouts := "x-amz-date", []string{timeLayout}
	if len(r.Header.Values(name)) == 0 {
		name, layouts = "date", []string{http.TimeFormat, time.RFC1123Z, timeLayout}
	}
	values := r.Header.Values(name)
	if len(values) != 1 {
		return time.Time{}, refuse(CodeIncomplete, "The request needs one x-amz-date header (or one date header).")
	}
	if !a.Signs(name) {
		return time.Time{}, refuse(CodeIncomplete, "The header %s isn't signed.", name)
	}
	for _, layout := range layouts {
		at, err := time.Parse(layout, strings.TrimSpace(values[0]))
		if err == nil {
			return at, nil
		}
	}
	return time.Time{}, refuse(CodeIncomplete, "The header %s isn't a time of the form yyyymmddThhmmssZ.", name)
}

// Known refuses the claim of a key that nobody has, before its body is read: the signature
// isn't checked yet. Refusals are *Error; anything else is a failure of the KeySource.
func (v *Verifier) Known(ctx context.Context, claim Claim) error {
	key, err := v.config.Keys.AccessKey(ctx, claim.KeyID())
	unknown := errors.Is(err, ErrUnknownKey)
	switch {
	case err != nil && !unknown:
		return fmt.Errorf("couldn't look up an access key: %w", err)
	case unknown || key.Secret == "":
		return unrecognized()
	}
	return nil
}

func unrecognized() error {
	return refuse(CodeUnrecognized, "The security token included in the request is invalid. No active access key has the id that the request names.")
}

// Verify checks the signature of the request that claim was parsed from. body
// is the whole body. Refusals are *Error; anything else is a failure of the
// KeySource.
func (v *Verifier) Verify(ctx context.Context, claim Claim, r *http.Request, body []byte) (Identity, error) {
	a := claim.authorization
	if a.KeyID == "" {
		return Identity{}, refuse(CodeMissing, "The request wasn't parsed.")
	}
	bodyHash, err := v.bodyHash(r, body)
	if err != nil {
		return Identity{}, err
	}
	queries, ok := claim.queries(r)
	if !ok {
		return Identity{}, refuse(CodeInvalid, "The query string has a malformed escape.")
	}
	key, err := v.config.Keys.AccessKey(ctx, a.KeyID)
	unknown := errors.Is(err, ErrUnknownKey)
	if err != nil && !unknown {
		return Identity{}, fmt.Errorf("couldn't look up an access key: %w", err)
	}
	if unknown || key.Secret == "" {
		// The same work follows as for a known key, and then a refusal.
		key, unknown = AccessKey{ID: a.KeyID, Secret: v.decoy}, true
	}
	signingKey, cached := v.cache.get(key.Secret, a)
	good := v.signatureMatches(claim, r, queries, bodyHash, signingKey)
	switch {
	case unknown:
		return Identity{}, unrecognized()
	case !good:
		return Identity{}, v.badSignature(claim, r, queries[len(queries)-1], bodyHash)
	}
	if !cached {
		v.cache.add(key.Secret, a, signingKey)
	}
	if err := v.checkToken(claim.token(r), key); err != nil {
		return Identity{}, err
	}
	return Identity{Key: key, Region: a.Region, Service: a.Service}, nil
}

func (v *Verifier) bodyHash(r *http.Request, body []byte) (string, error) {
	actual := hexSHA256(body)
	values := r.Header.Values("X-Amz-Content-Sha256")
	if len(values) == 0 {
		return actual, nil
	}
	claimed := strings.TrimSpace(values[0])
	switch {
	case len(values) > 1:
		return "", refuse(CodeIncomplete, "The request has several x-amz-content-sha256 headers.")
	case claimed == unsignedPayload && v.config.AllowUnsignedPayload:
		return claimed, nil
	case claimed == unsignedPayload || strings.HasPrefix(claimed, "STREAMING-"):
		return "", refuse(CodeInvalid, "This server wants the body signed: x-amz-content-sha256 must be the SHA-256 of the body.")
	case subtle.ConstantTimeCompare([]byte(claimed), []byte(actual)) != 1:
		return "", refuse(CodeInvalid, "x-amz-content-sha256 isn't the SHA-256 of the body.")
	}
	return actual, nil
}

// queries gives the canonical queries that the signature may cover.
func (c Claim) queries(r *http.Request) ([]string, bool) {
	if c.presigned != nil {
		return c.presigned.queries()
	}
	query, ok := canonicalQuery(r.URL.RawQuery)
	return []string{query}, ok
}

// signatureMatches tries the path as it came and, where that differs, with
// empty and dot segments removed.
func (v *Verifier) signatureMatches(claim Claim, r *http.Request, queries []string, bodyHash string, signingKey [32]byte) bool {
	a := claim.authorization
	headers, missing := canonicalHeaders(r, a.SignedHeaders, false)
	if missing != "" {
		return false
	}
	path := EscapedPath(r)
	paths := []string{path}
	if clean := cleanPath(path); clean != path {
		paths = append(paths, clean)
	}
	good := 0
	for _, path := range paths {
		for _, query := range queries {
			canonical := canonicalRequest(r.Method, path, query, headers, a.SignedHeaders, bodyHash)
			expected := hexOf(mac(signingKey[:], stringToSign(a, claim.timestamp, canonical)))
			good |= subtle.ConstantTimeCompare([]byte(expected), []byte(a.Signature))
		}
	}
	return good == 1
}

func (v *Verifier) badSignature(claim Claim, r *http.Request, query, bodyHash string) *Error {
	a := claim.authorization
	err := refuse(CodeInvalid, "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.")
	headers, _ := canonicalHeaders(r, a.SignedHeaders, true)
	canonical := canonicalRequest(r.Method, EscapedPath(r), query, headers, a.SignedHeaders, bodyHash)
	err.Detail = clip("canonical request:\n"+canonical+"\nstring to sign:\n"+stringToSign(a, claim.timestamp, canonical), maxDetail)
	return err
}

func (v *Verifier) checkToken(sent []string, key AccessKey) error {
	if !key.Expires.IsZero() && !v.config.Now().Before(key.Expires) {
		return refuse(CodeExpired, "The security token included in the request is expired: it ended at %s.", key.Expires.UTC().Format(time.RFC3339))
	}
	if key.SessionToken == "" && len(sent) == 0 {
		return nil
	}
	if len(sent) != 1 || subtle.ConstantTimeCompare([]byte(sent[0]), []byte(key.SessionToken)) != 1 {
		return refuse(CodeUnrecognized, "The security token included in the request is invalid. This access key and this session token don't belong together.")
	}
	return nil
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
