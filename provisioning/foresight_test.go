package provisioning_test

import (
	"context"
	"crypto/x509/pkix"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/provisioning"
)

// foresight is the connection path's cache, which is made after the flows.
type foresight struct{ *identity.Resolver }

func (f *foresight) Foresee(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID) func(committed bool) {
	if f.Resolver == nil {
		return func(bool) {}
	}
	return f.Resolver.Foresee(tx, tenant, id)
}

// counted is a store whose look-ups are counted.
type counted struct {
	imprint.Store
	looks atomic.Int64
}

func (c *counted) View(ctx context.Context, fn func(imprint.ReadTx) error) error {
	c.looks.Add(1)
	return c.Store.View(ctx, fn)
}

func (c *counted) Glance(ctx context.Context, fn func(imprint.ReadTx) error) error {
	c.looks.Add(1)
	return c.Store.Glance(ctx, fn)
}

// The first device of a template is looked up, as nobody knows its policy yet. Those
// that come after it while one is connected aren't.
func TestTheNextConnectionOfADeviceThatWasMadeNeedsNoLookUp(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, store imprint.Store, f *foresight, make func(n int) (imprint.CertificateID, imprint.ThingName)) {
		c := &counted{Store: store}
		f.Resolver = identity.NewResolver(c, nil)
		t.Cleanup(f.Close)
		for n := range 3 {
			id, thing := make(n)
			before := c.looks.Load()
			who, err := f.Acquire(t.Context(), home, id)
			if err != nil {
				t.Fatal(err)
			}
			if looks := c.looks.Load() - before; (looks == 0) != (n > 0) {
				t.Errorf("device %d: %d look-ups", n, looks)
			}
			if who.Stale() || who.Certificate.Status != imprint.CertificateActive || len(who.Things) != 1 || who.Things[0].Thing.Name != thing {
				t.Errorf("device %d: got %s with %+v, stale: %t; want ACTIVE with thing %s", n, who.Certificate.Status, who.Things, who.Stale(), thing)
			}
		}
	}
	t.Run("by claim", func(t *testing.T) {
		t.Parallel()
		o := newOffice(t, nil, provisioning.ClaimOptions{})
		check(t, o.store, o.foresight, func(n int) (imprint.CertificateID, imprint.ThingName) {
			made := o.create(home)
			out, ok := o.register(home, made.Token, map[string]string{"SerialNumber": strconv.Itoa(n)})
			if !ok {
				t.Fatalf("RegisterThing was rejected: %+v", out)
			}
			return imprint.CertificateID(made.ID), imprint.ThingName(out.Thing)
		})
	})
	t.Run("just in time", func(t *testing.T) {
		t.Parallel()
		f := &foresight{}
		w := newWorld(t, templateOf("}}", `,"Status":"ACTIVE"}`, ownPolicy), provisioning.Options{Identities: f})
		check(t, w.store, f, func(n int) (imprint.CertificateID, imprint.ThingName) {
			name := "unit-" + strconv.Itoa(n)
			leaf := w.ca.device(t, pkix.Name{CommonName: name}, nil)
			code, _ := w.connect(t, leaf)
			if code != imprint.CodeProvisioned {
				t.Fatalf("got %q, want %q", code, imprint.CodeProvisioned)
			}
			return idOf(leaf), imprint.ThingName(name)
		})
	})
}
