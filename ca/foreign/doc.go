// Package foreign keeps the CRLs that CAs elsewhere sign: brought by hand, or fetched on
// time. docs/revocation.md is its manual; package pki/revoked asks them when a certificate is
// registered.
//
//	engine := foreign.New(foreign.Options{Store: store, Clock: time.Now})
//	list, err := engine.Import(ctx, tenant, foreign.Request{CA: ca, Data: crl})
//	go engine.Run(ctx) // fetches those that are due
//
// What it promises: a list is believed only when the CA's own key signed it, it is complete
// and about that CA (pki.ParseForeignCRL), and its number doesn't go back. Its entries take
// the place of those before in one transaction, so newcomers are judged by the one list or
// the other; certificates that are registered already are REVOKED after that, page by page,
// and again after a crash until all are. Who is connected with one is off within a second.
//
// What it does not do: it takes no delta and no indirect lists, and asks no OCSP responder.
// A certificate that left a list stays REVOKED.
package foreign
