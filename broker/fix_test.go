package broker_test

import (
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// TestFixesAreForWhatTheDeviceDid ensures that the fix of a refusal that has several causes
// is that of the one at hand.
func TestFixesAreForWhatTheDeviceDid(t *testing.T) {
	t.Parallel()
	h := newHouse(t, broker.Options{})
	id := h.register(first, allowAll)
	fix := func(c *client) string {
		t.Helper()
		for _, s := range c.steps() {
			if s.Verdict == imprint.VerdictFailed {
				return s.Fix
			}
		}
		t.Fatal("nothing failed")
		return ""
	}
	for topic, want := range map[string]string{
		"$aws/certificates/create/jsn":                  "$aws/certificates/create/json",
		"$aws/provisioning-templates/sensors/provision": "$aws/provisioning-templates/TEMPLATE/provision/json",
		"$aws/things/dev/shadow/update":                 "no device shadows",
		"$SYS/broker":                                   "doesn't begin with $",
	} {
		c := h.on(first, id, mqtt.V5, connectAs("dev"))
		c.send(&mqtt.Publish{Topic: []byte(topic), QoS: 1, PacketID: 1})
		expect[*mqtt.Ack](c)
		c.send(&mqtt.Disconnect{})
		c.closed()
		if got := fix(c); !strings.Contains(got, want) {
			t.Errorf("%s: the fix is %q, want %q in it", topic, got, want)
		}
	}

	c := h.door(first, id, mqtt.V5)
	connect := connectAs("dev")
	connect.Properties.AuthMethod = "SCRAM"
	connect.Properties.Mark(mqtt.PropAuthMethod)
	c.send(connect)
	expect[*mqtt.Connack](c)
	c.closed()
	if got := fix(c); !strings.Contains(got, "authentication method") {
		t.Errorf("enhanced authentication: the fix is %q", got)
	}

	mine := h.register(first, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}"}]}`)
	h.update(func(tx imprint.Tx) error {
		err := tx.PutThing(imprint.Thing{Tenant: first, Name: "sensor-17"})
		if err != nil {
			return err
		}
		return tx.PutThingAttachment(imprint.ThingAttachment{Tenant: first, Thing: "sensor-17", Certificate: mine})
	})
	c = h.door(first, mine, mqtt.V5)
	c.send(connectAs("another"))
	expect[*mqtt.Connack](c)
	c.closed()
	if got := fix(c); got != "connect with the thing's name as client id: sensor-17" {
		t.Errorf("another client id than the thing's name: the fix is %q", got)
	}
}
