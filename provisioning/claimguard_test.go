package provisioning_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// guarded puts a guard on the claim of a tenant.
func (o *office) guarded(tenant imprint.Tenant, guard imprint.ClaimGuard) {
	o.Helper()
	guard.Tenant, guard.Claim = tenant, claimID
	update(o, o.store, func(tx imprint.Tx) error { return tx.PutClaimGuard(guard) })
}

func (o *office) guard(tenant imprint.Tenant) imprint.ClaimGuard {
	o.Helper()
	var guard imprint.ClaimGuard
	view(o, o.store, func(tx imprint.ReadTx) error {
		found, err := tx.ClaimGuard(tenant, claimID)
		guard = found
		return err
	})
	return guard
}

func serial(text string) map[string]string { return map[string]string{"SerialNumber": text} }

// TestAGuardRefusesWhatItDoesNotAllow ensures each bound that refuses and
// doesn't stop the claim.
func TestAGuardRefusesWhatItDoesNotAllow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		guard imprint.ClaimGuard
		from  string
		ok    bool
	}{
		{name: "before its time", guard: imprint.ClaimGuard{NotBefore: instant.Add(time.Second)}},
		{name: "after its time", guard: imprint.ClaimGuard{NotAfter: instant.Add(-time.Second)}},
		{name: "in its time", guard: imprint.ClaimGuard{NotBefore: instant.Add(-time.Second), NotAfter: instant.Add(time.Second)}, ok: true},
		{name: "from elsewhere", guard: imprint.ClaimGuard{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}},
		{name: "from its network", guard: imprint.ClaimGuard{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("192.0.2.0/28")}}, ok: true},
		{name: "from its network, in IPv6's form", guard: imprint.ClaimGuard{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28")}}, from: "::ffff:192.0.2.7", ok: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, nil, provisioning.ClaimOptions{})
			o.guarded(home, tt.guard)
			csr, _ := signingRequest(t, "unit")
			out, ok := o.ask(home, csrTopic, object(t, map[string]any{"certificateSigningRequest": csr}), func(r *provisioning.ClaimRequest) {
				if tt.from != "" {
					r.Address = netip.MustParseAddr(tt.from)
				}
			})
			o.create(another) // which has no guard
			if tt.ok {
				if !ok {
					t.Errorf("rejected: %+v", out)
				}
				return
			}
			rejectedWith(t, out, ok, 403, "AccessDenied")
			if !o.guard(home).StoppedAt.IsZero() {
				t.Error("the claim is stopped, and should only be refused")
			}
		})
	}
}

func TestOnlySerialsOfTheAllowListAreRegistered(t *testing.T) {
	t.Parallel()
	asked := 0
	o := newOffice(t, function(func(context.Context, imprint.FunctionCall) (imprint.FunctionResult, error) {
		asked++
		return imprint.FunctionResult{Payload: []byte(`{"allowProvisioning":true}`)}, nil
	}), provisioning.ClaimOptions{})
	o.template(home, fleetBody(ownPolicy), hookARN)
	o.guarded(home, imprint.ClaimGuard{SerialParameter: "SerialNumber"})
	update(t, o.store, func(tx imprint.Tx) error {
		_, err := tx.AddClaimSerials(home, claimID, []string{"1", "2"})
		return err
	})
	for _, parameters := range []map[string]string{serial("3"), {}} {
		out, ok := o.register(home, o.create(home).Token, parameters)
		rejectedWith(t, out, ok, 403, "AccessDenied")
		checkFailure(t, o.steps(), "claim.guard", imprint.CodeClaimNotAllowed)
	}
	if asked != 0 {
		t.Errorf("the hook was asked %d time(s) about devices that the guard refuses", asked)
	}
	_, ok := o.register(home, o.create(home).Token, serial("1"))
	if !ok {
		t.Error("a serial number of the list was rejected")
	}
	out, ok := o.register(home, o.create(home).Token, serial("1"))
	rejectedWith(t, out, ok, 403, "AccessDenied")
	guard := o.guard(home)
	guard.SerialReuse = true
	o.guarded(home, guard)
	_, ok = o.register(home, o.create(home).Token, serial("1"))
	if !ok {
		t.Error("a serial number was rejected that may come again")
	}
}

