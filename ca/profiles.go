package ca

import (
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// AllProfiles, among an authority's profiles, lets it sign by every one.
const AllProfiles = "all"

// maySignBy refuses profiles that aren't an authority's. One without a list signs for
// devices and servers, and the CAs below it that are made here, with a key of ours:
// another CA or an OCSP responder in a stranger's hand could be watched and taken back by
// nobody, and must be asked for by name.
func maySignBy(a *imprint.CertificateAuthority, p *pki.Profile, ours bool) error {
	refusal := imprint.Errorf(imprint.CodeAccessDenied, "certificate authority %s doesn't sign by profile %s", called(a), p.Name())
	switch {
	case slices.Contains(a.Profiles, AllProfiles), slices.Contains(a.Profiles, p.Name()):
		return nil
	case len(a.Profiles) > 0:
		return refusal.WithHint("It signs by %s.", strings.Join(a.Profiles, ", "))
	case ours, p.Kind() != pki.KindIntermediate && p.Kind() != pki.KindOCSP:
		return nil
	}
	return refusal.WithHint("CAs and OCSP responders with keys from elsewhere are signed when the authority's profiles name theirs: imprint ca update --profiles %s", p.Name())
}

// MaySignBy refuses a profile that an authority doesn't sign requests by which come from
// elsewhere. Errors: CodeAccessDenied.
func MaySignBy(a *imprint.CertificateAuthority, p *pki.Profile) error {
	return maySignBy(a, p, false)
}

func (e *Engine) checkProfiles(names []string) error {
	for _, name := range names {
		if name == AllProfiles {
			continue
		}
		_, err := e.opts.Profiles.Profile(name)
		if err != nil {
			return err
		}
	}
	return nil
}
