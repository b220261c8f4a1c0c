package broker_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

func TestWills(t *testing.T) {
	willed := func(name string) *mqtt.Connect {
		c := connectAs(name)
		c.Will = &mqtt.Will{Topic: "gone/" + name, Payload: []byte("bye"), QoS: 1}
		return c
	}
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		watch := h.on(first, id, mqtt.V5, connectAs("watch"))
		watch.subscribe(1, "gone/#")

		c := h.on(first, id, v, willed("normal"))
		c.send(&mqtt.Disconnect{})
		c.closed()
		c.ended(imprint.CodeClientDisconnect)
		watch.silent()

		c = h.on(first, id, v, willed("cut"))
		_ = c.conn.Close()
		watch.gets("gone/cut", "bye", 1)

		old := h.on(first, id, v, willed("twice"))
		h.on(first, id, v, connectAs("twice"))
		watch.gets("gone/twice", "bye", 1)
		old.told(mqtt.SessionTakenOver)
		if steps := old.ended(imprint.CodeTakenOver).Steps; !slices.ContainsFunc(steps, func(s imprint.Step) bool {
			return s.Name == "takeover" && strings.HasSuffix(s.Detail, " came from 192.0.2.44")
		}) {
			t.Errorf("the steps of who was taken over don't say from where the other came: %+v", steps)
		}

		c = h.on(first, id, v, willed("misuse"))
		c.send(connectAs("misuse"))
		watch.gets("gone/misuse", "bye", 1)

		if v != mqtt.V5 {
			return
		}
		for _, reason := range []mqtt.ReasonCode{mqtt.DisconnectWithWill, mqtt.UnspecifiedError} {
			c = h.on(first, id, v, willed("asked"))
			c.send(&mqtt.Disconnect{Reason: reason})
			watch.gets("gone/asked", "bye", 1)
			c.ended(imprint.CodeClientDisconnect)
		}
	})
}

// TestTakeoverStormsLeaveOneConnection connects three clients with one id at a
// time, again and again.
func TestTakeoverStormsLeaveOneConnection(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		watch := h.on(first, id, v, connectAs("watch"))
		for round := range 200 {
			var storm sync.WaitGroup
			clients := make([]*client, 3)
			for i := range clients {
				clients[i] = h.door(first, id, v)
			}
			for _, c := range clients {
				storm.Go(func() {
					c.send(connectAs("one"), &mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "x"}}})
				})
			}
			storm.Wait()
			h.eventually("one of the three is left", func() bool {
				c := h.broker.Counters()
				return c.Connected == 2 && c.Connects == uint64(1+3*(round+1))
			})
			live := 0
			for _, c := range clients {
				if c.alive() {
					live++
				}
			}
			if live != 1 {
				h.Fatalf("round %d: %d live connections, want 1", round, live)
			}
			for _, c := range clients {
				_ = c.conn.Close()
			}
			h.eventually("all are gone", func() bool { return h.broker.Counters().Connected == 1 })
		}
		watch.silent()
		if got := h.broker.Counters().Takeovers; got != 400 {
			h.Errorf("takeovers: got %d, want 400", got)
		}
	})
}

// alive tells whether a connection answers a ping, after a CONNACK that comes
// first in any case.
func (c *client) alive() bool {
	c.Helper()
	expect[*mqtt.Connack](c)
	c.send(&mqtt.Pingreq{})
	for {
		p, err := c.receive()
		if err != nil {
			return false
		}
		if _, ok := p.(*mqtt.Pingresp); ok {
			return true
		}
	}
}

type event map[string]any

func (c *client) event(topic string) event {
	c.Helper()
	got := expect[*mqtt.Publish](c)
	if string(got.Topic) != topic {
		c.Fatalf("got an event on %s: %s, want %s", got.Topic, got.Payload, topic)
	}
	var e event
	c.must(json.Unmarshal(got.Payload, &e))
	return e
}

