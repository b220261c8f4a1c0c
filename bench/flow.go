package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

const (
	// maxRecord is the most that one TLS record holds.
	maxRecord = 16 << 10
	// windowBytes bounds what is under way to one subscriber: half of what a
	// server keeps for a slow one, so that none must drop a message.
	windowBytes = 512 << 10
	// Messages under way to one subscriber, from all its publishers. At QoS 1 that
	// is less than what Imprint's queue holds, and a hundred publishers have fewer
	// each than AWS IoT Core's receive maximum.
	window0, window1 = 4096, 4000
	// stallTimeout is how long a flow may stand still before messages count as
	// lost.
	stallTimeout = 10 * time.Second
)

// flow is publishers and subscribers, each subscriber of all publishers. The
// load is closed: a publisher sends when enough of what it sent has arrived at
// the slowest subscriber (and, at QoS 1, was acknowledged), so that a server is
// kept as busy as it can be and never has a reason to drop a message.
//
// One goroutine sends for all publishers; each connection has one that reads.
type flow struct {
	qos         mqtt.QoS
	payload     int
	window      uint64 // messages of one publisher under way
	publishers  []*publisher
	subscribers []*subscriber
	epoch       time.Time
	stall       time.Duration

	progress chan struct{} // capacity 1: much has arrived, or something at the end
	draining atomic.Bool   // the sender waits for the last messages
	// One reader failed; it fails the flow.
	failed context.CancelCauseFunc
	ctx    context.Context
	over   atomic.Bool
	reads  sync.WaitGroup
}

type publisher struct {
	link   *link
	number int
	news   news
	sent   uint64        // owned by the sender
	acked  atomic.Uint64 // PUBACKs
	one    []byte        // a whole PUBLISH, the stamp to be filled in
	out    []byte
}

type subscriber struct {
	link     *link
	ledger   *ledger
	news     news
	incoming mqtt.Publish
	acks     []byte
	// sampling: how long messages took is kept. Whoever sets it or takes the
	// samples does so while nothing is under way.
	sampling atomic.Bool
	samples  []time.Duration
}

// newFlow makes a flow without anyone in it. End closes all.
func newFlow(ctx context.Context, qos mqtt.QoS, payload int) *flow {
	f := &flow{qos: qos, payload: payload, epoch: time.Now(), progress: make(chan struct{}, 1), stall: stallTimeout}
	f.ctx, f.failed = context.WithCancelCause(ctx)
	return f
}

// publish adds a publisher. All come before begin and the first subscriber.
func (f *flow) publish(l *link, topic string) {
	p := &publisher{link: l, number: len(f.publishers)}
	packet := mqtt.Publish{Topic: []byte(topic), Payload: make([]byte, f.payload), QoS: f.qos}
	if f.qos > 0 {
		packet.PacketID = 1 // overwritten
	}
	p.one = packet.Append(nil, mqtt.V311)
	p.out = make([]byte, 0, max(maxRecord, len(p.one)))
	f.publishers = append(f.publishers, p)
	all := uint64(window0)
	if f.qos > 0 {
		all = window1
	}
	all = min(all, uint64(windowBytes/len(p.one)))
	f.window = max(1, all/uint64(len(f.publishers)))
}

// subscribe adds a subscriber and begins to read its messages. It comes after
// the publishers.
func (f *flow) subscribe(l *link) {
	s := &subscriber{link: l, ledger: newLedger(len(f.publishers))}
	s.news.enough = f.window * uint64(len(f.publishers)) / 8
	f.subscribers = append(f.subscribers, s)
	f.reads.Go(func() { f.check(f.receive(s)) })
}

// begin begins to read the acknowledgements of all publishers.
func (f *flow) begin() {
	for _, p := range f.publishers {
		p.news.enough = f.window / 8
		f.reads.Go(func() { f.check(f.acknowledged(p)) })
	}
}

// check fails the flow when a reader ended before the flow's end.
func (f *flow) check(err error) {
	if err != nil && !f.over.Load() {
		f.failed(err)
	}
}

// news is what one reader has seen and the sender hasn't been told.
type news struct{ untold, enough uint64 }

