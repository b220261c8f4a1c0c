package broker_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// chaos is a house whose store fails now and then, with what its clients were told.
type chaos struct {
	*house
	failing  atomic.Bool
	id, deaf imprint.CertificateID
	over     atomic.Bool
	mu       sync.Mutex
	acked    map[string]bool            // messages that their publisher has a PUBACK for
	settled  map[string]map[string]bool // acknowledged, or about to be, by who is to have all
}

func (c *chaos) faults() sqlite.Faults {
	now := func() error {
		if c.failing.Load() && rand.IntN(30) == 0 {
			return errBroken
		}
		return nil
	}
	return sqlite.Faults{BeforeCommit: now, Commit: now, AfterCommit: now}
}

// publish publishes until all is over, on new connections when it must.
func (c *chaos) publish(name string) {
	var pub *client
	for n := 0; !c.over.Load(); n++ {
		if pub == nil {
			pub = c.tryOn(c.id, mqtt.V5, connectAs(name))
			continue
		}
		payload := fmt.Sprintf("%s:%d:%s", name, n, strings.Repeat(".", rand.IntN(2)*100))
		pub.publish(1, 7, "t", payload)
		p, err := pub.receive()
		ack, ok := p.(*mqtt.Ack)
		if err != nil || !ok {
			pub = nil
			continue
		}
		if ack.Reason < mqtt.UnspecifiedError {
			c.mu.Lock()
			c.acked[payload] = true
			c.mu.Unlock()
		}
	}
	if pub != nil {
		_ = pub.conn.Close()
	}
}

// take acknowledges some messages and goes, with a word or without.
func (c *chaos) take(sub *client, who string, most int) {
	sub.hasty = 200 * time.Millisecond
	for n := rand.IntN(most) + 1; n > 0; n-- {
		p, err := sub.receive()
		if err != nil {
			break
		}
		m, ok := p.(*mqtt.Publish)
		if !ok || rand.IntN(8) == 0 {
			continue
		}
		c.mu.Lock()
		c.settled[who][string(m.Payload)] = true
		c.mu.Unlock()
		sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: m.PacketID})
	}
	if rand.IntN(2) == 0 {
		sub.send(&mqtt.Disconnect{})
	}
	_ = sub.conn.Close()
}

// member comes and goes as a member of the group whose session ends now and then.
func (c *chaos) member(name string, expiry uint32) {
	for !c.over.Load() {
		connect := connectAs(name)
		if expiry > 0 {
			connect = lasting(mqtt.V5, name, expiry)
			connect.CleanStart = rand.IntN(3) == 0
		}
		if rand.IntN(3) == 0 {
			connect.Properties.MaximumPacketSize = 80
			connect.Properties.Mark(mqtt.PropMaximumPacketSize)
		}
		id := c.id
		if rand.IntN(4) == 0 {
			id = c.deaf
		}
		sub := c.tryOn(id, mqtt.V5, connect)
		if sub == nil {
			continue
		}
		switch rand.IntN(4) {
		case 0:
			sub.send(&mqtt.Unsubscribe{PacketID: 2, Filters: []string{"$share/g/t"}})
		default:
			sub.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "$share/g/t", QoS: 1}}})
		}
		c.take(sub, "group", 60)
	}
}

// stay comes back to a session that never ends.
func (c *chaos) stay(name, who string) {
	for !c.over.Load() {
		sub := c.tryOn(c.id, mqtt.V5, lasting(mqtt.V5, name, 5000))
		if sub != nil {
			c.take(sub, who, 100)
		}
	}
}

// TestNothingIsLostWhileTheStoreFailsNowAndThen ensures that what was acknowledged to
// its publisher comes to a session and to a group, whatever commits fail, also those
// whose outcome is unknown, while members come and go, may not receive it or take
// nothing of its size.
func TestNothingIsLostWhileTheStoreFailsNowAndThen(t *testing.T) {
	t.Parallel()
	c := &chaos{acked: map[string]bool{}, settled: map[string]map[string]bool{"group": {}, "plain": {}}}
	path := filepath.Join(t.TempDir(), "registry.db")
	store := openStore(t, path, c.faults())
	c.house = newHouseOn(t, broker.Options{MaxInflight: 8}, store)
	c.id, c.deaf = c.register(first, allowAll), c.register(first, noReceive)
	c.on(first, c.id, mqtt.V5, lasting(mqtt.V5, "keeper", 5000)).subscribe(1, "$share/g/t")
	c.on(first, c.id, mqtt.V5, lasting(mqtt.V5, "plain", 5000)).subscribe(1, "t")
	var working sync.WaitGroup
	c.failing.Store(true)
	for _, work := range []func(){
		func() { c.publish("one") }, func() { c.publish("two") },
		func() { c.stay("keeper", "group") }, func() { c.stay("plain", "plain") },
		func() { c.member("stored", 30) }, func() { c.member("stored", 30) }, func() { c.member("other", 300) },
		func() { c.member("clean", 0) },
	} {
		working.Go(work)
	}
	c.eventually("enough is acknowledged", func() bool {
		if rand.IntN(20) == 0 && c.ahead.Load() < int64(time.Hour) { // what stays is kept for longer
			c.ahead.Add(int64(31 * time.Second))
			c.broker.LookAtTheClock()
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.acked) >= 300
	})
	c.over.Store(true)
	working.Wait()
	c.failing.Store(false)
	for _, name := range []string{"stored", "other", "clean"} {
		c.on(first, c.id, mqtt.V5, connectAs(name)).goodbye()
	}
	if rand.IntN(2) == 0 {
		c.must(c.broker.Shutdown(context.Background()))
		c.house = newHouseAt(t, broker.Options{}, store, c.now())
	}
	for name, who := range map[string]string{"keeper": "group", "plain": "plain"} {
		missing := maps.Clone(c.acked)
		maps.DeleteFunc(missing, func(payload string, _ bool) bool { return c.settled[who][payload] })
		sub := c.back(first, c.id, mqtt.V5, lasting(mqtt.V5, name, 5000))
		for len(missing) > 0 {
			p, err := sub.receive()
			if err != nil {
				t.Fatalf("%s: %d of %d messages are lost: %v: %q", who, len(missing), len(c.acked), err, slices.Sorted(maps.Keys(missing))[0])
			}
			if m, ok := p.(*mqtt.Publish); ok {
				sub.send(&mqtt.Ack{Type: mqtt.TypePuback, PacketID: m.PacketID})
				delete(missing, string(m.Payload))
			}
		}
	}
}
