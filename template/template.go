package template

import (
	"fmt"
	"slices"
)

// Kind says which flow a template is for. The flows differ in sections, parameters and
// certificate sources.
type Kind uint8

const (
	// JITP: just-in-time provisioning, a CA's registrationConfig.templateBody or a template of
	// type JITP. Parameters come from the subject of the device certificate.
	JITP Kind = iota + 1
	// Fleet: a template of type FLEET_PROVISIONING, used by claim or by trusted user.
	Fleet
	// Bulk: the body given to RegisterThing or StartThingRegistrationTask.
	Bulk
)

// String gives "JITP", "fleet provisioning" or "bulk registration".
func (k Kind) String() string {
	switch k {
	case JITP:
		return "JITP"
	case Fleet:
		return "fleet provisioning"
	case Bulk:
		return "bulk registration"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// CertificateIDParameter is the one parameter that the service supplies in JITP and fleet
// provisioning: the id of the certificate that is being provisioned.
const CertificateIDParameter = "AWS::IoT::Certificate::Id"

// Parameter describes a parameter of a template.
type Parameter struct {
	Name       string
	Default    string
	HasDefault bool
	// Declared is false only for AWS::IoT::Certificate::Id when it is referred to without being
	// declared.
	Declared bool
	// Line and Column are the place of the declaration, 0 without one.
	Line, Column int
	// References are the places that use the parameter, in the order of the text of each section,
	// Resources before DeviceConfiguration.
	References []Reference
}

// Reference is one use of a parameter by Ref or Fn::Sub.
type Reference struct {
	Member       string
	Line, Column int
}

// Template is a parsed and validated template. It cannot be changed and is safe for use by several
// goroutines. Only Parse makes one.
type Template struct {
	kind     Kind
	text     string
	params   []Parameter
	declared []site // per parameter: place of its declaration
	mappings mappings

	thing       *thingSpec
	certificate *certificateSpec
	policies    []policySpec
	device      []namedValue
}

// mappings is map name, key, sub-key to value.
type mappings map[string]map[string]map[string]string

// Parse reads a template body. The error is always an *Error.
// Source: AWS IoT developer guide, "Provisioning templates".
func Parse(body []byte, kind Kind) (*Template, error) {
	if kind < JITP || kind > Bulk {
		return nil, &Error{Code: CodeInvalid, Msg: fmt.Sprintf("unknown kind of template %d", kind)}
	}
	root, text, err := readTree(body)
	if err != nil {
		return nil, err
	}
	p := &parser{
		t:         &Template{kind: kind, text: text},
		index:     make(map[string]int),
		resources: make(map[string]bool),
	}
	err = p.document(root)
	if err != nil {
		return nil, err
	}
	return p.t, nil
}

// Kind returns the kind that the template was parsed as.
func (t *Template) Kind() Kind { return t.kind }

// Text returns the body as it was given to Parse.
func (t *Template) Text() string { return t.text }

// Parameters lists the declared parameters in the order of the text, and after them
// AWS::IoT::Certificate::Id if the template refers to it without declaring it.
// The caller owns the result.
func (t *Template) Parameters() []Parameter {
	out := slices.Clone(t.params)
	for i := range out {
		out[i].References = slices.Clone(out[i].References)
	}
	return out
}
