package sqlite

import (
	"database/sql"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

// TestAMigrationBelowTheHighestIsNotPassedOver ensures that a registry which lacks one that
// came with too low a number isn't opened, and that the error names it.
func TestAMigrationBelowTheHighestIsNotPassedOver(t *testing.T) {
	t.Parallel()
	opts := Options{Path: filepath.Join(t.TempDir(), "registry.db"), Sealer: plainSealer{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	store, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	err = store.Close()
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", dataSource(opts.Path))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), "DELETE FROM goose_db_version WHERE version_id = 24")
	if err != nil {
		t.Fatal(err)
	}
	err = db.Close()
	if err != nil {
		t.Fatal(err)
	}
	store, err = Open(t.Context(), opts)
	if err == nil {
		_ = store.Close()
		t.Fatal("a registry without migration 24 was opened")
	}
	if !strings.Contains(err.Error(), "version 24") {
		t.Errorf("got %q, want the migration named", err)
	}
}
