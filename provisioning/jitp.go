package provisioning

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
	"github.com/imprint-iot/imprint/template"
	"github.com/imprint-iot/imprint/trace"
)

// Newcomer is a device whose certificate isn't registered in the tenant, or
// waits there for activation, at its CONNECT packet.
type Newcomer struct {
	Tenant imprint.Tenant
	Leaf   *x509.Certificate
	ID     imprint.CertificateID
	// NoServerName says that the device sent no server name, so that the tenant
	// is a guess: CAs in mode SNI_ONLY don't take it then.
	NoServerName bool
	Rec          *trace.Recorder
}

// visit is one look at a newcomer.
type visit struct {
	Newcomer
	now   time.Time
	one   *issuer
	basis basis // of one
	// warning tells of a revocation list that is past its time.
	warning string
}

// maxCertificate bounds the DER of a certificate that is registered, so that
// its PEM can be read again.
const maxCertificate = 32 << 10

// errMoved says that a CA or a template was changed after it was looked at.
var errMoved = errors.New("a CA or a template was changed")

// maxLooks bounds how often a decision is taken anew because of errMoved.
const maxLooks = 8

// FirstConnection decides on a newcomer. It returns nil when the device is
// provisioned and may stay (hold), else an *imprint.Error that says how the
// connection ends: CodeProvisioned when all went well and the device is to come
// again, CodeRegisteredPending for just-in-time registration, or why it was
// refused. Everything that it did is durable when it returns.
//
// The certificate is registered whenever its CA is registered, active and open
// for auto-registration, even when the template then fails: AWS IoT Core leaves
// it PENDING_ACTIVATION and tries again at the next CONNECT.
func (e *Engine) FirstConnection(ctx context.Context, n Newcomer) error {
	for range maxLooks {
		err := e.look(ctx, n)
		if !errors.Is(err, errMoved) {
			return err
		}
		n.Rec.Info("ca", "a CA or a template was changed meanwhile: the device is looked at anew")
	}
	err := imprint.Errorf(imprint.CodeUnavailable, "CAs or templates were changed %d times while the device was looked at", maxLooks).
		WithHint("The device may come again.")
	n.Rec.Fail("ca", err)
	return err
}

func (e *Engine) look(ctx context.Context, n Newcomer) error {
	v := &visit{Newcomer: n, now: e.clock()}
	err := e.admit(ctx, v)
	if err != nil {
		e.refused.Add(1)
		return err
	}
	if v.one.ca.Registration == nil {
		return e.registerOnly(ctx, v, nil)
	}
	plan, err := e.plan(v)
	if err != nil {
		return e.registerOnly(ctx, v, err)
	}
	result, err := e.provision(ctx, v, plan)
	if err == nil {
		e.warn(v)
		return e.finish(v, result)
	}
	if errors.Is(err, errMoved) {
		return err
	}
	v.Rec.Fail(result.stage, err)
	switch {
	case result.stage == stageRegister, revoked.Is(err), imprint.CodeOf(err) == imprint.CodeInternal, imprint.CodeOf(err) == imprint.CodeUnavailable:
		return err
	}
	return e.registerOnly(ctx, v, err)
}

// admit runs the checks that come before anything is registered.
func (e *Engine) admit(ctx context.Context, v *visit) error {
	if len(v.Leaf.Raw) > maxCertificate {
		err := imprint.Errorf(imprint.CodeCertificateValidation, "the certificate is %d bytes long, at most %d are taken", len(v.Leaf.Raw), maxCertificate)
		v.Rec.Fail("certificate.size", err)
		return err
	}
	refusal := imprint.ValidityRefusal(v.Leaf.NotBefore, v.Leaf.NotAfter, v.now)
	if refusal != nil {
		v.Rec.Fail("certificate.validity", refusal)
		return refusal
	}
	refusal = e.checkKey(v.Leaf)
	if refusal != nil {
		v.Rec.Fail("certificate.key", refusal)
		return refusal
	}
	err := e.refuseCA(ctx, v)
	if err != nil {
		v.Rec.Fail("certificate", err)
		return err
	}
	found, err := e.issuersOf(ctx, v.Tenant, v.Leaf)
	if err == nil {
		v.basis = found.basis
		v.one, err = found.find(v)
	}
	if err != nil {
		v.Rec.Fail("ca", err)
		return err
	}
	v.Rec.OK("ca", "signed by registered CA %s (%s)", v.one.ca.ID, v.one.ca.Subject)
	return nil
}

