package iot_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

const (
	exclusive    = types.ThingPrincipalTypeExclusiveThing
	nonExclusive = types.ThingPrincipalTypeNonExclusiveThing
)

func (o *operator) detachThing(thing string, principal *string) error {
	return refused(o.DetachThingPrincipal(o.ctx(), &sdk.DetachThingPrincipalInput{ThingName: &thing, Principal: principal}))
}

// principals lists a thing's principals as "ARN TYPE".
func (o *operator) principals(thing string, only types.ThingPrincipalType, size int32) []string {
	o.t.Helper()
	found := []string{}
	pages := sdk.NewListThingPrincipalsV2Paginator(o.Client, &sdk.ListThingPrincipalsV2Input{ThingName: &thing, ThingPrincipalType: only, MaxResults: &size})
	for pages.HasMorePages() {
		out, err := pages.NextPage(o.ctx())
		o.must(err)
		for _, p := range out.ThingPrincipalObjects {
			found = append(found, *p.Principal+" "+string(p.ThingPrincipalType))
		}
	}
	return found
}

func (o *operator) things(principal *string, only types.ThingPrincipalType) []string {
	o.t.Helper()
	out, err := o.ListPrincipalThingsV2(o.ctx(), &sdk.ListPrincipalThingsV2Input{Principal: principal, ThingPrincipalType: only})
	o.must(err)
	found := []string{}
	for _, p := range out.PrincipalThingObjects {
		found = append(found, *p.ThingName+" "+string(p.ThingPrincipalType))
	}
	return found
}

func TestThingPrincipals(t *testing.T) {
	t.Parallel()
	checkRules(t, iottest.Start(t), []rule{
		{"an attachment is non-exclusive by default and listed from both sides", func(t *testing.T, o *operator) {
			o.thing("one")
			o.thing("two")
			cert := o.certificate()
			o.must(o.attachThing("two", cert, ""))
			o.must(o.attachThing("one", cert, nonExclusive))
			want(t, "things", o.things(cert, ""), []string{"one NON_EXCLUSIVE_THING", "two NON_EXCLUSIVE_THING"})
			want(t, "principals", o.principals("one", "", 5), []string{*cert + " NON_EXCLUSIVE_THING"})
			plain, err := o.ListPrincipalThings(o.ctx(), &sdk.ListPrincipalThingsInput{Principal: cert})
			o.must(err)
			want(t, "plain things", plain.Things, []string{"one", "two"})
			held, err := o.ListThingPrincipals(o.ctx(), &sdk.ListThingPrincipalsInput{ThingName: new("two")})
			o.must(err)
			want(t, "plain principals", held.Principals, []string{*cert})
		}},
		{"the repetition of an attachment changes nothing", func(t *testing.T, o *operator) {
			o.thing("one")
			o.thing("two")
			shared, own := o.certificate(), o.certificate()
			attach := func() {
				o.must(o.attachThing("one", shared, ""))
				o.must(o.attachThing("two", own, exclusive))
			}
			attach()
			before := o.contents()
			attach()
			want(t, "rows", o.contents(), before)
		}},
		{"the id in a principal's ARN may be in upper case", func(t *testing.T, o *operator) {
			o.thing("one")
			cert := o.certificate()
			prefix, id, _ := strings.Cut(*cert, ":cert/")
			o.must(o.attachThing("one", new(prefix+":cert/"+strings.ToUpper(id)), ""))
			want(t, "principals", o.principals("one", "", 5), []string{*cert + " NON_EXCLUSIVE_THING"})
		}},
		{"a detached exclusive certificate is free for another thing", func(t *testing.T, o *operator) {
			o.thing("one")
			o.thing("two")
			cert := o.certificate()
			o.must(o.attachThing("one", cert, exclusive))
			o.must(o.detachThing("one", cert))
			o.must(o.attachThing("two", cert, exclusive))
			want(t, "things", o.things(cert, ""), []string{"two EXCLUSIVE_THING"})
		}},
		{"lists filter by type over all pages", func(t *testing.T, o *operator) {
			o.thing("one")
			var all []string
			for i := range 6 {
				kind := []types.ThingPrincipalType{nonExclusive, exclusive}[i%2]
				cert := o.certificate()
				o.must(o.attachThing("one", cert, kind))
				all = append(all, *cert+" "+string(kind))
			}
			slices.Sort(all)
			want(t, "all", o.principals("one", "", 4), all)
			only := slices.DeleteFunc(all, func(s string) bool { return strings.Contains(s, " NON_") })
			want(t, "exclusive", o.principals("one", exclusive, 2), only)
			cert := strings.Fields(only[0])[0]
			want(t, "exclusive things", o.things(&cert, exclusive), []string{"one EXCLUSIVE_THING"})
			want(t, "other things", o.things(&cert, nonExclusive), []string{})
		}},
		{"things of a certificate are paged", func(t *testing.T, o *operator) {
			cert := o.certificate()
			var all, found []string
			for i := range 5 {
				name := fmt.Sprintf("thing-%d", i)
				o.thing(name)
				o.must(o.attachThing(name, cert, ""))
				all = append(all, name)
			}
			pages := sdk.NewListPrincipalThingsPaginator(o.Client, &sdk.ListPrincipalThingsInput{Principal: cert, MaxResults: new(int32(2))})
			for pages.HasMorePages() {
				out, err := pages.NextPage(o.ctx())
				o.must(err)
				found = append(found, out.Things...)
			}
			want(t, "things", found, all)
		}},
		{"the same certificate is attached in two regions on its own account", func(t *testing.T, o *operator) {
			abroad := o.abroad()
			pem := iottest.NewCA(t, "Example CA").LeafPEM(t, "device")
			here, there := o.register(pem), abroad.register(pem)
			o.thing("sensor")
			abroad.thing("sensor")
			o.must(o.attachThing("sensor", here, exclusive))
			want(t, "principals abroad", abroad.principals("sensor", "", 5), []string{})
			o.must(abroad.attachThing("sensor", there, ""))
			o.must(o.detachThing("sensor", here))
			want(t, "principals abroad", abroad.principals("sensor", "", 5), []string{*there + " NON_EXCLUSIVE_THING"})
		}},
	})
}

