package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// TestAnAccountsHangingRuleHoldsUpNoOthersEvents ensures that events whose rule waits for a
// function that hangs hold up neither the events of another account, nor its rules.
func TestAnAccountsHangingRuleHoldsUpNoOthersEvents(t *testing.T) {
	need(t, "openssl", "aws", "bash")
	t.Parallel()
	s := startServer(t)
	one, two := s.twoAccounts(t)
	asked, release := make(chan struct{}, 1000), make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // before that nobody sees that the caller has left
		asked <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(hangs.Close)
	t.Cleanup(func() { close(release) })
	const calls = 12 // a rule gives each up after a while
	const call = `aws_lambda('arn:aws:lambda:us-east-1:000000000000:function:hangs', *)`
	s.as(t, one, t.TempDir(), "lambda create-function --function-name hangs --runtime imprint.webhook --handler "+hangs.URL+
		" --code '{}' --role arn:aws:iam::000000000000:role/x --environment 'Variables={IMPRINT_WEBHOOK_SECRET=a-long-random-secret}' --timeout 30 --query State")
	s.as(t, one, t.TempDir(), "lambda add-permission --function-name hangs --statement-id s --action lambda:InvokeFunction --principal iot.amazonaws.com --query Statement")
	rule := func(a tenancy, statement string) {
		must(a.api.CreateTopicRule(t.Context(), &iot.CreateTopicRuleInput{RuleName: aws.String("things"), TopicRulePayload: &types.TopicRulePayload{
			AwsIotSqlVersion: aws.String("2016-03-23"), Sql: aws.String(statement),
			Actions: []types.Action{{Republish: &types.RepublishAction{RoleArn: aws.String("arn:aws:iam::000000000000:role/r"), Topic: aws.String("seen"), Qos: aws.Int32(1)}}},
		}}))(t)
		switchEvents(t, a.api, "THING")
	}
	rule(one, "SELECT "+strings.Repeat(call+", ", calls-1)+call+" FROM '$aws/events/thing/#'")
	rule(two, "SELECT thingName FROM '$aws/events/thing/#'")
	watch := func(a tenancy) *wire {
		d := selfSigned(t, "watcher")
		a.register(t, d)
		w := s.connectAs(t, d, a.host, "watch")
		w.subscribe(at1("seen"))
		return w
	}
	held, free := watch(one), watch(two)

	for n := range 40 {
		must(one.api.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: aws.String(fmt.Sprintf("slow-%d", n))}))(t)
	}
	<-asked
	must(two.api.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: aws.String("quick")}))(t)
	free.expect(`{"thingName":"quick"}`)
	held.expectNothing()
}
