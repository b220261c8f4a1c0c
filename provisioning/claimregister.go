package provisioning

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/template"
)

// registration is one RegisterThing over MQTT.
type registration struct {
	*demand
	in   registerRequest
	id   imprint.CertificateID // that the token names
	hash string                // of the token's secret

	cert  imprint.Certificate
	tmpl  *fleetTemplate
	given map[string]string // parameters, with the overrides of asked
	asked string            // the hook that allowed it; empty: none yet
}

// register makes a device of a certificate that was given out: token, guard,
// template, hook, plan, and then everything in one transaction.
func (d *demand) register(ctx context.Context) (any, error) {
	r := &registration{demand: d}
	err := d.call.format.decode(d.Payload, &r.in)
	if err != nil {
		return nil, d.step("claim.payload", err)
	}
	r.id, r.hash, err = readOwnershipToken(r.in.Token)
	if err != nil {
		return nil, d.step("claim.token", err)
	}
	for range maxLooks {
		body, err := r.look(ctx)
		if !errors.Is(err, errMoved) {
			return body, err
		}
		d.Rec.Info("template", "the template was changed meanwhile: the request is looked at anew")
	}
	return nil, d.step("template", imprint.Errorf(imprint.CodeUnavailable, "the template was changed %d times while the request was looked at", maxLooks))
}

// look does the registration against what the registry holds now.
func (r *registration) look(ctx context.Context) (any, error) {
	var unusable error
	r.tmpl, unusable = r.templates.find(ctx, r.engine, r.Tenant, r.call.template)
	if unusable == nil {
		unusable = r.tmpl.unusable
	}
	// A hook is asked for nobody whose token isn't good, and no refusal is told before
	// that of the token. Otherwise the transaction finds out by itself.
	seen := unusable != nil || r.asksOthers()
	if seen {
		err := r.read(ctx)
		if err != nil {
			return nil, r.step(stageToken, err)
		}
		r.tokenIsGood()
	}
	if unusable != nil {
		return nil, r.step("template", unusable)
	}
	r.Rec.OK("template", "%s", r.tmpl.source)
	err := r.checkSerial(ctx, r.in.Parameters)
	if err != nil {
		return nil, r.step("claim.guard", err)
	}
	// A hook is called once for a request, also when the template changes meanwhile.
	if hook := r.tmpl.row.HookTargetARN; hook == "" || hook != r.asked {
		r.given, err = r.askHook(ctx, r.tmpl.row, r.cert, r.in.Parameters)
		if err != nil {
			return nil, r.step("claim.hook", err)
		}
		r.asked = hook
	}
	planned := r.plan()
	if planned.err != nil && !seen {
		err = r.read(ctx)
		if err != nil {
			return nil, r.step(stageToken, err)
		}
		r.tokenIsGood()
	}
	recordParameters(r.Rec, planned.values, requestOrigin(r.in.Parameters, r.given))
	if planned.err != nil {
		return nil, r.step(planned.stage, planned.err)
	}
	result, err := r.apply(ctx, planned.plan)
	if err != nil {
		if !errors.Is(err, errMoved) {
			r.Rec.Fail(result.stage, err)
		}
		return nil, err
	}
	if !seen {
		r.tokenIsGood()
	}
	r.count.registered.Add(1)
	result.record(r.Rec)
	r.Rec.Made("claim.registered", r.id, "claim certificate %s made certificate %s and thing %q", r.Claim, r.id, result.thing)
	r.Rec.Provisioned(result.thing)
	return &registeredBody{DeviceConfiguration: planned.plan.DeviceConfiguration, ThingName: string(result.thing)}, nil
}

const stageToken = "claim.token"

func (r *registration) tokenIsGood() {
	r.Rec.OK(stageToken, "the token is good for certificate %s", r.id)
}

// asksOthers says whether somebody looks at the request before it is done: a hook, or the
// guard's allow list.
func (r *registration) asksOthers() bool {
	return r.tmpl.row.HookTargetARN != "" || r.guard != nil && r.guard.SerialParameter != ""
}

// read finds what the token stands for, and checks it.
func (r *registration) read(ctx context.Context) error {
	return r.store.Glance(ctx, func(tx imprint.ReadTx) error {
		_, cert, err := r.pending(tx)
		r.cert = cert
		return err
	})
}

