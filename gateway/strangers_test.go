package gateway_test

import (
	"net/http"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// TestACertificateThatMovesPublishesInNoTenant ensures that a connection without a
// server name stays in the tenant that its certificate selected.
func TestACertificateThatMovesPublishesInNoTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	device := w.device(t, home)
	finish := w.halfPublish(t, client("", device))
	id := pki.CertificateID(device.Certificate[0])
	w.update(t, func(tx imprint.Tx) error {
		err := tx.DeletePolicyAttachment(imprint.PolicyAttachment{Tenant: home, Policy: "all", Target: home.CertificateARN(id)})
		if err != nil {
			return err
		}
		return tx.DeleteCertificate(home, id)
	})
	w.register(t, other, device, imprint.ModeDefault, imprint.CertificateActive)
	if got := finish(); got.status != http.StatusForbidden {
		t.Errorf("got status %d, %q, want 403", got.status, got.message)
	}
}

// TestAStrangersConnectionEndsWithItsFirstRefusal ensures that nobody keeps a place
// of those that devices connect in by asking for what isn't there.
func TestAStrangersConnectionEndsWithItsFirstRefusal(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusTooManyRequests, http.StatusInternalServerError} {
		w := newWorld(t, settings{dataAPI: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(status)
			_, _ = rw.Write([]byte("{}"))
		})})
		got := ask(t, w.dialHTTPS(t, client("localhost")), "GET /nothing HTTP/1.1\r\nHost: localhost\r\nAuthorization: x\r\n\r\n")
		if got.status != status || !got.closed {
			t.Errorf("got status %d, closed %t, want %d, true", got.status, got.closed, status)
		}
	}
}
