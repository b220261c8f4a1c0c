package provisioning_test

import (
	"context"
	"crypto/x509/pkix"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/provisioning"
)

// foresight is the connection path's cache, which is made after the flows. It compares
// what each flow says that it wrote with what the registry holds, unless there is no test.
type foresight struct {
	testing.TB
	*identity.Resolver
	written atomic.Int64 // devices of which a flow said it
}

func (f *foresight) Foresee(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID, known *imprint.Principal) func(committed bool) {
	if known != nil && f.TB != nil {
		f.written.Add(1)
		want, err := tx.Principal(tenant, id, 100)
		if err != nil || !cmp.Equal(*known, want) {
			f.Errorf("certificate %s: the flow says otherwise than the registry, %v (-registry +flow):\n%s", id, err, cmp.Diff(want, *known))
		}
	}
	if f.Resolver == nil {
		return func(bool) {}
	}
	return f.Resolver.Foresee(tx, tenant, id, known)
}

// A flow that made the thing tells what is attached to the certificate, and one that
// may not know all of it doesn't: in every test of this package what it tells is
// compared with the registry.
func TestAFlowTellsWhatItWroteOnlyIfThatIsAll(t *testing.T) {
	t.Parallel()
	groups := strings.Replace(fleetBody(ownPolicy), `"AttributePayload"`, `"ThingGroups":["r1","a","r1"],"AttributePayload"`, 1)
	attach := func(tx imprint.Tx, id imprint.CertificateID) error {
		return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "other", Certificate: id})
	}
	for _, row := range []struct {
		name, body string
		before     func(tx imprint.Tx, id imprint.CertificateID) error
		told       bool
	}{
		{"all of it", fleetBody(ownPolicy), nil, true},
		{"with groups", groups, nil, true},
		{"for the thing alone", strings.Replace(fleetBody(ownPolicy), `"Status":"ACTIVE"`, `"Status":"ACTIVE","ThingPrincipalType":"EXCLUSIVE_THING"`, 1), nil, true},
		{"an operator attached a policy before", fleetBody(ownPolicy), func(tx imprint.Tx, id imprint.CertificateID) error {
			return tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: "extra", Target: imprint.Certificate{Tenant: home, ID: id}.ARN()})
		}, true},
		{"no policy: others weren't looked for", fleetBody(""), nil, false},
		{"an operator attached a thing before", fleetBody(ownPolicy), attach, false},
		{"the thing was there", fleetBody(ownPolicy), func(tx imprint.Tx, _ imprint.CertificateID) error {
			return tx.PutThing(imprint.Thing{Tenant: home, Name: "sensor-1", Version: 1})
		}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, nil, provisioning.ClaimOptions{})
			o.template(home, row.body, "")
			made := o.create(home)
			update(t, o.store, func(tx imprint.Tx) error {
				err := putGroups()(tx)
				if err == nil && row.before != nil {
					err = row.before(tx, imprint.CertificateID(made.ID))
				}
				return err
			})
			out, ok := o.register(home, made.Token, map[string]string{"SerialNumber": "1"})
			if !ok {
				t.Fatalf("RegisterThing was rejected: %+v", out)
			}
			if told := o.foresight.written.Load() == 1; told != row.told {
				t.Errorf("told: got %t, want %t", told, row.told)
			}
		})
	}
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
		f := &foresight{TB: t}
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
