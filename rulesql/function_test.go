package rulesql_test

import "testing"

func TestTextFunctions(t *testing.T) {
	t.Parallel()
	checkExpressions(t, second, []expressionTest{
		{"lower('HeLLo')", `"hello"`}, {"UPPER(s)", `"PRESS"`}, {"upper(['b'])", `"[\"B\"]"`}, {"lower(nil)", undefined}, {"lower(missing)", undefined}, {"upper(d)", `"2.5"`},
		{"trim(t)", `"x"`}, {"ltrim(t)", `"x\t"`}, {"rtrim(t)", `"  x"`}, {"trim(nil)", undefined},
		{"length('größe')", "5"}, {"length(no)", "5"}, {"numbytes('größe')", "7"}, {"length(missing)", undefined},
		{"startswith('ranger', 'ran')", "true"}, {"startswith(725, 7)", "true"}, {"startswith(nil, 'a')", undefined}, {"endswith('cat', 'at')", "true"}, {"endswith('cat', 'ca')", "false"},
		{"indexof('abcd', 'bc')", "1"}, {"indexof('größe', 'e')", "4"}, {"indexof('a', 'b')", "-1"}, {"indexof(nil, 'b')", undefined},
		{"lpad('hi', 2)", `"  hi"`}, {"rpad(1, 3)", `"1   "`}, {"lpad('hi', -5)", `"hi"`}, {"lpad('hi', 2.9)", `"  hi"`}, {"lpad('hi', yes)", undefined}, {"length(rpad('', 5000))", "1000"},
		{"replace('abcabc', 'b', 'xy')", `"axycaxyc"`}, {"replace('abc', '', 'x')", `"abc"`}, {"replace(112, 1, 3)", `"332"`}, {"replace('a', nil, 'x')", undefined},
		{"substring('012345', 2)", `"2345"`}, {"substring('012345', 2.745)", `"2345"`}, {"substring(123, 2)", `"3"`}, {"substring('012345', -1)", `"012345"`},
		{"substring(yes, 1.2)", `"rue"`}, {"substring(no, -2.411E247)", `"false"`}, {"substring('012345', 1, 3)", `"12"`}, {"substring('012345', -50, 50)", `"012345"`},
		{"substring('012345', 3, 1)", `""`}, {"substring('größe', 2, 4)", `"öß"`}, {"substring('a', 'b')", undefined}, {"substring('012345', '1', 2e300)", `"12345"`},
		{"concat()", undefined}, {"concat(1)", "1"}, {"concat([1, 2], 3)", "[1,2,3]"}, {"concat([1], 'x', [2])", `[1,"x",2]`}, {"concat('con', 'cat')", `"concat"`},
		{"concat(1, 'hello')", `"1hello"`}, {"concat(1, 2)", undefined}, {"concat('a', nil)", undefined}, {"concat([1], missing)", "[1]"},
		{"chr(65)", `"A"`}, {"chr('49.9')", `"1"`}, {"chr(200)", undefined}, {"chr(-1)", undefined}, {"chr(yes)", undefined},
		{"md2('abc')", `"da853b0d3f88d99b30283a69e6ded6bb"`}, {"md2('')", `"8350e5a3e24c153df2275c9f80692773"`}, {"md2('12345678901234567890123456789012345678901234567890123456789012345678901234567890')", `"d5976f79d83d3a0dc9806c3c66f3efd8"`},
		{"md5('hello')", `"5d41402abc4b2a76b9719d911017c592"`}, {"sha1('abc')", `"a9993e364706816aba3e25717850c26c9cd0d89d"`},
		{"sha224('abc')", `"23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"`}, {"sha256('abc')", `"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"`},
		{"length(sha384(1))", "96"}, {"length(sha512(a))", "128"}, {"md5(nil)", undefined},
	})
}

