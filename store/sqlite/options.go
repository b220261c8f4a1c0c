package sqlite

import (
	"log/slog"
	"runtime"
	"time"

	"github.com/imprint-iot/imprint"
)

// Options say where and how a store is kept. Path and Sealer are needed; zero
// values of the others give the defaults in brackets.
type Options struct {
	// Path of the database file. Its directory must exist; the file is made
	// with mode 0600, and beside it PATH-wal, PATH-shm and PATH.lock.
	Path string
	// Sealer protects the secrets of access keys.
	Sealer imprint.Sealer
	// Clock measures slow commits and stamps readiness probes. [time.Now]
	Clock imprint.Clock
	// MaxBatch is how many closures share one transaction at most. [256]
	MaxBatch int
	// Linger is how long a batch waits for company while several callers write
	// at once. [5 ms; negative: not at all]
	Linger time.Duration
	// Queue is how many closures wait for the committer before Update itself
	// waits. [1024]
	Queue int
	// Readers is how many Views run at once; more wait. [4, or the number of
	// CPUs when that is more]
	Readers int
	// WriteCacheKiB and ReadCacheKiB bound the page cache of the writing
	// connection and of each reading one. The system's own cache of the file
	// stands behind them. [32768 and 4096]
	WriteCacheKiB, ReadCacheKiB int
	// SlowCommit is from when on a batch is logged as slow. [1 s]
	SlowCommit time.Duration
	// Logger gets what no caller can be told. [slog.Default]
	Logger *slog.Logger
	// Faults are for tests of what happens when commits fail.
	Faults Faults
}

// Faults are called by the committer around each COMMIT; nil ones are skipped.
// An error of BeforeCommit rolls the batch back before COMMIT is tried; one of
// Commit stands for an error of COMMIT itself, with the transaction still open;
// one of AfterCommit for an error that is reported although the batch is
// durable.
type Faults struct {
	BeforeCommit, Commit, AfterCommit func() error
}

func (f Faults) strike(hook func() error) error {
	if hook == nil {
		return nil
	}
	return hook()
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = 256
	}
	if o.Linger == 0 {
		o.Linger = 5 * time.Millisecond
	}
	if o.Queue <= 0 {
		o.Queue = 1024
	}
	if o.Readers <= 0 {
		o.Readers = max(4, runtime.GOMAXPROCS(0))
	}
	if o.WriteCacheKiB <= 0 {
		o.WriteCacheKiB = 32 << 10
	}
	if o.ReadCacheKiB <= 0 {
		o.ReadCacheKiB = 4 << 10
	}
	if o.SlowCommit <= 0 {
		o.SlowCommit = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}
