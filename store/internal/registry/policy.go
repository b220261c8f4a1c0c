package registry

import (
	"github.com/imprint-iot/imprint"
)

const (
	policyColumns        = "tenant, name, default_version, last_version, created_at, modified_at, generation_id"
	policyVersionColumns = "tenant, policy, version, document, created_at"
)

var (
	putPolicy = upsert("policies", 2, "tenant", "name", "default_version", "last_version", "created_at", "modified_at",
		"generation_id")
	putPolicyVersion    = upsert("policy_versions", 3, "tenant", "policy", "version", "document", "created_at")
	putPolicyAttachment = upsert("policy_attachments", 3, "tenant", "target", "policy")

	policies = newList("Hs", policyColumns, "policies WHERE tenant = $1", 1, []string{"name"}, scanPolicy,
		func(p *imprint.Policy) []any { return []any{string(p.Name)} })
	targetPolicies = newList("Is", "tenant, policy, target", "policy_attachments WHERE tenant = $1 AND target = $2", 2,
		[]string{"policy"}, scanPolicyAttachment,
		func(a *imprint.PolicyAttachment) []any { return []any{string(a.Policy)} })
	policyTargets = newList("Js", "tenant, policy, target", "policy_attachments WHERE tenant = $1 AND policy = $2", 2,
		[]string{"target"}, scanPolicyAttachment,
		func(a *imprint.PolicyAttachment) []any { return []any{a.Target} })
)

func scanPolicy(t *Tx, r Rows, p *imprint.Policy) error {
	var tenant string
	var created, modified int64
	err := r.Scan(&tenant, (*string)(&p.Name), &p.DefaultVersion, &p.LastVersion, &created, &modified, &p.GenerationID)
	p.Tenant = t.readTenant(tenant)
	p.CreatedAt, p.ModifiedAt = readTime(created), readTime(modified)
	return err
}

func scanPolicyVersion(t *Tx, r Rows, v *imprint.PolicyVersion) error {
	var tenant string
	var created int64
	err := r.Scan(&tenant, (*string)(&v.Policy), &v.Version, &v.Document, &created)
	v.Tenant = t.readTenant(tenant)
	v.CreatedAt = readTime(created)
	return err
}

func scanPolicyAttachment(t *Tx, r Rows, a *imprint.PolicyAttachment) error {
	var tenant string
	err := r.Scan(&tenant, (*string)(&a.Policy), &a.Target)
	a.Tenant = t.readTenant(tenant)
	return err
}

// Policy implements imprint.PolicyReader.
func (t *Tx) Policy(tenant imprint.Tenant, name imprint.PolicyName) (imprint.Policy, error) {
	p, found, err := first(t, scanPolicy,
		"SELECT "+policyColumns+" FROM policies WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "policy %s doesn't exist in %s", name, tenant)
	}
	return p, err
}

// Policies implements imprint.PolicyReader.
func (t *Tx) Policies(tenant imprint.Tenant, p imprint.Page) ([]imprint.Policy, string, error) {
	return policies.page(t, p, nil, t.in(tenant))
}

// PolicyVersion implements imprint.PolicyReader.
func (t *Tx) PolicyVersion(tenant imprint.Tenant, name imprint.PolicyName, version int) (imprint.PolicyVersion, error) {
	v, found, err := first(t, scanPolicyVersion,
		"SELECT "+policyVersionColumns+" FROM policy_versions WHERE tenant = $1 AND policy = $2 AND version = $3",
		t.in(tenant), string(name), int64(version))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "policy %s has no version %d in %s", name, version, tenant)
	}
	return v, err
}

// PolicyVersions implements imprint.PolicyReader: at most 100.
func (t *Tx) PolicyVersions(tenant imprint.Tenant, name imprint.PolicyName) ([]imprint.PolicyVersion, error) {
	return all(t, scanPolicyVersion,
		"SELECT "+policyVersionColumns+" FROM policy_versions WHERE tenant = $1 AND policy = $2 ORDER BY version DESC LIMIT $3",
		t.in(tenant), string(name), int64(maxPlain))
}

