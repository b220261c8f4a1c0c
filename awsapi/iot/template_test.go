package iot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

const (
	fleetBody = `{
  "Parameters": {"SerialNumber": {"Type": "String"}},
  "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "SerialNumber"}}},
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}}
  },
  "DeviceConfiguration": {"Interval": "60"}
}`
	jitpBody = `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"}},"Resources":{
"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}}},
"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`
)

func newTemplateInput(edits ...func(*sdk.CreateProvisioningTemplateInput)) *sdk.CreateProvisioningTemplateInput {
	in := &sdk.CreateProvisioningTemplateInput{TemplateName: new("t"), TemplateBody: new(fleetBody), ProvisioningRoleArn: new(role)}
	for _, edit := range edits {
		edit(in)
	}
	return in
}

func jitp(in *sdk.CreateProvisioningTemplateInput) {
	in.Type, in.TemplateBody = types.TemplateTypeJitp, new(jitpBody)
}

func hooked(in *sdk.CreateProvisioningTemplateInput) {
	in.PreProvisioningHook = &types.ProvisioningHook{TargetArn: new(lambda)}
}

// ownHook is hooked with a function of the tenant's.
func (o *operator) ownHook(in *sdk.CreateProvisioningTemplateInput) {
	in.PreProvisioningHook = &types.ProvisioningHook{TargetArn: new(o.tenant.FunctionARN("hook"))}
}

func (o *operator) template(edits ...func(*sdk.CreateProvisioningTemplateInput)) {
	o.t.Helper()
	o.must(refused(o.CreateProvisioningTemplate(o.ctx(), newTemplateInput(edits...))))
}

func (o *operator) describeTemplate() *sdk.DescribeProvisioningTemplateOutput {
	o.t.Helper()
	out, err := o.DescribeProvisioningTemplate(o.ctx(), &sdk.DescribeProvisioningTemplateInput{TemplateName: new("t")})
	o.must(err)
	return out
}

func (o *operator) updateTemplate(in *sdk.UpdateProvisioningTemplateInput) error {
	in.TemplateName = new("t")
	return refused(o.UpdateProvisioningTemplate(o.ctx(), in))
}

func (o *operator) templateVersion(body string, setAsDefault bool) (int32, error) {
	out, err := o.CreateProvisioningTemplateVersion(o.ctx(), &sdk.CreateProvisioningTemplateVersionInput{TemplateName: new("t"), TemplateBody: &body, SetAsDefault: setAsDefault})
	if err != nil {
		return 0, err
	}
	want(o.t, "default of a new version", out.IsDefaultVersion, setAsDefault)
	return *out.VersionId, nil
}

func (o *operator) newTemplateVersion(setAsDefault bool) int32 {
	o.t.Helper()
	id, err := o.templateVersion(fleetBody+"\n", setAsDefault)
	o.must(err)
	return id
}

func (o *operator) deleteTemplateVersion(id int32) error {
	return refused(o.DeleteProvisioningTemplateVersion(o.ctx(), &sdk.DeleteProvisioningTemplateVersionInput{TemplateName: new("t"), VersionId: &id}))
}

func (o *operator) deleteTemplate() error {
	return refused(o.DeleteProvisioningTemplate(o.ctx(), &sdk.DeleteProvisioningTemplateInput{TemplateName: new("t")}))
}

