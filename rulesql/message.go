package rulesql

import (
	"context"
	"io"
	"strings"
	"time"
)

// Message is what a rule is evaluated against. The zero value of a field means that there is
// nothing to know.
type Message struct {
	// Topic is the topic of the message, for Basic Ingest what BasicIngest gives as rest.
	Topic   string
	Payload []byte
	// ClientID is the MQTT client id of the publisher; empty: clientid() is "n/a".
	ClientID string
	// Principal is the certificate id of the publisher, or its user or role id.
	Principal string
	// SourceIP is the publisher's address.
	SourceIP string
	// TraceID is the UUID of a message that came by MQTT.
	TraceID string
	// AccountID is the account of the rule.
	AccountID string
	// Time is when the rules engine saw the message.
	Time time.Time
	// Properties are those of MQTT 5.
	Properties Properties
}

// Properties are the properties of an MQTT 5 message that rules can read.
type Properties struct {
	HasFormat     bool // there is a payload format indicator
	UTF8          bool // that says so
	ContentType   string
	ResponseTopic string
	Correlation   []byte
	User          []UserProperty
}

// UserProperty is one user property; names may repeat.
type UserProperty struct {
	Name, Value string
}

// Outside is what an evaluation may ask for beyond its message. Whatever is nil makes the
// functions that need it Undefined, with a Problem that says so. The functions get arguments as
// the rule's expressions gave them, which a device may have a say in: they authorize and bound
// their own work, and give up when ctx ends. They aren't called more than MaxExternalCalls times
// an evaluation.
type Outside struct {
	// Random is read by rand() and newuuid().
	Random io.Reader
	// Location finds a time zone by its IANA name, such as America/Belize. It is called once for
	// each use of a zone other than UTC, so it should remember what it found.
	Location func(name string) (*time.Location, error)
	// Lambda calls a function with a JSON payload and gives its JSON answer; aws_lambda().
	Lambda func(ctx context.Context, functionARN string, payload []byte) ([]byte, error)
	// ThingShadow gives the JSON document of a shadow, the unnamed one for shadow "";
	// get_thing_shadow().
	ThingShadow func(ctx context.Context, thing, shadow, roleARN string) ([]byte, error)
	// RegistryData gives the JSON answer of DescribeThing or ListThingGroupsForThing;
	// get_registry_data().
	RegistryData func(ctx context.Context, operation, thing, roleARN string) ([]byte, error)
	// Secret gives the SecretString, or the SecretBinary, of a secret; get_secret(). Nothing of it
	// gets into a Problem.
	Secret func(ctx context.Context, id string, binary bool, roleARN string) ([]byte, error)
}

// BasicIngest splits the topic "$aws/rules/{rule}/{rest}" of a message that goes straight to a
// rule. ok is false for other topics.
func BasicIngest(topic string) (rule, rest string, ok bool) {
	after, ok := strings.CutPrefix(topic, "$aws/rules/")
	if !ok {
		return "", "", false
	}
	rule, rest, _ = strings.Cut(after, "/")
	return rule, rest, rule != ""
}
