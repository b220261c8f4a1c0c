// Package registry holds the SQL text and the row mapping that the engines of
// the store share. An engine gives a Conn that runs statements inside a
// transaction that it has begun; New makes an imprint.Tx of it:
//
//	tx := registry.New(conn, sealer)
//	err := fn(tx)
//	changes := tx.Finish()
//
// What it promises: every statement is in the subset of SQL that SQLite and
// PostgreSQL share ($N placeholders, ON CONFLICT, row values, no triggers, no
// sequences, no row ids); every list runs over an index and has a limit, but
// for Things by attribute, which reads the tenant's things (or those of the
// type) until the page is full; times are milliseconds since 1970 in UTC, so
// that what is read back is the time that was put, cut to the millisecond. The
// steps of attempts keep their nanoseconds.
//
// What it does not do: transactions, statement caches, retries and error
// classes belong to the engine, and so does the schema, which stands in the
// engine's migrations.
package registry

import (
	"errors"
	"time"

	"github.com/imprint-iot/imprint"
)

// Rows is the part of *sql.Rows that the mapping reads.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// Conn runs statements in one transaction. Its errors are *imprint.Error where
// the engine knows their class. The same text is used for the same statement
// each time, so that an engine can keep it prepared.
type Conn interface {
	// Exec runs a statement and returns the number of rows that it changed.
	Exec(query string, args ...any) (int64, error)
	// Query runs a statement whose time is bounded by its result.
	Query(query string, args ...any) (Rows, error)
	// Scan runs a statement that may read many rows to find a few: the engine
	// ends it when the caller's context ends.
	Scan(query string, args ...any) (Rows, error)
}

// maxPage bounds one page of a list, whatever a caller asks for.
const maxPage = 10_000

// maxPlain bounds the lists that have no pages.
const maxPlain = 100

// Tx is an imprint.Tx over a Conn. It is for one goroutine.
type Tx struct {
	conn    Conn
	sealer  imprint.Sealer
	changes []imprint.Change
	over    bool
	trying  bool // inside Try

	// The text of the tenant that was asked for last: most transactions are
	// about one.
	tenant     imprint.Tenant
	tenantText string

	// What the certificate and the attempt that were read or put last have in
	// the columns of indices. A put that leaves those as they are needs to write
	// no index, which is most of the cost of a row.
	lastCertificate certificateIndex
	lastAttempt     attemptIndex
	body            bodyWriter // of the last attempt that was put: its memory serves the next
	packed          []byte     // and so does this
}

var _ imprint.Tx = (*Tx)(nil)

// New makes a Tx. The sealer protects the secrets of access keys.
func New(conn Conn, sealer imprint.Sealer) *Tx {
	return &Tx{conn: conn, sealer: sealer}
}

// Finish ends the use of the Tx, whose methods fail from then on, and returns
// what was changed through it, each thing once.
func (t *Tx) Finish() []imprint.Change {
	t.over = true
	return t.changes
}

func (t *Tx) exec(query string, args ...any) (int64, error) {
	if t.over {
		return 0, errOver()
	}
	return t.conn.Exec(query, args...)
}

func errOver() error {
	return imprint.Errorf(imprint.CodeInternal, "the transaction is over: a Tx can't be kept")
}

// changed records a change for the watchers. The search for repetitions is
// bounded: beyond it a watcher hears of a thing twice, which is harmless.
func (t *Tx) changed(kind imprint.ChangeKind, tenant imprint.Tenant, key string) {
	c := imprint.Change{Kind: kind, Tenant: tenant, Key: key}
	for i := len(t.changes) - 1; i >= 0 && i >= len(t.changes)-8; i-- {
		if t.changes[i] == c {
			return
		}
	}
	t.changes = append(t.changes, c)
}

// remove runs a DELETE and records the change when there was something.
func (t *Tx) remove(kind imprint.ChangeKind, tenant imprint.Tenant, key, query string, args ...any) error {
	n, err := t.exec(query, args...)
	if err != nil {
		return err
	}
	if n > 0 {
		t.changed(kind, tenant, key)
	}
	return nil
}

// in gives the tenant as its column holds it: account/region.
func (t *Tx) in(tenant imprint.Tenant) string {
	if t.tenantText == "" || t.tenant != tenant {
		t.tenant, t.tenantText = tenant, tenant.String()
	}
	return t.tenantText
}

// regionsOf gives what the tenants of an account, as columns hold them, are between.
func regionsOf(account imprint.AccountID) (from, to string) {
	return string(account) + "/", string(account) + "0" // which comes after the slash
}

// readTenant is the inverse of in. Neither part can hold a slash.
func (t *Tx) readTenant(text string) imprint.Tenant {
	if t.tenantText != "" && t.tenantText == text {
		return t.tenant
	}
	for i := range len(text) {
		if text[i] == '/' {
			t.tenant = imprint.Tenant{Account: imprint.AccountID(text[:i]), Region: imprint.Region(text[i+1:])}
			t.tenantText = text
			return t.tenant
		}
	}
	return imprint.Tenant{Account: imprint.AccountID(text)}
}

// millis and readTime map times to columns. The zero time is the millisecond
// of year 1, so that it needs no NULL and sorts first.
func millis(t time.Time) int64 { return t.UnixMilli() }

func readTime(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func duration(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Try implements imprint.Tx. Savepoints are in the subset that the engines share.
func (t *Tx) Try(fn func() error) error {
	if t.trying {
		return imprint.Errorf(imprint.CodeInternal, "a Try can't be used inside another")
	}
	_, err := t.exec("SAVEPOINT attempt")
	if err != nil {
		return err
	}
	known := len(t.changes)
	t.trying = true
	failed := fn()
	t.trying = false
	if failed != nil {
		t.changes = t.changes[:known]
		t.lastCertificate, t.lastAttempt = certificateIndex{}, attemptIndex{}
		_, err = t.exec("ROLLBACK TO attempt")
	}
	if err == nil {
		_, err = t.exec("RELEASE attempt")
	}
	if err != nil {
		return errors.Join(err, failed)
	}
	return failed
}
