package mqtt

import (
	"fmt"
	"math/bits"
	"strings"
)

// detail lists the properties for a trace: numbers and reason strings with
// their values, other text and data as names only, because they may be secret.
func (p *Properties) detail() string {
	if p.Empty() {
		return ""
	}
	var b strings.Builder
	for set := p.Present; set != 0; set &= set - 1 {
		id := PropertyID(bits.TrailingZeros64(uint64(set)))
		info, _ := id.info()
		switch info.kind {
		case kindFlag:
			fmt.Fprintf(&b, ", %s=%d", id, *p.flag(id))
		case kindUint16:
			fmt.Fprintf(&b, ", %s=%d", id, *p.short(id))
		case kindUint32:
			fmt.Fprintf(&b, ", %s=%d", id, *p.long(id))
		case kindString:
			if id == PropReasonString {
				fmt.Fprintf(&b, ", %s=%q", id, p.ReasonString)
				continue
			}
			fmt.Fprintf(&b, ", %s", id)
		default:
			fmt.Fprintf(&b, ", %s", id)
		}
	}
	if len(p.SubscriptionIDs) > 0 {
		fmt.Fprintf(&b, ", %s=%d", PropSubscriptionID, p.SubscriptionIDs)
	}
	if len(p.User) > 0 {
		fmt.Fprintf(&b, ", %d user properties", len(p.User))
	}
	return b.String()
}
