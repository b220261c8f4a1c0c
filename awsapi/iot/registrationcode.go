package iot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// getRegistrationCode gives the tenant's registration code, made at the first
// call and the same until it is deleted.
func (s *Service) getRegistrationCode(ctx context.Context, caller awsapi.Caller, _ *GetRegistrationCodeInput) (*GetRegistrationCodeOutput, error) {
	settings, err := s.EnsureTenant(ctx, tenantOf(caller))
	if err != nil {
		return nil, err
	}
	if settings.RegistrationCode == "" {
		settings, err = s.changeSettings(ctx, settings.Tenant, func(settings *imprint.TenantSettings) error {
			if settings.RegistrationCode == "" {
				settings.RegistrationCode = newRegistrationCode()
			}
			return nil
		})
	}
	if err != nil {
		return nil, err
	}
	return &GetRegistrationCodeOutput{RegistrationCode: settings.RegistrationCode}, nil
}

// deleteRegistrationCode deletes it: the next one is another.
func (s *Service) deleteRegistrationCode(ctx context.Context, caller awsapi.Caller, _ *DeleteRegistrationCodeInput) (*DeleteRegistrationCodeOutput, error) {
	_, err := s.changeSettings(ctx, tenantOf(caller), func(settings *imprint.TenantSettings) error {
		if settings.RegistrationCode == "" {
			return imprint.Errorf(imprint.CodeNotFound, "This account has no registration code in this region.").
				WithHint("Run aws iot get-registration-code to make one.")
		}
		settings.RegistrationCode = ""
		return nil
	})
	return nil, err
}

// registrationCode gives the tenant's code, empty when there is none.
func registrationCode(tx imprint.ReadTx, tenant imprint.Tenant) (string, error) {
	settings, err := tx.TenantSettings(tenant)
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return "", fmt.Errorf("couldn't read the registration code: %w", err)
	}
	return settings.RegistrationCode, nil
}

func newRegistrationCode() string {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails; crypto/rand ends the program instead
	return hex.EncodeToString(random[:])
}
