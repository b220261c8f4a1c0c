package sigv4_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

func presigning(c *sigv4.Config) {
	c.MaxExpiry = 24 * time.Hour
	c.Services = []string{"iotdevicegateway"}
}

// presign makes a URL with AWS's own signer. Query is what stands in it before.
func presign(t testing.TB, path string, query url.Values, at time.Time) *url.URL {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "https://localhost:8443"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.RawQuery = query.Encode()
	sum := sha256.Sum256(nil)
	c := aws.Credentials{AccessKeyID: exampleKey.ID, SecretAccessKey: exampleKey.Secret}
	signed, _, err := v4.NewSigner().PresignHTTP(context.Background(), c, r, hex.EncodeToString(sum[:]), "iotdevicegateway", "eu-west-1", at)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(signed)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// arrive is the request of a URL as a server gets it.
func arrive(u *url.URL) *http.Request { return httptest.NewRequest(http.MethodGet, u.String(), nil) }

func TestPresignedURLsOfTheSDKAreAccepted(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, presigning)
	for _, row := range []struct {
		name, path string
		query      url.Values
		at         time.Time
	}{
		{"without a life", "/mqtt", nil, exampleTime},
		{"without a life, four minutes later", "/mqtt", nil, exampleTime.Add(-4 * time.Minute)},
		{"a life of a day", "/mqtt", url.Values{"X-Amz-Expires": {"86400"}}, exampleTime},
		{"a life of a day, nearly over", "/mqtt", url.Values{"X-Amz-Expires": {"86400"}}, exampleTime.Add(-24 * time.Hour)},
		{"a clock that is four minutes early", "/mqtt", url.Values{"X-Amz-Expires": {"60"}}, exampleTime.Add(4 * time.Minute)},
		{"parameters of its own", "/a%2Fb", url.Values{"x": {"1 +/", ""}, "a": {"ä"}}, exampleTime},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := verify(v, arrive(presign(t, row.path, row.query, row.at)), "")
			if err != nil || got.Region != "eu-west-1" || got.Service != "iotdevicegateway" || got.Key.Account != exampleKey.Account {
				t.Errorf("got %+v, %v; want account %s in eu-west-1", got, err, exampleKey.Account)
			}
		})
	}
}

func TestThePresignedSessionTokenMayStandOutsideTheSignature(t *testing.T) {
	t.Parallel()
	key := exampleKey
	key.SessionToken = "token/with+signs=="
	v := newVerifier(t, func(c *sigv4.Config) {
		presigning(c)
		c.Keys = keySource{key.ID: key}
	})
	with := func(u *url.URL, tokens ...string) *url.URL {
		for _, token := range tokens {
			u.RawQuery += "&X-Amz-Security-Token=" + url.QueryEscape(token)
		}
		return u
	}
	inside := url.Values{"X-Amz-Security-Token": {key.SessionToken}}
	for _, row := range []struct {
		name string
		u    *url.URL
		code string
	}{
		{"outside", with(presign(t, "/mqtt", nil, exampleTime), key.SessionToken), ""},
		{"inside", presign(t, "/mqtt", inside, exampleTime), ""},
		{"missing", presign(t, "/mqtt", nil, exampleTime), sigv4.CodeUnrecognized},
		{"wrong", with(presign(t, "/mqtt", nil, exampleTime), "other"), sigv4.CodeUnrecognized},
		{"twice", with(presign(t, "/mqtt", nil, exampleTime), key.SessionToken, key.SessionToken), sigv4.CodeIncomplete},
		{"one inside, one outside", with(presign(t, "/mqtt", inside, exampleTime), "other"), sigv4.CodeIncomplete},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := verify(v, arrive(row.u), "")
			wantCode(t, err, row.code)
		})
	}
}

// wantCode checks a refusal; no code means none.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var refused *sigv4.Error
	switch {
	case code == "" && err != nil:
		t.Errorf("got %v, want success", err)
	case code != "" && (!errors.As(err, &refused) || refused.Code != code):
		t.Errorf("got %v, want %s", err, code)
	case refused != nil && strings.Contains(refused.Detail, "Security-Token"):
		t.Errorf("the detail has the session token: %s", refused.Detail)
	}
}

