package broker

import (
	"net/netip"

	"github.com/imprint-iot/imprint"
)

// Live is a client that is connected.
type Live struct {
	ClientID    imprint.ClientID
	Certificate imprint.CertificateID // empty: an operator's
	Address     netip.Addr
}

// maxLive bounds what Connected gives.
const maxLive = 10

// Connected gives the connections of a client id, and those with a certificate; either
// may be empty.
func (b *Broker) Connected(tenant imprint.Tenant, client imprint.ClientID, certificate imprint.CertificateID) []Live {
	b.mu.RLock()
	r := b.realms[tenant]
	b.mu.RUnlock()
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []Live
	add := func(c *connection) {
		if c != nil && c.ended.Load() == nil && len(found) < maxLive {
			found = append(found, Live{c.clientID, c.certificate, c.peer.Address})
		}
	}
	if s := r.sessions[client]; s != nil {
		add(s.conn.Load())
	}
	// Operators have no certificate, and nothing in common.
	if certificate == noCertificate || len(found) > 0 && found[0].Certificate == certificate {
		return found
	}
	for _, c := range r.byCert[certificate] {
		add(c)
	}
	return found
}
