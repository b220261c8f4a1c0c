package template

import (
	"slices"
	"strings"
)

// CertificateStatus is the status that a template gives to its certificate.
type CertificateStatus string

// Values of the property Status, in the spelling of the API.
const (
	StatusActive   CertificateStatus = "ACTIVE"
	StatusInactive CertificateStatus = "INACTIVE"
)

// CertificateSource says which property a certificate comes from.
type CertificateSource string

// Sources of a certificate. JITP and fleet templates have only SourceID.
const (
	SourceID  CertificateSource = "CertificateId"
	SourceCSR CertificateSource = "CertificateSigningRequest"
	SourcePEM CertificateSource = "CertificatePem"
)

// ThingPrincipalType says whether the attachment of certificate and thing is exclusive.
type ThingPrincipalType string

// Values of the property ThingPrincipalType; NonExclusiveThing is the default.
const (
	ExclusiveThing    ThingPrincipalType = "EXCLUSIVE_THING"
	NonExclusiveThing ThingPrincipalType = "NON_EXCLUSIVE_THING"
)

// Plan is a template evaluated against parameters: what to create, every value checked.
// The caller owns it.
type Plan struct {
	Thing       *ThingPlan       // nil: the template describes no thing
	Certificate *CertificatePlan // nil: the template describes no certificate
	Policies    []PolicyPlan     // in the order of the template
	// DeviceConfiguration is what the device gets back; empty, never nil, without the section.
	DeviceConfiguration map[string]string
	// Used lists the parameters that the template refers to, in the order of Parameters.
	Used []ParameterUse
}

// ThingPlan is the thing to create or to bring up to date.
type ThingPlan struct {
	LogicalName string
	ThingName   string
	// Attributes is nil when the template has no AttributePayload; an empty map is an empty one.
	Attributes    map[string]string
	ThingTypeName string // "" when absent
	// ThingGroups is nil when absent. A group appears once, at its first place.
	ThingGroups  []string
	BillingGroup string // "" when absent
	// PackageVersions maps package names to version names; nil when absent.
	PackageVersions map[string]string
	// Overrides apply only if the thing exists already.
	Overrides ThingOverrides
}

// CertificatePlan is the certificate to register or to look up.
type CertificatePlan struct {
	LogicalName string
	Source      CertificateSource
	// One of the next three is set, as Source says. CertificateID has 64 lower-case hexadecimal
	// digits; in JITP and fleet templates it is the id that the service supplied.
	CertificateID             string
	CertificateSigningRequest string
	CertificatePem            string
	// CACertificatePem may go with CertificatePem.
	CACertificatePem   string
	Status             CertificateStatus
	ThingPrincipalType ThingPrincipalType
	// StatusOverride applies only to a certificate that is ACTIVE or INACTIVE already.
	StatusOverride Override
}

// PolicyPlan is a policy to attach: an existing one by PolicyName, or a document.
type PolicyPlan struct {
	LogicalName string
	PolicyName  string
	// PolicyDocument is the text to store: a document given as a string byte for byte, one given as an
	// object as compact JSON in the order of the template. Policy variables are untouched.
	PolicyDocument string
	// GeneratedName names the document: 64 hexadecimal digits of its SHA-256. Equal documents have
	// equal names, so that a policy made earlier is used again. Empty beside PolicyName.
	GeneratedName string
}

// ValueSource says where the value of a parameter came from.
type ValueSource string

// Sources of a parameter's value.
const (
	FromValue   ValueSource = "value"
	FromDefault ValueSource = "default"
	// FromNowhere: there is none.
	FromNowhere ValueSource = "missing"
)

// ParameterUse is a parameter with the value that went, or would go, into a plan.
type ParameterUse struct {
	Name   string
	Value  string
	Source ValueSource
}

// Plan evaluates the template. params maps parameter names to values and already holds the ones
// that the service supplies; names that the template does not declare are ignored. The error is
// always an *Error.
//
// In JITP every declared parameter without a default must have a value, in the other kinds every
// one that is referred to. Source: AWS IoT developer guide, "Provisioning templates",
// "Just-in-time provisioning".
func (t *Template) Plan(params map[string]string) (*Plan, error) {
	ev := &evaluation{t: t}
	err := ev.bind(params)
	if err != nil {
		return nil, err
	}
	plan := &Plan{}
	plan.Thing, err = ev.thing(t.thing)
	if err != nil {
		return nil, err
	}
	plan.Certificate, err = ev.certificate(t.certificate, params)
	if err != nil {
		return nil, err
	}
	plan.Policies, err = ev.policies(t.policies)
	if err != nil {
		return nil, err
	}
	plan.DeviceConfiguration, err = ev.namedValues(t.device)
	if err != nil {
		return nil, err
	}
	if plan.DeviceConfiguration == nil {
		plan.DeviceConfiguration = map[string]string{}
	}
	plan.Used = ev.used()
	return plan, nil
}

