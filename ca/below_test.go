package ca_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
)

func (o *office) update(fn func(imprint.Tx) error) {
	o.t.Helper()
	err := o.store.Update(o.t.Context(), fn)
	if err != nil {
		o.t.Fatal(err)
	}
}

// registerCA opens a CA's devices the way to the registry.
func (o *office) registerCA(cert string) imprint.CertificateID {
	o.t.Helper()
	id := pki.CertificateID(parse(o.t, cert).Raw)
	o.update(func(tx imprint.Tx) error {
		return tx.PutCA(imprint.CACertificate{Tenant: home, ID: id, PEM: cert, Status: imprint.CAActive, AutoRegistration: true})
	})
	return id
}

func (o *office) caStatus(id imprint.CertificateID) imprint.CAStatus {
	o.t.Helper()
	var status imprint.CAStatus
	err := o.store.View(o.t.Context(), func(tx imprint.ReadTx) error {
		a, err := tx.CA(home, id)
		status = a.Status
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return status
}

// maker is a CA that isn't here.
type maker struct {
	cert  *x509.Certificate
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
		signer = by
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
			return o.Adopt(t.Context(), home, spec, m.pem(), "", own)
		}
		return o.Adopt(t.Context(), home, spec, m.pem(), "", nil)
	}
	return m
}

func (m *maker) pem() string { return pki.EncodeCertificatePEM(m.cert.Raw) }

// device makes a certificate that no record knows.
func (m *maker) device(t *testing.T, name string) ca.Issued {
	cert := m.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}}, key(t).Public())
	return ca.Issued{Issued: &pki.Issued{ID: pki.CertificateID(cert.Raw), PEM: pki.EncodeCertificatePEM(cert.Raw), Certificate: cert}}
}

// outside lets a CA elsewhere have a certificate of an authority.
func (o *office) outside(by imprint.AuthorityID, name string) string {
	o.t.Helper()
	i, err := o.Issue(o.t.Context(), home, by, "aws-subordinate-ca-0", pki.Request{PublicKey: key(o.t).Public(), RawSubject: subject(o.t, name), NotAfter: now.AddDate(1, 0, 0)})
	if err != nil {
		o.t.Fatal(err)
	}
	return i.PEM
}

