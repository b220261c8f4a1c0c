package sqlite

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/imprint-iot/imprint"
)

// TestLargeRowsCountByTheirPages ensures that few large messages bring the next
// checkpoint near as many small ones do.
func TestLargeRowsCountByTheirPages(t *testing.T) {
	t.Parallel()
	opts := Options{Path: filepath.Join(t.TempDir(), "registry.db"), Sealer: plainSealer{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	store, err := Open(context.Background(), opts)
	if err != nil {
		t.Fatalf("couldn't open the store: %v", err)
	}
	defer store.Close()
	for _, c := range []struct{ bytes, want int }{{0, 1}, {4095, 1}, {4096, 2}, {128 << 10, 33}} {
		var before, after int
		err = store.Update(context.Background(), func(tx imprint.Tx) error {
			before = store.commits.session.writes
			err := tx.PutQueued(imprint.QueuedMessage{Session: 1, Seq: 1, Packet: make([]byte, c.bytes)})
			after = store.commits.session.writes
			return err
		})
		if err != nil {
			t.Fatalf("Update: %v", err)
		}
		if got := after - before; got != c.want {
			t.Errorf("a message of %d bytes counts as %d, want %d", c.bytes, got, c.want)
		}
	}
}
