package sts_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
	"github.com/imprint-iot/imprint/awsapi/sts"
	"github.com/imprint-iot/imprint/internal/awscli"
)

const (
	installer = "arn:aws:iam::123456789012:user/installer"
	form      = "Action=GetCallerIdentity&Version=2011-06-15"
)

// oneKey has the installer's key, and one that can't be read.
type oneKey struct{}

func (oneKey) AccessKey(_ context.Context, id string) (sigv4.AccessKey, error) {
	switch id {
	case "AKIDEXAMPLE":
		return sigv4.AccessKey{ID: id, Secret: "secret", Account: "123456789012", PrincipalARN: installer}, nil
	case "AKIDBROKEN":
		return sigv4.AccessKey{}, errors.New("disk on fire")
	}
	return sigv4.AccessKey{}, sigv4.ErrUnknownKey
}

type api struct {
	*httptest.Server
	mu   sync.Mutex // guards seen
	seen []awsapi.Access
	busy bool
}

func start(t *testing.T) *api {
	t.Helper()
	a := &api{}
	verifier, err := sigv4.New(sigv4.Config{Keys: oneKey{}, Services: []string{"sts"}, Regions: []string{"us-east-1", "eu-west-1"}, MaxExpiry: sts.MaxExpiry})
	if err != nil {
		t.Fatal(err)
	}
	service := &sts.Service{Verifier: verifier, Now: time.Now, Allow: func(awsapi.Caller, string) bool { return !a.busy },
		Observe: func(access awsapi.Access) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.seen = append(a.seen, access)
		}}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !sts.Owns(r) {
			http.NotFound(w, r)
			return
		}
		service.ServeHTTP(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) client(key, secret, region string) *sdk.Client {
	return sdk.New(sdk.Options{Region: region, BaseEndpoint: aws.String(a.URL), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(key, secret, "")})
}

func TestTheSDKLearnsWhoItsKeyBelongsTo(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, region := range []string{"us-east-1", "eu-west-1"} {
		out, err := a.client("AKIDEXAMPLE", "secret", region).GetCallerIdentity(t.Context(), &sdk.GetCallerIdentityInput{})
		if err != nil {
			t.Fatalf("%s: %v", region, err)
		}
		if aws.ToString(out.Arn) != installer || aws.ToString(out.Account) != "123456789012" || !regexp.MustCompile(`^AIDA[A-Z2-7]{17}$`).MatchString(aws.ToString(out.UserId)) {
			t.Errorf("%s: got %s, %s and the user id %s", region, aws.ToString(out.Arn), aws.ToString(out.Account), aws.ToString(out.UserId))
		}
	}
	want := awsapi.Access{Method: "POST", Path: "/", Operation: "GetCallerIdentity", Status: 200, BytesIn: len(form),
		Caller: awsapi.Caller{Account: "123456789012", Region: "eu-west-1", AccessKeyID: "AKIDEXAMPLE", PrincipalARN: installer, SourceIP: "127.0.0.1"}}
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.seen[1]
	if got.RequestID == "" || got.Caller.RequestID != got.RequestID || got.BytesOut == 0 {
		t.Errorf("observed %+v", got)
	}
	got.RequestID, got.Caller.RequestID, got.Duration, got.BytesOut = "", "", 0, 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("observed (-want +got):\n%s", diff)
	}
}

func TestTheSDKGetsTheErrorsOfSTS(t *testing.T) {
	t.Parallel()
	a := start(t)
	who := func(c *sdk.Client) error {
		_, err := c.GetCallerIdentity(t.Context(), &sdk.GetCallerIdentityInput{})
		return err
	}
	good := a.client("AKIDEXAMPLE", "secret", "us-east-1")
	_, role := good.AssumeRole(t.Context(), &sdk.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::123456789012:role/r"), RoleSessionName: aws.String("s1")})
	unsigned := sdk.New(sdk.Options{Region: "us-east-1", BaseEndpoint: aws.String(a.URL), RetryMaxAttempts: 1, Credentials: aws.AnonymousCredentials{}})
	token := sdk.New(sdk.Options{Region: "us-east-1", BaseEndpoint: aws.String(a.URL), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "token")})
	for _, row := range []struct {
		name, code string
		status     int
		text       string
		err        error
	}{
		{"wrong secret", "SignatureDoesNotMatch", 403, "does not match", who(a.client("AKIDEXAMPLE", "other", "us-east-1"))},
		{"unknown key", "InvalidClientTokenId", 403, "No active access key", who(a.client("AKIDOTHER", "secret", "us-east-1"))},
		{"a session token", "InvalidClientTokenId", 403, "don't belong together", who(token)},
		{"a region that isn't served", "SignatureDoesNotMatch", 403, `"ap-south-1" isn't one of`, who(a.client("AKIDEXAMPLE", "secret", "ap-south-1"))},
		{"no signature", "MissingAuthenticationToken", 403, "no Authorization header", who(unsigned)},
		{"a failure of the server", "InternalFailure", 500, "internal error", who(a.client("AKIDBROKEN", "secret", "us-east-1"))},
		{"another action", "InvalidAction", 400, "Imprint doesn't offer AssumeRole", role},
	} {
		t.Run(row.name, func(t *testing.T) {
			iottest.WantRefusal(t, row.err, row.code, row.status, row.text)
			if strings.Contains(row.err.Error(), "fire") {
				t.Errorf("the cause of an internal error is told: %v", row.err)
			}
		})
	}
	a.busy = true
	iottest.WantRefusal(t, who(good), "Throttling", 400, "Rate exceeded")
}

