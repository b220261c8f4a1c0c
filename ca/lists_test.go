package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

func (o *office) serve() *httptest.Server {
	o.t.Helper()
	server := httptest.NewServer(o.Handler())
	o.t.Cleanup(server.Close)
	return server
}

func (o *office) edit(id imprint.AuthorityID, edit ca.Edit) imprint.CertificateAuthority {
	o.t.Helper()
	a, err := o.Update(o.t.Context(), home, id, edit)
	if err != nil {
		o.t.Fatal(err)
	}
	return a
}

func crls(shards int) imprint.RevocationConfiguration {
	return imprint.RevocationConfiguration{CRL: true, CRLDays: 7, CRLShards: shards}
}

func revocation(r imprint.RevocationConfiguration) ca.Edit { return ca.Edit{Revocation: &r} }

// pathOf gives the path of the list that a certificate names.
func pathOf(t *testing.T, i ca.Issued) string {
	t.Helper()
	if len(i.Certificate.CRLDistributionPoints) != 1 {
		t.Fatalf("%s names the lists %q", i.Certificate.Subject, i.Certificate.CRLDistributionPoints)
	}
	_, path, _ := strings.Cut(strings.TrimPrefix(i.Certificate.CRLDistributionPoints[0], "http://"), "/")
	return "/" + path
}

// on says whether a certificate is on the list that it names.
func (o *office) on(server *httptest.Server, a imprint.CertificateAuthority, i ca.Issued) bool {
	o.t.Helper()
	l := o.list(server, a, strings.TrimPrefix(pathOf(o.t, i), "/crl/"+string(home.Account)+"/"+string(home.Region)+"/"+string(a.ID)))
	for _, entry := range l.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(i.Certificate.SerialNumber) == 0 {
			return true
		}
	}
	return false
}

// busyKeys do something each time before they sign.
type busyKeys struct {
	slowKeys
	signing func(ctx context.Context)
}

func (k *busyKeys) Open(context.Context, string) (pki.Signer, error) { return k, nil }

func (k *busyKeys) Generate(ctx context.Context, name string, kind pki.KeyKind) (string, pki.Signer, error) {
	_, _, err := k.slowKeys.Generate(ctx, name, kind)
	return name, k, err
}

func (k *busyKeys) Sign(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.signing != nil {
		k.signing(ctx)
	}
	return k.slowKeys.Sign(ctx, digest, opts)
}

// beside is an engine on the office's registry whose keys are elsewhere.
func (o *office) beside(keys ca.Keys, base string) *ca.Engine {
	o.t.Helper()
	profiles, err := pki.NewProfiles(pki.ProfileConfig{Name: "hour", Kind: pki.KindOperational, Lifetime: time.Hour})
	if err != nil {
		o.t.Fatal(err)
	}
	engine := ca.New(ca.Options{Store: o.store, Sealer: o.sealer, Journal: issuelog.New(o.store), Clock: o.clock, Profiles: profiles, Keys: keys, BaseURL: base})
	o.t.Cleanup(engine.Close)
	return engine
}

// TestARevocationWhileItsListIsSignedIsOnTheNextOne, which is due at once, also when the list
// that was signed was due in the very millisecond of the revocation.
func TestARevocationWhileItsListIsSignedIsOnTheNextOne(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	keys := &busyKeys{}
	engine := o.beside(keys, "http://pki.example.com")
	root, err := engine.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "root"), Profile: "root", KeyURI: "module:1", Revocation: crls(0)})
	if err != nil {
		t.Fatal(err)
	}
	var issued []ca.Issued
	for range 3 {
		i, err := engine.Issue(t.Context(), home, root.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN")})
		if err != nil {
			t.Fatal(err)
		}
		issued = append(issued, i)
	}
	revoke := func(n int) {
		_, err := engine.Revoke(t.Context(), home, root.ID, pki.SerialHex(issued[n].Certificate.SerialNumber), imprint.ReasonSuperseded)
		if err != nil {
			t.Error(err)
		}
	}
	entries := func() int {
		t.Helper()
		n, err := engine.SignDueLists(t.Context())
		if err != nil || n > 1 {
			t.Fatalf("signed %d lists, %v", n, err)
		}
		l, err := engine.List(t.Context(), home, root.ID, imprint.WholeList)
		if err != nil {
			t.Fatal(err)
		}
		return len(parseList(t, l.DER).RevokedCertificateEntries)
	}
	revoke(0)
	keys.signing = func(context.Context) { keys.signing = nil; revoke(1); revoke(2) }
	if got := entries(); got != 1 {
		t.Errorf("the list that was being signed has %d entries, want 1", got)
	}
	o.later(5 * time.Second)
	if got := entries(); got != 3 {
		t.Errorf("the list after it has %d entries, want 3", got)
	}
}

