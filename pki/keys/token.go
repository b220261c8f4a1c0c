package keys

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/keys/wire"
)

const (
	// The pause before a process that failed is started again.
	firstPause = 250 * time.Millisecond
	mostPause  = 15 * time.Second
	// maxPIN bounds a PIN. PKCS#11 leaves it to tokens; none takes that many.
	maxPIN = 256
)

// tokenPool has the tokens of a Store whose keys are open, and knows which PINs were
// wrong.
type tokenPool struct {
	config Config
	salt   [32]byte

	mu     sync.Mutex
	closed bool
	tokens map[tokenAddress]*token
	// refused are the wrong PINs, each with its token, as salted hashes: an
	// operator who opens a key again and again must not lock the token.
	refused map[[sha256.Size]byte]bool
	// logins has a lane for each token, so that two processes never try one PIN
	// side by side.
	logins map[wire.Token]chan struct{}
}

func (p *tokenPool) init(config Config) {
	p.config = config
	_, _ = rand.Read(p.salt[:]) // never fails
	p.tokens, p.refused, p.logins = map[tokenAddress]*token{}, map[[sha256.Size]byte]bool{}, map[wire.Token]chan struct{}{}
}

// take gives the token of an address for one more key. It may try a PIN again that is
// another than the last one.
func (p *tokenPool) take(address tokenAddress) (*token, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, imprint.Errorf(imprint.CodeInternal, "the key store was closed")
	}
	t := p.tokens[address]
	if t == nil {
		t = p.single(address, p.config.Timeout)
		p.tokens[address] = t
	}
	t.refs++
	t.reopen()
	return t, nil
}

// single gives a token for one caller alone, who must stop it.
func (p *tokenPool) single(address tokenAddress, patience time.Duration) *token {
	return &token{pool: p, address: address, patience: patience, lane: make(chan struct{}, 1)}
}

func (p *tokenPool) release(t *token) {
	p.mu.Lock()
	t.refs--
	last := t.refs == 0
	if last && p.tokens[t.address] == t {
		delete(p.tokens, t.address)
	}
	p.mu.Unlock()
	if last {
		t.stop()
	}
}

func (p *tokenPool) close() {
	p.mu.Lock()
	p.closed = true
	tokens := p.tokens
	p.tokens = map[tokenAddress]*token{}
	p.mu.Unlock()
	for _, t := range tokens {
		t.stop()
	}
}

// loginLane is held by whoever tries a PIN on a token.
func (p *tokenPool) loginLane(of wire.Token) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	lane := p.logins[of]
	if lane == nil {
		lane = make(chan struct{}, 1)
		p.logins[of] = lane
	}
	return lane
}

func (p *tokenPool) hash(of wire.Token, pin []byte) [sha256.Size]byte {
	mac := hmac.New(sha256.New, p.salt[:])
	fmt.Fprintf(mac, "%q", of)
	mac.Write(pin)
	return [sha256.Size]byte(mac.Sum(nil))
}

// token is one token of one module, in a process of its own that is started when it
// is needed and again after it failed.
type token struct {
	pool     *tokenPool
	address  tokenAddress
	patience time.Duration
	refs     int // guarded by pool.mu

	// lane is held by whoever starts the process.
	lane chan struct{}

	mu       sync.Mutex
	process  *helper
	stopped  bool
	failures int
	next     time.Time // of the next start
	cause    error     // of the last failure
	locked   error     // a PIN was refused; nothing is tried until reopen
}

// reopen allows another try after a refused PIN.
func (t *token) reopen() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.locked = nil
}

func (t *token) stop() {
	t.mu.Lock()
	process := t.process
	t.process, t.stopped = nil, true
	t.mu.Unlock()
	if process != nil {
		process.end(errors.New("it isn't needed any more"))
	}
}

