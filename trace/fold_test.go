package trace_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/trace"
)

// hands is a clock that a test moves.
type hands struct{ now atomic.Pointer[time.Time] }

func handsAt(now time.Time) *hands {
	h := &hands{}
	h.set(now)
	return h
}

func (h *hands) set(now time.Time) { h.now.Store(&now) }

func (h *hands) clock() time.Time { return *h.now.Load() }

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
		store := registrytest.New(t)
		now := handsAt(instant)
		l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), Linger: time.Microsecond, Batch: batch})
		const many = 50
		for n := range many {
			now.set(instant.Add(time.Duration(n) * time.Second))
			refusal(l, "a", fmt.Sprintf("192.0.2.1:%d", n), "ca", imprint.CodeCAInactive)
			flush(t, l)
		}
		last := now.clock()
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
		if !rows[2].At.Equal(last) || !rows[2].FirstAt.Equal(instant.Add(2*time.Second)) {
			t.Errorf("batches of %d: the first is of %s, the row of %s", batch, rows[2].FirstAt, rows[2].At)
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
	store := registrytest.New(t)
	now := handsAt(instant)
	l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), Linger: time.Microsecond, FoldAfter: 1})
	for n := range 12 {
		now.set(instant.Add(time.Duration(n) * time.Minute))
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
	inner := registrytest.New(t)
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
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), FoldAfter: -1})
	for range 20 {
		refusal(l, "a", "192.0.2.1:1", "ca", imprint.CodeCAInactive)
	}
	l.Close()
	if n := len(everything(t, store)); n != 20 {
		t.Errorf("got %d attempts, want 20", n)
	}
}

// TestStormsOfManyDevicesAreOneEntry ensures that the same failure of a fleet costs few
// rows however many devices it has, that nothing goes uncounted, and that each device
// still finds the entry that it is counted in, also after a restart.
func TestStormsOfManyDevicesAreOneEntry(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	now := handsAt(instant)
	l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), Linger: time.Microsecond, Queue: 1 << 16, Batch: 4096})
	const devices, rounds = 20_000, 3
	var first, some string
	for round := range rounds {
		now.set(instant.Add(time.Duration(round) * time.Second))
		for n := range devices {
			rec := l.Begin(fmt.Sprintf("192.0.2.1:%d", n))
			name := fmt.Sprintf("device-%d", n)
			rec.Describe(func(a *imprint.Attempt) {
				a.Tenant, a.CertificateID, a.ClientID, a.Subject = home, imprint.CertificateID("c"+name), imprint.ClientID(name), "CN="+name
			})
			rec.Fail("ca", imprint.Errorf(imprint.CodeCAInactive, "the CA of c%s (CN=%s) is INACTIVE", name, name))
			if round == 0 && n == 0 || round == 1 && n == devices/2 {
				first, some = some, rec.ID()
			}
			rec.End(imprint.OutcomeRefused, imprint.CodeCAInactive)
		}
		flush(t, l)
	}
	l.Close()
	all := everything(t, store)
	counted, largest := 0, imprint.Attempt{}
	for _, a := range all {
		counted += 1 + a.Repeats
		if a.Repeats > largest.Repeats {
			largest = a
		}
	}
	if len(all) > 64*3+1 || counted != devices*rounds {
		t.Errorf("%d attempts are %d entries that count %d", devices*rounds, len(all), counted)
	}
	if largest.Devices != trace.MaxApart || len(largest.Sample) != 10 || largest.Repeats != (devices-64)*rounds-1 || !largest.At.Equal(now.clock()) || !largest.FirstAt.Equal(instant) {
		t.Errorf("the storm's entry has %d devices, names %d, counts %d, from %s to %s", largest.Devices, len(largest.Sample), 1+largest.Repeats, largest.FirstAt, largest.At)
	}
	for _, word := range []string{first, some, "cdevice-0", "cdevice-100", "device-19998", "cdevice-19999"} {
		found := found(t, store, imprint.AttemptFilter{Tenant: home, Match: word})
		if len(found) == 0 || found[0].Code != imprint.CodeCAInactive {
			t.Errorf("%q finds %d attempts", word, len(found))
		}
	}
	if found := found(t, store, imprint.AttemptFilter{Tenant: imprint.Tenant{Account: "111111111111", Region: "us-east-1"}, Match: "cdevice-100"}); len(found) != 0 {
		t.Errorf("another tenant finds %d attempts", len(found))
	}
}

