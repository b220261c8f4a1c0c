//go:build unix

package translog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/tlog"
	"k8s.io/klog/v2"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// Log appends to a log of issuances. It is safe for concurrent use.
type Log struct {
	config   Config
	key      *key
	verifier *tiles.Verifier
	source   tiles.Source

	appender *tessera.Appender
	reader   tessera.LogReader
	shutdown func(context.Context) error
	end      context.CancelFunc // of tessera's goroutines
	stop     context.CancelFunc // of follow
	stopped  chan struct{}
	kick     chan struct{}

	signer *signer

	// Of the following goroutine alone.
	state   imprint.IssuanceLog
	synced  bool // state is what the store has, and all that the log has is in it
	counted time.Time

	mu sync.Mutex // for what follows; held for no I/O
	// progress is closed, and replaced, when more is recorded or published.
	progress  chan struct{}
	published tiles.Checkpoint
	counters  Counters
	failure   error
}

// silence makes what the library warns of the server's own log, and leaves out what it tells
// of its work. It is for the whole process.
var silence sync.Once

type warnings struct{ slog.Handler }

// Enabled implements slog.Handler.
func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (w warnings) WithAttrs(attributes []slog.Attr) slog.Handler {
	return warnings{w.Handler.WithAttrs(attributes)}
}

// WithGroup implements slog.Handler.
func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }

// longestRest is how long it waits at most before what went wrong is tried again.
const longestRest = 30 * time.Second

// publishInterval is the least time between two checkpoints: the library's own minimum.
const publishInterval = 100 * time.Millisecond

// publishLook is how often the file of the checkpoint is read while one is due.
const publishLook = 20 * time.Millisecond

// Open opens the log in a directory, or begins one, and follows the store from then on. It
// verifies the log's right edge against its checkpoint, and against what the registry
// remembers. Errors with a hint: a key that is missing or another one's, files that don't
// agree with the checkpoint, a log that was set back.
func Open(ctx context.Context, config Config) (*Log, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	silence.Do(func() { klog.SetSlogLogger(slog.New(warnings{config.Logger.Handler()})) })
	l := &Log{
		config: config, source: tiles.Dir(filepath.Join(config.Dir, tilesDir)),
		progress: make(chan struct{}), kick: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	err = l.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("couldn't open the issuance log in %s: %w", config.Dir, err)
	}
	following, stop := context.WithCancel(context.Background())
	l.stop = stop
	go l.follow(following)
	return l, nil
}

func (l *Log) open(ctx context.Context) error {
	err := os.MkdirAll(filepath.Join(l.config.Dir, tilesDir), 0o700)
	if err != nil {
		return err
	}
	err = l.config.Store.View(ctx, func(tx imprint.ReadTx) error {
		l.state, err = tx.IssuanceLog()
		return err
	})
	if err != nil {
		return fmt.Errorf("couldn't read what the registry knows of it: %w", err)
	}
	l.counters.Size = l.state.Size
	tree, begun, err := readTreeState(filepath.Join(l.config.Dir, tilesDir))
	if err != nil {
		return err
	}
	l.key, err = loadOrCreateKey(l.config.Dir, l.config.Sealer, l.config.Origin, begun || l.state.Size > 0 || l.state.Checkpoint != "")
	if err != nil {
		return err
	}
	l.verifier, err = tiles.NewVerifier(l.key.verifier)
	if err != nil {
		return err
	}
	frontier, err := l.verify(ctx, tree, begun)
	if err != nil {
		return err
	}
	l.signer = newSigner(l.key.signer, frontier, l.broke)
	return l.begin()
}

// verify compares the files of the log with its checkpoint, with the library's own state,
// and with what the registry remembers, and gives the tree's right edge.
func (l *Log) verify(ctx context.Context, tree tlog.Tree, begun bool) (*tiles.Frontier, error) {
	checkpoint, err := l.verifier.Latest(ctx, l.source)
	if errors.Is(err, fs.ErrNotExist) && l.state.Checkpoint == "" {
		// A log that was only just begun.
		checkpoint, err = tiles.Checkpoint{Origin: l.verifier.Origin(), Tree: tlog.Tree{Hash: (&tiles.Frontier{}).Root()}}, nil
	}
	if err != nil {
		return nil, damaged(err)
	}
	if tree.N < l.state.Size || begun && checkpoint.N > tree.N {
		return nil, setBack("it has %d entries, its checkpoint %d, and the registry knows of %d", tree.N, checkpoint.N, l.state.Size)
	}
	if l.state.Checkpoint != "" {
		remembered, err := l.verifier.Checkpoint([]byte(l.state.Checkpoint))
		if err != nil {
			return nil, setBack("it isn't the log whose checkpoint the registry remembers: %w", err)
		}
		_, err = tiles.ProveConsistency(ctx, l.source, remembered, checkpoint)
		if err != nil {
			return nil, setBack("it doesn't go on from the checkpoint that the registry remembers: %w", err)
		}
	}
	frontier, err := tiles.ReadFrontier(ctx, l.source, checkpoint)
	if err != nil {
		return nil, damaged(err)
	}
	// A crash can leave entries that no checkpoint covers yet. The state says their root.
	err = tiles.Entries(ctx, l.source, checkpoint.N, tree.N, func(_ int64, raw []byte) error {
		frontier.Append(tiles.LeafHash(raw))
		return nil
	})
	if err != nil {
		return nil, damaged(err)
	}
	if begun && frontier.Root() != tree.Hash {
		return nil, damaged(fmt.Errorf("its %d entries have root %s, and %s is to be signed", tree.N, frontier.Root(), tree.Hash))
	}
	if checkpoint.Raw != nil {
		l.published = checkpoint
	}
	return frontier, nil
}

