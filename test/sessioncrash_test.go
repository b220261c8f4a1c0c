package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// stubborn is a publisher that sends each message until it is acknowledged,
// whatever happens to the server in between.
type stubborn struct {
	side    *side
	name    string
	version mqtt.Version
	retain  bool
	topic   func(n int) string

	mu sync.Mutex
	// sends counts how often message n was sent; acked is the last one that was
	// acknowledged.
	sends []int
	acked int
}

// run publishes messages 1 to n.
func (p *stubborn) run(ctx context.Context, t *testing.T, n int, more func()) {
	var w *wire
	for next := 1; next <= n && ctx.Err() == nil; {
		if w == nil {
			var err error
			w, err = p.side.tryOpen(t, "", mqtt.Connect{ClientID: p.name, CleanStart: true}, p.version)
			if err != nil {
				pause(ctx, 20*time.Millisecond)
				continue
			}
		}
		p.mu.Lock()
		for len(p.sends) <= next {
			p.sends = append(p.sends, 0)
		}
		again := p.sends[next] > 0
		p.sends[next]++
		p.mu.Unlock()
		reason, err := w.tryPublish(mqtt.Publish{Topic: []byte(p.topic(next)), Payload: fmt.Appendf(nil, "%s %d", p.name, next), QoS: 1, Retain: p.retain, Dup: again})
		if err != nil {
			w.cut()
			w = nil
			continue
		}
		if reason >= mqtt.UnspecifiedError {
			t.Errorf("%s, message %d: PUBACK %s", p.name, next, reason)
			return
		}
		p.mu.Lock()
		p.acked = next
		p.mu.Unlock()
		next++
		more()
	}
	if w != nil {
		w.close()
	}
}

func (p *stubborn) state() (acked, sent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked, max(0, len(p.sends)-1)
}

// faithful is a subscriber with a persistent session that writes down what it
// gets.
type faithful struct {
	side    *side
	id      string
	version mqtt.Version
	got     []*mqtt.Publish
	last    map[string]int // the highest number of each publisher
}

// subscribe makes the session; it is never asked for again.
func (f *faithful) subscribe(t *testing.T, filters ...mqtt.Subscription) {
	f.last = map[string]int{}
	w := f.side.open(t, persistent(f.id, f.version), f.version)
	w.subscribe(filters...)
	w.close()
}

// listen connects whenever it isn't on and takes messages until it has got
// number n of every publisher.
func (f *faithful) listen(ctx context.Context, t *testing.T, publishers []*stubborn, n int) {
	var w *wire
	for ctx.Err() == nil && !f.has(publishers, n) {
		if w == nil {
			var err error
			w, err = f.side.tryOpen(t, "", persistent(f.id, f.version), f.version)
			if err != nil {
				pause(ctx, 20*time.Millisecond)
				continue
			}
			if !w.connack.SessionPresent {
				t.Errorf("%s: session present after a restart: got false, want true", f.id)
				return
			}
		}
		packet, err := w.tryNext(time.Second)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			w.cut()
			w = nil
			continue
		}
		m, ok := packet.(*mqtt.Publish)
		if !ok {
			continue
		}
		f.got = append(f.got, m)
		name, number := numberOf(m)
		f.last[name] = max(f.last[name], number)
	}
	if w != nil {
		w.close()
	}
}

func (f *faithful) has(publishers []*stubborn, n int) bool {
	for _, p := range publishers {
		if f.last[p.name] < n {
			return false
		}
	}
	return true
}

func numberOf(m *mqtt.Publish) (string, int) {
	name, number, _ := strings.Cut(string(m.Payload), " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		return string(m.Payload), 0
	}
	return name, n
}

// check says what is missing, out of order, or twice without a reason.
func (f *faithful) check(t *testing.T, publishers []*stubborn, n int) {
	t.Helper()
	for _, p := range publishers {
		first, fresh := 0, map[int]int{}
		for _, m := range f.got {
			name, number := numberOf(m)
			if name != p.name {
				continue
			}
			if !m.Dup {
				fresh[number]++
			}
			if number == first+1 {
				first = number
			} else if number > first {
				t.Errorf("%s got message %d of %s after %d: some are missing or out of order", f.id, number, p.name, first)
				first = number
			}
		}
		if first != n {
			t.Errorf("%s got messages of %s up to %d, want up to %d", f.id, p.name, first, n)
		}
		for number, count := range fresh {
			// Each time that the publisher sent it may make a message; what the
			// server itself sends again carries DUP.
			if count > p.sends[number] {
				t.Errorf("%s got message %d of %s without DUP %d times, and it was sent %d times", f.id, number, p.name, count, p.sends[number])
			}
		}
	}
}