// TestDevicesAreToldNothingOfOthers ensures that what only operators may know is in
// the trace and not in a rejection.
func TestDevicesAreToldNothingOfOthers(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	others := imprint.CertificateID(strings.Repeat("c2", 32))
	token := o.create(home, func(r *provisioning.ClaimRequest) { r.Claim = others }).Token
	out, ok := o.register(home, token, serial("1"))
	rejectedWith(t, out, ok, 400, "InvalidCertificateOwnershipToken")
	told := out.Message
	if text := detail(t, o.steps()); !strings.Contains(text, string(others)) {
		t.Errorf("the trace says %q, and nothing of the other claim", text)
	}
	o.guarded(home, imprint.ClaimGuard{SerialParameter: "SerialNumber"})
	update(t, o.store, func(tx imprint.Tx) error {
		_, err := tx.AddClaimSerials(home, claimID, []string{"1"})
		return err
	})
	device := o.create(home)
	_, ok = o.register(home, device.Token, serial("1"))
	if !ok {
		t.Fatal("a serial number of the list was rejected")
	}
	out, ok = o.register(home, o.create(home).Token, serial("1"))
	rejectedWith(t, out, ok, 403, "AccessDenied")
	if text := detail(t, o.steps()); !strings.Contains(text, device.ID) {
		t.Errorf("the trace says %q, and nothing of the other device", text)
	}
	out2, ok := o.ask(home, provision, `{"parameters":{"SerialNumber":7}}`)
	rejectedWith(t, out2, ok, 400, "InvalidPayload")
	for _, text := range []string{told, out.Message, out2.Message} {
		for _, inside := range []string{string(others), device.ID, "Go ", "registerRequest", "provisioning."} {
			if strings.Contains(text, inside) {
				t.Errorf("a device is told %q, which has %q", text, inside)
			}
		}
	}
}

// detail is that of the last step.
func detail(t *testing.T, steps []imprint.Step) string {
	t.Helper()
	if len(steps) == 0 {
		t.Fatal("the attempt has no steps")
	}
	return steps[len(steps)-1].Detail
}

// TestAGuardIsLookedAtAgainWhenTheDeviceIsWritten ensures that what an operator
// changes while the hook is asked holds for the device, and that a hook can't give a
// device a serial number that isn't in the list.
func TestAGuardIsLookedAtAgainWhenTheDeviceIsWritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change    func(tx imprint.Tx, guard imprint.ClaimGuard) error
		overrides string
		code      imprint.Code
	}{
		"stopped": {func(tx imprint.Tx, g imprint.ClaimGuard) error {
			return tx.PutClaimGuard(g.Stop(imprint.Errorf(imprint.CodeClaimAnomaly, "too many"), instant))
		}, "{}", imprint.CodeClaimStopped},
		"its time is over": {func(tx imprint.Tx, g imprint.ClaimGuard) error {
			g.NotAfter = instant.Add(-time.Second)
			return tx.PutClaimGuard(g)
		}, "{}", imprint.CodeClaimNotAllowed},
		"from another network": {func(tx imprint.Tx, g imprint.ClaimGuard) error {
			g.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
			return tx.PutClaimGuard(g)
		}, "{}", imprint.CodeClaimNotAllowed},
		"the list is emptied": {func(tx imprint.Tx, g imprint.ClaimGuard) error {
			_, err := tx.DeleteClaimSerials(g.Tenant, g.Claim, 10)
			return err
		}, "{}", imprint.CodeClaimNotAllowed},
		"the serial was registered": {func(tx imprint.Tx, g imprint.ClaimGuard) error {
			return tx.PutClaimSerial(imprint.ClaimSerial{Tenant: g.Tenant, Claim: g.Claim, Serial: "1", Device: imprint.CertificateID(strings.Repeat("d0", 32))})
		}, "{}", imprint.CodeClaimNotAllowed},
		"the hook names another serial":  {nil, `{"SerialNumber":"9"}`, imprint.CodeClaimNotAllowed},
		"the hook names one of the list": {nil, `{"SerialNumber":"2"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o *office
			o = newOffice(t, function(func(context.Context, imprint.FunctionCall) (imprint.FunctionResult, error) {
				if c.change != nil {
					update(t, o.store, func(tx imprint.Tx) error {
						guard, err := tx.ClaimGuard(home, claimID)
						if err != nil {
							return err
						}
						return c.change(tx, guard)
					})
				}
				return imprint.FunctionResult{Payload: []byte(`{"allowProvisioning":true,"parameterOverrides":` + c.overrides + `}`)}, nil
			}), provisioning.ClaimOptions{})
			o.template(home, fleetBody(ownPolicy), hookARN)
			o.guarded(home, imprint.ClaimGuard{SerialParameter: "SerialNumber"})
			update(t, o.store, func(tx imprint.Tx) error {
				_, err := tx.AddClaimSerials(home, claimID, []string{"1", "2"})
				return err
			})
			out, ok := o.register(home, o.create(home).Token, serial("1"))
			if c.code == "" {
				if !ok {
					t.Errorf("rejected: %+v", out)
				}
				return
			}
			rejectedWith(t, out, ok, 403, "AccessDenied")
			checkFailure(t, o.steps(), "claim.guard", c.code)
			if len(o.things(home)) != 0 || o.guard(home).Devices != 0 {
				t.Errorf("things %v, %d devices counted; want none", o.things(home), o.guard(home).Devices)
			}
		})
	}
}

// TestARequestWithoutASerialSaysSo ensures that the trace names the parameter.
func TestARequestWithoutASerialSaysSo(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	o.guarded(home, imprint.ClaimGuard{SerialParameter: "SerialNumber"})
	out, ok := o.register(home, o.create(home).Token, map[string]string{})
	rejectedWith(t, out, ok, 403, "AccessDenied")
	if text := detail(t, o.steps()); !strings.Contains(text, "no parameter SerialNumber") {
		t.Errorf("the trace says %q", text)
	}
}
