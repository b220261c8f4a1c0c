package iot

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// policyAttachmentRoutes are the operations that put policies on certificates
// and thing groups, and ask what they come to (AWS IoT API reference, AttachPolicy,
// GetEffectivePolicies, TestAuthorization and their neighbours), with the
// deprecated ones that clients in the field still use.
func (s *Service) policyAttachmentRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.HandleForAll(AttachPolicy, func(c awsapi.Caller, in *AttachPolicyInput) []string {
			return pairOf(policyResource(c, in.PolicyName), targetResource(c, in.Target))
		}, s.attachPolicy),
		awsapi.HandleForAll(DetachPolicy, func(c awsapi.Caller, in *DetachPolicyInput) []string {
			return pairOf(policyResource(c, in.PolicyName), targetResource(c, in.Target))
		}, s.detachPolicy),
		awsapi.HandleFor(ListAttachedPolicies, func(c awsapi.Caller, in *ListAttachedPoliciesInput) string {
			return targetResource(c, in.Target)
		}, s.listAttachedPolicies),
		awsapi.Handle(ListTargetsForPolicy, s.listTargetsForPolicy),
		awsapi.HandleFor(GetEffectivePolicies, func(c awsapi.Caller, in *GetEffectivePoliciesInput) string {
			return principalResource(c, in.Principal)
		}, s.getEffectivePolicies),
		awsapi.HandleForAll(AttachPrincipalPolicy, func(c awsapi.Caller, in *AttachPrincipalPolicyInput) []string {
			return pairOf(policyResource(c, in.PolicyName), targetResource(c, in.Principal))
		}, s.attachPrincipalPolicy),
		awsapi.HandleForAll(DetachPrincipalPolicy, func(c awsapi.Caller, in *DetachPrincipalPolicyInput) []string {
			return pairOf(policyResource(c, in.PolicyName), targetResource(c, in.Principal))
		}, s.detachPrincipalPolicy),
		awsapi.HandleFor(ListPrincipalPolicies, func(c awsapi.Caller, in *ListPrincipalPoliciesInput) string {
			return targetResource(c, in.Principal)
		}, s.listPrincipalPolicies),
		awsapi.HandleFor(ListPolicyPrincipals, func(c awsapi.Caller, in *ListPolicyPrincipalsInput) string {
			return policyResource(c, in.PolicyName)
		}, s.listPolicyPrincipals),
		awsapi.HandleFor(TestAuthorization, func(c awsapi.Caller, in *TestAuthorizationInput) string {
			return principalResource(c, in.Principal)
		}, s.testAuthorization),
	}
}

func (s *Service) attachPolicy(ctx context.Context, caller awsapi.Caller, in *AttachPolicyInput) (*AttachPolicyOutput, error) {
	return &AttachPolicyOutput{}, s.attach(ctx, tenantOf(caller), in.PolicyName, in.Target)
}

func (s *Service) attachPrincipalPolicy(ctx context.Context, caller awsapi.Caller, in *AttachPrincipalPolicyInput) (*AttachPrincipalPolicyOutput, error) {
	return &AttachPrincipalPolicyOutput{}, s.attach(ctx, tenantOf(caller), in.PolicyName, in.Principal)
}

