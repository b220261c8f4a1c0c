package sigv4

import (
	"errors"
	"fmt"
)

// Codes of the refusals, as AWS services name them. All of them go with HTTP
// status 403.
const (
	CodeMissing      = "MissingAuthenticationTokenException"
	CodeIncomplete   = "IncompleteSignatureException"
	CodeInvalid      = "InvalidSignatureException"
	CodeUnrecognized = "UnrecognizedClientException"
	CodeExpired      = "ExpiredTokenException"
)

// ErrUnknownKey is what a KeySource returns, possibly wrapped, for an access
// key that doesn't exist or is switched off.
var ErrUnknownKey = errors.New("unknown access key")

// Error is a refusal that the caller may read. Other errors of this package
// are failures of the server (the KeySource failed).
type Error struct {
	// Code is one of the Code constants.
	Code string
	// Message is for the caller. It never holds the expected signature.
	Message string
	// Detail is for the server's own log or trace: the canonical request and
	// string to sign that the server computed. Session tokens are left out.
	Detail string
}

// Error renders "code: message".
func (e *Error) Error() string { return e.Code + ": " + e.Message }

func refuse(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
