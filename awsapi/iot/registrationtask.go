package iot

import (
	"context"
	"math"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// registrationTaskRoutes are the operations of bulk registration (AWS IoT API
// reference, StartThingRegistrationTask and its neighbours).
func (s *Service) registrationTaskRoutes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(StartThingRegistrationTask, s.startRegistrationTask),
		awsapi.Handle(StopThingRegistrationTask, s.stopRegistrationTask),
		awsapi.Handle(DescribeThingRegistrationTask, s.describeRegistrationTask),
		awsapi.Handle(ListThingRegistrationTasks, s.listRegistrationTasks),
		awsapi.Handle(ListThingRegistrationTaskReports, s.listRegistrationTaskReports),
	}
}

// startRegistrationTask begins to register the devices of an input file. What is
// wrong with the file is found later, and said by its description.
func (s *Service) startRegistrationTask(ctx context.Context, caller awsapi.Caller, in *StartThingRegistrationTaskInput) (*StartThingRegistrationTaskOutput, error) {
	if !isRoleARN(in.RoleArn) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "roleArn %q is not the ARN of an IAM role.", imprint.Excerpt(in.RoleArn)).
			WithHint("Write it as arn:aws:iam::000000000000:role/NAME.")
	}
	tenant, err := s.tenantFor(ctx, caller)
	if err != nil {
		return nil, err
	}
	task, err := s.rooms.Bulk.Start(ctx, imprint.RegistrationTask{
		Tenant: tenant, TemplateBody: in.TemplateBody, Bucket: in.InputFileBucket, Key: in.InputFileKey, RoleARN: in.RoleArn, StartedBy: caller.PrincipalARN,
	})
	if err != nil {
		return nil, err
	}
	return &StartThingRegistrationTaskOutput{TaskId: task.ID}, nil
}

func (s *Service) stopRegistrationTask(ctx context.Context, caller awsapi.Caller, in *StopThingRegistrationTaskInput) (*StopThingRegistrationTaskOutput, error) {
	return nil, explainTask(s.rooms.Bulk.Stop(ctx, tenantOf(caller), in.TaskId), in.TaskId)
}

func (s *Service) describeRegistrationTask(ctx context.Context, caller awsapi.Caller, in *DescribeThingRegistrationTaskInput) (*DescribeThingRegistrationTaskOutput, error) {
	task, err := view(ctx, s, func(tx imprint.ReadTx) (imprint.RegistrationTask, error) {
		return tx.RegistrationTask(tenantOf(caller), in.TaskId)
	})
	if err != nil {
		return nil, explainTask(err, in.TaskId)
	}
	return &DescribeThingRegistrationTaskOutput{
		TaskId: task.ID, CreationDate: task.CreatedAt, LastModifiedDate: task.ModifiedAt, TemplateBody: task.TemplateBody,
		InputFileBucket: task.Bucket, InputFileKey: task.Key, RoleArn: task.RoleARN, Status: Status(task.Status), Message: task.Message,
		SuccessCount: countOf(task.Succeeded), FailureCount: countOf(task.Failed), PercentageProgress: progressOf(task),
	}, nil
}

// countOf is a count as the API has them, in 32 bits.
func countOf(n int64) *int { return new(int(min(n, math.MaxInt32))) }

func progressOf(task imprint.RegistrationTask) *int {
	switch {
	case task.Status == imprint.TaskCompleted:
		return new(100)
	case task.Size <= 0:
		return new(0)
	}
	return new(int(min(100*task.Offset/task.Size, 100)))
}

func (s *Service) listRegistrationTasks(ctx context.Context, caller awsapi.Caller, in *ListThingRegistrationTasksInput) (*ListThingRegistrationTasksOutput, error) {
	var status imprint.RegistrationTaskStatus
	if in.Status != nil {
		status = imprint.RegistrationTaskStatus(*in.Status)
	}
	return view(ctx, s, func(tx imprint.ReadTx) (*ListThingRegistrationTasksOutput, error) {
		found, next, err := tx.RegistrationTasks(tenantOf(caller), status, page(in.MaxResults, in.NextToken, nil))
		out := &ListThingRegistrationTasksOutput{TaskIds: make([]string, 0, len(found)), NextToken: next}
		for _, task := range found {
			out.TaskIds = append(out.TaskIds, task.ID)
		}
		return out, err
	})
}

// listRegistrationTaskReports gives the URL of a report, which anyone who knows it
// may read for an hour, as those of AWS IoT Core are.
func (s *Service) listRegistrationTaskReports(ctx context.Context, caller awsapi.Caller, in *ListThingRegistrationTaskReportsInput) (*ListThingRegistrationTaskReportsOutput, error) {
	kind := string(in.ReportType)
	there, err := s.rooms.Bulk.HasReport(ctx, tenantOf(caller), in.TaskId, kind)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		// Of these operations it alone has no ResourceNotFoundException in AWS's model.
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "Registration task %s cannot be found.", in.TaskId)
	}
	if err != nil {
		return nil, err
	}
	out := &ListThingRegistrationTaskReportsOutput{ResourceLinks: []string{}, ReportType: in.ReportType}
	if there {
		out.ResourceLinks = append(out.ResourceLinks, s.rooms.ReportURL(tenantOf(caller), in.TaskId, kind))
	}
	return out, nil
}

// explainTask names a task that isn't there as the caller knows it.
func explainTask(err error, id string) error {
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return notFound("Registration task", id)
	}
	return err
}
