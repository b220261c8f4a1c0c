package est_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// always lets devices renew at any time.
func always(label *imprint.EnrolmentLabel) { label.Window, _ = imprint.ParseRenewalWindow("always") }

// A certificate is renewed by its own profile: who may only renew gets nothing else at the
// other labels of its CA, neither by renewal nor with a key that the server makes.
func TestARenewalKeepsTheProfile(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	l.label("ops", always)
	l.label("srv", always, func(label *imprint.EnrolmentLabel) { label.Profile, label.ServerKeys = "server", true })
	l.label("claims", always, func(label *imprint.EnrolmentLabel) { label.Profile = "claim-certificate" })
	device, _ := l.enrolled("SN-1", "api.example.com")
	for _, operation := range []string{"simplereenroll", "serverkeygen"} {
		l.as(device).post("srv", operation, csr(t, newKey(t), name("SN-1"))).want(t, http.StatusForbidden, "Renew at a label of profile year")
	}
	if a := l.attempt(); a.Code != imprint.CodeEnrolmentDenied {
		t.Errorf("got code %s", a.Code)
	}
	l.as(device).post("ops", "simplereenroll", csr(t, newKey(t), name("SN-1"))).certificate(t)

	key := newKey(t)
	parsed, err := x509.ParseCertificateRequest(csr(t, key, name("batch 5")))
	fatal(t, err)
	issued, err := l.engine.Issue(t.Context(), home, l.seven.ID, "claim-certificate", pki.RequestOf(parsed))
	fatal(t, err)
	claim := pairOf(key, issued.Certificate)
	l.as(claim).post("ops", "simplereenroll", csr(t, newKey(t), name("batch 5"))).want(t, http.StatusForbidden, "a renewal keeps the profile")
	l.as(claim).post("claims", "simplereenroll", csr(t, newKey(t), name("batch 5"))).certificate(t)
	// Its successor would have no guard.
	l.update(func(tx imprint.Tx) error {
		err := tx.PutCertificate(imprint.Certificate{Tenant: home, ID: issued.ID, Status: imprint.CertificateActive, NotBefore: issued.Certificate.NotBefore, NotAfter: issued.Certificate.NotAfter})
		if err != nil {
			return err
		}
		return tx.PutClaimGuard(imprint.ClaimGuard{Tenant: home, Claim: issued.ID})
	})
	l.as(claim).post("claims", "simplereenroll", csr(t, newKey(t), name("batch 5"))).want(t, http.StatusBadRequest, "a claim with a guard")
}

// Templates and policies may tell devices apart by any attribute of the subject: who is bound
// to one device brings none that it hasn't got, but for those that all of its CA may have.
func TestWhoIsBoundChoosesNoAttributes(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	maker, stations := newMaker(t, "maker"), newMaker(t, "stations")
	l.label("seven", withPasswords, func(label *imprint.EnrolmentLabel) { label.DeviceCAs, label.StationCAs = maker.pem, stations.pem })
	l.label("fixed", withPasswords, func(label *imprint.EnrolmentLabel) { label.Profile = "fixed" })
	device := l.as(maker.device(pkix.Name{OrganizationalUnit: []string{"Sensors"}, CommonName: "SN-1"}))
	station := l.as(stations.device(name("station-3")))
	bound := func(label imprint.LabelName, id string) *caller { return l.with(id, l.password(label, id, "SN-1")) }
	admin := pkix.Name{OrganizationalUnit: []string{"Admins"}, CommonName: "SN-1"}
	device.post("seven", "simpleenroll", csr(t, newKey(t), admin)).want(t, http.StatusForbidden, "the request's subject has OU=Admins")
	bound("seven", "one").post("seven", "simpleenroll", csr(t, newKey(t), admin)).want(t, http.StatusForbidden, "the request's subject has OU=Admins")
	for what, one := range map[string]struct {
		who     *caller
		label   string
		subject pkix.Name
		want    string
	}{
		"its own":                      {device, "seven", pkix.Name{OrganizationalUnit: []string{"Sensors"}, CommonName: "SN-1"}, "CN=SN-1,OU=Sensors"},
		"its CA's, with a password":    {bound("seven", "two"), "seven", pkix.Name{Organization: []string{"Acme"}, CommonName: "SN-1"}, "CN=SN-1,O=Acme"},
		"what the profile takes away":  {bound("fixed", "three"), "fixed", pkix.Name{Organization: []string{"Other"}, CommonName: "SN-1"}, "CN=SN-1,O=Acme"},
		"a station's choice":           {station, "seven", admin, "CN=SN-1,OU=Admins"},
		"a password that binds nobody": {l.with("four", l.password("seven", "four", "")), "seven", admin, "CN=SN-1,OU=Admins"},
	} {
		cert := one.who.post(one.label, "simpleenroll", csr(t, newKey(t), one.subject)).certificate(t)
		if got := cert.Subject.String(); got != one.want {
			t.Errorf("%s: got %s, want %s", what, got, one.want)
		}
	}
}

