package registry

import (
	"github.com/imprint-iot/imprint"
)

const caColumns = "id, tenant, pem, status, mode, auto_registration, " +
	"registration, registration_body, registration_role, registration_template, first_connection, " +
	"owned_by, subject_key, subject, serial, not_before, not_after, created_at, modified_at, customer_version, generation_id"

var (
	putCA = upsert("ca_certificates", 2,
		"id", "tenant", "pem", "status", "mode", "auto_registration",
		"registration", "registration_body", "registration_role", "registration_template", "first_connection",
		"owned_by", "subject_key", "subject", "serial", "not_before", "not_after", "created_at", "modified_at",
		"customer_version", "generation_id")

	casByTime = newList("Cis", caColumns, "ca_certificates WHERE tenant = $1", 1,
		[]string{"created_at", "id"}, scanCA, caKey)
	casByTemplate = newList("Dis", caColumns,
		"ca_certificates WHERE tenant = $1 AND registration_template = $2 AND registration_template <> ''", 2,
		[]string{"created_at", "id"}, scanCA, caKey)
)

func caKey(c *imprint.CACertificate) []any {
	return []any{millis(c.CreatedAt), string(c.ID)}
}

func scanCA(t *Tx, r Rows, c *imprint.CACertificate) error {
	var tenant string
	var auto, hasRegistration, notBefore, notAfter, created, modified, version int64
	var registration imprint.RegistrationConfig
	err := r.Scan((*string)(&c.ID), &tenant, &c.PEM, (*string)(&c.Status), (*string)(&c.Mode), &auto,
		&hasRegistration, &registration.TemplateBody, &registration.RoleARN, (*string)(&registration.TemplateName),
		(*string)(&c.FirstConnection), (*string)(&c.OwnedBy), &c.SubjectKey, &c.Subject, &c.Serial,
		&notBefore, &notAfter, &created, &modified, &version, &c.GenerationID)
	c.Tenant = t.readTenant(tenant)
	c.AutoRegistration = auto != 0
	if hasRegistration != 0 {
		c.Registration = &registration
	}
	c.NotBefore, c.NotAfter = readTime(notBefore), readTime(notAfter)
	c.CreatedAt, c.ModifiedAt = readTime(created), readTime(modified)
	c.CustomerVersion = int(version)
	return err
}

// CA implements imprint.CAReader.
func (t *Tx) CA(tenant imprint.Tenant, id imprint.CertificateID) (imprint.CACertificate, error) {
	c, found, err := first(t, scanCA,
		"SELECT "+caColumns+" FROM ca_certificates WHERE id = $1 AND tenant = $2", string(id), t.in(tenant))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "CA certificate %s doesn't exist in %s", id, tenant)
	}
	return c, err
}

// CAsBySubject implements imprint.CAReader: at most 100.
func (t *Tx) CAsBySubject(tenant imprint.Tenant, subjectKey string) ([]imprint.CACertificate, error) {
	return all(t, scanCA,
		"SELECT "+caColumns+" FROM ca_certificates WHERE tenant = $1 AND subject_key = $2 ORDER BY created_at, id LIMIT $3",
		t.in(tenant), subjectKey, int64(maxPlain))
}

// CATenants implements imprint.CAReader: at most 100, oldest first.
func (t *Tx) CATenants(region imprint.Region, id imprint.CertificateID) ([]imprint.CACertificate, error) {
	var found []imprint.CACertificate
	err := each(t, false, scanCA, func(c imprint.CACertificate) bool {
		if c.Tenant.Region == region {
			found = append(found, c)
		}
		return len(found) < maxPlain
	}, "SELECT "+caColumns+" FROM ca_certificates WHERE id = $1 ORDER BY created_at, tenant", string(id))
	return found, err
}

// CAs implements imprint.CAReader, newest first unless the page asks
// otherwise.
func (t *Tx) CAs(tenant imprint.Tenant, template imprint.TemplateName, p imprint.Page) ([]imprint.CACertificate, string, error) {
	if template == "" {
		return casByTime.page(t, p, nil, t.in(tenant))
	}
	return casByTemplate.page(t, p, nil, t.in(tenant), string(template))
}

// PutCA implements imprint.CAWriter.
func (t *Tx) PutCA(c imprint.CACertificate) error {
	var registration imprint.RegistrationConfig
	if c.Registration != nil {
		registration = *c.Registration
	}
	_, err := t.exec(putCA, string(c.ID), t.in(c.Tenant), c.PEM, string(c.Status), string(c.Mode), flag(c.AutoRegistration),
		flag(c.Registration != nil), registration.TemplateBody, registration.RoleARN, string(registration.TemplateName),
		string(c.FirstConnection), string(c.OwnedBy), c.SubjectKey, c.Subject, c.Serial,
		millis(c.NotBefore), millis(c.NotAfter), millis(c.CreatedAt), millis(c.ModifiedAt),
		int64(c.CustomerVersion), c.GenerationID)
	if err != nil {
		return err
	}
	t.changed(imprint.ChangeCA, c.Tenant, string(c.ID))
	return nil
}

// DeleteCA implements imprint.CAWriter.
func (t *Tx) DeleteCA(tenant imprint.Tenant, id imprint.CertificateID) error {
	return t.remove(imprint.ChangeCA, tenant, string(id),
		"DELETE FROM ca_certificates WHERE id = $1 AND tenant = $2", string(id), t.in(tenant))
}
