//go:build unix

package translog_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/translog"
)

// failing is a store some of whose commits fail, before or after they are kept.
type failing struct {
	imprint.Store
	updates atomic.Int64
	kept    bool
}

var errDisk = errors.New("the disk is full")

// Update fails two times of three.
func (f *failing) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	if f.updates.Add(1)%3 == 0 {
		return f.Store.Update(ctx, fn)
	}
	if f.kept {
		return errors.Join(f.Store.Update(ctx, fn), errDisk)
	}
	return errDisk
}

// Whatever fails, fails but persisted or not, everything is logged once.
func TestAStoreThatFailsLosesNothing(t *testing.T) {
	t.Parallel()
	for name, kept := range map[string]bool{"not kept": false, "kept for all that": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.mustIssue(t, 40)
			log := w.open(t, func(c *translog.Config) {
				c.Batch, c.Interval, c.Store = 9, time.Millisecond, &failing{Store: w.store, kept: kept}
			})
			w.waitAll(t, log)
			if log.Counters().Failures == 0 || log.Counters().Broken {
				t.Errorf("counters: got %+v, want failures that were overcome", log.Counters())
			}
			_ = log.Close(context.Background()) // its last commit may be one that fails
			log = w.open(t)
			closeLog(t, log)
			w.checkBijection(t, log.Verifier(), 40)
			if _, found := w.audit(t); len(found) > 0 {
				t.Errorf("the audit found %+v", found)
			}
		})
	}
}

// What goes wrong with the log's files while it runs is never signed.
func TestDamageWhileItRunsIsNotSigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustIssue(t, 7)
	log := w.open(t)
	w.waitAll(t, log)
	before, err := log.Verifier().Latest(t.Context(), log.Source())
	if err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(w.tilesDir(), "tile/0/000.p/7"), 5)
	w.mustIssue(t, 1)
	all := w.issuances(t)
	_, err = log.Wait(t.Context(), all[len(all)-1].ID)
	if imprint.CodeOf(err) != imprint.CodeUnavailable || !log.Counters().Broken {
		t.Errorf("got %v and %+v, want a log that is broken", err, log.Counters())
	}
	after, err := log.Verifier().Latest(t.Context(), log.Source())
	if err != nil || string(after.Raw) != string(before.Raw) {
		t.Errorf("the checkpoint is now %q (%v), want the one before the damage", after.Raw, err)
	}
	_ = log.Close(context.Background())
	_, err = translog.Open(t.Context(), w.config())
	if imprint.CodeOf(err) != imprint.CodeInternal || imprint.HintOf(err) == "" {
		t.Errorf("opening it again: got %v, want a refusal with a hint", err)
	}
}

// A registry that was restored from an older copy gets its places back.
func TestARestoredRegistryGoesOnWithTheLogThatIsThere(t *testing.T) {
	t.Parallel()
	w, _ := logged(t, 20)
	w.update(t, func(tx imprint.Tx) error {
		for _, i := range w.issuances(t) {
			if i.LogIndex >= 12 {
				err := tx.SetLogIndex(i.ID, -1)
				if err != nil {
					return err
				}
			}
		}
		return tx.PutIssuanceLog(imprint.IssuanceLog{Size: 12})
	})
	log := w.open(t)
	w.mustIssue(t, 5)
	w.waitAll(t, log)
	w.checkBijection(t, log.Verifier(), 25)
	closeLog(t, log)
	if _, found := w.audit(t); len(found) > 0 {
		t.Errorf("the audit found %+v", found)
	}
}

func TestTheKeyIsSealedAndTheOriginStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := w.open(t, func(c *translog.Config) { c.Origin = "example.com/imprint" })
	if !strings.HasPrefix(log.VerifierKey(), "example.com/imprint+") || log.Verifier().Origin() != "example.com/imprint" {
		t.Errorf("the public key is %q", log.VerifierKey())
	}
	w.mustIssue(t, 1)
	w.waitAll(t, log)
	closeLog(t, log)
	sealed, err := os.ReadFile(filepath.Join(w.logDir(), "signer.sealed"))
	if err != nil || strings.Contains(string(sealed), "PRIVATE") {
		t.Errorf("the key is in the clear: %q (%v)", sealed, err)
	}
	config := w.config()
	config.Origin = "example.com/other"
	_, err = translog.Open(t.Context(), config)
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest || imprint.HintOf(err) == "" {
		t.Errorf("another origin: got %v, want a refusal with a hint", err)
	}
	for _, origin := range []string{"a b", "a+b"} {
		aside := newWorld(t).config()
		aside.Origin = origin
		_, err = translog.Open(t.Context(), aside)
		if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
			t.Errorf("origin %q: got %v, want a refusal", origin, err)
		}
	}
	// The public key comes back; the private one of a log that has begun is never made anew.
	remove(t, filepath.Join(w.logDir(), "verifier.txt"))
	log = w.open(t)
	closeLog(t, log)
	w.verifier(t)
	remove(t, filepath.Join(w.logDir(), "signer.sealed"))
	_, err = translog.Open(t.Context(), w.config())
	if imprint.CodeOf(err) != imprint.CodeUnavailable || imprint.HintOf(err) == "" {
		t.Errorf("without its key: got %v, want a refusal with a hint", err)
	}
	// Nor when all of the log is gone, as the registry remembers it.
	err = os.RemoveAll(w.logDir())
	if err != nil {
		t.Fatal(err)
	}
	_, err = translog.Open(t.Context(), w.config())
	if imprint.CodeOf(err) != imprint.CodeUnavailable {
		t.Errorf("without the log: got %v, want a refusal", err)
	}
}

func TestWaitAndRoomSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	store := &failing{Store: w.store}
	log := w.open(t, func(c *translog.Config) { c.MaxBacklog = 3 })
	_, err := log.Wait(t.Context(), "absent")
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		t.Errorf("an issuance that isn't there: got %v", err)
	}
	_, err = w.ca.Prepare(t.Context(), tenant, w.profile, pki.Request{PublicKey: deviceKey.Public()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = log.Wait(t.Context(), w.issuances(t)[0].ID)
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest {
		t.Errorf("an intent: got %v", err)
	}
	if err := log.Room(); err != nil {
		t.Errorf("an empty log has no room: %v", err)
	}
	closeLog(t, log)
	// One that can't commit falls behind, says so, and takes no more.
	w.mustIssue(t, 4)
	stuck := w.open(t, func(c *translog.Config) { c.MaxBacklog, c.Store = 3, &never{store} })
	fails := time.Now().Add(2 * time.Minute)
	for c := stuck.Counters(); c.Failures == 0 || c.Waiting < 3; c = stuck.Counters() {
		if time.Now().After(fails) {
			t.Fatalf("counters: got %+v, want the backlog and a failure", c)
		}
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	all := w.issuances(t)
	_, err = stuck.Wait(ctx, all[len(all)-1].ID)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errDisk) {
		t.Errorf("got %v, want the deadline and why", err)
	}
	if got := stuck.Counters(); got.Waiting != 3 || got.Failures == 0 || got.Failures > 50 || got.Lag <= 0 {
		t.Errorf("counters: got %+v, want the backlog up to its limit", got)
	}
	err = stuck.Room()
	if imprint.CodeOf(err) != imprint.CodeUnavailable || imprint.HintOf(err) == "" || !strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("room: got %v, want a refusal that says why", err)
	}
	_ = stuck.Close(context.Background())
}

// never is a store that commits nothing.
type never struct{ imprint.Store }

func (n *never) Update(context.Context, func(imprint.Tx) error) error { return errDisk }

// The built-in CA's certificates are in the registry: one that is deleted there before it
// was logged has an entry all the same.
func TestADeletedCertificateIsLoggedByItsID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	certs := w.mustIssue(t, 2)
	w.update(t, func(tx imprint.Tx) error { return tx.DeleteCertificate(tenant, pki.CertificateID(certs[0].Raw)) })
	log := w.open(t)
	w.waitAll(t, log)
	closeLog(t, log)
	audited, found := w.audit(t)
	if len(found) > 0 || audited.WithoutBytes != 1 || audited.Entries != 2 {
		t.Errorf("got %+v, %+v, want one entry without bytes", audited, found)
	}
}