// attach puts a policy on a certificate, with what is to take its place, or a thing group. A
// repetition changes nothing.
func (s *Service) attach(ctx context.Context, tenant imprint.Tenant, name, text string) error {
	return s.rooms.Store.Update(ctx, func(tx imprint.Tx) error {
		p, err := readPolicy(tx, tenant, name)
		if err != nil {
			return err
		}
		to, err := readTarget(tx, tenant, text)
		if err != nil {
			return err
		}
		all, err := withRenewed(tx, to)
		if err != nil {
			return err
		}
		for _, one := range all {
			err = attachTo(tx, p.Name, one)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func attachTo(tx imprint.Tx, name imprint.PolicyName, to target) error {
	attached, err := targetPolicies(tx, to)
	if err != nil || slices.Contains(attached, name) {
		return err
	}
	if len(attached) >= to.limit {
		return imprint.Errorf(imprint.CodeLimitExceeded, "%s has the maximum number of policies (%d) attached to it", to.name, to.limit).
			WithHint("Detach a policy, or put the statements into one that is attached.")
	}
	err = tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: to.tenant, Policy: name, Target: to.arn})
	if err != nil {
		return fmt.Errorf("couldn't attach policy %s to %s: %w", name, to.arn, err)
	}
	return nil
}

// detachFrom takes a policy off a target, and off what takes its place.
func detachFrom(tx imprint.Tx, name imprint.PolicyName, from target) error {
	all, err := withRenewed(tx, from)
	if err != nil {
		return err
	}
	for _, one := range all {
		err = tx.DeletePolicyAttachment(imprint.PolicyAttachment{Tenant: one.tenant, Policy: name, Target: one.arn})
		if err != nil {
			return fmt.Errorf("couldn't detach policy %s from %s: %w", name, one.arn, err)
		}
	}
	return nil
}

// detachPolicy succeeds for what isn't attached and for what doesn't exist: AWS
// IoT Core declares no ResourceNotFoundException here.
func (s *Service) detachPolicy(ctx context.Context, caller awsapi.Caller, in *DetachPolicyInput) (*DetachPolicyOutput, error) {
	tenant := tenantOf(caller)
	name, err := imprint.ParsePolicyName(in.PolicyName)
	if err != nil {
		return nil, err
	}
	from, err := parseTarget(tenant, in.Target)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*DetachPolicyOutput, error) {
		return &DetachPolicyOutput{}, detachFrom(tx, name, from)
	})
}

// detachPrincipalPolicy, unlike detachPolicy, answers 404 for what isn't
// attached: here AWS IoT Core declares it.
func (s *Service) detachPrincipalPolicy(ctx context.Context, caller awsapi.Caller, in *DetachPrincipalPolicyInput) (*DetachPrincipalPolicyOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*DetachPrincipalPolicyOutput, error) {
		p, err := readPolicy(tx, tenantOf(caller), in.PolicyName)
		if err != nil {
			return nil, err
		}
		from, err := readTarget(tx, p.Tenant, in.Principal)
		if err != nil {
			return nil, err
		}
		attached, err := targetPolicies(tx, from)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(attached, p.Name) {
			return nil, imprint.Errorf(imprint.CodeNotFound, "Policy %s is not attached to %s.", p.Name, strings.ToLower(from.name[:1])+from.name[1:])
		}
		return &DetachPrincipalPolicyOutput{}, detachFrom(tx, p.Name, from)
	})
}

// policyList is one page of policies with the marker of the next.
type policyList struct {
	items []Policy
	next  string
}

// attachedPolicies lists the policies of a certificate or a thing group; inherited
// ones, too, when the caller asks for what is above a group.
func (s *Service) attachedPolicies(ctx context.Context, tenant imprint.Tenant, text string, inherited bool, p imprint.Page) (policyList, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (policyList, error) {
		of, err := readTarget(tx, tenant, text)
		if err != nil {
			return policyList{}, err
		}
		var names []imprint.PolicyName
		next := ""
		if inherited && of.group.Name != "" {
			names, err = inheritedPolicies(tx, of.group)
			if err == nil {
				names, next, err = pageOfNames(names, p)
			}
		} else {
			var attached []imprint.PolicyAttachment
			attached, next, err = tx.TargetPolicies(tenant, of.arn, p)
			for _, a := range attached {
				names = append(names, a.Policy)
			}
		}
		if err != nil {
			return policyList{}, fmt.Errorf("couldn't list the policies of %s: %w", of.arn, err)
		}
		list := policyList{items: make([]Policy, 0, len(names)), next: next}
		for _, name := range names {
			list.items = append(list.items, Policy{PolicyName: string(name), PolicyArn: tenant.PolicyARN(name)})
		}
		return list, nil
	})
}

// listAttachedPolicies with recursive adds the policies of a group's ancestors.
func (s *Service) listAttachedPolicies(ctx context.Context, caller awsapi.Caller, in *ListAttachedPoliciesInput) (*ListAttachedPoliciesOutput, error) {
	recursive := in.Recursive != nil && *in.Recursive
	list, err := s.attachedPolicies(ctx, tenantOf(caller), in.Target, recursive, namePage(in.PageSize, in.Marker, nil))
	if err != nil {
		return nil, err
	}
	return &ListAttachedPoliciesOutput{Policies: list.items, NextMarker: list.next}, nil
}

