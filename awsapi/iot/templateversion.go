package iot

import (
	"context"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// readTemplateVersion finds the version of a template that a request names.
func readTemplateVersion(tx imprint.ReadTx, t imprint.ProvisioningTemplate, id int) (imprint.TemplateVersion, error) {
	version, err := tx.TemplateVersion(t.Tenant, t.Name, id)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return version, imprint.Errorf(imprint.CodeNotFound, "Version %d of provisioning template %s cannot be found.", id, t.Name)
	case err != nil:
		return version, fmt.Errorf("couldn't read version %d of template %s: %w", id, t.Name, err)
	}
	return version, nil
}

// createTemplateVersion adds a body to a template. The body is parsed inside of
// the transaction because the template's type says how. Ids go up and are never
// used again, also after a version was deleted.
func (s *Service) createTemplateVersion(ctx context.Context, caller awsapi.Caller, in *CreateProvisioningTemplateVersionInput) (*CreateProvisioningTemplateVersionOutput, error) {
	isDefault := in.SetAsDefault != nil && *in.SetAsDefault
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*CreateProvisioningTemplateVersionOutput, error) {
		t, err := readTemplate(tx, tenantOf(caller), in.TemplateName)
		if err != nil {
			return nil, err
		}
		err = checkBody(in.TemplateBody, t.Type)
		if err != nil {
			return nil, err
		}
		present, _, err := tx.TemplateVersions(t.Tenant, t.Name, imprint.Page{Limit: imprint.MaxTemplateVersions, Ascending: true})
		if err != nil {
			return nil, fmt.Errorf("couldn't read the versions of template %s: %w", t.Name, err)
		}
		if len(present) >= imprint.MaxTemplateVersions {
			return nil, imprint.Errorf(imprint.CodeVersionsLimitExceeded,
				"The provisioning template %s already has the maximum number of versions (%d)", t.Name, imprint.MaxTemplateVersions)
		}
		t.LastVersion++
		if isDefault {
			t.DefaultVersion = t.LastVersion
		}
		t.ModifiedAt = now
		err = tx.PutTemplate(t)
		if err != nil {
			return nil, fmt.Errorf("couldn't update template %s: %w", t.Name, err)
		}
		err = tx.PutTemplateVersion(imprint.TemplateVersion{
			Tenant: t.Tenant, Template: t.Name, Version: t.LastVersion, Body: in.TemplateBody, CreatedAt: now,
		})
		if err != nil {
			return nil, fmt.Errorf("couldn't create version %d of template %s: %w", t.LastVersion, t.Name, err)
		}
		return &CreateProvisioningTemplateVersionOutput{
			TemplateArn: t.ARN(), TemplateName: string(t.Name), VersionId: &t.LastVersion, IsDefaultVersion: &isDefault,
		}, nil
	})
}

func (s *Service) describeTemplateVersion(ctx context.Context, caller awsapi.Caller, in *DescribeProvisioningTemplateVersionInput) (*DescribeProvisioningTemplateVersionOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeProvisioningTemplateVersionOutput, error) {
		t, err := readTemplate(tx, tenantOf(caller), in.TemplateName)
		if err != nil {
			return nil, err
		}
		version, err := readTemplateVersion(tx, t, in.VersionId)
		if err != nil {
			return nil, err
		}
		return &DescribeProvisioningTemplateVersionOutput{
			VersionId: &version.Version, CreationDate: version.CreatedAt, TemplateBody: version.Body,
			IsDefaultVersion: new(version.Version == t.DefaultVersion),
		}, nil
	})
}

func (s *Service) listTemplateVersions(ctx context.Context, caller awsapi.Caller, in *ListProvisioningTemplateVersionsInput) (*ListProvisioningTemplateVersionsOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListProvisioningTemplateVersionsOutput, error) {
		t, err := readTemplate(tx, tenantOf(caller), in.TemplateName)
		if err != nil {
			return nil, err
		}
		versions, next, err := tx.TemplateVersions(t.Tenant, t.Name, registryPage(in.MaxResults, in.NextToken))
		if err != nil {
			return nil, fmt.Errorf("couldn't list the versions of template %s: %w", t.Name, err)
		}
		out := &ListProvisioningTemplateVersionsOutput{Versions: make([]ProvisioningTemplateVersionSummary, 0, len(versions)), NextToken: next}
		for _, v := range versions {
			out.Versions = append(out.Versions, ProvisioningTemplateVersionSummary{
				VersionId: &v.Version, CreationDate: v.CreatedAt, IsDefaultVersion: new(v.Version == t.DefaultVersion),
			})
		}
		return out, nil
	})
}

func (s *Service) deleteTemplateVersion(ctx context.Context, caller awsapi.Caller, in *DeleteProvisioningTemplateVersionInput) (*DeleteProvisioningTemplateVersionOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*DeleteProvisioningTemplateVersionOutput, error) {
		t, err := readTemplate(tx, tenantOf(caller), in.TemplateName)
		if err != nil {
			return nil, err
		}
		version, err := readTemplateVersion(tx, t, in.VersionId)
		if err != nil {
			return nil, err
		}
		if version.Version == t.DefaultVersion {
			return nil, imprint.Errorf(imprint.CodeDeleteConflict, "Version %d is the default version of provisioning template %s.", version.Version, t.Name).
				WithHint("Make another version the default one first: aws iot update-provisioning-template.")
		}
		err = tx.DeleteTemplateVersion(t.Tenant, t.Name, version.Version)
		if err != nil {
			return nil, fmt.Errorf("couldn't delete version %d of template %s: %w", version.Version, t.Name, err)
		}
		return &DeleteProvisioningTemplateVersionOutput{}, nil
	})
}
