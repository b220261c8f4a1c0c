package ca_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ocsp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/ca/foreign"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
)

// maker is a CA that isn't here.
type maker struct {
	cert  *x509.Certificate
	chain string // PEM of the one above it
	sign  func(template *x509.Certificate, public any) *x509.Certificate
	list  func(number int64, serials ...*big.Int) []byte
	adopt func(o *office, spec ca.Spec, withKey bool) (imprint.CertificateAuthority, error)
	// renew makes another certificate of its key.
	renew func() *x509.Certificate
}

// newMaker makes one, self-signed or signed by another one.
func newMaker(t *testing.T, name string, by *maker) *maker {
	t.Helper()
	own := key(t)
	m := &maker{}
	m.sign = func(template *x509.Certificate, public any) *x509.Certificate {
		t.Helper()
		if template.SerialNumber == nil {
			n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
			if err != nil {
				t.Fatal(err)
			}
			template.SerialNumber = n
		}
		template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.AddDate(10, 0, 0)
		parent := m.cert
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, own)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	signer := m
	if by != nil {
		signer, m.chain = by, by.pem()
	}
	m.cert = signer.sign(template, own.Public())
	m.renew = func() *x509.Certificate {
		again := *template
		again.SerialNumber = nil
		return signer.sign(&again, own.Public())
	}
	m.list = func(number int64, serials ...*big.Int) []byte {
		t.Helper()
		template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.AddDate(0, 0, -1), NextUpdate: now.AddDate(0, 0, 7)}
		for _, n := range serials {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: now.AddDate(0, -1, 0), ReasonCode: 1})
		}
		der, err := x509.CreateRevocationList(rand.Reader, template, m.cert, own)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	m.adopt = func(o *office, spec ca.Spec, withKey bool) (imprint.CertificateAuthority, error) {
		if withKey {
			return o.Adopt(t.Context(), home, spec, m.pem(), m.chain, own)
		}
		return o.Adopt(t.Context(), home, spec, m.pem(), m.chain, nil)
	}
	return m
}

func (m *maker) pem() string { return pki.EncodeCertificatePEM(m.cert.Raw) }

// device makes a certificate that no record knows.
func (m *maker) device(t *testing.T, name string) ca.Issued {
	cert := m.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}}, key(t).Public())
	return ca.Issued{Issued: &pki.Issued{ID: pki.CertificateID(cert.Raw), PEM: pki.EncodeCertificatePEM(cert.Raw), Certificate: cert}}
}

// TestAnAuthorityOfAnotherIssuerIsRevokedHere: the issuer isn't here, and there is no record.
func TestAnAuthorityOfAnotherIssuerIsRevokedHere(t *testing.T) {
	t.Parallel()
	for _, byCertificate := range []bool{false, true} {
		o := newOffice(t)
		third := newMaker(t, "Third party", newMaker(t, "Their root", nil))
		a, err := third.adopt(o, ca.Spec{Name: "third"}, true)
		if err != nil {
			t.Fatal(err)
		}
		o.registerCA(a.Certificate)
		line := o.below(a.ID, "line")
		mine, theirs := o.issue(a.ID, "mine"), third.device(t, "theirs")
		o.register(mine, a.CertificateID)
		o.register(theirs, a.CertificateID)
		if byCertificate {
			_, err = o.RevokeCertificate(t.Context(), home, third.cert.Raw, imprint.ReasonPrivilegeWithdrawn)
		} else {
			a, err = o.RevokeAuthority(t.Context(), home, a.ID, imprint.ReasonPrivilegeWithdrawn)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !byCertificate && (a.RevocationReason != imprint.ReasonPrivilegeWithdrawn || !a.RevokedAt.Equal(now)) {
			t.Errorf("revoked at %s for %s", a.RevokedAt, a.RevocationReason)
		}
		for _, id := range []imprint.AuthorityID{a.ID, line.ID} {
			_, err = o.Issue(t.Context(), home, id, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "x")})
			refused(t, "signing after", err, imprint.CodeAuthorityState, "was revoked")
		}
		if got := o.caStatus(a.CertificateID); got != imprint.CAInactive {
			t.Errorf("its registration is %s", got)
		}
		err = o.store.View(t.Context(), func(tx imprint.ReadTx) error { return revoked.Refusal(tx, home, third.device(t, "new").Certificate) })
		refused(t, "registering a new device of it", err, imprint.CodeCertificateRevoked, "was signed by")
		_, err = o.RevokeBelow(t.Context(), home, a.ID, "")
		if err != nil || o.status(mine.ID) != imprint.CertificateRevoked || o.status(theirs.ID) != imprint.CertificateRevoked {
			t.Errorf("its devices are %s and %s, %v", o.status(mine.ID), o.status(theirs.ID), err)
		}
	}
	o := newOffice(t)
	pending, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "x")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.RevokeAuthority(t.Context(), home, pending.ID, "")
	refused(t, "one without a certificate", err, imprint.CodeAuthorityState, "no certificate to revoke")
	_, err = o.RevokeAuthority(t.Context(), home, pending.ID, "WHY")
	refused(t, "no reason", err, imprint.CodeInvalidRequest, "WHY")
}