func TestLifecycleEvents(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		watch := h.on(first, id, mqtt.V5, connectAs("watch"))
		watch.subscribe(0, "$aws/events/presence/+/dev", "$aws/events/subscriptions/+/dev")
		varying := cmpopts.IgnoreMapEntries(func(k string, _ any) bool { return k == "timestamp" || k == "sessionIdentifier" })
		same := func(got, want event) {
			h.Helper()
			for k, value := range map[string]any{"clientId": "dev", "principalIdentifier": string(id)} {
				want[k] = value
			}
			if diff := cmp.Diff(want, got, varying); diff != "" || got["timestamp"] == nil || len(got["sessionIdentifier"].(string)) != 36 {
				h.Errorf("event %v (-want +got)\n%s", got, diff)
			}
		}
		for version := range 2 {
			c := h.on(first, id, v, connectAs("dev"))
			on := watch.event("$aws/events/presence/connected/dev")
			same(on, event{"eventType": "connected", "ipAddress": "192.0.2.44", "versionNumber": float64(version)})
			c.subscribe(0, "a", "b")
			same(watch.event("$aws/events/subscriptions/subscribed/dev"), event{"eventType": "subscribed", "topics": []any{"a", "b"}})
			c.send(&mqtt.Unsubscribe{PacketID: 2, Filters: []string{"b", "never"}})
			same(watch.event("$aws/events/subscriptions/unsubscribed/dev"), event{"eventType": "unsubscribed", "topics": []any{"b"}})
			expect[*mqtt.Unsuback](c)
			c.send(&mqtt.Disconnect{})
			off := watch.event("$aws/events/presence/disconnected/dev")
			same(off, event{"eventType": "disconnected", "clientInitiatedDisconnect": true,
				"disconnectReason": "CLIENT_INITIATED_DISCONNECT", "versionNumber": float64(version)})
			if on["sessionIdentifier"] != off["sessionIdentifier"] {
				h.Errorf("session identifiers: %v and %v", on["sessionIdentifier"], off["sessionIdentifier"])
			}
			c.closed()
		}
		c := h.door(first, h.register(first, noConnect), v)
		c.send(connectAs("dev"))
		failed := watch.event("$aws/events/presence/connect_failed/dev")
		if failed["connectFailureReason"] != "AUTHORIZATION_FAILED" || failed["versionNumber"] != nil {
			h.Errorf("got %v", failed)
		}
		h.ahead.Add(int64(2 * time.Hour)) // the version number is forgotten
		h.on(first, id, v, connectAs("dev"))
		same(watch.event("$aws/events/presence/connected/dev"),
			event{"eventType": "connected", "ipAddress": "192.0.2.44", "versionNumber": float64(0)})
		odd := h.on(first, id, v, connectAs("dev+#"))
		odd.silent()
		watch.silent()
	})
}

func TestCertificatesThatMayNotConnectEndTheirSessions(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		for _, row := range []struct {
			change func(imprint.CertificateID)
			code   imprint.Code
		}{
			{func(id imprint.CertificateID) { h.setStatus(first, id, imprint.CertificateInactive) }, imprint.CodeCertificateInactive},
			{func(id imprint.CertificateID) { h.setStatus(first, id, imprint.CertificateRevoked) }, imprint.CodeCertificateRevoked},
			{func(id imprint.CertificateID) {
				h.update(func(tx imprint.Tx) error { return tx.DeleteCertificate(first, id) })
			}, imprint.CodeCertificateDeleted},
		} {
			id := h.register(first, allowAll)
			one, two := h.on(first, id, v, connectAs("one")), h.on(first, id, v, connectAs("two"))
			other := h.on(first, h.register(first, allowAll), v, connectAs("other"))
			row.change(id)
			one.told(mqtt.NotAuthorized)
			two.told(mqtt.NotAuthorized)
			one.ended(row.code)
			other.silent()
		}
	})
}

// TestDeactivationDuringConnectIsNoticed changes the certificate after it was
// looked at and before the session can be found by it.
func TestDeactivationDuringConnectIsNoticed(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		c := h.doorWith(first, id, v, func() { h.setStatus(first, id, imprint.CertificateInactive) })
		c.send(connectAs("dev"))
		expect[*mqtt.Connack](c)
		c.told(mqtt.NotAuthorized)
		c.ended(imprint.CodeCertificateInactive)
	})
}

func TestShutdownTellsDevices(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		c := h.on(first, id, v, connectAs("dev"))
		late := h.door(first, id, v)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		h.must(h.broker.Shutdown(ctx))
		c.told(mqtt.ServerShuttingDown)
		late.send(connectAs("late"))
		if v == mqtt.V5 {
			if got := expect[*mqtt.Connack](late).Reason; got != mqtt.ServerUnavailable {
				h.Errorf("CONNACK while shutting down: got %s, want server unavailable", got)
			}
		}
		late.closed()
		late.ended(imprint.CodeServerShutdown)
	})
}