// templateVersions lists the ids, the default one with a star.
func (o *operator) templateVersions() []string {
	o.t.Helper()
	ids := []string{}
	pages := sdk.NewListProvisioningTemplateVersionsPaginator(o.Client, &sdk.ListProvisioningTemplateVersionsInput{TemplateName: new("t"), MaxResults: new(int32(2))})
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		for _, v := range out.Versions {
			ids = append(ids, fmt.Sprint(*v.VersionId)+map[bool]string{true: "*"}[v.IsDefaultVersion])
		}
	}
	return ids
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	checkRules(t, iottest.Start(t), []rule{
		{"a template is of fleet provisioning and disabled by default, with version 1", func(t *testing.T, o *operator) {
			made, err := o.CreateProvisioningTemplate(o.ctx(), newTemplateInput())
			o.must(err)
			arn := "arn:aws:iot:us-east-1:" + string(o.tenant.Account) + ":provisioningtemplate/t"
			want(t, "answer", []any{*made.TemplateArn, *made.TemplateName, *made.DefaultVersionId}, []any{arn, "t", int32(1)})
			got := o.describeTemplate()
			want(t, "template", []any{*got.TemplateArn, *got.TemplateBody, got.Type, *got.Enabled, *got.DefaultVersionId, *got.ProvisioningRoleArn, got.Description, got.PreProvisioningHook},
				[]any{arn, fleetBody, types.TemplateTypeFleetProvisioning, false, int32(1), role, (*string)(nil), (*types.ProvisioningHook)(nil)})
		}},
		{"a hook has the documented payload version by default", func(t *testing.T, o *operator) {
			o.template(o.ownHook, func(in *sdk.CreateProvisioningTemplateInput) { in.Enabled, in.Description = new(true), new("line 1") })
			got := o.describeTemplate()
			want(t, "hook", []string{*got.PreProvisioningHook.PayloadVersion, *got.PreProvisioningHook.TargetArn}, []string{"2020-04-01", o.tenant.FunctionARN("hook")})
			want(t, "rest", []any{*got.Enabled, *got.Description}, []any{true, "line 1"})
		}},
		{"UpdateProvisioningTemplate changes what it names and nothing else", func(t *testing.T, o *operator) {
			o.template(o.ownHook)
			o.newTemplateVersion(false)
			before := o.contents().Templates[0]
			now := o.server.Clock.Advance(time.Second)
			other := role + "-2"
			o.must(o.updateTemplate(&sdk.UpdateProvisioningTemplateInput{Description: new("d"), Enabled: new(true), DefaultVersionId: new(int32(2)), ProvisioningRoleArn: &other}))
			wanted := before
			wanted.Description, wanted.Enabled, wanted.DefaultVersion, wanted.RoleARN = "d", true, 2, other
			after := o.contents().Templates[0]
			if after.ModifiedAt.Before(now) {
				t.Errorf("got modified at %v, want %v or later", after.ModifiedAt, now)
			}
			wanted.ModifiedAt = after.ModifiedAt
			want(t, "template", after, wanted)
			want(t, "body in force", *o.describeTemplate().TemplateBody, fleetBody+"\n")
			o.must(o.updateTemplate(&sdk.UpdateProvisioningTemplateInput{RemovePreProvisioningHook: new(true)}))
			want(t, "hook", o.describeTemplate().PreProvisioningHook, nil)
			o.must(o.updateTemplate(&sdk.UpdateProvisioningTemplateInput{PreProvisioningHook: &types.ProvisioningHook{TargetArn: new(o.tenant.FunctionARN("hook") + ":live"), PayloadVersion: new("2020-04-01")}}))
			want(t, "hook", *o.describeTemplate().PreProvisioningHook.TargetArn, o.tenant.FunctionARN("hook")+":live")
			want(t, "description", *o.describeTemplate().Description, "d")
		}},
		{"version ids are never used again, and the default one changes when asked", func(t *testing.T, o *operator) {
			o.template()
			want(t, "id", o.newTemplateVersion(false), 2)
			want(t, "id", o.newTemplateVersion(true), 3)
			o.must(o.deleteTemplateVersion(2))
			o.must(o.deleteTemplateVersion(1))
			want(t, "id", o.newTemplateVersion(false), 4)
			want(t, "id", o.newTemplateVersion(false), 5)
			o.must(o.deleteTemplateVersion(5))
			want(t, "id", o.newTemplateVersion(false), 6)
			want(t, "versions", o.templateVersions(), []string{"3*", "4", "6"})
			got, err := o.DescribeProvisioningTemplateVersion(o.ctx(), &sdk.DescribeProvisioningTemplateVersionInput{TemplateName: new("t"), VersionId: new(int32(4))})
			o.must(err)
			want(t, "version", []any{*got.VersionId, *got.TemplateBody, got.IsDefaultVersion, got.CreationDate != nil}, []any{int32(4), fleetBody + "\n", false, true})
		}},
		{"a version is parsed as the template's type demands", func(_ *testing.T, o *operator) {
			o.template(jitp)
			_, err := o.templateVersion(jitpBody+" ", false)
			o.must(err)
		}},
		{"templates are listed by name over all pages", func(t *testing.T, o *operator) {
			var all, found []string
			for i := range 5 {
				name := fmt.Sprintf("t%d", i)
				all = append(all, name+" JITP")
				o.template(jitp, func(in *sdk.CreateProvisioningTemplateInput) { in.TemplateName = &name })
			}
			pages := sdk.NewListProvisioningTemplatesPaginator(o.Client, &sdk.ListProvisioningTemplatesInput{MaxResults: new(int32(2))})
			for pages.HasMorePages() {
				out, err := pages.NextPage(o.ctx())
				o.must(err)
				for _, summary := range out.Templates {
					found = append(found, *summary.TemplateName+" "+string(summary.Type))
				}
			}
			want(t, "templates", found, all)
		}},
		{"DeleteProvisioningTemplate takes versions and tags along", func(t *testing.T, o *operator) {
			tags := func(in *sdk.CreateProvisioningTemplateInput) { in.Tags = []types.Tag{{Key: new("a"), Value: new("b")}} }
			o.template(tags)
			o.newTemplateVersion(true)
			want(t, "tags", o.contents().Tags, []imprint.Tag{{Key: "a", Value: "b"}})
			o.must(o.deleteTemplate())
			o.template()
			want(t, "versions of the next template of that name", o.templateVersions(), []string{"1*"})
			want(t, "tags of it", len(o.contents().Tags), 0)
		}},
		{"two regions with the same template name don't see each other", func(t *testing.T, o *operator) {
			abroad := o.abroad()
			o.template()
			abroad.template(jitp)
			o.must(o.deleteTemplate())
			want(t, "type abroad", abroad.describeTemplate().Type, types.TemplateTypeJitp)
		}},
		{"a second template of a name names the first in a typed error", func(t *testing.T, o *operator) {
			o.template()
			_, err := o.CreateProvisioningTemplate(o.ctx(), newTemplateInput())
			var exists *types.ResourceAlreadyExistsException
			if !errors.As(err, &exists) {
				t.Fatalf("got %v, want ResourceAlreadyExistsException", err)
			}
			want(t, "resource", []string{*exists.ResourceId, *exists.ResourceArn}, []string{"t", *o.describeTemplate().TemplateArn})
		}},
		{"a template that no CA names any more can be deleted", func(_ *testing.T, o *operator) {
			o.template(jitp)
			id := o.caFor("t")
			o.must(refused(o.UpdateCACertificate(o.ctx(), &sdk.UpdateCACertificateInput{CertificateId: &id, RemoveAutoRegistration: true})))
			o.must(o.deleteTemplate())
		}},
	})
}

