package audit_test

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/pki"
)

// here puts a CA as an authority of this server, with its certificate.
func (ca *authority) here(h *house, number int, edit func(*imprint.CertificateAuthority)) imprint.CertificateAuthority {
	h.t.Helper()
	row := imprint.CertificateAuthority{
		Tenant: home, ID: imprint.AuthorityID(fmt.Sprintf("00000000-0000-4000-8000-%012d", number)), Name: ca.cert.Subject.CommonName, Type: imprint.AuthoritySubordinate,
		Status: imprint.AuthorityActive, Subject: ca.cert.RawSubject, Certificate: pki.EncodeCertificatePEM(ca.cert.Raw), CertificateID: pki.CertificateID(ca.cert.Raw),
		Serial: pki.SerialHex(ca.cert.SerialNumber), KeyHash: fmt.Sprint(number), NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter,
	}
	if edit != nil {
		edit(&row)
	}
	h.put(func(tx imprint.Tx) error {
		err := tx.PutAuthority(row)
		if err != nil {
			return err
		}
		return tx.PutAuthorityCertificate(imprint.AuthorityCertificate{Tenant: row.Tenant, ID: row.CertificateID, Authority: row.ID, Serial: row.Serial, KeyHash: row.KeyHash})
	})
	return row
}

// Authorities of this server that were revoked, and those below them, have devices that
// are still let in: nobody's list tells of that.
func TestWhatIsBelowARevokedAuthorityOfThisServerIsFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	root := newAuthority(t, "Root", nil)
	lost, good := newAuthority(t, "Lost", root), newAuthority(t, "Good", root)
	below, silent := newAuthority(t, "Below", lost), newAuthority(t, "Silent", lost)
	trunk := root.here(h, 1, nil)
	under := func(parent imprint.CertificateAuthority) func(*imprint.CertificateAuthority) {
		return func(a *imprint.CertificateAuthority) { a.Parent = parent.ID }
	}
	gone := lost.here(h, 2, under(trunk))
	good.here(h, 3, under(trunk))
	last := below.here(h, 4, under(gone))
	off := func(c *imprint.CACertificate) { c.Status = imprint.CAInactive }
	shut, open := with(lost.row(), off), below.row()
	h.cas(shut, good.row(), open, with(silent.row(), off))
	shutDevice, openDevice, unregistered := lost.leaf("shut"), below.leaf("open"), lost.leaf("unregistered")
	unregistered.CAID = ""
	h.certificates(shutDevice, openDevice, unregistered, good.leaf("fine"), with(silent.leaf("over"), status(imprint.CertificateRevoked)))
	h.finds(audit.RevokedCACertificate, 4)
	h.finds(audit.RevokedIntermediate, 4)
	lost.here(h, 2, func(a *imprint.CertificateAuthority) {
		a.Parent, a.RevokedAt, a.RevocationReason = trunk.ID, instant.Add(-day), imprint.ReasonKeyCompromise
	})
	found := h.finds(audit.RevokedCACertificate, 4, ca(shut, "CERTIFICATE_REVOKED_BY_ISSUER"), ca(open, "CERTIFICATE_REVOKED_BY_ISSUER"))
	for _, f := range found {
		device, authority := openDevice, last
		if f.Resource.ID == string(shut.ID) {
			device, authority = shutDevice, gone
		}
		if len(f.Related) != 1 || f.Related[0].ID != string(device.ID) || !strings.Contains(f.Reason, "revoked at 2026-03-03") || !strings.Contains(f.Mitigation, "imprint ca revoke "+string(authority.ID)+" --below") {
			t.Errorf("got %+v, want its device %s, and that authority %s be revoked", f, device.ID, authority.ID)
		}
	}
	found = h.finds(audit.RevokedIntermediate, 4, device(shutDevice, "INTERMEDIATE_CA_REVOKED_BY_ISSUER"), device(openDevice, "INTERMEDIATE_CA_REVOKED_BY_ISSUER"),
		device(unregistered, "INTERMEDIATE_CA_REVOKED_BY_ISSUER"))
	for _, f := range found {
		if f.Severity != imprint.AuditCritical || !strings.Contains(f.Mitigation, "--new-status REVOKED") {
			t.Errorf("got %+v", f)
		}
	}
	h.finds(audit.RevokedDeviceCertificate, 4)
}

