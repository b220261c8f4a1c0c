package tiles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Width is how many hashes or entries a full tile or entry bundle has.
const Width = 1 << height

const height = 8

// entriesLevel is the level of entry bundles in tlog.Tile.
const entriesLevel = -1

// maxFile bounds what is read of one file: a full bundle of the largest entries.
const maxFile = Width * (2 + MaxEntry)

// Source gives the files of a log by their path in tlog-tiles, such as checkpoint,
// tile/0/x001/234 and tile/entries/000.p/17. One that isn't there is fs.ErrNotExist.
type Source interface {
	Read(ctx context.Context, path string) ([]byte, error)
}

// Dir reads a log in a directory.
func Dir(path string) Source { return dir(path) }

type dir string

// Read implements Source.
func (d dir) Read(ctx context.Context, path string) ([]byte, error) {
	err := ctx.Err()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(string(d), filepath.FromSlash(path)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, path)
}

// partials lists the widths of the partial tiles beside a full one.
func (d dir) partials(full string) ([]int, error) {
	names, err := os.ReadDir(filepath.Join(string(d), filepath.FromSlash(full)+".p"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't look for partial tiles: %w", err)
	}
	var widths []int
	for _, name := range names {
		width, err := strconv.Atoi(name.Name())
		if err == nil && width > 0 && width < Width && strconv.Itoa(width) == name.Name() {
			widths = append(widths, width)
		}
	}
	slices.Sort(widths)
	return widths, nil
}

func readAll(r io.Reader, path string) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("couldn't read %s: %w", path, err)
	}
	if len(raw) > maxFile {
		return nil, fmt.Errorf("couldn't read %s: it has more than %d bytes", path, maxFile)
	}
	return raw, nil
}

// HTTP reads a log below a URL. A nil client is one that waits 30 seconds for an answer.
func HTTP(url string, client *http.Client) Source {
	if client == nil {
		client = &http.Client{Timeout: 30 * time.Second}
	}
	return &remote{url: strings.TrimSuffix(url, "/"), client: client}
}

type remote struct {
	url    string
	client *http.Client
}

// Read implements Source.
func (r *remote) Read(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("couldn't ask for %s: %w", path, err)
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("couldn't get %s: %w", path, err)
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
		return readAll(answer.Body, path)
	case http.StatusNotFound, http.StatusGone:
		return nil, fmt.Errorf("%s/%s: %w", r.url, path, fs.ErrNotExist)
	}
	return nil, fmt.Errorf("couldn't get %s/%s: %s", r.url, path, answer.Status)
}

// pathOf gives the path of a tile in tlog-tiles, which leaves out the height.
func pathOf(t tlog.Tile) string {
	rest := strings.TrimPrefix(t.Path(), "tile/"+strconv.Itoa(height)+"/")
	if t.L == entriesLevel {
		rest = "entries" + strings.TrimPrefix(rest, "data")
	}
	return "tile/" + rest
}

// IsPath says whether a path is that of a log's file: of its checkpoint, a tile or an entry
// bundle.
func IsPath(path string) bool {
	_, err := parsePath(path)
	return path == CheckpointPath || err == nil
}

// parsePath is the inverse of pathOf.
func parsePath(path string) (tlog.Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok || strings.HasPrefix(rest, "data/") {
		return tlog.Tile{}, fmt.Errorf("%q isn't the path of a tile", path)
	}
	if entries, ok := strings.CutPrefix(rest, "entries/"); ok {
		rest = "data/" + entries
	}
	return tlog.ParseTilePath("tile/" + strconv.Itoa(height) + "/" + rest)
}

// readTile reads a tile or an entry bundle. For a partial one that isn't there, it reads the
// full one, as the log deletes partial ones that a full one has taken the place of; width
// is what that has.
func readTile(ctx context.Context, source Source, t tlog.Tile) (raw []byte, width int, err error) {
	raw, err = source.Read(ctx, pathOf(t))
	if t.W == Width || !errors.Is(err, fs.ErrNotExist) {
		return raw, t.W, err
	}
	full := t
	full.W = Width
	raw, fullErr := source.Read(ctx, pathOf(full))
	if fullErr != nil {
		return nil, 0, err
	}
	return raw, Width, nil
}

// readHashes reads a tile of hashes and cuts it to its width.
func readHashes(ctx context.Context, source Source, t tlog.Tile) ([]byte, error) {
	raw, width, err := readTile(ctx, source, t)
	if err != nil {
		return nil, err
	}
	if len(raw) != width*tlog.HashSize {
		return nil, fmt.Errorf("%s has %d bytes, not %d", pathOf(t), len(raw), width*tlog.HashSize)
	}
	return raw[:t.W*tlog.HashSize], nil
}

// readBundle reads the entries of a bundle.
func readBundle(ctx context.Context, source Source, number int64, count int) ([][]byte, error) {
	t := tlog.Tile{H: height, L: entriesLevel, N: number, W: count}
	raw, width, err := readTile(ctx, source, t)
	if err != nil {
		return nil, err
	}
	entries, err := splitBundle(raw, width)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pathOf(t), err)
	}
	return entries[:count], nil
}

// widthOf is how many of the hashes or entries of a tile a tree with count of them on its
// level has.
func widthOf(number, count int64) int { return int(min(Width, count-number*Width)) }

// reader gives verified hashes of a checkpoint's tree.
func reader(ctx context.Context, source Source, checkpoint Checkpoint) tlog.HashReader {
	return tlog.TileHashReader(checkpoint.Tree, &tileReader{ctx, source})
}

// tileReader is a Source as tlog reads it. It lives for one call with its context.
type tileReader struct {
	ctx    context.Context
	source Source
}

// Height implements tlog.TileReader.
func (r *tileReader) Height() int { return height }

// ReadTiles implements tlog.TileReader.
func (r *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, t := range tiles {
		var err error
		data[i], err = readHashes(r.ctx, r.source, t)
		if err != nil {
			return nil, fmt.Errorf("couldn't read a tile: %w", err)
		}
	}
	return data, nil
}

// SaveTiles implements tlog.TileReader.
func (r *tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
