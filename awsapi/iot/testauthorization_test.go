package iot_test

import (
	"fmt"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

func (o *operator) policyOf(name, statements string) {
	o.t.Helper()
	document := `{"Version":"2012-10-17","Statement":[` + strings.ReplaceAll(statements, "ARN", o.tenant.ARN("")) + `]}`
	_, err := o.CreatePolicy(o.ctx(), &sdk.CreatePolicyInput{PolicyName: &name, PolicyDocument: &document})
	o.must(err)
}

// ask is one authInfo; resources are given without the tenant's prefix.
func (o *operator) ask(action types.ActionType, resources ...string) types.AuthInfo {
	info := types.AuthInfo{ActionType: action}
	for _, r := range resources {
		info.Resources = append(info.Resources, o.tenant.ARN(r))
	}
	return info
}

// verdict renders a result: decision, then the policies that allow, deny and
// say nothing, then missing keys.
func verdict(r types.AuthResult) string {
	names := func(policies []types.Policy) string {
		var s []string
		for _, p := range policies {
			s = append(s, *p.PolicyName)
		}
		return strings.Join(s, ",")
	}
	return fmt.Sprintf("%s allow:%s deny:%s silent:%s missing:%s", r.AuthDecision, names(r.Allowed.Policies),
		names(r.Denied.ExplicitDeny.Policies), names(r.Denied.ImplicitDeny.Policies), strings.Join(r.MissingContextValues, ","))
}

func (o *operator) verdicts(in *sdk.TestAuthorizationInput) []string {
	o.t.Helper()
	out, err := o.TestAuthorization(o.ctx(), in)
	o.must(err)
	var all []string
	for i, r := range out.AuthResults {
		want(o.t, "echoed resources", r.AuthInfo.Resources, in.AuthInfos[i].Resources)
		all = append(all, verdict(r))
	}
	return all
}

func TestTestAuthorization(t *testing.T) {
	t.Parallel()
	const (
		connect = `{"Effect":"Allow","Action":"iot:Connect","Resource":"ARNclient/${iot:Connection.Thing.ThingName}"}`
		publish = `{"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"ARNtopic/a/*"},{"Effect":"Allow","Action":"iot:Subscribe","Resource":"ARNtopicfilter/a/*"}`
		secret  = `{"Effect":"Deny","Action":"iot:Publish","Resource":"ARNtopic/a/secret"}`
		site    = `{"Effect":"Allow","Action":"iot:Publish","Resource":"ARNtopic/${iot:Connection.Thing.Attributes[site]}/${iot:Certificate.Subject.CommonName}"}`
	)
	// Every rule has the thing sensor with a certificate of the common name
	// device, and the policies above, of which connect and publish are attached.
	given := func(o *operator, kind types.ThingPrincipalType) *string {
		o.thing("sensor", "site", "lab")
		cert := o.certificate()
		o.must(o.attachThing("sensor", cert, kind))
		for name, statements := range map[string]string{"connect": connect, "publish": publish, "secret": secret, "site": site} {
			o.policyOf(name, statements)
		}
		o.attachPolicy(cert, "connect", "publish")
		return cert
	}
	checkRules(t, iottest.Start(t), []rule{
		{"each authInfo gets its decision, in order", func(t *testing.T, o *operator) {
			cert := given(o, "")
			got := o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, ClientId: new("sensor"), AuthInfos: []types.AuthInfo{
				o.ask(types.ActionTypeConnect, "client/sensor"), o.ask(types.ActionTypeConnect, "client/other"),
				o.ask(types.ActionTypePublish, "topic/a/b"), o.ask(types.ActionTypePublish, "topic/b"),
				o.ask(types.ActionTypeSubscribe, "topicfilter/a/#"), o.ask(types.ActionTypeReceive, "topic/a/x"),
			}})
			want(t, "verdicts", got, []string{
				"ALLOWED allow:connect deny: silent: missing:", "IMPLICIT_DENY allow: deny: silent:connect,publish missing:",
				"ALLOWED allow:publish deny: silent: missing:", "IMPLICIT_DENY allow: deny: silent:connect,publish missing:",
				"ALLOWED allow:publish deny: silent: missing:", "ALLOWED allow:publish deny: silent: missing:",
			})
		}},
		{"an authInfo is allowed when all of its resources are", func(t *testing.T, o *operator) {
			cert := given(o, "")
			got := o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, AuthInfos: []types.AuthInfo{
				o.ask(types.ActionTypePublish, "topic/a/1", "topic/a/2"), o.ask(types.ActionTypePublish, "topic/a/1", "topic/b"),
			}})
			want(t, "verdicts", got, []string{"ALLOWED allow:publish deny: silent: missing:", "IMPLICIT_DENY allow:publish deny: silent:connect missing:"})
		}},
		{"an added policy's deny wins, a skipped policy's allow is gone, and nothing is stored", func(t *testing.T, o *operator) {
			cert := given(o, "")
			before := o.contents()
			ask := []types.AuthInfo{o.ask(types.ActionTypePublish, "topic/a/secret")}
			want(t, "added", o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, AuthInfos: ask, PolicyNamesToAdd: []string{"secret", "publish"}}),
				[]string{"EXPLICIT_DENY allow:publish deny:secret silent: missing:"})
			want(t, "skipped", o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, AuthInfos: ask, PolicyNamesToSkip: []string{"publish", "unknown"}}),
				[]string{"IMPLICIT_DENY allow: deny: silent:connect missing:"})
			want(t, "without a principal", o.verdicts(&sdk.TestAuthorizationInput{AuthInfos: ask, PolicyNamesToAdd: []string{"publish"}}),
				[]string{"ALLOWED allow:publish deny: silent: missing:"})
			want(t, "rows", o.contents(), before)
		}},
		{"variables come from the thing of the client id's name and from the certificate", func(t *testing.T, o *operator) {
			cert := given(o, "")
			ask := []types.AuthInfo{o.ask(types.ActionTypePublish, "topic/lab/device")}
			o.attachPolicy(cert, "site")
			want(t, "its client id", o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, ClientId: new("sensor"), AuthInfos: ask}),
				[]string{"ALLOWED allow:site deny: silent: missing:"})
			want(t, "another client id", o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, ClientId: new("other"), AuthInfos: ask}),
				[]string{"IMPLICIT_DENY allow: deny: silent:connect,publish,site missing:iot:Connection.Thing.Attributes[site]"})
			o.thing("stranger", "site", "lab")
			want(t, "a thing without the certificate", o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, ClientId: new("stranger"), AuthInfos: ask}),
				[]string{"IMPLICIT_DENY allow: deny: silent:connect,publish,site missing:iot:Connection.Thing.Attributes[site]"})
		}},
		{"an exclusive thing belongs to every client id", func(t *testing.T, o *operator) {
			cert := given(o, exclusive)
			o.attachPolicy(cert, "site")
			want(t, "no client id", o.verdicts(&sdk.TestAuthorizationInput{Principal: cert, AuthInfos: []types.AuthInfo{o.ask(types.ActionTypePublish, "topic/lab/device")}}),
				[]string{"ALLOWED allow:site deny: silent: missing:"})
		}},
	})
}

