package iot

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
)

// mitigationActionRoutes are what can be done about findings (AWS IoT API reference,
// CreateMitigationAction and its neighbours). Who makes an action must be allowed what
// it does, as who passes a role to the service is there.
func (s *Service) mitigationActionRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.HandleAsking(CreateMitigationAction, func(_ context.Context, c awsapi.Caller, in *CreateMitigationActionInput) ([]awsapi.Ask, error) {
			return asksToDefine(c, in.ActionName, in.ActionParams)
		}, s.createMitigationAction),
		awsapi.Handle(DescribeMitigationAction, s.describeMitigationAction),
		awsapi.HandleAsking(UpdateMitigationAction, func(_ context.Context, c awsapi.Caller, in *UpdateMitigationActionInput) ([]awsapi.Ask, error) {
			return asksToDefine(c, in.ActionName, in.ActionParams)
		}, s.updateMitigationAction),
		awsapi.Handle(DeleteMitigationAction, s.deleteMitigationAction),
		awsapi.Handle(ListMitigationActions, s.listMitigationActions),
	}
}

// asksToDefine are those of an operation that says what an action does.
func asksToDefine(caller awsapi.Caller, name string, params *MitigationActionParams) ([]awsapi.Ask, error) {
	asks := []awsapi.Ask{{Resource: callerARN(caller, "mitigationaction/"+name)}}
	if params == nil {
		return asks, nil
	}
	var action imprint.MitigationAction
	err := setMitigation(&action, params)
	if err != nil {
		return nil, err
	}
	return append(asks, asksToMitigate(caller, action)...), nil
}

// asksToMitigate are those of who does by hand what an action does: to which
// resources is seen later, so it must be allowed for all.
func asksToMitigate(caller awsapi.Caller, action imprint.MitigationAction) []awsapi.Ask {
	one := func(operation, resource string) awsapi.Ask {
		return awsapi.Ask{Action: "iot:" + operation, Resource: callerARN(caller, resource)}
	}
	switch action.Kind {
	case imprint.MitigateDeviceCertificate:
		return []awsapi.Ask{one("UpdateCertificate", "cert/*")}
	case imprint.MitigateCACertificate:
		return []awsapi.Ask{one("UpdateCACertificate", "cacert/*")}
	case imprint.MitigatePolicy:
		return []awsapi.Ask{one("CreatePolicyVersion", "policy/*")}
	}
	asks := []awsapi.Ask{one("AddThingToThingGroup", "thing/*")}
	for _, group := range action.Groups {
		asks = append(asks, one("AddThingToThingGroup", "thinggroup/"+string(group)))
	}
	return asks
}

// setMitigation sets what an action does. Two kinds can't be done here: an action that
// would only fail later isn't made.
func setMitigation(action *imprint.MitigationAction, params *MitigationActionParams) error {
	given := 0
	for _, is := range []bool{params.UpdateDeviceCertificateParams != nil, params.UpdateCACertificateParams != nil, params.AddThingsToThingGroupParams != nil,
		params.ReplaceDefaultPolicyVersionParams != nil, params.EnableIoTLoggingParams != nil, params.PublishFindingToSnsParams != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return imprint.Errorf(imprint.CodeInvalidRequest, "actionParams must have the parameters of one type of action, and has those of %d.", given)
	}
	action.Groups, action.OverrideDynamic = nil, nil
	switch {
	case params.EnableIoTLoggingParams != nil:
		return imprint.Errorf(imprint.CodeInvalidRequest, "ENABLE_IOT_LOGGING can't be done here: what is logged is the server's setting, not an account's.").
			WithHint("Start imprint serve with --trace, --trace-retention and --trace-keep: the findings of LOGGING_DISABLED_CHECK say which.")
	case params.PublishFindingToSnsParams != nil:
		return imprint.Errorf(imprint.CodeInvalidRequest, "PUBLISH_FINDING_TO_SNS can't be done here: there is no Amazon SNS.").
			WithHint("aws iot list-audit-findings tells findings, and imprint audit exits with 1 when there are any.")
	case params.UpdateDeviceCertificateParams != nil:
		action.Kind = imprint.MitigateDeviceCertificate
	case params.UpdateCACertificateParams != nil:
		action.Kind = imprint.MitigateCACertificate
	case params.ReplaceDefaultPolicyVersionParams != nil:
		action.Kind = imprint.MitigatePolicy
	default:
		action.Kind, action.OverrideDynamic = imprint.MitigateThingGroup, params.AddThingsToThingGroupParams.OverrideDynamicGroups
		for _, name := range params.AddThingsToThingGroupParams.ThingGroupNames {
			group, err := imprint.ParseThingGroupName(name)
			if err != nil {
				return err
			}
			if !slices.Contains(action.Groups, group) {
				action.Groups = append(action.Groups, group)
			}
		}
		if len(action.Groups) == 0 {
			return imprint.Errorf(imprint.CodeInvalidRequest, "thingGroupNames names no thing group.")
		}
	}
	return nil
}

