package iot_test

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// TestWhatTerraformsProviderAsks makes the requests of Terraform's AWS provider (6, the aws_iot
// resources of it) in their order: what creates a resource, what reads it, and again after an
// update and after it is deleted by somebody else; and checks what the provider looks at in the
// answers. Absent where it was set, or there where it wasn't, is a difference that
// terraform plan would show for ever.
func TestWhatTerraformsProviderAsks(t *testing.T) {
	t.Parallel()
	checkRules(t, iottest.Start(t), []rule{
		{"policy", terraformPolicy},
		{"certificate", terraformCertificate},
		{"thing", terraformThing},
		{"thing type", terraformThingType},
		{"thing group", terraformThingGroup},
		{"billing group", terraformBillingGroup},
		{"provisioning template", terraformTemplate},
		{"topic rule", terraformTopicRule},
		{"CA certificate", terraformCA},
		{"event configurations", terraformEvents},
		{"data sources", terraformDataSources},
		{"resources that aren't offered", terraformAbsent},
	})
}

// tagged plays the tags of a resource: those of its creation, then one changed, one taken
// away and one more, as the provider does it: untag before tag.
func (o *operator) tagged(arn *string) {
	o.t.Helper()
	if arn == nil || *arn == "" {
		o.t.Fatal("the answer has no ARN")
	}
	read := func(what string, wanted map[string]string) {
		o.t.Helper()
		out, err := o.ListTagsForResource(o.ctx(), &sdk.ListTagsForResourceInput{ResourceArn: arn})
		o.must(err)
		got := map[string]string{}
		for _, tag := range out.Tags {
			got[*tag.Key] = *tag.Value
		}
		want(o.t, what, got, wanted)
	}
	read("tags after the creation", map[string]string{"a": "1", "b": "2"})
	o.must(refused(o.UntagResource(o.ctx(), &sdk.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"b"}})))
	o.must(refused(o.TagResource(o.ctx(), &sdk.TagResourceInput{ResourceArn: arn, Tags: tags("a", "1 changed", "c", "")})))
	read("tags after an update", map[string]string{"a": "1 changed", "c": ""})
}

// gone wants the one error that makes the provider take a resource out of its state.
func gone(t *testing.T, what string, err error) {
	t.Helper()
	var missing *types.ResourceNotFoundException
	if !errors.As(err, &missing) {
		t.Errorf("%s: got %v, want ResourceNotFoundException", what, err)
	}
}

