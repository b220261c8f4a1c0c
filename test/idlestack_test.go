package test

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestAnIdleConnectionLeavesRoomOnItsStack ensures that the goroutine of a connection that
// waits for packets uses less than a quarter of 16 KiB of its stack, in the way in which
// Go's collector counts it. It halves such a stack then; otherwise each of a fleet's
// connections keeps the 16 KiB that its handshake needed.
func TestAnIdleConnectionLeavesRoomOnItsStack(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.program = program                                   // frames are larger with the race detector
	s.settings = append(s.settings, "GOTRACEBACK=system") // has the stack pointers in it
	s.start()
	s.readEnv()
	mine, _ := s.twoAccounts(t)
	d := selfSigned(t, "idle")
	mine.register(t, d)
	for i := range 10 {
		w := s.connect(t, d, fmt.Sprint("idle", i), dialing{host: mine.host})
		w.ask(t, "quiet")
	}
	before := len(s.stderr.String())
	s.signal(syscall.SIGQUIT)
	dump := s.stderr.String()[before:]
	s.stderr = newSaid() // an end by SIGQUIT isn't a fault
	deepest, found, shown := 0, 0, ""
	for _, goroutine := range strings.Split(dump, "\n\n") {
		if !strings.Contains(goroutine, "[IO wait]") || !strings.Contains(goroutine, "broker.(*Broker).Serve(") {
			continue
		}
		found++
		shown = goroutine
		deepest = max(deepest, stackPointer(t, goroutine, "fp=", true)-stackPointer(t, goroutine, "sp=", false))
	}
	// runtime.shrinkstack adds what functions without a check of the stack may use.
	const limit, unchecked = 16 << 10 / 4, 800
	if found == 0 || deepest+unchecked >= limit {
		t.Errorf("%d connections wait, %d bytes of stack in use: want fewer than %d\n%s", found, deepest, limit-unchecked, shown)
	}
}

// stackPointer reads the first or the last of the pointers in a traceback, whose first
// frame is the deepest.
func stackPointer(t *testing.T, goroutine, name string, last bool) int {
	t.Helper()
	at := strings.Index(goroutine, name+"0x")
	if last {
		at = strings.LastIndex(goroutine, name+"0x")
	}
	if at < 0 {
		t.Fatalf("no %s in\n%s", name, goroutine)
	}
	hex, _, _ := strings.Cut(goroutine[at+len(name)+2:], " ")
	n, err := strconv.ParseInt(hex, 16, 64)
	if err != nil {
		t.Fatalf("%v in\n%s", err, goroutine)
	}
	return int(n)
}
