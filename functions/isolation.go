package functions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
)

// namespaces are the kernel's, that a process gets of its own.
type namespaces struct {
	// pid makes it the first process of a PID namespace: what it starts, in whatever
	// session, ends with it.
	pid bool
	// user is what a server that isn't root needs for pid.
	user bool
}

// ownTmp is a /tmp that a process gets of its own, where all may write elsewhere.
type ownTmp struct {
	MB   int
	keep string // the directory that stays where it is, though it is below /tmp
}

// isolation is what stands between a function's process and everything else. It
// is found out once, at the start.
type isolation struct {
	namespaces namespaces
	tmp        *ownTmp  // nil: the machine's
	shared     *User    // who runs functions without ids; nil: the server's user
	ids        *userIDs // nil: all functions share one user
}

// noProgram isn't there: when that is what fails of a start, the system permitted all
// that comes before.
const noProgram = "/imprint/no-such-program"

// newIsolation tries what the kernel lets this server do, and tells what it
// doesn't.
func newIsolation(opts Options, start *starter) (isolation, error) {
	w := isolation{shared: opts.User}
	who := opts.User
	separated := start.separate()
	if opts.TmpMB > 0 {
		w.tmp = &ownTmp{MB: opts.TmpMB, keep: opts.WorkDir}
		err := separated
		if err == nil {
			err = start.run(&exec.Cmd{Path: noProgram}, w.tmp)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.tmp = nil
			opts.Logger.Warn("functions share /tmp, with each other and with the machine: only a root that may mount gives each process its own", "error", err)
		}
	}
	if opts.UIDBase != 0 {
		own := &User{UID: opts.UIDBase, GID: opts.UIDBase}
		err := permits(start, own, namespaces{})
		if err == nil {
			w.ids, err = openUserIDs(filepath.Join(opts.CodeDir, "users.json"), opts.UIDBase, uint32(opts.UIDs))
			if err != nil {
				return w, err
			}
			w.ids.logger = opts.Logger
			who = own
			err = separated
			if err == nil {
				err = start.hideProcesses()
			}
			if err != nil {
				opts.Logger.Warn("functions see the list of the machine's processes, with their command lines", "error", err)
			}
		} else {
			opts.Logger.Warn("functions share one user: the system gives them no user ids of their own", "uid", opts.UIDBase, "error", err)
		}
	}
	var failed error
	for _, set := range []namespaces{{pid: true}, {pid: true, user: true}} {
		err := permits(start, who, set)
		if err == nil {
			w.namespaces = set
			return w, nil
		}
		failed = errors.Join(failed, err)
	}
	opts.Logger.Warn("functions have no PID namespaces: what a function starts in a session of its own can outlive it, and isn't counted as its memory", "error", failed)
	return w, nil
}

// prober is who is asked whether interpreters run: nobody's function.
func (w isolation) prober() *User {
	if w.ids == nil {
		return w.shared
	}
	return &User{UID: w.ids.base, GID: w.ids.base}
}

// own makes a directory of a function's user: others can't look into it, and the
// user can't change it. Where all share one user, everyone may look.
func (w isolation) own(dir string, user *User) error {
	if w.ids == nil {
		return openDir(dir, 0o711)
	}
	err := openDir(dir, 0o700)
	if err == nil {
		err = os.Chown(dir, -1, int(user.GID))
	}
	if err == nil {
		err = os.Chmod(dir, 0o750)
	}
	if err != nil {
		return fmt.Errorf("couldn't give a function its directory: %w", err)
	}
	return nil
}

// admit refuses the functions of other accounts than the server's own where all
// would share one user: they could read each other's keys. Errors:
// CodeFunctionDenied.
func (s *Service) admit(f imprint.Function) error {
	switch kind := runtimeKind(f.Runtime); {
	case kind == RuntimeWebhook || kind == RuntimeRemote || s.host.walls.ids != nil:
		return nil
	case s.opts.Account == "" || f.Tenant.Account == s.opts.Account:
		return nil
	}
	return imprint.Errorf(imprint.CodeFunctionDenied,
		"functions share one user on this server, so those of account %s, which isn't the server's own, don't run here", f.Tenant.Account).
		WithHint("Start the server as root without --function-user, so that each function has a user of its own; or with --function-share-user " +
			"if all accounts trust each other; or use a webhook (imprint.webhook).")
}

// userIDs gives each function, of all its versions, a user and group id that
// stays its own as long as the function is there, also over restarts.
type userIDs struct {
	path string
	base uint32 // the prober's; functions get those after it
	size uint32 // of the range

	logger *slog.Logger

	mu    sync.Mutex
	owned map[uint32]functionKey
	of    map[functionKey]uint32
	// held keeps other servers of the machine from the range; nil: no function has
	// run yet, or nothing can keep them from it.
	held io.Closer
	asks bool // held was asked for, in vain or not
}

