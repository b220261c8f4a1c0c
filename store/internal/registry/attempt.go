package registry

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
)

const attemptColumns = "id, tenant, at, certificate_id, serial, thing, client_id, address, fold, body"

const attemptKind keyKind = "Ns"

// putAttempt's last argument is attemptIndex.made.
var putAttempt = strings.Replace(upsert("attempts", 1,
	"id", "tenant", "at", "certificate_id", "serial", "thing", "client_id", "address", "ip", "failed", "known", "fold", "changed", "live", "body", "linked"),
	"$16)", "(SELECT count(*) FROM certificates WHERE id = $16 AND tenant = $2 AND attempt = $1))", 1)

var putAttemptAlias = upsert("attempt_aliases", 2, "word", "tenant", "fold") + " WHERE attempt_aliases.fold <> excluded.fold"

// updateAttempt replaces what is in no index, or in one of those that hold few attempts.
const updateAttempt = "UPDATE attempts SET at = $2, changed = $3, live = $4, body = $5 WHERE id = $1"

// settled is how long after its beginning a change of an attempt isn't looked up by when
// it happened: then it is late.
const settled = 10 * time.Second

// lateAttempt are the words of an index that has the late ones alone: another time takes
// another index.
var lateAttempt = "changed > at + " + strconv.FormatInt(settled.Milliseconds(), 10)

// attemptIndex is what the indices hold of an attempt.
type attemptIndex struct {
	id          string
	tenant      imprint.Tenant
	certificate imprint.CertificateID
	serial      string
	thing       imprint.ThingName
	client      imprint.ClientID
	address     string
	failed      bool
	known       bool // see attemptKnown
	// made is the attempt's own certificate where it registered that, and so the
	// certificate's row may lead to it.
	made imprint.CertificateID
	fold string
}

func indexOfAttempt(a *imprint.Attempt) attemptIndex {
	return attemptIndex{id: a.ID, tenant: a.Tenant, certificate: a.CertificateID, serial: a.Serial, thing: a.Thing, client: a.ClientID, address: a.Address,
		failed: attemptFailed(a), known: attemptKnown(a), made: madeItself(a), fold: a.Fold}
}

func scanAttempt(t *Tx, r Rows, a *imprint.Attempt) error {
	var tenant string
	var stored []byte
	var at int64
	err := r.Scan(&a.ID, &tenant, &at, (*string)(&a.CertificateID), &a.Serial, (*string)(&a.Thing),
		(*string)(&a.ClientID), &a.Address, &a.Fold, &stored)
	if err != nil {
		return err
	}
	a.Tenant = t.readTenant(tenant)
	a.At = readTime(at)
	err = readBody(stored, a)
	if err != nil {
		return fmt.Errorf("couldn't read the body of attempt %s: %w", a.ID, err)
	}
	return nil
}

// Attempt implements imprint.TraceReader.
func (t *Tx) Attempt(id string) (imprint.Attempt, error) {
	a, found, err := first(t, scanAttempt, "SELECT "+attemptColumns+" FROM attempts WHERE id = $1", id)
	if err == nil && !found {
		err = imprint.Errorf(imprint.CodeNotFound, "attempt %q doesn't exist", id)
	}
	if err == nil {
		t.lastAttempt = indexOfAttempt(&a)
	}
	return a, err
}

// PutAttempt implements imprint.TraceWriter.
func (t *Tx) PutAttempt(a imprint.Attempt) error {
	t.body.write(&a)
	t.packed = packBody(t.packed[:0], &t.body)
	err := t.putMade(&a)
	if err != nil {
		return err
	}
	index := indexOfAttempt(&a)
	changed, live := int64(0), flag(a.Outcome == imprint.OutcomeConnected)
	if at := a.ChangedAt(); at.After(a.At) {
		changed = millis(at)
	}
	if t.lastAttempt == index {
		n, err := t.exec(updateAttempt, a.ID, millis(a.At), changed, live, t.packed)
		if err != nil || n == 1 {
			return err
		}
	}
	_, err = t.exec(putAttempt, a.ID, t.in(a.Tenant), millis(a.At), string(a.CertificateID), a.Serial, string(a.Thing),
		string(a.ClientID), a.Address, a.Host(), flag(index.failed), flag(index.known), a.Fold, changed, live, t.packed, string(index.made))
	if err != nil {
		return err
	}
	t.lastAttempt = index
	return nil
}

