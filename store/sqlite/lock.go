package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/imprint-iot/imprint"
)

// errHeld is what tryLock gives when another process holds the lock.
var errHeld = errors.New("the lock is held")

// fileLock keeps a second process out of the data. The operating system lets
// go of it when the process ends, however it ends.
type fileLock struct{ file *os.File }

func acquireLock(path string) (*fileLock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, failure(imprint.CodeUnavailable, err, "Check that the data directory exists and that the server may write there.")
	}
	err = tryLock(file)
	if err != nil {
		holder := readHolder(file)
		closeErr := file.Close()
		if errors.Is(err, errHeld) {
			return nil, imprint.Errorf(imprint.CodeUnavailable, "another process (%s) has the registry open: it holds %s", holder, path).
				WithHint("Stop the other process, or give this one a data directory of its own (--data).")
		}
		return nil, errors.Join(fmt.Errorf("couldn't lock %s: %w", path, err), closeErr)
	}
	err = writeHolder(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("couldn't write the lock file: %w", err), file.Close())
	}
	return &fileLock{file: file}, nil
}

// InUse says whether a process, such as a server, has the registry in a file open.
func InUse(path string) bool {
	file, err := os.OpenFile(path+".lock", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	err = tryLock(file)
	_ = file.Close() // lets go of it
	return errors.Is(err, errHeld)
}

// release lets go of the lock. The file stays: to remove it would let two
// processes hold locks on two files of one name.
func (l *fileLock) release() error { return l.file.Close() }

func writeHolder(file *os.File) error {
	err := file.Truncate(0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func readHolder(file *os.File) string {
	text, err := io.ReadAll(io.LimitReader(file, 32))
	if err != nil {
		return "pid unknown"
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return "pid unknown"
	}
	return "pid " + strconv.Itoa(pid)
}