// notify wakes the sender when it is worth it: a sender that waits has half of
// a window under way, so more than enough comes.
func (f *flow) notify(n *news) {
	if n.untold < n.enough && !f.draining.Load() {
		return
	}
	n.untold = 0
	select {
	case f.progress <- struct{}{}:
	default:
	}
}

// acknowledged reads a publisher's PUBACKs, which come in the order of its
// messages [MQTT-4.6.0-2].
func (f *flow) acknowledged(p *publisher) error {
	var ack mqtt.Ack
	for {
		header, body, ok, err := p.link.cut()
		if err != nil {
			return err
		}
		if !ok {
			if !p.link.ahead() {
				f.notify(&p.news)
			}
			err = p.link.fill()
			if err != nil {
				return fmt.Errorf("publisher %d: %w", p.number, err)
			}
			continue
		}
		if header.Type != mqtt.TypePuback {
			return fmt.Errorf("publisher %d: a %s came, a PUBACK was expected", p.number, header.Type)
		}
		err = ack.Decode(header, body, mqtt.V311)
		if err != nil {
			return fmt.Errorf("publisher %d: couldn't read PUBACK: %w", p.number, err)
		}
		count := p.acked.Load()
		if ack.PacketID != packetID(count) {
			return fmt.Errorf("publisher %d: the PUBACK of message %d came where that of %d is next", p.number, ack.PacketID, packetID(count))
		}
		p.acked.Store(count + 1)
		p.news.untold++
	}
}

// packetID is the id of a publisher's message; 0 is none.
func packetID(number uint64) uint16 { return uint16(number%65535) + 1 }

// receive reads a subscriber's messages and acknowledges those of one read
// together.
func (f *flow) receive(s *subscriber) error {
	for {
		header, body, ok, err := s.link.cut()
		if err != nil {
			return err
		}
		if ok {
			err = f.message(s, header, body)
			if err != nil {
				return err
			}
			s.news.untold++
			continue
		}
		if !s.link.ahead() {
			err = s.acknowledge()
			if err != nil {
				return err
			}
			f.notify(&s.news)
		}
		err = s.link.fill()
		if err != nil {
			return fmt.Errorf("a subscriber: %w", err)
		}
	}
}

// acknowledge sends the PUBACKs of what came so far.
func (s *subscriber) acknowledge() error {
	if len(s.acks) == 0 {
		return nil
	}
	_, err := s.link.conn.Write(s.acks)
	s.acks = s.acks[:0]
	if err != nil {
		return fmt.Errorf("a subscriber couldn't acknowledge: %w", err)
	}
	return nil
}

func (f *flow) message(s *subscriber, header mqtt.FixedHeader, body []byte) error {
	packet := &s.incoming
	err := packet.Decode(header, body, mqtt.V311)
	if err != nil {
		return fmt.Errorf("couldn't read a message: %w", err)
	}
	if packet.QoS != f.qos {
		return fmt.Errorf("couldn't account for every message: one came with QoS %d, all were sent with %d", packet.QoS, f.qos)
	}
	mark, err := readStamp(packet.Payload, f.payload)
	if err != nil {
		return err
	}
	if s.sampling.Load() {
		s.samples = append(s.samples, time.Since(f.epoch)-mark.due)
	}
	if packet.QoS > 0 {
		ack := mqtt.Ack{Type: mqtt.TypePuback, PacketID: packet.PacketID}
		s.acks = ack.Append(s.acks, mqtt.V311)
	}
	return s.ledger.take(mark, packet.Dup)
}

// credit is how many messages a publisher may send now.
func (f *flow) credit(p *publisher) uint64 {
	arrived := p.sent
	for _, s := range f.subscribers {
		arrived = min(arrived, s.ledger.count(p.number))
	}
	if f.qos > 0 {
		arrived = min(arrived, p.acked.Load())
	}
	return f.window - min(f.window, p.sent-arrived)
}

// emit sends n messages in one write.
func (p *publisher) emit(n uint64, qos mqtt.QoS, payload int, due time.Duration) error {
	p.out = p.out[:0]
	for range n {
		p.out = append(p.out, p.one...)
		body := p.out[len(p.out)-payload:]
		stamp{publisher: uint32(p.number), number: p.sent, due: due}.put(body)
		if qos > 0 {
			at := len(p.out) - payload - 2
			binary.BigEndian.PutUint16(p.out[at:], packetID(p.sent))
		}
		p.sent++
	}
	_, err := p.link.conn.Write(p.out)
	if err != nil {
		return fmt.Errorf("publisher %d: couldn't send: %w", p.number, err)
	}
	return nil
}

