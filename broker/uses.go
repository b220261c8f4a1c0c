package broker

import "github.com/imprint-iot/imprint/policy"

// uses are the first things that a connection was allowed, each once: what its least
// policy is made of. The topics are those that the session keeps anyway, so that one
// costs a few bytes.
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

// recordUses tells the trace what the connection was allowed.
func (c *connection) recordUses() {
	for _, u := range c.uses {
		switch u.action {
		case usePublish:
			c.peer.Rec.Allowed("policy.publish", string(policy.Publish), c.realm.topicARN+u.name)
		case useRetain:
			c.peer.Rec.Allowed("policy.retain", string(policy.RetainPublish), c.realm.topicARN+u.name)
		case useSubscribe:
			c.peer.Rec.Allowed("policy.subscribe", string(policy.Subscribe), c.realm.filterARN+u.name)
		}
	}
	c.uses = nil
}