func TestNumberFunctions(t *testing.T) {
	t.Parallel()
	checkExpressions(t, second, []expressionTest{
		{"abs(-5)", "5"}, {"abs('-5.123')", "5.123"}, {"abs(yes)", undefined}, {"abs(nil)", undefined}, {"abs(a)", undefined},
		{"ceil(1.2)", "2"}, {"ceil(-1.2)", "-1"}, {"floor(1.2)", "1"}, {"floor(-1.2)", "-2"}, {"floor('x')", undefined}, {"floor(1e-300)", "0"}, {"floor(-1e-300)", "-1"}, {"ceil(1e300)", "1E+300"},
		{"round(1.2)", "1"}, {"round(1.5)", "2"}, {"round(-1.1)", "-1"}, {"round(-1.5)", "-2"}, {"round(0.49999)", "0"}, {"round('2.5')", "3"}, {"round(1e-300)", "0"},
		{"trunc(2.3, 0)", "2"}, {"trunc(2.3123, 2)", "2.31"}, {"trunc(2.888, 2)", "2.88"}, {"trunc(2.00, 5)", "2"}, {"trunc(-2.75, 1)", "-2.7"}, {"trunc(2.5001, 3)", "2.5"}, {"trunc(2.5, -3)", "2"}, {"trunc(1e-300, 34)", "0"}, {"trunc('x', 1)", undefined},
		{"sign(-7)", "-1"}, {"sign(0)", "0"}, {"sign('13')", "1"}, {"mod(8, 3)", "2"}, {"remainder(8.5, 3)", "2.5"}, {"mod('9', 4)", "1"}, {"mod(1, 0)", undefined},
		{"bitand(13, 5)", "5"}, {"bitor(8, 5)", "13"}, {"bitxor(13, 5)", "8"}, {"bitnot(13)", "2"}, {"bitnot(-14)", "13"}, {"bitnot(0)", "0"}, {"bitand(13.9, '5')", "5"}, {"bitand(yes, 1)", undefined}, {"bitor(-8, 3)", "-5"},
		{"sqrt(9)", "3"}, {"sqrt(-1)", undefined}, {"sqrt(2)", "1.4142135623730951"}, {"exp(0)", "1"}, {"exp(1000000)", undefined}, {"ln(1)", "0"}, {"ln(0)", undefined}, {"log(100)", "2"},
		{"power(2, 5)", "32"}, {"power(2, 0.5)", "1.4142135623730951"}, {"power(-1, 0.5)", undefined}, {"acos(0)", "1.5707963267948966"}, {"acos(2)", undefined}, {"asin(0)", "0"}, {"atan(0)", "0"},
		{"atan2(1, 0)", "1.5707963267948966"}, {"cos(0)", "1"}, {"cosh(2.3)", "5.037220649268761"}, {"sin(0)", "0"}, {"sinh(2.3)", "4.936961805545957"}, {"tan(3)", "-0.1425465430742778"}, {"tanh(2.3)", "0.9800963962661914"},
		{"nanvl(8, 3)", "8"}, {"nanvl(missing, 3)", "3"}, {"nanvl(nil, 3)", "3"}, {"nanvl('x', 3)", `"x"`}, {"rand()", "0.5019607843137255"},
	})
	checkExpressions(t, first, []expressionTest{
		{"sqrt(9)", "3.0"}, {"power(2, 5)", "32.0"}, {"log(100)", "2.0"}, {"power(10, 7)", "1.0E+7"}, {"power(10, 6)", "1000000.0"}, {"sin(0)", "0.0"}, {"floor(1.2)", "1"}, {"exp(1)", "2.718281828459045"}, {"abs(-5.0)", "5.0"}, {"power(2, 40)", "1099511627776"},
	})
}

