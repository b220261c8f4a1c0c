package template

// thingSpec is a thing before evaluation. Pointers are nil for absent properties.
type thingSpec struct {
	logical    string
	name       field
	attributes []namedValue // nil: absent; empty: present without members
	attrAt     site
	typeName   *field
	groups     *expr
	billing    *field
	packages   []namedValue
	overrides  []*field // in the order of thingOverrideKeys
}

type certificateSpec struct {
	logical   string
	source    CertificateSource
	value     field
	ca        *field
	status    *field
	principal *field
	overrides []*field // in the order of certificateOverrideKeys
}

type policySpec struct {
	logical  string
	name     *field
	document *documentSpec
}

const (
	typeThing       = "AWS::IoT::Thing"
	typeCertificate = "AWS::IoT::Certificate"
	typePolicy      = "AWS::IoT::Policy"
)

func (p *parser) resourceSection(section *node) error {
	err := p.want(section, "Resources", nodeObject)
	if err != nil {
		return err
	}
	if len(section.members) == 0 {
		return p.fault(site{section.off, "Resources"}, CodeInvalid, "the Resources section is empty")
	}
	for _, m := range section.members {
		p.resources[m.name] = true
	}
	for _, m := range section.members {
		err := p.resource(m, join("Resources", m.name))
		if err != nil {
			return err
		}
	}
	if p.t.kind == JITP && p.t.certificate == nil {
		e := p.fault(site{section.off, "Resources"}, CodeInvalid, "a JITP template must have a certificate resource")
		e.Hint = `add one of type AWS::IoT::Certificate with "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}`
		return e
	}
	return nil
}

func (p *parser) resource(m member, path string) error {
	at := site{m.off, path}
	if m.name == "" {
		return p.fault(at, CodeInvalid, "a resource must have a name")
	}
	err := p.object(m.value, path, "Type", "Properties", "OverrideSettings")
	if err != nil {
		return err
	}
	typ := m.value.get("Type")
	if typ == nil {
		e := p.fault(at, CodeInvalid, "resource %s has no Type", quote(m.name))
		e.Hint = "the types are " + typeThing + ", " + typeCertificate + ", " + typePolicy
		return e
	}
	err = p.want(typ, path+".Type", nodeString)
	if err != nil {
		return err
	}
	properties := m.value.get("Properties")
	if properties == nil {
		return p.fault(at, CodeInvalid, "resource %s has no Properties", quote(m.name))
	}
	switch typ.text {
	case typeThing:
		return p.thing(m, properties, path)
	case typeCertificate:
		return p.certificate(m, properties, path)
	case typePolicy:
		return p.policy(m, properties, path)
	}
	e := p.fault(site{typ.off, path + ".Type"}, CodeInvalid, "resource type %s is not known", quote(typ.text))
	e.Hint = "the types are " + typeThing + ", " + typeCertificate + ", " + typePolicy
	return e
}

// optional compiles a property into target if it is there.
func (p *parser) optional(properties *node, path, name string, check check, target **field) error {
	n := properties.get(name)
	if n == nil {
		return nil
	}
	f, err := p.field(n, join(path, name), check)
	if err != nil {
		return err
	}
	*target = &f
	return nil
}

func (p *parser) thing(m member, properties *node, path string) error {
	at := site{m.off, path}
	if p.t.thing != nil {
		e := p.fault(at, CodeInvalid, "the template has two things, %s and %s", quote(p.t.thing.logical), quote(m.name))
		e.Hint = "a template describes one thing"
		return e
	}
	propertiesPath := path + ".Properties"
	err := p.object(properties, propertiesPath,
		"ThingName", "AttributePayload", "ThingTypeName", "ThingGroups", "BillingGroup", "PackageVersions")
	if err != nil {
		return err
	}
	spec := &thingSpec{logical: m.name}
	name := properties.get("ThingName")
	if name == nil {
		return p.fault(site{properties.off, propertiesPath}, CodeInvalid, "a thing needs a ThingName")
	}
	spec.name, err = p.field(name, propertiesPath+".ThingName", checkThingName)
	if err != nil {
		return err
	}
	err = p.optional(properties, propertiesPath, "ThingTypeName", checkThingType, &spec.typeName)
	if err != nil {
		return err
	}
	err = p.optional(properties, propertiesPath, "BillingGroup", checkBilling, &spec.billing)
	if err != nil {
		return err
	}
	err = p.thingLists(spec, properties, propertiesPath)
	if err != nil {
		return err
	}
	spec.overrides, err = p.overrides(m.value, path, thingOverrideKeys)
	if err != nil {
		return err
	}
	p.t.thing = spec
	return nil
}

