package iot

import (
	"reflect"
	"strings"

	"github.com/imprint-iot/imprint"
)

// ruleAction reads one action of a request. Kinds that need an AWS service are
// refused: a rule that is taken runs. Errors: CodeInvalidRequest.
func ruleAction(a *Action) (imprint.RuleAction, error) {
	kinds := actionKinds(a)
	if len(kinds) != 1 {
		return imprint.RuleAction{}, imprint.Errorf(imprint.CodeInvalidRequest, "an action has %d kinds, and must have exactly one", len(kinds))
	}
	switch {
	case a.Lambda != nil:
		return imprint.RuleAction{Lambda: &imprint.LambdaRuleAction{FunctionARN: a.Lambda.FunctionArn}}, nil
	case a.Republish != nil:
		return imprint.RuleAction{Republish: &imprint.RepublishRuleAction{
			RoleARN: a.Republish.RoleArn, Topic: a.Republish.Topic, QoS: valueOr(a.Republish.Qos, 0), Headers: messageFields(a.Republish.Headers),
		}}, nil
	case a.Http != nil:
		return httpAction(a.Http)
	case a.Firehose != nil:
		return imprint.RuleAction{Firehose: &imprint.FirehoseRuleAction{
			RoleARN: a.Firehose.RoleArn, Stream: a.Firehose.DeliveryStreamName, Separator: valueOr(a.Firehose.Separator, ""),
			BatchMode: valueOr(a.Firehose.BatchMode, false),
		}}, nil
	case a.Kafka != nil:
		return kafkaAction(a.Kafka), nil
	}
	return imprint.RuleAction{}, imprint.Errorf(imprint.CodeInvalidRequest, "this server has no %s action", kinds[0]).
		WithHint("It offers lambda, republish, http and firehose (for the server's own sinks): a function or an http action can stand in for the others.")
}

// actionKinds names the members that are set.
func actionKinds(a *Action) []string {
	var kinds []string
	value := reflect.ValueOf(a).Elem()
	for n := range value.NumField() {
		if value.Field(n).IsNil() {
			continue
		}
		name := value.Type().Field(n).Name
		kinds = append(kinds, strings.ToLower(name[:1])+name[1:])
	}
	return kinds
}

// valueOr gives what a request set, or what holds without it.
func valueOr[T any](set *T, fallback T) T {
	if set == nil {
		return fallback
	}
	return *set
}

func httpAction(a *HttpAction) (imprint.RuleAction, error) {
	switch {
	case a.Auth != nil:
		return imprint.RuleAction{}, imprint.Errorf(imprint.CodeInvalidRequest, "the http action can't sign requests for a role: there are no roles here").
			WithHint("Put what authorizes the request into a header.")
	case valueOr(a.EnableBatching, false):
		return imprint.RuleAction{}, imprint.Errorf(imprint.CodeInvalidRequest, "the http action can't gather messages into batches").
			WithHint("Leave out enableBatching: each message is one request.")
	}
	action := &imprint.HTTPRuleAction{URL: a.Url, ConfirmationURL: valueOr(a.ConfirmationUrl, "")}
	for _, h := range a.Headers {
		action.Headers = append(action.Headers, imprint.RuleField{Key: h.Key, Value: h.Value})
	}
	return imprint.RuleAction{HTTP: action}, nil
}

func messageFields(h *MqttHeaders) *imprint.RuleMessageFields {
	if h == nil {
		return nil
	}
	fields := &imprint.RuleMessageFields{
		PayloadFormat: valueOr(h.PayloadFormatIndicator, ""), ContentType: valueOr(h.ContentType, ""), ResponseTopic: valueOr(h.ResponseTopic, ""),
		CorrelationData: valueOr(h.CorrelationData, ""), MessageExpiry: valueOr(h.MessageExpiry, ""),
	}
	for _, p := range h.UserProperties {
		fields.UserProperties = append(fields.UserProperties, imprint.RuleField{Key: p.Key, Value: p.Value})
	}
	return fields
}

func kafkaAction(a *KafkaAction) imprint.RuleAction {
	action := &imprint.KafkaRuleAction{
		DestinationARN: a.DestinationArn, Topic: a.Topic, Key: valueOr(a.Key, ""), Partition: valueOr(a.Partition, ""), Properties: a.ClientProperties,
	}
	for _, h := range a.Headers {
		action.Headers = append(action.Headers, imprint.RuleField{Key: h.Key, Value: h.Value})
	}
	return imprint.RuleAction{Kafka: action}
}

// apiAction is the inverse of ruleAction.
func apiAction(a *imprint.RuleAction) Action {
	switch {
	case a.Lambda != nil:
		return Action{Lambda: &LambdaAction{FunctionArn: a.Lambda.FunctionARN}}
	case a.Republish != nil:
		return Action{Republish: &RepublishAction{RoleArn: a.Republish.RoleARN, Topic: a.Republish.Topic, Qos: &a.Republish.QoS, Headers: apiHeaders(a.Republish.Headers)}}
	case a.HTTP != nil:
		out := &HttpAction{Url: a.HTTP.URL, ConfirmationUrl: given(a.HTTP.ConfirmationURL)}
		for _, h := range a.HTTP.Headers {
			out.Headers = append(out.Headers, HttpActionHeader{Key: h.Key, Value: h.Value})
		}
		return Action{Http: out}
	case a.Firehose != nil:
		out := &FirehoseAction{RoleArn: a.Firehose.RoleARN, DeliveryStreamName: a.Firehose.Stream, Separator: given(a.Firehose.Separator)}
		if a.Firehose.BatchMode {
			out.BatchMode = &a.Firehose.BatchMode
		}
		return Action{Firehose: out}
	case a.Kafka != nil:
		out := &KafkaAction{
			DestinationArn: a.Kafka.DestinationARN, Topic: a.Kafka.Topic, Key: given(a.Kafka.Key), Partition: given(a.Kafka.Partition), ClientProperties: a.Kafka.Properties,
		}
		for _, h := range a.Kafka.Headers {
			out.Headers = append(out.Headers, KafkaActionHeader{Key: h.Key, Value: h.Value})
		}
		return Action{Kafka: out}
	}
	return Action{}
}

// given gives a member of an answer that isn't sent when it is empty.
func given(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func apiHeaders(f *imprint.RuleMessageFields) *MqttHeaders {
	if f == nil {
		return nil
	}
	out := &MqttHeaders{
		PayloadFormatIndicator: given(f.PayloadFormat), ContentType: given(f.ContentType), ResponseTopic: given(f.ResponseTopic),
		CorrelationData: given(f.CorrelationData), MessageExpiry: given(f.MessageExpiry),
	}
	for _, p := range f.UserProperties {
		out.UserProperties = append(out.UserProperties, UserProperty{Key: p.Key, Value: p.Value})
	}
	return out
}
