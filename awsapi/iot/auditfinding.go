package iot

import (
	"context"
	"encoding/base64"
	"maps"
	"strconv"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
)

// auditFindingRoutes are what audits found (AWS IoT API reference, ListAuditFindings
// and its neighbours).
func (s *Service) auditFindingRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(ListAuditFindings, s.listAuditFindings),
		awsapi.Handle(DescribeAuditFinding, s.describeAuditFinding),
		awsapi.Handle(ListRelatedResourcesForAuditFinding, s.listRelatedResources),
	}
}

// listAuditFindings lists those of one task or of a time.
func (s *Service) listAuditFindings(ctx context.Context, caller awsapi.Caller, in *ListAuditFindingsInput) (*ListAuditFindingsOutput, error) {
	filter := imprint.AuditFindingFilter{Task: text(in.TaskId), Check: imprint.AuditCheck(text(in.CheckName))}
	switch {
	case (filter.Task != "") == (in.StartTime != nil || in.EndTime != nil):
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "Either taskId, or startTime and endTime, must be given, and not both.")
	case filter.Task == "" && (in.StartTime == nil || in.EndTime == nil):
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "startTime and endTime must both be given.")
	case filter.Task == "":
		filter.From, filter.To = *in.StartTime, *in.EndTime
	}
	err := checkSpan(filter.From, filter.To)
	if err == nil && filter.Check != "" {
		_, err = audit.Describe(filter.Check)
	}
	if err == nil && in.ResourceIdentifier != nil {
		filter.Resource, err = auditResourceKey(*in.ResourceIdentifier)
	}
	if err != nil {
		return nil, err
	}
	filter.Suppressed = in.ListSuppressedFindings
	return view(ctx, s, func(tx imprint.ReadTx) (*ListAuditFindingsOutput, error) {
		ascending := filter.Task != ""
		found, next, err := tx.AuditFindings(tenantOf(caller), filter, page(in.MaxResults, in.NextToken, &ascending))
		if err != nil {
			return nil, err
		}
		out := &ListAuditFindingsOutput{Findings: make([]AuditFinding, 0, len(found)), NextToken: next}
		for _, f := range found {
			out.Findings = append(out.Findings, auditFinding(f))
		}
		return out, nil
	})
}

func (s *Service) describeAuditFinding(ctx context.Context, caller awsapi.Caller, in *DescribeAuditFindingInput) (*DescribeAuditFindingOutput, error) {
	f, err := view(ctx, s, func(tx imprint.ReadTx) (imprint.AuditFinding, error) {
		return tx.AuditFinding(tenantOf(caller), in.FindingId)
	})
	if err != nil {
		return nil, explainNotFound(err, "Audit finding", in.FindingId)
	}
	return &DescribeAuditFindingOutput{Finding: new(auditFinding(f))}, nil
}

// listRelatedResources gives a page of what a finding has: all of it is in one row.
func (s *Service) listRelatedResources(ctx context.Context, caller awsapi.Caller, in *ListRelatedResourcesForAuditFindingInput) (*ListRelatedResourcesForAuditFindingOutput, error) {
	f, err := view(ctx, s, func(tx imprint.ReadTx) (imprint.AuditFinding, error) {
		return tx.AuditFinding(tenantOf(caller), in.FindingId)
	})
	if err != nil {
		return nil, explainNotFound(err, "Audit finding", in.FindingId)
	}
	related := relatedResources(f)
	from := 0
	if in.NextToken != nil {
		number, err := base64.StdEncoding.DecodeString(*in.NextToken)
		if err == nil {
			from, err = strconv.Atoi(string(number))
		}
		if err != nil || from < 1 || from >= len(related) {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "nextToken isn't one that ListRelatedResourcesForAuditFinding gave")
		}
	}
	out := &ListRelatedResourcesForAuditFindingOutput{RelatedResources: related[from:]}
	if limit := page(in.MaxResults, nil, nil).Limit; len(out.RelatedResources) > limit {
		out.RelatedResources = out.RelatedResources[:limit]
		out.NextToken = base64.StdEncoding.EncodeToString([]byte(strconv.Itoa(from + limit)))
	}
	return out, nil
}

// mitigationInfo is the member of additionalInfo that says what a person can type: the
// API has no other room for it.
const mitigationInfo = "mitigation"

