package ca_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
)

// made issues a device's certificate and registers it.
func (o *office) made(by imprint.AuthorityID, profile string, request pki.Request) ca.Issued {
	o.t.Helper()
	issued, err := o.Issue(o.t.Context(), home, by, profile, request)
	if err != nil {
		o.t.Fatal(err)
	}
	o.register(issued, "")
	return issued
}

func (o *office) issuance(id imprint.CertificateID) imprint.Issuance {
	o.t.Helper()
	var found imprint.Issuance
	o.update(func(tx imprint.Tx) error {
		var err error
		found, err = tx.IssuanceOfCertificate(home, id)
		return err
	})
	return found
}

// TestALostKeyTakesAllCertificatesOfADevice: it renewed with its key, or got several for it,
// of whatever authority; either of them may be the one that is revoked.
func TestALostKeyTakesAllCertificatesOfADevice(t *testing.T) {
	t.Parallel()
	for reason, lost := range map[imprint.RevocationReason]bool{imprint.ReasonKeyCompromise: true, imprint.ReasonSuperseded: false, imprint.ReasonCACompromise: false} {
		for revoked := range 3 {
			o := newOffice(t)
			root := o.root("root")
			line, next := o.below(root.ID, "line"), o.below(root.ID, "next")
			request := pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1")}
			first := o.made(line.ID, "hour", request)
			renewing := request
			renewing.Renews = first.ID
			all := []ca.Issued{first, o.made(line.ID, "hour", renewing), o.made(next.ID, "again", request)}
			stranger := o.made(line.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: request.RawSubject})
			by := []imprint.AuthorityID{line.ID, line.ID, next.ID}[revoked]
			o.revoke(by, all[revoked], reason)
			for n, c := range all {
				want, wantReason := imprint.CertificateActive, imprint.RevocationReason("")
				if lost || n == revoked {
					want, wantReason = imprint.CertificateRevoked, reason
				}
				if got := o.status(c.ID); got != want {
					t.Errorf("%s of certificate %d: certificate %d is %s in the registry, want %s", reason, revoked, n, got, want)
				}
				if got := o.issuance(c.ID).Reason; got != wantReason {
					t.Errorf("%s of certificate %d: certificate %d is revoked for %q, want %q", reason, revoked, n, got, wantReason)
				}
			}
			if got := o.status(stranger.ID); got != imprint.CertificateActive {
				t.Errorf("%s of certificate %d: that of another key is %s", reason, revoked, got)
			}
		}
	}
}

// TestALostKeyTakesMoreThanOnePageOfCertificates, whatever some of them were revoked for
// before, and also when the record of the first doesn't name the key.
func TestALostKeyTakesMoreThanOnePageOfCertificates(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.below(o.root("root").ID, "line")
	request := pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1")}
	first := o.made(line.ID, "again", request)
	named := o.issuance(first.ID)
	old := named
	old.KeyHash = ""
	o.update(func(tx imprint.Tx) error {
		err := tx.PutIssuance(old)
		for n := range 250 {
			if err != nil {
				return err
			}
			twin := named
			twin.ID, twin.Serial, twin.CertificateID = fmt.Sprintf("%s-%03d", named.ID, n), fmt.Sprintf("f%03d", n), imprint.CertificateID(fmt.Sprintf("%064d", n))
			if n%2 == 0 {
				twin.RevokedAt, twin.Reason = now.Add(-time.Hour), imprint.ReasonSuperseded
			}
			err = tx.PutIssuance(twin)
		}
		return err
	})
	o.revoke(line.ID, first, imprint.ReasonKeyCompromise)
	for n := range 250 {
		got := o.issuance(imprint.CertificateID(fmt.Sprintf("%064d", n)))
		if got.Reason != imprint.ReasonKeyCompromise || got.RevokedAt.IsZero() {
			t.Fatalf("certificate %d of the key is revoked at %s for %q", n, got.RevokedAt, got.Reason)
		}
	}
}

