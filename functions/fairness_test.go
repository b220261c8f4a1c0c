package functions_test

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/functions"
)

// ofOther is a call of a function of the other tenant.
func ofOther(name, event string) imprint.FunctionCall {
	c := call(name, event)
	c.Tenant, c.ARN = other, other.FunctionARN(imprint.FunctionName(name))
	return c
}

var other = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}

// TestTheQueueOfOneTenantLeavesOthersTheirs ensures that more queued calls of one slow
// function than a round looks at hold up neither those of another tenant, such as its
// just-in-time registration, nor the other functions of its own.
func TestTheQueueOfOneTenantLeavesOthersTheirs(t *testing.T) {
	h := open(t, nil)
	h.put("slow", nil)
	h.put("quick", nil)
	h.put("quick", func(f *imprint.Function) { f.Tenant = other })
	for range 1100 {
		h.later(call("slow", do("hang", "")))
	}
	eventually(t, "sixteen processes", func() bool { return h.Counters().Processes == 16 })
	if got, want := h.waits(), (functions.Waits{Calls: 1}); got != want {
		t.Errorf("wait for a share: got %+v, want %+v", got, want)
	}
	for whose, c := range map[string]func(name, event string) imprint.FunctionCall{"the other tenant's": ofOther, "its own": call} {
		path := filepath.Join(outside(t), "lines")
		h.later(c("quick", do("append", path)))
		eventually(t, whose+" call", func() bool { return lines(t, path) == 1 })
	}
}

func (h *house) waits() functions.Waits {
	h.t.Helper()
	w, err := h.Waits(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return w
}

func (h *house) later(c imprint.FunctionCall) {
	h.t.Helper()
	err := h.InvokeLater(h.t.Context(), c)
	if err != nil {
		h.t.Fatal(err)
	}
}

// TestTheProcessesOfOneTenantLeaveOthersTheirs ensures that slow functions of one
// account, called for more often than there are processes, leave one to another
// account's hook, also while that has one that is idle.
func TestTheProcessesOfOneTenantLeaveOthersTheirs(t *testing.T) {
	h := open(t, func(o *functions.Options) { o.MaxProcesses, o.MaxConcurrency = 4, 2 })
	for _, name := range []string{"a", "b", "c"} {
		h.put(name, nil)
		h.echo(name)
	}
	h.put("quick", func(f *imprint.Function) { f.Tenant = other })
	// Its second call waits for its first process, however long that takes to come back.
	err := h.SetConcurrency(t.Context(), other, "quick", 1)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(outside(t), "go")
	var calls sync.WaitGroup
	for _, name := range []string{"a", "a", "b", "b", "c", "c"} {
		calls.Go(func() {
			_, err := h.Invoke(t.Context(), call(name, do("wait", path)))
			if err != nil {
				t.Errorf("invoke %s: %v", name, err)
			}
		})
	}
	eventually(t, "two runs and four that wait", func() bool { return running(t, path) == 2 && h.Counters().Waiting == 4 })
	// a, b and c have two places of four: whose calls have none, or one, wait.
	if got := h.waits(); got.Processes < 2 || got.Processes > 3 || got.Calls != 0 {
		t.Errorf("functions that wait for their account's share: got %+v, want 2 or 3 for processes", got)
	}
	for i, cold := range []bool{true, false} {
		hook := ofOther("quick", do("echo", "x"))
		hook.Timeout = patience
		result, err := h.Invoke(t.Context(), hook)
		if err != nil || result.Cold != cold {
			t.Errorf("hook %d of the other tenant: got cold %v, %v; want %v", i, result.Cold, err, cold)
		}
	}
	if got := running(t, path); got != 2 {
		t.Errorf("%d runs of the slow functions, want 2 until one ends", got)
	}
	release(t, path)
	calls.Wait()
	if got := h.waits(); got != (functions.Waits{}) {
		t.Errorf("wait for a share after all: got %+v, want none", got)
	}
}

// TestAWarmFunctionOfAnotherAccountStaysWarm ensures that room is made by the account
// that has most processes, though another's is idle for longer.
func TestAWarmFunctionOfAnotherAccountStaysWarm(t *testing.T) {
	h := open(t, func(o *functions.Options) { o.MaxProcesses = 4 })
	h.put("quick", func(f *imprint.Function) { f.Tenant = other })
	_, err := h.Invoke(t.Context(), ofOther("quick", do("echo", "x")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		h.put(name, nil)
		h.echo(name)
	}
	result, err := h.Invoke(t.Context(), ofOther("quick", do("echo", "x")))
	if err != nil || result.Cold || h.Counters().Processes > 4 {
		t.Errorf("the other tenant's call: got cold %v, %v, of %d processes; want a warm one of at most 4", result.Cold, err, h.Counters().Processes)
	}
}

// TestEventsOfAnAccountLeaveRoomToOthers ensures that the calls of one account that aren't
// answered, of however many functions and bytes, are bounded in memory, that another's are
// taken, and that there is room again when they end.
func TestEventsOfAnAccountLeaveRoomToOthers(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}, 10), make(chan struct{})
	address, roots := hook(t, func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-release
	})
	h := open(t, func(o *functions.Options) { o.MaxHeld = 3 << 20 })
	west := imprint.Tenant{Account: home.Account, Region: "us-west-2"}
	for _, tenant := range []imprint.Tenant{home, west, other} {
		h.putZip("f", nil, func(f *imprint.Function) {
			f.Tenant, f.Runtime, f.Handler, f.Timeout = tenant, functions.RuntimeWebhook, address, patience
			f.Environment = map[string]string{functions.WebhookSecret: secret, functions.WebhookCA: roots}
		})
	}
	event := []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
	invoke := func(tenant imprint.Tenant) error {
		_, err := h.Invoke(context.Background(), imprint.FunctionCall{Tenant: tenant, ARN: tenant.FunctionARN("f"), Payload: event})
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- invoke(home) }()
	<-begun
	wantCode(t, invoke(west), imprint.CodeFunctionThrottled)
	go func() { ended <- invoke(other) }()
	<-begun
	if got := h.Counters().Throttles; got != 1 {
		t.Errorf("%d calls were throttled, want 1", got)
	}
	close(release)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := invoke(west); err != nil {
		t.Errorf("after the others: %v", err)
	}
}
