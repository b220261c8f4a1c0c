package iot

import (
	"context"
	"fmt"
	"slices"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// certificateProviderRoutes are the operations on certificate providers (AWS IoT
// API reference, CreateCertificateProvider and its neighbours).
func (s *Service) certificateProviderRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateCertificateProvider, s.createCertificateProvider),
		awsapi.Handle(DescribeCertificateProvider, s.describeCertificateProvider),
		awsapi.Handle(UpdateCertificateProvider, s.updateCertificateProvider),
		awsapi.Handle(ListCertificateProviders, s.listCertificateProviders),
		awsapi.Handle(DeleteCertificateProvider, s.deleteCertificateProvider),
	}
}

// checkFunction refuses what isn't the ARN of a function.
func checkFunction(arn string) error {
	if lambdaPattern.MatchString(arn) {
		return nil
	}
	return imprint.Errorf(imprint.CodeInvalidRequest, "lambdaFunctionArn %q is not the ARN of a Lambda function.", imprint.Excerpt(arn)).
		WithHint("Write it as arn:aws:lambda:us-east-1:000000000000:function:NAME.")
}

func operationNames(list []CertificateProviderOperation) []string {
	names := make([]string, len(list))
	for n, one := range list {
		names[n] = string(one)
	}
	return names
}

// createCertificateProvider makes the account's one provider. From then on
// CreateCertificateFromCsr over MQTT has its function sign.
func (s *Service) createCertificateProvider(ctx context.Context, caller awsapi.Caller, in *CreateCertificateProviderInput) (*CreateCertificateProviderOutput, error) {
	err := checkFunction(in.LambdaFunctionArn)
	if err != nil {
		return nil, err
	}
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	p := imprint.CertificateProvider{
		Tenant: tenant, Name: in.CertificateProviderName, FunctionARN: in.LambdaFunctionArn,
		Operations: operationNames(in.AccountDefaultForOperations), CreatedAt: now, ModifiedAt: now,
	}
	return update(ctx, s, func(tx imprint.Tx) (*CreateCertificateProviderOutput, error) {
		present, err := tx.CertificateProviders(tenant)
		if err != nil {
			return nil, fmt.Errorf("couldn't read the certificate providers: %w", err)
		}
		for _, other := range present {
			if other.Name == p.Name {
				return nil, imprint.Errorf(imprint.CodeAlreadyExists, "Certificate provider %s already exists.", p.Name).WithResource(p.Name, p.ARN())
			}
		}
		if len(present) > 0 {
			return nil, imprint.Errorf(imprint.CodeLimitExceeded, "The account has a certificate provider already: %s.", present[0].Name).
				WithHint("Update that one, or delete it first.")
		}
		err = checkOwnFunction(tx, tenant, p.FunctionARN)
		if err != nil {
			return nil, err
		}
		err = tx.PutCertificateProvider(p)
		if err != nil {
			return nil, fmt.Errorf("couldn't create certificate provider %s: %w", p.Name, err)
		}
		err = putTags(tx, tenant, p.ARN(), in.Tags)
		if err != nil {
			return nil, err
		}
		return &CreateCertificateProviderOutput{CertificateProviderName: p.Name, CertificateProviderArn: p.ARN()}, nil
	})
}

// readCertificateProvider finds the provider that a request names.
func readCertificateProvider(tx imprint.ReadTx, tenant imprint.Tenant, name string) (imprint.CertificateProvider, error) {
	present, err := tx.CertificateProviders(tenant)
	if err != nil {
		return imprint.CertificateProvider{}, fmt.Errorf("couldn't read the certificate providers: %w", err)
	}
	at := slices.IndexFunc(present, func(p imprint.CertificateProvider) bool { return p.Name == name })
	if at < 0 {
		return imprint.CertificateProvider{}, notFound("Certificate provider", name)
	}
	return present[at], nil
}

func (s *Service) describeCertificateProvider(ctx context.Context, caller awsapi.Caller, in *DescribeCertificateProviderInput) (*DescribeCertificateProviderOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeCertificateProviderOutput, error) {
		p, err := readCertificateProvider(tx, tenantOf(caller), in.CertificateProviderName)
		if err != nil {
			return nil, err
		}
		out := &DescribeCertificateProviderOutput{
			CertificateProviderName: p.Name, CertificateProviderArn: p.ARN(), LambdaFunctionArn: p.FunctionARN,
			CreationDate: p.CreatedAt, LastModifiedDate: p.ModifiedAt,
		}
		for _, operation := range p.Operations {
			out.AccountDefaultForOperations = append(out.AccountDefaultForOperations, CertificateProviderOperation(operation))
		}
		return out, nil
	})
}

// updateCertificateProvider changes what the request names.
func (s *Service) updateCertificateProvider(ctx context.Context, caller awsapi.Caller, in *UpdateCertificateProviderInput) (*UpdateCertificateProviderOutput, error) {
	if in.LambdaFunctionArn != nil {
		err := checkFunction(*in.LambdaFunctionArn)
		if err != nil {
			return nil, err
		}
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateCertificateProviderOutput, error) {
		p, err := readCertificateProvider(tx, tenantOf(caller), in.CertificateProviderName)
		if err != nil {
			return nil, err
		}
		if in.LambdaFunctionArn != nil {
			p.FunctionARN = *in.LambdaFunctionArn
			err = checkOwnFunction(tx, p.Tenant, p.FunctionARN)
			if err != nil {
				return nil, err
			}
		}
		if in.AccountDefaultForOperations != nil {
			p.Operations = operationNames(in.AccountDefaultForOperations)
		}
		p.ModifiedAt = now
		err = tx.PutCertificateProvider(p)
		if err != nil {
			return nil, fmt.Errorf("couldn't update certificate provider %s: %w", p.Name, err)
		}
		return &UpdateCertificateProviderOutput{CertificateProviderName: p.Name, CertificateProviderArn: p.ARN()}, nil
	})
}

func (s *Service) listCertificateProviders(ctx context.Context, caller awsapi.Caller, in *ListCertificateProvidersInput) (*ListCertificateProvidersOutput, error) {
	if in.NextToken != nil && *in.NextToken != "" {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "nextToken isn't one that this list gave.")
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*ListCertificateProvidersOutput, error) {
		present, err := tx.CertificateProviders(tenantOf(caller))
		if err != nil {
			return nil, fmt.Errorf("couldn't list the certificate providers: %w", err)
		}
		out := &ListCertificateProvidersOutput{CertificateProviders: []CertificateProviderSummary{}}
		for _, p := range present {
			out.CertificateProviders = append(out.CertificateProviders, CertificateProviderSummary{CertificateProviderName: p.Name, CertificateProviderArn: p.ARN()})
		}
		return out, nil
	})
}

// deleteCertificateProvider gives signing back to the built-in CA.
func (s *Service) deleteCertificateProvider(ctx context.Context, caller awsapi.Caller, in *DeleteCertificateProviderInput) (*DeleteCertificateProviderOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*DeleteCertificateProviderOutput, error) {
		p, err := readCertificateProvider(tx, tenantOf(caller), in.CertificateProviderName)
		if err != nil {
			return nil, err
		}
		err = tx.DeleteCertificateProvider(p.Tenant, p.Name)
		if err != nil {
			return nil, fmt.Errorf("couldn't delete certificate provider %s: %w", p.Name, err)
		}
		return &DeleteCertificateProviderOutput{}, tx.DeleteTags(p.Tenant, p.ARN())
	})
}
