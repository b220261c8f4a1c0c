package audit_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
)

const day = 24 * time.Hour

// with changes a row.
func with[T any](value T, change func(*T)) T {
	change(&value)
	return value
}

func status(s imprint.CertificateStatus) func(*imprint.Certificate) {
	return func(c *imprint.Certificate) { c.Status = s }
}

func TestExpiringDeviceCertificatesAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	past, soon, transfer := line.leaf("past", until(instant.Add(-day))), line.leaf("soon", until(instant.Add(30*day))), with(line.leaf("moving", until(instant.Add(day))), status(imprint.CertificatePendingTransfer))
	later, off := line.leaf("later", until(instant.Add(31*day))), with(line.leaf("off", until(instant.Add(day))), status(imprint.CertificateInactive))
	h.certificates(later, off)
	h.finds(audit.DeviceCertificateExpiring, 1)
	h.certificates(past, soon, transfer, with(line.leaf("elsewhere", until(instant.Add(day))), func(c *imprint.Certificate) { c.Tenant = other }))
	found := h.finds(audit.DeviceCertificateExpiring, 4, device(past, "CERTIFICATE_PAST_EXPIRATION"), device(soon, "CERTIFICATE_APPROACHING_EXPIRATION"), device(transfer, "CERTIFICATE_APPROACHING_EXPIRATION"))
	if !strings.Contains(found[0].Mitigation, "aws iot update-certificate --certificate-id "+found[0].Resource.ID+" --new-status INACTIVE") || found[0].Severity != imprint.AuditMedium {
		t.Errorf("got severity %s and mitigation %q", found[0].Severity, found[0].Mitigation)
	}
	h.put(func(tx imprint.Tx) error {
		return tx.PutAuditConfiguration(imprint.AuditConfiguration{Tenant: home, Checks: map[imprint.AuditCheck]imprint.AuditCheckSetting{audit.DeviceCertificateExpiring: {Days: 2}}})
	})
	h.finds(audit.DeviceCertificateExpiring, 4, device(past, "CERTIFICATE_PAST_EXPIRATION"), device(transfer, "CERTIFICATE_APPROACHING_EXPIRATION"))
}

func TestOldDeviceCertificatesAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	from := func(at time.Time) func(*x509.Certificate) { return func(c *x509.Certificate) { c.NotBefore = at } }
	old, young := line.leaf("old", from(instant.Add(-366*day))), line.leaf("young", from(instant.Add(-364*day)))
	h.certificates(young)
	h.finds(audit.DeviceCertificateAge, 1)
	h.certificates(old)
	h.finds(audit.DeviceCertificateAge, 2, device(old, "CERTIFICATE_PAST_AGE_THRESHOLD"))
}

func TestExpiringCAsAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	good := newAuthority(t, "Good", nil).row()
	off := with(newAuthority(t, "Off", nil, until(instant.Add(day))).row(), func(c *imprint.CACertificate) { c.Status = imprint.CAInactive })
	h.cas(good, off)
	h.finds(audit.CACertificateExpiring, 1)
	soon, past := newAuthority(t, "Soon", nil, until(instant.Add(29*day))).row(), newAuthority(t, "Past", nil, until(instant.Add(-day))).row()
	h.cas(soon, past)
	h.finds(audit.CACertificateExpiring, 3, ca(soon, "CERTIFICATE_APPROACHING_EXPIRATION"), ca(past, "CERTIFICATE_PAST_EXPIRATION"))
}

// rocaKey makes a key with the flaw of CVE-2017-15361: primes k*M + 65537^a mod M, with
// M the product of the first primes.
func rocaKey(t *testing.T) *rsa.PublicKey {
	t.Helper()
	m, e := big.NewInt(1), big.NewInt(65537)
	for p, n := int64(2), 0; n < 126; p++ {
		if big.NewInt(p).ProbablyPrime(20) {
			m.Mul(m, big.NewInt(p))
			n++
		}
	}
	prime := func() *big.Int {
		for {
			a, err := rand.Int(rand.Reader, m)
			if err != nil {
				t.Fatal(err)
			}
			k, err := rand.Int(rand.Reader, big.NewInt(1<<53))
			if err != nil {
				t.Fatal(err)
			}
			// The top bit makes the modulus as long as it should be.
			k.SetBit(k, 52, 1)
			p := new(big.Int).Exp(e, a, m)
			p.Add(p, k.Mul(k, m))
			if p.ProbablyPrime(5) {
				return p
			}
		}
	}
	return &rsa.PublicKey{N: new(big.Int).Mul(prime(), prime()), E: 65537}
}

func TestBadKeysOfDevicesAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	sound, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	h.certificates(line.leaf("good"), line.leafOf(sound.Public(), "rsa"), with(line.leaf("gone", until(instant.Add(-day))), status(imprint.CertificateRevoked)))
	h.finds(audit.DeviceCertificateKeyQuality, 2)
	short := &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int).Rsh(sound.N, 1024), 0, 1), E: 65537}
	curve, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, p224, past := line.leafOf(short, "weak"), line.leafOf(curve.Public(), "p224"), line.leaf("past", until(instant.Add(-day)))
	roca := line.leafOf(rocaKey(t), "roca")
	broken := with(line.leaf("broken"), func(c *imprint.Certificate) { c.PEM = "-----BEGIN" })
	h.certificates(weak, p224, past, roca, broken)
	h.finds(audit.DeviceCertificateKeyQuality, 7, device(weak, "CERTIFICATE_KEY_TOO_WEAK"), device(p224, "CERTIFICATE_KEY_TOO_WEAK"), device(past, "CERTIFICATE_PAST_EXPIRATION"),
		device(roca, "CERTIFICATE_KEY_VULNERABILITY_CVE-2017-15361"), device(broken, "CERTIFICATE_INVALID_FORMAT"))
}

func TestBadKeysOfCAsAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	root := newAuthority(t, "Root", nil)
	h.cas(root.row())
	h.finds(audit.CACertificateKeyQuality, 1)
	weak := newAuthority(t, "Roca", nil)
	template := *weak.cert
	template.SerialNumber = nextSerial()
	weak.cert = signed(t, &template, root.cert, rocaKey(t), root.key)
	h.cas(weak.row())
	h.finds(audit.CACertificateKeyQuality, 2, ca(weak.row(), "CERTIFICATE_KEY_VULNERABILITY_CVE-2017-15361"))
}

// attach joins things to a certificate.
func (h *house) attach(c imprint.Certificate, things ...imprint.ThingName) {
	h.t.Helper()
	h.put(func(tx imprint.Tx) error {
		for _, name := range things {
			err := tx.PutThing(imprint.Thing{Tenant: home, Name: name, ID: string(name)})
			if err == nil {
				err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: name, Certificate: c.ID})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func TestCertificatesOfSeveralThingsAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	own, shared, off := line.leaf("own"), line.leaf("shared"), with(line.leaf("off"), status(imprint.CertificateInactive))
	h.certificates(own, shared, off)
	h.attach(own, "a")
	h.attach(off, "a", "b")
	h.finds(audit.DeviceCertificateShared, 2)
	h.attach(shared, "b", "c")
	found := h.finds(audit.DeviceCertificateShared, 2, device(shared, "CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES"))
	if len(found[0].Related) != 2 || found[0].Related[1].Key() != "THING/c" || !strings.Contains(found[0].Mitigation, "detach-thing-principal --principal "+shared.ARN()+" --thing-name c") {
		t.Errorf("got %+v", found[0])
	}
}

func TestThingsWithoutACertificateOfTheirOwnAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	own, shared, exclusive := line.leaf("own"), line.leaf("shared"), line.leaf("exclusive")
	h.certificates(own, shared, exclusive)
	h.attach(own, "a")
	h.put(func(tx imprint.Tx) error {
		err := tx.PutThing(imprint.Thing{Tenant: home, Name: "x"})
		if err != nil {
			return err
		}
		return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: "x", Certificate: exclusive.ID, Exclusive: true})
	})
	h.finds(audit.ThingWithoutCertificate, 2)
	h.attach(shared, "a", "b", "c")
	h.put(func(tx imprint.Tx) error { return tx.PutThing(imprint.Thing{Tenant: home, Name: "lonely"}) })
	h.finds(audit.ThingWithoutCertificate, 5, "THING/b THING_SHARES_ITS_CERTIFICATE", "THING/c THING_SHARES_ITS_CERTIFICATE", "THING/lonely THING_WITHOUT_CERTIFICATE")
}

func TestCertificatesThatWaitForHoursAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	line := newAuthority(t, "Line", nil)
	waiting := func(name string, since time.Duration) imprint.Certificate {
		return with(line.leaf(name), func(c *imprint.Certificate) {
			c.Status, c.CreatedAt = imprint.CertificatePendingActivation, instant.Add(-since)
		})
	}
	h.certificates(line.leaf("active"), waiting("young", 3*time.Hour))
	h.finds(audit.CertificatePending, 2)
	stuck := waiting("stuck", 5*time.Hour)
	h.certificates(stuck)
	h.finds(audit.CertificatePending, 3, device(stuck, "CERTIFICATE_PENDING_FOR_LONG"))
}

// revoke writes a list of a CA, as PEM, and names it.
func revoke(t testing.TB, dir, name string, by *authority, pemCA bool, serials ...*big.Int) {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: instant.Add(-day), NextUpdate: instant.Add(day)}
	for _, serial := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: instant.Add(-day)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, by.cert, by.key)
	if err != nil {
		t.Fatal(err)
	}
	data := der
	if pemCA {
		data = append(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: by.cert.Raw})...)
	}
	err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
	if err != nil {
		t.Fatal(err)
	}
}

// serialOf is the serial number of a row.
func serialOf(t *testing.T, text string) *big.Int {
	t.Helper()
	serial, ok := new(big.Int).SetString(text, 16)
	if !ok {
		t.Fatalf("%q is no serial number", text)
	}
	return serial
}

func TestRevokedDeviceCertificatesThatAreActiveAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.opts.Revocations = t.TempDir()
	line, elsewhere := newAuthority(t, "Line", nil), newAuthority(t, "Elsewhere", nil)
	good, bad, known := line.leaf("good"), line.leaf("bad"), with(line.leaf("known"), status(imprint.CertificateRevoked))
	alike := elsewhere.leaf("alike", func(c *x509.Certificate) { c.SerialNumber = serialOf(t, bad.Serial) })
	abroad, foreign := line.leaf("abroad"), line.leaf("foreign")
	h.cas(line.row(), elsewhere.row())
	h.certificates(good, bad, known, alike, abroad, foreign)
	revokedIn := func(c imprint.Certificate, tenant imprint.Tenant) imprint.Certificate {
		c.Tenant, c.Status = tenant, imprint.CertificateRevoked
		return c
	}
	h.certificates(revokedIn(foreign, other))
	revoke(t, h.opts.Revocations, "line.crl", line, false, serialOf(t, known.Serial))
	h.finds(audit.RevokedDeviceCertificate, 5)
	revoke(t, h.opts.Revocations, "line.crl", line, false, serialOf(t, known.Serial), serialOf(t, bad.Serial))
	h.certificates(revokedIn(abroad, twin))
	h.finds(audit.RevokedDeviceCertificate, 5, device(bad, "CERTIFICATE_REVOKED_BY_ISSUER"), device(abroad, "CERTIFICATE_REVOKED_IN_ANOTHER_REGION"))
}

