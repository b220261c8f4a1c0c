package broker

import (
	"context"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// restorePage is how many rows are read at once.
const restorePage = 1000

// Restore takes up the sessions, shared subscriptions and retained messages that
// the store has. It is called once, before the first connection. Sessions that
// were connected when the server ended are kept for their whole expiry from now
// on.
func (b *Broker) Restore(ctx context.Context) error {
	r := &restoration{broker: b, sessions: map[int64]*session{}}
	err := b.store.View(ctx, r.read)
	if err != nil {
		return fmt.Errorf("couldn't restore the MQTT sessions: %w", err)
	}
	return r.settle(ctx)
}

// restoration is one reading of what the store has.
type restoration struct {
	broker   *Broker
	sessions map[int64]*session
	groups   map[int64]imprint.ShareGroup
	cut      []*session // were connected when the server ended
	expired  []int64    // sessions whose time is over
	orphans  []int64    // queues that belong to nothing
}

func (r *restoration) read(tx imprint.ReadTx) error {
	for _, step := range []func(imprint.ReadTx) error{r.readSessions, r.readGroups, r.readQueues, r.readSubscriptions, r.readRetained} {
		err := step(tx)
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *restoration) readSessions(tx imprint.ReadTx) error {
	for after := int64(0); ; {
		rows, err := tx.Sessions(after, restorePage)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			err = r.take(row)
			if err != nil {
				return err
			}
		}
		after = rows[len(rows)-1].Key
	}
}

func (r *restoration) take(row imprint.Session) error {
	b := r.broker
	now := b.clock()
	connected := row.ExpiresAt.IsZero()
	if connected {
		row.ExpiresAt = now.Add(row.Expiry)
	}
	if !row.ExpiresAt.After(now) && len(row.Will) == 0 {
		r.expired = append(r.expired, row.Key)
		return nil
	}
	rm := b.realm(row.Tenant)
	d := &durable{
		queue: queue{key: row.Key, last: row.SentThrough}, createdAt: row.CreatedAt, expiry: row.Expiry, expiresAt: row.ExpiresAt,
		sent: row.SentThrough, willAt: row.WillAt,
	}
	d.reserved.Store(row.SentThrough)
	if len(row.Will) > 0 {
		w, err := decodeWill(row.Will)
		if err != nil {
			return err
		}
		d.will = w
	}
	s := &session{broker: b, realm: rm, clientID: row.ClientID, version: mqtt.Version(row.Level), durable: d}
	r.sessions[row.Key] = s
	if connected {
		r.cut = append(r.cut, s)
	}
	rm.sessions[row.ClientID] = s
	rm.stored++
	b.count.stored.Add(1)
	return nil
}

func (r *restoration) readGroups(tx imprint.ReadTx) error {
	r.groups = map[int64]imprint.ShareGroup{}
	for after := int64(0); ; {
		rows, err := tx.ShareGroups(after, restorePage)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			r.groups[row.Key] = row
			r.broker.realm(row.Tenant).restored[row.Filter] = queue{key: row.Key}
		}
		after = rows[len(rows)-1].Key
	}
}

func (r *restoration) readQueues(tx imprint.ReadTx) error {
	for after := int64(0); ; {
		rows, err := tx.QueueSizes(after, restorePage)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			r.count(row)
		}
		after = rows[len(rows)-1].Session
	}
}

// count enters what waits in a queue.
func (r *restoration) count(row imprint.QueueSize) {
	if s := r.sessions[row.Session]; s != nil {
		d := s.durable
		d.queue.last = max(d.queue.last, row.LastSeq)
		d.queue.messages, d.queue.bytes = row.Messages, row.Bytes
		d.committed = row.LastSeq
		return
	}
	if g, found := r.groups[row.Session]; found {
		r.broker.realm(g.Tenant).restored[g.Filter] = queue{key: g.Key, last: row.LastSeq, messages: row.Messages, bytes: row.Bytes}
		return
	}
	r.orphans = append(r.orphans, row.Session)
}

func (r *restoration) readSubscriptions(tx imprint.ReadTx) error {
	session, filter := int64(0), ""
	for {
		rows, err := tx.SessionSubscriptions(session, filter, restorePage)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			r.subscribe(row)
		}
		session, filter = rows[len(rows)-1].Session, rows[len(rows)-1].Filter
	}
}

func (r *restoration) subscribe(row imprint.SessionSubscription) {
	s := r.sessions[row.Session]
	if s == nil {
		return // of a session whose time is over
	}
	share, inner, _, err := mqtt.ParseSharedFilter(row.Filter)
	if err != nil {
		r.broker.opts.Logger.Error("a stored subscription isn't valid", "client", string(s.clientID), "filter", row.Filter, "error", err)
		return
	}
	sub := &subscription{
		session: s, filter: row.Filter, qos: mqtt.QoS(row.QoS), share: share, inner: inner,
		noLocal: row.Options&optionNoLocal != 0, retainAsPublished: row.Options&optionRetainAsPublished != 0,
	}
	if s.subscriptions == nil {
		s.subscriptions = make(map[string]*subscription, 1)
	}
	s.subscriptions[row.Filter] = sub
	s.realm.subscribe(r.broker, sub, nil)
}

func (r *restoration) readRetained(tx imprint.ReadTx) error {
	tenants, err := tx.TenantList()
	if err != nil {
		return err
	}
	for _, settings := range tenants {
		page := imprint.Page{Limit: restorePage, Ascending: true}
		for {
			rows, next, err := tx.RetainedMessages(settings.Tenant, page)
			if err != nil {
				return err
			}
			for _, row := range rows {
				r.broker.realm(settings.Tenant).retained[row.Topic] = struct{}{}
			}
			if next == "" {
				break
			}
			page.Cursor = next
		}
	}
	return nil
}

// settle deletes what belongs to nothing any more, writes the time that sessions
// have from now on, and starts their timers.
func (r *restoration) settle(ctx context.Context) error {
	b := r.broker
	write := change{write: func(tx imprint.Tx) error {
		for _, key := range r.expired {
			err := tx.DeleteSession(key)
			if err != nil {
				return err
			}
		}
		for _, key := range r.orphans {
			err := tx.DeleteShareGroup(key)
			if err != nil {
				return err
			}
		}
		return nil
	}}
	err := b.ledger.wait(ctx, write)
	if err != nil {
		return err
	}
	for key, g := range r.groups {
		rm := b.realm(g.Tenant)
		if _, unused := rm.restored[g.Filter]; unused {
			delete(rm.restored, g.Filter)
			b.ledger.add(change{write: func(tx imprint.Tx) error { return tx.DeleteShareGroup(key) }})
		}
	}
	for _, s := range r.cut {
		b.ledger.add(change{write: s.save})
	}
	for _, s := range r.sessions {
		due := s.durable.expiresAt
		if s.durable.will != nil {
			due = earlier(due, s.durable.willAt)
		}
		b.timers.add(due, s)
	}
	return b.ledger.wait(ctx, change{write: func(imprint.Tx) error { return nil }})
}
