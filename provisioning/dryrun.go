package provisioning

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/template"
)

// DryRun is one device going through a template without a server or, with a
// Registry, against what a server has. It asks the questions of the flows with
// the flows' own code, goes on behind a failure as far as it can, so that a
// person sees all that is wrong at once, and writes nothing. Functions (hooks,
// certificate providers) aren't called.
type DryRun struct {
	Template *template.Template
	Source   string // where the template is from, for messages
	Tenant   imprint.Tenant
	Now      time.Time

	// The device: its certificate, or its signing request, or neither.
	Leaf *x509.Certificate
	CSR  *x509.CertificateRequest
	// Parameters are what the device sends, or the call or the line of a bulk
	// registration has. For JITP they go over the fields of the subject.
	Parameters map[string]string

	// CAs are what the certificate should be signed by; none: that isn't looked at.
	CAs []*x509.Certificate
	// RegisteredCA is the only one of CAs as the server has it; nil: they are of
	// files.
	RegisteredCA *imprint.CACertificate
	// Unusable is why the server wouldn't use the template; nil: it would.
	Unusable error
	// Hook is the template's pre-provisioning hook; empty: none is known of.
	Hook string
	// Registry is what the server has; nil: nothing is known of a server.
	Registry DryRunRegistry
}

// DryRunRegistry is what a dry run reads of a server. Errors: CodeNotFound for
// what doesn't exist; any other ends the dry run.
type DryRunRegistry interface {
	Certificate(context.Context, imprint.CertificateID) (imprint.Certificate, error)
	Thing(context.Context, imprint.ThingName) (imprint.Thing, error)
	ThingType(context.Context, imprint.ThingTypeName) (imprint.ThingType, error)
	ThingGroup(context.Context, imprint.ThingGroupName) (imprint.ThingGroup, error)
	ThingGroupsOf(context.Context, imprint.ThingName) ([]imprint.ThingGroupName, error)
	BillingGroup(context.Context, imprint.BillingGroupName) (imprint.BillingGroup, error)
	Policy(context.Context, imprint.PolicyName) (imprint.Policy, error)
}

// VerdictWarning is how a step of a dry run ends that no flow refuses and
// nobody is likely to want. Traces don't have it.
const VerdictWarning imprint.Verdict = "warning"

