//go:build unix

package translog_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/translog"
)

// TestWhatACASignsElsewhereIsToldOnlyWhereItsKeyIs ensures that certificates of a CA that was
// imported without its key are no findings, and that those of a key that is here are.
func TestWhatACASignsElsewhereIsToldOnlyWhereItsKeyIs(t *testing.T) {
	t.Parallel()
	w, _ := logged(t, 2)
	sign := func(name string, parent *x509.Certificate, isCA bool) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
			IsCA: isCA, BasicConstraintsValid: true,
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, deviceKey.Public(), deviceKey)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ca := sign("elsewhere", nil, true)
	device := sign("device", ca, false)
	authority := imprint.CertificateAuthority{
		Tenant: tenant, ID: "00000000-0000-4000-8000-000000000001", Type: imprint.AuthorityRoot, Status: imprint.AuthorityActive, Subject: ca.RawSubject,
		Certificate: pki.EncodeCertificatePEM(ca.Raw), CertificateID: pki.CertificateID(ca.Raw), CreatedAt: time.Now(), ChangedAt: time.Now(),
	}
	w.update(t, func(tx imprint.Tx) error {
		err := tx.PutCertificate(registered(device))
		if err != nil {
			return err
		}
		return tx.PutAuthority(authority)
	})
	if _, found := w.audit(t); len(found) != 0 {
		t.Errorf("without its key: found %+v, want nothing", found)
	}
	authority.Key, authority.SealedKey = "sealed:", []byte("x")
	w.update(t, func(tx imprint.Tx) error { return tx.PutAuthority(authority) })
	_, found := w.audit(t)
	if len(found) != 1 || found[0].Kind != translog.FindingNotInLog || found[0].Certificate != pki.CertificateID(device.Raw) {
		t.Errorf("with its key: found %+v, want the certificate that isn't in the log", found)
	}
	authority.Key, authority.SealedKey, authority.Status = "", nil, imprint.AuthorityDeleted
	w.update(t, func(tx imprint.Tx) error { return tx.PutAuthority(authority) })
	if _, found = w.audit(t); len(found) != 0 {
		t.Errorf("deleted, and its key was never here: found %+v, want nothing", found)
	}
	w.update(t, func(tx imprint.Tx) error {
		return tx.PutIssuance(imprint.Issuance{ID: "1", Tenant: tenant, Authority: authority.ID, Serial: "1", CertificateID: pki.CertificateID(sign("other", ca, false).Raw), At: time.Now()})
	})
	_, found = w.audit(t)
	if !slices.ContainsFunc(found, func(f translog.Finding) bool {
		return f.Kind == translog.FindingNotInLog && f.Certificate == pki.CertificateID(device.Raw)
	}) {
		t.Errorf("deleted, and it signed here: found %+v, want the certificate that isn't in the log", found)
	}
}
