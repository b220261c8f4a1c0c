package pki

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/imprint-iot/imprint"
)

// SubjectRules say what the subject of a request may be. The names of attributes are C,
// O, OU, CN, SERIALNUMBER, L, ST, STREET, POSTALCODE, DNQUALIFIER, UID, TITLE and
// EMAIL, or object identifiers.
type SubjectRules struct {
	// Required attributes must be there, once, and not be empty. KindIDevID always
	// requires SERIALNUMBER (IEEE 802.1AR section 8.6).
	Required []string `json:"required"`
	// Allowed are all that may be there; empty: all.
	Allowed []string `json:"allowed"`
	// Patterns are regular expressions that the whole value of an attribute must match.
	Patterns map[string]string `json:"patterns"`
	// Fixed attributes stand in every certificate with these values, before the others,
	// and take the place of what a request says of them.
	Fixed map[string]string `json:"fixed"`
}

func (r *SubjectRules) empty() bool {
	return len(r.Required) == 0 && len(r.Allowed) == 0 && len(r.Patterns) == 0 && len(r.Fixed) == 0
}

type objectID = asn1.ObjectIdentifier

// subjectAttributes are the names that rules may use.
var subjectAttributes = map[string]objectID{
	"C": {2, 5, 4, 6}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "CN": {2, 5, 4, 3}, "SERIALNUMBER": {2, 5, 4, 5}, "L": {2, 5, 4, 7}, "ST": {2, 5, 4, 8},
	"STREET": {2, 5, 4, 9}, "POSTALCODE": {2, 5, 4, 17}, "DNQUALIFIER": {2, 5, 4, 46}, "TITLE": {2, 5, 4, 12},
	"UID": {0, 9, 2342, 19200300, 100, 1, 1}, "EMAIL": {1, 2, 840, 113549, 1, 9, 1},
}

// fixedOrder is the order in which fixed attributes stand: from the country down.
var fixedOrder = []string{"C", "ST", "L", "STREET", "POSTALCODE", "O", "OU", "DNQUALIFIER", "TITLE", "SERIALNUMBER", "CN", "UID", "EMAIL"}

func parseObjectID(text string) (objectID, error) {
	var id objectID
	for part := range strings.SplitSeq(text, ".") {
		n := 0
		_, err := fmt.Sscanf(part, "%d", &n)
		if err != nil || n < 0 || fmt.Sprint(n) != part || len(id) > 20 {
			return nil, fmt.Errorf("%q isn't an object identifier", imprint.Excerpt(text))
		}
		id = append(id, n)
	}
	if len(id) < 2 || id[0] > 2 || id[0] < 2 && id[1] > 39 {
		return nil, fmt.Errorf("%q isn't an object identifier", imprint.Excerpt(text))
	}
	return id, nil
}

func attributeID(name string) (objectID, error) {
	id, known := subjectAttributes[strings.ToUpper(name)]
	if known {
		return id, nil
	}
	return parseObjectID(name)
}

// attributeName is the inverse of attributeID.
func attributeName(id objectID) string {
	for name, known := range subjectAttributes {
		if known.Equal(id) {
			return name
		}
	}
	return id.String()
}

// subjectRules are checked SubjectRules, by the text of object identifiers.
type subjectRules struct {
	required, allowed []objectID
	patterns          map[string]*regexp.Regexp
	fixed             []pkix.AttributeTypeAndValue
}

func newSubjectRules(config *ProfileConfig) (subjectRules, error) {
	var r subjectRules
	given := config.Subject
	if config.Kind == KindIDevID && !slices.Contains(given.Required, "SERIALNUMBER") {
		given.Required = append(slices.Clone(given.Required), "SERIALNUMBER")
	}
	for _, list := range []struct {
		names []string
		into  *[]objectID
	}{{given.Required, &r.required}, {given.Allowed, &r.allowed}} {
		for _, name := range list.names {
			id, err := attributeID(name)
			if err != nil {
				return r, config.wrong("subject attribute %q isn't known", imprint.Excerpt(name)).WithHint("Use C, O, OU, CN, SERIALNUMBER, ... or an object identifier.")
			}
			*list.into = append(*list.into, id)
		}
	}
	for name, text := range given.Patterns {
		id, err := attributeID(name)
		if err != nil {
			return r, config.wrong("subject attribute %q isn't known", imprint.Excerpt(name))
		}
		pattern, err := wholePattern(text)
		if err != nil {
			return r, config.wrong("the pattern of %s isn't a regular expression: %w", name, err)
		}
		if r.patterns == nil {
			r.patterns = map[string]*regexp.Regexp{}
		}
		if r.patterns[id.String()] != nil {
			return r, config.wrong("there are two patterns of %s", attributeName(id))
		}
		r.patterns[id.String()] = pattern
	}
	for _, name := range slices.SortedFunc(maps.Keys(given.Fixed), byFixedOrder) {
		id, err := attributeID(name)
		value := given.Fixed[name]
		if err != nil {
			return r, config.wrong("subject attribute %q isn't known", imprint.Excerpt(name))
		}
		if slices.ContainsFunc(r.fixed, func(f pkix.AttributeTypeAndValue) bool { return f.Type.Equal(id) }) {
			return r, config.wrong("%s has two fixed values", attributeName(id))
		}
		if value == "" || len(value) > 128 || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return r, config.wrong("the fixed value %q of %s isn't 1 to 128 bytes without control characters", imprint.Excerpt(value), name)
		}
		if encoded := directoryString(id, value); encoded.Tag == asn1.TagPrintableString && !printable(value) || encoded.Tag == asn1.TagIA5String && !isASCII(value) {
			return r, config.wrong("the fixed value %q of %s has characters that it can't have", imprint.Excerpt(value), attributeName(id)).
				WithHint("Letters of ASCII, digits, spaces and '()+,-./:=? are allowed (PrintableString, RFC 5280 appendix A.1).")
		}
		if attributeName(id) == "C" && (len(value) != 2 || strings.ToUpper(value) != value) {
			return r, config.wrong("the fixed country %q isn't two capital letters", imprint.Excerpt(value))
		}
		r.fixed = append(r.fixed, pkix.AttributeTypeAndValue{Type: id, Value: directoryString(id, value)})
	}
	return r, nil
}

