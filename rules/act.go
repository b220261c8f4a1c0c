package rules

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/pause"
)

// storeTries and storePause are how often the store is asked before an action
// counts as failed.
const (
	storeTries = 3
	storePause = 200 * time.Millisecond
)

// act hands what a rule selected to one action: to the functions' queue, the
// broker, or the outbox. It names the resource. Errors of the store are
// CodeInternal and CodeUnavailable.
func (e *Engine) act(ctx context.Context, u *run, a *action) (resource string, err error) {
	defer e.recovered(u, &err)
	switch a.kind {
	case ActionLambda:
		return e.invoke(ctx, u, a)
	case ActionRepublish:
		return e.republish(ctx, u, a)
	case ActionHTTP:
		return e.postLater(ctx, u, a)
	case ActionFirehose:
		return e.recordLater(ctx, u, a)
	}
	return e.produceLater(ctx, u, a)
}

// text gives a field of an action with its substitutions; "" for one that isn't
// there.
func (u *run) text(ctx context.Context, a *action, field string) (string, error) {
	sub := a.texts[field]
	if sub == nil {
		return "", nil
	}
	text, err := u.evaluation.Expand(ctx, sub)
	if err != nil {
		return "", imprint.Errorf(imprint.CodeRuleAction, "%s: %w", field, err)
	}
	return text, nil
}

// pairs gives names and values of an action.
func (u *run) pairs(ctx context.Context, a *action, count int) ([]imprint.RuleField, error) {
	var pairs []imprint.RuleField
	for n := range count {
		name, err := u.text(ctx, a, headerName(n))
		if err != nil {
			return nil, err
		}
		value, err := u.text(ctx, a, headerValue(n))
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, imprint.RuleField{Key: name, Value: value})
	}
	return pairs, nil
}

func headerName(n int) string  { return fieldHeader + strconv.Itoa(n) + ".key" }
func headerValue(n int) string { return fieldHeader + strconv.Itoa(n) + ".value" }

// again repeats what asks the store while the store fails.
func again(ctx context.Context, ask func() error) error {
	for n := 1; ; n++ {
		err := ask()
		code := imprint.CodeOf(err)
		if n == storeTries || code != imprint.CodeInternal && code != imprint.CodeUnavailable {
			return err
		}
		if !pause.For(ctx, storePause) {
			return err
		}
	}
}

// invoke is the lambda action: the function's asynchronous queue has the payload,
// nothing around it, when it returns.
func (e *Engine) invoke(ctx context.Context, u *run, a *action) (string, error) {
	arn, err := u.text(ctx, a, "functionArn")
	if err != nil {
		return a.record.Lambda.FunctionARN, err
	}
	if u.unchanged && len(u.payload) > 0 && !json.Valid(u.payload) {
		return arn, imprint.Errorf(imprint.CodeRuleAction, "the message isn't JSON, which a function must get").
			WithHint("Let the statement encode it: SELECT encode(*, 'base64') AS data FROM ...")
	}
	err = again(ctx, func() error {
		return e.opts.Functions.InvokeLater(ctx, imprint.FunctionCall{
			Tenant: u.tenant.name, ARN: arn, Payload: u.payload, Principal: servicePrincipal, SourceARN: u.rule.record.ARN(),
			AttemptID: u.message.AttemptID,
		})
	})
	if err == nil {
		e.count.of(ActionLambda).done.Add(1)
	}
	return arn, err
}

// The fields of a republished message's properties, and the values of the first.
const (
	fieldFormat        = "payloadFormatIndicator"
	fieldContentType   = "contentType"
	fieldResponseTopic = "responseTopic"
	fieldCorrelation   = "correlationData"
	fieldExpiry        = "messageExpiry"

	formatBytes = "UNSPECIFIED_BYTES"
	formatUTF8  = "UTF8_DATA"
)

