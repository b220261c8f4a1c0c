package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint/internal/durable"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestWriteFileReplacesAndLeavesNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	for _, want := range []string{"first", "", "third, longer than the others"} {
		err := durable.WriteFile(path, []byte(want), 0o640)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("content: got %q, want %q", got, want)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode().Perm(), fs.FileMode(0o640); got != want {
		t.Errorf("mode: got %v, want %v", got, want)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("files: got %v, want only key", got)
	}
}

func TestCreateFileRefusesToReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	err := durable.CreateFile(path, []byte("first"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	err = durable.CreateFile(path, []byte("second"), 0o600)
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("second create: got %v, want fs.ErrExist", err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "first" {
		t.Errorf("content: got %q, want %q", got, "first")
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("files: got %v, want only key", got)
	}
}

func TestOnlyOneOfManyCreatorsWins(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() { errs[i] = durable.CreateFile(path, bytes.Repeat([]byte{byte(i)}, 4096), 0o600) })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner < 0:
			winner = i
		case err == nil:
			t.Errorf("creators %d and %d both won", winner, i)
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("creator %d: got %v, want fs.ErrExist", i, err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if winner < 0 || !bytes.Equal(got, bytes.Repeat([]byte{byte(winner)}, 4096)) {
		t.Errorf("content isn't that of the winner %d", winner)
	}
}

func TestFailuresKeepTheTarget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := filepath.Join(dir, "taken")
	err := os.MkdirAll(filepath.Join(target, "full"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	err = durable.WriteFile(target, []byte("x"), 0o600)
	if err == nil {
		t.Error("writing over a directory: got nil, want an error")
	}
	err = durable.WriteFile(filepath.Join(dir, "absent", "key"), []byte("x"), 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("writing into an absent directory: got %v, want fs.ErrNotExist", err)
	}
	err = durable.SyncDir(filepath.Join(dir, "absent"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("syncing an absent directory: got %v, want fs.ErrNotExist", err)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("files: got %v, want only taken", got)
	}
}

func TestRemoveTemporarySweepsOnlyLeftovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{".key.durable-123", ".hidden", "key", "key.durable-1"} {
		err := os.WriteFile(filepath.Join(dir, name), nil, 0o600)
		if err != nil {
			t.Fatal(err)
		}
	}
	err := durable.RemoveTemporary(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := names(t, dir)
	if len(got) != 3 || got[0] != ".hidden" || got[1] != "key" || got[2] != "key.durable-1" {
		t.Errorf("files: got %v, want [.hidden key key.durable-1]", got)
	}
	err = durable.RemoveTemporary(filepath.Join(dir, "absent"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent directory: got %v, want fs.ErrNotExist", err)
	}
}
