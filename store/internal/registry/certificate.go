package registry

import (
	"github.com/imprint-iot/imprint"
)

const certificateColumns = "id, tenant, pem, status, mode, ca_id, owned_by, previous_owner, serial, subject, " +
	"not_before, not_after, created_at, modified_at, customer_version, generation_id, attempt"

var (
	putCertificate = upsert("certificates", 2,
		"id", "tenant", "pem", "status", "mode", "ca_id", "owned_by", "previous_owner", "serial", "subject",
		"not_before", "not_after", "created_at", "modified_at", "customer_version", "generation_id", "attempt")

	// updateCertificate replaces what is in no index, but for the end of the validity,
	// which hardly ever changes.
	updateCertificate = "UPDATE certificates SET pem = $3, status = $4, mode = $5, owned_by = $6, previous_owner = $7, subject = $8, " +
		"not_before = $9, not_after = $10, modified_at = $11, customer_version = $12, generation_id = $13 WHERE id = $1 AND tenant = $2"

	certificatesByTime = newList("Ais", certificateColumns, "certificates WHERE tenant = $1", 1,
		[]string{"created_at", "id"}, scanCertificate, certificateKey)
	certificatesByCA = newList("Bis", certificateColumns, "certificates WHERE tenant = $1 AND ca_id = $2 AND ca_id <> ''", 2,
		[]string{"created_at", "id"}, scanCertificate, certificateKey)
)

// certificateIndex is what the indices hold of a certificate.
type certificateIndex struct {
	tenant  imprint.Tenant
	id, ca  imprint.CertificateID
	serial  string
	attempt string // in no index, and constant
	created int64
}

func indexOfCertificate(c *imprint.Certificate) certificateIndex {
	return certificateIndex{c.Tenant, c.ID, c.CAID, c.Serial, c.Attempt, millis(c.CreatedAt)}
}

func certificateKey(c *imprint.Certificate) []any {
	return []any{millis(c.CreatedAt), string(c.ID)}
}

func scanCertificate(t *Tx, r Rows, c *imprint.Certificate) error {
	var tenant string
	var notBefore, notAfter, created, modified, version int64
	err := r.Scan((*string)(&c.ID), &tenant, &c.PEM, (*string)(&c.Status), (*string)(&c.Mode), (*string)(&c.CAID),
		(*string)(&c.OwnedBy), (*string)(&c.PreviousOwner), &c.Serial, &c.Subject,
		&notBefore, &notAfter, &created, &modified, &version, &c.GenerationID, &c.Attempt)
	c.Tenant = t.readTenant(tenant)
	c.NotBefore, c.NotAfter = readTime(notBefore), readTime(notAfter)
	c.CreatedAt, c.ModifiedAt = readTime(created), readTime(modified)
	c.CustomerVersion = int(version)
	return err
}

// Certificate implements imprint.CertificateReader.
func (t *Tx) Certificate(tenant imprint.Tenant, id imprint.CertificateID) (imprint.Certificate, error) {
	c, found, err := first(t, scanCertificate,
		"SELECT "+certificateColumns+" FROM certificates WHERE id = $1 AND tenant = $2", string(id), t.in(tenant))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "certificate %s doesn't exist in %s", id, tenant)
	}
	if err == nil {
		t.lastCertificate = indexOfCertificate(&c)
	}
	return c, err
}

// CertificateTenants implements imprint.CertificateReader.
func (t *Tx) CertificateTenants(id imprint.CertificateID) ([]imprint.Certificate, error) {
	return all(t, scanCertificate,
		"SELECT "+certificateColumns+" FROM certificates WHERE id = $1 ORDER BY created_at, tenant LIMIT $2",
		string(id), int64(maxPlain))
}

// Certificates implements imprint.CertificateReader.
func (t *Tx) Certificates(tenant imprint.Tenant, ca imprint.CertificateID, p imprint.Page) ([]imprint.Certificate, string, error) {
	if ca == "" {
		return certificatesByTime.page(t, p, nil, t.in(tenant))
	}
	return certificatesByCA.page(t, p, nil, t.in(tenant), string(ca))
}

// CertificatesBySerial implements imprint.CertificateReader. The empty serial
// finds nothing.
func (t *Tx) CertificatesBySerial(tenant imprint.Tenant, serial string) ([]imprint.Certificate, error) {
	return all(t, scanCertificate,
		"SELECT "+certificateColumns+" FROM certificates WHERE serial = $1 AND serial <> '' AND tenant = $2 "+
			"ORDER BY created_at, id LIMIT $3",
		serial, t.in(tenant), int64(maxPlain))
}

// PutCertificate implements imprint.CertificateWriter.
func (t *Tx) PutCertificate(c imprint.Certificate) error {
	err := t.writeCertificate(&c)
	if err != nil {
		return err
	}
	t.lastCertificate = indexOfCertificate(&c)
	t.changed(imprint.ChangeCertificate, c.Tenant, string(c.ID))
	return nil
}

func (t *Tx) writeCertificate(c *imprint.Certificate) error {
	if t.lastCertificate == indexOfCertificate(c) {
		n, err := t.exec(updateCertificate, string(c.ID), t.in(c.Tenant), c.PEM, string(c.Status), string(c.Mode),
			string(c.OwnedBy), string(c.PreviousOwner), c.Subject, millis(c.NotBefore), millis(c.NotAfter),
			millis(c.ModifiedAt), int64(c.CustomerVersion), c.GenerationID)
		if err != nil || n == 1 {
			return err
		}
	}
	_, err := t.exec(putCertificate, string(c.ID), t.in(c.Tenant), c.PEM, string(c.Status), string(c.Mode), string(c.CAID),
		string(c.OwnedBy), string(c.PreviousOwner), c.Serial, c.Subject,
		millis(c.NotBefore), millis(c.NotAfter), millis(c.CreatedAt), millis(c.ModifiedAt),
		int64(c.CustomerVersion), c.GenerationID, c.Attempt)
	return err
}

// keepLink keeps the way from a certificate that goes to the attempt that registered it.
const keepLink = "INSERT INTO attempt_made (certificate_id, attempt) SELECT id, attempt FROM certificates WHERE id = $1 AND tenant = $2 AND attempt <> '' " +
	"AND EXISTS (SELECT 1 FROM attempts WHERE attempts.id = certificates.attempt) ON CONFLICT (certificate_id, attempt) DO NOTHING"

// DeleteCertificate implements imprint.CertificateWriter.
func (t *Tx) DeleteCertificate(tenant imprint.Tenant, id imprint.CertificateID) error {
	_, err := t.exec(keepLink, string(id), t.in(tenant))
	if err != nil {
		return err
	}
	return t.remove(imprint.ChangeCertificate, tenant, string(id),
		"DELETE FROM certificates WHERE id = $1 AND tenant = $2", string(id), t.in(tenant))
}
