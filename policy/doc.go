// Package policy is the AWS IoT policy language: it parses a policy document,
// keeps it as a validated immutable value, and decides requests with it.
//
// # Use
//
//	doc, err := policy.Parse(text)
//	set := policy.Compile(policy.Named{Name: "sensors", Doc: doc})
//	vars := policy.NewVariables(policy.Binding{ClientID: "sensor-1", Thing: &policy.Thing{Name: "sensor-1"}})
//	decision := set.Decide(&policy.Request{
//		Action:         policy.Publish,
//		ResourcePrefix: "arn:aws:iot:us-east-1:000000000000:topic/",
//		ResourceName:   "sensors/sensor-1/state",
//		Vars:           vars,
//		Now:            now,
//	})
//
// # Promises
//
//   - A [Document] that exists is valid. A document that is not valid gives a
//     [*SyntaxError] with line, column, member, and what to write instead.
//   - [Document], [Set], [Variables] and [CertificateVariables] never change and
//     may be shared by any number of goroutines. One Set serves all connections
//     that have the same documents; only Variables belong to a connection.
//   - An explicit deny wins over any allow; without an allow the answer is an
//     implicit deny.
//   - Matching takes at most time proportional to the length of the pattern
//     times the length of the text, whatever the pattern.
//   - Substituted text is text: a wildcard character that comes from a client
//     id, a thing or a certificate never acts as a wildcard.
//   - [Set.Decide] does not allocate for string, address, date and set conditions. It
//     does for aws:CurrentTime and aws:EpochTime as text, iot:Certificate.AvailableKeys,
//     BinaryEquals, and variables mixed with text in operators that are not
//     case-sensitive string or ARN operators.
//   - [Set.Explain] gives the decision that Decide gives, with its reason; [Set.Answer]
//     does so for a question in MQTT's words, which may need several decisions.
//   - [Lint] finds mistakes, with their place; [Least] writes the policy for what was
//     used, and checks it.
//
// # Rules where the public pages are silent
//
// A variable without a value stays in the resource as its own text, so that it
// normally matches nothing. Two places would turn that into a grant: an Allow
// with NotResource, and an Allow with a negated condition such as StringNotEquals.
// In both, an unresolved variable makes the statement grant nothing.
//
// Action names and condition keys are compared without regard to case, as IAM
// does; resources and thing attribute names with regard to case.
//
// # What it does not do
//
// It does not fetch, attach, or version policies, does not know which thing a
// connection belongs to, and reads no clock: the time is in the [Request].
// Principal elements (resource policies) are refused.
//
// # Sources
//
// AWS IoT Core developer guide: "AWS IoT Core policies", "AWS IoT Core policy
// actions", "AWS IoT Core policy variables", "Using X.509 certificate policy
// variables", "Connect policy examples"; IAM user guide: "Grammar of the IAM JSON policy
// language", "IAM JSON policy elements: Condition operators", "Creating a
// condition that tests multiple key values", "IAM policy elements: Variables and tags".
package policy
