package broker

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
)

// presence is what the lifecycle events of one client id remember.
type presence struct {
	version int64
	// idleSince is when the last connection ended; zero while one lives.
	idleSince time.Time
}

// presenceMemory is how long a client id's version number survives without a
// connection (AWS IoT Core developer guide, "Lifecycle events": about an hour).
const presenceMemory = time.Hour

// presenceSweep bounds how many remembered client ids are looked at for each
// new one, so that memory of clients long gone is given back.
const presenceSweep = 4

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
	version := s.realm.connected(s.clientID, s.broker.clock())
	thing := ""
	if b := s.bound.Load(); b != nil {
		if attached := b.who.ThingFor(s.clientID); attached != nil && attached.Exclusive {
			thing = string(attached.Thing.Name)
		}
	}
	s.presenceVersion = version
	s.announce("presence/connected", lifecycleEvent{
		EventType: "connected", ThingName: thing, IPAddress: s.peer.Address.String(), Version: &version,
	})
}

func (s *session) announceDisconnected(code imprint.Code) {
	s.realm.disconnected(s.clientID, s.presenceVersion, s.broker.clock())
	initiated := code == imprint.CodeClientDisconnect
	version := s.presenceVersion
	s.announce("presence/disconnected", lifecycleEvent{
		EventType: "disconnected", Initiated: &initiated, Reason: disconnectReason(code), Version: &version,
	})
}

func (s *session) announceConnectFailed() {
	if s.id == "" {
		s.id = uuid.NewString()
	}
	s.announce("presence/connect_failed", lifecycleEvent{
		EventType: "connect_failed", FailureReason: "AUTHORIZATION_FAILED", IPAddress: s.peer.Address.String(),
	})
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
		imprint.CodeCertificatePending, imprint.CodeCertificateTransfer, imprint.CodeCertificateExpired:
		return "AUTH_ERROR"
	default:
		return "CLIENT_ERROR"
	}
}

// connected counts a client id's connections: the version number of both its
// lifecycle events.
func (r *realm) connected(id imprint.ClientID, now time.Time) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	swept := 0
	for other, p := range r.presence {
		if swept++; swept > presenceSweep {
			break
		}
		if !p.idleSince.IsZero() && now.Sub(p.idleSince) > presenceMemory {
			delete(r.presence, other)
		}
	}
	p := r.presence[id]
	if p == nil {
		r.presence[id] = &presence{}
		return 0
	}
	p.version++
	p.idleSince = time.Time{}
	return p.version
}

func (r *realm) disconnected(id imprint.ClientID, version int64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.presence[id]; p != nil && p.version == version {
		p.idleSince = now
	}
}