// TestListsFollowEveryLayoutThatCertificatesName: whoever divides the lists anew, joins them or
// moves them loses nothing of what is in the field.
func TestListsFollowEveryLayoutThatCertificatesName(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	line := o.with(root.ID, "line", "intermediate", crls(4))
	server := o.serve()
	moved := crls(6)
	moved.CRLHost = "lists.example.net"
	var bad, good []ca.Issued
	for n, layout := range []imprint.RevocationConfiguration{crls(4), crls(8), crls(0), moved, crls(3)} {
		line = o.edit(line.ID, revocation(layout))
		for range 4 {
			bad, good = append(bad, o.issue(line.ID, fmt.Sprint("bad", n))), append(good, o.issue(line.ID, fmt.Sprint("good", n)))
		}
	}
	off := crls(3)
	off.CRL = false
	line = o.edit(line.ID, revocation(off)) // those in the field still ask
	if unnamed := o.issue(line.ID, "no list"); len(unnamed.Certificate.CRLDistributionPoints) != 0 {
		t.Errorf("a certificate names %q though there are no lists", unnamed.Certificate.CRLDistributionPoints)
	}
	if n := o.publish(); n != 9 {
		t.Errorf("signed %d lists, want 8 and the whole one", n)
	}
	o.later(10 * time.Second)
	for _, i := range bad {
		o.revoke(line.ID, i, imprint.ReasonKeyCompromise)
	}
	o.publish()
	dir := t.TempDir()
	put(t, dir, "ca.pem", []byte(root.Certificate+line.Certificate))
	for n, i := range bad {
		if !o.on(server, line, i) {
			t.Errorf("revoked certificate %d isn't on its list %s", n, pathOf(t, i))
		}
		if o.on(server, line, good[n]) {
			t.Errorf("good certificate %d is on its list", n)
		}
		der := fetch(t, server, pathOf(t, i), http.StatusOK)
		if url := i.Certificate.CRLDistributionPoints[0]; !strings.HasSuffix(url, string(line.ID)+".crl") && !bytes.Contains(der, []byte(url)) {
			t.Errorf("list %s doesn't name itself", url)
		}
		if n%4 != 0 {
			continue
		}
		put(t, dir, "list.der", der)
		put(t, dir, "bad.pem", []byte(i.PEM))
		if out, err := openssl(t, dir, "crl", "-inform", "der", "-in", "list.der", "-out", "list.pem", "-CAfile", "ca.pem"); err != nil || !strings.Contains(out, "verify OK") {
			t.Errorf("openssl crl: %v: %s", err, out)
		}
		verify := func(file string) (string, error) {
			return openssl(t, dir, "verify", "-attime", fmt.Sprint(o.clock().Unix()), "-crl_check", "-CRLfile", "list.pem", "-CAfile", "ca.pem", file)
		}
		if out, err := verify("bad.pem"); err == nil || !strings.Contains(out, "certificate revoked") {
			t.Errorf("openssl verify of revoked certificate %d: %s", n, out)
		}
		put(t, dir, "list.der", fetch(t, server, pathOf(t, good[n]), http.StatusOK))
		put(t, dir, "good.pem", []byte(good[n].PEM))
		if out, err := openssl(t, dir, "crl", "-inform", "der", "-in", "list.der", "-out", "list.pem"); err != nil {
			t.Errorf("openssl crl: %v: %s", err, out)
		}
		if out, err := verify("good.pem"); err != nil {
			t.Errorf("openssl verify of good certificate %d: %s", n, out)
		}
	}
}

