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
// and ask what they come to (AWS IoT API reference, AttachPolicy,
// GetEffectivePolicies, TestAuthorization and their neighbours), with the
// deprecated ones that clients in the field still use.
func (s *Service) policyAttachmentRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(AttachPolicy, s.attachPolicy),
		awsapi.Handle(DetachPolicy, s.detachPolicy),
		awsapi.Handle(ListAttachedPolicies, s.listAttachedPolicies),
		awsapi.Handle(ListTargetsForPolicy, s.listTargetsForPolicy),
		awsapi.Handle(GetEffectivePolicies, s.getEffectivePolicies),
		awsapi.Handle(AttachPrincipalPolicy, s.attachPrincipalPolicy),
		awsapi.Handle(DetachPrincipalPolicy, s.detachPrincipalPolicy),
		awsapi.Handle(ListPrincipalPolicies, s.listPrincipalPolicies),
		awsapi.Handle(ListPolicyPrincipals, s.listPolicyPrincipals),
		awsapi.Handle(TestAuthorization, s.testAuthorization),
	}
}

// parseTarget reads the certificate that a request names as the target of a
// policy. A thing group of the tenant is one that doesn't exist: this build
// keeps none.
func parseTarget(tenant imprint.Tenant, text string) (imprint.CertificateID, error) {
	owner, resource, err := imprint.ParseARN(text)
	if err == nil && owner == tenant && strings.HasPrefix(resource, "thinggroup/") {
		return "", imprint.Errorf(imprint.CodeNotFound, "Thing group %s cannot be found.", strings.TrimPrefix(resource, "thinggroup/")).
			WithHint("This build of Imprint keeps no thing groups: attach the policy to certificates.")
	}
	return parsePrincipal(tenant, text)
}

// readTarget finds the certificate that a request names as the target of a
// policy.
func readTarget(tx imprint.ReadTx, tenant imprint.Tenant, text string) (imprint.Certificate, error) {
	id, err := parseTarget(tenant, text)
	if err != nil {
		return imprint.Certificate{}, err
	}
	// The ARN is written anew, so that other spellings of the id find the same row.
	return readPrincipal(tx, tenant, tenant.CertificateARN(id))
}

func (s *Service) attachPolicy(ctx context.Context, caller awsapi.Caller, in *AttachPolicyInput) (*AttachPolicyOutput, error) {
	return &AttachPolicyOutput{}, s.attach(ctx, tenantOf(caller), in.PolicyName, in.Target)
}

func (s *Service) attachPrincipalPolicy(ctx context.Context, caller awsapi.Caller, in *AttachPrincipalPolicyInput) (*AttachPrincipalPolicyOutput, error) {
	return &AttachPrincipalPolicyOutput{}, s.attach(ctx, tenantOf(caller), in.PolicyName, in.Principal)
}

// attach puts a policy on a certificate. A repetition changes nothing.
func (s *Service) attach(ctx context.Context, tenant imprint.Tenant, name, target string) error {
	return s.rooms.Store.Update(ctx, func(tx imprint.Tx) error {
		p, err := readPolicy(tx, tenant, name)
		if err != nil {
			return err
		}
		certificate, err := readTarget(tx, tenant, target)
		if err != nil {
			return err
		}
		wanted := imprint.PolicyAttachment{Tenant: tenant, Policy: p.Name, Target: certificate.ARN()}
		attached, err := targetPolicies(tx, certificate)
		if err != nil {
			return err
		}
		if slices.Contains(attached, p.Name) {
			return nil
		}
		if len(attached) >= imprint.MaxPoliciesPerCertificate {
			return imprint.Errorf(imprint.CodeLimitExceeded, "Certificate %s has the maximum number of policies (%d) attached to it",
				certificate.ID, imprint.MaxPoliciesPerCertificate).WithHint("Detach a policy, or put the statements into one that is attached.")
		}
		err = tx.PutPolicyAttachment(wanted)
		if err != nil {
			return fmt.Errorf("couldn't attach policy %s to %s: %w", p.Name, wanted.Target, err)
		}
		return nil
	})
}

