package sigv4

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Parameters of a presigned URL (AWS IAM user guide, "Add the signature to the
// request").
const (
	paramAlgorithm     = "X-Amz-Algorithm"
	paramCredential    = "X-Amz-Credential"
	paramDate          = "X-Amz-Date"
	paramExpires       = "X-Amz-Expires"
	paramSignedHeaders = "X-Amz-SignedHeaders"
	paramSignature     = "X-Amz-Signature"
	paramToken         = "X-Amz-Security-Token"
)

// maxQuery bounds the query of a presigned URL; session tokens are the long
// part of it.
const maxQuery = 16 << 10

// presigned are the parameters of a presigned URL, each there once at most.
type presigned struct {
	values   url.Values
	rawQuery string
}

// isPresigned tells a request that carries its signature in the query.
func isPresigned(r *http.Request) bool {
	return len(r.URL.RawQuery) <= maxQuery && r.URL.Query().Has(paramSignature)
}

// parsePresigned does for a presigned URL what Parse does for a header.
func (v *Verifier) parsePresigned(r *http.Request) (Claim, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Claim{}, refuse(CodeInvalid, "The query string isn't well formed.")
	}
	for _, name := range []string{paramAlgorithm, paramCredential, paramDate, paramExpires, paramSignedHeaders, paramSignature, paramToken} {
		optional := name == paramExpires || name == paramToken
		if n := len(values[name]); n > 1 || n == 0 && !optional {
			return Claim{}, refuse(CodeIncomplete, "The query has %s %d times.", name, n)
		}
	}
	if values.Get(paramAlgorithm) != algorithm {
		return Claim{}, refuse(CodeIncomplete, "%s in the query isn't %s.", paramAlgorithm, algorithm)
	}
	var a Authorization
	if err := a.setCredential(values.Get(paramCredential)); err != nil {
		return Claim{}, err
	}
	if err := a.setSignedHeaders(values.Get(paramSignedHeaders)); err != nil {
		return Claim{}, err
	}
	if err := a.setSignature(values.Get(paramSignature)); err != nil {
		return Claim{}, err
	}
	if err := v.checkScope(a); err != nil {
		return Claim{}, err
	}
	if err := checkSignedHeaders(r, a); err != nil {
		return Claim{}, err
	}
	p := &presigned{values: values, rawQuery: r.URL.RawQuery}
	timestamp, err := v.checkLife(p, a)
	if err != nil {
		return Claim{}, err
	}
	return Claim{authorization: a, timestamp: timestamp, presigned: p}, nil
}

// checkLife gives the time of a presigned URL in the layout of x-amz-date. A URL
// that doesn't say how long it holds is good for as long as a header would be.
func (v *Verifier) checkLife(p *presigned, a Authorization) (string, error) {
	timestamp := p.values.Get(paramDate)
	at, err := time.Parse(timeLayout, timestamp)
	if err != nil {
		return "", refuse(CodeIncomplete, "%s in the query isn't a time of the form yyyymmddThhmmssZ.", paramDate)
	}
	if a.Date != timestamp[:8] {
		return "", refuse(CodeInvalid, "Date in Credential scope does not match YYYYMMDD from the request's time: %q and %q.", a.Date, timestamp[:8])
	}
	life := v.config.Skew
	if p.values.Has(paramExpires) {
		most := int64(v.config.MaxExpiry / time.Second)
		seconds, err := strconv.ParseInt(p.values.Get(paramExpires), 10, 64)
		if err != nil || seconds < 1 || seconds > most {
			return "", refuse(CodeInvalid, "%s in the query isn't a number of seconds from 1 to %d.", paramExpires, most)
		}
		life = time.Duration(seconds) * time.Second
	}
	now := v.config.Now().UTC()
	if now.Before(at.Add(-v.config.Skew)) {
		return "", refuse(CodeInvalid, "Signature not yet current: the URL's time is %s, the server's time is %s. Check the clock of both machines.", timestamp, now.Format(timeLayout))
	}
	if now.After(at.Add(life)) {
		return "", refuse(CodeInvalid, "Signature expired: the URL was good from %s for %s, the server's time is %s. Make a new one, and check the clock of both machines.", timestamp, life, now.Format(timeLayout))
	}
	return timestamp, nil
}

// queries gives the canonical queries that a signature may cover: without itself,
// and with or without the session token, which AWS IoT clients add after they
// signed. The token's own check doesn't depend on the signature.
func (p *presigned) queries() ([]string, bool) {
	var all []string
	for _, left := range [][]string{{paramSignature}, {paramSignature, paramToken}} {
		query, ok := canonicalQueryWithout(p.rawQuery, left)
		if !ok {
			return nil, false
		}
		if !slices.Contains(all, query) {
			all = append(all, query)
		}
	}
	return all, true
}

// token gives what the request carries as session token.
func (c Claim) token(r *http.Request) []string {
	sent := r.Header.Values(paramToken)
	if c.presigned != nil {
		sent = append(slices.Clone(sent), c.presigned.values[paramToken]...)
	}
	return sent
}
