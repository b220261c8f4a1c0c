package broker_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// promises are what clients were told up to some moment.
type promises struct {
	acked     map[string]bool            // messages that the publisher has a PUBACK for
	delivered map[string]map[string]bool // by session
	settled   map[string]map[string]bool // acknowledged by the session, or about to be
	filters   map[string]bool            // SUBACK: true; UNSUBACK: false
	retained  int                        // last number that is acknowledged as retained
}

// witness writes the promises down, and takes images of the store in the middle
// of commits.
type witness struct {
	mu sync.Mutex
	promises
	path   string
	every  int64
	count  atomic.Int64
	images []image
	failed error
}

// image is the store as a crash would have left it.
type image struct {
	path string
	promises
	at string
}

func newWitness(path string, every int64) *witness {
	return &witness{path: path, every: every, promises: promises{
		acked: map[string]bool{}, delivered: map[string]map[string]bool{}, settled: map[string]map[string]bool{}, filters: map[string]bool{},
	}}
}

func (p *promises) copy() promises {
	q := promises{acked: maps.Clone(p.acked), filters: maps.Clone(p.filters), retained: p.retained,
		delivered: map[string]map[string]bool{}, settled: map[string]map[string]bool{}}
	for name, all := range p.delivered {
		q.delivered[name] = maps.Clone(all)
	}
	for name, all := range p.settled {
		q.settled[name] = maps.Clone(all)
	}
	return q
}

