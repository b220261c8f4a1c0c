package provisioning

import (
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/template"
)

// Shares warns of a thing, a certificate or a signing request's key that another device
// of the same dry runs has, too. Owners is what the earlier ones had; device names this
// one.
func (r *DryRunResult) Shares(owners map[string]string, device string) {
	if r.Plan == nil {
		return
	}
	if thing := r.Plan.Thing; thing != nil {
		owner := taken(owners, "thing "+thing.ThingName, device)
		if owner != "" {
			r.Steps = append(r.Steps, DryRunStep{
				Name: "thing", Verdict: VerdictWarning, Member: "Resources." + thing.LogicalName + ".Properties.ThingName",
				Detail: fmt.Sprintf("thing %s is that of %s, too", thing.ThingName, owner), Fix: "put into the name what each device has alone",
			})
		}
	}
	cert := r.Plan.Certificate
	if cert == nil {
		return
	}
	what := credentialOf(cert)
	if what == "" {
		return
	}
	owner := taken(owners, what, device)
	if owner != "" {
		r.Steps = append(r.Steps, DryRunStep{
			Name: "certificate", Verdict: VerdictWarning, Member: "Resources." + cert.LogicalName + ".Properties." + string(cert.Source),
			Detail: fmt.Sprintf("%s is that of %s, too: the two devices can't be told apart, nor one of them be shut out", what, owner),
			Fix:    "give each device a key and a certificate of its own",
		})
	}
}

// taken says who of the earlier devices has something, empty if none does.
func taken(owners map[string]string, what, device string) string {
	owner, known := owners[what]
	if !known {
		owners[what] = device
	}
	return owner
}

// credentialOf names what a device of a plan proves itself with; empty: that isn't known.
func credentialOf(cert *template.CertificatePlan) string {
	switch cert.Source {
	case template.SourceCSR:
		csr, err := pki.ParseCSRPEM(cert.CertificateSigningRequest)
		if err != nil {
			return ""
		}
		hash, err := pki.KeyHash(csr.PublicKey)
		if err != nil {
			return ""
		}
		return "the signing request's key " + hash
	case template.SourcePEM:
		leaf, err := pki.ParseCertificatePEM(cert.CertificatePem)
		if err != nil {
			return ""
		}
		return "certificate " + string(pki.CertificateID(leaf.Raw))
	}
	if imprint.CertificateID(cert.CertificateID) == StandInID {
		return ""
	}
	return "certificate " + cert.CertificateID
}
