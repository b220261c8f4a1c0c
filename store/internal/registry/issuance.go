package registry

import (
	"github.com/imprint-iot/imprint"
)

const issuanceColumns = "id, tenant, profile, serial, subject, tbs_hash, at, certificate_id"

var (
	putIssuance = upsert("issuances", 1, "id", "tenant", "profile", "serial", "subject", "tbs_hash", "at", "certificate_id")

	issuances = newList("Ms", issuanceColumns, "issuances WHERE tenant = $1", 1, []string{"id"}, scanIssuance,
		func(i *imprint.Issuance) []any { return []any{i.ID} })
)

func scanIssuance(t *Tx, r Rows, i *imprint.Issuance) error {
	var tenant string
	var at int64
	err := r.Scan(&i.ID, &tenant, &i.Profile, &i.Serial, &i.Subject, &i.TBSHash, &at, (*string)(&i.CertificateID))
	i.Tenant = t.readTenant(tenant)
	i.At = readTime(at)
	return err
}

// Issuance implements imprint.IssuanceReader.
func (t *Tx) Issuance(id string) (imprint.Issuance, error) {
	i, found, err := first(t, scanIssuance, "SELECT "+issuanceColumns+" FROM issuances WHERE id = $1", id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "issuance %q doesn't exist", id)
	}
	return i, err
}

// Issuances implements imprint.IssuanceReader.
func (t *Tx) Issuances(tenant imprint.Tenant, p imprint.Page) ([]imprint.Issuance, string, error) {
	return issuances.page(t, p, nil, t.in(tenant))
}

// PutIssuance implements imprint.IssuanceWriter.
func (t *Tx) PutIssuance(i imprint.Issuance) error {
	_, err := t.exec(putIssuance, i.ID, t.in(i.Tenant), i.Profile, i.Serial, i.Subject, i.TBSHash, millis(i.At),
		string(i.CertificateID))
	return err
}
