package functions

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/imprint-iot/imprint"
)

// uidLock is where the servers of one machine tell each other which user ids their
// functions have: each locks as many bytes, at the ids' offsets. The kernel takes
// the lock back when a server ends, however it ends, and nothing is written. Only
// root, who alone can give user ids, can open it. Containers have files of their
// own there.
const uidLock = "/run/imprint-function-uids.lock"

// holdUIDs takes a range of user ids until what it gives is closed. Errors:
// CodeUnavailable when another server has one of them.
//
// The lock is one of the open file description (fcntl(2), "Open file description
// locks"): it also tells two rooms of one process apart.
func holdUIDs(base, size uint32) (io.Closer, error) {
	// O_NOFOLLOW: no link decides what root opens.
	file, err := os.OpenFile(uidLock, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("couldn't open the file in which servers tell each other the user ids of functions: %w", err)
	}
	span := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(base), Len: int64(size)}
	err = unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &span)
	if err == nil {
		return file, nil
	}
	other := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(base), Len: int64(size)}
	askErr := unix.FcntlFlock(file.Fd(), unix.F_OFD_GETLK, &other)
	_ = file.Close()
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("couldn't lock the user ids of functions, %s: %w", uidLock, err)
	}
	if askErr != nil || other.Type == unix.F_UNLCK {
		other = span // it was given back meanwhile, or isn't told
	}
	return nil, imprint.Errorf(imprint.CodeUnavailable, "functions of another server on this machine have the user ids %d to %d, and those here would have %d to %d",
		other.Start, other.Start+other.Len-1, base, uint64(base)+uint64(size)-1).
		WithHint("Start this server with --function-uid-base %d: two servers on one machine need ranges of their own.", other.Start+other.Len)
}
