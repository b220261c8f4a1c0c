package iot

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
)

// MaxScheduledAudits is how many a tenant may have (AWS IoT Device Defender quotas).
const MaxScheduledAudits = 5

// scheduledAuditRoutes are audits that begin by themselves (AWS IoT API reference,
// CreateScheduledAudit and its neighbours).
func (s *Service) scheduledAuditRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateScheduledAudit, s.createScheduledAudit),
		awsapi.Handle(DescribeScheduledAudit, s.describeScheduledAudit),
		awsapi.Handle(UpdateScheduledAudit, s.updateScheduledAudit),
		awsapi.Handle(DeleteScheduledAudit, s.deleteScheduledAudit),
		awsapi.Handle(ListScheduledAudits, s.listScheduledAudits),
	}
}

func (s *Service) createScheduledAudit(ctx context.Context, caller awsapi.Caller, in *CreateScheduledAuditInput) (*CreateScheduledAuditOutput, error) {
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	wanted := imprint.ScheduledAudit{
		Tenant: tenant, Name: in.ScheduledAuditName, Frequency: imprint.AuditFrequency(in.Frequency), Checks: auditChecks(in.TargetCheckNames),
		Minute: audit.MinuteOf(tenant, in.ScheduledAuditName), CreatedAt: now, ModifiedAt: now,
	}
	setAuditDays(&wanted, in.DayOfMonth, in.DayOfWeek)
	out, err := update(ctx, s, func(tx imprint.Tx) (*CreateScheduledAuditOutput, error) {
		_, err := tx.ScheduledAudit(tenant, wanted.Name)
		if err == nil {
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "Scheduled audit %s already exists.", wanted.Name).WithResource(wanted.Name, wanted.ARN())
		}
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return nil, fmt.Errorf("couldn't look for scheduled audit %s: %w", wanted.Name, err)
		}
		present, _, err := tx.ScheduledAudits(tenant, imprint.Page{Limit: MaxScheduledAudits, Ascending: true})
		if err != nil {
			return nil, fmt.Errorf("couldn't read the scheduled audits: %w", err)
		}
		if len(present) >= MaxScheduledAudits {
			return nil, imprint.Errorf(imprint.CodeLimitExceeded, "An account has at most %d scheduled audits.", MaxScheduledAudits).
				WithHint("Delete one, or let one do more checks.")
		}
		err = s.putScheduledAudit(tx, wanted)
		if err != nil {
			return nil, err
		}
		return &CreateScheduledAuditOutput{ScheduledAuditArn: wanted.ARN()}, putTags(tx, tenant, wanted.ARN(), in.Tags)
	})
	if err == nil {
		s.rooms.Audit.Rescheduled()
	}
	return out, err
}

// setAuditDays sets the days that a request has.
func setAuditDays(a *imprint.ScheduledAudit, dayOfMonth *string, dayOfWeek *DayOfWeek) {
	if dayOfMonth != nil {
		a.DayOfMonth = *dayOfMonth
	}
	if dayOfWeek != nil {
		a.DayOfWeek = string(*dayOfWeek)
	}
}

// putScheduledAudit checks and puts a scheduled audit, from whose NextAt on it runs.
// What doesn't belong to its frequency isn't kept.
func (s *Service) putScheduledAudit(tx imprint.Tx, a imprint.ScheduledAudit) error {
	err := a.Check()
	if err != nil {
		return err
	}
	config, err := audit.Configuration(tx, a.Tenant)
	if err != nil {
		return err
	}
	a.Checks, err = audit.Runnable(config, a.Checks)
	if err != nil {
		return err
	}
	if a.Frequency != imprint.AuditMonthly {
		a.DayOfMonth = ""
	}
	if a.Frequency == imprint.AuditDaily || a.Frequency == imprint.AuditMonthly {
		a.DayOfWeek = ""
	}
	if a.NextAt.IsZero() {
		a.NextAt = a.Next(s.rooms.Clock())
	}
	err = tx.PutScheduledAudit(a)
	if err != nil {
		return fmt.Errorf("couldn't put scheduled audit %s: %w", a.Name, err)
	}
	return nil
}

func readScheduledAudit(tx imprint.ReadTx, tenant imprint.Tenant, name string) (imprint.ScheduledAudit, error) {
	found, err := tx.ScheduledAudit(tenant, name)
	return found, explainNotFound(err, "Scheduled audit", name)
}