// republish publishes the payload on another topic.
func (e *Engine) republish(ctx context.Context, u *run, a *action) (string, error) {
	record := a.record.Republish
	topic, err := u.text(ctx, a, fieldTopic)
	if err != nil {
		return record.Topic, err
	}
	properties, err := e.messageProperties(ctx, u, a)
	if err != nil {
		return topic, err
	}
	err = e.republisher.Republish(ctx, u.tenant.name, imprint.RuleMessage{
		Topic: topic, Payload: u.payload, QoS: byte(record.QoS), Properties: properties, Depth: u.message.Depth + 1,
	})
	if err != nil {
		// Nothing of it is owed by the store: a message that comes again wouldn't
		// help, as some subscribers may have it.
		return topic, imprint.Errorf(imprint.CodeRuleAction, "%w", err)
	}
	e.count.of(ActionRepublish).done.Add(1)
	return topic, nil
}

func (e *Engine) messageProperties(ctx context.Context, u *run, a *action) (imprint.RuleMessageProperties, error) {
	var p imprint.RuleMessageProperties
	headers := a.record.Republish.Headers
	if headers == nil {
		return p, nil
	}
	texts := map[string]string{}
	for _, field := range []string{fieldFormat, fieldContentType, fieldResponseTopic, fieldCorrelation, fieldExpiry} {
		text, err := u.text(ctx, a, field)
		if err != nil {
			return p, err
		}
		texts[field] = text
	}
	p.ContentType, p.ResponseTopic = texts[fieldContentType], texts[fieldResponseTopic]
	switch format := texts[fieldFormat]; format {
	case "":
	case formatBytes, "0":
		p.HasFormat = true
	case formatUTF8, "1":
		p.HasFormat, p.UTF8 = true, true
	default:
		return p, imprint.Errorf(imprint.CodeRuleAction, "payloadFormatIndicator is %q, and must be %s or %s", imprint.Excerpt(format), formatBytes, formatUTF8)
	}
	var err error
	p.Correlation, err = base64.StdEncoding.DecodeString(texts[fieldCorrelation])
	if err != nil {
		return p, imprint.Errorf(imprint.CodeRuleAction, "correlationData isn't base64: %w", err)
	}
	if expiry := texts[fieldExpiry]; expiry != "" {
		seconds, err := strconv.ParseUint(expiry, 10, 32)
		if err != nil {
			return p, imprint.Errorf(imprint.CodeRuleAction, "messageExpiry is %q, and must be a number of seconds", imprint.Excerpt(expiry))
		}
		p.HasExpiry, p.Expiry = true, uint32(seconds)
	}
	p.User, err = u.pairs(ctx, a, len(headers.UserProperties))
	return p, err
}

// registryData answers get_registry_data() as the API answers the operation.
func (e *Engine) registryData(ctx context.Context, t imprint.Tenant, operation, thing string) ([]byte, error) {
	name, err := imprint.ParseThingName(thing)
	if err != nil {
		return nil, err
	}
	var answer any
	err = e.store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.Thing(t, name)
		if err != nil {
			return err
		}
		if operation == "DescribeThing" {
			answer = describedThing(found)
			return nil
		}
		groups, _, err := tx.ThingMemberships(t, name, imprint.Page{Limit: maxGroups, Ascending: true})
		if err != nil {
			return err
		}
		type group struct {
			Name string `json:"groupName"`
			ARN  string `json:"groupArn"`
		}
		list := []group{}
		for _, g := range groups {
			list = append(list, group{string(g.Group), t.ThingGroupARN(g.Group)})
		}
		answer = map[string]any{"thingGroups": list}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't read thing %s: %w", name, err)
	}
	return json.Marshal(answer)
}

// maxGroups bounds the groups that get_registry_data() tells.
const maxGroups = 100

func describedThing(t imprint.Thing) any {
	attributes := t.Attributes
	if attributes == nil {
		attributes = map[string]string{}
	}
	return struct {
		ClientID   string            `json:"defaultClientId"`
		Name       string            `json:"thingName"`
		ID         string            `json:"thingId"`
		ARN        string            `json:"thingArn"`
		Type       string            `json:"thingTypeName,omitempty"`
		Attributes map[string]string `json:"attributes"`
		Version    int64             `json:"version"`
		Group      string            `json:"billingGroupName,omitempty"`
	}{string(t.Name), string(t.Name), t.ID, t.Tenant.ThingARN(t.Name), string(t.TypeName), attributes, t.Version, string(t.BillingGroup)}
}
