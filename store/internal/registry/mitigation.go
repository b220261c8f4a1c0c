package registry

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/imprint-iot/imprint"
)

const (
	mitigationActionColumns = "tenant, name, kind, body"
	mitigationTaskColumns   = "tenant, id, status, audit_task, created_at, body"
	executionColumns        = "tenant, task_id, finding_id, action, body"
)

var (
	putMitigationAction = upsert("mitigation_actions", 2, "tenant", "name", "kind", "body")
	putMitigationTask   = upsert("mitigation_tasks", 2, "tenant", "id", "status", "audit_task", "created_at", "body")
	putExecution        = upsert("mitigation_executions", 4, "tenant", "task_id", "finding_id", "action", "body")

	mitigationActions = newList("es", mitigationActionColumns, "mitigation_actions WHERE tenant = $1", 1, []string{"name"}, scanMitigationAction,
		func(a *imprint.MitigationAction) []any { return []any{a.Name} })
	mitigationTasks = newList("lis", mitigationTaskColumns, "mitigation_tasks WHERE tenant = $1 AND created_at >= $2 AND created_at <= $3", 3,
		[]string{"created_at", "id"}, scanMitigationTask, func(k *imprint.MitigationTask) []any { return []any{millis(k.CreatedAt), k.ID} })
)

// mitigationActionBody is what stands in the column of that name.
type mitigationActionBody struct {
	ID              string                   `json:"id"`
	RoleARN         string                   `json:"role"`
	Groups          []imprint.ThingGroupName `json:"groups,omitempty"`
	OverrideDynamic *bool                    `json:"override,omitempty"`
	CreatedAt       int64                    `json:"created"`
	ModifiedAt      int64                    `json:"modified"`
}

// mitigationTaskBody is what stands in the column of that name.
type mitigationTaskBody struct {
	Token      string                                         `json:"token,omitempty"`
	StartedBy  string                                         `json:"by,omitempty"`
	Findings   []string                                       `json:"findings,omitempty"`
	Reasons    map[imprint.AuditCheck][]string                `json:"reasons,omitempty"`
	Mapping    map[imprint.AuditCheck][]string                `json:"mapping,omitempty"`
	Actions    []snapshot                                     `json:"actions,omitempty"`
	Tallies    map[imprint.AuditCheck]imprint.MitigationTally `json:"tallies,omitempty"`
	Counted    bool                                           `json:"counted,omitempty"`
	Done       string                                         `json:"done,omitempty"`
	Executions int64                                          `json:"executions,omitempty"`
	Restarts   int                                            `json:"restarts,omitempty"`
	Message    string                                         `json:"message,omitempty"`
	EndedAt    int64                                          `json:"ended,omitempty"`
	ModifiedAt int64                                          `json:"modified,omitempty"`
}

// snapshot is an action as a task keeps it.
type snapshot struct {
	Name string                 `json:"name"`
	Kind imprint.MitigationKind `json:"kind"`
	mitigationActionBody
}

// executionBody is what stands in the column of that name.
type executionBody struct {
	ActionID  string                   `json:"actionId"`
	Status    imprint.MitigationStatus `json:"status"`
	Code      string                   `json:"code,omitempty"`
	Message   string                   `json:"message,omitempty"`
	StartedAt int64                    `json:"started"`
	EndedAt   int64                    `json:"ended"`
}

func actionBody(a *imprint.MitigationAction) mitigationActionBody {
	return mitigationActionBody{a.ID, a.RoleARN, a.Groups, a.OverrideDynamic, millis(a.CreatedAt), millis(a.ModifiedAt)}
}

func (b mitigationActionBody) action(tenant imprint.Tenant, name string, kind imprint.MitigationKind) imprint.MitigationAction {
	return imprint.MitigationAction{Tenant: tenant, Name: name, ID: b.ID, Kind: kind, RoleARN: b.RoleARN, Groups: b.Groups, OverrideDynamic: b.OverrideDynamic,
		CreatedAt: readTime(b.CreatedAt), ModifiedAt: readTime(b.ModifiedAt)}
}

func scanMitigationAction(t *Tx, r Rows, a *imprint.MitigationAction) error {
	var tenant, text string
	err := r.Scan(&tenant, &a.Name, (*string)(&a.Kind), &text)
	if err != nil {
		return err
	}
	var body mitigationActionBody
	err = json.Unmarshal([]byte(text), &body)
	if err != nil {
		return fmt.Errorf("couldn't read mitigation action %s: %w", a.Name, err)
	}
	*a = body.action(t.readTenant(tenant), a.Name, a.Kind)
	return nil
}

