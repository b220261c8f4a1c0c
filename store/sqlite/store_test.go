package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/store/sqlite"
	"github.com/imprint-iot/imprint/store/storetest"
)

// sealer marks secrets and binds them to their context, so that a test can
// tell whether they were sealed.
type sealer struct{}

func (sealer) Seal(plain, context []byte) ([]byte, error) {
	sealed := append([]byte("sealed:"), context...)
	sealed = append(sealed, 0)
	for _, b := range plain {
		sealed = append(sealed, b^0x55)
	}
	return sealed, nil
}

func (sealer) Open(sealed, context []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(sealed, append(append([]byte("sealed:"), context...), 0))
	if !ok {
		return nil, errors.New("sealed for another context")
	}
	plain := make([]byte, len(rest))
	for i, b := range rest {
		plain[i] = b ^ 0x55
	}
	return plain, nil
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func options(path string) sqlite.Options {
	return sqlite.Options{Path: path, Sealer: sealer{}, Logger: quiet()}
}

func openPath(path string) (imprint.Store, error) {
	return sqlite.Open(context.Background(), options(path))
}

func check(store imprint.Store) error { return store.(*sqlite.Store).Check(context.Background()) }

func TestMain(m *testing.M) {
	storetest.KillChild(openPath)
	goleak.VerifyTestMain(m)
}

func TestStoreKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		path := filepath.Join(t.TempDir(), "registry ?%#.db")
		registrytest.PutEmpty(t, path) // other tests have the tables made
		return storetest.Harness{Check: check, Open: func(fault storetest.Fault) (imprint.Store, error) {
			opts := options(path)
			if fault != nil {
				opts.Faults = sqlite.Faults{
					BeforeCommit: func() error { return fault(storetest.BeforeCommit) },
					Commit:       func() error { return fault(storetest.Commit) },
					AfterCommit:  func() error { return fault(storetest.AfterCommit) },
				}
			}
			return sqlite.Open(context.Background(), opts)
		}}
	})
}

func TestAcknowledgedChangesSurviveKill(t *testing.T) {
	storetest.Kill(t, filepath.Join(t.TempDir(), "registry.db"), openPath, check)
}

func mustOpen(t testing.TB, opts sqlite.Options) *sqlite.Store {
	t.Helper()
	store, err := sqlite.Open(context.Background(), opts)
	if err != nil {
		t.Fatalf("couldn't open the store: %v", err)
	}
	t.Cleanup(func() {
		err := store.Close()
		if err != nil {
			t.Errorf("couldn't close the store: %v", err)
		}
	})
	return store
}

func TestSecondProcessIsToldWhoHoldsTheRegistry(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	mustOpen(t, options(path))
	_, err := openPath(path)
	if imprint.CodeOf(err) != imprint.CodeUnavailable || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("got %v, want CodeUnavailable with the pid %d", err, os.Getpid())
	}
	if hint := imprint.HintOf(err); !strings.Contains(hint, "Stop the other process") {
		t.Errorf("the hint is %q", hint)
	}
}

func TestFilesAreForTheOwnerAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := mustOpen(t, options(filepath.Join(dir, "registry.db")))
	err := store.Update(context.Background(), func(tx imprint.Tx) error {
		return tx.PutAccessKey(imprint.AccessKey{ID: "AKIA", Secret: "very secret text"})
	})
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 4 {
		t.Fatalf("got files %v, %v; want the file, its log, index and lock", files, err)
	}
	for _, file := range files {
		info, err := file.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v; want 0600", file.Name(), info.Mode(), err)
		}
		content, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil || bytes.Contains(content, []byte("very secret text")) {
			t.Errorf("%s holds the secret in the clear, or can't be read: %v", file.Name(), err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	damaged := filepath.Join(t.TempDir(), "damaged.db")
	err := os.WriteFile(damaged, bytes.Repeat([]byte("not a database "), 1000), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		opts sqlite.Options
		want imprint.Code
	}{
		{"no path", sqlite.Options{Sealer: sealer{}}, imprint.CodeInvalidRequest},
		{"no sealer", sqlite.Options{Path: damaged}, imprint.CodeInvalidRequest},
		{"a file that isn't a database", options(damaged), imprint.CodeInternal},
		{"no directory", options(filepath.Join(t.TempDir(), "absent", "registry.db")), imprint.CodeUnavailable},
	} {
		_, err := sqlite.Open(context.Background(), c.opts)
		if got := imprint.CodeOf(err); got != c.want {
			t.Errorf("%s: got code %s (%v), want %s", c.name, got, err, c.want)
		}
	}
}