// TestAllLevelsBelowARevokedAuthorityGoAlong: authorities on every level, CAs elsewhere that one
// of them signed, their devices; and nothing beside them.
func TestAllLevelsBelowARevokedAuthorityGoAlong(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	policy, sister := o.root("policy"), o.root("sister")
	region := o.below2(policy.ID, "region")
	line, other := o.below(region.ID, "line"), o.below(sister.ID, "other")
	sold, theirs := o.registerCA(o.outside(region.ID, "sold")), o.registerCA(o.outside(sister.ID, "theirs"))
	for _, a := range []imprint.CertificateAuthority{policy, region, line, other} {
		o.registerCA(a.Certificate)
	}
	stranger := newMaker(t, "stranger", nil)
	var gone, stay []imprint.CertificateID
	for _, by := range []imprint.CertificateAuthority{policy, region, line} {
		i := o.issue(by.ID, "device of "+by.Name)
		o.register(i, by.CertificateID)
		gone = append(gone, i.ID)
	}
	deleted := o.registerCA(o.outside(region.ID, "deleted since"))
	o.update(func(tx imprint.Tx) error { return tx.DeleteCA(home, deleted) })
	for _, by := range []imprint.CertificateID{sold, deleted, line.CertificateID, policy.CertificateID} { // that nobody has a record of
		i := stranger.device(t, "unknown")
		o.register(i, by)
		gone = append(gone, i.ID)
	}
	for _, by := range []imprint.CertificateID{other.CertificateID, theirs} {
		i := stranger.device(t, "unknown")
		o.register(i, by)
		stay = append(stay, i.ID)
	}
	_, err := o.RevokeAuthority(t.Context(), home, policy.ID, imprint.ReasonKeyCompromise)
	if err != nil {
		t.Fatal(err)
	}
	done, err := o.RevokeBelow(t.Context(), home, policy.ID, "")
	if err != nil || done.Next != "" {
		t.Fatalf("left at %q, %v", done.Next, err)
	}
	counts := map[string]int{}
	for _, a := range done.Authorities {
		counts[a.Name] = a.Changed
	}
	// Each its device and its unknown one, region also those of the two CAs elsewhere, and the
	// certificates of those below.
	if want := fmt.Sprint(map[string]int{"policy": 3, "region": 6, "line": 2}); fmt.Sprint(counts) != want || done.Changed() != 11 {
		t.Errorf("revoked %v (%d), want %s (11)", counts, done.Changed(), want)
	}
	for _, id := range gone {
		if got := o.status(id); got != imprint.CertificateRevoked {
			t.Errorf("a device below is %s", got)
		}
	}
	for _, id := range stay {
		if got := o.status(id); got != imprint.CertificateActive {
			t.Errorf("a device beside is %s", got)
		}
	}
	for _, id := range []imprint.CertificateID{policy.CertificateID, region.CertificateID, line.CertificateID, sold} {
		if got := o.caStatus(id); got != imprint.CAInactive {
			t.Errorf("a registered CA below is %s", got)
		}
	}
	for _, id := range []imprint.CertificateID{other.CertificateID, theirs} {
		if got := o.caStatus(id); got != imprint.CAActive {
			t.Errorf("a registered CA beside is %s", got)
		}
	}
	for _, a := range []imprint.CertificateAuthority{region, line} {
		now, err := o.Authority(t.Context(), home, a.ID)
		if err != nil || now.RevokedAt.IsZero() || now.RevocationReason != imprint.ReasonCACompromise {
			t.Errorf("%s was revoked at %s (%s), %v", a.Name, now.RevokedAt, now.RevocationReason, err)
		}
	}
	o.issue(other.ID, "goes on")
	again, err := o.RevokeBelow(t.Context(), home, policy.ID, "")
	if err != nil || again.Changed() != 0 || again.Next != "" {
		t.Errorf("again: %+v, %v", again, err)
	}
}

// TestRevokingAFleetGoesOnWhereItWas: each call does something, however little time it has, and
// all come to an end; whoever begins anew changes nothing that is done.
func TestRevokingAFleetGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.below(o.root("root").ID, "line")
	const fleet = 500
	o.update(func(tx imprint.Tx) error {
		for n := range fleet {
			id := imprint.CertificateID(fmt.Sprintf("%064x", n))
			err := tx.PutCertificate(imprint.Certificate{Tenant: home, ID: id, PEM: "p", Status: imprint.CertificateActive, CAID: line.CertificateID, CreatedAt: now})
			if err == nil {
				err = tx.PutIssuance(imprint.Issuance{ID: fmt.Sprintf("i%04d", n), Tenant: home, Authority: line.ID, Serial: fmt.Sprintf("1%05x", n), CertificateID: id, NotAfter: now.AddDate(1, 0, 0)})
			}
			if err != nil {
				return err
			}
			// As many that were signed elsewhere by its key.
			err = tx.PutCertificate(imprint.Certificate{Tenant: home, ID: "e" + id[1:], PEM: "p", Status: imprint.CertificateActive, CAID: line.CertificateID, CreatedAt: now})
			if err != nil {
				return err
			}
		}
		return nil
	})
	_, err := o.RevokeAuthority(t.Context(), home, line.ID, imprint.ReasonKeyCompromise)
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel() // no time at all
	changed, calls, cursor := 0, 0, ""
	for {
		done, err := o.RevokeBelow(over, home, line.ID, cursor)
		if err != nil {
			t.Fatal(err)
		}
		calls, changed, cursor = calls+1, changed+done.Changed(), done.Next
		if cursor == "" {
			break
		}
		if calls > 100 {
			t.Fatal("it doesn't end")
		}
	}
	if changed != 2*fleet || calls < 5 {
		t.Errorf("revoked %d in %d calls, want %d in some", changed, calls, 2*fleet)
	}
	done, err := o.RevokeBelow(t.Context(), home, line.ID, "")
	if err != nil || done.Changed() != 0 || done.Next != "" {
		t.Errorf("again: %+v, %v", done, err)
	}
	_, err = o.RevokeBelow(t.Context(), home, line.ID, "nonsense")
	refused(t, "a cursor that isn't one", err, imprint.CodeInvalidRequest, "cursor")
}

