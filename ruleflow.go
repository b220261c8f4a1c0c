package imprint

import "context"

// Rules takes messages to the topic rules of their tenants. Package rules
// implements it; who publishes messages calls it.
type Rules interface {
	// Tenant gives a tenant's part, which holds as long as the Rules.
	Tenant(Tenant) TenantRules
}

// TenantRules are the topic rules of one tenant.
type TenantRules interface {
	// Idle says that there are none that could want a message. It is asked for
	// each message, and costs an atomic load.
	Idle() bool
	// Offer takes a message that was published, or a Basic Ingest one for a rule.
	// It copies what it keeps. When it returns nil, the message is in the queue of
	// the rules that want it; the message's Done is called once then. Errors:
	// CodeRulesBusy when the queue is full, at once or, with Wait, after a time;
	// CodeUnavailable. Then Done isn't called.
	Offer(ctx context.Context, m *RuleMessage) error
}

// RuleMessage is a message as topic rules see it.
type RuleMessage struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Properties RuleMessageProperties

	// ClientID is the publisher's; empty for messages that didn't come by MQTT.
	ClientID ClientID
	// Principal is the publisher's certificate id, or its user; empty for events.
	Principal string
	SourceIP  string
	// MQTT says that the message came by MQTT.
	MQTT bool
	// AttemptID is the attempt that caused an event; empty: none.
	AttemptID string
	// Depth counts the rules that republished the message.
	Depth int
	// Wait lets Offer wait for room in the queue, for a bounded time.
	Wait bool
	// Again says that who offers it does so once more when there is no room: it isn't
	// dropped by that.
	Again bool
	// Done hears when every action has been handed over, with the first error of
	// the store that kept one from it; nil: nobody does. It must not block.
	Done func(error)
}

// RuleMessageProperties are the MQTT 5 properties of a message that rules can
// read and set.
type RuleMessageProperties struct {
	HasFormat     bool // there is a payload format indicator
	UTF8          bool // that says so
	ContentType   string
	ResponseTopic string
	Correlation   []byte
	HasExpiry     bool
	Expiry        uint32 // seconds
	User          []RuleField
}

// Republisher publishes what rules republish, on topics of the service, too. It
// offers the message to the tenant's rules in turn.
type Republisher interface {
	Republish(ctx context.Context, t Tenant, m RuleMessage) error
}