func terraformPolicy(t *testing.T, o *operator) {
	document := func(action string) *string {
		return new(`{"Statement":[{"Action":["` + action + `"],"Effect":"Allow","Resource":"*"}],"Version":"2012-10-17"}`)
	}
	made, err := o.CreatePolicy(o.ctx(), &sdk.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: document("iot:Connect"), Tags: tags("a", "1", "b", "2")})
	o.must(err)
	read := func(version, action string) *sdk.GetPolicyOutput {
		t.Helper()
		got, err := o.GetPolicy(o.ctx(), &sdk.GetPolicyInput{PolicyName: made.PolicyName})
		o.must(err)
		want(t, "policy", []string{*got.PolicyName, *got.DefaultVersionId, *got.PolicyDocument}, []string{"p", version, *document(action)})
		return got
	}
	o.tagged(read("1", "iot:Connect").PolicyArn)
	for range 4 {
		o.must(refused(o.CreatePolicyVersion(o.ctx(), &sdk.CreatePolicyVersionInput{PolicyName: new("p"), PolicyDocument: document("iot:Publish"), SetAsDefault: true})))
	}
	// The sixth version: the provider deletes the lowest and tries again.
	var full *types.VersionsLimitExceededException
	_, err = o.CreatePolicyVersion(o.ctx(), &sdk.CreatePolicyVersionInput{PolicyName: new("p"), PolicyDocument: document("iot:*"), SetAsDefault: true})
	if !errors.As(err, &full) {
		t.Errorf("got %v, want VersionsLimitExceededException", err)
	}
	o.must(refused(o.DeletePolicyVersion(o.ctx(), &sdk.DeletePolicyVersionInput{PolicyName: new("p"), PolicyVersionId: new("1")})))
	o.must(refused(o.CreatePolicyVersion(o.ctx(), &sdk.CreatePolicyVersionInput{PolicyName: new("p"), PolicyDocument: document("iot:*"), SetAsDefault: true})))
	read("6", "iot:*")

	// aws_iot_policy_attachment, to a certificate and to a group.
	certificate := o.keys()
	group, err := o.CreateThingGroup(o.ctx(), &sdk.CreateThingGroupInput{ThingGroupName: new("g")})
	o.must(err)
	for _, target := range []*string{certificate.CertificateArn, group.ThingGroupArn} {
		o.must(refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new("p"), Target: target})))
		attached := func() []string {
			out, err := o.ListAttachedPolicies(o.ctx(), &sdk.ListAttachedPoliciesInput{Target: target, PageSize: new(int32(250)), Recursive: false})
			o.must(err)
			names := []string{}
			for _, p := range out.Policies {
				names = append(names, *p.PolicyName)
			}
			return names
		}
		want(t, "attached policies", attached(), []string{"p"})
		var conflict *types.DeleteConflictException
		if _, err := o.DeletePolicy(o.ctx(), &sdk.DeletePolicyInput{PolicyName: new("p")}); !errors.As(err, &conflict) {
			t.Errorf("deleting an attached policy: got %v, want DeleteConflictException, which the provider tries again", err)
		}
		for range 2 { // the second finds nothing to do
			o.must(refused(o.DetachPolicy(o.ctx(), &sdk.DetachPolicyInput{PolicyName: new("p"), Target: target})))
		}
		want(t, "attached policies", attached(), []string{})
	}

	versions, err := o.ListPolicyVersions(o.ctx(), &sdk.ListPolicyVersionsInput{PolicyName: new("p")})
	o.must(err)
	for _, v := range versions.PolicyVersions {
		if !v.IsDefaultVersion {
			o.must(refused(o.DeletePolicyVersion(o.ctx(), &sdk.DeletePolicyVersionInput{PolicyName: new("p"), PolicyVersionId: v.VersionId})))
		}
	}
	o.must(refused(o.DeletePolicy(o.ctx(), &sdk.DeletePolicyInput{PolicyName: new("p")})))
	gone(t, "reading a policy", refused(o.GetPolicy(o.ctx(), &sdk.GetPolicyInput{PolicyName: new("p")})))
	gone(t, "deleting it again", refused(o.ListPolicyVersions(o.ctx(), &sdk.ListPolicyVersionsInput{PolicyName: new("p")})))
	gone(t, "attaching it", refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new("p"), Target: certificate.CertificateArn})))
}

func (o *operator) keys() *sdk.CreateKeysAndCertificateOutput {
	o.t.Helper()
	out, err := o.CreateKeysAndCertificate(o.ctx(), &sdk.CreateKeysAndCertificateInput{SetAsActive: true})
	o.must(err)
	return out
}

func terraformCertificate(t *testing.T, o *operator) {
	made := o.keys()
	if made.KeyPair == nil || made.KeyPair.PrivateKey == nil || made.KeyPair.PublicKey == nil {
		t.Fatal("the answer has no keys")
	}
	leaf := iottest.NewCA(t, "factory").LeafPEM(t, "sensor-1")
	registered, err := o.RegisterCertificateWithoutCA(o.ctx(), &sdk.RegisterCertificateWithoutCAInput{CertificatePem: &leaf, Status: types.CertificateStatusActive})
	o.must(err)
	requested, err := o.CreateCertificateFromCsr(o.ctx(), &sdk.CreateCertificateFromCsrInput{CertificateSigningRequest: new(iottest.NewCSR(t, iottest.NewKey(t), pkix.Name{CommonName: "sensor-2"})), SetAsActive: true})
	o.must(err)
	for _, row := range []struct{ id, pem *string }{{made.CertificateId, made.CertificatePem}, {registered.CertificateId, &leaf}, {requested.CertificateId, requested.CertificatePem}} {
		read := func() (*types.CertificateDescription, error) {
			out, err := o.DescribeCertificate(o.ctx(), &sdk.DescribeCertificateInput{CertificateId: row.id})
			if err != nil {
				return nil, err
			}
			return out.CertificateDescription, nil
		}
		got, err := read()
		o.must(err)
		want(t, "status", got.Status, types.CertificateStatusActive)
		want(t, "certificate_pem, which forces another certificate where it differs", *got.CertificatePem, *row.pem)
		if got.CertificateArn == nil {
			t.Error("the certificate has no ARN")
		}
		// Off and on again, then off and away.
		for _, status := range []types.CertificateStatus{types.CertificateStatusInactive, types.CertificateStatusActive, types.CertificateStatusInactive} {
			o.must(refused(o.UpdateCertificate(o.ctx(), &sdk.UpdateCertificateInput{CertificateId: row.id, NewStatus: status})))
			got, err = read()
			o.must(err)
			want(t, "status", got.Status, status)
		}
		o.must(refused(o.DeleteCertificate(o.ctx(), &sdk.DeleteCertificateInput{CertificateId: row.id})))
		_, err = read()
		gone(t, "reading a certificate", err)
		gone(t, "switching it off", refused(o.UpdateCertificate(o.ctx(), &sdk.UpdateCertificateInput{CertificateId: row.id, NewStatus: types.CertificateStatusInactive})))
		gone(t, "deleting it again", refused(o.DeleteCertificate(o.ctx(), &sdk.DeleteCertificateInput{CertificateId: row.id})))
	}
}

