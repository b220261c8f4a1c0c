// Package ca keeps the certificate authorities of tenants: many roots and intermediates
// each, made here or elsewhere, what they issue by which profile, and what they revoke.
//
//	engine := ca.New(ca.Options{Store: store, Sealer: sealer, Journal: issuelog.New(store), Clock: time.Now, Profiles: profiles})
//	root, err := engine.Create(ctx, tenant, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject, Profile: "root"})
//	line, err := engine.Create(ctx, tenant, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject, Parent: root.ID, Profile: "intermediate"})
//	issued, err := engine.Issue(ctx, tenant, line.ID, "operational", request)
//
// What it promises: nothing is signed but by package pki's two steps, which refuse what a
// profile forbids before the key is used; an authority that is disabled, deleted, revoked
// or ended signs no certificate but an OCSP responder's, and neither does one below a revoked
// one, however long ago that was; what is revoked can't be registered or connect from the
// moment at which Revoke returns (package revoked, which the registry's doors ask), and its
// live sessions end within a second; every list that a certificate in the field names is
// signed for as long as the authority lasts, with a number that only grows.
// docs/revocation.md has what isn't right yet.
//
// It signs and serves CRLs and OCSP responses: PublishLists and Handler.
//
// What it does not do: it keeps no key that the Keys of its options doesn't open, and trusts
// no clock but the given one.
package ca
