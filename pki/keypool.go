package pki

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

// ErrPoolClosed is what Take returns after Close.
var ErrPoolClosed = errors.New("the pool of keys is closed")

// Bounds and defaults of KeyPoolConfig.
const (
	DefaultPoolSize = 64
	maxPoolSize     = 100_000
	maxPoolWorkers  = 64
)

// KeyPoolConfig says how many keys are kept ready. The zero value is 64 keys
// and one worker.
type KeyPoolConfig struct {
	// Size is how many unused keys are held in memory, some 4 KiB each: 1 to
	// 100000.
	Size int
	// Workers is how many keys are made at the same time: 1 to 64. A key takes
	// about a tenth of a second of one CPU.
	Workers int
}

// KeyPool keeps RSA-2048 keys ready for devices that let the server make their
// key (CreateKeysAndCertificate). Keys live in memory alone.
//
// Filling the pool is background work: a worker rests after each key for as long
// as the key took, so that it costs half a CPU at most, unless somebody waits in
// Take. Accounts that wait take turns, however much one of them asks for.
type KeyPool struct {
	size int
	// wake ends the rest of the workers early; it holds a token when somebody
	// began to wait.
	wake   chan struct{}
	closed chan struct{}
	once   sync.Once
	done   sync.WaitGroup

	mu    sync.Mutex
	keys  []*rsa.PrivateKey // none while somebody waits
	taken sync.Cond         // of mu: there is room in keys, or the pool was closed
	// waiting has those in Take of each account, and turns the accounts that wait.
	waiting map[imprint.AccountID][]chan *rsa.PrivateKey
	turns   []imprint.AccountID
	failure error // why the last key couldn't be made
}

// NewKeyPool starts the workers. Close ends them. Errors: CodeInvalidRequest.
func NewKeyPool(config KeyPoolConfig) (*KeyPool, error) {
	if config.Size == 0 {
		config.Size = DefaultPoolSize
	}
	if config.Workers == 0 {
		config.Workers = 1
	}
	if config.Size < 0 || config.Size > maxPoolSize || config.Workers < 0 || config.Workers > maxPoolWorkers {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a pool of %d keys and %d workers isn't within 1 to %d and 1 to %d",
			config.Size, config.Workers, maxPoolSize, maxPoolWorkers)
	}
	p := newKeyPool(config)
	for range config.Workers {
		p.done.Go(p.work)
	}
	return p, nil
}

func newKeyPool(config KeyPoolConfig) *KeyPool {
	p := &KeyPool{
		size: config.Size, wake: make(chan struct{}, config.Workers), closed: make(chan struct{}),
		waiting: map[imprint.AccountID][]chan *rsa.PrivateKey{},
	}
	p.taken.L = &p.mu
	return p
}

// Take gives an account a key that nobody had before. It waits only while the pool is
// empty. Errors: ctx's, ErrPoolClosed.
func (p *KeyPool) Take(ctx context.Context, account imprint.AccountID) (*KeyPair, error) {
	if p.isClosed() {
		return nil, ErrPoolClosed
	}
	key, handed := p.takeOrWait(account)
	if key != nil {
		return newKeyPair(key)
	}
	select {
	case p.wake <- struct{}{}:
	default: // as many workers as there are have been told already
	}
	var err error
	select {
	case key = <-handed:
		return newKeyPair(key)
	case <-p.closed:
		err = ErrPoolClosed
	case <-ctx.Done():
		err = errors.Join(fmt.Errorf("couldn't get a key in time: %w", ctx.Err()), p.lastFailure())
	}
	if !p.leave(account, handed) {
		return newKeyPair(<-handed)
	}
	return nil, err
}

// takeOrWait gives a key that is ready, or where one will be handed over.
func (p *KeyPool) takeOrWait(account imprint.AccountID) (*rsa.PrivateKey, chan *rsa.PrivateKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.keys) - 1; last >= 0 {
		key := p.keys[last]
		p.keys[last] = nil
		p.keys = p.keys[:last]
		p.taken.Signal()
		return key, nil
	}
	handed := make(chan *rsa.PrivateKey, 1)
	if len(p.waiting[account]) == 0 {
		p.turns = append(p.turns, account)
	}
	p.waiting[account] = append(p.waiting[account], handed)
	return nil, handed
}

