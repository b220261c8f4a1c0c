package broker

import (
	"slices"
	"strings"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/policy"
)

// uses are the first things that a connection was allowed, each once: what its least
// policy is made of. A filter, or the will's topic, is kept for the session anyway; a
// topic that was published to is kept for this alone.
type uses []use

type use struct {
	action useAction
	name   string // topic or filter
}

type useAction uint8

const (
	usePublish useAction = iota
	useRetain
	useSubscribe
)

// maxUses bounds them. A connection that has as many isn't looked at any more.
const maxUses = 16

func (u *uses) note(action useAction, name string) {
	if len(*u) >= maxUses {
		return
	}
	for _, known := range *u {
		if known.action == action && known.name == name {
			return
		}
	}
	*u = append(*u, use{action, name})
}

// recordUses tells the trace what the connection was allowed, and by which statement of
// the policies that it has now.
func (c *connection) recordUses() {
	if c.peer.Rec == nil {
		return
	}
	bound := c.bound.Load()
	for _, u := range c.uses {
		request := policy.Request{Now: c.broker.clock(), ResourceName: u.name}
		step := ""
		switch u.action {
		case usePublish:
			step, request.Action, request.ResourcePrefix = "policy.publish", policy.Publish, c.realm.topicARN
		case useRetain:
			step, request.Action, request.ResourcePrefix = "policy.retain", policy.RetainPublish, c.realm.topicARN
		case useSubscribe:
			step, request.Action, request.ResourcePrefix = "policy.subscribe", policy.Subscribe, c.realm.filterARN
		}
		statement := ""
		if bound != nil {
			request.Vars = bound.vars
			decision, by := bound.policies.Judge(&request)
			if decision == policy.Allowed {
				statement = by.String()
			}
		}
		c.peer.Rec.AllowedBy(step, string(request.Action), request.Resource(), statement)
	}
	c.uses = nil
}

// kept are the topics of messages that a connection subscribed to and that iot:Receive
// keeps from it. Nobody tells the device, so the trace has to.
type kept struct {
	mu     sync.Mutex
	topics []string
}

// maxKept bounds them, because finding words costs far more than deciding: a
// subscription may be wide on purpose.
const maxKept = 4

// add says whether a topic is one of the first, and new.
func (k *kept) add(topic string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.topics) >= maxKept || slices.Contains(k.topics, topic) {
		return false
	}
	k.topics = append(k.topics, strings.Clone(topic))
	return true
}

// noteKept makes the refusal of a topic's first message a step of the attempt. It may be
// called under the session's lock and takes none but the trace's. Who finds the words
// for one topic holds up no publisher of another one.
func (c *connection) noteKept(bound *binding, request *policy.Request) {
	k := c.kept.Load()
	if k == nil {
		c.kept.CompareAndSwap(nil, &kept{})
		k = c.kept.Load()
	}
	if k.add(request.ResourceName) {
		c.peer.Rec.Fail("policy.receive", identity.Denied(imprint.CodeReceiveDenied, bound.policies.Explain(request)))
	}
}
