package registry

import (
	"encoding/json"
	"fmt"

	"github.com/imprint-iot/imprint"
)

// issuanceLogRow is the id of the only row of issuance_log.
const issuanceLogRow = int64(1)

var putIssuanceLog = upsert("issuance_log", 1, "id", "size", "pending", "checkpoint")

// withLogIndex reads one more column behind those of an issuance.
type withLogIndex struct {
	Rows
	index *int64
}

func (r withLogIndex) Scan(dest ...any) error { return r.Rows.Scan(append(dest, r.index)...) }

func scanLoggedIssuance(t *Tx, r Rows, i *imprint.LoggedIssuance) error {
	return scanIssuance(t, withLogIndex{r, &i.LogIndex}, &i.Issuance)
}

// IssuanceLog implements imprint.IssuanceLogReader.
func (t *Tx) IssuanceLog() (imprint.IssuanceLog, error) {
	l, _, err := first(t, func(_ *Tx, r Rows, l *imprint.IssuanceLog) error {
		var pending string
		err := r.Scan(&l.Size, &pending, &l.Checkpoint)
		if err != nil {
			return err
		}
		err = json.Unmarshal([]byte(pending), &l.Pending)
		if err != nil {
			return fmt.Errorf("couldn't read what is being added to the issuance log: %w", err)
		}
		return nil
	}, "SELECT size, pending, checkpoint FROM issuance_log WHERE id = $1", issuanceLogRow)
	return l, err
}

// LoggedIssuance implements imprint.IssuanceLogReader.
func (t *Tx) LoggedIssuance(id string) (imprint.LoggedIssuance, error) {
	i, found, err := first(t, scanLoggedIssuance, "SELECT "+issuanceColumns+", log_index FROM issuances WHERE id = $1", id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "issuance %q doesn't exist", imprint.Excerpt(id))
	}
	return i, err
}

// LoggedIssuanceOf implements imprint.IssuanceLogReader.
func (t *Tx) LoggedIssuanceOf(tenant imprint.Tenant, id imprint.CertificateID) (imprint.LoggedIssuance, error) {
	i, found, err := first(t, scanLoggedIssuance, "SELECT "+issuanceColumns+", log_index FROM issuances WHERE certificate_id = $2 AND tenant = $1 AND certificate_id <> ''",
		t.in(tenant), string(id))
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no CA of this server signed certificate %q for %s", imprint.Excerpt(string(id)), tenant)
	}
	return i, err
}

// LoggedIssuances implements imprint.IssuanceLogReader.
func (t *Tx) LoggedIssuances(after string, limit int) ([]imprint.LoggedIssuance, error) {
	return some(t, limit, scanLoggedIssuance, "SELECT "+issuanceColumns+", log_index FROM issuances WHERE id > $1 ORDER BY id LIMIT $2", after)
}

// UnloggedIssuances implements imprint.IssuanceLogReader.
func (t *Tx) UnloggedIssuances(limit int) ([]string, error) {
	return some(t, limit, func(_ *Tx, r Rows, id *string) error { return r.Scan(id) },
		"SELECT id FROM issuances WHERE certificate_id <> '' AND log_index < 0 ORDER BY id LIMIT $1")
}

// UnloggedCount implements imprint.IssuanceLogReader.
func (t *Tx) UnloggedCount(limit int) (int64, error) {
	count, _, err := first(t, func(_ *Tx, r Rows, n *int64) error { return r.Scan(n) },
		"SELECT count(*) FROM (SELECT id FROM issuances WHERE certificate_id <> '' AND log_index < 0 LIMIT $1) AS part_waiting", int64(limit))
	return count, err
}

// PutIssuanceLog implements imprint.IssuanceLogWriter.
func (t *Tx) PutIssuanceLog(l imprint.IssuanceLog) error {
	pending, err := json.Marshal(l.Pending)
	if err != nil {
		return fmt.Errorf("couldn't encode what is being added to the issuance log: %w", err)
	}
	_, err = t.exec(putIssuanceLog, issuanceLogRow, l.Size, string(pending), l.Checkpoint)
	return err
}

// SetLogIndex implements imprint.IssuanceLogWriter.
func (t *Tx) SetLogIndex(id string, index int64) error {
	n, err := t.exec("UPDATE issuances SET log_index = $2 WHERE id = $1", id, index)
	if err == nil && n == 0 {
		err = imprint.Errorf(imprint.CodeNotFound, "issuance %q doesn't exist", imprint.Excerpt(id))
	}
	return err
}
