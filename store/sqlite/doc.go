// Package sqlite keeps the registry in one SQLite file: the default store, for
// one server process. It implements imprint.Store.
//
//	store, err := sqlite.Open(ctx, sqlite.Options{Path: "imprint-data/registry.db", Sealer: sealer})
//	...
//	err = store.Update(ctx, func(tx imprint.Tx) error { return tx.PutThing(thing) })
//	...
//	err = store.Close()
//
// What it promises, beside the contract of imprint.Store:
//
//   - Group commit. One goroutine, the committer, owns the only connection that
//     writes. It runs the closures that wait, each in a savepoint of its own, in
//     one transaction; it commits when none waits or when the batch is full, tells
//     the watchers, and then answers all. The write-ahead log is synced at every
//     commit (synchronous=FULL), so an answered Update survives power loss as far
//     as the disk keeps what it has synced.
//   - A closure that fails, panics or ends its goroutine undoes its own changes
//     and nobody else's. An error that spoils the transaction (a full disk, an
//     I/O error) fails the whole batch.
//   - When COMMIT reports an error every Update of the batch gets CodeUnavailable.
//     What then is on disk is unknown, so watchers are told of the changes and
//     read again.
//   - Reads run on connections of their own in a snapshot that no writer waits
//     for. Checkpoints run beside the writers; see checkpoint.go.
//   - One process at a time: a lock on PATH.lock, which names its holder.
//   - The file, its log and the lock have mode 0600. Secrets of access keys are
//     sealed.
//
// What it does not do: share the file with another server, work on a network
// file system, or compact the file (DELETE leaves free pages that later rows
// use).
//
// Sources: "Write-Ahead Logging", "PRAGMA Statements" and "Savepoints" of the
// SQLite documentation.
package sqlite
