package registry

import (
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

const foreignColumns = "id, tenant, ca_id, scope, ca_pem, subject_key, number, this_update, next_update, hash, entries, generation, applied, refuse_stale, " +
	"keep_registered, url, fetch_at, fetched_at, imported_at, failures, last_error"

var (
	putForeign      = upsert("foreign_lists", 1, append(strings.Split(foreignColumns, ", "), "due_at")...)
	putForeignEntry = upsert("foreign_revocations", 3, "list", "generation", "serial", "revoked_at", "reason")

	deleteForeignEntries = "DELETE FROM foreign_revocations WHERE list = $1 AND (generation, serial) IN " +
		"(SELECT generation, serial FROM foreign_revocations WHERE list = $1 AND generation <> $2 ORDER BY generation, serial LIMIT $3)"

	foreignLists = newList("zss", foreignColumns, "foreign_lists WHERE tenant = $1", 1, []string{"ca_id", "scope"}, scanForeign,
		func(l *imprint.ForeignList) []any { return []any{string(l.CA), l.Scope} })
)

// maxForeignLists bounds the lists of one CA or one subject.
const maxForeignLists = 1000

// notDue is when a list is due that isn't.
const notDue = int64(1) << 62

func scanForeign(t *Tx, r Rows, l *imprint.ForeignList) error {
	var tenant string
	var this, next, applied, refuse, keep, fetch, fetched, imported, failures int64
	err := r.Scan(&l.ID, &tenant, (*string)(&l.CA), &l.Scope, &l.CAPEM, &l.SubjectKey, &l.Number, &this, &next, &l.Hash, &l.Entries, &l.Generation, &applied, &refuse,
		&keep, &l.URL, &fetch, &fetched, &imported, &failures, &l.LastError)
	l.Tenant, l.Applied, l.RefuseStale, l.KeepRegistered, l.Failures = t.readTenant(tenant), applied != 0, refuse != 0, keep != 0, int(failures)
	l.ThisUpdate, l.NextUpdate, l.FetchAt, l.FetchedAt, l.ImportedAt = readTime(this), readTime(next), readTime(fetch), readTime(fetched), readTime(imported)
	return err
}

func scanForeignEntry(_ *Tx, r Rows, e *imprint.ForeignRevocation) error {
	var revoked, reason int64
	err := r.Scan(&e.Serial, &revoked, &reason)
	e.RevokedAt, e.Reason = readTime(revoked), int(reason)
	return err
}

// ForeignList implements imprint.ForeignListReader.
func (t *Tx) ForeignList(id int64) (imprint.ForeignList, error) {
	l, found, err := first(t, scanForeign, "SELECT "+foreignColumns+" FROM foreign_lists WHERE id = $1", id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "no imported revocation list has the number %d", id)
	}
	return l, err
}

// ForeignLists implements imprint.ForeignListReader.
func (t *Tx) ForeignLists(tenant imprint.Tenant, p imprint.Page) ([]imprint.ForeignList, string, error) {
	return foreignLists.page(t, p, nil, t.in(tenant))
}

// ForeignListsOf implements imprint.ForeignListReader.
func (t *Tx) ForeignListsOf(tenant imprint.Tenant, ca imprint.CertificateID) ([]imprint.ForeignList, error) {
	return all(t, scanForeign, "SELECT "+foreignColumns+" FROM foreign_lists WHERE tenant = $1 AND ca_id = $2 ORDER BY scope LIMIT $3", t.in(tenant), string(ca), int64(maxForeignLists))
}

// ForeignListsBySubject implements imprint.ForeignListReader.
func (t *Tx) ForeignListsBySubject(tenant imprint.Tenant, subjectKey string) ([]imprint.ForeignList, error) {
	return all(t, scanForeign, "SELECT "+foreignColumns+" FROM foreign_lists WHERE tenant = $1 AND subject_key = $2 ORDER BY scope, ca_id LIMIT $3",
		t.in(tenant), subjectKey, int64(maxForeignLists))
}

// ForeignListsDue implements imprint.ForeignListReader.
func (t *Tx) ForeignListsDue(by time.Time, limit int) ([]imprint.ForeignList, error) {
	return some(t, limit, scanForeign, "SELECT "+foreignColumns+" FROM foreign_lists WHERE due_at <= $1 ORDER BY due_at, id LIMIT $2", millis(by))
}

// AllForeignLists implements imprint.ForeignListReader.
func (t *Tx) AllForeignLists(after int64, limit int) ([]imprint.ForeignList, error) {
	return some(t, limit, scanForeign, "SELECT "+foreignColumns+" FROM foreign_lists WHERE id > $1 ORDER BY id LIMIT $2", after)
}

// ForeignRevocation implements imprint.ForeignListReader.
func (t *Tx) ForeignRevocation(list, generation int64, serial string) (imprint.ForeignRevocation, error) {
	r, found, err := first(t, scanForeignEntry, "SELECT serial, revoked_at, reason FROM foreign_revocations WHERE list = $1 AND generation = $2 AND serial = $3", list, generation, serial)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "serial number %q isn't on the revocation list", imprint.Excerpt(serial))
	}
	return r, err
}

// ForeignRevocations implements imprint.ForeignListReader.
func (t *Tx) ForeignRevocations(list, generation int64, after string, limit int) ([]imprint.ForeignRevocation, error) {
	return some(t, limit, scanForeignEntry, "SELECT serial, revoked_at, reason FROM foreign_revocations WHERE list = $1 AND generation = $2 AND serial > $3 ORDER BY serial LIMIT $4",
		list, generation, after)
}

// PutForeignList implements imprint.ForeignListWriter.
func (t *Tx) PutForeignList(l imprint.ForeignList) error {
	due := notDue
	switch {
	case !l.Applied:
		due = millis(time.Time{})
	case l.URL != "":
		due = millis(l.FetchAt)
	}
	_, err := t.exec(putForeign, l.ID, t.in(l.Tenant), string(l.CA), l.Scope, l.CAPEM, l.SubjectKey, l.Number, millis(l.ThisUpdate), millis(l.NextUpdate), l.Hash, l.Entries,
		l.Generation, flag(l.Applied), flag(l.RefuseStale), flag(l.KeepRegistered), l.URL, millis(l.FetchAt), millis(l.FetchedAt), millis(l.ImportedAt), int64(l.Failures), l.LastError, due)
	return err
}

// DeleteForeignList implements imprint.ForeignListWriter.
func (t *Tx) DeleteForeignList(id int64) error {
	_, err := t.exec("DELETE FROM foreign_lists WHERE id = $1", id)
	return err
}

// PutForeignRevocation implements imprint.ForeignListWriter.
func (t *Tx) PutForeignRevocation(list, generation int64, r imprint.ForeignRevocation) error {
	_, err := t.exec(putForeignEntry, list, generation, r.Serial, millis(r.RevokedAt), int64(r.Reason))
	return err
}

// DeleteForeignRevocations implements imprint.ForeignListWriter.
func (t *Tx) DeleteForeignRevocations(list, but int64, limit int) (int, error) {
	if limit < 1 {
		return 0, nil
	}
	n, err := t.exec(deleteForeignEntries, list, but, int64(min(limit, maxPage)))
	return int(n), err
}
