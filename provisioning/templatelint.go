package provisioning

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/template"
)

// Rules of LintTemplate beside those of package template.
const (
	RulePolicyInvalid    = "policy-invalid"
	RulePolicyTooWide    = "policy-too-wide"
	RulePolicyNeedsThing = "policy-needs-thing"
	RulePackageVersions  = "package-versions"
	RuleSubjectLacks     = "subject-lacks"
)

// LintTemplate is template.Lint and what else can be seen without provisioning a
// device: the policies in the template, what this build refuses, and, given
// certificates of devices, fields of the subject that a JITP template demands and
// they lack.
func LintTemplate(t *template.Template, certs ...*x509.Certificate) []template.Finding {
	findings := append(t.Lint(), lintSubjects(t, certs)...)
	thing := false
	for _, f := range findings {
		thing = thing || f.Rule == template.RuleNoThing
	}
	if at, has := t.PackageVersions(); has {
		findings = append(findings, template.Finding{
			Rule: RulePackageVersions, Severity: template.Mistake, Line: at.Line, Column: at.Column, Member: at.Member,
			Msg: "the software packages of PackageVersions don't exist", Hint: "this build keeps no software packages: take PackageVersions out of the template",
		})
	}
	for _, document := range t.Documents() {
		findings = append(findings, lintDocument(document, !thing)...)
	}
	slices.SortStableFunc(findings, func(a, b template.Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return findings
}

func lintDocument(document template.Document, thing bool) []template.Finding {
	finding := func(rule string, severity template.Severity, member string, line, column int, hint, msg string) template.Finding {
		f := template.Finding{Rule: rule, Severity: severity, Member: document.Member, Msg: msg, Hint: hint}
		f.Line, f.Column = document.Place(member, line, column)
		if member != "" {
			f.Member += "." + member
		}
		return f
	}
	severity, sampled := template.Mistake, ""
	if document.Sampled {
		severity, sampled = template.Warning, ", with "+template.Sample+" as the value of its parameters"
	}
	if document.Err != nil {
		return []template.Finding{finding(RulePolicyInvalid, severity, "", 1, 1, document.Err.Hint, document.Err.Msg+sampled)}
	}
	parsed, err := policy.Parse([]byte(document.Text))
	var syntax *policy.SyntaxError
	if errors.As(err, &syntax) {
		return []template.Finding{finding(RulePolicyInvalid, severity, syntax.Member, syntax.Line, syntax.Column, syntax.Hint,
			"the PolicyDocument isn't a policy"+sampled+": "+syntax.Msg)}
	}
	var findings []template.Finding
	for n, s := range parsed.Statements() {
		if allowsEverything(s) {
			findings = append(findings, finding(RulePolicyTooWide, template.Warning, fmt.Sprintf("Statement[%d]", n), s.Line, s.Column,
				"name the actions and resources that a device needs, with ${iot:Connection.Thing.ThingName} in them",
				"the statement allows every device everything: another's topics and client id, too"))
		}
	}
	if !thing && strings.Contains(document.Text, "${iot:Connection.Thing.") {
		findings = append(findings, finding(RulePolicyNeedsThing, template.Warning, "", 1, 1, "add a resource of type AWS::IoT::Thing, or use ${iot:ClientId}",
			"the policy uses variables about the thing, and the template makes none: they have no value"))
	}
	return findings
}

// allowsEverything is the one width that is certainly a mistake. What else a
// policy is better without is package policy's to say.
func allowsEverything(s policy.Statement) bool {
	action := slices.ContainsFunc(s.Actions, func(a string) bool { return a == "*" || strings.EqualFold(a, "iot:*") })
	return s.Effect == policy.Allow && !s.NotAction && !s.NotResource && len(s.Conditions) == 0 && action && slices.Contains(s.Resources, "*")
}

func lintSubjects(t *template.Template, certs []*x509.Certificate) []template.Finding {
	if t.Kind() != template.JITP || len(certs) == 0 {
		return nil
	}
	var findings []template.Finding
	for _, p := range t.Parameters() {
		if p.HasDefault {
			continue
		}
		lacking, example := 0, ""
		for _, cert := range certs {
			_, has := template.SubjectParameters(cert, "")[p.Name]
			if has {
				continue
			}
			lacking++
			if example == "" {
				example = pki.SubjectText(cert.RawSubject)
			}
		}
		if lacking == 0 {
			continue
		}
		field := strings.TrimPrefix(p.Name, "AWS::IoT::Certificate::")
		f := template.Finding{
			Rule: RuleSubjectLacks, Severity: template.Warning, Line: p.Line, Column: p.Column, Member: "Parameters." + p.Name, Parameter: p.Name,
			Msg:  fmt.Sprintf("%d of %d certificates have no %s in their subject, such as that of %q: their devices are refused", lacking, len(certs), field, example),
			Hint: "issue certificates with it, give the parameter a Default, or remove it from the template",
		}
		if lacking == len(certs) {
			f.Severity = template.Mistake
		}
		findings = append(findings, f)
	}
	return findings
}