// refuseCA refuses a registered CA's own certificate: a self-signed one would be
// registered as a device that its own key signed.
func (e *Engine) refuseCA(ctx context.Context, v *visit) error {
	if !v.Leaf.IsCA {
		return nil
	}
	return e.store.View(ctx, func(tx imprint.ReadTx) error { return refuseOwnCA(tx, v.Tenant, v.ID) })
}

func refuseOwnCA(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID) error {
	_, err := tx.CA(tenant, id)
	switch imprint.CodeOf(err) {
	case "":
		return errOwnCA(id)
	case imprint.CodeNotFound:
		return nil
	}
	return fmt.Errorf("couldn't look for a CA: %w", err)
}

func errOwnCA(id imprint.CertificateID) error {
	return imprint.Errorf(imprint.CodeCertificateValidation, "the certificate is registered CA %s itself, not one of its devices", id).
		WithHint("Give the device a certificate that the CA signed, with a key of its own, and take the CA's key off the device.")
}

func (e *Engine) holds(ca imprint.CACertificate) bool {
	if ca.FirstConnection == imprint.FirstConnectionDefault {
		return e.opts.Hold
	}
	return ca.FirstConnection == imprint.FirstConnectionHold
}

// plan evaluates the template against the certificate's subject. All that can
// be refused without looking at the registry is refused here.
func (e *Engine) plan(v *visit) (*template.Plan, error) {
	one := v.one
	if one.unusable != nil {
		v.Rec.Fail("template", one.unusable)
		return nil, one.unusable
	}
	v.Rec.OK("template", "%s", one.source)
	parameters := template.SubjectParameters(v.Leaf, string(v.ID))
	plan, err := one.tmpl.Plan(parameters)
	if err != nil {
		recordParameters(v.Rec, one.tmpl.Values(parameters), subjectOrigin)
		err = planError(err, one)
		v.Rec.Fail("template.plan", err)
		return nil, err
	}
	recordParameters(v.Rec, plan.Used, subjectOrigin)
	err = refuseWhatIsNotKept(plan.Thing)
	if err != nil {
		v.Rec.Fail("template.plan", err)
		return nil, err
	}
	err = e.documents.check(v.Tenant.Account, plan)
	if err != nil {
		v.Rec.Fail("template.policy", err)
		return nil, err
	}
	return plan, nil
}

// planError puts a template's failure into the domain's words.
func planError(err error, one *issuer) error {
	code, hint := imprint.CodeTemplateValue, ""
	var te *template.Error
	if errors.As(err, &te) {
		hint = te.Hint
		if te.Parameter != "" {
			hint = fmt.Sprintf("Change the template, or what the device's certificate has for %s.", te.Parameter)
		}
		if te.Code == template.CodeMissingParameter {
			code = imprint.CodeParameterMissing
			field := strings.TrimPrefix(te.Parameter, "AWS::IoT::Certificate::")
			hint = fmt.Sprintf("Put %s into the subject of the device's certificate, or give the parameter %s a Default in %s.", field, te.Parameter, one.source)
		}
	}
	return &imprint.Error{Code: code, Op: "couldn't evaluate " + one.source, Err: err, Hint: hint}
}

// refuseWhatIsNotKept answers template members whose registry objects this
// build doesn't keep. They can't exist, so naming one is naming something
// missing.
func refuseWhatIsNotKept(thing *template.ThingPlan) error {
	switch {
	case thing == nil:
	case len(thing.PackageVersions) > 0:
		return imprint.Errorf(imprint.CodeTemplateValue, "the software packages of PackageVersions don't exist").
			WithHint("This build keeps no software packages: take PackageVersions out of the template.")
	}
	return nil
}

// stageRegister isn't a template's: what is refused there, as what revoked.Is tells, isn't
// registered at all.
const stageRegister = "register"

// provision registers the certificate and applies the plan in one transaction.
// On an error the result's stage says where it came.
func (e *Engine) provision(ctx context.Context, v *visit, plan *template.Plan) (applied, error) {
	var result applied
	err := e.makeDevice(ctx, func(tx imprint.Tx) (*application, error) {
		result = applied{stage: stageRegister}
		cert, fresh, err := e.register(tx, v)
		if err != nil {
			result.stage = stageOf(err)
			return nil, err
		}
		if cert.Status != imprint.CertificatePendingActivation {
			// Another connection of the same device was quicker.
			result.raced, result.cert = true, cert
			return nil, nil
		}
		a := &application{tx: tx, cert: cert, fresh: fresh, plan: plan, now: v.now, applied: &result}
		return a, a.run()
	})
	return result, err
}

