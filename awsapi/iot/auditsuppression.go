package iot

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
)

// auditSuppressionRoutes say what audits needn't tell any more (AWS IoT API reference,
// CreateAuditSuppression and its neighbours).
func (s *Service) auditSuppressionRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(CreateAuditSuppression, s.createAuditSuppression),
		awsapi.Handle(DescribeAuditSuppression, s.describeAuditSuppression),
		awsapi.Handle(UpdateAuditSuppression, s.updateAuditSuppression),
		awsapi.Handle(DeleteAuditSuppression, s.deleteAuditSuppression),
		awsapi.Handle(ListAuditSuppressions, s.listAuditSuppressions),
	}
}

// suppressionOf gives check and resource of a request.
func suppressionOf(tenant imprint.Tenant, check string, id *ResourceIdentifier) (imprint.AuditSuppression, error) {
	s := imprint.AuditSuppression{Tenant: tenant, Check: imprint.AuditCheck(check)}
	_, err := audit.Describe(s.Check)
	if err != nil {
		return s, err
	}
	s.Resource, err = auditResourceOf(*id)
	return s, err
}

// setExpiry sets until when a suppression holds: one of the two members says it.
func setExpiry(s *imprint.AuditSuppression, at *time.Time, forever *bool, now time.Time) error {
	always := forever != nil && *forever
	switch {
	case always == (at != nil):
		return imprint.Errorf(imprint.CodeInvalidRequest, "Either expirationDate must be given, or suppressIndefinitely be true.")
	case always:
		s.ExpiresAt = time.Time{}
	case !at.After(now):
		return imprint.Errorf(imprint.CodeInvalidRequest, "expirationDate is in the past.")
	default:
		s.ExpiresAt = *at
	}
	return nil
}

// createAuditSuppression answers the same request twice in the same way.
func (s *Service) createAuditSuppression(ctx context.Context, caller awsapi.Caller, in *CreateAuditSuppressionInput) (*CreateAuditSuppressionOutput, error) {
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	wanted, err := suppressionOf(tenant, in.CheckName, in.ResourceIdentifier)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	wanted.Description, wanted.Token, wanted.CreatedAt = text(in.Description), in.ClientRequestToken, now
	err = setExpiry(&wanted, in.ExpirationDate, in.SuppressIndefinitely, now)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*CreateAuditSuppressionOutput, error) {
		present, err := tx.AuditSuppression(tenant, wanted.Check, wanted.Resource.Key())
		switch {
		case imprint.CodeOf(err) == imprint.CodeNotFound:
		case err != nil:
			return nil, fmt.Errorf("couldn't look for a suppression: %w", err)
		case present.Token == wanted.Token:
			return nil, nil
		case present.Holds(now):
			return nil, imprint.Errorf(imprint.CodeAlreadyExists, "%s is suppressed for this resource already.", wanted.Check).
				WithHint("Change it: aws iot update-audit-suppression; or delete it: aws iot delete-audit-suppression.")
		}
		all, _, err := tx.AuditSuppressions(tenant, imprint.AuditSuppressionFilter{}, imprint.Page{Limit: audit.MaxSuppressions, Ascending: true})
		if err != nil {
			return nil, fmt.Errorf("couldn't read the suppressions: %w", err)
		}
		if len(all) >= audit.MaxSuppressions {
			return nil, imprint.Errorf(imprint.CodeLimitExceeded, "An account has at most %d suppressions.", audit.MaxSuppressions).
				WithHint("Delete those that have expired: aws iot list-audit-suppressions.")
		}
		return nil, tx.PutAuditSuppression(wanted)
	})
}

func readSuppression(tx imprint.ReadTx, wanted imprint.AuditSuppression) (imprint.AuditSuppression, error) {
	found, err := tx.AuditSuppression(wanted.Tenant, wanted.Check, wanted.Resource.Key())
	return found, explainNotFound(err, "Suppression of "+string(wanted.Check)+" for", wanted.Resource.ID)
}

func (s *Service) describeAuditSuppression(ctx context.Context, caller awsapi.Caller, in *DescribeAuditSuppressionInput) (*DescribeAuditSuppressionOutput, error) {
	wanted, err := suppressionOf(tenantOf(caller), in.CheckName, in.ResourceIdentifier)
	if err != nil {
		return nil, err
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*DescribeAuditSuppressionOutput, error) {
		found, err := readSuppression(tx, wanted)
		if err != nil {
			return nil, err
		}
		return new(DescribeAuditSuppressionOutput(auditSuppression(found))), nil
	})
}

func auditSuppression(s imprint.AuditSuppression) AuditSuppression {
	return AuditSuppression{
		CheckName: string(s.Check), ResourceIdentifier: auditResource(s.Tenant, s.Resource), ExpirationDate: s.ExpiresAt,
		SuppressIndefinitely: new(s.ExpiresAt.IsZero()), Description: s.Description,
	}
}

// updateAuditSuppression sets the members that the request has; the others stay.
func (s *Service) updateAuditSuppression(ctx context.Context, caller awsapi.Caller, in *UpdateAuditSuppressionInput) (*UpdateAuditSuppressionOutput, error) {
	wanted, err := suppressionOf(tenantOf(caller), in.CheckName, in.ResourceIdentifier)
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	return update(ctx, s, func(tx imprint.Tx) (*UpdateAuditSuppressionOutput, error) {
		found, err := readSuppression(tx, wanted)
		if err != nil {
			return nil, err
		}
		if in.ExpirationDate != nil || in.SuppressIndefinitely != nil {
			err = setExpiry(&found, in.ExpirationDate, in.SuppressIndefinitely, now)
			if err != nil {
				return nil, err
			}
		}
		if in.Description != nil {
			found.Description = *in.Description
		}
		return nil, tx.PutAuditSuppression(found)
	})
}

// deleteAuditSuppression says nothing of one that isn't there, as its errors at AWS.
func (s *Service) deleteAuditSuppression(ctx context.Context, caller awsapi.Caller, in *DeleteAuditSuppressionInput) (*DeleteAuditSuppressionOutput, error) {
	wanted, err := suppressionOf(tenantOf(caller), in.CheckName, in.ResourceIdentifier)
	if err != nil {
		return nil, err
	}
	return update(ctx, s, func(tx imprint.Tx) (*DeleteAuditSuppressionOutput, error) {
		return nil, tx.DeleteAuditSuppression(wanted.Tenant, wanted.Check, wanted.Resource.Key())
	})
}

func (s *Service) listAuditSuppressions(ctx context.Context, caller awsapi.Caller, in *ListAuditSuppressionsInput) (*ListAuditSuppressionsOutput, error) {
	filter := imprint.AuditSuppressionFilter{Check: imprint.AuditCheck(text(in.CheckName))}
	if filter.Check != "" {
		_, err := audit.Describe(filter.Check)
		if err != nil {
			return nil, err
		}
	}
	if in.ResourceIdentifier != nil {
		key, err := auditResourceKey(*in.ResourceIdentifier)
		if err != nil {
			return nil, err
		}
		filter.Resource = key
	}
	ascending := in.AscendingOrder == nil || *in.AscendingOrder
	return view(ctx, s, func(tx imprint.ReadTx) (*ListAuditSuppressionsOutput, error) {
		found, next, err := tx.AuditSuppressions(tenantOf(caller), filter, page(in.MaxResults, in.NextToken, &ascending))
		out := &ListAuditSuppressionsOutput{Suppressions: make([]AuditSuppression, 0, len(found)), NextToken: next}
		for _, one := range found {
			out.Suppressions = append(out.Suppressions, auditSuppression(one))
		}
		return out, err
	})
}
