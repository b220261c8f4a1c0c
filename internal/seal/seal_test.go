package seal_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/seal"
)

func key(t testing.TB, fill byte) *seal.Key {
	t.Helper()
	k, err := seal.ParseMasterKey(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, seal.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOpenGivesWhatWasSealed(t *testing.T) {
	t.Parallel()
	s := seal.New(key(t, 1))
	for _, plain := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("secret"), 1000)} {
		sealed, err := s.Seal(plain, []byte("row 1"))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := len(sealed), len(plain)+seal.Overhead; got != want {
			t.Errorf("length: got %d, want %d", got, want)
		}
		if len(plain) > 8 && bytes.Contains(sealed, plain[:8]) {
			t.Error("the sealed form shows the secret")
		}
		got, err := s.Open(sealed, []byte("row 1"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, plain) {
			t.Errorf("got %q, want %q", got, plain)
		}
		again, err := s.Seal(plain, []byte("row 1"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(again, sealed) {
			t.Error("sealing twice gave the same bytes: the nonce was repeated")
		}
	}
	_, err := s.Seal(make([]byte, seal.MaxPlain+1), nil)
	if got, want := imprint.CodeOf(err), imprint.CodeInvalidRequest; got != want {
		t.Errorf("too long: got %v, want %v", got, want)
	}
}

func TestOpenRefusesWithAHint(t *testing.T) {
	t.Parallel()
	s := seal.New(key(t, 1))
	sealed, err := s.Seal([]byte("secret"), []byte("row 1"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := seal.New(key(t, 2)).Seal([]byte("secret"), []byte("row 1"))
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Clone(sealed)
	newer[3] = 2
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	tests := []struct {
		name          string
		sealed        []byte
		context, hint string
	}{
		{"nothing", nil, "row 1", "cut short"},
		{"cut short", sealed[:len(sealed)-7], "row 1", "cut short"},
		{"not sealed at all", bytes.Repeat([]byte("x"), 100), "row 1", "overwritten"},
		{"newer version", newer, "row 1", "newer release"},
		{"wrong master key", other, "row 1", "master key that belongs to this data directory"},
		{"one bit flipped", flipped, "row 1", "backup"},
		{"another row's context", sealed, "row 2", "from one place to another"},
		{"no context", sealed, "", "from one place to another"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := s.Open(tt.sealed, []byte(tt.context))
			if err == nil {
				t.Fatal("got nil, want an error")
			}
			if got := imprint.HintOf(err); !strings.Contains(got, tt.hint) {
				t.Errorf("hint: got %q, want %q in it", got, tt.hint)
			}
			if strings.Contains(err.Error(), "secret\"") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	t.Parallel()
	s := seal.New(key(t, 1))
	sealed, err := s.Seal([]byte("secret"), []byte("row 1"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(sealed) * 8 {
		bad := bytes.Clone(sealed)
		bad[i/8] ^= 1 << (i % 8)
		_, err := s.Open(bad, []byte("row 1"))
		if err == nil {
			t.Errorf("bit %d flipped: got nil, want an error", i)
		}
	}
}

func TestMasterKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "master.key")
	first, err := seal.LoadOrCreateMasterKey(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode().Perm(), os.FileMode(0o600); got != want {
		t.Errorf("mode: got %v, want %v", got, want)
	}
	second, err := seal.LoadOrCreateMasterKey(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := seal.New(first).Seal([]byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	first.Destroy()
	_, err = seal.New(second).Open(sealed, nil)
	if err != nil {
		t.Errorf("the second load has another key: %v", err)
	}
	_, err = seal.New(first).Open(sealed, nil)
	if err == nil {
		t.Error("a destroyed key still opens")
	}
}

func TestAllThatStartAtOnceGetOneKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "master.key")
	keys := make([]*seal.Key, 8)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() { keys[i], errs[i] = seal.LoadOrCreateMasterKey(path) })
	}
	wg.Wait()
	for i := range keys {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if *keys[i] != *keys[0] {
			t.Errorf("starter %d has another key than starter 0", i)
		}
	}
}

func TestMasterKeyFileRefusals(t *testing.T) {
	t.Parallel()
	good := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	tests := []struct {
		name, text string
		mode       os.FileMode
		hint       string
	}{
		{"readable by the group", good, 0o640, "chmod 600"},
		{"readable by all", good, 0o604, "chmod 600"},
		{"writable by the group", good, 0o620, "chmod 600"},
		{"empty", "", 0o600, "openssl rand"},
		{"31 bytes", base64.StdEncoding.EncodeToString(make([]byte, 31)), 0o600, "openssl rand"},
		{"33 bytes", base64.StdEncoding.EncodeToString(make([]byte, 33)), 0o600, "openssl rand"},
		{"two keys", good + "\n" + good, 0o600, "openssl rand"},
		{"split over lines", good[:20] + "\n" + good[20:], 0o600, "openssl rand"},
		{"raw bytes", strings.Repeat("\xff", 32), 0o600, "openssl rand"},
		{"very long", strings.Repeat("A", 100000), 0o600, "openssl rand"},
		{"stray bits at the end", good[:42] + "d=", 0o600, "openssl rand"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "master.key")
			err := os.WriteFile(path, []byte(tt.text), 0o600)
			if err != nil {
				t.Fatal(err)
			}
			err = os.Chmod(path, tt.mode)
			if err != nil {
				t.Fatal(err)
			}
			_, err = seal.LoadOrCreateMasterKey(path)
			if got, want := imprint.CodeOf(err), imprint.CodeInvalidRequest; got != want {
				t.Fatalf("got %v (%v), want %v", got, err, want)
			}
			if got := imprint.HintOf(err); !strings.Contains(got, tt.hint) {
				t.Errorf("hint: got %q, want %q in it", got, tt.hint)
			}
			if tt.text != "" && strings.Contains(err.Error(), tt.text[:min(8, len(tt.text))]) {
				t.Errorf("the error quotes the key: %v", err)
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(after) != tt.text {
				t.Error("the refused file was changed")
			}
		})
	}
	_, err := seal.LoadOrCreateMasterKey(t.TempDir())
	if got, want := imprint.CodeOf(err), imprint.CodeInvalidRequest; got != want {
		t.Errorf("a directory: got %v (%v), want %v", got, err, want)
	}
}

func TestKeyNeverPrintsItself(t *testing.T) {
	t.Parallel()
	k := key(t, 0x41)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		got := fmt.Sprintf(verb, k)
		if got != "seal.Key(hidden)" {
			t.Errorf("%s: got %q, want seal.Key(hidden)", verb, got)
		}
	}
	_, err := json.Marshal(k)
	if err == nil {
		t.Error("json.Marshal of a key: got nil, want an error")
	}
}

func FuzzOpen(f *testing.F) {
	s := seal.New(key(f, 1))
	sealed, err := s.Seal([]byte("secret"), []byte("row 1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed, []byte("row 1"))
	f.Add(sealed, []byte("row 2"))
	f.Add([]byte("imp\x01"), []byte{})
	f.Add(bytes.Repeat([]byte("imp\x01"), 20), []byte{})
	// Whatever opens is what this key sealed: the one secret, for its row. (The
	// seed's nonce differs from one fuzzing process to the next.)
	f.Fuzz(func(t *testing.T, data, context []byte) {
		plain, err := s.Open(data, context)
		if err != nil {
			if plain != nil {
				t.Error("an error came with a plain text")
			}
			return
		}
		if len(data) != len(sealed) || string(context) != "row 1" || string(plain) != "secret" {
			t.Errorf("opened a forgery: %x with context %q", data, context)
		}
	})
}

func FuzzParseMasterKey(f *testing.F) {
	f.Add(base64.StdEncoding.EncodeToString(make([]byte, 32)))
	f.Add("")
	f.Add("====")
	// Accepted texts are exactly the base64 of some 32 bytes.
	f.Fuzz(func(t *testing.T, text string) {
		_, err := seal.ParseMasterKey(text)
		raw, decodeErr := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
		if want := decodeErr == nil && len(raw) == 32 && len(strings.TrimSpace(text)) == 44; (err == nil) != want {
			t.Errorf("accepted: got %v, want %v", err == nil, want)
		}
	})
}
