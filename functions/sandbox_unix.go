//go:build unix

package functions

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func readPipe(fd uintptr, p []byte) (int, error) { return unix.Read(int(fd), p) }

// killGroup ends a process and all that it started in its group.
func killGroup(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) }

func terminateGroup(pid int) { _ = unix.Kill(-pid, unix.SIGTERM) }

func ownedByServer(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
