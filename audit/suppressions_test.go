package audit_test

import (
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
)

// A suppression holds for its check, its resource and its time alone.
func TestSuppressionsHoldForWhatTheySay(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	known, late, other := line.leaf("known", until(instant.AddDate(0, 0, 9))), line.leaf("late", until(instant.AddDate(0, 0, 9))), line.leaf("other", until(instant.AddDate(0, 0, 9)))
	h.certificates(known, late, other)
	suppress := func(tenant imprint.Tenant, check imprint.AuditCheck, c imprint.Certificate, at time.Time) {
		h.put(func(tx imprint.Tx) error {
			return tx.PutAuditSuppression(imprint.AuditSuppression{Tenant: tenant, Check: check, Resource: imprint.AuditResource{Kind: imprint.AuditDeviceCertificate, ID: string(c.ID)}, ExpiresAt: at})
		})
	}
	suppress(home, audit.DeviceCertificateExpiring, known, instant.Add(time.Hour))
	suppress(home, audit.DeviceCertificateExpiring, late, instant.Add(-time.Hour))
	suppress(home, audit.DeviceCertificateAge, other, time.Time{})
	suppress(twin, audit.DeviceCertificateExpiring, other, time.Time{})
	a := h.auditor()
	task := h.await(h.start(a, audit.DeviceCertificateExpiring).ID)
	if run := task.Run(audit.DeviceCertificateExpiring); run.NonCompliant != 3 || run.Suppressed != 1 || run.Status != imprint.AuditRunNonCompliant {
		t.Errorf("got %+v, want one of three suppressed", *run)
	}
	for _, f := range h.findings(task.ID) {
		if f.Suppressed != (f.Resource.ID == string(known.ID)) {
			t.Errorf("%s: got suppressed %t", f.Resource.ID, f.Suppressed)
		}
	}
	suppress(home, audit.DeviceCertificateExpiring, late, time.Time{})
	suppress(home, audit.DeviceCertificateExpiring, other, instant.Add(time.Hour))
	task = h.await(h.start(a, audit.DeviceCertificateExpiring).ID)
	if run := task.Run(audit.DeviceCertificateExpiring); run.NonCompliant != 3 || run.Suppressed != 3 || run.Status != imprint.AuditRunCompliant {
		t.Errorf("got %+v, want all suppressed", *run)
	}
	if got := a.Counters().NonCompliant[audit.DeviceCertificateExpiring]; got != 0 {
		t.Errorf("got %d in the metrics, want none", got)
	}
}