// stageOf gives the stage at which a certificate isn't registered.
func stageOf(err error) string {
	if revoked.Is(err) {
		return revoked.Step(err)
	}
	return stageRegister
}

// warn records what register found that refuses nobody.
func (e *Engine) warn(v *visit) {
	if v.warning != "" {
		e.unsure.Add(1)
		v.Rec.Info("certificate.crl", "%s", v.warning)
	}
}

// finish says how a connection ends whose device is provisioned.
func (e *Engine) finish(v *visit, result applied) error {
	if result.raced {
		v.Rec.Info("register", "certificate %s became %s meanwhile: another connection of the device was quicker, or an operator", v.ID, result.cert.Status)
	} else {
		e.provisioned.Add(1)
		v.Rec.Made(stageRegister, v.ID, "certificate registered")
		result.recordResources(v.Rec)
	}
	refusal := result.cert.Refusal(v.now)
	if refusal != nil {
		if refusal.Code == imprint.CodeCertificateInactive {
			refusal = refusal.WithHint("The template may have left it so. aws iot update-certificate --new-status ACTIVE --certificate-id %s", v.ID)
		}
		v.Rec.Fail("activate", refusal)
		return refusal
	}
	if !e.holds(v.one.ca) {
		return imprint.Errorf(imprint.CodeProvisioned, "the device is provisioned; its first connection is closed")
	}
	v.Rec.OK("hold", "the first connection stays open")
	return nil
}

func (result applied) record(rec *trace.Recorder) {
	rec.OK("register", "certificate registered")
	result.recordResources(rec)
}

// recordResources tells what a plan made beside the certificate's row.
func (result applied) recordResources(rec *trace.Recorder) {
	if result.thing != "" {
		with := ", certificate attached"
		if result.cert.ID == "" {
			with = ""
		}
		rec.OK("thing", "thing %s %s%s", result.thing, result.change, with)
		rec.Describe(func(a *imprint.Attempt) { a.Thing = result.thing })
	}
	if result.kind != "" {
		rec.OK("thing.type", "thing %s is of type %s", result.thing, result.kind)
	}
	if result.billing != "" {
		rec.OK("thing.billing", "thing %s is in billing group %s", result.thing, result.billing)
	}
	for _, name := range result.groups {
		rec.OK("thing.groups", "thing %s is in group %s", result.thing, name)
	}
	for _, name := range result.policies {
		rec.OK("policy", "policy %s attached", name)
	}
	if result.cert.Status == imprint.CertificateActive {
		rec.OK("activate", "certificate is ACTIVE")
	}
}

// registerOnly leaves the certificate registered PENDING_ACTIVATION. The error
// that it returns is why, or CodeRegisteredPending when that is what the CA
// asks for.
func (e *Engine) registerOnly(ctx context.Context, v *visit, why error) error {
	var cert imprint.Certificate
	err := e.store.Update(ctx, func(tx imprint.Tx) error {
		var fresh bool
		var err error
		cert, fresh, err = e.register(tx, v)
		if err != nil || !fresh {
			return err
		}
		return tx.PutCertificate(cert)
	})
	if errors.Is(err, errMoved) {
		return err
	}
	if err != nil {
		v.Rec.Fail(stageOf(err), err)
		return err
	}
	e.warn(v)
	if cert.Status != imprint.CertificatePendingActivation {
		return e.finish(v, applied{raced: true, cert: cert})
	}
	e.pending.Add(1)
	v.Rec.OK(stageRegister, "certificate %s is registered %s", v.ID, cert.Status)
	if why != nil {
		return why
	}
	refusal := imprint.Errorf(imprint.CodeRegisteredPending, "certificate %s is registered PENDING_ACTIVATION", v.ID).
		WithHint("Activate it from a rule or by hand: aws iot update-certificate --new-status ACTIVE --certificate-id %s", v.ID)
	v.Rec.Fail("activate", refusal)
	return refusal
}

