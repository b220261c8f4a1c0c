package trace_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/trace"
)

// hands is a clock that a test moves.
type hands struct{ now time.Time }

func (h *hands) clock() time.Time { return h.now }

// refusal ends a connection with a failed step and gives its id.
func refusal(l *trace.Log, certificate imprint.CertificateID, address, step string, code imprint.Code) string {
	rec := l.Begin(address)
	rec.Describe(func(a *imprint.Attempt) { a.Tenant, a.CertificateID = home, certificate })
	rec.Fail(step, imprint.Errorf(code, "no"))
	rec.End(imprint.OutcomeRefused, code)
	return rec.ID()
}

var home = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}

// everything gives what is stored, oldest first.
func everything(t *testing.T, store imprint.Store) []imprint.Attempt {
	t.Helper()
	var all []imprint.Attempt
	err := store.View(context.Background(), func(tx imprint.ReadTx) error {
		found, _, err := tx.Attempts(imprint.AttemptFilter{}, imprint.Page{Limit: 1000, Ascending: true})
		all = found
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// told gives, for each stored attempt, its certificate, code and how often it was.
func told(list []imprint.Attempt) []string {
	var all []string
	for _, a := range list {
		who := string(a.CertificateID)
		if who == "" {
			who = a.Host()
		}
		all = append(all, fmt.Sprintf("%s %s %d", who, a.Code, 1+a.Repeats))
	}
	slices.Sort(all) // ids of one millisecond have no order
	return all
}

// TestFailuresThatRepeatAreCountedWithOne ensures that a device that comes again and
// again costs few rows, that no failure goes uncounted, and that nothing is folded
// that differs.
func TestFailuresThatRepeatAreCountedWithOne(t *testing.T) {
	t.Parallel()
	for _, batch := range []int{1, 7, 256} {
		store := openStore(t)
		now := &hands{instant}
		l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), Linger: time.Microsecond, Batch: batch})
		const many = 50
		for n := range many {
			now.now = instant.Add(time.Duration(n) * time.Second)
			refusal(l, "a", fmt.Sprintf("192.0.2.1:%d", n), "ca", imprint.CodeCAInactive)
			flush(t, l)
		}
		last := now.now
		for range 2 {
			refusal(l, "b", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
			refusal(l, "a", "192.0.2.1:1", "ca", imprint.CodeCAExpired)
			refusal(l, "a", "192.0.2.1:1", "template", imprint.CodeCAInactive)
		}
		for n := range 5 {
			refusal(l, "", fmt.Sprintf("192.0.2.7:%d", n), "tls", imprint.CodeNotTLS)
		}
		for range 5 {
			l.Begin("192.0.2.1:1").End(imprint.OutcomeProvisioned, imprint.CodeProvisioned)
		}
		l.Close()
		var rows []imprint.Attempt
		whole, provisioned := 0, 0
		for _, a := range everything(t, store) {
			switch {
			case a.Outcome == imprint.OutcomeProvisioned:
				provisioned++
			case a.CertificateID == "a" && a.Code == imprint.CodeCAInactive && a.Steps[0].Name == "ca":
				rows = append(rows, a)
			default:
				whole += 1 + a.Repeats
			}
		}
		if diff := cmp.Diff([]string{"a CAInactive 1", "a CAInactive 1", "a CAInactive 48"}, told(rows)); diff != "" {
			t.Fatalf("batches of %d: the device's attempts differ:\n%s", batch, diff)
		}
		if !rows[2].LastAt.Equal(last) || !rows[2].At.Equal(instant.Add(2*time.Second)) {
			t.Errorf("batches of %d: the last is of %s, the row of %s", batch, rows[2].LastAt, rows[2].At)
		}
		if whole != 11 || provisioned != 5 {
			t.Errorf("batches of %d: got %d other failures and %d provisioned, want 11 and 5", batch, whole, provisioned)
		}
		if got := l.Counters().Folded; got != many-3+2 {
			t.Errorf("batches of %d: %d are counted as folded", batch, got)
		}
	}
}

// TestAFoldEndsAfterAWhile ensures that a failure that goes on is told of anew, so
// that those who ask for what failed lately find it.
func TestAFoldEndsAfterAWhile(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	now := &hands{instant}
	l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), Linger: time.Microsecond, FoldAfter: 1})
	for n := range 12 {
		now.now = instant.Add(time.Duration(n) * time.Minute)
		refusal(l, "a", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
		flush(t, l)
	}
	l.Close()
	if diff := cmp.Diff([]string{"a CAInactive 2", "a CAInactive 5", "a CAInactive 5"}, told(everything(t, store))); diff != "" {
		t.Errorf("the attempts differ:\n%s", diff)
	}
}

