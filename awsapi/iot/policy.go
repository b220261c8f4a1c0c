package iot

import (
	"context"
	"fmt"
	"strconv"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/policy"
)

// policyRoutes are the operations on policies and their versions (AWS IoT API
// reference, CreatePolicy, CreatePolicyVersion and their neighbours).
func (s *Service) policyRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreatePolicy, s.createPolicy),
		awsapi.Handle(GetPolicy, s.getPolicy),
		awsapi.Handle(ListPolicies, s.listPolicies),
		awsapi.Handle(DeletePolicy, s.deletePolicy),
		awsapi.Handle(CreatePolicyVersion, s.createPolicyVersion),
		awsapi.Handle(GetPolicyVersion, s.getPolicyVersion),
		awsapi.Handle(ListPolicyVersions, s.listPolicyVersions),
		awsapi.Handle(DeletePolicyVersion, s.deletePolicyVersion),
		awsapi.Handle(SetDefaultPolicyVersion, s.setDefaultPolicyVersion),
	}
}

// checkDocument refuses what isn't a policy, naming line, column and member.
func checkDocument(document string) error {
	_, err := policy.Parse([]byte(document))
	if err != nil {
		return imprint.Errorf(imprint.CodeMalformedPolicy, "Policy document is malformed: %w", err)
	}
	return nil
}

// namePage is the page of a list that goes by name unless the caller asks for
// the other order.
func namePage(size *int, marker *string, ascending *bool) imprint.Page {
	p := page(size, marker, ascending)
	p.Ascending = ascending == nil || *ascending
	return p
}

// createPolicy stores the document byte for byte as version 1. A policy of the
// same name is refused even when its document is the same.
func (s *Service) createPolicy(ctx context.Context, caller awsapi.Caller, in *CreatePolicyInput) (*CreatePolicyOutput, error) {
	name, err := imprint.ParsePolicyName(in.PolicyName)
	if err != nil {
		return nil, err
	}
	err = checkDocument(in.PolicyDocument)
	if err != nil {
		return nil, err
	}
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	p := imprint.Policy{
		Tenant: tenant, Name: name, DefaultVersion: 1, LastVersion: 1,
		CreatedAt: now, ModifiedAt: now, GenerationID: newGeneration(),
	}
	version := imprint.PolicyVersion{Tenant: p.Tenant, Policy: name, Version: 1, Document: in.PolicyDocument, CreatedAt: now}
	return update(ctx, s, func(tx imprint.Tx) (*CreatePolicyOutput, error) {
		_, err := tx.Policy(p.Tenant, name)
		if err == nil {
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "Policy cannot be created - name already exists (name=%s)", name).
				WithResource(string(name), p.ARN())
		}
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return nil, fmt.Errorf("couldn't read policy %s: %w", name, err)
		}
		err = tx.PutPolicy(p)
		if err != nil {
			return nil, fmt.Errorf("couldn't create policy %s: %w", name, err)
		}
		err = tx.PutPolicyVersion(version)
		if err != nil {
			return nil, fmt.Errorf("couldn't create policy %s: %w", name, err)
		}
		err = putTags(tx, p.Tenant, p.ARN(), in.Tags)
		if err != nil {
			return nil, err
		}
		return &CreatePolicyOutput{
			PolicyName: string(name), PolicyArn: p.ARN(), PolicyDocument: in.PolicyDocument, PolicyVersionId: "1",
		}, nil
	})
}

// readPolicy finds a policy by the name in a request.
func readPolicy(tx imprint.ReadTx, tenant imprint.Tenant, text string) (imprint.Policy, error) {
	return readNamed("Policy", tenant, text, imprint.ParsePolicyName, tx.Policy)
}

// readDefault gives the version of a policy that is in force.
func readDefault(tx imprint.ReadTx, p imprint.Policy) (imprint.PolicyVersion, error) {
	version, err := tx.PolicyVersion(p.Tenant, p.Name, p.DefaultVersion)
	if err != nil {
		// The default version can't be deleted: that it is missing is no mistake of the caller's.
		return version, imprint.Errorf(imprint.CodeInternal, "couldn't read the default version of policy %s: %w", p.Name, err)
	}
	return version, nil
}

func (s *Service) getPolicy(ctx context.Context, caller awsapi.Caller, in *GetPolicyInput) (*GetPolicyOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*GetPolicyOutput, error) {
		p, err := readPolicy(tx, tenantOf(caller), in.PolicyName)
		if err != nil {
			return nil, err
		}
		version, err := readDefault(tx, p)
		if err != nil {
			return nil, err
		}
		return &GetPolicyOutput{
			PolicyName: string(p.Name), PolicyArn: p.ARN(), PolicyDocument: version.Document,
			DefaultVersionId: strconv.Itoa(p.DefaultVersion),
			CreationDate:     p.CreatedAt, LastModifiedDate: p.ModifiedAt, GenerationId: p.GenerationID,
		}, nil
	})
}

func (s *Service) listPolicies(ctx context.Context, caller awsapi.Caller, in *ListPoliciesInput) (*ListPoliciesOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListPoliciesOutput, error) {
		policies, next, err := tx.Policies(tenantOf(caller), namePage(in.PageSize, in.Marker, in.AscendingOrder))
		if err != nil {
			return nil, fmt.Errorf("couldn't list policies: %w", err)
		}
		out := &ListPoliciesOutput{Policies: make([]Policy, 0, len(policies)), NextMarker: next}
		for _, p := range policies {
			out.Policies = append(out.Policies, Policy{PolicyName: string(p.Name), PolicyArn: p.ARN()})
		}
		return out, nil
	})
}

// deletePolicy takes the default version along. Attachments and other versions
// are in its way.
func (s *Service) deletePolicy(ctx context.Context, caller awsapi.Caller, in *DeletePolicyInput) (*DeletePolicyOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*DeletePolicyOutput, error) {
		p, err := readPolicy(tx, tenantOf(caller), in.PolicyName)
		if err != nil {
			return nil, err
		}
		targets, _, err := tx.PolicyTargets(p.Tenant, p.Name, imprint.Page{Limit: 1, Ascending: true})
		if err != nil {
			return nil, fmt.Errorf("couldn't read the targets of policy %s: %w", p.Name, err)
		}
		if len(targets) > 0 {
			return nil, imprint.Errorf(imprint.CodeDeleteConflict,
				"The policy cannot be deleted as the policy is attached to one or more principals (name=%s)", p.Name)
		}
		versions, err := tx.PolicyVersions(p.Tenant, p.Name)
		if err != nil {
			return nil, fmt.Errorf("couldn't read the versions of policy %s: %w", p.Name, err)
		}
		if len(versions) > 1 {
			// The doubled word is AWS's: callers match the text.
			return nil, imprint.Errorf(imprint.CodeDeleteConflict,
				"The policy cannot be deleted as versions other than than default version exist (name=%s)", p.Name)
		}
		err = tx.DeletePolicy(p.Tenant, p.Name)
		if err != nil {
			return nil, fmt.Errorf("couldn't delete policy %s: %w", p.Name, err)
		}
		err = tx.DeleteTags(p.Tenant, p.ARN())
		if err != nil {
			return nil, fmt.Errorf("couldn't delete the tags of policy %s: %w", p.Name, err)
		}
		return &DeletePolicyOutput{}, nil
	})
}
