package functions

import (
	"io/fs"
	"os/exec"
	"syscall"

	"github.com/imprint-iot/imprint"
)

func readPipe(uintptr, []byte) (int, error) { return 0, syscall.EWINDOWS }

func killGroup(int) {}

func terminateGroup(int) {}

func ownedByServer(fs.FileInfo) bool { return true }

func confine(*exec.Cmd, *User, namespaces) {}

func permits(*starter, *User, namespaces) error { return nil }

func limit(int, int, bool) {}

func awaitExit(*exec.Cmd) {}

func groupMemory(int) int64 { return 0 }

// starter refuses: functions run as processes on Unix alone.
type starter struct{}

func newStarter() *starter { return &starter{} }

func (*starter) separate() error { return syscall.EWINDOWS }

func (*starter) run(*exec.Cmd, *ownTmp) error {
	return imprint.Errorf(imprint.CodeUnavailable, "functions can't run as processes on Windows: use a webhook or a remote function")
}

func (*starter) hideProcesses() error { return syscall.EWINDOWS }

func (*starter) close() {}
