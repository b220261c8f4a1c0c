package sigv4_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

const (
	scope     = "AKIDEXAMPLE/20150830/us-east-1/iot/aws4_request"
	zeros     = "0000000000000000000000000000000000000000000000000000000000000000"
	wellKnown = "AWS4-HMAC-SHA256 Credential=" + scope + ", SignedHeaders=host;x-amz-date, Signature=" + zeros
)

func TestParseAuthorizationReadsEveryOrderAndSpacing(t *testing.T) {
	t.Parallel()
	want := sigv4.Authorization{
		KeyID: "AKIDEXAMPLE", Date: "20150830", Region: "us-east-1", Service: "iot",
		SignedHeaders: []string{"host", "x-amz-date"}, Signature: zeros,
	}
	for _, value := range []string{
		wellKnown,
		"AWS4-HMAC-SHA256 Credential=" + scope + ",SignedHeaders=host;x-amz-date,Signature=" + zeros,
		"AWS4-HMAC-SHA256   Signature=" + zeros + " , SignedHeaders=host;x-amz-date,  Credential=" + scope,
	} {
		got, err := sigv4.ParseAuthorization(value)
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", value, diff)
		}
	}
}

func TestParseAuthorizationRefuses(t *testing.T) {
	t.Parallel()
	replace := func(from, to string) string { return strings.Replace(wellKnown, from, to, 1) }
	tests := map[string]string{
		"nothing":                      "",
		"another algorithm":            replace("SHA256", "SHA512"),
		"no fields":                    "AWS4-HMAC-SHA256 ",
		"no credential":                replace("Credential="+scope+", ", ""),
		"no signed headers":            replace("SignedHeaders=host;x-amz-date, ", ""),
		"no signature":                 replace(", Signature="+zeros, ""),
		"credential twice":             wellKnown + ", Credential=" + scope,
		"signature twice":              wellKnown + ", Signature=" + zeros,
		"another field":                wellKnown + ", Extra=1",
		"a comma at the end":           wellKnown + ",",
		"field names in lower case":    replace("Credential", "credential"),
		"empty signed headers":         replace("host;x-amz-date", ""),
		"unsorted signed headers":      replace("host;x-amz-date", "x-amz-date;host"),
		"signed header twice":          replace("host;x-amz-date", "host;host"),
		"empty signed header":          replace("host;x-amz-date", "host;;x-amz-date"),
		"signed header in upper case":  replace("host;x-amz-date", "Host;x-amz-date"),
		"signed header with a space":   replace("host;x-amz-date", "host;x y"),
		"too many signed headers":      replace("host;x-amz-date", "a"+strings.Repeat(";b", 64)),
		"short signature":              replace(zeros, zeros[1:]),
		"signature in upper case":      replace(zeros, strings.Repeat("A", 64)),
		"signature that isn't hex":     replace(zeros, strings.Repeat("g", 64)),
		"scope with four parts":        replace("/iot/", "/"),
		"scope with six parts":         replace("/iot/", "/iot/x/"),
		"scope with another ending":    replace("aws4_request", "aws4_reply"),
		"empty key":                    replace("AKIDEXAMPLE", ""),
		"long key":                     replace("AKIDEXAMPLE", strings.Repeat("A", 129)),
		"key with a line feed":         replace("AKIDEXAMPLE", "A\nB"),
		"date with dashes":             replace("20150830", "2015-8-1"),
		"region in upper case":         replace("us-east-1", "US-EAST-1"),
		"empty service":                replace("/iot/", "//"),
		"more than the bytes allowed":  wellKnown + strings.Repeat(" ", 8<<10),
		"equals sign inside signature": replace(zeros, "="+zeros[1:]),
	}
	for name, value := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := sigv4.ParseAuthorization(value)
			var refused *sigv4.Error
			if !errors.As(err, &refused) || refused.Code != sigv4.CodeIncomplete {
				t.Errorf("got %v, %v; want %s", got, err, sigv4.CodeIncomplete)
			}
		})
	}
}

// Anything accepted has one canonical form, which means the same.
func FuzzParseAuthorization(f *testing.F) {
	f.Add(wellKnown)
	f.Add(wellKnown + ",")
	f.Add(strings.ReplaceAll(wellKnown, ", ", ","))
	f.Add("AWS4-HMAC-SHA256 Credential=,SignedHeaders=,Signature=")
	f.Add("AWS4-HMAC-SHA256 Credential=a/b/c/d/e/f,,,")
	f.Fuzz(func(t *testing.T, value string) {
		got, err := sigv4.ParseAuthorization(value)
		if err != nil {
			var refused *sigv4.Error
			if !errors.As(err, &refused) {
				t.Fatalf("got %v, want an *Error", err)
			}
			return
		}
		again, err := sigv4.ParseAuthorization(got.String())
		if err != nil {
			t.Fatalf("the canonical form %q is refused: %v", got.String(), err)
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Fatalf("the canonical form differs (-want +got):\n%s", diff)
		}
	})
}