func terraformThing(t *testing.T, o *operator) {
	o.kinds("k")
	_, err := o.CreateThing(o.ctx(), &sdk.CreateThingInput{ThingName: new("n"), AttributePayload: payload("a", "1"), ThingTypeName: new("k")})
	o.must(err)
	read := func() *sdk.DescribeThingOutput {
		t.Helper()
		got, err := o.DescribeThing(o.ctx(), &sdk.DescribeThingInput{ThingName: new("n")})
		o.must(err)
		if got.ThingArn == nil || *got.ThingName != "n" || *got.DefaultClientId != "n" {
			t.Errorf("got %+v", got)
		}
		return got
	}
	want(t, "attributes", read().Attributes, map[string]string{"a": "1"})
	o.must(refused(o.UpdateThing(o.ctx(), &sdk.UpdateThingInput{ThingName: new("n"), AttributePayload: payload("b", "2")})))
	want(t, "attributes", read().Attributes, map[string]string{"b": "2"})
	want(t, "type", *read().ThingTypeName, "k")
	o.must(refused(o.UpdateThing(o.ctx(), &sdk.UpdateThingInput{ThingName: new("n"), AttributePayload: payload(), RemoveThingType: true})))
	want(t, "attributes", len(read().Attributes), 0)
	want(t, "type", read().ThingTypeName, nil)

	// aws_iot_thing_group_membership
	o.must(refused(o.CreateThingGroup(o.ctx(), &sdk.CreateThingGroupInput{ThingGroupName: new("g")})))
	o.must(refused(o.AddThingToThingGroup(o.ctx(), &sdk.AddThingToThingGroupInput{ThingGroupName: new("g"), ThingName: new("n"), OverrideDynamicGroups: true})))
	groups := func() []string {
		t.Helper()
		out, err := o.ListThingGroupsForThing(o.ctx(), &sdk.ListThingGroupsForThingInput{ThingName: new("n")})
		o.must(err)
		names := []string{}
		for _, g := range out.ThingGroups {
			names = append(names, *g.GroupName)
		}
		return names
	}
	want(t, "groups", groups(), []string{"g"})
	for range 2 {
		o.must(refused(o.RemoveThingFromThingGroup(o.ctx(), &sdk.RemoveThingFromThingGroupInput{ThingGroupName: new("g"), ThingName: new("n")})))
	}
	want(t, "groups", groups(), []string{})

	// aws_iot_thing_principal_attachment
	principal := o.keys().CertificateArn
	for _, kind := range []types.ThingPrincipalType{"", types.ThingPrincipalTypeExclusiveThing} {
		o.must(refused(o.AttachThingPrincipal(o.ctx(), &sdk.AttachThingPrincipalInput{ThingName: new("n"), Principal: principal, ThingPrincipalType: kind})))
		out, err := o.ListThingPrincipalsV2(o.ctx(), &sdk.ListThingPrincipalsV2Input{ThingName: new("n")})
		o.must(err)
		if kind == "" {
			kind = types.ThingPrincipalTypeNonExclusiveThing
		}
		if len(out.ThingPrincipalObjects) != 1 || *out.ThingPrincipalObjects[0].Principal != *principal || out.ThingPrincipalObjects[0].ThingPrincipalType != kind {
			t.Errorf("got the principals %+v, want one that is %s", out.ThingPrincipalObjects, kind)
		}
		o.must(refused(o.DetachThingPrincipal(o.ctx(), &sdk.DetachThingPrincipalInput{ThingName: new("n"), Principal: principal})))
	}

	for range 2 {
		o.must(refused(o.DeleteThing(o.ctx(), &sdk.DeleteThingInput{ThingName: new("n")})))
	}
	gone(t, "reading a thing", refused(o.DescribeThing(o.ctx(), &sdk.DescribeThingInput{ThingName: new("n")})))
	gone(t, "reading its groups", refused(o.ListThingGroupsForThing(o.ctx(), &sdk.ListThingGroupsForThingInput{ThingName: new("n")})))
	gone(t, "reading its principals", refused(o.ListThingPrincipalsV2(o.ctx(), &sdk.ListThingPrincipalsV2Input{ThingName: new("n")})))
	gone(t, "leaving a group", refused(o.RemoveThingFromThingGroup(o.ctx(), &sdk.RemoveThingFromThingGroupInput{ThingGroupName: new("g"), ThingName: new("n")})))
	gone(t, "letting a certificate go", refused(o.DetachThingPrincipal(o.ctx(), &sdk.DetachThingPrincipalInput{ThingName: new("n"), Principal: principal})))
}

