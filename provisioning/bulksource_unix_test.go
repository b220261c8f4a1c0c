//go:build unix

package provisioning_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// TestAPipeIsNoInput ensures that a named pipe that nobody writes into is refused, and
// holds up neither its task nor the end of the server.
func TestAPipeIsNoInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := os.Mkdir(filepath.Join(dir, "lines"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	err = syscall.Mkfifo(filepath.Join(dir, "lines", "pipe"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		_, err := provisioning.BulkDirectory{Path: dir, Home: "000000000000"}.Open(context.Background(), "000000000000", "lines", "pipe", 0, "")
		opened <- err
	}()
	select {
	case err = <-opened:
	case <-time.After(10 * time.Second):
		t.Fatal("opening the pipe never ends")
	}
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("got %v, want that it isn't a file", err)
	}
}
