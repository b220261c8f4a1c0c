package audit_test

import (
	"context"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/audit"
)

// found puts an audit that is over, with findings of checks about resources.
func (h *house) found(findings ...imprint.AuditFinding) {
	h.t.Helper()
	h.put(func(tx imprint.Tx) error {
		err := tx.PutAuditTask(imprint.AuditTask{Tenant: home, ID: audited, Status: imprint.AuditCompleted, CreatedAt: instant})
		for _, f := range findings {
			f.Tenant, f.Task = home, audited
			if f.ID == "" {
				f.ID = f.Resource.ID
			}
			if err == nil {
				err = tx.PutAuditFinding(f)
			}
		}
		return err
	})
}

func about(check imprint.AuditCheck, kind, id string) imprint.AuditFinding {
	return imprint.AuditFinding{Check: check, Resource: imprint.AuditResource{Kind: kind, ID: id}, Code: "FOUND"}
}

// aboutPolicy is a finding about a version of a policy.
func aboutPolicy(name string, version int) imprint.AuditFinding {
	f := about(audit.PolicyOverlyPermissive, imprint.AuditPolicy, name)
	f.Resource.Version = version
	return f
}

// actions puts an action of each kind: device, ca, policy, and things, which join the
// groups that are given.
func (h *house) actions(groups ...imprint.ThingGroupName) {
	h.t.Helper()
	h.put(func(tx imprint.Tx) error {
		for name, kind := range map[string]imprint.MitigationKind{"device": imprint.MitigateDeviceCertificate, "ca": imprint.MitigateCACertificate, "policy": imprint.MitigatePolicy,
			"things": imprint.MitigateThingGroup} {
			action := imprint.MitigationAction{Tenant: home, Name: name, ID: "id of " + name, Kind: kind}
			if kind == imprint.MitigateThingGroup {
				action.Groups = groups
			}
			err := tx.PutMitigationAction(action)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// mitigate begins a task about the findings of the audit.
func (h *house) mitigate(a *audit.Auditor, id string, mapping map[imprint.AuditCheck][]string, findings ...string) {
	h.t.Helper()
	task := imprint.MitigationTask{Tenant: home, ID: id, Token: "token", Audit: audited, Mapping: mapping}
	if len(findings) > 0 {
		task.Audit, task.Findings = "", findings
	}
	_, err := a.StartMitigation(h.t.Context(), task)
	if err != nil {
		h.t.Fatalf("couldn't start a mitigation: %v", err)
	}
}

func (h *house) mitigation(id string) imprint.MitigationTask {
	h.t.Helper()
	var task imprint.MitigationTask
	h.view(func(tx imprint.ReadTx) (err error) {
		task, err = tx.MitigationTask(home, id)
		return err
	})
	return task
}

func (h *house) view(fn func(imprint.ReadTx) error) {
	h.t.Helper()
	err := h.store.View(context.Background(), fn)
	if err != nil {
		h.t.Fatalf("couldn't read: %v", err)
	}
}

// mitigated waits for the end of a task.
func (h *house) mitigated(id string) imprint.MitigationTask {
	h.t.Helper()
	h.eventually("mitigation "+id+" is over", func() bool { return h.mitigation(id).Status != imprint.AuditInProgress })
	return h.mitigation(id)
}

// outcomes are what came of a task for a finding as "action STATUS code".
func (h *house) outcomes(task, finding string) []string {
	h.t.Helper()
	var all []string
	h.view(func(tx imprint.ReadTx) error {
		found, err := tx.MitigationExecutions(home, task, finding)
		for _, e := range found {
			all = append(all, strings.TrimSpace(e.Action+" "+string(e.Status)+" "+e.Code))
			if (e.Message == "") != (e.Status == imprint.MitigationCompleted) || e.ActionID != "id of "+e.Action || e.StartedAt.IsZero() || e.EndedAt.IsZero() {
				h.t.Errorf("execution %+v lacks something, or has too much", e)
			}
		}
		return err
	})
	return all
}

// groups puts root groups, and things that have a certificate.
func (h *house) groups(names ...imprint.ThingGroupName) {
	h.t.Helper()
	h.put(func(tx imprint.Tx) error {
		for _, name := range names {
			err := tx.PutThingGroup(imprint.ThingGroup{Tenant: home, Name: name})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *house) things(certificate imprint.CertificateID, names ...imprint.ThingName) {
	h.t.Helper()
	h.put(func(tx imprint.Tx) error {
		for _, name := range names {
			err := tx.PutThing(imprint.Thing{Tenant: home, Name: name})
			if err == nil && certificate != "" {
				err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: home, Thing: name, Certificate: certificate})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// in gives the groups that a thing is in.
func (h *house) in(thing imprint.ThingName) (groups []string) {
	h.t.Helper()
	h.view(func(tx imprint.ReadTx) error {
		found, _, err := tx.ThingMemberships(home, thing, imprint.Page{Limit: 99, Ascending: true})
		for _, m := range found {
			groups = append(groups, string(m.Group))
		}
		return err
	})
	slices.Sort(groups)
	return groups
}
