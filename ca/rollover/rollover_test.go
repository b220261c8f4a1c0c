package rollover_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/ca/rollover"
	"github.com/imprint-iot/imprint/internal/registrytest"
	"github.com/imprint-iot/imprint/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	home    = imprint.Tenant{Account: "000000000000", Region: "us-east-1"}
	instant = time.Date(2030, 3, 4, 5, 6, 7, 0, time.UTC)
)

const day = 24 * time.Hour

// yard is a registry with CAs, devices and a planner.
type yard struct {
	*rollover.Planner
	t         *testing.T
	store     imprint.Store
	now       time.Time
	connected map[imprint.CertificateID]bool
	serial    int64
}

// authority is a CA with its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
	id   imprint.CertificateID
}

func newYard(t *testing.T) *yard {
	t.Helper()
	return newYardOn(t, registrytest.New(t))
}

func newYardOn(t *testing.T, store imprint.Store) *yard {
	t.Helper()
	y := &yard{t: t, store: store, now: instant, connected: map[imprint.CertificateID]bool{}}
	planner, err := rollover.New(t.Context(), rollover.Options{
		Store: y.store, Clock: func() time.Time { return y.now }, Logger: slog.New(slog.DiscardHandler),
		Connected: func(_ imprint.Tenant, id imprint.CertificateID) bool { return y.connected[id] },
	})
	if err != nil {
		t.Fatal(err)
	}
	y.Planner = planner
	t.Cleanup(planner.Close)
	return y
}

func (y *yard) update(fn func(imprint.Tx) error) {
	y.t.Helper()
	err := y.store.Update(context.Background(), fn)
	if err != nil {
		y.t.Fatal(err)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate; by nil signs itself.
func (y *yard) sign(name string, key *ecdsa.PrivateKey, by *authority, isCA bool, ends time.Time) *x509.Certificate {
	y.t.Helper()
	y.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(y.serial), Subject: pkix.Name{CommonName: name}, NotBefore: instant.Add(-day), NotAfter: ends,
		BasicConstraintsValid: true, IsCA: isCA, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if isCA {
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		y.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		y.t.Fatal(err)
	}
	return cert
}

func authorityOf(cert *x509.Certificate, key *ecdsa.PrivateKey) *authority {
	return &authority{cert: cert, key: key, pem: pki.EncodeCertificatePEM(cert.Raw), id: pki.CertificateID(cert.Raw)}
}

// make makes an authority of the tenant.
func (y *yard) make(name string, by *authority) *authority {
	y.t.Helper()
	key := newKey(y.t)
	a := authorityOf(y.sign(name, key, by, true, instant.Add(1000*day)), key)
	y.adopt(name, a)
	return a
}

func (y *yard) adopt(name string, a *authority) {
	y.t.Helper()
	y.serial++
	y.update(func(tx imprint.Tx) error {
		return tx.PutAuthority(imprint.CertificateAuthority{
			Tenant: home, ID: imprint.AuthorityID(fmt.Sprintf("00000000-0000-4000-8000-%012d", y.serial)), Name: name, Status: imprint.AuthorityActive,
			Key: "sealed:", Certificate: a.pem, CertificateID: a.id, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		})
	})
}

// register makes an authority a registered CA.
func (y *yard) register(a *authority, edit func(*imprint.CACertificate)) {
	y.t.Helper()
	y.update(func(tx imprint.Tx) error {
		c := imprint.CACertificate{Tenant: home, ID: a.id, PEM: a.pem, Status: imprint.CAActive, NotAfter: a.cert.NotAfter}
		if edit != nil {
			edit(&c)
		}
		return tx.PutCA(c)
	})
}

// device registers a certificate of a CA, with a thing unless that is empty. With caID the
// registry knows the signer.
func (y *yard) device(by *authority, thing string, caID imprint.CertificateID, edit func(*imprint.Certificate)) imprint.CertificateID {
	y.t.Helper()
	cert := y.sign("device "+thing, newKey(y.t), by, false, instant.Add(300*day))
	c := imprint.Certificate{
		Tenant: home, ID: pki.CertificateID(cert.Raw), PEM: pki.EncodeCertificatePEM(cert.Raw), Status: imprint.CertificateActive, CAID: caID,
		Subject: pki.SubjectText(cert.RawSubject), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, CreatedAt: y.now.Add(time.Duration(y.serial) * time.Second),
	}
	if edit != nil {
		edit(&c)
	}
	y.update(func(tx imprint.Tx) error {
		err := tx.PutCertificate(c)
		if err != nil || thing == "" {
			return err
		}
		err = tx.PutThing(imprint.Thing{Tenant: home, Name: imprint.ThingName(thing)})
		if err != nil {
			return err
		}
		return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: imprint.ThingName(thing), Certificate: c.ID})
	})
	return c.ID
}

