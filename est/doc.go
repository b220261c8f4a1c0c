// Package est is the door for enrolment over a secure channel: EST, RFC 7030, as RFC 8951
// clarifies it, for factory lines and for renewal.
//
//	door := est.New(est.Options{Store: store, Engine: engine, Clock: time.Now, Trace: log, Anchors: roots})
//	server := http.Server{Handler: door}
//	err := server.Serve(est.Listen(listener, door.TLS(certificates.Get), door))
//
// Paths are /.well-known/est/LABEL/OPERATION; a label (imprint.EnrolmentLabel) names a
// tenant, an authority, a profile and who may ask. Without one the label default is meant.
//
// What it promises: nobody gets a certificate but who shows a client certificate that the
// label accepts, or a one-time password, which is used up in the transaction that makes
// the certificate one; a device asks for itself alone, and renews the certificate alone
// that its TLS connection shows, with the same subject and names; a key that is made here
// is sent once and never stored; every refusal is a step of an attempt in the trace, has a
// status of its own and a text with what to do; what an address may send, and how many
// connections it has, is bounded before anything is computed for it.
//
// What it does not do: full CMC (501), keys that are encrypted for the client, waiting for
// a person's approval (202), EST over CoAP.
//
// Sources: RFC 7030, RFC 8951 (bodies are base64 without a header that says so), RFC 9266
// (channel binding of TLS 1.3).
package est