func (p *parser) thingLists(spec *thingSpec, properties *node, path string) error {
	var err error
	if n := properties.get("AttributePayload"); n != nil {
		spec.attrAt = site{n.off, path + ".AttributePayload"}
		spec.attributes, err = p.attributes(n, path+".AttributePayload")
		if err != nil {
			return err
		}
	}
	if n := properties.get("ThingGroups"); n != nil {
		spec.groups, err = p.groups(n, path+".ThingGroups")
		if err != nil {
			return err
		}
	}
	if n := properties.get("PackageVersions"); n != nil {
		spec.packages, err = p.namedValues(n, path+".PackageVersions", checkPackage, checkVersion)
	}
	return err
}

// attributes parses the flat form {"name": "value"}, and the form {"attributes": {"name": "value"}} of
// the CreateThing API.
func (p *parser) attributes(n *node, path string) ([]namedValue, error) {
	if inner := n.get("attributes"); inner != nil && inner.kind == nodeObject && !inner.isFunction() {
		for _, m := range n.members {
			if m.name == "attributes" {
				continue
			}
			e := p.fault(site{m.off, join(path, m.name)}, CodeInvalid, "unknown member %s beside attributes", quote(m.name))
			e.Hint = "write the attributes directly into AttributePayload"
			if m.name == "merge" {
				e.Hint = `to merge attributes write "OverrideSettings": {"AttributePayload": "MERGE"}`
			}
			return nil, e
		}
		n, path = inner, path+".attributes"
	}
	values, err := p.namedValues(n, path, checkAttributeName, checkAttributeValue)
	if err != nil {
		return nil, err
	}
	if len(values) > MaxAttributes {
		return nil, p.fault(site{n.off, path}, CodeLimit,
			"%d attributes, a thing may have %d", len(values), MaxAttributes)
	}
	return values, nil
}

// namedValues parses an object of literal names and evaluated values; the result is not nil.
func (p *parser) namedValues(n *node, path string, checkName, checkValue check) ([]namedValue, error) {
	err := p.want(n, path, nodeObject)
	if err != nil {
		return nil, err
	}
	if n.isFunction() {
		e := p.fault(site{n.off, path}, CodeInvalid, "must be an object of names and values, not a function")
		e.Hint = "use the function as the value of a member"
		return nil, e
	}
	values := make([]namedValue, 0, len(n.members))
	for _, m := range n.members {
		memberPath := join(path, m.name)
		if problem := checkName(m.name); problem != "" {
			return nil, p.fault(site{m.off, memberPath}, CodeInvalid, "%s", problem)
		}
		f, err := p.field(m.value, memberPath, checkValue)
		if err != nil {
			return nil, err
		}
		values = append(values, namedValue{m.name, f})
	}
	return values, nil
}

// groups parses a list of names, or a function that gives one.
func (p *parser) groups(n *node, path string) (*expr, error) {
	list, err := p.listExpr(n, path, true)
	if err != nil {
		return nil, err
	}
	if list.op != opList {
		return list, nil
	}
	for _, item := range list.args {
		if item.op != opLiteral {
			continue
		}
		if problem := checkGroup(item.text); problem != "" {
			return nil, p.fault(item.at, CodeInvalid, "%s", problem)
		}
	}
	return list, nil
}

var checkPrincipalType = oneOf("ThingPrincipalType", string(ExclusiveThing), string(NonExclusiveThing))

