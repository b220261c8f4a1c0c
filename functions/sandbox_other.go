//go:build unix && !linux

package functions

import (
	"errors"
	"os/exec"
	"syscall"
)

// confine knows no namespaces here.
func confine(cmd *exec.Cmd, user *User, _ namespaces) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if user != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user.UID, Gid: user.GID}
	}
}

// limit does nothing: other systems can't set another process's limits.
func limit(int, int, bool) {}

// awaitExit returns when a child has ended.
func awaitExit(cmd *exec.Cmd) { _ = cmd.Wait() }

// groupMemory knows nothing here: memory isn't bounded.
func groupMemory(int) int64 { return 0 }

// starter starts processes.
type starter struct{}

func newStarter() *starter { return &starter{} }

func (*starter) run(cmd *exec.Cmd, _ *ownTmp) error { return cmd.Start() }

func (*starter) separate() error { return errors.ErrUnsupported }

func (*starter) hideProcesses() error { return errors.ErrUnsupported }

func (*starter) close() {}