// hold takes the range, when the first function is to run: a server without
// functions is in nobody's way. It is tried again for each function while another
// server has it. Errors: CodeUnavailable.
func (u *userIDs) hold() error {
	if u.held != nil {
		return nil
	}
	held, err := holdUIDs(u.base, u.size)
	if imprint.CodeOf(err) == imprint.CodeUnavailable {
		return err
	}
	if err != nil && !u.asks {
		u.logger.Warn("another server on this machine whose functions have the same user ids isn't noticed", "uid", u.base, "error", err)
	}
	u.held, u.asks = held, true
	return nil
}

// release gives the range back, once no function runs any more.
func (u *userIDs) release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.held != nil {
		_ = u.held.Close() // nothing was written
		u.held = nil
	}
}

// openUserIDs reads what was given before. Ids outside of the range, which was
// another then, are given anew.
func openUserIDs(path string, base, size uint32) (*userIDs, error) {
	u := &userIDs{path: path, base: base, size: size, owned: map[uint32]functionKey{}, of: map[functionKey]uint32{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	saved := map[string]string{}
	if err == nil {
		err = json.Unmarshal(data, &saved)
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't read the user ids of functions, %s: %w", path, err)
	}
	for number, name := range saved {
		id, err := strconv.ParseUint(number, 10, 32)
		parts := strings.Split(name, "/")
		if err != nil || len(parts) != 3 {
			return nil, imprint.Errorf(imprint.CodeInternal, "the user ids of functions, %s, are damaged", path).
				WithHint("Restore the file from a backup, or remove it: each function then gets a new id.")
		}
		if uint32(id) > base && uint32(id)-base < size {
			u.put(uint32(id), functionKey{imprint.Tenant{Account: imprint.AccountID(parts[0]), Region: imprint.Region(parts[1])}, imprint.FunctionName(parts[2])})
		}
	}
	return u, nil
}

func (u *userIDs) put(id uint32, key functionKey) {
	u.owned[id] = key
	u.of[key] = id
}

func (u *userIDs) drop(id uint32) {
	delete(u.of, u.owned[id])
	delete(u.owned, id)
}

// user gives the user of a function. When all ids are taken, that of one that is
// gone is taken from it; leave then removes what it left.
func (u *userIDs) user(key functionKey, gone func(functionKey) (bool, error), leave func(id uint32) error) (*User, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	err := u.hold()
	if err != nil {
		return nil, err
	}
	id, known := u.of[key]
	if known {
		return &User{UID: id, GID: id}, nil
	}
	id, err = u.free(gone, leave)
	if err != nil {
		return nil, err
	}
	u.put(id, key)
	err = u.save()
	if err != nil {
		u.drop(id)
		return nil, err
	}
	return &User{UID: id, GID: id}, nil
}

func (u *userIDs) free(gone func(functionKey) (bool, error), leave func(id uint32) error) (uint32, error) {
	for id := u.base + 1; id < u.base+u.size; id++ {
		if _, taken := u.owned[id]; !taken {
			return id, nil
		}
	}
	for id, key := range u.owned {
		away, err := gone(key)
		if err == nil && away {
			err = leave(id)
		}
		if err != nil {
			return 0, err
		}
		if away {
			u.drop(id)
			return id, nil
		}
	}
	return 0, imprint.Errorf(imprint.CodeUnavailable, "all %d user ids of functions are taken", u.size-1).
		WithHint("Delete functions that aren't needed.")
}

func (u *userIDs) save() error {
	saved := make(map[string]string, len(u.owned))
	for id, key := range u.owned {
		saved[strconv.FormatUint(uint64(id), 10)] = string(key.tenant.Account) + "/" + string(key.tenant.Region) + "/" + string(key.name)
	}
	data, err := json.Marshal(saved)
	if err == nil {
		err = durable.WriteFile(u.path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("couldn't keep the user ids of functions: %w", err)
	}
	return nil
}

// userOf gives who runs a function; nil: the server's own user.
func (h *host) userOf(key functionKey) (*User, error) {
	if h.walls.ids == nil {
		return h.walls.shared, nil
	}
	gone := func(other functionKey) (bool, error) {
		h.mu.Lock()
		running := h.counts[other] > 0
		h.mu.Unlock()
		if running {
			return false, nil
		}
		err := h.code.store.Glance(context.Background(), func(tx imprint.ReadTx) error {
			_, err := tx.Function(other.tenant, other.name, imprint.LatestVersion)
			return err
		})
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return true, nil
		}
		return false, err
	}
	leave := func(id uint32) error { return os.RemoveAll(h.codeDir(&User{UID: id})) }
	return h.walls.ids.user(key, gone, leave)
}

// codeDir is where the code of a user's functions is unpacked.
func (h *host) codeDir(user *User) string {
	name := "shared"
	if h.walls.ids != nil {
		name = strconv.FormatUint(uint64(user.UID), 10)
	}
	return filepath.Join(h.opts.WorkDir, "code", name)
}