// DeleteAttempt implements imprint.TraceWriter.
func (t *Tx) DeleteAttempt(id string) error {
	_, err := t.exec("DELETE FROM attempt_made WHERE attempt = $1", id)
	if err != nil {
		return err
	}
	_, err = t.exec("DELETE FROM attempts WHERE id = $1", id)
	return err
}

// PutAttemptAlias implements imprint.TraceWriter.
func (t *Tx) PutAttemptAlias(a imprint.AttemptAlias) error {
	_, err := t.exec(putAttemptAlias, a.Word, t.in(a.Tenant), a.Fold)
	return err
}

// attemptFailed says what AttemptFilter.FailedOnly selects: a refused device,
// or any step with the verdict failed.
func attemptFailed(a *imprint.Attempt) bool {
	if a.Outcome == imprint.OutcomeRefused {
		return true
	}
	for i := range a.Steps {
		if a.Steps[i].Verdict == imprint.VerdictFailed {
			return true
		}
	}
	return false
}

// attemptKnown says that an attempt's thing and serial number lead to its certificate
// by the registry: the device was let in or provisioned. Their two indices then leave
// it out.
func attemptKnown(a *imprint.Attempt) bool {
	switch a.Outcome {
	case imprint.OutcomeConnected, imprint.OutcomeClosed, imprint.OutcomeProvisioned:
		return a.CertificateID != "" && !attemptFailed(a)
	}
	return false
}

// Attempts implements imprint.TraceReader. Attempts are in the order of their
// ids, which sort by time; so of a list newest first those that began since a time, or
// changed soon after they began, end at the first attempt before; those that changed
// later are found by when they did.
func (t *Tx) Attempts(f imprint.AttemptFilter, p imprint.Page) ([]imprint.Attempt, string, error) {
	limit, err := pageLimit(p)
	if err != nil {
		return nil, "", err
	}
	q := attemptQuery{filter: f, ascending: p.Ascending}
	if p.Cursor != "" {
		from, err := readCursor(attemptKind, p.Cursor)
		if err != nil {
			return nil, "", err
		}
		q.from = from[0].(string)
	}
	if f.Match != "" {
		q.certificates, err = t.behind(f)
		if err == nil {
			q.folds, err = t.folds(f)
		}
		if err != nil {
			return nil, "", err
		}
	}
	ends := time.Time{}
	if !q.ascending && !f.Since.IsZero() {
		ends = f.Since.Add(-settled)
	}
	query, args := q.build(t, limit+1)
	var found []imprint.Attempt
	add := func(a imprint.Attempt) bool {
		if a.At.Before(ends) {
			return false
		}
		found = append(found, a)
		return len(found) <= limit
	}
	err = each(t, true, scanAttempt, add, query, args...)
	if err != nil {
		return nil, "", err
	}
	if !ends.IsZero() {
		query, args = q.buildLate(t, limit+1)
		late, err := all(t, scanAttempt, query, args...)
		if err != nil {
			return nil, "", err
		}
		found = newestFirst(append(found, late...))
	}
	if len(found) <= limit {
		return found, "", nil
	}
	found = found[:limit]
	return found, writeCursor(attemptKind, []any{found[limit-1].ID}), nil
}

// newestFirst puts attempts into the order of a list, each once.
func newestFirst(list []imprint.Attempt) []imprint.Attempt {
	slices.SortFunc(list, func(a, b imprint.Attempt) int { return strings.Compare(b.ID, a.ID) })
	return slices.CompactFunc(list, func(a, b imprint.Attempt) bool { return a.ID == b.ID })
}

