package registry

import (
	"github.com/imprint-iot/imprint"
)

const (
	sessionColumns  = "key, tenant, client_id, level, expiry, expires_at, sent_through, will, will_at, will_delay, created_at"
	retainedColumns = "tenant, topic, qos, payload_size, modified_at, expires_at"
)

var (
	putSession = upsert("sessions", 1, "key", "tenant", "client_id", "level", "expiry", "expires_at", "sent_through",
		"will", "will_at", "will_delay", "created_at")
	putSubscription = upsert("session_subscriptions", 2, "session", "filter", "qos", "options")
	putQueued       = upsert("queued_messages", 2, "session", "seq", "expires_at", "share_group", "packet")
	putShareGroup   = upsert("share_groups", 1, "key", "tenant", "filter")
	putRetained     = upsert("retained_messages", 2, "tenant", "topic", "qos", "payload_size", "modified_at", "expires_at", "packet")

	retainedMessages = newList("Os", retainedColumns, "retained_messages WHERE tenant = $1", 1, []string{"topic"}, scanRetained,
		func(m *imprint.RetainedMessage) []any { return []any{m.Topic} })
)

// batchSizes are the rows of the statements that delete several queued messages
// at once: a batch takes as many of each as fit. They are few, so that all stay
// prepared. Statements that insert several rows were measured to gain nothing.
var batchSizes = [...]int{64, 16, 4, 1}

var deleteQueuedBatch = func() (texts [len(batchSizes)]string) {
	for i, size := range batchSizes {
		texts[i] = "DELETE FROM queued_messages WHERE session = $1 AND seq IN " + marks(2, size)
	}
	return texts
}()

// blob keeps a column from being NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func scanSession(t *Tx, r Rows, s *imprint.Session) error {
	var tenant string
	var level, expiry, expires, willAt, willDelay, created int64
	err := r.Scan(&s.Key, &tenant, (*string)(&s.ClientID), &level, &expiry, &expires, &s.SentThrough, &s.Will, &willAt, &willDelay, &created)
	s.Tenant = t.readTenant(tenant)
	s.Level = int(level)
	s.Expiry, s.WillDelay = duration(expiry), duration(willDelay)
	s.ExpiresAt, s.WillAt, s.CreatedAt = readTime(expires), readTime(willAt), readTime(created)
	if len(s.Will) == 0 {
		s.Will = nil
	}
	return err
}

func scanSubscription(_ *Tx, r Rows, s *imprint.SessionSubscription) error {
	return r.Scan(&s.Session, &s.Filter, &s.QoS, &s.Options)
}

func scanShareGroup(t *Tx, r Rows, g *imprint.ShareGroup) error {
	var tenant string
	err := r.Scan(&g.Key, &tenant, &g.Filter)
	g.Tenant = t.readTenant(tenant)
	return err
}

func scanQueueSize(_ *Tx, r Rows, q *imprint.QueueSize) error {
	return r.Scan(&q.Session, &q.Messages, &q.Bytes, &q.LastSeq)
}

func scanQueued(_ *Tx, r Rows, m *imprint.QueuedMessage) error {
	var expires int64
	err := r.Scan(&m.Session, &m.Seq, &expires, &m.Group, &m.Packet)
	m.ExpiresAt = readTime(expires)
	return err
}

func scanRetained(t *Tx, r Rows, m *imprint.RetainedMessage) error {
	var tenant string
	var modified, expires int64
	err := r.Scan(&tenant, &m.Topic, &m.QoS, &m.PayloadSize, &modified, &expires)
	m.Tenant = t.readTenant(tenant)
	m.ModifiedAt, m.ExpiresAt = readTime(modified), readTime(expires)
	return err
}

func scanWholeRetained(t *Tx, r Rows, m *imprint.RetainedMessage) error {
	var tenant string
	var modified, expires int64
	err := r.Scan(&tenant, &m.Topic, &m.QoS, &m.PayloadSize, &modified, &expires, &m.Packet)
	m.Tenant = t.readTenant(tenant)
	m.ModifiedAt, m.ExpiresAt = readTime(modified), readTime(expires)
	return err
}

// Sessions implements imprint.SessionReader.
func (t *Tx) Sessions(after int64, limit int) ([]imprint.Session, error) {
	return some(t, limit, scanSession, "SELECT "+sessionColumns+" FROM sessions WHERE key > $1 ORDER BY key LIMIT $2",
		after)
}

// SessionSubscriptions implements imprint.SessionReader.
func (t *Tx) SessionSubscriptions(session int64, filter string, limit int) ([]imprint.SessionSubscription, error) {
	return some(t, limit, scanSubscription, "SELECT session, filter, qos, options FROM session_subscriptions"+
		" WHERE (session, filter) > ($1, $2) ORDER BY session, filter LIMIT $3", session, filter)
}

// ShareGroups implements imprint.SessionReader.
func (t *Tx) ShareGroups(after int64, limit int) ([]imprint.ShareGroup, error) {
	return some(t, limit, scanShareGroup, "SELECT key, tenant, filter FROM share_groups WHERE key > $1 ORDER BY key LIMIT $2",
		after)
}

// QueueSizes implements imprint.SessionReader. It reads the whole of each queue
// that it lists, but not the packets.
func (t *Tx) QueueSizes(after int64, limit int) ([]imprint.QueueSize, error) {
	return some(t, limit, scanQueueSize, "SELECT session, COUNT(*), SUM(LENGTH(packet)), MAX(seq) FROM queued_messages"+
		" WHERE session > $1 GROUP BY session ORDER BY session LIMIT $2", after)
}

