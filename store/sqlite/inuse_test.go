package sqlite

import (
	"io"
	"log/slog"
	"path/filepath"
	"testing"
)

// TestARegistryIsInUseWhileItIsOpen ensures that a registry is told from a copy that nobody has
// open, and that looking doesn't take it.
func TestARegistryIsInUseWhileItIsOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	if InUse(path) {
		t.Error("a registry that isn't there is in use")
	}
	open := func() *Store {
		t.Helper()
		store, err := Open(t.Context(), Options{Path: path, Sealer: plainSealer{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	store := open()
	for range 2 { // to ask takes no lock away
		if !InUse(path) {
			t.Error("an open registry isn't in use")
		}
	}
	err := store.Close()
	if err != nil {
		t.Fatal(err)
	}
	if InUse(path) {
		t.Error("a closed registry is in use")
	}
	err = open().Close()
	if err != nil {
		t.Fatal(err)
	}
}
