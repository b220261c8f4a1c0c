// Package keys holds the private keys of CAs, wherever they are: sealed in a file,
// in a PKCS#11 token (an HSM, a smart card), in a TPM 2.0, or in AWS KMS. Whoever
// signs sees one interface, Signer, and names a key by a URI.
//
//	store := keys.NewStore(keys.Config{Sealer: sealer})
//	defer store.Close()
//	uri, err := keys.ParseURI("pkcs11:token=imprint;object=root?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/imprint/pin")
//	...
//	signer, err := store.Open(ctx, uri)
//	...
//	signature, err := signer.Sign(ctx, digest, crypto.SHA256)
//
// For crypto/x509, which knows no context, CryptoSigner makes a crypto.Signer that
// has a deadline:
//
//	der, err := x509.CreateRevocationList(rand.Reader, list, ca, keys.CryptoSigner(ctx, signer, 10*time.Second))
//
// # What it promises
//
// A key store that is gone, that crashes or that hangs is an error within the
// deadline of the call (its context, and Config.Timeout in any case), never a stall,
// and never the end of this process. When the store is back, the same Signer works
// again. Every signature that comes from outside this process is verified with the
// key's public half before it is given out, so neither a fault in the hardware nor
// another key in its place can get a bad signature into the world.
//
// A wrong PIN is told to a token once: tokens lock themselves after a few. From then
// on the Signer refuses, until the key is opened again, and a Store never tries the
// same PIN twice on one token.
//
// PINs and passwords come from files that a URI names. They never stand in a URI, in
// arguments, in the environment of another process, in an error or in a log.
//
// Keys that this package makes in a token or a TPM can't be taken out of it.
//
// # PKCS#11 in a process of its own
//
// A PKCS#11 module is a vendor's C library. It is loaded by imprint-pkcs11, a small
// program of its own (cmd/imprint-pkcs11, with cgo), which this package starts, one
// for a token, and talks to over its standard input and output (package wire). So
// Imprint stays free of cgo, and a module that crashes or hangs takes only that
// process along: it is ended, and started again after a pause that grows from a
// quarter of a second to fifteen.
//
// # What it does not do
//
// It doesn't protect a software key from somebody who reads this process's memory.
// Close overwrites what Go lets it reach; copies inside crypto/ecdsa and crypto/rsa
// go when the garbage collector takes them. It doesn't decide what may be signed:
// that is package pki's. It doesn't delete keys, back them up or initialise tokens.
//
// Its rules come from PKCS #11 v2.40 (OASIS), RFC 7512 (the PKCS #11 URI scheme), the
// TPM 2.0 Library Specification parts 2 and 3, and for key files of TPMs from "ASN.1
// Specification for TPM 2.0 Key Files" as tpm2-tss-engine and OpenSSL's tpm2 provider
// read it.
package keys
