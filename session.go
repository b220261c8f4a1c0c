package imprint

import "time"

// Session is the part of an MQTT session that outlives its connection: what a
// device with a persistent session finds again. Its subscriptions and its queue
// are rows of their own, under its Key.
type Session struct {
	Tenant   Tenant
	ClientID ClientID
	// Key names this session in its queue: random, positive, and new whenever the
	// client begins anew, so that nothing of an older session is taken for its own.
	Key int64
	// Level is the MQTT protocol level, 4 or 5: a session of one can't be resumed
	// by the other.
	Level int
	// Expiry is how long the session is kept after its connection has ended.
	Expiry time.Duration
	// ExpiresAt is when it ends; zero while it is connected.
	ExpiresAt time.Time
	// SentThrough: queued messages with a Seq up to this one may have been sent
	// before, so that they are sent again with DUP.
	SentThrough int64
	// Will is the will, as an MQTT 5 PUBLISH packet; empty when there is none. It is
	// due at WillAt; while the session is connected that is zero, and the will is
	// due WillDelay after the connection is found to be lost. One that waits does so
	// since WillDelay before WillAt.
	Will      []byte
	WillAt    time.Time
	WillDelay time.Duration
	CreatedAt time.Time
}

// LiveClient is a client that is connected.
type LiveClient struct {
	ClientID    ClientID
	Certificate CertificateID
	Host        string    // the peer's address
	Since       time.Time // when it came in
	// KeepAlive is how often it says at least that it is there: the server ends its
	// connection after one and a half of it without a word.
	KeepAlive time.Duration
}

// SessionSubscription is one topic filter of a Session.
type SessionSubscription struct {
	Session int64 // Session.Key
	Filter  string
	QoS     byte
	// Options are the further subscription options in the bits of MQTT 5 section
	// 3.8.3.1: 0x04 No Local, 0x08 Retain As Published.
	Options byte
}

// QueuedMessage is a QoS 1 message that a Session, or a group of a shared
// subscription, hasn't acknowledged.
type QueuedMessage struct {
	Session int64 // Session.Key or ShareGroup.Key
	Seq     int64 // ascending in the order of delivery, from 1
	// Packet is the message as an MQTT 5 PUBLISH packet with QoS 1.
	Packet    []byte
	ExpiresAt time.Time // zero: doesn't expire
	// Group says which shared subscription has chosen the session, by a number that
	// stands for its filter; 0: the message is the session's own, or in a group's queue.
	Group int64
}

// QueueSize is what waits in one queue.
type QueueSize struct {
	Session  int64
	Messages int
	Bytes    int64
	LastSeq  int64
}

// ShareGroup is a shared subscription whose queue outlives the connections of
// its members.
type ShareGroup struct {
	Tenant Tenant
	Filter string // with $share/NAME/
	Key    int64  // of its queue, as Session.Key
}

// RetainedMessage is the last message that was published to a topic with
// RETAIN.
type RetainedMessage struct {
	Tenant Tenant
	Topic  string
	QoS    byte
	// Packet is the message as an MQTT 5 PUBLISH packet; empty in lists.
	Packet      []byte
	PayloadSize int
	ModifiedAt  time.Time
	ExpiresAt   time.Time // zero: doesn't expire
}
