package authorities

import (
	"context"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/acmpca"
	"github.com/imprint-iot/imprint/pki"
)

// finds asks for the one that a name means, too: it may not be seen by this door when
// DescribeAuthority of it is denied.
func (o Office) finds(ctx context.Context, caller awsapi.Caller, in *ListInput) ([]awsapi.Ask, error) {
	asks := []awsapi.Ask{{Resource: "*"}}
	if in.Name == nil {
		return asks, nil
	}
	a, err := o.Engine.Find(ctx, tenantOf(caller), *in.Name)
	switch {
	case err == nil:
		asks = append(asks, awsapi.Ask{Action: DescribeAuthority.Action, Resource: a.ARN()})
	case imprint.CodeOf(err) != imprint.CodeNotFound:
		return nil, err
	}
	return asks, nil // whoever may list is told that there is none
}

// creates gives what a new authority is about: any, or the parent that signs by a profile.
func creates(_ context.Context, caller awsapi.Caller, in *CreateInput) ([]awsapi.Ask, error) {
	ask := awsapi.Ask{Resource: "*"}
	if in.Parent != nil {
		ask.Resource = tenantOf(caller).AuthorityARN(imprint.AuthorityID(*in.Parent))
	}
	if in.Profile != nil {
		ask.Keys = acmpca.ConditionKeys(caller, *in.Profile)
	}
	return []awsapi.Ask{ask}, nil
}

// issues brings the profile as the template that it is, and asks for the authority whose
// certificate is renewed, too, because the new one takes its place.
func (o Office) issues(ctx context.Context, caller awsapi.Caller, in *IssueInput) ([]awsapi.Ask, error) {
	tenant := tenantOf(caller)
	ask := awsapi.Ask{Resource: tenant.AuthorityARN(imprint.AuthorityID(in.ID)), Keys: acmpca.ConditionKeys(caller, in.Profile)}
	asks := []awsapi.Ask{ask}
	if in.Renews == nil {
		return asks, nil
	}
	by, err := o.Engine.IssuerOf(ctx, tenant, imprint.CertificateID(*in.Renews))
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		return asks, nil // the engine says so
	case err != nil:
		return nil, err
	case by == "":
		ask.Resource = "*" // those of the built-in CA
	case by == imprint.AuthorityID(in.ID):
		return asks, nil
	default:
		ask.Resource = tenant.AuthorityARN(by)
	}
	return append(asks, ask), nil
}

// adopts asks for those, too, that the new one would stand above.
func (o Office) adopts(ctx context.Context, caller awsapi.Caller, in *AdoptInput) ([]awsapi.Ask, error) {
	below, err := o.Engine.WouldTake(ctx, tenantOf(caller), in.Certificate)
	if err != nil {
		return nil, err
	}
	asks := []awsapi.Ask{{Resource: "*"}}
	for _, arn := range below {
		asks = append(asks, awsapi.Ask{Resource: arn})
	}
	return asks, nil
}

// revokes asks for the authority that issued a certificate, for the one whose it is, and for
// those whose certificates go along: who may take a device back may not take back a CA, or
// another one's devices, that are denied to him.
func (o Office) revokes(ctx context.Context, caller awsapi.Caller, in *RevokeInput) ([]awsapi.Ask, error) {
	cert, err := pki.ParseCertificatePEM(in.Certificate)
	if err != nil {
		return nil, err
	}
	// Who has the action nowhere isn't told whether the certificate is one of here.
	asks := []awsapi.Ask{{Resource: awsapi.Anywhere}}
	about, err := o.Engine.Concerned(ctx, tenantOf(caller), cert.Raw, imprint.RevocationReason(value(in.Reason)))
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return asks, nil // the engine says so
	}
	if err != nil {
		return nil, err
	}
	for _, arn := range about {
		asks = append(asks, awsapi.Ask{Resource: arn})
	}
	return asks, nil
}

// revokesAuthority asks for the authority, for the one that signed it, whose list it comes to
// stand on, and for those that have its key.
func (o Office) revokesAuthority(ctx context.Context, caller awsapi.Caller, in *RevokeAuthorityInput) ([]awsapi.Ask, error) {
	own := tenantOf(caller).AuthorityARN(imprint.AuthorityID(in.ID))
	asks := []awsapi.Ask{{Resource: own}}
	a, err := o.Engine.Authority(ctx, tenantOf(caller), imprint.AuthorityID(in.ID))
	if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && a.Certificate == "" {
		return asks, nil // the engine says so
	}
	if err != nil {
		return nil, err
	}
	cert, err := pki.ParseCertificatePEM(a.Certificate)
	if err != nil {
		return nil, err
	}
	about, err := o.Engine.Concerned(ctx, tenantOf(caller), cert.Raw, imprint.RevocationReason(value(in.Reason)))
	for _, arn := range about {
		if arn != own {
			asks = append(asks, awsapi.Ask{Resource: arn})
		}
	}
	return asks, err
}

// revokesBelow asks for the authority and for each of those below it, which it takes back with
// all that they issued.
func (o Office) revokesBelow(ctx context.Context, caller awsapi.Caller, in *BelowInput) ([]awsapi.Ask, error) {
	id := imprint.AuthorityID(in.ID)
	asks := []awsapi.Ask{{Resource: tenantOf(caller).AuthorityARN(id)}}
	below, err := o.Engine.Below(ctx, tenantOf(caller), id)
	switch imprint.CodeOf(err) {
	case imprint.CodeNotFound, imprint.CodeAuthorityState:
		return asks, nil // the engine says so, to who may know
	}
	if err != nil {
		return nil, err
	}
	for _, a := range below {
		if a.ID != id {
			asks = append(asks, awsapi.Ask{Resource: a.ARN()})
		}
	}
	return asks, nil
}