// TestClientsThatAreGoneAreRememberedUpToABound ensures that whoever connects with ever
// new client ids doesn't fill the memory within the hour for which they are remembered.
func TestClientsThatAreGoneAreRememberedUpToABound(t *testing.T) {
	t.Parallel()
	const most = 500_000
	h := newHouse(t, broker.Options{})
	if got := h.broker.RememberedClients(first, most+most/10); got > most+1 {
		t.Errorf("remembered clients: got %d, want %d at most", got, most+1)
	}
}

// Who shares a certificate with others is told at once, and no longer than that.
func TestSharingNamesClientsOfOneCertificate(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		shared, alone := h.register(first, allowAll), h.register(first, allowAll)
		h.on(first, alone, v, connectAs("alone"))
		one := h.on(first, shared, v, connectAs("one"))
		if got := h.broker.Sharing(first, 10, 10); len(got) != 0 {
			t.Errorf("got %+v, want nobody", got)
		}
		h.on(first, shared, v, connectAs("two"))
		got := h.broker.Sharing(first, 10, 10)
		slices.SortFunc(got, func(a, b imprint.LiveClient) int { return strings.Compare(string(a.ClientID), string(b.ClientID)) })
		if len(got) != 2 || got[0].ClientID != "one" || got[1].ClientID != "two" || got[0].Certificate != shared || got[0].KeepAlive == 0 || got[0].Since.IsZero() || got[0].Host == "" {
			t.Errorf("got %+v, want one and two", got)
		}
		if few, others := h.broker.Sharing(first, 10, 1), h.broker.Sharing(second, 10, 10); len(few) != 1 || len(others) != 0 {
			t.Errorf("got %+v of at most one, and %+v of another tenant", few, others)
		}
		one.send(&mqtt.Disconnect{})
		one.closed()
		h.eventually("nobody shares a certificate", func() bool { return len(h.broker.Sharing(first, 10, 10)) == 0 })
	})
}

// Who says DISCONNECT before CONNECT came for the handshake alone: no attempt failed.
// What else comes first is refused as ever, in the time that there is for CONNECT.
func TestAGoodbyeBeforeCONNECTIsNoFailure(t *testing.T) {
	h := newHouse(t, broker.Options{ConnectTimeout: 200 * time.Millisecond})
	id := h.register(first, allowAll)
	c := h.door(first, id, mqtt.V311)
	c.send(&mqtt.Disconnect{})
	c.closed()
	if a := c.ended(imprint.CodeClientDisconnect); a.Outcome != imprint.OutcomeClosed || len(a.Steps) == 0 || a.Steps[len(a.Steps)-1].Verdict == imprint.VerdictFailed {
		t.Errorf("got %+v, want an attempt that didn't fail", a)
	}
	if n := h.broker.Refusals()[imprint.CodeClientDisconnect]; n != 0 {
		t.Errorf("got %d refusals, want none", n)
	}
	if n := h.broker.Counters(); n.Visits != 1 || n.Refused != 0 || n.ProtocolErrors != 0 {
		t.Errorf("got %d visits, %d refused, %d misuses; want one visit", n.Visits, n.Refused, n.ProtocolErrors)
	}
	for bytes, code := range map[string]imprint.Code{"": imprint.CodeConnectTimeout, "\xe0": imprint.CodeConnectTimeout, "\xe0\x01\x00": imprint.CodeProtocolViolation, "\xc0\x00": imprint.CodeProtocolViolation} {
		c = h.door(first, id, mqtt.V311)
		if bytes != "" {
			c.write([]byte(bytes))
		}
		c.closed()
		c.ended(code)
	}
	c = h.door(first, id, mqtt.V311)
	_ = c.conn.Close()
	c.ended(imprint.CodeConnectionLost)
	if n := h.broker.Counters(); n.Visits != 1 || n.Refused != 5 || n.ProtocolErrors != 2 {
		t.Errorf("got %d visits, %d refused, %d misuses; want 1, 5, 2", n.Visits, n.Refused, n.ProtocolErrors)
	}
}
