package imprint

import (
	"regexp"
	"strings"
	"time"
)

// RuleName is 1 to 128 characters of [a-zA-Z0-9_].
type RuleName string

var ruleNamePattern = regexp.MustCompile(`^[a-zA-Z0-9_]{1,128}$`)

// ParseRuleName checks a topic rule's name.
func ParseRuleName(s string) (RuleName, error) {
	if !ruleNamePattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, "rule name %q does not match [a-zA-Z0-9_]{1,128}", Excerpt(s))
	}
	return RuleName(s), nil
}

// Quotas of topic rules (AWS IoT Core endpoints and quotas, "Rules engine").
const (
	MaxRules            = 1000 // of a tenant
	MaxRuleActions      = 10
	MaxRuleBytes        = 256 << 10 // statement and actions together
	MaxRuleDestinations = 1000      // of a tenant
)

// RuleARN names a topic rule as AWS IoT Core does.
func (t Tenant) RuleARN(n RuleName) string { return t.ARN("rule/" + string(n)) }

// RuleDestinationARN names the destination of http actions with an id.
func (t Tenant) RuleDestinationARN(id string) string { return t.ARN("ruledestination/http/" + id) }

// TopicRule says which messages cause which actions.
type TopicRule struct {
	Tenant          Tenant
	Name            RuleName
	SQL, SQLVersion string
	// Filter is the topic filter of the statement's FROM; empty without one.
	Filter      string
	Description string
	Disabled    bool
	Actions     []RuleAction
	ErrorAction *RuleAction
	// Revision changes with every change.
	Revision              string
	CreatedAt, ModifiedAt time.Time
}

// servedTopics begin the topics with $ that a rule can republish to: Basic Ingest's,
// and the events of the service, which clients may subscribe to. The other trees of
// AWS IoT Core are requests, answered on the connection that asks alone, or belong
// to services that aren't here.
var servedTopics = []string{"$aws/rules/", "$aws/events/", "$imprint/"}

// CheckRepublished says whether rules can republish to a topic. Where it isn't whole,
// it is the beginning of topics, and one of them is enough. Errors: CodeReservedTopic.
func CheckRepublished(topic string, whole bool) error {
	if !strings.HasPrefix(topic, "$") {
		return nil
	}
	for _, served := range servedTopics {
		if strings.HasPrefix(topic, served) || !whole && strings.HasPrefix(served, topic) {
			return nil
		}
	}
	return Errorf(CodeReservedTopic, "topic %q begins with $ and is none that rules can republish to on this server", Excerpt(topic)).
		WithHint("Nothing here would take the message: there are no shadows, jobs or other services behind $aws/things/. " +
			"Republish to a topic without $ that the devices subscribe to, or to $$aws/rules/RULE, $$aws/events/... or $$imprint/...")
}

// ARN names the rule.
func (r TopicRule) ARN() string { return r.Tenant.RuleARN(r.Name) }

// RuleAction is what a rule does with a message: one member is set. Texts may
// have substitutions, "${expression}", but for ARNs of roles.
type RuleAction struct {
	Lambda    *LambdaRuleAction    `json:"lambda,omitempty"`
	Republish *RepublishRuleAction `json:"republish,omitempty"`
	HTTP      *HTTPRuleAction      `json:"http,omitempty"`
	Firehose  *FirehoseRuleAction  `json:"firehose,omitempty"`
	Kafka     *KafkaRuleAction     `json:"kafka,omitempty"`
}

// RuleField is a name with a value: a header, a user property, a setting.
type RuleField struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// LambdaRuleAction invokes a function asynchronously.
type LambdaRuleAction struct {
	FunctionARN string `json:"functionArn"`
}

// RepublishRuleAction publishes on another topic.
type RepublishRuleAction struct {
	RoleARN string             `json:"roleArn"`
	Topic   string             `json:"topic"`
	QoS     int                `json:"qos,omitempty"`
	Headers *RuleMessageFields `json:"headers,omitempty"`
}

// RuleMessageFields are the MQTT 5 properties of a republished message.
type RuleMessageFields struct {
	PayloadFormat   string      `json:"payloadFormatIndicator,omitempty"`
	ContentType     string      `json:"contentType,omitempty"`
	ResponseTopic   string      `json:"responseTopic,omitempty"`
	CorrelationData string      `json:"correlationData,omitempty"` // base64
	MessageExpiry   string      `json:"messageExpiry,omitempty"`   // seconds
	UserProperties  []RuleField `json:"userProperties,omitempty"`
}

// HTTPRuleAction posts to a URL below one of the tenant's enabled destinations.
type HTTPRuleAction struct {
	URL             string      `json:"url"`
	ConfirmationURL string      `json:"confirmationUrl,omitempty"`
	Headers         []RuleField `json:"headers,omitempty"`
}

