package test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/smithy-go"
)

// shiftedSigner signs as a machine whose clock is wrong does.
type shiftedSigner struct {
	signer *v4.Signer
	by     time.Duration
}

func (s shiftedSigner) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, hash, service, region string, at time.Time, opts ...func(*v4.SignerOptions)) error {
	return s.signer.SignHTTP(ctx, c, r, hash, service, region, at.Add(s.by), opts...)
}

func TestTheSDKGetsAWSErrorsForBadSignatures(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	key, secret := s.env["AWS_ACCESS_KEY_ID"], s.env["AWS_SECRET_ACCESS_KEY"]
	clock := func(by time.Duration) func(*iot.Options) {
		return func(o *iot.Options) { o.HTTPSignerV4 = shiftedSigner{v4.NewSigner(), by} }
	}
	with := func(key, secret, token string) func(*iot.Options) {
		return func(o *iot.Options) { o.Credentials = credentials.NewStaticCredentialsProvider(key, secret, token) }
	}
	tests := []struct {
		name, code string
		change     func(*iot.Options)
	}{
		{"wrong secret", "InvalidSignatureException", with(key, strings.Repeat("x", 40), "")},
		{"unknown key", "UnrecognizedClientException", with("AKIAIOSFODNN7EXAMPLE", secret, "")},
		{"a clock that is an hour late", "InvalidSignatureException", clock(-time.Hour)},
		{"a clock that is an hour early", "InvalidSignatureException", clock(time.Hour)},
		{"a clock that is four minutes late", "", clock(-4 * time.Minute)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			api := s.sdk(t, func(o *iot.Options) { o.RetryMaxAttempts = 1 }, tt.change)
			_, err := api.ListThings(t.Context(), &iot.ListThingsInput{})
			if tt.code == "" {
				if err != nil {
					t.Errorf("got %v, want success", err)
				}
				return
			}
			var refused smithy.APIError
			if !errors.As(err, &refused) || refused.ErrorCode() != tt.code {
				t.Errorf("got %v, want %s", err, tt.code)
			}
		})
	}
}

func TestTheCLIGetsAWSErrorsForBadSignatures(t *testing.T) {
	need(t, "bash", "aws")
	t.Parallel()
	s := startServer(t)
	for _, tt := range []struct{ name, script, want string }{
		{"wrong secret", "AWS_SECRET_ACCESS_KEY=wrong aws iot list-things", "(InvalidSignatureException)"},
		{"unknown key", "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE aws iot list-things", "(UnrecognizedClientException)"},
		{"no signature", "aws --no-sign-request iot list-things", "(MissingAuthenticationTokenException)"},
		{"a thing that doesn't exist", "aws iot describe-thing --thing-name nothing", "(ResourceNotFoundException)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run := s.shell(t, t.TempDir(), tt.script)
			if run.exit != 254 && run.exit != 255 || !strings.Contains(run.stderr, tt.want) {
				t.Errorf("got exit code %d, want 254 and %s\n%s", run.exit, tt.want, run.all())
			}
		})
	}
}

func TestRequestsThatLackAHeaderGetAWSErrors(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	client := s.httpClient(t)
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, tt := range []struct{ name, drop, want string }{
		{"Authorization", "Authorization", "MissingAuthenticationTokenException"},
		{"X-Amz-Date", "X-Amz-Date", "IncompleteSignatureException"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.at().APIURL+"/things", nil)
			if err != nil {
				t.Fatal(err)
			}
			c := aws.Credentials{AccessKeyID: s.env["AWS_ACCESS_KEY_ID"], SecretAccessKey: s.env["AWS_SECRET_ACCESS_KEY"]}
			err = v4.NewSigner().SignHTTP(t.Context(), c, r, empty, "iot", "us-east-1", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Del(tt.drop)
			response, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			got, _, _ := strings.Cut(response.Header.Get("X-Amzn-Errortype"), ":")
			if response.StatusCode != http.StatusForbidden || got != tt.want || response.Header.Get("X-Amzn-Requestid") == "" || !strings.Contains(string(body), `"message"`) {
				t.Errorf("got status %d, %v, %s; want 403, %s, a request id and a message", response.StatusCode, response.Header, body, tt.want)
			}
		})
	}
}
