package broker_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/broker"
	"github.com/imprint-iot/imprint/mqtt"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// TestRetainedMessagesOfEveryTenantAreRestored ensures it for more tenants than the store
// gives at once.
func TestRetainedMessagesOfEveryTenantAreRestored(t *testing.T) {
	t.Parallel()
	const tenants = 10_050
	of := func(n int) imprint.Tenant {
		return imprint.Tenant{Account: imprint.AccountID(fmt.Sprintf("%012d", n)), Region: "us-east-1"}
	}
	store := openStore(t, filepath.Join(t.TempDir(), "registry.db"), sqlite.Faults{})
	before := newHouseOn(t, broker.Options{}, store)
	before.update(func(tx imprint.Tx) error {
		for n := range tenants {
			err := tx.PutTenantSettings(imprint.TenantSettings{Tenant: of(n), EndpointPrefix: fmt.Sprint("p", n)})
			if err != nil {
				return err
			}
		}
		return nil
	})
	some := []int{0, 9_999, 10_000, tenants - 1}
	ids := map[int]imprint.CertificateID{}
	for _, n := range some {
		ids[n] = before.register(of(n), allowAll)
		pub := before.on(of(n), ids[n], mqtt.V5, connectAs("pub"))
		pub.send(&mqtt.Publish{Topic: []byte("kept"), Payload: []byte(fmt.Sprint(n)), QoS: 1, PacketID: 1, Retain: true})
		expect[*mqtt.Ack](pub)
	}
	after := newHouseOn(t, broker.Options{}, store)
	for _, n := range some {
		sub := after.on(of(n), ids[n], mqtt.V5, connectAs("sub"))
		sub.subscribe(1, "kept")
		sub.gets("kept", fmt.Sprint(n), 1)
	}
}