// hook takes an image now and then. The committer waits for it: nothing is
// committed while the files are copied.
func (w *witness) hook(at string) func() error {
	return func() error {
		if w.every == 0 || w.count.Add(1)%w.every != 0 {
			return nil
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		n := len(w.images)
		to := fmt.Sprintf("%s.image%d", w.path, n)
		for _, suffix := range []string{"-wal", ""} {
			err := copyFile(to+suffix, w.path+suffix)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				w.failed = err
			}
		}
		w.images = append(w.images, image{path: to, promises: w.copy(), at: at})
		return nil
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (w *witness) note(fn func(*promises)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn(&w.promises)
}

// listen reads a session's messages, and acknowledges those that acks wants.
func (w *witness) listen(c *client, name string, acks func(n int) bool) {
	for n := 0; ; n++ {
		p, err := c.receive()
		if err != nil {
			return
		}
		got, ok := p.(*mqtt.Publish)
		if !ok {
			continue
		}
		ack := acks(n)
		w.note(func(p *promises) {
			p.delivered[name][string(got.Payload)] = true
			if ack {
				p.settled[name][string(got.Payload)] = true
			}
		})
		if ack {
			_, _ = c.conn.Write((&mqtt.Ack{Type: mqtt.TypePuback, PacketID: got.PacketID}).Append(nil, c.version))
		}
	}
}

type crashSession struct {
	name    string
	version mqtt.Version
	away    bool
	acks    func(n int) bool
}

var crashSessions = []crashSession{
	{name: "takes all", version: mqtt.V5, acks: func(int) bool { return true }},
	{name: "takes all 3.1.1", version: mqtt.V311, acks: func(int) bool { return true }},
	{name: "takes some", version: mqtt.V5, acks: func(n int) bool { return n%3 > 0 }},
	{name: "takes none", version: mqtt.V311, acks: func(int) bool { return false }},
	{name: "is away", version: mqtt.V5, away: true},
}

// crashMembers share a subscription. Those that are away after the crash have no
// stored session.
var crashMembers = []crashSession{
	{name: "keeps", version: mqtt.V5, acks: func(n int) bool { return n%3 > 0 }},
	{name: "keeps nothing", version: mqtt.V5, away: true, acks: func(n int) bool { return n%4 > 0 }},
	{name: "takes and keeps nothing", version: mqtt.V311, away: true, acks: func(int) bool { return false }},
}

// TestCrashesLoseNothingThatWasAcknowledged has publishers, subscribers and
// changing subscriptions at work, takes images of the store before and after
// commits, and starts a broker on each.
func TestCrashesLoseNothingThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	w := newWitness(path, 0)
	faults := sqlite.Faults{BeforeCommit: w.hook("before a COMMIT"), AfterCommit: w.hook("after a COMMIT")}
	h := newHouseOn(t, broker.Options{}, openStore(t, path, faults))
	h.update(func(tx imprint.Tx) error { return tx.PutTenantSettings(imprint.TenantSettings{Tenant: first}) })
	id := h.register(first, allowAll)
	for _, s := range crashSessions {
		w.delivered[s.name], w.settled[s.name] = map[string]bool{}, map[string]bool{}
		c := h.on(first, id, s.version, lasting(s.version, s.name, 1000))
		c.subscribe(1, "m/#")
		if s.away {
			c.cut()
			continue
		}
		h.serving.Go(func() { w.listen(c, s.name, s.acks) })
	}
	for _, s := range crashMembers {
		w.delivered[s.name], w.settled[s.name] = map[string]bool{}, map[string]bool{}
		connect := connectAs(s.name)
		if !s.away {
			connect = lasting(s.version, s.name, 1000)
		}
		c := h.on(first, id, s.version, connect)
		c.subscribe(1, "$share/g/m/#")
		h.serving.Go(func() { w.listen(c, s.name, s.acks) })
	}
	h.update(func(imprint.Tx) error { w.every = 13; return nil }) // by the committer's goroutine
	var working sync.WaitGroup
	for n := range 2 {
		pub := h.on(first, id, versions[n], connectAs(fmt.Sprint("pub", n)))
		working.Go(func() { w.publish(pub, n, 150) })
	}
	changing := h.on(first, id, mqtt.V5, lasting(mqtt.V5, "changes", 1000))
	working.Go(func() { w.change(changing, 30) })
	working.Wait()
	h.update(func(imprint.Tx) error { w.every = 0; return nil })
	if w.failed != nil || len(w.images) < 4 {
		t.Fatalf("got %d images, %v", len(w.images), w.failed)
	}
	const checked = 6
	for n := len(w.images) % checked; n < len(w.images); n += max(1, len(w.images)/checked) {
		t.Run(fmt.Sprintf("image %d", n), func(t *testing.T) { w.images[n].check(t, id) })
	}
}

// answered is expect for goroutines that aren't the test's own.
func answered[P mqtt.Packet](c *client) bool {
	c.Helper()
	p, err := c.receive()
	_, ok := p.(P)
	if !ok {
		c.Errorf("got %v, %v, want %T", p, err, *new(P))
	}
	return ok
}

func (w *witness) publish(c *client, who, many int) {
	for n := range many {
		payload := fmt.Sprintf("%d:%d", who, n)
		if !c.tryPublish("m/"+strconv.Itoa(who), payload) {
			return
		}
		w.note(func(p *promises) { p.acked[payload] = true })
		if who > 0 || n%10 > 0 {
			continue
		}
		c.send(&mqtt.Publish{Topic: []byte("kept"), Payload: []byte(strconv.Itoa(n + 1)), QoS: 1, PacketID: 8, Retain: true})
		if !answered[*mqtt.Ack](c) {
			return
		}
		w.note(func(p *promises) { p.retained = n + 1 })
	}
}

// change subscribes and unsubscribes.
func (w *witness) change(c *client, many int) {
	for n := range many {
		filter := fmt.Sprint("f/", n)
		c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: filter, QoS: 1}}})
		if !answered[*mqtt.Suback](c) {
			return
		}
		w.note(func(p *promises) { p.filters[filter] = true })
		if n%2 > 0 {
			continue
		}
		w.note(func(p *promises) { delete(p.filters, filter) }) // not known until it is answered
		c.send(&mqtt.Unsubscribe{PacketID: 4, Filters: []string{filter}})
		if !answered[*mqtt.Unsuback](c) {
			return
		}
		w.note(func(p *promises) { p.filters[filter] = false })
	}
}

// check starts a broker on the image and asks for all that was promised.
func (i *image) check(t *testing.T, id imprint.CertificateID) {
	h := newHouseOn(t, broker.Options{}, openStore(t, i.path, sqlite.Faults{}))
	pub := h.on(first, id, mqtt.V5, connectAs("after"))
	pub.published("m/end", "end")
	for _, s := range crashSessions {
		c := h.back(first, id, s.version, lasting(s.version, s.name, 1000))
		i.collect(c, s.name)
		c.cut()
	}
	i.collectShared(h.back(first, id, crashMembers[0].version, lasting(crashMembers[0].version, crashMembers[0].name, 1000)))
	c := h.on(first, id, mqtt.V5, connectAs("late"))
	c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "kept", QoS: 1}}})
	expect[*mqtt.Suback](c)
	if i.retained > 0 {
		got, _ := strconv.Atoi(string(expect[*mqtt.Publish](c).Payload))
		if got < i.retained {
			t.Errorf("%s: retained: got %d, want %d or later", i.at, got, i.retained)
		}
	}
	if len(i.filters) == 0 {
		return
	}
	changes := h.back(first, id, mqtt.V5, lasting(mqtt.V5, "changes", 1000))
	for filter, want := range i.filters {
		pub.published(filter, filter)
		if want {
			changes.gets(filter, filter, 1)
			continue
		}
		changes.silent()
	}
}

