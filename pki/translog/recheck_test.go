//go:build unix

package translog_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/pki/translog"
)

// TestCertificatesAreCheckedByTheRulesThatHeldThen ensures that each certificate is checked
// again by the rules that its profile had when it was prepared, not by earlier or later ones,
// and that one of a profile without recorded rules is told of.
func TestCertificatesAreCheckedByTheRulesThatHeldThen(t *testing.T) {
	t.Parallel()
	w, _ := logged(t, 5)
	check, err := translog.Recheck(t.Context(), w.store)
	if err != nil || check != nil {
		t.Fatalf("without recorded rules: got a check %t, %v", check != nil, err)
	}
	audit := func() (translog.Audited, []translog.Finding) {
		check, err := translog.Recheck(t.Context(), w.store)
		if err != nil {
			t.Fatal(err)
		}
		return w.audit(t, func(c *translog.AuditConfig) { c.Check = check })
	}
	record := func(name string, from time.Time, config pki.ProfileConfig) {
		rules, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		w.update(t, func(tx imprint.Tx) error {
			return tx.PutProfileRules(imprint.ProfileRules{Name: name, From: from, Rules: string(rules)})
		})
	}
	now := time.Now()
	name := translog.RulesOf("", w.profile.Name())
	record("device", now.Add(-time.Hour), w.profile.Config()) // a tenant's, of the same name
	_, found := audit()
	if len(found) != 5 || kinds(found) != string(translog.FindingCheck) || !strings.Contains(found[0].Problem, "no rules of its profile") {
		t.Errorf("with the rules of another profile alone: found %+v, want each of five certificates", found)
	}
	other := w.profile.Config()
	other.RefuseEd25519, other.Keys = true, []pki.KeyKind{pki.KeyRSA2048}
	record(name, now.Add(-2*time.Hour), other)
	_, found = audit()
	if len(found) != 5 || !strings.Contains(found[0].Problem, "its key is of the kind p256") {
		t.Errorf("with rules that they break: found %+v, want each of five certificates", found)
	}
	record(name, now.Add(-time.Hour), w.profile.Config())
	record(name, now.Add(time.Hour), other)
	audited, found := audit()
	if len(found) != 0 || audited.Rechecked != 5 {
		t.Errorf("with the rules that held: %d were checked, found %+v, want five and nothing", audited.Rechecked, found)
	}
}
