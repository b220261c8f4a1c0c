package functions

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// TestCodeThatIsRemovedInPartIsUnpackedAnew ensures that who comes after a removal that
// failed midway has all files.
func TestCodeThatIsRemovedInPartIsUnpackedAnew(t *testing.T) {
	t.Parallel()
	const account = "000000000000"
	files := []string{"a.py", "locked/b.py", "z.py"}
	var data bytes.Buffer
	w := zip.NewWriter(&data)
	for _, name := range files {
		_, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
	}
	err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	c, err := openCode(nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sum, err := c.put(data.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	within := t.TempDir()
	dir, err := c.unpacked(account, sum, within)
	if err != nil {
		t.Fatal(err)
	}
	err = os.Chmod(filepath.Join(dir, "locked"), 0o555)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir+".gone", "locked"), 0o755) })
	err = asSomebody(t, within, func() error { return c.leave(dir, 1) })
	if err == nil {
		t.Fatal("a directory that can't be written was emptied")
	}
	again, err := c.unpacked(account, sum, within)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		_, err := os.Stat(filepath.Join(again, name))
		if err != nil {
			t.Errorf("after half a removal: %v", err)
		}
	}
	err = os.Chmod(filepath.Join(dir+".gone", "locked"), 0o755)
	if err == nil {
		err = c.leave(again, 1)
	}
	left, _ := filepath.Glob(filepath.Join(within, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the last one leaves: got %v and %q, want nothing", err, left)
	}
}

// asSomebody does something as a user who has a directory and may not do everything.
func asSomebody(t *testing.T, dir string, do func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		return do()
	}
	const nobody = 65534
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, nobody, nobody)
	})
	if err == nil {
		err = os.Chmod(filepath.Dir(dir), 0o711) // made for the test's user alone
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		err := syscall.Setfsuid(nobody)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}
