package restjson_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imprint-iot/imprint/awsapi/restjson"
)

type color string

type inner struct {
	Key   string  `api:"body Key Short required"`
	Value *string `api:"body Value Any"`
	Deep  *inner  `api:"body deep Inner"`
}

type input struct {
	Name   string           `api:"path name Short required"`
	Count  *int             `api:"query count Small"`
	Long   *int64           `api:"query long Any"`
	Flag   *bool            `api:"query flag Any"`
	Since  *time.Time       `api:"query since Any"`
	Words  []string         `api:"query words Words"`
	Who    *string          `api:"header x-who Any"`
	When   *time.Time       `api:"body when Any"`
	Size   *int             `api:"body size Small"`
	Color  *color           `api:"body color Color"`
	Tags   []inner          `api:"body tags Tags"`
	Pairs  map[string]color `api:"body pairs Pairs"`
	Inner  *inner           `api:"body inner Inner"`
	Secret *string          `api:"body secret Secret"`
}

type payloadInput struct {
	Payload *inner `api:"payload payload Inner required"`
}

func newCodec() *restjson.Codec {
	return restjson.New(restjson.Shapes{
		"Short":  {Limits: restjson.Between(1, 4), Pattern: `[a-zé]+|Z`},
		"Small":  {Limits: restjson.Between(1, 9)},
		"Words":  {Limits: restjson.AtMost(2), Member: "Short"},
		"Color":  {Enum: []string{"RED", "BLUE"}},
		"Tags":   {Limits: restjson.Between(1, 2), Member: "Inner"},
		"Pairs":  {Key: "Short", Value: "Color"},
		"Secret": {Limits: restjson.AtLeast(8), Sensitive: true},
	}, "InvalidRequestException")
}

func source(name, query, body string) restjson.Source {
	values, err := url.ParseQuery(query)
	if err != nil {
		panic(err)
	}
	return restjson.Source{
		Path: map[string]string{"name": name}, Query: values,
		Header: http.Header{"X-Who": {"me"}}, Body: []byte(body),
	}
}

