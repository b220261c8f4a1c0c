package broker

import (
	"encoding/json"
	"strings"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
)

// lifecycleEvent is the payload of presence and subscription events; absent
// members aren't sent.
type lifecycleEvent struct {
	ClientID      string   `json:"clientId"`
	ThingName     string   `json:"thingName,omitempty"`
	Timestamp     int64    `json:"timestamp"`
	EventType     string   `json:"eventType"`
	FailureReason string   `json:"connectFailureReason,omitempty"`
	Session       string   `json:"sessionIdentifier"`
	Principal     string   `json:"principalIdentifier"`
	IPAddress     string   `json:"ipAddress,omitempty"`
	Initiated     *bool    `json:"clientInitiatedDisconnect,omitempty"`
	Reason        string   `json:"disconnectReason,omitempty"`
	Version       *int64   `json:"versionNumber,omitempty"`
	Topics        []string `json:"topics,omitempty"`
}

// announce publishes a lifecycle event on {tree}/{clientId}. Clients whose id
// holds a wildcard cause none.
func (s *session) announce(tree string, event lifecycleEvent) {
	if strings.ContainsAny(string(s.clientID), "#+") {
		return
	}
	topic := "$aws/events/" + tree + "/" + string(s.clientID)
	if found, _ := s.realm.topics.match(topic, nil); len(found) == 0 {
		return
	}
	event.ClientID = string(s.clientID)
	event.Timestamp = s.broker.clock().UnixMilli()
	event.Session = s.id
	event.Principal = string(s.certificate)
	payload, err := json.Marshal(event)
	if err != nil {
		s.broker.opts.Logger.Error("couldn't encode a lifecycle event", "error", err)
		return
	}
	s.broker.PublishEvent(imprint.Event{Tenant: s.realm.tenant, Topic: topic, Payload: payload})
}

func (s *session) announceConnected() {
	thing := ""
	if b := s.bound.Load(); b != nil {
		if attached := b.who.ThingFor(s.clientID); attached != nil && attached.Exclusive {
			thing = string(attached.Thing.Name)
		}
	}
	s.announce("presence/connected", lifecycleEvent{
		EventType: "connected", ThingName: thing, IPAddress: s.address(), Version: &s.presenceVersion,
	})
}

func (s *session) announceDisconnected(code imprint.Code) {
	initiated := code == imprint.CodeClientDisconnect
	s.announce("presence/disconnected", lifecycleEvent{
		EventType: "disconnected", Initiated: &initiated, Reason: disconnectReason(code), Version: &s.presenceVersion,
	})
}

func (s *session) announceConnectFailed() {
	s.id = uuid.NewString()
	s.announce("presence/connect_failed", lifecycleEvent{
		EventType: "connect_failed", FailureReason: "AUTHORIZATION_FAILED", IPAddress: s.address(),
	})
}

// address is the peer's, empty where the door knows none.
func (s *session) address() string {
	if !s.peer.Address.IsValid() {
		return ""
	}
	return s.peer.Address.String()
}

func (s *session) announceSubscriptions(what string, filters []string) {
	s.announce("subscriptions/"+what, lifecycleEvent{EventType: what, Topics: filters})
}

// disconnectReason is AWS IoT Core's name for the end of a connection.
func disconnectReason(code imprint.Code) string {
	switch code {
	case imprint.CodeClientDisconnect:
		return "CLIENT_INITIATED_DISCONNECT"
	case imprint.CodeConnectionLost:
		return "CONNECTION_LOST"
	case imprint.CodeTakenOver:
		return "DUPLICATE_CLIENTID"
	case imprint.CodeKeepAliveTimeout:
		return "MQTT_KEEP_ALIVE_TIMEOUT"
	case imprint.CodeServerShutdown:
		return "SERVER_INITIATED_DISCONNECT"
	case imprint.CodeQuotaExceeded, imprint.CodeSlowConsumer:
		return "THROTTLED"
	case imprint.CodeInternal, imprint.CodeUnavailable:
		return "SERVER_ERROR"
	case imprint.CodePublishDenied, imprint.CodeSubscribeDenied, imprint.CodeWillDenied, imprint.CodeRetainDenied,
		imprint.CodeCertificateInactive, imprint.CodeCertificateRevoked, imprint.CodeCertificateDeleted,
		imprint.CodeCertificatePending, imprint.CodeCertificateTransfer, imprint.CodeCertificateExpired, imprint.CodeCertificateNotYetValid:
		return "AUTH_ERROR"
	default:
		return "CLIENT_ERROR"
	}
}
