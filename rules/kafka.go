package rules

import (
	"context"

	"github.com/imprint-iot/imprint"
)

// production is the request of a kafka delivery.
type production struct {
	Topic      string              `json:"topic"`
	Key        string              `json:"key,omitempty"`
	Partition  *int32              `json:"partition,omitempty"`
	Headers    []imprint.RuleField `json:"headers,omitempty"`
	Properties map[string]string   `json:"properties"`
	Data       []byte              `json:"data,omitempty"`
}

// noKafka is why a kafka action can't be had.
func noKafka() error {
	return imprint.Errorf(imprint.CodeInvalidRequest, "this server has no kafka action").
		WithHint("It offers lambda, republish, http and firehose, which names a sink of the server.")
}

func (e *Engine) produceLater(ctx context.Context, u *run, a *action) (string, error) {
	p, err := u.production(ctx, a)
	if err != nil {
		return a.record.Kafka.Topic, err
	}
	return p.Topic, e.outbox.owe(ctx, u, ActionKafka, p)
}