// register gives the newcomer's row, which the caller stores when it is fresh,
// and puts the event about it into the transaction while it waits for
// activation, as AWS IoT Core repeats it for each CONNECT.
//
// Commits that came before this one have been announced, so its basis
// tells whether the CA is still what the decision was made on.
func (e *Engine) register(tx imprint.Tx, v *visit) (cert imprint.Certificate, fresh bool, err error) {
	if e.moved(v.basis) {
		return cert, false, errMoved
	}
	cert, fresh, err = e.row(tx, v)
	if err != nil {
		return cert, false, fmt.Errorf("couldn't register certificate %s: %w", v.ID, err)
	}
	if cert.Status != imprint.CertificatePendingActivation {
		return cert, false, nil
	}
	// Its issuer may have revoked it before any registry had it.
	v.warning, err = revoked.Check(tx, v.Tenant, v.Leaf, v.now)
	if err != nil {
		return cert, false, err
	}
	event, err := registeredEvent(cert, v.now)
	if err != nil {
		return cert, false, err
	}
	event.AttemptID = v.Rec.ID()
	err = tx.PutEvent(event)
	if err != nil {
		return cert, false, fmt.Errorf("couldn't store the event of certificate %s: %w", v.ID, err)
	}
	return cert, fresh, nil
}

// row finds the certificate's row, or makes one that may stand beside its
// registrations in other tenants: of the accounts of a region that hold one
// certificate, none may hold it in mode DEFAULT (developer guide, "Register a
// client certificate", multi-account registration).
func (e *Engine) row(tx imprint.Tx, v *visit) (imprint.Certificate, bool, error) {
	registrations, err := tx.CertificateTenants(v.ID)
	if err != nil {
		return imprint.Certificate{}, false, err
	}
	var conflict *imprint.Certificate
	for n := range registrations {
		other := &registrations[n]
		if other.Tenant == v.Tenant {
			return *other, false, nil
		}
		if other.Tenant.Region == v.Tenant.Region && (other.Mode == imprint.ModeDefault || v.one.ca.Mode == imprint.ModeDefault) {
			conflict = other
		}
	}
	if len(registrations) >= maxRegistrations {
		// The list may be cut.
		cert, err := tx.Certificate(v.Tenant, v.ID)
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return cert, false, err
		}
	}
	if conflict != nil {
		return imprint.Certificate{}, false, imprint.Errorf(imprint.CodeCertificateConflict,
			"certificate %s is registered in another account of the region, and one of the registrations would be in mode DEFAULT", v.ID).
			WithHint("Several accounts of a region can hold a certificate if all register its CA in mode SNI_ONLY.")
	}
	leaf, ca := v.Leaf, v.one.ca
	return imprint.Certificate{
		Tenant: v.Tenant, ID: v.ID, PEM: pki.EncodeCertificatePEM(leaf.Raw),
		Status: imprint.CertificatePendingActivation, Mode: ca.Mode, CAID: ca.ID,
		OwnedBy: v.Tenant.Account, Serial: pki.SerialHex(leaf.SerialNumber), Subject: pki.SubjectText(leaf.RawSubject),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, CreatedAt: v.now, ModifiedAt: v.now,
		CustomerVersion: 1, GenerationID: uuid.NewString(), Attempt: v.Rec.StoredID(),
	}, true, nil
}

// maxRegistrations is the most that Tx.CertificateTenants lists.
const maxRegistrations = 100

// registeredEvent is the message on
// $aws/events/certificates/registered/{caCertificateId}. The types of its two
// times differ on AWS IoT Core, and so here.
func registeredEvent(cert imprint.Certificate, now time.Time) (imprint.Event, error) {
	payload, err := json.Marshal(struct {
		CertificateID string `json:"certificateId"`
		CAID          string `json:"caCertificateId"`
		Timestamp     int64  `json:"timestamp"`
		Status        string `json:"certificateStatus"`
		Account       string `json:"awsAccountId"`
		Registered    string `json:"certificateRegistrationTimestamp"`
	}{
		string(cert.ID), string(cert.CAID), now.UnixMilli(), string(imprint.CertificatePendingActivation),
		string(cert.Tenant.Account), strconv.FormatInt(cert.CreatedAt.UnixMilli(), 10),
	})
	if err != nil {
		return imprint.Event{}, fmt.Errorf("couldn't encode the event of certificate %s: %w", cert.ID, err)
	}
	return imprint.Event{
		ID: trace.NewID(now), Tenant: cert.Tenant, At: now,
		Topic: "$aws/events/certificates/registered/" + string(cert.CAID), Payload: payload,
	}, nil
}
