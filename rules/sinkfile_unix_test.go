//go:build unix

package rules_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/rules"
)

// TestAPipeIsNoSink ensures that a named pipe in the place of a sink's file, which nobody
// may ever read, is a failure, and holds up neither deliveries nor the end of the server.
func TestAPipeIsNoSink(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pipe")
	err := syscall.Mkfifo(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	sinks, err := rules.OpenSinks([]string{"log=file://" + path})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"couldn't open the file of a sink", "is no file that can be made durable"} {
		put := make(chan error, 1)
		go func() { put <- sinks["log"].Put(t.Context(), rules.Record{Data: []byte("x\n")}) }()
		select {
		case err := <-put:
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the record is put for ever")
		}
		// The second time somebody could read.
		reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = reader.Close() }()
	}
}
