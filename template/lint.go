package template

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says what comes of a Finding.
type Severity string

const (
	// Mistake: every device fails, or is taken for another one.
	Mistake Severity = "error"
	// Warning: some devices fail, or it isn't likely to be meant so.
	Warning Severity = "warning"
	// Note: it works, and one should know.
	Note Severity = "note"
)

// Finding is one thing that a template is better without.
type Finding struct {
	Rule     string // one of the Rule constants
	Severity Severity
	// Line and Column are as in Error: 1-based, 0 when the finding is about something that isn't there.
	Line, Column int
	Member       string
	Parameter    string
	Msg          string
	Hint         string
}

// Rules of Lint.
const (
	RuleUnusedParameter        = "unused-parameter"
	RuleParameterNotGiven      = "parameter-not-given"
	RuleResourceReference      = "resource-reference"
	RuleThingName              = "thing-name-not-unique"
	RuleAttributesWithoutType  = "attributes-without-type"
	RuleTooManyGroups          = "too-many-groups"
	RuleOverrideOfNothing      = "override-of-nothing"
	RuleOverrideNoEffect       = "override-no-effect"
	RuleOverrideFail           = "override-fail"
	RuleCertificateInactive    = "certificate-inactive"
	RuleNoThing                = "no-thing"
	RuleNoCertificate          = "no-certificate"
	RuleNoPolicy               = "no-policy"
	RulePolicyNoCertificate    = "policy-without-certificate"
	RulePolicyByDevice         = "policy-by-device"
	RuleGroupByDevice          = "group-by-device"
	RulePolicyDocumentByValues = "policy-document-by-values"
)

// Lint looks for what Parse lets pass and no maker wants. It needs no parameters, and gives its
// findings in the order of the text.
func (t *Template) Lint() []Finding {
	l := &linter{t: t}
	l.parameters()
	l.references()
	l.thing()
	l.certificate()
	l.policies()
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return l.findings
}

type linter struct {
	t        *Template
	findings []Finding
}

// add puts a finding at a place of the text; a site without a member is about the whole template.
func (l *linter) add(rule string, severity Severity, at site, hint, format string, args ...any) *Finding {
	f := Finding{Rule: rule, Severity: severity, Member: at.member, Msg: fmt.Sprintf(format, args...), Hint: hint}
	if at.member != "" {
		f.Line, f.Column = position(l.t.text, at.off)
	}
	l.findings = append(l.findings, f)
	return &l.findings[len(l.findings)-1]
}

func (l *linter) parameters() {
	for i, param := range l.t.params {
		if param.Declared && len(param.References) == 0 {
			l.unused(param, l.t.declared[i])
		}
		if param.HasDefault {
			continue
		}
		switch {
		case l.t.kind == Fleet && subjectName(param.Name) != "":
			l.add(RuleParameterNotGiven, Warning, l.t.declared[i],
				"have devices send a parameter of a name of your own, or give it a Default",
				"fleet provisioning doesn't derive %s from the certificate: only JITP does", param.Name).Parameter = param.Name
		case l.t.kind == Bulk && strings.HasPrefix(param.Name, "AWS::"):
			l.add(RuleParameterNotGiven, Warning, l.t.declared[i],
				"give it in each call or line, or use a parameter of a name of your own",
				"RegisterThing and bulk registration supply no parameter, %s neither", param.Name).Parameter = param.Name
		}
	}
}

func (l *linter) unused(param Parameter, at site) {
	what, hint := "parameter %s is never used", "remove it, or refer to it"
	// The service supplies the id: nothing can fail for want of it.
	if l.t.kind == JITP && !param.HasDefault && param.Name != CertificateIDParameter {
		what += ", and yet a certificate without its " + subjectName(param.Name) + " is refused"
		hint = "remove it, refer to it, or give it a Default"
	}
	l.add(RuleUnusedParameter, Warning, at, hint, what, param.Name).Parameter = param.Name
}

// references finds uses of resources as values: they parse, because a resource has that name, and
// then fail for every device.
func (l *linter) references() {
	l.t.eachExpr(func(e *expr) {
		if e.op == opResource {
			l.add(RuleResourceReference, Mistake, e.at, "refer to a parameter: resources have no value",
				"%s is a resource of this template, so the reference can't be resolved", quote(e.text)).Parameter = e.text
		}
	})
}

