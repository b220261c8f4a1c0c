// Package iotdata answers the data plane API of AWS IoT Core (service "AWS IoT
// Data Plane", API version 2015-05-28) for operators, who sign with an access
// key:
//
//	POST   /topics/{topic}                    Publish
//	GET    /retainedMessage/{topic}           GetRetainedMessage
//	GET    /retainedMessage                   ListRetainedMessages
//	DELETE /connections/{clientId}            DeleteConnection
//
// The topic is the rest of the path, percent-decoded once: SDKs send a slash as
// %2F, others as it is, and both mean the same. The tenant is that of the
// signature: account of the access key, region of the scope.
//
// Errors have the names and statuses of the API's model. Those of the signature
// keep the names that all AWS services use (InvalidSignatureException, ...),
// with status 403, because SDKs correct their clock by them.
//
// What it does not do: device shadows (501).
package iotdata

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/internal/publishrequest"
	"github.com/imprint-iot/imprint/mqtt"
)

// CodeMethodNotAllowed is the model's name of a refused method.
const CodeMethodNotAllowed = "MethodNotAllowedException"

// PublishInput is the request of Publish.
type PublishInput struct {
	Topic           string  `api:"path topic Topic required"`
	QoS             *int    `api:"query qos Qos"`
	Retain          *string `api:"query retain Flag"`
	Payload         []byte  `api:"blob payload Payload"`
	ContentType     *string `api:"query contentType ContentType"`
	ResponseTopic   *string `api:"query responseTopic ResponseTopic"`
	MessageExpiry   *int64  `api:"query messageExpiry MessageExpiry"`
	UserProperties  *string `api:"header x-amz-mqtt5-user-properties UserProperties"`
	PayloadFormat   *string `api:"header x-amz-mqtt5-payload-format-indicator PayloadFormatIndicator"`
	CorrelationData *string `api:"header x-amz-mqtt5-correlation-data CorrelationData"`
}

// Nothing is the response of operations without one.
type Nothing struct{}

// GetRetainedMessageInput is the request of GetRetainedMessage.
type GetRetainedMessageInput struct {
	Topic string `api:"path topic Topic required"`
}

// GetRetainedMessageOutput is its response. The time is in milliseconds.
type GetRetainedMessageOutput struct {
	Topic            string `api:"body topic Topic"`
	Payload          []byte `api:"body payload Payload"`
	QoS              int    `api:"body qos Qos"`
	LastModifiedTime int64  `api:"body lastModifiedTime Timestamp"`
	UserProperties   []byte `api:"body userProperties UserPropertiesBlob"`
}

// ListRetainedMessagesInput is the request of ListRetainedMessages.
type ListRetainedMessagesInput struct {
	NextToken  *string `api:"query nextToken NextToken"`
	MaxResults *int    `api:"query maxResults MaxResults"`
}

// ListRetainedMessagesOutput is its response.
type ListRetainedMessagesOutput struct {
	RetainedTopics []RetainedMessageSummary `api:"body retainedTopics RetainedMessageList"`
	NextToken      string                   `api:"body nextToken NextToken"`
}

// RetainedMessageSummary is a retained message without its payload.
type RetainedMessageSummary struct {
	Topic            string `api:"body topic Topic"`
	PayloadSize      int64  `api:"body payloadSize PayloadSize"`
	QoS              int    `api:"body qos Qos"`
	LastModifiedTime int64  `api:"body lastModifiedTime Timestamp"`
}

// DeleteConnectionInput is the request of DeleteConnection.
type DeleteConnectionInput struct {
	ClientID           string  `api:"path clientId ClientId required"`
	CleanSession       *string `api:"query cleanSession Flag"`
	PreventWillMessage *string `api:"query preventWillMessage Flag"`
}

// The model's booleans come in capitals from some clients.
var codec = restjson.New(restjson.Shapes{
	"Qos":                    {Limits: restjson.Between(0, 1)},
	"MaxResults":             {Limits: restjson.Between(1, 200)},
	"NextToken":              {Limits: restjson.AtMost(2048)},
	"ClientId":               {Limits: restjson.Between(1, 128), Pattern: `[^$].*`, RE2: `(?s)[^$].*`},
	"PayloadFormatIndicator": {Enum: []string{"UNSPECIFIED_BYTES", "UTF8_DATA"}},
	"Flag":                   {Pattern: "true|false", RE2: "(?i)true|false"},
}, "InvalidRequestException")