// TestTheLostKeyOfACertificateMadeElsewhere: what was issued for it here goes along.
func TestTheLostKeyOfACertificateMadeElsewhere(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	maker := newMaker(t, "Adopted", nil)
	_, err := maker.adopt(o, ca.Spec{}, true)
	if err != nil {
		t.Fatal(err)
	}
	line := o.below(o.root("root").ID, "line")
	outside := maker.device(t, "SN-1")
	here := o.made(line.ID, "hour", pki.Request{PublicKey: outside.Certificate.PublicKey, RawSubject: subject(t, "SN-1")})
	_, err = o.RevokeCertificate(t.Context(), home, outside.Certificate.Raw, imprint.ReasonKeyCompromise)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.status(here.ID); got != imprint.CertificateRevoked {
		t.Errorf("the certificate that was issued here for its key is %s", got)
	}
	// Also a key for which nothing was issued here before, and whoever asks for another reason after.
	never := maker.device(t, "SN-2")
	for _, reason := range []imprint.RevocationReason{imprint.ReasonKeyCompromise, imprint.ReasonSuperseded} {
		_, err = o.RevokeCertificate(t.Context(), home, never.Certificate.Raw, reason)
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.Issue(t.Context(), home, line.ID, "hour", pki.Request{PublicKey: never.Certificate.PublicKey, RawSubject: subject(t, "SN-2")})
		if imprint.CodeOf(err) != imprint.CodeCertificateWeak || !strings.Contains(err.Error(), string(never.ID)) {
			t.Errorf("a request for the lost key: got %v, want %s", err, imprint.CodeCertificateWeak)
		}
	}
}

// TestAKeyThatIsLostByAListGetsNothing: a CA that comes here brings the list on which it said so,
// and the certificate was registered.
func TestAKeyThatIsLostByAListGetsNothing(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.below(o.root("root").ID, "line")
	maker := newMaker(t, "Adopted", nil)
	lost, sound := maker.device(t, "SN-1"), maker.device(t, "SN-2")
	o.register(lost, "")
	o.register(sound, "")
	_, err := maker.adopt(o, ca.Spec{LastCRLs: [][]byte{maker.list(1, lost.Certificate.SerialNumber)}}, true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Issue(t.Context(), home, line.ID, "hour", pki.Request{PublicKey: lost.Certificate.PublicKey, RawSubject: subject(t, "SN-1")})
	refused(t, "the lost key", err, imprint.CodeCertificateWeak, "number "+pki.SerialHex(lost.Certificate.SerialNumber)+", which was revoked")
	o.made(line.ID, "hour", pki.Request{PublicKey: sound.Certificate.PublicKey, RawSubject: subject(t, "SN-2")})
}

// TestWhatRenewedACertificateOfALostKeyGoes: whoever has the key may have renewed with one
// of his own, at another authority, and again. What it came of stays, and so does a
// certificate that was renewed for another reason.
func TestWhatRenewedACertificateOfALostKeyGoes(t *testing.T) {
	t.Parallel()
	for reason, lost := range map[imprint.RevocationReason]bool{imprint.ReasonKeyCompromise: true, imprint.ReasonSuperseded: false, imprint.ReasonCACompromise: false} {
		o := newOffice(t)
		root := o.root("root")
		line, next := o.below(root.ID, "line"), o.below(root.ID, "next")
		name := subject(t, "SN-1")
		renew := func(by imprint.AuthorityID, old ca.Issued, public any) ca.Issued {
			t.Helper()
			return o.made(by, "hour", pki.Request{PublicKey: public, RawSubject: name, Renews: old.ID})
		}
		before := o.made(line.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: name})
		stolen := renew(line.ID, before, key(t).Public())
		sameKey := renew(line.ID, stolen, stolen.Certificate.PublicKey)
		thief := renew(line.ID, stolen, key(t).Public())
		again := renew(next.ID, thief, key(t).Public())
		ofTwin := renew(next.ID, sameKey, key(t).Public())
		// One in the row was taken back before; what came of it counts on.
		o.revoke(line.ID, thief, imprint.ReasonCessationOfOperation)
		o.revoke(line.ID, stolen, reason)
		for what, c := range map[string]struct {
			cert   ca.Issued
			reason imprint.RevocationReason // why it goes along
		}{
			"that with the same key":       {sameKey, imprint.ReasonKeyCompromise},
			"what renewed the thief's":     {again, imprint.ReasonPrivilegeWithdrawn},
			"what renewed that of the key": {ofTwin, imprint.ReasonPrivilegeWithdrawn},
		} {
			want, wantReason := imprint.CertificateActive, imprint.RevocationReason("")
			if lost {
				want, wantReason = imprint.CertificateRevoked, c.reason
			}
			if status, got := o.status(c.cert.ID), o.issuance(c.cert.ID).Reason; status != want || got != wantReason {
				t.Errorf("%s: %s is %s for %q, want %s for %q", reason, what, status, got, want, wantReason)
			}
		}
		if got := o.issuance(thief.ID).Reason; got != imprint.ReasonCessationOfOperation {
			t.Errorf("%s: what was revoked before is revoked for %s", reason, got)
		}
		if got := o.status(before.ID); got != imprint.CertificateActive {
			t.Errorf("%s: the one that was renewed by it is %s", reason, got)
		}
	}
}

