package iot

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
)

func checkOp[In, Out any](t *testing.T, op awsapi.Op[In, Out]) {
	t.Helper()
	for _, typ := range []reflect.Type{reflect.TypeFor[In](), reflect.TypeFor[Out]()} {
		if err := codec.Check(typ); err != nil {
			t.Errorf("%s: %v", op.Name, err)
		}
	}
}

func TestTheDeepTypesHaveReadableTagsAndPatterns(t *testing.T) {
	t.Parallel()
	checkOp(t, CreateTopicRule)
	checkOp(t, GetTopicRule)
	checkOp(t, RegisterThing)
	checkOp(t, CreateDomainConfiguration)
	checkOp(t, UpdateIndexingConfiguration)
	checkOp(t, SearchIndex)
	checkOp(t, ListAuditFindings)
	checkOp(t, TestAuthorization)
}

// every rule of the model, whether a type uses it or not
func TestEveryPatternOfTheModelCompilesAndIsAnchored(t *testing.T) {
	t.Parallel()
	for name, row := range constraints {
		if row.Pattern == "" {
			continue
		}
		one := restjson.New(restjson.Shapes{"X": {Pattern: row.Pattern, RE2: row.RE2}}, "Invalid")
		var in struct {
			X string `api:"path x X required"`
		}
		err := one.Decode(restjson.Source{Path: map[string]string{"x": "\x00\x01 \n€"}}, &in)
		var refused *restjson.Error
		if !errors.As(err, &refused) {
			t.Errorf("%s: pattern %s accepts what none should: %v", name, row.Pattern, err)
		}
	}
}

func TestPatternsOfTheModel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		shape, value string
		ok           bool
	}{
		{"ThingGroupDescription", "A plain description, with ~ and \"quotes\"", true},
		{"ThingGroupDescription", "umlaut ü", false},
		{"TagKey", "Größe/äöü 1", true},
		{"TagKey", "a!b", false},
		{"DayOfMonth", "31", true},
		{"DayOfMonth", "LAST", true},
		{"DayOfMonth", "32", false},
		{"DayOfMonth", "311", false},
		{"TemplateDescription", "äny prïntable text", true},
		{"TemplateDescription", "bell\a", false},
		{"PolicyName", `a+=,.@-_B9`, true},
		{"PolicyName", `a/b`, false},
		{"Marker", "YWJj", true},
		{"Marker", "YWJ=", true},
		{"Marker", "YWJj_-", false},
		{"RegistryS3KeyName", "a/b(c)*'!-.txt", true},
		{"FirehoseSeparator", "\r\n", true},
		{"FirehoseSeparator", ",,", false},
		{"CertificateId", strings.Repeat("aB", 32), true},
		{"CertificateId", strings.Repeat("ab", 31), false},
	} {
		var in struct {
			X string `api:"path x X required"`
		}
		one := restjson.New(restjson.Shapes{"X": constraints[tt.shape]}, "Invalid")
		err := one.Decode(restjson.Source{Path: map[string]string{"x": tt.value}}, &in)
		if (err == nil) != tt.ok {
			t.Errorf("%s %q: got %v, want accepted: %v", tt.shape, tt.value, err, tt.ok)
		}
	}
}

// The topic rule payload is the deepest and widest input of the API.
func FuzzDecodeTopicRule(f *testing.F) {
	f.Add(`{"sql":"SELECT * FROM 'a'","actions":[{"republish":{"roleArn":"arn","topic":"t","qos":1}}],"ruleDisabled":false}`)
	f.Add(`{"sql":"","actions":[{"iotSiteWise":{"roleArn":"r","putAssetPropertyValueEntries":[{"propertyValues":[{"value":{"stringValue":"s"},"timestamp":{"timeInSeconds":"1"}}]}]}}]}`)
	f.Add(`{"sql":1}`)
	f.Fuzz(func(t *testing.T, body string) {
		var in CreateTopicRuleInput
		err := codec.Decode(restjson.Source{Path: map[string]string{"ruleName": "r"}, Body: []byte(body)}, &in)
		var refused *restjson.Error
		if err != nil && !errors.As(err, &refused) {
			t.Fatalf("got %v, want an *Error", err)
		}
		if err == nil && in.TopicRulePayload == nil {
			t.Fatal("accepted without a payload")
		}
		if _, err := codec.Encode(in); err != nil {
			t.Fatal(err)
		}
	})
}
