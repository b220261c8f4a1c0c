//go:build unix

package translog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/transparency-dev/tessera"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// follow adds what the store has and the log lacks, until its context ends.
func (l *Log) follow(ctx context.Context) {
	defer close(l.stopped)
	rest := l.config.Interval
	timer := time.NewTimer(0)
	defer timer.Stop()
	kick := l.kick
	var stepped time.Time
	full := false
	for {
		kicked := false
		select {
		case <-ctx.Done():
			return
		case <-kick:
			kicked = true
		case <-timer.C:
		}
		// A batch costs its commits and its writes of tiles, however small it is: while
		// certificates come one after the other, each has those of an interval.
		if !kicked && !full && l.synced && time.Since(stepped) < l.config.Interval {
			l.look(ctx)
			timer.Reset(l.pause(stepped))
			continue
		}
		size, pending := l.state.Size, len(l.state.Pending)
		err := l.step(ctx)
		stepped = time.Now()
		full = len(l.state.Pending) == l.config.Batch
		if l.state.Size != size || len(l.state.Pending) != pending {
			rest = l.config.Interval // it got on, whatever failed then
		}
		if ctx.Err() != nil {
			return
		}
		kick = l.kick
		if err != nil {
			kick = nil // who waits doesn't shorten the rest after a failure
			err = errors.Join(err, l.count(ctx, true))
		}
		l.note(err)
		switch {
		case err != nil:
			stepped, full = time.Time{}, false
			timer.Reset(rest)
			rest = min(2*rest, longestRest)
			continue
		case full:
			timer.Reset(0)
		default:
			timer.Reset(l.pause(stepped))
		}
		rest = l.config.Interval
	}
}

// pause is how long the log may rest: until the interval has passed, unless a checkpoint is
// looked for.
func (l *Log) pause(stepped time.Time) time.Duration {
	left := max(0, l.config.Interval-time.Since(stepped))
	if l.due() {
		return min(left, publishLook)
	}
	return left
}

// note keeps why the log doesn't advance, and tells of it once.
func (l *Log) note(err error) {
	l.mu.Lock()
	before, broken := l.failure, l.counters.Broken
	if !broken {
		l.failure = err
	}
	if err != nil {
		l.counters.Failures++
	}
	l.mu.Unlock()
	if err != nil && before == nil {
		l.config.Logger.Error("Certificates can't be added to the issuance log now; they wait in the registry.", slog.Any("error", err))
	}
	if err == nil && before != nil && !broken {
		l.config.Logger.Info("The issuance log goes on.")
	}
}

// due says whether entries wait for a checkpoint.
func (l *Log) due() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.counters.Broken && l.published.N < l.counters.Size
}

// step adds what is pending and takes up the next batch.
func (l *Log) step(ctx context.Context) error {
	l.mu.Lock()
	broken, err := l.counters.Broken, l.failure
	l.mu.Unlock()
	if broken {
		return err
	}
	if !l.synced {
		err = l.sync(ctx)
		if err != nil {
			return err
		}
	}
	published := l.look(ctx)
	if len(l.state.Pending) == 0 {
		err = l.plan(ctx)
		if err != nil {
			return err
		}
		if len(l.state.Pending) == 0 {
			if published && l.published.N == l.state.Size {
				err = l.remember(ctx)
			}
			return errors.Join(err, l.count(ctx, true))
		}
	}
	// What fails from here on may have been done all the same.
	l.synced = false
	batch, err := l.encode(ctx)
	if err != nil {
		return err
	}
	err = l.add(ctx, batch)
	if err != nil {
		return err
	}
	err = l.record(ctx, batch)
	if err != nil {
		return err
	}
	l.synced = true
	return l.count(ctx, len(l.state.Pending) == 0)
}

// countEvery is how often what waits is counted while it is more than a batch: to count is to
// read all of it.
const countEvery = time.Second

// entry is one that is being added.
type entry struct {
	issuance string
	raw      []byte
}

// plan writes down what is added next.
func (l *Log) plan(ctx context.Context) error {
	next := l.state
	err := l.config.Store.Glance(ctx, func(tx imprint.ReadTx) error {
		var err error
		next.Pending, err = tx.UnloggedIssuances(l.config.Batch)
		return err
	})
	if err != nil {
		return fmt.Errorf("couldn't look for issuances that aren't in the log: %w", err)
	}
	if len(next.Pending) == 0 {
		return nil
	}
	err = l.put(ctx, next, nil)
	if err != nil {
		return fmt.Errorf("couldn't write down what is added to the log next: %w", err)
	}
	return nil
}