// caFor registers a CA that provisions by a template.
func (o *operator) caFor(template string) string {
	o.t.Helper()
	out, err := o.RegisterCACertificate(o.ctx(), &sdk.RegisterCACertificateInput{
		CaCertificate: &iottest.NewCA(o.t, "Example CA").PEM, CertificateMode: types.CertificateModeSniOnly,
		SetAsActive: true, AllowAutoRegistration: true, RegistrationConfig: &types.RegistrationConfig{TemplateName: &template},
	})
	o.must(err)
	return *out.CertificateId
}

func TestTemplatesRefused(t *testing.T) {
	t.Parallel()
	const invalid, missing, conflict = "InvalidRequestException", "ResourceNotFoundException", "DeleteConflictException"
	create := func(edits ...func(*sdk.CreateProvisioningTemplateInput)) func(o *operator) error {
		return func(o *operator) error {
			return refused(o.CreateProvisioningTemplate(o.ctx(), newTemplateInput(edits...)))
		}
	}
	body := func(text string) func(*sdk.CreateProvisioningTemplateInput) {
		return func(in *sdk.CreateProvisioningTemplateInput) { in.TemplateBody = &text }
	}
	hook := func(target, version string) func(*sdk.CreateProvisioningTemplateInput) {
		return func(in *sdk.CreateProvisioningTemplateInput) {
			in.PreProvisioningHook = &types.ProvisioningHook{TargetArn: &target, PayloadVersion: &version}
		}
	}
	given := func(edits ...func(*sdk.CreateProvisioningTemplateInput)) func(o *operator) {
		return func(o *operator) { o.template(edits...) }
	}
	change := func(in sdk.UpdateProvisioningTemplateInput) func(o *operator) error {
		return func(o *operator) error {
			asked := in
			return o.updateTemplate(&asked)
		}
	}
	version := func(text string) func(o *operator) error {
		return func(o *operator) error {
			_, err := o.templateVersion(text, true)
			return err
		}
	}
	describe := func(o *operator) error {
		return refused(o.DescribeProvisioningTemplate(o.ctx(), &sdk.DescribeProvisioningTemplateInput{TemplateName: new("t")}))
	}
	describeVersion := func(id int32) func(o *operator) error {
		return func(o *operator) error {
			return refused(o.DescribeProvisioningTemplateVersion(o.ctx(), &sdk.DescribeProvisioningTemplateVersionInput{TemplateName: new("t"), VersionId: &id}))
		}
	}
	remove := func(o *operator) error { return o.deleteTemplate() }
	unresolved := strings.Replace(fleetBody, `{"Ref": "SerialNumber"}`, `{"Ref": "Serial"}`, 1)
	otherRole := func(in *sdk.CreateProvisioningTemplateInput) {
		in.ProvisioningRoleArn = new("arn:aws:iam::000000000000:user/provisioning")
	}
	checkRefusals(t, iottest.Start(t), []refusal{
		{"create with a name that there is", given(), create(), "ResourceAlreadyExistsException", 409, "Provisioning template t already exists."},
		{"create with what is no JSON", nil, create(body("{")), invalid, 400, "templateBody is not a valid template of type FLEET_PROVISIONING: line 1"},
		{"create without resources", nil, create(body("{}")), invalid, 400, "no Resources section"},
		{"create with an unknown reference", nil, create(body(unresolved)), invalid, 400, "line 4, column"},
		{"create with an unknown reference, by member", nil, create(body(unresolved)), invalid, 400, "Resources.thing.Properties.ThingName: Cannot resolve reference value: Serial"},
		{"create as JITP with another parameter", nil, create(jitp, body(fleetBody)), invalid, 400, "of type JITP"},
		{"create as JITP without a certificate", nil, create(jitp, body(`{"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x"}}}}`)), invalid, 400, "must have a certificate resource. Hint: add one of type AWS::IoT::Certificate"},
		{"create as JITP with a hook", nil, create(jitp, hooked), invalid, 400, "preProvisioningHook can't be given for a template of type JITP."},
		{"create with a hook that is no function", nil, create(hook("arn:aws:sns:us-east-1:000000000000:topic", "2020-04-01")), invalid, 400, "is not the ARN of a Lambda function."},
		{"create with a hook of another account", nil, create(hook(lambda, "2020-04-01")), invalid, 400, "The function " + lambda + " isn't one of account"},
		{"update to a hook of another account", given(), change(sdk.UpdateProvisioningTemplateInput{PreProvisioningHook: &types.ProvisioningHook{TargetArn: new(lambda)}}), invalid, 400, "isn't one of account"},
		{"create with a hook of an unknown payload version", nil, create(hook(lambda, "2021-01-01")), invalid, 400, "Use 2020-04-01"},
		{"create with a user for a role", nil, create(otherRole), invalid, 400, "is not the ARN of an IAM role."},
		{"create with an illegal name", nil, create(func(in *sdk.CreateProvisioningTemplateInput) { in.TemplateName = new("a b") }), invalid, 400, "templateName"},
		{"create with 10241 characters", nil, create(body(fleetBody + strings.Repeat(" ", 10241-len(fleetBody)))), invalid, 400, "10240"},
		{"create with a reserved tag", nil, create(func(in *sdk.CreateProvisioningTemplateInput) {
			in.Tags = []types.Tag{{Key: new("aws:x"), Value: new("1")}}
		}), invalid, 400, "aws:"},
		{"describe an unknown template", nil, describe, missing, 404, "Provisioning template t cannot be found."},
		{"update an unknown template", nil, change(sdk.UpdateProvisioningTemplateInput{Enabled: new(true)}), missing, 404, "Provisioning template t cannot be found."},
		{"update to an unknown version", given(), change(sdk.UpdateProvisioningTemplateInput{Enabled: new(true), DefaultVersionId: new(int32(2))}), missing, 404, "Version 2 of provisioning template t cannot be found."},
		{"update to a user for a role", given(), change(sdk.UpdateProvisioningTemplateInput{Enabled: new(true), ProvisioningRoleArn: new("arn:aws:iam::000000000000:user/x")}), invalid, 400, "is not the ARN of an IAM role."},
		{"update a hook and its removal", given(), change(sdk.UpdateProvisioningTemplateInput{RemovePreProvisioningHook: new(true), PreProvisioningHook: &types.ProvisioningHook{TargetArn: new(lambda)}}), invalid, 400, "can't be given together"},
		{"update a JITP template with a hook", given(jitp), change(sdk.UpdateProvisioningTemplateInput{PreProvisioningHook: &types.ProvisioningHook{TargetArn: new(lambda)}}), invalid, 400, "of type JITP"},
		{"delete an unknown template", nil, remove, missing, 404, "Provisioning template t cannot be found."},
		{"delete a template that a CA names", func(o *operator) { o.template(jitp); o.caFor("t") }, remove, conflict, 409, "is named by the registrationConfig of CA certificate"},
		{"a version of an unknown template", nil, version(fleetBody), missing, 404, "Provisioning template t cannot be found."},
		{"a version with an unknown reference", given(), version(unresolved), invalid, 400, "Cannot resolve reference value: Serial"},
		{"a fleet version of a JITP template", given(jitp), version(fleetBody), invalid, 400, "of type JITP"},
		{"a sixth version", func(o *operator) {
			o.template()
			for range 4 {
				o.newTemplateVersion(false)
			}
		}, version(fleetBody), "VersionsLimitExceededException", 409, "already has the maximum number of versions (5)"},
		{"describe an unknown version", given(), describeVersion(2), missing, 404, "Version 2 of provisioning template t cannot be found."},
		{"describe version -1", given(), describeVersion(-1), missing, 404, "Version -1 of provisioning template t cannot be found."},
		{"list the versions of an unknown template", nil, func(o *operator) error {
			return refused(o.ListProvisioningTemplateVersions(o.ctx(), &sdk.ListProvisioningTemplateVersionsInput{TemplateName: new("t")}))
		}, missing, 404, "Provisioning template t cannot be found."},
		{"delete the default version", func(o *operator) { o.template(); o.newTemplateVersion(true) }, func(o *operator) error { return o.deleteTemplateVersion(2) }, conflict, 409, "Version 2 is the default version"},
		{"delete an unknown version", given(), func(o *operator) error { return o.deleteTemplateVersion(2) }, missing, 404, "Version 2 of provisioning template t cannot be found."},
	})
}
