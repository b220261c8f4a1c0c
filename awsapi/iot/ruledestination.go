package iot

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/rules"
)

// ruleDestinationRoutes are the operations on the destinations of http actions
// (AWS IoT API reference, CreateTopicRuleDestination and its neighbours).
func (s *Service) ruleDestinationRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateTopicRuleDestination, s.createRuleDestination),
		awsapi.HandleFor(GetTopicRuleDestination, func(c awsapi.Caller, in *GetTopicRuleDestinationInput) string { return destinationResource(c, in.Arn) }, s.getRuleDestination),
		awsapi.Handle(ListTopicRuleDestinations, s.listRuleDestinations),
		awsapi.HandleFor(UpdateTopicRuleDestination, func(c awsapi.Caller, in *UpdateTopicRuleDestinationInput) string {
			return destinationResource(c, in.Arn)
		}, s.updateRuleDestination),
		awsapi.HandleFor(DeleteTopicRuleDestination, func(c awsapi.Caller, in *DeleteTopicRuleDestinationInput) string {
			return destinationResource(c, in.Arn)
		}, s.deleteRuleDestination),
		awsapi.Handle(ConfirmTopicRuleDestination, s.confirmRuleDestination),
	}
}

// destinationResource is a destination's ARN in its one form, as identity policies see it;
// as it came when it is none.
func destinationResource(caller awsapi.Caller, arn string) string {
	owner, resource, err := imprint.ParseARN(arn)
	if err != nil || owner != tenantOf(caller) {
		return arn
	}
	return callerARN(caller, resource)
}

func (s *Service) createRuleDestination(ctx context.Context, caller awsapi.Caller, in *CreateTopicRuleDestinationInput) (*CreateTopicRuleDestinationOutput, error) {
	config := in.DestinationConfiguration
	switch {
	case (config.HttpUrlConfiguration == nil) == (config.VpcConfiguration == nil):
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a destination has either httpUrlConfiguration or vpcConfiguration")
	case config.VpcConfiguration != nil:
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "there are no VPCs here, so that a destination can't be in one").
			WithHint("The kafka action reaches its brokers without a destination: any ARN does in destinationArn.")
	}
	address := config.HttpUrlConfiguration.ConfirmationUrl
	err := rules.CheckURL(address)
	if err != nil {
		return nil, err
	}
	_, err = s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*CreateTopicRuleDestinationOutput, error) {
		present, err := destinationFor(tx, tenantOf(caller), address)
		if err != nil {
			return nil, err
		}
		if present != nil {
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "A destination for %s exists already.", imprint.Excerpt(address)).
				WithResource(present.ID, present.ARN())
		}
		d, err := rules.Ask(tx, imprint.RuleDestination{Tenant: tenantOf(caller), ID: uuid.NewString(), URL: address, CreatedAt: now}, now)
		if err != nil {
			return nil, err
		}
		return &CreateTopicRuleDestinationOutput{TopicRuleDestination: apiDestination(d, s.rooms.Clock())}, nil
	})
}

// destinationFor finds the destination of a URL, nil when there is none. Errors:
// CodeInvalidRequest when there are as many destinations as there may be.
func destinationFor(tx imprint.ReadTx, tenant imprint.Tenant, address string) (*imprint.RuleDestination, error) {
	list, _, err := tx.RuleDestinations(tenant, imprint.Page{Limit: imprint.MaxRuleDestinations, Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("couldn't read the destinations: %w", err)
	}
	for n := range list {
		if list[n].URL == address {
			return &list[n], nil
		}
	}
	if len(list) >= imprint.MaxRuleDestinations {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "The account has %d destinations, as many as allowed.", len(list))
	}
	return nil, nil
}

// ensureDestination asks for a destination unless there is one.
func ensureDestination(tx imprint.Tx, tenant imprint.Tenant, address string, now time.Time) error {
	present, err := destinationFor(tx, tenant, address)
	if err != nil || present != nil {
		return err
	}
	_, err = rules.Ask(tx, imprint.RuleDestination{Tenant: tenant, ID: uuid.NewString(), URL: address, CreatedAt: now}, now)
	return err
}

func apiDestination(d imprint.RuleDestination, now time.Time) *TopicRuleDestination {
	d = rules.AsOf(d, now)
	return &TopicRuleDestination{
		Arn: d.ARN(), Status: TopicRuleDestinationStatus(d.Status), CreatedAt: d.CreatedAt, LastUpdatedAt: d.ModifiedAt,
		StatusReason: d.StatusReason, HttpUrlProperties: &HttpUrlDestinationProperties{ConfirmationUrl: d.URL},
	}
}

