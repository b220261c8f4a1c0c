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
	for name, test := range map[string]struct {
		args    []string
		goals   int
		profile string
	}{
		"handshake": {[]string{"--devices", "20"}, 3, "cpu.prof"},
		"jitp":      {[]string{"--devices", "20"}, 1, "cpu.prof"},
		"broker": {[]string{
			"--connections", "200", "--messages", "20000", "--seconds", "0.3",
			"--only", "memory,connect,resume,one-to-one,many-to-one,one-to-many,latency,stuck",
		}, 18, "cpu-qos1-one-to-many.prof"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			profiles := t.TempDir()
			profile := filepath.Join(profiles, test.profile)
			args := append([]string{"bench", name, "--json", "--cpuprofile", filepath.Join(profiles, "cpu.prof")}, test.args...)
			cmd := exec.CommandContext(t.Context(), program, args...)
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
			checkFigures(t, figures, test.goals)
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

func TestTheFunctionBenchMeasuresAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	program, dir := buildProgram(t), t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "bench", "function", "--json", "--invocations", "20")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	err := cmd.Run()
	if err != nil {
		t.Fatalf("imprint bench function failed: %v\n%s", err, messages.String())
	}
	var figures []bench.Figure
	err = json.Unmarshal(out.Bytes(), &figures)
	if err != nil {
		t.Fatalf("couldn't read the figures: %v\n%s", err, out.String())
	}
	if len(figures) != 9 || figures[8].Met == nil || figures[0].Value <= 0 || figures[4].Value <= figures[2].Value {
		t.Errorf("got %d figures, want 9, the last with a goal, and a run that takes longer than none:\n%s", len(figures), out.String())
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("%d files are left behind, want none (%v)", len(left), err)
	}
	err = exec.CommandContext(t.Context(), program, "bench", "function", "--invocations", "0").Run()
	if err == nil {
		t.Error("no invocations at all were measured")
	}
}

func checkFigures(t *testing.T, figures []bench.Figure, wanted int) {
	t.Helper()
	goals := 0
	for _, f := range figures {
		// Very short rounds take less CPU time than a clock tick.
		if f.Value < 0 || f.Value == 0 && f.Unit != "cores" || f.Name == "" || f.Unit == "" {
			t.Errorf("got %+v, want a name, a unit and a positive value", f)
		}
		if f.Goal == nil {
			continue
		}
		goals++
		if f.Reference == nil || f.Ratio == nil || f.Bound == nil || f.Met == nil {
			t.Errorf("figure %s: want reference, ratio, bound and met beside the goal", f.Name)
			continue
		}
		if met := map[string]bool{bench.Least: *f.Ratio >= *f.Goal, bench.Most: *f.Ratio <= *f.Goal}[*f.Bound]; met != *f.Met {
			t.Errorf("figure %s: got met %t, want %t", f.Name, *f.Met, met)
		}
	}
	if goals != wanted {
		t.Errorf("%d figures have a goal, want %d", goals, wanted)
	}
}

func TestBenchesKeepDataOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	program := buildProgram(t)
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "bench", "handshake", "--devices", "3", "--concurrency", "2", "--full-only", "--keep-data")
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
