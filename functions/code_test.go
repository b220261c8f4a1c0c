//go:build unix

package functions_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/functions"
)

// unpackedCode lists the directories of unpacked code.
func (h *house) unpackedCode() []string {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.opts.WorkDir, "code", "*", "*"))
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}

// TestUnpackedCodeGoesWithItsLastProcess ensures that the code of an earlier state, of a
// function that nobody calls any more, and of one that was deleted leaves the disk, and
// that code which two functions share stays as long as one of them runs.
func TestUnpackedCodeGoesWithItsLastProcess(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	h.putZip("a", say(t, "1"), python)
	h.answers("a", "1")
	first := h.unpackedCode()
	if len(first) != 1 {
		t.Fatalf("one function runs: got %q unpacked, want one", first)
	}
	h.putZip("twin", say(t, "1"), python)
	h.answers("twin", "1")
	_, err := h.UpdateCode(t.Context(), home, "a", say(t, "2"), "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	h.answers("a", "2")
	h.answers("twin", "1")
	if got := h.unpackedCode(); len(got) != 2 {
		t.Errorf("two zips run: got %q unpacked, want both", got)
	}
	err = h.Delete(t.Context(), home, "twin", "")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the code that nobody has", func() bool { return !exists(first[0]) })
	h.answers("a", "2")
	err = h.Delete(t.Context(), home, "a", "")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of all code", func() bool { return len(h.unpackedCode()) == 0 })
	idle := open(t, func(o *functions.Options) { o.Idle = time.Millisecond })
	idle.put("a", nil)
	idle.echo("a")
	eventually(t, "the end of the code of an idle function", func() bool { return len(idle.unpackedCode()) == 0 })
	idle.echo("a")
}

// TestTheCodeOfAnAccountIsBounded ensures that an account has no more code than it may,
// in all regions, that versions share theirs, that others have their own bound, and that
// nothing of what is refused stays on the disk.
func TestTheCodeOfAnAccountIsBounded(t *testing.T) {
	t.Parallel()
	one, two, three := say(t, "1"), say(t, "2"), say(t, "3")
	size := int64(len(one))
	h := open(t, func(o *functions.Options) { o.MaxCode = 2*size + size/2 })
	function := func(tenant imprint.Tenant, name string) imprint.Function {
		return imprint.Function{Tenant: tenant, Name: imprint.FunctionName(name), Runtime: "provided.al2023", Handler: "bootstrap", Role: role}
	}
	elsewhere := imprint.Tenant{Account: home.Account, Region: "eu-west-1"}
	stranger := imprint.Tenant{Account: "111111111111", Region: home.Region}
	files := func() int {
		t.Helper()
		zips, err := filepath.Glob(filepath.Join(h.opts.CodeDir, "*.zip"))
		if err != nil {
			t.Fatal(err)
		}
		return len(zips)
	}
	for _, f := range []imprint.Function{function(home, "a"), function(elsewhere, "a")} {
		_, err := h.Create(t.Context(), f, one, true)
		if err != nil {
			t.Fatalf("within the bound: %v", err)
		}
	}
	_, err := h.Create(t.Context(), function(home, "b"), two, false)
	wantCode(t, err, imprint.CodeFunctionStorage)
	// The version keeps the code that $LATEST would leave.
	_, err = h.UpdateCode(t.Context(), home, "a", two, "", false, false)
	wantCode(t, err, imprint.CodeFunctionStorage)
	if got := files(); got != 1 {
		t.Errorf("after refusals: got %d zips on the disk, want one", got)
	}
	_, err = h.Create(t.Context(), function(stranger, "a"), three, false)
	if err != nil {
		t.Errorf("another account: %v", err)
	}
	// Neither does what is refused for other reasons stay.
	_, err = h.Create(t.Context(), function(home, "a"), say(t, "4"), false)
	wantCode(t, err, imprint.CodeAlreadyExists)
	_, err = h.UpdateCode(t.Context(), home, "missing", two, "", false, false)
	wantCode(t, err, imprint.CodeNotFound)
	if got := files(); got != 2 {
		t.Errorf("after other refusals: got %d zips on the disk, want two", got)
	}
	err = h.Delete(t.Context(), home, "a", "1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.UpdateCode(t.Context(), home, "a", two, "", false, false)
	if err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestUnpackingOfOneAccountHoldsUpNoOther ensures that another account's first function
// starts while an account's code takes its time to come onto the disk, and that one account
// has one zip unpacked at once.
func TestUnpackingOfOneAccountHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	h := open(t, nil)
	results := make(chan error, 2)
	slow := map[string][]byte{"slow": say(t, "1"), "next": say(t, "2")}
	pipes := map[string]string{}
	for name, code := range slow {
		f := h.putZip(name, code, python)
		pipes[name] = filepath.Join(h.opts.CodeDir, f.CodeSHA256+".zip")
		err := errors.Join(os.Remove(pipes[name]), syscall.Mkfifo(pipes[name], 0o600))
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string) {
		_, err := h.Invoke(t.Context(), call(name, "{}"))
		results <- err
	}
	// write gives a zip to who reads it; false: nobody does.
	write := func(name string) (*os.File, bool) {
		t.Helper()
		w, err := os.OpenFile(pipes[name], os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil && !errors.Is(err, syscall.ENXIO) {
			t.Fatal(err)
		}
		return w, err == nil
	}
	finish := func(name string, w *os.File) {
		t.Helper()
		_, err := w.Write(slow[name])
		err = errors.Join(err, w.Close())
		if err != nil {
			t.Fatal(err)
		}
	}
	var held *os.File
	go run("slow")
	eventually(t, "the first function's code to be read", func() bool {
		w, open := write("slow")
		held = w
		return open
	})
	go run("next")
	eventually(t, "the second function's call", func() bool { return h.Counters().Processes+h.Counters().Waiting >= 4 })
	stranger := imprint.Tenant{Account: "111111111111", Region: home.Region}
	h.put("quick", func(f *imprint.Function) { f.Tenant = stranger })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := h.Invoke(ctx, imprint.FunctionCall{Tenant: stranger, ARN: stranger.FunctionARN("quick"), Payload: []byte(do("echo", "x"))})
	if err != nil {
		t.Fatalf("another account's function: %v", err)
	}
	if _, read := write("next"); read {
		t.Error("the account has two zips unpacked at once")
	}
	finish("slow", held)
	eventually(t, "the second function's code to be read", func() bool {
		w, open := write("next")
		if open {
			finish("next", w)
		}
		return open
	})
	for range 2 {
		err := <-results
		if err != nil {
			t.Errorf("a function whose code came slowly: %v", err)
		}
	}
}
