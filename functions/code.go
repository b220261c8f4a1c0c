package functions

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/durable"
)

// Bounds of a function's code, AWS Lambda's but for the number of files.
const (
	MaxZip      = 50 << 20
	maxUnzipped = 250 << 20
	maxFilesZip = 20_000
)

// codeStore keeps zips under the hash of their content, and unpacks them.
type codeStore struct {
	store imprint.Store
	dir   string
	// naming is held shared while a zip is put and a function comes to name it, and
	// alone while zips that no function names are removed.
	naming sync.RWMutex

	// places bound what is unpacked at once, of all accounts.
	places chan struct{}
	// mu guards the rest. It isn't held over work on the disk.
	mu    sync.Mutex
	trees map[string]*tree // by directory
	turns map[imprint.AccountID]*turn
}

// tree is a directory of unpacked code.
type tree struct {
	// disk is held while the directory is made or removed.
	disk sync.Mutex
	// users counts who holds the directory: it is removed with the last. codeStore.mu
	// guards it.
	users int
}

// turn is an account's to unpack: one zip at a time.
type turn struct {
	sync.Mutex
	wanted int // how many have it or wait for it; codeStore.mu guards it
}

// unpackersAtOnce is how many accounts' code is unpacked side by side.
const unpackersAtOnce = 4

// openCode makes the directory and removes what a crash left: half-written
// files, and zips whose function was never stored.
func openCode(store imprint.Store, dir string) (*codeStore, error) {
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the directory of functions' code: %w", err)
	}
	err = durable.RemoveTemporary(dir)
	if err != nil {
		return nil, err
	}
	c := &codeStore{
		store: store, dir: dir, places: make(chan struct{}, unpackersAtOnce), trees: map[string]*tree{}, turns: map[imprint.AccountID]*turn{},
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("couldn't list functions' code: %w", err)
	}
	for _, entry := range entries {
		sum, isZip := strings.CutSuffix(entry.Name(), ".zip")
		if !isZip {
			continue
		}
		err = c.sweep(context.Background(), sum)
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *codeStore) path(sum string) string { return filepath.Join(c.dir, sum+".zip") }

// put checks a zip and makes it durable. Errors: CodeInvalidRequest.
func (c *codeStore) put(data []byte) (sum string, err error) {
	if len(data) > MaxZip {
		return "", imprint.Errorf(imprint.CodePacketTooLarge, "the zip has %d bytes, at most %d are allowed", len(data), MaxZip)
	}
	err = checkZip(data)
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256(data)
	sum = hex.EncodeToString(hash[:])
	err = durable.CreateFile(c.path(sum), data, 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return sum, nil
}

// sweep removes a zip that no function names any more.
func (c *codeStore) sweep(ctx context.Context, sum string) error {
	if sum == "" {
		return nil
	}
	c.naming.Lock()
	defer c.naming.Unlock()
	used := false
	err := c.store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.FunctionCode(sum)
		used = found
		return err
	})
	if err != nil || used {
		return err
	}
	err = os.Remove(c.path(sum))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("couldn't remove a function's code: %w", err)
	}
	return nil
}

func checkZip(data []byte) error {
	bad := func(format string, args ...any) error {
		return imprint.Errorf(imprint.CodeInvalidRequest, "Could not unzip uploaded file. Please check your file, then try to upload again: "+format, args...)
	}
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return bad("%w", err)
	}
	if len(r.File) > maxFilesZip {
		return bad("it has %d files, at most %d are allowed", len(r.File), maxFilesZip)
	}
	total := uint64(0)
	names := make([]zipName, 0, len(r.File))
	for _, f := range r.File {
		names = append(names, zipName{strings.ReplaceAll(path.Clean(f.Name), "/", "\x00"), f.Mode().IsRegular()})
		total += f.UncompressedSize64
		if total > maxUnzipped || f.UncompressedSize64 > maxUnzipped {
			return imprint.Errorf(imprint.CodeInvalidRequest, "Unzipped size must be smaller than %d bytes", maxUnzipped)
		}
		if f.Mode().Type()&^(fs.ModeDir|fs.ModeSymlink) != 0 {
			return bad("%q is neither file, directory nor link", imprint.Excerpt(f.Name))
		}
		if !filepath.IsLocal(f.Name) {
			return bad("%q leads out of it", imprint.Excerpt(f.Name))
		}
	}
	// What is below a name follows it, as nothing sorts before the zero byte.
	slices.SortFunc(names, func(a, b zipName) int { return cmp.Compare(a.path, b.path) })
	for n := 1; n < len(names); n++ {
		one, next := names[n-1], names[n]
		if one.path == next.path && one.file != next.file || one.file && strings.HasPrefix(next.path, one.path+"\x00") {
			return bad("%q is both a file and a directory", imprint.Excerpt(strings.ReplaceAll(one.path, "\x00", "/")))
		}
	}
	return nil
}

// zipName is a name in a zip, with zero bytes between its parts, and whether it is a file's.
type zipName struct {
	path string
	file bool
}

