package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/store/internal/registry"
)

// maxStatements bounds the prepared statements of a connection. The registry
// has about a hundred texts; filters compose some more.
const maxStatements = 512

// session is one connection with its prepared statements, for one goroutine at
// a time. It implements registry.Conn.
type session struct {
	conn  *sqlite.Conn
	stmts map[string]*statement

	// ctx ends Scan; it is the background when nothing may.
	ctx context.Context
	// spoilt is the error that may have ended the open transaction: nothing
	// else may run in it, or it would run outside of any.
	spoilt error
	// beforeWrite, when not nil, runs before the first Exec of a closure.
	beforeWrite func() error
	// writes counts what Execs cost since the last checkpoint.
	writes int
}

// statement is a prepared statement. One whose rows are being read isn't given
// to another reader of the same text.
type statement struct {
	*sqlite.Stmt
	// places has the argument of each parameter: SQLite takes $N for a name and
	// numbers parameters in the order of the text.
	places  []int
	values  int   // how many arguments it takes
	long    []int // the parameters that have long values
	reading bool
}

var _ registry.Conn = (*session)(nil)

// newSession opens a connection, which waits so long for a lock of another, and
// sets pragmas on it.
func newSession(path string, wait time.Duration, pragmas ...string) (*session, error) {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		return nil, fmt.Errorf("couldn't open a connection to the database: %w", classify(err))
	}
	conn.SetBusyTimeout(wait)
	s := &session{conn: conn, stmts: make(map[string]*statement), ctx: context.Background()}
	for _, pragma := range pragmas {
		err = s.control("PRAGMA " + pragma)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("couldn't set %s: %w", pragma, err), s.close())
		}
	}
	return s, nil
}

func (s *session) close() error {
	err := s.forget()
	return errors.Join(err, s.conn.Close())
}

// forget closes the prepared statements, but for those that are being read.
func (s *session) forget() error {
	var errs []error
	for query, stmt := range s.stmts {
		if !stmt.reading {
			errs = append(errs, stmt.Finalize())
		}
		delete(s.stmts, query)
	}
	return errors.Join(errs...)
}

// prepare gives the statement of a text. One that is to be kept is in s.stmts.
func (s *session) prepare(query string) (*statement, error) {
	kept, ok := s.stmts[query]
	if ok && !kept.reading {
		return kept, nil
	}
	if !ok && len(s.stmts) >= maxStatements {
		err := s.forget()
		if err != nil {
			return nil, s.failed(err)
		}
	}
	prepared, rest, err := s.conn.PrepareTransient(query)
	if err == nil && rest > 0 {
		err = errors.Join(fmt.Errorf("%d bytes follow the statement", rest), prepared.Finalize())
	}
	if err != nil {
		return nil, s.failed(err)
	}
	stmt, err := place(prepared)
	if err != nil {
		return nil, failure(imprint.CodeInternal, errors.Join(err, prepared.Finalize()), "")
	}
	if !ok {
		s.stmts[query] = stmt
	}
	return stmt, nil
}

// place finds which argument each parameter of a statement is.
func place(prepared *sqlite.Stmt) (*statement, error) {
	stmt := &statement{Stmt: prepared, places: make([]int, prepared.BindParamCount())}
	for i := range stmt.places {
		n, err := strconv.Atoi(strings.TrimPrefix(prepared.BindParamName(i+1), "$"))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("the parameter %q has no number", prepared.BindParamName(i+1))
		}
		stmt.places[i] = n - 1
		stmt.values = max(stmt.values, n)
	}
	return stmt, nil
}

// bind sets the values of a statement.
func (stmt *statement) bind(args []any) error {
	if len(args) != stmt.values {
		return fmt.Errorf("the statement takes %d values, %d are given", stmt.values, len(args))
	}
	for i, place := range stmt.places {
		switch value := args[place].(type) {
		case string:
			stmt.BindText(i+1, value)
			stmt.hold(i+1, len(value))
		case int64:
			stmt.BindInt64(i+1, value)
		case int:
			stmt.BindInt64(i+1, int64(value))
		case []byte:
			if value == nil {
				stmt.BindNull(i + 1)
			} else {
				stmt.BindBytes(i+1, value)
				stmt.hold(i+1, len(value))
			}
		case nil:
			stmt.BindNull(i + 1)
		default:
			return fmt.Errorf("value %d is a %T, which has no column", place+1, value)
		}
	}
	return nil
}

// hold notes a value that must not stay.
func (stmt *statement) hold(parameter, bytes int) {
	if bytes >= longValue {
		stmt.long = append(stmt.long, parameter)
	}
}

// longValue is from how many bytes on a value isn't held by a statement that waits
// for its next use.
const longValue = 1024

// release makes a statement ready for its next use. It doesn't clear its bindings:
// SQLite would prepare the text again if one of them could have changed the plan.
func (stmt *statement) release() error {
	stmt.reading = false
	err := stmt.Reset()
	for _, i := range stmt.long {
		stmt.BindNull(i)
	}
	stmt.long = stmt.long[:0]
	return err
}

// failed notes errors that spoil the transaction and classifies all.
func (s *session) failed(err error) error {
	if gone := s.ctx.Err(); gone != nil && sqlite.ErrCode(err) == sqlite.ResultInterrupt {
		err = errCancelled(gone)
		s.spoilt = err
		return err
	}
	classified := classify(err)
	if spoils(err) {
		s.spoilt = classified
	}
	return classified
}

