package provisioning_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// TestAccountsHaveTheirOwnInputs ensures that no account's task can name another's
// files, in any of the places.
func TestAccountsHaveTheirOwnInputs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"lines/home.json": "home", "lines/both.json": "old", "000000000000/lines/both.json": "home", "111111111111/lines/a.json": "another",
		"111111111111/lines/both.json": "another",
	} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		err := os.MkdirAll(filepath.Dir(file), 0o700)
		if err == nil {
			err = os.WriteFile(file, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	input := provisioning.BulkDirectory{Path: dir, Home: home.Account}
	for _, row := range []struct {
		account     imprint.AccountID
		bucket, key string
		want        string // empty: it can't be opened
	}{
		{home.Account, "lines", "home.json", "home"},
		{home.Account, "lines", "both.json", "home"},
		{another.Account, "lines", "a.json", "another"},
		{another.Account, "lines", "both.json", "another"},
		{another.Account, "lines", "home.json", ""},
		{another.Account, "000000000000", "lines/both.json", ""},
		{another.Account, "lines", "../../lines/home.json", ""},
		{another.Account, "..", "lines/home.json", ""},
		{another.Account, "../000000000000", "lines/both.json", ""},
		{another.Account, "../lines", "home.json", ""},
		{home.Account, "lines", "a.json", ""},
		{home.Account, "111111111111", "lines/a.json", ""},
		{home.Account, "lines", "../111111111111/lines/a.json", ""},
		{home.Account, ".", "111111111111/lines/a.json", ""},
		{home.Account, "111111111111/lines", "a.json", ""},
	} {
		file, err := input.Open(t.Context(), row.account, row.bucket, row.key, 0, "")
		if err != nil {
			if row.want != "" || imprint.CodeOf(err) != imprint.CodeNotFound {
				t.Errorf("%s of %s/%s: got %v, want %q", row.account, row.bucket, row.key, err, row.want)
			}
			continue
		}
		text, err := io.ReadAll(file)
		_ = file.Close()
		if err != nil || string(text) != row.want {
			t.Errorf("%s of %s/%s: got %q, %v; want %q", row.account, row.bucket, row.key, text, err, row.want)
		}
	}
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	place := provisioning.BulkURL{Base: server.URL + "/111111111111", Account: another.Account, Client: server.Client()}
	for _, row := range []struct {
		account     imprint.AccountID
		bucket, key string
		code        imprint.Code
	}{
		{another.Account, "lines", "a.json", ""},
		{home.Account, "lines", "a.json", imprint.CodeInvalidRequest},
		{another.Account, "..", "lines/a.json", imprint.CodeInvalidRequest},
		{another.Account, "lines", "../../000000000000/a.json", imprint.CodeInvalidRequest},
	} {
		file, err := place.Open(t.Context(), row.account, row.bucket, row.key, 0, "")
		if imprint.CodeOf(err) != row.code {
			t.Errorf("%s of %s/%s over http: got %v, want %q", row.account, row.bucket, row.key, err, row.code)
		}
		if err == nil {
			_ = file.Close()
		}
	}
	if asked.Load() != 1 {
		t.Errorf("the server was asked %d times, want 1", asked.Load())
	}
}

// ofAccounts are inputs of accounts, each told of when it is opened.
type ofAccounts struct {
	inputs map[imprint.AccountID]provisioning.BulkInput
	opened chan imprint.AccountID
}

func (o ofAccounts) Open(ctx context.Context, account imprint.AccountID, bucket, key string, offset int64, version string) (provisioning.BulkFile, error) {
	o.opened <- account
	return o.inputs[account].Open(ctx, account, bucket, key, offset, version)
}

// TestTasksOfOneAccountLeaveTurnsToOthers ensures that an account with tasks in as many
// regions as may run at once has half of the turns, and another account's task runs.
func TestTasksOfOneAccountLeaveTurnsToOthers(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	input := ofAccounts{
		map[imprint.AccountID]provisioning.BulkInput{home.Account: waiting{make(chan struct{})}, another.Account: content(names(1))},
		make(chan imprint.AccountID, 10),
	}
	bulk, end := startBulkWith(t, store, input, clock, provisioning.BulkOptions{Concurrent: 4})
	defer end()
	start := func(tenant imprint.Tenant) {
		_, err := bulk.Start(t.Context(), imprint.RegistrationTask{Tenant: tenant, TemplateBody: thingTemplate, Bucket: "lines", Key: "in.json", RoleARN: "role"})
		if err != nil {
			t.Fatal(err)
		}
	}
	opens := func(want imprint.AccountID) {
		t.Helper()
		select {
		case got := <-input.opened:
			if got != want {
				t.Fatalf("a task of %s begins, want one of %s", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("no task of %s begins", want)
		}
	}
	for _, region := range []imprint.Region{"us-east-1", "us-west-2", "eu-west-1", "eu-central-1"} {
		start(imprint.Tenant{Account: home.Account, Region: region})
	}
	opens(home.Account)
	opens(home.Account)
	start(another)
	opens(another.Account)
}

// TestATaskGoesOnWhenItsServerDoes ensures that a task whose server breaks off in
// the middle of the input, and then refuses for a while, registers each line once.
func TestATaskGoesOnWhenItsServerDoes(t *testing.T) {
	t.Parallel()
	const lines = 3000
	text := names(lines)
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"one"`)
		switch n := asked.Add(1); {
		case n == 1:
			// Half of what was promised, and then nothing.
			w.Header().Set("Content-Length", strconv.Itoa(len(text)))
			_, _ = io.WriteString(w, text[:len(text)/2])
			panic(http.ErrAbortHandler)
		case n < 5:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		default:
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
		}
	}))
	defer server.Close()
	store := registrytest.New(t)
	bulk, end := startBulk(t, store, provisioning.BulkURL{Base: server.URL, Account: home.Account, Client: server.Client()})
	defer end()
	task, err := bulk.Start(t.Context(), imprint.RegistrationTask{Tenant: home, TemplateBody: thingTemplate, Bucket: "lines", Key: "in.json"})
	if err != nil {
		t.Fatal(err)
	}
	task = ended(t, store, task.ID)
	if task.Status != imprint.TaskCompleted || task.Succeeded != lines || task.Failed != 0 || task.Lines != lines {
		t.Errorf("got the task %+v", task)
	}
	if n := countThings(t, store, home); n != lines || asked.Load() < 5 {
		t.Errorf("got %d things after %d requests, want %d after 5 at least", n, asked.Load(), lines)
	}
}

// TestATaskLeavesAServerThatFallsSilent ensures that a task whose server keeps the
// connection and sends nothing more asks it again, and says why.
func TestATaskLeavesAServerThatFallsSilent(t *testing.T) {
	t.Parallel()
	const lines = 3000
	text := names(lines)
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprintf("ranges %t", ranges), func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Etag", `"one"`)
				if asked.Add(1) == 1 {
					w.Header().Set("Content-Length", strconv.Itoa(len(text)))
					_, _ = io.WriteString(w, text[:len(text)/2])
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
					return
				}
				if !ranges {
					r.Header.Del("Range")
				}
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
			}))
			defer server.Close()
			store := registrytest.New(t)
			var log bytes.Buffer
			input := provisioning.BulkURL{Base: server.URL, Account: home.Account, Client: server.Client(), Idle: 200 * time.Millisecond}
			bulk, end := startBulkWith(t, store, input, clock, provisioning.BulkOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			defer server.CloseClientConnections()
			task, err := bulk.Start(t.Context(), imprint.RegistrationTask{Tenant: home, TemplateBody: thingTemplate, Bucket: "lines", Key: "in.json"})
			if err != nil {
				t.Fatal(err)
			}
			task = ended(t, store, task.ID)
			end()
			if task.Status != imprint.TaskCompleted || task.Succeeded != lines || task.Failed != 0 || task.Lines != lines {
				t.Errorf("got the task %+v", task)
			}
			if n := countThings(t, store, home); n != lines || asked.Load() < 2 {
				t.Errorf("got %d things after %d requests, want %d after 2 at least", n, asked.Load(), lines)
			}
			if !strings.Contains(log.String(), "sent nothing for 200ms") {
				t.Errorf("the log doesn't say why it began anew: %s", log.String())
			}
		})
	}
}

// TestATaskGoesOnWhenTheDiskHasRoom ensures that a full disk fails no line and ends
// no task.
func TestATaskGoesOnWhenTheDiskHasRoom(t *testing.T) {
	t.Parallel()
	const lines = 3000
	var full atomic.Bool
	var refused atomic.Int64
	store := registrytest.Open(t, filepath.Join(t.TempDir(), "registry.db"), faulty(sqlite.Faults{BeforeCommit: func() error {
		if full.Load() && refused.Add(1) <= 5 {
			return syscall.ENOSPC
		}
		return nil
	}}))
	input := held{content(names(lines)), make(chan struct{})}
	bulk, end := startBulk(t, store, input)
	defer end()
	w := &bulkWorld{store: store, bulk: bulk}
	task := w.start(t, thingTemplate)
	full.Store(true) // before it has written a line
	close(input.until)
	task = ended(t, w.store, task.ID)
	if task.Status != imprint.TaskCompleted || task.Succeeded != lines || task.Failed != 0 || len(w.report(t, task.ID, imprint.ReportResults)) != lines {
		t.Errorf("got the task %+v", task)
	}
	if n := countThings(t, w.store, home); n != lines || refused.Load() < 5 {
		t.Errorf("got %d things after %d refused commits, want %d after 5 at least", n, refused.Load(), lines)
	}
}

// held is an input that is read from a moment on.
type held struct {
	provisioning.BulkInput
	until chan struct{}
}

func (h held) Open(ctx context.Context, account imprint.AccountID, bucket, key string, offset int64, version string) (provisioning.BulkFile, error) {
	select {
	case <-h.until:
		return h.BulkInput.Open(ctx, account, bucket, key, offset, version)
	case <-ctx.Done():
		return provisioning.BulkFile{}, ctx.Err()
	}
}

// TestOldTasksAreForgotten ensures that tasks that were over for long enough are
// deleted with their reports, whether or not another task ends, and no others.
func TestOldTasksAreForgotten(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	const keep = time.Hour
	put := func(tenant imprint.Tenant, id string, status imprint.RegistrationTaskStatus, age time.Duration) {
		update(t, store, func(tx imprint.Tx) error {
			task := imprint.RegistrationTask{Tenant: tenant, ID: id, TemplateBody: thingTemplate, Bucket: "lines", Key: "in.json", Status: status,
				CreatedAt: instant.Add(-age), ModifiedAt: instant.Add(-age)}
			err := tx.PutRegistrationTask(task)
			// More parts than are deleted in one transaction.
			for line := int64(1); err == nil && line <= 150; line++ {
				err = tx.PutRegistrationReport(imprint.RegistrationReport{Tenant: tenant, Task: id, Kind: imprint.ReportErrors, Line: line, Body: []byte("{}\n")})
			}
			return err
		})
	}
	for n, tenant := range []imprint.Tenant{home, another} {
		update(t, store, func(tx imprint.Tx) error {
			return tx.PutTenantSettings(imprint.TenantSettings{Tenant: tenant, EndpointPrefix: "prefix" + strconv.Itoa(n)})
		})
		put(tenant, "old-"+string(tenant.Account), imprint.TaskFailed, keep+time.Second)
		put(tenant, "young-"+string(tenant.Account), imprint.TaskCompleted, keep-time.Second)
	}
	put(another, "running", imprint.TaskInProgress, 10*keep)
	release := make(chan struct{})
	defer close(release)
	var now atomic.Int64
	bulk, end := startBulkWith(t, store, waiting{release}, func() time.Time { return instant.Add(time.Duration(now.Load())) },
		provisioning.BulkOptions{Keep: keep, SweepEvery: time.Millisecond})
	defer end()
	awaitTasks(t, store, map[imprint.Tenant][]string{home: {"young-000000000000"}, another: {"young-111111111111", "running"}})
	if n := countReports(t, bulk, home, "old-000000000000"); n != 0 {
		t.Errorf("%d lines of a forgotten task's report are left", n)
	}
	if n := countReports(t, bulk, another, "young-111111111111"); n != 150 {
		t.Errorf("a young task's report has %d lines, want 150", n)
	}
	now.Store(int64(2 * time.Second)) // the young ones grow old while no task ends
	awaitTasks(t, store, map[imprint.Tenant][]string{home: nil, another: {"running"}})
}

func countReports(t *testing.T, bulk *provisioning.Bulk, tenant imprint.Tenant, id string) int {
	t.Helper()
	var text strings.Builder
	err := bulk.WriteReport(t.Context(), &text, tenant, id, imprint.ReportErrors, func() error { return nil })
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Fatal(err)
	}
	return strings.Count(text.String(), "\n")
}

// awaitTasks waits until each tenant has just some tasks.
func awaitTasks(t *testing.T, store imprint.Store, want map[imprint.Tenant][]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		same := true
		var have []string
		for tenant, ids := range want {
			view(t, store, func(tx imprint.ReadTx) error {
				found, _, err := tx.RegistrationTasks(tenant, "", imprint.Page{Limit: 100})
				if len(found) != len(ids) {
					same = false
				}
				for _, task := range found {
					have = append(have, task.ID)
					same = same && strings.Contains(strings.Join(ids, " "), task.ID)
				}
				return err
			})
		}
		if same {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("got the tasks %v, want %v", have, want)
		case <-ticker.C:
		}
	}
}

// TestAReportThatCantBeReadSaysWhy ensures that the error names the cause, for what
// isn't JSON and for JSON that isn't a verdict.
func TestAReportThatCantBeReadSaysWhy(t *testing.T) {
	t.Parallel()
	w := newBulkWorld(t, sqlite.Faults{})
	for id, c := range map[string]struct{ line, cause string }{
		"broken": {`{"lineNumber":`, "unexpected end of JSON input"}, "empty": {`{"lineNumber":1}`, "it has no response"},
	} {
		update(t, w.store, func(tx imprint.Tx) error {
			return errors.Join(
				tx.PutRegistrationTask(imprint.RegistrationTask{Tenant: home, ID: id, TemplateBody: thingTemplate, Bucket: "lines", Key: "in.json",
					Status: imprint.TaskCompleted, CreatedAt: instant, ModifiedAt: instant}),
				tx.PutRegistrationReport(imprint.RegistrationReport{Tenant: home, Task: id, Kind: imprint.ReportResults, Line: 1, Body: []byte(c.line + "\n")}))
		})
		err := w.bulk.WriteReport(t.Context(), io.Discard, home, id, imprint.ReportResults, func() error { return nil })
		want := "couldn't read a line of the report of task " + id + ": " + c.cause
		if imprint.CodeOf(err) != imprint.CodeInternal || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("the report of %s: got %v, want an internal error that ends in %q", id, err, want)
		}
	}
}
