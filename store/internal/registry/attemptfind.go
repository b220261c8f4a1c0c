package registry

import (
	"strings"

	"github.com/imprint-iot/imprint"
)

// putAttemptMade does nothing where the certificate's row leads to the attempt.
const putAttemptMade = "INSERT INTO attempt_made (certificate_id, attempt) SELECT $1, $2 " +
	"WHERE NOT EXISTS (SELECT 1 FROM certificates WHERE id = $1 AND tenant = $3 AND attempt = $2) ON CONFLICT (certificate_id, attempt) DO NOTHING"

// makers selects the ids of the attempts that made or registered a certificate.
func makers(certificate string) string {
	return "SELECT attempt FROM certificates WHERE id = " + certificate + " AND attempt <> '' UNION SELECT attempt FROM attempt_made WHERE certificate_id = " + certificate
}

// madeItself gives an attempt's own certificate where it registered that.
func madeItself(a *imprint.Attempt) imprint.CertificateID {
	for i := range a.Steps {
		if a.Steps[i].Certificate != "" && a.Steps[i].Certificate == a.CertificateID {
			return a.CertificateID
		}
	}
	return ""
}

// putMade remembers which certificates an attempt made beside its own, by which it is
// found anyway.
func (t *Tx) putMade(a *imprint.Attempt) error {
	last := imprint.CertificateID("")
	for i := range a.Steps {
		made := a.Steps[i].Certificate
		if made == "" || made == last || made == a.CertificateID {
			continue // two steps tell of each: that it was made, and that it is registered
		}
		last = made
		_, err := t.exec(putAttemptMade, string(made), a.ID, t.in(a.Tenant))
		if err != nil {
			return err
		}
	}
	return nil
}

// AttemptsMaking implements imprint.TraceReader.
func (t *Tx) AttemptsMaking(tenant imprint.Tenant, id imprint.CertificateID, limit int) ([]imprint.Attempt, error) {
	return all(t, scanAttempt, "SELECT "+attemptColumns+" FROM attempts WHERE id IN ("+makers("$1")+") AND certificate_id <> $1 AND tenant = $2 ORDER BY id DESC LIMIT $3",
		string(id), t.in(tenant), int64(min(max(limit, 0), maxPage)))
}

// AttemptWords implements imprint.TraceReader.
func (t *Tx) AttemptWords(tenant imprint.Tenant, unassigned bool, prefix string, limit int) ([]string, error) {
	if prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, nil
	}
	tenants := []any{t.in(tenant), t.in(tenant)}
	if unassigned {
		tenants[1] = t.in(imprint.Tenant{})
	}
	// No hex digit is behind f.
	args := append([]any{prefix, prefix + "g", int64(min(max(limit, 0), maxPage))}, tenants...)
	scan := func(_ *Tx, r Rows, word *string) error { return r.Scan(word) }
	return all(t, scan, "SELECT word FROM ("+
		"SELECT word FROM (SELECT id AS word FROM certificates WHERE tenant = $4 AND id >= $1 AND id < $2 ORDER BY id LIMIT $3) AS known UNION "+
		"SELECT word FROM (SELECT DISTINCT certificate_id AS word FROM attempts WHERE certificate_id >= $1 AND certificate_id < $2 AND certificate_id <> '' AND linked = 0 AND tenant IN ($4, $5) LIMIT $3) AS shown UNION "+
		"SELECT word FROM (SELECT id AS word FROM attempts WHERE id >= $1 AND id < $2 AND tenant IN ($4, $5) ORDER BY id LIMIT $3) AS began"+
		") AS words ORDER BY word LIMIT $3", args...)
}
