package broker

import (
	"context"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/mqtt"
)

// restorePage is how many rows are read at once.
const restorePage = 1000

// maxSeq is beyond any number that a queue can come to; what the store has above
// it is damage.
const maxSeq = 1 << 62

// Restore takes up the sessions, shared subscriptions and retained messages that
// the store has. It is called once, before the first connection. Sessions that
// were connected when the server ended are kept for their whole expiry from now
// on. What can't be taken up is told to the logger, and the rest is restored.
func (b *Broker) Restore(ctx context.Context) error {
	r := &restoration{broker: b, sessions: map[int64]*session{}, expired: map[int64]*realm{}}
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
	chosen   map[int64]bool   // of the groups, one a filter
	cut      []*session       // were connected when the server ended
	expired  map[int64]*realm // of sessions whose time is over
	orphans  []int64          // queues and subscriptions that belong to nothing
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
			r.take(row)
		}
		after = rows[len(rows)-1].Key
	}
}

// lose tells of something that isn't restored.
func (r *restoration) lose(what string, err error, args ...any) {
	r.broker.opts.Logger.Error("couldn't restore "+what, append(args, "error", err)...)
}

func (r *restoration) take(row imprint.Session) {
	b := r.broker
	now := b.clock()
	err := checkSession(row)
	if err != nil {
		r.lose("a session", err, "tenant", row.Tenant.String(), "client", string(row.ClientID))
		r.expired[row.Key] = b.realm(row.Tenant)
		return
	}
	row.Expiry = min(row.Expiry, b.opts.MaxSessionExpiry)
	if latest := now.Add(row.Expiry); row.ExpiresAt.After(latest) {
		row.ExpiresAt = latest
	}
	connected := row.ExpiresAt.IsZero()
	if connected {
		row.ExpiresAt = now.Add(row.Expiry)
	}
	rm := b.realm(row.Tenant)
	if !row.ExpiresAt.After(now) && len(row.Will) == 0 {
		r.expired[row.Key] = rm
		return
	}
	if other := rm.sessions[row.ClientID]; other != nil {
		// The server ended before it had deleted the older one.
		if row.CreatedAt.Before(other.durable.createdAt) {
			r.expired[row.Key] = rm
			return
		}
		r.forget(other)
	}
	d := &durable{
		deleting: make(chan struct{}),
		queue:    queue{key: row.Key, last: row.SentThrough}, createdAt: row.CreatedAt,
		absence: absence{expiry: row.Expiry, expiresAt: row.ExpiresAt, willAt: row.WillAt}, sent: row.SentThrough,
	}
	d.reserved.Store(row.SentThrough)
	if len(row.Will) > 0 && row.WillAt.IsZero() {
		// Its connection was lost with the server.
		d.willAt = now.Add(row.WillDelay)
	}
	if len(row.Will) > 0 {
		d.will, err = b.decodeWill(row.Will, row.ClientID)
		if err != nil {
			r.lose("a will", err, "tenant", row.Tenant.String(), "client", string(row.ClientID))
		} else {
			d.will.delay, d.will.since = row.WillDelay, d.willAt.Add(-row.WillDelay)
		}
	}
	s := &session{broker: b, realm: rm, clientID: row.ClientID, version: mqtt.Version(row.Level), durable: d}
	r.sessions[row.Key] = s
	if connected {
		r.cut = append(r.cut, s)
	}
	rm.sessions[row.ClientID] = s
	rm.stored++
	b.count.stored.Add(1)
}

// forget takes back a session whose client has a later one.
func (r *restoration) forget(s *session) {
	delete(r.sessions, s.durable.queue.key)
	r.expired[s.durable.queue.key] = s.realm
	s.over = true
	s.realm.stored--
	r.broker.count.stored.Add(-1)
}