// TargetPolicies implements imprint.PolicyReader.
func (t *Tx) TargetPolicies(tenant imprint.Tenant, target string, p imprint.Page) ([]imprint.PolicyAttachment, string, error) {
	return targetPolicies.page(t, p, nil, t.in(tenant), target)
}

// PolicyTargets implements imprint.PolicyReader.
func (t *Tx) PolicyTargets(tenant imprint.Tenant, name imprint.PolicyName, p imprint.Page) ([]imprint.PolicyAttachment, string, error) {
	return policyTargets.page(t, p, nil, t.in(tenant), string(name))
}

// PutPolicy implements imprint.PolicyWriter.
func (t *Tx) PutPolicy(p imprint.Policy) error {
	_, err := t.exec(putPolicy, t.in(p.Tenant), string(p.Name), int64(p.DefaultVersion), int64(p.LastVersion),
		millis(p.CreatedAt), millis(p.ModifiedAt), p.GenerationID)
	if err != nil {
		return err
	}
	t.changed(imprint.ChangePolicy, p.Tenant, string(p.Name))
	return nil
}

// DeletePolicy implements imprint.PolicyWriter.
func (t *Tx) DeletePolicy(tenant imprint.Tenant, name imprint.PolicyName) error {
	err := t.remove(imprint.ChangePolicy, tenant, string(name),
		"DELETE FROM policy_versions WHERE tenant = $1 AND policy = $2", t.in(tenant), string(name))
	if err != nil {
		return err
	}
	return t.remove(imprint.ChangePolicy, tenant, string(name),
		"DELETE FROM policies WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
}

// PutPolicyVersion implements imprint.PolicyWriter.
func (t *Tx) PutPolicyVersion(v imprint.PolicyVersion) error {
	_, err := t.exec(putPolicyVersion, t.in(v.Tenant), string(v.Policy), int64(v.Version), v.Document, millis(v.CreatedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangePolicy, v.Tenant, string(v.Policy))
	return nil
}

// DeletePolicyVersion implements imprint.PolicyWriter.
func (t *Tx) DeletePolicyVersion(tenant imprint.Tenant, name imprint.PolicyName, version int) error {
	return t.remove(imprint.ChangePolicy, tenant, string(name),
		"DELETE FROM policy_versions WHERE tenant = $1 AND policy = $2 AND version = $3",
		t.in(tenant), string(name), int64(version))
}

// PutPolicyAttachment implements imprint.PolicyWriter. It counts as a change of
// the certificate or the thing group that the target names, else of the policy.
func (t *Tx) PutPolicyAttachment(a imprint.PolicyAttachment) error {
	_, err := t.exec(putPolicyAttachment, t.in(a.Tenant), a.Target, string(a.Policy))
	if err != nil {
		return err
	}
	t.attachmentChanged(a)
	return nil
}

// DeletePolicyAttachment implements imprint.PolicyWriter, with the change of
// PutPolicyAttachment.
func (t *Tx) DeletePolicyAttachment(a imprint.PolicyAttachment) error {
	n, err := t.exec("DELETE FROM policy_attachments WHERE tenant = $1 AND target = $2 AND policy = $3",
		t.in(a.Tenant), a.Target, string(a.Policy))
	if err != nil {
		return err
	}
	if n > 0 {
		t.attachmentChanged(a)
	}
	return nil
}

func (t *Tx) attachmentChanged(a imprint.PolicyAttachment) {
	id, err := a.Tenant.ParseCertificateARN(a.Target)
	if err == nil {
		t.changed(imprint.ChangeCertificate, a.Tenant, string(id))
		return
	}
	group, err := a.Tenant.ParseThingGroupARN(a.Target)
	if err == nil {
		t.changed(imprint.ChangeThingGroup, a.Tenant, string(group))
		return
	}
	t.changed(imprint.ChangePolicy, a.Tenant, string(a.Policy))
}
