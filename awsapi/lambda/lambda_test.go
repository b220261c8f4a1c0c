package lambda_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/lambda"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// noKeys is a source without access keys.
type noKeys struct{}

func (noKeys) AccessKey(context.Context, string) (sigv4.AccessKey, error) {
	return sigv4.AccessKey{}, sigv4.ErrUnknownKey
}

func TestOperationsHaveTheirPaths(t *testing.T) {
	t.Parallel()
	verifier, err := sigv4.New(sigv4.Config{Keys: noKeys{}, Services: []string{"lambda"}})
	if err != nil {
		t.Fatal(err)
	}
	mux, err := awsapi.NewMux(awsapi.Config{Verifier: verifier}, lambda.Operations(), lambda.NewService(nil).Routes())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		method, path, operation string
		offered                 bool
	}{
		{"POST", "/2015-03-31/functions", "CreateFunction", true},
		{"GET", "/2015-03-31/functions/", "ListFunctions", true},
		{"GET", "/2015-03-31/functions", "ListFunctions", true},
		{"GET", "/2015-03-31/functions/f", "GetFunction", true},
		{"POST", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af/invocations", "Invoke", true},
		{"DELETE", "/2015-03-31/functions/f/policy/s", "RemovePermission", true},
		{"PUT", "/2017-10-31/functions/f/concurrency", "PutFunctionConcurrency", true},
		{"GET", "/2020-06-30/functions/f/code-signing-config", "GetFunctionCodeSigningConfig", true},
		{"DELETE", "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af", "UntagResource", true},
		{"GET", "/2018-10-31/layers", "ListLayers", false},
		{"GET", "/2015-03-31/nothing", "", false},
	} {
		name, offered := mux.OperationOf(test.method, test.path)
		if name != test.operation || offered != test.offered || !lambda.Owns(test.path) {
			t.Errorf("%s %s: got %q, offered %v; owned %v", test.method, test.path, name, offered, lambda.Owns(test.path))
		}
	}
	for _, path := range []string{"/things/2015-03-31/functions", "/policies/x", "/2015/functions", "/metrics"} {
		if lambda.Owns(path) {
			t.Errorf("%s isn't of this API", path)
		}
	}
}

// TestNoSpellingOfAFunctionGetsPastAPolicy ensures that an operation asks about one
// resource, whichever form of the function's name the request has.
func TestNoSpellingOfAFunctionGetsPastAPolicy(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
	var asked string
	api := apitest.Serve(t, nil, awsapi.Config{Authorize: func(_ context.Context, _ awsapi.Caller, ask awsapi.Ask) error {
		asked = ask.Resource
		return imprint.Errorf(imprint.CodeAccessDenied, "asked")
	}}, lambda.Operations(), lambda.NewService(nil).Routes())
	const concurrency, signing = "/2017-10-31/functions/", "/2020-06-30/functions/"
	for _, test := range []struct{ method, path, want string }{
		{"DELETE", concurrency + "f/concurrency?Qualifier=x", arn},
		{"GET", "/2019-09-30/functions/f/concurrency?Qualifier=x", arn},
		{"GET", signing + "f/code-signing-config?Qualifier=x", arn},
		{"PUT", "f/configuration", arn},
		{"PUT", "f:$LATEST/configuration", arn},
		{"PUT", arn + ":$LATEST/configuration", arn},
		{"PUT", "000000000000:function:f:$LATEST/code", arn},
		{"POST", "function:f:$LATEST/invocations", arn},
		{"POST", "f/invocations?Qualifier=$LATEST", arn},
		{"POST", "f/invocations?Qualifier=prod", arn + ":prod"},
		{"POST", "f:prod/invocations", arn + ":prod"},
		{"POST", "f:prod/invocations?Qualifier=prod", arn + ":prod"},
		{"GET", "f?Qualifier=1", arn + ":1"},
		{"DELETE", "f:$LATEST", arn},
		{"DELETE", "f?Qualifier=1", arn + ":1"},
		{"DELETE", "f:$LATEST/policy/s", arn},
	} {
		asked = ""
		path := test.path
		if path[0] != '/' {
			path = "/2015-03-31/functions/" + path
		}
		err := api.Call(t, apitest.KeyOf("000000000000", "anna"), "us-east-1", test.method, path, map[string]any{}, nil)
		if asked != test.want {
			t.Errorf("%s %s: asked about %q, want %q (%v)", test.method, test.path, asked, test.want, err)
		}
	}
}

func TestErrorsHaveTheAPIsNames(t *testing.T) {
	t.Parallel()
	for code, want := range map[imprint.Code]struct {
		name   string
		status int
	}{
		imprint.CodeInvalidRequest:    {"InvalidParameterValueException", http.StatusBadRequest},
		imprint.CodeNotFound:          {"ResourceNotFoundException", http.StatusNotFound},
		imprint.CodeFunctionMissing:   {"ResourceNotFoundException", http.StatusNotFound},
		imprint.CodeAlreadyExists:     {"ResourceConflictException", http.StatusConflict},
		imprint.CodeVersionConflict:   {"PreconditionFailedException", http.StatusPreconditionFailed},
		imprint.CodePacketTooLarge:    {"RequestTooLargeException", http.StatusRequestEntityTooLarge},
		imprint.CodeFunctionThrottled: {"TooManyRequestsException", http.StatusTooManyRequests},
		imprint.CodeFunctionStorage:   {"CodeStorageExceededException", http.StatusBadRequest},
		imprint.CodeFunctionDenied:    {"AccessDeniedException", http.StatusForbidden},
		imprint.CodeUnavailable:       {"ServiceException", http.StatusInternalServerError},
	} {
		got := lambda.Translate(imprint.Errorf(code, "the reason"))
		if got.Code != want.name || got.Status != want.status {
			t.Errorf("%s: got %s %d, want %s %d", code, got.Code, got.Status, want.name, want.status)
		}
	}
	if got := lambda.Translate(errors.New("the store's secret reason")); got.Code != "ServiceException" || got.Message == "the store's secret reason" {
		t.Errorf("got %+v", got)
	}
}
