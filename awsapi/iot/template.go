package iot

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/template"
)

// templateRoutes are the operations on provisioning templates and their
// versions (AWS IoT API reference, CreateProvisioningTemplate and its
// neighbours).
func (s *Service) templateRoutes() []awsapi.Route {
	named := func(c awsapi.Caller, in *CreateProvisioningTemplateInput) string {
		return callerARN(c, "provisioningtemplate/"+in.TemplateName)
	}
	return []awsapi.Route{
		awsapi.HandleFor(CreateProvisioningTemplate, named, s.createTemplate),
		awsapi.Handle(DescribeProvisioningTemplate, s.describeTemplate),
		awsapi.Handle(UpdateProvisioningTemplate, s.updateTemplate),
		awsapi.Handle(DeleteProvisioningTemplate, s.deleteTemplate),
		awsapi.Handle(ListProvisioningTemplates, s.listTemplates),
		awsapi.Handle(CreateProvisioningTemplateVersion, s.createTemplateVersion),
		awsapi.Handle(DescribeProvisioningTemplateVersion, s.describeTemplateVersion),
		awsapi.Handle(ListProvisioningTemplateVersions, s.listTemplateVersions),
		awsapi.Handle(DeleteProvisioningTemplateVersion, s.deleteTemplateVersion),
	}
}

// hookPayloadVersion is the only version of the hook's payload that AWS IoT
// Core documents.
const hookPayloadVersion = "2020-04-01"

var lambdaPattern = regexp.MustCompile(`^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[a-zA-Z0-9_-]+(:[a-zA-Z0-9$_-]+)?$`)

func checkRole(arn string) error {
	if isRoleARN(arn) {
		return nil
	}
	return imprint.Errorf(imprint.CodeInvalidRequest, "provisioningRoleArn %q is not the ARN of an IAM role.", imprint.Excerpt(arn)).
		WithHint("Write it as arn:aws:iam::000000000000:role/NAME.")
}

// checkBody parses a template's body as its type demands. The message names
// line, column and member.
func checkBody(body string, kind imprint.TemplateType) error {
	parseAs := template.Fleet
	if kind == imprint.TemplateJITP {
		parseAs = template.JITP
	}
	_, err := template.Parse([]byte(body), parseAs)
	if err == nil {
		return nil
	}
	refusal := imprint.Errorf(imprint.CodeInvalidRequest, "templateBody is not a valid template of type %s: %w.", kind, err)
	var fault *template.Error
	if errors.As(err, &fault) && fault.Hint != "" {
		refusal.Hint = "Hint: " + fault.Hint + "."
	}
	return refusal
}

// setHook puts a pre-provisioning hook on a template.
func setHook(t *imprint.ProvisioningTemplate, hook *ProvisioningHook) error {
	if hook == nil {
		return nil
	}
	if t.Type != imprint.TemplateFleet {
		return imprint.Errorf(imprint.CodeInvalidRequest, "preProvisioningHook can't be given for a template of type %s.", t.Type).
			WithHint("Only templates of type %s have a hook.", imprint.TemplateFleet)
	}
	if !lambdaPattern.MatchString(hook.TargetArn) {
		return imprint.Errorf(imprint.CodeInvalidRequest, "preProvisioningHook.targetArn %q is not the ARN of a Lambda function.", imprint.Excerpt(hook.TargetArn)).
			WithHint("Write it as arn:aws:lambda:us-east-1:000000000000:function:NAME.")
	}
	if hook.PayloadVersion != nil && *hook.PayloadVersion != hookPayloadVersion {
		return imprint.Errorf(imprint.CodeInvalidRequest, "preProvisioningHook.payloadVersion %s is not known.", *hook.PayloadVersion).
			WithHint("Use %s, or leave it out.", hookPayloadVersion)
	}
	t.HookTargetARN, t.HookPayloadVersion = hook.TargetArn, hookPayloadVersion
	return nil
}

func hookOf(t imprint.ProvisioningTemplate) *ProvisioningHook {
	if t.HookTargetARN == "" {
		return nil
	}
	return &ProvisioningHook{PayloadVersion: &t.HookPayloadVersion, TargetArn: t.HookTargetARN}
}

