// Package registrytest opens a real registry for a test, as the server does: SQLite
// with a master key beside it, in files that only the test has. It is closed when the
// test ends.
//
//	store := registrytest.New(t)
//
// A test that closes the store itself and opens the same path again finds what was
// committed, its secrets too.
package registrytest

import (
	"context"
	"log/slog"
	"path/filepath"
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
