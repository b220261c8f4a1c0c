package test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/eclipse/paho.golang/paho"
)

// ledger is what the server acknowledged: lines that the registry must hold
// from then on.
type ledger struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newLedger() *ledger { return &ledger{more: make(chan struct{})} }

func (l *ledger) note(lines ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, lines...)
	close(l.more)
	l.more = make(chan struct{})
}

func (l *ledger) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// await waits until n lines are noted; false when the context ended before.
func (l *ledger) await(ctx context.Context, n int) bool {
	for {
		l.mu.Lock()
		have, more := len(l.lines), l.more
		l.mu.Unlock()
		if have >= n {
			return true
		}
		select {
		case <-more:
		case <-ctx.Done():
			return false
		}
	}
}

// checkKept says what of the acknowledged the registry lacks.
func checkKept(t *testing.T, acknowledged, registry []string) {
	t.Helper()
	for _, line := range acknowledged {
		if !slices.ContainsFunc(registry, func(have string) bool { return have == line || strings.HasPrefix(have, line+" ") }) {
			t.Errorf("acknowledged before the kill and gone after it: %s", line)
		}
	}
}

// provisionedLines are what the registry holds of a device that was let in.
func provisionedLines(t *testing.T, d *device) []string {
	t.Helper()
	id := d.id(t)
	return []string{"thing " + d.name, "cert/" + id + " ACTIVE", "cert/" + id + " policy devices", "thing " + d.name + " has cert/" + id}
}

func TestKillAtAnyMomentLosesNothingAcknowledged(t *testing.T) {
	need(t, "openssl", "bash", "aws", "sqlite3")
	t.Parallel()
	const devices, kills = 24, 4
	s := startServer(t)
	f := s.line(t, "Crash")
	var fleet []*device
	for n := range devices {
		fleet = append(fleet, f.device(t, fmt.Sprintf("crash-%d", n), "P-256"))
	}
	random := newRandom(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	book := newLedger()
	book.note("policy devices")
	queue := make(chan *device)
	var joining, writing sync.WaitGroup
	for range 3 {
		joining.Go(func() {
			for d := range queue {
				s.joinThroughCrashes(ctx, t, d, book)
			}
		})
	}
	stopWriting := make(chan struct{})
	writing.Go(func() { s.writeThroughCrashes(ctx, t, book, stopWriting) })
	writing.Go(func() { s.cliThroughCrashes(t, book, stopWriting) })
	go feed(ctx, queue, fleet)
	for n := range kills {
		// After some more acknowledgements, anywhere within what follows.
		if !book.await(ctx, len(book.all())+1+random.IntN(24)) {
			break
		}
		pause(ctx, time.Duration(random.IntN(20_000))*time.Microsecond)
		s.signal(os.Kill)
		acknowledged := book.all()
		s.start()
		t.Logf("kill %d: %d facts were acknowledged", n+1, len(acknowledged))
		checkKept(t, acknowledged, s.registry(t))
	}
	joining.Wait()
	close(stopWriting)
	writing.Wait()
	if ctx.Err() != nil {
		t.Fatal("the devices didn't finish in time")
	}
	registry := s.registry(t)
	checkKept(t, book.all(), registry)
	for _, d := range fleet {
		checkKept(t, provisionedLines(t, d), registry)
	}
	s.checkFile(t)
}

// feed hands the devices out and closes the queue.
func feed(ctx context.Context, queue chan<- *device, fleet []*device) {
	defer close(queue)
	for _, d := range fleet {
		select {
		case queue <- d:
		case <-ctx.Done():
			return
		}
	}
}

// newRandom gives random moments that a failure names the seed of.
func newRandom(t *testing.T) *mathrand.Rand {
	t.Helper()
	var raw [8]byte
	// crypto/rand.Read never fails.
	_, _ = rand.Read(raw[:])
	seed := binary.LittleEndian.Uint64(raw[:])
	t.Logf("seed of the moments: %d", seed)
	return mathrand.New(mathrand.NewPCG(seed, 0))
}

// checkFile lets SQLite itself look at the registry's file.
func (s *server) checkFile(t *testing.T) {
	t.Helper()
	s.signal(os.Kill)
	run := runTool(t, "", cleanEnv(), "sqlite3", filepath.Join(s.dir, "registry.db"), "PRAGMA quick_check")
	if strings.TrimSpace(run.stdout) != "ok" {
		t.Errorf("quick_check: got %q, want ok\n%s", run.stdout, run.stderr)
	}
	s.start()
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// joinThroughCrashes connects again and again, as firmware does, until the
// device is let in or the context ends.
func (s *server) joinThroughCrashes(ctx context.Context, t *testing.T, d *device, book *ledger) {
	lines := provisionedLines(t, d)
	for ctx.Err() == nil {
		patient, cancel := context.WithTimeout(ctx, 5*time.Second)
		c, err := s.dial(patient, t, d, d.name, dialing{})
		cancel()
		var refusal *errRefused
		switch {
		case err == nil:
			book.note(lines...)
			_ = c.Disconnect(&paho.Disconnect{})
			return
		case errors.As(err, &refusal) && refusal.reason == 0x87:
			continue // provisioned, or cut in between: come again
		case errors.As(err, &refusal) && refusal.reason != noConnack:
			t.Errorf("%s: got CONNACK %#x, want 0x87 or success", d.name, refusal.reason)
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// writeThroughCrashes creates things and policies with the SDK.
func (s *server) writeThroughCrashes(ctx context.Context, t *testing.T, book *ledger, stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		api := s.sdk(t, func(o *iot.Options) { o.RetryMaxAttempts = 1 })
		name := fmt.Sprintf("written-%d", n)
		_, err := api.CreateThing(call, &iot.CreateThingInput{ThingName: aws.String(name), AttributePayload: attributes(map[string]string{"n": fmt.Sprint(n)})})
		if err == nil {
			book.note(fmt.Sprintf(`thing %s version 1 {"n":"%d"}`, name, n))
		}
		if n%8 == 0 {
			_, err = api.CreatePolicy(call, &iot.CreatePolicyInput{PolicyName: aws.String(name), PolicyDocument: aws.String(devicePolicy)})
			if err == nil {
				book.note("policy " + name)
			}
		}
		cancel()
		pause(ctx, 20*time.Millisecond)
	}
}

// cliThroughCrashes creates things with the AWS CLI.
func (s *server) cliThroughCrashes(t *testing.T, book *ledger, stop <-chan struct{}) {
	dir := t.TempDir()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		name := fmt.Sprintf("typed-%d", n)
		run := s.shell(t, dir, "export AWS_MAX_ATTEMPTS=1\naws iot create-thing --thing-name "+name)
		if run.exit == 0 {
			book.note("thing " + name)
		}
	}
}
