// Package awsapi is the operators' door: an http.Handler that answers
// AWS-style JSON APIs for unmodified AWS SDKs and CLIs.
//
//	verifier, err := sigv4.New(sigv4.Config{Keys: keys, Services: []string{"iot", "execute-api"}})
//	...
//	routes := []awsapi.Route{awsapi.Handle(iot.DescribeThing, describeThing)}
//	mux, err := awsapi.NewMux(awsapi.Config{Verifier: verifier, Translate: translate}, iot.Operations(), routes)
//	...
//	server := &http.Server{Handler: mux}
//
// # A request's way
//
//  1. It gets a request id, which every response carries in x-amzn-RequestId.
//  2. Method and path find an operation; none is 404 UnknownOperationException.
//  3. The Authorization header is checked, then the body is read (bounded), then
//     the signature is checked: 403 and the codes of package sigv4. A body of more
//     than 64 KiB is read only for an access key that is known, within Config.Bodies
//     over all requests: 503 ServiceUnavailableException with Retry-After when they
//     are used up, 408 RequestTimeoutException when it comes too slowly.
//  4. The caller's rate is checked: ThrottlingException, 400 as in AWS IoT.
//  5. An operation without a function is 501 NotImplementedException.
//  6. The input is decoded and its constraints are checked (package restjson).
//  7. Config.Authorize decides about each Ask: the caller's action on a resource.
//  8. The operation's function runs, and its output or error is encoded.
//
// # Paths
//
// Routing looks at the path as it came over the wire: nothing is cleaned and
// nothing is redirected, so names may hold escaped slashes, and // stays //.
// Each label is unescaped once. A literal segment wins over a label. Labels
// are never empty. A greedy label, {name+}, takes the rest of the path, which may
// begin with a slash. A slash at the end matters, except that a path which the model ends with one
// is found without it too: the AWS SDK for Go leaves it out.
//
// With Config.Target the API has the protocol JSON 1.1 instead: POST /, and the header
// X-Amz-Target names the operation. Errors have a member __type there, too.
//
// # Errors
//
// Functions return their own errors; Config.Translate turns them into APIError.
// An error that is or wraps an *APIError, a *sigv4.Error or a *restjson.Error is
// sent as it is. The wire form is that of AWS restJson1 services: header
// x-amzn-ErrorType, body {"message": "..."} and the members of Extra beside it.
//
// # What it does not do
//
// It doesn't terminate TLS, log, or count: Config.Observe is told of every
// request. It sends no CORS headers and answers no OPTIONS.
package awsapi
