package iot

import (
	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// This file says which resources identity policies see of operations whose path
// doesn't name them all. Operations that join two resources are about both: who
// may change a certificate's policies may not attach every policy.

// targetResource is the certificate or thing group that a request names, in the
// one form of its ARN, so that no other spelling gets past a policy; as it came
// when it is neither.
func targetResource(caller awsapi.Caller, text string) string {
	found, err := parseTarget(tenantOf(caller), text)
	if err != nil {
		return text
	}
	_, resource, err := imprint.ParseARN(found.arn)
	if err != nil {
		return text
	}
	return callerARN(caller, resource)
}

// principalResource is targetResource of a member that may be absent.
func principalResource(caller awsapi.Caller, principal *string) string {
	if principal == nil {
		return "*"
	}
	return targetResource(caller, *principal)
}

func policyResource(caller awsapi.Caller, name string) string {
	return callerARN(caller, "policy/"+name)
}

// pairOf are the resources of an operation that joins two.
func pairOf(one, other string) []string { return []string{one, other} }

func thingResource(caller awsapi.Caller, name string) string {
	return callerARN(caller, "thing/"+name)
}

// thingARNFrom is the resource of a thing that a request names by name or ARN.
func thingARNFrom(caller awsapi.Caller, name, arn *string) string {
	if name != nil {
		return thingResource(caller, *name)
	}
	if arn == nil {
		return "*"
	}
	parsed, err := tenantOf(caller).ParseThingARN(*arn)
	if err != nil {
		return *arn
	}
	return thingResource(caller, string(parsed))
}
