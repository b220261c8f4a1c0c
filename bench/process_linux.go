package bench

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// cpuTime is the user and system time that a process has used so far.
func cpuTime(pid int) (time.Duration, error) {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("couldn't read the CPU time of process %d: %w", pid, err)
	}
	return parseStat(string(line))
}

// residentMemory is how many bytes of a process are in memory.
func residentMemory(pid int) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0, fmt.Errorf("couldn't read the memory of process %d: %w", pid, err)
	}
	return parseRollup(string(text))
}

// allowFiles makes sure that this process, and each child that it starts, may
// open n files.
func allowFiles(n int) error {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err != nil {
		return fmt.Errorf("couldn't read the limit of open files: %w", err)
	}
	// It is set even when it is high enough: otherwise the runtime gives
	// children the limit that was there before it raised its own.
	limit.Cur = max(limit.Cur, uint64(n))
	limit.Max = max(limit.Max, limit.Cur)
	err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err != nil {
		return fmt.Errorf("couldn't raise the limit of open files to %d; raise it with ulimit -n, or ask for fewer connections: %w", limit.Cur, err)
	}
	return nil
}

// endWithParent makes the kernel end a program that doesn't watch its parent.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