// A list that has a CA is about all that is below it: CAs on all levels, and certificates
// that were registered without a CA.
func TestWhatIsBelowACAOnAListIsFound(t *testing.T) {
	t.Parallel()
	root := newAuthority(t, "Root", nil)
	line, good := newAuthority(t, "Line", root), newAuthority(t, "Good", root)
	bench := newAuthority(t, "Bench", newAuthority(t, "Hall", line)) // whose Hall isn't registered
	cell := newAuthority(t, "Cell", line)
	tool := newAuthority(t, "Tool", cell)
	namesake := newAuthority(t, "Line", nil)
	alone := func(c *imprint.Certificate) { c.CAID = "" }
	unregistered, deep, fine, alike := with(line.leaf("unregistered"), alone), with(tool.leaf("deep"), alone), with(good.leaf("fine"), alone), with(namesake.leaf("alike"), alone)
	registered := tool.leaf("registered")
	for name, list := range map[string]func(h *house){
		"imported": func(h *house) {
			h.put(func(tx imprint.Tx) error {
				err := tx.PutForeignList(imprint.ForeignList{Tenant: home, ID: 1, CA: root.row().ID, CAPEM: root.row().PEM, SubjectKey: root.row().SubjectKey,
					Number: "1", NextUpdate: instant.Add(day), Generation: 1, Applied: true})
				if err == nil {
					err = tx.PutForeignRevocation(1, 1, imprint.ForeignRevocation{Serial: line.row().Serial, RevokedAt: instant.Add(-day), Reason: 1})
				}
				return err
			})
		},
		"in the directory": func(h *house) { revoke(t, h.opts.Revocations, "root.pem", root, true, line.cert.SerialNumber) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.opts.Revocations = t.TempDir()
			h.opts.Page = 2
			// A CA may be read before the one that signed it.
			first := with(tool.row(), func(c *imprint.CACertificate) { c.CreatedAt = c.CreatedAt.Add(-day) })
			h.cas(line.row(), good.row(), bench.row(), cell.row(), first)
			h.certificates(unregistered, deep, fine, alike, registered)
			h.finds(audit.RevokedIntermediate, 5)
			list(h)
			found := h.finds(audit.RevokedIntermediate, 5, device(unregistered, "INTERMEDIATE_CA_REVOKED_BY_ISSUER"), device(deep, "INTERMEDIATE_CA_REVOKED_BY_ISSUER"), device(registered, "INTERMEDIATE_CA_REVOKED_BY_ISSUER"))
			for _, f := range found {
				if f.Resource.ID == string(deep.ID) && (len(f.Related) != 1 || f.Related[0].ID != string(tool.row().ID) || !strings.Contains(f.Reason, "CN=Tool was signed by CN=Cell: CN=Cell was signed by CN=Line: ")) {
					t.Errorf("got %+v, want each CA above it", f)
				}
			}
			h.finds(audit.RevokedCACertificate, 5, ca(line.row(), "CERTIFICATE_REVOKED_BY_ISSUER"), ca(cell.row(), "CERTIFICATE_REVOKED_BY_ISSUER"), ca(tool.row(), "CERTIFICATE_REVOKED_BY_ISSUER"))
		})
	}
}

// The devices of a CA that are still ACTIVE aren't always its newest.
func TestRevokedCAsWithOldDevicesAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.opts.Page = 2
	h.opts.Revocations = t.TempDir()
	root := newAuthority(t, "Root", nil)
	line := newAuthority(t, "Line", root)
	shut := with(line.row(), func(c *imprint.CACertificate) { c.Status = imprint.CAInactive })
	h.cas(shut)
	old := line.leaf("old")
	h.certificates(old)
	for n := range 5 {
		h.certificates(with(line.leaf(fmt.Sprint(n)), func(c *imprint.Certificate) {
			c.Status, c.CreatedAt = imprint.CertificateRevoked, instant.Add(time.Duration(n)*time.Second)
		}))
	}
	revoke(t, h.opts.Revocations, "root.pem", root, true, line.cert.SerialNumber)
	found := h.finds(audit.RevokedCACertificate, 1, ca(shut, "CERTIFICATE_REVOKED_BY_ISSUER"))
	if len(found) == 1 && (len(found[0].Related) != 1 || found[0].Related[0].ID != string(old.ID)) {
		t.Errorf("got related %+v, want %s", found[0].Related, old.ID)
	}
	h.finds(audit.RevokedIntermediate, 1, device(old, "INTERMEDIATE_CA_REVOKED_BY_ISSUER"))
}