func scanMitigationTask(t *Tx, r Rows, k *imprint.MitigationTask) error {
	var tenant, text string
	var created int64
	err := r.Scan(&tenant, &k.ID, (*string)(&k.Status), &k.Audit, &created, &text)
	if err != nil {
		return err
	}
	var body mitigationTaskBody
	err = json.Unmarshal([]byte(text), &body)
	if err != nil {
		return fmt.Errorf("couldn't read mitigation task %s: %w", k.ID, err)
	}
	k.Tenant, k.CreatedAt, k.EndedAt, k.ModifiedAt = t.readTenant(tenant), readTime(created), readTime(body.EndedAt), readTime(body.ModifiedAt)
	k.Token, k.StartedBy, k.Findings, k.Reasons, k.Mapping, k.Tallies = body.Token, body.StartedBy, body.Findings, body.Reasons, body.Mapping, body.Tallies
	k.Counted, k.Done, k.Executions, k.Restarts, k.Message = body.Counted, body.Done, body.Executions, body.Restarts, body.Message
	for _, one := range body.Actions {
		k.Actions = append(k.Actions, one.action(k.Tenant, one.Name, one.Kind))
	}
	return nil
}

func scanExecution(t *Tx, r Rows, e *imprint.MitigationExecution) error {
	var tenant, text string
	err := r.Scan(&tenant, &e.Task, &e.Finding, &e.Action, &text)
	if err != nil {
		return err
	}
	var body executionBody
	err = json.Unmarshal([]byte(text), &body)
	if err != nil {
		return fmt.Errorf("couldn't read what action %s of task %s did: %w", e.Action, e.Task, err)
	}
	e.Tenant, e.ActionID, e.Status, e.Code, e.Message = t.readTenant(tenant), body.ActionID, body.Status, body.Code, body.Message
	e.StartedAt, e.EndedAt = readTime(body.StartedAt), readTime(body.EndedAt)
	return nil
}

// MitigationAction implements imprint.MitigationReader.
func (t *Tx) MitigationAction(tenant imprint.Tenant, name string) (imprint.MitigationAction, error) {
	a, found, err := first(t, scanMitigationAction, "SELECT "+mitigationActionColumns+" FROM mitigation_actions WHERE tenant = $1 AND name = $2", t.in(tenant), name)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "mitigation action %q doesn't exist", imprint.Excerpt(name))
	}
	return a, err
}

// MitigationActions implements imprint.MitigationReader.
func (t *Tx) MitigationActions(tenant imprint.Tenant, kind imprint.MitigationKind, p imprint.Page) ([]imprint.MitigationAction, string, error) {
	return mitigationActions.page(t, p, func(a *imprint.MitigationAction) bool { return kind == "" || a.Kind == kind }, t.in(tenant))
}

// MitigationTask implements imprint.MitigationReader.
func (t *Tx) MitigationTask(tenant imprint.Tenant, id string) (imprint.MitigationTask, error) {
	k, found, err := first(t, scanMitigationTask, "SELECT "+mitigationTaskColumns+" FROM mitigation_tasks WHERE tenant = $1 AND id = $2", t.in(tenant), id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "mitigation task %q doesn't exist", imprint.Excerpt(id))
	}
	return k, err
}

// MitigationTasks implements imprint.MitigationReader. The executions of a finding are
// asked for one task after another once the page is read: the tasks of a tenant are
// few.
func (t *Tx) MitigationTasks(tenant imprint.Tenant, f imprint.MitigationTaskFilter, p imprint.Page) ([]imprint.MitigationTask, string, error) {
	found, next, err := mitigationTasks.page(t, p, func(k *imprint.MitigationTask) bool {
		return (f.Status == "" || k.Status == f.Status) && (f.Audit == "" || k.Audit == f.Audit)
	}, t.in(tenant), millis(f.From), millis(f.To))
	if err != nil || f.Finding == "" {
		return found, next, err
	}
	var kept []imprint.MitigationTask
	for _, task := range found {
		of := slices.Contains(task.Findings, f.Finding)
		if !of {
			executions, err := t.MitigationExecutions(tenant, task.ID, f.Finding)
			if err != nil {
				return nil, "", err
			}
			of = len(executions) > 0
		}
		if of {
			kept = append(kept, task)
		}
	}
	return kept, next, nil
}

