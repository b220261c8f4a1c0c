// Package pki reads, checks and makes X.509 certificates: what operators and
// devices bring, the server's own TLS certificates, and the device certificates
// that Imprint's own CA signs.
//
// Reading is strict and bounded. ParseCertificatePEM and ParseCSRPEM take one
// PEM block, and their errors say what a person most likely did wrong. CheckKey
// and Policy say which keys and signatures are accepted, CheckCARegistration
// holds the rules for registering a CA, and PickIssuer finds who signed a leaf.
//
// Signing takes two steps, and types keep them in order:
//
//	profile, err := pki.NewProfile(pki.ProfileConfig{Name: "device"})
//	authority, err := pki.OpenAuthority(ctx, dir, pki.AuthorityConfig{Sealer: sealer, Journal: log, Clock: time.Now})
//	...
//	token, err := authority.Prepare(ctx, tenant, profile, pki.Request{PublicKey: csr.PublicKey, RawSubject: csr.RawSubject})
//	issued, err := authority.Sign(ctx, token)
//
// Prepare builds the certificate, with a signature that is none, lints it and
// records the intent. Sign alone reaches the CA key, takes nothing but a token
// of Prepare, takes it once, and signs exactly the bytes that were linted. It
// returns only after the journal has the certificate's id. SignInto does the same
// for who stores the certificate: row and record are one commit.
//
// EnsureServer makes and renews the server's own TLS certificates, ECDSA and RSA,
// each under a root of its own kind. KeyPool keeps RSA keys ready for devices that
// let the server make their key; such keys are never stored.
//
// What it does not do: it doesn't build or verify chains above a device's direct
// issuer, doesn't fetch CRLs or OCSP answers, and can't verify DSA signatures
// or read RSA keys that are marked for PSS alone, which Go's crypto/x509
// doesn't know.
//
// Its rules come from RFC 5280, from the AWS IoT Core developer guide ("X.509
// client certificates", "Register your CA certificate") and from the AWS IoT
// API reference (RegisterCACertificate, CreateKeysAndCertificate,
// CreateCertificateFromCsr).
package pki
