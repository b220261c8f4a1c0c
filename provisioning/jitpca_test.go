package provisioning_test

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
)

func TestOneCertificateInSeveralAccounts(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name         string
		mode, others imprint.CertificateMode
		region       imprint.Region
		want         imprint.Code
	}{
		{"both SNI_ONLY", imprint.ModeSNIOnly, imprint.ModeSNIOnly, "us-east-1", imprint.CodeProvisioned},
		{"both DEFAULT", imprint.ModeDefault, imprint.ModeDefault, "us-east-1", imprint.CodeCertificateConflict},
		{"the other is DEFAULT", imprint.ModeSNIOnly, imprint.ModeDefault, "us-east-1", imprint.CodeCertificateConflict},
		{"this is DEFAULT", imprint.ModeDefault, imprint.ModeSNIOnly, "us-east-1", imprint.CodeCertificateConflict},
		{"both DEFAULT in two regions", imprint.ModeDefault, imprint.ModeDefault, "eu-west-1", imprint.CodeProvisioned},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "", provisioning.Options{})
			ca := w.ca.registered(home, templateOf("}}", "}"))
			ca.Mode = row.mode
			leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
			update(t, w.store, func(tx imprint.Tx) error {
				err := tx.PutCertificate(imprint.Certificate{Tenant: imprint.Tenant{Account: another.Account, Region: row.region}, ID: idOf(leaf), Mode: row.others, Status: imprint.CertificateActive})
				if err != nil {
					return err
				}
				return tx.PutCA(ca)
			})
			code, steps := w.connect(t, leaf)
			if code != row.want {
				t.Errorf("got %s, want %s", code, row.want)
			}
			if code == imprint.CodeCertificateConflict {
				checkFailure(t, steps, "register", code)
				if diff := cmp.Diff(state{}, w.state(t, idOf(leaf))); diff != "" {
					t.Errorf("something is stored (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// A CA that was renewed with its key is registered twice; the one that is open
// counts, whichever is older.
func TestARenewedCAWithTheSameKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, templateOf("}}", "}"), provisioning.Options{})
	old := w.ca.registered(home, "")
	old.Status = imprint.CAInactive
	renewed := newAuthority(t, "Line 1", w.ca.key)
	update(t, w.store, func(tx imprint.Tx) error {
		err := tx.PutCA(old)
		if err != nil {
			return err
		}
		ca := renewed.registered(home, templateOf("}}", "}"))
		ca.CreatedAt = instant.Add(1e9)
		return tx.PutCA(ca)
	})
	leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
	code, _ := w.connect(t, leaf)
	if code != imprint.CodeProvisioned {
		t.Errorf("got %s, want %s", code, imprint.CodeProvisioned)
	}
}

// closing is a store in which a CA is deactivated, durably, after the engine
// looked at it and before it writes.
type closing struct {
	imprint.Store
	before func()
}

func (c *closing) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	if c.before != nil {
		before := c.before
		c.before = nil
		before()
	}
	return c.Store.Update(ctx, fn)
}

func TestADeactivatedCARegistersNothingAfterItsAcknowledgement(t *testing.T) {
	t.Parallel()
	w := newWorld(t, templateOf("}}", "}"), provisioning.Options{})
	c := &closing{Store: w.store}
	engine := provisioning.NewEngine(c, clock, provisioning.Options{Logger: quiet()})
	defer engine.Close()
	c.before = func() {
		ca := w.ca.registered(home, templateOf("}}", "}"))
		ca.Status = imprint.CAInactive
		update(t, w.store, func(tx imprint.Tx) error { return tx.PutCA(ca) })
	}
	leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, nil)
	err := engine.FirstConnection(t.Context(), provisioning.Newcomer{Tenant: home, Leaf: leaf, ID: idOf(leaf)})
	if got := imprint.CodeOf(err); got != imprint.CodeCAInactive {
		t.Errorf("got %v, want %s", err, imprint.CodeCAInactive)
	}
	if diff := cmp.Diff(state{}, w.state(t, idOf(leaf))); diff != "" {
		t.Errorf("something is stored (-want +got):\n%s", diff)
	}
}

// TestAKnownKeyIsNoDevices: neither one of the operator's list nor a published one.
func TestAKnownKeyIsNoDevices(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	hash, err := pki.KeyHash(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	known, err := pki.NewKnownKeys(hash + " found in a firmware")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, templateOf("}}", "}"), provisioning.Options{Known: known})
	leaf := w.ca.device(t, pkix.Name{CommonName: "unit"}, key)
	code, steps := w.connect(t, leaf)
	if code != imprint.CodeCertificateWeak || !strings.Contains(fmt.Sprint(steps), "found in a firmware") {
		t.Errorf("got %s with %v", code, steps)
	}
}
