package gateway

import (
	"net"

	"golang.org/x/sys/unix"
)

// acknowledgeNow sends the acknowledgement of the client's last flight at once.
// The server has nothing to send after a resumed handshake, nor after one of TLS
// 1.3 without tickets, so the kernel would wait up to 40 ms for data to send it
// with, and a client that doesn't switch Nagle's algorithm off holds its CONNECT
// back until then. Where a ticket or the server's Finished went out last, it is
// sent already and this does nothing.
func acknowledgeNow(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // the connection is closed
	}
	_ = raw.Control(func(fd uintptr) {
		// Without it the connection is slower, not wrong.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	})
}
