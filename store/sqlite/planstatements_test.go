package sqlite

import (
	"strconv"
	"time"

	"github.com/imprint-iot/imprint"
)

// sessions runs all statements of sessions, queues and retained messages but
// the paged list.
func sessions(tx imprint.Tx, tenant imprint.Tenant, keep func(error)) {
	_, err := tx.PendingCertificate(tenant, "a")
	keep(err)
	_, err = tx.PendingCertificatesDue(time.Unix(1, 0), 1)
	keep(err)
	_, err = tx.ProvisioningClaim(tenant, "a")
	keep(err)
	_, err = tx.ProvisioningClaimsDue(time.Unix(1, 0), 1)
	keep(err)
	_, err = tx.CertificateProviders(tenant)
	keep(err)
	_, err = tx.ClaimGuard(tenant, "a")
	keep(err)
	_, err = tx.ClaimSerial(tenant, "a", "b")
	keep(err)
	_, err = tx.DeleteClaimSerials(tenant, "a", 1)
	keep(err)
	_, err = tx.Sessions(0, 1)
	keep(err)
	_, err = tx.SessionSubscriptions(0, "", 1)
	keep(err)
	_, err = tx.ShareGroups(0, 1)
	keep(err)
	_, err = tx.QueueSizes(0, 1)
	keep(err)
	_, err = tx.QueuedShared(1, 0, 1, 1)
	keep(err)
	_, err = tx.Queued(1, 0, 1, 1)
	keep(err)
	_, err = tx.Retained(tenant, "a")
	keep(err)
	keep(tx.DeleteQueued(1, 1))
	keep(tx.DeleteQueuedAll(1, make([]int64, 64+16+4+1)))
	keep(tx.DeleteSessionSubscription(1, "a"))
	keep(tx.DeleteSession(1))
	keep(tx.DeleteShareGroup(1))
	keep(tx.DeleteRetained(tenant, "a"))
}

// functionStatements runs all statements of functions but the paged lists.
func functionStatements(tx imprint.Tx, tenant imprint.Tenant, keep func(error)) {
	_, err := tx.Function(tenant, "a", imprint.LatestVersion)
	keep(err)
	_, err = tx.FunctionByHandler(tenant, "r", "h")
	keep(err)
	_, err = tx.FunctionCode("c")
	keep(err)
	_, err = tx.FunctionCodeBytes("c")
	keep(err)
	_, err = tx.FunctionAlias(tenant, "a", "a")
	keep(err)
	_, err = tx.FunctionPermissions(tenant, "a", "")
	keep(err)
	_, err = tx.CallTenants()
	keep(err)
	_, err = tx.CallQueues(tenant, "", 10)
	keep(err)
	_, err = tx.QueuedCalls(tenant, "a", time.Unix(1, 0), 1)
	keep(err)
	_, err = tx.QueuedCall("a")
	keep(err)
	_, err = tx.NextCall(time.Unix(1, 0))
	keep(err)
	_, err = tx.QueuedCallUnits(tenant)
	keep(err)
	keep(tx.DeleteQueuedCall("a"))
	keep(tx.DeleteFunctionPermission(tenant, "a", "", "a"))
	keep(tx.DeleteFunctionAlias(tenant, "a", "a"))
	keep(tx.DeleteFunction(tenant, "a", "1"))
	keep(tx.DeleteFunction(tenant, "a", imprint.LatestVersion))
}

// deliveryStatements runs all statements of what rules owe.
func deliveryStatements(tx imprint.Tx, tenant imprint.Tenant, keep func(error)) {
	for _, id := range []string{"a", "b"} {
		keep(tx.PutRuleDelivery(imprint.RuleDelivery{ID: id, Tenant: tenant, Kind: "http", Queue: id}))
	}
	_, err := tx.DeliveryTenants()
	keep(err)
	_, err = tx.DeliveryQueues(tenant, "", 10)
	keep(err)
	_, err = tx.RuleDeliveries(tenant, "a", time.Unix(1, 0), 1)
	keep(err)
	_, err = tx.RuleDelivery("a")
	keep(err)
	_, err = tx.NextRuleDelivery(time.Unix(1, 0))
	keep(err)
	_, err = tx.RuleDeliveryUnits(tenant)
	keep(err)
	_, err = tx.RuleDestinationByToken("a")
	keep(err)
	keep(tx.DeleteRuleDelivery("a"))
}

// auditStatements runs all statements of audits but the paged lists.
func auditStatements(tx imprint.Tx, tenant imprint.Tenant, keep func(error)) {
	_, err := tx.AuditConfiguration(tenant)
	keep(err)
	_, err = tx.AuditTask(tenant, "a")
	keep(err)
	_, err = tx.RunningAuditTasks()
	keep(err)
	_, err = tx.AuditFinding(tenant, "a")
	keep(err)
	_, err = tx.AuditSuppression(tenant, "a", "a")
	keep(err)
	_, _, err = tx.AuditSuppressions(tenant, imprint.AuditSuppressionFilter{}, imprint.Page{Limit: 1})
	keep(err)
	keep(tx.DeleteAuditSuppression(tenant, "a", "a"))
	_, err = tx.MitigationAction(tenant, "a")
	keep(err)
	_, _, err = tx.MitigationActions(tenant, "", imprint.Page{Limit: 1})
	keep(err)
	keep(tx.DeleteMitigationAction(tenant, "a"))
	_, err = tx.MitigationTask(tenant, "a")
	keep(err)
	_, _, err = tx.MitigationTasks(tenant, imprint.MitigationTaskFilter{}, imprint.Page{Limit: 1})
	keep(err)
	_, err = tx.RunningMitigationTasks()
	keep(err)
	_, err = tx.MitigationExecutions(tenant, "a", "a")
	keep(err)
	_, err = tx.DeleteMitigationExecutions(tenant, "a", 1)
	keep(err)
	keep(tx.DeleteMitigationTask(tenant, "a"))
	_, err = tx.ScheduledAudit(tenant, "a")
	keep(err)
	_, err = tx.ScheduledAuditsDue(time.Unix(1, 0), 1)
	keep(err)
	_, err = tx.NextScheduledAudit()
	keep(err)
	for _, check := range []imprint.AuditCheck{"", "a"} {
		_, err = tx.DeleteAuditFindings(tenant, "a", check, 1)
		keep(err)
	}
	keep(tx.DeleteAuditTask(tenant, "a"))
	keep(tx.DeleteAuditConfiguration(tenant))
	keep(tx.DeleteScheduledAudit(tenant, "a"))
}

// putFunctions makes two of each of what functions have.
func putFunctions(tx imprint.Tx, tenant imprint.Tenant, keep func(error)) {
	for n, id := range []string{"a", "b"} {
		name := imprint.FunctionName(id)
		f := imprint.Function{Tenant: tenant, Name: name, Version: imprint.LatestVersion, Runtime: "r", Handler: "h", CodeSHA256: "c"}
		keep(tx.PutFunction(f))
		f.Name, f.Version = "a", strconv.Itoa(n+1)
		keep(tx.PutFunction(f))
		keep(tx.PutFunctionAlias(imprint.FunctionAlias{Tenant: tenant, Function: "a", Name: id}))
		keep(tx.PutFunctionPermission(imprint.FunctionPermission{Tenant: tenant, Function: "a", StatementID: id}))
		keep(tx.PutQueuedCall(imprint.QueuedCall{ID: id, Tenant: tenant, Function: "a"}))
	}
}
