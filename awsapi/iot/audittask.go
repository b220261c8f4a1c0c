package iot

import (
	"context"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// auditTaskRoutes are the audits themselves (AWS IoT API reference,
// StartOnDemandAuditTask and its neighbours).
func (s *Service) auditTaskRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(StartOnDemandAuditTask, s.startAuditTask),
		awsapi.Handle(DescribeAuditTask, s.describeAuditTask),
		awsapi.Handle(ListAuditTasks, s.listAuditTasks),
		awsapi.Handle(CancelAuditTask, s.cancelAuditTask),
	}
}

func (s *Service) startAuditTask(ctx context.Context, caller awsapi.Caller, in *StartOnDemandAuditTaskInput) (*StartOnDemandAuditTaskOutput, error) {
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	task, err := s.rooms.Audit.Start(ctx, imprint.AuditTask{Tenant: tenant, Type: imprint.AuditOnDemand, StartedBy: caller.PrincipalARN}, auditChecks(in.TargetCheckNames), true)
	if err != nil {
		return nil, err
	}
	return &StartOnDemandAuditTaskOutput{TaskId: task.ID}, nil
}

func auditChecks(names []string) []imprint.AuditCheck {
	checks := make([]imprint.AuditCheck, len(names))
	for n, name := range names {
		checks[n] = imprint.AuditCheck(name)
	}
	return checks
}

func (s *Service) describeAuditTask(ctx context.Context, caller awsapi.Caller, in *DescribeAuditTaskInput) (*DescribeAuditTaskOutput, error) {
	task, err := view(ctx, s, func(tx imprint.ReadTx) (imprint.AuditTask, error) { return tx.AuditTask(tenantOf(caller), in.TaskId) })
	if err != nil {
		return nil, explainNotFound(err, "Audit task", in.TaskId)
	}
	out := &DescribeAuditTaskOutput{
		TaskStatus: AuditTaskStatus(task.Status), TaskType: AuditTaskType(task.Type), TaskStartTime: task.CreatedAt,
		ScheduledAuditName: task.Schedule, AuditDetails: map[string]AuditCheckDetails{},
	}
	counts := map[imprint.AuditRunStatus]int{}
	for _, run := range task.Runs {
		counts[run.Status]++
		out.AuditDetails[string(run.Check)] = auditDetails(task, run)
	}
	count := func(status imprint.AuditRunStatus) *int { return new(counts[status]) }
	out.TaskStatistics = &TaskStatistics{
		TotalChecks: new(len(task.Runs)), InProgressChecks: count(imprint.AuditRunInProgress), WaitingForDataCollectionChecks: count(imprint.AuditRunWaiting),
		CompliantChecks: count(imprint.AuditRunCompliant), NonCompliantChecks: count(imprint.AuditRunNonCompliant),
		FailedChecks: count(imprint.AuditRunFailed), CanceledChecks: count(imprint.AuditRunCanceled),
	}
	return out, nil
}

// auditDetails tells of one check. What there is to say about the whole task has no
// member of its own in the API.
func auditDetails(task imprint.AuditTask, run imprint.AuditRun) AuditCheckDetails {
	details := AuditCheckDetails{
		CheckRunStatus: AuditCheckRunStatus(run.Status), TotalResourcesCount: new(run.Resources), NonCompliantResourcesCount: new(run.NonCompliant),
		SuppressedNonCompliantResourcesCount: new(run.Suppressed), ErrorCode: run.Code, Message: run.Message,
	}
	if details.Message == "" {
		details.Message = task.Message
	}
	if run.Status == imprint.AuditRunCompliant || run.Status == imprint.AuditRunNonCompliant {
		details.CheckCompliant = new(run.Status == imprint.AuditRunCompliant)
	}
	return details
}

func (s *Service) listAuditTasks(ctx context.Context, caller awsapi.Caller, in *ListAuditTasksInput) (*ListAuditTasksOutput, error) {
	err := checkSpan(in.StartTime, in.EndTime)
	if err != nil {
		return nil, err
	}
	filter := imprint.AuditTaskFilter{From: in.StartTime, To: in.EndTime}
	if in.TaskType != nil {
		filter.Type = imprint.AuditTaskType(*in.TaskType)
	}
	if in.TaskStatus != nil {
		filter.Status = imprint.AuditTaskStatus(*in.TaskStatus)
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*ListAuditTasksOutput, error) {
		found, next, err := tx.AuditTasks(tenantOf(caller), filter, page(in.MaxResults, in.NextToken, nil))
		out := &ListAuditTasksOutput{Tasks: make([]AuditTaskMetadata, 0, len(found)), NextToken: next}
		for _, task := range found {
			out.Tasks = append(out.Tasks, AuditTaskMetadata{TaskId: task.ID, TaskStatus: AuditTaskStatus(task.Status), TaskType: AuditTaskType(task.Type)})
		}
		return out, err
	})
}

// checkSpan refuses a time that ends before it begins.
func checkSpan(from, to time.Time) error {
	if to.Before(from) {
		return imprint.Errorf(imprint.CodeInvalidRequest, "endTime is before startTime.")
	}
	return nil
}

func (s *Service) cancelAuditTask(ctx context.Context, caller awsapi.Caller, in *CancelAuditTaskInput) (*CancelAuditTaskOutput, error) {
	return nil, explainNotFound(s.rooms.Audit.Cancel(ctx, tenantOf(caller), in.TaskId), "Audit task", in.TaskId)
}
