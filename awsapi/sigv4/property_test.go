package sigv4_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"pgregory.net/rapid"

	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// drawSigned makes a random request, signs it with the SDK's signer and sends
// it through the wire format.
func drawSigned(t *rapid.T, key sigv4.AccessKey) (*http.Request, string) {
	text := rapid.StringMatching(`[ -~é√]{0,12}`)
	var path strings.Builder
	for _, segment := range rapid.SliceOfN(rapid.StringMatching(`[a-zA-Z0-9:/+@=,._~ %é-]{1,12}`), 1, 4).Draw(t, "segments") {
		path.WriteString("/" + strings.ReplaceAll(url.QueryEscape(segment), "+", "%20"))
	}
	query := url.Values{}
	for range rapid.IntRange(0, 4).Draw(t, "parameters") {
		query.Add(rapid.StringMatching(`[a-zA-Z/é-]{1,4}`).Draw(t, "name"), text.Draw(t, "value"))
	}
	body := rapid.StringN(0, 40, 200).Draw(t, "body")
	method := rapid.SampledFrom([]string{"GET", "POST", "PUT", "PATCH", "DELETE"}).Draw(t, "method")
	r, err := http.NewRequest(method, "https://api.example.com:9443"+path.String(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.URL.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	for _, name := range []string{"X-Amzn-Principal", "Content-Type", "X-Amz-Tagging"} {
		if rapid.Bool().Draw(t, "has "+name) {
			r.Header.Set(name, rapid.StringMatching(`[!-~]([ -~]{0,20}[!-~])?`).Draw(t, name))
		}
	}
	hash := sha256.Sum256([]byte(body))
	credentials := aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret, SessionToken: key.SessionToken}
	service := rapid.SampledFrom([]string{"iot", "execute-api"}).Draw(t, "service")
	region := rapid.SampledFrom([]string{"us-east-1", "eu-central-1", "island-1"}).Draw(t, "region")
	err = v4.NewSigner().SignHTTP(context.Background(), credentials, r, hex.EncodeToString(hash[:]), service, region, exampleTime)
	if err != nil {
		t.Fatal(err)
	}
	return overTheWire(t, r), body
}

func overTheWire(t *rapid.T, r *http.Request) *http.Request {
	var wire bytes.Buffer
	if err := r.Write(&wire); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&wire))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, got.Body); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWhatTheSDKSignsIsAcceptedAndAnyChangeIsRefused(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := exampleKey
		if rapid.Bool().Draw(t, "temporary") {
			key.SessionToken = "token/of+a=session"
		}
		v, err := sigv4.New(sigv4.Config{
			Keys: keySource{key.ID: key}, Services: []string{"iot", "execute-api"}, Now: newClock(),
		})
		if err != nil {
			t.Fatal(err)
		}
		r, body := drawSigned(t, key)
		if _, err := verify(v, r, body); err != nil {
			var refused *sigv4.Error
			if errors.As(err, &refused) {
				t.Fatalf("a good request was refused: %v\n%s", err, refused.Detail)
			}
			t.Fatal(err)
		}
		change, body := mutate(t, r, body)
		_, err = verify(v, r, body)
		var refused *sigv4.Error
		if !errors.As(err, &refused) {
			t.Fatalf("after %q: got %v, want a refusal", change, err)
		}
	})
}

// mutate changes one thing of the request.
func mutate(t *rapid.T, r *http.Request, body string) (string, string) {
	auth := r.Header.Get("Authorization")
	changes := map[string]func(){
		"method":         func() { r.Method = "OPTIONS" },
		"path":           func() { r.RequestURI = strings.Replace(r.RequestURI, "/", "/x", 1) },
		"added segment":  func() { r.RequestURI = "/x" + r.RequestURI },
		"query":          func() { r.URL.RawQuery += "&added=1" },
		"repeated query": func() { r.URL.RawQuery += "&=" },
		"body":           func() { body += " " },
		"host":           func() { r.Host = "other.example.com" },
		"time":           func() { r.Header.Set("X-Amz-Date", "20150830T123601Z") },
		"no time":        func() { r.Header.Del("X-Amz-Date") },
		"principal":      func() { r.Header.Set("X-Amzn-Principal", "arn:aws:iot:other") },
		"added header":   func() { r.Header.Add("X-Amz-Extra", "1") },
		"token":          func() { r.Header.Add("X-Amz-Security-Token", "another") },
		"length":         func() { r.ContentLength += 7; r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") },
		"region": func() {
			r.Header.Set("Authorization", strings.NewReplacer("us-east-1", "us-east-2", "eu-central-1", "eu-central-2", "island-1", "island-2").Replace(auth))
		},
		"service": func() {
			r.Header.Set("Authorization", strings.NewReplacer("/iot/", "/execute-api/", "/execute-api/", "/iot/").Replace(auth))
		},
		"key": func() { r.Header.Set("Authorization", strings.Replace(auth, "AKID", "AKIE", 1)) },
		"signature": func() {
			at := len(auth) - 1 - rapid.IntRange(0, 63).Draw(t, "digit")
			digit := byte('0')
			if auth[at] == '0' {
				digit = '1'
			}
			r.Header.Set("Authorization", auth[:at]+string(digit)+auth[at+1:])
		},
		"signed headers": func() { r.Header.Set("Authorization", strings.Replace(auth, ";x-amz-date", "", 1)) },
	}
	names := make([]string, 0, len(changes))
	for name := range changes {
		names = append(names, name)
	}
	// rapid needs the same order each time.
	change := rapid.SampledFrom(sorted(names)).Draw(t, "change")
	changes[change]()
	return change, body
}
