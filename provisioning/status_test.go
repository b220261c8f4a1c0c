package provisioning

import (
	"testing"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/template"
)

// Each value of the override of a certificate's Status, over each status. Just-in-time
// flows only come with a certificate that waits for activation, so this looks at the
// decision itself.
func TestStatusOverrides(t *testing.T) {
	t.Parallel()
	const active, inactive, pending = imprint.CertificateActive, imprint.CertificateInactive, imprint.CertificatePendingActivation
	for _, row := range []struct {
		now, wanted imprint.CertificateStatus
		override    template.Override
		want        imprint.CertificateStatus
		code        imprint.Code
	}{
		{pending, active, template.DoNothing, active, ""},
		{pending, inactive, template.DoNothing, inactive, ""},
		{pending, active, template.Replace, active, ""},
		{pending, active, template.Fail, active, ""},
		{active, inactive, template.DoNothing, active, ""},
		{active, inactive, template.Replace, inactive, ""},
		{active, inactive, template.Fail, active, imprint.CodeConflictingUpdate},
		{inactive, active, template.DoNothing, inactive, ""},
		{inactive, active, template.Replace, active, ""},
		{inactive, active, template.Fail, inactive, imprint.CodeConflictingUpdate},
		{active, active, template.DoNothing, active, ""},
		{active, active, template.Replace, active, ""},
		{active, active, template.Fail, active, ""},
	} {
		got, err := statusAfter(imprint.Certificate{Status: row.now},
			&template.CertificatePlan{Status: template.CertificateStatus(row.wanted), StatusOverride: row.override}, time.Unix(1, 0))
		if got.Status != row.want || imprint.CodeOf(err) != row.code {
			t.Errorf("%s over %s with %s: got %s and %q, want %s and %q", row.wanted, row.now, row.override, got.Status, imprint.CodeOf(err), row.want, row.code)
		}
	}
}