func TestValueFunctions(t *testing.T) {
	t.Parallel()
	checkExpressions(t, second, []expressionTest{
		{"isNull(nil)", "true"}, {"isNull(missing)", "false"}, {"isNull(5)", "false"}, {"isUndefined(missing)", "true"}, {"isUndefined(floor([1]))", "true"}, {"isUndefined(nil)", "false"},
		{"get(a, 1)", `"two"`}, {"get(a, '1')", `"two"`}, {"get(a, 3)", undefined}, {"get(a, -1)", undefined}, {"get('abc', 1)", `"b"`}, {"get('größe', 2)", `"ö"`}, {"get('a', 1)", undefined},
		{"get(o, 'k')", `"v"`}, {"get(o, 1)", undefined}, {"get(*, 'odd-key')", "1"}, {"get(nil, 1)", undefined}, {"get(get(o.deep, 'er'), 1)", "20"},
		{"get_or_default(missing, 3)", "3"}, {"get_or_default(nil, 3)", "3"}, {"get_or_default(i, 3)", "7"}, {"get_or_default(missing)", undefined},
		{"cast(yes AS Int)", "1"}, {"cast(no as integer)", "0"}, {"cast('12.9' AS Int)", "12"}, {"cast(-1.5 AS Int)", "-2"}, {"cast(a AS Int)", undefined}, {"cast(nil AS Int)", undefined},
		{"cast('1.50' AS Decimal)", "1.50"}, {"cast(yes AS Decimal)", "1"}, {"cast('x' AS Decimal)", undefined}, {"cast(0.1 AS Double)", "0.1"}, {"cast('0.12345678901234567890' AS double)", "0.12345678901234568"},
		{"cast(0 AS Boolean)", "false"}, {"cast(0.5 AS Bool)", "true"}, {"cast('True' AS Boolean)", "true"}, {"cast('x' AS Boolean)", undefined}, {"cast(nil AS Boolean)", undefined},
		{"cast(1.5 AS String)", `"1.5"`}, {"cast(yes AS varchar)", `"true"`}, {"cast(a AS Text)", `"[1,\"two\",3.5]"`}, {"cast(nil AS NVarchar)", undefined}, {"cast('a' AS ntext)", `"a"`},
		{"encode('hi', 'base64')", `"aGk="`}, {"encode(i, 'base64')", `"Nw=="`}, {"encode(missing, 'base64')", undefined}, {"encode('hi', 'hex')", undefined},
		{"decode('eyJhIjoxfQ==', 'base64').a", "1"}, {"decode('eyJhIjoxfQ', 'base64').a", "1"}, {"decode('aGk=', 'base64')", `"hi"`}, {"decode('?', 'base64')", "null"}, {"decode('/w==', 'base64')", "null"}, {"decode(5, 'base64')", "null"}, {"decode(missing, 'base64')", undefined},
		{"transform('enrichArray', {'x': 1}, [{'a': 1}, {'x': 2, 'b': 3}])", `[{"a":1,"x":1},{"x":1,"b":3}]`}, {"transform('other', {'x': 1}, [{'a': 1}])", undefined}, {"transform('enrichArray', {'x': 1}, [1])", undefined}, {"transform('enrichArray', 1, [])", undefined},
	})
	checkExpressions(t, first, []expressionTest{{"cast(yes AS Double)", "1.0"}, {"cast(5 AS Double)", "5.0"}, {"cast('7.9' AS Int)", "7"}})
}

func TestMessageFunctions(t *testing.T) {
	t.Parallel()
	checkExpressions(t, second, []expressionTest{
		{"topic()", `"plant/7/state"`}, {"topic(1)", `"plant"`}, {"topic(3)", `"state"`}, {"topic(4)", undefined}, {"topic(0)", undefined}, {"topic('2')", `"7"`}, {"topic(2.9)", `"7"`},
		{"clientid()", `"press-7"`}, {"principal()", `"4f1d"`}, {"sourceip()", `"192.0.2.7"`}, {"traceid()", `"0b0e7f2e-3f5e-4c2a-9a64-0d6c9f1f5b11"`}, {"accountid()", `"000000000000"`},
		{"sql_version()", `"2016-03-23"`}, {"timestamp()", "1773489600250"}, {"newuuid()", `"80808080-8080-4080-8080-808080808080"`},
		{"get_mqtt_property('content_type')", `"application/json"`}, {"get_mqtt_property('format_indicator')", `"UTF8_DATA"`}, {"get_mqtt_property('response_topic')", `"answers/7"`}, {"get_mqtt_property('correlation_data')", `"AP8="`}, {"get_mqtt_property('other')", undefined},
		{"get_user_properties('shift')", `"1"`}, {"get_user_properties('line')", `["A","B"]`}, {"get_user_properties('none')", undefined}, {"get_user_properties()", `[{"line":"A"},{"shift":"1"},{"line":"B"}]`},
	})
	checkExpressions(t, first, []expressionTest{{"sql_version()", `"2015-10-08"`}})
}

