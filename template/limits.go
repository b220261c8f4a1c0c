package template

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of the AWS IoT API and registry.
const (
	// MaxTemplateCharacters is the longest template body (CreateProvisioningTemplate).
	MaxTemplateCharacters = 10240
	// MaxParameterCharacters is the longest parameter value of RegisterThing, used for
	// templates of kind Bulk and for every Default.
	MaxParameterCharacters = 4096
	// MaxAttributes and MaxAttributesWithoutType are the attributes of a thing.
	MaxAttributes            = 50
	MaxAttributesWithoutType = 3
	// MaxGroups is the number of groups that a thing is in.
	MaxGroups = 10
	// MaxCSRCharacters and MaxPEMCharacters are the longest CertificateSigningRequest,
	// and CertificatePem or CACertificatePem.
	MaxCSRCharacters = 4096
	MaxPEMCharacters = 65536
)

// Limits of this implementation.
const (
	// MaxDepth is the deepest nesting of JSON objects and arrays.
	MaxDepth = 64
	// MaxValueBytes is the longest parameter value or result of a function.
	MaxValueBytes = 64 << 10
	// MaxListItems is the longest list that Fn::Split may make.
	MaxListItems = 1024
	// MaxPlanBytes is the sum of all results, intermediate ones included, of one Plan.
	MaxPlanBytes = 1 << 20
)

// A check says what is wrong with a value, or nothing.
type check func(value string) (problem string)

// charset is a set of ASCII characters, one bit each.
type charset [2]uint64

func newCharset(ranges string) charset {
	var set charset
	add := func(c byte) { set[c/64] |= 1 << (c % 64) }
	for i := 0; i < len(ranges); i++ {
		if i+2 < len(ranges) && ranges[i+1] == '-' {
			for c := ranges[i]; c <= ranges[i+2]; c++ {
				add(c)
			}
			i += 2
			continue
		}
		add(ranges[i])
	}
	return set
}

func (set charset) holds(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 128 || set[c/64]&(1<<(c%64)) == 0 {
			return false
		}
	}
	return true
}

// pattern makes the check of a registry name: length and characters.
func pattern(what, class string, least, most int, ranges string) check {
	set := newCharset(ranges)
	return func(v string) string {
		if len(v) >= least && len(v) <= most && set.holds(v) {
			return ""
		}
		return fmt.Sprintf("%s %s must match %s{%d,%d}", what, quote(v), class, least, most)
	}
}

// The patterns are those of the API reference, except for packages: those are recalled, not read.
var (
	checkThingName      = pattern("thing name", "[a-zA-Z0-9:_-]", 1, 128, "a-zA-Z0-9:_-")
	checkThingType      = pattern("thing type name", "[a-zA-Z0-9:_-]", 1, 128, "a-zA-Z0-9:_-")
	checkGroup          = pattern("thing group name", "[a-zA-Z0-9:_-]", 1, 128, "a-zA-Z0-9:_-")
	checkBilling        = pattern("billing group name", "[a-zA-Z0-9:_-]", 1, 128, "a-zA-Z0-9:_-")
	checkAttributeName  = pattern("attribute name", "[a-zA-Z0-9_.,@/:#-]", 1, 128, "a-zA-Z0-9_.,@/:#-")
	checkAttributeValue = pattern("attribute value", `[a-zA-Z0-9_.,@/:#=\[\]-]`, 0, 800, "a-zA-Z0-9_.,@/:#=[]-")
	checkPolicyName     = pattern("policy name", `[\w+=,.@-]`, 1, 128, "a-zA-Z0-9_+=,.@-")
	checkPackage        = pattern("package name", "[a-zA-Z0-9_.-]", 1, 128, "a-zA-Z0-9_.-")
	checkVersion        = pattern("package version name", "[a-zA-Z0-9_.-]", 1, 64, "a-zA-Z0-9_.-")
	checkCertificateID  = pattern("certificate id", "[a-fA-F0-9]", 64, 64, "a-fA-F0-9")
	checkCSR            = length("certificate signing request", MaxCSRCharacters)
	checkPEM            = length("certificate PEM", MaxPEMCharacters)
)

func length(what string, most int) check {
	return func(v string) string {
		n := utf8.RuneCountInString(v)
		if n >= 1 && n <= most {
			return ""
		}
		return fmt.Sprintf("%s has %d characters, must have 1 to %d", what, n, most)
	}
}

func oneOf(what string, values ...string) check {
	return func(v string) string {
		for _, known := range values {
			if v == known {
				return ""
			}
		}
		return fmt.Sprintf("%s %s is none of %s", what, quote(v), strings.Join(values, ", "))
	}
}

// checkStatus compares without regard to case: published examples write "Active".
func checkStatus(v string) string {
	if strings.EqualFold(v, string(StatusActive)) || strings.EqualFold(v, string(StatusInactive)) {
		return ""
	}
	return fmt.Sprintf("certificate status %s is none of ACTIVE, INACTIVE", quote(v))
}

// checkDocument asks only for a JSON object; the policy language is not this package's.
func checkDocument(v string) string {
	trimmed := strings.TrimLeft(v, " \t\r\n")
	if strings.HasPrefix(trimmed, "{") && json.Valid([]byte(v)) {
		return ""
	}
	return "the policy document is not a JSON object"
}
