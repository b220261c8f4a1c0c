package functions

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/imprint-iot/imprint"
)

// The variables of a remote function's environment. Its handler is its ARN
// there.
const (
	RemoteAccessKeyID     = "IMPRINT_REMOTE_ACCESS_KEY_ID"
	RemoteSecretAccessKey = "IMPRINT_REMOTE_SECRET_ACCESS_KEY"
	RemoteSessionToken    = "IMPRINT_REMOTE_SESSION_TOKEN" // may be absent
	// RemoteEndpoint is the URL of the Invoke API; absent: AWS Lambda's in the
	// ARN's region.
	RemoteEndpoint = "IMPRINT_REMOTE_ENDPOINT"
	// RemoteCA has the PEM of the roots that verify the endpoint.
	RemoteCA = "IMPRINT_REMOTE_CA"
)

// remoteEndpoint gives the URL that a remote function is invoked at.
func remoteEndpoint(f imprint.Function) (address string, region imprint.Region, err error) {
	tenant, _, _, err := imprint.ParseFunctionARN(f.Handler)
	if err != nil {
		return "", "", err
	}
	base := f.Environment[RemoteEndpoint]
	if base == "" {
		suffix := ".amazonaws.com"
		if strings.HasPrefix(string(tenant.Region), "cn-") {
			suffix += ".cn"
		}
		base = "https://lambda." + string(tenant.Region) + suffix
	}
	err = checkAddress(base)
	if err != nil {
		return "", "", err
	}
	return strings.TrimSuffix(base, "/") + "/2015-03-31/functions/" + url.PathEscape(f.Handler) + "/invocations", tenant.Region, nil
}

// invokeRemote invokes a function through the Invoke API, signed with SigV4.
func (s *Service) invokeRemote(ctx context.Context, call imprint.FunctionCall, f imprint.Function) (imprint.FunctionResult, error) {
	address, region, err := remoteEndpoint(f)
	if err != nil {
		return imprint.FunctionResult{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(call.Payload))
	if err != nil {
		return imprint.FunctionResult{}, fmt.Errorf("couldn't make the request of a remote function: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Amz-Invocation-Type", "RequestResponse")
	request.Header.Set("X-Amz-Log-Type", "Tail")
	hash := sha256.Sum256(call.Payload)
	err = v4.NewSigner().SignHTTP(ctx, aws.Credentials{
		AccessKeyID: f.Environment[RemoteAccessKeyID], SecretAccessKey: f.Environment[RemoteSecretAccessKey],
		SessionToken: f.Environment[RemoteSessionToken],
	}, request, hex.EncodeToString(hash[:]), "lambda", string(region), s.clock())
	if err != nil {
		return imprint.FunctionResult{}, fmt.Errorf("couldn't sign the request of a remote function: %w", err)
	}
	status, header, body, err := s.exchange(request, f.Tenant.Account, f.Environment[RemoteCA])
	if err != nil {
		return failedElsewhere(f, "Remote.ConnectionError", err.Error())
	}
	return remoteResult(f, status, header, body)
}

// remoteResult reads the answer of an Invoke API.
func remoteResult(f imprint.Function, status int, header http.Header, body []byte) (imprint.FunctionResult, error) {
	switch {
	case status == http.StatusNotFound:
		return imprint.FunctionResult{}, imprint.Errorf(imprint.CodeFunctionMissing, "the remote function %s doesn't exist: %s", f.Handler, imprint.Excerpt(string(body)))
	case status == http.StatusTooManyRequests:
		return imprint.FunctionResult{}, imprint.Errorf(imprint.CodeFunctionThrottled, "the remote function %s is throttled", f.Handler)
	case status != http.StatusOK:
		return failedElsewhere(f, "Remote.Status", fmt.Sprintf("the Invoke API answered %d %s: %s", status,
			imprint.Excerpt(header.Get("X-Amzn-ErrorType")), imprint.Excerpt(string(body))))
	}
	result := imprint.FunctionResult{Payload: body}
	log, err := base64.StdEncoding.DecodeString(header.Get("X-Amz-Log-Result"))
	if err == nil {
		result.Log = strings.ToValidUTF8(string(log[max(0, len(log)-maxLog):]), "")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		result.Payload = []byte("null")
	}
	switch {
	case header.Get("X-Amz-Function-Error") != "" && strings.Contains(errorText(body), "Task timed out"):
		return result, imprint.Errorf(imprint.CodeFunctionTimeout, "function %s: %s", f.Name, errorText(body))
	case header.Get("X-Amz-Function-Error") != "":
		return result, imprint.Errorf(imprint.CodeFunctionFailed, "function %s: %s", f.Name, errorText(body))
	case !json.Valid(result.Payload):
		return failedElsewhere(f, "Remote.InvalidResponse", "the function's answer isn't JSON")
	}
	return result, nil
}
