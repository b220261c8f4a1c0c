package iot_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"

	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

const someIdentity = "us-east-1:01234567-89ab-cdef-0123-456789abcdef"

func (o *operator) detachPolicy(target *string, name string) error {
	return refused(o.DetachPolicy(o.ctx(), &sdk.DetachPolicyInput{PolicyName: &name, Target: target}))
}

func (o *operator) attachedPolicies(target *string) []string {
	o.t.Helper()
	names := []string{}
	pages := sdk.NewListAttachedPoliciesPaginator(o.Client, &sdk.ListAttachedPoliciesInput{Target: target, PageSize: new(int32(2)), Recursive: true})
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		for _, p := range out.Policies {
			want(o.t, "ARN", *p.PolicyArn, fmt.Sprintf("arn:aws:iot:%s:%s:policy/%s", o.tenant.Region, o.tenant.Account, *p.PolicyName))
			names = append(names, *p.PolicyName)
		}
	}
	return names
}

func (o *operator) targets(name string) []string {
	o.t.Helper()
	targets := []string{}
	pages := sdk.NewListTargetsForPolicyPaginator(o.Client, &sdk.ListTargetsForPolicyInput{PolicyName: &name, PageSize: new(int32(2))})
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		targets = append(targets, out.Targets...)
	}
	return targets
}

func (o *operator) effective(in *sdk.GetEffectivePoliciesInput) []string {
	o.t.Helper()
	out, err := o.GetEffectivePolicies(o.ctx(), in)
	o.must(err)
	found := []string{}
	for _, p := range out.EffectivePolicies {
		found = append(found, *p.PolicyName+" "+*p.PolicyDocument)
	}
	return found
}

func TestPolicyAttachments(t *testing.T) {
	t.Parallel()
	checkRules(t, iottest.Start(t), []rule{
		{"an attachment is listed from both sides, over all pages", func(t *testing.T, o *operator) {
			all := []string{"a", "b", "c", "d", "e"}
			o.policy(all...)
			cert := o.certificate()
			o.attachPolicy(cert, all...)
			want(t, "policies", o.attachedPolicies(cert), all)
			targets := []string{*cert}
			for range 4 {
				other := o.certificate()
				o.attachPolicy(other, "a")
				targets = append(targets, *other)
			}
			slices.Sort(targets)
			want(t, "targets", o.targets("a"), targets)
			want(t, "targets of another policy", o.targets("b"), []string{*cert})
		}},
		{"attaching and detaching again change nothing", func(t *testing.T, o *operator) {
			o.policy("p", "q")
			cert := o.certificate()
			o.attachPolicy(cert, "p")
			before := o.contents()
			o.attachPolicy(cert, "p")
			want(t, "rows", o.contents(), before)
			o.must(o.detachPolicy(cert, "q"))
			want(t, "rows", o.contents(), before)
			o.must(o.detachPolicy(cert, "p"))
			o.must(o.detachPolicy(cert, "p"))
			want(t, "policies", o.attachedPolicies(cert), []string{})
		}},
		{"detaching an unknown policy or from an unknown target succeeds", func(_ *testing.T, o *operator) {
			o.must(o.detachPolicy(new(o.tenant.ThingGroupARN("unknown")), "p"))
			o.policy("p")
			cert := o.certificate()
			o.must(o.detachPolicy(cert, "unknown"))
			o.must(o.detachPolicy(new(o.tenant.ARN("cert/"+strings.Repeat("ab", 32))), "p"))
		}},
		{"a full certificate takes the repetition of an attachment", func(t *testing.T, o *operator) {
			cert := o.certificate()
			for i := range 10 {
				o.policy(fmt.Sprintf("p%d", i))
				o.attachPolicy(cert, fmt.Sprintf("p%d", i))
			}
			o.attachPolicy(cert, "p4")
			want(t, "policies", len(o.attachedPolicies(cert)), 10)
		}},
		{"the id in a target's ARN may be in upper case", func(t *testing.T, o *operator) {
			o.policy("p")
			cert := o.certificate()
			prefix, id, _ := strings.Cut(*cert, ":cert/")
			upper := new(prefix + ":cert/" + strings.ToUpper(id))
			o.attachPolicy(upper, "p")
			want(t, "targets", o.targets("p"), []string{*cert})
			o.must(o.detachPolicy(upper, "p"))
			want(t, "targets", o.targets("p"), []string{})
		}},
		{"the deprecated operations do the same", func(t *testing.T, o *operator) {
			o.policy("p", "q")
			cert := o.certificate()
			for _, name := range []string{"p", "q"} {
				//lint:ignore SA1019 clients in the field use it
				o.must(refused(o.AttachPrincipalPolicy(o.ctx(), &sdk.AttachPrincipalPolicyInput{PolicyName: &name, Principal: cert})))
			}
			want(t, "policies", o.attachedPolicies(cert), []string{"p", "q"})
			//lint:ignore SA1019 clients in the field use it
			policies, err := o.ListPrincipalPolicies(o.ctx(), &sdk.ListPrincipalPoliciesInput{Principal: cert, AscendingOrder: true})
			o.must(err)
			want(t, "policies", []string{*policies.Policies[0].PolicyName, *policies.Policies[1].PolicyName}, []string{"p", "q"})
			//lint:ignore SA1019 clients in the field use it
			principals, err := o.ListPolicyPrincipals(o.ctx(), &sdk.ListPolicyPrincipalsInput{PolicyName: new("q")})
			o.must(err)
			want(t, "principals", principals.Principals, []string{*cert})
			//lint:ignore SA1019 clients in the field use it
			o.must(refused(o.DetachPrincipalPolicy(o.ctx(), &sdk.DetachPrincipalPolicyInput{PolicyName: new("p"), Principal: cert})))
			want(t, "policies", o.attachedPolicies(cert), []string{"q"})
		}},
		{"GetEffectivePolicies gives the default documents of a certificate's policies, and none for a thing", func(t *testing.T, o *operator) {
			o.policy("p", "q", "r")
			cert := o.certificate()
			o.attachPolicy(cert, "q", "p")
			o.version(true)
			o.thing("sensor")
			both := []string{"p " + oddDocument, "q " + allowAll}
			want(t, "certificate", o.effective(&sdk.GetEffectivePoliciesInput{Principal: cert}), both)
			want(t, "both", o.effective(&sdk.GetEffectivePoliciesInput{Principal: cert, ThingName: new("sensor")}), both)
			want(t, "thing", o.effective(&sdk.GetEffectivePoliciesInput{ThingName: new("sensor")}), []string{})
		}},
		{"two regions with the same certificate and policy don't see each other", func(t *testing.T, o *operator) {
			abroad := o.abroad()
			pem := iottest.NewCA(t, "Example CA").LeafPEM(t, "device")
			here, there := o.register(pem), abroad.register(pem)
			o.policy("p")
			abroad.policy("p")
			o.attachPolicy(here, "p")
			want(t, "policies abroad", abroad.attachedPolicies(there), []string{})
			want(t, "targets abroad", abroad.targets("p"), []string{})
			abroad.attachPolicy(there, "p")
			o.must(o.detachPolicy(here, "p"))
			want(t, "policies abroad", abroad.attachedPolicies(there), []string{"p"})
		}},
	})
}

