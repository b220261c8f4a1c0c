//go:build unix

package translog_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
	"github.com/imprint-iot/imprint/pki/translog"
	"github.com/imprint-iot/imprint/pki/translog/tiles"
)

// audit audits a world and gives what it found.
func (w *world) audit(t *testing.T, change ...func(*translog.AuditConfig)) (translog.Audited, []translog.Finding) {
	t.Helper()
	var found []translog.Finding
	config := translog.AuditConfig{
		Store: w.store, Source: tiles.Dir(w.tilesDir()), Verifier: w.verifier(t), DeviceCA: w.ca.Certificate(),
		Report: func(f translog.Finding) { found = append(found, f) },
	}
	for _, c := range change {
		c(&config)
	}
	audited, err := translog.Audit(t.Context(), config)
	if err != nil {
		t.Fatalf("couldn't audit: %v", err)
	}
	if audited.Findings != int64(len(found)) {
		t.Errorf("the audit counts %d findings and reported %d", audited.Findings, len(found))
	}
	return audited, found
}

func kinds(found []translog.Finding) string {
	var all []string
	for _, f := range found {
		all = append(all, string(f.Kind))
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

func (w *world) update(t *testing.T, fn func(imprint.Tx) error) {
	t.Helper()
	err := w.store.Update(t.Context(), fn)
	if err != nil {
		t.Fatalf("couldn't change the store: %v", err)
	}
}

func TestAuditOfAWorldThatAgreesFindsNothing(t *testing.T) {
	t.Parallel()
	w, _ := logged(t, 300)
	// A certificate of someone else's CA with the same name isn't ours.
	other := newWorld(t)
	foreign := other.mustIssue(t, 1)[0]
	w.update(t, func(tx imprint.Tx) error { return tx.PutCertificate(registered(foreign)) })
	// One that was deleted since is no difference, and one that waits isn't yet.
	deleted := w.issuances(t)[7]
	w.update(t, func(tx imprint.Tx) error { return tx.DeleteCertificate(tenant, deleted.CertificateID) })
	w.mustIssue(t, 2)
	audited, found := w.audit(t)
	if len(found) > 0 {
		t.Errorf("found %+v, want nothing", found)
	}
	want := translog.Audited{Entries: 300, Issuances: 302, Certificates: 302, Ours: 301, Waiting: 2, Unregistered: 1}
	audited.Checkpoint = tiles.Checkpoint{}
	if fmt.Sprint(audited) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", audited, want)
	}
}

// A certificate that is in one place and not in the others is found, wherever it is extra
// and wherever it is missing.
func TestAuditFindsWhatOnePlaceHasAndTheOthersNot(t *testing.T) {
	t.Parallel()
	long := time.Now().Add(-time.Hour)
	tests := []struct {
		name string
		// tamper changes a world with 300 certificates and gives the id of the one that must be
		// named.
		tamper func(t *testing.T, w *world, certs []*x509.Certificate) imprint.CertificateID
		want   translog.FindingKind
	}{
		{"extra in the registry", func(t *testing.T, w *world, _ []*x509.Certificate) imprint.CertificateID {
			// Signed by our CA with another journal: neither record nor log knows of it.
			c := unrecorded(t, w)
			w.update(t, func(tx imprint.Tx) error { return tx.PutCertificate(registered(c)) })
			return pki.CertificateID(c.Raw)
		}, translog.FindingNotInLog},
		{"missing in record and log", func(t *testing.T, w *world, certs []*x509.Certificate) imprint.CertificateID {
			i := w.issuances(t)[11]
			// Back to an intent: the record has no certificate any more.
			i.Issuance.CertificateID = ""
			id := pki.CertificateID(certs[11].Raw)
			w.update(t, func(tx imprint.Tx) error { return tx.PutIssuance(i.Issuance) })
			return id
		}, translog.FindingDiffers},
		{"extra in the record", func(t *testing.T, w *world, _ []*x509.Certificate) imprint.CertificateID {
			c := unrecorded(t, w)
			w.update(t, func(tx imprint.Tx) error {
				return tx.PutIssuance(imprint.Issuance{ID: "000000000001", Tenant: tenant, Serial: "1", CertificateID: pki.CertificateID(c.Raw), At: long})
			})
			return pki.CertificateID(c.Raw)
		}, translog.FindingNotInLog},
		{"extra in the record, as an entry that is another's", func(t *testing.T, w *world, _ []*x509.Certificate) imprint.CertificateID {
			c := unrecorded(t, w)
			w.update(t, func(tx imprint.Tx) error {
				err := tx.PutIssuance(imprint.Issuance{ID: "000000000001", Tenant: tenant, Serial: "1", CertificateID: pki.CertificateID(c.Raw), At: time.Now()})
				if err != nil {
					return err
				}
				return tx.SetLogIndex("000000000001", 299)
			})
			return pki.CertificateID(c.Raw)
		}, translog.FindingNotInLog},
		{"the record lost its place", func(t *testing.T, w *world, _ []*x509.Certificate) imprint.CertificateID {
			i := w.issuances(t)[100]
			w.update(t, func(tx imprint.Tx) error { return tx.SetLogIndex(i.ID, -1) })
			return i.CertificateID
		}, translog.FindingDiffers},
		{"the record has another certificate", func(t *testing.T, w *world, certs []*x509.Certificate) imprint.CertificateID {
			i := w.issuances(t)[100]
			i.Issuance.CertificateID = pki.CertificateID(certs[101].Raw)
			w.update(t, func(tx imprint.Tx) error { return tx.PutIssuance(i.Issuance) })
			return pki.CertificateID(certs[100].Raw)
		}, translog.FindingDiffers},
		{"the record has another serial number", func(t *testing.T, w *world, _ []*x509.Certificate) imprint.CertificateID {
			i := w.issuances(t)[100]
			i.Issuance.Serial += "0"
			w.update(t, func(tx imprint.Tx) error { return tx.PutIssuance(i.Issuance) })
			return i.CertificateID
		}, translog.FindingDiffers},
		{"extra in the log", func(t *testing.T, w *world, _ []*x509.Certificate) imprint.CertificateID {
			// The log has it by way of another record than the one that is there.
			c := unrecorded(t, w)
			extraEntry(t, w, c)
			return pki.CertificateID(c.Raw)
		}, translog.FindingNotIssued},
		{"the registry's row is another certificate", func(t *testing.T, w *world, certs []*x509.Certificate) imprint.CertificateID {
			row := registered(certs[3])
			row.PEM = registered(certs[4]).PEM
			w.update(t, func(tx imprint.Tx) error { return tx.PutCertificate(row) })
			return row.ID
		}, translog.FindingRegistry},
		{"another CA signed it", func(t *testing.T, w *world, _ []*x509.Certificate) imprint.CertificateID {
			foreign := newWorld(t).mustIssue(t, 1)[0]
			w.update(t, func(tx imprint.Tx) error {
				return tx.PutIssuance(imprint.Issuance{ID: "000000000001", Tenant: tenant, CertificateID: pki.CertificateID(foreign.Raw), Certificate: foreign.Raw, At: time.Now()})
			})
			log := w.open(t)
			w.waitAll(t, log)
			closeLog(t, log)
			return pki.CertificateID(foreign.Raw)
		}, translog.FindingSigner},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, certs := logged(t, 300)
			id := tt.tamper(t, w, certs)
			_, found := w.audit(t)
			named := false
			for _, f := range found {
				named = named || f.Kind == tt.want && f.Certificate == id
			}
			if !named {
				t.Errorf("found %+v, want %s of %s", found, tt.want, id)
			}
		})
	}
}

