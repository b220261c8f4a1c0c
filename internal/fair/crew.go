package fair

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/pause"
)

const (
	// lookAgain is how long nothing is looked at when nothing happens.
	lookAgain = time.Hour
	// retry is the pause after a failure of the store, and after a round that couldn't
	// look at all queues.
	retry = time.Second
)

// Duty is what a Crew does: rows of the store, each due at its time, which doing takes
// away or puts off.
type Duty[T any] struct {
	Name   string // for the log, such as asynchronous calls
	Store  imprint.Store
	Clock  imprint.Clock
	Logger *slog.Logger
	// Owed is the work as of a time, and Next when more of it becomes due after that;
	// the zero time: never.
	Owed func(imprint.ReadTx, time.Time) Source[T]
	Next func(imprint.ReadTx, time.Time) (time.Time, error)
	ID   func(T) string
	// Do does one piece and writes down what became of it. Its error is the store's:
	// the piece is due still. The context ends with the crew; what it interrupts is done
	// again after the next start.
	Do func(context.Context, T) error
	// GiveUp takes a piece away whose doing panicked, as it would again and again. Its
	// error is the store's.
	GiveUp func(ctx context.Context, piece T, why error) error
	// OfQueue bounds the workers of one queue; 0: nothing else does.
	OfQueue int
}

// Crew does what is due, whenever something came, something was done, or the time of
// something has come.
type Crew[T any] struct {
	duty   Duty[T]
	places *Places // of work under way
	rounds *Rounds[T]
	wake   chan struct{}
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// NewCrew makes a crew of so many workers. It begins with Start.
func NewCrew[T any](workers int, duty Duty[T]) *Crew[T] {
	places := New(workers)
	c := &Crew[T]{duty: duty, places: places, rounds: NewRounds[T](places), wake: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Start begins with what the store has.
func (c *Crew[T]) Start() {
	c.Poke()
	c.work.Go(c.loop)
}

// Close interrupts the work and waits for it.
func (c *Crew[T]) Close() {
	c.cancel()
	c.work.Wait()
}

// Context ends with Close.
func (c *Crew[T]) Context() context.Context { return c.ctx }

// Poke tells that something is due.
func (c *Crew[T]) Poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// UnderWay is how many work.
func (c *Crew[T]) UnderWay() int { return c.places.Held() }

// Waiting counts the queues whose due work waits for a place because they
// or their account have as many as they may.
func (c *Crew[T]) Waiting(ctx context.Context) (count int, err error) {
	now := c.duty.Clock()
	err = c.duty.Store.View(ctx, func(tx imprint.ReadTx) error {
		count, err = Waiting(c.places, c.duty.Owed(tx, now), now)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("couldn't read what waits of %s: %w", c.duty.Name, err)
	}
	return count, nil
}

func (c *Crew[T]) loop() {
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		}
		next, err := c.round()
		if c.ctx.Err() != nil {
			return
		}
		if err != nil {
			c.duty.Logger.Error("couldn't read what is due of "+c.duty.Name, "error", err)
			next = retry
		}
		timer.Reset(next)
	}
}

// round starts what is due and has a place, and says when to look again.
func (c *Crew[T]) round() (time.Duration, error) {
	now := c.duty.Clock()
	var due []Work[T]
	var all bool
	var next time.Time
	err := c.duty.Store.View(c.ctx, func(tx imprint.ReadTx) error {
		var err error
		due, all, err = c.rounds.Next(c.duty.Owed(tx, now), now)
		if err != nil {
			return err
		}
		next, err = c.duty.Next(tx, now)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, w := range due {
		if c.places.Take(c.duty.ID(w.Item), w.Queue, c.duty.OfQueue) {
			c.work.Go(func() { c.one(w) })
		}
	}
	wait := lookAgain
	if !next.IsZero() {
		wait = min(max(next.Sub(now), time.Millisecond), wait)
	}
	if !all {
		wait = min(wait, retry)
	}
	return wait, nil
}

// do does a piece, and gives it up when that panics: else the server ended, at each start
// again.
func (c *Crew[T]) do(id string, piece T) (err error) {
	defer func() {
		value := recover()
		if value == nil {
			return
		}
		c.duty.Logger.Error("one of "+c.duty.Name+" panicked", "id", id, "panic", value, "stack", string(debug.Stack()))
		err = c.duty.GiveUp(c.ctx, piece, imprint.Errorf(imprint.CodeInternal, "an internal error, which the server's log is about"))
	}()
	return c.duty.Do(c.ctx, piece)
}

func (c *Crew[T]) one(w Work[T]) {
	id := c.duty.ID(w.Item)
	defer c.Poke()
	defer c.places.Give(id, w.Queue)
	err := c.do(id, w.Item)
	if err == nil || c.ctx.Err() != nil {
		return
	}
	c.duty.Logger.Error("couldn't look after one of "+c.duty.Name, "id", id, "error", err)
	pause.For(c.ctx, retry)
}