// control runs BEGIN, COMMIT and the like.
func (s *session) control(query string) error {
	stmt, err := s.prepare(query)
	if err != nil {
		return err
	}
	return s.run(stmt)
}

// run steps a statement, whose values are bound, to its end.
func (s *session) run(stmt *statement) error {
	for {
		more, err := stmt.Step()
		if err != nil {
			// Its reset tells the same error again.
			_ = stmt.release()
			return s.failed(err)
		}
		if !more {
			break
		}
	}
	err := stmt.release()
	if err != nil {
		return s.failed(err)
	}
	return nil
}

// cost counts a writing statement as one, and as one more for each page that it
// is given to write, so that what waits in the log has a bound.
func cost(args []any) int {
	const page = 4096
	n := 1
	for _, arg := range args {
		switch value := arg.(type) {
		case []byte:
			n += len(value) / page
		case string:
			n += len(value) / page
		}
	}
	return n
}

// Exec implements registry.Conn.
func (s *session) Exec(query string, args ...any) (int64, error) {
	if s.spoilt == nil && s.beforeWrite != nil {
		err := s.beforeWrite()
		if err != nil {
			return 0, err
		}
	}
	if s.spoilt != nil {
		return 0, s.spoilt
	}
	s.writes += cost(args)
	stmt, err := s.prepare(query)
	if err != nil {
		return 0, err
	}
	err = stmt.bind(args)
	if err != nil {
		return 0, failure(imprint.CodeInternal, err, "")
	}
	err = s.run(stmt)
	if err != nil {
		return 0, err
	}
	return int64(s.conn.Changes()), nil
}

// Query implements registry.Conn. The context doesn't end what it started: each
// statement would need a goroutine that watches it.
func (s *session) Query(query string, args ...any) (registry.Rows, error) {
	err := s.ctx.Err()
	if err != nil {
		return nil, errCancelled(err)
	}
	return s.query(query, args)
}

// Scan implements registry.Conn.
func (s *session) Scan(query string, args ...any) (registry.Rows, error) {
	err := s.ctx.Err()
	if err != nil {
		return nil, errCancelled(err)
	}
	r, err := s.query(query, args)
	if err != nil {
		return nil, err
	}
	if s.ctx.Done() != nil {
		s.conn.SetInterrupt(s.ctx.Done())
		r.watched = true
	}
	return r, nil
}

func (s *session) query(query string, args []any) (*rows, error) {
	if s.spoilt != nil {
		return nil, s.spoilt
	}
	stmt, err := s.prepare(query)
	if err != nil {
		return nil, err
	}
	err = stmt.bind(args)
	if err != nil {
		return nil, failure(imprint.CodeInternal, err, "")
	}
	stmt.reading = true
	return &rows{s: s, stmt: stmt, query: query}, nil
}

// first reads the first row of a statement that runs outside of transactions, so
// that no error spoils one.
func (s *session) first(query string, dest ...any) error {
	r, err := s.Scan(query)
	if err == nil {
		if r.Next() {
			err = r.Scan(dest...)
		}
		err = errors.Join(err, r.Err(), r.Close())
	}
	s.spoilt = nil
	return err
}

// rows are what a statement finds, read step by step. A column that is NULL reads
// as the zero value.
type rows struct {
	s       *session
	stmt    *statement // nil when closed
	query   string
	err     error
	watched bool // the context ends it
	over    bool // there are no more; another step would begin anew
}

var _ registry.Rows = (*rows)(nil)

// Next implements registry.Rows.
func (r *rows) Next() bool {
	if r.over || r.err != nil || r.stmt == nil {
		return false
	}
	found, err := r.stmt.Step()
	if err != nil {
		r.err = r.s.failed(err)
	}
	r.over = !found
	return found
}

// Scan implements registry.Rows.
func (r *rows) Scan(dest ...any) error {
	if n := r.stmt.ColumnCount(); n != len(dest) {
		return fmt.Errorf("the row has %d columns, %d are asked for", n, len(dest))
	}
	for i, to := range dest {
		switch to := to.(type) {
		case *string:
			*to = r.stmt.ColumnText(i)
		case *int64:
			*to = r.stmt.ColumnInt64(i)
		case *int:
			*to = r.stmt.ColumnInt(i)
		case *uint8:
			*to = uint8(r.stmt.ColumnInt(i))
		case *[]byte:
			*to = nil
			if !r.stmt.ColumnIsNull(i) {
				*to = make([]byte, r.stmt.ColumnLen(i))
				r.stmt.ColumnBytes(i, *to)
			}
		default:
			return fmt.Errorf("column %d can't be read into a %T", i, to)
		}
	}
	return nil
}

// Err implements registry.Rows.
func (r *rows) Err() error { return r.err }

// Close implements registry.Rows. A second call does nothing.
func (r *rows) Close() error {
	if r.stmt == nil {
		return nil
	}
	stmt := r.stmt
	r.stmt = nil
	if r.watched {
		// First, or the end of the context would be an error of the reset.
		r.s.conn.SetInterrupt(nil)
	}
	err := stmt.release()
	if r.s.stmts[r.query] != stmt {
		err = errors.Join(err, stmt.Finalize())
	}
	if err != nil && r.err == nil {
		return r.s.failed(err)
	}
	return nil
}