// FirehoseRuleAction gives records to a sink of this server.
type FirehoseRuleAction struct {
	RoleARN   string `json:"roleArn"`
	Stream    string `json:"deliveryStreamName"` // the sink's name
	Separator string `json:"separator,omitempty"`
	BatchMode bool   `json:"batchMode,omitempty"`
}

// KafkaRuleAction produces a record to a Kafka topic.
type KafkaRuleAction struct {
	DestinationARN string            `json:"destinationArn"`
	Topic          string            `json:"topic"`
	Key            string            `json:"key,omitempty"`
	Partition      string            `json:"partition,omitempty"`
	Properties     map[string]string `json:"clientProperties"`
	Headers        []RuleField       `json:"headers,omitempty"`
}

// RuleDestinationStatus is where the confirmation of a destination stands.
type RuleDestinationStatus string

// The states of a destination (AWS IoT API reference, TopicRuleDestination).
const (
	RuleDestinationEnabled    RuleDestinationStatus = "ENABLED"
	RuleDestinationInProgress RuleDestinationStatus = "IN_PROGRESS"
	RuleDestinationDisabled   RuleDestinationStatus = "DISABLED"
	RuleDestinationError      RuleDestinationStatus = "ERROR"
)

// RuleDestination is a URL that http actions may post to once its owner has
// confirmed that.
type RuleDestination struct {
	Tenant       Tenant
	ID           string
	URL          string
	Status       RuleDestinationStatus
	StatusReason string
	// TokenHash is the SHA-256, in lowercase hex, of the token that confirms it.
	TokenHash             string
	CreatedAt, ModifiedAt time.Time
}

// ARN names the destination.
func (d RuleDestination) ARN() string { return d.Tenant.RuleDestinationARN(d.ID) }

// RuleDelivery is what a rule owes to somebody outside: it is kept until it is
// delivered or given up.
type RuleDelivery struct {
	ID     string // sorts by time
	Tenant Tenant
	// Rule is whose action it is; empty for the confirmation of a destination.
	Rule RuleName
	// Kind is the action's, such as http.
	Kind string
	// Queue says where it goes: deliveries of one queue wait for one another.
	Queue     string
	AttemptID string // of the first connection that caused it; may be empty
	Failures  int
	DueAt     time.Time
	CreatedAt time.Time
	// Request is what is sent and where to, Origin the message that caused it, as
	// package rules encodes them; both are empty in lists. The keeper seals the
	// request, which may hold what authorizes it.
	Request, Origin []byte
}

// TopicRuleReader reads topic rules and what belongs to them.
type TopicRuleReader interface {
	TopicRule(Tenant, RuleName) (TopicRule, error)
	// TopicRules lists by name those that keep wants; nil: all.
	TopicRules(t Tenant, keep func(*TopicRule) bool, p Page) ([]TopicRule, string, error)
	RuleDestination(t Tenant, id string) (RuleDestination, error)
	RuleDestinations(Tenant, Page) ([]RuleDestination, string, error) // by id
	// RuleDestinationByToken finds the one, of any tenant, with a TokenHash.
	RuleDestinationByToken(hash string) (RuleDestination, error)
	// DeliveryTenants lists the tenants that have deliveries.
	DeliveryTenants() ([]Tenant, error)
	// DeliveryQueues lists by name the queues of a tenant's deliveries, those after
	// a name.
	DeliveryQueues(t Tenant, after string, limit int) ([]DueQueue, error)
	// RuleDeliveries lists those of a queue that are due at a time, the most
	// overdue first, without Request and Origin.
	RuleDeliveries(t Tenant, queue string, due time.Time, limit int) ([]RuleDelivery, error)
	RuleDelivery(id string) (RuleDelivery, error)
	// NextRuleDelivery is when the next one is due after a time; zero: there is
	// none.
	NextRuleDelivery(after time.Time) (time.Time, error)
	// RuleDeliveryUnits is how much a tenant's rules owe: OwedUnits of Request and Origin of
	// each. Confirmations of destinations, which are no rule's, aren't counted.
	RuleDeliveryUnits(Tenant) (int, error)
}

// TopicRuleWriter writes them.
type TopicRuleWriter interface {
	PutTopicRule(TopicRule) error
	// DeleteTopicRule leaves what the rule owes: it is still delivered.
	DeleteTopicRule(Tenant, RuleName) error
	PutRuleDestination(RuleDestination) error
	DeleteRuleDestination(t Tenant, id string) error
	PutRuleDelivery(RuleDelivery) error
	DeleteRuleDelivery(id string) error
}
