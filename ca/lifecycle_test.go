package ca_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

// TestARootSignsItsOwnRequestAlone, before it has a certificate and when that is renewed.
func TestARootSignsItsOwnRequestAlone(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "root")})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.ParseCSRPEM(root.CSR)
	if err != nil {
		t.Fatal(err)
	}
	own := pki.RequestOf(csr)
	own.NotAfter = now.AddDate(10, 0, 0)
	foreign := pki.Request{PublicKey: key(t).Public(), RawSubject: root.Subject, NotAfter: own.NotAfter}
	named := own
	named.RawSubject = subject(t, "another name")
	for _, c := range []struct {
		name, profile, words string
		request              pki.Request
	}{
		{"another key", "aws-root-ca", "its own request alone", foreign},
		{"another name", "aws-root-ca", "its own request alone", named},
		{"a profile for devices", "hour", "signs itself by a profile of the kind root", own},
	} {
		_, err = o.SelfSign(t.Context(), home, root.ID, c.profile, c.request)
		refused(t, c.name, err, imprint.CodeInvalidRequest, c.words)
	}
	_, err = o.SelfSign(t.Context(), other, root.ID, "aws-root-ca", own)
	refused(t, "another tenant", err, imprint.CodeNotFound, "doesn't exist")
	sub, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "sub")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.SelfSign(t.Context(), home, sub.ID, "aws-root-ca", own)
	refused(t, "a subordinate", err, imprint.CodeInvalidRequest, "isn't a root")
	for _, at := range []string{"first", "renewal"} {
		issued, err := o.SelfSign(t.Context(), home, root.ID, "aws-root-ca", own)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		// As a file may be, without its last line feed.
		root, err = o.Import(t.Context(), home, root.ID, strings.TrimSpace(issued.PEM), "")
		if err != nil || root.Status != imprint.AuthorityActive || root.CertificateID != issued.ID {
			t.Fatalf("%s: %s, %v", at, root.Status, err)
		}
		_, chain, err := o.Certificate(t.Context(), home, root.ID, root.Serial)
		if err != nil || chain != "" {
			t.Errorf("above a root stands %q, %v", chain, err)
		}
	}
	if got := o.issue(root.ID, "SN-1"); strings.Count(got.Chain, "-----BEGIN CERTIFICATE-----\n") != 1 || !strings.HasSuffix(got.Chain, "-----\n") {
		t.Errorf("the chain is %q", got.Chain)
	}
	_, err = o.Issue(t.Context(), home, root.ID, "aws-root-ca", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "x")})
	refused(t, "a root's profile for another key", err, imprint.CodeInvalidRequest, "signs for itself")
	_, err = o.Update(t.Context(), home, root.ID, ca.Edit{Status: imprint.AuthorityDisabled})
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.SelfSign(t.Context(), home, root.ID, "aws-root-ca", own)
	refused(t, "a disabled root", err, imprint.CodeAuthorityState, "DISABLED")
}

// TestOneTokenIsOneAuthorityAndOneCertificate, also when requests come at once, and for its
// time.
func TestOneTokenIsOneAuthorityAndOneCertificate(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	spec := ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "once"), IdempotencyToken: "once", TokenFor: 5 * time.Minute}
	request := pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1"), Token: "once", TokenFor: 5 * time.Minute}
	const callers = 8
	type made struct {
		authority   imprint.AuthorityID
		certificate imprint.CertificateID
		err         error
	}
	results, begin := make(chan made, callers), make(chan struct{})
	for range callers {
		go func() {
			<-begin
			a, err := o.Create(t.Context(), home, spec)
			i, issueErr := o.Issue(t.Context(), home, root.ID, "again", request)
			if err == nil {
				err = issueErr
			}
			m := made{authority: a.ID, err: err}
			if issueErr == nil {
				m.certificate = i.ID
			}
			results <- m
		}()
	}
	close(begin)
	first := <-results
	for range callers - 1 {
		if next := <-results; next != first || next.err != nil {
			t.Fatalf("got %+v and %+v", first, next)
		}
	}
	different := spec
	different.RawSubject = subject(t, "another")
	_, err := o.Create(t.Context(), home, different)
	refused(t, "the token for another authority", err, imprint.CodeInvalidRequest, "another certificate authority")
	o.later(6 * time.Minute)
	a, err := o.Create(t.Context(), home, spec)
	if err != nil || a.ID == first.authority {
		t.Errorf("after its time the token gives %s, %v", a.ID, err)
	}
	i, err := o.Issue(t.Context(), home, root.ID, "again", request)
	if err != nil || i.ID == first.certificate {
		t.Errorf("after its time the token gives the same certificate, %v", err)
	}
}