// unrecorded gives a certificate that our CA signed and no record knows of.
func unrecorded(t *testing.T, w *world) *x509.Certificate {
	t.Helper()
	aside := newWorld(t)
	ca, err := pki.OpenAuthority(t.Context(), w.dir, pki.AuthorityConfig{Sealer: masterKey(), Journal: issuelog.New(aside.store), Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	aside.ca = ca
	return aside.mustIssue(t, 1)[0]
}

// extraEntry has a certificate logged, and takes its record away by putting an older copy
// of it back, as a restore does.
func extraEntry(t *testing.T, w *world, c *x509.Certificate) {
	t.Helper()
	aside := newWorld(t)
	var state imprint.IssuanceLog
	err := w.store.View(t.Context(), func(tx imprint.ReadTx) error {
		var err error
		state, err = tx.IssuanceLog()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	aside.update(t, func(tx imprint.Tx) error {
		err := tx.PutIssuanceLog(state)
		if err != nil {
			return err
		}
		return tx.PutIssuance(imprint.Issuance{ID: "000000000002", Tenant: tenant, Serial: "1", CertificateID: pki.CertificateID(c.Raw), Certificate: c.Raw, At: time.Now()})
	})
	config := w.config()
	config.Store = aside.store
	log, err := translog.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	aside.waitAll(t, log)
	closeLog(t, log)
}

// Every byte of every tile, entry bundle and checkpoint counts, also of partial tiles that
// are left of earlier checkpoints.
func TestEveryFlippedByteIsFound(t *testing.T) {
	t.Parallel()
	w, _ := logged(t, 4)
	log := w.open(t)
	w.mustIssue(t, 2)
	w.waitAll(t, log)
	closeLog(t, log)
	if files := flipAll(t, w, 1); files < 5 {
		t.Errorf("the log has %d files, want two bundles, two tiles and the checkpoint", files)
	}
}

// The same over several levels of the tree, where each hash and each entry is hit several
// times.
func TestFlippedBytesOfALargerLogAreFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := w.open(t)
	for _, count := range []int{255, 5} {
		w.recordOnly(t, count)
		w.waitAll(t, log)
	}
	closeLog(t, log)
	if files := flipAll(t, w, 13); files < 8 {
		t.Errorf("the log has %d files, want full and partial ones of each kind", files)
	}
}

// flipAll flips each stride-th byte of each file of a log, and cuts each file, and ensures
// that whoever verifies the log finds it. It gives the number of files.
func flipAll(t *testing.T, w *world, stride int) int {
	t.Helper()
	source, verifier := tiles.Dir(w.tilesDir()), w.verifier(t)
	verify := func() error {
		checkpoint, err := verifier.Latest(t.Context(), source)
		if err != nil {
			return err
		}
		var found error
		err = tiles.Check(t.Context(), source, checkpoint, tiles.CheckOptions{Damage: func(d tiles.Damage) { found = errors.Join(found, fmt.Errorf("%s: %s", d.Path, d.Problem)) }})
		return errors.Join(err, found)
	}
	err := verify()
	if err != nil {
		t.Fatalf("the log as it was written: %v", err)
	}
	files, flipped := 0, 0
	err = filepath.WalkDir(w.tilesDir(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.Contains(path, ".state") {
			return err
		}
		files++
		whole, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		// Of the checkpoint each bit: base64 has some that its decoders ignore.
		each, bits := stride, func(at int) []int { return []int{at % 8} }
		if strings.HasSuffix(path, "checkpoint") {
			each, bits = 1, func(int) []int { return []int{0, 1, 2, 3, 4, 5, 6, 7} }
		}
		for at := 0; at < len(whole); at += each {
			for _, bit := range bits(at) {
				_, err = f.WriteAt([]byte{whole[at] ^ 1<<bit}, int64(at))
				if err != nil {
					return err
				}
				if verify() == nil {
					t.Errorf("%s: bit %d of byte %d of %d was flipped, and nothing found", path, bit, at, len(whole))
				}
			}
			_, err = f.WriteAt(whole[at:at+1], int64(at))
			if err != nil {
				return err
			}
			flipped++
		}
		for _, size := range []int{0, 1, len(whole) / 2, len(whole) - 1} {
			err = f.Truncate(int64(size))
			if err != nil {
				return err
			}
			if verify() == nil {
				t.Errorf("%s: cut to %d of %d bytes, and nothing found", path, size, len(whole))
			}
			_, err = f.WriteAt(whole, 0)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files, %d flipped bytes", files, flipped)
	err = verify()
	if err != nil {
		t.Errorf("the log as it was written, at the end: %v", err)
	}
	return files
}

func TestAuditFindsDamage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		damage func(t *testing.T, w *world)
	}{
		{"a bundle's byte", func(t *testing.T, w *world) { flip(t, filepath.Join(w.tilesDir(), "tile/entries/000"), 700) }},
		{"a tile's byte", func(t *testing.T, w *world) { flip(t, filepath.Join(w.tilesDir(), "tile/0/000"), 700) }},
		{"a byte of an upper tile", func(t *testing.T, w *world) { flip(t, filepath.Join(w.tilesDir(), "tile/1/000.p/1"), 7) }},
		{"a checkpoint's byte", func(t *testing.T, w *world) { flip(t, filepath.Join(w.tilesDir(), "checkpoint"), 7) }},
		{"no bundle", func(t *testing.T, w *world) { remove(t, filepath.Join(w.tilesDir(), "tile/entries/000")) }},
		{"no tile", func(t *testing.T, w *world) { remove(t, filepath.Join(w.tilesDir(), "tile/0/000")) }},
		{"no checkpoint", func(t *testing.T, w *world) { remove(t, filepath.Join(w.tilesDir(), "checkpoint")) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, _ := logged(t, 300)
			tt.damage(t, w)
			_, found := w.audit(t)
			if !strings.Contains(kinds(found), string(translog.FindingDamage)) {
				t.Errorf("found %+v, want damage", found)
			}
		})
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[at] ^= 1
	err = os.WriteFile(path, raw, 0o644)
	if err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	err := os.Remove(path)
	if err != nil {
		t.Fatal(err)
	}
}

// A log that goes back to how it was before is valid in itself: what is remembered finds it.
func TestALogThatWasSetBackIsFoundAndNotGoneOnFrom(t *testing.T) {
	t.Parallel()
	w, _ := logged(t, 300)
	older := t.TempDir()
	err := os.CopyFS(older, os.DirFS(w.logDir()))
	if err != nil {
		t.Fatal(err)
	}
	log := w.open(t)
	w.mustIssue(t, 30)
	w.waitAll(t, log)
	closeLog(t, log)
	newest, err := w.verifier(t).Latest(t.Context(), tiles.Dir(w.tilesDir()))
	if err != nil {
		t.Fatal(err)
	}
	err = os.RemoveAll(w.logDir())
	if err == nil {
		err = os.CopyFS(w.logDir(), os.DirFS(older))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, found := w.audit(t)
	if kinds(found) != string(translog.FindingDamage) {
		t.Errorf("with the registry's memory: found %+v, want the log as set back", found)
	}
	_, err = translog.Open(t.Context(), w.config())
	if imprint.CodeOf(err) != imprint.CodeInternal || !strings.Contains(err.Error(), "set back") {
		t.Errorf("opening it: got %v, want it refused as set back", err)
	}
	// Somebody who kept a checkpoint finds it without the registry's memory.
	w.update(t, func(tx imprint.Tx) error {
		for _, i := range w.issuances(t) {
			if i.LogIndex >= 300 {
				err := tx.SetLogIndex(i.ID, -1)
				if err != nil {
					return err
				}
			}
		}
		return tx.PutIssuanceLog(imprint.IssuanceLog{Size: 300})
	})
	audited, found := w.audit(t)
	if len(found) > 0 || audited.Waiting != 30 {
		t.Errorf("without any memory: found %+v, %d waiting", found, audited.Waiting)
	}
	remember := func(c *translog.AuditConfig) { c.Remembered = []tiles.Checkpoint{newest} }
	_, found = w.audit(t, remember)
	if kinds(found) != string(translog.FindingDamage) {
		t.Errorf("with a kept checkpoint: found %+v, want the log as set back", found)
	}
	// And when it has grown another branch: something else comes first.
	w.update(t, func(tx imprint.Tx) error { return tx.PutIssuance(recordOnly("000000000001")) })
	log = w.open(t)
	w.mustIssue(t, 50)
	w.waitAll(t, log)
	closeLog(t, log)
	branch, err := w.verifier(t).Latest(t.Context(), tiles.Dir(w.tilesDir()))
	if err != nil {
		t.Fatal(err)
	}
	_, err = tiles.ProveConsistency(t.Context(), tiles.Dir(w.tilesDir()), newest, branch)
	if err == nil {
		t.Error("two branches of a log were proven to be one")
	}
	_, found = w.audit(t, remember)
	if !strings.Contains(kinds(found), string(translog.FindingDamage)) {
		t.Errorf("another branch with a kept checkpoint: found %+v, want a history that was changed", found)
	}
}

func TestAuditHasEachCertificateCheckedAgain(t *testing.T) {
	t.Parallel()
	w, certs := logged(t, 20)
	refused := pki.CertificateID(certs[5].Raw)
	seen := 0
	_, found := w.audit(t, func(c *translog.AuditConfig) {
		c.Check = func(der []byte, _ *x509.Certificate, i imprint.Issuance) error {
			seen++
			if pki.CertificateID(der) != i.CertificateID {
				t.Errorf("got the bytes of another certificate for issuance %s", i.ID)
			}
			if i.CertificateID == refused {
				return errors.New("the profile forbids it")
			}
			return nil
		}
	})
	if seen != 20 || len(found) != 1 || found[0].Kind != translog.FindingCheck || found[0].Certificate != refused {
		t.Errorf("%d were checked, and found was %+v", seen, found)
	}
}

// While a server issues and logs, an audit beside it finds nothing.
func TestAuditBesideAServerThatIssues(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := w.open(t, func(c *translog.Config) { c.Batch = 7 })
	w.mustIssue(t, 50)
	w.waitAll(t, log)
	ctx, stop := context.WithCancel(t.Context())
	issuing := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			c, err := w.issue(ctx)
			if err == nil && c.SerialNumber.Bit(0) == 0 {
				err = w.store.Update(ctx, func(tx imprint.Tx) error { return tx.DeleteCertificate(tenant, pki.CertificateID(c.Raw)) })
			}
			if err != nil && ctx.Err() == nil {
				issuing <- err
				return
			}
		}
		issuing <- nil
	}()
	for range 15 {
		_, found := w.audit(t)
		if len(found) > 0 {
			t.Errorf("found %+v, want nothing", found)
			break
		}
	}
	stop()
	err := <-issuing
	if err != nil {
		t.Errorf("issuing beside the audit: %v", err)
	}
	closeLog(t, log)
}