// call asks the token's process and starts it first where it doesn't run. An answer
// that isn't OK is an error with a code.
func (t *token) call(ctx context.Context, request *wire.Request) (*wire.Response, error) {
	process, err := t.running(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := process.ask(ctx, request, t.patience)
	if err != nil {
		t.look(process)
		return nil, err
	}
	switch answer.Code {
	case wire.OK:
		t.mu.Lock()
		t.failures = 0
		t.mu.Unlock()
		return answer, nil
	case wire.Device:
		// What a module needs after a failure differs by vendor: sessions, a
		// login, another slot, to be loaded again. A new process has all of it.
		process.end(fmt.Errorf("the token failed: %s", answer.Message))
		t.look(process)
	case wire.PIN:
		// A key that wants the PIN for each signature.
		t.lock(errPIN(answer.Message))
	}
	return nil, t.refusal(process, answer)
}

// refusal gives an answer's code its error.
func (t *token) refusal(process *helper, answer *wire.Response) error {
	said := imprint.Excerpt(answer.Message)
	switch answer.Code {
	case wire.Device:
		return imprint.Errorf(imprint.CodeKeyUnavailable, "the token failed: %s", said)
	case wire.NoToken:
		return imprint.Errorf(imprint.CodeKeyUnavailable, "no such token is there: %s", said).
			WithHint("Put the token in, or correct token=, serial= and the others in the URI; `pkcs11-tool --module %s --list-slots` shows what is there.", t.address.module)
	case wire.Ambiguous:
		return imprint.Errorf(imprint.CodeInvalidRequest, "the URI isn't exact enough: %s", said).
			WithHint("Add ;id= for a key, ;serial= for a token.")
	case wire.NoKey:
		refusal := imprint.Errorf(imprint.CodeNotFound, "the token has no such private key: %s", said).
			WithHint("Look at object= and id= in the URI; `pkcs11-tool --module %s --login --list-objects` shows what is there.", t.address.module)
		if process.loginRequired && t.address.pinSource == "" {
			refusal.Hint = "The token shows its private keys after a login only: put the PIN into a file and add pin-source=file:/PATH to the URI."
		}
		return refusal
	case wire.Exists:
		return imprint.Errorf(imprint.CodeAlreadyExists, "the token has such a key already: %s", said).
			WithHint("Keys are never overwritten: choose another object= and id=, or take the key that is there (--existing-key).")
	case wire.PIN:
		return errPIN(said)
	case wire.Refused:
		return imprint.Errorf(imprint.CodeKeyRefused, "the token refuses: %s", said)
	}
	return imprint.Errorf(imprint.CodeInternal, "imprint-pkcs11 didn't understand Imprint: %s", said)
}

func errPIN(said string) *imprint.Error {
	return imprint.Errorf(imprint.CodeKeyRefused, "the token doesn't take the PIN: %s", imprint.Excerpt(said)).
		WithHint("It isn't tried again, so that the token doesn't lock itself. Correct what pin-source names: the key is opened anew when it is used next.")
}

func (t *token) lock(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.locked = err
}

// look notes that a process ended, once.
func (t *token) look(process *helper) {
	select {
	case <-process.done:
	default:
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.process == process {
		t.process = nil
		t.fail(process.err)
	}
}

// fail makes the next start wait; t.mu is held.
func (t *token) fail(cause error) {
	pause := min(firstPause<<min(t.failures, 10), mostPause)
	t.failures++
	t.next, t.cause = time.Now().Add(pause), cause
}

// running gives the token's process, logged in.
func (t *token) running(ctx context.Context) (*helper, error) {
	select {
	case t.lane <- struct{}{}:
		defer func() { <-t.lane }()
	case <-ctx.Done():
		return nil, fmt.Errorf("couldn't wait for the token's process: %w", ctx.Err())
	}
	process, wait, err := t.state()
	if process != nil || err != nil {
		return process, err
	}
	err = pause(ctx, wait)
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "the token failed before and is tried again in %v: %w", time.Until(t.next).Round(time.Millisecond), t.cause).
			WithHint("%s", imprint.HintOf(t.cause))
	}
	process, err = t.start(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil && t.locked == nil:
		t.fail(err)
		return nil, err
	case err != nil:
		return nil, err
	case t.stopped:
		process.end(errors.New("it isn't needed any more"))
		return nil, imprint.Errorf(imprint.CodeInternal, "the key store was closed")
	}
	t.process = process
	return process, nil
}

// state gives the process that runs, or how long to wait before one is started.
func (t *token) state() (*helper, time.Duration, error) {
	t.mu.Lock()
	process := t.process
	t.mu.Unlock()
	if process != nil {
		t.look(process)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.stopped:
		return nil, 0, imprint.Errorf(imprint.CodeInternal, "the key store was closed")
	case t.locked != nil:
		return nil, 0, t.locked
	}
	return t.process, time.Until(t.next), nil
}

