package functions

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// confine gives a process a session and group of its own, its user, its end with
// the server, and namespaces.
func confine(cmd *exec.Cmd, user *User, set namespaces) {
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if user != nil {
		attr.Credential = &syscall.Credential{Uid: user.UID, Gid: user.GID, Groups: []uint32{}}
	}
	if set.pid {
		attr.Cloneflags |= syscall.CLONE_NEWPID
	}
	if set.user {
		// It stays who it is, and loses every capability when its program begins.
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
}

// Limits of one process: open files as at AWS Lambda, one file as large as its
// /tmp; dataFactor is how much more than its memory limit a process may ask the
// kernel for, which stops one that allocates faster than its memory is looked at.
const (
	maxFiles     = 1024
	maxFileSize  = 512 << 20
	dataFactor   = 4
	dataHeadroom = 1 << 30
	maxTasks     = 4096
)

// limit bounds what a process may take. The limits are set from outside, right
// after it began: its children inherit them.
func limit(pid, memoryMB int, ownUser bool) {
	set := func(what int, value uint64) {
		// The process may have ended already.
		_ = unix.Prlimit(pid, what, &unix.Rlimit{Cur: value, Max: value}, nil)
	}
	set(unix.RLIMIT_CORE, 0)
	set(unix.RLIMIT_NOFILE, maxFiles)
	set(unix.RLIMIT_FSIZE, maxFileSize)
	set(unix.RLIMIT_DATA, uint64(memoryMB)<<20*dataFactor+dataHeadroom)
	if ownUser {
		// The kernel counts all processes and threads of the user.
		set(unix.RLIMIT_NPROC, maxTasks)
	}
}

// awaitExit returns when a child has ended, and leaves it to be reaped.
func awaitExit(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// groupMemory sums the resident memory of a process and its descendants, in
// bytes; 0 when it has ended. What they share is counted more than once. The first
// process of a PID namespace has all others of it, and of those nested in it, as
// descendants: the kernel makes it the parent of those whose own has ended.
func groupMemory(pid int) int64 {
	total := int64(0)
	family := []int{pid}
	for i := 0; i < len(family) && i < maxTasks; i++ {
		dir := "/proc/" + strconv.Itoa(family[i])
		statm, err := os.ReadFile(dir + "/statm")
		if err != nil {
			continue
		}
		fields := bytes.Fields(statm)
		if len(fields) > 1 {
			pages, _ := strconv.ParseInt(string(fields[1]), 10, 64)
			total += pages * int64(os.Getpagesize())
		}
		tasks, err := os.ReadDir(dir + "/task")
		if err != nil {
			continue
		}
		for _, task := range tasks {
			children, err := os.ReadFile(dir + "/task/" + task.Name() + "/children")
			if err != nil {
				continue
			}
			for _, child := range bytes.Fields(children) {
				n, err := strconv.Atoi(string(child))
				if err == nil {
					family = append(family, n)
				}
			}
		}
	}
	return total
}

// starter starts processes from one thread that lives as long as it: the kernel
// sends the signal of a parent's death when the thread that started a process
// ends.
type starter struct {
	jobs chan func()
	once sync.Once
}

func newStarter() *starter {
	s := &starter{jobs: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

func (s *starter) run(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	s.jobs <- func() { done <- cmd.Start() }
	return <-done
}

// hideProcesses has what is started from now on see a /proc without the processes of
// other users. The starter's thread gets a mount namespace of its own for that,
// which its children inherit; the server's other threads keep the machine's.
func (s *starter) hideProcesses() error {
	done := make(chan error, 1)
	s.jobs <- func() { done <- ownProc() }
	return <-done
}

// ownProc replaces the calling thread's /proc (proc(5), hidepid).
func ownProc() error {
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		// What the machine mounts later comes here, and nothing goes there.
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
	}
	if err == nil {
		err = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=2")
	}
	if err != nil {
		return fmt.Errorf("couldn't make a mount namespace with a /proc of its own: %w", err)
	}
	return nil
}

func (s *starter) close() { s.once.Do(func() { close(s.jobs) }) }