// newTemplate is the template that a request describes.
func newTemplate(tenant imprint.Tenant, in *CreateProvisioningTemplateInput) (imprint.ProvisioningTemplate, error) {
	t := imprint.ProvisioningTemplate{
		Tenant: tenant, Type: imprint.TemplateFleet, RoleARN: in.ProvisioningRoleArn, DefaultVersion: 1, LastVersion: 1,
	}
	name, err := imprint.ParseTemplateName(in.TemplateName)
	if err != nil {
		return t, err
	}
	t.Name = name
	if in.Type != nil {
		t.Type = imprint.TemplateType(*in.Type)
	}
	if in.Description != nil {
		t.Description = *in.Description
	}
	if in.Enabled != nil {
		t.Enabled = *in.Enabled
	}
	err = checkRole(t.RoleARN)
	if err != nil {
		return t, err
	}
	err = setHook(&t, in.PreProvisioningHook)
	if err != nil {
		return t, err
	}
	return t, checkBody(in.TemplateBody, t.Type)
}

// createTemplate stores the body byte for byte as version 1. A template is
// disabled unless the request says otherwise, and its type never changes.
func (s *Service) createTemplate(ctx context.Context, caller awsapi.Caller, in *CreateProvisioningTemplateInput) (*CreateProvisioningTemplateOutput, error) {
	t, err := newTemplate(tenantOf(caller), in)
	if err != nil {
		return nil, err
	}
	_, err = s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	t.CreatedAt, t.ModifiedAt = now, now
	return update(ctx, s, func(tx imprint.Tx) (*CreateProvisioningTemplateOutput, error) {
		_, err := tx.Template(t.Tenant, t.Name)
		if err == nil {
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "Provisioning template %s already exists.", t.Name).
				WithResource(string(t.Name), t.ARN())
		}
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return nil, fmt.Errorf("couldn't read template %s: %w", t.Name, err)
		}
		if in.PreProvisioningHook != nil {
			err = checkOwnFunction(tx, t.Tenant, t.HookTargetARN)
			if err != nil {
				return nil, err
			}
		}
		err = tx.PutTemplate(t)
		if err != nil {
			return nil, fmt.Errorf("couldn't create template %s: %w", t.Name, err)
		}
		err = tx.PutTemplateVersion(imprint.TemplateVersion{
			Tenant: t.Tenant, Template: t.Name, Version: t.DefaultVersion, Body: in.TemplateBody, CreatedAt: now,
		})
		if err != nil {
			return nil, fmt.Errorf("couldn't create template %s: %w", t.Name, err)
		}
		err = putTags(tx, t.Tenant, t.ARN(), in.Tags)
		if err != nil {
			return nil, err
		}
		return &CreateProvisioningTemplateOutput{
			TemplateArn: t.ARN(), TemplateName: string(t.Name), DefaultVersionId: new(t.DefaultVersion),
		}, nil
	})
}

// readTemplate finds a template by the name in a request.
func readTemplate(tx imprint.ReadTx, tenant imprint.Tenant, text string) (imprint.ProvisioningTemplate, error) {
	return readNamed("Provisioning template", tenant, text, imprint.ParseTemplateName, tx.Template)
}

func (s *Service) describeTemplate(ctx context.Context, caller awsapi.Caller, in *DescribeProvisioningTemplateInput) (*DescribeProvisioningTemplateOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeProvisioningTemplateOutput, error) {
		t, err := readTemplate(tx, tenantOf(caller), in.TemplateName)
		if err != nil {
			return nil, err
		}
		version, err := tx.TemplateVersion(t.Tenant, t.Name, t.DefaultVersion)
		if err != nil {
			// The default version can't be deleted: that it is missing is no mistake of the caller's.
			return nil, imprint.Errorf(imprint.CodeInternal, "couldn't read the default version of template %s: %w", t.Name, err)
		}
		return &DescribeProvisioningTemplateOutput{
			TemplateArn: t.ARN(), TemplateName: string(t.Name), Description: t.Description,
			CreationDate: t.CreatedAt, LastModifiedDate: t.ModifiedAt,
			DefaultVersionId: &t.DefaultVersion, TemplateBody: version.Body, Enabled: &t.Enabled,
			ProvisioningRoleArn: t.RoleARN, PreProvisioningHook: hookOf(t), Type: TemplateType(t.Type),
		}, nil
	})
}