// TestOneCertificateIsOneAuthoritys, whichever of two that come with it is first.
func TestOneCertificateIsOneAuthoritys(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := newMaker(t, "Root", nil)
	pending, err := o.Create(t.Context(), home, ca.Spec{Name: "pending", Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "line")})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.ParseCSRPEM(pending.CSR)
	if err != nil {
		t.Fatal(err)
	}
	cert := pki.EncodeCertificatePEM(root.sign(&x509.Certificate{RawSubject: csr.RawSubject, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}, csr.PublicKey).Raw)
	_, err = o.Adopt(t.Context(), home, ca.Spec{Name: "first"}, cert, root.pem(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Import(t.Context(), home, pending.ID, cert, root.pem())
	refused(t, "another authority's certificate", err, imprint.CodeAlreadyExists, "first")
}

// TestAnAdoptedAuthorityBringsItsRevocations: it signs no list here without them, and then one
// that goes on where its last one ended.
func TestAnAdoptedAuthorityBringsItsRevocations(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	bought, another := newMaker(t, "Bought", nil), newMaker(t, "Another", nil)
	listed, shown, good := bought.device(t, "listed"), bought.device(t, "shown"), bought.device(t, "good")
	for _, i := range []ca.Issued{listed, shown, good} {
		o.register(i, "")
	}
	spec := ca.Spec{Name: "bought", Revocation: crls(0)}
	_, err := bought.adopt(o, spec, true)
	refused(t, "lists without what it revoked before", err, imprint.CodeInvalidRequest, "nobody said what")
	for name, list := range map[string][]byte{"another CA's": another.list(1), "nonsense": []byte("nonsense"), "nothing": {}} {
		spec.LastCRLs = [][]byte{list}
		_, err = bought.adopt(o, spec, true)
		refused(t, name+" list", err, imprint.CodeCertificateValidation, "the CRL ")
	}
	spec.LastCRLs = [][]byte{bought.list(500, listed.Certificate.SerialNumber)}
	o.root("taken")
	spec.Name = "taken"
	_, err = bought.adopt(o, spec, true)
	refused(t, "a name that is taken", err, imprint.CodeAlreadyExists, "taken")
	if got := o.status(listed.ID); got != imprint.CertificateActive {
		t.Errorf("what couldn't be adopted made a certificate %s", got)
	}
	spec.Name = "bought"
	a, err := bought.adopt(o, spec, true)
	if err != nil {
		t.Fatal(err)
	}
	if o.status(listed.ID) != imprint.CertificateRevoked || o.status(good.ID) != imprint.CertificateActive {
		t.Errorf("in the registry they are %s and %s", o.status(listed.ID), o.status(good.ID))
	}
	server := o.serve()
	o.publish()
	l := o.list(server, a, ".crl")
	if l.Number.Int64() != 501 || len(l.RevokedCertificateEntries) != 1 || l.RevokedCertificateEntries[0].ReasonCode != 1 {
		t.Errorf("its first list here has number %s and %d entries", l.Number, len(l.RevokedCertificateEntries))
	}
	o.later(time.Minute)
	done, err := o.RevokeCertificate(t.Context(), home, shown.Certificate.Raw, imprint.ReasonSuperseded)
	if err != nil || done.Authority != a.ID || done.Reason != imprint.ReasonSuperseded || o.status(shown.ID) != imprint.CertificateRevoked {
		t.Errorf("a certificate that is shown: %+v, %v, %s", done, err, o.status(shown.ID))
	}
	_, err = o.RevokeCertificate(t.Context(), home, another.device(t, "x").Certificate.Raw, "")
	refused(t, "another CA's certificate", err, imprint.CodeNotFound, "no certificate authority")
	imposter := newMaker(t, "Bought", nil) // of the same name
	_, err = o.RevokeCertificate(t.Context(), home, imposter.device(t, "x").Certificate.Raw, "")
	refused(t, "a certificate of a CA of the same name", err, imprint.CodeNotFound, "no certificate authority")
	o.publish()
	dir := t.TempDir()
	put(t, dir, "ca.pem", []byte(a.Certificate))
	put(t, dir, "list.der", fetch(t, server, "/crl/"+string(home.Account)+"/"+string(home.Region)+"/"+string(a.ID)+".crl", http.StatusOK))
	if out, err := openssl(t, dir, "crl", "-inform", "der", "-in", "list.der", "-out", "list.pem", "-CAfile", "ca.pem"); err != nil || !strings.Contains(out, "verify OK") {
		t.Errorf("openssl crl: %v: %s", err, out)
	}
	for _, c := range []struct {
		device  ca.Issued
		revoked bool
	}{{listed, true}, {shown, true}, {good, false}} {
		put(t, dir, "device.pem", []byte(c.device.PEM))
		out, err := openssl(t, dir, "verify", "-attime", fmt.Sprint(o.clock().Unix()), "-crl_check", "-CRLfile", "list.pem", "-CAfile", "ca.pem", "device.pem")
		if c.revoked != strings.Contains(out, "certificate revoked") || c.revoked == (err == nil) {
			t.Errorf("openssl verify of %s: %v: %s", c.device.Certificate.Subject, err, out)
		}
	}
	o.edit(a.ID, revocation(imprint.RevocationConfiguration{CRL: true, CRLDays: 7, OCSP: true}))
	for device, want := range map[*ca.Issued]int{&listed: ocsp.Revoked, &shown: ocsp.Revoked} {
		request, err := ocsp.CreateRequest(device.Certificate, bought.cert, nil)
		if err != nil {
			t.Fatal(err)
		}
		der, _, err := o.Respond(t.Context(), home, a.ID, request)
		if err != nil {
			t.Fatal(err)
		}
		said, err := ocsp.ParseResponse(der, bought.cert)
		if err != nil || said.Status != want {
			t.Errorf("OCSP says %+v of %s, %v", said, device.Certificate.Subject, err)
		}
	}

	// What was kept for later.
	late := newMaker(t, "Late", nil)
	device := late.device(t, "listed")
	a, err = late.adopt(o, ca.Spec{Name: "late"}, true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Update(t.Context(), home, a.ID, revocation(crls(0)))
	refused(t, "lists later, without what it revoked", err, imprint.CodeInvalidRequest, "nobody said what")
	edit := revocation(crls(0))
	edit.LastCRLs = [][]byte{late.list(7, device.Certificate.SerialNumber)}
	o.edit(a.ID, edit)
	err = o.store.View(t.Context(), func(tx imprint.ReadTx) error { return revoked.Refusal(tx, home, device.Certificate) })
	refused(t, "registering what it revoked before", err, imprint.CodeCertificateRevoked, "by its issuer")
	o.publish()
	if l := o.list(server, a, ".crl"); l.Number.Int64() != 8 || len(l.RevokedCertificateEntries) != 1 {
		t.Errorf("its first list has number %s and %d entries", l.Number, len(l.RevokedCertificateEntries))
	}
	_, err = newMaker(t, "New", nil).adopt(o, ca.Spec{Name: "new", Revocation: crls(0), IssuedNothing: true}, true)
	if err != nil {
		t.Errorf("one that issued nothing: %v", err)
	}
}

// TestAnIntermediateOnACRLOfBeforeIsRevoked, which was here before its issuer.
func TestAnIntermediateOnACRLOfBeforeIsRevoked(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	above := newMaker(t, "Above", nil)
	below, beside := newMaker(t, "Below", above), newMaker(t, "Beside", above)
	child, err := below.adopt(o, ca.Spec{Name: "below"}, true)
	if err != nil {
		t.Fatal(err)
	}
	sound, err := beside.adopt(o, ca.Spec{Name: "beside"}, true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = above.adopt(o, ca.Spec{Name: "above", LastCRLs: [][]byte{above.list(1, below.cert.SerialNumber)}}, false)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, child.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "x")})
	refused(t, "one that stands on its issuer's list", err, imprint.CodeAuthorityState, "was revoked")
	o.issue(sound.ID, "goes on")
}

