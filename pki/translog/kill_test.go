//go:build unix

package translog_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog"
)

// In the child process of the kill tests: the data directory, and where to end.
const (
	killVariable = "IMPRINT_TRANSLOG_KILL"
	killAt       = "IMPRINT_TRANSLOG_KILL_AT"
)

// killChild runs the child of the kill tests, and doesn't return in it.
func killChild() {
	dir := os.Getenv(killVariable)
	if dir == "" {
		return
	}
	err := issueAndLog(dir)
	fmt.Fprintln(os.Stderr, "couldn't go on:", err)
	os.Exit(2)
}

// issueAndLog issues and logs until it is killed, and prints the id of each issuance that
// Wait has acknowledged.
func issueAndLog(dir string) error {
	ctx := context.Background()
	w, err := openWorld(ctx, dir)
	if err != nil {
		return err
	}
	config := w.config()
	config.Batch = 5
	if os.Getenv(killAt) != "" {
		config.Store = &dying{Store: w.store, at: os.Getenv(killAt)}
	}
	log, err := translog.Open(ctx, config)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for range 4 {
		go func() {
			for {
				c, err := w.issue(ctx)
				if err != nil {
					failed <- err
					return
				}
				id, err := w.issuanceOf(ctx, c.SerialNumber.Text(16))
				if err == nil {
					_, err = log.Wait(ctx, id)
				}
				if err == nil {
					_, err = os.Stdout.WriteString(id + "\n")
				}
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

func (w *world) issuanceOf(ctx context.Context, serial string) (string, error) {
	id := ""
	err := w.store.View(ctx, func(tx imprint.ReadTx) error {
		newest, _, err := tx.Issuances(tenant, imprint.Page{Limit: 50})
		for _, i := range newest {
			if i.Serial == serial {
				id = i.ID
			}
		}
		return err
	})
	if err == nil && id == "" {
		err = fmt.Errorf("there is no issuance of serial number %s", serial)
	}
	return id, err
}

// dying is a store whose process is killed at one place of the log's work.
type dying struct {
	imprint.Store
	at    string
	count atomic.Int64
}

// Update kills the process (SIGKILL) at the third batch: "planned" after its ids are
// written down, "added" when it is in the log and not recorded, "recorded" right after.
func (d *dying) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	recording := false
	watched := func(tx imprint.Tx) error { return fn(&watching{tx, &recording}) }
	if d.at == "added" && d.count.Load() >= 2 {
		// The batch is in the log when its record is about to be written.
		probe := errors.New("probe")
		err := d.Store.Update(ctx, func(tx imprint.Tx) error { return errors.Join(watched(tx), probe) })
		if recording {
			kill()
		}
		if !errors.Is(err, probe) {
			return err
		}
	}
	err := d.Store.Update(ctx, watched)
	if recording {
		d.count.Add(1)
	}
	if d.at == "recorded" && d.count.Load() >= 3 || d.at == "planned" && d.count.Load() >= 2 && !recording {
		kill()
	}
	return err
}

func kill() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "couldn't kill:", err)
	}
	select {}
}

// watching says whether indices are recorded.
type watching struct {
	imprint.Tx
	recording *bool
}

func (w *watching) SetLogIndex(id string, index int64) error {
	*w.recording = true
	return w.Tx.SetLogIndex(id, index)
}

// startChild runs the child until it was killed, or kills it after count acknowledgements,
// and gives what was acknowledged.
func startChild(t *testing.T, dir, at string, count int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), killVariable+"="+dir, killAt+"="+at)
	var complaint strings.Builder
	child.Stderr = &complaint
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatalf("couldn't start the child: %v", err)
	}
	var ids []string
	reader := bufio.NewReader(out)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			break // a line cut short was not acknowledged to anyone
		}
		ids = append(ids, strings.TrimSpace(line))
		if count > 0 && len(ids) == count {
			err = child.Process.Kill()
			if err != nil {
				t.Fatalf("couldn't kill the child: %v", err)
			}
		}
	}
	err = child.Wait()
	if ctx.Err() != nil {
		t.Fatalf("the child wasn't killed in time, after %d acknowledgements", len(ids))
	}
	if complaint.Len() > 0 || child.ProcessState.ExitCode() >= 0 {
		t.Fatalf("the child ended by itself after %d acknowledgements: %v: %s", len(ids), err, complaint.String())
	}
	return ids
}

// Killed at any moment, the log has every completed issuance once, and what Wait
// acknowledged at once.
func TestKilledAtAnyMomentNothingIsLostOrLoggedTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var acknowledged []string
	for range 6 {
		acknowledged = append(acknowledged, startChild(t, dir, "", 1+rand.IntN(40))...)
		checkAfterKill(t, dir, acknowledged)
	}
	t.Logf("%d issuances were acknowledged", len(acknowledged))
}

// The same, killed exactly where a batch is in one place and not in the other.
func TestKilledBetweenLogAndRecord(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"planned", "added", "recorded"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var acknowledged []string
			for range 2 {
				acknowledged = append(acknowledged, startChild(t, dir, at, 0)...)
				checkAfterKill(t, dir, acknowledged)
			}
		})
	}
}

func checkAfterKill(t *testing.T, dir string, acknowledged []string) {
	t.Helper()
	w, err := openWorld(t.Context(), dir)
	if err != nil {
		t.Fatalf("couldn't open what the killed process left: %v", err)
	}
	defer w.store.Close()
	// An acknowledged one is covered by the checkpoint that is there.
	checkpoint, err := w.verifier(t).Latest(t.Context(), w.source())
	if err != nil {
		t.Fatal(err)
	}
	byID := make(map[string]imprint.LoggedIssuance)
	completed := 0
	for _, i := range w.issuances(t) {
		byID[i.ID] = i
		if i.CertificateID != "" {
			completed++
		}
	}
	for _, id := range acknowledged {
		if i := byID[id]; i.ID == "" || i.LogIndex < 0 || i.LogIndex >= checkpoint.N {
			t.Errorf("issuance %s was acknowledged and is %+v; the checkpoint has %d entries", id, i, checkpoint.N)
		}
	}
	_, found := w.audit(t)
	if len(found) > 0 {
		t.Errorf("right after the kill the audit found %+v", found)
	}
	log, err := translog.Open(t.Context(), w.config())
	if err != nil {
		t.Fatalf("couldn't open the log that the killed process left: %v", err)
	}
	w.waitAll(t, log)
	closeLog(t, log)
	w.checkBijection(t, log.Verifier(), completed)
	audited, found := w.audit(t, func(c *translog.AuditConfig) { c.Grace = time.Nanosecond })
	if len(found) > 0 || audited.Waiting > 0 {
		t.Errorf("after the next start the audit found %+v, %d waiting", found, audited.Waiting)
	}
}