// eachExpr visits every expression of the template.
func (t *Template) eachExpr(visit func(*expr)) {
	var walk func(*expr)
	walk = func(e *expr) {
		if e == nil {
			return
		}
		visit(e)
		for _, arg := range e.args {
			walk(arg)
		}
	}
	fields := func(list ...*field) {
		for _, f := range list {
			if f != nil {
				walk(f.value)
			}
		}
	}
	values := func(list []namedValue) {
		for _, nv := range list {
			walk(nv.value.value)
		}
	}
	if s := t.thing; s != nil {
		fields(&s.name, s.typeName, s.billing)
		values(s.attributes)
		walk(s.groups)
		values(s.packages)
		fields(s.overrides...)
	}
	if s := t.certificate; s != nil {
		fields(&s.value, s.ca, s.status, s.principal)
		fields(s.overrides...)
	}
	for _, s := range t.policies {
		fields(s.name)
		if s.document == nil {
			continue
		}
		fields(s.document.text)
		for _, piece := range s.document.pieces {
			walk(piece.value)
		}
	}
	values(t.device)
}

// flowsInto lists the parameters whose values become text of the result. An index of Fn::Select and
// the arguments of Fn::FindInMap only choose among values that the template lists.
func (t *Template) flowsInto(e *expr) []int {
	switch e.op {
	case opParam:
		return []int{e.param}
	case opFind:
		return nil
	case opSelect:
		return t.flowsInto(e.args[1])
	}
	var all []int
	for _, arg := range e.args {
		all = append(all, t.flowsInto(arg)...)
	}
	return all
}

// dependsOn lists all parameters that can change the result.
func (t *Template) dependsOn(e *expr) []int {
	if e.op == opParam {
		return []int{e.param}
	}
	var all []int
	for _, arg := range e.args {
		all = append(all, t.dependsOn(arg)...)
	}
	return all
}

func (l *linter) thing() {
	s := l.t.thing
	if s == nil {
		l.add(RuleNoThing, Note, site{}, "add a resource of type AWS::IoT::Thing", "the template makes no thing: policy variables about things have no value for its devices")
		return
	}
	l.thingName(s.name.value)
	if s.typeName == nil && len(s.attributes) > MaxAttributesWithoutType {
		l.add(RuleAttributesWithoutType, Mistake, s.attrAt, "give the thing a ThingTypeName, or remove attributes",
			"%d attributes, a thing without a type may have %d", len(s.attributes), MaxAttributesWithoutType)
	}
	if s.groups != nil && s.groups.op == opList {
		distinct := map[string]bool{}
		for _, item := range s.groups.args {
			if item.op == opLiteral {
				distinct[item.text] = true
			}
		}
		if len(distinct) > MaxGroups {
			l.add(RuleTooManyGroups, Mistake, s.groups.at, "", "%d groups, a thing may be in %d", len(distinct), MaxGroups)
		}
	}
	if s.groups != nil && l.t.kind == Fleet {
		for _, i := range l.t.dependsOn(s.groups) {
			if l.t.byDevice(i) {
				l.add(RuleGroupByDevice, Note, s.groups.at, "if groups carry policies, let a pre-provisioning hook check the parameter",
					"each device chooses its groups by the parameter %s that it sends", l.t.params[i].Name).Parameter = l.t.params[i].Name
				break
			}
		}
	}
	has := []bool{s.attributes != nil, s.typeName != nil, s.groups != nil}
	for i, setting := range s.overrides {
		l.override(setting, thingOverrideKeys[i].name, has[i])
	}
}

// byDevice tells whether a parameter is one that a device sends.
func (t *Template) byDevice(i int) bool {
	return t.kind == Fleet && t.params[i].Name != CertificateIDParameter
}

func (l *linter) override(setting *field, name string, present bool) {
	switch {
	case setting == nil:
	case !present:
		l.add(RuleOverrideOfNothing, Warning, setting.value.at, "add the property, or remove the setting",
			"OverrideSettings has %s, and the resource has no such property", name)
	case setting.value.op == opLiteral && setting.value.text == string(Fail):
		l.add(RuleOverrideFail, Note, setting.value.at, "REPLACE or DO_NOTHING lets it in again",
			"FAIL refuses a device whose thing exists: one that comes with a renewed certificate, too")
	}
}

// shared are the subject's attributes that many devices have alike.
var shared = []string{"Country", "Organization", "OrganizationalUnit", "StateName"}

