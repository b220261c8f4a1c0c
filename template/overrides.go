package template

// Override says what to do with a setting of a resource that exists already.
type Override string

// Values of OverrideSettings.
const (
	// DoNothing leaves the setting as it is.
	DoNothing Override = "DO_NOTHING"
	// Replace sets the template's value.
	Replace Override = "REPLACE"
	// Fail refuses the request with a resource conflict.
	Fail Override = "FAIL"
	// Merge unites attributes or memberships; only for attributes and groups of a thing.
	Merge Override = "MERGE"
)

// ThingOverrides are the override settings of a thing.
type ThingOverrides struct {
	AttributePayload Override
	ThingTypeName    Override
	ThingGroups      Override
}

// The defaults of override settings are not documented. Those here are the project's choice, and
// this is their only place.

// DefaultStatusOverride holds for a certificate whose template has no override of Status.
const DefaultStatusOverride = Replace

// DefaultThingOverrides returns what holds for the settings that a template leaves out.
func DefaultThingOverrides() ThingOverrides {
	return ThingOverrides{AttributePayload: DoNothing, ThingTypeName: DoNothing, ThingGroups: DoNothing}
}

// overrideKey is a key of OverrideSettings: examples write the first name, the text of the guide
// the second.
type overrideKey struct {
	name, upper string
	merge       bool
}

var (
	thingOverrideKeys = []overrideKey{
		{"AttributePayload", "ATTRIBUTE_PAYLOAD", true},
		{"ThingTypeName", "THING_TYPE_NAME", false},
		{"ThingGroups", "THING_GROUPS", true},
	}
	certificateOverrideKeys = []overrideKey{{"Status", "STATUS", false}}
)

var (
	checkOverride      = oneOf("override setting", string(DoNothing), string(Replace), string(Fail))
	checkMergeOverride = oneOf("override setting", string(DoNothing), string(Replace), string(Fail), string(Merge))
)

// overrides parses the OverrideSettings of a resource. The result has one place for each key,
// nil where the template has no setting.
func (p *parser) overrides(resource *node, path string, keys []overrideKey) ([]*field, error) {
	settings := make([]*field, len(keys))
	n := resource.get("OverrideSettings")
	if n == nil {
		return settings, nil
	}
	path = join(path, "OverrideSettings")
	var known []string
	for _, k := range keys {
		known = append(known, k.name, k.upper)
	}
	err := p.object(n, path, known...)
	if err != nil {
		return nil, err
	}
	for i, k := range keys {
		for _, m := range n.members {
			if m.name != k.name && m.name != k.upper {
				continue
			}
			memberPath := join(path, m.name)
			if settings[i] != nil {
				e := p.fault(site{m.off, memberPath}, CodeInvalid, "%s and %s are the same setting", k.name, k.upper)
				e.Hint = "keep one of the two"
				return nil, e
			}
			allowed := checkOverride
			if k.merge {
				allowed = checkMergeOverride
			}
			f, err := p.field(m.value, memberPath, allowed)
			if err != nil {
				return nil, err
			}
			settings[i] = &f
		}
	}
	return settings, nil
}

// override evaluates a setting into target, which holds the default.
func (ev *evaluation) override(setting *field, target *Override) error {
	if setting == nil {
		return nil
	}
	v, err := ev.field(*setting)
	if err != nil {
		return err
	}
	*target = Override(v)
	return nil
}