// rehearse reads all parts, a few items each.
func (y *yard) rehearse(q rollover.Question) rollover.Answer {
	y.t.Helper()
	q.Tenant, q.Limit = home, 2
	var whole rollover.Answer
	for {
		part, err := y.Rehearse(y.t.Context(), q)
		if err != nil {
			y.t.Fatal(err)
		}
		whole.Items, whole.Authorities, whole.Server = append(whole.Items, part.Items...), append(whole.Authorities, part.Authorities...), whole.Server || part.Server
		whole.Labels = append(whole.Labels, part.Labels...)
		whole.Counts.Add(part.Counts)
		q.Cursor = part.Next
		if q.Cursor == "" {
			return whole
		}
	}
}

func kinds(a rollover.Answer) string {
	var all []string
	for _, i := range a.Items {
		word := string(i.Kind) + " " + string(i.Thing)
		if i.Moved != "" {
			word += "+"
		}
		all = append(all, strings.TrimSpace(word))
	}
	return strings.Join(all, ", ")
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// All kinds of what depends on a CA are found, whether the registry knows their signer or
// not, each once; what another CA signed isn't.
func TestARehearsalFindsAllThatDependOnACA(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	root := y.make("root", nil)
	line, other := y.make("line", root), y.make("other", root)
	y.register(line, func(c *imprint.CACertificate) {
		c.AutoRegistration, c.Registration = true, &imprint.RegistrationConfig{TemplateName: "sensors"}
	})
	y.register(other, nil)
	y.device(line, "a", line.id, nil)
	y.device(line, "b", "", nil) // registered without its CA
	y.device(line, "", line.id, nil)
	y.device(other, "c", other.id, nil)
	claim := y.device(line, "", line.id, nil)
	y.update(func(tx imprint.Tx) error { return tx.PutClaimGuard(imprint.ClaimGuard{Tenant: home, Claim: claim}) })
	y.device(line, "", line.id, func(c *imprint.Certificate) { c.Status = imprint.CertificatePendingActivation })
	y.device(line, "d", line.id, func(c *imprint.Certificate) { c.Status = imprint.CertificateInactive })
	y.device(line, "e", line.id, func(c *imprint.Certificate) { c.Status = imprint.CertificateRevoked })
	y.device(line, "f", line.id, func(c *imprint.Certificate) { c.NotAfter = instant.Add(-time.Hour) })
	y.device(line, "a", line.id, nil) // a second one of a device
	stock := y.sign("stock", newKey(t), line, false, instant.Add(500*day))
	y.update(func(tx imprint.Tx) error {
		a, err := tx.AuthorityNamed(home, "line")
		if err != nil {
			return err
		}
		for n, i := range []imprint.Issuance{
			{CertificateID: pki.CertificateID(stock.Raw), Certificate: stock.Raw, NotAfter: stock.NotAfter},
			{NotAfter: stock.NotAfter}, // an intent
			{CertificateID: "revoked", Certificate: stock.Raw, NotAfter: stock.NotAfter, RevokedAt: instant},
			{CertificateID: claim, NotAfter: stock.NotAfter},
		} {
			i.ID, i.Tenant, i.Authority, i.Serial = fmt.Sprint(n), home, a.ID, fmt.Sprint(n)
			err = tx.PutIssuance(i)
			if err != nil {
				return err
			}
		}
		return nil
	})
	for _, from := range []string{"line", string(line.id), string(line.id)[:10], "root"} {
		got := y.rehearse(rollover.Question{From: from})
		want(t, "items of "+from, kindsWithout(got, "device c"), "device a, device b, certificate, claim, waiting, inactive, unregistered")
		c := got.Counts
		if from == "root" {
			want(t, "the whole of root", fmt.Sprint(c.Devices, c.Certificates, len(got.Authorities)), "3 5 3")
			continue
		}
		want(t, "counts of "+from, fmt.Sprint(c.Devices, c.Certificates, c.Loose, c.Claims, c.Waiting, c.Inactive, c.Unregistered, c.Unseen), "2 4 1 1 1 1 1 3")
		want(t, "the last end", c.LastEnd, stock.NotAfter)
		want(t, "CAs that fail", len(got.Authorities), 1)
		want(t, "how devices join", fmt.Sprintf("%v %v", got.Authorities[0].AutoRegistration, got.Authorities[0].Template), "true sensors")
	}
	_, err := y.Rehearse(t.Context(), rollover.Question{Tenant: home, From: "nothing"})
	want(t, "a CA that isn't there", imprint.CodeOf(err), imprint.CodeNotFound)
	_, err = y.Rehearse(t.Context(), rollover.Question{Tenant: home, From: "line", To: "line"})
	want(t, "a CA in its own place", imprint.CodeOf(err), imprint.CodeInvalidRequest)
	_, err = y.Rehearse(t.Context(), rollover.Question{Tenant: home, From: "line", Cursor: "x"})
	want(t, "a cursor that isn't one", imprint.CodeOf(err), imprint.CodeInvalidRequest)
}

func kindsWithout(a rollover.Answer, word string) string {
	return strings.ReplaceAll(strings.ReplaceAll(kinds(a), word+", ", ""), ", "+word, "")
}

// Devices count as moved once they have a certificate of the new CA, as proven once that
// was seen, and as finished when the old one is off; what connects is on disk at the next
// question, also after a restart.
func TestProgressCountsWhoMovedAndWhoProvedIt(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	root := y.make("root", nil)
	line, next, other := y.make("line", root), y.make("next", root), y.make("other", root)
	olds := map[string]imprint.CertificateID{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		olds[name] = y.device(line, name, "", nil)
	}
	y.device(other, "e", "", nil) // of neither: no move
	plan, err := y.Start(t.Context(), home, rollover.Draft{From: "line", To: "next", Devices: 5, Certificates: 5, LastEnd: instant.Add(300 * day), By: "arn:x"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "the plan", fmt.Sprintf("%s %s %t %t", plan.FromName, plan.ToName, plan.From == line.id, plan.To == next.id), "line next true true")
	count := func(wanted string) {
		t.Helper()
		c := y.rehearse(rollover.Question{From: "line", To: "next"}).Counts
		want(t, "devices, moved, proven, finished, proven; unseen", fmt.Sprint(c.Devices, c.Moved, c.Proven, c.Finished, c.FinishedProven, c.Unseen), wanted)
	}
	count("5 0 0 0 0 5")
	y.Saw(home, olds["a"])
	y.connected[olds["b"]] = true
	count("5 0 0 0 0 3")
	newB, newC := y.device(next, "b", "", nil), y.device(next, "c", "", nil)
	count("5 2 0 0 0 2")
	y.Saw(home, newB)
	y.Saw(imprint.Tenant{Account: "111111111111", Region: "us-east-1"}, newC) // without a plan: nothing is kept
	count("5 2 1 0 0 2")
	y.update(func(tx imprint.Tx) error {
		return tx.PutAttempt(imprint.Attempt{ID: "1", Tenant: home, At: instant, CertificateID: newC, Outcome: imprint.OutcomeClosed})
	})
	count("5 2 2 0 0 2")
	newD := y.device(next, "d", "", nil)
	y.update(func(tx imprint.Tx) error {
		return tx.PutRenewal(imprint.Renewal{Tenant: home, Certificate: newD, Renews: olds["d"], State: imprint.RenewalProven, ProvenAt: instant})
	})
	count("5 3 3 0 0 1")
	y.update(func(tx imprint.Tx) error {
		c, err := tx.Certificate(home, olds["b"])
		if err != nil {
			return err
		}
		c.Status = imprint.CertificateInactive
		return tx.PutCertificate(c)
	})
	count("4 2 2 1 1 1")
	// A device of the trace that comes late: a was seen, and then not for 31 days.
	y.now = y.now.Add(31 * day)
	c := y.rehearse(rollover.Question{From: "line", To: "next"}).Counts
	want(t, "unseen after 31 days", c.Unseen, 2)
	plans, _, err := y.Plans(t.Context(), home, imprint.Page{Limit: 10, Ascending: true})
	if err != nil || len(plans) != 1 || plans[0].Devices != 5 || plans[0].StartedBy != "arn:x" {
		t.Errorf("plans: got %+v, %v", plans, err)
	}
	err = y.Forget(t.Context(), home, "line")
	if err != nil {
		t.Fatal(err)
	}
	err = y.store.View(t.Context(), func(tx imprint.ReadTx) error {
		_, err := tx.Sighting(home, newB)
		want(t, "what was seen, once the last plan is gone", imprint.CodeOf(err), imprint.CodeNotFound)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	_, err = y.Plan(t.Context(), home, "line")
	want(t, "a plan that is gone", imprint.CodeOf(err), imprint.CodeNotFound)
}

// slowDisk is a registry whose next Update of a test's choice takes its time.
type slowDisk struct {
	imprint.Store
	slow    atomic.Bool
	writing chan struct{} // closed when it has begun
	goOn    chan struct{}
}

func (d *slowDisk) Update(ctx context.Context, fn func(imprint.Tx) error) error {
	if d.slow.Swap(false) {
		close(d.writing)
		<-d.goOn
	}
	return d.Store.Update(ctx, fn)
}

// Who asks while what was seen is being written waits for it, and is told of it.
func TestARehearsalWaitsForWhatIsBeingWritten(t *testing.T) {
	t.Parallel()
	disk := &slowDisk{Store: registrytest.New(t), writing: make(chan struct{}), goOn: make(chan struct{})}
	y := newYardOn(t, disk)
	line, next := y.make("line", nil), y.make("next", nil)
	y.device(line, "a", "", nil)
	moved := y.device(next, "a", "", nil)
	_, err := y.Start(t.Context(), home, rollover.Draft{From: "line", To: "next", Devices: 1, Certificates: 1, LastEnd: instant.Add(300 * day), By: "arn:x"})
	if err != nil {
		t.Fatal(err)
	}
	disk.slow.Store(true)
	y.Saw(home, moved)
	flushed, proven := make(chan error, 1), make(chan int64, 1)
	go func() { flushed <- y.Flush(t.Context()) }()
	<-disk.writing
	go func() {
		answer, err := y.Rehearse(t.Context(), rollover.Question{Tenant: home, From: "line", To: "next", Limit: 10})
		if err != nil {
			t.Error(err)
		}
		proven <- answer.Counts.Proven
	}()
	select {
	case got := <-proven:
		proven <- got
		t.Error("it is answered before what was seen is written")
	case <-time.After(100 * time.Millisecond): // nothing tells of it: the test is for its absence
	}
	close(disk.goOn)
	want(t, "devices that proved it", <-proven, 1)
	if err := <-flushed; err != nil {
		t.Error(err)
	}
}

// A cross-certificate of an intermediate carries its devices over the end of a root; a CA of
// the same name with another key doesn't.
func TestACrossCertificateCarriesDevices(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	old, next := y.make("old root", nil), y.make("new root", nil)
	line := y.make("line", old)
	y.device(line, "a", "", nil)
	impostor := newKey(t)
	y.register(authorityOf(y.sign("line", impostor, next, true, instant.Add(900*day)), impostor), nil)
	c := y.rehearse(rollover.Question{From: "old root"}).Counts
	want(t, "before: devices, carried", fmt.Sprint(c.Devices, c.Carried), "1 0")
	cross := authorityOf(y.sign("line", line.key, next, true, instant.Add(900*day)), line.key)
	y.register(cross, nil)
	got := y.rehearse(rollover.Question{From: "old root"})
	want(t, "after: devices, carried, CAs that fail", fmt.Sprint(got.Counts.Devices, got.Counts.Carried, len(got.Authorities)), "0 1 2")
	plan, err := y.Draft(t.Context(), home, rollover.Draft{From: "old root", To: "new root"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "trust, two roots", step(t, plan, rollover.StepTrusted).State, rollover.StepUnknown)
	rootCross := authorityOf(y.sign("new root", next.key, old, true, instant.Add(900*day)), next.key)
	y.register(rootCross, nil)
	plan, err = y.Draft(t.Context(), home, rollover.Draft{From: "old root", To: "new root"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "trust, with a cross-certificate", step(t, plan, rollover.StepTrusted).State, rollover.StepDone)
}

func step(t *testing.T, plan rollover.Plan, name rollover.StepName) rollover.Step {
	t.Helper()
	for _, s := range plan.Steps {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("the plan has no step %s", name)
	return rollover.Step{}
}

// The steps of a plan follow what is so: made, registered, signing no more, switched off,
// deleted; and times that can't be are refused.
func TestThePlanFollowsWhatIsSo(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	root := y.make("root", nil)
	line := y.make("line", root)
	y.register(line, func(c *imprint.CACertificate) {
		c.AutoRegistration, c.Registration = true, &imprint.RegistrationConfig{TemplateName: "sensors"}
	})
	states := func() string {
		t.Helper()
		plan, err := y.Plan(t.Context(), home, string(line.id))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, s := range plan.Steps {
			all = append(all, string(s.State))
		}
		return strings.Join(all, " ")
	}
	start := func(d rollover.Draft) error {
		d.From = "line"
		_, err := y.Start(t.Context(), home, d)
		return err
	}
	named := func(name string) imprint.AuthorityID {
		t.Helper()
		var id imprint.AuthorityID
		y.update(func(tx imprint.Tx) error {
			a, err := tx.AuthorityNamed(home, name)
			id = a.ID
			return err
		})
		return id
	}
	label := imprint.EnrolmentLabel{Tenant: home, Name: "line", Authority: named("line"), DeviceCAs: line.pem}
	y.update(func(tx imprint.Tx) error { return tx.PutEnrolmentLabel(label) })
	want(t, "labels that fail", fmt.Sprint(y.rehearse(rollover.Question{From: "line"}).Labels), "[{line true true}]")
	draft := rollover.Draft{Devices: 1, LastEnd: instant.Add(300 * day)}
	if err := start(draft); err != nil {
		t.Fatal(err)
	}
	want(t, "at first", states(), "due unknown ahead ahead ahead ahead ahead ahead ahead")
	next := y.make("next", root)
	draft.To = "next"
	if err := start(draft); err != nil {
		t.Fatal(err)
	}
	want(t, "with a successor", states(), "done done ahead ahead ahead ahead ahead ahead ahead")
	y.register(next, nil)
	want(t, "registered, but not as the old one", states(), "done done ahead ahead ahead ahead ahead ahead ahead")
	y.register(next, func(c *imprint.CACertificate) { c.AutoRegistration = true })
	want(t, "registered", states(), "done done done ahead ahead ahead ahead ahead ahead")
	y.now = instant.Add(20 * day)
	want(t, "in the window", states(), "done done done due due due ahead ahead ahead")
	y.update(func(tx imprint.Tx) error {
		a, err := tx.AuthorityNamed(home, "line")
		if err != nil {
			return err
		}
		a.Status = imprint.AuthorityDisabled
		return tx.PutAuthority(a)
	})
	want(t, "disabled", states(), "done done done done due due ahead ahead ahead")
	label.Authority = named("next")
	y.update(func(tx imprint.Tx) error { return tx.PutEnrolmentLabel(label) })
	want(t, "with EST by the new one", states(), "done done done done done due ahead ahead ahead")
	y.register(line, func(c *imprint.CACertificate) { c.Status = imprint.CAInactive })
	y.now = instant.Add(301 * day)
	want(t, "inactive, and after the last end", states(), "done done done done done done done done ahead")
	y.update(func(tx imprint.Tx) error {
		a, err := tx.AuthorityNamed(home, "line")
		if err != nil {
			return err
		}
		err = tx.DeleteAuthority(home, a.ID)
		if err != nil {
			return err
		}
		return tx.DeleteCA(home, line.id)
	})
	want(t, "deleted", states(), "done")
	line = y.make("line", root)
	y.now = instant
	for name, d := range map[string]rollover.Draft{
		"backwards":    {RenewFrom: instant.Add(20 * day), RenewUntil: instant.Add(10 * day)},
		"after the CA": {RenewUntil: instant.Add(1001 * day)},
		"negative":     {Devices: -1},
	} {
		want(t, name, imprint.CodeOf(start(d)), imprint.CodeInvalidRequest)
	}
}

// The server's own certificate counts when a CA of the tenant signed it.
func TestTheServersOwnCertificateCounts(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	root := y.make("root", nil)
	line := y.make("line", root)
	leaf := y.sign("server", newKey(t), line, false, instant.Add(day))
	for _, chain := range [][]*x509.Certificate{{leaf}, {leaf, line.cert}, nil} {
		p, err := rollover.New(t.Context(), rollover.Options{Store: y.store, Clock: func() time.Time { return instant }, ServerChains: func() [][]*x509.Certificate {
			return [][]*x509.Certificate{chain}
		}})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := p.Rehearse(t.Context(), rollover.Question{Tenant: home, From: "root", Limit: 10})
		p.Close()
		if err != nil {
			t.Fatal(err)
		}
		want(t, fmt.Sprintf("a chain of %d", len(chain)), answer.Server, chain != nil)
	}
}