// Values lists the parameters that a plan with params depends on, in the order of
// Parameters, with what each would have, also where Plan fails: those that the template
// refers to, and in JITP those that it declares. Values are as given, unchecked.
func (t *Template) Values(params map[string]string) []ParameterUse {
	var values []ParameterUse
	for i := range t.params {
		param := &t.params[i]
		if len(param.References) == 0 && t.kind != JITP {
			continue
		}
		use := ParameterUse{Name: param.Name, Source: FromNowhere}
		value, given := params[param.Name]
		switch {
		case given:
			use.Value, use.Source = value, FromValue
		case param.HasDefault:
			use.Value, use.Source = param.Default, FromDefault
		}
		values = append(values, use)
	}
	return values
}

// Missing lists, in the order of the text, every parameter for which Plan would find neither a value
// nor a default: Plan itself ends at the first. A parameter is named once, where it is used first, or
// where it is declared if that alone makes it necessary.
func (t *Template) Missing(params map[string]string) []*Error {
	ev := &evaluation{t: t}
	var all []*Error
	for i, param := range t.params {
		_, given := params[param.Name]
		if given || param.HasDefault {
			continue
		}
		at := t.declared[i]
		switch {
		case t.kind == JITP && param.Declared:
		case len(param.References) == 0:
			continue
		}
		e := ev.missing(i, at)
		if len(param.References) > 0 {
			use := param.References[0]
			e.Member, e.Line, e.Column = use.Member, use.Line, use.Column
		}
		all = append(all, e)
	}
	return all
}

// CertificateParameter gives the parameter that alone is the source of the template's certificate, and
// which source that is; empty when there is none.
func (t *Template) CertificateParameter() (CertificateSource, string) {
	if t.certificate == nil || t.certificate.value.value.op != opParam {
		return "", ""
	}
	return t.certificate.source, t.params[t.certificate.value.value.param].Name
}

func (ev *evaluation) used() []ParameterUse {
	used := make([]ParameterUse, 0, len(ev.t.params))
	for i := range ev.t.params {
		param := &ev.t.params[i]
		if len(param.References) == 0 {
			continue
		}
		use := ParameterUse{Name: param.Name, Value: ev.value[i], Source: FromValue}
		if ev.given[i] == fromDefault {
			use.Source = FromDefault
		}
		used = append(used, use)
	}
	return used
}

// optional evaluates a property into target if it is there.
func (ev *evaluation) optional(f *field, target *string) error {
	if f == nil {
		return nil
	}
	v, err := ev.field(*f)
	if err != nil {
		return err
	}
	*target = v
	return nil
}

func (ev *evaluation) namedValues(values []namedValue) (map[string]string, error) {
	if values == nil {
		return nil, nil
	}
	out := make(map[string]string, len(values))
	for _, nv := range values {
		v, err := ev.field(nv.value)
		if err != nil {
			return nil, err
		}
		out[nv.name] = v
	}
	return out, nil
}

func (ev *evaluation) thing(spec *thingSpec) (*ThingPlan, error) {
	if spec == nil {
		return nil, nil
	}
	name, err := ev.field(spec.name)
	if err != nil {
		return nil, err
	}
	thing := &ThingPlan{LogicalName: spec.logical, ThingName: name, Overrides: DefaultThingOverrides()}
	err = ev.optional(spec.typeName, &thing.ThingTypeName)
	if err != nil {
		return nil, err
	}
	thing.Attributes, err = ev.namedValues(spec.attributes)
	if err != nil {
		return nil, err
	}
	if spec.typeName == nil && len(spec.attributes) > MaxAttributesWithoutType {
		e := ev.fault(spec.attrAt, CodeBadValue, "%d attributes, a thing without a type may have %d",
			len(spec.attributes), MaxAttributesWithoutType)
		e.Hint = "give the thing a ThingTypeName, or remove attributes"
		return nil, e
	}
	thing.ThingGroups, err = ev.groups(spec.groups)
	if err != nil {
		return nil, err
	}
	err = ev.optional(spec.billing, &thing.BillingGroup)
	if err != nil {
		return nil, err
	}
	thing.PackageVersions, err = ev.namedValues(spec.packages)
	if err != nil {
		return nil, err
	}
	targets := []*Override{&thing.Overrides.AttributePayload, &thing.Overrides.ThingTypeName, &thing.Overrides.ThingGroups}
	for i, target := range targets {
		err := ev.override(spec.overrides[i], target)
		if err != nil {
			return nil, err
		}
	}
	return thing, nil
}