func TestRegularExpressions(t *testing.T) {
	t.Parallel()
	checkExpressions(t, second, []expressionTest{
		{"regexp_matches('aaaa', 'a{2,}')", "true"}, {"regexp_matches('aaaa', 'b')", "false"}, {"regexp_matches(nil, 'b')", undefined}, {"regexp_matches(1234, '^\\d+$')", "true"},
		{"regexp_substr('hihihello', 'hi')", `"hi"`}, {"regexp_substr('hihihello', '(hi)*')", `"hihi"`}, {"regexp_substr('abc', 'x')", undefined}, {"regexp_substr(topic(), '[0-9]+')", `"7"`},
		{"regexp_replace('abcd', 'bc', 'x')", `"axd"`}, {"regexp_replace('abcd', 'b(.*)d', '$1')", `"ac"`}, {"regexp_replace('2026-03-14', '(?<y>\\d+)-(\\d+)-(\\d+)', '$3.$2.${y}')", `"14.03.2026"`},
		{"regexp_replace('a.b', '\\.', '\\$')", `"a$b"`}, {"regexp_replace('ab', 'b', '$2')", undefined}, {"regexp_replace('ab', 'b', '$')", undefined}, {"regexp_replace('ab', '(b)', '$10')", `"ab0"`}, {"regexp_replace('abc', 'x*', '-')", `"-a-b-c-"`},
		{"regexp_matches('a+b', '\\Qa+b\\E')", "true"}, {"regexp_matches('Ä', '\\p{Lu}')", "true"}, {"regexp_matches('x', '\\p{Lower}')", "true"}, {"regexp_matches('x', '[\\p{Upper}\\p{Digit}]')", "false"}, {"regexp_matches('ABC', '(?i)abc')", "true"},
		{"regexp_matches('A', '\\u0041')", "true"}, {"regexp_matches('A', '\\x41')", "true"}, {"regexp_matches('A', '\\0101')", "true"}, {"regexp_matches('x\t', '\\h')", "true"}, {"regexp_matches('α', '\\p{IsGreek}')", "true"}, {"regexp_substr('a1b2', '[^\\P{Alpha}]')", `"a"`},
		{"regexp_matches(s, get(['(', 'p'], 0))", undefined}, {"regexp_matches(s, get(['x', 'p'], 1))", "true"},
		{"regexp_replace('aaa', '^a', 'x')", `"xaa"`}, {"length(regexp_replace(rpad('', 1000), '^ +', 'x'))", "1"}, {"regexp_replace('aab', '^a|b', 'x')", `"xax"`}, {"regexp_replace('foo bar', '\\b.', '*')", `"*oo**ar"`},
		{"length(regexp_replace(rpad('', 1000), ' ', 'ab'))", "2000"}, {"length(regexp_replace(rpad('', 1000), '$', 'x'))", "1001"}, {"length(regexp_replace(rpad('', 1000), ' (?: )', 'x'))", "500"},
	})
}