// readDestination finds a destination by its ARN.
func readDestination(tx imprint.ReadTx, caller awsapi.Caller, arn string) (imprint.RuleDestination, error) {
	owner, resource, err := imprint.ParseARN(arn)
	if err != nil {
		return imprint.RuleDestination{}, err
	}
	id, found := strings.CutPrefix(resource, "ruledestination/http/")
	refusal := imprint.Errorf(imprint.CodeUnauthorized, "Access to topic rule destination '%s' was denied", imprint.Excerpt(arn))
	if !found || owner != tenantOf(caller) {
		return imprint.RuleDestination{}, refusal
	}
	d, err := tx.RuleDestination(owner, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return d, refusal
	}
	if err != nil {
		return d, fmt.Errorf("couldn't read destination %s: %w", id, err)
	}
	return d, nil
}

func (s *Service) getRuleDestination(ctx context.Context, caller awsapi.Caller, in *GetTopicRuleDestinationInput) (*GetTopicRuleDestinationOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*GetTopicRuleDestinationOutput, error) {
		d, err := readDestination(tx, caller, in.Arn)
		if err != nil {
			return nil, err
		}
		return &GetTopicRuleDestinationOutput{TopicRuleDestination: apiDestination(d, s.rooms.Clock())}, nil
	})
}

func (s *Service) listRuleDestinations(ctx context.Context, caller awsapi.Caller, in *ListTopicRuleDestinationsInput) (*ListTopicRuleDestinationsOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListTopicRuleDestinationsOutput, error) {
		list, next, err := tx.RuleDestinations(tenantOf(caller), registryPage(in.MaxResults, in.NextToken))
		if err != nil {
			return nil, fmt.Errorf("couldn't list destinations: %w", err)
		}
		out := &ListTopicRuleDestinationsOutput{DestinationSummaries: make([]TopicRuleDestinationSummary, 0, len(list)), NextToken: next}
		for _, d := range list {
			d = rules.AsOf(d, s.rooms.Clock())
			out.DestinationSummaries = append(out.DestinationSummaries, TopicRuleDestinationSummary{
				Arn: d.ARN(), Status: TopicRuleDestinationStatus(d.Status), CreatedAt: d.CreatedAt, LastUpdatedAt: d.ModifiedAt,
				StatusReason: d.StatusReason, HttpUrlSummary: &HttpUrlDestinationSummary{ConfirmationUrl: d.URL},
			})
		}
		return out, nil
	})
}

// updateRuleDestination switches a confirmed destination, or asks its owner anew.
func (s *Service) updateRuleDestination(ctx context.Context, caller awsapi.Caller, in *UpdateTopicRuleDestinationInput) (*UpdateTopicRuleDestinationOutput, error) {
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateTopicRuleDestinationOutput, error) {
		d, err := readDestination(tx, caller, in.Arn)
		if err != nil {
			return nil, err
		}
		d = rules.AsOf(d, now)
		wanted := imprint.RuleDestinationStatus(in.Status)
		switch {
		case wanted == imprint.RuleDestinationInProgress:
			_, err = rules.Ask(tx, d, now)
			return nil, err
		case wanted == d.Status:
			return nil, nil
		case wanted == imprint.RuleDestinationEnabled && d.Status == imprint.RuleDestinationDisabled,
			wanted == imprint.RuleDestinationDisabled && d.Status == imprint.RuleDestinationEnabled:
		default:
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "A destination that is %s can't become %s.", d.Status, wanted).
				WithHint("ENABLED follows from the owner's confirmation, which IN_PROGRESS asks for again, or from DISABLED; DISABLED follows from ENABLED.")
		}
		d.Status, d.StatusReason, d.ModifiedAt = wanted, "", now
		return nil, tx.PutRuleDestination(d)
	})
}

func (s *Service) deleteRuleDestination(ctx context.Context, caller awsapi.Caller, in *DeleteTopicRuleDestinationInput) (*DeleteTopicRuleDestinationOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*DeleteTopicRuleDestinationOutput, error) {
		d, err := readDestination(tx, caller, in.Arn)
		if err != nil {
			return nil, err
		}
		return nil, tx.DeleteRuleDestination(d.Tenant, d.ID)
	})
}

func (s *Service) confirmRuleDestination(ctx context.Context, caller awsapi.Caller, in *ConfirmTopicRuleDestinationInput) (*ConfirmTopicRuleDestinationOutput, error) {
	tenant, now := tenantOf(caller), s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*ConfirmTopicRuleDestinationOutput, error) {
		return nil, rules.Confirm(tx, &tenant, in.ConfirmationToken, now)
	})
}

// ConfirmDestination enables the destination of a token, whoever has it: it is
// what the enableUrl of a confirmation message does, without a signature. Errors:
// CodeUnauthorized.
func (s *Service) ConfirmDestination(ctx context.Context, token string) error {
	now := s.rooms.Clock()
	return s.rooms.Store.Update(ctx, func(tx imprint.Tx) error { return rules.Confirm(tx, nil, token, now) })
}