func terraformThingType(t *testing.T, o *operator) {
	_, err := o.CreateThingType(o.ctx(), &sdk.CreateThingTypeInput{ThingTypeName: new("k"), Tags: tags("a", "1", "b", "2"),
		ThingTypeProperties: &types.ThingTypeProperties{ThingTypeDescription: new("d"), SearchableAttributes: []string{"x", "y"}}})
	o.must(err)
	read := func() *sdk.DescribeThingTypeOutput {
		t.Helper()
		out, err := o.DescribeThingType(o.ctx(), &sdk.DescribeThingTypeInput{ThingTypeName: new("k")})
		o.must(err)
		return out
	}
	got := read()
	o.tagged(got.ThingTypeArn)
	want(t, "properties", []any{*got.ThingTypeProperties.ThingTypeDescription, got.ThingTypeProperties.SearchableAttributes, got.ThingTypeMetadata.Deprecated},
		[]any{"d", []string{"x", "y"}, false})
	for _, deprecated := range []bool{true, false, true} {
		o.must(refused(o.DeprecateThingType(o.ctx(), &sdk.DeprecateThingTypeInput{ThingTypeName: new("k"), UndoDeprecate: !deprecated})))
		want(t, "deprecated", read().ThingTypeMetadata.Deprecated, deprecated)
	}
	// terraform destroy deprecates, and tries to delete for as long as it is told so in these words.
	o.must(refused(o.DeprecateThingType(o.ctx(), &sdk.DeprecateThingTypeInput{ThingTypeName: new("k")})))
	remove := func() error {
		return refused(o.DeleteThingType(o.ctx(), &sdk.DeleteThingTypeInput{ThingTypeName: new("k")}))
	}
	iottest.WantRefusal(t, remove(), "InvalidRequestException", 400, "Please wait for 5 minutes after deprecation and then retry")
	o.server.Put(t, func(tx imprint.Tx) error {
		found, err := tx.ThingType(o.tenant, "k")
		if err != nil {
			return err
		}
		found.DeprecatedAt = o.server.Clock.Now().Add(-5 * time.Minute)
		return tx.PutThingType(found)
	})
	o.must(remove())
	gone(t, "reading a thing type", refused(o.DescribeThingType(o.ctx(), &sdk.DescribeThingTypeInput{ThingTypeName: new("k")})))
	gone(t, "deleting it again", remove())
}

