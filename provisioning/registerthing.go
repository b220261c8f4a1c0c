package provisioning

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/revoked"
	"github.com/imprint-iot/imprint/template"
)

// Registered is what RegisterThing made or found.
type Registered struct {
	CertificatePEM string            // empty: the template has no certificate
	Resources      map[string]string // ARNs by logical name
	Thing          imprint.ThingName
}

// RegisterThing registers a device by an operator's call: an inline template and
// its parameters, everything in one transaction (AWS IoT API reference,
// RegisterThing). The certificate comes from a signing request, which the
// built-in CA signs, from its id, or from its PEM text, whose CA must be
// registered. Errors: CodeInvalidRequest for the template and its values,
// CodeConflictingUpdate, CodeRegistrationFailure for what the registry refuses.
func (c *Claims) RegisterThing(ctx context.Context, tenant imprint.Tenant, body string, parameters map[string]string) (Registered, error) {
	parsed, err := template.Parse([]byte(body), template.Bulk)
	if err != nil {
		return Registered{}, invalidTemplate(err)
	}
	r, err := c.planBulk(tenant, parsed, parameters)
	if err != nil {
		return Registered{}, err
	}
	if r.signs() {
		err = r.store.Update(ctx, func(tx imprint.Tx) error {
			_, err := r.foresee(tx)
			return err
		})
		if err != nil {
			return Registered{}, failedRegistration(err)
		}
	}
	err = r.prepare(ctx)
	if err != nil {
		return Registered{}, failedRegistration(err)
	}
	result, err := r.apply(ctx)
	if err != nil {
		return Registered{}, failedRegistration(err)
	}
	return r.registered(result), nil
}

// planBulk evaluates a template of RegisterThing or bulk registration for one
// device.
func (c *Claims) planBulk(tenant imprint.Tenant, parsed *template.Template, parameters map[string]string) (*bulkRegistration, error) {
	r, _, err := c.evaluateBulk(tenant, parsed, parameters)
	if err != nil {
		return nil, failedPlan(err)
	}
	return r, nil
}

// evaluateBulk is planBulk with what failed in our own words, and the step of the trace
// that it failed at.
func (c *Claims) evaluateBulk(tenant imprint.Tenant, parsed *template.Template, parameters map[string]string) (r *bulkRegistration, stage string, err error) {
	plan, err := parsed.Plan(parameters)
	if err != nil {
		return nil, stagePlan, err
	}
	err = refuseWhatIsNotKept(plan.Thing)
	if err != nil {
		return nil, stagePlan, err
	}
	err = c.engine.documents.check(tenant.Account, plan)
	if err != nil {
		return nil, stageDocument, err
	}
	if plan.Certificate == nil && len(plan.Policies) > 0 {
		return nil, stagePlan, imprint.Errorf(imprint.CodeTemplateValue, "the template has a policy and no certificate to attach it to").
			WithHint("Give the template a certificate, or take the policy out of it.")
	}
	return &bulkRegistration{Claims: c, tenant: tenant, plan: plan}, "", nil
}

// The steps of the trace at which a template fails for a device.
const (
	stagePlan     = "template.plan"
	stageDocument = "template.policy"
)

// failedPlan is AWS's form of what evaluateBulk fails with.
func failedPlan(err error) error {
	var fault *template.Error
	if errors.As(err, &fault) {
		return invalidTemplate(err)
	}
	return failedRegistration(err)
}

// invalidTemplate is AWS's form of what is wrong with a template or its values.
func invalidTemplate(err error) error {
	refusal := imprint.Errorf(imprint.CodeInvalidRequest, "Invalid registration template. %w", err)
	var fault *template.Error
	if errors.As(err, &fault) {
		if fault.Code == template.CodeMissingParameter {
			return imprint.Errorf(imprint.CodeInvalidRequest, "Invalid registration template. Cannot resolve reference value: {Ref=%s}", fault.Parameter)
		}
		refusal.Hint = fault.Hint
	}
	return refusal
}

