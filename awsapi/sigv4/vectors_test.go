package sigv4_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// exampleKey is the key of AWS's published Signature Version 4 examples.
var exampleKey = sigv4.AccessKey{
	ID:           "AKIDEXAMPLE",
	Secret:       "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
	Account:      "123456789012",
	PrincipalARN: "arn:aws:iam::123456789012:user/example",
}

var exampleTime = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)

// keySource gives keys by id.
type keySource map[string]sigv4.AccessKey

func (s keySource) AccessKey(_ context.Context, id string) (sigv4.AccessKey, error) {
	if id == "BROKEN" {
		return sigv4.AccessKey{}, errors.New("disk on fire")
	}
	key, ok := s[id]
	if !ok {
		return sigv4.AccessKey{}, sigv4.ErrUnknownKey
	}
	return key, nil
}

func newVerifier(t testing.TB, change func(*sigv4.Config)) *sigv4.Verifier {
	t.Helper()
	config := sigv4.Config{
		Keys:     keySource{exampleKey.ID: exampleKey},
		Services: []string{"service", "iot", "execute-api"},
		Now:      func() time.Time { return exampleTime },
	}
	if change != nil {
		change(&config)
	}
	v, err := sigv4.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func verify(v *sigv4.Verifier, r *http.Request, body string) (sigv4.Identity, error) {
	claim, err := v.Parse(r)
	if err != nil {
		return sigv4.Identity{}, err
	}
	return v.Verify(context.Background(), claim, r, []byte(body))
}

// The signatures are those that AWS published for these requests in its
// Signature Version 4 test suite.
func TestVerifyAcceptsPublishedVectors(t *testing.T) {
	t.Parallel()
	const vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
	tests := []struct {
		name, method, target string
		headers              []string // "Name: value"
		body, signed, want   string
	}{
		{name: "get vanilla", method: "GET", target: "/", signed: "host;x-amz-date", want: vanilla},
		{name: "query ordered by key and case", method: "GET", target: "/?Param2=value2&Param1=value1", signed: "host;x-amz-date",
			want: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{name: "query in UTF-8", method: "GET", target: "/?ሴ=bar", signed: "host;x-amz-date",
			want: "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
		{name: "path in UTF-8", method: "GET", target: "/ሴ", signed: "host;x-amz-date",
			want: "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
		{name: "path of unreserved characters", method: "GET",
			target: "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", signed: "host;x-amz-date",
			want: "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
		{name: "header values trimmed and collapsed", method: "GET", target: "/",
			headers: []string{"My-Header1:  value1 ", `My-Header2:  "a   b   c" `}, signed: "host;my-header1;my-header2;x-amz-date",
			want: "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
		{name: "header given several times", method: "GET", target: "/",
			headers: []string{"My-Header1: value2", "My-Header1: value2", "My-Header1: value1"}, signed: "host;my-header1;x-amz-date",
			want: "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
		{name: "post vanilla", method: "POST", target: "/", signed: "host;x-amz-date",
			want: "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		{name: "post with query", method: "POST", target: "/?Param1=value1", signed: "host;x-amz-date",
			want: "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
		{name: "post with body", method: "POST", target: "/", body: "Param1=value1",
			headers: []string{"Content-Type: application/x-www-form-urlencoded"}, signed: "content-type;host;x-amz-date",
			want: "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
		{name: "slashes removed before signing", method: "GET", target: "//", signed: "host;x-amz-date", want: vanilla},
		{name: "dot segments removed before signing", method: "GET", target: "/example/..", signed: "host;x-amz-date", want: vanilla},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(tt.method, "/", strings.NewReader(tt.body))
			r.RequestURI = tt.target
			_, r.URL.RawQuery, _ = strings.Cut(tt.target, "?")
			r.Host = "example.amazonaws.com"
			r.Header.Set("X-Amz-Date", "20150830T123600Z")
			for _, line := range tt.headers {
				name, value, _ := strings.Cut(line, ":")
				r.Header.Add(name, value)
			}
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="+tt.signed+", Signature="+tt.want)
			v := newVerifier(t, nil)
			for range 2 { // the second time from the cache of derived keys
				got, err := verify(v, r, tt.body)
				if err != nil {
					var refused *sigv4.Error
					errors.As(err, &refused)
					t.Fatalf("got %v\n%s", err, refused.Detail)
				}
				if got.Key.Account != exampleKey.Account || got.Region != "us-east-1" || got.Service != "service" {
					t.Errorf("got %s, %s, %s; want %s, us-east-1, service", got.Key.Account, got.Region, got.Service, exampleKey.Account)
				}
			}
		})
	}
}
