package iot_test

import (
	"fmt"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/iot/iottest"
)

// renewedBy records that certificates take the places of others, each of the one before.
func (o *operator) renewedBy(state imprint.RenewalState, arns ...*string) {
	o.t.Helper()
	id := func(arn *string) imprint.CertificateID {
		id, err := o.tenant.ParseCertificateARN(*arn)
		o.must(err)
		return id
	}
	for n, made := range arns[1:] {
		o.server.Put(o.t, func(tx imprint.Tx) error {
			return tx.PutRenewal(imprint.Renewal{Tenant: o.tenant, Certificate: id(made), Renews: id(arns[n]), State: state})
		})
	}
}

func (o *operator) setStatus(arn *string, status types.CertificateStatus) {
	o.t.Helper()
	id, err := o.tenant.ParseCertificateARN(*arn)
	o.must(err)
	o.must(refused(o.UpdateCertificate(o.ctx(), &sdk.UpdateCertificateInput{CertificateId: new(string(id)), NewStatus: status})))
}

// TestWhatIsAttachedWhileACertificateIsRenewed: as long as the old one serves the device, the
// new ones get and lose what it does; afterwards they are left alone.
func TestWhatIsAttachedWhileACertificateIsRenewed(t *testing.T) {
	t.Parallel()
	none := []string{}
	checkRules(t, iottest.Start(t), []rule{
		{"policies go along, over several renewals", func(t *testing.T, o *operator) {
			o.policy("one", "two")
			old, made, again := o.certificate(), o.certificate(), o.certificate()
			o.renewedBy(imprint.RenewalPending, old, made, again)
			o.attachPolicy(old, "one", "two")
			o.must(o.detachPolicy(old, "one"))
			for _, arn := range []*string{old, made, again} {
				want(t, "policies", o.attachedPolicies(arn), []string{"two"})
			}
			//lint:ignore SA1019 clients in the field use it
			o.must(refused(o.DetachPrincipalPolicy(o.ctx(), &sdk.DetachPrincipalPolicyInput{PolicyName: new("two"), Principal: made})))
			want(t, "policies of the old one", o.attachedPolicies(old), []string{"two"})
			want(t, "policies of the last one", o.attachedPolicies(again), none)
		}},
		{"things go along with their kind of attachment", func(t *testing.T, o *operator) {
			o.thing("one")
			old, made := o.certificate(), o.certificate()
			o.renewedBy(imprint.RenewalProven, old, made)
			o.must(o.attachThing("one", old, exclusive))
			want(t, "things", o.things(made, ""), []string{"one EXCLUSIVE_THING"})
			o.must(o.detachThing("one", old))
			want(t, "things after", o.things(made, ""), none)
		}},
		{"who takes the old one down touches the new one no more", func(t *testing.T, o *operator) {
			o.policy("one")
			o.thing("one")
			old, made := o.certificate(), o.certificate()
			o.renewedBy(imprint.RenewalProven, old, made)
			o.attachPolicy(old, "one")
			o.must(o.attachThing("one", old, ""))
			o.setStatus(old, types.CertificateStatusInactive)
			o.must(o.detachPolicy(old, "one"))
			o.must(o.detachThing("one", old))
			want(t, "policies", o.attachedPolicies(made), []string{"one"})
			want(t, "things", o.things(made, ""), []string{"one NON_EXCLUSIVE_THING"})
		}},
		{"a renewal that has ended is none", func(t *testing.T, o *operator) {
			o.policy("one")
			old, made, lost := o.certificate(), o.certificate(), o.certificate()
			o.renewedBy(imprint.RenewalDone, old, made)
			o.renewedBy(imprint.RenewalAbandoned, old, lost)
			o.attachPolicy(old, "one")
			want(t, "policies", o.attachedPolicies(made), none)
			want(t, "policies of an abandoned one", o.attachedPolicies(lost), none)
		}},
		{"a new one that has as many policies as it may have refuses one more", func(t *testing.T, o *operator) {
			old, made := o.certificate(), o.certificate()
			for n := range imprint.MaxPoliciesPerCertificate {
				o.policy(fmt.Sprint("p", n))
				o.attachPolicy(made, fmt.Sprint("p", n))
			}
			o.policy("more")
			o.renewedBy(imprint.RenewalPending, old, made)
			err := refused(o.AttachPolicy(o.ctx(), &sdk.AttachPolicyInput{PolicyName: new("more"), Target: old}))
			iottest.WantRefusal(t, err, "LimitExceededException", 410, "maximum number of policies")
			want(t, "policies of the old one", o.attachedPolicies(old), none)
		}},
	})
}