// TestRequestsAreReadAsTheyCome ensures what no SDK sends: GET with its parameters in the
// query, other services' signatures, actions and versions.
func TestRequestsAreReadAsTheyCome(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, row := range []struct {
		name, method, target, body, service string
		status                              int
		want                                string
	}{
		{"GET", "GET", "/?" + form, "", "sts", 200, "<Arn>" + installer + "</Arn>"},
		{"POST", "POST", "/", form, "sts", 200, "<Account>123456789012</Account>"},
		{"another service's signature", "POST", "/", form, "iot", 403, "<Code>SignatureDoesNotMatch</Code>"},
		{"another service's action", "POST", "/", "Action=GetUser&Version=2010-05-08", "sts", 400, "Could not find operation GetUser for version 2010-05-08"},
		{"another version", "POST", "/", "Action=GetCallerIdentity&Version=2011-06-16", "sts", 400, "<Code>InvalidAction</Code>"},
		{"markup", "POST", "/", "Action=%3Cb%3E&Version=2011-06-15", "sts", 400, "doesn&#39;t offer &lt;b&gt;"},
		{"no action", "POST", "/", "Version=2011-06-15", "sts", 400, "<Code>MissingAction</Code>"},
		{"parameters in the wrong place", "POST", "/?" + form, "", "sts", 400, "<Code>MissingAction</Code>"},
		{"no form", "POST", "/", "Action=%zz", "sts", 400, "<Code>MalformedQueryString</Code>"},
		{"a long form", "POST", "/", form + strings.Repeat("&a=b", 16<<10), "sts", 400, "<Code>MalformedHttpRequestException</Code>"},
		{"a path", "POST", "/sts", form, "sts", 404, ""},
		{"another method", "PUT", "/", form, "sts", 404, ""},
		{"no parameters", "GET", "/", "", "sts", 404, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), row.method, a.URL+row.target, strings.NewReader(row.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
			err = v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, r, hashOf(row.body), row.service, "us-east-1", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			wantAnswer(t, r, row.status, row.want)
		})
	}
}

func TestAPresignedURLIsGoodUntilItExpires(t *testing.T) {
	t.Parallel()
	a := start(t)
	presigned, err := sdk.NewPresignClient(a.client("AKIDEXAMPLE", "secret", "us-east-1")).PresignGetCallerIdentity(t.Context(), &sdk.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, url string
		status    int
		want      string
	}{
		{"as it was made", presigned.URL, 200, "<Arn>" + installer + "</Arn>"},
		{"changed", presigned.URL + "&a=b", 403, "<Code>SignatureDoesNotMatch</Code>"},
		{"for too long", presigned.URL + "&X-Amz-Expires=3601", 403, "from 1 to 3600"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), presigned.Method, row.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			wantAnswer(t, r, row.status, row.want)
		})
	}
}

func wantAnswer(t *testing.T, r *http.Request, status int, text string) {
	t.Helper()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != status || !strings.Contains(string(body), text) {
		t.Errorf("got %s, %v:\n%s\nwant %d with %q", answer.Status, err, body, status, text)
	}
	if status != http.StatusNotFound && (answer.Header.Get("Content-Type") != "text/xml" || answer.Header.Get("X-Amzn-RequestId") == "") {
		t.Errorf("got the headers %v", answer.Header)
	}
}

func TestTheAWSCLILearnsWhoItsKeyBelongsTo(t *testing.T) {
	t.Parallel()
	a := start(t)
	dir := t.TempDir()
	run := func(secret string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), awscli.Program(t), append([]string{"--endpoint-url", a.URL, "--output", "text", "sts"}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AWS_CONFIG_FILE=" + filepath.Join(dir, "none"), "AWS_EC2_METADATA_DISABLED=true",
			"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_DEFAULT_REGION=eu-west-1", "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1"}
		output, err := cmd.CombinedOutput()
		return fmt.Sprintf("%s%v", output, err)
	}
	for _, row := range []struct{ name, got, want string }{
		{"who am I", run("secret", "get-caller-identity", "--query", "[Account,Arn]"), "123456789012\t" + installer + "\n<nil>"},
		{"a wrong secret", run("other", "get-caller-identity"), "(SignatureDoesNotMatch) when calling the GetCallerIdentity operation"},
		{"a session", run("secret", "get-session-token"), "Imprint doesn't offer GetSessionToken"},
	} {
		if !strings.Contains(row.got, row.want) {
			t.Errorf("%s: got %s, want %q", row.name, row.got, row.want)
		}
	}
}

func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}
