package provisioning_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/store/sqlite"
)

// TestWhatATemplateAttachesWhileACertificateIsRenewed: RegisterThing and bulk registration
// that name the old one give the new one the thing and the policies, too.
func TestWhatATemplateAttachesWhileACertificateIsRenewed(t *testing.T) {
	t.Parallel()
	const body = `{"Parameters":{"C":{"Type":"String"}},"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"unit"}},
"c":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"C"}}},
"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":"{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"iot:Connect\",\"Resource\":\"*\"}]}"}}}}`
	id := func(digit string) imprint.CertificateID { return imprint.CertificateID(strings.Repeat(digit, 64)) }
	old, renewed, abandoned := id("a"), id("b"), id("c")
	put := func(store imprint.Store) {
		update(t, store, func(tx imprint.Tx) error {
			for id, state := range map[imprint.CertificateID]imprint.RenewalState{old: "", renewed: imprint.RenewalPending, abandoned: imprint.RenewalAbandoned} {
				err := tx.PutCertificate(imprint.Certificate{Tenant: home, ID: id, Status: imprint.CertificateActive})
				if err == nil && state != "" {
					err = tx.PutRenewal(imprint.Renewal{Tenant: home, Certificate: id, Renews: old, State: state, CreatedAt: instant})
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	check := func(by string, store imprint.Store) {
		t.Helper()
		view(t, store, func(tx imprint.ReadTx) error {
			for id, want := range map[imprint.CertificateID]int{old: 1, renewed: 1, abandoned: 0} {
				things, _, err := tx.CertificateThings(home, id, imprint.Page{Limit: 2})
				if err != nil {
					return err
				}
				policies, _, err := tx.TargetPolicies(home, imprint.Certificate{Tenant: home, ID: id}.ARN(), imprint.Page{Limit: 2})
				if err != nil {
					return err
				}
				if len(things) != want || len(policies) != want {
					t.Errorf("%s: certificate %s has %d things and %d policies, want %d", by, id, len(things), len(policies), want)
				}
			}
			return nil
		})
	}
	o := newOffice(t, nil, provisioning.ClaimOptions{})
	put(o.store)
	_, err := o.claims.RegisterThing(t.Context(), home, body, map[string]string{"C": string(old)})
	if err != nil {
		t.Fatal(err)
	}
	check("RegisterThing", o.store)
	w := newBulkWorld(t, sqlite.Faults{})
	put(w.store)
	line, err := json.Marshal(map[string]string{"C": string(old)})
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, string(line)+"\n")
	task := ended(t, w.store, w.start(t, body).ID)
	if task.Succeeded != 1 {
		t.Errorf("bulk registration: %+v", task)
	}
	check("bulk registration", w.store)
}
