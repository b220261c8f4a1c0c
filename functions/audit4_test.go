package functions_test

import (
	"path/filepath"
	"testing"
	"time"

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

// TestTheQueueOfOneTenantLeavesOthersTheirs: sixteen queued calls of one slow function
// hold all workers of the queue (QueueWorkers), and so the asynchronous calls of all
// functions of all tenants: nobody's just-in-time registration goes on. (More than a
// thousand do it even where there are more workers: a round looks at no others.)
func TestTheQueueOfOneTenantLeavesOthersTheirs(t *testing.T) {
	h := open(t, nil)
	h.put("slow", nil)
	h.put("quick", func(f *imprint.Function) { f.Tenant = other })
	for range 16 {
		err := h.InvokeLater(t.Context(), call("slow", do("hang", "")))
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "sixteen processes", func() bool { return h.Counters().Processes == 16 })
	path := filepath.Join(outside(t), "lines")
	began := time.Now()
	err := h.InvokeLater(t.Context(), ofOther("quick", do("append", path)))
	if err != nil {
		t.Fatal(err)
	}
	for lines(t, path) == 0 && time.Since(began) < 10*time.Second {
		time.Sleep(10 * time.Millisecond) // nothing tells of it: the test is for its absence
	}
	if lines(t, path) == 0 {
		t.Errorf("the other tenant's call didn't run in %s", time.Since(began).Round(time.Second))
	}
}

// TestTheProcessesOfOneTenantLeaveOthersTheirs: the processes of all functions are
// one pool, of which one tenant can take all: the hooks of the others get none
// within their five seconds.
func TestTheProcessesOfOneTenantLeaveOthersTheirs(t *testing.T) {
	h := open(t, func(o *functions.Options) { o.MaxProcesses, o.MaxConcurrency = 4, 2 })
	h.put("a", nil)
	h.put("b", nil)
	h.put("quick", func(f *imprint.Function) { f.Tenant = other })
	for _, name := range []string{"a", "a", "b", "b"} {
		go func() { _, _ = h.Invoke(t.Context(), call(name, do("hang", ""))) }()
	}
	eventually(t, "four processes", func() bool { return h.Counters().Processes == 4 })
	began := time.Now()
	_, err := h.Invoke(t.Context(), func() imprint.FunctionCall {
		c := ofOther("quick", do("echo", "x"))
		c.Timeout = 5 * time.Second
		return c
	}())
	if err != nil {
		t.Errorf("the other tenant's hook got no process after %s: %v", time.Since(began).Round(time.Second), err)
	}
}
