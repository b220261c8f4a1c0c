// Package template is the AWS IoT provisioning-template language: a template is parsed once into
// a validated, immutable value and then planned, as often as wanted, against parameters.
//
// # Use
//
//	t, err := template.Parse(body, template.JITP)
//	if err != nil {
//		// *template.Error: line, column, member, what is wrong and what to do about it
//	}
//	plan, err := t.Plan(template.SubjectParameters(leaf, certificateID))
//	if err != nil {
//		// *template.Error with a Code: missing parameter, bad value, missing map key, ...
//	}
//	fmt.Println(plan.Thing.ThingName)
//
// # What it promises
//
// Parse refuses whatever is wrong independent of parameters: JSON errors and duplicate members,
// unknown sections, members, functions and resource types, references to nothing, wrong function
// arguments, settings without meaning, literal values that the registry would refuse. Plan
// evaluates every function and checks every value before it returns, so that a caller can finish
// the whole evaluation before the first write. Both are deterministic: the same input gives
// the same plan, or the same error, and among several errors the one found first.
//
// Work is bounded whatever a template says: its length, its nesting, the length of each
// evaluated value, the items of each list and the bytes that one Plan may produce. The limits are
// the constants of this package. No input makes it panic.
//
// A Template is safe for use by several goroutines. Plans share nothing with it that a caller
// can change.
//
// # What it does not do
//
// It performs no I/O, has no clock, and knows no registry: whether a thing type, group or named
// policy exists, what OverrideSettings mean for a resource that exists already, whether a policy
// document is a valid policy beyond being a JSON object, and in which order resources are written is for the caller. It does
// not decide which source of a parameter wins (request, hook, service): pass the merged map.
//
// # Decisions where the documentation is silent
//
//   - A template describes at most one thing and at most one certificate ("a thing, a
//     certificate, and one or more policies"); several of either are refused.
//   - A reference to AWS::IoT::Certificate::Id needs no declaration in JITP and fleet
//     templates, because the service supplies it; published examples leave it out.
//   - In JITP and fleet templates CertificateId must evaluate to that supplied id, so
//     that no device can name the certificate of another.
//   - A policy without a name is called by the lower-case hexadecimal SHA-256 of its document.
//   - Numbers and booleans are accepted as DeviceConfiguration values and taken as written;
//     everywhere else a string is required.
//   - Override settings that a template leaves out have the defaults of [DefaultThingOverrides]
//     and [DefaultStatusOverride].
//   - A PolicyDocument may be a JSON object in every kind of template (documented for fleet
//     provisioning), and functions inside it are evaluated.
//
// Source of the rules: AWS IoT Core developer guide, pages "Provisioning templates",
// "Just-in-time provisioning", "Provisioning devices that don't have device certificates using
// fleet provisioning" and "Bulk registration"; AWS IoT API reference (RegisterThing,
// CreateThing, CreatePolicy) for names and patterns; AWS CloudFormation user guide for
// details of the intrinsic functions.
package template