// found gives what a filter selects, newest first.
func found(t *testing.T, store imprint.Store, f imprint.AttemptFilter) []imprint.Attempt {
	t.Helper()
	var all []imprint.Attempt
	err := store.View(context.Background(), func(tx imprint.ReadTx) error {
		list, _, err := tx.Attempts(f, imprint.Page{Limit: 1000})
		all = list
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestStormsThatVaryAreBounded ensures that neither a host that makes a certificate, a
// client id or a server name for each try, nor errors that no two have in common, cost a
// row each, and that what is rare is still told apart meanwhile.
func TestStormsThatVaryAreBounded(t *testing.T) {
	t.Parallel()
	for name, vary := range map[string]func(rec *trace.Recorder, n string){
		"certificates": func(rec *trace.Recorder, n string) {
			rec.Describe(func(a *imprint.Attempt) { a.CertificateID, a.Subject = imprint.CertificateID("c"+n), "CN="+n })
			rec.Fail("ca", imprint.Errorf(imprint.CodeCANotRegistered, "no CA with the subject CN=%s is registered", n))
		},
		"client ids": func(rec *trace.Recorder, n string) {
			rec.Describe(func(a *imprint.Attempt) { a.CertificateID, a.ClientID = "c", imprint.ClientID(n) })
			rec.Fail("policy.connect", imprint.Errorf(imprint.CodeCANotRegistered, "iot:Connect on client/%s is denied", n))
		},
		"server names": func(rec *trace.Recorder, n string) {
			rec.Describe(func(a *imprint.Attempt) { a.SNI = n + ".example.com" })
			rec.Fail("tls", imprint.Errorf(imprint.CodeCANotRegistered, "%s.example.com is nobody's", n))
		},
		"words": func(rec *trace.Recorder, n string) {
			rec.Fail("tls", imprint.Errorf(imprint.CodeCANotRegistered, "no %s", n))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := registrytest.New(t)
			l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Microsecond, Queue: 1 << 15, Batch: 2048})
			const many = 5000
			for n := range many {
				rec := l.Begin("192.0.2.1:1")
				vary(rec, fmt.Sprintf("n%dx", n))
				rec.End(imprint.OutcomeRefused, imprint.CodeCANotRegistered)
			}
			refusal(l, "", "192.0.2.9:1", "tls", imprint.CodeNotTLS)
			l.Close()
			counted, rare := 0, 0
			all := everything(t, store)
			for _, a := range all {
				counted += 1 + a.Repeats
				if a.Code == imprint.CodeNotTLS && a.Repeats == 0 {
					rare++
				}
			}
			if len(all) > 300 || counted != many+1 || rare != 1 {
				t.Errorf("%d attempts are %d entries that count %d, and the rare one is there %d times", many+1, len(all), counted, rare)
			}
		})
	}
}

// TestWhoMakesUpFailuresTakesNoneFromOthers ensures that neither hosts that no account knows
// nor the devices of an account, in whatever regions, which fail in ever new ways, make the
// failures of another account's devices be told by their code alone.
func TestWhoMakesUpFailuresTakesNoneFromOthers(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Microsecond, Queue: 1 << 15, Batch: 2048})
	fails := func(tenant imprint.Tenant, certificate imprint.CertificateID, how string) {
		rec := l.Begin("192.0.2.1:1")
		rec.Describe(func(a *imprint.Attempt) { a.Tenant, a.CertificateID = tenant, certificate })
		rec.Fail("ca", imprint.Errorf(imprint.CodeCANotRegistered, "%s", how))
		rec.End(imprint.OutcomeRefused, imprint.CodeCANotRegistered)
	}
	for n := range 3000 {
		fails(imprint.Tenant{}, "", fmt.Sprintf("word %dx", n))
		fails(imprint.Tenant{Account: "111111111111", Region: imprint.Region(fmt.Sprintf("region-%d", n%7))}, "c", fmt.Sprintf("word %dx", n))
	}
	for range 5 {
		fails(home, "one", "no CA of that name")
		fails(home, "two", "another CA's name")
	}
	l.Close()
	got := map[string]int{}
	for _, a := range everything(t, store) {
		if a.Tenant == home {
			got[string(a.CertificateID)+": "+a.Steps[0].Detail] += 1 + a.Repeats
		}
	}
	if want := map[string]int{"one: no CA of that name": 5, "two: another CA's name": 5}; !maps.Equal(got, want) {
		t.Errorf("what is told of the devices is %v, want %v", got, want)
	}
}