func damaged(err error) error {
	return imprint.Errorf(imprint.CodeInternal, "its files aren't what was signed: %w", err).
		WithHint("Keep the directory as it is, and see what is wrong with: imprint ca audit. Then put the log back from a copy; certificates are issued without it, and logged afterwards.")
}

func setBack(format string, args ...any) error {
	return imprint.Errorf(imprint.CodeInternal, "it was set back or exchanged: "+format, args...).
		WithHint("Put back the newest copy of the log that there is. Going on from an older one would make two histories of one log.")
}

// readTreeState reads what the library will go on from: the size and root of the tree,
// signed or not yet. That it isn't there means that no log was begun.
func readTreeState(dir string) (tlog.Tree, bool, error) {
	var tree tlog.Tree
	path := filepath.Join(dir, ".state", "treeState")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return tree, false, nil
	}
	if err != nil {
		return tree, false, fmt.Errorf("couldn't read the tree's state: %w", err)
	}
	var state struct {
		Size int64  `json:"size"`
		Root []byte `json:"root"`
	}
	err = json.Unmarshal(raw, &state)
	if err != nil || state.Size < 0 || len(state.Root) != tlog.HashSize {
		return tree, false, damaged(fmt.Errorf("%s isn't the state of a tree", path))
	}
	return tlog.Tree{N: state.Size, Hash: tlog.Hash(state.Root)}, true, nil
}

// begin starts the library's appender.
func (l *Log) begin() error {
	driver, err := posix.New(context.Background(), posix.Config{Path: filepath.Join(l.config.Dir, tilesDir)})
	if err != nil {
		return fmt.Errorf("couldn't open its files: %w", err)
	}
	options := tessera.NewAppendOptions().
		WithCheckpointSigner(l.signer).
		WithCheckpointInterval(publishInterval).
		WithCheckpointRepublishInterval(0).
		WithShutdownTimeout(5*time.Second).
		WithPushback(uint(2*l.config.Batch)).
		// A batch is given at once; the age is for one that isn't full.
		WithBatching(uint(l.config.Batch), batchAge)
	running, end := context.WithCancel(context.Background())
	appender, shutdown, reader, err := tessera.NewAppender(running, driver, options)
	if err != nil {
		end()
		return fmt.Errorf("couldn't open its files: %w", err)
	}
	l.appender, l.shutdown, l.reader, l.end = appender, shutdown, reader, end
	return nil
}

// batchAge is how long the library waits for more of a batch that isn't full.
const batchAge = 5 * time.Millisecond

// Close ends the following, publishes what was added, and remembers that checkpoint. What
// waits is logged after the next Open.
func (l *Log) Close(ctx context.Context) error {
	l.stop()
	<-l.stopped
	err := l.shutdown(ctx)
	l.end()
	if err != nil {
		return fmt.Errorf("couldn't publish the last checkpoint of the issuance log: %w", err)
	}
	l.look(ctx)
	if !l.synced {
		return nil
	}
	return l.remember(ctx)
}

// VerifierKey is the public key of the log, as verifiers need it.
func (l *Log) VerifierKey() string { return l.key.verifier }

// Verifier verifies the log's checkpoints.
func (l *Log) Verifier() *tiles.Verifier { return l.verifier }

// Checkpoint gives the published one; without Raw, none is yet.
func (l *Log) Checkpoint() tiles.Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.published
}

// Source reads the log.
func (l *Log) Source() tiles.Source { return l.source }

// Handler serves the log over HTTP, for reading.
func (l *Log) Handler() http.Handler { return tiles.Handler(filepath.Join(l.config.Dir, tilesDir)) }

// Counters tells what the log has, and what waits.
func (l *Log) Counters() Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counters
	if !c.oldest.IsZero() {
		c.Lag = max(0, l.config.Clock().Sub(c.oldest))
	}
	c.Published = l.published.N
	return c
}

