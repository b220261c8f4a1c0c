package sigv4_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

func newClock() func() time.Time { return func() time.Time { return exampleTime } }

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}

// signed gives a request signed by the SDK with a key, at a time.
func signed(t testing.TB, key sigv4.AccessKey, at time.Time, change func(*http.Request)) *http.Request {
	t.Helper()
	r := httptest.NewRequest("GET", "/things/a%3Ab?x=1", nil)
	r.Host = "api.example.com"
	if change != nil {
		change(r)
	}
	hash := sha256.Sum256(nil)
	payload := hex.EncodeToString(hash[:])
	if sent := r.Header.Get("X-Amz-Content-Sha256"); sent != "" {
		payload = sent
	}
	err := v4.NewSigner().SignHTTP(context.Background(),
		aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret, SessionToken: key.SessionToken},
		r, payload, "iot", "us-east-1", at)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestVerifyRefusesWithTheRightCodeAndMessage(t *testing.T) {
	t.Parallel()
	with := func(change func(*sigv4.AccessKey)) sigv4.AccessKey {
		key := exampleKey
		change(&key)
		return key
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	tests := []struct {
		name    string
		config  func(*sigv4.Config)
		key     sigv4.AccessKey
		at      time.Time
		before  func(*http.Request)
		after   func(*http.Request)
		body    string
		code    string
		message string // a part of it
	}{
		{name: "no Authorization", after: func(r *http.Request) { r.Header.Del("Authorization") }, code: sigv4.CodeMissing, message: "no Authorization"},
		{name: "two Authorization headers", after: func(r *http.Request) { r.Header.Add("Authorization", "x") }, code: sigv4.CodeIncomplete, message: "2 Authorization"},
		{name: "unknown key", key: with(func(k *sigv4.AccessKey) { k.ID = "AKIDOTHER" }), code: sigv4.CodeUnrecognized, message: "security token included in the request is invalid"},
		{name: "wrong secret", key: with(func(k *sigv4.AccessKey) { k.Secret = "other" }), code: sigv4.CodeInvalid, message: "does not match"},
		{name: "other body", body: "{}", code: sigv4.CodeInvalid, message: "does not match"},
		{name: "six minutes old", at: exampleTime.Add(-6 * time.Minute), code: sigv4.CodeInvalid, message: "Signature expired: the request's time is 20150830T123000Z, the server's time is 20150830T123600Z: 6m0s apart, where 5m0s is allowed. Check the clock"},
		{name: "six minutes ahead", at: exampleTime.Add(6 * time.Minute), code: sigv4.CodeInvalid, message: "Signature not yet current"},
		{name: "skew configured", config: func(c *sigv4.Config) { c.Skew = time.Minute }, at: exampleTime.Add(-2 * time.Minute), code: sigv4.CodeInvalid, message: "1m0s is allowed"},
		{name: "service not accepted", config: func(c *sigv4.Config) { c.Services = []string{"lambda"} }, code: sigv4.CodeInvalid, message: "correct service"},
		{name: "region not accepted", config: func(c *sigv4.Config) { c.Regions = []string{"eu-west-1"} }, code: sigv4.CodeInvalid, message: "valid region"},
		{name: "token for a permanent key", key: with(func(k *sigv4.AccessKey) { k.SessionToken = "t" }), code: sigv4.CodeUnrecognized, message: "session token"},
		{name: "no token for a temporary key", config: func(c *sigv4.Config) {
			c.Keys = keySource{exampleKey.ID: with(func(k *sigv4.AccessKey) { k.SessionToken = "t" })}
		}, code: sigv4.CodeUnrecognized, message: "session token"},
		{name: "temporary key over", config: func(c *sigv4.Config) {
			c.Keys = keySource{exampleKey.ID: with(func(k *sigv4.AccessKey) { k.Expires = exampleTime })}
		}, code: sigv4.CodeExpired, message: "expired"},
		{name: "unsigned payload", before: header("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"), code: sigv4.CodeInvalid, message: "wants the body signed"},
		{name: "streaming payload", before: header("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), code: sigv4.CodeInvalid, message: "wants the body signed"},
		{name: "hash of another body", before: header("X-Amz-Content-Sha256", strings.Repeat("0", 64)), code: sigv4.CodeInvalid, message: "isn't the SHA-256"},
		{name: "unsigned principal", after: header("X-Amzn-Principal", "arn"), code: sigv4.CodeIncomplete, message: "x-amzn-principal is there but isn't signed"},
		{name: "signed header gone", before: header("Content-Type", "a"), after: func(r *http.Request) { r.Header.Del("Content-Type") }, code: sigv4.CodeIncomplete, message: "content-type is signed but isn't there"},
		{name: "date of another day in the scope", after: func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "20150830", "20150829", 1))
		}, code: sigv4.CodeInvalid, message: "Date in Credential scope"},
		{name: "malformed time", after: header("X-Amz-Date", "yesterday"), code: sigv4.CodeIncomplete, message: "yyyymmddThhmmssZ"},
		{name: "malformed query", after: func(r *http.Request) { r.URL.RawQuery = "x=%zz" }, code: sigv4.CodeInvalid, message: "malformed escape"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			key, at := tt.key, tt.at
			if key.ID == "" {
				key = exampleKey
			}
			if at.IsZero() {
				at = exampleTime
			}
			r := signed(t, key, at, tt.before)
			if tt.after != nil {
				tt.after(r)
			}
			_, err := verify(newVerifier(t, tt.config), r, tt.body)
			var refused *sigv4.Error
			if !errors.As(err, &refused) {
				t.Fatalf("got %v, want a refusal", err)
			}
			if refused.Code != tt.code || !strings.Contains(refused.Message, tt.message) {
				t.Errorf("got %s: %s\nwant %s with %q", refused.Code, refused.Message, tt.code, tt.message)
			}
		})
	}
}