func TestPolicyAttachmentsRefused(t *testing.T) {
	t.Parallel()
	const invalid, missing = "InvalidRequestException", "ResourceNotFoundException"
	var rows []refusal
	unknown := "arn:aws:iot:us-east-1:ACCOUNT:cert/" + strings.Repeat("ab", 32)
	// Every row has policies p, attached to a certificate, and q.
	add := func(name string, do func(o *operator, cert *string) error, code string, status int, text string) {
		rows = append(rows, refusal{name: name, given: func(o *operator) {
			o.policy("p", "q")
			o.attachPolicy(o.certificate(), "p")
		}, do: func(o *operator) error { return do(o, &o.contents().Attachments[0].Target) }, code: code, status: status, text: text})
	}
	local := func(o *operator, target string) *string {
		return new(strings.ReplaceAll(target, "ACCOUNT", string(o.tenant.Account)))
	}
	bad := []struct {
		name, target, code string
		status             int
		text               string
	}{
		{"a Cognito identity", someIdentity, invalid, 400, "keeps no Cognito identities"},
		{"a thing group with an impossible name", "arn:aws:iot:us-east-1:ACCOUNT:thinggroup/a/b", invalid, 400, "does not match"},
		{"another account's thing group", "arn:aws:iot:us-east-1:999999999999:thinggroup/g", invalid, 400, "thinggroup/g"},
		{"a thing", "arn:aws:iot:us-east-1:ACCOUNT:thing/t", invalid, 400, "is not the ARN of a certificate"},
		{"another region's certificate", strings.Replace(unknown, "us-east-1", "eu-west-1", 1), invalid, 400, "eu-west-1"},
		{"what is no ARN", "sensor", invalid, 400, "is not an ARN"},
		{"an endless text", "arn:" + strings.Repeat("x", 5000), invalid, 400, "longer than 2048"},
	}
	for _, b := range bad {
		add("AttachPolicy to "+b.name, func(o *operator, _ *string) error {
			return refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new("p"), Target: local(o, b.target)}))
		}, b.code, b.status, b.text)
		add("DetachPolicy from "+b.name, func(o *operator, _ *string) error { return o.detachPolicy(local(o, b.target), "p") }, b.code, b.status, b.text)
		add("ListAttachedPolicies of "+b.name, func(o *operator, _ *string) error {
			return refused(o.ListAttachedPolicies(o.ctx(), &sdk.ListAttachedPoliciesInput{Target: local(o, b.target)}))
		}, b.code, b.status, b.text)
	}
	add("AttachPolicy of an unknown policy", func(o *operator, cert *string) error {
		return refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new("x"), Target: cert}))
	}, missing, 404, "Policy x cannot be found.")
	add("AttachPolicy to an unknown certificate", func(o *operator, _ *string) error {
		return refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new("p"), Target: local(o, unknown)}))
	}, missing, 404, "Certificate "+strings.Repeat("ab", 32)+" cannot be found.")
	add("ListAttachedPolicies of an unknown certificate", func(o *operator, _ *string) error {
		return refused(o.ListAttachedPolicies(o.ctx(), &sdk.ListAttachedPoliciesInput{Target: local(o, unknown)}))
	}, missing, 404, "cannot be found.")
	const group = "arn:aws:iot:us-east-1:ACCOUNT:thinggroup/g"
	add("AttachPolicy to an unknown thing group", func(o *operator, _ *string) error {
		return refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new("p"), Target: local(o, group)}))
	}, missing, 404, "Thing group g cannot be found.")
	add("ListAttachedPolicies of an unknown thing group", func(o *operator, _ *string) error {
		return refused(o.ListAttachedPolicies(o.ctx(), &sdk.ListAttachedPoliciesInput{Target: local(o, group)}))
	}, missing, 404, "Thing group g cannot be found.")
	add("GetEffectivePolicies of an unknown thing group", func(o *operator, _ *string) error {
		return refused(o.GetEffectivePolicies(o.ctx(), &sdk.GetEffectivePoliciesInput{Principal: local(o, group)}))
	}, missing, 404, "Thing group g cannot be found.")
	add("ListTargetsForPolicy of an unknown policy", func(o *operator, _ *string) error {
		return refused(o.ListTargetsForPolicy(o.ctx(), &sdk.ListTargetsForPolicyInput{PolicyName: new("x")}))
	}, missing, 404, "Policy x cannot be found.")
	add("DetachPrincipalPolicy of what isn't attached", func(o *operator, cert *string) error {
		//lint:ignore SA1019 clients in the field use it
		return refused(o.DetachPrincipalPolicy(o.ctx(), &sdk.DetachPrincipalPolicyInput{PolicyName: new("q"), Principal: cert}))
	}, missing, 404, "Policy q is not attached to certificate")
	add("DetachPrincipalPolicy of an unknown policy", func(o *operator, cert *string) error {
		//lint:ignore SA1019 clients in the field use it
		return refused(o.DetachPrincipalPolicy(o.ctx(), &sdk.DetachPrincipalPolicyInput{PolicyName: new("x"), Principal: cert}))
	}, missing, 404, "Policy x cannot be found.")
	add("ListPolicyPrincipals of an unknown policy", func(o *operator, _ *string) error {
		//lint:ignore SA1019 clients in the field use it
		return refused(o.ListPolicyPrincipals(o.ctx(), &sdk.ListPolicyPrincipalsInput{PolicyName: new("x")}))
	}, missing, 404, "Policy x cannot be found.")
	add("GetEffectivePolicies of nobody", func(o *operator, _ *string) error {
		return refused(o.GetEffectivePolicies(o.ctx(), &sdk.GetEffectivePoliciesInput{}))
	}, invalid, 400, "principal or thingName must be given.")
	add("GetEffectivePolicies of a Cognito pool", func(o *operator, _ *string) error {
		return refused(o.GetEffectivePolicies(o.ctx(), &sdk.GetEffectivePoliciesInput{CognitoIdentityPoolId: new(someIdentity)}))
	}, invalid, 400, "cognitoIdentityPoolId")
	add("GetEffectivePolicies of an unknown thing", func(o *operator, cert *string) error {
		return refused(o.GetEffectivePolicies(o.ctx(), &sdk.GetEffectivePoliciesInput{Principal: cert, ThingName: new("nobody")}))
	}, missing, 404, "Thing nobody cannot be found.")
	rows = append(rows, refusal{"AttachPolicy of the eleventh policy", func(o *operator) {
		cert := o.certificate()
		for i := range 10 {
			o.policy(fmt.Sprintf("p%d", i))
			o.attachPolicy(cert, fmt.Sprintf("p%d", i))
		}
		o.policy("q")
	}, func(o *operator) error {
		return refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new("q"), Target: &o.contents().Attachments[0].Target}))
	}, "LimitExceededException", 410, "maximum number of policies (10)"})
	checkRefusals(t, iottest.Start(t), rows)
}
