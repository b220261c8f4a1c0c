package rulesql_test

import (
	"context"
	"testing"

	"github.com/imprint-iot/imprint/rulesql"
)

// SELECT makes the payload that its items describe, members in order.
func TestSelectMakesThePayload(t *testing.T) {
	t.Parallel()
	const reading = `{"kind":"oven","heat":180,"zone":{"left":1,"right":{"inner":2}},"tags":["a","b"]}`
	tests := []struct{ sql, payload, want string }{
		{"SELECT kind FROM 't'", reading, `{"kind":"oven"}`},
		{"select kind as art, heat from 't'", reading, `{"art":"oven","heat":180}`},
		{"SELECT zone.right.inner FROM 't'", reading, `{"inner":2}`},
		{"SELECT zone.left AS a.b.c, heat AS a.b.d FROM 't'", reading, `{"a":{"b":{"c":1,"d":180}}}`},
		{"SELECT *, 15 AS speed FROM 't'", `{"a":1, "b": [1, 2]}`, `{"a":1,"b":[1,2],"speed":15}`},
		{"SELECT *, 15 AS b FROM 't'", `{"a":1,"b":2,"c":3}`, `{"a":1,"b":15,"c":3}`},
		{"SELECT 15 AS b, * FROM 't'", `{"a":1,"b":2}`, `{"b":2,"a":1}`},
		{"SELECT *, 5 AS zone.left FROM 't'", reading, `{"kind":"oven","heat":180,"zone":{"left":5,"right":{"inner":2}},"tags":["a","b"]}`},
		{"SELECT *, 5 AS heat.max FROM 't'", `{"heat":1}`, `{"heat":{"max":5}}`},
		{"SELECT missing, nil FROM 't'", `{"nil":null}`, `{"nil":null}`},
		{"SELECT missing FROM 't'", reading, `{}`},
		{"SELECT kind.x, tags.x FROM 't'", reading, `{}`},
		{"SELECT zone.*, heat FROM 't'", reading, `{"left":1,"right":{"inner":2},"heat":180}`},
		{"SELECT * AS was, heat FROM 't'", `{"heat":1}`, `{"was":{"heat":1},"heat":1}`},
		{"SELECT topic(), clientid() AS id FROM 't'", reading, `{"topic":"plant/7/state","id":"press-7"}`},
		{"SELECT heat + 1 FROM 't'", reading, `{"heat + 1":181}`},
		{"SELECT VALUE kind FROM 't'", reading, `"oven"`},
		{"SELECT VALUE tags FROM 't'", reading, `["a","b"]`},
		{"SELECT VALUE missing FROM 't'", reading, ``},
		{"SELECT value, value.x FROM 't'", `{"value":{"x":1}}`, `{"value":{"x":1},"x":1}`},
		{"SELECT value FROM 't'", `{"value":3}`, `{"value":3}`},
		{"SELECT value * 2 AS twice FROM 't'", `{"value":3}`, `{"twice":6}`},
		{"SELECT VALUE * FROM 't'", `{"value":3}`, `{"value":3}`},
		{"SELECT a.from, a.value, a.select FROM 't'", `{"a":{"from":1,"value":2,"select":3}}`, `{"from":1,"value":2,"select":3}`},
		{"SELECT {'lat': p.a, 'list': [p.b, 2, missing]} AS o FROM 't'", `{"p":{"a":1.5,"b":"x"}}`, `{"o":{"lat":1.5,"list":["x",2]}}`},
		{"SELECT cast(a AS Int) FROM 't'", `{"a":"7"}`, `{"cast":7}`},
		{"SELECT größe FROM 't'", `{"größe":1}`, `{"größe":1}`},
		{"SELECT a AS 'odd key' FROM 't'", `{"a":1}`, `{"odd key":1}`},
		{"SELECT 'it''s' AS a, \"it's\" AS b, 'a\\'b' AS c, '\\d\\\\' AS d FROM 't'", `{}`, `{"a":"it's","b":"it's","c":"a'b","d":"\\d\\\\"}`},
		{"SELECT *, 1 AS x FROM 't'", ``, `{"x":1}`},
		{"SELECT * FROM 't'", ``, `{}`},
	}
	for _, test := range tests {
		got := selected(t, test.sql, test.payload, second)
		if got != test.want {
			t.Errorf("%s of %s gives %s, want %s", test.sql, test.payload, got, test.want)
		}
	}
}