func auditFinding(f imprint.AuditFinding) AuditFinding {
	info := map[string]string{mitigationInfo: f.Mitigation}
	maps.Copy(info, f.Resource.Info)
	return AuditFinding{
		FindingId: f.ID, TaskId: f.Task, CheckName: string(f.Check), TaskStartTime: f.TaskStartedAt, FindingTime: f.FoundAt, Severity: AuditFindingSeverity(f.Severity),
		NonCompliantResource:   &NonCompliantResource{ResourceType: ResourceType(f.Resource.Kind), ResourceIdentifier: auditResource(f.Tenant, f.Resource), AdditionalInfo: info},
		RelatedResources:       relatedResources(f),
		ReasonForNonCompliance: f.Reason, ReasonForNonComplianceCode: f.Code, IsSuppressed: new(f.Suppressed),
	}
}

func relatedResources(f imprint.AuditFinding) []RelatedResource {
	related := make([]RelatedResource, 0, len(f.Related))
	for _, r := range f.Related {
		related = append(related, RelatedResource{ResourceType: ResourceType(r.Kind), ResourceIdentifier: auditResource(f.Tenant, r), AdditionalInfo: r.Info})
	}
	return related
}

// auditResource identifies a resource. Things and templates, which AWS IoT Core's
// audits know nothing of, have no member: their ARN is in additionalInfo.
func auditResource(tenant imprint.Tenant, r imprint.AuditResource) *ResourceIdentifier {
	switch r.Kind {
	case imprint.AuditDeviceCertificate:
		return &ResourceIdentifier{DeviceCertificateId: &r.ID, DeviceCertificateArn: new(tenant.CertificateARN(imprint.CertificateID(r.ID)))}
	case imprint.AuditCACertificate:
		return &ResourceIdentifier{CaCertificateId: &r.ID}
	case imprint.AuditPolicy:
		return &ResourceIdentifier{PolicyVersionIdentifier: &PolicyVersionIdentifier{PolicyName: &r.ID, PolicyVersionId: new(strconv.Itoa(r.Version))}}
	case imprint.AuditClientID:
		return &ResourceIdentifier{ClientId: &r.ID}
	}
	return &ResourceIdentifier{Account: new(string(tenant.Account))}
}

// auditResourceKey is the key of auditResourceOf.
func auditResourceKey(id ResourceIdentifier) (string, error) {
	resource, err := auditResourceOf(id)
	return resource.Key(), err
}

// auditResourceOf is the inverse of auditResource, for what can be asked for.
func auditResourceOf(id ResourceIdentifier) (imprint.AuditResource, error) {
	var none imprint.AuditResource
	var wanted []imprint.AuditResource
	add := func(kind string, member *string) {
		if member != nil {
			wanted = append(wanted, imprint.AuditResource{Kind: kind, ID: *member})
		}
	}
	add(imprint.AuditDeviceCertificate, id.DeviceCertificateId)
	add(imprint.AuditCACertificate, id.CaCertificateId)
	add(imprint.AuditClientID, id.ClientId)
	add(imprint.AuditAccountSettings, id.Account)
	add("COGNITO_IDENTITY_POOL", id.CognitoIdentityPoolId)
	add("IAM_ROLE", id.IamRoleArn)
	add("ROLE_ALIAS", id.RoleAliasArn)
	if id.DeviceCertificateArn != nil && id.DeviceCertificateId == nil {
		owner, resource, err := imprint.ParseARN(*id.DeviceCertificateArn)
		if err != nil {
			return none, err
		}
		certificate, err := owner.ParseCertificateARN(owner.ARN(resource))
		if err != nil {
			return none, err
		}
		wanted = append(wanted, imprint.AuditResource{Kind: imprint.AuditDeviceCertificate, ID: string(certificate)})
	}
	if policy := id.PolicyVersionIdentifier; policy != nil {
		version, err := strconv.Atoi(text(policy.PolicyVersionId))
		if err != nil || version < 1 || policy.PolicyName == nil {
			return none, imprint.Errorf(imprint.CodeInvalidRequest, "policyVersionIdentifier needs policyName and policyVersionId.")
		}
		wanted = append(wanted, imprint.AuditResource{Kind: imprint.AuditPolicy, ID: *policy.PolicyName, Version: version})
	}
	if len(wanted) != 1 {
		return none, imprint.Errorf(imprint.CodeInvalidRequest, "resourceIdentifier must name one resource.")
	}
	return wanted[0], nil
}
