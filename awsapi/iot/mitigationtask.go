package iot

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
)

// mitigationTaskRoutes apply actions to findings (AWS IoT API reference,
// StartAuditMitigationActionsTask and its neighbours).
func (s *Service) mitigationTaskRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.HandleAsking(StartAuditMitigationActionsTask, s.asksToStartMitigation, s.startMitigationTask),
		awsapi.Handle(DescribeAuditMitigationActionsTask, s.describeMitigationTask),
		awsapi.Handle(ListAuditMitigationActionsTasks, s.listMitigationTasks),
		awsapi.Handle(CancelAuditMitigationActionsTask, s.cancelMitigationTask),
		awsapi.Handle(ListAuditMitigationActionsExecutions, s.listMitigationExecutions),
	}
}

// asksToStartMitigation are what the caller must be allowed: to start tasks, and what
// each action of this one does.
func (s *Service) asksToStartMitigation(ctx context.Context, caller awsapi.Caller, in *StartAuditMitigationActionsTaskInput) ([]awsapi.Ask, error) {
	asks := []awsapi.Ask{{Resource: "*"}}
	return view(ctx, s, func(tx imprint.ReadTx) ([]awsapi.Ask, error) {
		all := slices.Clone(asks)
		for _, names := range in.AuditCheckToActionsMapping {
			for _, name := range names {
				action, err := tx.MitigationAction(tenantOf(caller), name)
				switch {
				case imprint.CodeOf(err) == imprint.CodeNotFound: // said by the operation itself
				case err != nil:
					return nil, fmt.Errorf("couldn't read mitigation action %s: %w", name, err)
				default:
					all = append(all, asksToMitigate(caller, action)...)
				}
			}
		}
		return all, nil
	})
}

func (s *Service) startMitigationTask(ctx context.Context, caller awsapi.Caller, in *StartAuditMitigationActionsTaskInput) (*StartAuditMitigationActionsTaskOutput, error) {
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	byCheck := func(of map[string][]string) map[imprint.AuditCheck][]string {
		all := make(map[imprint.AuditCheck][]string, len(of))
		for check, values := range of {
			all[imprint.AuditCheck(check)] = values
		}
		return all
	}
	task, err := s.rooms.Audit.StartMitigation(ctx, imprint.MitigationTask{
		Tenant: tenant, ID: in.TaskId, Token: in.ClientRequestToken, StartedBy: caller.PrincipalARN, Audit: text(in.Target.AuditTaskId), Findings: in.Target.FindingIds,
		Reasons: byCheck(in.Target.AuditCheckToReasonCodeFilter), Mapping: byCheck(in.AuditCheckToActionsMapping),
	})
	if err != nil {
		return nil, err
	}
	return &StartAuditMitigationActionsTaskOutput{TaskId: task.ID}, nil
}

func readMitigationTask(tx imprint.ReadTx, tenant imprint.Tenant, id string) (imprint.MitigationTask, error) {
	found, err := tx.MitigationTask(tenant, id)
	return found, explainNotFound(err, "Audit mitigation actions task", id)
}

func (s *Service) describeMitigationTask(ctx context.Context, caller awsapi.Caller, in *DescribeAuditMitigationActionsTaskInput) (*DescribeAuditMitigationActionsTaskOutput, error) {
	task, err := view(ctx, s, func(tx imprint.ReadTx) (imprint.MitigationTask, error) {
		return readMitigationTask(tx, tenantOf(caller), in.TaskId)
	})
	if err != nil {
		return nil, err
	}
	byName := func(of map[imprint.AuditCheck][]string) map[string][]string {
		all := make(map[string][]string, len(of))
		for check, values := range of {
			all[string(check)] = values
		}
		return all
	}
	out := &DescribeAuditMitigationActionsTaskOutput{
		TaskStatus: AuditMitigationActionsTaskStatus(task.Status), StartTime: task.CreatedAt, EndTime: task.EndedAt,
		TaskStatistics: map[string]TaskStatisticsForAuditCheck{}, Target: &AuditMitigationActionsTaskTarget{FindingIds: task.Findings},
		AuditCheckToActionsMapping: byName(task.Mapping), ActionsDefinition: make([]MitigationAction, 0, len(task.Actions)),
	}
	if task.Audit != "" {
		out.Target.AuditTaskId = &task.Audit
	}
	if len(task.Reasons) > 0 {
		out.Target.AuditCheckToReasonCodeFilter = byName(task.Reasons)
	}
	for check, t := range task.Tallies {
		canceled := int64(0)
		if task.Status == imprint.AuditCanceled {
			canceled = max(t.Total-t.Failed-t.Succeeded-t.Skipped, 0)
		}
		out.TaskStatistics[string(check)] = TaskStatisticsForAuditCheck{
			TotalFindingsCount: new(t.Total), FailedFindingsCount: new(t.Failed), SucceededFindingsCount: new(t.Succeeded), SkippedFindingsCount: new(t.Skipped), CanceledFindingsCount: new(canceled),
		}
	}
	for _, action := range task.Actions {
		out.ActionsDefinition = append(out.ActionsDefinition, MitigationAction{Name: action.Name, Id: action.ID, RoleArn: action.RoleARN, ActionParams: mitigationParams(action)})
	}
	return out, nil
}

