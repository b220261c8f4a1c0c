package pki_test

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
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

func pool(t testing.TB, config pki.KeyPoolConfig) *pki.KeyPool {
	t.Helper()
	p, err := pki.NewKeyPool(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestPoolGivesEachKeyOnceAlsoToManyAtOnce(t *testing.T) {
	t.Parallel()
	p := pool(t, pki.KeyPoolConfig{Size: 2, Workers: 2})
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			pair, err := p.Take(t.Context(), "000000000000")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			seen[string(pair.PublicPEM())] = true
		})
	}
	wg.Wait()
	if got, want := len(seen), 6; got != want {
		t.Errorf("different keys: got %d, want %d", got, want)
	}
}

func TestKeyPairIsReadByOpenSSLAndForgottenAfterDestroy(t *testing.T) {
	t.Parallel()
	pair, err := pool(t, pki.KeyPoolConfig{Size: 1}).Take(t.Context(), "000000000000")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put(t, dir, "k.pem", string(pair.PrivatePEM()))
	openssl(t, dir, "rsa", "-in", "k.pem", "-check", "-noout")
	if got, want := openssl(t, dir, "rsa", "-in", "k.pem", "-pubout"), string(pair.PublicPEM()); !strings.HasSuffix(got, want) {
		t.Errorf("public key: got %s, want %s", want, got)
	}
	for _, want := range []string{"-----BEGIN RSA PRIVATE KEY-----\n"} {
		if got := string(pair.PrivatePEM()); !strings.HasPrefix(got, want) {
			t.Errorf("private key begins %q, want %q", got[:40], want)
		}
	}
	block, _ := pem.Decode(pair.PrivatePEM())
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := key.E, 65537; got != want || key.N.BitLen() != 2048 {
		t.Errorf("key: got e %d and %d bits, want %d and 2048", got, key.N.BitLen(), want)
	}
	if got, want := fmt.Sprintf("%v %+v %s %#v", pair, pair, pair, pair), strings.TrimSpace(strings.Repeat("pki.KeyPair(hidden) ", 4)); got != want {
		t.Errorf("printed: got %q, want %q", got, want)
	}
	private := pair.PrivatePEM()
	pair.Destroy()
	if strings.Trim(string(private), "\x00") != "" {
		t.Error("the private PEM is still there")
	}
	if pair.Public().N.Cmp(new(big.Int)) == 0 {
		t.Error("the public key was overwritten, too")
	}
}

// TestAccountsThatWaitForKeysTakeTurns ensures that an account that waits with many requests
// gets no key more than another before that one has what it waits for, and that who left
// takes no turn and no key.
func TestAccountsThatWaitForKeysTakeTurns(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		p := pki.NewPoolWithoutWorkers(1)
		defer p.Close()
		var got []imprint.AccountID // of one Put at a time
		wait := func(ctx context.Context, account imprint.AccountID) {
			go func() {
				_, err := p.Take(ctx, account)
				if err == nil {
					got = append(got, account)
				}
			}()
			synctest.Wait()
		}
		gone, leave := context.WithCancel(t.Context())
		wait(gone, "c")
		for range 5 {
			wait(t.Context(), "a")
		}
		wait(gone, "a")
		wait(t.Context(), "b")
		leave()
		wait(t.Context(), "b")
		for range 7 {
			p.Put(key)
			synctest.Wait()
		}
		if want := []imprint.AccountID{"a", "b", "a", "b", "a", "a", "a"}; !slices.Equal(got, want) {
			t.Errorf("keys went to %v, want %v", got, want)
		}
		if p.Awaited() || p.Ready() != 0 {
			t.Errorf("afterwards: somebody waits is %v and %d keys are ready, want nobody and none", p.Awaited(), p.Ready())
		}
		p.Put(key)
		if got := p.Ready(); got != 1 {
			t.Errorf("a key that nobody waits for: got %d ready, want 1", got)
		}
	})
}

func TestPoolFillsToItsSizeAndNoFurther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, err := pki.NewKeyPool(pki.KeyPoolConfig{Size: 1, Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for range 3 {
			time.Sleep(4 * time.Millisecond) // workers rest for one after each key that they give
			if got := p.Ready(); got != 1 {
				t.Errorf("ready: got %d, want 1", got)
			}
			_, err := p.Take(t.Context(), "000000000000")
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestTakeEndsWithItsContextAndWithThePool(t *testing.T) {
	t.Parallel()
	p := pool(t, pki.KeyPoolConfig{Size: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for {
		_, err := p.Take(ctx, "000000000000") // may find a key ready
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want context.Canceled", err)
			}
			break
		}
	}
	p.Close()
	p.Close()
	_, err := p.Take(t.Context(), "000000000000")
	if !errors.Is(err, pki.ErrPoolClosed) {
		t.Errorf("after Close: got %v, want ErrPoolClosed", err)
	}
}

func TestPoolCloseLeavesNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	p, err := pki.NewKeyPool(pki.KeyPoolConfig{Size: 1, Workers: 4})
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	goleak.VerifyNone(t, before)
}

func TestNewKeyPoolRefuses(t *testing.T) {
	t.Parallel()
	for _, config := range []pki.KeyPoolConfig{{Size: -1}, {Size: 1 << 30}, {Workers: -1}, {Workers: 1000}} {
		_, err := pki.NewKeyPool(config)
		if got, want := imprint.CodeOf(err), imprint.CodeInvalidRequest; got != want {
			t.Errorf("%+v: got %q, want %q", config, got, want)
		}
	}
}