func terraformThingGroup(t *testing.T, o *operator) {
	o.must(refused(o.CreateThingGroup(o.ctx(), &sdk.CreateThingGroupInput{ThingGroupName: new("top")})))
	_, err := o.CreateThingGroup(o.ctx(), &sdk.CreateThingGroupInput{ThingGroupName: new("g"), ParentGroupName: new("top"), Tags: tags("a", "1", "b", "2"),
		ThingGroupProperties: &types.ThingGroupProperties{ThingGroupDescription: new("d"), AttributePayload: payload("x", "1")}})
	o.must(err)
	read := func(name string) *sdk.DescribeThingGroupOutput {
		t.Helper()
		out, err := o.DescribeThingGroup(o.ctx(), &sdk.DescribeThingGroupInput{ThingGroupName: &name})
		o.must(err)
		return out
	}
	bare := read("top")
	if p := bare.ThingGroupProperties; bare.ThingGroupMetadata.ParentGroupName != nil || p != nil && (p.ThingGroupDescription != nil || p.AttributePayload != nil) {
		t.Errorf("a group without properties and parent has %+v, %+v", bare.ThingGroupProperties, bare.ThingGroupMetadata)
	}
	got := read("g")
	o.tagged(got.ThingGroupArn)
	want(t, "group", []any{*got.ThingGroupProperties.ThingGroupDescription, got.ThingGroupProperties.AttributePayload.Attributes, *got.ThingGroupMetadata.ParentGroupName, *got.ThingGroupMetadata.RootToParentThingGroups[0].GroupName},
		[]any{"d", map[string]string{"x": "1"}, "top", "top"})
	o.must(refused(o.UpdateThingGroup(o.ctx(), &sdk.UpdateThingGroupInput{ThingGroupName: new("g"), ExpectedVersion: &got.Version,
		ThingGroupProperties: &types.ThingGroupProperties{ThingGroupDescription: new("e"), AttributePayload: payload("y", "2")}})))
	got = read("g")
	want(t, "group", []any{*got.ThingGroupProperties.ThingGroupDescription, got.ThingGroupProperties.AttributePayload.Attributes}, []any{"e", map[string]string{"y": "2"}})
	// Without its properties block.
	o.must(refused(o.UpdateThingGroup(o.ctx(), &sdk.UpdateThingGroupInput{ThingGroupName: new("g"), ExpectedVersion: &got.Version,
		ThingGroupProperties: &types.ThingGroupProperties{AttributePayload: payload()}})))
	if got := read("g").ThingGroupProperties; got.AttributePayload != nil {
		t.Errorf("got the attributes %v of a group that lost them", got.AttributePayload.Attributes)
	}
	remove := func(name string) error {
		return refused(o.DeleteThingGroup(o.ctx(), &sdk.DeleteThingGroupInput{ThingGroupName: &name}))
	}
	iottest.WantRefusal(t, remove("top"), "InvalidRequestException", 400, "there are still child groups attached") // tried again
	o.must(remove("g"))
	o.must(remove("g"))
	gone(t, "reading a thing group", refused(o.DescribeThingGroup(o.ctx(), &sdk.DescribeThingGroupInput{ThingGroupName: new("g")})))
}

func terraformBillingGroup(t *testing.T, o *operator) {
	made, err := o.CreateBillingGroup(o.ctx(), &sdk.CreateBillingGroupInput{BillingGroupName: new("g"), Tags: tags("a", "1", "b", "2"),
		BillingGroupProperties: &types.BillingGroupProperties{BillingGroupDescription: new("d")}})
	o.must(err)
	read := func() *sdk.DescribeBillingGroupOutput {
		t.Helper()
		out, err := o.DescribeBillingGroup(o.ctx(), &sdk.DescribeBillingGroupInput{BillingGroupName: new("g")})
		o.must(err)
		return out
	}
	got := read()
	want(t, "billing group", []any{*got.BillingGroupName, *got.BillingGroupArn, *got.BillingGroupProperties.BillingGroupDescription, got.Version},
		[]any{"g", *made.BillingGroupArn, "d", int64(1)})
	if got.BillingGroupMetadata == nil || got.BillingGroupMetadata.CreationDate == nil {
		t.Errorf("got the metadata %+v, want a date", got.BillingGroupMetadata)
	}
	o.tagged(got.BillingGroupArn)
	updated, err := o.UpdateBillingGroup(o.ctx(), &sdk.UpdateBillingGroupInput{BillingGroupName: new("g"), ExpectedVersion: new(read().Version),
		BillingGroupProperties: &types.BillingGroupProperties{BillingGroupDescription: new("e")}})
	o.must(err)
	want(t, "version", updated.Version, read().Version)
	want(t, "description", *read().BillingGroupProperties.BillingGroupDescription, "e")
	for range 2 {
		o.must(refused(o.DeleteBillingGroup(o.ctx(), &sdk.DeleteBillingGroupInput{BillingGroupName: new("g"), ExpectedVersion: &updated.Version})))
	}
	gone(t, "reading a billing group", refused(o.DescribeBillingGroup(o.ctx(), &sdk.DescribeBillingGroupInput{BillingGroupName: new("g")})))
}

