package sigv4

import (
	"slices"
	"strings"
)

// Bounds of the Authorization header. Real ones have under 600 bytes and ten
// signed headers.
const (
	maxAuthorization = 8 << 10
	maxSignedHeaders = 64
	maxKeyID         = 128
	maxScopePart     = 64
)

const algorithm = "AWS4-HMAC-SHA256"

// Authorization is the parsed value of an Authorization header.
type Authorization struct {
	KeyID         string
	Date          string // yyyymmdd
	Region        string
	Service       string
	SignedHeaders []string // lower case, strictly ascending
	Signature     string   // 64 lower-case hex digits
}

// Scope gives "date/region/service/aws4_request".
func (a Authorization) Scope() string {
	return a.Date + "/" + a.Region + "/" + a.Service + "/aws4_request"
}

// String gives the canonical form of the header: ParseAuthorization of it gives
// a again.
func (a Authorization) String() string {
	return algorithm + " Credential=" + a.KeyID + "/" + a.Scope() +
		", SignedHeaders=" + strings.Join(a.SignedHeaders, ";") +
		", Signature=" + a.Signature
}

// ParseAuthorization parses the value of an Authorization header. Each of
// Credential, SignedHeaders and Signature must stand there once, in any order,
// and nothing else. The error is always an *Error.
func ParseAuthorization(value string) (Authorization, error) {
	var a Authorization
	if len(value) > maxAuthorization {
		return a, refuse(CodeIncomplete, "The Authorization header has more than %d bytes.", maxAuthorization)
	}
	rest, ok := strings.CutPrefix(value, algorithm+" ")
	if !ok {
		return a, refuse(CodeIncomplete, "The Authorization header doesn't begin with %q.", algorithm+" ")
	}
	fields, err := splitFields(rest)
	if err != nil {
		return a, err
	}
	if err := a.setCredential(fields["Credential"]); err != nil {
		return Authorization{}, err
	}
	if err := a.setSignedHeaders(fields["SignedHeaders"]); err != nil {
		return Authorization{}, err
	}
	if err := a.setSignature(fields["Signature"]); err != nil {
		return Authorization{}, err
	}
	return a, nil
}

func (a *Authorization) setSignature(s string) error {
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return refuse(CodeIncomplete, "The signature isn't 64 lower-case hex digits.")
	}
	a.Signature = s
	return nil
}

func splitFields(s string) (map[string]string, error) {
	parts := strings.SplitN(s, ",", 5)
	fields := make(map[string]string, 3)
	for _, part := range parts {
		name, value, ok := strings.Cut(strings.Trim(part, " "), "=")
		if !ok || value == "" {
			return nil, refuse(CodeIncomplete, "The Authorization header has a field that isn't of the form name=value.")
		}
		switch name {
		case "Credential", "SignedHeaders", "Signature":
		default:
			return nil, refuse(CodeIncomplete, "The Authorization header has a field that isn't Credential, SignedHeaders or Signature.")
		}
		if _, twice := fields[name]; twice {
			return nil, refuse(CodeIncomplete, "The Authorization header has %s twice.", name)
		}
		fields[name] = value
	}
	for _, name := range []string{"Credential", "SignedHeaders", "Signature"} {
		if fields[name] == "" {
			return nil, refuse(CodeIncomplete, "The Authorization header lacks %s.", name)
		}
	}
	return fields, nil
}

func (a *Authorization) setCredential(s string) error {
	parts := strings.SplitN(s, "/", 6)
	if len(parts) != 5 || parts[4] != "aws4_request" {
		return refuse(CodeIncomplete, "The credential isn't of the form key/date/region/service/aws4_request.")
	}
	a.KeyID, a.Date, a.Region, a.Service = parts[0], parts[1], parts[2], parts[3]
	switch {
	case !consistsOf(a.KeyID, maxKeyID, isKeyByte):
		return refuse(CodeIncomplete, "The access key id in the credential isn't 1 to %d letters, digits, - or _.", maxKeyID)
	case len(a.Date) != 8 || !consistsOf(a.Date, 8, isDigit):
		return refuse(CodeIncomplete, "The date in the credential isn't of the form yyyymmdd.")
	case !consistsOf(a.Region, maxScopePart, isScopeByte):
		return refuse(CodeIncomplete, "The region in the credential isn't 1 to %d lower-case letters, digits or -.", maxScopePart)
	case !consistsOf(a.Service, maxScopePart, isScopeByte):
		return refuse(CodeIncomplete, "The service in the credential isn't 1 to %d lower-case letters, digits or -.", maxScopePart)
	}
	return nil
}

func (a *Authorization) setSignedHeaders(s string) error {
	if strings.Count(s, ";") >= maxSignedHeaders {
		return refuse(CodeIncomplete, "More than %d headers are signed.", maxSignedHeaders)
	}
	names := strings.Split(s, ";")
	for i, name := range names {
		if !consistsOf(name, maxAuthorization, isHeaderByte) {
			return refuse(CodeIncomplete, "SignedHeaders has a name that isn't a lower-case header name.")
		}
		if i > 0 && names[i-1] >= name {
			return refuse(CodeIncomplete, "SignedHeaders isn't sorted, or has a name twice.")
		}
	}
	a.SignedHeaders = names
	return nil
}

// Signs reports whether the header of this lower-case name is signed.
func (a Authorization) Signs(name string) bool {
	_, found := slices.BinarySearch(a.SignedHeaders, name)
	return found
}

func consistsOf(s string, most int, ok func(byte) bool) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isScopeByte(c byte) bool { return c >= 'a' && c <= 'z' || isDigit(c) || c == '-' }

func isKeyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c) || c == '-' || c == '_'
}

// isHeaderByte accepts the token characters of RFC 9110, section 5.6.2,
// without upper-case letters.
func isHeaderByte(c byte) bool {
	return c >= 'a' && c <= 'z' || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