// targetPolicies gives the names of the policies attached to a certificate: no
// more than fit on one page, because of the limit at attaching.
func targetPolicies(tx imprint.ReadTx, certificate imprint.Certificate) ([]imprint.PolicyName, error) {
	attached, _, err := tx.TargetPolicies(certificate.Tenant, certificate.ARN(), imprint.Page{Limit: maxPageSize, Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("couldn't read the policies of certificate %s: %w", certificate.ID, err)
	}
	names := make([]imprint.PolicyName, 0, len(attached))
	for _, a := range attached {
		names = append(names, a.Policy)
	}
	return names, nil
}

// detachPolicy succeeds for what isn't attached and for what doesn't exist: AWS
// IoT Core declares no ResourceNotFoundException here.
func (s *Service) detachPolicy(ctx context.Context, caller awsapi.Caller, in *DetachPolicyInput) (*DetachPolicyOutput, error) {
	tenant := tenantOf(caller)
	name, err := imprint.ParsePolicyName(in.PolicyName)
	if err != nil {
		return nil, err
	}
	id, err := parseTarget(tenant, in.Target)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*DetachPolicyOutput, error) {
		err := tx.DeletePolicyAttachment(imprint.PolicyAttachment{Tenant: tenant, Policy: name, Target: tenant.CertificateARN(id)})
		if err != nil {
			return nil, fmt.Errorf("couldn't detach policy %s from certificate %s: %w", name, id, err)
		}
		return &DetachPolicyOutput{}, nil
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
		certificate, err := readTarget(tx, p.Tenant, in.Principal)
		if err != nil {
			return nil, err
		}
		attached, err := targetPolicies(tx, certificate)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(attached, p.Name) {
			return nil, imprint.Errorf(imprint.CodeNotFound, "Policy %s is not attached to certificate %s.", p.Name, certificate.ID)
		}
		err = tx.DeletePolicyAttachment(imprint.PolicyAttachment{Tenant: p.Tenant, Policy: p.Name, Target: certificate.ARN()})
		if err != nil {
			return nil, fmt.Errorf("couldn't detach policy %s from certificate %s: %w", p.Name, certificate.ID, err)
		}
		return &DetachPrincipalPolicyOutput{}, nil
	})
}

// policyList is one page of policies with the marker of the next.
type policyList struct {
	items []Policy
	next  string
}

// attachedPolicies lists the policies of a certificate.
func (s *Service) attachedPolicies(ctx context.Context, tenant imprint.Tenant, target string, p imprint.Page) (policyList, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (policyList, error) {
		certificate, err := readTarget(tx, tenant, target)
		if err != nil {
			return policyList{}, err
		}
		attached, next, err := tx.TargetPolicies(tenant, certificate.ARN(), p)
		if err != nil {
			return policyList{}, fmt.Errorf("couldn't list the policies of certificate %s: %w", certificate.ID, err)
		}
		list := policyList{items: make([]Policy, 0, len(attached)), next: next}
		for _, a := range attached {
			list.items = append(list.items, Policy{PolicyName: string(a.Policy), PolicyArn: tenant.PolicyARN(a.Policy)})
		}
		return list, nil
	})
}

// listAttachedPolicies ignores recursive, which is about the ancestors of thing
// groups.
func (s *Service) listAttachedPolicies(ctx context.Context, caller awsapi.Caller, in *ListAttachedPoliciesInput) (*ListAttachedPoliciesOutput, error) {
	list, err := s.attachedPolicies(ctx, tenantOf(caller), in.Target, namePage(in.PageSize, in.Marker, nil))
	if err != nil {
		return nil, err
	}
	return &ListAttachedPoliciesOutput{Policies: list.items, NextMarker: list.next}, nil
}

func (s *Service) listPrincipalPolicies(ctx context.Context, caller awsapi.Caller, in *ListPrincipalPoliciesInput) (*ListPrincipalPoliciesOutput, error) {
	list, err := s.attachedPolicies(ctx, tenantOf(caller), in.Principal, namePage(in.PageSize, in.Marker, in.AscendingOrder))
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

// getEffectivePolicies gives the policies of the certificate. A thing adds those
// of its groups, and this build keeps no groups.
func (s *Service) getEffectivePolicies(ctx context.Context, caller awsapi.Caller, in *GetEffectivePoliciesInput) (*GetEffectivePoliciesOutput, error) {
	if in.CognitoIdentityPoolId != nil {
		return nil, refuseCognitoPool()
	}
	if in.Principal == nil && in.ThingName == nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "principal or thingName must be given.")
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*GetEffectivePoliciesOutput, error) {
		out := &GetEffectivePoliciesOutput{EffectivePolicies: []EffectivePolicy{}}
		if in.ThingName != nil {
			_, err := readThing(tx, tenantOf(caller), *in.ThingName)
			if err != nil {
				return nil, err
			}
		}
		if in.Principal == nil {
			return out, nil
		}
		certificate, err := readPrincipal(tx, tenantOf(caller), *in.Principal)
		if err != nil {
			return nil, err
		}
		names, err := targetPolicies(tx, certificate)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			p, err := readPolicy(tx, certificate.Tenant, string(name))
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

func refuseCognitoPool() error {
	return imprint.Errorf(imprint.CodeInvalidRequest, "cognitoIdentityPoolId can't be given.").
		WithHint("This build of Imprint keeps no Cognito identities: name a certificate by its ARN as principal.")
}
