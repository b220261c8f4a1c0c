// Package audits is Imprint's own operation for audits beside AWS's:
//
//	POST /imprint/audits   StartAudit
//
// It starts an audit like StartOnDemandAuditTask, of checks whether or not the account
// has them enabled, so that a person who asks once need not configure anything. The
// request names them, {"checkNames": ["LOGGING_DISABLED_CHECK"]}, or none: all that
// there are. The answer is the id of the audit, which AWS's operations go on from. It
// is signed like every other request of the control plane; its IAM action is
// imprint:StartAudit.
package audits

import (
	"context"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
)

// Path is where the operation is.
const Path = "/imprint/audits"

// The request and the response.
type (
	// StartAuditInput names the checks; none: all.
	StartAuditInput struct {
		CheckNames []string `api:"body checkNames CheckNames"`
	}
	// StartAuditOutput names the audit.
	StartAuditOutput struct {
		TaskID string `api:"body taskId String"`
	}
)

var codec = restjson.New(restjson.Shapes{
	"CheckNames": {Limits: restjson.AtMost(100), Member: "CheckName"},
	"CheckName":  {Limits: restjson.Between(1, 128)},
}, "InvalidRequestException")

// StartAudit starts an audit.
var StartAudit = awsapi.Define[StartAuditInput, StartAuditOutput](codec, awsapi.Operation{
	Name: "StartAudit", Method: "POST", Path: Path, Action: "imprint:StartAudit", Resource: "*",
})

// Operations lists what the package defines.
func Operations() []awsapi.Operation { return []awsapi.Operation{StartAudit.Operation} }

// Starter starts audits.
type Starter struct{ Auditor *audit.Auditor }

// Routes binds the operation.
func (s Starter) Routes() []awsapi.Route {
	return []awsapi.Route{awsapi.Handle(StartAudit, s.start)}
}

func (s Starter) start(ctx context.Context, caller awsapi.Caller, in *StartAuditInput) (*StartAuditOutput, error) {
	checks := audit.Offered()
	if len(in.CheckNames) > 0 {
		checks = checks[:0]
		for _, name := range in.CheckNames {
			checks = append(checks, imprint.AuditCheck(name))
		}
	}
	tenant := imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
	task, err := s.Auditor.Start(ctx, imprint.AuditTask{Tenant: tenant, Type: imprint.AuditOnDemand, StartedBy: caller.PrincipalARN}, checks, false)
	if err != nil {
		return nil, err
	}
	return &StartAuditOutput{TaskID: task.ID}, nil
}
