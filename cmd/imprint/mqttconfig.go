package main

import (
	"fmt"
	"math"
	"time"

	"github.com/spf13/pflag"

	"github.com/imprint-iot/imprint/broker"
)

// MQTTConfig are the settings of `imprint serve` that bound what MQTT clients
// may do. The defaults are the limits that AWS IoT Core documents, where it
// documents one.
type MQTTConfig struct {
	// SessionExpiry is how long a persistent session of MQTT 3.1.1 is kept after
	// its connection. Default 1h.
	SessionExpiry time.Duration `koanf:"session-expiry"`
	// MaxSessionExpiry lowers longer session expiry intervals of MQTT 5. Default
	// 168h.
	MaxSessionExpiry time.Duration `koanf:"max-session-expiry"`
	// MaxMessageExpiry lowers longer message expiry intervals. Default 168h.
	MaxMessageExpiry time.Duration `koanf:"max-message-expiry"`
	// MaxSessions bounds the persistent sessions of one tenant. Default 500000.
	MaxSessions int `koanf:"max-sessions"`
	// MaxSessionMessages and MaxSessionBytes bound the queue of one persistent
	// session or shared subscription. Defaults 10000 and 67108864 (64 MiB).
	MaxSessionMessages int `koanf:"max-session-messages"`
	MaxSessionBytes    int `koanf:"max-session-bytes"`
	// MaxRetained bounds the retained messages of one tenant. Default 5000.
	MaxRetained int `koanf:"max-retained"`
	// PublishRate is how many messages a second one connection may publish; more
	// are discarded. Default 100; 0: no bound.
	PublishRate int `koanf:"publish-rate"`
	// ThroughputRate is how many bytes a second one connection may send; more wait.
	// Default 524288 (512 KiB); 0: no bound.
	ThroughputRate int `koanf:"throughput-rate"`
	// ConnectRate is how many CONNECT packets a second one client id may send; more
	// are refused. Default 0: no bound, so that a device that was provisioned by
	// its first connection may come again at once. AWS IoT Core allows 1.
	ConnectRate int `koanf:"connect-rate"`
	// RequestRate is how many requests of fleet provisioning a second one connection
	// may make; more are rejected. Default 20; 0: no bound.
	RequestRate int `koanf:"request-rate"`
	// MaxPayload bounds the payload of one message in bytes. Default 131072 (128
	// KiB).
	MaxPayload int `koanf:"max-payload"`
	// MaxClientIDBytes, MaxTopicBytes and MaxTopicSlashes bound client ids, topic
	// names and topic filters. Defaults 128, 256 and 7.
	MaxClientIDBytes int `koanf:"max-client-id-bytes"`
	MaxTopicBytes    int `koanf:"max-topic-bytes"`
	MaxTopicSlashes  int `koanf:"max-topic-slashes"`
	// MaxServiceTopicBytes and MaxServiceTopicSlashes bound those that begin with
	// $aws/ instead, where they are more. Defaults 512 and 24.
	MaxServiceTopicBytes   int `koanf:"max-service-topic-bytes"`
	MaxServiceTopicSlashes int `koanf:"max-service-topic-slashes"`
	// MaxShareNameBytes bounds the names of shared subscriptions. Default 128.
	MaxShareNameBytes int `koanf:"max-share-name-bytes"`
	// MaxFilters is how many topic filters one SUBSCRIBE or UNSUBSCRIBE may have.
	// Default 8.
	MaxFilters int `koanf:"max-filters-per-subscribe"`
	// MaxSubscriptions bounds the subscriptions of one connection. Default 50.
	MaxSubscriptions int `koanf:"max-subscriptions"`
	// MaxInflight bounds the unacknowledged QoS 1 messages of one connection in each
	// direction. Default 100.
	MaxInflight int `koanf:"max-inflight"`
	// MaxTopicAliases bounds the topic aliases of one connection in each direction.
	// Default 8.
	MaxTopicAliases int `koanf:"max-topic-aliases"`
	// MinKeepAlive and MaxKeepAlive are the range into which keep-alive times are
	// moved. Defaults 30s and 20m.
	MinKeepAlive time.Duration `koanf:"min-keep-alive"`
	MaxKeepAlive time.Duration `koanf:"max-keep-alive"`
	// MaxQueuedBytes and MaxQueuedMessages bound what waits in memory for one
	// connected client. Defaults 1048576 (1 MiB) and 10000.
	MaxQueuedBytes    int `koanf:"max-queued-bytes"`
	MaxQueuedMessages int `koanf:"max-queued-messages"`
	// MaxSharedInflight bounds the messages of a shared subscription's queue that one
	// member without a persistent session holds unacknowledged. Default 100.
	MaxSharedInflight int `koanf:"max-shared-inflight"`
	// WriteTimeout is how long 16 KiB may take to a device. Default 30s.
	WriteTimeout time.Duration `koanf:"write-timeout"`
	// MaxConnectionRequests and MaxRequestsAtOnce bound the requests of fleet
	// provisioning that are under way, of one connection and of all; more are rejected.
	// Defaults 4 and 512.
	MaxConnectionRequests int `koanf:"max-connection-requests"`
	MaxRequestsAtOnce     int `koanf:"max-requests-at-once"`
	// RequestPuback is how long the PUBACK of such a request waits for its answer, to go
	// with it. Default 100ms.
	RequestPuback time.Duration `koanf:"request-puback"`
	// StandardMatching follows the MQTT standard where AWS IoT Core doesn't: `a/#`
	// also matches `a`, and filters with wildcards get retained messages.
	StandardMatching bool `koanf:"standard-matching"`
}

