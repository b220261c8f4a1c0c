package doctor_test

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/doctor"
)

// A port that doesn't answer is told from one that refuses: a full backlog drops
// SYN packets, as a firewall does.
func TestAPortThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = syscall.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for full := false; !full; {
		conn, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		full = err != nil
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
	}
	d := newAuthority(t, "Factory").device(t, nil)
	d.options.Endpoint, d.options.Timeout = address, 300*time.Millisecond
	d.options.Getenv = func(name string) string { return map[string]string{"ALL_PROXY": "socks5://proxy"}[name] }
	report := examine(t, d.options)
	expect(t, report, "tcp", doctor.Failed, doctor.TCPTimeout, "ALL_PROXY is set")
	expect(t, report, "mqtt.ping", doctor.Skipped, "", "can't be connected to")
}