// checkSession says what makes a row none that the broker has written.
func checkSession(row imprint.Session) error {
	switch {
	case mqtt.Version(row.Level) != mqtt.V311 && mqtt.Version(row.Level) != mqtt.V5 || row.Level > int(mqtt.V5):
		return imprint.Errorf(imprint.CodeInternal, "its protocol level is %d", row.Level)
	case row.SentThrough < 0 || row.SentThrough >= maxSeq:
		return imprint.Errorf(imprint.CodeInternal, "%d is no number of its last message", row.SentThrough)
	}
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
			rm := r.broker.realm(row.Tenant)
			if _, twice := rm.restored[row.Filter]; !twice {
				rm.restored[row.Filter] = queue{key: row.Key}
			}
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
	if r.expired[row.Session] != nil {
		return
	}
	if row.LastSeq >= maxSeq {
		r.lose("a queue", imprint.Errorf(imprint.CodeInternal, "%d is no number of its last message", row.LastSeq), "messages", row.Messages)
		r.orphans = append(r.orphans, row.Session)
		return
	}
	if s := r.sessions[row.Session]; s != nil {
		d := s.durable
		d.queue.last = max(d.queue.last, row.LastSeq)
		d.queue.messages, d.queue.bytes = row.Messages, row.Bytes
		d.committed = row.LastSeq
		return
	}
	if g, found := r.groups[row.Session]; found {
		// Of two queues of one group, one was to be deleted when the server ended:
		// what is lost then must not be the other one's messages.
		rm := r.broker.realm(g.Tenant)
		if row.Messages >= rm.restored[g.Filter].messages {
			rm.restored[g.Filter] = queue{key: g.Key, last: row.LastSeq, messages: row.Messages, bytes: row.Bytes}
		}
		return
	}
	r.orphans = append(r.orphans, row.Session)
}

func (r *restoration) readSubscriptions(tx imprint.ReadTx) error {
	r.chosen = map[int64]bool{}
	for key, g := range r.groups {
		r.chosen[key] = r.broker.realm(g.Tenant).restored[g.Filter].key == key
	}
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
	if r.expired[row.Session] != nil {
		return
	}
	s := r.sessions[row.Session]
	if s == nil {
		if last := len(r.orphans) - 1; last < 0 || r.orphans[last] != row.Session {
			r.orphans = append(r.orphans, row.Session)
		}
		return
	}
	share, inner, _, err := mqtt.ParseSharedFilter(row.Filter)
	if err == nil && (row.QoS > 1 || len(row.Filter) > maxUint16) {
		err = imprint.Errorf(imprint.CodeInternal, "it has QoS %d and %d bytes", row.QoS, len(row.Filter))
	}
	if err != nil {
		r.lose("a subscription", err, "tenant", s.realm.tenant.String(), "client", string(s.clientID), "filter", imprint.Excerpt(row.Filter))
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
	tenants, err := imprint.AllTenants(tx)
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
				r.broker.realm(settings.Tenant).setRetained(row.Topic, row.ExpiresAt)
			}
			if next == "" {
				break
			}
			page.Cursor = next
		}
	}
	return nil
}

// clear deletes what belongs to nothing, or is damaged, under a key: all of it,
// unless a session or group of that key goes on without its messages.
func (r *restoration) clear(tx imprint.Tx, key int64) error {
	if s := r.sessions[key]; s != nil {
		return clearQueue(tx, key)
	}
	if _, found := r.groups[key]; found {
		return clearQueue(tx, key)
	}
	return tx.DeleteSession(key)
}

// clearQueue deletes the messages of a queue.
func clearQueue(tx imprint.Tx, key int64) error {
	for {
		rows, err := tx.Queued(key, -1<<63, restorePage, loadBytes)
		if err != nil || len(rows) == 0 {
			return err
		}
		seqs := make([]int64, len(rows))
		for n, row := range rows {
			seqs[n] = row.Seq
		}
		err = tx.DeleteQueuedAll(key, seqs)
		if err != nil {
			return err
		}
	}
}

// used tells whether a group's queue has found a member to keep it for.
func (r *restoration) used(g imprint.ShareGroup) bool {
	_, unused := r.broker.realm(g.Tenant).restored[g.Filter]
	return r.chosen[g.Key] && !unused
}

// putGroups writes the groups that a kill has left without a row, or whose row has
// just been made: the next start would take their queues for nobody's.
func (r *restoration) putGroups(tx imprint.Tx) error {
	for _, s := range r.sessions {
		for _, q := range s.groupQueues() {
			if _, found := r.groups[q.key]; found {
				continue
			}
			err := tx.PutShareGroup(q.row())
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// settle deletes what belongs to nothing any more, writes the time that sessions
// have from now on, and starts their timers.
func (r *restoration) settle(ctx context.Context) error {
	b := r.broker
	for key, rm := range r.expired {
		b.ledger.add(b.endOf(rm, key))
	}
	for _, key := range r.orphans {
		b.ledger.add(change{write: func(tx imprint.Tx) error { return r.clear(tx, key) }})
	}
	for key, g := range r.groups {
		if !r.used(g) {
			b.ledger.add(change{write: func(tx imprint.Tx) error { return tx.DeleteShareGroup(key) }})
		}
	}
	for _, g := range r.groups {
		clear(b.realm(g.Tenant).restored)
	}
	b.ledger.add(change{write: r.putGroups})
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
