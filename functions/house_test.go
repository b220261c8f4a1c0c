package functions_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/functions"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// patience bounds every wait for something that must happen.
const patience = 2 * time.Minute

var home = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}

const role = "arn:aws:iam::000000000000:role/x"

// bootstrap is the compiled test function; set once, before any test.
var bootstrap []byte

// bootstrapVariable names the compiled test function to tests that run as another
// user.
const bootstrapVariable = "IMPRINT_TEST_BOOTSTRAP"

func TestMain(m *testing.M) {
	var err error
	if path := os.Getenv(bootstrapVariable); path != "" {
		bootstrap, err = os.ReadFile(path)
	} else {
		err = compile()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// compile builds an ordinary AWS Lambda function in Go.
func compile() error {
	dir, err := os.MkdirTemp("", "imprint-function-")
	if err != nil {
		return fmt.Errorf("couldn't make a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "bootstrap")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, "./testfunction")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("couldn't build the test function: %w\n%s", err, out)
	}
	bootstrap, err = os.ReadFile(path)
	return err
}

// file is one file of a zip.
type file struct {
	name, content string
	mode          os.FileMode
}

func zipOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		header := &zip.FileHeader{Name: f.name, Method: zip.Deflate}
		header.SetMode(f.mode)
		part, err := w.CreateHeader(header)
		if err == nil {
			_, err = io.WriteString(part, f.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packed is the zip of the test function, made once.
var packed = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	part, err := w.Create("bootstrap")
	if err == nil {
		_, err = part.Write(bootstrap)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
})

// house is a room of functions with its store.
type house struct {
	*functions.Service
	t     testing.TB
	store *sqlite.Store
	opts  functions.Options
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func open(t testing.TB, change func(*functions.Options)) *house {
	t.Helper()
	dir := t.TempDir()
	store := registrytest.Open(t, filepath.Join(dir, "registry.db"))
	// A busy machine may take its time to start a process.
	opts := functions.Options{CodeDir: filepath.Join(dir, "functions"), WorkDir: filepath.Join(dir, "work"), Logger: quiet(), InitTimeout: patience}
	if change != nil {
		change(&opts)
	}
	s, err := functions.New(store, time.Now, opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	h := &house{Service: s, t: t, store: store, opts: opts}
	t.Cleanup(func() { h.Close() })
	return h
}

// put makes the test function under a name.
func (h *house) put(name string, change func(*imprint.Function)) imprint.Function {
	h.t.Helper()
	return h.putZip(name, packed(), change)
}

func (h *house) putZip(name string, code []byte, change func(*imprint.Function)) imprint.Function {
	h.t.Helper()
	f := imprint.Function{Tenant: home, Name: imprint.FunctionName(name), Runtime: "provided.al2023", Handler: "bootstrap", Role: role,
		Timeout: patience}
	if change != nil {
		change(&f)
	}
	made, err := h.Create(h.t.Context(), f, code, false)
	if err != nil {
		h.t.Fatalf("create %s: %v", name, err)
	}
	return made
}

func call(name, event string) imprint.FunctionCall {
	return imprint.FunctionCall{Tenant: home, ARN: home.FunctionARN(imprint.FunctionName(name)), Payload: []byte(event)}
}

func do(what, value string) string {
	event, err := json.Marshal(map[string]string{"do": what, "value": value})
	if err != nil {
		panic(err)
	}
	return string(event)
}

// must runs a function that must answer.
func (h *house) must(name, event string) imprint.FunctionResult {
	h.t.Helper()
	result, err := h.Invoke(h.t.Context(), call(name, event))
	if err != nil {
		h.t.Fatalf("invoke %s with %.100s: %v\n%s\n%s", name, event, err, result.Payload, result.Log)
	}
	return result
}

// echoed is the answer to echo.
type echoed struct {
	Value string
	Runs  int
	PID   int
}

func (h *house) echo(name string) echoed {
	h.t.Helper()
	return decode[echoed](h.t, h.must(name, do("echo", "x")).Payload)
}

func decode[T any](t testing.TB, data []byte) T {
	t.Helper()
	var out T
	err := json.Unmarshal(data, &out)
	if err != nil {
		t.Fatalf("%v: %.300s", err, data)
	}
	return out
}

func wantCode(t testing.TB, err error, want imprint.Code) {
	t.Helper()
	if got := imprint.CodeOf(err); got != want {
		t.Errorf("got code %q (%v), want %q", got, err, want)
	}
}

// eventually returns once a condition holds that others bring about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// outside is a directory that functions of another user can write, too.
func outside(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "imprint-outside-")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
