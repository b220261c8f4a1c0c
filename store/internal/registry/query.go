package registry

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/imprint-iot/imprint"
)

// scanner reads one row into a value.
type scanner[T any] func(*Tx, Rows, *T) error

// first gives the first row, and whether there is one.
func first[T any](t *Tx, scan scanner[T], query string, args ...any) (T, bool, error) {
	var value T
	if t.over {
		return value, false, errOver()
	}
	rows, err := t.conn.Query(query, args...)
	if err != nil {
		return value, false, err
	}
	found := rows.Next()
	if found {
		err = scan(t, rows, &value)
	}
	if err == nil {
		err = rows.Err()
	}
	closeErr := rows.Close()
	if err == nil {
		err = closeErr
	}
	if err != nil {
		return value, false, fmt.Errorf("couldn't read a row: %w", err)
	}
	return value, found, nil
}

// all gives every row: the query has its own limit.
func all[T any](t *Tx, scan scanner[T], query string, args ...any) ([]T, error) {
	var values []T
	err := each(t, false, scan, func(value T) bool {
		values = append(values, value)
		return true
	}, query, args...)
	return values, err
}

// some is all for a query whose last placeholder is its limit.
func some[T any](t *Tx, limit int, scan scanner[T], query string, args ...any) ([]T, error) {
	if limit < 1 {
		return nil, nil
	}
	return all(t, scan, query, append(args, int64(min(limit, maxPage)))...)
}

// each calls yield with each row until it returns false.
func each[T any](t *Tx, slow bool, scan scanner[T], yield func(T) bool, query string, args ...any) error {
	if t.over {
		return errOver()
	}
	run := t.conn.Query
	if slow {
		run = t.conn.Scan
	}
	rows, err := run(query, args...)
	if err != nil {
		return err
	}
	for rows.Next() {
		var value T
		err = scan(t, rows, &value)
		if err != nil || !yield(value) {
			break
		}
	}
	if err == nil {
		err = rows.Err()
	}
	closeErr := rows.Close()
	if err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("couldn't read rows: %w", err)
	}
	return nil
}

// upsert gives the text that inserts a row or replaces all of it; the first
// keys columns are the primary key.
func upsert(table string, keys int, columns ...string) string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES " + marks(1, len(columns)))
	b.WriteString(" ON CONFLICT (" + strings.Join(columns[:keys], ", ") + ") DO ")
	if keys == len(columns) {
		b.WriteString("NOTHING")
		return b.String()
	}
	b.WriteString("UPDATE SET ")
	for i, c := range columns[keys:] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c + " = excluded." + c)
	}
	return b.String()
}

// marks gives ($from, ...) with count placeholders.
func marks(from, count int) string {
	all := make([]string, count)
	for i := range all {
		all[i] = "$" + strconv.Itoa(from+i)
	}
	return "(" + strings.Join(all, ", ") + ")"
}

// list is a paged list over an index: the rows that where selects, in the order
// of the key columns, which must be unique together within where.
type list[T any] struct {
	kind  keyKind
	slow  bool // see Conn.Scan
	scan  scanner[T]
	key   func(*T) []any
	texts [4]string // descending, ascending; each without and with a cursor
}

// newList builds the texts. The condition uses $1 to $n with n = args.
func newList[T any](kind keyKind, columns, from string, args int, keys []string, scan scanner[T], key func(*T) []any) *list[T] {
	l := &list[T]{kind: kind, scan: scan, key: key}
	for i := range l.texts {
		ascending, next := i >= 2, i%2 == 1
		l.texts[i] = "SELECT " + columns + " FROM " + from + listTail(args, keys, ascending, next)
	}
	return l
}

// listTail gives the end of a list's text: the condition of the cursor, the
// order and the limit.
func listTail(args int, keys []string, ascending, next bool) string {
	var b strings.Builder
	n := args
	if next {
		sign := "<"
		if ascending {
			sign = ">"
		}
		b.WriteString(" AND " + tuple(keys) + " " + sign + " " + marks(n+1, len(keys)))
		n += len(keys)
	}
	direction := " DESC"
	if ascending {
		direction = ""
	}
	b.WriteString(" ORDER BY " + strings.Join(keys, direction+", ") + direction)
	b.WriteString(" LIMIT $" + strconv.Itoa(n+1))
	return b.String()
}

func tuple(parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// page reads one page. Keep decides which rows belong to it; nil keeps all.
func (l *list[T]) page(t *Tx, p imprint.Page, keep func(*T) bool, args ...any) ([]T, string, error) {
	limit, err := pageLimit(p)
	if err != nil {
		return nil, "", err
	}
	var from []any
	if p.Cursor != "" {
		from, err = readCursor(l.kind, p.Cursor)
		if err != nil {
			return nil, "", err
		}
	}
	var values []T
	for {
		var last *T
		read := 0
		err = each(t, l.slow, l.scan, func(value T) bool {
			read++
			last = &value
			if keep == nil || keep(&value) {
				values = append(values, value)
			}
			return len(values) <= limit
		}, l.text(p.Ascending, from != nil), l.args(args, from, limit+1)...)
		if err != nil {
			return nil, "", err
		}
		if len(values) > limit {
			values = values[:limit]
			return values, writeCursor(l.kind, l.key(&values[limit-1])), nil
		}
		if read <= limit {
			return values, "", nil
		}
		from = l.key(last)
	}
}

func (l *list[T]) text(ascending, next bool) string {
	i := 0
	if ascending {
		i = 2
	}
	if next {
		i++
	}
	return l.texts[i]
}

func (l *list[T]) args(args, from []any, limit int) []any {
	whole := make([]any, 0, len(args)+len(from)+1)
	whole = append(whole, args...)
	whole = append(whole, from...)
	return append(whole, int64(limit))
}

func pageLimit(p imprint.Page) (int, error) {
	if p.Limit < 1 {
		return 0, imprint.Errorf(imprint.CodeInvalidRequest, "a page of %d items can't be given", p.Limit)
	}
	return min(p.Limit, maxPage), nil
}

// keyRange is a list of the rows between two values of its key. Its texts hold
// the bound where the list ends; where it begins is its first cursor. With both
// bounds beside a cursor a database may begin at the wrong one.
type keyRange[T any] struct {
	kind     keyKind
	up, down *list[T]
}

// newRange builds the texts. The condition uses $1 to $n with n = args, and the
// bound is the next one.
func newRange[T any](kind keyKind, columns, where string, args int, column string, scan scanner[T], key func(*T) []any) keyRange[T] {
	end := func(sign string) *list[T] {
		return slowly(newList(kind, columns, fmt.Sprintf("%s AND %s %s $%d", where, column, sign, args+1), args+1,
			[]string{column}, scan, key))
	}
	return keyRange[T]{kind: kind, up: end("<"), down: end(">")}
}

// page reads one page of what is after one value and before another.
func (r keyRange[T]) page(t *Tx, p imprint.Page, keep func(*T) bool, after, before string, args ...any) ([]T, string, error) {
	l, begin, end := r.up, after, before
	if !p.Ascending {
		l, begin, end = r.down, before, after
	}
	if p.Cursor == "" {
		p.Cursor = writeCursor(r.kind, []any{begin})
	}
	return l.page(t, p, keep, append(args, end)...)
}
