package authorities_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/access"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/authorities"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

const home imprint.AccountID = "000000000000"

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// world is the API over a real registry, behind the guard that the server has.
type world struct {
	*testing.T
	store  imprint.Store
	api    *apitest.Server
	region imprint.Region
}

type shown struct {
	ID, ARN, Name, Certificate string
	Profiles                   []string
}

func newWorld(t *testing.T, region imprint.Region) *world {
	t.Helper()
	w := &world{T: t, store: registrytest.New(t), region: region}
	clock := func() time.Time { return noon }
	profiles, err := pki.NewProfiles(pki.ProfileConfig{Name: "again", Kind: pki.KindOperational, Lifetime: time.Hour, AllowKeyReuse: true})
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.LoadOrCreateMasterKey(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	engine := ca.New(ca.Options{Store: w.store, Sealer: seal.New(key), Journal: issuelog.New(w.store), Clock: clock, Profiles: profiles, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(engine.Close)
	guard, err := access.NewGuard(w.store, clock, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guard.Close)
	w.api = apitest.Serve(t, nil, awsapi.Config{Authorize: guard.Authorize}, authorities.Operations(), authorities.Office{Engine: engine, Clock: clock}.Routes())
	return w
}

func (w *world) as(user imprint.UserName, method, path string, body, out any) error {
	w.Helper()
	return w.api.Call(w, apitest.KeyOf(home, user), w.region, method, path, body, out)
}

func (w *world) make(name, parent, profile string, profiles ...string) shown {
	w.Helper()
	body := map[string]any{"type": "ROOT", "name": name, "subject": "/O=Acme/CN=" + name, "profile": profile}
	if parent != "" {
		body["type"], body["parent"] = "SUBORDINATE", parent
	}
	if len(profiles) > 0 {
		body["profiles"] = profiles
	}
	var made shown
	err := w.as(imprint.OperatorUser, "POST", authorities.Path, body, &made)
	if err != nil {
		w.Fatal(err)
	}
	return made
}

// allow gives a user a policy of statements, in which ROOT, LINE and so on stand for ARNs.
func (w *world) allow(user imprint.UserName, statements string, names ...string) {
	w.Helper()
	err := w.store.Update(w.Context(), func(tx imprint.Tx) error {
		err := tx.PutUser(imprint.User{Account: home, Name: user})
		if err != nil {
			return err
		}
		return tx.PutUserPolicy(imprint.UserPolicy{Account: home, User: user, Name: "p",
			Document: `{"Version":"2012-10-17","Statement":[` + strings.NewReplacer(names...).Replace(statements) + `]}`})
	})
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) csr(cn string) string {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
	if err != nil {
		w.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func (w *world) issue(user imprint.UserName, by shown, profile string) (string, error) {
	w.Helper()
	var made struct{ Certificate string }
	err := w.as(user, "POST", authorities.Path+"/"+by.ID+"/certificates", map[string]any{"csr": w.csr("x"), "profile": profile, "notAfter": noon.Add(time.Hour).Unix()}, &made)
	return made.Certificate, err
}

func denied(t *testing.T, what string, err error, text string) {
	t.Helper()
	apitest.WantRefusal(t, what, err, 403, "AccessDeniedException", text)
}

// TestWhoMayRevokeDevicesMayNotRevokeWhatIsDenied: a certificate in a file names its
// authorities by itself, and a Deny of either holds.
func TestWhoMayRevokeDevicesMayNotRevokeWhatIsDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	root := w.make("root", "", "root")
	line, sister := w.make("line", root.ID, "intermediate"), w.make("sister", root.ID, "intermediate")
	w.allow("repairs", `{"Effect":"Allow","Action":"imprint:*","Resource":"*"},{"Effect":"Deny","Action":"imprint:RevokeIssued","Resource":["ROOT","SISTER"]}`,
		"ROOT", root.ARN, "SISTER", sister.ARN)
	w.allow("lines", `{"Effect":"Allow","Action":"imprint:*","Resource":"*"},{"Effect":"Deny","Action":"imprint:RevokeIssued","Resource":"LINE"}`, "LINE", line.ARN)
	revoke := func(user imprint.UserName, certificate string) error {
		return w.as(user, "POST", "/imprint/revocations", map[string]string{"certificate": certificate}, nil)
	}
	device, err := w.issue("repairs", line, "operational")
	if err != nil {
		t.Fatal(err)
	}
	others, err := w.issue("repairs", sister, "operational")
	if err != nil {
		t.Fatal(err)
	}
	denied(t, "an intermediate of a root that is denied", revoke("repairs", line.Certificate), "on resource: "+root.ARN+" with an explicit deny")
	denied(t, "a device of an authority that is denied", revoke("repairs", others), "on resource: "+sister.ARN+" with an explicit deny")
	denied(t, "an intermediate that is denied itself", revoke("lines", line.Certificate), "on resource: "+line.ARN+" with an explicit deny")
	for _, c := range []struct {
		what, certificate string
		user              imprint.UserName
	}{{"a device", device, "repairs"}, {"another intermediate", sister.Certificate, "lines"}} {
		err = revoke(c.user, c.certificate)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	stranger := w.make("root2", "", "root")
	// The same name and number as an issued one's, of another key.
	forged := forge(t, device)
	apitest.WantRefusal(t, "a certificate that looks like an issued one", revoke("repairs", forged), 404, "ResourceNotFoundException", "issued the certificate")
	w.allow("nobody", `{"Effect":"Allow","Action":"imprint:ListAuthorities","Resource":"*"}`)
	for what, certificate := range map[string]string{"one of a CA that is here": stranger.Certificate, "one of nobody here": forged} {
		denied(t, "a caller without the action, "+what, revoke("nobody", certificate), "imprint:RevokeIssued on resource: * because")
	}
}

// TestWhoAdoptsACAMayHaveWhatStandsBelowIt: to revoke it would stop those.
func TestWhoAdoptsACAMayHaveWhatStandsBelowIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "above"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.AddDate(40, 0, 0), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	above, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(above)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template = &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "below"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.AddDate(20, 0, 0), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, template, root, own.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	adopt := func(user imprint.UserName, name string, der []byte) (shown, error) {
		var made shown
		err := w.as(user, "POST", "/imprint/adopted-authorities", map[string]any{"name": name, "certificate": pki.EncodeCertificatePEM(der)}, &made)
		return made, err
	}
	below, err := adopt(imprint.OperatorUser, "below", der)
	if err != nil {
		t.Fatal(err)
	}
	w.allow("bob", `{"Effect":"Allow","Action":"imprint:*","Resource":"*"},{"Effect":"Deny","Action":"imprint:*","Resource":"BELOW"}`, "BELOW", below.ARN)
	_, err = adopt("bob", "above", above)
	denied(t, "one above what is denied", err, "imprint:AdoptAuthority on resource: "+below.ARN)
	_, err = adopt(imprint.OperatorUser, "above", above)
	if err != nil {
		t.Error(err)
	}
}

// TestALostKeyTakesNothingThatIsDenied: what goes along with a certificate for its key is asked
// for, too, as far as the reason takes it.
func TestALostKeyTakesNothingThatIsDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	root := w.make("root", "", "root")
	line, sister := w.make("line", root.ID, "intermediate", "again"), w.make("sister", root.ID, "intermediate", "again")
	w.allow("repairs", `{"Effect":"Allow","Action":"imprint:*","Resource":"*"},{"Effect":"Deny","Action":"imprint:RevokeIssued","Resource":"SISTER"}`, "SISTER", sister.ARN)
	issue := func(by shown, csr string) string {
		t.Helper()
		var made struct{ Certificate string }
		err := w.as(imprint.OperatorUser, "POST", authorities.Path+"/"+by.ID+"/certificates", map[string]any{"csr": csr, "profile": "again", "notAfter": noon.Add(time.Hour).Unix()}, &made)
		if err != nil {
			t.Fatal(err)
		}
		return made.Certificate
	}
	csr := w.csr("x")
	here, there := issue(line, csr), issue(sister, csr)
	revoke := func(user imprint.UserName, certificate, reason string) error {
		return w.as(user, "POST", "/imprint/revocations", map[string]string{"certificate": certificate, "reason": reason}, nil)
	}
	denied(t, "a key of which another authority has a certificate, too", revoke("repairs", here, "KEY_COMPROMISE"), "on resource: "+sister.ARN+" with an explicit deny")
	err := revoke("repairs", here, "SUPERSEDED")
	if err != nil {
		t.Errorf("the certificate alone: %v", err)
	}
	err = revoke(imprint.OperatorUser, there, "KEY_COMPROMISE")
	if err != nil {
		t.Errorf("who may all: %v", err)
	}
}

// TestWhoMayRevokeAllBelowMayNotRevokeWhatIsDenied: neither the authority nor its devices go
// with the one above, on any level.
func TestWhoMayRevokeAllBelowMayNotRevokeWhatIsDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	root := w.make("root", "", "root")
	policy := w.make("policy", root.ID, "policy-ca")
	line := w.make("line", policy.ID, "intermediate")
	w.allow("repairs", `{"Effect":"Allow","Action":"imprint:*","Resource":"*"},{"Effect":"Deny","Action":"imprint:RevokeBelow","Resource":"LINE"}`, "LINE", line.ARN)
	w.allow("tops", `{"Effect":"Allow","Action":"imprint:*","Resource":"POLICY"}`, "POLICY", policy.ARN)
	below := func(user imprint.UserName) error {
		return w.as(user, "POST", authorities.Path+"/"+policy.ID+"/below", map[string]any{}, nil)
	}
	apitest.WantRefusal(t, "one that isn't revoked", below("repairs"), 406, "CertificateStateException", "isn't revoked")
	err := w.as("repairs", "POST", authorities.Path+"/"+policy.ID+"/revocation", map[string]string{"reason": "KEY_COMPROMISE"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	denied(t, "one below that is denied", below("repairs"), "on resource: "+line.ARN+" with an explicit deny")
	denied(t, "who may only the one above", below("tops"), "imprint:RevokeBelow on resource: "+line.ARN)
	err = below(imprint.OperatorUser)
	if err != nil {
		t.Error(err)
	}
}

// TestWhoMayRevokeAnAuthorityMayNotPutItOnADeniedList: its issuer's, and not when its key is that
// of one that is denied.
func TestWhoMayRevokeAnAuthorityMayNotPutItOnADeniedList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	root := w.make("root", "", "root")
	line, sister := w.make("line", root.ID, "intermediate"), w.make("sister", root.ID, "intermediate")
	w.allow("repairs", `{"Effect":"Allow","Action":"imprint:*","Resource":"*"},{"Effect":"Deny","Action":"imprint:RevokeAuthority","Resource":"ROOT"}`, "ROOT", root.ARN)
	w.allow("lines", `{"Effect":"Allow","Action":"imprint:*","Resource":"*"},{"Effect":"Deny","Action":"imprint:RevokeAuthority","Resource":"LINE"}`, "LINE", line.ARN)
	revoke := func(user imprint.UserName, id string) error {
		return w.as(user, "POST", authorities.Path+"/"+id+"/revocation", map[string]string{"reason": "SUPERSEDED"}, nil)
	}
	denied(t, "an intermediate of a root that is denied", revoke("repairs", line.ID), "on resource: "+root.ARN+" with an explicit deny")
	denied(t, "an intermediate that is denied itself", revoke("lines", line.ID), "on resource: "+line.ARN+" with an explicit deny")
	err := revoke("lines", sister.ID)
	if err != nil {
		t.Errorf("another intermediate: %v", err)
	}
	var shown struct {
		RevocationReason string  `json:"revocationReason"`
		RevokedAt        float64 `json:"revokedAt"`
	}
	err = w.as("lines", "GET", authorities.Path+"/"+sister.ID, nil, &shown)
	if err != nil || shown.RevocationReason != "SUPERSEDED" || shown.RevokedAt == 0 {
		t.Errorf("it is shown as %+v, %v", shown, err)
	}
	apitest.WantRefusal(t, "one that isn't there", revoke("lines", "00000000-0000-4000-8000-000000000000"), 404, "ResourceNotFoundException", "doesn't exist")
}

// forge signs a certificate of an issuer and number with a key of its own.
func forge(t *testing.T, text string) string {
	t.Helper()
	cert, err := pki.ParseCertificatePEM(text)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := &x509.Certificate{SerialNumber: cert.SerialNumber, RawSubject: cert.RawIssuer, NotBefore: noon, NotAfter: noon.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: cert.SerialNumber, RawSubject: cert.RawSubject, NotBefore: noon, NotAfter: noon.AddDate(1, 0, 0)},
		issuer, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pki.EncodeCertificatePEM(der)
}

// TestANameIsNoWayRoundADeny of DescribeAuthority.
func TestANameIsNoWayRoundADeny(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	root, open := w.make("root", "", "root"), w.make("open", "", "root")
	w.allow("reader", `{"Effect":"Allow","Action":"imprint:*","Resource":"*"},{"Effect":"Deny","Action":"imprint:DescribeAuthority","Resource":"ROOT"}`, "ROOT", root.ARN)
	for _, name := range []string{root.ID, "root"} {
		denied(t, "the name "+name, w.as("reader", "GET", authorities.Path+"?name="+name, nil, nil), "imprint:DescribeAuthority on resource: "+root.ARN)
	}
	denied(t, "its id", w.as("reader", "GET", authorities.Path+"/"+root.ID, nil, nil), "imprint:DescribeAuthority on resource: "+root.ARN)
	var page struct{ Authorities []shown }
	err := w.as("reader", "GET", authorities.Path+"?name=open", nil, &page)
	if err != nil || len(page.Authorities) != 1 || page.Authorities[0].ID != open.ID {
		t.Errorf("got %+v, %v", page, err)
	}
	apitest.WantRefusal(t, "no authority", w.as("reader", "GET", authorities.Path+"?name=nothing", nil, nil), 404, "ResourceNotFoundException", "nothing")
}

// TestAPolicyLimitsTheProfiles by the condition key of AWS, which has AWS's template where
// the profile is one.
func TestAPolicyLimitsTheProfiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	root := w.make("root", "", "root", ca.AllProfiles)
	w.allow("line", `{"Effect":"Allow","Action":["imprint:IssueByProfile","imprint:CreateAuthority"],"Resource":"*","Condition":{"StringEquals":
	 {"acm-pca:TemplateArn":["arn:aws:acm-pca:::template/imprint-operational/V1","arn:aws:acm-pca:::template/EndEntityClientAuthCertificate/V1"]}}}`)
	w.allow("most", `{"Effect":"Allow","Action":"imprint:*","Resource":"*"},{"Effect":"Deny","Action":"imprint:*","Resource":"*","Condition":{"StringLike":
	 {"acm-pca:TemplateArn":["*/SubordinateCACertificate_*","*/imprint-intermediate/*","*/OCSPSigningCertificate/*"]}}}`)
	for user, ways := range map[imprint.UserName]map[string]bool{
		"line": {"operational": true, "aws-end-entity-client": true, "server": false, "intermediate": false, "aws-subordinate-ca-0": false, "aws-ocsp-signing": false},
		"most": {"operational": true, "aws-end-entity-client": true, "policy-ca": true, "intermediate": false, "aws-subordinate-ca-0": false, "aws-ocsp-signing": false},
	} {
		for profile, allowed := range ways {
			_, err := w.issue(user, root, profile)
			if allowed && err != nil {
				t.Errorf("%s by %s: %v", user, profile, err)
			}
			if !allowed {
				denied(t, string(user)+" by "+profile, err, "imprint:IssueByProfile on resource: "+root.ARN)
			}
		}
		err := w.as(user, "POST", authorities.Path, map[string]any{"type": "SUBORDINATE", "subject": "/CN=below", "parent": root.ID, "profile": "intermediate"}, nil)
		denied(t, string(user)+" makes a CA", err, "imprint:CreateAuthority on resource: "+root.ARN)
	}
}

// TestANewAuthoritySignsNoCAsForOthers until its profiles say so; those that are made here
// it does.
func TestANewAuthoritySignsNoCAsForOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	root := w.make("root", "", "root")
	line := w.make("line", root.ID, "intermediate")
	for _, profile := range []string{"intermediate", "policy-ca", "aws-subordinate-ca-0", "ocsp", "aws-ocsp-signing"} {
		_, err := w.issue(imprint.OperatorUser, root, profile)
		if err == nil || !strings.Contains(err.Error(), "doesn't sign by profile "+profile) {
			t.Errorf("%s: got %v, want a refusal", profile, err)
		}
	}
	_, err := w.issue(imprint.OperatorUser, line, "operational")
	if err != nil {
		t.Error(err)
	}
	for _, profiles := range [][]string{{"operational", "intermediate"}, {ca.AllProfiles}} {
		err = w.as(imprint.OperatorUser, "PATCH", authorities.Path+"/"+root.ID, map[string]any{"profiles": profiles}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.issue(imprint.OperatorUser, root, "intermediate")
		if err != nil {
			t.Errorf("with the profiles %s: %v", profiles, err)
		}
	}
}

// TestTheARNIsThatOfTheRegionsPartition, in what is shown and in what is decided.
func TestTheARNIsThatOfTheRegionsPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "cn-north-1")
	root := w.make("root", "", "root")
	if want := "arn:aws-cn:acm-pca:cn-north-1:000000000000:certificate-authority/" + root.ID; root.ARN != want {
		t.Errorf("got %s, want %s", root.ARN, want)
	}
	w.allow("maker", `{"Effect":"Allow","Action":"imprint:CreateAuthority","Resource":"ROOT","Condition":{"StringEquals":
	 {"acm-pca:TemplateArn":"arn:aws-cn:acm-pca:::template/imprint-intermediate/V1"}}}`, "ROOT", root.ARN)
	err := w.as("maker", "POST", authorities.Path, map[string]any{"type": "SUBORDINATE", "subject": "/CN=below", "parent": root.ID, "profile": "intermediate"}, nil)
	if err != nil {
		t.Error(err)
	}
}
