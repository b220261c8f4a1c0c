package policy

import (
	"strconv"
	"time"
)

// ConnectAttributes is the set behind the condition key iot:ConnectAttributes
// (developer guide, "Connect policy examples").
type ConnectAttributes uint8

// PersistentConnect stands for a session that outlives the connection, LastWill
// for a will message in the CONNECT packet.
const (
	PersistentConnect ConnectAttributes = 1 << iota
	LastWill
)

func (c ConnectAttributes) values() []string {
	both := connectAttributeNames[:]
	switch c & (PersistentConnect | LastWill) {
	case PersistentConnect:
		return both[:1]
	case LastWill:
		return both[1:]
	case PersistentConnect | LastWill:
		return both
	}
	return nil
}

var connectAttributeNames = [2]string{"PersistentConnect", "LastWill"}

// Request is one question. The resource is ResourcePrefix followed by
// ResourceName; the two are given apart so that nothing is concatenated for a packet.
type Request struct {
	Action         Action
	ResourcePrefix string // for example "arn:aws:iot:us-east-1:000000000000:topic/"
	ResourceName   string // for example the topic
	Vars           *Variables
	Now            time.Time // for aws:CurrentTime and aws:EpochTime, absent when zero

	ConnectAttributes ConnectAttributes // for iot:Connect
	LastWillTopic     string            // ARN of the will topic, empty without a will
	Keys              *Keys             // condition keys of this request; they win over those of Vars
}

// Resource is the whole resource.
func (r *Request) Resource() string { return r.ResourcePrefix + r.ResourceName }

// eval gives the values of keys while one request is decided.
type eval struct {
	req  *Request
	vars *Variables
}

var noVariables = NewVariables(Binding{NoConnection: true})

func newEval(r *Request) eval {
	if r.Vars == nil {
		return eval{req: r, vars: noVariables}
	}
	return eval{req: r, vars: r.Vars}
}

// now has the resolution of aws:CurrentTime, one second.
func (e *eval) now() time.Time { return e.req.Now.Truncate(time.Second) }

// single gives a key that has exactly one value.
func (e *eval) single(k *keyRef) bound {
	switch k.id {
	case keyOther:
		values := e.other(k)
		if len(values) == 1 {
			return bound{text: values[0], present: true}
		}
		return bound{}
	case keyCurrentTime:
		if e.req.Now.IsZero() {
			return bound{}
		}
		return bound{text: e.now().UTC().Format(time.RFC3339), present: true}
	case keyEpochTime:
		if e.req.Now.IsZero() {
			return bound{}
		}
		return bound{text: strconv.FormatInt(e.req.Now.Unix(), 10), present: true}
	case keyLastWillTopic:
		return bound{text: e.req.LastWillTopic, present: e.req.LastWillTopic != ""}
	case keyConnectAttributes, keyCertificateAvailable:
		return bound{}
	}
	return e.vars.plain(k)
}

func (e *eval) other(k *keyRef) []string {
	values := e.req.Keys.get(k.name)
	if values == nil {
		values = e.vars.keys.get(k.name)
	}
	return values
}

// substitute gives the text that replaces a variable.
func (e *eval) substitute(k *keyRef) (string, bool) {
	b := e.single(k)
	return b.text, b.present && !b.refused
}

// values gives all values of a condition key, none when it is absent. A time
// is given as an empty text unless the text is needed.
func (e *eval) values(k *keyRef, one *[1]string, text bool) []string {
	switch {
	case k.id == keyOther:
		return e.other(k)
	case k.id == keyConnectAttributes:
		if e.req.Action != Connect {
			return nil
		}
		return e.req.ConnectAttributes.values()
	case k.id == keyCertificateAvailable:
		if e.vars.certificate == nil {
			return nil
		}
		return e.vars.certificate.AvailableKeys()
	case k.id == keyCertificateName && k.list:
		if e.vars.certificate == nil {
			return nil
		}
		return e.vars.certificate.list(k.slot)
	case !text && (k.id == keyCurrentTime || k.id == keyEpochTime):
		if e.req.Now.IsZero() {
			return nil
		}
		return one[:]
	}
	b := e.single(k)
	if !b.present {
		return nil
	}
	one[0] = b.text
	return one[:]
}
