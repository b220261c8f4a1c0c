package imprint

import (
	"errors"
	"fmt"
)

// Error is the one error that crosses packages with a meaning. Everything else
// is wrapped with %w and counts as CodeInternal.
type Error struct {
	Code Code
	Op   string // what was being done, such as "register certificate"; may be empty
	Err  error  // the cause; its text is what the caller reads
	Hint string // what a person can do about it; empty means the table's hint

	// ResourceID and ResourceARN are set with CodeAlreadyExists: the existing
	// resource.
	ResourceID, ResourceARN string
}

// Error renders "op: cause".
func (e *Error) Error() string {
	msg := string(e.Code)
	if e.Err != nil {
		msg = e.Err.Error()
	}
	if e.Op != "" {
		return e.Op + ": " + msg
	}
	return msg
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a code with a formatted cause.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// WithHint sets the hint and returns e, for use where the error is made.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// WithResource names the resource that exists already and returns e.
func (e *Error) WithResource(id, arn string) *Error {
	e.ResourceID, e.ResourceARN = id, arn
	return e
}

// CodeOf gives the code of the outermost Error in err's chain: CodeInternal
// for other errors, empty for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// HintOf gives the hint for err: its own, or the table's for its code.
func HintOf(err error) string {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) && e.Hint != "" {
		return e.Hint
	}
	return Describe(CodeOf(err)).Hint
}

// MessageOf gives the text that a caller may read: the error's own text when
// it has a code, a fixed sentence for internal errors, whose cause belongs in
// the log and not on the wire.
func MessageOf(err error) string {
	var e *Error
	if !errors.As(err, &e) || e.Code == CodeInternal {
		return "An internal error occurred."
	}
	return err.Error()
}
