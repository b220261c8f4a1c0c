package enrolment

import (
	"context"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/acmpca"
)

// creates asks for the label and for the authority, both with the template that devices get
// certificates by: who may not have one by it makes no label for it either.
func creates(_ context.Context, caller awsapi.Caller, in *CreateInput) ([]awsapi.Ask, error) {
	return asksFor(caller, in.Label, in.Profile, in.Authority), nil
}

// updates asks for the label as it will be, and for its authority when that or the profile
// changes. What the request leaves out of the two is put into it: a change of the other one
// that comes between asking and writing must not make a pair that nobody was asked for.
func (o Office) updates(ctx context.Context, caller awsapi.Caller, in *UpdateInput) ([]awsapi.Ask, error) {
	var label imprint.EnrolmentLabel
	err := o.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		label, err = read(tx, caller, in.Label)
		return err
	})
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return []awsapi.Ask{{Resource: labelARN(caller, in.Label)}}, nil // the operation says so
	}
	if err != nil {
		return nil, err
	}
	if in.Authority == nil && in.Profile == nil {
		return asksFor(caller, in.Label, label.Profile), nil
	}
	authority := string(label.Authority)
	if in.Authority == nil {
		in.Authority = &authority
	}
	if in.Profile == nil {
		in.Profile = &label.Profile
	}
	return asksFor(caller, in.Label, *in.Profile, *in.Authority), nil
}

func asksFor(caller awsapi.Caller, label, profile string, authorities ...string) []awsapi.Ask {
	keys := acmpca.ConditionKeys(caller, profile)
	asks := []awsapi.Ask{{Resource: labelARN(caller, label), Keys: keys}}
	for _, id := range authorities {
		asks = append(asks, awsapi.Ask{Resource: tenantOf(caller).AuthorityARN(imprint.AuthorityID(id)), Keys: keys})
	}
	return asks
}
