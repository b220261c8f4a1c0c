package iot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

const oddDocument = "{\n\t\"Version\" : \"2012-10-17\",\n  \"Statement\":[{\"Effect\":\"Deny\",\"Action\":\"iot:*\",\"Resource\":\"*\"}]  }\n"

func (o *operator) getPolicy(name string) *sdk.GetPolicyOutput {
	o.t.Helper()
	out, err := o.GetPolicy(o.ctx(), &sdk.GetPolicyInput{PolicyName: &name})
	o.must(err)
	return out
}

// version adds a version to policy p and gives its id.
func (o *operator) version(setAsDefault bool) string {
	o.t.Helper()
	out, err := o.CreatePolicyVersion(o.ctx(), &sdk.CreatePolicyVersionInput{PolicyName: new("p"), PolicyDocument: new(oddDocument), SetAsDefault: setAsDefault})
	o.must(err)
	want(o.t, "document and default of a new version", []any{*out.PolicyDocument, out.IsDefaultVersion, *out.PolicyArn},
		[]any{oddDocument, setAsDefault, *o.getPolicy("p").PolicyArn})
	return *out.PolicyVersionId
}

func (o *operator) deleteVersion(id string) error {
	return refused(o.DeletePolicyVersion(o.ctx(), &sdk.DeletePolicyVersionInput{PolicyName: new("p"), PolicyVersionId: &id}))
}

func (o *operator) setDefault(id string) error {
	return refused(o.SetDefaultPolicyVersion(o.ctx(), &sdk.SetDefaultPolicyVersionInput{PolicyName: new("p"), PolicyVersionId: &id}))
}