func (p *parser) certificate(m member, properties *node, path string) error {
	if p.t.certificate != nil {
		e := p.fault(site{m.off, path}, CodeInvalid, "the template has two certificates, %s and %s",
			quote(p.t.certificate.logical), quote(m.name))
		e.Hint = "a template describes one certificate"
		return e
	}
	propertiesPath := path + ".Properties"
	err := p.object(properties, propertiesPath, string(SourceID), string(SourceCSR), string(SourcePEM),
		"CACertificatePem", "Status", "ThingPrincipalType")
	if err != nil {
		return err
	}
	spec := &certificateSpec{logical: m.name}
	err = p.certificateSource(spec, properties, propertiesPath)
	if err != nil {
		return err
	}
	err = p.optional(properties, propertiesPath, "Status", checkStatus, &spec.status)
	if err != nil {
		return err
	}
	err = p.optional(properties, propertiesPath, "ThingPrincipalType", checkPrincipalType, &spec.principal)
	if err != nil {
		return err
	}
	spec.overrides, err = p.overrides(m.value, path, certificateOverrideKeys)
	if err != nil {
		return err
	}
	p.t.certificate = spec
	return nil
}

// certificateSource finds the one source among the properties.
func (p *parser) certificateSource(spec *certificateSpec, properties *node, path string) error {
	checks := map[CertificateSource]check{SourceID: checkCertificateID, SourceCSR: checkCSR, SourcePEM: checkPEM}
	for _, m := range properties.members {
		source := CertificateSource(m.name)
		check, isSource := checks[source]
		if !isSource && m.name != "CACertificatePem" {
			continue
		}
		at := site{m.off, join(path, m.name)}
		if p.t.kind != Bulk && source != SourceID {
			e := p.fault(at, CodeInvalid, "a %s template cannot use %s", p.t.kind, m.name)
			e.Hint = `the certificate exists already: use "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}`
			return e
		}
		if !isSource {
			continue
		}
		if spec.source != "" {
			e := p.fault(at, CodeInvalid, "the certificate has two sources, %s and %s", spec.source, source)
			e.Hint = "keep one of CertificateId, CertificateSigningRequest, CertificatePem"
			return e
		}
		f, err := p.field(m.value, join(path, m.name), check)
		if err != nil {
			return err
		}
		spec.source, spec.value = source, f
	}
	if spec.source == "" {
		e := p.fault(site{properties.off, path}, CodeInvalid, "the certificate has no source")
		e.Hint = "add CertificateId"
		if p.t.kind == Bulk {
			e.Hint = "add one of CertificateId, CertificateSigningRequest, CertificatePem"
		}
		return e
	}
	if ca := properties.get("CACertificatePem"); ca != nil && spec.source != SourcePEM {
		return p.fault(site{ca.off, path + ".CACertificatePem"}, CodeInvalid,
			"CACertificatePem goes with CertificatePem, not with %s", spec.source)
	}
	return p.optional(properties, path, "CACertificatePem", checkPEM, &spec.ca)
}

func (p *parser) policy(m member, properties *node, path string) error {
	_, err := p.overrides(m.value, path, nil)
	if err != nil {
		return err
	}
	propertiesPath := path + ".Properties"
	err = p.object(properties, propertiesPath, "PolicyName", "PolicyDocument")
	if err != nil {
		return err
	}
	if len(properties.members) != 1 {
		e := p.fault(site{properties.off, propertiesPath}, CodeInvalid, "a policy needs either PolicyName or PolicyDocument")
		if len(properties.members) > 1 {
			e.Msg = "a policy cannot have both PolicyName and PolicyDocument"
		}
		e.Hint = "PolicyName refers to an existing policy; a PolicyDocument gets a name made from its text"
		return e
	}
	spec := policySpec{logical: m.name}
	err = p.optional(properties, propertiesPath, "PolicyName", checkPolicyName, &spec.name)
	if err != nil {
		return err
	}
	if n := properties.get("PolicyDocument"); n != nil {
		spec.document, err = p.policyDocument(n, propertiesPath+".PolicyDocument")
		if err != nil {
			return err
		}
	}
	p.t.policies = append(p.t.policies, spec)
	return nil
}