// The operations. Topics have slashes, so that their label takes the rest.
var (
	opPublish = awsapi.Define[PublishInput, Nothing](codec, awsapi.Operation{
		Name: "Publish", Method: "POST", Path: publishrequest.Prefix + "{topic+}", Action: "iot:Publish",
		Resource: "arn:{partition}:iot:{region}:{account}:topic/{topic}",
	})
	opGetRetained = awsapi.Define[GetRetainedMessageInput, GetRetainedMessageOutput](codec, awsapi.Operation{
		Name: "GetRetainedMessage", Method: "GET", Path: "/retainedMessage/{topic+}", Action: "iot:GetRetainedMessage",
		Resource: "arn:{partition}:iot:{region}:{account}:topic/{topic}",
	})
	opListRetained = awsapi.Define[ListRetainedMessagesInput, ListRetainedMessagesOutput](codec, awsapi.Operation{
		Name: "ListRetainedMessages", Method: "GET", Path: "/retainedMessage", Action: "iot:ListRetainedMessages", Resource: "*",
	})
	opDeleteConnection = awsapi.Define[DeleteConnectionInput, Nothing](codec, awsapi.Operation{
		Name: "DeleteConnection", Method: "DELETE", Path: "/connections/{clientId}", Action: "iot:DeleteConnection",
		Resource: "arn:{partition}:iot:{region}:{account}:client/{clientId}",
	})
)

// shadows are the operations of the model that aren't offered.
var shadows = []awsapi.Operation{
	{Name: "GetThingShadow", Method: "GET", Path: "/things/{thingName}/shadow"},
	{Name: "UpdateThingShadow", Method: "POST", Path: "/things/{thingName}/shadow"},
	{Name: "DeleteThingShadow", Method: "DELETE", Path: "/things/{thingName}/shadow"},
	{Name: "ListNamedShadowsForThing", Method: "GET", Path: "/api/things/shadow/ListNamedShadowsForThing/{thingName}"},
}

// Operations lists what the package knows.
func Operations() []awsapi.Operation {
	return append([]awsapi.Operation{opPublish.Operation, opGetRetained.Operation, opListRetained.Operation, opDeleteConnection.Operation}, shadows...)
}

// Owns tells whether a wire path belongs to this API and not to the control
// plane, which has the same server.
func Owns(path string) bool {
	for _, prefix := range []string{publishrequest.Prefix, "/retainedMessage", "/connections/", "/api/things/shadow/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	// A thing may be called shadow, too.
	segments := strings.Split(path, "/")
	return len(segments) == 4 && segments[1] == "things" && segments[3] == "shadow"
}

// Message is what Publish hands over.
type Message struct {
	Tenant     imprint.Tenant
	Topic      string
	Payload    []byte
	QoS        mqtt.QoS
	Retain     bool
	Properties mqtt.Properties
}

// Messages is what keeps and delivers them.
type Messages interface {
	// Publish hands a message to its subscribers.
	Publish(ctx context.Context, m Message) error
	// Retained gives the retained message of a topic. Errors: CodeNotFound.
	Retained(ctx context.Context, tenant imprint.Tenant, topic string) (imprint.RetainedMessage, error)
	// RetainedMessages lists a tenant's retained messages by topic, and gives the
	// cursor of the next page.
	RetainedMessages(ctx context.Context, tenant imprint.Tenant, page imprint.Page) ([]imprint.RetainedMessage, string, error)
	// Disconnect ends a client's connection. Errors: CodeNotFound.
	Disconnect(ctx context.Context, tenant imprint.Tenant, client imprint.ClientID, cleanSession, preventWill bool) error
}

// Service answers the operations.
type Service struct{ messages Messages }

// NewService makes a Service.
func NewService(messages Messages) *Service { return &Service{messages: messages} }

// Routes binds the operations.
func (s *Service) Routes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(opPublish, s.publish),
		awsapi.Handle(opGetRetained, s.retained),
		awsapi.Handle(opListRetained, s.listRetained),
		awsapi.Handle(opDeleteConnection, s.deleteConnection),
	}
}

func tenantOf(caller awsapi.Caller) imprint.Tenant {
	return imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
}

// text gives a member that may be absent.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// isTrue reads a flag whose pattern holds.
func isTrue(s *string) bool { return strings.EqualFold(text(s), "true") }

func (s *Service) publish(ctx context.Context, caller awsapi.Caller, in *PublishInput) (*Nothing, error) {
	m := Message{Tenant: tenantOf(caller), Topic: in.Topic, Payload: in.Payload, Retain: isTrue(in.Retain)}
	if in.QoS != nil {
		m.QoS = mqtt.QoS(*in.QoS)
	}
	members := publishrequest.Members{
		ContentType: text(in.ContentType), ResponseTopic: text(in.ResponseTopic), MessageExpiry: in.MessageExpiry,
		UserProperties: text(in.UserProperties), PayloadFormat: text(in.PayloadFormat), CorrelationData: text(in.CorrelationData),
	}
	properties, err := members.Properties()
	if err != nil {
		return nil, err
	}
	m.Properties = properties
	return nil, s.messages.Publish(ctx, m)
}

