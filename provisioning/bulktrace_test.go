package provisioning_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/store/sqlite"
	"github.com/imprint-iot/imprint/trace"
)

// newTracedBulk is a bulkWorld whose lines are told to a trace.
func newTracedBulk(t *testing.T, opts trace.Options) (*bulkWorld, *trace.Log) {
	t.Helper()
	w := &bulkWorld{store: registrytest.Open(t, filepath.Join(t.TempDir(), "registry.db"), faulty(sqlite.Faults{})), dir: t.TempDir()}
	err := os.Mkdir(filepath.Join(w.dir, "lines"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	opts.Logger = quiet()
	log := trace.NewLog(w.store, clock, opts)
	t.Cleanup(log.Close)
	bulk, end := startBulkWith(t, w.store, provisioning.BulkDirectory{Path: w.dir, Home: home.Account}, clock, provisioning.BulkOptions{Trace: log})
	w.bulk = bulk
	t.Cleanup(end)
	return w, log
}

// told gives what a word finds in the trace.
func (w *bulkWorld) told(t *testing.T, log *trace.Log, word string) []imprint.Attempt {
	t.Helper()
	err := log.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []imprint.Attempt
	view(t, w.store, func(tx imprint.ReadTx) error {
		found, _, err := tx.Attempts(imprint.AttemptFilter{Tenant: home, Match: word}, imprint.Page{Limit: 1000, Ascending: true})
		all = found
		return err
	})
	return all
}

// TestTheTraceHasTheParametersOfLines ensures that a line of a bulk registration is an
// attempt with each parameter and where it came from, that one that failed names its step
// and a fix, and that they are found by the task, the line, the thing and the certificate.
func TestTheTraceHasTheParametersOfLines(t *testing.T) {
	t.Parallel()
	w, log := newTracedBulk(t, trace.Options{FoldAfter: -1, SuccessRate: -1})
	id, other := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	update(t, w.store, func(tx imprint.Tx) error {
		err := tx.PutPolicy(imprint.Policy{Tenant: home, Name: "devices", DefaultVersion: 1, LastVersion: 1})
		for _, id := range []string{id, other} {
			if err == nil {
				err = tx.PutCertificate(imprint.Certificate{Tenant: home, ID: imprint.CertificateID(id), Serial: "0" + id[:2], Status: imprint.CertificateInactive})
			}
		}
		return err
	})
	w.write(t, strings.Join([]string{
		`{"Name":"one","Id":"` + id + `","Unused":"x"}`,
		"nonsense",
		`{"Name":"gone","Id":"` + strings.Repeat("00", 32) + `"}`,
		`{"Name":"a b","Id":"` + other + `"}`,
		`{"Site":"north","Id":"` + other + `"}`,
		`{"Name":"nobody","Id":"` + other + `","Policy":"none"}`,
		`{"Name":"` + strings.Repeat("y", 3000) + `","Id":"` + other + `"}`,
		`{"NAME":"loud","Id":"` + other + `"}`,
	}, "\n"))
	const body = `{"Parameters":{"Name":{"Type":"String"},"Id":{"Type":"String"},"Site":{"Type":"String","Default":"south"},"Policy":{"Type":"String","Default":"devices"}},"Resources":{
	 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Name"},"AttributePayload":{"site":{"Ref":"Site"}}}},
	 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"Id"}}},
	 "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":{"Ref":"Policy"}}}}}`
	task := ended(t, w.store, w.start(t, body).ID)
	if task.Succeeded != 1 || task.Failed != 7 {
		t.Fatalf("got the task %+v", task)
	}
	attempts := map[string]imprint.Attempt{}
	var got []string
	for _, a := range w.told(t, log, task.ID) {
		attempts[a.Address] = a
		last := a.Steps[len(a.Steps)-1]
		got = append(got, fmt.Sprintf("%s %s %s %s", strings.TrimPrefix(a.Address, task.ID), a.Outcome, last.Name, last.Code))
		if a.Outcome == imprint.OutcomeRefused && (last.Fix == "" || a.Code != last.Code || !strings.Contains(trace.NextOf(&a), "imprint bulk reports "+task.ID)) {
			t.Errorf("got the failed attempt %+v, want a fix and what comes next", a)
		}
		if a.Tenant != home || !a.OfLine() {
			t.Errorf("got the attempt %+v, want one of a line of the tenant", a)
		}
	}
	slices.Sort(got)
	want := []string{":1 registered activate ", ":2 refused bulk.line InvalidRequest", ":3 refused register NotFound", ":4 refused template.plan TemplateValueInvalid",
		":5 refused template.plan ParameterMissing", ":6 refused policy PolicyMissing", ":7 refused template.plan TemplateValueInvalid", ":8 refused template.plan ParameterMissing"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the attempts differ:\n%s", diff)
	}
	parameters := func(line int) []string {
		var said []string
		for _, s := range attempts[fmt.Sprintf("%s:%d", task.ID, line)].Steps {
			if s.Name == "template.parameter" {
				said = append(said, s.Detail)
			}
		}
		return said
	}
	if diff := cmp.Diff([]string{`Name = "one" (the line)`, `Id = "` + id + `" (the line)`, `Site = "south" (the template's Default)`, `Policy = "devices" (the template's Default)`}, parameters(1)); diff != "" {
		t.Errorf("the parameters of a line differ:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Name has no value: it isn't in the line, and the template has no Default", `Id = "` + other + `" (the line)`, `Site = "north" (the line)`, `Policy = "devices" (the template's Default)`}, parameters(5)); diff != "" {
		t.Errorf("the parameters of a line without a name differ:\n%s", diff)
	}
	if long := parameters(7); len(long) != 4 || len(long[0]) > 300 {
		t.Errorf("got the parameters %q, want them bounded", long)
	}
	if fix := attempts[task.ID+":8"].Steps; !strings.Contains(fix[len(fix)-1].Fix, "the line has NAME, the template wants Name") {
		t.Errorf("got %+v, want a fix that knows of the other case", fix[len(fix)-1])
	}
	for word, line := range map[string]int{"one": 1, id: 1, "0ab": 1, task.ID + ":4": 4, "nobody": 6, strings.Repeat("00", 32): 3} {
		found := w.told(t, log, word)
		if len(found) != 1 || found[0].Address != fmt.Sprintf("%s:%d", task.ID, line) {
			t.Errorf("%q finds %+v, want line %d", word, found, line)
		}
	}
}

// TestLinesAreSampledAndFailuresAreCounted ensures that a large file costs the trace no
// more than devices that are let in do, and that no failed line is left out.
func TestLinesAreSampledAndFailuresAreCounted(t *testing.T) {
	t.Parallel()
	const rate, lines = 20, 2000
	w, log := newTracedBulk(t, trace.Options{SuccessRate: rate})
	w.write(t, names(lines)+strings.Repeat("{\"Other\":\"x\"}\n", lines))
	task := ended(t, w.store, w.start(t, thingTemplate).ID)
	if task.Succeeded != lines || task.Failed != lines {
		t.Fatalf("got the task %+v", task)
	}
	registered, entries, failed := 0, 0, 0
	for _, a := range w.told(t, log, "") {
		if a.Outcome == imprint.OutcomeRegistered {
			registered++
			continue
		}
		entries++
		failed += 1 + a.Repeats
	}
	// The clock stands: no more than come at once.
	if registered != rate {
		t.Errorf("%d lines that went well were kept, want %d", registered, rate)
	}
	if failed != lines || entries > 70 {
		t.Errorf("%d failed lines are counted in %d entries, want %d in 70 at most", failed, entries, lines)
	}
	// One that is counted with others is found all the same.
	word := fmt.Sprintf("%s:%d", task.ID, 2*lines-10)
	var found []imprint.Attempt
	view(t, w.store, func(tx imprint.ReadTx) error {
		var err error
		found, _, err = tx.Attempts(imprint.AttemptFilter{Tenant: home, Match: word}, imprint.Page{Limit: 10})
		return err
	})
	if len(found) != 1 || found[0].Repeats == 0 || found[0].Devices < 1000 {
		t.Errorf("%s finds %+v, want the entry that it is counted in", word, found)
	}
	// Connections are sampled beside them.
	rec := log.Begin("192.0.2.1:1")
	rec.Describe(func(a *imprint.Attempt) { a.Tenant, a.ClientID = home, "device" })
	rec.Connected()
	rec.End(imprint.OutcomeClosed, imprint.CodeClientDisconnect)
	if found := w.told(t, log, "device"); len(found) != 1 {
		t.Errorf("a device that came meanwhile has %d attempts, want 1", len(found))
	}
}
