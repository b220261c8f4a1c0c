package rulesql_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/rulesql"
)

// Functions that the outside serves get their arguments and give its answers.
func TestTheOutsideServesFunctions(t *testing.T) {
	t.Parallel()
	var asked []string
	outside := &rulesql.Outside{
		Lambda: func(_ context.Context, arn string, payload []byte) ([]byte, error) {
			asked = append(asked, arn+" "+string(payload))
			return []byte(`{"sum": 3.0}`), nil
		},
		ThingShadow: func(_ context.Context, thing, shadow, role string) ([]byte, error) {
			asked = append(asked, thing+" "+shadow+" "+role)
			return []byte(`{"state":{"on":true}}`), nil
		},
		RegistryData: func(_ context.Context, operation, thing, role string) ([]byte, error) {
			asked = append(asked, operation+" "+thing+" "+role)
			return []byte(`{"thingName":"t"}`), nil
		},
		Secret: func(_ context.Context, id string, binary bool, role string) ([]byte, error) {
			asked = append(asked, id+" "+role)
			if binary {
				return []byte{0, 255}, nil
			}
			return []byte(`{"user":"u"}`), nil
		},
	}
	tests := []struct{ expression, asked, want string }{
		{"aws_lambda('arn:f', {'x': a}).sum", `arn:f {"x":1}`, "3"},
		{"aws_lambda('arn:f', *).sum", `arn:f {"a":1}`, "3"},
		{"get_thing_shadow('t', 'r').state.on", "t  r", "true"},
		{"get_thing_shadow('t', 'named', 'r').state.on", "t named r", "true"},
		{"get_registry_data('DescribeThing', 't', 'r').thingName", "DescribeThing t r", `"t"`},
		{"get_secret('s', 'SecretString', 'user', 'r')", "s r", `"u"`},
		{"get_secret('s', 'SecretString', 'r').user", "s r", `"u"`},
		{"get_secret('s', 'SecretBinary', 'r')", "s r", `"AP8="`},
	}
	for _, test := range tests {
		asked = nil
		s := parse(t, "SELECT VALUE "+test.expression+" FROM 't'", second)
		ev := rulesql.NewEvaluation(s, message(`{"a":1}`), outside)
		result, err := ev.Select(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		problems, all := ev.Problems()
		if string(result.Payload) != test.want || strings.Join(asked, ",") != test.asked || all != 0 {
			t.Errorf("%s asked %q and gives %s, want %q and %s; problems %v", test.expression, asked, result.Payload, test.asked, test.want, problems)
		}
	}
}

// What isn't served, and what fails, is Undefined with a reason.
func TestWhatTheOutsideDoesNotGiveIsUndefinedWithAReason(t *testing.T) {
	t.Parallel()
	failure := errors.New("throttled")
	failing := &rulesql.Outside{
		Lambda:       func(context.Context, string, []byte) ([]byte, error) { return nil, failure },
		ThingShadow:  func(context.Context, string, string, string) ([]byte, error) { return []byte("no json"), nil },
		RegistryData: func(context.Context, string, string, string) ([]byte, error) { return make([]byte, 300<<10), nil },
		Secret: func(context.Context, string, bool, string) ([]byte, error) {
			return []byte("s3cret"), nil
		},
	}
	tests := []struct {
		expression string
		outside    *rulesql.Outside
		reason     string
	}{
		{"aws_lambda('f', *)", nil, "aws_lambda: nothing serves this function here"},
		{"aws_lambda('f', *)", failing, "aws_lambda: the call failed: throttled"},
		{"aws_lambda('f', missing)", failing, "aws_lambda: the argument for the function is Undefined"},
		{"get_thing_shadow('t', 'r')", failing, "get_thing_shadow: the answer is no JSON"},
		{"get_registry_data('DescribeThing', 't', 'r')", failing, "get_registry_data: the answer is longer"},
		{"get_registry_data('DeleteThing', 't', 'r')", failing, "neither DescribeThing nor"},
		{"get_secret('i', 'SecretString', 'key', 'r')", failing, "get_secret: the secret is no JSON object"},
		{"get_secret('i', 'Secret', 'r')", failing, "neither SecretString nor"},
		{"get_dynamodb('t', 'k', 'v', 'r')", failing, "there is no DynamoDB here"},
		{"machinelearning_predict('m', 'r', *)", failing, "Machine Learning"},
		{"decode(*, 'proto', 'b', 'k', 'f', 'T')", failing, "Protobuf"},
		{"newuuid()", failing, "no source of randomness"},
		{"rand()", nil, "no source of randomness"},
		{"parse_time('yyyy', 0, 'America/Belize')", nil, "no time zones"},
	}
	for _, test := range tests {
		s := parse(t, "SELECT VALUE "+test.expression+" FROM 't'", second)
		ev := rulesql.NewEvaluation(s, message(`{"a":1}`), test.outside)
		result, err := ev.Select(context.Background())
		problems, all := ev.Problems()
		if err != nil || string(result.Payload) != undefined || all != 1 || !strings.Contains(problems[0].String(), test.reason) {
			t.Errorf("%s gives %s, %v, problems %v, want Undefined and %q", test.expression, result.Payload, err, problems, test.reason)
		}
		if all == 1 && strings.Contains(problems[0].String(), "s3cret") {
			t.Errorf("a secret is in the problem %v", problems[0])
		}
	}
}

// Calls to the outside are bounded, however long the payload's arrays are.
func TestCallsToTheOutsideAreBounded(t *testing.T) {
	t.Parallel()
	calls := 0
	outside := &rulesql.Outside{Lambda: func(context.Context, string, []byte) ([]byte, error) {
		calls++
		return []byte("1"), nil
	}}
	s := parse(t, "SELECT (SELECT VALUE aws_lambda('f', {'x': 1}) FROM list) AS l FROM 't'", second)
	ev := rulesql.NewEvaluation(s, message(`{"list":[`+strings.Repeat("1,", 99)+`1]}`), outside)
	_, err := ev.Select(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	problems, all := ev.Problems()
	if calls != rulesql.MaxExternalCalls || all != 100-calls || len(problems) != rulesql.MaxProblems {
		t.Errorf("%d calls, %d problems, %d kept", calls, all, len(problems))
	}
}

// Without MQTT, there is no client id, principal or trace.
func TestWhatIsNotKnownOfAMessage(t *testing.T) {
	t.Parallel()
	s := parse(t, "SELECT clientid() AS c, principal() AS p, traceid() AS t, sourceip() AS i, get_mqtt_property('content_type') AS ct, "+
		"get_mqtt_property('format_indicator') AS f, get_user_properties() AS u FROM 't'", second)
	result, err := rulesql.NewEvaluation(s, &rulesql.Message{Topic: "t"}, nil).Select(context.Background())
	if want := `{"c":"n/a","u":[]}`; err != nil || string(result.Payload) != want {
		t.Errorf("got %s, %v, want %s", result.Payload, err, want)
	}
}