// TestEveryCertificateOfALostKeyStandsOnItsIssuersList, also one that the issuer signed before it
// came here.
func TestEveryCertificateOfALostKeyStandsOnItsIssuersList(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := newMaker(t, "Their root", nil)
	third := newMaker(t, "Third party", root)
	above, err := root.adopt(o, ca.Spec{Revocation: crls(0), IssuedNothing: true}, true)
	if err != nil {
		t.Fatal(err)
	}
	a, err := third.adopt(o, ca.Spec{}, true)
	fresh := third.renew()
	if err == nil {
		_, err = o.Import(t.Context(), home, a.ID, pki.EncodeCertificatePEM(fresh.Raw), third.chain)
	}
	if err == nil {
		_, err = o.RevokeAuthority(t.Context(), home, a.ID, imprint.ReasonKeyCompromise)
	}
	if err != nil {
		t.Fatal(err)
	}
	o.publish()
	l := o.list(o.serve(), above, ".crl")
	for _, cert := range []*x509.Certificate{third.cert, fresh} {
		found := false
		for _, entry := range l.RevokedCertificateEntries {
			found = found || entry.SerialNumber.Cmp(cert.SerialNumber) == 0 && entry.ReasonCode == 1
		}
		if !found {
			t.Errorf("the root's list doesn't have %x: %+v", cert.SerialNumber, l.RevokedCertificateEntries)
		}
	}
}