func TestDecodeReadsEveryPlaceAndType(t *testing.T) {
	t.Parallel()
	var got input
	err := newCodec().Decode(source("ab", "count=3&long=-9007199254740993&flag=true&since=2024-01-02T03:04:05Z&words=a&words=b",
		`{"when":1549665132.123,"size":2.0,"color":"RED","tags":[{"Key":"k","Value":"","unknown":[{}]}],"pairs":{"a":"BLUE"},
		  "inner":{"Key":"x","key":"other case","deep":{"Key":"y"},"Value":null},"Inner":5,"more":{"a":[1,2]}}`), &got)
	if err != nil {
		t.Fatal(err)
	}
	red := color("RED")
	want := input{
		Name: "ab", Count: new(3), Long: new(int64(-9007199254740993)), Flag: new(true),
		Since: new(time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)), Words: []string{"a", "b"}, Who: new("me"),
		When: new(time.UnixMilli(1549665132123).UTC()), Size: new(2), Color: &red,
		Tags: []inner{{Key: "k", Value: new("")}}, Pairs: map[string]color{"a": "BLUE"},
		Inner: &inner{Key: "x", Deep: &inner{Key: "y"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDecodeTellsAbsentFromEmpty(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]input{
		"":                                     {Name: "ab", Who: new("me")},
		" \n":                                  {Name: "ab", Who: new("me")},
		"{}":                                   {Name: "ab", Who: new("me")},
		"null":                                 {Name: "ab", Who: new("me")},
		`{"pairs":null}`:                       {Name: "ab", Who: new("me")},
		`{"pairs":{}}`:                         {Name: "ab", Who: new("me"), Pairs: map[string]color{}},
		`{"when":"1970-01-01T01:00:00+01:00"}`: {Name: "ab", Who: new("me"), When: new(time.Unix(0, 0).UTC())},
	} {
		var got input
		if err := newCodec().Decode(source("ab", "", body), &got); err != nil {
			t.Errorf("%q: %v", body, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", body, diff)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	const invalid, serial = "InvalidRequestException", "SerializationException"
	const one = "1 validation error detected: Value "
	deep := strings.Repeat(`{"deep":`, 40) + "1" + strings.Repeat("}", 40)
	tests := []struct{ name, label, query, body, code, message string }{
		{"too long, in characters", "ééééé", "", "", invalid, one + "'ééééé' at 'name' failed to satisfy constraint: Member must have length less than or equal to 4"},
		{"pattern not anchored by the model", "a b", "", "", invalid, one + "'a b' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zé]+|Z"},
		{"pattern's alternatives anchored together", "aZ", "", "", invalid, "regular expression"},
		{"line feed at the end", "a\n", "", "", invalid, "regular expression"},
		{"several violations", "", "count=10", "", invalid, "3 validation errors detected: Value '' at 'name' failed to satisfy constraint: Member must have length greater than or equal to 1; Value '' at 'name' failed"},
		{"label that isn't UTF-8", "\xff", "", "", invalid, "name isn't UTF-8"},
		{"number too small", "a", "count=0", "", invalid, one + "'0' at 'count' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		{"number that isn't one", "a", "count=x", "", invalid, "count must be a whole number, not 'x'"},
		{"hexadecimal number", "a", "count=0x1p1", "", invalid, "count must be a whole number"},
		{"number over 32 bits", "a", "count=4294967297", "", invalid, "count must be a whole number"},
		{"boolean in words", "a", "flag=True", "", invalid, "flag must be true or false"},
		{"time that isn't one", "a", "since=today", "", invalid, "since must be a time"},
		{"parameter twice", "a", "count=1&count=1", "", invalid, "count is given 2 times"},
		{"list too long", "a", "words=a&words=b&words=c", "", invalid, "'[3 entries]' at 'words' failed to satisfy constraint: Member must have length less than or equal to 2"},
		{"element of a list", "a", "words=a&words=B", "", invalid, "'B' at 'words.2.member'"},
		{"enumeration", "a", "", `{"color":"red"}`, invalid, one + "'red' at 'color' failed to satisfy constraint: Member must satisfy enum value set: [RED, BLUE]"},
		{"required inside", "a", "", `{"inner":{}}`, invalid, one + "null at 'inner.Key' failed to satisfy constraint: Member must not be null"},
		{"required inside a list", "a", "", `{"tags":[{"Key":null}]}`, invalid, "null at 'tags.1.member.Key'"},
		{"empty list", "a", "", `{"tags":[]}`, invalid, "'[0 entries]' at 'tags'"},
		{"map key", "a", "", `{"pairs":{"A":"RED"}}`, invalid, "'A' at 'pairs.A.key'"},
		{"map value", "a", "", `{"pairs":{"a":"x"}}`, invalid, "'x' at 'pairs.a.value'"},
		{"secret kept out of the message", "a", "", `{"secret":"hunter2"}`, invalid, one + "'***Sensitive Data***' at 'secret'"},
		{"long value clipped", "a", "", `{"color":"` + strings.Repeat("x", 500) + `"}`, invalid, "xxx...' at 'color'"},
		{"number for a string", "a", "", `{"inner":{"Key":5}}`, serial, "The member 'inner.Key' must be a string, not the number 5."},
		{"string for a number", "a", "", `{"size":"5"}`, serial, "The member 'size' must be a whole number, not a string."},
		{"fraction for a number", "a", "", `{"size":1.5}`, serial, "'size' must be a whole number"},
		{"object for a list", "a", "", `{"tags":{}}`, serial, "The member 'tags' must be a list, not an object."},
		{"list for an object", "a", "", `{"inner":[]}`, serial, "'inner' must be an object, not a list"},
		{"null in a list", "a", "", `{"tags":[null]}`, serial, "'tags.1.member' must be a value, not null"},
		{"time out of range", "a", "", `{"when":1e300}`, serial, "'when' must be a time in epoch seconds"},
		{"member twice", "a", "", `{"size":1,"size":1}`, serial, `"size" stands twice`},
		{"unknown member twice", "a", "", `{"z":[{"y":1,"y":1}]}`, serial, `"y" stands twice`},
		{"body that is a list", "a", "", `[]`, serial, "must be a JSON object, not a list"},
		{"body that is cut off", "a", "", `{"size":1`, serial, "ends too early"},
		{"body with a tail", "a", "", `{} {}`, serial, "something after"},
		{"body with a comma too many", "a", "", `{"size":1,}`, serial, "isn't valid JSON"},
		{"body that isn't UTF-8", "a", "", "{\"color\":\"\xff\"}", serial, "UTF-8"},
		{"deep nesting", "a", "", `{"inner":` + deep + `}`, serial, "deeper than 32"},
		{"deep nesting of unknown members", "a", "", `{"u":` + strings.Repeat("[", 1000), serial, "deeper than 32"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got input
			err := newCodec().Decode(source(tt.label, tt.query, tt.body), &got)
			var refused *restjson.Error
			if !errors.As(err, &refused) {
				t.Fatalf("got %v, want a refusal", err)
			}
			if refused.Code != tt.code || !strings.Contains(refused.Message, tt.message) {
				t.Errorf("got %s: %s\nwant %s: %s", refused.Code, refused.Message, tt.code, tt.message)
			}
		})
	}
}

func TestDecodePayload(t *testing.T) {
	t.Parallel()
	var got payloadInput
	if err := newCodec().Decode(restjson.Source{Body: []byte(`{"Key":"k"}`)}, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(payloadInput{Payload: &inner{Key: "k"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	err := newCodec().Decode(restjson.Source{}, &got)
	if err == nil || !strings.Contains(err.Error(), "null at 'payload'") {
		t.Errorf("without a body: got %v, want a missing payload", err)
	}
}

func TestMissingMembersAreNamed(t *testing.T) {
	t.Parallel()
	var got input
	err := newCodec().Decode(restjson.Source{}, &got)
	want := "InvalidRequestException: 1 validation error detected: Value null at 'name' failed to satisfy constraint: Member must not be null"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

type output struct {
	Text    string           `api:"body text Any"`
	At      time.Time        `api:"body at Any"`
	Number  *int64           `api:"body number Any"`
	Flag    *bool            `api:"body flag Any"`
	List    []inner          `api:"body list Any"`
	Times   []time.Time      `api:"body times Any"`
	Entries map[string]color `api:"body entries Any"`
	Inner   *inner           `api:"body inner Any"`
}

func TestEncode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   any
		want string
	}{
		{"nothing", output{}, `{}`},
		{"nil", (*output)(nil), `{}`},
		{"zero that is there", &output{Number: new(int64(0)), Flag: new(false)}, `{"number":0,"flag":false}`},
		{"empty list and map", output{List: []inner{}, Entries: map[string]color{}}, `{"list":[],"entries":{}}`},
		{"everything", output{Text: "a<b>&\u2028", At: time.Unix(1549665132, 123_999_999), Number: new(int64(1) << 60),
			List: []inner{{Key: "", Value: new("")}}, Times: []time.Time{time.Unix(5, 0), time.Unix(-1, 5e8)},
			Entries: map[string]color{"b": "2", "a": "1"}, Inner: &inner{Key: "k"}},
			`{"text":"a<b>&\u2028","at":1549665132.123,"number":1152921504606846976,"list":[{"Key":"","Value":""}],` +
				`"times":[5,-0.500],"entries":{"a":"1","b":"2"},"inner":{"Key":"k"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := newCodec().Encode(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestEncodeStopsAtACycle(t *testing.T) {
	t.Parallel()
	loop := &inner{Key: "k"}
	loop.Deep = loop
	if _, err := newCodec().Encode(loop); err == nil {
		t.Error("got no error")
	}
}

// Whatever is accepted is encoded, decoded and encoded to the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add(`{"when":1549665132.123,"size":2.0,"color":"RED","tags":[{"Key":"k"}],"pairs":{"a":"BLUE"}}`)
	f.Add(`{"inner":{"Key":"x","deep":{"Key":"y","Value":"\ud800"}}}`)
	f.Add(`{"when":"2024-01-01T00:00:00Z"}`)
	f.Add(`[[[[[[`)
	f.Add(`{"a":1e999,"":{}}`)
	codec := newCodec()
	f.Fuzz(func(t *testing.T, body string) {
		var first, second input
		err := codec.Decode(source("ab", "", body), &first)
		var refused *restjson.Error
		if errors.As(err, &refused) {
			return
		}
		if err != nil {
			t.Fatalf("got %v, want an *Error", err)
		}
		first.Name, first.Who = "", nil
		encoded, err := codec.Encode(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := codec.Decode(source("ab", "", string(encoded)), &second); err != nil {
			t.Fatalf("%s is refused: %v", encoded, err)
		}
		second.Name, second.Who = "", nil
		again, err := codec.Encode(second)
		if err != nil {
			t.Fatal(err)
		}
		if string(again) != string(encoded) {
			t.Fatalf("got %s, want %s", again, encoded)
		}
	})
}