func TestPresignedURLsThatAreRefused(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, presigning)
	change := func(old, fresh string) *url.URL {
		u := presign(t, "/mqtt", url.Values{"X-Amz-Expires": {"600"}}, exampleTime)
		if !strings.Contains(u.RawQuery, old) {
			t.Fatalf("%s has no %s", u.RawQuery, old)
		}
		u.RawQuery = strings.Replace(u.RawQuery, old, fresh, 1)
		return u
	}
	life := func(seconds string, at time.Time) *url.URL {
		return presign(t, "/mqtt", url.Values{"X-Amz-Expires": {seconds}}, at)
	}
	unknown := presign(t, "/mqtt", nil, exampleTime)
	unknown.RawQuery = strings.Replace(unknown.RawQuery, "AKIDEXAMPLE", "AKIDNOBODY", 1)
	otherPath := presign(t, "/mqtt", nil, exampleTime)
	otherPath.Path = "/topics/a"
	otherHost := presign(t, "/mqtt", nil, exampleTime)
	otherHost.Host = "localhost:9443"
	for _, row := range []struct {
		name string
		u    *url.URL
		code string
	}{
		{"the life is over", life("60", exampleTime.Add(-61*time.Second)), sigv4.CodeInvalid},
		{"no life, six minutes old", presign(t, "/mqtt", nil, exampleTime.Add(-6*time.Minute)), sigv4.CodeInvalid},
		{"from the future", life("60", exampleTime.Add(6*time.Minute)), sigv4.CodeInvalid},
		{"a life of more than a day", life("86401", exampleTime), sigv4.CodeInvalid},
		{"no life at all", life("0", exampleTime), sigv4.CodeInvalid},
		{"a life that is no number", life("1e3", exampleTime), sigv4.CodeInvalid},
		{"a longer life than signed", change("X-Amz-Expires=600", "X-Amz-Expires=601"), sigv4.CodeInvalid},
		{"the life taken out", change("&X-Amz-Expires=600", ""), sigv4.CodeInvalid},
		{"a later date", change("T123600Z", "T123601Z"), sigv4.CodeInvalid},
		{"another region", change("eu-west-1", "eu-west-2"), sigv4.CodeInvalid},
		{"another service", change("iotdevicegateway", "iotdata"), sigv4.CodeInvalid},
		{"another algorithm", change("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), sigv4.CodeIncomplete},
		{"no signed headers", change("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=date"), sigv4.CodeIncomplete},
		{"the signature twice", change("X-Amz-Signature=", "X-Amz-Signature=0&X-Amz-Signature="), sigv4.CodeIncomplete},
		{"a short signature", change("X-Amz-Signature=", "X-Amz-Signature=z"), sigv4.CodeIncomplete},
		{"no credential", change("X-Amz-Credential=", "X-Credential="), sigv4.CodeIncomplete},
		{"an unknown key", unknown, sigv4.CodeUnrecognized},
		{"another path", otherPath, sigv4.CodeInvalid},
		{"another host", otherHost, sigv4.CodeInvalid},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := verify(v, arrive(row.u), "")
			wantCode(t, err, row.code)
		})
	}
	t.Run("where presigned URLs aren't accepted", func(t *testing.T) {
		strict := newVerifier(t, func(c *sigv4.Config) { c.Services = []string{"iotdevicegateway"} })
		_, err := verify(strict, arrive(presign(t, "/mqtt", nil, exampleTime)), "")
		wantCode(t, err, sigv4.CodeMissing)
	})
	t.Run("another method", func(t *testing.T) {
		r := arrive(presign(t, "/mqtt", nil, exampleTime))
		r.Method = http.MethodDelete
		_, err := verify(v, r, "")
		wantCode(t, err, sigv4.CodeInvalid)
	})
	t.Run("a body", func(t *testing.T) {
		_, err := verify(v, arrive(presign(t, "/mqtt", nil, exampleTime)), "body")
		wantCode(t, err, sigv4.CodeInvalid)
	})
	t.Run("a header of the service's that isn't signed", func(t *testing.T) {
		r := arrive(presign(t, "/mqtt", nil, exampleTime))
		r.Header.Set("X-Amz-Target", "x")
		_, err := verify(v, r, "")
		wantCode(t, err, sigv4.CodeIncomplete)
	})
}

// Whatever single byte of a presigned URL's query changes, it is refused, and taken
// where what it says stays the same, such as %2f for %2F.
func TestAChangedByteOfAPresignedURLIsRefused(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, presigning)
	u := presign(t, "/mqtt", url.Values{"X-Amz-Expires": {"600"}, "x": {"y"}}, exampleTime)
	before := u.Query()
	rapid.Check(t, func(t *rapid.T) {
		raw := []byte(u.RawQuery)
		at := rapid.IntRange(0, len(raw)-1).Draw(t, "at")
		raw[at] = byte(rapid.IntRange(0x21, 0x7e).Draw(t, "byte"))
		changed := *u
		changed.RawQuery = string(raw)
		after, err := url.ParseQuery(changed.RawQuery)
		r := httptest.NewRequest(http.MethodGet, "https://localhost:8443/mqtt", nil)
		r.URL.RawQuery = changed.RawQuery
		same := err == nil && after.Encode() == before.Encode()
		_, err = verify(v, r, "")
		if (err == nil) != same {
			t.Errorf("%s, byte %d changed: got %v, and that it says the same is %t", raw, at, err, same)
		}
	})
}

func FuzzPresigned(f *testing.F) {
	v := newVerifier(f, presigning)
	f.Add(presign(f, "/mqtt", url.Values{"X-Amz-Expires": {"600"}}, exampleTime).RawQuery)
	f.Add("X-Amz-Signature=")
	f.Add("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=%zz")
	good := presign(f, "/mqtt", nil, exampleTime).Query().Get("X-Amz-Signature")
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest(http.MethodGet, "https://localhost:8443/mqtt", nil)
		r.URL.RawQuery = query
		_, err := verify(v, r, "")
		var refused *sigv4.Error
		if err != nil && !errors.As(err, &refused) {
			t.Errorf("%q: got %v, want a refusal", query, err)
		}
		if err == nil && !strings.Contains(query, good[:8]) && !strings.Contains(query, "600") {
			t.Errorf("%q is accepted", query)
		}
	})
}
