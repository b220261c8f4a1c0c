package broker_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

const devGone = "$aws/events/presence/disconnected/dev"

// gone wants the event of the end of the device dev.
func (c *client) gone(reason string) {
	c.Helper()
	got := c.event(devGone)
	if got["disconnectReason"] != reason || got["clientInitiatedDisconnect"] != false {
		c.Errorf("got %v, want %s, not initiated by the client", got, reason)
	}
}

// TestTheEndOfTheServerIsTheDisconnectReason reads the event after a restart: whoever
// watches is disconnected, too.
func TestTheEndOfTheServerIsTheDisconnectReason(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			store := openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{})
			before := newHouseOn(t, broker.Options{}, store)
			id := before.register(first, allowAll)
			watch := before.on(first, id, mqtt.V5, lasting(mqtt.V5, "watch", 1000))
			watch.subscribe(1, devGone)
			before.on(first, id, v, connectAs("dev"))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			before.must(before.broker.Shutdown(ctx))

			after := newHouseOn(t, broker.Options{}, store)
			watch = after.back(first, id, mqtt.V5, lasting(mqtt.V5, "watch", 1000))
			watch.gone("SERVER_INITIATED_DISCONNECT")
		})
	}
}

// TestTheEndOfAWebSocketsLifeIsTheDisconnectReason ensures it for connections that may
// live until a time.
func TestTheEndOfAWebSocketsLifeIsTheDisconnectReason(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		id := h.register(first, allowAll)
		watch := h.on(first, id, mqtt.V5, connectAs("watch"))
		watch.subscribe(0, devGone)
		h.until = h.now().Add(time.Hour)
		dev := h.on(first, id, v, connectAs("dev"))
		h.ahead.Store(int64(time.Hour))
		dev.send(&mqtt.Pingreq{})
		watch.gone("WEBSOCKET_TTL_EXPIRATION")
		dev.ended(imprint.CodeConnectionExpired)
	})
}

// TestAnErrorOfTheServerIsTheDisconnectReason ends a connection that the store fails.
func TestAnErrorOfTheServerIsTheDisconnectReason(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			var broken failingStore
			h := newHouseOn(t, broker.Options{}, openStore(t, filepath.Join(t.TempDir(), "registry.db"), broken.faults()))
			id := h.register(first, allowAll)
			watch := h.on(first, id, mqtt.V5, connectAs("watch"))
			watch.subscribe(0, devGone)
			dev := h.on(first, id, v, lasting(v, "dev", 1000))
			broken.mode.Store(1)
			dev.send(&mqtt.Subscribe{PacketID: 1, Filters: []mqtt.Subscription{{Filter: "a", QoS: 1}}})
			watch.gone("SERVER_ERROR")
			broken.mode.Store(0)
			dev.ended(imprint.CodeUnavailable)
		})
	}
}

// TestPresenceEventsNameTheThingOfAnExclusiveAttachment ensures that thingName stands
// for the thing that the certificate belongs to alone, and for no other.
func TestPresenceEventsNameTheThingOfAnExclusiveAttachment(t *testing.T) {
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		watch := h.on(first, h.register(first, allowAll), mqtt.V5, connectAs("watch"))
		watch.subscribe(0, "$aws/events/presence/connected/+")
		for _, row := range []struct {
			client, thing string
			exclusive     bool
			want          any
		}{
			{"dev", "lamp", true, "lamp"},
			{"lamp", "lamp", true, "lamp"},
			{"lamp", "lamp", false, nil}, // the connection's thing all the same
			{"dev", "lamp", false, nil},
			{"dev", "", false, nil},
		} {
			id := h.register(first, allowAll)
			if row.thing != "" {
				h.update(func(tx imprint.Tx) error {
					err := tx.PutThing(imprint.Thing{Tenant: first, Name: imprint.ThingName(row.thing), Version: 1})
					if err != nil {
						return err
					}
					return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: first, Thing: imprint.ThingName(row.thing), Certificate: id, Exclusive: row.exclusive})
				})
			}
			h.on(first, id, v, connectAs(row.client)).goodbye()
			got := watch.event("$aws/events/presence/connected/" + row.client)
			if got["thingName"] != row.want {
				h.Errorf("%+v: got thing name %v, want %v", row, got["thingName"], row.want)
			}
		}
	})
}
