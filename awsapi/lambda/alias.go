package lambda

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/functions"
)

func showAlias(a imprint.FunctionAlias) *Alias {
	return &Alias{
		AliasARN: a.Tenant.FunctionARN(a.Function) + ":" + a.Name, Name: a.Name, FunctionVersion: a.Version,
		Description: &a.Description, RevisionID: a.RevisionID,
	}
}

func (s *Service) createAlias(ctx context.Context, caller awsapi.Caller, in *CreateAliasInput) (*Alias, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err == nil {
		err = refuseRouting(in.RoutingConfig)
	}
	if err != nil {
		return nil, err
	}
	made, err := s.functions.CreateAlias(ctx, imprint.FunctionAlias{
		Tenant: tenant, Function: name, Name: in.Name, Version: in.FunctionVersion, Description: text(in.Description),
	})
	if err != nil {
		return nil, err
	}
	return showAlias(made), nil
}

// refuseRouting refuses an alias of two versions.
func refuseRouting(r *Routing) error {
	if r == nil || len(r.Weights) == 0 {
		return nil
	}
	return imprint.Errorf(imprint.CodeInvalidRequest, "this server doesn't offer aliases of two versions")
}

func (s *Service) getAlias(ctx context.Context, caller awsapi.Caller, in *AliasInput) (*Alias, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err != nil {
		return nil, err
	}
	a, err := s.functions.Alias(ctx, tenant, name, in.Name)
	if err != nil {
		return nil, err
	}
	return showAlias(a), nil
}

func (s *Service) listAliases(ctx context.Context, caller awsapi.Caller, in *ListAliasesInput) (*ListAliasesOutput, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err != nil {
		return nil, err
	}
	list, next, err := s.functions.Aliases(ctx, tenant, name, page(in.Marker, in.MaxItems))
	if err != nil {
		return nil, err
	}
	out := &ListAliasesOutput{Aliases: make([]Alias, 0, len(list)), NextMarker: next}
	for _, a := range list {
		if in.FunctionVersion == nil || a.Version == *in.FunctionVersion {
			out.Aliases = append(out.Aliases, *showAlias(a))
		}
	}
	return out, nil
}

func (s *Service) updateAlias(ctx context.Context, caller awsapi.Caller, in *UpdateAliasInput) (*Alias, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err == nil {
		err = refuseRouting(in.RoutingConfig)
	}
	if err != nil {
		return nil, err
	}
	made, err := s.functions.UpdateAlias(ctx, tenant, name, in.Name, text(in.RevisionID), func(a *imprint.FunctionAlias) {
		if in.FunctionVersion != nil {
			a.Version = *in.FunctionVersion
		}
		if in.Description != nil {
			a.Description = *in.Description
		}
	})
	if err != nil {
		return nil, err
	}
	return showAlias(made), nil
}

func (s *Service) deleteAlias(ctx context.Context, caller awsapi.Caller, in *AliasInput) (*Nothing, error) {
	tenant := tenantOf(caller)
	name, err := oneLatest(tenant, in.FunctionName)
	if err != nil {
		return nil, err
	}
	return nil, s.functions.DeleteAlias(ctx, tenant, name, in.Name)
}

func (s *Service) addPermission(ctx context.Context, caller awsapi.Caller, in *AddPermissionInput) (*AddPermissionOutput, error) {
	tenant := tenantOf(caller)
	name, qualifier, err := functions.ParseName(tenant, in.FunctionName, text(in.Qualifier))
	if err != nil {
		return nil, err
	}
	if in.EventSourceToken != nil || in.PrincipalOrgID != nil || in.FunctionURLAuthType != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "this server's permissions have no event source token, organization and function URL")
	}
	p := imprint.FunctionPermission{
		Tenant: tenant, Function: name, Qualifier: functions.PolicyQualifier(qualifier), StatementID: in.StatementID,
		Action: in.Action, Principal: in.Principal, SourceARN: text(in.SourceARN), SourceAccount: text(in.SourceAccount),
	}
	err = s.functions.AddPermission(ctx, p, text(in.RevisionID))
	if err != nil {
		return nil, err
	}
	statement, err := json.Marshal(statementOf(p))
	if err != nil {
		return nil, fmt.Errorf("couldn't encode a permission: %w", err)
	}
	return &AddPermissionOutput{Statement: string(statement)}, nil
}

func (s *Service) removePermission(ctx context.Context, caller awsapi.Caller, in *RemovePermissionInput) (*Nothing, error) {
	tenant := tenantOf(caller)
	name, qualifier, err := functions.ParseName(tenant, in.FunctionName, text(in.Qualifier))
	if err != nil {
		return nil, err
	}
	return nil, s.functions.RemovePermission(ctx, tenant, name, qualifier, in.StatementID, text(in.RevisionID))
}

func (s *Service) getPolicy(ctx context.Context, caller awsapi.Caller, in *NameInput) (*GetPolicyOutput, error) {
	f, qualifier, err := s.find(ctx, caller, in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	list, err := s.functions.Permissions(ctx, f.Tenant, f.Name, qualifier)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, imprint.Errorf(imprint.CodeNotFound, "The resource you requested does not exist.")
	}
	policy := document{Version: "2012-10-17", ID: "default"}
	for _, p := range list {
		policy.Statement = append(policy.Statement, statementOf(p))
	}
	data, err := json.Marshal(policy)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the policy of function %s: %w", f.Name, err)
	}
	return &GetPolicyOutput{Policy: string(data), RevisionID: f.RevisionID}, nil
}

// document is a resource policy as AWS Lambda writes it.
type document struct {
	Version   string      `json:"Version"`
	ID        string      `json:"Id"`
	Statement []statement `json:"Statement"`
}

type statement struct {
	SID       string                       `json:"Sid"`
	Effect    string                       `json:"Effect"`
	Principal any                          `json:"Principal"`
	Action    string                       `json:"Action"`
	Resource  string                       `json:"Resource"`
	Condition map[string]map[string]string `json:"Condition,omitempty"`
}

var accountNumber = regexp.MustCompile(`^[0-9]{12}$`)

func statementOf(p imprint.FunctionPermission) statement {
	out := statement{SID: p.StatementID, Effect: "Allow", Action: p.Action, Resource: p.Tenant.FunctionARN(p.Function)}
	if p.Qualifier != "" {
		out.Resource += ":" + p.Qualifier
	}
	switch {
	case p.Principal == "*":
		out.Principal = "*"
	case accountNumber.MatchString(p.Principal):
		out.Principal = map[string]string{"AWS": "arn:aws:iam::" + p.Principal + ":root"}
	case strings.HasPrefix(p.Principal, "arn:"):
		out.Principal = map[string]string{"AWS": p.Principal}
	default:
		out.Principal = map[string]string{"Service": p.Principal}
	}
	condition := map[string]map[string]string{}
	if p.SourceAccount != "" {
		condition["StringEquals"] = map[string]string{"AWS:SourceAccount": p.SourceAccount}
	}
	if p.SourceARN != "" {
		condition["ArnLike"] = map[string]string{"AWS:SourceArn": p.SourceARN}
	}
	out.Condition = condition
	return out
}
