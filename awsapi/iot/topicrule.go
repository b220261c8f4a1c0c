package iot

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/rules"
	"github.com/imprint-iot/imprint/rulesql"
)

// topicRuleRoutes are the operations on topic rules (AWS IoT API reference,
// CreateTopicRule and its neighbours).
func (s *Service) topicRuleRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateTopicRule, s.createTopicRule),
		awsapi.Handle(ReplaceTopicRule, s.replaceTopicRule),
		awsapi.Handle(GetTopicRule, s.getTopicRule),
		awsapi.Handle(ListTopicRules, s.listTopicRules),
		awsapi.Handle(EnableTopicRule, s.enableTopicRule),
		awsapi.Handle(DisableTopicRule, s.disableTopicRule),
		awsapi.Handle(DeleteTopicRule, s.deleteTopicRule),
	}
}

// ruleFrom gives the rule of a request, checked.
func (s *Service) ruleFrom(caller awsapi.Caller, name string, payload *TopicRulePayload) (imprint.TopicRule, error) {
	parsed, err := imprint.ParseRuleName(name)
	if err != nil {
		return imprint.TopicRule{}, err
	}
	now := s.rooms.Clock()
	rule := imprint.TopicRule{
		Tenant: tenantOf(caller), Name: parsed, SQL: payload.Sql, SQLVersion: string(rulesql.Version20151008),
		Revision: uuid.NewString(), CreatedAt: now, ModifiedAt: now,
	}
	if payload.AwsIotSqlVersion != nil && *payload.AwsIotSqlVersion != "" {
		rule.SQLVersion = *payload.AwsIotSqlVersion
	}
	if payload.Description != nil {
		rule.Description = *payload.Description
	}
	rule.Disabled = payload.RuleDisabled != nil && *payload.RuleDisabled
	for n := range payload.Actions {
		action, err := ruleAction(&payload.Actions[n])
		if err != nil {
			return imprint.TopicRule{}, err
		}
		rule.Actions = append(rule.Actions, action)
	}
	if payload.ErrorAction != nil {
		action, err := ruleAction(payload.ErrorAction)
		if err != nil {
			return imprint.TopicRule{}, err
		}
		rule.ErrorAction = &action
	}
	filter, err := rules.Check(rule, s.rooms.RuleActions)
	if err != nil {
		return imprint.TopicRule{}, err
	}
	rule.Filter = filter.Topic
	return rule, nil
}

// headerTags reads the tags of a header: the form of a URL's query.
func headerTags(text *string) ([]Tag, error) {
	if text == nil || *text == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(*text)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "x-amz-tagging isn't of the form key1=value1&key2=value2")
	}
	var tags []Tag
	for key, list := range values {
		for _, value := range list {
			if key == "" || len(key) > 128 || len(value) > 256 {
				return nil, imprint.Errorf(imprint.CodeInvalidRequest, "a tag's key must have 1 to 128 characters, its value at most 256")
			}
			tags = append(tags, Tag{Key: key, Value: &value})
		}
	}
	return tags, nil
}

func (s *Service) createTopicRule(ctx context.Context, caller awsapi.Caller, in *CreateTopicRuleInput) (*CreateTopicRuleOutput, error) {
	rule, err := s.ruleFrom(caller, in.RuleName, in.TopicRulePayload)
	if err != nil {
		return nil, err
	}
	tags, err := headerTags(in.Tags)
	if err != nil {
		return nil, err
	}
	_, err = s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*CreateTopicRuleOutput, error) {
		_, err := tx.TopicRule(rule.Tenant, rule.Name)
		switch {
		case err == nil:
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "Rule %s already exists", rule.Name).WithResource(string(rule.Name), rule.ARN())
		case imprint.CodeOf(err) != imprint.CodeNotFound:
			return nil, fmt.Errorf("couldn't read rule %s: %w", rule.Name, err)
		}
		present, _, err := tx.TopicRules(rule.Tenant, nil, imprint.Page{Limit: imprint.MaxRules, Ascending: true})
		if err != nil {
			return nil, fmt.Errorf("couldn't count the rules: %w", err)
		}
		if len(present) >= imprint.MaxRules {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "The account has %d rules, as many as allowed.", len(present))
		}
		err = putRule(tx, rule)
		if err != nil {
			return nil, err
		}
		return nil, putTags(tx, rule.Tenant, rule.ARN(), tags)
	})
}

// putRule stores a rule, and asks for the destinations that its http actions
// need and nobody has asked for.
func putRule(tx imprint.Tx, rule imprint.TopicRule) error {
	for _, action := range append(rule.Actions[:len(rule.Actions):len(rule.Actions)], errorActions(rule)...) {
		if action.Lambda != nil && !strings.Contains(action.Lambda.FunctionARN, "${") {
			err := checkOwnFunction(tx, rule.Tenant, action.Lambda.FunctionARN)
			if err != nil {
				return err
			}
		}
		if action.HTTP == nil {
			continue
		}
		address := action.HTTP.ConfirmationURL
		if address == "" {
			address = action.HTTP.URL
		}
		err := ensureDestination(tx, rule.Tenant, address, rule.ModifiedAt)
		if err != nil {
			return err
		}
	}
	err := tx.PutTopicRule(rule)
	if err != nil {
		return fmt.Errorf("couldn't store rule %s: %w", rule.Name, err)
	}
	return nil
}

func errorActions(rule imprint.TopicRule) []imprint.RuleAction {
	if rule.ErrorAction == nil {
		return nil
	}
	return []imprint.RuleAction{*rule.ErrorAction}
}

