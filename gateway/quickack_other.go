//go:build !linux

package gateway

import "net"

// acknowledgeNow has no counterpart outside Linux.
func acknowledgeNow(net.Conn) {}