// put stores the state, with the indices of a batch that ends at its size.
func (l *Log) put(ctx context.Context, next imprint.IssuanceLog, recorded []entry) error {
	err := l.config.Store.Update(ctx, func(tx imprint.Tx) error {
		for i, e := range recorded {
			err := tx.SetLogIndex(e.issuance, next.Size-int64(len(recorded)-i))
			if err != nil {
				return err
			}
		}
		return tx.PutIssuanceLog(next)
	})
	if err != nil {
		// It may be stored all the same: read it again.
		l.synced = false
		return err
	}
	l.state = next
	return nil
}

// encode makes the entries of what is pending.
func (l *Log) encode(ctx context.Context) ([]entry, error) {
	batch := make([]entry, 0, len(l.state.Pending))
	err := l.config.Store.View(ctx, func(tx imprint.ReadTx) error {
		batch = batch[:0]
		for _, id := range l.state.Pending {
			i, err := tx.Issuance(id)
			if err != nil {
				return err
			}
			raw, err := encode(tx, i)
			if err != nil {
				return fmt.Errorf("issuance %s: %w", id, err)
			}
			batch = append(batch, entry{issuance: id, raw: raw})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't read what is to be added to the log: %w", err)
	}
	return batch, nil
}

// add adds a batch to the log, as the entries from the state's size on.
func (l *Log) add(ctx context.Context, batch []entry) error {
	err := l.descriptors()
	if err != nil {
		return err
	}
	leaves := make([]tlog.Hash, len(batch))
	for i, e := range batch {
		leaves[i] = tiles.LeafHash(e.raw)
	}
	err = l.signer.expect(l.state.Size, leaves)
	if err != nil {
		return err
	}
	futures := make([]tessera.IndexFuture, len(batch))
	for i, e := range batch {
		futures[i] = l.appender.Add(context.WithoutCancel(ctx), tessera.NewEntry(e.raw))
	}
	// Each is waited for, whatever became of those before it.
	var failed error
	for i, future := range futures {
		index, err := future()
		if err == nil && int64(index.Index) != l.state.Size+int64(i) {
			err = fmt.Errorf("entry %d was added as %d: someone else writes to the log", l.state.Size+int64(i), index.Index)
			l.broke(err)
		}
		failed = errors.Join(failed, err)
		if failed != nil && len(failed.Error()) > 1000 {
			failed = errors.New(failed.Error()[:1000])
		}
	}
	if failed != nil {
		return fmt.Errorf("couldn't add to the log: %w", failed)
	}
	return nil
}

// descriptors is how many files the library has open at most while it adds a batch, twice.
const descriptorsNeeded = 16

// descriptors tries whether as many files can be opened as adding needs: the library ends
// the program when it can't open its lock.
func (l *Log) descriptors() error {
	var files []*os.File
	var failed error
	for range descriptorsNeeded {
		f, err := os.Open(filepath.Join(l.config.Dir, tilesDir))
		if err != nil {
			failed = fmt.Errorf("couldn't open files for the log: %w", err)
			break
		}
		files = append(files, f)
	}
	for _, f := range files {
		_ = f.Close() // only read, not even that
	}
	return failed
}

// record stores the indices of a batch that was added, with the ids of the next one.
func (l *Log) record(ctx context.Context, batch []entry) error {
	next := imprint.IssuanceLog{Size: l.state.Size + int64(len(batch)), Checkpoint: l.state.Checkpoint}
	if l.published.Raw != nil {
		next.Checkpoint = string(l.published.Raw)
	}
	err := l.config.Store.Glance(ctx, func(tx imprint.ReadTx) error {
		waiting, err := tx.UnloggedIssuances(l.config.Batch + len(batch))
		if err != nil {
			return err
		}
		next.Pending = without(waiting, batch, l.config.Batch)
		return nil
	})
	if err == nil {
		err = l.put(ctx, next, batch)
	}
	if err != nil {
		return fmt.Errorf("couldn't record what was added to the log: %w", err)
	}
	l.mu.Lock()
	l.counters.Size = l.state.Size
	l.advance()
	l.mu.Unlock()
	return nil
}

func without(ids []string, batch []entry, limit int) []string {
	has := make(map[string]bool, len(batch))
	for _, e := range batch {
		has[e.issuance] = true
	}
	var rest []string
	for _, id := range ids {
		if !has[id] && len(rest) < limit {
			rest = append(rest, id)
		}
	}
	return rest
}

// sync brings the state to what the store and the log have: entries that aren't recorded
// get their issuances.
func (l *Log) sync(ctx context.Context) error {
	err := l.config.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		l.state, err = tx.IssuanceLog()
		return err
	})
	if err != nil {
		return fmt.Errorf("couldn't read what the registry knows of the log: %w", err)
	}
	size, err := l.reader.IntegratedSize(ctx)
	if err != nil {
		return fmt.Errorf("couldn't read how many entries the log has: %w", err)
	}
	err = l.signer.settle(int64(size))
	if err != nil {
		l.broke(err)
		return err
	}
	for l.state.Size < int64(size) {
		err = l.adopt(ctx, min(int64(size), l.state.Size+int64(l.config.Batch)))
		if err != nil {
			return err
		}
	}
	l.synced = true
	l.mu.Lock()
	if l.counters.Size != l.state.Size {
		l.counters.Size = l.state.Size
		l.advance()
	}
	l.mu.Unlock()
	return nil
}

