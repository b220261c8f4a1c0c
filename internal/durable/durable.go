// Package durable writes small files so that a crash at any instruction leaves
// either the old content or the new one, whole, and so that what was reported
// as written is there after power loss.
//
//	err := durable.WriteFile("/var/lib/imprint/server-root.pem", pem, 0o644)
//
// The sequence is the one that survives on ext4, XFS, btrfs and APFS:
//
//  1. create a temporary file in the same directory
//  2. write, fsync, close it
//  3. rename it over the target (WriteFile) or link it to the target
//     (CreateFile)
//  4. fsync the directory, so that the new name itself is on disk
//
// A failed fsync is never retried: the kernel may have dropped the pages (Rebello
// et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). The
// temporary file is then thrown away and the target stays as it was.
//
// What it does not do: it does not lock. Of two writers of one path the last
// wins with WriteFile and the first with CreateFile. A crash can leave a
// temporary file behind; RemoveTemporary sweeps them.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tempMark stands in the name of every temporary file, between a leading dot
// with the target's name and a random tail.
const tempMark = ".durable-"

// WriteFile replaces the content of path with data. The file gets exactly the
// given permission bits, whatever the umask. When it returns nil, the content
// is on disk; when it returns an error, path has its old content or, only if
// the last fsync of the directory failed, the new one.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	temp, err := writeTemporary(path, data, perm)
	if err != nil {
		return err
	}
	err = os.Rename(temp, path)
	if err != nil {
		return errors.Join(fmt.Errorf("couldn't put %s in place: %w", path, err), discard(temp))
	}
	return SyncDir(filepath.Dir(path))
}

// CreateFile is WriteFile for a path that must not exist yet: when something is
// there already, the error wraps fs.ErrExist and nothing is changed.
func CreateFile(path string, data []byte, perm fs.FileMode) error {
	temp, err := writeTemporary(path, data, perm)
	if err != nil {
		return err
	}
	// link, unlike rename, refuses to replace.
	err = os.Link(temp, path)
	if err != nil {
		return errors.Join(fmt.Errorf("couldn't create %s: %w", path, err), discard(temp))
	}
	err = discard(temp)
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("couldn't open directory %s to sync it: %w", dir, err)
	}
	err = d.Sync()
	if err != nil {
		return errors.Join(fmt.Errorf("couldn't sync directory %s: %w", dir, err), d.Close())
	}
	err = d.Close()
	if err != nil {
		return fmt.Errorf("couldn't close directory %s: %w", dir, err)
	}
	return nil
}

// RemoveTemporary deletes what crashed writers left in a directory. Call it
// only while no other process writes there.
func RemoveTemporary(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("couldn't list %s: %w", dir, err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if !entry.Type().IsRegular() || !strings.HasPrefix(name, ".") || !strings.Contains(name, tempMark) {
			continue
		}
		err = discard(filepath.Join(dir, name))
		if err != nil {
			return err
		}
	}
	return nil
}

// writeTemporary leaves a complete, synced file beside path and gives its name.
func writeTemporary(path string, data []byte, perm fs.FileMode) (string, error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	// CreateTemp makes it 0600, so a secret is never readable by others, not
	// even for a moment.
	f, err := os.CreateTemp(dir, "."+base+tempMark+"*")
	if err != nil {
		return "", fmt.Errorf("couldn't create a temporary file for %s: %w", path, err)
	}
	err = fill(f, data, perm)
	if err != nil {
		return "", errors.Join(fmt.Errorf("couldn't write %s: %w", path, err), f.Close(), discard(f.Name()))
	}
	err = f.Close()
	if err != nil {
		return "", errors.Join(fmt.Errorf("couldn't close %s: %w", f.Name(), err), discard(f.Name()))
	}
	return f.Name(), nil
}

func fill(f *os.File, data []byte, perm fs.FileMode) error {
	_, err := f.Write(data)
	if err != nil {
		return err
	}
	err = f.Chmod(perm.Perm())
	if err != nil {
		return err
	}
	return f.Sync()
}

func discard(temp string) error {
	err := os.Remove(temp)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("couldn't remove temporary file: %w", err)
	}
	return nil
}
