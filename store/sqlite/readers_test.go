package sqlite

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/imprint-iot/imprint"
)

// TestFewReadingConnectionsAreUsed ensures that reads that come one after the other
// share a connection and what it knows of the file, and that another is opened when
// one is in use.
func TestFewReadingConnectionsAreUsed(t *testing.T) {
	t.Parallel()
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	store, err := Open(context.Background(), Options{Path: filepath.Join(t.TempDir(), "registry.db"), Sealer: plainSealer{}, Logger: logger})
	if err != nil {
		t.Fatalf("couldn't open the store: %v", err)
	}
	defer func() {
		err := store.Close()
		if err != nil {
			t.Errorf("couldn't close the store: %v", err)
		}
	}()
	events := func(tx imprint.ReadTx) error {
		_, err := tx.Events(imprint.Tenant{}, 1)
		return err
	}
	for range 20 {
		err = store.Glance(context.Background(), events)
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, want := store.readers.opened(), 1; got != want {
		t.Errorf("connections after reads one by one: got %d, want %d", got, want)
	}
	err = store.View(context.Background(), func(tx imprint.ReadTx) error {
		err := store.Glance(context.Background(), events)
		if err != nil {
			return err
		}
		return events(tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := store.readers.opened(), 2; got != want {
		t.Errorf("connections after a read inside another: got %d, want %d", got, want)
	}
}

// opened counts the idle readers that have a connection.
func (p *readers) opened() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, r := range p.idle {
		if r.session != nil {
			n++
		}
	}
	return n
}
