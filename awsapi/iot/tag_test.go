package iot_test

import (
	"errors"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

func (e identityEnv) tag(t *testing.T, arn string, tags ...types.Tag) error {
	t.Helper()
	_, err := e.client.TagResource(t.Context(), &sdk.TagResourceInput{ResourceArn: &arn, Tags: tags})
	return err
}

func (e identityEnv) untag(t *testing.T, arn string, keys ...string) error {
	t.Helper()
	_, err := e.client.UntagResource(t.Context(), &sdk.UntagResourceInput{ResourceArn: &arn, TagKeys: keys})
	return err
}

func TestTags(t *testing.T) {
	t.Parallel()
	policy := func(t *testing.T, e identityEnv) string {
		t.Helper()
		now := e.Clock.Now()
		e.Put(t, func(tx imprint.Tx) error {
			return tx.PutPolicy(imprint.Policy{Tenant: e.tenant, Name: "p", DefaultVersion: 1, LastVersion: 1, CreatedAt: now, ModifiedAt: now})
		})
		return e.tenant.PolicyARN("p")
	}
	checkIdentityRules(t, []identityRule{
		{"policies, CA certificates, thing groups, thing types, billing groups and templates have tags", func(t *testing.T, e identityEnv) {
			e.putTemplate(t, "jitp", imprint.TemplateJITP)
			ca := e.register(t, iottest.NewCA(t, "Factory"))
			e.Put(t, func(tx imprint.Tx) error {
				return errors.Join(tx.PutThingGroup(imprint.ThingGroup{Tenant: e.tenant, Name: "g", Version: 1}),
					tx.PutThingType(imprint.ThingType{Tenant: e.tenant, Name: "k"}), tx.PutBillingGroup(imprint.BillingGroup{Tenant: e.tenant, Name: "b"}))
			})
			for _, arn := range []string{policy(t, e), e.tenant.ThingGroupARN("g"), e.tenant.ThingTypeARN("k"), e.tenant.BillingGroupARN("b"), e.tenant.TemplateARN("jitp"), e.tenant.CACertificateARN(imprint.CertificateID(ca)), e.tenant.ARN("cacert/" + upper(ca))} {
				iottest.WantRefusal(t, e.tag(t, arn, tags("b", "2", "a", "1")...), "", 0, "")
				e.wantTags(t, arn, tags("a", "1", "b", "2")...)
			}
		}},
		{"tagging merges, untagging forgives", func(t *testing.T, e identityEnv) {
			arn := policy(t, e)
			iottest.WantRefusal(t, e.tag(t, arn, tags("a", "1", "b", "2")...), "", 0, "")
			iottest.WantRefusal(t, e.tag(t, arn, tags("b", "3", "c", "")...), "", 0, "")
			iottest.WantRefusal(t, e.tag(t, arn, types.Tag{Key: new("d")}), "", 0, "")
			e.wantTags(t, arn, tags("a", "1", "b", "3", "c", "", "d", "")...)
			iottest.WantRefusal(t, e.untag(t, arn, "a", "c", "d", "missing"), "", 0, "")
			e.wantTags(t, arn, tags("b", "3")...)
		}},
		{"fifty tags and not more, and a present key counts once", func(t *testing.T, e identityEnv) {
			arn := policy(t, e)
			iottest.WantRefusal(t, e.tag(t, arn, manyTags(50)...), "", 0, "")
			iottest.WantRefusal(t, e.tag(t, arn, tags("key-00", "new")...), "", 0, "")
			iottest.WantRefusal(t, e.tag(t, arn, tags("key-01", "new", "more", "")...), "LimitExceededException", 410, "51 tags")
			e.wantTags(t, arn, append(tags("key-00", "new"), manyTags(50)[1:]...)...)
		}},
		{"keys of AWS's own, doubled ones and empty ones are refused", func(t *testing.T, e identityEnv) {
			arn := policy(t, e)
			for _, bad := range [][]types.Tag{tags("aws:x", "1"), tags("Aws:x", "1"), tags("a", "1", "a", "1"), tags("", "1"), tags("a*b", "1")} {
				iottest.WantRefusal(t, e.tag(t, arn, bad...), "InvalidRequestException", 400, "")
			}
			e.wantTags(t, arn)
		}},
		{"what isn't there isn't found, by any of the three", func(t *testing.T, e identityEnv) {
			for _, resource := range []string{"policy/none", "cacert/" + unknownID, "provisioningtemplate/none", "thinggroup/none", "thingtype/none", "billinggroup/none", "rule/none"} {
				arn := e.tenant.ARN(resource)
				iottest.WantRefusal(t, e.tag(t, arn, tags("a", "1")...), "ResourceNotFoundException", 404, "")
				iottest.WantRefusal(t, e.untag(t, arn, "a"), "ResourceNotFoundException", 404, "")
				_, err := e.client.ListTagsForResource(t.Context(), &sdk.ListTagsForResourceInput{ResourceArn: &arn})
				iottest.WantRefusal(t, err, "ResourceNotFoundException", 404, "")
			}
		}},
		{"things, device certificates, other accounts and what is no ARN are refused", func(t *testing.T, e identityEnv) {
			for _, arn := range []string{e.tenant.ThingARN("x"), e.tenant.CertificateARN(unknownID), e.another().tenant.PolicyARN("p"), "hello",
				e.tenant.ARN("cacert/xyz"), e.tenant.ARN("policy/")} {
				iottest.WantRefusal(t, e.tag(t, arn, tags("a", "1")...), "InvalidRequestException", 400, "")
			}
		}},
		{"a token of no list is refused", func(t *testing.T, e identityEnv) {
			_, err := e.client.ListTagsForResource(t.Context(), &sdk.ListTagsForResourceInput{ResourceArn: new(policy(t, e)), NextToken: new("next")})
			iottest.WantRefusal(t, err, "InvalidRequestException", 400, "nextToken")
		}},
		{"on other resources the first-connection tag is like any other", func(t *testing.T, e identityEnv) {
			iottest.WantRefusal(t, e.tag(t, policy(t, e), tags(imprint.FirstConnectionTag, "maybe")...), "", 0, "")
		}},
	})
}

func TestFirstConnectionTag(t *testing.T) {
	t.Parallel()
	want := func(t *testing.T, e identityEnv, id string, want imprint.FirstConnection) {
		t.Helper()
		e.View(t, func(tx imprint.ReadTx) error {
			ca, err := tx.CA(e.tenant, imprint.CertificateID(id))
			if err != nil || ca.FirstConnection != want || ca.CustomerVersion != 1 {
				t.Errorf("got %q, version %d, %v, want %q, version 1", ca.FirstConnection, ca.CustomerVersion, err, want)
			}
			return nil
		})
	}
	checkIdentityRules(t, []identityRule{
		{"it is set, changed and reset with the tag", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"))
			arn := e.tenant.CACertificateARN(imprint.CertificateID(id))
			want(t, e, id, imprint.FirstConnectionDefault)
			e.Clock.Advance(time.Minute)
			iottest.WantRefusal(t, e.tag(t, arn, tags(imprint.FirstConnectionTag, "hold", "line", "7")...), "", 0, "")
			want(t, e, id, imprint.FirstConnectionHold)
			iottest.WantRefusal(t, e.tag(t, arn, tags(imprint.FirstConnectionTag, "close")...), "", 0, "")
			want(t, e, id, imprint.FirstConnectionClose)
			iottest.WantRefusal(t, e.tag(t, arn, tags("line", "8")...), "", 0, "")
			want(t, e, id, imprint.FirstConnectionClose)
			iottest.WantRefusal(t, e.untag(t, arn, "line"), "", 0, "")
			want(t, e, id, imprint.FirstConnectionClose)
			iottest.WantRefusal(t, e.untag(t, arn, imprint.FirstConnectionTag), "", 0, "")
			want(t, e, id, imprint.FirstConnectionDefault)
			e.wantTags(t, arn)
		}},
		{"it is set by the registration", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"), func(in *sdk.RegisterCACertificateInput) { in.Tags = tags(imprint.FirstConnectionTag, "hold") })
			want(t, e, id, imprint.FirstConnectionHold)
			e.wantTags(t, e.tenant.CACertificateARN(imprint.CertificateID(id)), tags(imprint.FirstConnectionTag, "hold")...)
		}},
		{"other values change nothing", func(t *testing.T, e identityEnv) {
			id := e.register(t, iottest.NewCA(t, "Factory"), func(in *sdk.RegisterCACertificateInput) { in.Tags = tags(imprint.FirstConnectionTag, "hold") })
			arn := e.tenant.CACertificateARN(imprint.CertificateID(id))
			for _, value := range []string{"", "HOLD", "maybe"} {
				iottest.WantRefusal(t, e.tag(t, arn, tags("line", "7", imprint.FirstConnectionTag, value)...), "InvalidRequestException", 400, "hold or close")
			}
			want(t, e, id, imprint.FirstConnectionHold)
			e.wantTags(t, arn, tags(imprint.FirstConnectionTag, "hold")...)
		}},
	})
}