// Names of subjectAltName neither, but for what the profile's patterns say.
func TestWhoIsBoundToOneDeviceChoosesNoNames(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	maker, stations := newMaker(t, "maker"), newMaker(t, "stations")
	byThem := func(label *imprint.EnrolmentLabel) { label.DeviceCAs, label.StationCAs = maker.pem, stations.pem }
	l.label("seven", withPasswords, byThem)
	l.label("patterned", withPasswords, byThem, func(label *imprint.EnrolmentLabel) { label.Profile = "patterned" })
	device := l.as(maker.device(name("sn-1.example.com"), "own.example.com"))
	station := l.as(stations.device(name("station-3")))
	bound := func(label imprint.LabelName, id string) *caller {
		return l.with(id, l.password(label, id, "sn-1.example.com"))
	}
	ask := func(dns string) []byte { return csr(t, newKey(t), name("sn-1.example.com"), dns) }
	for _, who := range []*caller{device, bound("seven", "one")} {
		who.post("seven", "simpleenroll", ask("sn-2.example.com")).want(t, http.StatusForbidden, "subjectAltName has dns:sn-2.example.com")
	}
	bound("seven", "two").post("seven", "simpleenroll", ask("own.example.com")).want(t, http.StatusForbidden, "subjectAltName has dns:own.example.com")
	for what, one := range map[string]struct {
		who        *caller
		label, dns string
	}{
		"a name of its certificate":      {device, "seven", "own.example.com"},
		"its common name":                {device, "seven", "sn-1.example.com"},
		"what the password is bound to":  {bound("seven", "three"), "seven", "SN-1.example.com"},
		"the profile's pattern":          {device, "patterned", "site7.example.com"},
		"the profile's, with a password": {bound("patterned", "four"), "patterned", "site7.example.com"},
		"a station's choice":             {station, "seven", "sn-2.example.com"},
		"a password that binds nobody":   {l.with("five", l.password("seven", "five", "")), "seven", "sn-2.example.com"},
	} {
		cert := one.who.post(one.label, "simpleenroll", ask(one.dns)).certificate(t)
		if len(cert.DNSNames) != 1 || !strings.EqualFold(cert.DNSNames[0], one.dns) {
			t.Errorf("%s: got %q, want %q", what, cert.DNSNames, one.dns)
		}
	}
}

// Devices below a CA whose name constraints are about directories renew like others, though
// Go's verifier refuses their certificates.
func TestDevicesBelowACAWithDirectoriesRenew(t *testing.T) {
	t.Parallel()
	l := newLine(t)
	fenced := l.authority("fenced", l.root.ID, "fenced")
	l.label("site", always, withPasswords, func(label *imprint.EnrolmentLabel) { label.Authority = fenced.ID })
	key, acme := newKey(t), pkix.Name{Organization: []string{"Acme"}, CommonName: "SN-1"}
	cert := l.with("one", l.password("site", "one", "")).post("site", "simpleenroll", csr(t, key, acme)).certificate(t)
	renewed := l.as(pairOf(key, cert)).post("site", "simplereenroll", csr(t, newKey(t), acme)).certificate(t)
	if renewed.Subject.String() != cert.Subject.String() {
		t.Errorf("got a certificate of %s, want %s", renewed.Subject, cert.Subject)
	}
}
