package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint"
)

func openSession(t *testing.T, tables ...string) *session {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	err := makeFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSession(path, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := s.close()
		if err != nil {
			t.Errorf("couldn't close the session: %v", err)
		}
	})
	for _, table := range tables {
		err = s.control(table)
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

const values = "CREATE TABLE v (n INTEGER PRIMARY KEY, t TEXT, b BLOB)"

func put(t *testing.T, s *session, n int64, text string, blob []byte) {
	t.Helper()
	changed, err := s.Exec("INSERT INTO v (t, b, n) VALUES ($2, $3, $1)", n, text, blob)
	if err != nil || changed != 1 {
		t.Fatalf("got %d changed, %v", changed, err)
	}
}

// TestValuesComeBackAsTheyWere ensures that what is bound is what is read, whatever
// stood in the statement before.
func TestValuesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	s := openSession(t, values)
	long := strings.Repeat("long \x00 ü", longValue)
	type row struct {
		N int64
		T string
		B []byte
	}
	want := []row{{1, "", nil}, {2, long, []byte(long)}, {3, "", []byte{}}, {4, "a\x00b", []byte{0}}, {5, "é", nil}}
	for _, one := range want {
		put(t, s, one.N, one.T, one.B)
	}
	rows, err := s.Query("SELECT n, t, b FROM v WHERE n >= $2 AND n <> $1 ORDER BY n", int64(99), int64(1))
	if err != nil {
		t.Fatal(err)
	}
	var got []row
	for rows.Next() {
		var one row
		err = rows.Scan(&one.N, &one.T, &one.B)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, one)
	}
	if rows.Next() {
		t.Error("a row came after the last one")
	}
	if err := errors.Join(rows.Err(), rows.Close(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what was read differs:\n%s", diff)
	}
}

// TestTheSameTextIsReadInsideItself ensures that a statement whose rows are being
// read isn't begun anew by another reader of the same text.
func TestTheSameTextIsReadInsideItself(t *testing.T) {
	t.Parallel()
	s := openSession(t, values)
	for n := range int64(3) {
		put(t, s, n, "", nil)
	}
	const text = "SELECT n FROM v WHERE n >= $1 ORDER BY n"
	var pairs []string
	outer, err := s.Query(text, int64(0))
	if err != nil {
		t.Fatal(err)
	}
	for outer.Next() {
		var a int64
		err = outer.Scan(&a)
		if err != nil {
			t.Fatal(err)
		}
		inner, err := s.Query(text, a+1)
		if err != nil {
			t.Fatal(err)
		}
		for inner.Next() {
			var b int64
			err = inner.Scan(&b)
			if err != nil {
				t.Fatal(err)
			}
			pairs = append(pairs, fmt.Sprint(a, b))
		}
		if err := errors.Join(inner.Err(), inner.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(outer.Err(), outer.Close()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"0 1", "0 2", "1 2"}, pairs); diff != "" {
		t.Errorf("the pairs differ:\n%s", diff)
	}
	if len(s.stmts) != 3 { // the table's, the insert's and one of the select's
		t.Errorf("got %d statements, want each text once", len(s.stmts))
	}
}

// TestAMistakeInAStatementSpoilsNothing ensures that statements that can't run are
// refused and that the transaction goes on.
func TestAMistakeInAStatementSpoilsNothing(t *testing.T) {
	t.Parallel()
	s := openSession(t, values, "BEGIN")
	put(t, s, 1, "kept", nil)
	for _, row := range []struct {
		text string
		args []any
	}{
		{"SELECT n FROM v WHERE n = $1", nil},
		{"SELECT n FROM v WHERE n = $1", []any{int64(1), int64(2)}},
		{"SELECT n FROM v WHERE n = $1", []any{1.5}},
		{"SELECT n FROM v WHERE n = ?", []any{int64(1)}},
		{"SELECT nothing FROM v", nil},
		{"SELECT n FROM v; SELECT n FROM v", nil},
		{"INSERT INTO v (n) VALUES ($1)", []any{int64(1)}},
	} {
		_, err := s.Exec(row.text, row.args...)
		if err == nil {
			t.Errorf("%s with %v ran", row.text, row.args)
		}
		if s.spoilt != nil {
			t.Fatalf("%s with %v spoilt the transaction: %v", row.text, row.args, s.spoilt)
		}
	}
	put(t, s, 2, "too", nil)
	err := s.control("COMMIT")
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	err = s.first("SELECT count(*) FROM v", &n)
	if err != nil || n != 2 {
		t.Errorf("got %d rows, %v", n, err)
	}
	var wrong float64
	err = s.first("SELECT n FROM v", &wrong)
	if err == nil {
		t.Error("a number was read into a float64")
	}
	err = s.first("SELECT n FROM v", &n, &n)
	if err == nil {
		t.Error("a column was read into two")
	}
}

// TestAScanEndsWithItsContext ensures that a long statement ends with its context,
// says why, and leaves a connection that works.
func TestAScanEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := openSession(t, values)
	put(t, s, 1, "", nil)
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	rows, err := s.Scan("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c WHERE n < $1", int64(3))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !rows.Next() {
			t.Fatalf("got no row: %v", rows.Err())
		}
	}
	cancel()
	if rows.Next() {
		t.Fatal("got a third row")
	}
	if err := rows.Err(); !errors.Is(err, context.Canceled) || imprint.CodeOf(err) != imprint.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
	_, err = s.Scan("SELECT n FROM v")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a Scan after the end: got %v", err)
	}
	s.ctx, s.spoilt = context.Background(), nil
	var n int64
	err = s.first("SELECT n FROM v", &n)
	if err != nil || n != 1 {
		t.Errorf("after it: got %d, %v", n, err)
	}
}