// TestCertificatesNameTheirListsAsTheyWereConfigured, whatever the server is started with
// after.
func TestCertificatesNameTheirListsAsTheyWereConfigured(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.with(o.root("root").ID, "line", "intermediate", crls(4))
	o.issue(line.ID, "first")
	for _, base := range []string{"", "http://elsewhere.example.com"} {
		engine := o.beside(nil, base)
		i, err := engine.Issue(t.Context(), home, line.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "x")})
		if err != nil {
			t.Fatal(err)
		}
		if got := i.Certificate.CRLDistributionPoints; len(got) != 1 || !strings.HasPrefix(got[0], "http://pki.example.com/crl/") {
			t.Errorf("with the URL %q certificates name %q", base, got)
		}
		_, err = engine.SignDueLists(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l, err := engine.List(t.Context(), home, line.ID, 1)
		if err != nil || !bytes.Contains(l.DER, []byte("http://pki.example.com/crl/")) {
			t.Errorf("with the URL %q list 1 doesn't say of which certificates it is: %v", base, err)
		}
	}
	engine := o.beside(nil, "http://elsewhere.example.com")
	_, err := engine.Update(t.Context(), home, line.ID, revocation(crls(4)))
	if err != nil {
		t.Fatal(err)
	}
	o.later(time.Hour * 24 * 6)
	_, err = engine.SignDueLists(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, err := engine.List(t.Context(), home, line.ID, 1)
	for _, url := range []string{"http://pki.example.com/crl/", "http://elsewhere.example.com/crl/"} {
		if err != nil || !bytes.Contains(l.DER, []byte(url)) {
			t.Errorf("list 1 isn't that at %s: %v", url, err)
		}
	}
	nowhere := o.beside(nil, "")
	_, err = nowhere.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "x"), Profile: "root", Revocation: crls(4)})
	refused(t, "divided lists that nobody could tell apart", err, imprint.CodeInvalidRequest, "must name where they are")
}

