package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/imprint-iot/imprint/store/internal/registry"
)

// maxStatements bounds the prepared statements of a connection. The registry
// has about a hundred texts; filters compose some more.
const maxStatements = 512

// session is one connection with its prepared statements, for one goroutine at
// a time. It implements registry.Conn.
type session struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt

	// ctx ends Scan; it is the background when nothing may.
	ctx context.Context
	// spoilt is the error that may have ended the open transaction: nothing
	// else may run in it, or it would run outside of any.
	spoilt error
	// opened, when not nil, runs before the first Exec of a closure.
	beforeWrite func() error
	// writes counts what Execs cost since the last checkpoint.
	writes int
}

var _ registry.Conn = (*session)(nil)

func newSession(ctx context.Context, db *sql.DB, pragmas ...string) (*session, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("couldn't open a connection to the database: %w", classify(err))
	}
	for _, pragma := range pragmas {
		_, err = conn.ExecContext(ctx, "PRAGMA "+pragma)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("couldn't set %s: %w", pragma, classify(err)), conn.Close())
		}
	}
	return &session{conn: conn, stmts: make(map[string]*sql.Stmt), ctx: context.Background()}, nil
}

func (s *session) close() error {
	err := s.forget()
	return errors.Join(err, s.conn.Close())
}

// forget closes the prepared statements.
func (s *session) forget() error {
	var errs []error
	for query, stmt := range s.stmts {
		errs = append(errs, stmt.Close())
		delete(s.stmts, query)
	}
	return errors.Join(errs...)
}

func (s *session) prepare(query string) (*sql.Stmt, error) {
	if stmt, ok := s.stmts[query]; ok {
		return stmt, nil
	}
	if len(s.stmts) >= maxStatements {
		err := s.forget()
		if err != nil {
			return nil, s.failed(err)
		}
	}
	stmt, err := s.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, s.failed(err)
	}
	s.stmts[query] = stmt
	return stmt, nil
}

// failed notes errors that spoil the transaction and classifies all.
func (s *session) failed(err error) error {
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
	_, err = stmt.ExecContext(context.Background())
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
	result, err := stmt.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, s.failed(err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, s.failed(err)
	}
	return n, nil
}

// Query implements registry.Conn. The context isn't given to the driver, which
// would start a goroutine for each statement to watch it.
func (s *session) Query(query string, args ...any) (registry.Rows, error) {
	err := s.ctx.Err()
	if err != nil {
		return nil, errCancelled(err)
	}
	return s.query(context.Background(), query, args)
}

// Scan implements registry.Conn.
func (s *session) Scan(query string, args ...any) (registry.Rows, error) {
	return s.query(s.ctx, query, args)
}

func (s *session) query(ctx context.Context, query string, args []any) (registry.Rows, error) {
	if s.spoilt != nil {
		return nil, s.spoilt
	}
	stmt, err := s.prepare(query)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, s.failed(err)
	}
	return result{rows, s}, nil
}

// result gives the errors of reading rows their codes.
type result struct {
	*sql.Rows
	s *session
}

func (r result) Err() error {
	err := r.Rows.Err()
	if err == nil {
		return nil
	}
	return r.s.failed(err)
}
