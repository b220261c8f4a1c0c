package iot_test

import (
	"fmt"
	"sync"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"

	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// together runs a request several times at once and gives how often each code
// came back; success has the empty code.
func together(t *testing.T, times int, do func(i int) error) map[string]int {
	t.Helper()
	errs := make([]error, times)
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range times {
		all.Go(func() {
			<-start
			errs[i] = do(i)
		})
	}
	close(start)
	all.Wait()
	codes := map[string]int{}
	for _, err := range errs {
		codes[iottest.RefusalOf(t, err).Code]++
	}
	return codes
}

func TestRulesHoldUnderConcurrentRequests(t *testing.T) {
	t.Parallel()
	const many = 16
	checkRules(t, iottest.Start(t), []rule{
		{"of updates with the same expected version one wins", func(t *testing.T, o *operator) {
			o.thing("sensor")
			got := together(t, many, func(i int) error {
				return o.updateThing(&sdk.UpdateThingInput{ExpectedVersion: new(int64(1)), AttributePayload: payload("by", fmt.Sprint(i))})
			})
			want(t, "answers", got, map[string]int{"": 1, "VersionConflictException": many - 1})
			want(t, "version", o.describeThing("sensor").Version, 2)
		}},
		{"of creations with different attributes one wins", func(t *testing.T, o *operator) {
			got := together(t, many, func(i int) error {
				return refused(o.CreateThing(o.ctx(), &sdk.CreateThingInput{ThingName: new("sensor"), AttributePayload: payload("by", fmt.Sprint(i))}))
			})
			want(t, "answers", got, map[string]int{"": 1, "ResourceAlreadyExistsException": many - 1})
		}},
		{"a certificate never has more than ten policies", func(t *testing.T, o *operator) {
			cert := o.certificate()
			for i := range many {
				o.policy(fmt.Sprintf("p%d", i))
			}
			got := together(t, many, func(i int) error {
				return refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new(fmt.Sprintf("p%d", i)), Target: cert}))
			})
			want(t, "answers", got, map[string]int{"": 10, "LimitExceededException": many - 10})
			want(t, "policies", len(o.attachedPolicies(cert)), 10)
		}},
		{"a thing group never has more than two policies", func(t *testing.T, o *operator) {
			group := o.group("g", "")
			for i := range many {
				o.policy(fmt.Sprintf("p%d", i))
			}
			got := together(t, many, func(i int) error {
				return refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new(fmt.Sprintf("p%d", i)), Target: group}))
			})
			want(t, "answers", got, map[string]int{"": 2, "LimitExceededException": many - 2})
		}},
		{"a thing never is in more than ten groups, nor in two of a hierarchy", func(t *testing.T, o *operator) {
			o.thing("sensor")
			for i := range many {
				o.group(fmt.Sprintf("g%d", i), "")
			}
			got := together(t, many, func(i int) error { return o.join("sensor", fmt.Sprintf("g%d", i)) })
			want(t, "answers", got, map[string]int{"": 10, "InvalidRequestException": many - 10})
			o.thing("other")
			o.group("below", "g0")
			got = together(t, 2, func(i int) error { return o.join("other", []string{"g0", "below"}[i]) })
			want(t, "answers", got, map[string]int{"": 1, "InvalidRequestException": 1})
		}},
		{"a group is either deleted or has one below it", func(t *testing.T, o *operator) {
			o.group("top", "")
			got := together(t, 2, func(i int) error {
				if i == 0 {
					return refused(o.DeleteThingGroup(o.ctx(), &sdk.DeleteThingGroupInput{ThingGroupName: new("top")}))
				}
				return refused(o.CreateThingGroup(o.ctx(), &sdk.CreateThingGroupInput{ThingGroupName: new("below"), ParentGroupName: new("top")}))
			})
			want(t, "successes", got[""], 1)
			want(t, "groups", len(o.contents().Groups)%2, 0)
		}},
		{"a certificate is exclusively attached to one thing", func(t *testing.T, o *operator) {
			cert := o.certificate()
			for i := range many {
				o.thing(fmt.Sprintf("t%d", i))
			}
			got := together(t, many, func(i int) error { return o.attachThing(fmt.Sprintf("t%d", i), cert, exclusive) })
			want(t, "answers", got, map[string]int{"": 1, "InvalidRequestException": many - 1})
			want(t, "things", len(o.things(cert, "")), 1)
		}},
		{"a policy never has more than five versions, and each its own id", func(t *testing.T, o *operator) {
			o.policy("p")
			got := together(t, many, func(int) error {
				return refused(o.CreatePolicyVersion(o.ctx(), &sdk.CreatePolicyVersionInput{PolicyName: new("p"), PolicyDocument: new(allowAll)}))
			})
			want(t, "answers", got, map[string]int{"": 4, "VersionsLimitExceededException": many - 4})
			want(t, "versions", o.versions(), []string{"5", "4", "3", "2", "1*"})
		}},
		{"a policy is either attached or deleted", func(t *testing.T, o *operator) {
			cert := o.certificate()
			o.policy("p")
			got := together(t, 2, func(i int) error {
				if i == 0 {
					return refused(o.DeletePolicy(o.ctx(), &sdk.DeletePolicyInput{PolicyName: new("p")}))
				}
				return refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new("p"), Target: cert}))
			})
			want(t, "successes", got[""], 1)
			c := o.contents()
			want(t, "attachments for each policy", len(c.Attachments), len(c.Policies))
			want(t, "policies that the certificate has", len(o.attachedPolicies(cert)), len(c.Policies))
		}},
		{"a thing is either attached or deleted", func(t *testing.T, o *operator) {
			cert := o.certificate()
			o.thing("sensor")
			got := together(t, 2, func(i int) error {
				if i == 0 {
					return refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: new("sensor")}))
				}
				return o.attachThing("sensor", cert, "")
			})
			want(t, "successes", got[""], 1)
			want(t, "things that the certificate has", len(o.things(cert, "")), len(o.contents().Things))
		}},
		{"a template never has more than five versions", func(t *testing.T, o *operator) {
			o.template()
			got := together(t, many, func(int) error { return refused(o.templateVersion(fleetBody, false)) })
			want(t, "answers", got, map[string]int{"": 4, "VersionsLimitExceededException": many - 4})
			want(t, "versions", o.templateVersions(), []string{"1*", "2", "3", "4", "5"})
		}},
	})
}