// groups evaluates the list of groups, drops repetitions and checks each name.
func (ev *evaluation) groups(list *expr) ([]string, error) {
	if list == nil {
		return nil, nil
	}
	values, err := ev.list(list)
	if err != nil {
		return nil, err
	}
	groups := make([]string, 0, min(len(values), MaxGroups))
	for i, v := range values {
		item := list
		if list.op == opList {
			item = list.args[i]
		}
		if problem := checkGroup(v); problem != "" {
			e := ev.fault(item.at, CodeBadValue, "%s", problem)
			e.Parameter = ev.parameterOf(item)
			return nil, e
		}
		if slices.Contains(groups, v) {
			continue
		}
		if len(groups) == MaxGroups {
			return nil, ev.fault(list.at, CodeLimit, "more than %d groups, which is the most for a thing", MaxGroups)
		}
		groups = append(groups, v)
	}
	return groups, nil
}

func (ev *evaluation) certificate(spec *certificateSpec, params map[string]string) (*CertificatePlan, error) {
	if spec == nil {
		return nil, nil
	}
	c := &CertificatePlan{
		LogicalName: spec.logical, Source: spec.source,
		Status: StatusActive, ThingPrincipalType: NonExclusiveThing, StatusOverride: DefaultStatusOverride,
	}
	err := ev.certificateSource(c, spec, params)
	if err != nil {
		return nil, err
	}
	status := string(c.Status)
	err = ev.optional(spec.status, &status)
	if err != nil {
		return nil, err
	}
	c.Status = CertificateStatus(strings.ToUpper(status))
	principal := string(c.ThingPrincipalType)
	err = ev.optional(spec.principal, &principal)
	if err != nil {
		return nil, err
	}
	c.ThingPrincipalType = ThingPrincipalType(principal)
	err = ev.override(spec.overrides[0], &c.StatusOverride)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (ev *evaluation) certificateSource(c *CertificatePlan, spec *certificateSpec, params map[string]string) error {
	v, err := ev.field(spec.value)
	if err != nil {
		return err
	}
	switch spec.source {
	case SourceCSR:
		c.CertificateSigningRequest = v
	case SourcePEM:
		c.CertificatePem = v
	case SourceID:
		c.CertificateID = strings.ToLower(v)
		err := ev.ownCertificate(spec.value, c.CertificateID, params)
		if err != nil {
			return err
		}
	}
	return ev.optional(spec.ca, &c.CACertificatePem)
}

// ownCertificate refuses a certificate id other than the supplied one: a device that could name
// the certificate of another would have it activated and attached.
func (ev *evaluation) ownCertificate(f field, id string, params map[string]string) error {
	if ev.t.kind == Bulk {
		return nil
	}
	own, supplied := params[CertificateIDParameter]
	if !supplied {
		e := ev.fault(f.value.at, CodeMissingParameter, "%s", unresolved(CertificateIDParameter))
		e.Parameter = CertificateIDParameter
		e.Hint = "the service supplies this parameter; it was not in this call"
		return e
	}
	if strings.ToLower(own) == id {
		return nil
	}
	e := ev.fault(f.value.at, CodeBadValue, "certificate id %s is not the certificate that is being provisioned", quote(id))
	e.Parameter = ev.parameterOf(f.value)
	e.Hint = `use "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}`
	return e
}

func (ev *evaluation) policies(specs []policySpec) ([]PolicyPlan, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	out := make([]PolicyPlan, len(specs))
	for i, spec := range specs {
		out[i].LogicalName = spec.logical
		err := ev.optional(spec.name, &out[i].PolicyName)
		if err != nil {
			return nil, err
		}
		if spec.document == nil {
			continue
		}
		out[i].PolicyDocument, out[i].GeneratedName, err = ev.document(spec.document)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
