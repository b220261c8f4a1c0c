package provisioning_test

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// changeOthers changes a template and a CA of another account, and a template and a CA of
// a tenant itself that its devices have nothing to do with.
func changeOthers(tb testing.TB, store imprint.Store, n int, unrelated *authority) {
	tb.Helper()
	update(tb, store, func(tx imprint.Tx) error {
		for _, tenant := range []imprint.Tenant{another, home} {
			err := tx.PutTemplate(imprint.ProvisioningTemplate{
				Tenant: tenant, Name: "of-others", Type: imprint.TemplateFleet, Description: fmt.Sprint(n), DefaultVersion: 1, LastVersion: 1,
			})
			if err != nil {
				return err
			}
		}
		return tx.PutCA(unrelated.registered(another, ""))
	})
}

// TestTheHookIsCalledOnceWhateverIsChangedMeanwhile ensures that no change of a CA, another
// template or another account has the hook called again; that a change of the template
// itself holds for the device, with the hook's answer; and that another hook is asked when
// the template has one by then.
func TestTheHookIsCalledOnceWhateverIsChangedMeanwhile(t *testing.T) {
	t.Parallel()
	const otherHook = hookARN + "-2"
	unrelated := newAuthority(t, "Others", nil)
	for _, tt := range []struct {
		name   string
		change func(o *office)
		calls  []string
		site   string
	}{
		{"others change", func(o *office) {
			changeOthers(o, o.store, 1, unrelated)
			update(o, o.store, func(tx imprint.Tx) error { return tx.PutCA(unrelated.registered(home, "")) })
			o.template(another, fleetBody(""), "")
		}, []string{hookARN}, "hook"},
		{"the template changes", func(o *office) {
			o.template(home, strings.Replace(fleetBody(ownPolicy), `"DeviceConfiguration":{`, `"DeviceConfiguration":{"Second":"version",`, 1), hookARN)
		}, []string{hookARN}, "hook"},
		{"the template gets another hook", func(o *office) { o.template(home, fleetBody(ownPolicy), otherHook) }, []string{hookARN, otherHook}, "hook"},
		{"the template loses its hook", func(o *office) { o.template(home, fleetBody(ownPolicy), "") }, []string{hookARN}, "lab"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var o *office
			var calls []string
			o = newOffice(t, function(func(_ context.Context, call imprint.FunctionCall) (imprint.FunctionResult, error) {
				calls = append(calls, call.ARN)
				if call.ARN == hookARN {
					tt.change(o)
				}
				return imprint.FunctionResult{Payload: []byte(`{"allowProvisioning":true,"parameterOverrides":{"Site":"hook"}}`)}, nil
			}), provisioning.ClaimOptions{})
			o.template(home, fleetBody(ownPolicy), hookARN)
			out, ok := o.register(home, o.create(home).Token, map[string]string{"SerialNumber": "1"})
			if !ok || out.Thing != "sensor-1" || out.Configuration["Site"] != tt.site {
				t.Errorf("RegisterThing: got %t %+v, want it accepted with site %s", ok, out, tt.site)
			}
			if (out.Configuration["Second"] != "") != (tt.name == "the template changes") {
				t.Errorf("the configuration is %v: not of the template as it is", out.Configuration)
			}
			if fmt.Sprint(calls) != fmt.Sprint(tt.calls) {
				t.Errorf("hooks called: got %v, want %v", calls, tt.calls)
			}
		})
	}
}

// busy is a store in which something happens before each change.
type busy struct {
	imprint.Store
	before func()
}

func (b busy) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	b.before()
	return b.Store.Update(ctx, fn)
}

// TestADeviceIsLookedAtOnceWhateverOthersChange ensures that just-in-time provisioning
// begins anew when the device's CA or its template changes, and not for the changes of
// other accounts and templates, however often they come.
func TestADeviceIsLookedAtOnceWhateverOthersChange(t *testing.T) {
	t.Parallel()
	unrelated := newAuthority(t, "Others", nil)
	for _, tt := range []struct {
		name   string
		change func(w *world, n int)
		looks  int
	}{
		{"others change all the time", func(w *world, n int) { changeOthers(t, w.store, n, unrelated) }, 1},
		{"its template changes once", func(w *world, n int) {
			if n == 1 {
				update(t, w.store, func(tx imprint.Tx) error {
					return tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: home, Template: "line", Version: 1, Body: templateOf("}}", "}")})
				})
			}
		}, 2},
		{"its CA changes once", func(w *world, n int) {
			if n == 1 {
				update(t, w.store, func(tx imprint.Tx) error { return tx.PutCA(named(w.ca.registered(home, "x"))) })
			}
		}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "", provisioning.Options{})
			update(t, w.store, func(tx imprint.Tx) error {
				err := tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: home, Name: "line", Type: imprint.TemplateJITP, Enabled: true, DefaultVersion: 1, LastVersion: 1})
				if err != nil {
					return err
				}
				err = tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: home, Template: "line", Version: 1, Body: templateOf("}}", "}")})
				if err != nil {
					return err
				}
				return tx.PutCA(named(w.ca.registered(home, "x")))
			})
			n := 0
			w.engine = provisioning.NewEngine(busy{w.store, func() { n++; tt.change(w, n) }}, clock, provisioning.Options{Logger: quiet()})
			t.Cleanup(w.engine.Close)
			code, steps := w.connect(t, w.ca.device(t, pkix.Name{CommonName: "unit"}, nil))
			if code != imprint.CodeProvisioned {
				t.Errorf("got %s, want the device provisioned", code)
			}
			looks := 0
			for _, s := range steps {
				if s.Name == "template" {
					looks++
				}
			}
			if looks != tt.looks {
				t.Errorf("the device was looked at %d times, want %d: %+v", looks, tt.looks, steps)
			}
		})
	}
}

// named is a CA whose registration names the template line.
func named(ca imprint.CACertificate) imprint.CACertificate {
	ca.Registration = &imprint.RegistrationConfig{TemplateName: "line", RoleARN: ca.Registration.RoleARN}
	return ca
}
