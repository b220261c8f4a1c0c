package issuelog_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

// TestOneKeyGetsOneCertificate, also when two requests come at once, unless the second
// renews the first.
func TestOneKeyGetsOneCertificate(t *testing.T) {
	t.Parallel()
	store := registrytest.New(t)
	log := issuelog.New(store)
	issuance := func(n int) imprint.Issuance {
		return imprint.Issuance{ID: fmt.Sprintf("i%d", n), Tenant: tenant, Authority: "a", Serial: fmt.Sprint(n), Subject: "CN=x", KeyHash: "key", TBSHash: fmt.Sprint(n), At: time.Unix(1, 0)}
	}
	finish := func(i imprint.Issuance) error {
		i.CertificateID = imprint.CertificateID("cert-" + i.ID)
		return log.Record(t.Context(), i)
	}
	one, two := issuance(1), issuance(2)
	for _, i := range []imprint.Issuance{one, two} {
		if err := log.Record(t.Context(), i); err != nil {
			t.Fatalf("an intent beside another one: %v", err)
		}
	}
	errs := make([]error, 2)
	var both sync.WaitGroup
	for n, i := range []imprint.Issuance{one, two} {
		both.Go(func() { errs[n] = finish(i) })
	}
	both.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("two requests of one key: %v, %v; want one refused", errs[0], errs[1])
	}
	won := one
	if errs[0] != nil {
		won = two
	}
	err := log.Record(t.Context(), issuance(3))
	if imprint.CodeOf(err) != imprint.CodeKeyReused || !strings.Contains(err.Error(), "cert-"+won.ID) {
		t.Errorf("a third request: got %v, want %s with the certificate's id", err, imprint.CodeKeyReused)
	}
	var refused *imprint.Error
	if !errors.As(err, &refused) || !strings.Contains(refused.Hint, "--renews cert-"+won.ID) {
		t.Errorf("a third request: got the hint %q, want what to do", imprint.HintOf(err))
	}
	renewal := issuance(4)
	renewal.Renews = imprint.CertificateID("cert-" + won.ID)
	if err := log.Record(t.Context(), renewal); err != nil {
		t.Errorf("the intent to renew: %v", err)
	}
	if err := finish(renewal); err != nil {
		t.Errorf("a renewal: %v", err)
	}
	elsewhere := issuance(5)
	elsewhere.Tenant = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
	if err := log.Record(t.Context(), elsewhere); err != nil {
		t.Errorf("another tenant's request: %v", err)
	}
	var _ pki.Journal = log
}
