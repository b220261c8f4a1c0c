package tiles

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Handler serves a log in a directory, for reading, at checkpoint and tile/... below where
// it is mounted (use http.StripPrefix). It serves nothing else of the directory. Whoever
// reads a log reads every certificate in it.
func Handler(path string) http.Handler { return handler(path) }

type handler string

// ServeHTTP implements http.Handler.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "The log can only be read.", http.StatusMethodNotAllowed)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	kind, lifetime := "application/octet-stream", "public, max-age=31536000, immutable"
	if path == CheckpointPath {
		kind, lifetime = "text/plain; charset=utf-8", "no-cache"
	} else if _, err := parsePath(path); err != nil {
		http.Error(w, "No such path in a log: see https://c2sp.org/tlog-tiles.", http.StatusNotFound)
		return
	}
	f, err := os.Open(filepath.Join(string(h), filepath.FromSlash(path)))
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "The log doesn't have it, or no more: a full tile has taken its place.", http.StatusNotFound)
		return
	}
	if err != nil {
		http.Error(w, "The log can't be read now.", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		http.Error(w, "The log can't be read now.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", lifetime)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, f)
}
