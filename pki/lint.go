package pki

import (
	"errors"
	"fmt"
	"strings"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/community" // registers its lints
	_ "github.com/zmap/zlint/v3/lints/rfc"       // registers its lints

	"github.com/imprint-iot/imprint"
)

// subjectLints are left out: they judge the text of a subject, which is copied
// from the device's request octet for octet. AWS IoT Core doesn't judge it
// either (the OU of its own issuer name is longer than RFC 5280 appendix A.1
// allows), and a device that its maker can't change must still get its
// certificate. What stays is that the subject is a name, isn't empty, and holds
// no control characters.
var subjectLints = []string{
	"e_subj_contains_html_entities",
	"e_subj_country_not_uppercase",
	"e_subject_common_name_max_length",
	"e_subject_dn_country_not_printable_string",
	"e_subject_dn_serial_number_max_length",
	"e_subject_dn_serial_number_not_printable_string",
	"e_subject_email_max_length",
	"e_subject_given_name_max_length",
	"e_subject_locality_name_max_length",
	"e_subject_organization_name_max_length",
	"e_subject_organizational_unit_name_max_length",
	"e_subject_postal_code_max_length",
	"e_subject_printable_string_badalpha",
	"e_subject_state_name_max_length",
	"e_subject_street_address_max_length",
	"e_subject_surname_max_length",
	"e_utf8_latin1_mixup",
	"n_multiple_subject_rdn",
	"w_subject_dn_leading_whitespace",
	"w_subject_dn_trailing_whitespace",
	"w_subject_given_name_recommended_max_length",
	"w_subject_surname_recommended_max_length",
}

// linter runs the lints that make sense for a private CA's device certificates:
// those that ZLint takes from RFCs 3279, 5280, 5480 and 8813 and from its
// community, without subjectLints and without the CA/Browser Forum's, Mozilla's,
// Apple's and ETSI's, whose rules are for the web, for mail and for qualified
// signatures.
type linter struct {
	lints  []neededLint
	config lint.Configuration
}

// neededLint is a lint and the extension without which it doesn't apply.
type neededLint struct {
	*lint.CertificateLint
	extension string // dotted; empty: it has to be asked
}

// newLinter picks the lints once; they keep no state between certificates.
func newLinter(without []string) (*linter, error) {
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC8813, lint.Community},
		ExcludeNames:   without,
	})
	if err != nil {
		return nil, fmt.Errorf("couldn't choose lints: %w", err)
	}
	needs := map[string]string{}
	for oid, names := range lintNeeds {
		for _, name := range names {
			needs[name] = oid
		}
	}
	l := &linter{config: lint.NewEmptyConfig()}
	for _, one := range registry.CertificateLints().Lints() {
		l.lints = append(l.lints, neededLint{one, needs[one.Name]})
	}
	if len(l.lints) == 0 {
		return nil, errors.New("couldn't choose lints: none is registered")
	}
	return l, nil
}

// check says what the lints have against a certificate: everything from a
// warning on. Notices are remarks and don't count. A lint that panics counts as
// failed.
func (l *linter) check(der []byte) error {
	cert, err := zx509.ParseCertificate(der)
	if err != nil {
		return invalid("couldn't read the certificate for linting: %w", err)
	}
	var failed []string
	code := imprint.CodeCertificateValidation
	for _, one := range l.lints {
		if one.extension != "" {
			_, present := cert.ExtensionsMap[one.extension]
			if !present {
				continue
			}
		}
		result := one.Execute(cert, l.config)
		if result.Status < lint.Warn {
			continue
		}
		if strings.HasPrefix(one.Name, "e_rsa_") {
			code = imprint.CodeCertificateWeak
		}
		text := one.Name + ": " + one.Description
		if result.Details != "" {
			text += " (" + imprint.Excerpt(result.Details) + ")"
		}
		failed = append(failed, text)
	}
	if len(failed) == 0 {
		return nil
	}
	return imprint.Errorf(code, "the certificate would break %d rule(s): %s", len(failed), strings.Join(failed, "; ")).
		WithHint("Make a new request, with another key if a rule about RSA is named, with another subject if one about the subject is.")
}