// versions lists the ids of policy p, the default one with a star.
func (o *operator) versions() []string {
	o.t.Helper()
	out, err := o.ListPolicyVersions(o.ctx(), &sdk.ListPolicyVersionsInput{PolicyName: new("p")})
	o.must(err)
	ids := []string{}
	for _, v := range out.PolicyVersions {
		id := *v.VersionId
		if v.IsDefaultVersion {
			id += "*"
		}
		if v.CreateDate == nil {
			o.t.Errorf("version %s has no createDate", id)
		}
		ids = append(ids, id)
	}
	return ids
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	server := iottest.Start(t)
	checkRules(t, server, []rule{
		{"CreatePolicy makes version 1 and echoes the document byte for byte", func(t *testing.T, o *operator) {
			made, err := o.CreatePolicy(o.ctx(), &sdk.CreatePolicyInput{PolicyName: new("a+=,.@-Z"), PolicyDocument: new(oddDocument)})
			o.must(err)
			arn := "arn:aws:iot:us-east-1:" + string(o.tenant.Account) + ":policy/a+=,.@-Z"
			want(t, "answer", []string{*made.PolicyName, *made.PolicyArn, *made.PolicyDocument, *made.PolicyVersionId}, []string{"a+=,.@-Z", arn, oddDocument, "1"})
			got := o.getPolicy("a+=,.@-Z")
			want(t, "policy", []string{*got.PolicyName, *got.PolicyArn, *got.PolicyDocument, *got.DefaultVersionId}, []string{"a+=,.@-Z", arn, oddDocument, "1"})
			if got.CreationDate == nil || !got.CreationDate.Equal(*got.LastModifiedDate) || *got.GenerationId == "" {
				t.Errorf("got dates %v and %v, generation %q, want two equal ones and a generation", got.CreationDate, got.LastModifiedDate, *got.GenerationId)
			}
		}},
		{"CreatePolicy stores tags and DeletePolicy takes them along", func(t *testing.T, o *operator) {
			_, err := o.CreatePolicy(o.ctx(), &sdk.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(allowAll), Tags: []types.Tag{{Key: new("team"), Value: new("x")}}})
			o.must(err)
			out, err := o.ListTagsForResource(o.ctx(), &sdk.ListTagsForResourceInput{ResourceArn: o.getPolicy("p").PolicyArn})
			o.must(err)
			want(t, "tags", len(out.Tags), 1)
			o.must(refused(o.DeletePolicy(o.ctx(), &sdk.DeletePolicyInput{PolicyName: new("p")})))
			o.policy("p")
			want(t, "tags of the next policy of that name", len(o.contents().Tags), 0)
		}},
		{"a document may have 2048 characters beside any whitespace", func(_ *testing.T, o *operator) {
			filler := 2048 - len(strings.ReplaceAll(allowAll, `"*"`, `"arn:aws:iot:us-east-1:000000000000:topic/"`))
			long := strings.ReplaceAll(allowAll, `"*"`, `"arn:aws:iot:us-east-1:000000000000:topic/`+strings.Repeat("x", filler)+`"`) + strings.Repeat(" \n", 5000)
			_, err := o.CreatePolicy(o.ctx(), &sdk.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: &long})
			o.must(err)
		}},
		{"ListPolicies pages by name", func(t *testing.T, o *operator) {
			all := []string{"a", "b", "c", "d", "e"}
			o.policy(all...)
			var names []string
			pages := sdk.NewListPoliciesPaginator(o.Client, &sdk.ListPoliciesInput{PageSize: new(int32(2))})
			for pages.HasMorePages() {
				out, err := pages.NextPage(o.ctx())
				o.must(err)
				for _, p := range out.Policies {
					names = append(names, *p.PolicyName)
				}
			}
			want(t, "names", names, all)
		}},
		{"a new version is the default one only when asked for", func(t *testing.T, o *operator) {
			o.policy("p")
			before := o.getPolicy("p")
			o.server.Clock.Advance(time.Second)
			want(t, "id", o.version(false), "2")
			want(t, "versions", o.versions(), []string{"2", "1*"})
			want(t, "document in force", *o.getPolicy("p").PolicyDocument, allowAll)
			want(t, "id", o.version(true), "3")
			want(t, "versions", o.versions(), []string{"3*", "2", "1"})
			after := o.getPolicy("p")
			want(t, "document in force", *after.PolicyDocument, oddDocument)
			if *after.GenerationId == *before.GenerationId || !after.LastModifiedDate.After(*before.LastModifiedDate) {
				t.Errorf("generation and modification stayed %s and %v", *after.GenerationId, after.LastModifiedDate)
			}
		}},
		{"version ids are never used again", func(t *testing.T, o *operator) {
			o.policy("p")
			o.must(o.deleteVersion(o.version(false)))
			want(t, "id", o.version(false), "3")
			o.must(o.deleteVersion("3"))
			want(t, "id", o.version(true), "4")
			want(t, "versions", o.versions(), []string{"4*", "1"})
		}},
		{"GetPolicyVersion gives any version, SetDefaultPolicyVersion puts it in force", func(t *testing.T, o *operator) {
			o.policy("p")
			o.version(false)
			get := func() *sdk.GetPolicyVersionOutput {
				out, err := o.GetPolicyVersion(o.ctx(), &sdk.GetPolicyVersionInput{PolicyName: new("p"), PolicyVersionId: new("2")})
				o.must(err)
				return out
			}
			want(t, "version", []any{*get().PolicyDocument, *get().PolicyVersionId, get().IsDefaultVersion}, []any{oddDocument, "2", false})
			o.must(o.setDefault("2"))
			want(t, "version", []any{*get().PolicyDocument, *get().PolicyVersionId, get().IsDefaultVersion}, []any{oddDocument, "2", true})
			want(t, "default", *o.getPolicy("p").DefaultVersionId, "2")
			before := o.contents()
			o.must(o.setDefault("2"))
			want(t, "rows after the repetition", o.contents(), before)
		}},
		{"two regions with the same policy name don't see each other", func(t *testing.T, o *operator) {
			abroad := o.abroad()
			o.policy("p")
			abroad.policy("p")
			abroad.version(true)
			want(t, "versions here", o.versions(), []string{"1*"})
			o.must(refused(o.DeletePolicy(o.ctx(), &sdk.DeletePolicyInput{PolicyName: new("p")})))
			want(t, "versions abroad", abroad.versions(), []string{"2*", "1"})
		}},
		{"a second policy of a name names the first in a typed error", func(t *testing.T, o *operator) {
			o.policy("p")
			_, err := o.CreatePolicy(o.ctx(), &sdk.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(allowAll)})
			var exists *types.ResourceAlreadyExistsException
			if !errors.As(err, &exists) {
				t.Fatalf("got %v, want ResourceAlreadyExistsException", err)
			}
			want(t, "resource", []string{*exists.ResourceId, *exists.ResourceArn}, []string{"p", *o.getPolicy("p").PolicyArn})
		}},
	})
}

