// Package trace records what happened to each connection and provisioning
// attempt, step by step, with verdicts, codes and fixes, so that nobody has to
// read server logs to learn why a device isn't connected.
//
// A door begins a Recorder for every accepted socket; whoever handles the
// connection adds steps to it; exactly one of Connected and End is called when
// it is decided, and End once more when a connected device goes away:
//
//	rec := log.Begin(conn.RemoteAddr().String())
//	rec.OK("tls", "TLS 1.3, P-256")
//	rec.Fail("certificate", err)          // code and fix come from the error
//	rec.End(imprint.OutcomeRefused, imprint.CodeOf(err))
//
// What it promises: recording never waits for the disk; a refused attempt, and
// a failed step of a connection, are never dropped (the connection
// waits while the queue is full); others, and those that were refused because
// the server is overloaded, are dropped, and counted, when the queue is full.
// Of devices that are let in, so many attempts are kept in a second
// (Options.SuccessRate), and the others counted; one with a failed step is kept always.
// Of a device that fails in the same way again and again, the first attempts and the
// latest are kept, and the others counted with that (Options.FoldAfter); so are those of
// many devices that fail in the same way: no failure goes unseen.
// Attempts are kept for Options.Retention and up to Options.Keep in number. Of
// one attempt at most 64 steps are kept before and 64 after it was let in, and
// 2 KiB of a detail. After that what fails is kept beside these, each failure once with
// how often it happened: up to 32 are told apart, and further ones by name and code.
//
// A refused attempt is written at once, a device that was let in, and what it is refused
// while it is on, within a second: what happens meanwhile is one write.
//
// What it does not do: it holds no secrets (no keys, no passwords, no
// payloads), and it isn't durable before the device is answered: a server that
// is killed forgets the attempts of its last moments, and a store
// that fails loses those that it fails for, which is logged and counted.
package trace

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/imprint-iot/imprint"
)

// Options tune a Log. Zero values give the defaults in brackets.
type Options struct {
	Off       bool          // nothing is recorded; for measuring what recording costs
	Queue     int           // attempts waiting to be written [4096]
	Batch     int           // attempts written in one store update [1024]
	Linger    time.Duration // how long what failed waits for company; the rest ten times as long [100 ms]
	Retention time.Duration // how long attempts are kept [168 h]
	Keep      int           // how many attempts are kept at most [1,000,000]
	// FoldAfter is how many attempts of a device that fail in the same way are kept
	// whole in five minutes; further ones take the place of the last, which counts them
	// [3]. Below 0 all are kept.
	FoldAfter int
	// SuccessRate is how many attempts of devices that were let in are kept in a second
	// [50], and as many at once. Of others nothing is kept, unless a step fails
	// later. Below 0 all are kept. As many lines of bulk registrations are kept that went
	// well (SamplesLine).
	SuccessRate int
	Logger      *slog.Logger // [slog.Default]
}