// unpacked gives the directory with the content of a zip, unpacking it into one
// that is there the first time. It is the caller's until leave.
func (c *codeStore) unpacked(account imprint.AccountID, sum, within string) (string, error) {
	dir := filepath.Join(within, sum)
	c.mu.Lock()
	t := c.trees[dir]
	if t == nil {
		t = &tree{}
		c.trees[dir] = t
	}
	t.users++
	c.mu.Unlock()
	err := c.fill(t, account, sum, dir)
	if err != nil {
		return "", errors.Join(err, c.leave(dir, 1))
	}
	return dir, nil
}

func (c *codeStore) fill(t *tree, account imprint.AccountID, sum, dir string) error {
	t.disk.Lock()
	defer t.disk.Unlock()
	_, err := os.Lstat(dir)
	if err == nil {
		return nil
	}
	defer c.takeTurn(account)()
	return c.unpack(sum, dir)
}

// takeTurn waits until a zip of an account may be unpacked, and gives what ends that:
// an account with many of them doesn't hold up the first functions of others.
func (c *codeStore) takeTurn(account imprint.AccountID) (end func()) {
	c.mu.Lock()
	t := c.turns[account]
	if t == nil {
		t = &turn{}
		c.turns[account] = t
	}
	t.wanted++
	c.mu.Unlock()
	t.Lock()
	c.places <- struct{}{}
	return func() {
		<-c.places
		t.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		t.wanted--
		if t.wanted == 0 {
			delete(c.turns, account)
		}
	}
}

// leave gives a directory back that unpacked gave so many times, and removes it when
// nobody else has it.
func (c *codeStore) leave(dir string, times int) error {
	c.mu.Lock()
	t := c.trees[dir]
	t.users -= times
	c.mu.Unlock()
	t.disk.Lock()
	defer t.disk.Unlock()
	c.mu.Lock()
	unused := t.users == 0 && c.trees[dir] == t // and nobody has removed it meanwhile
	c.mu.Unlock()
	if !unused {
		return nil
	}
	// Who comes from now on waits for the disk, and unpacks it anew. A directory of which
	// a part is removed must not have the name of a whole one.
	gone := dir + ".gone"
	err := os.RemoveAll(gone)
	if err == nil {
		err = os.Rename(dir, gone)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // it couldn't be unpacked
	}
	if err == nil {
		err = os.RemoveAll(gone)
	}
	if err != nil {
		return fmt.Errorf("couldn't remove a function's unpacked code: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.users == 0 {
		delete(c.trees, dir)
	}
	return nil
}

// unpack unpacks a zip into a new directory.
func (c *codeStore) unpack(sum, dir string) error {
	data, err := os.ReadFile(c.path(sum))
	if err != nil {
		return fmt.Errorf("couldn't read a function's code: %w", err)
	}
	hash := sha256.Sum256(data)
	if hex.EncodeToString(hash[:]) != sum {
		return imprint.Errorf(imprint.CodeInternal, "the code of a function, %s, is damaged", c.path(sum)).
			WithHint("Upload the function again, or restore the file from a backup.")
	}
	half := dir + ".half"
	err = os.RemoveAll(half)
	if err != nil {
		return fmt.Errorf("couldn't remove half a function: %w", err)
	}
	err = os.Mkdir(half, 0o755)
	if err == nil {
		err = unzip(data, half)
	}
	if err == nil {
		err = openDirs(half)
	}
	if err == nil {
		err = os.Rename(half, dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("couldn't unpack a function's code: %w", err), os.RemoveAll(half))
	}
	return nil
}

// openDirs lets everyone look into the directories below one, whatever the umask
// was.
func openDirs(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755)
	})
}

// unzip writes a checked zip into a directory, and nothing outside of it,
// whatever links it has. Everyone may read what it writes.
func unzip(data []byte, dir string) error {
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	left := int64(maxUnzipped)
	for _, f := range r.File {
		n, err := unzipFile(root, f, left)
		if err != nil {
			return fmt.Errorf("%q: %w", f.Name, err)
		}
		left -= n
	}
	return nil
}

func unzipFile(root *os.Root, f *zip.File, left int64) (int64, error) {
	name := path.Clean(f.Name)
	if f.FileInfo().IsDir() {
		return 0, root.MkdirAll(name, 0o755)
	}
	err := root.MkdirAll(path.Dir(name), 0o755)
	if err != nil {
		return 0, err
	}
	content, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer func() { _ = content.Close() }()
	if f.Mode().Type() == fs.ModeSymlink {
		const maxLink = 4096
		to, err := io.ReadAll(io.LimitReader(content, maxLink))
		if err != nil {
			return 0, err
		}
		return int64(len(to)), root.Symlink(string(to), name)
	}
	mode := fs.FileMode(0o644)
	// Zips that other systems made have no modes.
	if f.Mode()&0o111 != 0 || name == "bootstrap" {
		mode = 0o755
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(file, io.LimitReader(content, left+1))
	if err == nil && n > left {
		err = errors.New("the zip unpacks to more than is allowed")
	}
	// Whatever the umask.
	if err == nil {
		err = file.Chmod(mode)
	}
	return n, errors.Join(err, file.Close())
}