func TestTimeFunctions(t *testing.T) {
	t.Parallel()
	checkExpressions(t, second, []expressionTest{
		{"parse_time(\"yyyy.MM.dd G 'at' HH:mm:ss z\", 100000000, 'America/Belize')", `"1970.01.01 AD at 21:46:40 CST"`},
		{"parse_time('yyyy', timestamp(), 'UTC')", `"2026"`}, {"parse_time(\"yyyy-MM-dd'T'HH:mm:ss.SSSZZ\", timestamp())", `"2026-03-14T12:00:00.250+00:00"`},
		{"parse_time('EEE EEEE MMM MMMM M d D e w xxxx yy C', timestamp())", `"Sat Saturday Mar March 3 14 73 6 11 2026 26 20"`},
		{"parse_time('h hh K k a ss S SSSSSS', timestamp())", `"12 12 0 12 PM 00 2 250000"`}, {"parse_time('HH Z ZZ ZZZ zzzz', timestamp(), '+05:30')", `"17 +0530 +05:30 +05:30 +05:30"`}, {"parse_time('zzzz', 0)", `"Coordinated Universal Time"`},
		{"parse_time(\"''yyyy''\", 0)", `"'1970'"`}, {"parse_time('yyyy', 'x')", undefined}, {"parse_time('yyyy', 1e300)", undefined}, {"parse_time('yyyy', 0, 'No/Where')", undefined}, {"parse_time(s, 0)", undefined}, {"parse_time('yyyy', -1)", `"1969"`},
		{"time_to_epoch('2020-04-03 09:45:18 UTC+01:00', 'yyyy-MM-dd HH:mm:ss VV')", "1585903518000"}, {"time_to_epoch('18 December 2015', 'dd MMMM yyyy')", "1450396800000"},
		{"time_to_epoch('2007-12-03 10:15:30.592 America/Los_Angeles', 'yyyy-MM-dd HH:mm:ss.SSS z')", "1196705730592"}, {"time_to_epoch('2026-03-14T12:00:00.250Z', \"yyyy-MM-dd'T'HH:mm:ss.SSSX\")", "1773489600250"},
		{"time_to_epoch('20260314120000250', 'yyyyMMddHHmmssSSS')", "1773489600250"}, {"time_to_epoch('3/4/26 1:05 PM', 'M/d/yy h:mm a')", "1772629500000"}, {"time_to_epoch('Sat, 14 Mar 2026 13:00:00 +0100', 'EEE, dd MMM yyyy HH:mm:ss Z')", "1773489600000"},
		{"time_to_epoch('2026-073', 'yyyy-DDD')", "1773446400000"}, {"time_to_epoch('2026-02-30', 'yyyy-MM-dd')", undefined}, {"time_to_epoch('2026-13-01', 'yyyy-MM-dd')", undefined}, {"time_to_epoch('12:00', 'HH:mm')", undefined}, {"time_to_epoch('2026-03-14 x', 'yyyy-MM-dd')", undefined},
		{"time_to_epoch('2026', 'yyyy') + 0", "1767225600000"}, {"time_to_epoch(2026, 'yyyy')", "1767225600000"}, {"time_to_epoch(nil, 'yyyy')", undefined},
		{"time_to_epoch(parse_time('yyyy-MM-dd HH:mm:ss.SSS', timestamp()), 'yyyy-MM-dd HH:mm:ss.SSS') = timestamp()", "true"},
		{"time_to_epoch('44 BC 03 15', 'y G MM dd')", "-63517824000000"}, {"time_to_epoch('2026-3-14 24:5', 'uuuu-L-d kk:m')", "1773446700000"}, {"time_to_epoch('2026-03-14 0 AM', 'yyyy-MM-dd K a')", "1773446400000"}, {"time_to_epoch('2026-03-14 5', 'yyyy-MM-dd h')", undefined},
		{"time_to_epoch('2026-03-14 43200250', 'yyyy-MM-dd A')", "1773489600250"}, {"time_to_epoch('2026-03-14 43200250000000', 'yyyy-MM-dd N')", "1773489600250"}, {"time_to_epoch('2026-03-14 12 250000000', 'yyyy-MM-dd HH n')", "1773489600250"}, {"time_to_epoch('2026-03-14 GMT+1', 'yyyy-MM-dd O')", "1773442800000"},
		{"time_to_epoch('2026-03-14 GMT', 'yyyy-MM-dd O')", "1773446400000"}, {"time_to_epoch('2026-03-14 UTC+1', 'yyyy-MM-dd O')", undefined}, {"time_to_epoch('2026-03-14 +01', 'yyyy-MM-dd x')", "1773442800000"}, {"time_to_epoch('2026-03-14 25', 'yyyy-MM-dd HH')", undefined}, {"time_to_epoch('2026-03-14 12:60', 'yyyy-MM-dd HH:mm')", undefined},
		{"time_to_epoch('2026-03-14 +99', 'yyyy-MM-dd x')", undefined}, {"time_to_epoch('2026-366', 'yyyy-DDD')", undefined}, {"time_to_epoch('2024-366', 'yyyy-DDD')", "1735603200000"}, {"time_to_epoch('14 Mai 2026', 'd MMM yyyy')", undefined}, {"time_to_epoch('2026-03-14 No/Where', 'yyyy-MM-dd VV')", undefined},
		{"time_to_epoch('2026-03-14 !', 'yyyy-MM-dd z')", undefined}, {"time_to_epoch('x', 'y')", undefined}, {"time_to_epoch('123456', 'yyyy')", undefined},
		{"parse_time('G yyyy YYYY yy', -99999999999999)", `"BC -1199 1200 01"`}, {"parse_time('k a', 46800000)", `"13 PM"`}, {"parse_time('ZZ', 0, '-0330')", `"-03:30"`},
	})
}
