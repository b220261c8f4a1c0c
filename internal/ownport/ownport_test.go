//go:build unix

package ownport_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/imprint-iot/imprint/internal/ownport"
)

// Nothing listens on a port of one's own, until somebody is told to; also again and again.
func TestAPortIsListenedOnByWhoIsToldItAlone(t *testing.T) {
	address := ownport.Address(t)
	for range 2 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("while nobody listens: got %v, want %v", err, syscall.ECONNREFUSED)
		}
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn, err = net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		_ = ln.Close()
	}
}
