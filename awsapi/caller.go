package awsapi

import "context"

// callerKey is that of the Caller in a context.
type callerKey struct{}

// CallerOf gives who asked for the operation that a context is of; false: it is of none.
func CallerOf(ctx context.Context) (Caller, bool) {
	caller, found := ctx.Value(callerKey{}).(Caller)
	return caller, found
}

// Caller is who asks, and which tenant (Account and Region) it asks for. The
// account is that of the access key, the region that of the signature's scope.
type Caller struct {
	Account      string // twelve digits
	Region       string
	AccessKeyID  string
	PrincipalARN string
	RequestID    string // UUID, the one of the response's x-amzn-RequestId
	SourceIP     string // without port
}
