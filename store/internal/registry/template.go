package registry

import (
	"github.com/imprint-iot/imprint"
)

const (
	templateColumns = "tenant, name, type, description, enabled, role_arn, hook_target_arn, hook_payload_version, " +
		"default_version, last_version, created_at, modified_at"
	templateVersionColumns = "tenant, template, version, body, created_at"
)

var (
	putTemplate = upsert("templates", 2, "tenant", "name", "type", "description", "enabled", "role_arn", "hook_target_arn",
		"hook_payload_version", "default_version", "last_version", "created_at", "modified_at")
	putTemplateVersion = upsert("template_versions", 3, "tenant", "template", "version", "body", "created_at")
	putTag             = upsert("tags", 3, "tenant", "arn", "key", "value")

	templates = newList("Ks", templateColumns, "templates WHERE tenant = $1", 1, []string{"name"}, scanTemplate,
		func(p *imprint.ProvisioningTemplate) []any { return []any{string(p.Name)} })
	templateVersions = newList("Li", templateVersionColumns, "template_versions WHERE tenant = $1 AND template = $2", 2,
		[]string{"version"}, scanTemplateVersion,
		func(v *imprint.TemplateVersion) []any { return []any{int64(v.Version)} })
)

func scanTemplate(t *Tx, r Rows, p *imprint.ProvisioningTemplate) error {
	var tenant string
	var enabled, created, modified int64
	err := r.Scan(&tenant, (*string)(&p.Name), (*string)(&p.Type), &p.Description, &enabled, &p.RoleARN,
		&p.HookTargetARN, &p.HookPayloadVersion, &p.DefaultVersion, &p.LastVersion, &created, &modified)
	p.Tenant = t.readTenant(tenant)
	p.Enabled = enabled != 0
	p.CreatedAt, p.ModifiedAt = readTime(created), readTime(modified)
	return err
}

func scanTemplateVersion(t *Tx, r Rows, v *imprint.TemplateVersion) error {
	var tenant string
	var created int64
	err := r.Scan(&tenant, (*string)(&v.Template), &v.Version, &v.Body, &created)
	v.Tenant = t.readTenant(tenant)
	v.CreatedAt = readTime(created)
	return err
}

func scanTag(_ *Tx, r Rows, tag *imprint.Tag) error { return r.Scan(&tag.Key, &tag.Value) }

// Template implements imprint.TemplateReader.
func (t *Tx) Template(tenant imprint.Tenant, name imprint.TemplateName) (imprint.ProvisioningTemplate, error) {
	p, found, err := first(t, scanTemplate,
		"SELECT "+templateColumns+" FROM templates WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "provisioning template %s doesn't exist in %s", name, tenant)
	}
	return p, err
}

// Templates implements imprint.TemplateReader.
func (t *Tx) Templates(tenant imprint.Tenant, p imprint.Page) ([]imprint.ProvisioningTemplate, string, error) {
	return templates.page(t, p, nil, t.in(tenant))
}

// TemplateVersion implements imprint.TemplateReader.
func (t *Tx) TemplateVersion(tenant imprint.Tenant, name imprint.TemplateName, version int) (imprint.TemplateVersion, error) {
	v, found, err := first(t, scanTemplateVersion,
		"SELECT "+templateVersionColumns+" FROM template_versions WHERE tenant = $1 AND template = $2 AND version = $3",
		t.in(tenant), string(name), int64(version))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "provisioning template %s has no version %d in %s", name, version, tenant)
	}
	return v, err
}

// TemplateVersions implements imprint.TemplateReader.
func (t *Tx) TemplateVersions(tenant imprint.Tenant, name imprint.TemplateName, p imprint.Page) ([]imprint.TemplateVersion, string, error) {
	return templateVersions.page(t, p, nil, t.in(tenant), string(name))
}

// Tags implements imprint.TemplateReader: at most 100.
func (t *Tx) Tags(tenant imprint.Tenant, arn string) ([]imprint.Tag, error) {
	return all(t, scanTag, "SELECT key, value FROM tags WHERE tenant = $1 AND arn = $2 ORDER BY key LIMIT $3",
		t.in(tenant), arn, int64(maxPlain))
}

// PutTemplate implements imprint.TemplateWriter.
func (t *Tx) PutTemplate(p imprint.ProvisioningTemplate) error {
	_, err := t.exec(putTemplate, t.in(p.Tenant), string(p.Name), string(p.Type), p.Description, flag(p.Enabled), p.RoleARN,
		p.HookTargetARN, p.HookPayloadVersion, int64(p.DefaultVersion), int64(p.LastVersion),
		millis(p.CreatedAt), millis(p.ModifiedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeTemplate, p.Tenant, string(p.Name))
	return nil
}

// DeleteTemplate implements imprint.TemplateWriter.
func (t *Tx) DeleteTemplate(tenant imprint.Tenant, name imprint.TemplateName) error {
	err := t.remove(imprint.ChangeTemplate, tenant, string(name),
		"DELETE FROM template_versions WHERE tenant = $1 AND template = $2", t.in(tenant), string(name))
	if err != nil {
		return err
	}
	return t.remove(imprint.ChangeTemplate, tenant, string(name),
		"DELETE FROM templates WHERE tenant = $1 AND name = $2", t.in(tenant), string(name))
}

// PutTemplateVersion implements imprint.TemplateWriter.
func (t *Tx) PutTemplateVersion(v imprint.TemplateVersion) error {
	_, err := t.exec(putTemplateVersion, t.in(v.Tenant), string(v.Template), int64(v.Version), v.Body, millis(v.CreatedAt))
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeTemplate, v.Tenant, string(v.Template))
	return nil
}

// DeleteTemplateVersion implements imprint.TemplateWriter.
func (t *Tx) DeleteTemplateVersion(tenant imprint.Tenant, name imprint.TemplateName, version int) error {
	return t.remove(imprint.ChangeTemplate, tenant, string(name),
		"DELETE FROM template_versions WHERE tenant = $1 AND template = $2 AND version = $3",
		t.in(tenant), string(name), int64(version))
}

// PutTag implements imprint.TemplateWriter. Tags are in no cache: watchers
// hear nothing of them.
func (t *Tx) PutTag(tenant imprint.Tenant, arn string, tag imprint.Tag) error {
	_, err := t.exec(putTag, t.in(tenant), arn, tag.Key, tag.Value)
	return err
}

// DeleteTag implements imprint.TemplateWriter.
func (t *Tx) DeleteTag(tenant imprint.Tenant, arn, key string) error {
	_, err := t.exec("DELETE FROM tags WHERE tenant = $1 AND arn = $2 AND key = $3", t.in(tenant), arn, key)
	return err
}

// DeleteTags implements imprint.TemplateWriter.
func (t *Tx) DeleteTags(tenant imprint.Tenant, arn string) error {
	_, err := t.exec("DELETE FROM tags WHERE tenant = $1 AND arn = $2", t.in(tenant), arn)
	return err
}
