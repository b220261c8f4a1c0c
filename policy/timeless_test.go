package policy_test

import (
	"testing"

	"github.com/imprint-iot/imprint/policy"
)

// TestTimelessSetsLookAtNoTime ensures that whoever keeps an answer is told when
// it may change by itself.
func TestTimelessSetsLookAtNoTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"arn:aws:iot:*:*:topic/${iot:ClientId}"}]}`:                                       true,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"StringEquals":{"iot:ClientId":"x"}}}]}`:                         true,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"iot:*","Resource":"*","Condition":{"DateGreaterThan":{"aws:CurrentTime":"2030-01-01T00:00:00Z"}}}]}`: false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"NumericLessThan":{"AWS:EpochTime":"1900000000"}}}]}`:            false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"arn:aws:iot:*:*:topic/${aws:EpochTime}"}]}`:                                      false,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"StringEquals":{"iot:ClientId":"${aws:CurrentTime}"}}}]}`:        false,
	} {
		doc, err := policy.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got := policy.Compile(policy.Named{Name: "p", Doc: doc}).Timeless()
		if got != want {
			t.Errorf("%s: got timeless %t, want %t", text, got, want)
		}
	}
}
