package registry

import "time"

// LiveAttempts implements imprint.TraceReader.
func (t *Tx) LiveAttempts(after string, limit int) ([]string, error) {
	scan := func(_ *Tx, r Rows, id *string) error { return r.Scan(id) }
	return some(t, limit, scan, "SELECT id FROM attempts WHERE live = 1 AND id > $1 ORDER BY id LIMIT $2", after)
}

// TrimAttempts implements imprint.TraceWriter. A negative keep keeps all that
// aren't before the time.
func (t *Tx) TrimAttempts(before time.Time, keep, limit int) (int, error) {
	if limit < 1 {
		return 0, nil
	}
	limit = min(limit, maxPage)
	spared, err := t.changedSince(millis(before))
	if err != nil {
		return 0, err
	}
	// The inner list is bounded whatever its times are; the oldest stand first.
	old, err := t.delete("SELECT id FROM (SELECT id, at, changed FROM attempts ORDER BY id LIMIT $1) AS oldest WHERE at < $2 AND changed < $2 LIMIT $3",
		int64(limit)+spared, millis(before), int64(limit))
	if err != nil || keep < 0 || int(old) >= limit {
		return int(old), err
	}
	count, _, err := first(t, scanNumber, "SELECT count(*) FROM attempts")
	if err != nil {
		return int(old), err
	}
	excess := min(count-int64(keep), int64(limit)-old)
	if excess <= 0 {
		return int(old), nil
	}
	// Those that changed after the first that isn't too old began go later.
	next, found, err := first(t, scanNumber, "SELECT at FROM attempts ORDER BY id LIMIT 1 OFFSET $1", excess)
	if err == nil && found {
		spared, err = t.changedSince(next)
	}
	if err != nil {
		return int(old), err
	}
	over, err := t.delete("SELECT id FROM (SELECT id, at, changed FROM attempts ORDER BY id LIMIT $1) AS oldest ORDER BY CASE WHEN changed > at THEN changed ELSE at END, id LIMIT $2",
		excess+spared, excess)
	return int(old + over), err
}

func scanNumber(_ *Tx, r Rows, n *int64) error { return r.Scan(n) }

// changedSince counts the attempts that began before a time and changed since, but for
// those that changed soon after they began.
func (t *Tx) changedSince(at int64) (int64, error) {
	n, _, err := first(t, scanNumber, "SELECT count(*) FROM attempts WHERE "+lateAttempt+" AND at < $1 AND changed >= $1", at)
	return n, err
}

// delete deletes the attempts whose ids a statement gives.
func (t *Tx) delete(ids string, args ...any) (int64, error) {
	_, err := t.exec("DELETE FROM attempt_made WHERE attempt IN ("+ids+")", args...)
	if err != nil {
		return 0, err
	}
	return t.exec("DELETE FROM attempts WHERE id IN ("+ids+")", args...)
}

// TrimAttemptAliases implements imprint.TraceWriter. A fold has the id of its first
// attempt and sorts as that; the aliases of one that is about to be trimmed go a few
// minutes before it.
func (t *Tx) TrimAttemptAliases(keep, limit int) (int, error) {
	if limit < 1 {
		return 0, nil
	}
	limit = min(limit, maxPage)
	const remove = "DELETE FROM attempt_aliases WHERE (word, tenant) IN (SELECT word, tenant FROM attempt_aliases "
	oldest, found, err := first(t, func(_ *Tx, r Rows, id *string) error { return r.Scan(id) }, "SELECT id FROM attempts ORDER BY id LIMIT 1")
	if err != nil {
		return 0, err
	}
	var old int64
	if found {
		old, err = t.exec(remove+"WHERE fold < $1 ORDER BY fold LIMIT $2)", oldest, int64(limit))
	} else {
		old, err = t.exec(remove+"ORDER BY fold LIMIT $1)", int64(limit))
	}
	if err != nil || keep < 0 || int(old) >= limit {
		return int(old), err
	}
	count, _, err := first(t, func(_ *Tx, r Rows, n *int64) error { return r.Scan(n) }, "SELECT count(*) FROM (SELECT fold FROM attempt_aliases ORDER BY fold LIMIT $1) AS oldest", int64(keep)+int64(limit))
	if err != nil {
		return int(old), err
	}
	excess := min(count-int64(keep), int64(limit)-old)
	if excess <= 0 {
		return int(old), nil
	}
	over, err := t.exec(remove+"ORDER BY fold LIMIT $1)", excess)
	return int(old + over), err
}
