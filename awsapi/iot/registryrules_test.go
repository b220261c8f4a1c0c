package iot_test

import (
	"context"
	"errors"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

const (
	allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`
	role     = "arn:aws:iam::000000000000:role/provisioning"
	lambda   = "arn:aws:lambda:us-east-1:000000000000:function:hook"
)

// operator is an SDK client of a tenant that a test has for itself. Its methods
// make what a rule needs and fail the test when that isn't possible.
type operator struct {
	*sdk.Client
	t      *testing.T
	server *iottest.Server
	tenant imprint.Tenant
}

func newOperator(t *testing.T, server *iottest.Server) *operator {
	t.Helper()
	tenant := server.NewTenant()
	return &operator{Client: server.Client(tenant), t: t, server: server, tenant: tenant}
}

// abroad is the same account in another region, which is another tenant.
func (o *operator) abroad() *operator {
	tenant := imprint.Tenant{Account: o.tenant.Account, Region: "eu-central-1"}
	return &operator{Client: o.server.Client(tenant), t: o.t, server: o.server, tenant: tenant}
}

func (o *operator) ctx() context.Context { return o.t.Context() }

func (o *operator) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatalf("got %v, want success", err)
	}
}

func (o *operator) thing(name string, attributes ...string) {
	o.t.Helper()
	in := &sdk.CreateThingInput{ThingName: &name}
	if len(attributes) > 0 {
		in.AttributePayload = payload(attributes...)
	}
	_, err := o.CreateThing(o.ctx(), in)
	o.must(err)
}

// payload makes attributes of names and values in turn.
func payload(pairs ...string) *types.AttributePayload {
	attributes := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		attributes[pairs[i]] = pairs[i+1]
	}
	return &types.AttributePayload{Attributes: attributes}
}

// certificate registers a device certificate and gives its ARN.
func (o *operator) certificate() *string {
	o.t.Helper()
	ca := iottest.NewCA(o.t, "Example CA")
	return o.register(ca.LeafPEM(o.t, "device"))
}

func (o *operator) register(pem string) *string {
	o.t.Helper()
	out, err := o.RegisterCertificateWithoutCA(o.ctx(), &sdk.RegisterCertificateWithoutCAInput{
		CertificatePem: &pem, Status: types.CertificateStatusActive,
	})
	o.must(err)
	return out.CertificateArn
}

func (o *operator) policy(names ...string) {
	o.t.Helper()
	for _, name := range names {
		_, err := o.CreatePolicy(o.ctx(), &sdk.CreatePolicyInput{PolicyName: &name, PolicyDocument: new(allowAll)})
		o.must(err)
	}
}

func (o *operator) attachPolicy(target *string, names ...string) {
	o.t.Helper()
	for _, name := range names {
		_, err := o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: &name, Target: target})
		o.must(err)
	}
}

func (o *operator) attachThing(thing string, principal *string, kind types.ThingPrincipalType) error {
	_, err := o.AttachThingPrincipal(o.ctx(), &sdk.AttachThingPrincipalInput{ThingName: &thing, Principal: principal, ThingPrincipalType: kind})
	return err
}

// contents are all rows of a tenant that this half of the API writes.
type contents struct {
	Things           []imprint.Thing
	ThingAttachments []imprint.ThingAttachment
	Groups           []imprint.ThingGroup
	Types            []imprint.ThingType
	Billing          []imprint.BillingGroup
	Memberships      []imprint.ThingGroupMembership
	Policies         []imprint.Policy
	Versions         []imprint.PolicyVersion
	Attachments      []imprint.PolicyAttachment
	Templates        []imprint.ProvisioningTemplate
	TemplateVersions []imprint.TemplateVersion
	Tags             []imprint.Tag
}

func (o *operator) contents() contents {
	o.t.Helper()
	var c contents
	o.server.View(o.t, func(tx imprint.ReadTx) error {
		c = contents{}
		return errors.Join(o.readThings(tx, &c), o.readGroups(tx, &c), o.readKinds(tx, &c), o.readPolicies(tx, &c), o.readTemplates(tx, &c))
	})
	return c
}

var everything = imprint.Page{Limit: 250, Ascending: true}

func (o *operator) readThings(tx imprint.ReadTx, c *contents) error {
	things, _, err := tx.Things(o.tenant, imprint.ThingFilter{}, everything)
	c.Things = things
	for _, thing := range things {
		attached, _, attachErr := tx.ThingPrincipals(o.tenant, thing.Name, everything)
		c.ThingAttachments = append(c.ThingAttachments, attached...)
		err = errors.Join(err, attachErr)
	}
	return err
}

func (o *operator) readGroups(tx imprint.ReadTx, c *contents) error {
	groups, _, err := tx.ThingGroups(o.tenant, imprint.ThingGroupFilter{Recursive: true}, everything)
	c.Groups = groups
	for _, g := range groups {
		members, _, memberErr := tx.ThingGroupMembers(o.tenant, g.Name, false, everything)
		tags, tagErr := tx.Tags(o.tenant, g.ARN())
		c.Memberships, c.Tags = append(c.Memberships, members...), append(c.Tags, tags...)
		err = errors.Join(err, memberErr, tagErr)
	}
	return err
}

func (o *operator) readKinds(tx imprint.ReadTx, c *contents) error {
	kinds, _, err := tx.ThingTypes(o.tenant, everything)
	c.Types = kinds
	for _, k := range kinds {
		tags, tagErr := tx.Tags(o.tenant, k.ARN())
		c.Tags = append(c.Tags, tags...)
		err = errors.Join(err, tagErr)
	}
	billing, _, billingErr := tx.BillingGroups(o.tenant, "", everything)
	c.Billing = billing
	for _, g := range billing {
		tags, tagErr := tx.Tags(o.tenant, g.ARN())
		c.Tags = append(c.Tags, tags...)
		err = errors.Join(err, tagErr)
	}
	return errors.Join(err, billingErr)
}

func (o *operator) readPolicies(tx imprint.ReadTx, c *contents) error {
	policies, _, err := tx.Policies(o.tenant, everything)
	c.Policies = policies
	for _, p := range policies {
		versions, versionErr := tx.PolicyVersions(o.tenant, p.Name)
		targets, _, targetErr := tx.PolicyTargets(o.tenant, p.Name, everything)
		tags, tagErr := tx.Tags(o.tenant, p.ARN())
		c.Versions, c.Attachments, c.Tags = append(c.Versions, versions...), append(c.Attachments, targets...), append(c.Tags, tags...)
		err = errors.Join(err, versionErr, targetErr, tagErr)
	}
	return err
}

func (o *operator) readTemplates(tx imprint.ReadTx, c *contents) error {
	templates, _, err := tx.Templates(o.tenant, everything)
	c.Templates = templates
	for _, t := range templates {
		versions, _, versionErr := tx.TemplateVersions(o.tenant, t.Name, everything)
		tags, tagErr := tx.Tags(o.tenant, t.ARN())
		c.TemplateVersions, c.Tags = append(c.TemplateVersions, versions...), append(c.Tags, tags...)
		err = errors.Join(err, versionErr, tagErr)
	}
	return err
}

// refusal is one rule by which a request is refused: given makes what the rule
// needs, do asks. After the refusal the tenant is as it was before.
type refusal struct {
	name   string
	given  func(o *operator)
	do     func(o *operator) error
	code   string
	status int
	text   string
}

func checkRefusals(t *testing.T, server *iottest.Server, rows []refusal) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := newOperator(t, server)
			if row.given != nil {
				row.given(o)
			}
			before := o.contents()
			server.Clock.Advance(1)
			iottest.WantRefusal(t, row.do(o), row.code, row.status, row.text)
			if diff := cmp.Diff(before, o.contents()); diff != "" {
				t.Errorf("the refused request changed something (-before +after):\n%s", diff)
			}
		})
	}
}

// rule is one rule of the API and the check that it holds.
type rule struct {
	name  string
	check func(t *testing.T, o *operator)
}

func checkRules(t *testing.T, server *iottest.Server, rows []rule) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.check(t, newOperator(t, server))
		})
	}
}

func want[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// refused is a request that must not succeed, without its output.
func refused[T any](_ T, err error) error { return err }
