package sqlite

import (
	"context"
	"errors"

	"zombiezen.com/go/sqlite"

	"github.com/imprint-iot/imprint"
)

// primary gives SQLite's primary result code, ResultError for errors of other
// origin.
func primary(err error) sqlite.ResultCode {
	var migration interface{ Code() int } // of the driver that the migrations use
	if errors.As(err, &migration) {
		return sqlite.ResultCode(migration.Code()).ToPrimary()
	}
	return sqlite.ErrCode(err).ToPrimary()
}

// spoils says whether an error may have ended the transaction that the
// statement ran in ("Response To Errors Within A Transaction").
func spoils(err error) bool {
	switch primary(err) {
	case sqlite.ResultConstraint, sqlite.ResultError, sqlite.ResultMismatch, sqlite.ResultTooBig, sqlite.ResultRange:
		return false
	}
	return true
}

// classify gives an error of the database its code and a hint for the operator.
func classify(err error) error {
	switch primary(err) {
	case sqlite.ResultFull:
		return failure(imprint.CodeUnavailable, err, "The disk or quota that holds the data directory is full: free some space. Nothing that was acknowledged is lost.")
	case sqlite.ResultIOErr, sqlite.ResultCantOpen, sqlite.ResultReadOnly, sqlite.ResultPerm, sqlite.ResultNoLFS:
		return failure(imprint.CodeUnavailable, err, "Check the disk, the mount and the permissions of the data directory.")
	case sqlite.ResultBusy, sqlite.ResultLocked, sqlite.ResultProtocol:
		return failure(imprint.CodeUnavailable, err, "Another program has the database file open: close it and retry.")
	case sqlite.ResultNoMem:
		return failure(imprint.CodeUnavailable, err, "The server has no memory left: give it more, or lower its limits.")
	case sqlite.ResultCorrupt, sqlite.ResultNotADB:
		return failure(imprint.CodeInternal, err, "The database file is damaged: stop the server and restore the last backup.")
	case sqlite.ResultInterrupt:
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