// addMQTTFlags declares them. Their defaults are the broker's own; what docs/mqtt.md
// tells of them is tested.
func addMQTTFlags(f *pflag.FlagSet) {
	d := broker.DefaultOptions()
	f.Duration("session-expiry", d.SessionExpiry, "how long a persistent MQTT 3.1.1 session is kept")
	f.Duration("max-session-expiry", d.MaxSessionExpiry, "longest session expiry of MQTT 5")
	f.Duration("max-message-expiry", d.MaxMessageExpiry, "longest message expiry interval")
	f.Int("max-sessions", d.MaxSessions, "persistent sessions of one tenant")
	f.Int("max-session-messages", d.MaxSessionMessages, "messages in the queue of one persistent session")
	f.Int("max-session-bytes", d.MaxSessionBytes, "bytes in the queue of one persistent session")
	f.Int("max-retained", d.MaxRetained, "retained messages of one tenant")
	f.Int("publish-rate", d.PublishRate, "messages a second that one connection may publish (0: no bound)")
	f.Int("throughput-rate", d.ThroughputRate, "bytes a second that one connection may send (0: no bound)")
	f.Int("connect-rate", d.ConnectRate, "CONNECT packets a second of one client id (0: no bound)")
	f.Int("request-rate", d.RequestRate, "requests of fleet provisioning a second that one connection may make (0: no bound)")
	f.Int("max-payload", d.MaxPayload, "bytes of one message's payload")
	f.Int("max-client-id-bytes", d.MaxClientIDBytes, "bytes of a client id")
	f.Int("max-topic-bytes", d.MaxTopicBytes, "bytes of a topic name or filter")
	f.Int("max-topic-slashes", d.MaxTopicSlashes, "slashes in a topic name or filter")
	f.Int("max-service-topic-bytes", d.MaxServiceTopicBytes, "bytes of a topic or filter that begins with $aws/, where that is more than --max-topic-bytes")
	f.Int("max-service-topic-slashes", d.MaxServiceTopicSlashes, "slashes in a topic or filter that begins with $aws/, where that is more than --max-topic-slashes")
	f.Int("max-share-name-bytes", d.MaxShareNameBytes, "bytes of a shared subscription's name")
	f.Int("max-filters-per-subscribe", d.MaxFiltersPerSubscribe, "topic filters in one SUBSCRIBE")
	f.Int("max-subscriptions", d.MaxSubscriptions, "subscriptions of one connection")
	f.Int("max-inflight", d.MaxInflight, "unacknowledged QoS 1 messages of one connection, each way")
	f.Int("max-topic-aliases", d.MaxTopicAliases, "topic aliases of one connection, each way")
	f.Duration("min-keep-alive", d.MinKeepAlive, "shorter keep-alive times are raised to this")
	f.Duration("max-keep-alive", d.MaxKeepAlive, "longer keep-alive times, and 0, are lowered to this")
	f.Int("max-queued-bytes", d.MaxQueuedBytes, "bytes that wait in memory for one connected client")
	f.Int("max-queued-messages", d.MaxQueuedMessages, "QoS 1 messages that wait in memory for one connected client")
	f.Int("max-shared-inflight", d.MaxSharedInflight, "unacknowledged messages of a shared subscription that a member without a persistent session holds")
	f.Duration("write-timeout", d.WriteTimeout, "how long 16 KiB may take to a device")
	f.Int("max-connection-requests", d.MaxRequestsPerConnection, "requests of fleet provisioning under way of one connection")
	f.Int("max-requests-at-once", d.MaxRequests, "requests of fleet provisioning under way of all connections; of one account as many as it leaves to others")
	f.Duration("request-puback", d.RequestPuback, "how long the PUBACK of a request of fleet provisioning waits for the answer, to go with it")
	f.Bool("standard-matching", false, "match a/# with a, and wildcards with retained messages, as the MQTT standard does")
}

// maxMQTTBytes bounds the settings that count bytes of one client's memory.
const maxMQTTBytes = 1 << 30

