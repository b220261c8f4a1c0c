package rules

import (
	"context"

	"github.com/imprint-iot/imprint"
)

// HasKafka says whether this build has the kafka action.
const HasKafka = false

func kafkaFields(*imprint.KafkaRuleAction, Offered) ([]imprint.RuleField, error) {
	return nil, noKafka()
}

func (u *run) production(context.Context, *action) (production, error) {
	return production{}, noKafka()
}

// produce keeps what an earlier build took, for one that can deliver it.
func (o *outbox) produce(context.Context, imprint.RuleDelivery) (string, error) {
	return "", noKafka()
}
