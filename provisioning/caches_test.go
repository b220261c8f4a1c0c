package provisioning

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/template"
)

var (
	quietTenant = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	busyTenant  = imprint.Tenant{Account: "111111111111", Region: "us-east-1"}
)

func newCacheEngine(t *testing.T) *Engine {
	t.Helper()
	e := NewEngine(registrytest.New(t), time.Now, Options{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(e.Close)
	return e
}

func write(t *testing.T, e *Engine, fn func(tx imprint.Tx) error) {
	t.Helper()
	err := e.store.Update(t.Context(), fn)
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnAccountsCAsMakeNoOthersBeForgotten ensures that an account with more CAs than are
// kept costs another account none of its own.
func TestAnAccountsCAsMakeNoOthersBeForgotten(t *testing.T) {
	t.Parallel()
	e := newCacheEngine(t)
	e.cas = fair.NewMemory[caKey, *issuers](3)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made := func(tenant imprint.Tenant, name string) *x509.Certificate {
		t.Helper()
		ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		ca, err = x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		write(t, e, func(tx imprint.Tx) error {
			return tx.PutCA(imprint.CACertificate{
				Tenant: tenant, ID: pki.CertificateID(der), PEM: pki.EncodeCertificatePEM(der), SubjectKey: pki.SubjectKey(ca.RawSubject), Status: imprint.CAActive,
			})
		})
		return ca // signed by itself, it is a leaf of its own
	}
	load := func(tenant imprint.Tenant, leaf *x509.Certificate) *issuers {
		t.Helper()
		found, err := e.issuersOf(t.Context(), tenant, leaf)
		if err != nil || len(found.all) != 1 {
			t.Fatalf("got %v and %v, want one CA", found, err)
		}
		return found
	}
	mine := made(quietTenant, "Line")
	kept := load(quietTenant, mine)
	for n := range 10 {
		load(busyTenant, made(busyTenant, fmt.Sprintf("Line %d", n)))
	}
	if load(quietTenant, mine) != kept {
		t.Error("the CA of an account was read again as another account has many")
	}
}

// TestAnAccountsTemplatesMakeNoOthersBeForgotten ensures the same of templates of fleet
// provisioning.
func TestAnAccountsTemplatesMakeNoOthersBeForgotten(t *testing.T) {
	t.Parallel()
	e := newCacheEngine(t)
	f := &fleetTemplates{known: fair.NewMemory[fleetKey, *fleetTemplate](3)}
	load := func(tenant imprint.Tenant, name string) *fleetTemplate {
		t.Helper()
		found, err := f.find(t.Context(), e, tenant, name)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	const many = 10
	name := func(n int) imprint.TemplateName { return imprint.TemplateName(fmt.Sprintf("line-%d", n)) }
	write(t, e, func(tx imprint.Tx) error {
		for n := range many {
			for _, tenant := range []imprint.Tenant{quietTenant, busyTenant} {
				err := tx.PutTemplate(imprint.ProvisioningTemplate{Tenant: tenant, Name: name(n), Type: imprint.TemplateFleet, DefaultVersion: 1, LastVersion: 1})
				if err != nil {
					return err
				}
				err = tx.PutTemplateVersion(imprint.TemplateVersion{Tenant: tenant, Template: name(n), Version: 1, Body: "{}"})
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	kept := load(quietTenant, "line-0")
	for n := range many {
		load(busyTenant, string(name(n)))
	}
	if load(quietTenant, "line-0") != kept {
		t.Error("the template of an account was read again as another account has many")
	}
}

// TestAnAccountsDocumentsMakeNoOthersBeForgotten ensures the same of policy documents, of
// which a template may have one a device.
func TestAnAccountsDocumentsMakeNoOthersBeForgotten(t *testing.T) {
	t.Parallel()
	d := documents{known: fair.NewMemory[string, error](3)}
	verdict := func(tenant imprint.Tenant, name string) error {
		return d.verdict(tenant.Account, &template.PolicyPlan{LogicalName: name, GeneratedName: name, PolicyDocument: "none"})
	}
	kept := verdict(quietTenant, "a")
	for n := range 10 {
		if verdict(busyTenant, fmt.Sprintf("b%d", n)) == nil {
			t.Fatal("a document that is no policy is taken for one")
		}
	}
	if verdict(quietTenant, "a") != kept {
		t.Error("the document of an account was parsed again as another account has many")
	}
}

// TestAnAccountsFreeClaimsMakeNoOthersBeForgotten ensures the same of claims without a guard,
// and that an account's certificate provider is nothing to another account.
func TestAnAccountsFreeClaimsMakeNoOthersBeForgotten(t *testing.T) {
	t.Parallel()
	f := freeClaims{known: fair.NewMemory[freeClaim, struct{}](3)}
	claimOf := func(tenant imprint.Tenant, n int) freeClaim {
		return freeClaim{guardKey{tenant, imprint.CertificateID(fmt.Sprint(n))}, true}
	}
	f.remember(claimOf(quietTenant, 0), 0)
	for n := range 10 {
		f.remember(claimOf(busyTenant, n), 0)
	}
	f.committed([]imprint.Change{{Kind: imprint.ChangeProvider, Tenant: busyTenant}})
	for tenant, want := range map[imprint.Tenant]bool{quietTenant: true, busyTenant: false} {
		for n := range 10 {
			if known, _ := f.free(claimOf(tenant, n)); known != (want && n == 0) {
				t.Errorf("claim %d of %s: known %t, want %t", n, tenant, known, want && n == 0)
			}
		}
	}
}

// TestWhatIsKnownToHaveChangedIsBounded ensures that an account that changes things in ever
// more regions takes a bounded memory, that each change makes stale what was read before it,
// also when it is forgotten since, and that nothing read after it is read anew, nor anything
// of another account.
func TestWhatIsKnownToHaveChangedIsBounded(t *testing.T) {
	t.Parallel()
	e := &Engine{changed: map[imprint.AccountID]*changes{}}
	regionOf := func(n int) imprint.Tenant {
		return imprint.Tenant{Account: busyTenant.Account, Region: imprint.Region(fmt.Sprintf("eu-west-%d", n))}
	}
	bases := func(tenant imprint.Tenant) []basis {
		of := e.basisOf(tenant)
		withCAs, withTemplate := of, of
		withCAs.cas, withTemplate.templates = true, []imprint.TemplateName{"line"}
		return []basis{withCAs, withTemplate}
	}
	check := func(what string, read []basis, want bool) {
		t.Helper()
		for _, b := range read {
			if got := e.moved(b); got != want {
				t.Errorf("%s: moved is %t, want %t", what, got, want)
			}
		}
	}
	change := func(n int) {
		e.committed([]imprint.Change{
			{Kind: imprint.ChangeCA, Tenant: regionOf(n), Key: "id"},
			{Kind: imprint.ChangeTemplate, Tenant: regionOf(n), Key: "line"},
		})
	}
	others, before := bases(quietTenant), bases(regionOf(0))
	var between []basis
	for n := range maxChanged + 1 {
		if n == maxChanged*3/4 {
			between = bases(regionOf(0))
		}
		change(n)
	}
	after := bases(regionOf(0))
	check("read before changes of others that are remembered", between, false)
	check("read before a change that is forgotten", before, true)
	check("read after it", after, false)
	check("of another account", others, false)
	change(0)
	check("read before a change that is remembered", after, true)
	of := e.changed[busyTenant.Account]
	if len(e.changed) != 1 || len(of.last) != maxChanged {
		t.Errorf("%d changes of %d accounts are known, want %d of one", len(of.last), len(e.changed), maxChanged)
	}
}