// leave ends a wait. False: a key was handed over already.
func (p *KeyPool) leave(account imprint.AccountID, handed chan *rsa.PrivateKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.Index(p.waiting[account], handed)
	if at < 0 {
		return false
	}
	p.unlist(account, at)
	return true
}

// unlist takes one that waits off the list of its account, and the account from the
// turns when it was the last.
func (p *KeyPool) unlist(account imprint.AccountID, at int) {
	p.waiting[account] = slices.Delete(p.waiting[account], at, at+1)
	if len(p.waiting[account]) > 0 {
		return
	}
	delete(p.waiting, account)
	at = slices.Index(p.turns, account)
	p.turns = slices.Delete(p.turns, at, at+1)
}

// put hands a key to the account whose turn it is, or keeps it once there is room. It
// is false when the pool was closed.
func (p *KeyPool) put(key *rsa.PrivateKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.keys) >= p.size && !p.isClosed() {
		p.taken.Wait()
	}
	if p.isClosed() {
		return false
	}
	if len(p.turns) == 0 {
		p.keys = append(p.keys, key)
		return true
	}
	account := p.turns[0]
	p.turns = append(slices.Delete(p.turns, 0, 1), account)
	p.waiting[account][0] <- key
	p.unlist(account, 0)
	return true
}

func (p *KeyPool) isClosed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// Ready gives the number of keys that wait.
func (p *KeyPool) Ready() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.keys)
}

// Close stops the workers, waits for them, and overwrites the unused keys.
func (p *KeyPool) Close() {
	p.once.Do(func() {
		p.mu.Lock()
		close(p.closed)
		p.taken.Broadcast()
		p.mu.Unlock()
		p.done.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, key := range p.keys {
			wipe(key)
		}
		p.keys = nil
	})
}

func (p *KeyPool) work() {
	for {
		began := time.Now()
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		p.note(err)
		if err == nil && !p.put(key) {
			wipe(key)
			return
		}
		if !p.rest(max(time.Since(began), time.Millisecond), err != nil) {
			return
		}
	}
}

// rest waits as long as the work took, or a second after a failure. It is false
// when the pool was closed.
func (p *KeyPool) rest(worked time.Duration, failed bool) bool {
	if failed {
		worked = time.Second
	}
	if p.awaited() && !failed {
		worked = 0
	}
	timer := time.NewTimer(worked)
	defer timer.Stop()
	select {
	case <-p.closed:
		return false
	case <-timer.C:
	case <-p.wake:
	}
	return true
}

func (p *KeyPool) awaited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.turns) > 0
}

func (p *KeyPool) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failure = err
}

func (p *KeyPool) lastFailure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// KeyPair is a fresh RSA-2048 key of a device.
type KeyPair struct {
	key        *rsa.PrivateKey
	publicPEM  []byte
	privatePEM []byte
}

func newKeyPair(key *rsa.PrivateKey) (*KeyPair, error) {
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the public key: %w", err)
	}
	der := x509.MarshalPKCS1PrivateKey(key)
	defer clear(der)
	return &KeyPair{
		key:        key,
		publicPEM:  pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}),
		privatePEM: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der}),
	}, nil
}

// Public gives the public key, for Request.PublicKey.
func (k *KeyPair) Public() *rsa.PublicKey { return &k.key.PublicKey }

// PublicPEM gives the public key as SubjectPublicKeyInfo, "PUBLIC KEY".
func (k *KeyPair) PublicPEM() []byte { return k.publicPEM }

// PrivatePEM gives the private key as PKCS#1, "RSA PRIVATE KEY". The bytes are
// overwritten by Destroy.
func (k *KeyPair) PrivatePEM() []byte { return k.privatePEM }

// Format hides the private key, whatever the verb.
func (k *KeyPair) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("pki.KeyPair(hidden)")) }

// Destroy overwrites the private key. Copies that crypto/rsa keeps of it in its
// own form are out of reach and fall to the garbage collector.
func (k *KeyPair) Destroy() {
	clear(k.privatePEM)
	wipe(k.key)
}

func wipe(key *rsa.PrivateKey) {
	secrets := append([]*big.Int{key.D, key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv}, key.Primes...)
	for _, n := range secrets {
		if n == nil {
			continue
		}
		clear(n.Bits())
		n.SetInt64(0)
	}
}