// TestALifeOfAnAuthority: disabled, deleted, restored, gone for good with its key.
func TestALifeOfAnAuthority(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	a := o.root("root")
	_, err := o.Delete(t.Context(), home, a.ID, 7)
	refused(t, "deleting one in use", err, imprint.CodeAuthorityState, "is ACTIVE")
	_, err = o.Update(t.Context(), home, a.ID, ca.Edit{Status: imprint.AuthorityPending})
	refused(t, "an odd status", err, imprint.CodeInvalidRequest, "alone")
	off := ca.Edit{Status: imprint.AuthorityDisabled, Profiles: &[]string{"hour"}}
	_, err = o.Update(t.Context(), home, a.ID, off)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Delete(t.Context(), home, a.ID, 6)
	refused(t, "six days", err, imprint.CodeInvalidRequest, "7 to 30")
	_, err = o.Delete(t.Context(), home, a.ID, 7)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Update(t.Context(), home, a.ID, ca.Edit{Status: imprint.AuthorityActive})
	refused(t, "switching a deleted one on", err, imprint.CodeAuthorityState, "DELETED")
	taken := o.root("root") // its name is free
	_, err = o.Restore(t.Context(), home, a.ID)
	refused(t, "restoring one whose name is taken", err, imprint.CodeAlreadyExists, "already")
	name := "other"
	_, err = o.Update(t.Context(), home, taken.ID, ca.Edit{Name: &name})
	if err != nil {
		t.Fatal(err)
	}
	back, err := o.Restore(t.Context(), home, a.ID)
	if err != nil || back.Status != imprint.AuthorityDisabled {
		t.Fatalf("restored: %s, %v", back.Status, err)
	}
	_, err = o.Update(t.Context(), home, a.ID, ca.Edit{Status: imprint.AuthorityActive})
	if err != nil {
		t.Fatal(err)
	}
	o.issue(a.ID, "SN-1")
	_, err = o.Update(t.Context(), home, a.ID, off)
	if err == nil {
		_, err = o.Delete(t.Context(), home, a.ID, 7)
	}
	if err != nil {
		t.Fatal(err)
	}
	o.later(7*24*time.Hour + time.Second)
	_, err = o.Restore(t.Context(), home, a.ID)
	refused(t, "restoring too late", err, imprint.CodeNotFound, "doesn't exist")
	for _, want := range []int{1, 0} {
		gone, err := o.Purge(t.Context())
		if err != nil || gone != want {
			t.Errorf("purged %d, %v; want %d", gone, err, want)
		}
	}
	_, err = o.Authority(t.Context(), home, a.ID)
	refused(t, "what is gone", err, imprint.CodeNotFound, "doesn't exist")
	err = o.store.View(t.Context(), func(tx imprint.ReadTx) error {
		row, err := tx.Authority(home, a.ID)
		if err != nil || row.Key != "" || row.SealedKey != nil || row.Certificate == "" {
			t.Errorf("its row: key %q, %d sealed bytes, certificate %q, %v; want its certificate alone", row.Key, len(row.SealedKey), row.Certificate, err)
		}
		issued, _, err := tx.IssuancesBy(home, a.ID, imprint.Page{Limit: 10})
		if len(issued) != 2 {
			t.Errorf("the record has %d certificates of it, want 2", len(issued))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestARevokedParentIsFoundWithoutAChain: an intermediate that is imported without those
// above it stands below its signer all the same, and a certificate that was revoked before
// isn't taken.
func TestARevokedParentIsFoundWithoutAChain(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	middle := o.below2(root.ID, "middle")
	pending, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "line")})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.ParseCSRPEM(pending.CSR)
	if err != nil {
		t.Fatal(err)
	}
	request := pki.RequestOf(csr)
	request.NotAfter = now.AddDate(5, 0, 0)
	first, err := o.Issue(t.Context(), home, middle.ID, "aws-subordinate-ca-0", request)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Revoke(t.Context(), home, middle.ID, pki.SerialHex(first.Certificate.SerialNumber), imprint.ReasonSuperseded)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Import(t.Context(), home, pending.ID, first.PEM, "")
	refused(t, "a certificate that was revoked", err, imprint.CodeCertificateValidation, "was revoked")
	second, err := o.Issue(t.Context(), home, middle.ID, "aws-subordinate-ca-0", request)
	if err != nil {
		t.Fatal(err)
	}
	line, err := o.Import(t.Context(), home, pending.ID, second.PEM, "")
	if err != nil || line.Parent != middle.ID {
		t.Fatalf("its parent is %q, %v; want %s", line.Parent, err, middle.ID)
	}
	o.issue(line.ID, "SN-1")
	_, err = o.Revoke(t.Context(), home, root.ID, middle.Serial, imprint.ReasonKeyCompromise)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, line.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-2")})
	refused(t, "below a revoked one", err, imprint.CodeAuthorityState, "was revoked")
}

// below2 makes an intermediate that may have others below it.
func (o *office) below2(parent imprint.AuthorityID, name string) imprint.CertificateAuthority {
	o.t.Helper()
	a, err := o.Create(o.t.Context(), home, ca.Spec{Name: name, Type: imprint.AuthoritySubordinate, RawSubject: subject(o.t, name), Parent: parent, Profile: "policy-ca",
		Profiles: []string{ca.AllProfiles}})
	if err != nil {
		o.t.Fatal(err)
	}
	return a
}

// openingKeys run something while a key is opened.
type openingKeys struct {
	slowKeys
	opening func()
}

func (k *openingKeys) Open(ctx context.Context, uri string) (pki.Signer, error) {
	if k.opening != nil {
		k.opening()
	}
	return k.slowKeys.Open(ctx, uri)
}

// TestAChangeWhileAKeyIsOpenedHolds: what was read before it signs nothing, and isn't kept.
func TestAChangeWhileAKeyIsOpenedHolds(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	keys := &openingKeys{}
	profiles, err := pki.NewProfiles()
	if err != nil {
		t.Fatal(err)
	}
	engine := ca.New(ca.Options{Store: o.store, Sealer: nil, Journal: issuelog.New(o.store), Clock: o.clock, Profiles: profiles, Keys: keys})
	t.Cleanup(engine.Close)
	root, err := engine.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "root"), Profile: "root", KeyURI: "module:1"})
	if err != nil {
		t.Fatal(err)
	}
	once := sync.OnceFunc(func() {
		_, err := engine.Update(t.Context(), home, root.ID, ca.Edit{Profiles: &[]string{"server"}})
		if err != nil {
			t.Error(err)
		}
	})
	keys.opening = once
	for _, want := range []imprint.Code{imprint.CodeConflictingUpdate, imprint.CodeAccessDenied} {
		_, err = engine.Issue(t.Context(), home, root.ID, "operational", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1")})
		refused(t, "a profile that was taken away", err, want, "")
	}
}