// TestAKeyThatOthersHaveIsRevokedByAnyOfItsCertificates, also when all of them are of a CA
// elsewhere.
func TestAKeyThatOthersHaveIsRevokedByAnyOfItsCertificates(t *testing.T) {
	t.Parallel()
	for reason, stops := range map[imprint.RevocationReason]bool{imprint.ReasonKeyCompromise: true, imprint.ReasonSuperseded: false} {
		o := newOffice(t)
		third := newMaker(t, "Third party", newMaker(t, "Their root", nil))
		a, err := third.adopt(o, ca.Spec{}, true)
		if err == nil {
			a, err = o.Import(t.Context(), home, a.ID, pki.EncodeCertificatePEM(third.renew().Raw), third.chain)
		}
		if err == nil {
			_, err = o.RevokeCertificate(t.Context(), home, third.cert.Raw, reason)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.Issue(t.Context(), home, a.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "x")})
		if stops {
			refused(t, "signing", err, imprint.CodeAuthorityState, "was revoked")
		} else if err != nil {
			t.Errorf("its former certificate was superseded, and it signs no more: %v", err)
		}
	}
}

// TestAnImportedListStopsAnAuthorityAndThoseBelowIt: the CA above it signs elsewhere and says
// on its list that it took it back, or took back one between them that is known by its chain
// alone; for as long as it says so.
func TestAnImportedListStopsAnAuthorityAndThoseBelowIt(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := newMaker(t, "Their root", nil)
	_, err := root.adopt(o, ca.Spec{Name: "root"}, false)
	if err != nil {
		t.Fatal(err)
	}
	line7 := newMaker(t, "Line 7", root)
	between := newMaker(t, "Between", root)
	line8 := newMaker(t, "Line 8", between)
	seven, err := line7.adopt(o, ca.Spec{Name: "line7"}, true)
	if err != nil {
		t.Fatal(err)
	}
	eight, err := line8.adopt(o, ca.Spec{Name: "line8"}, true)
	if err != nil {
		t.Fatal(err)
	}
	press := o.below(seven.ID, "press")
	lists := foreign.New(foreign.Options{Store: o.store, Clock: o.clock, Logger: slog.New(slog.DiscardHandler)})
	for n, listed := range []*x509.Certificate{nil, line7.cert, nil, between.cert} {
		var serials []*big.Int
		if listed != nil {
			serials = append(serials, listed.SerialNumber)
		}
		_, err = lists.Import(t.Context(), home, foreign.Request{CA: root.cert, Data: root.list(int64(n+1), serials...)})
		if err != nil {
			t.Fatal(err)
		}
		for id, stopped := range map[imprint.AuthorityID]bool{seven.ID: listed == line7.cert, press.ID: listed == line7.cert, eight.ID: listed == between.cert} {
			_, err = o.Issue(t.Context(), home, id, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "unit")})
			if stopped && (imprint.CodeOf(err) != imprint.CodeAuthorityState || !strings.Contains(err.Error(), "is on revocation list")) || !stopped && err != nil {
				t.Errorf("list %d, authority %s, stopped %t: got %v", n+1, id, stopped, err)
			}
		}
	}
}