func terraformTemplate(t *testing.T, o *operator) {
	body := func(thing string) *string {
		return new(`{"Parameters":{"Serial":{"Type":"String"}},"Resources":{"` + thing + `":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Serial"}}}}}`)
	}
	role := new("arn:aws:iam::" + string(o.tenant.Account) + ":role/service-role/fleet")
	_, err := o.CreateProvisioningTemplate(o.ctx(), &sdk.CreateProvisioningTemplateInput{TemplateName: new("t"), Enabled: new(false),
		ProvisioningRoleArn: role, TemplateBody: body("thing"), Tags: tags("a", "1", "b", "2")})
	o.must(err)
	read := func() *sdk.DescribeProvisioningTemplateOutput {
		t.Helper()
		out, err := o.DescribeProvisioningTemplate(o.ctx(), &sdk.DescribeProvisioningTemplateInput{TemplateName: new("t")})
		o.must(err)
		return out
	}
	got := read()
	want(t, "template", []any{*got.TemplateName, *got.Enabled, *got.ProvisioningRoleArn, *got.TemplateBody, got.Type, *got.DefaultVersionId},
		[]any{"t", false, *role, *body("thing"), types.TemplateTypeFleetProvisioning, int32(1)})
	if got.PreProvisioningHook != nil || got.Description != nil && *got.Description != "" {
		t.Errorf("got the hook %+v and the description %q, which nobody set", got.PreProvisioningHook, *got.Description)
	}
	o.tagged(got.TemplateArn)
	o.must(refused(o.CreateProvisioningTemplateVersion(o.ctx(), &sdk.CreateProvisioningTemplateVersionInput{TemplateName: new("t"), TemplateBody: body("unit"), SetAsDefault: true})))
	function := new(o.tenant.FunctionARN("hook"))
	hook := &types.ProvisioningHook{PayloadVersion: new("2020-04-01"), TargetArn: function}
	for _, description := range []string{"", "d"} {
		o.must(refused(o.UpdateProvisioningTemplate(o.ctx(), &sdk.UpdateProvisioningTemplateInput{TemplateName: new("t"), Description: &description, Enabled: new(true),
			ProvisioningRoleArn: role, PreProvisioningHook: hook})))
	}
	got = read()
	want(t, "template", []any{*got.Description, *got.Enabled, *got.TemplateBody, *got.DefaultVersionId, *got.PreProvisioningHook.TargetArn, *got.PreProvisioningHook.PayloadVersion},
		[]any{"d", true, *body("unit"), int32(2), *function, "2020-04-01"})
	remove := func() error {
		return refused(o.DeleteProvisioningTemplate(o.ctx(), &sdk.DeleteProvisioningTemplateInput{TemplateName: new("t")}))
	}
	o.must(remove())
	gone(t, "reading a template", refused(o.DescribeProvisioningTemplate(o.ctx(), &sdk.DescribeProvisioningTemplateInput{TemplateName: new("t")})))
	gone(t, "deleting it again", remove())
}

func terraformTopicRule(t *testing.T, o *operator) {
	republish := func(topic string) *types.TopicRulePayload {
		action := types.Action{Republish: &types.RepublishAction{Qos: new(int32(1)), RoleArn: new("arn:aws:iam::000000000000:role/r"), Topic: &topic}}
		return &types.TopicRulePayload{
			Actions:     []types.Action{action, {Lambda: &types.LambdaAction{FunctionArn: new(o.tenant.FunctionARN("f"))}}},
			ErrorAction: &action, AwsIotSqlVersion: new("2016-03-23"), Description: new(""), RuleDisabled: new(true), Sql: new("SELECT * FROM 'in'"),
		}
	}
	list := func() []string {
		t.Helper()
		names := []string{}
		pages := sdk.NewListTopicRulesPaginator(o, &sdk.ListTopicRulesInput{})
		for pages.HasMorePages() {
			page, err := pages.NextPage(o.ctx())
			o.must(err)
			for _, r := range page.Rules {
				names = append(names, *r.RuleName)
			}
		}
		return names
	}
	read := func(name string) *sdk.GetTopicRuleOutput {
		t.Helper()
		if !slices.Contains(list(), name) { // it looks there first: GetTopicRule says Unauthorized of what isn't there
			t.Fatalf("rule %s isn't in the list", name)
		}
		out, err := o.GetTopicRule(o.ctx(), &sdk.GetTopicRuleInput{RuleName: &name})
		o.must(err)
		return out
	}
	o.must(refused(o.CreateTopicRule(o.ctx(), &sdk.CreateTopicRuleInput{RuleName: new("bare"), Tags: new(""), TopicRulePayload: republish("out")})))
	o.must(refused(o.CreateTopicRule(o.ctx(), &sdk.CreateTopicRuleInput{RuleName: new("r"), Tags: new("a=1&b=2"), TopicRulePayload: republish("out")})))
	out, err := o.ListTagsForResource(o.ctx(), &sdk.ListTagsForResourceInput{ResourceArn: read("bare").RuleArn})
	o.must(err)
	want(t, "tags", len(out.Tags), 0)
	got := read("r")
	o.tagged(got.RuleArn)
	rule := got.Rule
	if rule.Description != nil && *rule.Description != "" {
		t.Errorf("got the description %q", *rule.Description)
	}
	want(t, "rule", []any{*rule.RuleName, *rule.RuleDisabled, *rule.Sql, *rule.AwsIotSqlVersion, len(rule.Actions), *rule.Actions[0].Republish.Topic, *rule.Actions[0].Republish.Qos,
		*rule.Actions[1].Lambda.FunctionArn, *rule.ErrorAction.Republish.Topic},
		[]any{"r", true, "SELECT * FROM 'in'", "2016-03-23", 2, "out", int32(1), o.tenant.FunctionARN("f"), "out"})
	o.must(refused(o.ReplaceTopicRule(o.ctx(), &sdk.ReplaceTopicRuleInput{RuleName: new("r"), TopicRulePayload: republish("elsewhere")})))
	want(t, "topic", *read("r").Rule.Actions[0].Republish.Topic, "elsewhere")
	out, err = o.ListTagsForResource(o.ctx(), &sdk.ListTagsForResourceInput{ResourceArn: got.RuleArn})
	o.must(err)
	want(t, "tags of a replaced rule", len(out.Tags), 2)
	o.must(refused(o.DeleteTopicRule(o.ctx(), &sdk.DeleteTopicRuleInput{RuleName: new("r")})))
	want(t, "rules", list(), []string{"bare"})
}