func (o Options) withDefaults() Options {
	if o.Queue <= 0 {
		o.Queue = 4096
	}
	if o.Batch <= 0 {
		o.Batch = 1024
	}
	if o.Linger <= 0 {
		o.Linger = 100 * time.Millisecond
	}
	if o.Retention <= 0 {
		o.Retention = 7 * 24 * time.Hour
	}
	if o.Keep <= 0 {
		o.Keep = 1_000_000
	}
	if o.FoldAfter == 0 {
		o.FoldAfter = 3
	}
	if o.SuccessRate == 0 {
		o.SuccessRate = 50
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// Counters are what the log has done since it began.
type Counters struct {
	// Folded are attempts that are counted with another one, in its Repeats.
	// Unsampled are those of devices that were let in while so many came that not all
	// were kept (Options.SuccessRate).
	Written, Dropped, Failed, Trimmed, Folded, Unsampled uint64
}

// entry is one thing to write: a whole attempt, the end of one that was written
// before, or steps that are added to one.
type entry struct {
	attempt *imprint.Attempt
	draft   *draft // the attempt's memory, for when it is written; nil: it is its own
	told    bool   // others know the attempt's id
	urgent  bool   // something failed: somebody may be waiting to hear of it
	end     *ending
	added   *addition
}

// addition is what somebody else than its recorder has to say about an attempt.
type addition struct {
	id    string
	steps []imprint.Step
}

// ending is what came of a device that was let in: more steps, and the end if outcome
// isn't empty.
type ending struct {
	id      string
	packed  string // see Recorder.packed
	failed  bool   // something did, of these steps or of earlier ones
	at      time.Time
	outcome imprint.Outcome
	code    imprint.Code
	steps   []imprint.Step
	thing   imprint.ThingName // empty: none came of it
}

// Log writes attempts to the store.
type Log struct {
	store imprint.Store
	clock imprint.Clock
	began time.Time
	opts  Options

	queue chan entry
	// hurry has one value once the writer mustn't wait for as long as it would: something
	// failed, or the queue has enough.
	hurry chan struct{}
	flush chan chan struct{}
	done  chan struct{} // closed when the writer and the trimmer have ended
	// closing is closed first, so that recorders stop waiting for room.
	closing   chan struct{}
	closeOnce sync.Once
	// early has the additions to attempts that aren't stored yet, oldest first. It
	// is the writer's.
	early []*addition
	folds *folds // the writer's
	told  atomic.Pointer[func([]imprint.Attempt)]

	successes *rate.Limiter // nil: all are kept
	// lines is what successes is, of lines of bulk registrations: while a file is read,
	// devices are sampled as ever.
	lines *rate.Limiter

	// lateMu guards late and later: those who have something for the writer, and those who
	// have it since the last round. handing is held while it is handed over, so that whoever
	// waits for that waits for all.
	handing, lateMu sync.Mutex
	late, later     []*Recorder

	// knownMu guards known: recorders whose id somebody knows, until they end. It may be
	// taken under a recorder's lock, and none is taken under it.
	knownMu sync.Mutex
	known   map[string]*Recorder

	// past may be told of under a recorder's lock.
	past pasts

	written, dropped, failed, trimmed, folded, unsampled atomic.Uint64
}

// NewLog starts the writer of attempts. Close ends it.
func NewLog(store imprint.Store, clock imprint.Clock, opts Options) *Log {
	l := &Log{
		store: store, clock: clock, began: clock(), opts: opts.withDefaults(),
		flush: make(chan chan struct{}), done: make(chan struct{}), closing: make(chan struct{}),
	}
	l.queue, l.hurry = make(chan entry, l.opts.Queue), make(chan struct{}, 1)
	l.folds = newFolds(l.opts.FoldAfter)
	if l.opts.SuccessRate > 0 {
		l.successes = rate.NewLimiter(rate.Limit(l.opts.SuccessRate), l.opts.SuccessRate)
		l.lines = rate.NewLimiter(rate.Limit(l.opts.SuccessRate), l.opts.SuccessRate)
	}
	var work sync.WaitGroup
	work.Go(l.run)
	work.Go(l.trimmer)
	work.Go(l.hander)
	go func() {
		work.Wait()
		close(l.done)
	}()
	return l
}

// Watch calls fn with attempts as they were just stored, those that have changed
// included, on the writer's goroutine: fn must not wait, nor keep their steps. There is one
// fn; nil ends it.
func (l *Log) Watch(fn func([]imprint.Attempt)) {
	if fn == nil {
		l.told.Store(nil)
		return
	}
	l.told.Store(&fn)
}

// Counters gives the present counts.
func (l *Log) Counters() Counters {
	return Counters{Written: l.written.Load(), Dropped: l.dropped.Load(), Failed: l.failed.Load(), Trimmed: l.trimmed.Load(), Folded: l.folded.Load(), Unsampled: l.unsampled.Load()}
}

// Append adds steps to an attempt from outside of its connection, such as those of
// a function that ran for it, also after its end. One that failed has the attempt of a
// device that is on kept, sampled or not, and that of one that has gone made again where it
// has no row (see past). They are dropped, and counted, when the queue is full, and not
// counted when all went well and the attempt isn't kept; beyond maxAdded steps an attempt takes no more.
func (l *Log) Append(attemptID string, steps ...imprint.Step) {
	if attemptID == "" || len(steps) == 0 {
		return
	}
	kept := make([]imprint.Step, 0, len(steps))
	for _, s := range steps {
		s.Detail, s.Fix = bounded(s.Detail), bounded(s.Fix)
		kept = append(kept, s)
	}
	if anyFailed(kept) {
		r := l.remembered(attemptID)
		if r != nil && r.adopt(kept) {
			return
		}
	}
	l.put(entry{added: &addition{id: attemptID, steps: kept}}, false)
}

// remember has Append find the recorder of an attempt that somebody knows the id of.
func (l *Log) remember(r *Recorder) {
	l.knownMu.Lock()
	defer l.knownMu.Unlock()
	if l.known == nil {
		l.known = make(map[string]*Recorder)
	}
	l.known[r.id] = r
}

func (l *Log) forget(id string) {
	l.knownMu.Lock()
	defer l.knownMu.Unlock()
	delete(l.known, id)
}

func (l *Log) remembered(id string) *Recorder {
	l.knownMu.Lock()
	defer l.knownMu.Unlock()
	return l.known[id]
}

// Flush returns when everything recorded before the call is in the store, or
// the context ends; but for more of the same of devices that are on, see handAgain.
func (l *Log) Flush(ctx context.Context) error {
	for {
		err := l.flushOnce(ctx)
		if err != nil || !l.owes() {
			return err
		}
		select {
		case <-l.done:
			return nil
		default:
		}
	}
}

// owes says whether recorders have what they must hand over, and found no room for.
func (l *Log) owes() bool {
	l.lateMu.Lock()
	defer l.lateMu.Unlock()
	refused := func(r *Recorder) bool { return r.refused.Load() }
	return slices.ContainsFunc(l.late, refused) || slices.ContainsFunc(l.later, refused)
}

func (l *Log) flushOnce(ctx context.Context) error {
	l.handOver()
	reply := make(chan struct{})
	select {
	case l.flush <- reply:
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-reply:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close writes what waits and ends the writer. Recorders may still be used
// after it; what they record is lost.
func (l *Log) Close() {
	l.closeOnce.Do(func() {
		l.handOver()
		close(l.closing)
	})
	<-l.done
}

// offer queues an entry if there is room.
func (l *Log) offer(e entry) bool {
	select {
	case l.queue <- e:
		l.queued(e)
		return true
	default:
		return false
	}
}

// queued wakes the writer, for an entry that is in the queue, if it is to hurry: to wake it
// for each costs as much as an entry of its own.
func (l *Log) queued(e entry) {
	if !e.urgent && !l.enough() {
		return
	}
	select {
	case l.hurry <- struct{}{}:
	default:
	}
}

// enough says whether what is in the queue makes a batch, or fills it.
func (l *Log) enough() bool { return len(l.queue) >= min(l.opts.Batch-1, l.opts.Queue) }

// put queues an entry, and says whether it did. One that must not be lost waits for room:
// no lock may be held then that somebody takes for whom the writer waits, a session's or a
// recorder's among them.
func (l *Log) put(e entry, mustKeep bool) bool {
	if l.offer(e) {
		return true
	}
	if !mustKeep {
		l.dropped.Add(1)
		return false
	}
	select {
	case l.queue <- e:
		l.queued(e)
		return true
	case <-l.closing:
		l.dropped.Add(1)
		return false
	}
}

// handOverEvery is how long what happens on a live connection waits for company. It waits
// for half of that at least: of a connection that is over by then, as that of a claim, all is
// one write.
const handOverEvery = time.Second

// soon has a recorder's handOver called within handOverEvery.
func (l *Log) soon(r *Recorder) {
	l.lateMu.Lock()
	defer l.lateMu.Unlock()
	l.later = append(l.later, r)
}

// handOver gives the writer what recorders have for it.
func (l *Log) handOver() {
	l.handOverLate()
	l.handOverLate()
}

// handOverLate gives the writer what recorders have for it that were there in the round
// before.
func (l *Log) handOverLate() {
	l.handing.Lock()
	defer l.handing.Unlock()
	l.lateMu.Lock()
	late := l.late
	l.late, l.later = l.later, nil
	l.lateMu.Unlock()
	for _, r := range late {
		r.handOver()
	}
}

func (l *Log) hander() {
	ticker := time.NewTicker(handOverEvery / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.handOverLate()
		case <-l.closing:
			return
		}
	}
}

// timeDigits is how many digits of an id are its time.
const timeDigits = 12

// NewID makes an id that sorts by time: 12 hex digits of milliseconds and 20
// random ones.
func NewID(now time.Time) string {
	var raw [16]byte
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		raw[i] = byte(ms >> (40 - 8*i))
	}
	// Nobody needs to be kept from guessing an id: it opens nothing.
	binary.LittleEndian.PutUint64(raw[6:], rand.Uint64())
	binary.LittleEndian.PutUint16(raw[14:], uint16(rand.Uint32()))
	return hex.EncodeToString(raw[:])
}