// TestRevokingOnceMoreTakesWhatWasLeft: earlier versions revoked the one certificate alone.
func TestRevokingOnceMoreTakesWhatWasLeft(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.below(o.root("root").ID, "line")
	request := pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1")}
	first := o.made(line.ID, "again", request)
	twin := o.made(line.ID, "again", request)
	renewed := o.made(line.ID, "again", pki.Request{PublicKey: key(t).Public(), RawSubject: request.RawSubject, Renews: first.ID})
	left := o.issuance(first.ID)
	left.RevokedAt, left.Reason = now, imprint.ReasonKeyCompromise
	o.update(func(tx imprint.Tx) error { return tx.PutIssuance(left) })
	o.later(time.Hour)
	o.revoke(line.ID, first, imprint.ReasonKeyCompromise)
	for what, c := range map[string]ca.Issued{"that of the same key": twin, "what renewed it": renewed} {
		if got := o.status(c.ID); got != imprint.CertificateRevoked {
			t.Errorf("%s is %s", what, got)
		}
	}
	if got := o.issuance(first.ID).RevokedAt; !got.Equal(now) {
		t.Errorf("the first is revoked at %s, as it was at %s", got, now)
	}
}

// TestWhoIsConcernedByALostKey: the authorities of all that it takes, and of nothing else.
func TestWhoIsConcernedByALostKey(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	root := o.root("root")
	line, twin, next, other := o.below(root.ID, "line"), o.below(root.ID, "twin"), o.below(root.ID, "next"), o.below(root.ID, "other")
	name, lost := subject(t, "SN-1"), key(t).Public()
	before := o.made(other.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: name})
	first := o.made(line.ID, "again", pki.Request{PublicKey: lost, RawSubject: name, Renews: before.ID})
	same := o.made(twin.ID, "again", pki.Request{PublicKey: lost, RawSubject: name})
	renewed := o.made(next.ID, "hour", pki.Request{PublicKey: key(t).Public(), RawSubject: name, Renews: same.ID})
	builtIn := o.issuance(renewed.ID)
	o.update(func(tx imprint.Tx) error {
		builtIn.ID, builtIn.Authority, builtIn.Serial, builtIn.CertificateID, builtIn.Renews = "built-in", "", "b1", imprint.CertificateID(fmt.Sprintf("%064d", 1)), renewed.ID
		return tx.PutIssuance(builtIn)
	})
	for reason, want := range map[imprint.RevocationReason][]string{
		imprint.ReasonSuperseded:    {line.ARN()},
		imprint.ReasonKeyCompromise: {"*", line.ARN(), twin.ARN(), next.ARN()},
	} {
		got, err := o.Concerned(t.Context(), home, first.Certificate.Raw, reason)
		slices.Sort(got)
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", reason, got, err, want)
		}
	}
}

// TestKeysOfWhatEarlierVersionsIssuedAreNamed: of those whose certificate is stored, in the
// record or in the registry. The others stay as they are and keep nobody waiting.
func TestKeysOfWhatEarlierVersionsIssuedAreNamed(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.below(o.root("root").ID, "line")
	request := pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-1")}
	first := o.made(line.ID, "again", request)
	named := o.issuance(first.ID)
	other := pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "SN-2")}
	builtIn := o.made(line.ID, "again", other)
	registered := o.issuance(builtIn.ID)
	o.update(func(tx imprint.Tx) error {
		for n := range 250 {
			i := named
			i.ID, i.Serial, i.CertificateID, i.KeyHash, i.Certificate = fmt.Sprintf("0-%03d", n), fmt.Sprintf("f%03d", n), imprint.CertificateID(fmt.Sprintf("%064d", n)), "", nil
			if n%2 == 0 {
				i.Certificate = []byte("x")
			}
			err := tx.PutIssuance(i)
			if err != nil {
				return err
			}
		}
		for _, i := range []imprint.Issuance{named, registered} {
			i.KeyHash = ""
			if i.ID == registered.ID {
				i.Certificate = nil
			}
			err := tx.PutIssuance(i)
			if err != nil {
				return err
			}
		}
		return nil
	})
	_, err := o.Issue(t.Context(), home, line.ID, "hour", other)
	if err != nil {
		t.Fatalf("a key that nobody knows: %v", err)
	}
	for range 2 {
		err = o.NameKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []imprint.Issuance{named, registered} {
		if got := o.issuance(want.CertificateID).KeyHash; got != want.KeyHash {
			t.Errorf("the key of %s is named %q, want %q", want.Subject, got, want.KeyHash)
		}
	}
	if got := o.issuance(imprint.CertificateID(fmt.Sprintf("%064d", 7))).KeyHash; got != "" {
		t.Errorf("the key of a certificate that is gone is named %q", got)
	}
	_, err = o.Issue(t.Context(), home, line.ID, "hour", request)
	refused(t, "the key of an earlier version's certificate", err, imprint.CodeKeyReused, string(first.ID))
}