// RunningMitigationTasks implements imprint.MitigationReader. The status stands in the
// text so that the partial index is found.
func (t *Tx) RunningMitigationTasks() ([]imprint.MitigationTask, error) {
	return all(t, scanMitigationTask, "SELECT "+mitigationTaskColumns+" FROM mitigation_tasks WHERE status = 'IN_PROGRESS' ORDER BY created_at, id LIMIT $1", int64(maxPage))
}

// MitigationExecutions implements imprint.MitigationReader.
func (t *Tx) MitigationExecutions(tenant imprint.Tenant, task, finding string) ([]imprint.MitigationExecution, error) {
	return all(t, scanExecution, "SELECT "+executionColumns+" FROM mitigation_executions WHERE tenant = $1 AND task_id = $2 AND finding_id = $3 ORDER BY action LIMIT 100",
		t.in(tenant), task, finding)
}

// PutMitigationAction implements imprint.MitigationWriter.
func (t *Tx) PutMitigationAction(a imprint.MitigationAction) error {
	text, err := json.Marshal(actionBody(&a))
	if err != nil {
		return fmt.Errorf("couldn't encode mitigation action %s: %w", a.Name, err)
	}
	_, err = t.exec(putMitigationAction, t.in(a.Tenant), a.Name, string(a.Kind), string(text))
	return err
}

// DeleteMitigationAction implements imprint.MitigationWriter.
func (t *Tx) DeleteMitigationAction(tenant imprint.Tenant, name string) error {
	_, err := t.exec("DELETE FROM mitigation_actions WHERE tenant = $1 AND name = $2", t.in(tenant), name)
	return err
}

// PutMitigationTask implements imprint.MitigationWriter.
func (t *Tx) PutMitigationTask(k imprint.MitigationTask) error {
	body := mitigationTaskBody{k.Token, k.StartedBy, k.Findings, k.Reasons, k.Mapping, nil, k.Tallies, k.Counted, k.Done, k.Executions, k.Restarts, k.Message,
		millis(k.EndedAt), millis(k.ModifiedAt)}
	for i := range k.Actions {
		body.Actions = append(body.Actions, snapshot{k.Actions[i].Name, k.Actions[i].Kind, actionBody(&k.Actions[i])})
	}
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("couldn't encode mitigation task %s: %w", k.ID, err)
	}
	_, err = t.exec(putMitigationTask, t.in(k.Tenant), k.ID, string(k.Status), k.Audit, millis(k.CreatedAt), string(text))
	return err
}

// DeleteMitigationTask implements imprint.MitigationWriter.
func (t *Tx) DeleteMitigationTask(tenant imprint.Tenant, id string) error {
	_, err := t.exec("DELETE FROM mitigation_tasks WHERE tenant = $1 AND id = $2 AND NOT EXISTS (SELECT 1 FROM mitigation_executions WHERE tenant = $1 AND task_id = $2)",
		t.in(tenant), id)
	return err
}

// PutMitigationExecution implements imprint.MitigationWriter.
func (t *Tx) PutMitigationExecution(e imprint.MitigationExecution) error {
	text, err := json.Marshal(executionBody{e.ActionID, e.Status, e.Code, e.Message, millis(e.StartedAt), millis(e.EndedAt)})
	if err != nil {
		return fmt.Errorf("couldn't encode what action %s did: %w", e.Action, err)
	}
	_, err = t.exec(putExecution, t.in(e.Tenant), e.Task, e.Finding, e.Action, string(text))
	return err
}

// DeleteMitigationExecutions implements imprint.MitigationWriter.
func (t *Tx) DeleteMitigationExecutions(tenant imprint.Tenant, task string, limit int) (int, error) {
	if limit < 1 {
		return 0, nil
	}
	n, err := t.exec("DELETE FROM mitigation_executions WHERE (tenant, task_id, finding_id, action) IN (SELECT tenant, task_id, finding_id, action FROM mitigation_executions WHERE tenant = $1 AND task_id = $2 ORDER BY finding_id, action LIMIT $3)",
		t.in(tenant), task, int64(min(limit, maxPage)))
	return int(n), err
}
