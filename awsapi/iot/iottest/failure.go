package iottest

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Refusal is what a client was refused with.
type Refusal struct {
	Code    string // such as ResourceNotFoundException
	Status  int
	Message string
}

// RefusalOf reads an error of an SDK client; the zero Refusal for nil.
func RefusalOf(t testing.TB, err error) Refusal {
	t.Helper()
	if err == nil {
		return Refusal{}
	}
	var api smithy.APIError
	var response *smithyhttp.ResponseError
	if !errors.As(err, &api) || !errors.As(err, &response) {
		t.Fatalf("got an error that isn't an API's: %v", err)
	}
	return Refusal{Code: api.ErrorCode(), Status: response.HTTPStatusCode(), Message: api.ErrorMessage()}
}

// WantRefusal fails the test unless err has the code and the status, and a
// message that holds the text. An empty code wants success.
func WantRefusal(t testing.TB, err error, code string, status int, text string) {
	t.Helper()
	got := RefusalOf(t, err)
	if got.Code != code || got.Status != status || !strings.Contains(got.Message, text) {
		t.Errorf("got %s (%d) %q, want %s (%d) with %q", got.Code, got.Status, got.Message, code, status, text)
	}
}
