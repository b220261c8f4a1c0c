package gateway

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
)

// TicketOptions tune the keys of session tickets. Zero values give the defaults
// in brackets.
type TicketOptions struct {
	// Path is the file that keeps the keys, sealed, so that sessions resume
	// after a restart. Empty: they live in memory alone.
	Path   string
	Sealer imprint.Sealer // needed with Path
	Clock  imprint.Clock  // [time.Now]
	Rotate time.Duration  // age at which a key seals no more new tickets [1 h]
	// Keep is the age at which a key opens no more tickets, and the time after
	// which a device has to prove anew that it holds its private key, however
	// often it resumed since [24 h].
	Keep   time.Duration
	Logger *slog.Logger // [slog.Default]
}

// MaxTicketKeys bounds how many keys may be in use: Keep divided by Rotate.
const MaxTicketKeys = 256

func (o TicketOptions) withDefaults() TicketOptions {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rotate <= 0 {
		o.Rotate = time.Hour
	}
	if o.Keep <= 0 {
		o.Keep = 24 * time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// ticketContext binds the sealed file to its purpose.
var ticketContext = []byte("imprint/ticket-keys")

const (
	keyNameSize = 16 // RFC 5077, section 4
	keySize     = 32
)

// ticketKey seals tickets, or used to.
type ticketKey struct {
	name   [keyNameSize]byte
	secret [keySize]byte
	made   time.Time
	// cipher is a crypto/tls configuration that does nothing but encrypt and
	// decrypt with this one key.
	cipher *tls.Config
}

// storedKey is a key in the sealed file.
type storedKey struct {
	Name   []byte `json:"name"`
	Secret []byte `json:"secret"`
	Made   int64  `json:"made"` // milliseconds since 1970
}

// TicketKeys seal and open session tickets (RFC 5077, RFC 8446 section 4.6.1).
// A ticket begins with the name of its key, so that opening one costs the same
// however many keys there are. They are safe for use by many goroutines.
//
// What a ticket carries is the client's certificate as it was shown, which says
// who is there and nothing about what it may do: that is looked up at CONNECT.
type TicketKeys struct {
	opts TicketOptions

	rotating  sync.Mutex
	unwritten bool // the file hasn't the present keys; rotating guards it
	// keys are all that open tickets, the newest, which seals, first. The slice
	// isn't changed, but replaced.
	keys atomic.Pointer[[]*ticketKey]
}

// OpenTicketKeys reads the keys of an earlier run and makes what is missing. A
// file that can't be read costs its devices a full handshake, so it is replaced,
// and the log says why.
func OpenTicketKeys(opts TicketOptions) (*TicketKeys, error) {
	k := &TicketKeys{opts: opts.withDefaults()}
	if k.opts.Rotate > k.opts.Keep || k.opts.Keep/k.opts.Rotate > MaxTicketKeys {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "ticket keys that seal for %s can't be kept for %s", k.opts.Rotate, k.opts.Keep).
			WithHint("Keep them at least as long as they seal, and at most %d times as long.", MaxTicketKeys)
	}
	keys, err := k.read()
	if err != nil {
		k.opts.Logger.Warn("couldn't read the session-ticket keys of an earlier run; devices make full handshakes", "error", err)
	}
	k.keys.Store(&keys)
	return k, k.Rotate()
}

// Rotate drops the keys whose time is over and makes a new one when the newest
// has sealed long enough. It is called by Run. A new key that couldn't be written
// is used all the same, and written by the next call: that it outlives this run is
// a convenience, that old keys go is not.
func (k *TicketKeys) Rotate() error {
	k.rotating.Lock()
	defer k.rotating.Unlock()
	now := k.opts.Clock()
	var keys []*ticketKey
	for _, key := range *k.keys.Load() {
		if age := now.Sub(key.made); age >= 0 && age < k.opts.Keep {
			keys = append(keys, key)
		}
	}
	fresh := len(keys) > 0 && now.Sub(keys[0].made) < k.opts.Rotate
	if fresh && len(keys) == len(*k.keys.Load()) && !k.unwritten {
		return nil
	}
	if !fresh {
		keys = append([]*ticketKey{newTicketKey(now)}, keys...)
	}
	k.keys.Store(&keys)
	err := k.write(keys)
	k.unwritten = err != nil
	return err
}

// firstRetry is the pause after keys couldn't be written; it doubles up to the
// usual one.
const firstRetry = time.Second

// Run rotates until the context ends. The log tells of keys that can't be written
// once, until they are.
func (k *TicketKeys) Run(ctx context.Context) {
	usual := min(k.opts.Rotate, time.Minute)
	retry := min(firstRetry, usual)
	failing := false
	timer := time.NewTimer(usual)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := k.Rotate()
		if err == nil {
			failing, retry = false, min(firstRetry, usual)
			timer.Reset(usual)
			continue
		}
		if !failing {
			k.opts.Logger.Error("couldn't keep the session-ticket keys for the next start", "error", err)
		}
		failing = true
		timer.Reset(retry)
		retry = min(2*retry, usual)
	}
}

