package attempts_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/trace"
)

// TestWhoIsCountedWithOthersIsTold ensures that a device whose failure is counted in the entry
// of a fleet isn't taken for the one that the entry shows.
func TestWhoIsCountedWithOthersIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	log := trace.NewLog(w.store, func() time.Time { return instant }, trace.Options{})
	const devices = 70
	var early string
	for range 2 {
		for n := range devices {
			rec := log.Begin(fmt.Sprintf("192.0.2.1:%d", 1000+n))
			rec.Describe(func(a *imprint.Attempt) {
				a.Tenant, a.CertificateID, a.Serial, a.ClientID = home, digits(n), fmt.Sprintf("aaa%02x", n), imprint.ClientID(fmt.Sprintf("d%d", n))
			})
			rec.Fail("ca", imprint.Errorf(imprint.CodeCAInactive, "the CA is INACTIVE"))
			if n == devices-3 {
				early = rec.ID()
			}
			rec.End(imprint.OutcomeRefused, imprint.CodeCAInactive)
		}
	}
	log.Close()
	last := string(digits(devices - 1))
	for word, counted := range map[string]bool{
		"d67": true, string(digits(devices - 3)): true, "aaa43": true, "AA:A4:3": true, early: true, // the device itself, and what it was told
		"d69": false, last: false, last[:12]: false, "aaa45": false, "192.0.2.1": false,
		"d3": false, // one that has an entry of its own
		"":   false,
	} {
		query := url.Values{}
		if word != "" {
			query.Set("match", word)
		}
		got, err := w.list(t, home, query)
		notes := strings.Join(got.Notes, "\n")
		if err != nil || len(got.Attempts) == 0 || strings.Contains(notes, "is counted in attempt "+got.Attempts[0].AttemptID[:16]+" with others") != counted || counted != strings.HasSuffix(notes, ", d69.") {
			t.Errorf("%s: got %d attempts with notes %q, %v; want such a note: %t", word, len(got.Attempts), notes, err, counted)
		}
	}
}

// TestOneCountedDeviceIsSaidInTheSingular ensures that an entry which counted one device
// so far isn't said to be of 1 devices.
func TestOneCountedDeviceIsSaidInTheSingular(t *testing.T) {
	t.Parallel()
	w := newWorld(t, imprint.Attempt{Tenant: home, ClientID: "d69", Outcome: imprint.OutcomeRefused, Code: imprint.CodeCAInactive, Fold: "0000", Devices: 1})
	err := w.store.Update(t.Context(), func(tx imprint.Tx) error {
		return tx.PutAttemptAlias(imprint.AttemptAlias{Tenant: home, Word: "d67", Fold: "0000"})
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.list(t, home, url.Values{"match": {"d67"}})
	if err != nil || len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "at least one device in all") {
		t.Errorf("got notes %q, %v", got.Notes, err)
	}
}
