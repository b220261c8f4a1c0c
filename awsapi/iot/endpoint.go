package iot

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// endpointDataATS is the endpoint type for devices that trust Amazon Root CAs,
// and what a request without a type gets: AWS's legacy answer, iot:Data, names a
// server whose chain no client trusts any more.
const endpointDataATS = "iot:Data-ATS"

// endpointTypes are the types of the API reference, DescribeEndpoint, that have
// a device side here.
var endpointTypes = []string{endpointDataATS, "iot:Data", "iot:CredentialProvider", "iot:Jobs"}

func (s *Service) endpointRoutes() []awsapi.Route {
	return []awsapi.Route{awsapi.Handle(DescribeEndpoint, s.describeEndpoint)}
}

// describeEndpoint names the tenant's address for devices. The first call makes
// the tenant; the address then stays.
func (s *Service) describeEndpoint(ctx context.Context, caller awsapi.Caller, in *DescribeEndpointInput) (*DescribeEndpointOutput, error) {
	kind := endpointDataATS
	if in.EndpointType != nil {
		kind = *in.EndpointType
	}
	if !slices.Contains(endpointTypes, kind) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "Endpoint type %s not recognized.", kind)
	}
	settings, err := s.EnsureTenant(ctx, tenantOf(caller))
	if err != nil {
		return nil, err
	}
	address, err := s.rooms.Endpoint(settings, kind)
	if err != nil {
		return nil, fmt.Errorf("couldn't name the endpoint %s of tenant %s: %w", kind, settings.Tenant, err)
	}
	return &DescribeEndpointOutput{EndpointAddress: address}, nil
}

// EnsureTenant gives a tenant's settings, and makes them when this is the first
// that is heard of the tenant: every region that a caller of an account signs
// for is a tenant. Rooms.TenantMade is told of a new tenant once it is durable.
// It is cheap for a tenant that exists.
//
// Errors: CodeInvalidRequest for an account or region that isn't one, the
// store's.
func (s *Service) EnsureTenant(ctx context.Context, tenant imprint.Tenant) (imprint.TenantSettings, error) {
	err := checkTenant(tenant)
	if err != nil {
		return imprint.TenantSettings{}, err
	}
	settings, err := view(ctx, s, func(tx imprint.ReadTx) (imprint.TenantSettings, error) {
		return tx.TenantSettings(tenant)
	})
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return s.changeSettings(ctx, tenant, func(*imprint.TenantSettings) error { return nil })
	}
	if err != nil {
		return imprint.TenantSettings{}, fmt.Errorf("couldn't read the settings of tenant %s: %w", tenant, err)
	}
	s.tenants.Store(tenant, struct{}{})
	return settings, nil
}

// tenantFor is the tenant that a caller writes to, made at its first request.
func (s *Service) tenantFor(ctx context.Context, caller awsapi.Caller) (imprint.Tenant, error) {
	tenant := tenantOf(caller)
	_, known := s.tenants.Load(tenant)
	if known {
		return tenant, nil
	}
	_, err := s.EnsureTenant(ctx, tenant)
	return tenant, err
}

func checkTenant(tenant imprint.Tenant) error {
	_, err := imprint.ParseAccountID(string(tenant.Account))
	if err != nil {
		return err
	}
	_, err = imprint.ParseRegion(string(tenant.Region))
	return err
}

// changeSettings changes a tenant's settings, made first when there are none.
func (s *Service) changeSettings(ctx context.Context, tenant imprint.Tenant, change func(*imprint.TenantSettings) error) (imprint.TenantSettings, error) {
	err := checkTenant(tenant)
	if err != nil {
		return imprint.TenantSettings{}, err
	}
	var made bool
	settings, err := update(ctx, s, func(tx imprint.Tx) (imprint.TenantSettings, error) {
		made = false
		settings, err := tx.TenantSettings(tenant)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			made = true
			settings = imprint.TenantSettings{Tenant: tenant, CreatedAt: s.rooms.Clock()}
			err = roomForTenant(tx, tenant)
			if err == nil {
				settings.EndpointPrefix, err = freePrefix(tx)
			}
		}
		if err != nil {
			return settings, err
		}
		before := settings
		err = change(&settings)
		if err != nil || (!made && settings == before) {
			return settings, err
		}
		return settings, tx.PutTenantSettings(settings)
	})
	if err != nil {
		if made {
			s.tellIfStored(ctx, settings)
		}
		return imprint.TenantSettings{}, err
	}
	s.tenants.Store(tenant, struct{}{})
	if made {
		s.tellTenantMade(settings)
	}
	return settings, nil
}

// MaxRegions bounds the regions of a server's tenants: each takes room in the
// names of the server's certificates.
const MaxRegions = 20

// roomForTenant refuses one region too many before anything is stored of it.
func roomForTenant(tx imprint.ReadTx, tenant imprint.Tenant) error {
	all, err := imprint.AllTenants(tx)
	if err != nil {
		return fmt.Errorf("couldn't count the regions: %w", err)
	}
	regions := map[imprint.Region]bool{tenant.Region: true}
	for _, other := range all {
		regions[other.Tenant.Region] = true
	}
	if len(regions) > MaxRegions {
		return imprint.Errorf(imprint.CodeLimitExceeded, "%s would be region %d of this server, at most %d are kept", tenant.Region, len(regions), MaxRegions).
			WithHint("Check the region that the request was signed for. imprint serve --regions limits callers to the regions that are meant.")
	}
	return nil
}

// tellIfStored tells of a new tenant whose commit was reported as failed and is
// there all the same: nobody would tell of it later.
func (s *Service) tellIfStored(ctx context.Context, settings imprint.TenantSettings) {
	stored, err := view(ctx, s, func(tx imprint.ReadTx) (imprint.TenantSettings, error) {
		return tx.TenantSettings(settings.Tenant)
	})
	if err == nil && stored.EndpointPrefix == settings.EndpointPrefix {
		s.tellTenantMade(stored)
	}
}

func (s *Service) tellTenantMade(settings imprint.TenantSettings) {
	if s.rooms.TenantMade != nil {
		s.rooms.TenantMade(settings)
	}
}

// freePrefix makes an endpoint prefix that no tenant has.
func freePrefix(tx imprint.ReadTx) (string, error) {
	for range 8 {
		prefix := newPrefix()
		_, err := tx.TenantByPrefix(prefix)
		switch {
		case imprint.CodeOf(err) == imprint.CodeNotFound:
			return prefix, nil
		case err != nil:
			return "", fmt.Errorf("couldn't look for the endpoint prefix %s: %w", prefix, err)
		}
	}
	return "", imprint.Errorf(imprint.CodeUnavailable, "couldn't find an endpoint prefix that is free")
}

// newPrefix makes 14 random lower-case letters and digits that begin with a, the
// form of AWS IoT Core's.
func newPrefix() string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567" // 32, so that no letter is likelier
	var random [14]byte
	_, _ = rand.Read(random[:]) // never fails; crypto/rand ends the program instead
	for i, b := range random {
		random[i] = alphabet[int(b)%len(alphabet)]
	}
	random[0] = 'a'
	return string(random[:])
}
