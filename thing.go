package imprint

import (
	"maps"
	"regexp"
	"time"
)

// Thing is a device's entry in the registry.
type Thing struct {
	Tenant                Tenant
	Name                  ThingName
	ID                    string           // UUID
	TypeName              ThingTypeName    // empty: none
	BillingGroup          BillingGroupName // empty: none
	Attributes            map[string]string
	Version               int64 // 1 at creation, +1 for each update
	CreatedAt, ModifiedAt time.Time
}

// ARN names the thing.
func (t Thing) ARN() string { return t.Tenant.ThingARN(t.Name) }

// Same tells whether a second CreateThing with the other's values is the
// idempotent repetition that AWS IoT Core answers with success.
func (t Thing) Same(other Thing) bool {
	return t.TypeName == other.TypeName && t.BillingGroup == other.BillingGroup &&
		maps.Equal(t.Attributes, other.Attributes)
}

// Limits of a thing's attributes, from the AWS IoT Core quotas page.
const (
	MaxAttributesWithType    = 50
	MaxAttributesWithoutType = 3
)

var (
	attributeNamePattern  = regexp.MustCompile(`^[a-zA-Z0-9_.,@/:#-]{1,128}$`)
	attributeValuePattern = regexp.MustCompile(`^[a-zA-Z0-9_.,@/:#=\[\]-]{0,800}$`)
)

// CheckAttributes says whether the thing's attributes are legal in name, value
// and number. Errors: CodeInvalidRequest.
func (t Thing) CheckAttributes() error {
	limit := MaxAttributesWithoutType
	if t.TypeName != "" {
		limit = MaxAttributesWithType
	}
	if len(t.Attributes) > limit {
		return Errorf(CodeInvalidRequest, "thing %s has %d attributes, at most %d are allowed", t.Name, len(t.Attributes), limit).
			WithHint("A thing without a thing type has at most %d attributes, one with a type %d.", MaxAttributesWithoutType, MaxAttributesWithType)
	}
	return checkAttributes(t.Attributes)
}

// checkAttributes holds the rules for names and values.
func checkAttributes(attributes map[string]string) error {
	for name, value := range attributes {
		if !attributeNamePattern.MatchString(name) {
			return Errorf(CodeInvalidRequest, "attribute name %q does not match [a-zA-Z0-9_.,@/:#-]{1,128}", Excerpt(name))
		}
		if !attributeValuePattern.MatchString(value) {
			return Errorf(CodeInvalidRequest, `the value of attribute %s does not match [a-zA-Z0-9_.,@/:#=\[\]-]{0,800}`, name).
				WithHint("Attribute values can't hold spaces.")
		}
	}
	return nil
}

// MergeAttributes gives the attributes after an update: merged into the present
// ones when merge is set, where an empty value takes the attribute away, or in
// their place.
func (t Thing) MergeAttributes(update map[string]string, merge bool) map[string]string {
	return mergeAttributes(t.Attributes, update, merge)
}

func mergeAttributes(present, update map[string]string, merge bool) map[string]string {
	result := make(map[string]string, len(present)+len(update))
	if merge {
		maps.Copy(result, present)
	}
	for name, value := range update {
		if merge && value == "" {
			delete(result, name)
			continue
		}
		result[name] = value
	}
	return result
}

// ThingAttachment joins a principal (a certificate) to a thing.
type ThingAttachment struct {
	Tenant      Tenant
	Thing       ThingName
	Certificate CertificateID
	// Exclusive: the certificate belongs to this thing alone, and a connection
	// with it is the thing's whatever its client id.
	Exclusive bool
}