func (c MQTTConfig) check() error {
	for _, n := range []struct {
		name               string
		value, least, most int
	}{
		{"max-sessions", c.MaxSessions, 1, 100_000_000},
		{"max-session-messages", c.MaxSessionMessages, 1, 10_000_000},
		{"max-session-bytes", c.MaxSessionBytes, 1, maxMQTTBytes},
		{"max-retained", c.MaxRetained, 1, 10_000_000},
		{"publish-rate", c.PublishRate, 0, 1_000_000_000},
		{"throughput-rate", c.ThroughputRate, 0, 1_000_000_000},
		{"connect-rate", c.ConnectRate, 0, 1_000_000},
		{"request-rate", c.RequestRate, 0, 1_000_000},
		{"max-payload", c.MaxPayload, 1, 128 << 20},
		{"max-client-id-bytes", c.MaxClientIDBytes, 1, 65_535},
		{"max-topic-bytes", c.MaxTopicBytes, 1, 65_535},
		{"max-topic-slashes", c.MaxTopicSlashes, 1, 1000},
		{"max-service-topic-bytes", c.MaxServiceTopicBytes, 1, 65_535},
		{"max-service-topic-slashes", c.MaxServiceTopicSlashes, 1, 1000},
		{"max-share-name-bytes", c.MaxShareNameBytes, 1, 65_535},
		{"max-filters-per-subscribe", c.MaxFilters, 1, 10_000},
		{"max-subscriptions", c.MaxSubscriptions, 1, 1_000_000},
		{"max-inflight", c.MaxInflight, 1, 65_534},
		{"max-topic-aliases", c.MaxTopicAliases, 1, 65_535},
		{"max-queued-bytes", c.MaxQueuedBytes, 4096, maxMQTTBytes},
		{"max-queued-messages", c.MaxQueuedMessages, 1, 10_000_000},
		{"max-shared-inflight", c.MaxSharedInflight, 1, 65_535},
		{"max-connection-requests", c.MaxConnectionRequests, 1, 100_000},
		{"max-requests-at-once", c.MaxRequestsAtOnce, 1, 1_000_000},
	} {
		if n.value < n.least || n.value > n.most {
			return usageError{fmt.Errorf("%s is %d, and must be %d to %d", n.name, n.value, n.least, n.most)}
		}
	}
	for _, d := range []struct {
		name               string
		value, least, most time.Duration
	}{
		{"session-expiry", c.SessionExpiry, time.Second, c.MaxSessionExpiry},
		{"max-session-expiry", c.MaxSessionExpiry, time.Second, 100 * 365 * 24 * time.Hour},
		{"max-message-expiry", c.MaxMessageExpiry, time.Second, math.MaxUint32 * time.Second},
		{"min-keep-alive", c.MinKeepAlive, time.Second, c.MaxKeepAlive},
		{"max-keep-alive", c.MaxKeepAlive, time.Second, 65_535 * time.Second},
		{"write-timeout", c.WriteTimeout, time.Second, time.Hour},
		{"request-puback", c.RequestPuback, time.Millisecond, time.Minute},
	} {
		if d.value < d.least || d.value > d.most {
			return usageError{fmt.Errorf("%s is %s, and must be %s to %s", d.name, d.value, d.least, d.most)}
		}
	}
	return nil
}

// options gives the broker's.
func (c MQTTConfig) options() broker.Options {
	return broker.Options{
		SessionExpiry: c.SessionExpiry, MaxSessionExpiry: c.MaxSessionExpiry, MaxMessageExpiry: c.MaxMessageExpiry, MaxSessions: c.MaxSessions,
		MaxSessionMessages: c.MaxSessionMessages, MaxSessionBytes: c.MaxSessionBytes, MaxRetained: c.MaxRetained,
		PublishRate: rateOption(c.PublishRate), ThroughputRate: rateOption(c.ThroughputRate), ConnectRate: rateOption(c.ConnectRate),
		RequestRate: rateOption(c.RequestRate),
		MaxPayload:  c.MaxPayload, MaxClientIDBytes: c.MaxClientIDBytes, MaxTopicBytes: c.MaxTopicBytes, MaxTopicSlashes: c.MaxTopicSlashes,
		MaxServiceTopicBytes: c.MaxServiceTopicBytes, MaxServiceTopicSlashes: c.MaxServiceTopicSlashes, MaxShareNameBytes: c.MaxShareNameBytes,
		MaxFiltersPerSubscribe: c.MaxFilters, MaxSubscriptions: c.MaxSubscriptions, MaxInflight: c.MaxInflight,
		MaxTopicAliases: c.MaxTopicAliases, MinKeepAlive: c.MinKeepAlive, MaxKeepAlive: c.MaxKeepAlive,
		MaxQueuedBytes: c.MaxQueuedBytes, MaxQueuedMessages: c.MaxQueuedMessages,
		MaxSharedInflight: c.MaxSharedInflight, WriteTimeout: c.WriteTimeout,
		MaxRequestsPerConnection: c.MaxConnectionRequests, MaxRequests: c.MaxRequestsAtOnce, RequestPuback: c.RequestPuback,
		StandardParentMatch: c.StandardMatching, StandardRetainedMatch: c.StandardMatching,
	}
}

// rateOption turns the setting's 0, no bound, into the broker's.
func rateOption(perSecond int) int {
	if perSecond == 0 {
		return -1
	}
	return perSecond
}
