package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
)

// MaxMitigationActions is how many a tenant may have (AWS IoT Device Defender quotas).
const MaxMitigationActions = 100

// remedies are the actions that a check's findings can have. Those of AWS's checks
// are AWS IoT Device Defender's ("Audit check to mitigation action mapping"), but for
// the two kinds that can't be here.
var remedies = map[imprint.AuditCheck][]imprint.MitigationKind{
	DeviceCertificateShared:     {imprint.MitigateDeviceCertificate, imprint.MitigateThingGroup},
	DeviceCertificateExpiring:   {imprint.MitigateDeviceCertificate, imprint.MitigateThingGroup},
	DeviceCertificateAge:        {imprint.MitigateDeviceCertificate, imprint.MitigateThingGroup},
	DeviceCertificateKeyQuality: {imprint.MitigateDeviceCertificate, imprint.MitigateThingGroup},
	RevokedIntermediate:         {imprint.MitigateDeviceCertificate, imprint.MitigateThingGroup},
	RevokedDeviceCertificate:    {imprint.MitigateDeviceCertificate, imprint.MitigateThingGroup},
	CACertificateExpiring:       {imprint.MitigateCACertificate},
	CACertificateKeyQuality:     {imprint.MitigateCACertificate},
	RevokedCACertificate:        {imprint.MitigateCACertificate},
	PolicyOverlyPermissive:      {imprint.MitigatePolicy},
	ClaimOverQuota:              {imprint.MitigateDeviceCertificate},
	ClaimPolicyTooWide:          {imprint.MitigatePolicy},
	CertificatePending:          {imprint.MitigateDeviceCertificate, imprint.MitigateThingGroup},
	ThingWithoutCertificate:     {imprint.MitigateThingGroup},
}

// Remedies lists the kinds of actions that findings of a check can have.
func Remedies(check imprint.AuditCheck) []imprint.MitigationKind {
	return slices.Clone(remedies[check])
}

// StartMitigation begins a task, which is durable when StartMitigation returns. Of the
// task, the members Tenant, ID, Token, StartedBy, Audit, Findings, Reasons and Mapping
// count. The same request again gives the same task. Errors: CodeInvalidRequest;
// CodeTaskAlreadyExists; CodeLimitExceeded while MaxRunning others are in progress.
func (a *Auditor) StartMitigation(ctx context.Context, task imprint.MitigationTask) (imprint.MitigationTask, error) {
	now := a.clock()
	again := false
	err := a.store.Update(ctx, func(tx imprint.Tx) error {
		again = false
		present, err := tx.MitigationTask(task.Tenant, task.ID)
		switch {
		case imprint.CodeOf(err) == imprint.CodeNotFound:
		case err != nil:
			return err
		case task.Token != "" && present.Token == task.Token:
			task, again = present, true
			return nil
		default:
			return imprint.Errorf(imprint.CodeTaskAlreadyExists, "mitigation task %s exists already", task.ID)
		}
		running, err := tx.RunningMitigationTasks()
		if err != nil {
			return err
		}
		count := 0
		for i := range running {
			if running[i].Tenant == task.Tenant {
				count++
			}
		}
		if count >= MaxRunning {
			return imprint.Errorf(imprint.CodeLimitExceeded, "%d mitigation tasks are in progress", count).
				WithHint("Wait for one, or cancel it: aws iot cancel-audit-mitigation-actions-task --task-id ID")
		}
		task.Actions, err = actionsOf(tx, task)
		if err == nil {
			err = checkTarget(tx, task)
		}
		if err != nil {
			return err
		}
		task.Status, task.CreatedAt, task.ModifiedAt = imprint.AuditInProgress, now, now
		return tx.PutMitigationTask(task)
	})
	if err != nil {
		return task, err
	}
	if !again {
		a.launchMitigation(task)
	}
	return task, nil
}

// actionsOf reads the actions of a task, each once and by name, which must fit their
// checks.
func actionsOf(tx imprint.ReadTx, task imprint.MitigationTask) ([]imprint.MitigationAction, error) {
	if len(task.Mapping) == 0 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "auditCheckToActionsMapping names no check")
	}
	found := map[string]imprint.MitigationAction{}
	for check, names := range task.Mapping {
		_, err := Describe(check)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "auditCheckToActionsMapping has no action for %s", check)
		}
		for n, name := range names {
			if slices.Contains(names[:n], name) {
				return nil, imprint.Errorf(imprint.CodeInvalidRequest, "action %s is there twice for %s", name, check)
			}
			action, err := tx.MitigationAction(task.Tenant, name)
			if imprint.CodeOf(err) == imprint.CodeNotFound {
				return nil, imprint.Errorf(imprint.CodeInvalidRequest, "mitigation action %s cannot be found", name).WithHint("aws iot list-mitigation-actions lists them.")
			}
			if err != nil {
				return nil, fmt.Errorf("couldn't read mitigation action %s: %w", name, err)
			}
			if kinds := remedies[check]; !slices.Contains(kinds, action.Kind) {
				hint := fmt.Sprintf("It can have: %s.", joined(kinds))
				if len(kinds) == 0 {
					hint = "Nothing can be done about it by itself: aws iot list-audit-findings says what to type."
				}
				return nil, imprint.Errorf(imprint.CodeInvalidRequest, "action %s is %s, which findings of %s can't have", name, action.Kind, check).WithHint("%s", hint)
			}
			found[name] = action
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b imprint.MitigationAction) int { return strings.Compare(a.Name, b.Name) }), nil
}

func joined(kinds []imprint.MitigationKind) string {
	text := ""
	for n, kind := range kinds {
		if n > 0 {
			text += ", "
		}
		text += string(kind)
	}
	return text
}