// wholePattern compiles what a whole value must match. The text alone comes first: with
// a parenthesis too many it would get around the anchors.
func wholePattern(text string) (*regexp.Regexp, error) {
	_, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + text + `)\z`)
}

func printable(text string) bool {
	for _, r := range text {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r)) {
			return false
		}
	}
	return true
}

func byFixedOrder(a, b string) int {
	place := func(name string) int {
		at := slices.Index(fixedOrder, strings.ToUpper(name))
		if at < 0 {
			return len(fixedOrder)
		}
		return at
	}
	if n := place(a) - place(b); n != 0 {
		return n
	}
	return strings.Compare(a, b)
}

// directoryString chooses the type that RFC 5280 appendix A.1 wants: PrintableString for
// countries, serial numbers and qualifiers, IA5String for mail, else UTF8String.
func directoryString(id objectID, value string) asn1.RawValue {
	tag := asn1.TagUTF8String
	switch attributeName(id) {
	case "C", "SERIALNUMBER", "DNQUALIFIER":
		tag = asn1.TagPrintableString
	case "EMAIL":
		tag = asn1.TagIA5String
	}
	return asn1.RawValue{Class: asn1.ClassUniversal, Tag: tag, Bytes: []byte(value)}
}

// attributeValue is one attribute of a subject, with the encoding of its value.
type attributeValue struct {
	Type  objectID
	Value asn1.RawValue
}

type relativeName []attributeValue

// parseName reads a DER name without changing an octet of its values.
func parseName(der []byte) ([]relativeName, error) {
	var sets []asn1.RawValue
	rest, err := asn1.Unmarshal(der, &sets)
	if err != nil || len(rest) != 0 {
		return nil, invalid("the subject %s isn't a name", base64.StdEncoding.EncodeToString(der[:min(48, len(der))]))
	}
	names := make([]relativeName, 0, len(sets))
	for _, set := range sets {
		var one relativeName
		rest, err := asn1.UnmarshalWithParams(set.FullBytes, &one, "set")
		if err != nil || len(rest) != 0 || len(one) == 0 {
			return nil, invalid("the subject %s isn't a name", base64.StdEncoding.EncodeToString(der[:min(48, len(der))]))
		}
		names = append(names, one)
	}
	return names, nil
}

func encodeName(names []relativeName) ([]byte, error) {
	sets := make([]asn1.RawValue, 0, len(names))
	for _, one := range names {
		der, err := asn1.MarshalWithParams([]attributeValue(one), "set")
		if err != nil {
			return nil, fmt.Errorf("couldn't encode a name: %w", err)
		}
		sets = append(sets, asn1.RawValue{FullBytes: der})
	}
	der, err := asn1.Marshal(sets)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode a name: %w", err)
	}
	return der, nil
}

// text gives the value of an attribute, as who reads the certificate later reads it: a
// T61String is ISO 8859-1 to crypto/x509, to JITP's templates and to policies. It is false for a
// type that isn't text.
func (a attributeValue) text() (string, bool) {
	switch a.Value.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString:
		return string(a.Value.Bytes), a.Value.Class == asn1.ClassUniversal && utf8.Valid(a.Value.Bytes)
	case asn1.TagT61String:
		runes := make([]rune, len(a.Value.Bytes))
		for n, b := range a.Value.Bytes {
			runes[n] = rune(b)
		}
		return string(runes), a.Value.Class == asn1.ClassUniversal && !a.Value.IsCompound
	case asn1.TagBMPString:
		var text string
		_, err := asn1.Unmarshal(a.Value.FullBytes, &text)
		return text, err == nil
	}
	return "", false
}

