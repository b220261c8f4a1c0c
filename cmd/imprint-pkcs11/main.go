//go:build pkcs11 && cgo && !windows

// Command imprint-pkcs11 loads one PKCS#11 module, a vendor's C library, and uses one of
// its tokens for Imprint, which starts it and speaks to it over standard input and
// output (package pki/keys/wire). It is a process of its own so that a module that
// crashes or hangs can't harm the server, and so that the server needs no cgo.
//
// It has no arguments, no settings and no state, takes the PIN from the pipe alone, and
// ends when its input ends, whatever the module is doing. What the module prints goes to
// standard error.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imprint-iot/imprint/pki/keys/wire"
)

// atOnce bounds the requests under way. Imprint waits with the others.
const atOnce = 16

func main() {
	err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "imprint-pkcs11:", err)
		os.Exit(1)
	}
}

func run() error {
	// Imprint ends this process, after its own last signatures; a Ctrl-C that goes
	// to both must not.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	// The PIN must not get into a core dump.
	err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if err != nil {
		return fmt.Errorf("couldn't forbid core dumps: %w", err)
	}
	in, out, err := takePipes()
	if err != nil {
		return err
	}
	return serve(in, out)
}

// takePipes moves the pipes to Imprint away from standard input and output, where a
// module might read or print.
func takePipes() (in, out *os.File, err error) {
	var moved [2]int
	for fd := range moved {
		moved[fd], err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 10)
		if err != nil {
			return nil, nil, fmt.Errorf("couldn't move descriptor %d: %w", fd, err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, fmt.Errorf("couldn't open %s: %w", os.DevNull, err)
	}
	err = errors.Join(redirect(int(null.Fd()), 0), redirect(2, 1), null.Close())
	if err != nil {
		return nil, nil, fmt.Errorf("couldn't redirect standard input and output: %w", err)
	}
	return os.NewFile(uintptr(moved[0]), "requests"), os.NewFile(uintptr(moved[1]), "answers"), nil
}

func serve(in io.Reader, out io.Writer) error {
	var m module
	var writing sync.Mutex
	slots := make(chan struct{}, atOnce)
	failed := make(chan error, 1)
	answer := func(a *wire.Response) {
		message, err := a.Marshal()
		if err == nil {
			writing.Lock()
			err = wire.Write(out, message)
			writing.Unlock()
		}
		if err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	}
	requests := make(chan *wire.Request)
	go func() {
		for {
			message, err := wire.Read(in)
			request := &wire.Request{}
			if err == nil {
				err = request.Unmarshal(message)
			}
			if err != nil {
				failed <- err
				return
			}
			requests <- request
		}
	}()
	for {
		select {
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				// Nobody is left to ask; the module may hang for all we care.
				return nil
			}
			return err
		case request := <-requests:
			if request.Op == wire.OpHello || request.Op == wire.OpLogin {
				// They come before all others, but must not keep the end of
				// the input from being seen.
				go func() { answer(m.do(request)) }()
				continue
			}
			go func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				answer(m.do(request))
			}()
		}
	}
}