// TestNoFailureIsLostWithItsFold ensures that failures are kept when the attempt
// that they would be counted with was trimmed, or never stored.
func TestNoFailureIsLostWithItsFold(t *testing.T) {
	t.Parallel()
	inner := openStore(t)
	store := &counting{Store: inner}
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Microsecond, FoldAfter: 1})
	refusal(l, "a", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
	flush(t, l)
	err := inner.Update(t.Context(), func(tx imprint.Tx) error {
		_, err := tx.TrimAttempts(instant.Add(time.Hour), 0, 10)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		refusal(l, "a", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
		flush(t, l)
	}
	if diff := cmp.Diff([]string{"a CAInactive 3"}, told(everything(t, inner))); diff != "" {
		t.Errorf("after a trim the attempts differ:\n%s", diff)
	}
	store.fail = errors.New("disk")
	refusal(l, "b", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
	flush(t, l)
	store.fail = nil
	refusal(l, "b", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
	refusal(l, "b", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
	l.Close()
	if diff := cmp.Diff([]string{"a CAInactive 3", "b CAInactive 2"}, told(everything(t, inner))); diff != "" {
		t.Errorf("after a failure of the store the attempts differ:\n%s", diff)
	}
	if got := l.Counters().Failed; got != 1 {
		t.Errorf("got %d failed", got)
	}
}

func TestNothingIsFoldedWhereThatIsSwitchedOff(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), FoldAfter: -1})
	for range 20 {
		refusal(l, "a", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
	}
	l.Close()
	if n := len(everything(t, store)); n != 20 {
		t.Errorf("got %d attempts, want 20", n)
	}
}

// TestTheFoldsAreBounded ensures that failures of more devices than are remembered
// are all told of.
func TestTheFoldsAreBounded(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), FoldAfter: 1, Linger: time.Microsecond, Queue: 1 << 16, Batch: 4096})
	const devices = trace.MaxFolds + 100
	for round := range 2 {
		for n := range devices {
			refusal(l, imprint.CertificateID(fmt.Sprintf("c%d", n)), "192.0.2.1:1", "ca", imprint.CodeCAInactive)
		}
		flush(t, l)
		if got := l.Counters().Folded; got != 0 {
			t.Fatalf("round %d: %d were folded; each is forgotten before it comes again", round, got)
		}
	}
	refusal(l, "c0", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
	refusal(l, "c0", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
	l.Close()
	if c := l.Counters(); c.Folded != 1 || c.Written != 2*devices+2 {
		t.Errorf("got %+v", c)
	}
}

// TestWhatComesNextIsSaid ensures that every end of a connection says what the
// device is expected to do.
func TestWhatComesNextIsSaid(t *testing.T) {
	t.Parallel()
	if got := trace.Next(imprint.OutcomeConnected, ""); got != "" {
		t.Errorf("a device that is on: got %q", got)
	}
	for _, description := range imprint.Descriptions() {
		code := description.Code
		for _, outcome := range []imprint.Outcome{imprint.OutcomeRefused, imprint.OutcomeClosed, imprint.OutcomeProvisioned} {
			if trace.Next(outcome, code) == "" {
				t.Errorf("%s %s: nothing is said", outcome, code)
			}
		}
	}
}
