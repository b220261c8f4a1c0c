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
	RulePolicyMistake    = "policy-mistake"
	RulePolicyNeedsThing = "policy-needs-thing"
	RulePackageVersions  = "package-versions"
	RuleSubjectLacks     = "subject-lacks"
)

// LintTemplate is template.Lint and what else can be seen without provisioning a
// device: what the linter of policies finds in the documents, what this build
// refuses, and, given
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
	_, err := policy.Parse([]byte(document.Text))
	var syntax *policy.SyntaxError
	if errors.As(err, &syntax) {
		return []template.Finding{finding(RulePolicyInvalid, severity, syntax.Member, syntax.Line, syntax.Column, syntax.Hint,
			"the PolicyDocument isn't a policy"+sampled+": "+syntax.Msg)}
	}
	if err != nil {
		return []template.Finding{finding(RulePolicyInvalid, severity, "", 1, 1, "", "the PolicyDocument isn't a policy"+sampled+": "+err.Error())}
	}
	var findings []template.Finding
	for _, f := range policy.Lint([]byte(document.Text), policy.LintOptions{}) {
		// What is said of a stand-in isn't said of the value that a device has there.
		if document.Sampled && f.Code != policy.LintReceiveMissing && strings.Contains(f.Message, template.Sample) {
			continue
		}
		rule, severity, told := policyRule(f)
		if told {
			findings = append(findings, finding(rule, severity, f.Member, f.Line, f.Column, f.Fix, fmt.Sprintf("%s (%s)", f.Message, f.Code)))
		}
	}
	if !thing && strings.Contains(document.Text, "${iot:Connection.Thing.") {
		findings = append(findings, finding(RulePolicyNeedsThing, template.Warning, "", 1, 1, "add a resource of type AWS::IoT::Thing, or use ${iot:ClientId}",
			"the policy uses variables about the thing, and the template makes none: they have no value"))
	}
	return findings
}

// policyRule says what a finding of the linter of policies is in a template. None is
// an error there: devices are provisioned with such a policy. That a document has no
// iot:Connect isn't told, as another policy of the template may have it.
func policyRule(f policy.Finding) (rule string, severity template.Severity, told bool) {
	switch {
	case f.Code == policy.LintConnectMissing:
		return "", "", false
	case f.Code.Wide():
		return RulePolicyTooWide, template.Warning, true
	case f.Severity == policy.SeverityNote:
		return RulePolicyMistake, template.Note, true
	}
	return RulePolicyMistake, template.Warning, true
}

// LintNamedPolicy is LintTemplate for a policy that a template names, whose text is
// elsewhere: on a server, in a file. The findings' place is that of the name, and
// where they are in the document they say themselves.
func LintNamedPolicy(t *template.Template, logicalName, name, document string) []template.Finding {
	var findings []template.Finding
	member := "Resources." + logicalName + ".Properties.PolicyName"
	line, column := t.Locate(member)
	for _, f := range policy.Lint([]byte(document), policy.LintOptions{}) {
		rule, severity, told := policyRule(f)
		if !told {
			continue
		}
		if f.Code == policy.LintSyntax || f.Code == policy.LintVariableUnbalanced {
			rule = RulePolicyInvalid
		}
		findings = append(findings, template.Finding{
			Rule: rule, Severity: severity, Line: line, Column: column, Member: member,
			Msg: fmt.Sprintf("policy %q, line %d, column %d: %s (%s)", name, f.Line, f.Column, f.Message, f.Code), Hint: f.Fix,
		})
	}
	return findings
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
