package translog

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// Config is what a Log needs. Dir, Store, Sealer and Clock must be set; zero values of the
// others give the defaults in brackets.
type Config struct {
	// Dir has the log's key, sealed in signer.sealed, its public key in verifier.txt, and
	// in log/ the log itself. It is made when it isn't there.
	Dir    string
	Store  imprint.Store
	Sealer imprint.Sealer
	Clock  imprint.Clock
	// Origin is the log's name, for life: a URL without its scheme that no other log has,
	// such as example.com/imprint. [one with a random end, when the log is begun]
	Origin string
	// Batch is how many certificates are added at once. [1024, at most 4096]
	Batch int
	// Interval is how often the store is looked at when nobody waits. [250 ms]
	Interval time.Duration
	// MaxBacklog is how many certificates may wait before Room refuses. [100,000]
	MaxBacklog int
	// Logger gets what no caller can be told. [slog.Default]
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.Store == nil || c.Sealer == nil || c.Clock == nil {
		return c, errors.New("couldn't open the issuance log: directory, store, sealer and clock must be given")
	}
	if c.Batch == 0 {
		c.Batch = 1024
	}
	if c.Batch < 1 || c.Batch > 4096 {
		return c, fmt.Errorf("couldn't open the issuance log: a batch of %d isn't one of 1 to 4096", c.Batch)
	}
	if c.Interval <= 0 {
		c.Interval = 250 * time.Millisecond
	}
	if c.MaxBacklog <= 0 {
		c.MaxBacklog = 100_000
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Receipt says where an issuance is in the log.
type Receipt struct {
	Index int64
	// Checkpoint is one that covers it.
	Checkpoint tiles.Checkpoint
}

// Counters are what a Log has done, and what waits.
type Counters struct {
	// Size is how many entries are recorded, Published how many the published checkpoint
	// covers.
	Size, Published int64
	// Waiting is how many completed issuances aren't in the log, counted up to
	// Config.MaxBacklog; Lag is how long ago the first of them was prepared.
	Waiting int64
	Lag     time.Duration
	// Failures counts what went wrong and was, or will be, tried again.
	Failures uint64
	// Broken: the files aren't what was added, and nothing more is.
	Broken bool

	oldest time.Time
}