// Kubernetes mounts each file as a link into a directory that changes with its content.
func TestRevocationListsThatAreLinksAreRead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.opts.Revocations = t.TempDir()
	line := newAuthority(t, "Line", nil)
	bad := line.leaf("bad")
	h.cas(line.row())
	h.certificates(bad)
	mounted := filepath.Join(h.opts.Revocations, "..2026_03_04")
	for _, err := range []error{
		os.Mkdir(mounted, 0o700), os.Symlink("..2026_03_04", filepath.Join(h.opts.Revocations, "..data")),
		os.Symlink(filepath.Join("..data", "line.crl"), filepath.Join(h.opts.Revocations, "line.crl")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	revoke(t, mounted, "line.crl", line, false, serialOf(t, bad.Serial))
	h.finds(audit.RevokedDeviceCertificate, 1, device(bad, "CERTIFICATE_REVOKED_BY_ISSUER"))
}

func TestRevokedCAsWithDevicesAreFound(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.opts.Revocations = t.TempDir()
	root := newAuthority(t, "Root", nil)
	good, open, closed, done := newAuthority(t, "Good", root), newAuthority(t, "Open", root), newAuthority(t, "Closed", root), newAuthority(t, "Done", root)
	off := func(c *imprint.CACertificate) { c.Status = imprint.CAInactive }
	shut, over := with(closed.row(), off), with(done.row(), off)
	leaf := closed.leaf("device")
	h.cas(good.row(), open.row(), shut, over)
	h.certificates(leaf, good.leaf("fine"), with(done.leaf("gone"), status(imprint.CertificateRevoked)))
	// The root isn't registered: its certificate stands beside its list.
	revoke(t, h.opts.Revocations, "root.pem", root, true, done.cert.SerialNumber)
	h.finds(audit.RevokedCACertificate, 4)
	revoke(t, h.opts.Revocations, "root.pem", root, true, done.cert.SerialNumber, open.cert.SerialNumber, closed.cert.SerialNumber)
	found := h.finds(audit.RevokedCACertificate, 4, ca(open.row(), "CERTIFICATE_REVOKED_BY_ISSUER"), ca(shut, "CERTIFICATE_REVOKED_BY_ISSUER"))
	related := append(found[0].Related, found[1].Related...)
	if len(related) != 1 || related[0].ID != string(leaf.ID) {
		t.Errorf("got related resources %+v, want certificate %s", related, leaf.ID)
	}
}

// A list that nobody can vouch for, or that isn't one, must not pass for compliance.
func TestRevocationListsThatCantBeUsedFailTheCheck(t *testing.T) {
	t.Parallel()
	line := newAuthority(t, "Line", nil)
	fake := newAuthority(t, "Line", nil)
	root, elsewhere := newAuthority(t, "Root", nil), newAuthority(t, "Elsewhere", nil)
	below := newAuthority(t, "Below", root)
	leaf, alone := line.leaf("device"), with(elsewhere.leaf("alone"), func(c *imprint.Certificate) { c.CAID = "" })
	for name, write := range map[string]func(dir string){
		"forged":                     func(dir string) { revoke(t, dir, "a.crl", fake, false, serialOf(t, leaf.Serial)) },
		"unknown above a CA":         func(dir string) { revoke(t, dir, "a.crl", root, false) },
		"unknown with a certificate": func(dir string) { revoke(t, dir, "a.crl", elsewhere, false, serialOf(t, alone.Serial)) },
		"garbage":                    func(dir string) { _ = os.WriteFile(filepath.Join(dir, "a.crl"), []byte("garbage"), 0o600) },
		"directory":                  func(dir string) { _ = os.Mkdir(filepath.Join(dir, "a.crl"), 0o700) },
		"link to nothing":            func(dir string) { _ = os.Symlink("absent", filepath.Join(dir, "a.crl")) },
	} {
		h := newHouse(t)
		h.opts.Revocations = t.TempDir()
		h.cas(line.row(), below.row())
		h.certificates(leaf, alone)
		write(h.opts.Revocations)
		a := h.auditor()
		task := h.await(h.start(a, audit.RevokedDeviceCertificate, audit.CACertificateExpiring).ID)
		run := task.Run(audit.RevokedDeviceCertificate)
		if task.Status != imprint.AuditCompleted || run.Status != imprint.AuditRunFailed || run.Code != "REVOCATION_LIST_UNUSABLE" || !strings.Contains(run.Message, "a.crl") || run.NonCompliant != 0 {
			t.Errorf("%s: got %s and %+v, want a failed check that names the file", name, task.Status, *run)
		}
	}
}

// The directory is for all accounts: a list of another's CA is no failure of this one, and
// tells it nothing.
func TestRevocationListsOfOtherAccountsAreNoFailure(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.opts.Revocations = t.TempDir()
	line, theirs := newAuthority(t, "Line", nil), newAuthority(t, "Theirs", nil)
	h.cas(line.row(), with(theirs.row(), func(c *imprint.CACertificate) { c.Tenant = other }))
	leaf, device := line.leaf("device"), theirs.leaf("device")
	device.Tenant = other
	h.certificates(leaf, device)
	revoke(t, h.opts.Revocations, "theirs.crl", theirs, false, serialOf(t, device.Serial))
	run := func() imprint.AuditRun {
		t.Helper()
		a := h.auditor()
		defer a.Close()
		run := h.await(h.start(a, audit.RevokedDeviceCertificate).ID).Runs[0]
		if run.Status != imprint.AuditRunCompliant || run.Code != "" {
			t.Errorf("got %+v, want it to be compliant", run)
		}
		return run
	}
	if got := run().Message; !strings.Contains(got, "No revocation lists were given") {
		t.Errorf("with another account's list: got %q", got)
	}
	revoke(t, h.opts.Revocations, "line.crl", line, false)
	if got := run().Message; got != "" {
		t.Errorf("with a list of its own beside it: got %q", got)
	}
}