// Queued implements imprint.SessionReader.
func (t *Tx) Queued(session, after int64, limit int, maxBytes int64) ([]imprint.QueuedMessage, error) {
	return t.queued("", session, after, limit, maxBytes)
}

// QueuedShared implements imprint.SessionReader.
func (t *Tx) QueuedShared(session, after int64, limit int, maxBytes int64) ([]imprint.QueuedMessage, error) {
	return t.queued(" AND share_group <> 0", session, after, limit, maxBytes)
}

func (t *Tx) queued(where string, session, after int64, limit int, maxBytes int64) ([]imprint.QueuedMessage, error) {
	if limit < 1 {
		return nil, nil
	}
	var values []imprint.QueuedMessage
	size := int64(0)
	err := each(t, false, scanQueued, func(m imprint.QueuedMessage) bool {
		values = append(values, m)
		size += int64(len(m.Packet))
		return size < maxBytes
	}, "SELECT session, seq, expires_at, share_group, packet FROM queued_messages WHERE session = $1 AND seq > $2"+where+" ORDER BY seq LIMIT $3",
		session, after, int64(min(limit, maxPage)))
	return values, err
}

// Retained implements imprint.SessionReader.
func (t *Tx) Retained(tenant imprint.Tenant, topic string) (imprint.RetainedMessage, error) {
	m, found, err := first(t, scanWholeRetained,
		"SELECT "+retainedColumns+", packet FROM retained_messages WHERE tenant = $1 AND topic = $2", t.in(tenant), topic)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "topic %q has no retained message in %s", topic, tenant)
	}
	return m, err
}

// RetainedMessages implements imprint.SessionReader, by topic.
func (t *Tx) RetainedMessages(tenant imprint.Tenant, p imprint.Page) ([]imprint.RetainedMessage, string, error) {
	return retainedMessages.page(t, p, nil, t.in(tenant))
}

// PutSession implements imprint.SessionWriter.
func (t *Tx) PutSession(s imprint.Session) error {
	_, err := t.exec(putSession, s.Key, t.in(s.Tenant), string(s.ClientID), int64(s.Level), s.Expiry.Milliseconds(),
		millis(s.ExpiresAt), s.SentThrough, blob(s.Will), millis(s.WillAt), s.WillDelay.Milliseconds(), millis(s.CreatedAt))
	return err
}

// DeleteSession implements imprint.SessionWriter.
func (t *Tx) DeleteSession(key int64) error {
	return t.deleteKey(key, "DELETE FROM sessions WHERE key = $1",
		"DELETE FROM session_subscriptions WHERE session = $1", "DELETE FROM queued_messages WHERE session = $1")
}

func (t *Tx) deleteKey(key int64, queries ...string) error {
	for _, query := range queries {
		_, err := t.exec(query, key)
		if err != nil {
			return err
		}
	}
	return nil
}

// PutSessionSubscription implements imprint.SessionWriter.
func (t *Tx) PutSessionSubscription(s imprint.SessionSubscription) error {
	_, err := t.exec(putSubscription, s.Session, s.Filter, int64(s.QoS), int64(s.Options))
	return err
}

// DeleteSessionSubscription implements imprint.SessionWriter.
func (t *Tx) DeleteSessionSubscription(session int64, filter string) error {
	_, err := t.exec("DELETE FROM session_subscriptions WHERE session = $1 AND filter = $2", session, filter)
	return err
}

// PutShareGroup implements imprint.SessionWriter.
func (t *Tx) PutShareGroup(g imprint.ShareGroup) error {
	_, err := t.exec(putShareGroup, g.Key, t.in(g.Tenant), g.Filter)
	return err
}

// DeleteShareGroup implements imprint.SessionWriter.
func (t *Tx) DeleteShareGroup(key int64) error {
	return t.deleteKey(key, "DELETE FROM share_groups WHERE key = $1", "DELETE FROM queued_messages WHERE session = $1")
}

// PutQueued implements imprint.SessionWriter.
func (t *Tx) PutQueued(m imprint.QueuedMessage) error {
	_, err := t.exec(putQueued, m.Session, m.Seq, millis(m.ExpiresAt), m.Group, blob(m.Packet))
	return err
}

// DeleteQueued implements imprint.SessionWriter.
func (t *Tx) DeleteQueued(session, seq int64) error {
	_, err := t.exec("DELETE FROM queued_messages WHERE session = $1 AND seq = $2", session, seq)
	return err
}

// DeleteQueuedAll implements imprint.SessionWriter.
func (t *Tx) DeleteQueuedAll(session int64, seqs []int64) error {
	args := make([]any, 0, 1+min(len(seqs), batchSizes[0]))
	for i, size := range batchSizes {
		for len(seqs) >= size {
			args = append(args[:0], session)
			for _, seq := range seqs[:size] {
				args = append(args, seq)
			}
			_, err := t.exec(deleteQueuedBatch[i], args...)
			if err != nil {
				return err
			}
			seqs = seqs[size:]
		}
	}
	return nil
}

// PutRetained implements imprint.SessionWriter.
func (t *Tx) PutRetained(m imprint.RetainedMessage) error {
	_, err := t.exec(putRetained, t.in(m.Tenant), m.Topic, int64(m.QoS), int64(m.PayloadSize), millis(m.ModifiedAt),
		millis(m.ExpiresAt), blob(m.Packet))
	return err
}

// DeleteRetained implements imprint.SessionWriter.
func (t *Tx) DeleteRetained(tenant imprint.Tenant, topic string) error {
	_, err := t.exec("DELETE FROM retained_messages WHERE tenant = $1 AND topic = $2", t.in(tenant), topic)
	return err
}