func TestKillAtAnyMomentLosesNoMessageSessionOrRetainedMessage(t *testing.T) {
	need(t, "openssl")
	t.Parallel()
	const kills, messages = 5, 120
	s := newStage(t)
	var publishers []*stubborn
	for n, version := range []mqtt.Version{mqtt.V311, mqtt.V5, mqtt.V5} {
		name := fmt.Sprintf("crash-from-%d", n)
		publishers = append(publishers, &stubborn{side: s.one, name: name, version: version,
			topic: func(n int) string { return fmt.Sprintf("crash/%s/%d", name, n%3) }})
	}
	keeper := &stubborn{side: s.one, name: "crash-keeper", version: mqtt.V5, retain: true, topic: func(int) string { return "kept/crash" }}
	var subscribers []*faithful
	for _, version := range bothVersions {
		for _, id := range []string{"crash-on-", "crash-away-"} {
			f := &faithful{side: s.one, id: id + short(version), version: version}
			f.subscribe(t, at1("crash/#"))
			subscribers = append(subscribers, f)
		}
	}
	theirs := &faithful{side: s.two, id: "crash-away-5", version: mqtt.V5}
	theirs.subscribe(t, at1("#"))

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	acknowledged := newLedger()
	var sending, listening sync.WaitGroup
	for _, p := range append(publishers, keeper) {
		sending.Go(func() { p.run(ctx, t, messages, func() { acknowledged.note(p.name) }) })
	}
	for _, f := range subscribers {
		if strings.HasPrefix(f.id, "crash-on-") {
			listening.Go(func() { f.listen(ctx, t, publishers, messages) })
		}
	}
	random := newRandom(t)
	for n := range kills {
		// After some more acknowledgements, anywhere within what follows.
		if !acknowledged.await(ctx, len(acknowledged.all())+1+random.IntN(60)) {
			break
		}
		pause(ctx, time.Duration(random.IntN(20_000))*time.Microsecond)
		s.signal(killed)
		acked, _ := keeper.state()
		s.start()
		t.Logf("kill %d: %d messages were acknowledged", n+1, len(acknowledged.all()))
		checkRetained(t, s, keeper, acked)
		if len(acknowledged.all()) == (len(publishers)+1)*messages {
			break
		}
	}
	sending.Wait()
	// Those who were away come back for all of it.
	for _, f := range subscribers {
		if strings.HasPrefix(f.id, "crash-away-") {
			listening.Go(func() { f.listen(ctx, t, publishers, messages) })
		}
	}
	listening.Wait()
	if ctx.Err() != nil {
		t.Error("the clients didn't finish in time")
	}
	for _, f := range subscribers {
		f.check(t, publishers, messages)
	}
	checkRetained(t, s, keeper, messages)
	w := s.two.open(t, persistent(theirs.id, mqtt.V5), mqtt.V5)
	if !w.connack.SessionPresent {
		t.Error("session of the other tenant: gone")
	}
	w.expectNothing()
	w.close()
	s.awaitEmpty(t)
}

// checkRetained says whether the retained message is one that was sent, and
// none older than what was acknowledged.
func checkRetained(t *testing.T, s *stage, keeper *stubborn, acked int) {
	t.Helper()
	w := s.one.open(t, mqtt.Connect{ClientID: "crash-look", CleanStart: true}, mqtt.V5)
	defer w.close()
	w.subscribe(at1("kept/crash"))
	if acked == 0 {
		return
	}
	m := w.receive()
	_, number := numberOf(m)
	_, sent := keeper.state()
	if number < acked || number > sent {
		t.Errorf("retained message: got number %d, want one from %d (acknowledged) to %d (sent)", number, acked, sent)
	}
}