// TestARevokedAuthorityIsRememberedForEver: when its row is purged, and when it comes here after
// those that it signed.
func TestARevokedAuthorityIsRememberedForEver(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	policy := o.below2(root.ID, "policy")
	line := o.below(policy.ID, "line")
	o.issue(line.ID, "before")
	issued := o.issue(policy.ID, "never seen")
	_, err := o.Revoke(t.Context(), home, root.ID, policy.Serial, imprint.ReasonKeyCompromise)
	if err != nil {
		t.Fatal(err)
	}
	o.purge(policy.ID)
	_, err = o.Issue(t.Context(), home, line.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "after")})
	refused(t, "below one that was purged", err, imprint.CodeAuthorityState, "was revoked")
	err = o.store.View(t.Context(), func(tx imprint.ReadTx) error { return revoked.Refusal(tx, home, issued.Certificate) })
	refused(t, "registering its device", err, imprint.CodeCertificateRevoked, "was revoked")
	_, err = o.Adopt(t.Context(), home, ca.Spec{}, policy.Certificate, root.Certificate, nil)
	refused(t, "taking it in again", err, imprint.CodeCertificateValidation, "was revoked")

	above := newMaker(t, "Above", nil)
	below := newMaker(t, "Below", above)
	child, err := below.adopt(o, ca.Spec{Name: "below"}, true)
	if err != nil {
		t.Fatal(err)
	}
	o.issue(child.ID, "before")
	parent, err := above.adopt(o, ca.Spec{Name: "above"}, false)
	if err != nil {
		t.Fatal(err)
	}
	child, err = o.Authority(t.Context(), home, child.ID)
	if err != nil || child.Parent != parent.ID {
		t.Errorf("the parent that came later isn't its parent: %q, %v", child.Parent, err)
	}
	_, err = o.RevokeAuthority(t.Context(), home, parent.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, child.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "after")})
	refused(t, "below one that came later", err, imprint.CodeAuthorityState, "was revoked")
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

