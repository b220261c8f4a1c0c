package iot_test

import (
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
	"github.com/imprint-iot/imprint/functions"
)

// TestRulesThatCantRunAreRefused ensures that no rule is taken whose action would
// fail for each message.
func TestRulesThatCantRunAreRefused(t *testing.T) {
	t.Parallel()
	create := func(action types.Action) func(o *operator) error {
		return func(o *operator) error {
			return refused(o.CreateTopicRule(o.ctx(), &sdk.CreateTopicRuleInput{RuleName: new("r"), TopicRulePayload: &types.TopicRulePayload{
				Sql: new("SELECT * FROM 'in'"), Actions: []types.Action{action},
			}}))
		}
	}
	lambda := func(arn string) types.Action { return types.Action{Lambda: &types.LambdaAction{FunctionArn: &arn}} }
	republish := func(topic string) types.Action {
		return types.Action{Republish: &types.RepublishAction{RoleArn: new("arn:aws:iam::000000000000:role/r"), Topic: &topic}}
	}
	const invalid, foreign = "InvalidRequestException", "arn:aws:lambda:us-east-1:999999999999:function:f"
	server := iottest.Start(t)
	checkRefusals(t, server, []refusal{
		{"a topic with #", nil, create(republish("a/#")), invalid, 400, "wildcard"},
		{"a topic with +", nil, create(republish("+/a")), invalid, 400, "wildcard"},
		{"a topic of a service that isn't here", nil, create(republish("$$aws/things/x/shadow/update")), invalid, 400, "republish"},
		{"such a topic with a substitution", nil, create(republish("$$aws/things/${topic(2)}/shadow/update")), invalid, 400, "republish"},
		{"a topic of fleet provisioning", nil, create(republish("$$aws/certificates/create/json")), invalid, 400, "republish"},
		{"a function of another account", nil, create(lambda(foreign)), invalid, 400, foreign},
		{"a rule that is replaced", func(o *operator) { o.must(create(republish("a"))(o)) }, func(o *operator) error {
			return refused(o.ReplaceTopicRule(o.ctx(), &sdk.ReplaceTopicRuleInput{RuleName: new("r"), TopicRulePayload: &types.TopicRulePayload{
				Sql: new("SELECT * FROM 'in'"), Actions: []types.Action{lambda(foreign)},
			}}))
		}, invalid, 400, foreign},
	})
	checkRules(t, server, []rule{
		{"the account's own function is taken, also before it is made", func(_ *testing.T, o *operator) {
			o.must(create(lambda(o.tenant.FunctionARN("f")))(o))
		}},
		{"topics with $ that are served, or may be, are taken", func(_ *testing.T, o *operator) {
			for _, topic := range []string{"$$aws/rules/other/a", "$$aws/${a}", "${a}/b", "$$aws/events/x", "a/$$b"} {
				o.must(create(republish(topic))(o))
				o.must(refused(o.DeleteTopicRule(o.ctx(), &sdk.DeleteTopicRuleInput{RuleName: new("r")})))
			}
		}},
		{"so is a function that is chosen for each message", func(_ *testing.T, o *operator) {
			o.must(create(lambda(strings.Replace(foreign, "999999999999", "${a}", 1)))(o))
		}},
		{"so is one that runs elsewhere for the account", func(_ *testing.T, o *operator) {
			o.server.Put(o.t, func(tx imprint.Tx) error {
				return tx.PutFunction(imprint.Function{Tenant: o.tenant, Name: "real", Version: imprint.LatestVersion, Runtime: functions.RuntimeRemote, Handler: foreign})
			})
			o.must(create(lambda(foreign))(o))
		}},
	})
}

// TestAnUnconfirmedDestinationFailsAfterADay ensures that its state says so, in every
// answer, and that its owner can be asked again.
func TestAnUnconfirmedDestinationFailsAfterADay(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	checkRules(t, server, []rule{{"a destination that nobody confirms", func(t *testing.T, o *operator) {
		made, err := o.CreateTopicRuleDestination(o.ctx(), &sdk.CreateTopicRuleDestinationInput{DestinationConfiguration: &types.TopicRuleDestinationConfiguration{
			HttpUrlConfiguration: &types.HttpUrlDestinationConfiguration{ConfirmationUrl: new("https://127.0.0.1:1/in")},
		}})
		o.must(err)
		arn := made.TopicRuleDestination.Arn
		check := func(want types.TopicRuleDestinationStatus, reason string) {
			t.Helper()
			got, err := o.GetTopicRuleDestination(o.ctx(), &sdk.GetTopicRuleDestinationInput{Arn: arn})
			o.must(err)
			list, err := o.ListTopicRuleDestinations(o.ctx(), &sdk.ListTopicRuleDestinationsInput{})
			o.must(err)
			one, all := got.TopicRuleDestination, list.DestinationSummaries
			if one.Status != want || !strings.Contains(*one.StatusReason, reason) || len(all) != 1 || all[0].Status != want || *all[0].StatusReason != *one.StatusReason {
				t.Errorf("got %s, %q and %+v, want %s, %q", one.Status, *one.StatusReason, all, want, reason)
			}
		}
		update := func(status types.TopicRuleDestinationStatus) error {
			return refused(o.UpdateTopicRuleDestination(o.ctx(), &sdk.UpdateTopicRuleDestinationInput{Arn: arn, Status: status}))
		}
		server.Clock.Advance(24*time.Hour - time.Minute)
		check(types.TopicRuleDestinationStatusInProgress, "Awaiting confirmation")
		server.Clock.Advance(time.Minute)
		check(types.TopicRuleDestinationStatusError, "timed out")
		iottest.WantRefusal(t, update(types.TopicRuleDestinationStatusEnabled), "InvalidRequestException", 400, "ERROR can't become ENABLED")
		o.must(update(types.TopicRuleDestinationStatusInProgress))
		check(types.TopicRuleDestinationStatusInProgress, "Awaiting confirmation")
	}}})
}
