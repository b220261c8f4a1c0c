package provisioning

import (
	"errors"
	"strconv"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki/revoked"
	"github.com/imprint-iot/imprint/template"
	"github.com/imprint-iot/imprint/trace"
)

// tell tells the trace what became of the lines of a batch that is on disk: of all that failed,
// and of so many others as the trace keeps of what goes well. A server that is killed
// here forgets them; the reports have them.
func (b *Bulk) tell(task imprint.RegistrationTask, parsed *template.Template, lines []planned) {
	if b.opts.Trace == nil {
		return
	}
	for n := range lines {
		p := &lines[n]
		if p.failed == nil && !b.opts.Trace.SamplesLine() {
			continue
		}
		rec := b.opts.Trace.Begin(task.ID + ":" + strconv.FormatInt(p.line.at.line, 10))
		p.describe(rec, task.Tenant)
		rec.Info(imprint.StepBulkLine, "line %d of %s/%s, from byte %d on, of task %s", p.line.at.line,
			imprint.Excerpt(task.Bucket), imprint.Excerpt(task.Key), p.line.at.offset, task.ID)
		if p.parameters != nil {
			rec.OK("template", "the template of task %s", task.ID)
			recordParameters(rec, parsed.Values(p.parameters), lineOrigin)
		}
		if p.failed != nil {
			err := p.reason()
			rec.Fail(p.failedAt, err)
			rec.End(imprint.OutcomeRefused, imprint.CodeOf(err))
			continue
		}
		p.record(rec)
		rec.End(imprint.OutcomeRegistered, "")
	}
}

func lineOrigin(string) string { return "the line" }

// describe says whose line it is, as far as that is known.
func (p *planned) describe(rec *trace.Recorder, tenant imprint.Tenant) {
	rec.Describe(func(a *imprint.Attempt) {
		a.Tenant = tenant
		if p.plan == nil {
			return
		}
		cert := p.result.cert
		if cert.ID == "" && p.plan.fresh != nil {
			cert = *p.plan.fresh
		}
		named := p.plan.plan.Certificate
		if cert.ID == "" && named != nil && named.Source == template.SourceID {
			cert.ID = imprint.CertificateID(named.CertificateID)
		}
		a.CertificateID, a.Serial, a.Subject = cert.ID, cert.Serial, imprint.Excerpt(cert.Subject)
		a.Thing = p.result.thing
		if thing := p.plan.plan.Thing; a.Thing == "" && thing != nil {
			// It may be none that a thing can have: that is why it failed.
			a.Thing = imprint.ThingName(imprint.Excerpt(thing.ThingName))
		}
	})
}

// record tells what was written.
func (p *planned) record(rec *trace.Recorder) {
	switch {
	case p.result.cert.ID == "":
	case p.made:
		rec.Made("register", p.result.cert.ID, "certificate registered")
	default:
		rec.OK("register", "the certificate was registered before")
	}
	p.result.recordResources(rec)
}

// reason is why a line failed, in the words of the other flows: those of the report are
// AWS's. There is a fix in any case.
func (p *planned) reason() error {
	err := p.failed
	if p.cause != nil {
		err = p.cause
	}
	var fault *template.Error
	if errors.As(err, &fault) {
		return linePlanError(fault, p.parameters)
	}
	if imprint.HintOf(err) != "" {
		return err
	}
	return &imprint.Error{Code: imprint.CodeOf(err), Err: err, Hint: "Mend what the line says, or the template, and send the line again in another file."}
}

// linePlanError is planError for a line of a bulk registration.
func linePlanError(fault *template.Error, parameters map[string]string) error {
	refusal := &imprint.Error{Code: imprint.CodeTemplateValue, Op: "couldn't evaluate the template", Err: fault, Hint: "Change what the line says, or the template."}
	switch {
	case fault.Code == template.CodeMissingParameter:
		refusal.Code = imprint.CodeParameterMissing
		refusal.Hint = "Put " + imprint.Excerpt(fault.Parameter) + " into the line, or give the parameter a Default in the template."
		if other := inOtherCase(parameters, fault.Parameter); other != "" {
			refusal.Hint = "Names are case-sensitive: the line has " + imprint.Excerpt(other) + ", the template wants " + imprint.Excerpt(fault.Parameter) + "."
		}
	case fault.Parameter != "":
		refusal.Hint = "Change the template, or what the line has for " + imprint.Excerpt(fault.Parameter) + "."
	case fault.Hint != "":
		refusal.Hint = fault.Hint
	}
	return refusal
}

// certificateStage is the step that a certificate fails at which isn't registered.
func certificateStage(err error) string {
	if revoked.Is(err) {
		return revoked.Step(err)
	}
	switch imprint.CodeOf(err) {
	case imprint.CodeCANotRegistered, imprint.CodeCAInactive, imprint.CodeCAExpired, imprint.CodeCASignature:
		return "ca"
	case imprint.CodeCertificateWeak:
		return "certificate.key"
	case imprint.CodeCertificateValidation:
		return "certificate"
	}
	return stageRegister
}
