package ca_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"testing"

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

// all lets an authority sign by every profile, also CAs elsewhere.
func (o *office) all(a imprint.CertificateAuthority) imprint.CertificateAuthority {
	o.t.Helper()
	return o.edit(a.ID, ca.Edit{Profiles: &[]string{ca.AllProfiles}})
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
	policy, sister := o.root("policy"), o.all(o.root("sister"))
	region := o.all(o.below2(policy.ID, "region"))
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
	root := o.all(o.root("root"))
	o.edit(root.ID, revocation(crls(0)))
	before := o.with(root.ID, "line", "intermediate", imprint.RevocationConfiguration{})
	o.registerCA(before.Certificate)
	line := o.renew(root.ID, before)
	o.registerCA(line.Certificate)
	old, fresh := newMaker(t, "x", nil).device(t, "old"), o.issue(line.ID, "fresh")
	o.register(old, before.CertificateID)
	o.register(fresh, line.CertificateID)

	about, err := o.Concerned(t.Context(), home, parse(t, before.Certificate).Raw, imprint.ReasonSuperseded)
	if err != nil || len(about) != 2 {
		t.Errorf("revoking its former certificate is about %d authorities, %v; want the root and itself", len(about), err)
	}
	_, err = o.Revoke(t.Context(), home, root.ID, before.Serial, imprint.ReasonSuperseded)
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
