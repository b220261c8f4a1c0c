package sigv4

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Sign adds x-amz-date and Authorization to a client's request, for Imprint's
// own command line. The body is what will be sent; host, all headers that begin with
// x-amz- or x-amzn- and, with a body, content-type are signed.
func Sign(r *http.Request, body []byte, key AccessKey, region, service string, now time.Time) {
	timestamp := now.UTC().Format(timeLayout)
	r.Header.Set("X-Amz-Date", timestamp)
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	a := Authorization{
		KeyID: key.ID, Date: timestamp[:8], Region: region, Service: service,
		SignedHeaders: []string{"host", "x-amz-date"},
	}
	if r.Header.Get("Content-Type") != "" {
		a.SignedHeaders = append(a.SignedHeaders, "content-type")
	}
	for name := range r.Header {
		// A verifier refuses headers of AWS's that aren't signed.
		if lower := strings.ToLower(name); (strings.HasPrefix(lower, "x-amz-") || strings.HasPrefix(lower, "x-amzn-")) && lower != "x-amz-date" {
			a.SignedHeaders = append(a.SignedHeaders, lower)
		}
	}
	slices.Sort(a.SignedHeaders)
	query, _ := canonicalQuery(r.URL.RawQuery)
	headers, _ := canonicalHeaders(r, a.SignedHeaders, false)
	canonical := canonicalRequest(r.Method, EscapedPath(r), query, headers, a.SignedHeaders, hexSHA256(body))
	signingKey := deriveKey(key.Secret, a)
	a.Signature = hexOf(mac(signingKey[:], stringToSign(a, timestamp, canonical)))
	r.Header.Set("Authorization", a.String())
}