// renew gives an intermediate another certificate.
func (o *office) renew(by imprint.AuthorityID, a imprint.CertificateAuthority) imprint.CertificateAuthority {
	o.t.Helper()
	csr, err := pki.ParseCSRPEM(a.CSR)
	if err != nil {
		o.t.Fatal(err)
	}
	request := pki.RequestOf(csr)
	request.NotAfter = now.AddDate(9, 0, 0)
	i, err := o.Issue(o.t.Context(), home, by, "aws-subordinate-ca-0", request)
	if err == nil {
		a, err = o.Import(o.t.Context(), home, a.ID, i.PEM, i.Chain)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return a
}

// TestTheFormerCertificateOfAnAuthority: revoked for its own sake it takes nothing along, revoked
// because of its key all that has the key, and what was registered for any of them.
func TestTheFormerCertificateOfAnAuthority(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	o.edit(root.ID, revocation(crls(0)))
	before := o.with(root.ID, "line", "intermediate", imprint.RevocationConfiguration{})
	o.registerCA(before.Certificate)
	line := o.renew(root.ID, before)
	o.registerCA(line.Certificate)
	old, fresh := newMaker(t, "x", nil).device(t, "old"), o.issue(line.ID, "fresh")
	o.register(old, before.CertificateID)
	o.register(fresh, line.CertificateID)

	_, err := o.Revoke(t.Context(), home, root.ID, before.Serial, imprint.ReasonSuperseded)
	if err != nil {
		t.Fatal(err)
	}
	o.issue(line.ID, "goes on")
	if one, two := o.caStatus(before.CertificateID), o.caStatus(line.CertificateID); one != imprint.CAInactive || two != imprint.CAActive {
		t.Errorf("registered CAs: the former is %s, the present %s", one, two)
	}
	_, err = o.RevokeBelow(t.Context(), home, line.ID, "")
	refused(t, "below one that isn't revoked", err, imprint.CodeAuthorityState, "isn't revoked")

	_, err = o.Revoke(t.Context(), home, root.ID, before.Serial, imprint.ReasonKeyCompromise)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, line.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "x")})
	refused(t, "signing with a key that others have", err, imprint.CodeAuthorityState, "was revoked")
	if got := o.caStatus(line.CertificateID); got != imprint.CAInactive {
		t.Errorf("the present certificate is registered %s", got)
	}
	o.publish()
	l := o.list(o.serve(), root, ".crl")
	for _, want := range []string{before.Serial, line.Serial} {
		found := false
		for _, entry := range l.RevokedCertificateEntries {
			found = found || pki.SerialHex(entry.SerialNumber) == want && entry.ReasonCode == 1
		}
		if !found {
			t.Errorf("the root's list doesn't have serial number %s for its key: %+v", want, l.RevokedCertificateEntries)
		}
	}
	_, err = o.RevokeBelow(t.Context(), home, line.ID, "")
	if err != nil || o.status(old.ID) != imprint.CertificateRevoked || o.status(fresh.ID) != imprint.CertificateRevoked {
		t.Errorf("devices of the former certificate are %s, of the present %s, %v", o.status(old.ID), o.status(fresh.ID), err)
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
			a, err = o.Import(t.Context(), home, a.ID, pki.EncodeCertificatePEM(third.renew().Raw), "")
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

// TestACertificateOfEqualNameAndNumberRevokesNothing of ours.
func TestACertificateOfEqualNameAndNumberRevokesNothing(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.below(o.root("root").ID, "line")
	issued := o.issue(line.ID, "SN-1")
	imposter := newMaker(t, "x", nil)
	imposter.cert.RawSubject = line.Subject // its issuer's name
	twin := imposter.sign(&x509.Certificate{SerialNumber: issued.Certificate.SerialNumber, Subject: pkix.Name{CommonName: "twin"}}, key(t).Public())
	if string(twin.RawIssuer) != string(line.Subject) {
		t.Fatal("the twin isn't one")
	}
	_, err := o.RevokeCertificate(t.Context(), home, twin.Raw, imprint.ReasonKeyCompromise)
	refused(t, "a twin", err, imprint.CodeNotFound, "no certificate authority")
	found, _, err := o.Certificate(t.Context(), home, line.ID, pki.SerialHex(issued.Certificate.SerialNumber))
	if err != nil || !found.RevokedAt.IsZero() {
		t.Errorf("ours was revoked at %s, %v", found.RevokedAt, err)
	}
}

// TestOtherRegionsOfTheAccountFollow, and other accounts decide for themselves.
func TestOtherRegionsOfTheAccountFollow(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	issued := o.issue(o.below(o.root("root").ID, "line").ID, "SN-1")
	elsewhere := imprint.Tenant{Account: home.Account, Region: "eu-central-1"}
	for _, tenant := range []imprint.Tenant{home, elsewhere, other} {
		o.update(func(tx imprint.Tx) error {
			return tx.PutCertificate(imprint.Certificate{Tenant: tenant, ID: issued.ID, PEM: issued.PEM, Status: imprint.CertificateActive})
		})
	}
	_, err := o.RevokeCertificate(t.Context(), home, issued.Certificate.Raw, imprint.ReasonKeyCompromise)
	if err != nil {
		t.Fatal(err)
	}
	for tenant, want := range map[imprint.Tenant]imprint.CertificateStatus{home: imprint.CertificateRevoked, elsewhere: imprint.CertificateRevoked, other: imprint.CertificateActive} {
		err = o.store.View(t.Context(), func(tx imprint.ReadTx) error {
			c, err := tx.Certificate(tenant, issued.ID)
			if c.Status != want {
				t.Errorf("in %s it is %s, want %s", tenant, c.Status, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