// attemptQuery composes the statement of a filter.
type attemptQuery struct {
	filter    imprint.AttemptFilter
	ascending bool
	from      string
	// certificates are those whose thing or serial number the match is.
	certificates []imprint.CertificateID
	// folds are those that the match is an alias of.
	folds []string

	args []any
}

// maxBehind bounds the certificates of a thing, or of a serial number, whose attempts
// are looked at.
const maxBehind = 10

// behind gives the certificates that a thing's name or a serial number leads to.
func (t *Tx) behind(f imprint.AttemptFilter) ([]imprint.CertificateID, error) {
	scan := func(_ *Tx, r Rows, id *imprint.CertificateID) error { return r.Scan((*string)(id)) }
	things, err := all(t, scan, "SELECT certificate_id FROM thing_principals WHERE tenant = $1 AND thing = $2 LIMIT $3",
		t.in(f.Tenant), f.Match, int64(maxBehind))
	if err != nil {
		return nil, err
	}
	serials, err := all(t, scan, "SELECT id FROM certificates WHERE serial = $1 AND serial <> '' AND tenant = $2 LIMIT $3",
		f.Match, t.in(f.Tenant), int64(maxBehind))
	return append(things, serials...), err
}

// maxAliased bounds the tenants in which one word leads to a fold.
const maxAliased = 10

// folds gives the folds that the match is an alias of.
func (t *Tx) folds(f imprint.AttemptFilter) ([]string, error) {
	scan := func(_ *Tx, r Rows, fold *string) error { return r.Scan(fold) }
	if f.Tenant == (imprint.Tenant{}) {
		return all(t, scan, "SELECT fold FROM attempt_aliases WHERE word = $1 LIMIT $2", f.Match, int64(maxAliased))
	}
	const inTenant = "SELECT fold FROM attempt_aliases WHERE word = $1 AND tenant = $2"
	found, err := all(t, scan, inTenant, f.Match, t.in(f.Tenant))
	if err != nil || !f.Unassigned {
		return found, err
	}
	more, err := all(t, scan, inTenant, f.Match, t.in(imprint.Tenant{}))
	return append(found, more...), err
}

func (q *attemptQuery) arg(value any) string {
	q.args = append(q.args, value)
	return "$" + strconv.Itoa(len(q.args))
}

// build gives text and arguments. A match is looked up in one index for each
// column that it may stand in, and two tenants each in its part of the index;
// each look-up gives at most a page of ids, of which the newest are taken.
func (q *attemptQuery) build(t *Tx, limit int) (string, []any) {
	condition := q.condition()
	order := " ORDER BY id DESC LIMIT "
	if q.ascending {
		order = " ORDER BY id LIMIT "
	}
	order += q.arg(int64(limit))
	tenants := q.tenants(t)
	var selections []string
	switch {
	case q.filter.Match != "":
		if len(tenants) > 0 {
			condition += " AND tenant IN (" + strings.Join(tenants, ", ") + ")"
		}
		selections = q.matches()
	default:
		for _, tenant := range tenants {
			selections = append(selections, "tenant = "+tenant)
		}
	}
	const from = "SELECT " + attemptColumns + " FROM attempts WHERE "
	switch len(selections) {
	case 0:
		return from + condition + order, q.args
	case 1:
		return from + selections[0] + " AND " + condition + order, q.args
	}
	for i, selection := range selections {
		selections[i] = "SELECT id FROM (SELECT id FROM attempts WHERE " + selection + " AND " + condition + order +
			") AS part_" + strconv.Itoa(i)
	}
	return from + "id IN (" + strings.Join(selections, " UNION ") + ")" + order, q.args
}