// What an authority here revoked for another account, and what an imported list has that
// leaves registered certificates alone, may be ACTIVE.
func TestWhatIssuersRevokedElsewhereIsFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line, outside := newAuthority(t, "Line", nil), newAuthority(t, "Outside", nil)
	namesake := newAuthority(t, "Outside", nil)
	issued, listed, fine := line.leaf("issued"), outside.leaf("listed"), outside.leaf("fine")
	alike := namesake.leaf("alike")
	h.cas(outside.row())
	h.certificates(issued, listed, fine, alike)
	h.put(func(tx imprint.Tx) error {
		return tx.PutIssuance(imprint.Issuance{ID: "1", Tenant: other, Serial: issued.Serial, CertificateID: issued.ID, At: instant, NotAfter: issued.NotAfter})
	})
	list := imprint.ForeignList{Tenant: home, ID: 1, CA: pki.CertificateID(outside.cert.Raw), CAPEM: pki.EncodeCertificatePEM(outside.cert.Raw), SubjectKey: pki.SubjectKey(outside.cert.RawSubject),
		Number: "1", NextUpdate: instant.Add(day), Generation: 1, Applied: true, KeepRegistered: true}
	h.put(func(tx imprint.Tx) error { return tx.PutForeignList(list) })
	h.finds(audit.RevokedDeviceCertificate, 4)
	h.put(func(tx imprint.Tx) error {
		err := tx.PutIssuance(imprint.Issuance{ID: "1", Tenant: other, Serial: issued.Serial, CertificateID: issued.ID, At: instant, NotAfter: issued.NotAfter,
			RevokedAt: instant.Add(-day), Reason: imprint.ReasonKeyCompromise})
		for _, c := range []imprint.Certificate{listed, alike} {
			if err == nil {
				err = tx.PutForeignRevocation(1, 1, imprint.ForeignRevocation{Serial: c.Serial, RevokedAt: instant.Add(-day), Reason: 1})
			}
		}
		return err
	})
	found := h.finds(audit.RevokedDeviceCertificate, 4, device(issued, "CERTIFICATE_REVOKED_BY_ISSUER"), device(listed, "CERTIFICATE_REVOKED_BY_ISSUER"))
	for _, f := range found {
		if !strings.Contains(f.Reason, "2026-03-03") || !strings.HasSuffix(f.Reason, "it is ACTIVE here.") {
			t.Errorf("got reason %q", f.Reason)
		}
	}
}

// Where nothing tells what was revoked, or what does is old, compliance says so.
func TestUnknownRevocationsAreSaid(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	h.cas(line.row())
	h.certificates(line.leaf("one"))
	note := func() string {
		t.Helper()
		a := h.auditor()
		defer a.Close()
		var said string
		for _, check := range []imprint.AuditCheck{audit.RevokedDeviceCertificate, audit.RevokedIntermediate, audit.RevokedCACertificate} {
			run := h.await(h.start(a, check).ID).Runs[0]
			if run.Status != imprint.AuditRunCompliant {
				t.Errorf("got %+v, want it to be compliant", run)
			}
			if check != audit.RevokedCACertificate { // whose CAs no list is about
				said = run.Message
			}
		}
		return said
	}
	if got := note(); !strings.Contains(got, "No revocation lists were given") || !strings.Contains(got, "imprint ca crl import") {
		t.Errorf("without lists: got %q", got)
	}
	list := imprint.ForeignList{Tenant: home, ID: 1, CA: line.row().ID, CAPEM: line.row().PEM, SubjectKey: line.row().SubjectKey, Number: "1", NextUpdate: instant.Add(day), Generation: 1, Applied: true}
	put := func() { h.put(func(tx imprint.Tx) error { return tx.PutForeignList(list) }) }
	put()
	if got := note(); got != "" {
		t.Errorf("with a list: got %q", got)
	}
	list.NextUpdate = instant.Add(-day)
	for _, refuse := range []bool{false, true} {
		list.RefuseStale = refuse
		put()
		if got := note(); !strings.Contains(got, "should have been renewed") {
			t.Errorf("with an old list, refusing %t: got %q", refuse, got)
		}
	}
	// A list in the directory grows old as well.
	list.NextUpdate = instant.Add(3 * day)
	put()
	h.opts.Revocations = t.TempDir()
	revoke(t, h.opts.Revocations, "line.crl", line, false)
	if got := note(); got != "" {
		t.Errorf("with a list in the directory: got %q", got)
	}
	h.hands.set(instant.Add(2 * day))
	if got := note(); !strings.Contains(got, "line.crl should have been renewed by 2026-03-05") {
		t.Errorf("with an old list in the directory: got %q", got)
	}
	h.hands.set(instant)
	list.NextUpdate = instant.Add(-day)
	put()
	// Another part of a divided list has it all the same.
	h.put(func(tx imprint.Tx) error {
		part := list
		part.ID, part.Scope = 2, "http://x/2"
		err := tx.PutForeignList(part)
		if err == nil {
			err = tx.PutForeignRevocation(2, 1, imprint.ForeignRevocation{Serial: pki.SerialHex(big.NewInt(77)), RevokedAt: instant})
		}
		return err
	})
	caught := line.leaf("two", func(c *x509.Certificate) { c.SerialNumber = big.NewInt(77) })
	h.certificates(caught)
	h.finds(audit.RevokedDeviceCertificate, 2, device(caught, "CERTIFICATE_REVOKED_BY_ISSUER"))
}