// readable refuses a subject with values that crypto/x509 can't read: the certificate couldn't be
// used, here neither.
func readable(subject []byte) error {
	names, err := parseName(subject)
	if err != nil {
		return err
	}
	for _, a := range slices.Concat(names...) {
		_, isText := a.text()
		if !isText {
			return invalid("the subject's %s isn't text of a type that is read everywhere: its tag is %d", attributeName(a.Type), a.Value.Tag).
				WithHint("Write it as a UTF8String or PrintableString.")
		}
	}
	return nil
}

// subjectOf gives the DER subject of the certificate for a request.
func (p *Profile) subjectOf(r Request) ([]byte, error) {
	raw := r.RawSubject
	if emptyName(raw) {
		raw = p.subject
	}
	if len(raw) > maxRawSubject {
		return nil, invalid("the subject is longer than %d bytes", maxRawSubject).
			WithHint("Use a short subject, such as /CN=SERIAL.")
	}
	if !p.rules.used() {
		if len(raw) == 0 {
			if p.kind == KindServer && !r.Names.empty() {
				return []byte{0x30, 0x00}, nil
			}
			return nil, invalid("the request has no subject").WithHint("Give it one: openssl req -new -subj /CN=SERIAL")
		}
		var name asn1.RawValue
		rest, err := asn1.Unmarshal(raw, &name)
		if err != nil || len(rest) != 0 || name.Tag != asn1.TagSequence || !name.IsCompound {
			return nil, invalid("the subject %s isn't a name", base64.StdEncoding.EncodeToString(raw[:min(48, len(raw))]))
		}
		return raw, nil
	}
	if len(raw) == 0 {
		raw = []byte{0x30, 0x00}
	}
	names, err := parseName(raw)
	if err != nil {
		return nil, err
	}
	return p.rules.apply(names, raw, p.name)
}

func (r *subjectRules) used() bool {
	return len(r.required) > 0 || len(r.allowed) > 0 || len(r.patterns) > 0 || len(r.fixed) > 0
}

// apply gives the DER of a name that follows the rules: its own octets where nothing is
// fixed.
func (r *subjectRules) apply(names []relativeName, raw []byte, profile string) ([]byte, error) {
	if len(r.fixed) > 0 {
		fixed := make([]relativeName, 0, len(r.fixed)+len(names))
		for _, f := range r.fixed {
			fixed = append(fixed, relativeName{{Type: f.Type, Value: f.Value.(asn1.RawValue)}})
		}
		for _, one := range names {
			one = slices.DeleteFunc(slices.Clone(one), func(a attributeValue) bool {
				return slices.ContainsFunc(r.fixed, func(f pkix.AttributeTypeAndValue) bool { return f.Type.Equal(a.Type) })
			})
			if len(one) > 0 {
				fixed = append(fixed, one)
			}
		}
		names = fixed
		der, err := encodeName(names)
		if err != nil {
			return nil, err
		}
		raw = der
	}
	counts := map[string]int{}
	for _, one := range names {
		for _, a := range one {
			name := attributeName(a.Type)
			counts[a.Type.String()]++
			isFixed := slices.ContainsFunc(r.fixed, func(f pkix.AttributeTypeAndValue) bool { return f.Type.Equal(a.Type) })
			if len(r.allowed) > 0 && !isFixed && !slices.ContainsFunc(slices.Concat(r.allowed, r.required), a.Type.Equal) {
				return nil, invalid("the subject has %s, which profile %s doesn't allow", name, profile).WithHint("Leave it out of the request.")
			}
			text, isText := a.text()
			if pattern := r.patterns[a.Type.String()]; pattern != nil && (!isText || !pattern.MatchString(text)) {
				return nil, invalid("the subject's %s %q doesn't match %s, as profile %s demands", name, imprint.Excerpt(text), pattern, profile)
			}
			if slices.ContainsFunc(r.required, a.Type.Equal) && (!isText || strings.TrimSpace(text) == "") {
				return nil, invalid("the subject's %s is empty or not text", name)
			}
		}
	}
	for _, id := range r.required {
		if n := counts[id.String()]; n != 1 {
			return nil, invalid("the subject has %s %d times, profile %s demands it once", attributeName(id), n, profile).
				WithHint("Make the request with it: openssl req -new -subj /%s=...", opensslName(attributeName(id)))
		}
	}
	if bytes.Equal(raw, []byte{0x30, 0x00}) {
		return nil, invalid("the request has no subject").WithHint("Give it one: openssl req -new -subj /CN=SERIAL")
	}
	return raw, nil
}

// opensslName is what openssl's -subj calls an attribute.
func opensslName(name string) string {
	switch name {
	case "SERIALNUMBER":
		return "serialNumber"
	case "DNQUALIFIER":
		return "dnQualifier"
	case "EMAIL":
		return "emailAddress"
	}
	return name
}
