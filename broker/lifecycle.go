package broker

import (
	"context"
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
func (c *connection) announce(tree string, event lifecycleEvent) {
	if strings.ContainsAny(string(c.clientID), "#+") {
		return
	}
	topic := "$aws/events/" + tree + "/" + string(c.clientID)
	if !c.realm.heard(topic) {
		return
	}
	event.ClientID = string(c.clientID)
	event.Timestamp = c.broker.clock().UnixMilli()
	event.Session = c.id
	event.Principal = c.principal
	payload, err := json.Marshal(event)
	if err != nil {
		c.broker.opts.Logger.Error("couldn't encode a lifecycle event", "error", err)
		return
	}
	told := imprint.Event{Tenant: c.realm.tenant, Topic: topic, Payload: payload}
	// Rules that have no room for it count it.
	_ = offerEvent(context.Background(), c.realm.rules, told, nil)
	p := c.broker.routeEvent(context.Background(), told)
	if p != nil {
		c.payOwed()
		c.broker.ledger.awaitRoom(context.Background())
		c.broker.ledger.post(c.broker, p, nil)
	}
}

func (c *connection) announceConnected() {
	thing := ""
	if b := c.bound.Load(); b != nil {
		if attached := b.who.ThingFor(c.clientID); attached != nil && attached.Exclusive {
			thing = string(attached.Thing.Name)
		}
	}
	c.announce("presence/connected", lifecycleEvent{
		EventType: "connected", ThingName: thing, IPAddress: c.address(), Version: &c.presenceVersion,
	})
}

func (c *connection) announceDisconnected(code imprint.Code) {
	initiated := code == imprint.CodeClientDisconnect
	c.announce("presence/disconnected", lifecycleEvent{
		EventType: "disconnected", Initiated: &initiated, Reason: disconnectReason(code), Version: &c.presenceVersion,
	})
}

func (c *connection) announceConnectFailed() {
	c.id = uuid.NewString()
	c.announce("presence/connect_failed", lifecycleEvent{
		EventType: "connect_failed", FailureReason: "AUTHORIZATION_FAILED", IPAddress: c.address(),
	})
}

// address is the peer's, empty where the door knows none.
func (c *connection) address() string {
	if !c.peer.Address.IsValid() {
		return ""
	}
	return c.peer.Address.String()
}

func (c *connection) announceSubscriptions(what string, filters []string) {
	c.announce("subscriptions/"+what, lifecycleEvent{EventType: what, Topics: filters})
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
	case imprint.CodeQuotaExceeded, imprint.CodeSlowConsumer, imprint.CodePublishRate, imprint.CodeRetainedQuota, imprint.CodeRulesBusy:
		return "THROTTLED"
	case imprint.CodeAdministrative:
		return "API_INITIATED_DISCONNECT"
	case imprint.CodeConnectionExpired:
		return "WEBSOCKET_TTL_EXPIRATION"
	case imprint.CodeInternal, imprint.CodeUnavailable:
		return "SERVER_ERROR"
	case imprint.CodePublishDenied, imprint.CodeSubscribeDenied, imprint.CodeWillDenied, imprint.CodeRetainDenied, imprint.CodeAccessDenied,
		imprint.CodeCertificateInactive, imprint.CodeCertificateRevoked, imprint.CodeCertificateDeleted,
		imprint.CodeCertificatePending, imprint.CodeCertificateTransfer, imprint.CodeCertificateExpired, imprint.CodeCertificateNotYetValid:
		return "AUTH_ERROR"
	default:
		return "CLIENT_ERROR"
	}
}
