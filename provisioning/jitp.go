package provisioning

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/template"
	"github.com/imprint-iot/imprint/trace"
)

// Newcomer is a device whose certificate isn't registered in the tenant, or
// waits there for activation, at its CONNECT packet.
type Newcomer struct {
	Tenant imprint.Tenant
	Leaf   *x509.Certificate
	ID     imprint.CertificateID
	Rec    *trace.Recorder
}

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
	now := e.clock()
	one, err := e.admitIssuer(ctx, n, now)
	if err != nil {
		e.refused.Add(1)
		return err
	}
	if one.ca.Registration == nil {
		return e.registerOnly(ctx, n, one, nil)
	}
	if one.unusable != nil {
		n.Rec.Fail("template", one.unusable)
		return e.registerOnly(ctx, n, one, one.unusable)
	}
	n.Rec.OK("template", "%s", one.source)
	plan, err := e.plan(n, one)
	if err != nil {
		n.Rec.Fail("template.plan", err)
		return e.registerOnly(ctx, n, one, err)
	}
	result, err := e.provision(ctx, n, one, plan)
	if err != nil {
		n.Rec.Fail("resources", err)
		if imprint.CodeOf(err) == imprint.CodeInternal || imprint.CodeOf(err) == imprint.CodeUnavailable {
			return err
		}
		return e.registerOnly(ctx, n, one, err)
	}
	e.provisioned.Add(1)
	recordApplied(n.Rec, result)
	if !e.holds(one.ca) {
		return imprint.Errorf(imprint.CodeProvisioned, "thing %q is provisioned; the first connection is closed", result.thing)
	}
	if result.status != imprint.CertificateActive {
		return imprint.Errorf(imprint.CodeCertificateInactive, "the template left certificate %s %s", n.ID, result.status)
	}
	n.Rec.OK("hold", "the first connection stays open")
	return nil
}

// admitIssuer runs the checks that come before anything is registered.
func (e *Engine) admitIssuer(ctx context.Context, n Newcomer, now time.Time) (*issuer, error) {
	refusal := imprint.ValidityRefusal(n.Leaf.NotBefore, n.Leaf.NotAfter, now)
	if refusal != nil {
		n.Rec.Fail("certificate.validity", refusal)
		return nil, refusal
	}
	refusal = pki.CheckKey(n.Leaf)
	if refusal != nil {
		n.Rec.Fail("certificate.key", refusal)
		return nil, refusal
	}
	one, err := e.findIssuer(ctx, n.Tenant, n.Leaf)
	if err != nil {
		n.Rec.Fail("ca", err)
		return nil, err
	}
	err = one.mayRegister(now)
	if err != nil {
		n.Rec.Fail("ca", err)
		return nil, err
	}
	n.Rec.OK("ca", "signed by registered CA %s (%s)", one.ca.ID, one.ca.Subject)
	return one, nil
}

func (e *Engine) holds(ca imprint.CACertificate) bool {
	if ca.FirstConnection == imprint.FirstConnectionDefault {
		return e.opts.Hold
	}
	return ca.FirstConnection == imprint.FirstConnectionHold
}

// plan evaluates the template against the certificate's subject.
func (e *Engine) plan(n Newcomer, one *issuer) (*template.Plan, error) {
	params := template.SubjectParameters(n.Leaf, string(n.ID))
	plan, err := one.tmpl.Plan(params)
	if err != nil {
		return nil, planError(err, one)
	}
	for _, use := range plan.Used {
		n.Rec.Info("template.parameter", "%s = %q (%s)", use.Name, use.Value, use.Source)
	}
	return plan, nil
}

// planError puts a template's failure into the domain's words.
func planError(err error, one *issuer) error {
	code, hint := imprint.CodeTemplateValue, ""
	var te *template.Error
	if errors.As(err, &te) {
		hint = te.Hint
		if te.Code == template.CodeMissingParameter {
			code = imprint.CodeParameterMissing
			field := strings.TrimPrefix(te.Parameter, "AWS::IoT::Certificate::")
			hint = fmt.Sprintf("Put %s into the subject of the device's certificate, or give the parameter %s a Default in %s.", field, te.Parameter, one.source)
		}
	}
	return &imprint.Error{Code: code, Op: "couldn't evaluate " + one.source, Err: err, Hint: hint}
}