// updateTemplate changes what the request names. The body never changes here:
// that takes a new version.
func (s *Service) updateTemplate(ctx context.Context, caller awsapi.Caller, in *UpdateProvisioningTemplateInput) (*UpdateProvisioningTemplateOutput, error) {
	if in.PreProvisioningHook != nil && in.RemovePreProvisioningHook != nil && *in.RemovePreProvisioningHook {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "preProvisioningHook and removePreProvisioningHook can't be given together.")
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateProvisioningTemplateOutput, error) {
		t, err := readTemplate(tx, tenantOf(caller), in.TemplateName)
		if err != nil {
			return nil, err
		}
		err = changeTemplate(tx, &t, in)
		if err != nil {
			return nil, err
		}
		t.ModifiedAt = now
		err = tx.PutTemplate(t)
		if err != nil {
			return nil, fmt.Errorf("couldn't update template %s: %w", t.Name, err)
		}
		return &UpdateProvisioningTemplateOutput{}, nil
	})
}

func changeTemplate(tx imprint.ReadTx, t *imprint.ProvisioningTemplate, in *UpdateProvisioningTemplateInput) error {
	if in.Description != nil {
		t.Description = *in.Description
	}
	if in.Enabled != nil {
		t.Enabled = *in.Enabled
	}
	if in.ProvisioningRoleArn != nil {
		err := checkRole(*in.ProvisioningRoleArn)
		if err != nil {
			return err
		}
		t.RoleARN = *in.ProvisioningRoleArn
	}
	if in.DefaultVersionId != nil {
		version, err := readTemplateVersion(tx, *t, *in.DefaultVersionId)
		if err != nil {
			return err
		}
		t.DefaultVersion = version.Version
	}
	if in.RemovePreProvisioningHook != nil && *in.RemovePreProvisioningHook {
		t.HookTargetARN, t.HookPayloadVersion = "", ""
	}
	err := setHook(t, in.PreProvisioningHook)
	if err != nil || in.PreProvisioningHook == nil {
		return err
	}
	return checkOwnFunction(tx, t.Tenant, t.HookTargetARN)
}

// deleteTemplate takes the versions along. A CA whose registration config names
// the template is in its way: its devices could not be provisioned any more.
func (s *Service) deleteTemplate(ctx context.Context, caller awsapi.Caller, in *DeleteProvisioningTemplateInput) (*DeleteProvisioningTemplateOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*DeleteProvisioningTemplateOutput, error) {
		t, err := readTemplate(tx, tenantOf(caller), in.TemplateName)
		if err != nil {
			return nil, err
		}
		cas, _, err := tx.CAs(t.Tenant, t.Name, imprint.Page{Limit: 1})
		if err != nil {
			return nil, fmt.Errorf("couldn't read the CAs of template %s: %w", t.Name, err)
		}
		if len(cas) > 0 {
			return nil, imprint.Errorf(imprint.CodeDeleteConflict,
				"Provisioning template %s is named by the registrationConfig of CA certificate %s.", t.Name, cas[0].ID).
				WithHint("Give the CA another registrationConfig or remove it first: aws iot update-ca-certificate.")
		}
		err = tx.DeleteTemplate(t.Tenant, t.Name)
		if err != nil {
			return nil, fmt.Errorf("couldn't delete template %s: %w", t.Name, err)
		}
		err = tx.DeleteTags(t.Tenant, t.ARN())
		if err != nil {
			return nil, fmt.Errorf("couldn't delete the tags of template %s: %w", t.Name, err)
		}
		return &DeleteProvisioningTemplateOutput{}, nil
	})
}

func (s *Service) listTemplates(ctx context.Context, caller awsapi.Caller, in *ListProvisioningTemplatesInput) (*ListProvisioningTemplatesOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListProvisioningTemplatesOutput, error) {
		templates, next, err := tx.Templates(tenantOf(caller), registryPage(in.MaxResults, in.NextToken))
		if err != nil {
			return nil, fmt.Errorf("couldn't list templates: %w", err)
		}
		out := &ListProvisioningTemplatesOutput{Templates: make([]ProvisioningTemplateSummary, 0, len(templates)), NextToken: next}
		for _, t := range templates {
			out.Templates = append(out.Templates, ProvisioningTemplateSummary{
				TemplateArn: t.ARN(), TemplateName: string(t.Name), Description: t.Description,
				CreationDate: t.CreatedAt, LastModifiedDate: t.ModifiedAt, Enabled: &t.Enabled, Type: TemplateType(t.Type),
			})
		}
		return out, nil
	})
}
