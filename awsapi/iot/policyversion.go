package iot

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// createPolicyVersion adds a document to a policy. Ids go up and are never used
// again, also after a version was deleted.
func (s *Service) createPolicyVersion(ctx context.Context, caller awsapi.Caller, in *CreatePolicyVersionInput) (*CreatePolicyVersionOutput, error) {
	err := checkDocument(in.PolicyDocument)
	if err != nil {
		return nil, err
	}
	isDefault := in.SetAsDefault != nil && *in.SetAsDefault
	now, generation := s.rooms.Clock(), newGeneration()
	return update(ctx, s, func(tx imprint.Tx) (*CreatePolicyVersionOutput, error) {
		p, err := readPolicy(tx, tenantOf(caller), in.PolicyName)
		if err != nil {
			return nil, err
		}
		versions, err := tx.PolicyVersions(p.Tenant, p.Name)
		if err != nil {
			return nil, fmt.Errorf("couldn't read the versions of policy %s: %w", p.Name, err)
		}
		if len(versions) >= imprint.MaxPolicyVersions {
			return nil, imprint.Errorf(imprint.CodeVersionsLimitExceeded,
				"The policy %s already has the maximum number of versions (%d)", p.Name, imprint.MaxPolicyVersions)
		}
		p.LastVersion++
		if isDefault {
			p.DefaultVersion = p.LastVersion
		}
		err = putChangedPolicy(tx, p, now, generation)
		if err != nil {
			return nil, err
		}
		err = tx.PutPolicyVersion(imprint.PolicyVersion{
			Tenant: p.Tenant, Policy: p.Name, Version: p.LastVersion, Document: in.PolicyDocument, CreatedAt: now,
		})
		if err != nil {
			return nil, fmt.Errorf("couldn't create version %d of policy %s: %w", p.LastVersion, p.Name, err)
		}
		return &CreatePolicyVersionOutput{
			PolicyArn: p.ARN(), PolicyDocument: in.PolicyDocument,
			PolicyVersionId: strconv.Itoa(p.LastVersion), IsDefaultVersion: &isDefault,
		}, nil
	})
}

func putChangedPolicy(tx imprint.Tx, p imprint.Policy, now time.Time, generation string) error {
	p.ModifiedAt, p.GenerationID = now, generation
	err := tx.PutPolicy(p)
	if err != nil {
		return fmt.Errorf("couldn't update policy %s: %w", p.Name, err)
	}
	return nil
}

// readPolicyVersion finds a policy and the version of it that a request names.
func readPolicyVersion(tx imprint.ReadTx, tenant imprint.Tenant, name, id string) (imprint.Policy, imprint.PolicyVersion, error) {
	p, err := readPolicy(tx, tenant, name)
	if err != nil {
		return p, imprint.PolicyVersion{}, err
	}
	missing := imprint.Errorf(imprint.CodeNotFound, "Version %s of policy %s cannot be found.", id, name)
	number, err := strconv.Atoi(id)
	// "01" names no version, and neither does a number beyond all numbers.
	if err != nil || strconv.Itoa(number) != id {
		return p, imprint.PolicyVersion{}, missing
	}
	version, err := tx.PolicyVersion(tenant, p.Name, number)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return p, version, missing
	case err != nil:
		return p, version, fmt.Errorf("couldn't read version %s of policy %s: %w", id, name, err)
	}
	return p, version, nil
}

func (s *Service) getPolicyVersion(ctx context.Context, caller awsapi.Caller, in *GetPolicyVersionInput) (*GetPolicyVersionOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*GetPolicyVersionOutput, error) {
		p, version, err := readPolicyVersion(tx, tenantOf(caller), in.PolicyName, in.PolicyVersionId)
		if err != nil {
			return nil, err
		}
		isDefault := version.Version == p.DefaultVersion
		return &GetPolicyVersionOutput{
			PolicyArn: p.ARN(), PolicyName: string(p.Name), PolicyDocument: version.Document,
			PolicyVersionId: strconv.Itoa(version.Version), IsDefaultVersion: &isDefault,
			CreationDate: version.CreatedAt, LastModifiedDate: version.CreatedAt, GenerationId: p.GenerationID,
		}, nil
	})
}

// listPolicyVersions lists the newest first.
func (s *Service) listPolicyVersions(ctx context.Context, caller awsapi.Caller, in *ListPolicyVersionsInput) (*ListPolicyVersionsOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListPolicyVersionsOutput, error) {
		p, err := readPolicy(tx, tenantOf(caller), in.PolicyName)
		if err != nil {
			return nil, err
		}
		versions, err := tx.PolicyVersions(p.Tenant, p.Name)
		if err != nil {
			return nil, fmt.Errorf("couldn't list the versions of policy %s: %w", p.Name, err)
		}
		out := &ListPolicyVersionsOutput{PolicyVersions: make([]PolicyVersion, 0, len(versions))}
		for _, v := range versions {
			isDefault := v.Version == p.DefaultVersion
			out.PolicyVersions = append(out.PolicyVersions, PolicyVersion{
				VersionId: strconv.Itoa(v.Version), IsDefaultVersion: &isDefault, CreateDate: v.CreatedAt,
			})
		}
		return out, nil
	})
}

func (s *Service) deletePolicyVersion(ctx context.Context, caller awsapi.Caller, in *DeletePolicyVersionInput) (*DeletePolicyVersionOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*DeletePolicyVersionOutput, error) {
		p, version, err := readPolicyVersion(tx, tenantOf(caller), in.PolicyName, in.PolicyVersionId)
		if err != nil {
			return nil, err
		}
		if version.Version == p.DefaultVersion {
			return nil, imprint.Errorf(imprint.CodeDeleteConflict, "Cannot delete the default version of a policy (name=%s)", p.Name)
		}
		err = tx.DeletePolicyVersion(p.Tenant, p.Name, version.Version)
		if err != nil {
			return nil, fmt.Errorf("couldn't delete version %d of policy %s: %w", version.Version, p.Name, err)
		}
		return &DeletePolicyVersionOutput{}, nil
	})
}

func (s *Service) setDefaultPolicyVersion(ctx context.Context, caller awsapi.Caller, in *SetDefaultPolicyVersionInput) (*SetDefaultPolicyVersionOutput, error) {
	now, generation := s.rooms.Clock(), newGeneration()
	return update(ctx, s, func(tx imprint.Tx) (*SetDefaultPolicyVersionOutput, error) {
		p, version, err := readPolicyVersion(tx, tenantOf(caller), in.PolicyName, in.PolicyVersionId)
		if err != nil {
			return nil, err
		}
		if p.DefaultVersion == version.Version {
			return &SetDefaultPolicyVersionOutput{}, nil
		}
		p.DefaultVersion = version.Version
		err = putChangedPolicy(tx, p, now, generation)
		if err != nil {
			return nil, err
		}
		return &SetDefaultPolicyVersionOutput{}, nil
	})
}
