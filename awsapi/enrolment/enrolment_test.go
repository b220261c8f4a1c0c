package enrolment_test

import (
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/access"
	"github.com/imprint-iot/imprint/awsapi/apitest"
	"github.com/imprint-iot/imprint/awsapi/enrolment"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/internal/seal"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/issuelog"
)

var (
	home = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
)

// world is the API over a real registry, behind the guard that the server has.
type world struct {
	*testing.T
	store  imprint.Store
	engine *ca.Engine
	api    *apitest.Server
	at     atomic.Pointer[time.Time]
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, store: registrytest.New(t)}
	w.at.Store(&noon)
	clock := func() time.Time { return *w.at.Load() }
	profiles, err := pki.NewProfiles()
	w.fatal(err)
	key, err := seal.LoadOrCreateMasterKey(filepath.Join(t.TempDir(), "master.key"))
	w.fatal(err)
	w.engine = ca.New(ca.Options{Store: w.store, Sealer: seal.New(key), Journal: issuelog.New(w.store), Clock: clock, Profiles: profiles, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(w.engine.Close)
	guard, err := access.NewGuard(w.store, clock, slog.New(slog.DiscardHandler))
	w.fatal(err)
	t.Cleanup(guard.Close)
	w.api = apitest.Serve(t, nil, awsapi.Config{Authorize: guard.Authorize}, enrolment.Operations(), enrolment.Office{FirstAccount: home.Account, Store: w.store, Engine: w.engine, Clock: clock, URL: func() string { return "" }}.Routes())
	return w
}

func (w *world) fatal(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// root makes a root that signs by some profiles.
func (w *world) root(name string, profiles ...string) imprint.CertificateAuthority {
	w.Helper()
	subject, err := pki.ParseSubject("/CN=" + name)
	w.fatal(err)
	a, err := w.engine.Create(w.Context(), home, ca.Spec{Name: name, Type: imprint.AuthorityRoot, RawSubject: subject, Profile: "root", Profiles: profiles})
	w.fatal(err)
	return a
}

func (w *world) allow(user imprint.UserName, statements string) {
	w.Helper()
	w.fatal(w.store.Update(w.Context(), func(tx imprint.Tx) error {
		err := tx.PutUser(imprint.User{Account: home.Account, Name: user})
		if err != nil {
			return err
		}
		return tx.PutUserPolicy(imprint.UserPolicy{Account: home.Account, User: user, Name: "p", Document: `{"Version":"2012-10-17","Statement":[` + statements + `]}`})
	}))
}

func (w *world) create(user imprint.UserName, label string, by imprint.CertificateAuthority, profile string) error {
	w.Helper()
	return w.api.Call(w, apitest.KeyOf(home.Account, user), home.Region, "POST", enrolment.Path, map[string]any{"label": label, "authority": by.ID, "profile": profile, "passwords": true}, nil)
}

func (w *world) update(user imprint.UserName, label string, body map[string]any) error {
	w.Helper()
	return w.api.Call(w, apitest.KeyOf(home.Account, user), home.Region, "PATCH", enrolment.Path+"/"+label, body, nil)
}

func denied(t *testing.T, what string, err error, text string) {
	t.Helper()
	apitest.WantRefusal(t, what, err, 403, "AccessDeniedException", text)
}

// TestALabelStepsRoundNoDenyOfATemplate: it gives devices what its authority signs by its
// profile, so who makes it or changes it is asked as for a certificate.
func TestALabelStepsRoundNoDenyOfATemplate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root, other := w.root("root"), w.root("other")
	w.allow("bob", `{"Effect":"Allow","Action":"*","Resource":"*"},
	 {"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringLike":{"acm-pca:TemplateArn":"*/imprint-server/V1"}}},
	 {"Effect":"Deny","Action":"*","Resource":"`+other.ARN()+`","Condition":{"StringLike":{"acm-pca:TemplateArn":"*/imprint-idevid/V1"}}}`)
	w.allow("line", `{"Effect":"Allow","Action":"imprint:*","Resource":"*","Condition":{"StringEquals":{"acm-pca:TemplateArn":"arn:aws:acm-pca:::template/imprint-operational/V1"}}}`)
	for _, user := range []imprint.UserName{"bob", "line"} {
		denied(t, string(user)+" makes a label", w.create(user, "srv", root, "server"), "imprint:CreateEnrolmentLabel")
		w.fatal(w.create(user, string(user), root, "operational"))
		denied(t, string(user)+" changes the profile", w.update(user, string(user), map[string]any{"profile": "server"}), "imprint:UpdateEnrolmentLabel")
		w.fatal(w.update(user, string(user), map[string]any{"serverKeys": true}))
	}
	// The authority is asked for with the profile that it will be, whichever of both changes.
	w.fatal(w.update("bob", "bob", map[string]any{"profile": "idevid"}))
	denied(t, "another authority", w.update("bob", "bob", map[string]any{"authority": other.ID}), other.ARN())
	denied(t, "another authority, label and profile", w.create("bob", "more", other, "idevid"), other.ARN())
	w.fatal(w.update("bob", "bob", map[string]any{"authority": other.ID, "profile": "operational"}))
	denied(t, "another profile", w.update("bob", "bob", map[string]any{"profile": "idevid"}), other.ARN())
	// What others made for a profile is nobody's to open who may not have it.
	w.fatal(w.create(imprint.OperatorUser, "srv", root, "server"))
	denied(t, "another's label", w.update("bob", "srv", map[string]any{"passwords": true}), "imprint:UpdateEnrolmentLabel")
	apitest.WantRefusal(t, "no label", w.update("bob", "nothing", map[string]any{"profile": "operational"}), 404, "ResourceNotFoundException", "nothing")
}

// TestALabelIsForWhatItsAuthoritySignsBy: an authority of all profiles, as each of AWS's API
// is, has labels for every profile of devices; one with a list for those of the list.
func TestALabelIsForWhatItsAuthoritySignsBy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := imprint.OperatorUser
	all, none, some := w.root("all", ca.AllProfiles), w.root("none"), w.root("some", "server")
	for name, by := range map[string]imprint.CertificateAuthority{"all": all, "none": none} {
		w.fatal(w.create(operator, name, by, "operational"))
		w.fatal(w.update(operator, name, map[string]any{"passwords": false}))
		w.fatal(w.update(operator, name, map[string]any{"profile": "aws-end-entity"}))
	}
	w.fatal(w.create(operator, "some", some, "server"))
	for what, err := range map[string]error{
		"a label": w.create(operator, "more", some, "operational"), "its profile": w.update(operator, "some", map[string]any{"profile": "operational"}),
		"its authority": w.update(operator, "all", map[string]any{"authority": some.ID}),
	} {
		denied(t, what, err, "It signs by server.")
	}
}