// flood sends as fast as the window allows, for a time or up to a number of
// messages, and returns when all have arrived.
func (f *flow) flood(lasting time.Duration, most uint64) error {
	f.patient(true)
	defer f.patient(false)
	until := time.Now().Add(lasting)
	batch := uint64(max(1, maxRecord/len(f.publishers[0].one)))
	// A publisher waits for half of its window, so that it doesn't send one
	// message at a time.
	least := max(1, f.window/2)
	sent := uint64(0)
	for sent < most && time.Now().Before(until) {
		some := false
		for _, p := range f.publishers {
			n := min(f.credit(p), batch, most-sent)
			if n == 0 || n < least && n < batch && n < most-sent {
				continue
			}
			err := p.emit(n, f.qos, f.payload, time.Since(f.epoch))
			if err != nil {
				return f.cause(err)
			}
			some = true
			sent += n
		}
		if some {
			continue
		}
		err := f.wait()
		if err != nil {
			return err
		}
	}
	return f.drain()
}

// patient makes all readers leave the cores to the server, which a flood is
// about, or read everything at once.
func (f *flow) patient(yes bool) {
	for _, p := range f.publishers {
		p.link.patient(yes)
	}
	for _, s := range f.subscribers {
		s.link.patient(yes)
	}
}

// pace sends one message after the other at a steady rate, whatever the server
// does, and returns when all have arrived. Each carries the moment when it was
// due, so that what a slow server delays counts, too.
func (f *flow) pace(rate int, lasting time.Duration, most uint64) error {
	p := f.publishers[0]
	began := time.Since(f.epoch)
	count := min(uint64(lasting.Seconds()*float64(rate)), most)
	for n := range count {
		due := began + time.Duration(n)*time.Second/time.Duration(rate)
		pause(due - time.Since(f.epoch))
		err := p.emit(1, f.qos, f.payload, due)
		if err != nil {
			return f.cause(err)
		}
	}
	return f.drain()
}

// drain waits until everything that was sent has arrived.
func (f *flow) drain() error {
	f.draining.Store(true)
	defer f.draining.Store(false)
	for {
		left := 0
		for _, p := range f.publishers {
			if f.credit(p) < f.window {
				left++
			}
		}
		if left == 0 {
			return f.cause(nil)
		}
		err := f.wait()
		if err != nil {
			return err
		}
	}
}

// wait returns when something arrived.
func (f *flow) wait() error {
	timer := time.NewTimer(f.stall)
	defer timer.Stop()
	select {
	case <-f.progress:
		return nil
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	case <-timer.C:
		return f.stalled()
	}
}

func (f *flow) stalled() error {
	sent, came, acked := uint64(0), uint64(0), uint64(0)
	for _, p := range f.publishers {
		sent += p.sent
		acked += p.acked.Load()
	}
	for _, s := range f.subscribers {
		came += s.ledger.total()
	}
	return fmt.Errorf("couldn't account for every message: %d were sent to %d subscribers, %d came, %d were acknowledged, and nothing more within %s",
		sent, len(f.subscribers), came, acked, f.stall)
}

// cause is why a flow failed: what a reader saw says more than what a writer
// met after.
func (f *flow) cause(err error) error {
	if f.ctx.Err() != nil {
		return context.Cause(f.ctx)
	}
	return err
}

// arrived is how many messages all subscribers got.
func (f *flow) arrived() uint64 {
	sum := uint64(0)
	for _, s := range f.subscribers {
		sum += s.ledger.total()
	}
	return sum
}

// end closes every connection and waits for its reader.
func (f *flow) end() {
	f.over.Store(true)
	for _, p := range f.publishers {
		// The server may have closed it first; what was sent has arrived.
		_ = p.link.conn.Close()
	}
	for _, s := range f.subscribers {
		_ = s.link.conn.Close()
	}
	f.reads.Wait()
	f.failed(nil)
}
