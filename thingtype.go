package imprint

import (
	"regexp"
	"slices"
	"time"
)

const (
	// MaxSearchableAttributes bounds those of a thing type.
	MaxSearchableAttributes = 3
	// MaxPropagatingAttributes bounds those of a thing type. AWS documents no
	// number; a PUBLISH packet has to carry them all.
	MaxPropagatingAttributes = 20
	// ThingTypeDeletionDelay is how long a thing type stays after it was
	// deprecated, from the AWS IoT Core developer guide, "Thing types".
	ThingTypeDeletionDelay = 5 * time.Minute
)

// ThingType is what things of one kind have in common. A thing has at most one.
type ThingType struct {
	Tenant      Tenant
	Name        ThingTypeName
	ID          string // UUID
	Description string
	// SearchableAttributes are names of things' attributes, in the order in which
	// they were given.
	SearchableAttributes  []string
	PropagatingAttributes []PropagatingAttribute
	// DeprecatedAt is when the type was closed to new things; zero: it is open.
	DeprecatedAt          time.Time
	CreatedAt, ModifiedAt time.Time
}

// PropagatingAttribute is a user property of MQTT 5 that stands for an attribute
// of a thing or of its connection: one of the two is set.
type PropagatingAttribute struct {
	UserPropertyKey     string `json:"userPropertyKey"`
	ThingAttribute      string `json:"thingAttribute,omitempty"`
	ConnectionAttribute string `json:"connectionAttribute,omitempty"`
}

// ARN names the type.
func (t ThingType) ARN() string { return t.Tenant.ThingTypeARN(t.Name) }

// Deprecated says whether no thing can get the type any more.
func (t ThingType) Deprecated() bool { return !t.DeprecatedAt.IsZero() }

// Same tells whether a second CreateThingType with the other's values is the
// idempotent repetition that AWS IoT Core answers with success.
func (t ThingType) Same(other ThingType) bool {
	return t.Description == other.Description && slices.Equal(t.SearchableAttributes, other.SearchableAttributes) &&
		slices.Equal(t.PropagatingAttributes, other.PropagatingAttributes)
}

var (
	userPropertyPattern        = regexp.MustCompile(`^[a-zA-Z0-9:$.]{1,128}$`)
	connectionAttributePattern = regexp.MustCompile(`^[a-zA-Z0-9:.]{1,128}$`)
)

// Check says whether the type's attributes are legal in name and number. Errors:
// CodeInvalidRequest.
func (t ThingType) Check() error {
	if len(t.SearchableAttributes) > MaxSearchableAttributes {
		return Errorf(CodeInvalidRequest, "thing type %s has %d searchable attributes, at most %d are allowed", t.Name, len(t.SearchableAttributes), MaxSearchableAttributes)
	}
	for n, name := range t.SearchableAttributes {
		if !attributeNamePattern.MatchString(name) {
			return Errorf(CodeInvalidRequest, "attribute name %q does not match [a-zA-Z0-9_.,@/:#-]{1,128}", Excerpt(name))
		}
		if slices.Contains(t.SearchableAttributes[:n], name) {
			return Errorf(CodeInvalidRequest, "searchable attribute %s is there twice", name)
		}
	}
	if len(t.PropagatingAttributes) > MaxPropagatingAttributes {
		return Errorf(CodeInvalidRequest, "thing type %s has %d propagating attributes, at most %d are allowed", t.Name, len(t.PropagatingAttributes), MaxPropagatingAttributes)
	}
	for n, p := range t.PropagatingAttributes {
		err := p.check()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(t.PropagatingAttributes[:n], func(o PropagatingAttribute) bool { return o.UserPropertyKey == p.UserPropertyKey }) {
			return Errorf(CodeInvalidRequest, "userPropertyKey %s is there twice", p.UserPropertyKey)
		}
	}
	return nil
}

func (p PropagatingAttribute) check() error {
	switch {
	case !userPropertyPattern.MatchString(p.UserPropertyKey):
		return Errorf(CodeInvalidRequest, "userPropertyKey %q does not match [a-zA-Z0-9:$.]{1,128}", Excerpt(p.UserPropertyKey))
	case (p.ThingAttribute == "") == (p.ConnectionAttribute == ""):
		return Errorf(CodeInvalidRequest, "propagating attribute %s must have a thingAttribute or a connectionAttribute", p.UserPropertyKey)
	case p.ThingAttribute != "" && !attributeNamePattern.MatchString(p.ThingAttribute):
		return Errorf(CodeInvalidRequest, "attribute name %q does not match [a-zA-Z0-9_.,@/:#-]{1,128}", Excerpt(p.ThingAttribute))
	case p.ConnectionAttribute != "" && !connectionAttributePattern.MatchString(p.ConnectionAttribute):
		return Errorf(CodeInvalidRequest, "connectionAttribute %q does not match [a-zA-Z0-9:.]{1,128}", Excerpt(p.ConnectionAttribute))
	}
	return nil
}

// CheckOpen refuses the type for a thing that would get it. Errors:
// CodeInvalidRequest.
func (t ThingType) CheckOpen() error {
	if !t.Deprecated() {
		return nil
	}
	return Errorf(CodeInvalidRequest, "Can not create new thing with depreated thing type:%s", t.Name).
		WithHint("Choose another type, or: aws iot deprecate-thing-type --undo-deprecate --thing-type-name %s", t.Name)
}

// Deprecate closes the type to new things, or opens it again. changed is false
// when it is so already.
func (t ThingType) Deprecate(undo bool, now time.Time) (after ThingType, changed bool) {
	if t.Deprecated() != undo {
		return t, false
	}
	t.DeprecatedAt = now
	if undo {
		t.DeprecatedAt = time.Time{}
	}
	t.ModifiedAt = now
	return t, true
}

// CheckDeletable says whether the type has been deprecated long enough to be
// deleted. Errors: CodeInvalidRequest.
func (t ThingType) CheckDeletable(now time.Time, delay time.Duration) error {
	if !t.Deprecated() {
		return Errorf(CodeInvalidRequest, "Cannot delete. Thing type %s is not deprecated.", t.Name).
			WithHint("aws iot deprecate-thing-type --thing-type-name %s, and delete it %s later", t.Name, max(delay, 0))
	}
	if left := t.DeprecatedAt.Add(delay).Sub(now); left > 0 {
		// Terraform's provider tries again as long as it is told so in AWS's words, whatever the delay is.
		return Errorf(CodeInvalidRequest, "Cannot delete. Thing type %s was deprecated less than %s ago. Please wait for 5 minutes after deprecation and then retry.", t.Name, delay).
			WithHint("Come again in %s.", left.Round(time.Second))
	}
	return nil
}

// ThingTypeReader reads thing types.
type ThingTypeReader interface {
	ThingType(Tenant, ThingTypeName) (ThingType, error)
	ThingTypes(Tenant, Page) ([]ThingType, string, error) // by name
}

// ThingTypeWriter writes thing types. Watchers hear nothing of them: what the
// connection path sees of a type is its name, which stands in the thing.
type ThingTypeWriter interface {
	PutThingType(ThingType) error
	// DeleteThingType doesn't touch the things of the type: flows check those
	// first.
	DeleteThingType(Tenant, ThingTypeName) error
}