// collect wants every promised message, in each publisher's order, with DUP where
// the client had it before.
func (i *image) collect(c *client, name string) {
	c.Helper()
	got := map[string]bool{}
	latest := map[string]int{}
	for {
		p := expect[*mqtt.Publish](c)
		c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: p.PacketID})
		payload := string(p.Payload)
		if payload == "end" {
			break
		}
		who, number, _ := strings.Cut(payload, ":")
		n, err := strconv.Atoi(number)
		c.must(err)
		if before, some := latest[who]; some && n <= before {
			c.Errorf("%s, %s: got %d of publisher %s after %d", i.at, name, n, who, before)
		}
		latest[who], got[payload] = n, true
		if i.delivered[name][payload] && !p.Dup {
			c.Errorf("%s, %s: %s came again without DUP", i.at, name, payload)
		}
	}
	for payload := range i.acked {
		if !got[payload] && !i.settled[name][payload] {
			c.Errorf("%s, %s: %s was acknowledged to its publisher and is lost", i.at, name, payload)
		}
	}
	c.silent()
}

// collectShared wants every promised message that no member of the group has
// acknowledged.
func (i *image) collectShared(c *client) {
	c.Helper()
	missing := maps.Clone(i.acked)
	for _, s := range crashMembers {
		maps.DeleteFunc(missing, func(payload string, _ bool) bool { return i.settled[s.name][payload] })
	}
	for len(missing) > 0 {
		p, err := c.receive()
		if err != nil {
			c.Fatalf("%s: %d messages of a shared subscription are lost: %v", i.at, len(missing), err)
		}
		if got, ok := p.(*mqtt.Publish); ok {
			c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: got.PacketID})
			delete(missing, string(got.Payload))
		}
	}
	c.cut()
}

// failingStore is a store whose commits fail while it is told so.
type failingStore struct {
	mode atomic.Int32 // of failModes; 0: none
}

var failModes = []string{"works", "fails before COMMIT", "COMMIT fails", "fails but is persisted"}

var errBroken = errors.New("the disk is on fire")

func (f *failingStore) hook(mode int32) func() error {
	return func() error {
		if f.mode.Load() == mode {
			return errBroken
		}
		return nil
	}
}

func (f *failingStore) faults() sqlite.Faults {
	return sqlite.Faults{BeforeCommit: f.hook(1), Commit: f.hook(2), AfterCommit: f.hook(3)}
}

// failure is a change of the ledger, with what the client does for it and must
// not be told.
type failure struct {
	name string
	do   func(h *house, id imprint.CertificateID, v mqtt.Version, sub, pub *client)
}

// ended wants no success: the connection's end, or a reason for a QoS 1 publish.
func (c *client) fails() {
	c.Helper()
	for {
		p, err := c.receive()
		if err != nil {
			return
		}
		switch p := p.(type) {
		case *mqtt.Ack:
			if p.Reason < mqtt.UnspecifiedError {
				c.Errorf("got %s, want no success", p.Detail())
			}
			return
		case *mqtt.Disconnect, *mqtt.Publish:
		case *mqtt.Connack:
			if p.Reason == mqtt.Success {
				c.Errorf("got %s, want no success", p.Detail())
			}
		default:
			c.Errorf("got %s, want no success", p.Detail())
			return
		}
	}
}

var failures = []failure{
	{"message", func(_ *house, _ imprint.CertificateID, _ mqtt.Version, _, pub *client) {
		pub.publish(1, 3, "m", "unsure")
		pub.fails()
	}},
	{"retained message", func(_ *house, _ imprint.CertificateID, _ mqtt.Version, _, pub *client) {
		pub.send(&mqtt.Publish{Topic: []byte("kept"), Payload: []byte("unsure"), QoS: 1, PacketID: 3, Retain: true})
		pub.fails()
	}},
	{"end of a retained message", func(_ *house, _ imprint.CertificateID, _ mqtt.Version, _, pub *client) {
		pub.send(&mqtt.Publish{Topic: []byte("kept"), QoS: 1, PacketID: 3, Retain: true})
		pub.fails()
	}},
	{"subscription", func(_ *house, _ imprint.CertificateID, _ mqtt.Version, sub, _ *client) {
		sub.send(&mqtt.Subscribe{PacketID: 3, Filters: []mqtt.Subscription{{Filter: "new", QoS: 1}}})
		sub.fails()
	}},
	{"shared subscription", func(_ *house, _ imprint.CertificateID, _ mqtt.Version, sub, _ *client) {
		sub.send(&mqtt.Subscribe{PacketID: 3, Filters: []mqtt.Subscription{{Filter: "$share/g/new", QoS: 1}}})
		sub.fails()
	}},
	{"end of a subscription", func(_ *house, _ imprint.CertificateID, _ mqtt.Version, sub, _ *client) {
		sub.send(&mqtt.Unsubscribe{PacketID: 3, Filters: []string{"extra"}})
		sub.fails()
	}},
	{"acknowledgement", func(_ *house, _ imprint.CertificateID, _ mqtt.Version, sub, _ *client) {
		got := expect[*mqtt.Publish](sub)
		sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: got.PacketID})
		expect[*mqtt.Publish](sub)
		sub.silent()
	}},
	{"disconnection", func(_ *house, _ imprint.CertificateID, _ mqtt.Version, sub, _ *client) {
		expect[*mqtt.Publish](sub)
		sub.send(&mqtt.Disconnect{})
		sub.closed()
	}},
	{"takeover", func(h *house, id imprint.CertificateID, v mqtt.Version, _, _ *client) {
		c := h.door(first, id, v)
		c.send(lasting(v, "sub", 1000))
		c.fails()
	}},
	{"end of another session", func(h *house, id imprint.CertificateID, v mqtt.Version, _, _ *client) {
		c := h.door(first, id, v)
		c.send(connectAs("other"))
		c.fails()
	}},
}

