// Package registrytest opens a real registry for a test, as the server does: SQLite
// with a master key beside it, in files that only the test has. It is closed when the
// test ends.
//
//	store := registrytest.New(t)
//
// A test that closes the store itself and opens the same path again finds what was
// committed, its secrets too. The tables of an empty one are made once for all tests of a
// package: with the race detector that takes half a second.
package registrytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// New opens an empty registry in a directory of its own.
func New(t testing.TB) *sqlite.Store {
	t.Helper()
	return Open(t, filepath.Join(t.TempDir(), "registry.db"))
}

// Open opens the registry in a file. The master key is in the file's directory. Each
// edit may change the options.
func Open(t testing.TB, path string, edits ...func(*sqlite.Options)) *sqlite.Store {
	t.Helper()
	key, err := seal.LoadOrCreateMasterKey(filepath.Join(filepath.Dir(path), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	PutEmpty(t, path)
	options := sqlite.Options{Path: path, Sealer: seal.New(key), Logger: slog.New(slog.DiscardHandler)}
	for _, edit := range edits {
		edit(&options)
	}
	// A cleanup may use it after the context of the test has ended.
	store, err := sqlite.Open(context.Background(), options)
	if err != nil {
		t.Fatalf("couldn't open the registry: %v", err)
	}
	t.Cleanup(func() {
		err := store.Close()
		if err != nil {
			t.Errorf("couldn't close the registry: %v", err)
		}
	})
	return store
}

// PutEmpty puts an empty registry where no file is, for a test that opens it itself.
func PutEmpty(t testing.TB, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return
	}
	if err != nil {
		t.Fatalf("couldn't make the registry: %v", err)
	}
	empty, err := emptyRegistry()
	if err == nil {
		_, err = file.Write(empty)
	}
	err = errors.Join(err, file.Close())
	if err != nil {
		t.Fatal(err)
	}
}

// emptyRegistry is the file of a registry that was opened once.
var emptyRegistry = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "imprint-registry-")
	if err != nil {
		return nil, fmt.Errorf("couldn't make an empty registry: %w", err)
	}
	path := filepath.Join(dir, "registry.db")
	var store *sqlite.Store
	var empty []byte
	key, err := seal.LoadOrCreateMasterKey(filepath.Join(dir, "master.key")) // no row is sealed yet
	if err == nil {
		store, err = sqlite.Open(context.Background(), sqlite.Options{Path: path, Sealer: seal.New(key), Logger: slog.New(slog.DiscardHandler)})
	}
	if err == nil {
		err = store.Close()
	}
	if err == nil {
		empty, err = os.ReadFile(path)
	}
	err = errors.Join(err, os.RemoveAll(dir))
	if err != nil {
		return nil, fmt.Errorf("couldn't make an empty registry: %w", err)
	}
	return empty, nil
})
