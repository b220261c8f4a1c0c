package sqlite

import (
	"database/sql"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/imprint-iot/imprint"
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

// TestAttemptsOfVersionsBeforeAreTidied ensures that a registry of before migration 54 has
// its connected attempts ended by the server that opens it, and nothing of what deleted
// attempts made.
func TestAttemptsOfVersionsBeforeAreTidied(t *testing.T) {
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
	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, folder, goose.WithDisableGlobalRegistry(true))
	if err == nil {
		_, err = provider.DownTo(t.Context(), 53)
	}
	if err != nil {
		t.Fatal(err)
	}
	const put = "INSERT INTO attempts (id, tenant, at, certificate_id, serial, thing, client_id, address, ip, failed, body) VALUES (?, '', 1772600767000, '', '', '', '', '', '', 0, ?)"
	for id, body := range map[string]string{
		"on":   `{"outcome":"connected","log":[{"s":"claim.request","v":"info","d":"a"}]}`,
		"far":  `{"outcome":"connected","steps":[{"at":"0001-01-01T00:00:00Z","step":"claim.request","verdict":"info"}]}`,
		"gone": `{"outcome":"closed","log":[{"s":"claim.request","v":"info","d":"the device sent {\"outcome\":\"connected\"}"}]}`,
	} {
		_, err = db.ExecContext(t.Context(), put, id, body)
		if err == nil {
			_, err = db.ExecContext(t.Context(), "INSERT INTO attempt_made (certificate_id, attempt) VALUES (?, ?)", "made-by-"+id, id)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = db.ExecContext(t.Context(), "INSERT INTO attempt_made (certificate_id, attempt) VALUES ('orphan', 'deleted')")
	if err != nil {
		t.Fatal(err)
	}
	store, err = Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	err = store.View(t.Context(), func(tx imprint.ReadTx) error {
		live, err := tx.LiveAttempts("", 10)
		if want := []string{"far", "on"}; !slices.Equal(live, want) {
			t.Errorf("those that are on are %q, want %q", live, want)
		}
		if err != nil {
			return err
		}
		// A body that isn't packed is read as well.
		a, err := tx.Attempt("gone")
		if err == nil && (a.Outcome != imprint.OutcomeClosed || len(a.Steps) != 1 || a.Steps[0].Name != "claim.request") {
			t.Errorf("an attempt of before is read as %+v", a)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var made int
	err = db.QueryRowContext(t.Context(), "SELECT count(*) FROM attempt_made").Scan(&made)
	if err != nil || made != 3 {
		t.Errorf("%d rows tell what attempts made, %v; want those of the three", made, err)
	}
	err = db.Close()
	if err != nil {
		t.Error(err)
	}
	err = store.Close()
	if err != nil {
		t.Error(err)
	}
}