// provision registers the certificate and applies the plan in one transaction.
func (e *Engine) provision(ctx context.Context, n Newcomer, one *issuer, plan *template.Plan) (applied, error) {
	now := e.clock()
	var result applied
	err := e.store.Update(ctx, func(tx imprint.Tx) error {
		result = applied{}
		cert, err := e.register(tx, n, one, now)
		if err != nil {
			return err
		}
		if cert.Status != imprint.CertificatePendingActivation {
			// Another connection of the same device was quicker.
			result = applied{status: cert.Status}
			return nil
		}
		result, err = e.apply(tx, cert, plan, now)
		return err
	})
	return result, err
}

// registerOnly leaves the certificate registered PENDING_ACTIVATION. The error
// that it returns is why, or CodeRegisteredPending when that is what the CA
// asks for.
func (e *Engine) registerOnly(ctx context.Context, n Newcomer, one *issuer, why error) error {
	now := e.clock()
	var status imprint.CertificateStatus
	err := e.store.Update(ctx, func(tx imprint.Tx) error {
		cert, err := e.register(tx, n, one, now)
		status = cert.Status
		return err
	})
	if err != nil {
		n.Rec.Fail("register", err)
		return err
	}
	e.pending.Add(1)
	n.Rec.OK("register", "certificate %s is registered %s", n.ID, status)
	if why != nil {
		return why
	}
	refusal := imprint.Errorf(imprint.CodeRegisteredPending, "certificate %s is registered PENDING_ACTIVATION", n.ID).
		WithHint("Activate it from a rule or by hand: aws iot update-certificate --new-status ACTIVE --certificate-id %s", n.ID)
	n.Rec.Fail("activation", refusal)
	return refusal
}

// register gives the newcomer's row, new or present, and puts the event about
// it into the transaction while it waits for activation, as AWS IoT Core
// repeats it for each CONNECT.
func (e *Engine) register(tx imprint.Tx, n Newcomer, one *issuer, now time.Time) (imprint.Certificate, error) {
	cert, err := tx.Certificate(n.Tenant, n.ID)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		cert, err = e.newCertificate(tx, n, one, now)
	}
	if err != nil {
		return cert, fmt.Errorf("couldn't register certificate %s: %w", n.ID, err)
	}
	if cert.Status != imprint.CertificatePendingActivation {
		return cert, nil
	}
	event, err := registeredEvent(cert, now)
	if err != nil {
		return cert, err
	}
	err = tx.PutEvent(event)
	if err != nil {
		return cert, fmt.Errorf("couldn't store the event of certificate %s: %w", n.ID, err)
	}
	return cert, nil
}

func (e *Engine) newCertificate(tx imprint.Tx, n Newcomer, one *issuer, now time.Time) (imprint.Certificate, error) {
	elsewhere, err := tx.CertificateTenants(n.ID)
	if err != nil {
		return imprint.Certificate{}, err
	}
	for _, other := range elsewhere {
		if other.Tenant.Region == n.Tenant.Region && other.Mode == imprint.ModeDefault && one.ca.Mode == imprint.ModeDefault {
			return imprint.Certificate{}, imprint.Errorf(imprint.CodeCertificateConflict, "certificate %s is registered in account %s already", n.ID, other.Tenant.Account)
		}
	}
	cert := imprint.Certificate{
		Tenant: n.Tenant, ID: n.ID,
		PEM:    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.Leaf.Raw})),
		Status: imprint.CertificatePendingActivation, Mode: one.ca.Mode, CAID: one.ca.ID,
		OwnedBy: n.Tenant.Account, Serial: pki.SerialHex(n.Leaf.SerialNumber), Subject: n.Leaf.Subject.String(),
		NotBefore: n.Leaf.NotBefore, NotAfter: n.Leaf.NotAfter, CreatedAt: now, ModifiedAt: now,
		CustomerVersion: 1, GenerationID: uuid.NewString(),
	}
	return cert, tx.PutCertificate(cert)
}

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

func recordApplied(rec *trace.Recorder, result applied) {
	if rec == nil {
		return
	}
	rec.OK("register", "certificate registered PENDING_ACTIVATION")
	if result.thing != "" {
		verb := "kept as it was or updated"
		if result.created {
			verb = "created"
		}
		rec.OK("thing", "thing %s %s and attached", result.thing, verb)
		rec.Describe(func(a *imprint.Attempt) { a.Thing = result.thing })
	}
	for _, name := range result.policies {
		rec.OK("policy", "policy %s attached", name)
	}
	rec.OK("activate", "certificate is %s", result.status)
}