func terraformCA(t *testing.T, o *operator) {
	authority := iottest.NewCA(t, "factory")
	code, err := o.GetRegistrationCode(o.ctx(), &sdk.GetRegistrationCodeInput{})
	o.must(err)
	proof := authority.LeafPEM(t, *code.RegistrationCode)
	made, err := o.RegisterCACertificate(o.ctx(), &sdk.RegisterCACertificateInput{CaCertificate: &authority.PEM, VerificationCertificate: &proof, AllowAutoRegistration: true,
		CertificateMode: types.CertificateModeDefault, SetAsActive: true, Tags: tags("a", "1", "b", "2")})
	o.must(err)
	read := func() *sdk.DescribeCACertificateOutput {
		t.Helper()
		out, err := o.DescribeCACertificate(o.ctx(), &sdk.DescribeCACertificateInput{CertificateId: made.CertificateId})
		o.must(err)
		return out
	}
	out := read()
	got := out.CertificateDescription
	o.tagged(got.CertificateArn)
	want(t, "CA", []any{got.Status, got.AutoRegistrationStatus, got.CertificateMode, *got.CertificatePem},
		[]any{types.CACertificateStatusActive, types.AutoRegistrationStatusEnable, types.CertificateModeDefault, authority.PEM})
	if out.RegistrationConfig != nil || got.Validity == nil || got.GenerationId == nil || got.CustomerVersion == nil {
		t.Errorf("got the registration config %+v, validity %+v, generation %v and version %v", out.RegistrationConfig, got.Validity, got.GenerationId, got.CustomerVersion)
	}
	// An update sends both switches, and what it has of the configuration.
	template := `{"Parameters":{"AWS::IoT::Certificate::Id":{"Type":"String"}},"Resources":{"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`
	role := "arn:aws:iam::000000000000:role/r"
	o.must(refused(o.UpdateCACertificate(o.ctx(), &sdk.UpdateCACertificateInput{CertificateId: made.CertificateId, NewStatus: types.CACertificateStatusActive,
		NewAutoRegistrationStatus: types.AutoRegistrationStatusDisable, RegistrationConfig: &types.RegistrationConfig{RoleArn: &role, TemplateBody: &template}})))
	out = read()
	want(t, "CA", []any{out.CertificateDescription.AutoRegistrationStatus, *out.RegistrationConfig.RoleArn, *out.RegistrationConfig.TemplateBody},
		[]any{types.AutoRegistrationStatusDisable, role, template})
	off := func() error {
		return refused(o.UpdateCACertificate(o.ctx(), &sdk.UpdateCACertificateInput{CertificateId: made.CertificateId, NewStatus: types.CACertificateStatusInactive}))
	}
	remove := func() error {
		return refused(o.DeleteCACertificate(o.ctx(), &sdk.DeleteCACertificateInput{CertificateId: made.CertificateId}))
	}
	o.must(off())
	o.must(remove())
	gone(t, "reading a CA", refused(o.DescribeCACertificate(o.ctx(), &sdk.DescribeCACertificateInput{CertificateId: made.CertificateId})))
	gone(t, "switching it off", off())
	gone(t, "deleting it again", remove())
}

