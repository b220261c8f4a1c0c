package iotdata_test

import (
	"net/http"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iotdata"
)

func TestErrorsHaveTheNamesAndStatusesOfTheModel(t *testing.T) {
	t.Parallel()
	for code, want := range map[imprint.Code]struct {
		name   string
		status int
	}{
		imprint.CodeTopicInvalid:    {"InvalidRequestException", http.StatusBadRequest},
		imprint.CodeReservedTopic:   {"InvalidRequestException", http.StatusBadRequest},
		imprint.CodeInvalidRequest:  {"InvalidRequestException", http.StatusBadRequest},
		imprint.CodeUnauthorized:    {"UnauthorizedException", http.StatusUnauthorized},
		imprint.CodeAccessDenied:    {"ForbiddenException", http.StatusForbidden},
		imprint.CodeNotFound:        {"ResourceNotFoundException", http.StatusNotFound},
		imprint.CodePacketTooLarge:  {"RequestEntityTooLargeException", http.StatusRequestEntityTooLarge},
		imprint.CodeRetainedQuota:   {"ThrottlingException", http.StatusTooManyRequests},
		imprint.CodeThrottled:       {"ThrottlingException", http.StatusTooManyRequests},
		imprint.CodeUnavailable:     {"ServiceUnavailableException", http.StatusServiceUnavailable},
		imprint.CodeServerShutdown:  {"ServiceUnavailableException", http.StatusServiceUnavailable},
		imprint.CodeRulesBusy:       {"ServiceUnavailableException", http.StatusServiceUnavailable},
		imprint.CodeInternal:        {"", 0}, // the Mux makes it InternalFailureException
		imprint.CodeHandshakeFailed: {"", 0},
	} {
		got := iotdata.Translate(imprint.Errorf(code, "cause"))
		if got.Code != want.name || got.Status != want.status {
			t.Errorf("%s becomes %s %d, want %s %d", code, got.Code, got.Status, want.name, want.status)
		}
	}
}

func TestPathsOfTheDataPlaneAreItsOwn(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/topics/a": true, "/topics//": true, "/retainedMessage": true, "/retainedMessage/a%2Fb": true, "/connections/a": true,
		"/things/a/shadow": true, "/api/things/shadow/ListNamedShadowsForThing/a": true,
		"/": false, "/topics": false, "/things/a": false, "/things/shadow": false, "/things/a/shadow/b": false, "/rules": false, "/mqtt": false,
	} {
		if got := iotdata.Owns(path); got != want {
			t.Errorf("Owns(%q) is %t, want %t", path, got, want)
		}
	}
}