// TestNobodyTakesTheNameOfAnothersLabel: devices ask by the name alone, so neither the label of
// paths without one nor the name of a deleted label goes to another account.
func TestNobodyTakesTheNameOfAnothersLabel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := imprint.Tenant{Account: "111111111111", Region: home.Region}
	root, operator := w.root("root"), imprint.OperatorUser
	subject, err := pki.ParseSubject("/CN=theirs")
	w.fatal(err)
	theirs, err := w.engine.Create(w.Context(), other, ca.Spec{Name: "theirs", Type: imprint.AuthorityRoot, RawSubject: subject, Profile: "root"})
	w.fatal(err)
	create := func(tenant imprint.Tenant, by imprint.CertificateAuthority, label string) error {
		return w.api.Call(w, apitest.KeyOf(tenant.Account, operator), tenant.Region, "POST", enrolment.Path, map[string]any{"label": label, "authority": by.ID, "profile": "operational"}, nil)
	}
	remove := func(tenant imprint.Tenant, label string) error {
		return w.api.Call(w, apitest.KeyOf(tenant.Account, operator), tenant.Region, "DELETE", enrolment.Path+"/"+label, nil, nil)
	}
	apitest.WantRefusal(t, "the label of no name", create(other, theirs, "default"), 400, "InvalidRequestException", "first account")
	w.fatal(create(home, root, "default"))
	w.fatal(create(home, root, "line7"))
	w.fatal(remove(home, "line7"))
	apitest.WantRefusal(t, "a deleted label's name", create(other, theirs, "line7"), 409, "ResourceAlreadyExistsException", "another account's label")
	w.fatal(create(home, root, "line7"))
	w.fatal(remove(home, "line7"))
	later := noon.Add(2*365*24*time.Hour + time.Second)
	w.at.Store(&later)
	w.fatal(create(other, theirs, "line7"))
}