// readRule finds a rule. AWS IoT Core has no ResourceNotFoundException for
// rules: it denies access to one that doesn't exist.
func readRule(tx imprint.ReadTx, caller awsapi.Caller, text string) (imprint.TopicRule, error) {
	name, err := imprint.ParseRuleName(text)
	if err != nil {
		return imprint.TopicRule{}, err
	}
	rule, err := tx.TopicRule(tenantOf(caller), name)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return rule, imprint.Errorf(imprint.CodeUnauthorized, "Access to topic rule '%s' was denied", name)
	}
	if err != nil {
		return rule, fmt.Errorf("couldn't read rule %s: %w", name, err)
	}
	return rule, nil
}

func (s *Service) replaceTopicRule(ctx context.Context, caller awsapi.Caller, in *ReplaceTopicRuleInput) (*ReplaceTopicRuleOutput, error) {
	rule, err := s.ruleFrom(caller, in.RuleName, in.TopicRulePayload)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*ReplaceTopicRuleOutput, error) {
		present, err := readRule(tx, caller, in.RuleName)
		if err != nil {
			return nil, err
		}
		replaced := rule
		replaced.CreatedAt = present.CreatedAt
		return nil, putRule(tx, replaced)
	})
}

func (s *Service) getTopicRule(ctx context.Context, caller awsapi.Caller, in *GetTopicRuleInput) (*GetTopicRuleOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*GetTopicRuleOutput, error) {
		rule, err := readRule(tx, caller, in.RuleName)
		if err != nil {
			return nil, err
		}
		out := &TopicRule{
			RuleName: string(rule.Name), Sql: rule.SQL, Description: rule.Description, CreatedAt: rule.CreatedAt,
			Actions: make([]Action, 0, len(rule.Actions)), RuleDisabled: &rule.Disabled, AwsIotSqlVersion: rule.SQLVersion,
		}
		for n := range rule.Actions {
			out.Actions = append(out.Actions, apiAction(&rule.Actions[n]))
		}
		if rule.ErrorAction != nil {
			action := apiAction(rule.ErrorAction)
			out.ErrorAction = &action
		}
		return &GetTopicRuleOutput{RuleArn: rule.ARN(), Rule: out}, nil
	})
}

// listTopicRules lists by name. A topic selects the rules whose FROM takes it,
// a filter those that have just that FROM.
func (s *Service) listTopicRules(ctx context.Context, caller awsapi.Caller, in *ListTopicRulesInput) (*ListTopicRulesOutput, error) {
	keep := func(r *imprint.TopicRule) bool {
		if in.RuleDisabled != nil && r.Disabled != *in.RuleDisabled {
			return false
		}
		if in.Topic == nil || r.Filter == *in.Topic {
			return true
		}
		return r.Filter != "" && mqtt.ValidTopicName(*in.Topic) && mqtt.Match(r.Filter, *in.Topic)
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*ListTopicRulesOutput, error) {
		page := registryPage(in.MaxResults, in.NextToken)
		list, next, err := tx.TopicRules(tenantOf(caller), keep, page)
		if err != nil {
			return nil, fmt.Errorf("couldn't list rules: %w", err)
		}
		out := &ListTopicRulesOutput{Rules: make([]TopicRuleListItem, 0, len(list)), NextToken: next}
		for n := range list {
			r := &list[n]
			out.Rules = append(out.Rules, TopicRuleListItem{
				RuleArn: r.ARN(), RuleName: string(r.Name), TopicPattern: r.Filter, CreatedAt: r.CreatedAt, RuleDisabled: &r.Disabled,
			})
		}
		return out, nil
	})
}

func (s *Service) enableTopicRule(ctx context.Context, caller awsapi.Caller, in *EnableTopicRuleInput) (*EnableTopicRuleOutput, error) {
	return nil, s.switchRule(ctx, caller, in.RuleName, false)
}

func (s *Service) disableTopicRule(ctx context.Context, caller awsapi.Caller, in *DisableTopicRuleInput) (*DisableTopicRuleOutput, error) {
	return nil, s.switchRule(ctx, caller, in.RuleName, true)
}

func (s *Service) switchRule(ctx context.Context, caller awsapi.Caller, name string, disabled bool) error {
	now, revision := s.rooms.Clock(), uuid.NewString()
	return s.rooms.Store.Update(ctx, func(tx imprint.Tx) error {
		rule, err := readRule(tx, caller, name)
		if err != nil || rule.Disabled == disabled {
			return err
		}
		rule.Disabled, rule.ModifiedAt, rule.Revision = disabled, now, revision
		return tx.PutTopicRule(rule)
	})
}

// deleteTopicRule denies access to a rule that doesn't exist, as GetTopicRule
// does.
func (s *Service) deleteTopicRule(ctx context.Context, caller awsapi.Caller, in *DeleteTopicRuleInput) (*DeleteTopicRuleOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*DeleteTopicRuleOutput, error) {
		rule, err := readRule(tx, caller, in.RuleName)
		if err != nil {
			return nil, err
		}
		err = tx.DeleteTags(rule.Tenant, rule.ARN())
		if err != nil {
			return nil, fmt.Errorf("couldn't delete the tags of rule %s: %w", rule.Name, err)
		}
		err = tx.DeleteTopicRule(rule.Tenant, rule.Name)
		if err != nil {
			return nil, fmt.Errorf("couldn't delete rule %s: %w", rule.Name, err)
		}
		return nil, nil
	})
}
