package broker_test

import (
	"fmt"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
)

// connectDenied wants the CONNECT refused and counted as denied. The trace counts
// refusals that repeat, without a record of each.
func (c *client) connectDenied() {
	c.Helper()
	if c.version == mqtt.V5 {
		if got := expect[*mqtt.Connack](c).Reason; got != mqtt.NotAuthorized {
			c.Errorf("CONNACK: got %s, want not authorized", got)
		}
	}
	c.closed()
	if c.broker.Refusals()[imprint.CodeConnectDenied] == 0 {
		c.Error("the denial isn't counted")
	}
}

// TestPoliciesSeeWhatAConnectAsksFor ensures that the condition keys of iot:Connect
// have what stands in the packet: iot:ConnectAttributes and iot:LastWillTopic.
func TestPoliciesSeeWhatAConnectAsksFor(t *testing.T) {
	const (
		only      = `{"ForAllValues:StringEquals":{"iot:ConnectAttributes":[%s]}}`
		demanding = `{"ForAnyValue:StringEquals":{"iot:ConnectAttributes":[%s]}}`
		willOn    = `{"ArnEquals":{"iot:LastWillTopic":"arn:aws:iot:us-east-1:000000000000:topic/%s"}}`
	)
	type asks struct {
		persistent bool
		will       string
	}
	plain, lasts, willed, both := asks{}, asks{persistent: true}, asks{will: "wills/dev"}, asks{true, "wills/dev"}
	bothVersions(t, broker.Options{}, func(h *house, v mqtt.Version) {
		for _, row := range []struct {
			condition string
			allowed   []asks
			denied    []asks
		}{
			{fmt.Sprintf(only, `"PersistentConnect"`), []asks{plain, lasts}, []asks{willed, both}},
			{fmt.Sprintf(only, `"LastWill"`), []asks{plain, willed}, []asks{lasts, both}},
			{fmt.Sprintf(only, `"LastWill","PersistentConnect"`), []asks{plain, lasts, willed, both}, nil},
			{fmt.Sprintf(demanding, `"PersistentConnect"`), []asks{lasts, both}, []asks{plain, willed}},
			{fmt.Sprintf(demanding, `"LastWill"`), []asks{willed, both}, []asks{plain, lasts}},
			{fmt.Sprintf(willOn, "wills/dev"), []asks{willed, both}, []asks{plain, lasts, {will: "wills/other"}}},
			{fmt.Sprintf(willOn, "wills/*"), []asks{willed, both, {will: "wills/other"}}, []asks{plain, {will: "elsewhere"}}},
			{fmt.Sprintf(willOn, "wills/${iot:ClientId}"), []asks{willed}, []asks{{will: "wills/other"}}},
		} {
			id := h.register(first, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotAction":"iot:Connect","Resource":"*"},
				{"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":`+row.condition+`}]}`)
			connect := func(a asks) (*client, *mqtt.Connect) {
				packet := connectAs("dev")
				if a.persistent {
					packet = lasting(v, "dev", 100)
				}
				if a.will != "" {
					packet.Will = &mqtt.Will{Topic: a.will, Payload: []byte("bye")}
				}
				return h.door(first, id, v), packet
			}
			for _, a := range row.allowed {
				c, packet := connect(a)
				c.send(packet)
				if got := expect[*mqtt.Connack](c); got.Reason != mqtt.Success {
					h.Errorf("%s, %+v: got %s, want success", row.condition, a, got.Detail())
				}
				c.goodbye()
			}
			for _, a := range row.denied {
				c, packet := connect(a)
				c.send(packet)
				c.connectDenied()
			}
		}
	})
}
