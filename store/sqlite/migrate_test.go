package sqlite

import (
	"database/sql"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	err = store.Update(t.Context(), func(tx imprint.Tx) error {
		for id, outcome := range map[string]imprint.Outcome{"on": imprint.OutcomeConnected, "far": imprint.OutcomeConnected, "gone": imprint.OutcomeClosed} {
			a := imprint.Attempt{ID: id, At: at, Outcome: outcome, Steps: []imprint.Step{
				{At: at, Name: "claim.request", Detail: `the device sent {"outcome":"connected"}`, Certificate: "made-by-" + imprint.CertificateID(id)},
			}}
			if id == "far" {
				a.Steps[0].At = time.Time{} // its body is written in another way
			}
			err := tx.PutAttempt(a)
			if err != nil {
				return err
			}
		}
		return nil
	})
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
	for _, statement := range []string{
		"DELETE FROM goose_db_version WHERE version_id >= 54", "UPDATE attempts SET live = 0",
		"INSERT INTO attempt_made (certificate_id, attempt) VALUES ('orphan', 'deleted')",
	} {
		_, err = db.ExecContext(t.Context(), statement)
		if err != nil {
			t.Fatal(err)
		}
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
