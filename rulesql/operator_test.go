package rulesql_test

import "testing"

// Operators follow the tables of the developer guide.
func TestOperators(t *testing.T) {
	t.Parallel()
	checkExpressions(t, second, []expressionTest{
		// Sums join texts where one side is one.
		{"i + 1", "8"}, {"i + d", "9.5"}, {"s + 1", `"press1"`}, {"1 + s", `"1press"`}, {"s + yes", `"presstrue"`},
		{"s + a", `"press[1,\"two\",3.5]"`}, {"s + o.deep", `"press{\"er\":[10,20]}"`},
		{"s + nil", undefined}, {"s + missing", undefined}, {"yes + 1", undefined}, {"a + 1", undefined}, {"'1' + 2", `"12"`},
		{"s || 1", `"press1"`}, {"1 || 2", `"12"`},
		// Other arithmetic takes texts as the Decimals that they say.
		{"n - 2", "10.50"}, {"'5' / 2", "2.5"}, {"5 / 2", "2"}, {"-7 / 2", "-3"}, {"i / 2.5", "2.8"}, {"i * d", "17.5"},
		{"i % 4", "3"}, {"-7 % 4", "-3"}, {"7.5 % 2", "1.5"}, {"1 / 0", undefined}, {"1.5 / 0", undefined}, {"1 % 0", undefined},
		{"s * 2", undefined}, {"yes * 2", undefined}, {"nil * 2", undefined}, {"2 * '1e2'", "200"}, {"2 * ' 1'", undefined},
		{"2 + 3 * 4", "14"}, {"(2 + 3) * 4", "20"}, {"10 - 2 - 3", "5"}, {"-i", "-7"}, {"- -i", "7"}, {"-(i + 1)", "-8"}, {"-n", "-12.50"}, {"-s", undefined},
		{"1.5 + 1.5", "3"}, {"2.0 * 1.25", "2.50"},
		// Comparisons are of numbers.
		{"i > 6", "true"}, {"i >= 7", "true"}, {"i < 7", "false"}, {"i <= 6.99", "false"}, {"n > 12", "true"}, {"'abc' < 'abd'", undefined},
		{"yes > 0", undefined}, {"nil < 1", undefined}, {"missing < 1", undefined}, {"10 > 9.99e0", "true"}, {"1e-999 > 0", "true"},
		// Equality is of type and value.
		{"i = 7.0", "true"}, {"i = '7'", "false"}, {"i <> '7'", "true"}, {"i != 7", "false"}, {"nil = NULL", "true"}, {"nil <> null", "false"},
		{"nil = 0", "false"}, {"missing = missing", undefined}, {"missing <> 1", undefined}, {"a = [1.0, 'two', 3.50]", "true"},
		{"a = ['two', 1, 3.5]", "false"}, {"o = {'deep': {'er': [10, 20]}, 'k': 'v'}", "true"}, {"o <> {'k': 'v'}", "true"}, {"yes = true", "true"},
		// Logic takes Booleans and the texts that say them.
		{"yes AND text", "true"}, {"yes and no", "false"}, {"no OR yes", "true"}, {"NOT no", "true"}, {"NOT 'False'", "true"},
		{"yes AND missing", undefined}, {"yes OR missing", undefined}, {"no AND 1", undefined}, {"NOT s", undefined},
		{"no AND no OR yes", "true"}, {"yes OR no AND no", "true"}, {"NOT no AND no", "false"}, {"NOT i = 7", "false"},
		// CASE compares, takes the first, and is Undefined without any.
		{"CASE s WHEN 'x' THEN 1 WHEN 'press' THEN 2 WHEN 'press' THEN 3 ELSE 4 END", "2"},
		{"CASE s WHEN 'x' THEN 1 ELSE 4 END", "4"}, {"CASE s WHEN 'x' THEN 1 END", undefined}, {"CASE missing WHEN missing THEN 1 ELSE 2 END", undefined},
		{"CASE true WHEN i > 5 THEN 'high' ELSE 'low' END", `"high"`}, {"case i when 7.0 then 'int' end", `"int"`},
		// IN looks for an equal element.
		{"i IN a", "false"}, {"'two' IN a", "true"}, {"3.50 IN a", "true"}, {"1 NOT IN a", "false"}, {"missing IN a", undefined}, {"1 IN s", undefined}, {"1 IN (1, 2)", "true"}, {"1 + 1 IN (1, 2)", "true"},
		{"(o).k", `"v"`}, {"{'x': {'y': 1}}.x.y", "1"},
	})
}

// Numbers have 34 digits, and print as Java's BigDecimal does.
func TestNumbers(t *testing.T) {
	t.Parallel()
	checkExpressions(t, second, []expressionTest{
		{"9999999999999999999999999999999999", "9999999999999999999999999999999999"},
		{"9999999999999999999999999999999999 + 1", "1.000000000000000000000000000000000E+34"},
		{"9223372036854775807 + 1", "9223372036854775808"}, {"-9223372036854775808 - 1", "-9223372036854775809"},
		{"9223372036854775807 * 9223372036854775807", "8.507059173023461584739690778423250E+37"},
		{"0.1 + 0.2", "0.3"}, {"1 / 3.0", "0"}, {"1 / 1.5", "0.6666666666666666666666666666666667"}, {"2 / 1.5", "1.333333333333333333333333333333333"},
		{"1.0", "1"}, {"1e3", "1000"}, {"1.5e3", "1500"}, {"1e40", "1E+40"}, {"12e40", "1.2E+41"}, {"0.000001", "0.000001"}, {"0.0000001", "1E-7"},
		{"1e999 * 10", undefined}, {"1e-999 / 10.5", "0"}, {"1e900 + 1", "1.000000000000000000000000000000000E+900"}, {"1 - 1e-900", "1"},
		{"1e900 % 7", undefined}, {"7 % 1e900", "7"}, {"1e20 - 1e20", "0"}, {"-0.0", "0"},
		{"12345678901234567890 % 97", "3"}, {"1e33 = 1000000000000000000000000000000000", "true"}, {"1e34 > 1e33", "true"}, {"-1e34 < -1e33", "true"},
	})
	checkExpressions(t, first, []expressionTest{
		{"1.0", "1.0"}, {"2.50", "2.50"}, {"1.5 + 1.5", "3.0"}, {"5 / 2", "2"}, {"5.0 / 2", "2.5"}, {"6.0 / 2", "3.0"}, {"1e3", "1E+3"}, {"1 / 3.0", "0.3333333333333333333333333333333333"},
		{"10.0 % 3", "1.0"}, {"-2.0", "-2.0"}, {"0.1 * 3", "0.3"}, {"1.0 = 1", "true"}, {"'10' - 0", "10"},
	})
}