func (s *Service) listMitigationTasks(ctx context.Context, caller awsapi.Caller, in *ListAuditMitigationActionsTasksInput) (*ListAuditMitigationActionsTasksOutput, error) {
	err := checkSpan(in.StartTime, in.EndTime)
	if err != nil {
		return nil, err
	}
	filter := imprint.MitigationTaskFilter{From: in.StartTime, To: in.EndTime, Audit: text(in.AuditTaskId), Finding: text(in.FindingId)}
	if in.TaskStatus != nil {
		filter.Status = imprint.AuditTaskStatus(*in.TaskStatus)
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*ListAuditMitigationActionsTasksOutput, error) {
		found, next, err := tx.MitigationTasks(tenantOf(caller), filter, page(in.MaxResults, in.NextToken, nil))
		out := &ListAuditMitigationActionsTasksOutput{Tasks: make([]AuditMitigationActionsTaskMetadata, 0, len(found)), NextToken: next}
		for _, task := range found {
			out.Tasks = append(out.Tasks, AuditMitigationActionsTaskMetadata{TaskId: task.ID, StartTime: task.CreatedAt, TaskStatus: AuditMitigationActionsTaskStatus(task.Status)})
		}
		return out, err
	})
}

func (s *Service) cancelMitigationTask(ctx context.Context, caller awsapi.Caller, in *CancelAuditMitigationActionsTaskInput) (*CancelAuditMitigationActionsTaskOutput, error) {
	return nil, explainCanceled(s.rooms.Audit.CancelMitigation(ctx, tenantOf(caller), in.TaskId), in.TaskId)
}

// explainCanceled names a task that isn't there as the caller knows it.
func explainCanceled(err error, id string) error {
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return notFound("Audit mitigation actions task", id)
	}
	return err
}

// listMitigationExecutions gives what came of the actions for one finding, and, of
// those that have no row, what will.
func (s *Service) listMitigationExecutions(ctx context.Context, caller awsapi.Caller, in *ListAuditMitigationActionsExecutionsInput) (*ListAuditMitigationActionsExecutionsOutput, error) {
	all, err := view(ctx, s, func(tx imprint.ReadTx) ([]imprint.MitigationExecution, error) {
		return executionsOf(tx, tenantOf(caller), in.TaskId, in.FindingId)
	})
	if err != nil {
		return nil, err
	}
	if in.ActionStatus != nil {
		all = slices.DeleteFunc(all, func(e imprint.MitigationExecution) bool { return string(e.Status) != string(*in.ActionStatus) })
	}
	from := 0
	if in.NextToken != nil {
		number, err := base64.StdEncoding.DecodeString(*in.NextToken)
		if err == nil {
			from, err = strconv.Atoi(string(number))
		}
		if err != nil || from < 1 {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "nextToken isn't one that ListAuditMitigationActionsExecutions gave")
		}
		from = min(from, len(all))
	}
	out := &ListAuditMitigationActionsExecutionsOutput{ActionsExecutions: []AuditMitigationActionExecutionMetadata{}}
	limit := page(in.MaxResults, nil, nil).Limit
	for _, e := range all[from:min(from+limit, len(all))] {
		out.ActionsExecutions = append(out.ActionsExecutions, AuditMitigationActionExecutionMetadata{
			TaskId: e.Task, FindingId: e.Finding, ActionName: e.Action, ActionId: e.ActionID, Status: AuditMitigationActionsExecutionStatus(e.Status),
			StartTime: e.StartedAt, EndTime: e.EndedAt, ErrorCode: e.Code, Message: e.Message,
		})
	}
	if from+limit < len(all) {
		out.NextToken = base64.StdEncoding.EncodeToString([]byte(strconv.Itoa(from + limit)))
	}
	return out, nil
}

// executionsOf gives the executions of a task for a finding in the order of its
// actions. A task or a finding that isn't there has none, as the operation's errors at
// AWS have none for it.
func executionsOf(tx imprint.ReadTx, tenant imprint.Tenant, id, finding string) ([]imprint.MitigationExecution, error) {
	task, err := tx.MitigationTask(tenant, id)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't read mitigation task %s: %w", id, err)
	}
	done, err := tx.MitigationExecutions(tenant, id, finding)
	if err != nil {
		return nil, fmt.Errorf("couldn't read what task %s did: %w", id, err)
	}
	if len(done) > 0 {
		return done, nil
	}
	f, err := tx.AuditFinding(tenant, finding)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't read finding %s: %w", finding, err)
	}
	status := imprint.MitigationPending
	switch {
	case !audit.Targets(&task, &f):
		return nil, nil
	case task.Status == imprint.AuditCanceled, task.Status == imprint.AuditFailed:
		status = imprint.MitigationCanceled
	case task.Status != imprint.AuditInProgress:
		return nil, nil
	}
	var all []imprint.MitigationExecution
	for _, action := range task.Actions {
		if slices.Contains(task.Mapping[f.Check], action.Name) {
			all = append(all, imprint.MitigationExecution{Tenant: tenant, Task: id, Finding: finding, Action: action.Name, ActionID: action.ID, Status: status})
		}
	}
	return all, nil
}
