//go:build unix

package functions

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

func readPipe(fd uintptr, p []byte) (int, error) { return unix.Read(int(fd), p) }

// permits tries to start a process as a user and in namespaces.
func permits(start *starter, user *User, set namespaces) error {
	if set != (namespaces{}) && runtime.GOOS != "linux" {
		return errors.ErrUnsupported
	}
	cmd := &exec.Cmd{Path: noProgram}
	confine(cmd, user, set)
	err := start.run(cmd, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// killGroup ends a process and all that it started in its group.
func killGroup(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) }

func terminateGroup(pid int) { _ = unix.Kill(-pid, unix.SIGTERM) }

func ownedByServer(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
