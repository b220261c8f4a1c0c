// Package sigv4 checks AWS Signature Version 4 on incoming HTTP requests, in
// the form that AWS SDKs and the AWS CLI use, the signature in the Authorization
// header, and, where Config.MaxExpiry allows it, in the query of a presigned URL.
//
//	v, err := sigv4.New(sigv4.Config{Keys: keys, Services: []string{"iot", "execute-api"}})
//	...
//	claim, err := v.Parse(r)                     // header only: no body read yet
//	body, err := io.ReadAll(limited)             // the caller bounds it
//	id, err := v.Verify(ctx, claim, r, body)     // id.Key.Account, id.Region
//
// # What it promises
//
// A request that Verify accepts was signed, within the allowed clock skew, by a
// holder of the access key's secret, and its method, path, query, body, host,
// time and every x-amz... header are those that were signed. Input is bounded
// before it is looked at, signatures are compared in constant time, and an
// unknown access key costs the same work as a bad signature.
//
// The signing key is derived from the credential scope as the caller sent it:
// any region and any of the configured service names. The names matter because
// clients disagree: current SDKs sign the AWS IoT control plane as "iot",
// those of before 2023 (such as AWS CLI 2.9) as "execute-api".
//
// # Rules
//
// The rules are those of the AWS IAM user guide, "Create a signed AWS API
// request": the path is URI-encoded once more after its wire encoding, query
// parameters are sorted by encoded name and then encoded value, header values
// are trimmed and their runs of spaces collapsed, several values of one header
// are joined by a comma.
//
// Clients disagree on one more point: botocore removes empty and dot segments
// from the path before it signs, the Go SDK signs the path as it stands. Verify
// accepts either; it never changes the path that the request is routed by.
//
// A literal plus sign in the query means a space here, as it does when net/url
// decodes it, so that what was signed and what is decoded can't differ.
//
// A presigned URL holds from its X-Amz-Date for X-Amz-Expires seconds, at most
// Config.MaxExpiry, or for the clock skew where it doesn't say. Its session token
// may be part of what is signed or not: AWS IoT clients of MQTT over WebSocket
// add it after they signed.
//
// # What it does not do
//
// Chunked payload signatures (STREAMING-...), SigV4A and replay
// detection within the clock skew, which AWS doesn't do either.
package sigv4
