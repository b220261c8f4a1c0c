package iot

import (
	"context"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// claimRoutes are what trusted users and operators register devices with (AWS
// IoT API reference, CreateProvisioningClaim and RegisterThing).
func (s *Service) claimRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateProvisioningClaim, s.createProvisioningClaim),
		awsapi.Handle(RegisterThing, s.registerThing),
	}
}

// createProvisioningClaim makes a claim certificate for a few minutes. Its
// private key is in the answer and nowhere else, and no list has it.
func (s *Service) createProvisioningClaim(ctx context.Context, caller awsapi.Caller, in *CreateProvisioningClaimInput) (*CreateProvisioningClaimOutput, error) {
	name, err := imprint.ParseTemplateName(in.TemplateName)
	if err != nil {
		return nil, err
	}
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	made, err := s.rooms.Claims.CreateClaim(ctx, tenant, name, caller.PrincipalARN)
	if err != nil {
		return nil, err
	}
	return &CreateProvisioningClaimOutput{
		CertificateId: string(made.Claim.Certificate), CertificatePem: made.CertificatePEM, Expiration: made.Claim.ExpiresAt,
		KeyPair: &KeyPair{PublicKey: made.Public, PrivateKey: made.Private},
	}, nil
}

func (s *Service) registerThing(ctx context.Context, caller awsapi.Caller, in *RegisterThingInput) (*RegisterThingOutput, error) {
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	made, err := s.rooms.Claims.RegisterThing(ctx, tenant, in.TemplateBody, in.Parameters)
	if err != nil {
		return nil, err
	}
	return &RegisterThingOutput{CertificatePem: made.CertificatePEM, ResourceArns: made.Resources}, nil
}
