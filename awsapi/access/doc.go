// Package access decides what callers may do: the identity policies of users.
//
//	guard := access.NewGuard(store, time.Now, logger)
//	mux, err := awsapi.NewMux(awsapi.Config{Authorize: guard.Authorize, ...}, operations, routes)
//
// It is the one place where that is decided. An API only says, in its table of
// operations, which IAM action an operation is and on which resources, and gets
// its decision through the Authorize of its awsapi.Config. A WebSocket of MQTT
// gets the same policies through [Guard.Permissions], and the broker decides each
// packet with them.
//
// What it promises: a caller may do what a statement of the user's policies
// allows and none denies, and nothing else; each request is decided by what the
// registry holds when it comes, so that a change holds for the next request; the
// keys of imprint.OperatorUser may do everything in their account, and nobody may
// do anything in another one. A denial is worded as AWS words it, with the
// statement that is missing, counted, and logged.
//
// # Policies
//
// The language is that of package policy, in the use that IAM has for it.
// Condition keys and policy variables are those that a request has a value for;
// others would never match, which in a Deny grants what it was written to
// exclude, so [ParsePolicy] refuses them:
//
//	aws:SourceIp aws:RequestedRegion aws:username aws:PrincipalArn
//	aws:PrincipalAccount aws:CurrentTime aws:EpochTime aws:SecureTransport
//	iot:ClientId iot:ConnectAttributes iot:LastWillTopic iot:DomainName (MQTT over WebSocket)
//	acm-pca:TemplateArn (making a certificate with an authority)
//
// Sources: IAM user guide, "Policy evaluation logic" and "AWS global condition
// context keys"; service authorization reference, "AWS IoT".
//
// What it does not do: groups of users, roles, permission boundaries, policies of
// resources.
package access