// TestAFailureThatChangesIsShown ensures that whoever looks for why a device isn't let
// in sees how its latest attempt failed and not an earlier one: whatever of what a person
// reads is another, it isn't folded.
func TestAFailureThatChangesIsShown(t *testing.T) {
	t.Parallel()
	type try struct {
		client, sni, template, detail, resource string
	}
	same := try{"bench-A", "localhost", "template jitp, version 1", "Country has no value", "arn:1"}
	for name, change := range map[string]func(*try){
		"client id":      func(w *try) { w.client = "bench-B" },
		"server name":    func(w *try) { w.sni = "other" },
		"template":       func(w *try) { w.template = "template jitp, version 2" },
		"detail":         func(w *try) { w.detail = "StateName has no value" },
		"another number": func(w *try) { w.detail = "remote error: tls: alert 40" },
		"what was asked": func(w *try) { w.resource = "arn:2" },
	} {
		store := registrytest.New(t)
		now := handsAt(instant)
		l := trace.NewLog(store, now.clock, trace.Options{Logger: quiet(), Linger: time.Microsecond})
		comes := func(w try, port int) string {
			now.set(now.clock().Add(1300 * time.Millisecond))
			rec := l.Begin(fmt.Sprintf("192.0.2.1:%d", port))
			rec.Describe(func(a *imprint.Attempt) {
				a.Tenant, a.CertificateID, a.ClientID, a.SNI = home, "c", imprint.ClientID(w.client), w.sni
			})
			rec.OK("template", "%s", w.template)
			rec.OK("claim.hook", "allowed it in %s, at %s, for 192.0.2.1:%d, %d ms", time.Duration(port)*time.Millisecond, now.clock().Format(time.RFC3339), port, port)
			rec.Fail("template.plan", &imprint.Error{Code: imprint.CodeTemplateValue, Err: denial{w.detail, w.resource}})
			rec.End(imprint.OutcomeRefused, imprint.CodeTemplateValue)
			flush(t, l)
			return rec.ID()
		}
		var early []string
		for n := range 6 {
			early = append(early, comes(same, 40_000+n))
		}
		changed := same
		change(&changed)
		for n := range 5 {
			early = append(early, comes(changed, 50_000+n))
		}
		last := early[len(early)-1]
		l.Close()
		var counts []string
		for _, a := range everything(t, store) {
			counts = append(counts, fmt.Sprint(1+a.Repeats))
		}
		if diff := cmp.Diff([]string{"1", "1", "4", "1", "1", "3"}, counts); diff != "" {
			t.Errorf("%s: the entries differ:\n%s", name, diff)
			continue
		}
		newest := found(t, store, imprint.AttemptFilter{Tenant: home, Match: "c"})[0]
		failed := newest.Steps[2]
		got := try{string(newest.ClientID), newest.SNI, newest.Steps[0].Detail, failed.Detail, failed.Resource}
		if newest.ID != last || got != changed || !strings.Contains(newest.Address, "50004") || !newest.At.Equal(now.clock()) {
			t.Errorf("%s: the newest entry is %+v of %s, of %s; want the last attempt", name, got, newest.At, newest.Address)
		}
		// An attempt whose id was told leads to the entry that counts it.
		for n, id := range early {
			leads := found(t, store, imprint.AttemptFilter{Tenant: home, Match: id})
			want := id
			if n == 2 || n == 3 || n == 4 {
				want = early[5]
			}
			if n == 8 || n == 9 {
				want = last
			}
			if len(leads) != 1 || leads[0].ID != want {
				t.Errorf("%s: attempt %d finds %d entries, want that of %s", name, n, len(leads), want)
			}
		}
	}
}

// denial is a refusal that tells what a policy was asked.
type denial struct{ text, resource string }

func (d denial) Error() string           { return d.text }
func (d denial) Asked() (string, string) { return "iot:Connect", d.resource }

// TestEndsWithAFailureAreFolded ensures that a device that is let in, refused something
// and ended, again and again, is folded too, and later what tells who took whose place.
func TestEndsWithAFailureAreFolded(t *testing.T) {
	t.Parallel()
	for code, want := range map[imprint.Code]int{imprint.CodePublishDenied: 3, imprint.CodeTakenOver: 8} {
		store := registrytest.New(t)
		l := trace.NewLog(store, clock, trace.Options{Logger: quiet(), Linger: time.Microsecond})
		for range 20 {
			rec := l.Begin("192.0.2.1:1")
			rec.Describe(func(a *imprint.Attempt) { a.Tenant, a.CertificateID = home, "c" })
			rec.Connected()
			rec.Fail("session", imprint.Errorf(code, "no"))
			rec.End(imprint.OutcomeClosed, code)
		}
		l.Close()
		all := everything(t, store)
		counted := 0
		for _, a := range all {
			counted += 1 + a.Repeats
		}
		if len(all) != want || counted != 20 {
			t.Errorf("%s: 20 connections are %d entries that count %d, want %d", code, len(all), counted, want)
		}
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

// TestTheEndOfALongConnectionForgetsNoStorm ensures that a device that was on for long,
// and is lost, doesn't make what is known of a storm forgotten.
func TestTheEndOfALongConnectionForgetsNoStorm(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	var now atomic.Int64
	l := trace.NewLog(store, func() time.Time { return instant.Add(time.Duration(now.Load())) }, trace.Options{Logger: quiet(), FoldAfter: 1})
	long := l.Begin("192.0.2.200:1")
	now.Store(int64(time.Hour))
	refuse := func() {
		rec := l.Begin("192.0.2.1:1")
		rec.Fail("ca", imprint.Errorf(imprint.CodeCAInactive, "the CA is INACTIVE"))
		rec.End(imprint.OutcomeRefused, imprint.CodeCAInactive)
		flush(t, l)
	}
	for range 5 {
		refuse()
	}
	long.Connected()
	long.Fail("session", imprint.Errorf(imprint.CodeConnectionLost, "lost"))
	long.End(imprint.OutcomeClosed, imprint.CodeConnectionLost)
	for range 5 {
		refuse()
	}
	l.Close()
	if got := l.Counters().Folded; got != 9 {
		t.Errorf("%d of ten alike were folded, want all but the first", got)
	}
}