func TestThingPrincipalsRefused(t *testing.T) {
	t.Parallel()
	const invalid, missing = "InvalidRequestException", "ResourceNotFoundException"
	// Every row has the things one and two and a certificate on one.
	var rows []refusal
	add := func(name string, kind types.ThingPrincipalType, do func(o *operator, cert *string) error, code string, status int, text string) {
		rows = append(rows, refusal{name: name, given: func(o *operator) {
			o.thing("one")
			o.thing("two")
			o.must(o.attachThing("one", o.certificate(), kind))
		}, do: func(o *operator) error {
			return do(o, new(o.tenant.CertificateARN(o.contents().ThingAttachments[0].Certificate)))
		}, code: code, status: status, text: text})
	}
	to := func(thing string, kind types.ThingPrincipalType) func(*operator, *string) error {
		return func(o *operator, cert *string) error { return o.attachThing(thing, cert, kind) }
	}
	with := func(principal string) func(*operator, *string) error {
		return func(o *operator, _ *string) error {
			return o.attachThing("one", new(strings.ReplaceAll(principal, "ACCOUNT", string(o.tenant.Account))), "")
		}
	}
	unknown := "arn:aws:iot:us-east-1:ACCOUNT:cert/" + strings.Repeat("ab", 32)
	add("attach to a second thing beside an exclusive one", exclusive, to("two", ""), invalid, 400, "is attached exclusively to thing one.")
	add("attach exclusively to a second thing beside an exclusive one", exclusive, to("two", exclusive), invalid, 400, "is attached exclusively to thing one.")
	add("attach exclusively what is attached elsewhere", nonExclusive, to("two", exclusive), invalid, 400, "is attached to thing one and can't be attached exclusively to thing two.")
	add("attach exclusively what is attached otherwise", nonExclusive, to("one", exclusive), invalid, 400, "as NON_EXCLUSIVE_THING, not as EXCLUSIVE_THING. Detach it first")
	add("attach otherwise what is attached exclusively", exclusive, to("one", ""), invalid, 400, "as EXCLUSIVE_THING, not as NON_EXCLUSIVE_THING. Detach it first")
	add("attach to an unknown thing", "", to("nobody", ""), missing, 404, "Thing nobody cannot be found.")
	add("attach an unknown certificate", "", with(unknown), missing, 404, "Certificate "+strings.Repeat("ab", 32)+" cannot be found.")
	add("attach a certificate of another region", "", with(strings.Replace(unknown, "us-east-1", "eu-west-1", 1)), invalid, 400, "eu-west-1")
	add("attach a certificate of another account", "", with(strings.Replace(unknown, "ACCOUNT", "999999999999", 1)), invalid, 400, "999999999999")
	add("attach a policy", "", with("arn:aws:iot:us-east-1:ACCOUNT:policy/p"), invalid, 400, "is not the ARN of a certificate")
	add("attach a bare certificate id", "", with(strings.Repeat("ab", 32)), invalid, 400, "is not an ARN")
	add("attach a short certificate id", "", with("arn:aws:iot:us-east-1:ACCOUNT:cert/abc"), invalid, 400, "64 hex digits")
	add("attach a Cognito identity", "", with("us-east-1:01234567-89ab-cdef-0123-456789abcdef"), invalid, 400, "keeps no Cognito identities")
	add("attach by an unknown type", "", to("two", "SHARED"), invalid, 400, "thingPrincipalType")
	add("detach what isn't attached", "", func(o *operator, cert *string) error { return o.detachThing("two", cert) }, missing, 404, "is not attached to thing two.")
	add("detach from an unknown thing", "", func(o *operator, cert *string) error { return o.detachThing("nobody", cert) }, missing, 404, "Thing nobody cannot be found.")
	add("list the principals of an unknown thing", "", func(o *operator, _ *string) error {
		return refused(o.ListThingPrincipals(o.ctx(), &sdk.ListThingPrincipalsInput{ThingName: new("nobody")}))
	}, missing, 404, "Thing nobody cannot be found.")
	add("list the things of an unknown certificate", "", func(o *operator, _ *string) error {
		return refused(o.ListPrincipalThings(o.ctx(), &sdk.ListPrincipalThingsInput{Principal: new(strings.ReplaceAll(unknown, "ACCOUNT", string(o.tenant.Account)))}))
	}, missing, 404, "Certificate")
	checkRefusals(t, iottest.Start(t), rows)
}