// TestNumbersOfListsOnlyGrow, whatever becomes of the lists between.
func TestNumbersOfListsOnlyGrow(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root, err := o.Create(t.Context(), home, ca.Spec{Name: "root", Type: imprint.AuthorityRoot, RawSubject: subject(t, "root"), Profile: "root", Profiles: []string{ca.AllProfiles}})
	if err != nil {
		t.Fatal(err)
	}
	pending, err := o.Create(t.Context(), home, ca.Spec{Name: "line", Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "line"), Revocation: crls(4)})
	if err != nil {
		t.Fatal(err)
	}
	certify := func() imprint.CertificateAuthority {
		t.Helper()
		csr, err := pki.ParseCSRPEM(pending.CSR)
		if err != nil {
			t.Fatal(err)
		}
		request := pki.RequestOf(csr)
		request.NotAfter = o.clock().AddDate(0, 0, 30)
		i, err := o.Issue(t.Context(), home, root.ID, "aws-subordinate-ca-0", request)
		if err != nil {
			t.Fatal(err)
		}
		a, err := o.Import(t.Context(), home, pending.ID, i.PEM, root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	line := certify()
	server := o.serve()
	numbers := map[int]int64{}
	next := func(what string, shards ...int) {
		t.Helper()
		o.later(time.Minute)
		o.publish()
		for _, shard := range shards {
			l, err := o.List(t.Context(), home, line.ID, shard)
			if err != nil || l.Number <= numbers[shard] || parseList(t, l.DER).Number.Int64() != l.Number {
				t.Errorf("%s: list %d has number %d after %d, %v", what, shard, l.Number, numbers[shard], err)
			}
			numbers[shard] = l.Number
		}
	}
	next("at first", 0, 1, 2, 3)
	path := "/crl/" + string(home.Account) + "/" + string(home.Region) + "/" + string(line.ID) + "/3.crl"
	off := crls(4)
	off.CRL = false
	o.edit(line.ID, revocation(off))
	o.publish()
	fetch(t, server, path, http.StatusNotFound) // no certificate names it
	o.edit(line.ID, revocation(crls(4)))
	fetch(t, server, path, http.StatusServiceUnavailable)
	next("off and on", 0, 1, 2, 3)
	o.edit(line.ID, revocation(crls(2)))
	o.publish()
	fetch(t, server, path, http.StatusNotFound)
	o.edit(line.ID, revocation(crls(4)))
	next("fewer and more", 2, 3)
	o.later(31 * 24 * time.Hour)
	o.publish()
	fetch(t, server, path, http.StatusNotFound) // it has expired
	line = certify()
	next("expired and renewed", 0, 1, 2, 3)
	o.edit(line.ID, ca.Edit{Status: imprint.AuthorityDisabled})
	_, err = o.Delete(t.Context(), home, line.ID, 7)
	if err != nil {
		t.Fatal(err)
	}
	o.later(7*24*time.Hour + time.Second)
	_, err = o.Purge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.publish()
	fetch(t, server, path, http.StatusNotFound)
	theirs, err := o.Adopt(t.Context(), home, ca.Spec{Name: "line"}, line.Certificate, root.Certificate, nil)
	if err != nil || theirs.ID != line.ID || theirs.CreatedAt.Before(line.ChangedAt) {
		t.Errorf("one that was gone comes back as %s, %v; want %s", theirs.ID, err, line.ID)
	}
	err = o.store.View(t.Context(), func(tx imprint.ReadTx) error {
		l, err := tx.RevocationList(home, line.ID, 3)
		if l.Number != numbers[3] || !l.Retired || l.DER != nil {
			t.Errorf("its list 3: %+v, want number %d, retired", l, numbers[3])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnEntryStaysUntilALaterListHadIt: RFC 5280 section 3.3, and lists say that they were made
// a while ago, for clocks that are behind.
func TestAnEntryStaysUntilALaterListHadIt(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.with(o.root("root").ID, "line", "intermediate", crls(0))
	server := o.serve()
	short := o.issue(line.ID, "an hour")
	o.revoke(line.ID, short, imprint.ReasonSuperseded)
	o.publish()
	o.later(2 * time.Hour) // it has ended
	o.revoke(line.ID, o.issue(line.ID, "another"), imprint.ReasonSuperseded)
	o.publish()
	first := o.list(server, line, ".crl")
	if want := o.clock().Add(-time.Hour); !first.ThisUpdate.Equal(want) || len(first.RevokedCertificateEntries) != 2 {
		t.Errorf("made at %s with %d entries, want %s and 2", first.ThisUpdate, len(first.RevokedCertificateEntries), want)
	}
	o.later(3 * time.Hour) // a list that is made because something was revoked
	o.revoke(line.ID, o.issue(line.ID, "a third"), imprint.ReasonSuperseded)
	o.publish()
	o.later(4 * 24 * time.Hour) // a regular one
	o.publish()
	if !o.on(server, line, short) {
		t.Error("the entry isn't on the first regular list after its certificate's end")
	}
	for range 2 {
		o.later(4 * 24 * time.Hour)
		o.publish()
	}
	if o.on(server, line, short) {
		t.Error("the entry stays for ever")
	}
}

// TestAListIsNotSignedEachSecond: what is revoked in the seconds after a signature waits for
// the next one.
func TestAListIsNotSignedEachSecond(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.with(o.root("root").ID, "line", "intermediate", crls(0))
	server := o.serve()
	o.publish()
	signed := 0
	var all []ca.Issued
	for n := range 10 {
		all = append(all, o.issue(line.ID, fmt.Sprint("SN", n)))
		o.later(time.Second)
		o.revoke(line.ID, all[n], imprint.ReasonSuperseded)
		signed += o.publish()
	}
	if signed != 2 {
		t.Errorf("signed %d lists in ten seconds, want 2", signed)
	}
	o.later(5 * time.Second)
	o.publish()
	for n, i := range all {
		if !o.on(server, line, i) {
			t.Errorf("certificate %d isn't on the list", n)
		}
	}
}

// TestASlowKeyKeepsNobodyElsesListWaiting.
func TestASlowKeyKeepsNobodyElsesListWaiting(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	asked := make(chan struct{}, 1)
	keys := &slowKeys{asking: func() {
		select {
		case asked <- struct{}{}:
		default:
		}
	}}
	engine := o.beside(keys, "http://pki.example.com")
	slow, err := engine.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "slow"), Profile: "root", KeyURI: "module:1", Revocation: crls(0)})
	if err != nil {
		t.Fatal(err)
	}
	keys.hang = true
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		engine.PublishLists(ctx)
	}()
	<-asked // it hangs
	quick := o.with(o.root("quick root").ID, "quick", "intermediate", crls(0))
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := engine.List(t.Context(), home, quick.ID, imprint.WholeList)
		if err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the quick one has no list: %v", err)
		}
	}
	_, err = engine.List(t.Context(), home, slow.ID, imprint.WholeList)
	refused(t, "the slow one's", err, imprint.CodeUnavailable, "isn't signed yet")
	cancel()
	<-done
}

