package sqlite

import (
	"context"
	"errors"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/imprint-iot/imprint"
)

// primary gives SQLite's primary result code, 0 for errors of other origin.
func primary(err error) int {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code() & 0xff
}

// spoils says whether an error may have ended the transaction that the
// statement ran in ("Response To Errors Within A Transaction").
func spoils(err error) bool {
	switch primary(err) {
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_ERROR, lib.SQLITE_MISMATCH, lib.SQLITE_TOOBIG, lib.SQLITE_RANGE:
		return false
	}
	return true
}

// classify gives an error of the database its code and a hint for the operator.
func classify(err error) error {
	switch primary(err) {
	case lib.SQLITE_FULL:
		return failure(imprint.CodeUnavailable, err, "The disk or quota that holds the data directory is full: free some space. Nothing that was acknowledged is lost.")
	case lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN, lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_NOLFS:
		return failure(imprint.CodeUnavailable, err, "Check the disk, the mount and the permissions of the data directory.")
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_PROTOCOL:
		return failure(imprint.CodeUnavailable, err, "Another program has the database file open: close it and retry.")
	case lib.SQLITE_NOMEM:
		return failure(imprint.CodeUnavailable, err, "The server has no memory left: give it more, or lower its limits.")
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return failure(imprint.CodeInternal, err, "The database file is damaged: stop the server and restore the last backup.")
	case lib.SQLITE_INTERRUPT:
		return failure(imprint.CodeUnavailable, err, "The caller went away or ran out of time: retry.")
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return failure(imprint.CodeUnavailable, err, "The caller went away or ran out of time: retry.")
	}
	return failure(imprint.CodeInternal, err, "")
}

func failure(code imprint.Code, err error, hint string) error {
	return &imprint.Error{Code: code, Op: "registry", Err: err, Hint: hint}
}

func errClosed() error {
	return imprint.Errorf(imprint.CodeUnavailable, "the registry is closed").
		WithHint("The server is shutting down: retry when it is back.")
}

func errCancelled(cause error) error {
	return failure(imprint.CodeUnavailable, cause, "The caller went away or ran out of time before its turn: retry.")
}