func (s *Service) listPrincipalPolicies(ctx context.Context, caller awsapi.Caller, in *ListPrincipalPoliciesInput) (*ListPrincipalPoliciesOutput, error) {
	list, err := s.attachedPolicies(ctx, tenantOf(caller), in.Principal, false, namePage(in.PageSize, in.Marker, in.AscendingOrder))
	if err != nil {
		return nil, err
	}
	return &ListPrincipalPoliciesOutput{Policies: list.items, NextMarker: list.next}, nil
}

// targetList is one page of the targets of a policy with the marker of the next.
type targetList struct {
	items []string
	next  string
}

func (s *Service) policyTargets(ctx context.Context, tenant imprint.Tenant, name string, page imprint.Page) (targetList, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (targetList, error) {
		p, err := readPolicy(tx, tenant, name)
		if err != nil {
			return targetList{}, err
		}
		attached, next, err := tx.PolicyTargets(tenant, p.Name, page)
		if err != nil {
			return targetList{}, fmt.Errorf("couldn't list the targets of policy %s: %w", p.Name, err)
		}
		list := targetList{items: make([]string, 0, len(attached)), next: next}
		for _, a := range attached {
			list.items = append(list.items, a.Target)
		}
		return list, nil
	})
}

func (s *Service) listTargetsForPolicy(ctx context.Context, caller awsapi.Caller, in *ListTargetsForPolicyInput) (*ListTargetsForPolicyOutput, error) {
	list, err := s.policyTargets(ctx, tenantOf(caller), in.PolicyName, namePage(in.PageSize, in.Marker, nil))
	if err != nil {
		return nil, err
	}
	return &ListTargetsForPolicyOutput{Targets: list.items, NextMarker: list.next}, nil
}

func (s *Service) listPolicyPrincipals(ctx context.Context, caller awsapi.Caller, in *ListPolicyPrincipalsInput) (*ListPolicyPrincipalsOutput, error) {
	list, err := s.policyTargets(ctx, tenantOf(caller), in.PolicyName, namePage(in.PageSize, in.Marker, in.AscendingOrder))
	if err != nil {
		return nil, err
	}
	return &ListPolicyPrincipalsOutput{Principals: list.items, NextMarker: list.next}, nil
}

// getEffectivePolicies gives the policies of the principal together with those of
// the thing's groups and their ancestors, each once, by name.
func (s *Service) getEffectivePolicies(ctx context.Context, caller awsapi.Caller, in *GetEffectivePoliciesInput) (*GetEffectivePoliciesOutput, error) {
	if in.CognitoIdentityPoolId != nil {
		return nil, refuseCognitoPool()
	}
	if in.Principal == nil && in.ThingName == nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "principal or thingName must be given.")
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*GetEffectivePoliciesOutput, error) {
		tenant := tenantOf(caller)
		names, err := effectiveNames(tx, tenant, in.Principal, in.ThingName)
		if err != nil {
			return nil, err
		}
		out := &GetEffectivePoliciesOutput{EffectivePolicies: make([]EffectivePolicy, 0, len(names))}
		for _, name := range names {
			p, err := readPolicy(tx, tenant, string(name))
			if err != nil {
				return nil, err
			}
			version, err := readDefault(tx, p)
			if err != nil {
				return nil, err
			}
			out.EffectivePolicies = append(out.EffectivePolicies, EffectivePolicy{
				PolicyName: string(name), PolicyArn: p.ARN(), PolicyDocument: version.Document,
			})
		}
		return out, nil
	})
}

func effectiveNames(tx imprint.ReadTx, tenant imprint.Tenant, principal, thingName *string) ([]imprint.PolicyName, error) {
	var names []imprint.PolicyName
	if thingName != nil {
		thing, err := readThing(tx, tenant, *thingName)
		if err != nil {
			return nil, err
		}
		names, err = thingPolicies(tx, thing)
		if err != nil {
			return nil, err
		}
	}
	if principal != nil {
		of, err := readTarget(tx, tenant, *principal)
		if err != nil {
			return nil, err
		}
		own, err := effectiveOf(tx, of)
		if err != nil {
			return nil, err
		}
		names = append(names, own...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func refuseCognitoPool() error {
	return imprint.Errorf(imprint.CodeInvalidRequest, "cognitoIdentityPoolId can't be given.").
		WithHint("This build of Imprint keeps no Cognito identities: name a certificate or a thing group by its ARN as principal.")
}