// failedRegistration gives what devices' flows are refused with the code that
// the operation declares for it.
func failedRegistration(err error) error {
	switch imprint.CodeOf(err) {
	case imprint.CodeTemplateValue, imprint.CodePolicyMissing, imprint.CodeGroupMissing, imprint.CodeThingTypeMissing, imprint.CodeLimitExceeded,
		imprint.CodeCANotRegistered, imprint.CodeCAInactive, imprint.CodeCAExpired, imprint.CodeCASignature, imprint.CodeCertificateState,
		imprint.CodeCertificateConflict, imprint.CodeAlreadyExists, imprint.CodeNotFound, imprint.CodeCertificateRevoked,
		imprint.CodeOnRevocationList, imprint.CodeRevocationListStale:
		return &imprint.Error{Code: imprint.CodeRegistrationFailure, Err: err, Hint: imprint.HintOf(err)}
	case imprint.CodeCertificateValidation, imprint.CodeCertificateWeak:
		return &imprint.Error{Code: imprint.CodeInvalidRequest, Err: err, Hint: imprint.HintOf(err)}
	}
	return err
}

// bulkRegistration is one device of RegisterThing.
type bulkRegistration struct {
	*Claims
	tenant imprint.Tenant
	plan   *template.Plan

	// fresh is a certificate that isn't registered yet, or may not be; nil: the
	// template names one by its id, or none.
	fresh *imprint.Certificate
	leaf  *x509.Certificate // fresh's, when it wasn't made here
}

// signs says whether a certificate is signed for the device.
func (r *bulkRegistration) signs() bool {
	return r.plan.Certificate != nil && r.plan.Certificate.Source == template.SourceCSR
}

// errForeseen undoes what was written to see whether it can be.
var errForeseen = errors.New("nothing is in the way")

// foresee says what is in the way of the device, such as a policy that doesn't exist, and
// at which step, before a certificate is signed in vain: it writes all as with one, and undoes
// it. The answer may be another once it is signed.
func (r *bulkRegistration) foresee(tx imprint.Tx) (stage string, err error) {
	var result applied
	now := r.clock()
	cert := imprint.Certificate{
		Tenant: r.tenant, ID: StandInID, Status: imprint.CertificatePendingActivation, Mode: imprint.ModeDefault, OwnedBy: r.tenant.Account,
		CreatedAt: now, ModifiedAt: now,
	}
	err = tx.Try(func() error {
		a := application{tx: tx, cert: cert, fresh: true, plan: r.plan, now: now, applied: &result}
		err := a.run()
		if err == nil {
			err = errForeseen
		}
		return err
	})
	if errors.Is(err, errForeseen) {
		return "", nil
	}
	return result.stage, err
}

// prepare makes or reads the certificate, as far as that needs no transaction.
func (r *bulkRegistration) prepare(ctx context.Context) error {
	p := r.plan.Certificate
	if p == nil || p.Source == template.SourceID {
		return nil
	}
	if p.Source == template.SourceCSR {
		csr, err := pki.ParseCSRPEM(p.CertificateSigningRequest)
		if err != nil {
			return err
		}
		issued, err := r.sign(ctx, r.rooms.Profile, pki.Request{PublicKey: csr.PublicKey, RawSubject: csr.RawSubject}, r.tenant)
		if err != nil {
			return err
		}
		row := r.row(r.tenant, issued.Certificate, issued.PEM)
		r.fresh = &row
		return nil
	}
	leaf, err := pki.ParseCertificatePEM(p.CertificatePem)
	if err != nil {
		return err
	}
	refusal := r.engine.checkKey(leaf)
	if refusal != nil {
		return refusal
	}
	ca, err := r.signer(ctx, leaf, p.CACertificatePem)
	if err != nil {
		return err
	}
	row := r.row(r.tenant, leaf, p.CertificatePem)
	row.CAID, row.Mode = ca.ID, ca.Mode
	r.fresh, r.leaf = &row, leaf
	return nil
}

// signer finds the registered CA that signed a certificate.
func (r *bulkRegistration) signer(ctx context.Context, leaf *x509.Certificate, named string) (imprint.CACertificate, error) {
	found, err := r.engine.issuersOf(ctx, r.tenant, leaf)
	if err != nil {
		return imprint.CACertificate{}, err
	}
	candidates := found.certs
	if named != "" {
		only, err := pki.ParseCertificatePEM(named)
		if err != nil {
			return imprint.CACertificate{}, err
		}
		candidates = make([]*x509.Certificate, len(found.certs)) // PickIssuer skips nil
		for n, one := range found.certs {
			if one.Equal(only) {
				candidates[n] = one
			}
		}
	}
	at, err := pki.PickIssuer(leaf, candidates)
	if err != nil {
		return imprint.CACertificate{}, err
	}
	ca := found.all[at].ca
	if ca.Status != imprint.CAActive {
		return ca, imprint.Errorf(imprint.CodeCAInactive, "CA %s is %s", ca.ID, ca.Status)
	}
	refusal := imprint.ValidityRefusal(ca.NotBefore, ca.NotAfter, r.clock())
	if refusal != nil {
		return ca, imprint.Errorf(imprint.CodeCAExpired, "CA %s can't register certificates: %w", ca.ID, refusal)
	}
	return ca, nil
}

