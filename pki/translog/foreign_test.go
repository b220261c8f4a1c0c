//go:build unix

package translog_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/internal/foreign"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// A tool that shares no code with us, not even the hash, comes to the same root and finds the
// same certificates.
func TestAForeignToolVerifiesTheLog(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"python3", "openssl"} {
		foreign.Program(t, tool)
	}
	w, certs := logged(t, 300)
	checkpoint, err := w.verifier(t).Latest(t.Context(), w.source())
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(w.logDir(), "verifier.txt"))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"testdata/verify_log.py", w.tilesDir(), string(key)}
	want := fmt.Sprintf("%d %s\n", checkpoint.N, checkpoint.Hash)
	for _, i := range []int{0, 17, 299} {
		path := filepath.Join(t.TempDir(), "certificate.der")
		err = os.WriteFile(path, certs[i].Raw, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
		found, err := tiles.VerifyCertificate(t.Context(), w.source(), w.verifier(t), certs[i].Raw)
		if err != nil {
			t.Fatal(err)
		}
		want += fmt.Sprintln(found.Proof.Index)
	}
	out, err := exec.CommandContext(t.Context(), "python3", args...).CombinedOutput()
	if err != nil || string(out) != want {
		t.Errorf("got %s (%v), want %s", out, err, want)
	}
	flip(t, filepath.Join(w.tilesDir(), "tile/entries/000"), 700)
	out, err = exec.CommandContext(t.Context(), "python3", args...).CombinedOutput()
	if err == nil {
		t.Errorf("it verified a log with another byte: %s", out)
	}
}

// Whoever has a URL, the public key and a certificate verifies it; what isn't a file of the
// log isn't served.
func TestTheLogIsVerifiedOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	certs := w.mustIssue(t, 260)
	log := w.open(t)
	w.waitAll(t, log)
	server := httptest.NewServer(http.StripPrefix("/issuance-log", log.Handler()))
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	verifier, err := tiles.NewVerifier(log.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	source := tiles.HTTP(server.URL+"/issuance-log/", server.Client())
	found, err := tiles.VerifyCertificate(t.Context(), source, verifier, certs[259].Raw)
	if err != nil || found.Entry.Issuance == "" {
		t.Errorf("got %+v, %v", found, err)
	}
	_, err = tiles.VerifyAt(t.Context(), source, verifier, certs[259].Raw, found.Proof.Index)
	if err != nil {
		t.Errorf("at its index: %v", err)
	}
	err = tiles.Check(t.Context(), source, found.Checkpoint, tiles.CheckOptions{Damage: func(d tiles.Damage) { t.Errorf("%+v", d) }})
	if err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/checkpoint", 200}, {"HEAD", "/checkpoint", 200}, {"GET", "/tile/0/000", 200}, {"GET", "/tile/entries/000", 200},
		{"GET", "/tile/entries/001.p/4", 200}, {"POST", "/checkpoint", 405}, {"DELETE", "/tile/0/000", 405},
		{"GET", "/tile/0/999", 404}, {"GET", "/tile/0/0", 404}, {"GET", "/tile/0/000.p", 404}, {"GET", "/tile/0", 404}, {"GET", "/tile/8/0/000", 404},
		{"GET", "/tile/data/000", 404}, {"GET", "/.state/treeState", 404}, {"GET", "/../signer.sealed", 404}, {"GET", "/tile/0/..%2f..%2f..%2fsigner.sealed", 404},
		{"GET", "/tile/entries/001.p/256", 404}, {"GET", "/tile/64/000", 404}, {"GET", "/", 404},
	} {
		request, err := http.NewRequestWithContext(t.Context(), tt.method, server.URL+"/issuance-log"+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != tt.want {
			t.Errorf("%s %s: got %d, want %d", tt.method, tt.path, answer.StatusCode, tt.want)
		}
		if lifetime := answer.Header.Get("Cache-Control"); tt.want == 200 && strings.Contains(lifetime, "immutable") != strings.Contains(tt.path, "/tile/") {
			t.Errorf("%s may be kept as %q", tt.path, lifetime)
		}
	}
	closeLog(t, log)
}

func TestProofsHoldAndOthersDont(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustIssue(t, 30)
	log := w.open(t)
	verifier := log.Verifier()
	w.waitAll(t, log)
	older, err := verifier.Latest(t.Context(), log.Source())
	if err != nil {
		t.Fatal(err)
	}
	w.mustIssue(t, 30)
	w.waitAll(t, log)
	newer, err := verifier.Latest(t.Context(), log.Source())
	if err != nil {
		t.Fatal(err)
	}
	consistency, err := tiles.ProveConsistency(t.Context(), log.Source(), older, newer)
	if err != nil {
		t.Fatalf("the log doesn't go on from its past: %v", err)
	}
	other := older
	other.Hash[0] ^= 1
	if tiles.VerifyConsistency(consistency, other, newer) == nil {
		t.Error("a proof holds for another past")
	}
	_, err = tiles.ProveConsistency(t.Context(), log.Source(), newer, older)
	if err == nil {
		t.Error("a log that was set back was proven consistent")
	}
	all := w.issuances(t)
	for _, i := range all {
		receipt, err := log.Wait(t.Context(), i.ID)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := log.Prove(t.Context(), receipt)
		if err != nil {
			t.Fatal(err)
		}
		proof, err = tiles.ParseProof(proof.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := tiles.ReadEntry(t.Context(), log.Source(), receipt.Checkpoint, receipt.Index)
		if err != nil {
			t.Fatal(err)
		}
		_, err = verifier.VerifyProof(proof, raw)
		if err != nil {
			t.Errorf("the proof of entry %d: %v", receipt.Index, err)
		}
		raw[len(raw)-1] ^= 1
		if _, err = verifier.VerifyProof(proof, raw); err == nil {
			t.Errorf("the proof of entry %d holds for another one", receipt.Index)
		}
	}
	closeLog(t, log)
	aside, _ := logged(t, 1)
	if _, err = aside.verifier(t).Checkpoint(newer.Raw); err == nil {
		t.Error("another log's key verifies the checkpoint")
	}
	_, err = tiles.VerifyCertificate(t.Context(), aside.source(), aside.verifier(t), w.ca.Certificate().Raw)
	if err == nil || !strings.Contains(err.Error(), tiles.ErrNotInLog.Error()) {
		t.Errorf("a certificate that isn't there: got %v", err)
	}
}