func TestTestAuthorizationRefused(t *testing.T) {
	t.Parallel()
	const invalid, missing = "InvalidRequestException", "ResourceNotFoundException"
	given := func(o *operator) {
		for i := range 11 {
			o.policy(fmt.Sprintf("p%d", i))
		}
	}
	test := func(change func(o *operator, in *sdk.TestAuthorizationInput)) func(o *operator) error {
		return func(o *operator) error {
			in := &sdk.TestAuthorizationInput{PolicyNamesToAdd: []string{"p0"}, AuthInfos: []types.AuthInfo{o.ask(types.ActionTypePublish, "topic/a")}}
			change(o, in)
			return refused(o.TestAuthorization(o.ctx(), in))
		}
	}
	resources := func(list ...string) func(o *operator) error {
		return test(func(_ *operator, in *sdk.TestAuthorizationInput) { in.AuthInfos[0].Resources = list })
	}
	many := make([]string, 101)
	for i := range many {
		many[i] = "arn:aws:iot:us-east-1:000000000000:topic/a"
	}
	checkRefusals(t, iottest.Start(t), []refusal{
		{"nobody", given, test(func(_ *operator, in *sdk.TestAuthorizationInput) { in.PolicyNamesToAdd = nil }), invalid, 400, "principal or policyNamesToAdd must be given."},
		{"a Cognito pool", given, test(func(_ *operator, in *sdk.TestAuthorizationInput) { in.CognitoIdentityPoolId = new(someIdentity) }), invalid, 400, "cognitoIdentityPoolId"},
		{"an unknown certificate", given, test(func(o *operator, in *sdk.TestAuthorizationInput) {
			in.Principal = new(o.tenant.ARN("cert/" + strings.Repeat("ab", 32)))
		}), missing, 404, "Certificate"},
		{"an unknown policy to add", given, test(func(_ *operator, in *sdk.TestAuthorizationInput) { in.PolicyNamesToAdd = []string{"x"} }), missing, 404, "Policy x cannot be found."},
		{"eleven policies to add", given, test(func(_ *operator, in *sdk.TestAuthorizationInput) {
			in.PolicyNamesToAdd = nil
			for i := range 11 {
				in.PolicyNamesToAdd = append(in.PolicyNamesToAdd, fmt.Sprintf("p%d", i))
			}
		}), "LimitExceededException", 410, "11 policies would be attached, at most 10"},
		{"no authInfos", given, test(func(_ *operator, in *sdk.TestAuthorizationInput) { in.AuthInfos = []types.AuthInfo{} }), invalid, 400, "authInfos"},
		{"eleven authInfos", given, test(func(o *operator, in *sdk.TestAuthorizationInput) {
			for range 10 {
				in.AuthInfos = append(in.AuthInfos, o.ask(types.ActionTypeConnect, "client/a"))
			}
		}), invalid, 400, "authInfos"},
		{"no action type", given, test(func(_ *operator, in *sdk.TestAuthorizationInput) { in.AuthInfos[0].ActionType = "" }), invalid, 400, "authInfos[0] has no actionType."},
		{"an unknown action type", given, test(func(_ *operator, in *sdk.TestAuthorizationInput) { in.AuthInfos[0].ActionType = "FLY" }), invalid, 400, "PUBLISH"},
		{"no resources", given, resources([]string{}...), invalid, 400, "resources"},
		{"101 resources", given, resources(many...), invalid, 400, "authInfos[0] has 101 resources, at most 100"},
		{"a topic that is no ARN", given, resources("a/b"), invalid, 400, "couldn't read a resource of authInfos[0]"},
		{"a topic of another region", given, resources("arn:aws:iot:eu-west-1:000000000000:topic/a"), invalid, 400, "belongs to 000000000000/eu-west-1"},
	})
}