// TestATenantsListsAreBounded.
func TestATenantsListsAreBounded(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	for n := range 4 {
		o.with(root.ID, fmt.Sprint("line", n), "intermediate", crls(4096))
	}
	_, err := o.Create(t.Context(), home, ca.Spec{Type: imprint.AuthoritySubordinate, RawSubject: subject(t, "x"), Parent: root.ID, Profile: "intermediate", Revocation: crls(2)})
	refused(t, "more lists", err, imprint.CodeLimitExceeded, "at most 16384")
	o.with(root.ID, "whole", "intermediate", crls(0))
}

// TestACertificateNamesNoListsOfAMomentAgo: whoever changes them while a key signs makes the
// request come again.
func TestACertificateNamesNoListsOfAMomentAgo(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	keys := &busyKeys{}
	engine := o.beside(keys, "http://pki.example.com")
	root, err := engine.Create(t.Context(), home, ca.Spec{Type: imprint.AuthorityRoot, RawSubject: subject(t, "root"), Profile: "root", KeyURI: "module:1", Revocation: crls(2)})
	if err != nil {
		t.Fatal(err)
	}
	keys.signing = func(context.Context) {
		keys.signing = nil
		_, err := engine.Update(t.Context(), home, root.ID, revocation(crls(3)))
		if err != nil {
			t.Error(err)
		}
	}
	_, err = engine.Issue(t.Context(), home, root.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "x")})
	refused(t, "a certificate of the lists before", err, imprint.CodeConflictingUpdate, "was changed")
}

// TestWhatAPurgedAuthorityIssuedCanBeRevoked, and its key's certificate, too.
func TestWhatAPurgedAuthorityIssuedCanBeRevoked(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	line := o.with(root.ID, "line", "intermediate", crls(0))
	issued := o.issue(line.ID, "SN-1")
	o.register(issued, line.CertificateID)
	o.purge(line.ID)
	done, err := o.RevokeCertificate(t.Context(), home, issued.Certificate.Raw, imprint.ReasonKeyCompromise)
	if err != nil || done.RevokedAt.IsZero() || o.status(issued.ID) != imprint.CertificateRevoked {
		t.Errorf("got %+v, %v; the registry has %s", done, err, o.status(issued.ID))
	}
	_, err = o.Revoke(t.Context(), home, root.ID, line.Serial, imprint.ReasonKeyCompromise)
	if err != nil {
		t.Error(err)
	}
}

// purge deletes an authority and waits until its key is gone.
func (o *office) purge(id imprint.AuthorityID) {
	o.t.Helper()
	a, err := o.Authority(o.t.Context(), home, id)
	if err == nil && a.RevokedAt.IsZero() {
		o.edit(id, ca.Edit{Status: imprint.AuthorityDisabled})
	}
	if err == nil {
		_, err = o.Delete(o.t.Context(), home, id, 7)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	o.later(7*24*time.Hour + time.Second)
	n, err := o.Purge(o.t.Context())
	if err != nil || n != 1 {
		o.t.Fatalf("purged %d, %v", n, err)
	}
}
