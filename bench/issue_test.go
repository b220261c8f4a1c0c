package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/imprint-iot/imprint/bench"
)

func TestTheIssuingBenchMeasuresAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	program, dir := buildProgram(t), t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "bench", "issue", "--json", "--certificates", "40")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	err := cmd.Run()
	if err != nil {
		t.Fatalf("imprint bench issue failed: %v\n%s", err, messages.String())
	}
	var figures []bench.Figure
	err = json.Unmarshal(out.Bytes(), &figures)
	if err != nil {
		t.Fatalf("couldn't read the figures: %v\n%s", err, out.String())
	}
	if len(figures) != 6*len(bench.IssueKinds()) {
		t.Errorf("got %d figures, want six of each kind:\n%s", len(figures), out.String())
	}
	checkFigures(t, figures, len(bench.IssueKinds()))
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("%d files are left behind, want none (%v)", len(left), err)
	}
}

// lossyIssuer is an issuer whose log lacks what it forgets.
type lossyIssuer struct {
	issued  atomic.Int64
	forgets int64
	failure error
}

func (f *lossyIssuer) Issue(context.Context, string) error { f.issued.Add(1); return f.failure }
func (*lossyIssuer) Logged(context.Context) error          { return nil }
func (*lossyIssuer) Close() error                          { return nil }
func (f *lossyIssuer) Count(context.Context) (registry, log int64, err error) {
	return f.issued.Load(), f.issued.Load() - f.forgets, nil
}

func TestTheIssuingBenchFailsWhenACertificateIsMissing(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("benches run on Linux only")
	}
	opts := bench.IssueOptions{Certificates: 3, Concurrency: 2, Kinds: []string{"p256"}}
	for name, row := range map[string]struct {
		issuer *lossyIssuer
		change func(*bench.IssueOptions)
		fails  bool
	}{
		"all is there":     {issuer: &lossyIssuer{}},
		"one isn't logged": {issuer: &lossyIssuer{forgets: 1}, fails: true},
		"one fails":        {issuer: &lossyIssuer{failure: errors.New("no")}, fails: true},
		"no certificates":  {change: func(o *bench.IssueOptions) { o.Certificates = 0 }, fails: true},
		"another kind":     {change: func(o *bench.IssueOptions) { o.Kinds = []string{"dsa"} }, fails: true},
	} {
		chosen := opts
		if row.change != nil {
			row.change(&chosen)
		}
		_, err := bench.Issue(t.Context(), func(context.Context, string, string) (bench.Issuer, error) { return row.issuer, nil }, chosen)
		if (err != nil) != row.fails {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