func newTicketKey(now time.Time) *ticketKey {
	key := &ticketKey{made: now}
	// crypto/rand.Read never fails; it ends the program instead.
	_, _ = rand.Read(key.name[:])
	_, _ = rand.Read(key.secret[:])
	return key.ready()
}

func (key *ticketKey) ready() *ticketKey {
	key.cipher = &tls.Config{MinVersion: tls.VersionTLS12}
	key.cipher.SetSessionTicketKeys([][keySize]byte{key.secret})
	return key
}

func (k *TicketKeys) read() ([]*ticketKey, error) {
	if k.opts.Path == "" {
		return nil, nil
	}
	sealed, err := os.ReadFile(k.opts.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't read the session-ticket keys: %w", err)
	}
	plain, err := k.opts.Sealer.Open(sealed, ticketContext)
	if err != nil {
		return nil, fmt.Errorf("couldn't open the session-ticket keys: %w", err)
	}
	defer clear(plain)
	var stored []storedKey
	err = json.Unmarshal(plain, &stored)
	if err != nil {
		return nil, fmt.Errorf("couldn't understand the session-ticket keys: %w", err)
	}
	var keys []*ticketKey
	for _, s := range stored {
		if len(s.Name) != keyNameSize || len(s.Secret) != keySize || len(keys) > MaxTicketKeys {
			return nil, fmt.Errorf("couldn't understand the session-ticket keys: %d bytes are no name or %d no key", len(s.Name), len(s.Secret))
		}
		key := &ticketKey{made: time.UnixMilli(s.Made)}
		copy(key.name[:], s.Name)
		copy(key.secret[:], s.Secret)
		clear(s.Secret)
		keys = append(keys, key.ready())
	}
	return keys, nil
}

func (k *TicketKeys) write(keys []*ticketKey) error {
	if k.opts.Path == "" {
		return nil
	}
	stored := make([]storedKey, 0, len(keys))
	for _, key := range keys {
		stored = append(stored, storedKey{Name: key.name[:], Secret: key.secret[:], Made: key.made.UnixMilli()})
	}
	plain, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("couldn't encode the session-ticket keys: %w", err)
	}
	defer clear(plain)
	sealed, err := k.opts.Sealer.Seal(plain, ticketContext)
	if err != nil {
		return fmt.Errorf("couldn't seal the session-ticket keys: %w", err)
	}
	return durable.WriteFile(k.opts.Path, sealed, 0o600)
}

// maxTicket bounds a ticket; a TLS message takes no more than 64 KiB. What fills
// it is the chain that the device sends, of which only the first counts.
const maxTicket = 32 << 10

// seal makes the ticket of a session.
func (k *TicketKeys) seal(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	key := (*k.keys.Load())[0]
	sealed, err := key.cipher.EncryptTicket(state, session)
	if err != nil {
		return nil, fmt.Errorf("couldn't seal a session ticket: %w", err)
	}
	if len(sealed) > maxTicket {
		return nil, errChainTooLong
	}
	return append(key.name[:keyNameSize:keyNameSize], sealed...), nil
}

// errChainTooLong says that the device sent more certificates than fit into a
// ticket.
var errChainTooLong = errors.New("the device sent too many or too long client certificates")

// open gives the session of a ticket, or nil when it is nobody's or too old.
func (k *TicketKeys) open(ticket []byte, state tls.ConnectionState) *tls.SessionState {
	if len(ticket) < keyNameSize {
		return nil
	}
	name := [keyNameSize]byte(ticket)
	now := k.opts.Clock()
	for _, key := range *k.keys.Load() {
		if key.name != name || now.Sub(key.made) >= k.opts.Keep {
			continue
		}
		session, err := key.cipher.DecryptTicket(ticket[keyNameSize:], state)
		if err != nil {
			return nil
		}
		return session
	}
	return nil
}