// pending gives what waits under the token, and its certificate. Errors:
// CodeClaimToken.
func (r *registration) pending(tx imprint.ReadTx) (imprint.PendingCertificate, imprint.Certificate, error) {
	pending, err := tx.PendingCertificate(r.Tenant, r.id)
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return pending, imprint.Certificate{}, err
	}
	waits := err == nil
	if waits {
		err = r.checkToken(pending, r.hash, r.Claim, r.clock())
		if err != nil {
			return pending, imprint.Certificate{}, err
		}
	}
	cert, err := tx.Certificate(r.Tenant, r.id)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return pending, cert, imprint.Errorf(imprint.CodeClaimToken, "the certificate ownership token has expired, or isn't this tenant's: there is no certificate %s", r.id)
	case err != nil:
		return pending, cert, err
	case waits && cert.Status != imprint.CertificatePendingActivation:
		return pending, cert, imprint.Errorf(imprint.CodeClaimToken, "certificate %s became %s without its ownership token: an operator did that", r.id, cert.Status).
			WithHint("The device can use that certificate as it is (aws iot describe-certificate --certificate-id %s), or begins anew with another.", r.id)
	case !waits && cert.Status == imprint.CertificatePendingActivation:
		return pending, cert, imprint.Errorf(imprint.CodeClaimToken, "the certificate ownership token has expired; certificate %s was kept because something is attached to it", r.id)
	case !waits:
		return pending, cert, imprint.Errorf(imprint.CodeClaimToken, "the certificate ownership token was used already, or expired after an operator had changed the status of certificate %s", r.id).
			WithHint(hintRegistered)
	}
	return pending, cert, nil
}

// evaluation is what became of a template's evaluation.
type evaluation struct {
	plan   *template.Plan
	values []template.ParameterUse
	stage  string // that failed
	err    error
}

// plan evaluates the template. Nothing is written before all of it is known.
func (r *registration) plan() evaluation {
	parameters := make(map[string]string, len(r.given)+1)
	maps.Copy(parameters, r.given)
	parameters[template.CertificateIDParameter] = string(r.id) // whatever the device says
	plan, err := r.tmpl.tmpl.Plan(parameters)
	if err != nil {
		return evaluation{values: r.tmpl.tmpl.Values(parameters), stage: "template.plan", err: requestPlanError(err, r.tmpl.source)}
	}
	p := evaluation{plan: plan, values: plan.Used, stage: "template.plan", err: refuseWhatIsNotKept(plan.Thing)}
	if p.err == nil {
		p.stage, p.err = "template.policy", r.engine.documents.check(r.Tenant.Account, plan)
	}
	return p
}

// requestPlanError puts a template's failure into the domain's words, for a
// device that sends parameters.
func requestPlanError(err error, source string) error {
	code, hint := imprint.CodeTemplateValue, ""
	var fault *template.Error
	if errors.As(err, &fault) {
		hint = fault.Hint
		if fault.Code == template.CodeMissingParameter {
			code = imprint.CodeParameterMissing
			hint = fmt.Sprintf("Send the parameter %s in the request, or give it a Default in %s.", fault.Parameter, source)
		}
	}
	return &imprint.Error{Code: code, Op: "couldn't evaluate " + source, Err: err, Hint: hint}
}

// apply writes the device: its resources, the guard's count, and that the token
// is used up.
func (r *registration) apply(ctx context.Context, plan *template.Plan) (applied, error) {
	var result applied
	err := r.engine.makeDevice(ctx, func(tx imprint.Tx) (*application, error) {
		result = applied{stage: stageRegister}
		return r.write(tx, plan, &result)
	})
	return result, err
}

