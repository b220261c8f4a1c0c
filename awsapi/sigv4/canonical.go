package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const upperHex = "0123456789ABCDEF"

// EscapedPath gives the path of r exactly as it came over the wire: nothing
// decoded, cleaned or re-encoded. It is "/" when the request has none.
func EscapedPath(r *http.Request) string {
	path := r.RequestURI
	if !strings.HasPrefix(path, "/") {
		path = r.URL.EscapedPath()
	}
	path, _, _ = strings.Cut(path, "?")
	if path == "" {
		return "/"
	}
	return path
}

// canonicalPath URI-encodes a wire path once more: every byte but unreserved
// ones (RFC 3986, section 2.3) and the slash.
func canonicalPath(path string) string {
	var b strings.Builder
	b.Grow(len(path) + 16)
	for i := range len(path) {
		if path[i] == '/' {
			b.WriteByte('/')
			continue
		}
		escapeByte(&b, path[i])
	}
	return b.String()
}

// cleanPath removes empty and dot segments as RFC 3986, section 5.2.4, does for
// dots: what botocore signs.
func cleanPath(path string) string {
	var kept []string
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "", ".":
		case "..":
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, segment)
		}
	}
	clean := "/" + strings.Join(kept, "/")
	if clean != "/" && strings.HasSuffix(path, "/") {
		clean += "/"
	}
	return clean
}

// canonicalQuery decodes a raw query and writes it in canonical form. It
// reports false when an escape is malformed or a semicolon stands in it, as
// url.ParseQuery would refuse it.
func canonicalQuery(raw string) (string, bool) { return canonicalQueryWithout(raw, nil) }

// canonicalQueryWithout leaves parameters out.
func canonicalQueryWithout(raw string, left []string) (string, bool) {
	type param struct{ name, value string }
	var params []param
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		if strings.Contains(part, ";") {
			return "", false
		}
		name, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return "", false
		}
		value, err = url.QueryUnescape(value)
		if err != nil {
			return "", false
		}
		if slices.Contains(left, name) {
			continue
		}
		params = append(params, param{escape(name), escape(value)})
	}
	slices.SortFunc(params, func(a, b param) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	var b strings.Builder
	for i, p := range params {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.name + "=" + p.value)
	}
	return b.String(), true
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		escapeByte(&b, s[i])
	}
	return b.String()
}

func escapeByte(b *strings.Builder, c byte) {
	if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c) || c == '-' || c == '.' || c == '_' || c == '~' {
		b.WriteByte(c)
		return
	}
	b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
}

// headerValues gives the values of a signed header. net/http takes some headers
// out of the map; they are put back here.
func headerValues(r *http.Request, name string) []string {
	switch name {
	case "host":
		if r.Host == "" {
			return nil
		}
		return []string{r.Host}
	case "content-length":
		if r.ContentLength < 0 {
			return nil
		}
		return []string{strconv.FormatInt(r.ContentLength, 10)}
	case "transfer-encoding":
		return r.TransferEncoding
	}
	return r.Header.Values(name)
}

// canonicalHeaders writes the signed headers, one a line. The second result is
// the name of a signed header that the request doesn't have, if any.
func canonicalHeaders(r *http.Request, names []string, redact bool) (string, string) {
	var b strings.Builder
	for _, name := range names {
		values := headerValues(r, name)
		if len(values) == 0 {
			return "", name
		}
		b.WriteString(name + ":")
		for i, value := range values {
			if i > 0 {
				b.WriteByte(',')
			}
			if redact && name == "x-amz-security-token" {
				value = "(left out)"
			}
			b.WriteString(collapseSpaces(value))
		}
		b.WriteByte('\n')
	}
	return b.String(), ""
}

// collapseSpaces trims white space and turns each run of spaces into one.
func collapseSpaces(s string) string {
	s = strings.Trim(s, " \t")
	if !strings.Contains(s, "  ") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] == ' ' && s[i-1] == ' ' {
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

// canonicalRequest joins the six parts.
func canonicalRequest(method, path, query, headers string, signed []string, bodyHash string) string {
	return strings.Join([]string{
		method, canonicalPath(path), query, headers, strings.Join(signed, ";"), bodyHash,
	}, "\n")
}

func stringToSign(a Authorization, timestamp, canonical string) string {
	return strings.Join([]string{algorithm, timestamp, a.Scope(), hexSHA256([]byte(canonical))}, "\n")
}

func hexSHA256(data []byte) string { return hexOf(sha256.Sum256(data)) }

func hexOf(sum [32]byte) string { return hex.EncodeToString(sum[:]) }
