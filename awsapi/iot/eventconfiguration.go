package iot

import (
	"context"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// eventConfigurationRoutes are the switches of registry events (AWS IoT API
// reference, DescribeEventConfigurations and UpdateEventConfigurations).
func (s *Service) eventConfigurationRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(DescribeEventConfigurations, s.describeEventConfigurations),
		awsapi.Handle(UpdateEventConfigurations, s.updateEventConfigurations),
	}
}

// describeEventConfigurations gives every switch. Those of a tenant that never set
// any are as old as the tenant.
func (s *Service) describeEventConfigurations(ctx context.Context, caller awsapi.Caller, _ *DescribeEventConfigurationsInput) (*DescribeEventConfigurationsOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeEventConfigurationsOutput, error) {
		found, err := eventConfigurations(tx, tenantOf(caller))
		if err != nil {
			return nil, err
		}
		out := &DescribeEventConfigurationsOutput{
			EventConfigurations: map[EventType]Configuration{}, CreationDate: found.CreatedAt, LastModifiedDate: found.ModifiedAt,
		}
		for _, t := range imprint.EventTypes() {
			out.EventConfigurations[EventType(t)] = Configuration{Enabled: new(found.Has(t))}
		}
		return out, nil
	})
}

func eventConfigurations(tx imprint.ReadTx, tenant imprint.Tenant) (imprint.EventConfigurations, error) {
	found, err := tx.EventConfigurations(tenant)
	if err == nil {
		return found, nil
	}
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return found, fmt.Errorf("couldn't read the event configurations: %w", err)
	}
	settings, err := tx.TenantSettings(tenant)
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return found, fmt.Errorf("couldn't read the tenant's settings: %w", err)
	}
	return imprint.EventConfigurations{Tenant: tenant, CreatedAt: settings.CreatedAt, ModifiedAt: settings.CreatedAt}, nil
}

// updateEventConfigurations sets the switches that the request has; the others
// stay. One without Enabled is off, as the model's boolean is false by default.
func (s *Service) updateEventConfigurations(ctx context.Context, caller awsapi.Caller, in *UpdateEventConfigurationsInput) (*UpdateEventConfigurationsOutput, error) {
	_, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateEventConfigurationsOutput, error) {
		wanted, err := eventConfigurations(tx, tenantOf(caller))
		if err != nil {
			return nil, err
		}
		for kind, one := range in.EventConfigurations {
			wanted, err = wanted.With(imprint.EventType(kind), one.Enabled != nil && *one.Enabled)
			if err != nil {
				return nil, err
			}
		}
		wanted.ModifiedAt = now
		err = tx.PutEventConfigurations(wanted)
		if err != nil {
			return nil, fmt.Errorf("couldn't set the event configurations: %w", err)
		}
		return &UpdateEventConfigurationsOutput{}, nil
	})
}
