// Package tiles reads and verifies the log of issuances: a Merkle tree of every
// certificate that an Imprint's CAs signed, in the format of C2SP's tlog-tiles, with
// checkpoints as tlog-checkpoint has them. A verifier needs the log's directory or its
// URL, the log's public key and, for one certificate, that:
//
//	verifier, err := tiles.NewVerifier("example.com/imprint+b4b6fa52+AeZ...")
//	found, err := tiles.VerifyCertificate(ctx, tiles.HTTP("https://log.example.com", nil), verifier, der)
//
// Everything is verified against a signed checkpoint with golang.org/x/mod/sumdb/tlog and
// note alone; what appends to the log (package translog) isn't imported.
//
// Each entry is one Entry, whose encoding is described at its Marshal. Its leaf hash is that
// of RFC 6962: SHA-256 of a zero byte and the encoding. So any tool that reads tlog-tiles
// checks the tree, and one of a dozen lines the entries.
//
// ProveInclusion and ProveConsistency give proofs, Proof.Marshal in the form of C2SP's
// tlog-proof; Check reads a whole log and says what in it isn't what the checkpoint
// signs.
//
// What it doesn't do: it doesn't know whether two verifiers are shown the same log. For
// that, they compare checkpoints, or keep the last one: Check and ProveConsistency find a
// log that was set back or branched off.
//
// Sources: https://c2sp.org/tlog-tiles, https://c2sp.org/tlog-checkpoint,
// https://c2sp.org/tlog-proof, https://c2sp.org/signed-note, RFC 6962 section 2.1.
package tiles
