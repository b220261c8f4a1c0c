package ceremony

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki/keys"
)

// unlock makes the place of keys usable: the HSM, or files that shares seal.
func (r *run) unlock(ctx context.Context) error {
	place := keys.Place{Name: storeName, URI: r.Script.store}
	config := keys.Config{PKCS11Helper: r.PKCS11Helper}
	if r.Script.sealing != nil {
		key, err := r.sealingKey(ctx)
		if err != nil {
			return err
		}
		defer clear(key)
		err = r.seal(key, &config)
		if err != nil {
			return err
		}
		dir, err := filepath.Abs(r.dir)
		if err != nil {
			return fmt.Errorf("couldn't tell where the directory is: %w", err)
		}
		place.URI, err = keys.ParseURI("file:" + escapePath(dir) + "/")
		if err != nil {
			return err
		}
	} else {
		err := r.record.add(line{Step: stepStore, Store: r.Script.store.String()})
		if err != nil {
			return err
		}
	}
	r.store = keys.NewStore(config)
	var err error
	r.named, err = keys.NewNamed(r.store, nil, place)
	return err
}

// escapePath writes a path for a URI.
func escapePath(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if c == '%' || c == '?' || c == '#' || c <= ' ' || c > '~' {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func (r *run) seal(key []byte, config *keys.Config) error {
	sealer, err := sealerOf(key)
	config.Sealer, r.sealer = sealer, sealer
	return err
}

func sealerOf(key []byte) (imprint.Sealer, error) {
	text := make([]byte, base64.StdEncoding.EncodedLen(len(key)))
	defer clear(text)
	base64.StdEncoding.Encode(text, key)
	master, err := seal.ParseMasterKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("couldn't use the key of the shares: %w", err)
	}
	defer master.Destroy()
	return seal.New(master), nil
}

// sealingKey gives the key that seals the CA keys: a new one, whose shares are handed out
// and of which enough must come back, or that of shares that are there already.
func (r *run) sealingKey(ctx context.Context) ([]byte, error) {
	if r.Script.sealing.present {
		collected, key, err := collect(ctx, r.People, nil)
		if err != nil {
			return nil, err
		}
		return key, r.record.add(collected.line())
	}
	key := make([]byte, seal.KeySize)
	_, _ = rand.Read(key) // never fails
	err := r.handOut(ctx, key)
	if err == nil {
		err = r.readBack(ctx, key)
	}
	if err != nil {
		clear(key)
		return nil, err
	}
	return key, nil
}

func (r *run) handOut(ctx context.Context, key []byte) error {
	s := r.Script.sealing
	parts, err := split(key, s.threshold, s.total)
	if err != nil {
		return err
	}
	set := setOf(key)
	err = r.People.Say(fmt.Sprintf("\n%d shares of set %X are handed out; %d of them open the keys.\n", s.total, set, s.threshold))
	for n, part := range parts {
		defer clear(part)
		if err != nil {
			continue // to overwrite the others
		}
		text := share{set: set, threshold: byte(s.threshold), number: byte(n + 1), value: part}.encode()
		err = r.People.Give(ctx, s.holders[n], n+1, text)
		clear(text)
	}
	if err != nil {
		return err
	}
	return r.record.add(line{Step: stepShares, Set: fmt.Sprintf("%X", set), Threshold: s.threshold, Total: s.total, Holders: s.holders})
}

// readBack makes sure that what holders have can open the keys, before any is made.
func (r *run) readBack(ctx context.Context, key []byte) error {
	set := setOf(key)
	collected, again, err := collect(ctx, r.People, &set)
	if err != nil {
		return err
	}
	clear(again)
	return r.record.add(collected.line())
}

func (s *shares) line() line {
	l := line{Step: stepUnlocked, Set: fmt.Sprintf("%X", *s.set), Given: s.numbers()}
	for _, one := range s.given {
		l.Threshold = int(one.threshold)
	}
	return l
}

// collect asks for shares until there are enough of a set; nil: that of the first.
func collect(ctx context.Context, people asker, set *[setSize]byte) (*shares, []byte, error) {
	all := &shares{set: set}
	defer all.destroy()
	var wrong error
	for all.missing() > 0 {
		text, err := people.Ask(ctx, all.missing(), wrong)
		if err != nil {
			return nil, nil, err
		}
		one, err := parseShare(text)
		clear(text)
		if err == nil {
			err = all.add(one)
		}
		wrong = err
	}
	key, err := all.key()
	return all, key, err
}

// asker is that one of People that gives shares.
type asker interface {
	Ask(ctx context.Context, missing int, wrong error) ([]byte, error)
}

// OpenSealed opens the key file of a CA with the shares of its holders.
func OpenSealed(ctx context.Context, path string, people asker) (crypto.Signer, error) {
	_, err := os.Stat(path) // before holders take the trouble
	if err != nil {
		return nil, fmt.Errorf("couldn't read the sealed key: %w", err)
	}
	_, key, err := collect(ctx, people, nil)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	sealer, err := sealerOf(key)
	if err != nil {
		return nil, err
	}
	content, err := keys.ReadSealed(sealer, path)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "the shares don't open the key: %w", err).
			WithHint("The file must have its name of the ceremony, and the shares must be of the set that its record names.")
	}
	return content.Key, nil
}
