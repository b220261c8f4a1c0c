package sqlite

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
)

// limitPages makes the database refuse to grow, as a full disk does.
func limitPages(t *testing.T, store *Store, limit string) {
	t.Helper()
	err := store.Update(context.Background(), func(imprint.Tx) error {
		return store.commits.session.control("PRAGMA max_page_count = " + limit)
	})
	if err != nil {
		t.Fatalf("couldn't limit the database: %v", err)
	}
}

// TestFullDiskFailsTheBatchWhole ensures that SQLite's own SQLITE_FULL, after
// which the transaction may be gone, leaves no change of the batch behind that
// isn't acknowledged, says what to do, and goes away with its cause.
func TestFullDiskFailsTheBatchWhole(t *testing.T) {
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
	limitPages(t, store, "1") // SQLite takes it as the present size
	tenant := imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	errs := make([]error, 64)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			errs[i] = store.Update(context.Background(), func(tx imprint.Tx) error {
				name := imprint.ThingName(fmt.Sprintf("t%02d", i))
				err := tx.PutThing(imprint.Thing{Tenant: tenant, Name: name, Attributes: map[string]string{"a": strings.Repeat("x", 3000)}})
				if err != nil {
					return err
				}
				return tx.PutTag(tenant, string(name), imprint.Tag{Key: "k"})
			})
		})
	}
	wg.Wait()
	failed := 0
	err = store.View(context.Background(), func(tx imprint.ReadTx) error {
		for i, err := range errs {
			_, getErr := tx.Thing(tenant, imprint.ThingName(fmt.Sprintf("t%02d", i)))
			if (err == nil) != (getErr == nil) {
				t.Errorf("change %d was answered %v, reading it %v", i, err, getErr)
			}
			if err == nil {
				continue
			}
			failed++
			if imprint.CodeOf(err) != imprint.CodeUnavailable || !strings.Contains(imprint.HintOf(err), "full") {
				t.Errorf("got %v with hint %q, want CodeUnavailable and what to do", err, imprint.HintOf(err))
			}
		}
		return nil
	})
	if err != nil || failed == 0 {
		t.Fatalf("%d changes failed, View: %v", failed, err)
	}
	limitPages(t, store, "1000000")
	err = store.Update(context.Background(), func(tx imprint.Tx) error {
		return tx.PutThing(imprint.Thing{Tenant: tenant, Name: "after", Attributes: map[string]string{"a": strings.Repeat("x", 30000)}})
	})
	if err != nil {
		t.Errorf("the store doesn't work again: %v", err)
	}
	err = store.Ready(context.Background())
	if err != nil {
		t.Errorf("Ready: %v", err)
	}
	err = store.Check(context.Background())
	if err != nil {
		t.Errorf("the file isn't sound: %v", err)
	}
}
