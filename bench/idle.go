package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/imprint-iot/imprint/mqtt"
)

// perSource is how many connections one source address makes to one server:
// far less than it has ports.
const perSource = 10_000

// sourceOf gives each device an address of the loopback network.
func sourceOf(n int) net.IP {
	return net.IPv4(127, 0, byte(1+n/perSource/250), byte(2+n/perSource%250))
}

// opener opens one connection that is to stay.
type opener func(ctx context.Context, d *device, source net.IP) (io.Closer, error)

// heldConns are open connections.
type heldConns struct {
	mu  sync.Mutex
	all []io.Closer
}

// open adds connections of the devices from one number to another.
func (h *heldConns) open(ctx context.Context, a *arena, from, to int, open opener) error {
	_, err := each(ctx, to-from, a.opts.Concurrency, func(ctx context.Context, i int) (time.Duration, error) {
		conn, err := open(ctx, a.devices[from+i], sourceOf(from+i))
		if err != nil {
			return 0, fmt.Errorf("device %s: %w", a.devices[from+i].thing, err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all = append(h.all, conn)
		return 0, nil
	})
	return err
}

// close ends them without a goodbye, as a power cut does.
func (h *heldConns) close() {
	for _, conn := range h.all {
		_ = conn.Close()
	}
	h.all = nil
}

// footprint is what an idle connection takes of a server's memory: after a
// forced garbage collection, and as it was before that.
type footprint struct{ collected, uncollected float64 } // bytes

// weigh measures the idle connections of one server. The first tenth isn't
// counted: that fills the server's caches, which are bounded and no connection's
// own. A child that obeys collects its garbage first, and all devices have come
// once before; one that keeps the pages of those that went would seem to need
// none.
func (a *arena) weigh(ctx context.Context, c *child, obeys bool, open opener) (print footprint, err error) {
	var held heldConns
	defer held.close()
	first, all := a.opts.Connections/10, a.opts.Connections
	if obeys {
		err = held.open(ctx, a, 0, all, open)
		if err != nil {
			return print, err
		}
		held.close()
		_, err = a.size(ctx, c, obeys)
		if err != nil {
			return print, err
		}
	}
	err = held.open(ctx, a, 0, first, open)
	if err != nil {
		return print, err
	}
	before, err := a.size(ctx, c, obeys)
	if err != nil {
		return print, err
	}
	err = held.open(ctx, a, first, all, open)
	if err != nil {
		return print, err
	}
	uncollected, err := a.size(ctx, c, false)
	if err != nil {
		return print, err
	}
	after, err := a.size(ctx, c, obeys)
	if err != nil {
		return print, err
	}
	each := func(size int64) float64 { return float64(size-before) / float64(all-first) }
	return footprint{collected: each(after), uncollected: each(uncollected)}, nil
}

// size is a child's resident memory when it has nothing to do.
func (a *arena) size(ctx context.Context, c *child, collect bool) (int64, error) {
	err := c.idle(ctx)
	if err != nil {
		return 0, err
	}
	if collect {
		err = c.order(ctx, collectOrder)
		if err != nil {
			return 0, err
		}
	}
	return c.memory()
}

// subscribed opens an idle connection with one subscription.
func subscribed(d door) opener {
	return func(ctx context.Context, who *device, source net.IP) (io.Closer, error) {
		l, err := d.link(ctx, who, wish{how: approach{source: source}, filter: "devices/" + who.thing + "/commands", qos: mqtt.QoS1})
		if err != nil {
			return nil, err
		}
		l.quiet()
		return l.conn, nil
	}
}

// memory measures idle connections, Imprint's against the bare server's and,
// for information, mosquitto's.
func (a *arena) memory(ctx context.Context) ([]Figure, error) {
	bare, err := a.weigh(ctx, a.bare.child, true, func(ctx context.Context, d *device, source net.IP) (io.Closer, error) {
		return a.bare.hold(ctx, d, source)
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't weigh the reference: %w", err)
	}
	ours, err := a.weigh(ctx, a.server, true, subscribed(a.door))
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("memory of an idle connection, %d of them", a.opts.Connections)
	figures := []Figure{
		AtMost(name, kilobytes(ours.collected), "kB", kilobytes(bare.collected), memoryGoal),
		Beside(name+", garbage included", kilobytes(ours.uncollected), "kB", kilobytes(bare.uncollected)),
	}
	if a.rival == nil {
		return figures, nil
	}
	rival, err := a.weigh(ctx, a.rival.child, false, subscribed(a.rival.door))
	if err != nil {
		return nil, errors.Join(errors.New("couldn't weigh mosquitto"), err)
	}
	return append(figures, Plain("mosquitto: "+name, kilobytes(rival.collected), "kB")), nil
}

func kilobytes(n float64) float64 { return n / 1000 }
