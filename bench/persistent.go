package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/imprint-iot/imprint/mqtt"
)

// absentMessages is the most that is sent to an absent device: servers bound
// what they keep.
const absentMessages = 10_000

// errNoSession says that a server forgot a device that asked it not to.
var errNoSession = errors.New("couldn't come back to the session: the server kept none (CONNACK says that no session is present)")

// checkPersistence says whether the server keeps a session.
func (c *contender) checkPersistence(ctx context.Context, who *device) error {
	l, err := c.door.link(ctx, who, wish{keep: true, filter: flowTopics + "+", qos: mqtt.QoS1})
	if err != nil {
		return err
	}
	err = l.leave()
	if err != nil {
		return err
	}
	l, err = c.door.link(ctx, who, wish{keep: true})
	if err != nil {
		return err
	}
	present := l.present
	err = l.leave()
	if err != nil {
		return err
	}
	if !present {
		return errNoSession
	}
	return c.forget(ctx, who)
}

// forget ends a device's session.
func (c *contender) forget(ctx context.Context, who *device) error {
	l, err := c.door.link(ctx, who, wish{})
	if err != nil {
		return err
	}
	return l.leave()
}

// persistent measures QoS 1 messages to a device whose session outlives its
// connection, while it is connected and while it isn't.
func (a *arena) persistent(ctx context.Context) ([]Figure, error) {
	connected, err := a.toConnected(ctx)
	if err != nil {
		return nil, fmt.Errorf("connected: %w", err)
	}
	absent, caughtUp, err := a.toAbsent(ctx, a.ours)
	if err != nil {
		return nil, fmt.Errorf("absent: %w", err)
	}
	figures := throughputFigures("QoS 1 to a connected persistent session", []tally{connected}, 0)
	figures = append(figures, throughputFigures("QoS 1 to an absent persistent session, acknowledged", []tally{absent}, 0)...)
	return append(figures,
		Plain("QoS 1 from an absent session's queue, by the clock", caughtUp.byClock(), "messages/s"),
		Plain("QoS 1 from an absent session's queue", caughtUp.byCPU(), "messages/CPU-s"),
	), nil
}

func (a *arena) toConnected(ctx context.Context) (t tally, err error) {
	f, err := a.openFlow(ctx, a.ours, oneToOne(), mqtt.QoS1, true)
	if err != nil {
		return t, err
	}
	defer f.end()
	err = a.warmFlow(f)
	if err != nil {
		return t, err
	}
	err = a.profiled(ctx, a.profile("persistent-connected"), func() error {
		t, err = a.ours.round(f.arrived, func() error { return a.flood(f) })
		return err
	})
	return t, err
}

// toAbsent sends to a device that left, and has it come again and get
// everything. It gives what the sending took, and the coming.
func (a *arena) toAbsent(ctx context.Context, c *contender) (sending, coming tally, err error) {
	publisher, who := a.devices[0], a.devices[1]
	err = c.forget(ctx, who)
	if err != nil {
		return sending, coming, err
	}
	l, err := c.door.link(ctx, who, wish{keep: true, filter: flowTopics + "+", qos: mqtt.QoS1})
	if err != nil {
		return sending, coming, err
	}
	err = l.leave()
	if err != nil {
		return sending, coming, err
	}
	f := newFlow(ctx, mqtt.QoS1, a.opts.Payload)
	defer f.end()
	l, err = c.door.link(ctx, publisher, wish{how: approach{bulk: true}})
	if err != nil {
		return sending, coming, err
	}
	f.publish(l, flowTopics+publisher.thing)
	f.begin()
	err = a.profiled(ctx, a.profile("persistent-absent"), func() error {
		sending, err = c.round(f.publishers[0].acked.Load, func() error {
			return f.flood(a.opts.Lasting, min(a.opts.most(), absentMessages))
		})
		return err
	})
	if err != nil {
		return sending, coming, err
	}
	coming, err = c.round(f.arrived, func() error { return f.comeBack(ctx, c, who) })
	if err != nil {
		return sending, coming, err
	}
	f.end()
	return sending, coming, c.forget(ctx, who)
}

// comeBack connects the absent subscriber, which must get every message.
func (f *flow) comeBack(ctx context.Context, c *contender, who *device) error {
	l, err := c.door.link(ctx, who, wish{how: approach{bulk: true}, keep: true})
	if err != nil {
		return err
	}
	if !l.present {
		return errors.Join(errNoSession, l.leave())
	}
	f.subscribe(l)
	return f.drain()
}
