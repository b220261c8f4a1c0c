package functions

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
)

// maxLog is what is kept of one run's log: its end, as AWS Lambda gives it.
const maxLog = 4096

// logs collects what a process writes to standard output and error, through one
// pipe. Only its end is kept, whatever a function writes.
type logs struct {
	file *os.File
	raw  syscall.RawConn
	done chan struct{} // closed when the reader has ended

	mu   sync.Mutex
	tail []byte
	buf  [16 << 10]byte // of reads, under mu
}

// newLogs gives the reader and the end that the process writes to.
func newLogs() (*logs, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("couldn't make the pipe of a function's log: %w", err)
	}
	raw, err := r.SyscallConn()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("couldn't use the pipe of a function's log: %w", err), r.Close(), w.Close())
	}
	l := &logs{file: r, raw: raw, done: make(chan struct{})}
	go l.read()
	return l, w, nil
}

// read takes what comes until the pipe is closed.
func (l *logs) read() {
	defer close(l.done)
	// The error is that of the closed file.
	_ = l.raw.Read(func(fd uintptr) bool {
		for {
			more, ended := l.chunk(fd)
			if !more {
				return ended
			}
		}
	})
}

// chunk reads and keeps a piece of what the pipe holds now. Both are one step, so
// that whoever calls it finds all that was written before.
func (l *logs) chunk(fd uintptr) (more, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := readPipe(fd, l.buf[:])
	switch {
	case n > 0:
		l.keep(l.buf[:n])
		return true, false
	case errors.Is(err, syscall.EINTR):
		return true, false
	case errors.Is(err, syscall.EAGAIN):
		return false, false
	}
	return false, true
}

// keep appends and cuts off the beginning now and then.
func (l *logs) keep(p []byte) {
	l.tail = append(l.tail, p...)
	if len(l.tail) > 4*maxLog {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-maxLog:]...)
	}
}

// note adds a line of the host's own.
func (l *logs) note(format string, args ...any) {
	l.drain()
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.tail); n > 0 && l.tail[n-1] != '\n' {
		l.tail = append(l.tail, '\n')
	}
	l.keep(fmt.Appendf(nil, format+"\n", args...))
}

// drainChunks bounds one drain: a pipe holds 64 KiB, and a function may go on
// writing.
const drainChunks = 5

// drain reads what was written until now.
func (l *logs) drain() {
	// A closed pipe has nothing more.
	_ = l.raw.Control(func(fd uintptr) {
		for range drainChunks {
			more, _ := l.chunk(fd)
			if !more {
				return
			}
		}
	})
}

// take gives the end of what was written since the last take.
func (l *logs) take() string {
	l.drain()
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.tail
	if len(text) > maxLog {
		text = text[len(text)-maxLog:]
	}
	out := strings.ToValidUTF8(string(text), "\uFFFD")
	l.tail = l.tail[:0]
	// Replacing can have made it longer.
	if len(out) > maxLog {
		out = strings.ToValidUTF8(out[len(out)-maxLog:], "")
	}
	return out
}

// close ends the reader. Processes that still write get SIGPIPE.
func (l *logs) close() {
	_ = l.file.Close()
	<-l.done
}
