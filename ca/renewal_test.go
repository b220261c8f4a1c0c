package ca_test

import (
	"testing"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// TestAClaimIsRenewedIntoNoDevice, whoever asks: a whole batch has it.
func TestAClaimIsRenewedIntoNoDevice(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	line := o.below(o.root("root").ID, "line")
	claim, err := o.Issue(t.Context(), home, line.ID, "claim-certificate", pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "batch 5"), By: "test"})
	if err != nil {
		t.Fatal(err)
	}
	renewal := pki.Request{PublicKey: key(t).Public(), RawSubject: subject(t, "batch 5"), By: "test", Renews: claim.ID}
	_, err = o.Issue(t.Context(), home, line.ID, "operational", renewal)
	refused(t, "a claim as a device", err, imprint.CodeCertificateValidation, "is a claim, of profile claim-certificate")
	_, err = o.Issue(t.Context(), home, line.ID, "claim-certificate", renewal)
	if err != nil {
		t.Errorf("a claim as a claim: %v", err)
	}
}