func terraformEvents(t *testing.T, o *operator) {
	wanted := map[string]types.Configuration{}
	for _, kind := range types.EventType("").Values() {
		wanted[string(kind)] = types.Configuration{Enabled: kind == types.EventTypeThing}
	}
	o.must(refused(o.UpdateEventConfigurations(o.ctx(), &sdk.UpdateEventConfigurationsInput{EventConfigurations: wanted})))
	got, err := o.DescribeEventConfigurations(o.ctx(), &sdk.DescribeEventConfigurationsInput{})
	o.must(err)
	want(t, "switches, of which one more or less would be a difference", slices.Sorted(maps.Keys(got.EventConfigurations)), slices.Sorted(maps.Keys(wanted)))
	for kind, switched := range got.EventConfigurations {
		want(t, kind, switched.Enabled, wanted[kind].Enabled)
	}
}

func terraformDataSources(t *testing.T, o *operator) {
	code, err := o.GetRegistrationCode(o.ctx(), &sdk.GetRegistrationCodeInput{})
	o.must(err)
	want(t, "length of the registration code", len(*code.RegistrationCode), 64)
	for _, kind := range []*string{nil, new("iot:CredentialProvider"), new("iot:Data"), new("iot:Data-ATS"), new("iot:Jobs")} {
		got, err := o.DescribeEndpoint(o.ctx(), &sdk.DescribeEndpointInput{EndpointType: kind})
		o.must(err)
		if got.EndpointAddress == nil || *got.EndpointAddress == "" {
			t.Error("got no address")
		}
	}
}

// terraformAbsent ensures that terraform apply ends at once for what isn't offered, and says why.
func terraformAbsent(t *testing.T, o *operator) {
	subnet := &types.VpcDestinationConfiguration{RoleArn: new("arn:aws:iam::000000000000:role/r"), SubnetIds: []string{"subnet-1"}, VpcId: new("vpc-1")}
	for what, call := range map[string]func(context.Context) error{
		"CreateRoleAlias": func(ctx context.Context) error {
			return refused(o.CreateRoleAlias(ctx, &sdk.CreateRoleAliasInput{RoleAlias: new("r"), RoleArn: new("arn:aws:iam::000000000000:role/r")}))
		},
		"CreateAuthorizer": func(ctx context.Context) error {
			return refused(o.CreateAuthorizer(ctx, &sdk.CreateAuthorizerInput{AuthorizerName: new("a"), AuthorizerFunctionArn: new("arn:aws:lambda:us-east-1:000000000000:function:f")}))
		},
		"CreateDomainConfiguration": func(ctx context.Context) error {
			return refused(o.CreateDomainConfiguration(ctx, &sdk.CreateDomainConfigurationInput{DomainConfigurationName: new("d")}))
		},
		"SetV2LoggingOptions": func(ctx context.Context) error {
			return refused(o.SetV2LoggingOptions(ctx, &sdk.SetV2LoggingOptionsInput{DefaultLogLevel: types.LogLevelInfo}))
		},
		"UpdateIndexingConfiguration": func(ctx context.Context) error {
			return refused(o.UpdateIndexingConfiguration(ctx, &sdk.UpdateIndexingConfigurationInput{ThingIndexingConfiguration: &types.ThingIndexingConfiguration{ThingIndexingMode: types.ThingIndexingModeOff}}))
		},
		"CreateTopicRuleDestination": func(ctx context.Context) error {
			return refused(o.CreateTopicRuleDestination(ctx, &sdk.CreateTopicRuleDestinationInput{DestinationConfiguration: &types.TopicRuleDestinationConfiguration{VpcConfiguration: subnet}}))
		},
	} {
		got := iottest.RefusalOf(t, call(o.ctx()))
		want := iottest.Refusal{Code: "NotImplementedException", Status: 501, Message: what}
		switch what {
		case "CreateTopicRuleDestination":
			want = iottest.Refusal{Code: "InvalidRequestException", Status: 400, Message: "there are no VPCs here"}
		case "CreateAuthorizer":
			want = iottest.Refusal{Code: "UnknownOperationException", Status: 404, Message: "method POST and the path /authorizer/a: this server doesn't offer it"}
		}
		if got.Code != want.Code || got.Status != want.Status || !strings.Contains(got.Message, want.Message) {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
}