// mitigationParams are the parameters of an action as they came.
func mitigationParams(action imprint.MitigationAction) *MitigationActionParams {
	switch action.Kind {
	case imprint.MitigateDeviceCertificate:
		return &MitigationActionParams{UpdateDeviceCertificateParams: &UpdateDeviceCertificateParams{Action: DeviceCertificateUpdateActionDeactivate}}
	case imprint.MitigateCACertificate:
		return &MitigationActionParams{UpdateCACertificateParams: &UpdateCACertificateParams{Action: CACertificateUpdateActionDeactivate}}
	case imprint.MitigatePolicy:
		return &MitigationActionParams{ReplaceDefaultPolicyVersionParams: &ReplaceDefaultPolicyVersionParams{TemplateName: PolicyTemplateNameBlankPolicy}}
	}
	groups := make([]string, len(action.Groups))
	for n, group := range action.Groups {
		groups[n] = string(group)
	}
	return &MitigationActionParams{AddThingsToThingGroupParams: &AddThingsToThingGroupParams{ThingGroupNames: groups, OverrideDynamicGroups: action.OverrideDynamic}}
}

// checkActionRole looks at a role, which stands for what AWS IoT Device Defender may
// do, and is used for nothing here.
func checkActionRole(arn string) error {
	if isRoleARN(arn) {
		return nil
	}
	return imprint.Errorf(imprint.CodeInvalidRequest, "roleArn %q is not the ARN of an IAM role.", imprint.Excerpt(arn)).
		WithHint("Any role's ARN does, such as arn:aws:iam::000000000000:role/mitigation: the server needs no role.")
}

func (s *Service) createMitigationAction(ctx context.Context, caller awsapi.Caller, in *CreateMitigationActionInput) (*CreateMitigationActionOutput, error) {
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	wanted := imprint.MitigationAction{Tenant: tenant, Name: in.ActionName, ID: uuid.NewString(), RoleARN: in.RoleArn, CreatedAt: now, ModifiedAt: now}
	err = setMitigation(&wanted, in.ActionParams)
	if err == nil {
		err = checkActionRole(in.RoleArn)
	}
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*CreateMitigationActionOutput, error) {
		_, err := tx.MitigationAction(tenant, wanted.Name)
		if err == nil {
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "Mitigation action %s already exists.", wanted.Name).WithResource(wanted.Name, wanted.ARN())
		}
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return nil, fmt.Errorf("couldn't look for mitigation action %s: %w", wanted.Name, err)
		}
		present, _, err := tx.MitigationActions(tenant, "", imprint.Page{Limit: audit.MaxMitigationActions, Ascending: true})
		if err != nil {
			return nil, fmt.Errorf("couldn't read the mitigation actions: %w", err)
		}
		if len(present) >= audit.MaxMitigationActions {
			return nil, imprint.Errorf(imprint.CodeLimitExceeded, "An account has at most %d mitigation actions.", audit.MaxMitigationActions).WithHint("Delete one: aws iot delete-mitigation-action.")
		}
		err = tx.PutMitigationAction(wanted)
		if err != nil {
			return nil, fmt.Errorf("couldn't create mitigation action %s: %w", wanted.Name, err)
		}
		return &CreateMitigationActionOutput{ActionArn: wanted.ARN(), ActionId: wanted.ID}, putTags(tx, tenant, wanted.ARN(), in.Tags)
	})
}

