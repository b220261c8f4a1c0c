package recheck

import (
	"fmt"
	"strings"
	"sync"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/community" // registers its lints
	_ "github.com/zmap/zlint/v3/lints/rfc"       // registers its lints
)

// chosen are the lints of the RFCs and of the community, by name. The CA/Browser Forum's and
// others' are for the web, for mail and for qualified signatures.
var chosen = sync.OnceValues(func() ([]*lint.CertificateLint, error) {
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC8813, lint.Community},
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't choose lints: %w", err)
	}
	return registry.CertificateLints().Lints(), nil
})

// aboutSubjects says whether a lint judges the text of a subject: certificates of the kind
// aws-device have the device's own, octet for octet, as AWS IoT Core gives them.
func aboutSubjects(name string) bool {
	for _, prefix := range []string{"e_subject_", "w_subject_", "e_subj_", "n_multiple_subject_", "e_utf8_latin1_mixup"} {
		if strings.HasPrefix(name, prefix) && name != "e_subject_empty_without_san" {
			return true
		}
	}
	return false
}

// lints tells what they have against a certificate, from a warning on.
func lints(der []byte, kind string) []string {
	all, err := chosen()
	if err != nil {
		return []string{err.Error()}
	}
	c, err := zx509.ParseCertificate(der)
	if err != nil {
		return []string{"the linter can't read it: " + err.Error()}
	}
	var problems []string
	for _, one := range all {
		if kind == kindDevice && aboutSubjects(one.Name) {
			continue
		}
		result := one.Execute(c, lint.NewEmptyConfig())
		if result.Status >= lint.Warn {
			problems = append(problems, one.Name+": "+one.Description)
		}
	}
	return problems
}
