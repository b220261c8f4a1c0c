package bench_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/imprint-iot/imprint/bench"
)

// buildProgram gives the path of the program under test, built once.
func buildProgram(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("benches run on Linux only")
	}
	if testing.Short() {
		t.Skip("builds and runs the whole program")
	}
	program := filepath.Join(t.TempDir(), "imprint")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/imprint-iot/imprint/cmd/imprint").CombinedOutput()
	if err != nil {
		t.Fatalf("couldn't build the program: %v\n%s", err, out)
	}
	return program
}

func TestBenchesMeasureAndLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	program := buildProgram(t)
	for _, name := range []string{"handshake", "jitp"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			profile := filepath.Join(t.TempDir(), "cpu.prof")
			cmd := exec.CommandContext(t.Context(), program, "bench", name, "--devices", "20", "--json", "--cpuprofile", profile)
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			var out, messages bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &messages
			err := cmd.Run()
			if err != nil {
				t.Fatalf("imprint bench %s failed: %v\n%s", name, err, messages.String())
			}
			var figures []bench.Figure
			err = json.Unmarshal(out.Bytes(), &figures)
			if err != nil {
				t.Fatalf("couldn't read the figures: %v\n%s", err, out.String())
			}
			checkFigures(t, figures)
			info, err := os.Stat(profile)
			if err != nil || info.Size() == 0 {
				t.Errorf("got no CPU profile: %v", err)
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 0 {
				t.Errorf("%d files are left behind, want none (%v)", len(left), err)
			}
		})
	}
}

func checkFigures(t *testing.T, figures []bench.Figure) {
	t.Helper()
	goals := 0
	for _, f := range figures {
		if f.Value <= 0 || f.Name == "" || f.Unit == "" {
			t.Errorf("got %+v, want a name, a unit and a positive value", f)
		}
		if f.Goal == nil {
			continue
		}
		goals++
		if f.Reference == nil || f.Ratio == nil || f.Met == nil || *f.Met != (*f.Ratio >= *f.Goal) {
			t.Errorf("figure %s: want reference, ratio and met beside the goal", f.Name)
		}
	}
	if goals != 1 {
		t.Errorf("%d figures have a goal, want 1", goals)
	}
}

func TestBenchesKeepDataOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	program := buildProgram(t)
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "bench", "handshake", "--devices", "3", "--concurrency", "2", "--keep-data")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "IMPRINT_HOLD=true")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("imprint bench handshake failed: %v\n%s", err, out)
	}
	kept, err := filepath.Glob(filepath.Join(dir, "imprint-bench-*", "server.json"))
	if err != nil || len(kept) != 1 || !bytes.Contains(out, []byte(filepath.Dir(kept[0]))) {
		t.Errorf("got %v (%v), want one data directory, named in the output:\n%s", kept, err, out)
	}
}

func TestBenchesRefuseWhatCannotRun(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]bench.Options{
		"no devices":           {Devices: 0, Concurrency: 1},
		"too many devices":     {Devices: bench.MaxDevices + 1, Concurrency: 1},
		"no concurrency":       {Devices: 1},
		"too much concurrency": {Devices: 1, Concurrency: bench.MaxConcurrency + 1},
	} {
		_, err := bench.JITP(t.Context(), bench.Target{}, opts)
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestBenchesTellOfAServerThatDoesNotStart(t *testing.T) {
	t.Parallel()
	program := buildProgram(t)
	target := bench.Target{
		Program:    program,
		ServerArgs: func(string) []string { return []string{"serve", "--no-such-flag"} },
		Facts:      func(string) (bench.Facts, error) { return bench.Facts{}, os.ErrNotExist },
	}
	_, err := bench.Handshake(t.Context(), target, bench.Options{Devices: 1, Concurrency: 1})
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("the Imprint server has ended: exit status 2")) {
		t.Errorf("got %v, want the end of the server", err)
	}
}