// buildLate gives text and arguments for those that changed since a time, and not only
// soon after they began.
func (q *attemptQuery) buildLate(t *Tx, limit int) (string, []any) {
	q.args = nil
	where := lateAttempt + " AND changed >= " + q.arg(millis(q.filter.Since))
	if tenants := q.tenants(t); len(tenants) > 0 {
		where += " AND tenant IN (" + strings.Join(tenants, ", ") + ")"
	}
	condition := q.place()
	if q.filter.FailedOnly {
		condition += " AND failed = 1"
	}
	if q.filter.Match != "" {
		// No index of the match: it may be an address that a whole fleet comes from.
		condition += " AND CASE WHEN " + strings.Join(q.matches(), " OR ") + " THEN 1 ELSE 0 END = 1"
	}
	return "SELECT " + attemptColumns + " FROM attempts WHERE id IN (SELECT id FROM attempts WHERE " + where + ") AND " + condition +
		" ORDER BY id DESC LIMIT " + q.arg(int64(limit)), q.args
}

// matches gives a condition for each column that the match may stand in.
func (q *attemptQuery) matches() []string {
	match := q.arg(q.filter.Match)
	selections := make([]string, 0, 8)
	selections = append(selections, "id = "+match)
	for _, column := range []string{"certificate_id", "serial", "thing", "client_id"} {
		selections = append(selections, column+" = "+match+" AND "+column+" <> ''")
	}
	selections[1] += " AND linked = 0"
	selections[2] += " AND known = 0"
	selections[3] += " AND known = 0"
	// What equals the thing's name was selected by that.
	selections[4] += " AND client_id <> thing"
	for _, id := range q.certificates {
		certificate := q.arg(string(id))
		// Without a thing are those that failed before anybody asked whose certificate it is,
		// in TLS or before CONNECT, and those from before it was attached.
		behind := " AND (known = 1 AND " + match + " IN (thing, serial) OR thing = '')"
		selections = append(selections, "certificate_id = "+certificate+" AND certificate_id <> '' AND linked = 0"+behind, linked(certificate)+behind)
	}
	_, err := imprint.ParseCertificateID(q.filter.Match)
	if err == nil {
		selections = append(selections, linked(match))
	}
	for _, fold := range q.folds {
		selections = append(selections, "fold = "+q.arg(fold)+" AND fold <> ''")
	}
	address := "ip = " + q.arg(imprint.HostOf(q.filter.Match)) + " AND ip <> ''"
	_, _, err = net.SplitHostPort(q.filter.Match)
	if err == nil {
		address += " AND address = " + match
	}
	return append(selections, address)
}

// linked gives the condition of the attempts that registered a certificate and aren't in
// the index of certificates.
func linked(certificate string) string {
	return "id IN (" + makers(certificate) + ") AND certificate_id = " + certificate + " AND linked = 1"
}

// tenants gives the tenants to select, none for all of them.
func (q *attemptQuery) tenants(t *Tx) []string {
	if q.filter.Tenant == (imprint.Tenant{}) {
		return nil
	}
	tenants := []string{q.arg(t.in(q.filter.Tenant))}
	if q.filter.Unassigned {
		tenants = append(tenants, q.arg(t.in(imprint.Tenant{})))
	}
	return tenants
}

// condition gives what each attempt of the list must meet beside tenant and
// match.
func (q *attemptQuery) condition() string {
	parts := []string{q.place()}
	if q.filter.FailedOnly {
		parts = append(parts, "failed = 1")
	}
	if !q.filter.Since.IsZero() {
		since := q.arg(millis(q.filter.Since))
		part := "at >= " + since + " OR changed >= " + since
		if !q.ascending {
			// The list ends at the first of these.
			part += " OR at < " + q.arg(millis(q.filter.Since.Add(-settled)))
		}
		parts = append(parts, "("+part+")")
	}
	return strings.Join(parts, " AND ")
}

// place says from where on the list goes. Without a cursor it is always true: ids aren't
// empty.
func (q *attemptQuery) place() string {
	switch {
	case q.from == "":
		return "id > ''"
	case q.ascending:
		return "id > " + q.arg(q.from)
	}
	return "id < " + q.arg(q.from)
}
