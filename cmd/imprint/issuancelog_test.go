package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
)

// openLogOf opens the log of a data directory as the server does, with some config.
func openLogOf(t *testing.T, dir string, config IssuanceLogConfig) (*server, error) {
	t.Helper()
	sealer, err := openSealer(dir, "", false)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{config: Config{Data: dir, IssuanceLogConfig: config}, logger: slog.New(slog.NewTextHandler(io.Discard, nil)), clock: time.Now, sealer: sealer, metrics: newMetrics()}
	err = s.openData(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s, s.openIssuanceLog(t.Context())
}

// TestADamagedLogKeepsNobodyFromConnecting ensures that the server starts without a log that
// it can't go on with, tells so, and goes on with it once it is put back.
func TestADamagedLogKeepsNobodyFromConnecting(t *testing.T) {
	t.Parallel()
	dir, _ := makeLogged(t)
	checkpoint := filepath.Join(dir, issuanceLog, "log", "checkpoint")
	whole, err := os.ReadFile(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	err = os.WriteFile(checkpoint, bytes.Replace(whole, []byte("\n1\n"), []byte("\n2\n"), 1), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openLogOf(t, dir, IssuanceLogConfig{IssuanceLog: true})
	if err != nil || s.issuanceLog != nil {
		t.Fatalf("got %v and a log %v, want a start without", err, s.issuanceLog)
	}
	_, err = s.loggedTo()
	if imprint.CodeOf(err) != imprint.CodeUnavailable || imprint.HintOf(err) == "" {
		t.Errorf("who asks for the log gets %v, hint %q", err, imprint.HintOf(err))
	}
	s.metrics.watchIssuanceLog(s.issuanceLog, s.logFailure != nil)
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	broken := -1.0
	for _, family := range families {
		if family.GetName() == "imprint_issuance_log_broken" {
			broken = family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	if broken != 1 {
		t.Errorf("imprint_issuance_log_broken: got %v, want 1", broken)
	}
	s.close()
	err = os.WriteFile(checkpoint, whole, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s, err = openLogOf(t, dir, IssuanceLogConfig{IssuanceLog: true, IssuanceLogOrigin: "example.com/other"})
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("another origin: got %v, want a refusal to start", err)
	}
	s.close()
	s, err = openLogOf(t, dir, IssuanceLogConfig{IssuanceLog: true, IssuanceLogPublic: true})
	if err != nil || s.issuanceLog == nil {
		t.Fatalf("the log that was put back: %v", err)
	}
	if got := s.issuanceLog.Counters(); got.Size != 1 || got.Broken {
		t.Errorf("the log that was put back has %+v", got)
	}
	door := s.withPublicLog(http.NotFoundHandler())
	for path, want := range map[string]int{"/issuance-log/checkpoint": 200, "/issuance-log/tile/entries/000.p/1": 200, "/issuance-log/../signer.sealed": 404, "/issuance-log/signer.sealed": 404, "/crl/x": 404} {
		answer := httptest.NewRecorder()
		door.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		if answer.Code != want {
			t.Errorf("%s: got %d, want %d", path, answer.Code, want)
		}
	}
	s.close()
	s, err = openLogOf(t, dir, IssuanceLogConfig{})
	if err != nil || s.issuanceLog != nil {
		t.Errorf("switched off: got %v and a log %v", err, s.issuanceLog)
	}
	if s.logFailure == nil {
		t.Error("switched off: nobody is told why there is no log")
	}
}
