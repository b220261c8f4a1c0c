// Package outward connects to public addresses alone. Accounts name URLs that the server
// then calls; those of others than the server's own may not reach through it what is on
// its machine and in its network, such as the metadata service of a cloud.
//
// The address is looked at where the connection is made, so that no name leads where its
// address wouldn't. What is public follows IANA's registries of special-purpose addresses
// (RFC 6890).
package outward

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/imprint-iot/imprint"
)

// Refused is in the chain of the error of a connection to an address that isn't public.
type Refused struct{ Address netip.Addr }

// Error says what would let it through.
func (r *Refused) Error() string {
	return r.Address.String() + " is an address of this machine or of a private network, and only the server's first account may call those (--private-addresses lets all do)"
}

// Bounds says whether an account may call public addresses alone: all but the one that
// may call private ones; empty, all may.
func Bounds(account, private imprint.AccountID) bool { return private != "" && account != private }

// Transport gives a copy of a transport that connects to public addresses alone. It uses
// no proxy: that would look names up by itself.
func Transport(t *http.Transport, timeout time.Duration) *http.Transport {
	t = t.Clone()
	t.Proxy = nil
	t.DialContext = (&net.Dialer{Timeout: timeout, Control: control}).DialContext
	return t
}

// control refuses a connection that is about to be made.
func control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("couldn't read the address %q: %w", address, err)
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("couldn't list the addresses of this machine: %w", err)
	}
	ip := target.Addr().Unmap().WithZone("")
	here := slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, ok := a.(*net.IPNet)
		return ok && prefix.IP.Equal(ip.AsSlice())
	})
	if here || !public(ip) {
		return &Refused{ip}
	}
	return nil
}

// special are blocks that aren't the public internet's, or lead to others' addresses. Of
// IPv6 all but 2000::/3 is none.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), // this machine, to many systems
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // of providers; some clouds' metadata
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), // metadata of most clouds
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast and reserved
	netip.MustParsePrefix("2001::/23"),   // Teredo, among others
	netip.MustParsePrefix("2002::/16"),   // 6to4
}

var unicast = netip.MustParsePrefix("2000::/3")

func public(ip netip.Addr) bool {
	if ip.Is6() && !unicast.Contains(ip) {
		return false
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(ip) })
}
