package provisioning_test

import (
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// What was read for one request holds for the next ones, until it is changed.
func TestWhatBindsAClaimHoldsForItsNextRequest(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	csr, _ := signingRequest(t, "unit-1")
	ask := func() (reply, bool) {
		return o.ask(home, csrTopic, object(t, map[string]any{"certificateSigningRequest": csr}))
	}
	guard := imprint.ClaimGuard{Tenant: home, Claim: claimID}
	stopped := guard.Stop(imprint.Errorf(imprint.CodeClaimAnomaly, "too many"), instant)
	put := func(g imprint.ClaimGuard) {
		update(t, o.store, func(tx imprint.Tx) error { return tx.PutClaimGuard(g) })
	}
	allowed := func(what string) {
		t.Helper()
		out, ok := ask()
		if !ok {
			t.Errorf("%s: refused: %+v", what, out)
		}
	}
	refused := func(what string) {
		t.Helper()
		_, ok := ask()
		if ok {
			t.Errorf("%s: allowed", what)
		}
	}
	allowed("a claim without a guard")
	allowed("it again")
	put(stopped)
	refused("a claim that is stopped")
	put(guard)
	allowed("a claim that goes on")
	update(t, o.store, func(tx imprint.Tx) error { return tx.DeleteClaimGuard(home, claimID) })
	o.afterGlance = func() { put(stopped) }
	allowed("a claim that is stopped after it was looked at")
	refused("its next request")

	update(t, o.store, func(tx imprint.Tx) error { return tx.DeleteClaimGuard(home, claimID) })
	allowed("a claim whose guard is gone")
	provider := imprint.CertificateProvider{Tenant: home, Name: "maker", FunctionARN: hookARN, Operations: []string{"CreateCertificateFromCsr"}}
	update(t, o.store, func(tx imprint.Tx) error { return tx.PutCertificateProvider(provider) })
	refused("with a certificate provider and no functions") // the built-in CA isn't asked
	update(t, o.store, func(tx imprint.Tx) error { return tx.DeleteCertificateProvider(home, "maker") })
	allowed("without the provider")
}