// SELECT * passes a payload on byte by byte, JSON or not.
func TestSelectStarPassesThePayloadOn(t *testing.T) {
	t.Parallel()
	for _, payload := range []string{`{ "a" : 1.0 }`, "\x00\xff binary", `[1, 2]`, `80`} {
		result, err := evaluation(t, "SELECT * FROM 't' WHERE topic(1) = 'plant'", payload, second).Select(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if !result.Matched || !result.Unchanged || string(result.Payload) != payload {
			t.Errorf("SELECT * of %q gives %+v", payload, result)
		}
	}
}

// Of a payload that is no JSON, only its bytes and what is known beside it can be used.
func TestPayloadsThatAreNoJSON(t *testing.T) {
	t.Parallel()
	const binary = "\x01\xfe"
	tests := []struct{ sql, payload, want string }{
		{"SELECT encode(*, 'base64') AS data, topic(2) AS id FROM 't'", binary, `{"data":"Af4=","id":"7"}`},
		{"SELECT a, isUndefined(a) AS none FROM 't'", binary, `{"none":true}`},
		{"SELECT *, clientid() AS id FROM 't'", binary, binary},
		{"SELECT * AS p, clientid() AS id FROM 't'", binary, `{"id":"press-7"}`},
		{"SELECT VALUE decode(encode(*, 'base64'), 'base64') FROM 't'", "80", `80`},
		{"SELECT VALUE decode(encode(*, 'base64'), 'base64') FROM 't'", "hello", `"hello"`},
		{"SELECT VALUE get(*, 1) FROM 't'", `[5, 6]`, `6`},
		{"SELECT a FROM 't'", `{"a":1} trailing`, `{}`},
	}
	for _, test := range tests {
		got := selected(t, test.sql, test.payload, second)
		if got != test.want {
			t.Errorf("%s of %q gives %q, want %q", test.sql, test.payload, got, test.want)
		}
	}
}

// The reason for an Undefined path is reported when the payload is no JSON.
func TestABinaryPayloadIsAProblemOnlyForPaths(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]int{"SELECT a, b FROM 't'": 1, "SELECT encode(*, 'base64') AS b FROM 't'": 0} {
		ev := evaluation(t, sql, "\xff", second)
		_, err := ev.Select(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if problems, all := ev.Problems(); all != want {
			t.Errorf("%s: problems %v, want %d", sql, problems, want)
		}
	}
}

// WHERE lets a message through when it is true, and not when it is false or Undefined.
func TestWhereDecides(t *testing.T) {
	t.Parallel()
	tests := []struct {
		where, payload string
		want           bool
	}{
		{"heat > 50", `{"heat":51}`, true},
		{"heat > 50", `{"heat":50}`, false},
		{"heat > 50", `{}`, false},
		{"heat > 50 AND kind <> 'red'", `{"heat":60,"kind":"red"}`, false},
		{"NOT heat > 50", `{"heat":50}`, true},
		{"NOT heat > 50", `{}`, false},
		{"isUndefined(heat)", `{}`, true},
		{"heat", `{"heat":"true"}`, false},
		{"ok", `{"ok":true}`, true},
		{"1", `{}`, false},
		{"kind IN ['a', 'b']", `{"kind":"b"}`, true},
		{"kind IN ('a', 'b')", `{"kind":"c"}`, false},
		{"kind NOT IN ('a', 'b')", `{"kind":"c"}`, true},
		{"'x' IN tags", `{"tags":["y","x"]}`, true},
		{"'x' IN (tags)", `{"tags":["y"]}`, false},
		{"EXISTS (SELECT * FROM list WHERE n > 2)", `{"list":[{"n":1},{"n":3}]}`, true},
		{"EXISTS (SELECT * FROM list WHERE n > 3)", `{"list":[{"n":1},{"n":3}]}`, false},
		{"2 IN (SELECT VALUE n FROM list)", `{"list":[{"n":1},{"n":2}]}`, true},
	}
	for _, test := range tests {
		result, err := evaluation(t, "SELECT topic() FROM 't' WHERE "+test.where, test.payload, second).Select(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if result.Matched != test.want {
			t.Errorf("WHERE %s of %s is %v, want %v", test.where, test.payload, result.Matched, test.want)
		}
	}
}

// A nested SELECT goes through an array, or looks into an object.
func TestNestedSelects(t *testing.T) {
	t.Parallel()
	const payload = `{"e":[{"n":"heat","v":22.5,"in":[{"x":1},{"x":2}]},{"n":"light","v":135},{"n":"light"}],"o":{"a":1,"b":2},"ns":[3,4]}`
	tests := []struct{ expression, want string }{
		{"(SELECT VALUE n FROM e)", `["heat","light","light"]`},
		{"(SELECT VALUE v FROM e)", `[22.5,135]`},
		{"(SELECT v FROM e WHERE n = 'light')", `[{"v":135},{}]`},
		{"(SELECT n AS name, v * 2 AS twice FROM e WHERE v > 0)", `[{"name":"heat","twice":45},{"name":"light","twice":270}]`},
		{"(SELECT * FROM e WHERE v > 100)", `[{"n":"light","v":135}]`},
		{"(SELECT *, 1 AS one FROM e WHERE v > 100)", `[{"n":"light","v":135,"one":1}]`},
		{"(SELECT x.n, x AS whole FROM e AS x WHERE x.v > 100)", `[{"n":"light","whole":{"n":"light","v":135}}]`},
		{"(SELECT VALUE x FROM ns AS x WHERE x > 3)", `[4]`},
		{"(SELECT VALUE (SELECT VALUE i.x + y.v FROM in2 AS i) FROM e AS y)", `[]`},
		{"(SELECT VALUE (SELECT VALUE i.x + y.v FROM y.in AS i) FROM e AS y)", `[[23.5,24.5]]`},
		{"get((SELECT v FROM e WHERE n = 'heat'), 0).v", `22.5`},
		{"(SELECT a FROM o)", `{"a":1}`},
		{"(SELECT VALUE b FROM o)", `2`},
		{"(SELECT a FROM o WHERE b = 3)", undefined},
		{"(SELECT VALUE a FROM missing)", undefined},
		{"(SELECT VALUE a FROM e.n)", undefined},
	}
	for _, test := range tests {
		got := selected(t, "SELECT VALUE "+test.expression+" FROM 't'", payload, second)
		if got != test.want {
			t.Errorf("%s gives %s, want %s", test.expression, got, test.want)
		}
	}
}

// SET names values that are used again, in SELECT, WHERE, other variables and nested SELECTs.
func TestVariables(t *testing.T) {
	t.Parallel()
	const sql = "SET @c = (f - 32) * 5 / 9, @round = {'c': round(@c)} " +
		"SELECT @c AS celsius, @round.c, (SELECT VALUE v + @c FROM list) AS sums FROM 't' WHERE @c > 20"
	got := selected(t, sql, `{"f":77,"list":[{"v":1},{"v":2}]}`, second)
	if want := `{"celsius":25,"c":25,"sums":[26,27]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	result, err := evaluation(t, sql, `{"f":32}`, second).Select(context.Background())
	if err != nil || result.Matched {
		t.Errorf("got %+v, %v, want no match", result, err)
	}
}

// What an untouched member looks like doesn't depend on whether it was decoded.
func TestMembersThatNobodyLooksAtAreWrittenTheSame(t *testing.T) {
	t.Parallel()
	members := []string{
		`1`, `-0`, `-7`, `10.0`, `2.50`, `-0.5`, `0.0`, `1e3`, `1E-9`, `0.0000001`, `123456789012345678901234567890123456789`,
		`"x"`, `"\u0041\/\n\u001f\ud83d\ude00\ud83d"`, `[1, 2.0 ,[]]`, `{ "a" : [ ] }`, `{"a":1,"a":2}`, `true`, `null`, `{}`, `[1,2]`,
	}
	for _, v := range []rulesql.Version{first, second} {
		for _, member := range members {
			payload := `{"m":` + member + `}`
			untouched := selected(t, "SELECT * , 1 AS one FROM 't'", payload, v)
			looked := selected(t, "SELECT *, m AS m, 1 AS one FROM 't'", payload, v)
			if untouched != looked {
				t.Errorf("version %s: %s is written %s, and %s when it was looked at", v, member, untouched, looked)
			}
		}
	}
}

// FROM takes topics as subscriptions at AWS IoT Core do.
func TestFromMatchesTopics(t *testing.T) {
	t.Parallel()
	tests := []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true},
		{"a/+", "a/b", true},
		{"a/+", "a/b/c", false},
		{"a/#", "a/b/c", true},
		{"a/#", "a", false},
		{"#", "a/b", true},
		{"#", "$aws/events/x", false},
		{"$aws/events/#", "$aws/events/x", true},
	}
	for _, test := range tests {
		s := parse(t, "SELECT * FROM '"+test.filter+"'", second)
		if got := s.Matches(test.topic); got != test.want {
			t.Errorf("FROM '%s' matches %s: %v, want %v", test.filter, test.topic, got, test.want)
		}
	}
	s := parse(t, "SELECT *", second)
	if _, ok := s.Filter(); ok || s.Matches("a") {
		t.Error("a statement without FROM matches a topic")
	}
}

// Basic Ingest topics name a rule and keep the rest as the topic.
func TestBasicIngestTopics(t *testing.T) {
	t.Parallel()
	tests := []struct {
		topic, rule, rest string
		ok                bool
	}{
		{"$aws/rules/Hot/plant/7", "Hot", "plant/7", true},
		{"$aws/rules/Hot", "Hot", "", true},
		{"$aws/rules//x", "", "x", false},
		{"plant/7", "", "", false},
	}
	for _, test := range tests {
		rule, rest, ok := rulesql.BasicIngest(test.topic)
		if rule != test.rule || rest != test.rest || ok != test.ok {
			t.Errorf("BasicIngest(%s) = %q, %q, %v", test.topic, rule, rest, ok)
		}
	}
}
