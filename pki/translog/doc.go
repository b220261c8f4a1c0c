// Package translog keeps the log of issuances: a Merkle tree, in files, with one entry for
// every certificate that a CA of this server signed. Package tiles reads and verifies it.
//
//	log, err := translog.Open(ctx, translog.Config{Dir: dir, Store: store, Sealer: sealer, Clock: time.Now})
//	...
//	receipt, err := log.Wait(ctx, issuanceID) // when a caller wants it logged before an answer
//	report, err := translog.Audit(ctx, translog.AuditConfig{...})
//
// The record of signatures in the store (package issuelog) is what the log follows: one
// goroutine takes the completed issuances that have no place in the log, by id, adds them
// in batches, and records each one's index. Signing doesn't wait for it. What waits is in
// the store alone, so neither a crash nor a stop loses any.
//
// A batch goes in three steps, each durable before the next: its ids are written to the
// store as pending; it is added to the log; the indices are recorded, with the next batch's
// ids. After a crash, entries of the log that aren't recorded are matched with their
// issuances, and the rest of what is pending is added in the same order. So nothing is
// logged twice, nothing is left out, and a file that a crash left is one that will be written
// again.
//
// The log's key signs a checkpoint only when its root is the one that this package computed
// for itself from what it added: an error in the files, or in the library that writes
// them, ends the appending instead of being signed (Counters.Broken).
//
// A log that is behind the registry was set back or exchanged: Open refuses it. A registry
// that is behind the log was restored from a backup: its issuances get their places back,
// and what the log alone has, Audit tells.
//
// What it doesn't do: it doesn't keep another process from writing to the log; the store's
// lock does. On Windows there is no log. It uses transparency-dev/tessera, whose file system
// must have POSIX's renames and locks: not NFS.
package translog