func TestPoliciesRefused(t *testing.T) {
	t.Parallel()
	const invalid, missing, malformed, conflict = "InvalidRequestException", "ResourceNotFoundException", "MalformedPolicyException", "DeleteConflictException"
	create := func(name, document string, tags ...types.Tag) func(o *operator) error {
		return func(o *operator) error {
			return refused(o.CreatePolicy(o.ctx(), &sdk.CreatePolicyInput{PolicyName: &name, PolicyDocument: &document, Tags: tags}))
		}
	}
	p := func(o *operator) { o.policy("p") }
	two := func(o *operator) { o.policy("p"); o.version(false) }
	five := func(o *operator) {
		o.policy("p")
		for range 4 {
			o.version(false)
		}
	}
	attached := func(o *operator) { o.policy("p"); o.attachPolicy(o.certificate(), "p") }
	remove := func(o *operator) error {
		return refused(o.DeletePolicy(o.ctx(), &sdk.DeletePolicyInput{PolicyName: new("p")}))
	}
	add := func(document string) func(o *operator) error {
		return func(o *operator) error {
			return refused(o.CreatePolicyVersion(o.ctx(), &sdk.CreatePolicyVersionInput{PolicyName: new("p"), PolicyDocument: &document, SetAsDefault: true}))
		}
	}
	get := func(id string) func(o *operator) error {
		return func(o *operator) error {
			return refused(o.GetPolicyVersion(o.ctx(), &sdk.GetPolicyVersionInput{PolicyName: new("p"), PolicyVersionId: &id}))
		}
	}
	typo := "{\n \"Version\": \"2012-10-17\",\n \"Statement\": [{\"Effect\": \"allow\", \"Action\": \"iot:*\", \"Resource\": \"*\"}]\n}"
	long := strings.ReplaceAll(allowAll, `"*"`, `"arn:aws:iot:us-east-1:000000000000:topic/`+strings.Repeat("x", 2048)+`"`)
	checkRefusals(t, iottest.Start(t), []refusal{
		{"CreatePolicy with a name that there is, even with the same document", p, create("p", allowAll), "ResourceAlreadyExistsException", 409, "Policy cannot be created - name already exists (name=p)"},
		{"CreatePolicy with a wrong effect", nil, create("p", typo), malformed, 400, "line 3, column 27: Statement[0].Effect"},
		{"CreatePolicy without JSON", nil, create("p", "allow all"), malformed, 400, "line 1, column 1"},
		{"CreatePolicy with an empty document", nil, create("p", ""), malformed, 400, "line 1"},
		{"CreatePolicy with 2049 characters and more", nil, create("p", long), malformed, 400, "at most 2048"},
		{"CreatePolicy with an illegal name", nil, create("a b", allowAll), invalid, 400, "policyName"},
		{"CreatePolicy with a tag twice", nil, create("p", allowAll, types.Tag{Key: new("a")}, types.Tag{Key: new("a")}), invalid, 400, "twice"},
		{"GetPolicy of an unknown policy", nil, func(o *operator) error {
			return refused(o.GetPolicy(o.ctx(), &sdk.GetPolicyInput{PolicyName: new("p")}))
		}, missing, 404, "Policy p cannot be found."},
		{"GetPolicy of another region's policy", p, func(o *operator) error {
			return refused(o.abroad().GetPolicy(o.ctx(), &sdk.GetPolicyInput{PolicyName: new("p")}))
		}, missing, 404, "Policy p cannot be found."},
		{"DeletePolicy of an unknown policy", nil, remove, missing, 404, "Policy p cannot be found."},
		{"DeletePolicy with a second version", two, remove, conflict, 409, "The policy cannot be deleted as versions other than than default version exist"},
		{"DeletePolicy while it is attached", attached, remove, conflict, 409, "The policy cannot be deleted as the policy is attached to one or more principals (name=p)"},
		{"CreatePolicyVersion of an unknown policy", nil, add(allowAll), missing, 404, "Policy p cannot be found."},
		{"CreatePolicyVersion with a wrong effect", p, add(typo), malformed, 400, "Statement[0].Effect"},
		{"CreatePolicyVersion for the sixth time", five, add(allowAll), "VersionsLimitExceededException", 409, "The policy p already has the maximum number of versions (5)"},
		{"GetPolicyVersion of an unknown policy", nil, get("1"), missing, 404, "Policy p cannot be found."},
		{"GetPolicyVersion of an unknown version", p, get("2"), missing, 404, "Version 2 of policy p cannot be found."},
		{"GetPolicyVersion with a zero in front", p, get("01"), missing, 404, "Version 01 of policy p cannot be found."},
		{"GetPolicyVersion with a number beyond all numbers", p, get(strings.Repeat("9", 40)), missing, 404, "cannot be found."},
		{"GetPolicyVersion with letters", p, get("one"), invalid, 400, "policyVersionId"},
		{"ListPolicyVersions of an unknown policy", nil, func(o *operator) error {
			return refused(o.ListPolicyVersions(o.ctx(), &sdk.ListPolicyVersionsInput{PolicyName: new("p")}))
		}, missing, 404, "Policy p cannot be found."},
		{"DeletePolicyVersion of the default version", two, func(o *operator) error { return o.deleteVersion("1") }, conflict, 409, "Cannot delete the default version of a policy"},
		{"DeletePolicyVersion of an unknown version", p, func(o *operator) error { return o.deleteVersion("7") }, missing, 404, "Version 7 of policy p cannot be found."},
		{"SetDefaultPolicyVersion to an unknown version", p, func(o *operator) error { return o.setDefault("7") }, missing, 404, "Version 7 of policy p cannot be found."},
		{"ListPolicies with a marker of another list", func(o *operator) { o.policy("a", "b"); o.thing("a"); o.thing("b") }, func(o *operator) error {
			out, err := o.ListThings(o.ctx(), &sdk.ListThingsInput{MaxResults: new(int32(1))})
			o.must(err)
			if out.NextToken == nil {
				return fmt.Errorf("ListThings gave no token")
			}
			return refused(o.ListPolicies(o.ctx(), &sdk.ListPoliciesInput{Marker: out.NextToken}))
		}, invalid, 400, "marker"},
	})
}