// checkTarget looks whether there is what the task is for.
func checkTarget(tx imprint.ReadTx, task imprint.MitigationTask) error {
	switch {
	case (task.Audit == "") == (len(task.Findings) == 0):
		return imprint.Errorf(imprint.CodeInvalidRequest, "either auditTaskId or findingIds must be given, and not both")
	case task.Audit == "" && len(task.Reasons) > 0:
		return imprint.Errorf(imprint.CodeInvalidRequest, "auditCheckToReasonCodeFilter selects findings of an audit: auditTaskId must be given with it")
	}
	for check := range task.Reasons {
		if _, mapped := task.Mapping[check]; !mapped {
			return imprint.Errorf(imprint.CodeInvalidRequest, "auditCheckToReasonCodeFilter has %s, for which auditCheckToActionsMapping has no action", check)
		}
	}
	if task.Audit != "" {
		audit, err := tx.AuditTask(task.Tenant, task.Audit)
		switch {
		case imprint.CodeOf(err) == imprint.CodeNotFound:
			return imprint.Errorf(imprint.CodeInvalidRequest, "audit %s cannot be found", task.Audit).WithHint("aws iot list-audit-tasks lists them.")
		case err != nil:
			return fmt.Errorf("couldn't read audit %s: %w", task.Audit, err)
		case audit.Status == imprint.AuditInProgress:
			return imprint.Errorf(imprint.CodeInvalidRequest, "audit %s is in progress", task.Audit).WithHint("Wait for its end: aws iot describe-audit-task --task-id %s", task.Audit)
		}
		return nil
	}
	for n, id := range task.Findings {
		if slices.Contains(task.Findings[:n], id) {
			return imprint.Errorf(imprint.CodeInvalidRequest, "finding %s is there twice", id)
		}
		f, err := tx.AuditFinding(task.Tenant, id)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return imprint.Errorf(imprint.CodeInvalidRequest, "finding %s cannot be found", id).WithHint("aws iot list-audit-findings lists them.")
		}
		if err != nil {
			return fmt.Errorf("couldn't read finding %s: %w", id, err)
		}
		if _, mapped := task.Mapping[f.Check]; !mapped {
			return imprint.Errorf(imprint.CodeInvalidRequest, "finding %s is of %s, for which auditCheckToActionsMapping has no action", id, f.Check)
		}
	}
	return nil
}

// Targets says whether a finding is one of those that a task is for.
func Targets(task *imprint.MitigationTask, f *imprint.AuditFinding) bool {
	if _, mapped := task.Mapping[f.Check]; !mapped {
		return false
	}
	if task.Audit == "" {
		return slices.Contains(task.Findings, f.ID)
	}
	codes, limited := task.Reasons[f.Check]
	return f.Task == task.Audit && (!limited || slices.Contains(codes, f.Code))
}

// CancelMitigation ends a task where it is: what it did stays done. Errors:
// CodeNotFound, and CodeInvalidRequest for one that is over.
func (a *Auditor) CancelMitigation(ctx context.Context, tenant imprint.Tenant, id string) error {
	err := a.store.Update(ctx, func(tx imprint.Tx) error {
		task, err := tx.MitigationTask(tenant, id)
		if err != nil {
			return err
		}
		if task.Status != imprint.AuditInProgress {
			return imprint.Errorf(imprint.CodeInvalidRequest, "mitigation task %s is over: it is %s", id, task.Status)
		}
		a.endMitigation(&task, imprint.AuditCanceled)
		return tx.PutMitigationTask(task)
	})
	if err == nil {
		a.mitigations.Cancel(tenant, id)
	}
	return err
}

// endMitigation ends a task in memory.
func (a *Auditor) endMitigation(task *imprint.MitigationTask, status imprint.AuditTaskStatus) {
	now := a.clock()
	task.Status, task.EndedAt, task.ModifiedAt = status, now, now
}

// resumeMitigations goes on with tasks that a stop of the server interrupted, each
// after the last finding whose actions are stored.
func (a *Auditor) resumeMitigations(ctx context.Context) error {
	var left []imprint.MitigationTask
	err := a.store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.RunningMitigationTasks()
		left = found
		return err
	})
	if err != nil {
		return err
	}
	for _, task := range left {
		task.Restarts++
		task.ModifiedAt = a.clock()
		if task.Restarts > maxRestarts {
			task.Message = fmt.Sprintf("The server stopped %d times during this task.", task.Restarts)
			a.endMitigation(&task, imprint.AuditFailed)
		}
		err = a.store.Update(ctx, func(tx imprint.Tx) error { return tx.PutMitigationTask(task) })
		if err != nil {
			return err
		}
		if task.Status == imprint.AuditInProgress {
			a.launchMitigation(task)
		}
	}
	return nil
}

// forgetOldMitigations deletes tasks as forgetOld deletes audits.
func (a *Auditor) forgetOldMitigations(tenant imprint.Tenant) {
	filter := imprint.MitigationTaskFilter{To: a.clock()}
	a.forget(tenant, func(tx imprint.ReadTx, p imprint.Page) (found []aged, next string, err error) {
		page, next, err := tx.MitigationTasks(tenant, filter, p)
		for i := range page {
			t := &page[i]
			found = append(found, aged{t.ID, t.Status == imprint.AuditInProgress, t.CreatedAt, t.Executions})
		}
		return found, next, err
	}, func(tx imprint.Tx, id string) (int, error) {
		return tx.DeleteMitigationExecutions(tenant, id, a.opts.Page)
	}, func(tx imprint.Tx, id string) error { return tx.DeleteMitigationTask(tenant, id) })
}
