//go:build unix

package translog_test

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/translog"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// TestAuditsRunOneAtATimeAndAreKept ensures that an audit that runs isn't disturbed by another
// one, that what it found can be read afterwards, and that Close ends it.
func TestAuditsRunOneAtATimeAndAreKept(t *testing.T) {
	t.Parallel()
	w, _ := logged(t, 3)
	gate := make(chan struct{})
	checked := make(chan struct{}, 100)
	auditor := translog.NewAuditor(time.Now, func() (translog.AuditConfig, error) {
		return translog.AuditConfig{
			Store: w.store, Source: tiles.Dir(w.tilesDir()), Verifier: w.verifier(t), DeviceCA: w.ca.Certificate(),
			Check: func([]byte, *x509.Certificate, imprint.Issuance) error {
				checked <- struct{}{}
				<-gate
				return errors.New("refused")
			},
		}, nil
	})
	first, err := auditor.Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	<-checked
	_, err = auditor.Start(nil)
	if imprint.CodeOf(err) != imprint.CodeLimitExceeded {
		t.Errorf("a second one: got %v, want that it may not", err)
	}
	running, err := auditor.Run(first)
	if err != nil || !running.EndedAt.IsZero() {
		t.Errorf("while it runs: got %+v, %v", running, err)
	}
	close(gate)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	run := await(ctx, t, auditor, first)
	if run.Err != nil || run.Audited.Findings != 3 || len(run.Findings) != 3 || run.Audited.Entries != 3 {
		t.Errorf("when it ended: got %+v", run)
	}
	var last string
	for range 4 {
		last, err = auditor.Start(nil)
		if err != nil {
			t.Fatal(err)
		}
		await(ctx, t, auditor, last)
	}
	_, err = auditor.Run(first)
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("the fifth last: got %v, want that it is forgotten", err)
	}
	auditor.Close()
	run, err = auditor.Run(last)
	if err != nil || run.Err != nil {
		t.Errorf("after the end: got %+v, %v", run, err)
	}
}

func await(ctx context.Context, t *testing.T, auditor *translog.Auditor, id string) translog.Run {
	t.Helper()
	for {
		run, err := auditor.Run(id)
		if err != nil {
			t.Fatal(err)
		}
		if !run.EndedAt.IsZero() {
			return run
		}
		if ctx.Err() != nil {
			t.Fatal("the audit didn't end")
		}
		time.Sleep(time.Millisecond)
	}
}
