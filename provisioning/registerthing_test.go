package provisioning_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// TestARegisteredCAIsNotRegisteredAsItsDevice ensures that RegisterThing and bulk registration
// refuse, as just-in-time provisioning does, a CA's own certificate, which its own key signed.
func TestARegisteredCAIsNotRegisteredAsItsDevice(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "Line 1", nil)
	put := func(tx imprint.Tx) error { return tx.PutCA(ca.registered(home, "")) }
	parameters := map[string]string{"N": "unit", "C": pki.EncodeCertificatePEM(ca.cert.Raw)}

	o := newOffice(t, nil, provisioning.ClaimOptions{})
	update(t, o.store, put)
	_, err := o.claims.RegisterThing(t.Context(), home, certificateBody, parameters)
	if imprint.CodeOf(err) != imprint.CodeInvalidRequest || !strings.Contains(err.Error(), "itself") {
		t.Errorf("RegisterThing: got %v", err)
	}
	if things := o.things(home); len(things) > 0 {
		t.Errorf("it left %q behind", things)
	}

	w := newBulkWorld(t, sqlite.Faults{})
	update(t, w.store, put)
	line, err := json.Marshal(parameters)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, string(line)+"\n")
	task := ended(t, w.store, w.start(t, certificateBody).ID)
	if task.Status != imprint.TaskCompleted || task.Succeeded != 0 || task.Failed != 1 {
		t.Errorf("bulk registration: %s, %d succeeded, %d failed; want one that failed", task.Status, task.Succeeded, task.Failed)
	}
}
