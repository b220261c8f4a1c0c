package functions_test

import (
	"path/filepath"
	"testing"

	"github.com/imprint-iot/imprint"
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
	for whose, c := range map[string]func(name, event string) imprint.FunctionCall{"the other tenant's": ofOther, "its own": call} {
		path := filepath.Join(outside(t), "lines")
		h.later(c("quick", do("append", path)))
		eventually(t, whose+" call", func() bool { return lines(t, path) == 1 })
	}
}

func (h *house) later(c imprint.FunctionCall) {
	h.t.Helper()
	err := h.InvokeLater(h.t.Context(), c)
	if err != nil {
		h.t.Fatal(err)
	}
}