func TestVerifyAcceptsOptions(t *testing.T) {
	t.Parallel()
	temporary := exampleKey
	temporary.SessionToken, temporary.Expires = "t", exampleTime.Add(time.Second)
	tests := []struct {
		name   string
		config func(*sigv4.Config)
		key    sigv4.AccessKey
		before func(*http.Request)
		after  func(*http.Request)
	}{
		{name: "temporary key with its token", key: temporary, config: func(c *sigv4.Config) { c.Keys = keySource{temporary.ID: temporary} }},
		{name: "unsigned payload where allowed", key: exampleKey, config: func(c *sigv4.Config) { c.AllowUnsignedPayload = true },
			before: func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") }},
		{name: "region that is listed", key: exampleKey, config: func(c *sigv4.Config) { c.Regions = []string{"us-east-1"} }},
		{name: "trace id of a proxy, unsigned", key: exampleKey, after: func(r *http.Request) { r.Header.Set("X-Amzn-Trace-Id", "Root=1") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := signed(t, tt.key, exampleTime, tt.before)
			if tt.after != nil {
				tt.after(r)
			}
			if _, err := verify(newVerifier(t, tt.config), r, ""); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBadSignatureKeepsSecretsOutOfTheMessage(t *testing.T) {
	t.Parallel()
	key := exampleKey
	key.Secret, key.SessionToken = "wrong", "very-secret-token"
	r := signed(t, key, exampleTime, nil)
	_, err := verify(newVerifier(t, nil), r, "")
	var refused *sigv4.Error
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want a refusal", err)
	}
	if !strings.Contains(refused.Detail, "/things/a%253Ab\nx=1\nhost:api.example.com") {
		t.Errorf("the detail lacks the canonical request:\n%s", refused.Detail)
	}
	for _, secret := range []string{exampleKey.Secret, key.SessionToken} {
		if strings.Contains(refused.Detail+refused.Message, secret) {
			t.Errorf("the refusal holds the secret %q", secret)
		}
	}
	if strings.Contains(refused.Message, "canonical") {
		t.Errorf("the message holds the canonical request: %s", refused.Message)
	}
}

func TestFailureOfTheKeySourceIsNotARefusal(t *testing.T) {
	t.Parallel()
	key := exampleKey
	key.ID = "BROKEN"
	_, err := verify(newVerifier(t, nil), signed(t, key, exampleTime, nil), "")
	var refused *sigv4.Error
	if err == nil || errors.As(err, &refused) {
		t.Errorf("got %v, want an error that isn't a refusal", err)
	}
}

func TestAChangedSecretHoldsAtOnceDespiteTheCache(t *testing.T) {
	t.Parallel()
	keys := keySource{exampleKey.ID: exampleKey}
	v := newVerifier(t, func(c *sigv4.Config) { c.Keys = keys })
	r := signed(t, exampleKey, exampleTime, nil)
	if _, err := verify(v, r, ""); err != nil {
		t.Fatal(err)
	}
	changed := exampleKey
	changed.Secret = "new"
	keys[changed.ID] = changed
	if _, err := verify(v, r, ""); err == nil {
		t.Error("the old secret still signs")
	}
	if _, err := verify(v, signed(t, changed, exampleTime, nil), ""); err != nil {
		t.Errorf("the new secret doesn't sign: %v", err)
	}
}

func TestTheCacheIsBoundedAndStrangersDontFillIt(t *testing.T) {
	t.Parallel()
	keys := keySource{}
	v := newVerifier(t, func(c *sigv4.Config) { c.Keys, c.CacheSize = keys, 4 })
	for i := range 40 {
		key := exampleKey
		key.ID += strings.Repeat("X", i+1)
		if _, err := verify(v, signed(t, key, exampleTime, nil), ""); err == nil {
			t.Fatal("an unknown key was accepted")
		}
	}
	if got := sigv4.CacheLen(v); got != 0 {
		t.Errorf("unknown keys are cached: got %d entries, want 0", got)
	}
	for i := range 40 {
		key := exampleKey
		key.ID += strings.Repeat("X", i+1)
		keys[key.ID] = key
		if _, err := verify(v, signed(t, key, exampleTime, nil), ""); err != nil {
			t.Fatal(err)
		}
	}
	if got := sigv4.CacheLen(v); got > 8 {
		t.Errorf("got %d entries, want 8 at most", got)
	}
}

func TestDateHeaderServesWhereThereIsNoAmzDate(t *testing.T) {
	t.Parallel()
	r := signed(t, exampleKey, exampleTime, func(r *http.Request) {
		r.Header.Set("Date", exampleTime.Format(http.TimeFormat))
	})
	r.Header.Del("X-Amz-Date")
	r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), ";x-amz-date", "", 1))
	v := newVerifier(t, nil)
	// The SDK signed x-amz-date too, so the signature can't be good, but the time
	// was found.
	_, err := verify(v, r, "")
	var refused *sigv4.Error
	if !errors.As(err, &refused) || !strings.Contains(refused.Detail, "AWS4-HMAC-SHA256\n20150830T123600Z\n") {
		t.Errorf("got %v, want a bad signature computed with the time of Date", err)
	}
}

func TestNewWantsKeysAndServices(t *testing.T) {
	t.Parallel()
	if _, err := sigv4.New(sigv4.Config{Keys: keySource{}}); err == nil {
		t.Error("no error without Services")
	}
	if _, err := sigv4.New(sigv4.Config{Services: []string{"iot"}}); err == nil {
		t.Error("no error without Keys")
	}
}

func BenchmarkVerify(b *testing.B) {
	v := newVerifier(b, nil)
	r := signed(b, exampleKey, exampleTime, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := verify(v, r, ""); err != nil {
			b.Fatal(err)
		}
	}
}