// pause waits, or fails at once where the context wouldn't last.
func pause(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	end, bounded := ctx.Deadline()
	if bounded && time.Until(end) <= wait {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start starts a process, makes it load the module, and logs in.
func (t *token) start(ctx context.Context) (*helper, error) {
	process, err := startHelper(t.pool.config.PKCS11Helper)
	if err != nil {
		return nil, err
	}
	err = t.greet(ctx, process)
	if err != nil {
		process.end(err)
		return nil, err
	}
	return process, nil
}

func (t *token) greet(ctx context.Context, process *helper) error {
	a := t.address
	answer, err := process.ask(ctx, &wire.Request{
		Op: wire.OpHello, Version: wire.Version, Module: a.module,
		Token: wire.Token{Label: a.label, Manufacturer: a.manufacturer, Model: a.model, Serial: a.serial, Slot: a.slot},
	}, t.patience)
	if err != nil {
		return err
	}
	if answer.Code != wire.OK {
		return t.refusal(process, answer)
	}
	process.loginRequired = answer.LoginRequired
	if a.pinSource == "" {
		return nil
	}
	if answer.LastTry {
		refusal := imprint.Errorf(imprint.CodeKeyRefused, "the token says that one more wrong PIN locks it").
			WithHint("Log in by hand with the right PIN, with the vendor's program or pkcs11-tool --login --list-objects, which starts its count anew; then open the key again.")
		t.lock(refusal)
		return refusal
	}
	return t.login(ctx, process, answer.Token)
}

func (t *token) login(ctx context.Context, process *helper, of wire.Token) error {
	lane := t.pool.loginLane(of)
	select {
	case lane <- struct{}{}:
		defer func() { <-lane }()
	case <-ctx.Done():
		return fmt.Errorf("couldn't wait for another login: %w", ctx.Err())
	}
	pin, err := readSecret("pin-source", t.address.pinSource, maxPIN)
	if err != nil {
		return err
	}
	defer clear(pin)
	hash := t.pool.hash(of, pin)
	t.pool.mu.Lock()
	refused := t.pool.refused[hash]
	t.pool.mu.Unlock()
	if refused {
		refusal := errPIN("it was wrong before, and the file has still the same one")
		t.lock(refusal)
		return refusal
	}
	process.mute()
	answer, err := process.ask(ctx, &wire.Request{Op: wire.OpLogin, PIN: pin}, t.patience)
	if err != nil {
		return err
	}
	if answer.Code == wire.PIN {
		t.pool.mu.Lock()
		t.pool.refused[hash] = true
		t.pool.mu.Unlock()
		refusal := t.refusal(process, answer)
		t.lock(refusal)
		return refusal
	}
	if answer.Code != wire.OK {
		return t.refusal(process, answer)
	}
	return nil
}

// readSecret reads a PIN or password from a file, without the line's end, or from an
// environment variable. The caller clears it.
func readSecret(what, path string, most int64) ([]byte, error) {
	if variable, ok := strings.CutPrefix(path, envPrefix); ok {
		return readVariable(what, variable, most)
	}
	data, err := readBounded(path, most+2)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "couldn't read what %s names: %w", what, err).
			WithHint("Put the PIN or password on one line into the file, and let the user that Imprint runs as read it, and nobody else.")
	}
	secret := data
	secret = trimEnd(trimEnd(secret, '\n'), '\r')
	if len(secret) == 0 || int64(len(secret)) > most || strings.ContainsAny(string(secret), "\x00\r\n") {
		clear(data)
		return nil, imprint.Errorf(imprint.CodeKeyRefused, "the file that %s names doesn't hold one line of at most %d bytes", what, most).
			WithHint("Put the PIN or password on one line into %s.", path)
	}
	return secret, nil
}

func readVariable(what, variable string, most int64) ([]byte, error) {
	secret, set := os.LookupEnv(variable)
	if !set {
		return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "the variable %s, which %s names, isn't set", variable, what).
			WithHint("Set it for the server alone, or put the PIN or password into a file.")
	}
	if secret == "" || int64(len(secret)) > most || strings.ContainsAny(secret, "\x00\r\n") {
		return nil, imprint.Errorf(imprint.CodeKeyRefused, "the variable %s, which %s names, doesn't hold one line of at most %d bytes", variable, what, most).
			WithHint("Set it to the PIN or password alone.")
	}
	return []byte(secret), nil
}

func trimEnd(data []byte, c byte) []byte {
	if n := len(data); n > 0 && data[n-1] == c {
		return data[:n-1]
	}
	return data
}
