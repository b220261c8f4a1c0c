package keys

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/imprint-iot/imprint"
)

// maxTPMAnswer bounds an answer (TPM_PT_MAX_RESPONSE_SIZE is 4096 in practice).
const maxTPMAnswer = 16 << 10

// tpmPool has the devices of a Store. They are never closed: a device is open only
// while a command runs.
type tpmPool struct {
	mu      sync.Mutex
	devices map[string]*tpmDevice
}

func (p *tpmPool) device(path string) *tpmDevice {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.devices == nil {
		p.devices = map[string]*tpmDevice{}
	}
	d := p.devices[path]
	if d == nil {
		d = &tpmDevice{path: path, lane: make(chan struct{}, 1), wrong: map[[sha256.Size]byte]bool{}}
		_, _ = rand.Read(d.salt[:]) // never fails
		p.devices[path] = d
	}
	return d
}

// tpmDevice is a TPM. It does one thing after the other.
type tpmDevice struct {
	path string
	// lane is held by the goroutine that speaks to the TPM, also after its caller
	// lost patience, until the TPM answered or the connection broke. So a TPM that
	// hangs holds one goroutine, however many callers come.
	lane chan struct{}
	// broken, held by the lane's holder, tells that the last exchange broke off, and
	// before has the transient keys that were there before it.
	broken bool
	before []tpm2.TPMHandle

	mu    sync.Mutex
	salt  [32]byte
	wrong map[[sha256.Size]byte]bool // passwords that were refused, salted and hashed
}

// run lets f speak to the TPM, alone. When patience is over, the connection is cut and
// the TPM is left to itself.
func run[T any](ctx context.Context, d *tpmDevice, patience time.Duration, f func(transport.TPM) (T, error)) (T, error) {
	var none T
	select {
	case d.lane <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("couldn't wait for the TPM, which is busy or hangs: %w", ctx.Err())
	}
	// A little less than what callers have, so that they are told what happened. A
	// caller with less patience goes and leaves the exchange to its end.
	end := time.Now().Add(patience - patience/10)
	type outcome struct {
		value T
		err   error
	}
	finished := make(chan outcome, 1)
	go func() {
		defer func() { <-d.lane }()
		value, err := exchange(d, end, f)
		finished <- outcome{value, err}
	}()
	select {
	case o := <-finished:
		return o.value, o.err
	case <-ctx.Done():
		return none, fmt.Errorf("couldn't wait for the TPM: %w", ctx.Err())
	}
}

// exchange opens the TPM, speaks to it and closes it.
func exchange[T any](d *tpmDevice, end time.Time, f func(transport.TPM) (T, error)) (T, error) {
	var none T
	tpm, err := openTPMDevice(d.path, end)
	if err != nil {
		return none, imprint.Errorf(imprint.CodeKeyUnavailable, "couldn't reach the TPM: %w", err).
			WithHint("Look whether %s is there and this user may open it (group tss), and no other program holds it.", strings.TrimPrefix(d.path, unixPrefix))
	}
	watched := &watchedTPM{tpm: tpm, end: end}
	value, err := none, d.tidy(watched)
	if err == nil {
		value, err = f(watched)
	}
	d.broken = watched.broken
	closeErr := tpm.Close()
	if err == nil && closeErr != nil {
		err = imprint.Errorf(imprint.CodeKeyUnavailable, "couldn't close the TPM: %w", closeErr)
	}
	return value, err
}

// tidy notes which keys and sessions are loaded. After an exchange that broke off it
// unloads those that came since, as the one that broke off couldn't. A resource manager
// does it by itself.
func (d *tpmDevice) tidy(tpm transport.TPM) error {
	if strings.HasPrefix(d.path, "/dev/tpmrm") {
		return nil
	}
	var now []tpm2.TPMHandle
	for _, kind := range []tpm2.TPMHT{tpm2.TPMHTTransient, tpm2.TPMHTLoadedSession} {
		some, err := handlesOf(tpm, uint32(kind)<<24)
		if err != nil {
			return err
		}
		now = append(now, some...)
	}
	if !d.broken {
		d.before = now
		return nil
	}
	for _, handle := range now {
		if slices.Contains(d.before, handle) {
			continue
		}
		err := flush(tpm, handle)
		if err != nil {
			return err
		}
	}
	return nil
}

// watchedTPM notes whether a command got no answer, and sends those again that the TPM
// couldn't start, as part 3 section 5.4.6 of its specification wants it: while it tests
// itself, for example. The kernel's driver does so too.
type watchedTPM struct {
	tpm    transport.TPM
	end    time.Time
	broken bool
}

func (w *watchedTPM) Send(command []byte) ([]byte, error) {
	for wait := 2 * time.Millisecond; ; wait *= 2 {
		answer, err := w.tpm.Send(command)
		if err != nil {
			w.broken = true
			return nil, err
		}
		if len(answer) < 10 || time.Until(w.end) < wait {
			return answer, nil
		}
		switch tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])) {
		case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting:
			time.Sleep(wait)
		default:
			return answer, nil
		}
	}
}

func openTPMDevice(path string, end time.Time) (transport.TPMCloser, error) {
	socket, isSocket := strings.CutPrefix(path, unixPrefix)
	if !isSocket {
		// A read of a device can't be broken off; the kernel's driver has limits of
		// its own for each command.
		return openTPMFile(path)
	}
	dialer := net.Dialer{Deadline: end}
	conn, err := dialer.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	err = conn.SetDeadline(end)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &socketTPM{conn}, nil
}

// socketTPM speaks to a TPM on a stream: an answer's head says how long it is.
type socketTPM struct{ conn net.Conn }

func (s *socketTPM) Send(command []byte) ([]byte, error) {
	_, err := s.conn.Write(command)
	if err != nil {
		return nil, fmt.Errorf("couldn't send a command: %w", err)
	}
	head := make([]byte, 10)
	_, err = io.ReadFull(s.conn, head)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the answer: %w", err)
	}
	length := binary.BigEndian.Uint32(head[2:])
	if length < uint32(len(head)) || length > maxTPMAnswer {
		return nil, fmt.Errorf("an answer of %d bytes can't be a TPM's", length)
	}
	answer := append(head, make([]byte, length-uint32(len(head)))...)
	_, err = io.ReadFull(s.conn, answer[len(head):])
	if err != nil {
		return nil, fmt.Errorf("couldn't read the answer: %w", err)
	}
	return answer, nil
}

func (s *socketTPM) Close() error { return s.conn.Close() }

func (d *tpmDevice) hash(name string, secret []byte) [sha256.Size]byte {
	mac := hmac.New(sha256.New, d.salt[:])
	fmt.Fprintf(mac, "%q", name)
	mac.Write(secret)
	return [sha256.Size]byte(mac.Sum(nil))
}

// allowed refuses a password that was wrong before.
func (d *tpmDevice) allowed(name string, secret []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wrong[d.hash(name, secret)] {
		return imprint.Errorf(imprint.CodeKeyRefused, "the key's password was wrong before, and the file has still the same one").
			WithHint("It isn't tried again, so that the TPM doesn't lock itself. Correct the file that auth-source names.")
	}
	return nil
}

func (d *tpmDevice) refuse(name string, secret []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wrong[d.hash(name, secret)] = true
}
