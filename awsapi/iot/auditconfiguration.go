package iot

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
)

// auditConfigurationRoutes say which checks audits may do (AWS IoT API reference,
// UpdateAccountAuditConfiguration and its neighbours).
func (s *Service) auditConfigurationRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(DescribeAccountAuditConfiguration, s.describeAuditConfiguration),
		awsapi.Handle(UpdateAccountAuditConfiguration, s.updateAuditConfiguration),
		awsapi.Handle(DeleteAccountAuditConfiguration, s.deleteAuditConfiguration),
	}
}

// describeAuditConfiguration gives every check: those that the tenant hasn't enabled,
// and those that can't be here, are disabled.
func (s *Service) describeAuditConfiguration(ctx context.Context, caller awsapi.Caller, _ *DescribeAccountAuditConfigurationInput) (*DescribeAccountAuditConfigurationOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeAccountAuditConfigurationOutput, error) {
		config, err := audit.Configuration(tx, tenantOf(caller))
		if err != nil {
			return nil, err
		}
		out := &DescribeAccountAuditConfigurationOutput{RoleArn: config.RoleARN, AuditCheckConfigurations: map[string]AuditCheckConfiguration{}}
		for _, d := range audit.Descriptions() {
			set := config.Checks[d.Check]
			one := AuditCheckConfiguration{Enabled: new(set.Enabled)}
			if set.Days > 0 {
				one.Configuration = map[ConfigName]string{ConfigName(d.Setting): strconv.Itoa(set.Days)}
			}
			out.AuditCheckConfigurations[string(d.Check)] = one
		}
		for kind, target := range config.Targets {
			if out.AuditNotificationTargetConfigurations == nil {
				out.AuditNotificationTargetConfigurations = map[AuditNotificationType]AuditNotificationTarget{}
			}
			out.AuditNotificationTargetConfigurations[AuditNotificationType(kind)] = AuditNotificationTarget{
				TargetArn: optionalText(target.TargetARN), RoleArn: optionalText(target.RoleARN), Enabled: new(target.Enabled),
			}
		}
		return out, nil
	})
}

// updateAuditConfiguration sets the members that the request has; the others stay.
// The role stands for AWS's own service, which has to ask for what an account has: it
// is demanded the first time, as there, and used for nothing.
func (s *Service) updateAuditConfiguration(ctx context.Context, caller awsapi.Caller, in *UpdateAccountAuditConfigurationInput) (*UpdateAccountAuditConfigurationOutput, error) {
	if in.RoleArn != nil && !isRoleARN(*in.RoleArn) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "roleArn %q is not the ARN of an IAM role.", imprint.Excerpt(*in.RoleArn)).
			WithHint("Write it as arn:aws:iam::000000000000:role/NAME.")
	}
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateAccountAuditConfigurationOutput, error) {
		config, err := audit.Configuration(tx, tenant)
		if err != nil {
			return nil, err
		}
		if config.CreatedAt.IsZero() {
			config.CreatedAt, config.Checks, config.Targets = now, map[imprint.AuditCheck]imprint.AuditCheckSetting{}, map[string]imprint.AuditNotificationTarget{}
		}
		if in.RoleArn != nil {
			config.RoleARN = *in.RoleArn
		}
		if config.RoleARN == "" {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "roleArn is needed the first time.").
				WithHint("Any role's ARN does, such as arn:aws:iam::%s:role/audit: the server needs no role.", tenant.Account)
		}
		for kind, target := range in.AuditNotificationTargetConfigurations {
			config.Targets[string(kind)] = imprint.AuditNotificationTarget{
				TargetARN: text(target.TargetArn), RoleARN: text(target.RoleArn), Enabled: target.Enabled != nil && *target.Enabled,
			}
		}
		for name, wanted := range in.AuditCheckConfigurations {
			err = setAuditCheck(tx, &config, imprint.AuditCheck(name), wanted)
			if err != nil {
				return nil, err
			}
		}
		config.ModifiedAt = now
		err = tx.PutAuditConfiguration(config)
		if err != nil {
			return nil, fmt.Errorf("couldn't set the configuration of audits: %w", err)
		}
		return &UpdateAccountAuditConfigurationOutput{}, nil
	})
}

// setAuditCheck changes one check. One that a scheduled audit needs can't be disabled.
func setAuditCheck(tx imprint.ReadTx, config *imprint.AuditConfiguration, check imprint.AuditCheck, wanted AuditCheckConfiguration) error {
	d, err := audit.Describe(check)
	if err != nil {
		return err
	}
	set := config.Checks[check]
	set.Enabled = wanted.Enabled != nil && *wanted.Enabled
	if set.Enabled && d.Impossible != "" {
		return imprint.Errorf(imprint.CodeInvalidRequest, "check %s can't be enabled", check).WithHint("It stays disabled: %s.", d.Impossible)
	}
	for name, value := range wanted.Configuration {
		days, err := strconv.Atoi(value)
		switch {
		case string(name) != d.Setting:
			return imprint.Errorf(imprint.CodeInvalidRequest, "check %s has no setting %q", check, imprint.Excerpt(string(name)))
		case err != nil || days < 1 || days > audit.MaxDays:
			return imprint.Errorf(imprint.CodeInvalidRequest, "%s is %q", name, imprint.Excerpt(value)).WithHint("Give a number of days from 1 to %d.", audit.MaxDays)
		}
		set.Days = days
	}
	if !set.Enabled {
		scheduled, _, err := tx.ScheduledAudits(config.Tenant, imprint.Page{Limit: MaxScheduledAudits, Ascending: true})
		if err != nil {
			return fmt.Errorf("couldn't read the scheduled audits: %w", err)
		}
		for _, one := range scheduled {
			if slices.Contains(one.Checks, check) {
				return imprint.Errorf(imprint.CodeInvalidRequest, "check %s is needed by scheduled audit %s", check, one.Name).
					WithHint("Take it out first: aws iot update-scheduled-audit --scheduled-audit-name %s --target-check-names ...", one.Name)
			}
		}
	}
	config.Checks[check] = set
	return nil
}

// deleteAuditConfiguration disables all checks, and deletes the scheduled audits when
// the request says so.
func (s *Service) deleteAuditConfiguration(ctx context.Context, caller awsapi.Caller, in *DeleteAccountAuditConfigurationInput) (*DeleteAccountAuditConfigurationOutput, error) {
	tenant := tenantOf(caller)
	return update(ctx, s, func(tx imprint.Tx) (*DeleteAccountAuditConfigurationOutput, error) {
		_, err := tx.AuditConfiguration(tenant)
		if err != nil {
			return nil, explainNotFound(err, "Audit configuration of account", string(tenant.Account))
		}
		if in.DeleteScheduledAudits != nil && *in.DeleteScheduledAudits {
			scheduled, _, err := tx.ScheduledAudits(tenant, imprint.Page{Limit: MaxScheduledAudits, Ascending: true})
			for _, one := range scheduled {
				if err == nil {
					err = dropScheduledAudit(tx, one)
				}
			}
			if err != nil {
				return nil, err
			}
		}
		return nil, tx.DeleteAuditConfiguration(tenant)
	})
}