func (s *Service) retained(ctx context.Context, caller awsapi.Caller, in *GetRetainedMessageInput) (*GetRetainedMessageOutput, error) {
	found, err := s.messages.Retained(ctx, tenantOf(caller), in.Topic)
	if err != nil {
		return nil, err
	}
	packet, err := decode(found.Packet)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the retained message of %q: %w", in.Topic, err)
	}
	out := &GetRetainedMessageOutput{
		Topic: found.Topic, Payload: packet.Payload, QoS: int(found.QoS), LastModifiedTime: found.ModifiedAt.UnixMilli(),
	}
	if len(packet.Properties.User) == 0 {
		return out, nil
	}
	list := make([]map[string]string, 0, len(packet.Properties.User))
	for _, p := range packet.Properties.User {
		list = append(list, map[string]string{p.Key: p.Value})
	}
	out.UserProperties, err = json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode the user properties of %q: %w", in.Topic, err)
	}
	return out, nil
}

// decode reads a stored PUBLISH packet.
func decode(stored []byte) (mqtt.Publish, error) {
	var packet mqtt.Publish
	header, ok, err := mqtt.ParseFixedHeader(stored)
	if err != nil {
		return packet, err
	}
	if !ok || len(stored) != header.Size+header.Remaining {
		return packet, fmt.Errorf("it has %d bytes, which isn't one packet", len(stored))
	}
	err = packet.Decode(header, stored[header.Size:], mqtt.V5)
	return packet, err
}

const defaultPage = 200

func (s *Service) listRetained(ctx context.Context, caller awsapi.Caller, in *ListRetainedMessagesInput) (*ListRetainedMessagesOutput, error) {
	page := imprint.Page{Limit: defaultPage, Cursor: text(in.NextToken), Ascending: true}
	if in.MaxResults != nil {
		page.Limit = *in.MaxResults
	}
	found, next, err := s.messages.RetainedMessages(ctx, tenantOf(caller), page)
	if err != nil {
		return nil, err
	}
	out := &ListRetainedMessagesOutput{RetainedTopics: make([]RetainedMessageSummary, 0, len(found)), NextToken: next}
	for _, m := range found {
		out.RetainedTopics = append(out.RetainedTopics, RetainedMessageSummary{
			Topic: m.Topic, PayloadSize: int64(m.PayloadSize), QoS: int(m.QoS), LastModifiedTime: m.ModifiedAt.UnixMilli(),
		})
	}
	return out, nil
}

func (s *Service) deleteConnection(ctx context.Context, caller awsapi.Caller, in *DeleteConnectionInput) (*Nothing, error) {
	return nil, s.messages.Disconnect(ctx, tenantOf(caller), imprint.ClientID(in.ClientID), isTrue(in.CleanSession), isTrue(in.PreventWillMessage))
}

// Translate gives the outward form of the errors of functions.
func Translate(err error) awsapi.APIError {
	out := awsapi.APIError{Message: imprint.MessageOf(err)}
	switch imprint.CodeOf(err) {
	case imprint.CodeInvalidRequest, imprint.CodeTopicInvalid, imprint.CodeReservedTopic, imprint.CodeQoSNotSupported,
		imprint.CodeClientIDInvalid, imprint.CodeLimitExceeded:
		out.Code, out.Status = "InvalidRequestException", http.StatusBadRequest
	case imprint.CodeUnauthorized:
		out.Code, out.Status = "UnauthorizedException", http.StatusUnauthorized
	case imprint.CodeAccessDenied:
		out.Code, out.Status = "ForbiddenException", http.StatusForbidden
	case imprint.CodeNotFound:
		out.Code, out.Status = "ResourceNotFoundException", http.StatusNotFound
	case imprint.CodePacketTooLarge:
		out.Code, out.Status = awsapi.CodeTooLarge, http.StatusRequestEntityTooLarge
	case imprint.CodeThrottled, imprint.CodeRetainedQuota, imprint.CodePublishRate, imprint.CodeQuotaExceeded:
		out.Code, out.Status = awsapi.CodeThrottling, http.StatusTooManyRequests
	case imprint.CodeUnavailable, imprint.CodeServerShutdown, imprint.CodeOverloaded, imprint.CodeRulesBusy:
		out.Code, out.Status = "ServiceUnavailableException", http.StatusServiceUnavailable
	default:
		return awsapi.APIError{}
	}
	return out
}
