//go:build !kafka

package rules_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/rules"
)

// TestABuildWithoutKafkaSaysSo ensures that its absence shows at the start, with
// the tag that mends it.
func TestABuildWithoutKafkaSaysSo(t *testing.T) {
	_, err := rules.OpenSinks([]string{"x=kafka://a:9092", "b:9092/topic"})
	var e *imprint.Error
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !errors.As(err, &e) || !strings.Contains(e.Hint, "-tags kafka") {
		t.Errorf("got %v, want %s that names the tag", err, imprint.CodeInvalidRequest)
	}
	action := imprint.RuleAction{Kafka: &imprint.KafkaRuleAction{DestinationARN: "arn", Topic: "t", Properties: map[string]string{"bootstrap.servers": "a:9092"}}}
	_, err = rules.Check(imprint.TopicRule{SQL: "SELECT * FROM 'a'", SQLVersion: "2016-03-23", Actions: []imprint.RuleAction{action}}, rules.Offered{})
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), "no kafka action") {
		t.Errorf("a rule with a kafka action: got %v", err)
	}
}
