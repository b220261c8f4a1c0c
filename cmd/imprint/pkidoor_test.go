package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
)

// TestThePKIDoorIsBounded: strangers get what there is, and beyond the rate a 429.
func TestThePKIDoorIsBounded(t *testing.T) {
	t.Parallel()
	profiles, err := pki.NewProfiles()
	if err != nil {
		t.Fatal(err)
	}
	engine := ca.New(ca.Options{Store: registrytest.New(t), Clock: time.Now, Profiles: profiles})
	t.Cleanup(engine.Close)
	door := newPKIDoor(engine.Handler())
	counts := map[int]int{}
	for range 3 * maxPKIRequests {
		answer := httptest.NewRecorder()
		door.Handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/crl/000000000000/us-east-1/00000000-0000-4000-8000-000000000000.crl", nil))
		counts[answer.Code]++
	}
	if counts[http.StatusNotFound] < maxPKIRequests || counts[http.StatusTooManyRequests] == 0 || len(counts) != 2 {
		t.Errorf("got %v, want at least %d times 404, and 429 for the rest", counts, maxPKIRequests)
	}
}
