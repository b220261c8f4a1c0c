package registrytest_test

import (
	"path/filepath"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
)

// TestARegistryOpenedAgainHasWhatWasCommitted ensures it of sealed rows, which the key
// beside the file opens, and that registries of one test have nothing of each other.
func TestARegistryOpenedAgainHasWhatWasCommitted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registry.db")
	store := registrytest.Open(t, path)
	key := imprint.AccessKey{ID: "AKIA", Secret: "secret", Account: "000000000000", User: string(imprint.OperatorUser)}
	err := store.Update(t.Context(), func(tx imprint.Tx) error { return tx.PutAccessKey(key) })
	if err != nil {
		t.Fatal(err)
	}
	err = store.Close()
	if err != nil {
		t.Fatal(err)
	}
	secretIn := func(store imprint.Store) (secret string, err error) {
		err = store.View(t.Context(), func(tx imprint.ReadTx) error {
			found, err := tx.AccessKey(key.ID)
			secret = found.Secret
			return err
		})
		return secret, err
	}
	got, err := secretIn(registrytest.Open(t, path))
	if err != nil || got != key.Secret {
		t.Errorf("opened again: got %q, %v, want %q", got, err, key.Secret)
	}
	_, err = secretIn(registrytest.New(t))
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("another registry: got %v, want %s", err, imprint.CodeNotFound)
	}
}
