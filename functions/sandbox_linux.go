package functions

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
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
	base int // the thread's mount namespace once it has its own, to come back to; else -1
}

func newStarter() *starter {
	s := &starter{jobs: make(chan func()), base: -1}
	go func() {
		runtime.LockOSThread()
		for job := range s.jobs {
			job()
		}
		if s.base >= 0 {
			_ = unix.Close(s.base) // nothing was written
		}
	}()
	return s
}

// do does something on the starter's thread.
func (s *starter) do(job func() error) error {
	done := make(chan error, 1)
	s.jobs <- func() { done <- job() }
	return <-done
}

// run starts a process, with a /tmp of its own unless that is nil; it needs separate
// then.
func (s *starter) run(cmd *exec.Cmd, tmp *ownTmp) error {
	return s.do(func() error {
		if tmp == nil {
			return cmd.Start()
		}
		return s.startIn(cmd, tmp)
	})
}

// separate gives the starter's thread a mount namespace of its own, which its children
// inherit; the server's other threads keep the machine's.
func (s *starter) separate() error {
	return s.do(func() error {
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			// What the machine mounts later comes here, and nothing goes there.
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
		}
		if err == nil {
			s.base, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return fmt.Errorf("couldn't make a mount namespace: %w", err)
		}
		return nil
	})
}

// hideProcesses has what is started from now on see a /proc without the processes of
// other users (proc(5), hidepid). It needs separate.
func (s *starter) hideProcesses() error {
	return s.do(func() error {
		err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=2")
		if err != nil {
			return fmt.Errorf("couldn't mount a /proc of its own: %w", err)
		}
		return nil
	})
}

// startIn starts a process in a mount namespace that has its own /tmp, and leaves that:
// what is in it is gone when the last process in there has ended.
func (s *starter) startIn(cmd *exec.Cmd, tmp *ownTmp) error {
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err != nil {
		return fmt.Errorf("couldn't make a mount namespace: %w", err)
	}
	err = mountTmp(tmp)
	if err == nil {
		err = cmd.Start()
	}
	back := unix.Setns(s.base, unix.CLONE_NEWNS)
	if back == nil {
		return err
	}
	if err == nil {
		err = errors.Join(cmd.Process.Kill(), cmd.Wait())
	}
	return errors.Join(fmt.Errorf("couldn't leave a function's mount namespace: %w", back), err)
}

// tmpInodes bounds the files of one /tmp, as the kernel's memory for them isn't part of
// its size.
const tmpInodes = 50_000

// sharedDirs are the directories that all may write on most machines: all are the
// process's own /tmp.
var sharedDirs = []string{"/tmp", "/var/tmp", "/dev/shm"}

// mountTmp mounts an empty /tmp for the calling thread, with the directory in it that is
// to stay.
func mountTmp(tmp *ownTmp) error {
	fail := func(err error) error { return fmt.Errorf("couldn't mount a /tmp of its own: %w", err) }
	kept, err := unix.OpenTree(unix.AT_FDCWD, tmp.keep, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = unix.Close(kept) }() // nothing was written
	err = unix.Mount("tmpfs", sharedDirs[0], "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%dm,nr_inodes=%d,mode=1777", tmp.MB, tmpInodes))
	for _, dir := range sharedDirs[1:] {
		if err == nil {
			err = unix.Mount(sharedDirs[0], dir, "", unix.MS_BIND, "")
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // this machine has no such directory
		}
	}
	if err != nil {
		return fail(err)
	}
	_, err = os.Stat(tmp.keep)
	if err == nil {
		return nil // it isn't below any of them
	}
	err = makeWay(tmp.keep)
	if err == nil {
		err = unix.MoveMount(kept, "", unix.AT_FDCWD, tmp.keep, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// makeWay makes a directory and those above it, as far as they are missing: others can
// go through and not look, whatever the umask.
func makeWay(dir string) error {
	err := os.Mkdir(dir, 0o711)
	if errors.Is(err, fs.ErrNotExist) {
		err = makeWay(filepath.Dir(dir))
		if err == nil {
			err = os.Mkdir(dir, 0o711)
		}
	}
	if err == nil {
		return os.Chmod(dir, 0o711)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (s *starter) close() { s.once.Do(func() { close(s.jobs) }) }