// DryRunStep is a step by the name that it has in a trace.
type DryRunStep struct {
	Name    string          `json:"step"`
	Verdict imprint.Verdict `json:"verdict"`
	Code    imprint.Code    `json:"code,omitempty"` // of a failed one
	// Line and Column are the place in the template, 0 without one.
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Member string `json:"member,omitempty"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

// DryRunParameter is a parameter of the template with the value that it has for
// the device.
type DryRunParameter struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // ParameterMissing without a value
	Used   bool   `json:"used"`
	Line   int    `json:"line,omitempty"` // of its declaration
	Column int    `json:"column,omitempty"`
}

// ParameterMissing is the source of a parameter that has no value.
const ParameterMissing = "missing"

// DryRunResult is what came of a dry run.
type DryRunResult struct {
	Steps      []DryRunStep      `json:"steps"`
	Parameters []DryRunParameter `json:"parameters"`
	// Plan is what would be made; nil: the template can't be evaluated.
	Plan *template.Plan `json:"-"`
	// Unchecked is what couldn't be looked at.
	Unchecked []string `json:"unchecked"`
}

// Worst is the gravest verdict of the steps: failed, warning or ok.
func (r *DryRunResult) Worst() imprint.Verdict {
	worst := imprint.VerdictOK
	for _, s := range r.Steps {
		if s.Verdict == imprint.VerdictFailed {
			return s.Verdict
		}
		if s.Verdict == VerdictWarning {
			worst = s.Verdict
		}
	}
	return worst
}

// StandInID is the id of a certificate that doesn't exist yet.
const StandInID = imprint.CertificateID("0000000000000000000000000000000000000000000000000000000000000000")

// dryRun is a DryRun under way.
type dryRun struct {
	DryRun
	*DryRunResult
	id     imprint.CertificateID
	values map[string]string
	from   map[string]string // sources of values, by name
}

// Run goes through the template. The error is that the registry couldn't be
// read; all else is in the result.
func (d DryRun) Run(ctx context.Context) (*DryRunResult, error) {
	r := &dryRun{DryRun: d, DryRunResult: &DryRunResult{Steps: []DryRunStep{}, Unchecked: []string{}}, values: map[string]string{}, from: map[string]string{}}
	if d.Unusable != nil {
		r.fail("template", "", d.Unusable)
	}
	if d.Leaf != nil {
		r.id = pki.CertificateID(d.Leaf.Raw)
		r.certificate(d.Leaf)
	} else {
		r.id = StandInID
	}
	r.collect()
	r.list()
	r.plan()
	if r.Plan == nil {
		return r.DryRunResult, nil
	}
	r.source()
	if d.Registry == nil {
		r.withoutRegistry()
		return r.DryRunResult, nil
	}
	return r.DryRunResult, r.register(ctx)
}

func (r *dryRun) add(step DryRunStep) { r.Steps = append(r.Steps, step) }

func (r *dryRun) say(verdict imprint.Verdict, name, format string, args ...any) *DryRunStep {
	r.add(DryRunStep{Name: name, Verdict: verdict, Detail: fmt.Sprintf(format, args...)})
	return &r.Steps[len(r.Steps)-1]
}

// fail adds a failed step at the place of a member; empty: none.
func (r *dryRun) fail(name, member string, err error) {
	step := DryRunStep{
		Name: name, Verdict: imprint.VerdictFailed, Code: imprint.CodeOf(err), Member: member, Detail: err.Error(), Fix: imprint.HintOf(err),
	}
	if member != "" {
		step.Line, step.Column = r.Template.Locate(member)
	}
	r.add(step)
}

// certificate runs the checks of Engine.admit that need no registry, and that of
// the CA.
func (r *dryRun) certificate(leaf *x509.Certificate) {
	kind := r.Template.Kind()
	if len(leaf.Raw) > maxCertificate && kind == template.JITP {
		r.fail("certificate.size", "", imprint.Errorf(imprint.CodeCertificateValidation, "the certificate is %d bytes long, at most %d are taken", len(leaf.Raw), maxCertificate))
	}
	refusal := imprint.ValidityRefusal(leaf.NotBefore, leaf.NotAfter, r.Now)
	switch {
	case refusal != nil && kind == template.JITP:
		r.fail("certificate.validity", "", refusal)
	case refusal != nil: // it is registered, and then the device can't connect
		r.say(VerdictWarning, "certificate.validity", "%s", refusal).Fix = imprint.HintOf(refusal)
	}
	refusal = pki.CheckKey(leaf)
	if refusal != nil {
		r.fail("certificate.key", "", refusal)
	}
	switch {
	case kind == template.Fleet: // the server signs it
	case len(r.CAs) == 0:
		r.unchecked("whether a registered CA signed the certificate")
	default:
		r.signature(leaf)
	}
}

// signature finds the CA, as Engine.admit and bulkRegistration.signer do.
func (r *dryRun) signature(leaf *x509.Certificate) {
	at, err := pki.PickIssuer(leaf, r.CAs)
	if err != nil {
		if imprint.CodeOf(err) == imprint.CodeCANotRegistered {
			err = imprint.Errorf(imprint.CodeCANotRegistered, "the certificate was issued by %q, and that isn't the subject of a given CA, such as %q",
				pki.SubjectText(leaf.RawIssuer), pki.SubjectText(r.CAs[0].RawSubject)).
				WithHint("Give the CA that signed the device's certificate, not that one's issuer, and register it.")
		}
		r.fail("ca", "", err)
		return
	}
	cert := r.CAs[at]
	if cert.Equal(leaf) {
		r.fail("certificate", "", errOwnCA(r.id))
		return
	}
	ca := imprint.CACertificate{ID: pki.CertificateID(cert.Raw), Status: imprint.CAActive, AutoRegistration: true, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter}
	if r.RegisteredCA != nil {
		ca = *r.RegisteredCA
		ca.AutoRegistration = ca.AutoRegistration || r.Template.Kind() == template.Bulk // it isn't asked for there
	} else {
		err = pki.CheckCARegistration(cert, nil, "", imprint.ModeSNIOnly, r.Now)
	}
	if err == nil {
		err = (&issuer{ca: ca}).mayRegister(&visit{now: r.Now})
	}
	if err != nil {
		r.fail("ca", "", err)
		return
	}
	r.say(imprint.VerdictOK, "ca", "signed by CA %s (%s)", ca.ID, pki.SubjectText(cert.RawSubject))
	if ca.Mode == imprint.ModeSNIOnly && r.Template.Kind() == template.JITP {
		r.say(imprint.VerdictInfo, "ca", "the CA is registered SNI_ONLY: the device must send the endpoint's name as SNI")
	}
}

func (r *dryRun) unchecked(format string, args ...any) {
	r.Unchecked = append(r.Unchecked, fmt.Sprintf(format, args...))
}

// Sources of values.
const (
	fromSubject = "certificate's subject"
	fromRequest = "signing request's subject"
	fromGiven   = "given"
	fromService = "service"
	fromStandIn = "stands in for the service's"
	fromDefault = "default"
	fromNowhere = ParameterMissing
)

// collect gathers the values that the flow would have.
func (r *dryRun) collect() {
	put := func(values map[string]string, source string) {
		for name, value := range values {
			r.values[name], r.from[name] = value, source
		}
	}
	kind := r.Template.Kind()
	switch {
	case kind == template.JITP && r.Leaf != nil:
		put(template.SubjectParameters(r.Leaf, string(r.id)), fromSubject)
	case kind == template.JITP && r.CSR != nil:
		put(template.SubjectParameters(&x509.Certificate{RawSubject: r.CSR.RawSubject}, string(r.id)), fromRequest)
		r.say(imprint.VerdictInfo, "template.parameter", "the subject is that of the signing request: the CA must keep it in the certificate")
	}
	given := r.DryRun.Parameters
	if _, sent := given[template.CertificateIDParameter]; sent && kind != template.Bulk {
		given = maps.Clone(given)
		delete(given, template.CertificateIDParameter)
		r.say(imprint.VerdictInfo, "template.parameter", "the given %s is ignored: the service supplies it", template.CertificateIDParameter)
	}
	put(given, fromGiven)
	r.undeclared(given)
	if kind == template.Bulk {
		r.fillCertificate()
		return
	}
	source := fromService
	if r.Leaf == nil {
		source = fromStandIn
	}
	put(map[string]string{template.CertificateIDParameter: string(r.id)}, source)
}

// fillCertificate takes a certificate or a signing request that was given as a
// file as the value of the parameter that the template wants it in.
func (r *dryRun) fillCertificate() {
	source, name := r.Template.CertificateParameter()
	_, given := r.values[name]
	switch {
	case r.Leaf == nil && r.CSR == nil:
	case given || name == "":
		r.say(VerdictWarning, "certificate", "the given certificate or signing request isn't used: the template has its certificate from elsewhere")
	case source == template.SourceID && r.Leaf != nil:
		r.values[name], r.from[name] = string(r.id), "id of the certificate"
	case source == template.SourcePEM && r.Leaf != nil:
		r.values[name], r.from[name] = pki.EncodeCertificatePEM(r.Leaf.Raw), "certificate"
	case source == template.SourceCSR && r.CSR != nil:
		r.values[name], r.from[name] = encodeCSR(r.CSR), "signing request"
	default:
		r.say(VerdictWarning, "certificate", "the given file isn't used: the template's certificate is of %s", source)
	}
}

// undeclared names the parameters that were given in vain.
func (r *dryRun) undeclared(given map[string]string) {
	declared := r.Template.Parameters()
	for _, name := range slices.Sorted(maps.Keys(given)) {
		known := slices.ContainsFunc(declared, func(p template.Parameter) bool { return p.Name == name })
		if known {
			continue
		}
		step := r.say(VerdictWarning, "template.parameter", "parameter %q is given, and the template doesn't declare it: it is ignored", imprint.Excerpt(name))
		for _, p := range declared {
			if strings.EqualFold(p.Name, name) {
				step.Fix = "did you mean " + p.Name + "? Names are case-sensitive"
			}
		}
	}
}

// list tells the value of each parameter.
func (r *dryRun) list() {
	parameters := r.Template.Parameters()
	r.DryRunResult.Parameters = make([]DryRunParameter, 0, len(parameters))
	for _, p := range parameters {
		one := DryRunParameter{Name: p.Name, Used: len(p.References) > 0, Line: p.Line, Column: p.Column, Source: fromNowhere}
		value, given := r.values[p.Name]
		switch {
		case given:
			one.Value, one.Source = value, r.from[p.Name]
		case p.HasDefault:
			one.Value, one.Source = p.Default, fromDefault
		}
		r.DryRunResult.Parameters = append(r.DryRunResult.Parameters, one)
	}
}

// plan evaluates the template, as Engine.plan, registration.plan and
// Claims.planBulk do.
func (r *dryRun) plan() {
	plan, err := r.Template.Plan(r.values)
	var fault *template.Error
	if errors.As(err, &fault) {
		faults := []*template.Error{fault}
		if fault.Code == template.CodeMissingParameter {
			faults = r.Template.Missing(r.values)
		}
		for _, fault := range faults {
			r.planFault(fault)
		}
		return
	}
	r.Plan = plan
	r.say(imprint.VerdictOK, "template.plan", "%s is evaluated", r.Source)
	err = refuseWhatIsNotKept(plan.Thing)
	if err != nil {
		r.fail("template.plan", "Resources."+plan.Thing.LogicalName+".Properties.PackageVersions", err)
	}
	if plan.Certificate != nil && plan.Certificate.Status == template.StatusInactive {
		r.say(VerdictWarning, "activate", "the template leaves the certificate INACTIVE: the device can't connect").Fix =
			"aws iot update-certificate --new-status ACTIVE, for each device"
	}
	for n := range plan.Policies {
		p := &plan.Policies[n]
		if p.PolicyDocument == "" {
			continue
		}
		err := checkDocument(p)
		if err != nil {
			r.documentFault(p.LogicalName, err)
			continue
		}
		r.say(imprint.VerdictOK, "template.policy", "the document of %s is a policy", p.LogicalName)
	}
	if r.Template.Kind() == template.Bulk && plan.Certificate == nil && len(plan.Policies) > 0 {
		r.fail("template.plan", "Resources."+plan.Policies[0].LogicalName, imprint.Errorf(imprint.CodeTemplateValue, "the template has a policy and no certificate to attach it to"))
	}
}

func (r *dryRun) planFault(fault *template.Error) {
	step := DryRunStep{
		Name: "template.plan", Verdict: imprint.VerdictFailed, Code: imprint.CodeTemplateValue,
		Line: fault.Line, Column: fault.Column, Member: fault.Member, Detail: fault.Msg, Fix: fault.Hint,
	}
	if fault.Code == template.CodeMissingParameter {
		step.Code = imprint.CodeParameterMissing
	}
	r.add(step)
}

// documentFault finds the place of a policy's fault in the template.
func (r *dryRun) documentFault(logical string, err error) {
	step := DryRunStep{Name: "template.policy", Verdict: imprint.VerdictFailed, Code: imprint.CodeOf(err), Detail: err.Error(), Fix: imprint.HintOf(err)}
	step.Member = "Resources." + logical + ".Properties.PolicyDocument"
	step.Line, step.Column = r.Template.Locate(step.Member)
	var syntax *policy.SyntaxError
	for _, document := range r.Template.Documents() {
		if document.LogicalName == logical && errors.As(err, &syntax) {
			step.Line, step.Column = document.Place(syntax.Member, syntax.Line, syntax.Column)
		}
	}
	r.add(step)
}

// source looks at the certificate that a template of bulk registration brings,
// as bulkRegistration.prepare does.
func (r *dryRun) source() {
	p := r.Plan.Certificate
	if r.Template.Kind() != template.Bulk || p == nil || p.Source == template.SourceID {
		return
	}
	member := "Resources." + p.LogicalName + ".Properties." + string(p.Source)
	if p.Source == template.SourceCSR {
		csr, err := pki.ParseCSRPEM(p.CertificateSigningRequest)
		if err != nil {
			r.fail("certificate", member, err)
			return
		}
		r.say(imprint.VerdictOK, "certificate", "the signing request of %q is good", pki.SubjectText(csr.RawSubject))
		return
	}
	leaf, err := pki.ParseCertificatePEM(p.CertificatePem)
	if err != nil {
		r.fail("certificate", member, err)
		return
	}
	if r.Leaf == nil || !leaf.Equal(r.Leaf) {
		r.certificate(leaf)
	}
	if p.CACertificatePem == "" {
		return
	}
	named, err := pki.ParseCertificatePEM(p.CACertificatePem)
	if err == nil {
		_, err = pki.PickIssuer(leaf, []*x509.Certificate{named})
	}
	if err != nil {
		r.fail("ca", "Resources."+p.LogicalName+".Properties.CACertificatePem", err)
	}
}
