package provisioning_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
)

// TestAStoppedClaimTakesNothingFromTheOthers ensures that the requests of a claim
// that its guard refuses aren't taken from the rate of the tenant, and that they
// are bounded themselves.
func TestAStoppedClaimTakesNothingFromTheOthers(t *testing.T) {
	t.Parallel()
	for _, guard := range []imprint.ClaimGuard{
		{StoppedAt: instant, StopCode: imprint.CodeClaimQuota, StopReason: "over"},
		{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
	} {
		o := newOffice(t, nil, provisioning.ClaimOptions{CreateRate: 5, RegisterRate: 5})
		o.guarded(home, guard)
		statuses := map[int]int{}
		for range 100 {
			out, ok := o.ask(home, csrTopic, "{}")
			if ok {
				t.Fatal("accepted")
			}
			statuses[out.Status]++
		}
		if statuses[403] != 5 || statuses[429] != 95 {
			t.Errorf("got the statuses %v, want 5 times 403 and then 429", statuses)
		}
		for range 5 {
			o.create(home, func(r *provisioning.ClaimRequest) { r.Claim = imprint.CertificateID(strings.Repeat("c2", 32)) })
		}
	}
}

// TestClaimsOfOneTenantShareItsRate ensures that claims that each keep their own rate
// can't take more than the tenant's, and that another tenant's claim of the same
// certificate isn't bound by it.
func TestClaimsOfOneTenantShareItsRate(t *testing.T) {
	t.Parallel()
	o := newOffice(t, nil, provisioning.ClaimOptions{CreateRate: 4, RegisterRate: 4})
	as := func(text string) func(*provisioning.ClaimRequest) {
		return func(r *provisioning.ClaimRequest) { r.Claim = imprint.CertificateID(strings.Repeat(text, 32)) }
	}
	for range 2 {
		o.create(home, as("c2"))
		o.create(home, as("c3"))
	}
	out, ok := o.ask(home, csrTopic, "{}", as("c3"))
	rejectedWith(t, out, ok, 429, "TooManyRequests")
	if text := detail(t, o.steps()); !strings.Contains(text, "the account's devices") {
		t.Errorf("the trace says %q, want whose rate it was", text)
	}
	o.create(another, as("c3"))
	o.ahead.Store(int64(time.Second))
	for range 4 {
		o.create(home, as("c2"))
	}
	out, ok = o.ask(home, csrTopic, "{}", as("c2"))
	rejectedWith(t, out, ok, 429, "TooManyRequests")
	if text := detail(t, o.steps()); !strings.Contains(text, "the claim certificate") {
		t.Errorf("the trace says %q, want whose rate it was", text)
	}
}
