package rulesql_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/imprint-iot/imprint/rulesql"
)

// Whatever a statement does with a message ends within the limits.
func TestEvaluationsAreBounded(t *testing.T) {
	t.Parallel()
	long := `{"s":"` + strings.Repeat("ab ", 40_000) + `","list":[` + strings.Repeat("1,", 30_000) + `1]}`
	doubling := "SET @v = 'xxxxxxxxxxxxxxxx'"
	arrays := "SET @v = [1, 2, 3, 4]"
	name := "v"
	for range 30 {
		doubling += ", @" + name + "d = @" + name + " + @" + name
		arrays += ", @" + name + "d = [@" + name + ", @" + name + "]"
		name += "d"
	}
	for what, sql := range map[string]string{
		"doubled text":          doubling + " SELECT @" + name + " AS x FROM 't'",
		"doubled arrays":        arrays + " SELECT @" + name + " AS x FROM 't'",
		"doubled arrays as one": arrays + " SELECT (@" + name + " = [1]) AS y, length(@" + name + ") AS x FROM 't'",
		"equal arrays":          strings.Replace(arrays, "SET", "SET @q = 1,", 1) + " SELECT VALUE @" + name + " = @" + name + " FROM 't'",
		"products of arrays":    "SELECT (SELECT VALUE (SELECT VALUE 1 FROM a.x) FROM a.x AS b) AS l, (SELECT VALUE concat(x, x) FROM list AS x) AS m, (SELECT VALUE (1 IN @l) FROM list) AS n FROM 't'",
		"long replacements":     "SELECT replace(s, ' ', s) AS x FROM 't'",
		"long matches":          "SELECT regexp_replace(s, ' ', s) AS x FROM 't'",
		"quadratic matches":     "SELECT regexp_replace(s, 'a(.*c)?', 'x') AS x FROM 't'",
		"quadratic looks back":  "SELECT regexp_replace(s, '\\ba(.*c)?', 'x') AS x FROM 't'",
		"large patterns":        "SELECT (SELECT VALUE regexp_matches(x, 'a{900}b{900}') FROM list AS x) AS x FROM 't'",
	} {
		sql = strings.Replace(sql, "(1 IN @l)", "(2 IN (SELECT VALUE y FROM [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] AS y))", 1)
		s := parse(t, sql, second)
		_, err := rulesql.NewEvaluation(s, message(long), nil).Select(context.Background())
		var limit *rulesql.LimitError
		if !errors.As(err, &limit) {
			t.Errorf("%s: got %v, want a LimitError", what, err)
			continue
		}
		if limit.Error() == "" || limit.Hint == "" {
			t.Errorf("%s: the error %#v says nothing", what, limit)
		}
	}
}

// A limit that was met in a substitution is an error of it, too.
func TestSubstitutionsAreBounded(t *testing.T) {
	t.Parallel()
	s := parse(t, "SELECT * FROM 't'", second)
	sub, err := s.ParseSubstitution("${s}${s}${s}")
	if err != nil {
		t.Fatal(err)
	}
	_, err = rulesql.NewEvaluation(s, message(`{"s":"`+strings.Repeat("x", 100<<10)+`"}`), nil).Expand(context.Background(), sub)
	var limit *rulesql.LimitError
	if !errors.As(err, &limit) {
		t.Errorf("got %v, want a LimitError", err)
	}
}

// A large message within the limits goes through.
func TestLargeMessagesWork(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`{"list":[`)
	for i := range 4000 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"n":"abc","v":1.5}`)
	}
	b.WriteString(`]`)
	for range 3000 {
		b.WriteString(`,"k`)
		b.WriteString(strings.Repeat("x", b.Len()%7))
		b.WriteString(`":1`)
	}
	b.WriteString(`}`)
	got := selected(t, "SELECT VALUE (SELECT VALUE v FROM list WHERE regexp_matches(n, 'b.') AND v > 1) FROM 't'", b.String(), second)
	if want := 4000 * len("1.5,"); len(got) != want+1 {
		t.Errorf("got %d bytes, want %d", len(got), want+1)
	}
}

// A statement and its substitutions serve many goroutines at once.
func TestStatementsAreShared(t *testing.T) {
	t.Parallel()
	s := parse(t, "SET @x = regexp_substr(topic(), '[0-9]+') SELECT *, @x AS id, (SELECT VALUE n FROM list) AS ns FROM 't' WHERE heat > 1.5", second)
	sub, err := s.ParseSubstitution("${@x}/${heat}")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				ev := rulesql.NewEvaluation(s, message(`{"heat":2.5,"list":[{"n":1}]}`), nil)
				result, err := ev.Select(context.Background())
				if want := `{"heat":2.5,"list":[{"n":1}],"id":"7","ns":[1]}`; err != nil || string(result.Payload) != want {
					t.Errorf("got %s, %v, want %s", result.Payload, err, want)
				}
				text, err := ev.Expand(context.Background(), sub)
				if err != nil || text != "7/2.5" {
					t.Errorf("got %q, %v", text, err)
				}
			}
		})
	}
	group.Wait()
}