// apply writes everything.
func (r *bulkRegistration) apply(ctx context.Context) (applied, error) {
	var result applied
	err := r.store.Update(ctx, func(tx imprint.Tx) error {
		result = applied{}
		cert, fresh, err := r.certificate(tx)
		if err != nil {
			return err
		}
		return r.write(tx, cert, fresh, &result)
	})
	return result, err
}

// write writes the plan for a certificate's row. What it attaches to one that is being renewed
// goes along, as with AttachPolicy and AttachThingPrincipal: a device's rights must not depend
// on which of its certificates it uses.
func (r *bulkRegistration) write(tx imprint.Tx, cert imprint.Certificate, fresh bool, result *applied) error {
	a := application{tx: tx, cert: cert, fresh: fresh, plan: r.plan, now: r.clock(), applied: result}
	err := a.run()
	if err != nil || fresh || cert.ID == "" || r.rooms.Along == nil {
		return err
	}
	along, err := r.rooms.Along(tx, cert.Tenant, cert.ID)
	for _, id := range along {
		a.cert = imprint.Certificate{Tenant: cert.Tenant, ID: id}
		result.stage = "policy"
		err = a.attachPolicies()
		if err == nil && r.plan.Thing != nil && r.plan.Certificate != nil {
			result.stage = "thing.attach"
			err = a.attachThing(r.plan.Certificate.ThingPrincipalType == template.ExclusiveThing)
		}
		if err != nil {
			return err
		}
	}
	return err
}

// certificate gives the certificate's row, and whether it is to be stored.
func (r *bulkRegistration) certificate(tx imprint.ReadTx) (imprint.Certificate, bool, error) {
	switch p := r.plan.Certificate; {
	case p == nil:
		return imprint.Certificate{Tenant: r.tenant}, false, nil
	case r.fresh == nil:
		cert, err := tx.Certificate(r.tenant, imprint.CertificateID(p.CertificateID))
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			err = imprint.Errorf(imprint.CodeNotFound, "certificate %s, which the template names, doesn't exist", p.CertificateID)
		}
		return cert, false, err
	}
	present, err := tx.Certificate(r.tenant, r.fresh.ID)
	if err == nil {
		return present, false, nil // the same device again
	}
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return present, false, err
	}
	err = checkUnregistered(tx, *r.fresh)
	if err == nil && r.leaf != nil && r.leaf.IsCA {
		err = refuseOwnCA(tx, r.tenant, r.fresh.ID)
	}
	if err == nil && r.leaf != nil {
		_, err = revoked.Check(tx, r.tenant, r.leaf, r.clock())
	}
	if err != nil || r.fresh.CAID == "" {
		return *r.fresh, true, err
	}
	ca, err := tx.CA(r.tenant, r.fresh.CAID)
	if err != nil {
		return *r.fresh, true, fmt.Errorf("couldn't read CA %s: %w", r.fresh.CAID, err)
	}
	if ca.Status != imprint.CAActive {
		return *r.fresh, true, imprint.Errorf(imprint.CodeCAInactive, "CA %s is %s", ca.ID, ca.Status)
	}
	return *r.fresh, true, nil
}

// registered names what the template's resources became.
func (r *bulkRegistration) registered(result applied) Registered {
	out := Registered{Resources: map[string]string{}, Thing: result.thing}
	if p := r.plan.Thing; p != nil {
		out.Resources[p.LogicalName] = r.tenant.ThingARN(result.thing)
	}
	if p := r.plan.Certificate; p != nil {
		out.CertificatePEM = result.cert.PEM
		out.Resources[p.LogicalName] = result.cert.ARN()
	}
	policies := map[string]string{}
	for _, p := range r.plan.Policies {
		name := p.PolicyName
		if p.PolicyDocument != "" {
			name = p.GeneratedName
		}
		policies[p.LogicalName] = r.tenant.PolicyARN(imprint.PolicyName(name))
	}
	maps.Copy(out.Resources, policies)
	return out
}