func (r *registration) write(tx imprint.Tx, plan *template.Plan, result *applied) (*application, error) {
	if r.engine.moved(r.tmpl.basis) {
		return nil, errMoved
	}
	result.stage = stageToken
	pending, cert, err := r.pending(tx)
	if err != nil {
		return nil, err
	}
	result.stage = "claim.guard"
	err = r.countDevice(tx)
	if err != nil {
		return nil, err
	}
	a := &application{tx: tx, cert: cert, plan: plan, now: r.now, applied: result}
	err = a.run()
	if err != nil {
		return nil, err
	}
	result.stage = stageRegister
	err = r.remember(tx, result.thing)
	if err != nil {
		return nil, err
	}
	if result.cert.Status == imprint.CertificatePendingActivation {
		// The template leaves it so: its time goes on.
		pending.Used = true
		return a, tx.PutPendingCertificate(pending)
	}
	return a, tx.DeletePendingCertificate(r.Tenant, r.id)
}

// remember writes down what came of a trusted user's claim.
func (r *registration) remember(tx imprint.Tx, thing imprint.ThingName) error {
	if r.temporary == nil {
		return nil
	}
	claim, err := tx.ProvisioningClaim(r.Tenant, r.Claim)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil // its time is long over, but not its connection's
	}
	if err != nil {
		return err
	}
	claim.Device, claim.Thing, claim.Devices = r.id, thing, claim.Devices+1
	return tx.PutProvisioningClaim(claim)
}

// fleetKey names a template.
type fleetKey struct {
	tenant imprint.Tenant
	name   string
}

// fleetTemplate is a template's default version, parsed. It is what the registry
// holds until its basis has moved.
type fleetTemplate struct {
	row      imprint.ProvisioningTemplate
	tmpl     *template.Template
	source   string
	unusable error // why it can't be used; nil: it can
	basis    basis
}

// fleetTemplates caches templates.
type fleetTemplates struct {
	mu    sync.RWMutex
	known *fair.Memory[fleetKey, *fleetTemplate]
}

// maxFleetTemplates bounds the cache.
const maxFleetTemplates = 1024

// find gives a tenant's template. Errors: CodeTemplateMissing.
func (f *fleetTemplates) find(ctx context.Context, e *Engine, tenant imprint.Tenant, name string) (*fleetTemplate, error) {
	key := fleetKey{tenant, name}
	f.mu.RLock()
	found, _ := f.known.Known(tenant.Account, key)
	f.mu.RUnlock()
	if found != nil && !e.moved(found.basis) {
		return found, nil
	}
	parsed, err := imprint.ParseTemplateName(name)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeTemplateMissing, "the topic names no template: %w", err)
	}
	loaded := &fleetTemplate{basis: e.basisOf(tenant)}
	loaded.basis.templates = []imprint.TemplateName{parsed}
	err = e.store.View(ctx, func(tx imprint.ReadTx) error { return loaded.load(tx, tenant, parsed) })
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known.Keep(tenant.Account, key, loaded)
	return loaded, nil
}

func (f *fleetTemplate) load(tx imprint.ReadTx, tenant imprint.Tenant, name imprint.TemplateName) error {
	row, err := tx.Template(tenant, name)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return imprint.Errorf(imprint.CodeTemplateMissing, "provisioning template %q doesn't exist", name).
			WithHint("Publish to a template that exists (aws iot list-provisioning-templates), or make it: aws iot create-provisioning-template --template-name %s --enabled --provisioning-role-arn ROLE --template-body file://template.json", name)
	}
	if err != nil {
		return fmt.Errorf("couldn't read template %s: %w", name, err)
	}
	f.row = row
	if row.Type != imprint.TemplateFleet {
		return imprint.Errorf(imprint.CodeTemplateMissing, "provisioning template %q is of type %s, not %s", name, row.Type, imprint.TemplateFleet)
	}
	version, err := tx.TemplateVersion(tenant, name, row.DefaultVersion)
	if err != nil {
		return fmt.Errorf("couldn't read version %d of template %s: %w", row.DefaultVersion, name, err)
	}
	f.source = fmt.Sprintf("template %s, version %d", name, version.Version)
	if !row.Enabled {
		f.unusable = imprint.Errorf(imprint.CodeTemplateDisabled, "provisioning template %q is disabled", name).
			WithHint("aws iot update-provisioning-template --template-name %s --enabled", name)
		return nil
	}
	f.tmpl, err = template.Parse([]byte(version.Body), template.Fleet)
	if err != nil {
		f.unusable = imprint.Errorf(imprint.CodeTemplateInvalid, "%s isn't valid: %w", f.source, err)
	}
	return nil
}
