//go:build unix

// Package ownport gives tests ports that nobody else is given: where nothing listens until
// the test has a program listen there, and where it may be stopped and started again.
//
// Who listens on port 0, closes and tells the port to a program leaves it to whoever asks
// the kernel for a port in between, and many tests do at the same time.
package ownport

import (
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
)

// Address gives 127.0.0.1 and a port that is bound, and listened on by nobody, until the
// test ends. A program can listen there that sets SO_REUSEADDR, as servers do.
func Address(t testing.TB) string {
	t.Helper()
	port, err := bind(t)
	if err != nil {
		t.Fatalf("couldn't get a port: %v", err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func bind(t testing.TB) (int, error) {
	// Programs that tests start meanwhile must not inherit it.
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	return address.(*syscall.SockaddrInet4).Port, nil
}
