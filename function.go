package imprint

import (
	"context"
	"time"
)

// FunctionCall is one run of a function that a hook, a rule or a certificate
// provider asks for.
type FunctionCall struct {
	Tenant Tenant
	// ARN names the function, with a version or an alias or without, as templates
	// and rules do. It is one of the tenant's own account unless the resolver of
	// functions knows it as one that runs elsewhere.
	ARN     string
	Payload []byte // JSON
	// Timeout bounds the call, a cold start included; 0: the function's own.
	Timeout time.Duration
	// Principal is the service that asks, such as iot.amazonaws.com, and SourceARN
	// the rule, template or provider that it asks for: the function's permissions
	// (AddPermission) decide on both. No principal: an operator's call, which the
	// API has authorized.
	Principal, SourceARN string
	// AttemptID is the attempt that the function's log lines and duration belong
	// to; empty: none.
	AttemptID string
}

// FunctionResult is what a function answered.
type FunctionResult struct {
	Payload  []byte        // JSON
	Log      string        // the end of what the run wrote, at most 4 KiB
	Version  string        // that ran, such as $LATEST
	Duration time.Duration // with the cold start, if there was one
	Cold     bool          // a process was started for it
}

// Functions runs functions.
type Functions interface {
	// Invoke runs a function and waits for its answer. Errors: CodeFunctionMissing,
	// CodeFunctionDenied, CodeFunctionTimeout, CodeFunctionThrottled; of a
	// CodeFunctionFailed the result has the error object that the function, or its
	// host, answered.
	Invoke(ctx context.Context, call FunctionCall) (FunctionResult, error)
	// InvokeLater takes a call to be run once Invoke's caller needn't wait: it is
	// durable when InvokeLater returns, and tried again after failures as AWS
	// Lambda's asynchronous invocation does. Errors: CodeFunctionMissing,
	// CodeFunctionDenied, CodeFunctionThrottled when too many wait.
	InvokeLater(ctx context.Context, call FunctionCall) error
}