// thingName finds names that several devices share: the second one would be attached to the thing
// of the first.
func (l *linter) thingName(name *expr) {
	flows := l.t.flowsInto(name)
	var alike, withDefault []string
	for _, i := range flows {
		param := l.t.params[i]
		field, subject := strings.CutPrefix(param.Name, "AWS::IoT::Certificate::")
		switch {
		case l.t.kind == JITP && subject && slices.Contains(shared, field):
			alike = append(alike, param.Name)
		case param.HasDefault:
			withDefault = append(withDefault, param.Name)
		default:
			return // it tells devices apart
		}
	}
	const hint = "put into it what each device has alone"
	switch {
	case len(flows) == 0 && len(l.t.dependsOn(name)) > 0:
		l.add(RuleThingName, Mistake, name.at, hint, "the thing's name is one of a few that the template lists: devices share it, and its thing")
	case len(flows) == 0:
		l.add(RuleThingName, Mistake, name.at, hint, "the thing's name is the same for every device: all of them are attached to one thing")
	case len(withDefault) > 0:
		l.add(RuleThingName, Warning, name.at, "remove the Default, so that a device without a value is refused",
			"devices that give no %s share one thing, named by its Default", strings.Join(withDefault, ", ")).Parameter = withDefault[0]
	default:
		l.add(RuleThingName, Warning, name.at, hint+": the CommonName, the SerialNumber, the Id",
			"the thing's name depends on %s alone, which many certificates have alike: their devices share one thing", strings.Join(alike, ", ")).Parameter = alike[0]
	}
}

func (l *linter) certificate() {
	s := l.t.certificate
	if s == nil {
		if l.t.kind == Fleet {
			l.add(RuleNoCertificate, Warning, site{}, `add a resource of type AWS::IoT::Certificate with "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"} and "Status": "ACTIVE"`,
				"the template has no certificate: the device's stays PENDING_ACTIVATION, and is deleted when its time is over")
		}
		return
	}
	if s.status != nil && s.status.value.op == opLiteral && strings.EqualFold(s.status.value.text, string(StatusInactive)) {
		l.add(RuleCertificateInactive, Warning, s.status.value.at, `write "ACTIVE", or activate each by aws iot update-certificate --new-status ACTIVE`,
			"the certificate is registered INACTIVE: the device can't connect")
	}
	setting := s.overrides[0]
	if setting != nil && l.t.kind != Bulk {
		l.add(RuleOverrideNoEffect, Note, setting.value.at, "it matters in RegisterThing and bulk registration; here it may stay or go",
			"the override of Status has no effect in a %s template: its certificates always wait for activation", l.t.kind)
	}
}

func (l *linter) policies() {
	if len(l.t.policies) == 0 {
		if l.t.certificate != nil {
			l.add(RuleNoPolicy, Warning, site{}, "add a resource of type AWS::IoT::Policy, unless the thing's groups have the policy",
				"the template attaches no policy: the device can't connect")
		}
		return
	}
	for _, s := range l.t.policies {
		at, depends := l.t.policyDepends(s)
		if l.t.kind == Bulk && l.t.certificate == nil {
			l.add(RulePolicyNoCertificate, Mistake, at, "add the certificate, or remove the policy",
				"the template has a policy and no certificate to attach it to")
		}
		for _, i := range depends {
			if l.t.byDevice(i) {
				l.add(RulePolicyByDevice, Warning, at, "name one policy and use policy variables such as ${iot:Connection.Thing.ThingName} in it, or let a pre-provisioning hook check the parameter",
					"each device chooses what it may do by the parameter %s that it sends", l.t.params[i].Name).Parameter = l.t.params[i].Name
				break
			}
		}
		if s.document != nil && s.document.text != nil && len(l.t.flowsInto(s.document.text.value)) > 0 {
			i := l.t.flowsInto(s.document.text.value)[0]
			l.add(RulePolicyDocumentByValues, Warning, at, "write the document as a JSON object: values in it are quoted then",
				"the value of %s is put into the text of the document as it is: a quotation mark in it breaks the document or changes what it allows", l.t.params[i].Name).Parameter = l.t.params[i].Name
		}
	}
}

func (t *Template) policyDepends(s policySpec) (site, []int) {
	if s.document == nil {
		return s.name.value.at, t.dependsOn(s.name.value)
	}
	var all []int
	if s.document.text != nil {
		all = t.dependsOn(s.document.text.value)
	}
	for _, piece := range s.document.pieces {
		if piece.value != nil {
			all = append(all, t.dependsOn(piece.value)...)
		}
	}
	return s.document.at, all
}
