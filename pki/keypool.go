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
	"sync"
	"sync/atomic"
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
// Take.
type KeyPool struct {
	keys    chan *rsa.PrivateKey
	waiting atomic.Int64
	// wake ends the rest of the workers early; it holds a token when somebody
	// began to wait.
	wake   chan struct{}
	closed chan struct{}
	once   sync.Once
	done   sync.WaitGroup
	// mu guards failure, why the last key couldn't be made.
	mu      sync.Mutex
	failure error
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
	p := &KeyPool{
		keys: make(chan *rsa.PrivateKey, config.Size),
		wake: make(chan struct{}, config.Workers), closed: make(chan struct{}),
	}
	for range config.Workers {
		p.done.Go(p.work)
	}
	return p, nil
}

// Take gives a key that nobody had before. It waits only while the pool is
// empty. Errors: ctx's, ErrPoolClosed.
func (p *KeyPool) Take(ctx context.Context) (*KeyPair, error) {
	select {
	case <-p.closed:
		return nil, ErrPoolClosed
	default:
	}
	select {
	case key := <-p.keys:
		return newKeyPair(key)
	default:
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	select {
	case p.wake <- struct{}{}:
	default: // as many workers as there are have been told already
	}
	select {
	case key := <-p.keys:
		return newKeyPair(key)
	case <-p.closed:
		return nil, ErrPoolClosed
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("couldn't get a key in time: %w", ctx.Err()), p.lastFailure())
	}
}

// Ready gives the number of keys that wait.
func (p *KeyPool) Ready() int { return len(p.keys) }

// Close stops the workers, waits for them, and overwrites the unused keys.
func (p *KeyPool) Close() {
	p.once.Do(func() {
		close(p.closed)
		p.done.Wait()
		for {
			select {
			case key := <-p.keys:
				wipe(key)
			default:
				return
			}
		}
	})
}

func (p *KeyPool) work() {
	for {
		began := time.Now()
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		p.note(err)
		if err == nil {
			select {
			case p.keys <- key:
			case <-p.closed:
				wipe(key)
				return
			}
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
	if p.waiting.Load() > 0 && !failed {
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