// Room refuses when more issuances wait for the log than are allowed: signers ask before
// they prepare another. Errors: CodeUnavailable.
func (l *Log) Room() error {
	l.mu.Lock()
	waiting, failure := l.counters.Waiting, l.failure
	l.mu.Unlock()
	if waiting < int64(l.config.MaxBacklog) {
		return nil
	}
	reason := "it is behind"
	if failure != nil {
		reason = failure.Error()
	}
	return imprint.Errorf(imprint.CodeUnavailable, "%d certificates wait for the issuance log, and no more may: %s", waiting, reason).
		WithHint("Retry later. The server's log and /metrics (imprint_issuance_log_...) tell why it is behind.")
}

// Kick has the store looked at now.
func (l *Log) Kick() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Wait waits until a completed issuance is in the log and a published checkpoint covers
// it. Errors: CodeNotFound, CodeInvalidRequest for an issuance without a certificate, and
// what ended the log.
func (l *Log) Wait(ctx context.Context, issuanceID string) (Receipt, error) {
	index := int64(-1)
	kicked := false
	for {
		l.mu.Lock()
		progress, published, failure, broken := l.progress, l.published, l.failure, l.counters.Broken
		l.mu.Unlock()
		if index < 0 {
			var err error
			index, err = l.indexOf(ctx, issuanceID)
			if err != nil {
				return Receipt{}, err
			}
			if index < 0 && !kicked {
				kicked = true
				l.Kick()
			}
		}
		if index >= 0 && index < published.N {
			return Receipt{Index: index, Checkpoint: published}, nil
		}
		if broken {
			return Receipt{}, imprint.Errorf(imprint.CodeUnavailable, "couldn't log issuance %s: %w", issuanceID, failure)
		}
		select {
		case <-progress:
		case <-ctx.Done():
			l.mu.Lock()
			failure = l.failure
			l.mu.Unlock()
			return Receipt{}, fmt.Errorf("couldn't wait until issuance %s is in the log: %w", issuanceID, errors.Join(ctx.Err(), failure))
		}
	}
}

// Settle waits until nothing waits for the log and its published checkpoint covers all of it.
// Errors: what ended the log.
func (l *Log) Settle(ctx context.Context) error {
	l.Kick()
	ticker := time.NewTicker(l.config.Interval)
	defer ticker.Stop()
	for {
		l.mu.Lock()
		progress, failure, broken := l.progress, l.failure, l.counters.Broken
		l.mu.Unlock()
		if broken {
			return imprint.Errorf(imprint.CodeUnavailable, "couldn't log what waits: %w", failure)
		}
		// The size of the same moment: one in memory would be late.
		var waiting int64
		var state imprint.IssuanceLog
		err := l.config.Store.Glance(ctx, func(tx imprint.ReadTx) error {
			var err error
			waiting, err = tx.UnloggedCount(1)
			if err != nil {
				return err
			}
			state, err = tx.IssuanceLog()
			return err
		})
		if err != nil {
			return fmt.Errorf("couldn't look for what waits for the log: %w", err)
		}
		l.mu.Lock()
		behind := l.published.N < state.Size
		l.mu.Unlock()
		if waiting == 0 && !behind {
			return nil
		}
		select {
		case <-progress:
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("couldn't wait until nothing waits for the log: %w", errors.Join(ctx.Err(), failure))
		}
	}
}

func (l *Log) indexOf(ctx context.Context, id string) (int64, error) {
	index := int64(-1)
	err := l.config.Store.Glance(ctx, func(tx imprint.ReadTx) error {
		i, err := tx.LoggedIssuance(id)
		if err != nil {
			return err
		}
		if i.CertificateID == "" {
			return imprint.Errorf(imprint.CodeInvalidRequest, "issuance %s has no certificate", id)
		}
		index = i.LogIndex
		return nil
	})
	return index, err
}

// Prove proves that an issuance is in the log, once it is: Wait first.
func (l *Log) Prove(ctx context.Context, receipt Receipt) (tiles.Proof, error) {
	return tiles.ProveInclusion(ctx, l.source, receipt.Checkpoint, receipt.Index)
}

// broke ends the appending for good: what is in the files isn't what was added.
func (l *Log) broke(err error) {
	l.mu.Lock()
	already := l.counters.Broken
	l.counters.Broken, l.failure = true, err
	l.advance()
	l.mu.Unlock()
	if !already {
		l.config.Logger.Error("The issuance log is broken, and nothing more is added to it; certificates are still issued. Keep its files, and run: imprint ca audit", slog.Any("error", err))
	}
}

// advance wakes those who wait; mu is held.
func (l *Log) advance() {
	close(l.progress)
	l.progress = make(chan struct{})
}
