package broker_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// wires are what the trace says that a client was sent, and sent, by the step's name.
func wires(a imprint.Attempt) map[string]string {
	all := map[string]string{}
	for _, s := range a.Steps {
		if s.Wire != "" {
			all[s.Name] = s.Wire
		}
	}
	return all
}

// TestTheTraceHasTheCodesOfTheClientsOwnLog ensures that each refusal is told with the
// packet and the code that the client was sent, or that it was closed without one.
func TestTheTraceHasTheCodesOfTheClientsOwnLog(t *testing.T) {
	const nothing = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}]}`
	const connectOnly = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`
	type told map[mqtt.Version]string
	for _, row := range []struct {
		name   string
		opts   broker.Options
		policy string
		does   func(*client)
		step   string
		want   told
	}{
		{name: "CONNECT denied", policy: nothing, step: "policy.connect",
			want: told{mqtt.V5: "sent CONNACK 0x87 (Not authorized)", mqtt.V311: "closed without CONNACK"}},
		{name: "CONNECT denied, with reasons", policy: nothing, opts: broker.Options{RefusedConnectGetsReason: true}, step: "policy.connect",
			want: told{mqtt.V5: "sent CONNACK 0x87 (Not authorized)", mqtt.V311: "sent CONNACK 5 (Not authorized)"}},
		{name: "PUBLISH denied", policy: connectOnly, step: "publish", does: func(c *client) { c.publish(1, 1, "a", "x") },
			want: told{mqtt.V5: "sent PUBACK 0x87 (Not authorized)", mqtt.V311: "session: closed without PUBACK"}},
		{name: "PUBLISH with QoS 0 denied", policy: connectOnly, step: "session", does: func(c *client) { c.publish(0, 0, "a", "x") },
			want: told{mqtt.V5: "sent DISCONNECT 0x87 (Not authorized)", mqtt.V311: "closed the connection"}},
		{name: "SUBSCRIBE denied", policy: connectOnly, step: "policy.subscribe",
			does: func(c *client) {
				c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a"}}})
			},
			want: told{mqtt.V5: "sent SUBACK 0x87 (Not authorized)", mqtt.V311: "session: closed without SUBACK"}},
		{name: "SUBSCRIBE denied, with reasons", policy: connectOnly, opts: broker.Options{DeniedSubscribeGetsReason: true}, step: "policy.subscribe",
			does: func(c *client) {
				c.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a"}}})
			},
			want: told{mqtt.V5: "sent SUBACK 0x87 (Not authorized)", mqtt.V311: "sent SUBACK 0x80 (Failure)"}},
		{name: "a second CONNECT", policy: allowAll, step: "session", does: func(c *client) { c.send(connectAs("dev")) },
			want: told{mqtt.V5: "sent DISCONNECT 0x82 (Protocol Error)", mqtt.V311: "closed the connection"}},
		{name: "a DISCONNECT with a reason", policy: allowAll, step: "session", does: func(c *client) { c.send(&mqtt.Disconnect{Reason: mqtt.DisconnectWithWill}) },
			want: told{mqtt.V5: "received DISCONNECT 0x4 (Disconnect with Will Message)"}},
		{name: "a plain DISCONNECT", policy: allowAll, step: "session", does: func(c *client) { c.send(&mqtt.Disconnect{}) }, want: told{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			bothVersions(t, row.opts, func(h *house, v mqtt.Version) {
				c := h.door(first, h.register(first, row.policy), v)
				c.send(connectAs("dev"))
				if row.does != nil {
					expect[*mqtt.Connack](c)
					row.does(c)
					if v == mqtt.V5 && row.step != "session" {
						_, err := c.receive()
						h.must(err)
					}
				}
				_ = c.conn.Close()
				var got imprint.Attempt
				h.eventually("the attempt ends", func() bool {
					h.must(h.log.Flush(t.Context()))
					_ = h.store.View(t.Context(), func(tx imprint.ReadTx) (err error) {
						got, err = tx.Attempt(c.attempt)
						return err
					})
					return !got.EndedAt.IsZero()
				})
				step, want := row.step, row.want[v]
				if rest, found := strings.CutPrefix(want, "session: "); found {
					step, want = "session", rest
				}
				if wires(got)[step] != want {
					h.Errorf("got %q, want %q at %s", wires(got), want, step)
				}
			})
		})
	}
}

// TestTheTraceNamesTheStatementThatAllowed ensures that a decision of a device that got
// on is told with the policy and the statement that made it.
func TestTheTraceNamesTheStatementThatAllowed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iot:Publish","iot:Subscribe"],"Resource":"*"},`+
		`{"Sid":"In","Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`)
	c := h.on(first, id, mqtt.V5, connectAs("dev"))
	c.subscribe(0, "a")
	c.publish(1, 1, "b", "x")
	expect[*mqtt.Ack](c)
	c.goodbye()
	said := map[string]string{}
	for _, s := range c.ended(imprint.CodeClientDisconnect).Steps {
		said[s.Name] = s.Detail
	}
	for step, want := range map[string]string{
		"policy.connect": `iot:Connect on client/dev is allowed by statement 2 ("In") of policy`, "policy.publish": "allowed by statement 1 of policy", "policy.subscribe": "allowed by statement 1 of policy",
	} {
		if !strings.HasPrefix(said[step], want) {
			t.Errorf("%s: got %q, want %q", step, said[step], want)
		}
	}
}
