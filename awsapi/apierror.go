package awsapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/awsapi/sigv4"
)

// APIError is an error in the form that goes to the client.
type APIError struct {
	// Code is the exception's name, such as ResourceNotFoundException.
	Code string
	// Status is the HTTP status. It is not always what the code suggests:
	// ThrottlingException is 400 and LimitExceededException 410 in AWS IoT.
	Status int
	// Message is for the caller.
	Message string
	// Extra holds further members of the body, such as resourceId and
	// resourceArn of a ResourceAlreadyExistsException. Empty ones are not sent.
	Extra map[string]string
	// RetryAfter is when it is worth to ask again, in whole seconds. Zero isn't sent.
	RetryAfter time.Duration
}

// Error renders "code: message".
func (e *APIError) Error() string { return e.Code + ": " + e.Message }

// Codes of the door itself.
const (
	CodeUnknownOperation = "UnknownOperationException"
	CodeNotImplemented   = "NotImplementedException"
	CodeTooLarge         = "RequestEntityTooLargeException"
	CodeThrottling       = "ThrottlingException"
	CodeUnavailable      = "ServiceUnavailableException"
	CodeTimeout          = "RequestTimeoutException"
	CodeSerialization    = restjson.CodeSerialization
	CodeInternal         = "InternalFailureException"
)

const internalMessage = "An internal error occurred. The server's log has the reason under this request id."

// toAPIError finds the outward form of an error.
func (m *Mux) toAPIError(err error) APIError {
	var api *APIError
	if errors.As(err, &api) {
		return complete(*api)
	}
	var refused *sigv4.Error
	if errors.As(err, &refused) {
		return APIError{Code: refused.Code, Status: http.StatusForbidden, Message: refused.Message}
	}
	var invalid *restjson.Error
	if errors.As(err, &invalid) {
		return APIError{Code: invalid.Code, Status: http.StatusBadRequest, Message: invalid.Message}
	}
	var crash *panicError
	if m.config.Translate == nil || errors.As(err, &crash) {
		return complete(APIError{})
	}
	return complete(m.translate(err))
}

// translate calls Config.Translate; a panic in it counts as no answer.
func (m *Mux) translate(err error) (api APIError) {
	defer func() {
		if recover() != nil {
			api = APIError{}
		}
	}()
	return m.config.Translate(err)
}

// complete mends an APIError that lacks its code or has a status that isn't an
// error's.
func complete(e APIError) APIError {
	if e.Code == "" {
		return APIError{Code: CodeInternal, Status: http.StatusInternalServerError, Message: internalMessage}
	}
	if e.Status < 400 || e.Status > 599 {
		e.Status = http.StatusInternalServerError
	}
	return e
}

// body gives the JSON of the error.
func (e APIError) body() ([]byte, error) {
	members := make(map[string]string, len(e.Extra)+1)
	maps.Copy(members, e.Extra)
	maps.DeleteFunc(members, func(_, value string) bool { return value == "" })
	members["message"] = e.Message
	data, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode an error: %w", err)
	}
	return data, nil
}