// adopt records the entries from the state's size up to another one at their issuances.
func (l *Log) adopt(ctx context.Context, to int64) error {
	entries := make([]tiles.Entry, 0, to-l.state.Size)
	err := tiles.Entries(ctx, l.source, l.state.Size, to, func(index int64, raw []byte) error {
		e, err := tiles.ParseEntry(raw)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("couldn't read what the log has: %w", err)
	}
	next := l.state
	unknown := 0
	err = l.config.Store.Update(ctx, func(tx imprint.Tx) error {
		next, unknown = l.state, 0
		next.Size, next.Pending = to, nil
		for i, e := range entries {
			row, err := tx.LoggedIssuance(e.Issuance)
			if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && (row.CertificateID != e.Certificate || row.LogIndex >= 0) {
				unknown++
				continue
			}
			if err == nil {
				err = tx.SetLogIndex(e.Issuance, l.state.Size+int64(i))
			}
			if err != nil {
				return err
			}
		}
		for _, id := range l.state.Pending {
			row, err := tx.LoggedIssuance(id)
			if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
				return err
			}
			if err == nil && row.LogIndex < 0 {
				next.Pending = append(next.Pending, id)
			}
		}
		return tx.PutIssuanceLog(next)
	})
	if err != nil {
		return fmt.Errorf("couldn't record what the log has: %w", err)
	}
	l.state = next
	if unknown > 0 {
		l.config.Logger.Warn("The issuance log has entries of certificates that the registry doesn't know, as after a restore of an older copy of it. See: imprint ca audit", slog.Int("entries", unknown))
	}
	return nil
}

// look reads the checkpoint that is published, and says whether it is another one than
// the registry remembers.
func (l *Log) look(ctx context.Context) bool {
	raw, err := l.source.Read(ctx, tiles.CheckpointPath)
	if err != nil {
		return false // it isn't there yet, or will be told of when it is verified
	}
	l.mu.Lock()
	same := bytes.Equal(raw, l.published.Raw)
	l.mu.Unlock()
	if !same {
		checkpoint, err := l.verifier.Checkpoint(raw)
		if err != nil {
			l.broke(fmt.Errorf("the checkpoint that is published isn't this log's: %w", err))
			return false
		}
		l.mu.Lock()
		if checkpoint.N < l.published.N {
			err = fmt.Errorf("the published checkpoint went from %d entries back to %d", l.published.N, checkpoint.N)
		} else {
			l.published = checkpoint
			l.advance()
		}
		l.mu.Unlock()
		if err != nil {
			l.broke(err)
			return false
		}
	}
	return string(raw) != l.state.Checkpoint
}

// remember stores the published checkpoint in the registry.
func (l *Log) remember(ctx context.Context) error {
	if l.published.Raw == nil || string(l.published.Raw) == l.state.Checkpoint {
		return nil
	}
	next := l.state
	next.Checkpoint = string(l.published.Raw)
	err := l.put(ctx, next, nil)
	if err != nil {
		return fmt.Errorf("couldn't remember the log's checkpoint: %w", err)
	}
	return nil
}

// count measures what waits: what is pending, unless that is a full batch or the log doesn't get
// on.
func (l *Log) count(ctx context.Context, exact bool) error {
	pending := len(l.state.Pending)
	if pending == l.config.Batch && !exact {
		if l.config.Clock().Sub(l.counted) < countEvery {
			return nil
		}
		exact = true
	}
	var waiting int64
	var oldest time.Time
	err := l.config.Store.Glance(ctx, func(tx imprint.ReadTx) error {
		var err error
		oldest, waiting = time.Time{}, int64(pending)
		if exact {
			waiting, err = tx.UnloggedCount(l.config.MaxBacklog)
		}
		if err != nil || waiting == 0 {
			return err
		}
		first, err := tx.UnloggedIssuances(1)
		if err != nil || len(first) == 0 {
			return err
		}
		i, err := tx.Issuance(first[0])
		oldest = i.At
		return err
	})
	if err != nil {
		return fmt.Errorf("couldn't count what waits for the log: %w", err)
	}
	l.counted = l.config.Clock()
	l.mu.Lock()
	l.counters.Waiting, l.counters.oldest = waiting, oldest
	l.mu.Unlock()
	return nil
}