func readMitigationAction(tx imprint.ReadTx, tenant imprint.Tenant, name string) (imprint.MitigationAction, error) {
	found, err := tx.MitigationAction(tenant, name)
	return found, explainNotFound(err, "Mitigation action", name)
}

func (s *Service) describeMitigationAction(ctx context.Context, caller awsapi.Caller, in *DescribeMitigationActionInput) (*DescribeMitigationActionOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeMitigationActionOutput, error) {
		found, err := readMitigationAction(tx, tenantOf(caller), in.ActionName)
		if err != nil {
			return nil, err
		}
		return &DescribeMitigationActionOutput{
			ActionName: found.Name, ActionType: MitigationActionType(found.Kind), ActionArn: found.ARN(), ActionId: found.ID, RoleArn: found.RoleARN,
			ActionParams: mitigationParams(found), CreationDate: found.CreatedAt, LastModifiedDate: found.ModifiedAt,
		}, nil
	})
}

// updateMitigationAction sets the members that the request has; the type stays. Tasks
// that have begun go on with the action as it was.
func (s *Service) updateMitigationAction(ctx context.Context, caller awsapi.Caller, in *UpdateMitigationActionInput) (*UpdateMitigationActionOutput, error) {
	if in.RoleArn != nil {
		err := checkActionRole(*in.RoleArn)
		if err != nil {
			return nil, err
		}
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateMitigationActionOutput, error) {
		found, err := readMitigationAction(tx, tenantOf(caller), in.ActionName)
		if err != nil {
			return nil, err
		}
		if in.ActionParams != nil {
			kind := found.Kind
			err = setMitigation(&found, in.ActionParams)
			if err != nil {
				return nil, err
			}
			if found.Kind != kind {
				return nil, imprint.Errorf(imprint.CodeInvalidRequest, "Mitigation action %s is %s and can't become %s.", found.Name, kind, found.Kind).WithHint("Create another action.")
			}
		}
		if in.RoleArn != nil {
			found.RoleARN = *in.RoleArn
		}
		found.ModifiedAt = now
		err = tx.PutMitigationAction(found)
		if err != nil {
			return nil, fmt.Errorf("couldn't change mitigation action %s: %w", found.Name, err)
		}
		return &UpdateMitigationActionOutput{ActionArn: found.ARN(), ActionId: found.ID}, nil
	})
}

// deleteMitigationAction says nothing of one that isn't there, as its errors at AWS.
func (s *Service) deleteMitigationAction(ctx context.Context, caller awsapi.Caller, in *DeleteMitigationActionInput) (*DeleteMitigationActionOutput, error) {
	action := imprint.MitigationAction{Tenant: tenantOf(caller), Name: in.ActionName}
	return update(ctx, s, func(tx imprint.Tx) (*DeleteMitigationActionOutput, error) {
		err := tx.DeleteTags(action.Tenant, action.ARN())
		if err != nil {
			return nil, fmt.Errorf("couldn't delete the tags of mitigation action %s: %w", action.Name, err)
		}
		return nil, tx.DeleteMitigationAction(action.Tenant, action.Name)
	})
}

func (s *Service) listMitigationActions(ctx context.Context, caller awsapi.Caller, in *ListMitigationActionsInput) (*ListMitigationActionsOutput, error) {
	var kind imprint.MitigationKind
	if in.ActionType != nil {
		kind = imprint.MitigationKind(*in.ActionType)
	}
	ascending := true
	return view(ctx, s, func(tx imprint.ReadTx) (*ListMitigationActionsOutput, error) {
		found, next, err := tx.MitigationActions(tenantOf(caller), kind, page(in.MaxResults, in.NextToken, &ascending))
		out := &ListMitigationActionsOutput{ActionIdentifiers: make([]MitigationActionIdentifier, 0, len(found)), NextToken: next}
		for _, action := range found {
			out.ActionIdentifiers = append(out.ActionIdentifiers, MitigationActionIdentifier{ActionName: action.Name, ActionArn: action.ARN(), CreationDate: action.CreatedAt})
		}
		return out, err
	})
}