func (s *Service) describeScheduledAudit(ctx context.Context, caller awsapi.Caller, in *DescribeScheduledAuditInput) (*DescribeScheduledAuditOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeScheduledAuditOutput, error) {
		found, err := readScheduledAudit(tx, tenantOf(caller), in.ScheduledAuditName)
		if err != nil {
			return nil, err
		}
		out := &DescribeScheduledAuditOutput{
			Frequency: AuditFrequency(found.Frequency), DayOfMonth: found.DayOfMonth, DayOfWeek: DayOfWeek(found.DayOfWeek),
			ScheduledAuditName: found.Name, ScheduledAuditArn: found.ARN(), TargetCheckNames: make([]string, 0, len(found.Checks)),
		}
		for _, check := range found.Checks {
			out.TargetCheckNames = append(out.TargetCheckNames, string(check))
		}
		return out, nil
	})
}

// updateScheduledAudit sets the members that the request has. A new frequency or day
// is counted from now on; else the next time stays.
func (s *Service) updateScheduledAudit(ctx context.Context, caller awsapi.Caller, in *UpdateScheduledAuditInput) (*UpdateScheduledAuditOutput, error) {
	now := s.rooms.Clock()
	out, err := update(ctx, s, func(tx imprint.Tx) (*UpdateScheduledAuditOutput, error) {
		found, err := readScheduledAudit(tx, tenantOf(caller), in.ScheduledAuditName)
		if err != nil {
			return nil, err
		}
		before := found
		if in.Frequency != nil {
			found.Frequency = imprint.AuditFrequency(*in.Frequency)
		}
		setAuditDays(&found, in.DayOfMonth, in.DayOfWeek)
		if in.TargetCheckNames != nil {
			found.Checks = auditChecks(in.TargetCheckNames)
		}
		if found.Frequency != before.Frequency || found.DayOfMonth != before.DayOfMonth || found.DayOfWeek != before.DayOfWeek {
			found.NextAt = time.Time{}
		}
		found.ModifiedAt = now
		return &UpdateScheduledAuditOutput{ScheduledAuditArn: found.ARN()}, s.putScheduledAudit(tx, found)
	})
	if err == nil {
		s.rooms.Audit.Rescheduled()
	}
	return out, err
}

func (s *Service) deleteScheduledAudit(ctx context.Context, caller awsapi.Caller, in *DeleteScheduledAuditInput) (*DeleteScheduledAuditOutput, error) {
	return update(ctx, s, func(tx imprint.Tx) (*DeleteScheduledAuditOutput, error) {
		found, err := readScheduledAudit(tx, tenantOf(caller), in.ScheduledAuditName)
		if err != nil {
			return nil, err
		}
		return nil, dropScheduledAudit(tx, found)
	})
}

func dropScheduledAudit(tx imprint.Tx, a imprint.ScheduledAudit) error {
	err := tx.DeleteTags(a.Tenant, a.ARN())
	if err != nil {
		return fmt.Errorf("couldn't delete the tags of scheduled audit %s: %w", a.Name, err)
	}
	err = tx.DeleteScheduledAudit(a.Tenant, a.Name)
	if err != nil {
		return fmt.Errorf("couldn't delete scheduled audit %s: %w", a.Name, err)
	}
	return nil
}

func (s *Service) listScheduledAudits(ctx context.Context, caller awsapi.Caller, in *ListScheduledAuditsInput) (*ListScheduledAuditsOutput, error) {
	return view(ctx, s, func(tx imprint.ReadTx) (*ListScheduledAuditsOutput, error) {
		ascending := true
		found, next, err := tx.ScheduledAudits(tenantOf(caller), page(in.MaxResults, in.NextToken, &ascending))
		out := &ListScheduledAuditsOutput{ScheduledAudits: make([]ScheduledAuditMetadata, 0, len(found)), NextToken: next}
		for _, one := range found {
			out.ScheduledAudits = append(out.ScheduledAudits, ScheduledAuditMetadata{
				ScheduledAuditName: one.Name, ScheduledAuditArn: one.ARN(), Frequency: AuditFrequency(one.Frequency),
				DayOfMonth: one.DayOfMonth, DayOfWeek: DayOfWeek(one.DayOfWeek),
			})
		}
		return out, err
	})
}
