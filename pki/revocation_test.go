package pki_test

import (
	"bytes"
	"crypto/x509"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// TestAListOfSomeCertificatesSaysOfWhich, by every URL that they name, and isn't signed when it
// could be put in the place of another.
func TestAListOfSomeCertificatesSaysOfWhich(t *testing.T) {
	t.Parallel()
	a, _ := authority(t, pki.KeyP256)
	list := pki.CRL{Number: 1, ThisUpdate: start, NextUpdate: start.Add(time.Hour), Divided: true, URLs: []string{"http://a.example.com/0.crl", "http://b.example.com/0.crl"}}
	der, err := a.SignCRL(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, ext := range parsed.Extensions {
		found = found || ext.Critical && ext.Id.String() == "2.5.29.28" && bytes.Contains(ext.Value, []byte(list.URLs[0])) && bytes.Contains(ext.Value, []byte(list.URLs[1]))
	}
	if !found {
		t.Errorf("it has no critical issuingDistributionPoint with both URLs: %+v", parsed.Extensions)
	}
	list.URLs = nil
	_, err = a.SignCRL(t.Context(), list)
	if imprint.CodeOf(err) != imprint.CodeInternal {
		t.Errorf("a divided list without URLs: got %v", err)
	}
}