// broken is a store of which the transactions fail after some.
type broken struct {
	imprint.Store
	left int
}

func (b *broken) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	if b.left <= 0 {
		return errors.New("the disk is full")
	}
	b.left--
	return b.Store.Update(ctx, fn)
}

// TestWhatFailsToComeBackIsAsItWas: one that is gone for good and is adopted again keeps its
// row, wherever that ends; what stands below it must know it.
func TestWhatFailsToComeBackIsAsItWas(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	theirs := newMaker(t, "Their root", nil)
	root, err := theirs.adopt(o, ca.Spec{Name: "root", IssuedNothing: true}, true)
	if err != nil {
		t.Fatal(err)
	}
	o.edit(root.ID, ca.Edit{Status: imprint.AuthorityDisabled})
	_, err = o.Delete(t.Context(), home, root.ID, 7)
	if err != nil {
		t.Fatal(err)
	}
	o.later(8 * 24 * time.Hour)
	_, err = o.Purge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	row := func() (a imprint.CertificateAuthority) {
		t.Helper()
		err := o.store.View(t.Context(), func(tx imprint.ReadTx) error {
			var err error
			a, err = tx.Authority(home, root.ID)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return a
	}
	before := row()
	store := o.store
	for n := 0; ; n++ {
		o.store = &broken{store, n}
		o.open(o.sealer)
		back, err := theirs.adopt(o, ca.Spec{Name: "root", IssuedNothing: true}, true)
		o.store = store
		if err == nil {
			if back.ID != root.ID || back.Status != imprint.AuthorityActive || row().Certificate == "" {
				t.Errorf("it came back as %+v", back)
			}
			return
		}
		if n > 10 {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, row()); diff != "" {
			t.Errorf("when transactions fail after %d (-before +after):\n%s", n, diff)
		}
	}
}