// TestFailedCommits has every kind of change fail in every way: nobody is told of
// a success, what was acknowledged before is there, and the broker goes on, also
// after a restart.
func TestFailedCommits(t *testing.T) {
	t.Parallel()
	// A store with a tenant and a certificate, of which each test has a copy.
	template := filepath.Join(t.TempDir(), "registry.db")
	var id imprint.CertificateID
	t.Run("template", func(t *testing.T) {
		h := newHouseOn(t, broker.Options{}, openStore(t, template, sqlite.Faults{}))
		h.update(func(tx imprint.Tx) error { return tx.PutTenantSettings(imprint.TenantSettings{Tenant: first}) })
		id = h.register(first, allowAll)
	})
	for mode := 1; mode < len(failModes); mode++ {
		t.Run(failModes[mode], func(t *testing.T) {
			t.Parallel()
			for n, f := range failures {
				v := versions[(n+mode)%len(versions)] // each has both, in other ways to fail
				t.Run(fmt.Sprintf("%s, %s", f.name, v), func(t *testing.T) {
					path := filepath.Join(t.TempDir(), "registry.db")
					err := copyFile(path, template)
					if err != nil {
						t.Fatal(err)
					}
					f.test(t, path, id, int32(mode), v)
				})
			}
		})
	}
}

func (f *failure) test(t *testing.T, path string, id imprint.CertificateID, mode int32, v mqtt.Version) {
	store := &failingStore{}
	t.Run("before", func(t *testing.T) {
		h := newHouseOn(t, broker.Options{MaxInflight: 1}, openStore(t, path, store.faults()))
		other := h.on(first, id, v, lasting(v, "other", 1000))
		other.subscribe(1, "m")
		other.cut()
		sub := h.on(first, id, v, lasting(v, "sub", 1000))
		sub.subscribe(1, "m", "extra")
		pub := h.on(first, id, v, connectAs("pub"))
		pub.published("m", "1")
		pub.published("m", "2")
		h.must(h.log.Flush(t.Context()))
		store.mode.Store(mode)
		f.do(h, id, v, sub, pub)
		store.mode.Store(0)
		pub = h.on(first, id, v, connectAs("pub"))
		pub.published("m", "3")
	})
	t.Run("after", func(t *testing.T) {
		h := newHouseOn(t, broker.Options{}, openStore(t, path, sqlite.Faults{}))
		h.on(first, id, v, connectAs("pub")).published("m", "4")
		sub := h.back(first, id, v, lasting(v, "sub", 1000))
		acknowledged := f.name == "acknowledgement"
		sub.inOrder(!acknowledged, "1", "2", "3", "4")
		if f.name == "end of another session" {
			return // it may be there or not
		}
		h.back(first, id, v, lasting(v, "other", 1000)).inOrder(true, "1", "2", "3", "4")
	})
}

// inOrder wants these messages, the first one perhaps not; what the publisher was
// told had failed may be among them.
func (c *client) inOrder(firstToo bool, want ...string) {
	c.Helper()
	for len(want) > 0 {
		packet := expect[*mqtt.Publish](c)
		got := string(packet.Payload)
		c.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: packet.PacketID})
		switch {
		case got == "unsure":
		case got == want[0]:
			want = want[1:]
		case !firstToo && len(want) == 4 && got == want[1]:
			want = want[2:]
		default:
			c.Fatalf("got %q, want %q", got, want)
		}
	}
}
