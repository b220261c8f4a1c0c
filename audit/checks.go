package audit

import (
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
)

// The checks that this package does.
const (
	DeviceCertificateShared     imprint.AuditCheck = "DEVICE_CERTIFICATE_SHARED_CHECK"
	DeviceCertificateExpiring   imprint.AuditCheck = "DEVICE_CERTIFICATE_EXPIRING_CHECK"
	DeviceCertificateAge        imprint.AuditCheck = "DEVICE_CERTIFICATE_AGE_CHECK"
	DeviceCertificateKeyQuality imprint.AuditCheck = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
	RevokedDeviceCertificate    imprint.AuditCheck = "REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK"
	CACertificateExpiring       imprint.AuditCheck = "CA_CERTIFICATE_EXPIRING_CHECK"
	CACertificateKeyQuality     imprint.AuditCheck = "CA_CERTIFICATE_KEY_QUALITY_CHECK"
	RevokedCACertificate        imprint.AuditCheck = "REVOKED_CA_CERTIFICATE_STILL_ACTIVE_CHECK"
	RevokedIntermediate         imprint.AuditCheck = "INTERMEDIATE_CA_REVOKED_FOR_ACTIVE_DEVICE_CERTIFICATES_CHECK"
	PolicyOverlyPermissive      imprint.AuditCheck = "IOT_POLICY_OVERLY_PERMISSIVE_CHECK"
	ConflictingClientIDs        imprint.AuditCheck = "CONFLICTING_CLIENT_IDS_CHECK"
	LoggingDisabled             imprint.AuditCheck = "LOGGING_DISABLED_CHECK"
	ClaimOverQuota              imprint.AuditCheck = "IMPRINT_CLAIM_OVER_QUOTA_CHECK"
	ClaimPolicyTooWide          imprint.AuditCheck = "IMPRINT_CLAIM_POLICY_TOO_WIDE_CHECK"
	CertificatePending          imprint.AuditCheck = "IMPRINT_CERTIFICATE_PENDING_CHECK"
	ThingWithoutCertificate     imprint.AuditCheck = "IMPRINT_THING_WITHOUT_CERTIFICATE_CHECK"
	TemplateParameterUnresolved imprint.AuditCheck = "IMPRINT_TEMPLATE_PARAMETER_UNRESOLVED_CHECK"
)

// The settings that checks have, by the names that the API has for them.
const (
	SettingExpiration = "CERT_EXPIRATION_THRESHOLD_IN_DAYS"
	SettingAge        = "CERT_AGE_THRESHOLD_IN_DAYS"
)

// MaxDays bounds the settings: ten years.
const MaxDays = 3652

// Description is what there is to know of a check before it runs.
type Description struct {
	Check    imprint.AuditCheck
	Severity imprint.AuditSeverity
	// Impossible says why there is nothing here that the check could look at; empty
	// for those that run.
	Impossible string
	// Setting is the name of its threshold, empty without one; Days is its default.
	Setting string
	Days    int
}

const (
	noCognito     = "there is no Amazon Cognito here"
	noRoleAliases = "there are no role aliases here"
	notBuilt      = "this build doesn't have the check; imprint policy lint finds the same"
)

// descriptions are in the order of their names.
var descriptions = []Description{
	{Check: "AUTHENTICATED_COGNITO_ROLE_OVERLY_PERMISSIVE_CHECK", Severity: imprint.AuditCritical, Impossible: noCognito},
	{Check: CACertificateExpiring, Severity: imprint.AuditMedium, Setting: SettingExpiration, Days: 30},
	{Check: CACertificateKeyQuality, Severity: imprint.AuditCritical},
	{Check: ConflictingClientIDs, Severity: imprint.AuditHigh},
	{Check: DeviceCertificateAge, Severity: imprint.AuditLow, Setting: SettingAge, Days: 365},
	{Check: DeviceCertificateExpiring, Severity: imprint.AuditMedium, Setting: SettingExpiration, Days: 30},
	{Check: DeviceCertificateKeyQuality, Severity: imprint.AuditCritical},
	{Check: DeviceCertificateShared, Severity: imprint.AuditCritical},
	{Check: CertificatePending, Severity: imprint.AuditMedium},
	{Check: ClaimOverQuota, Severity: imprint.AuditHigh},
	{Check: ClaimPolicyTooWide, Severity: imprint.AuditCritical},
	{Check: TemplateParameterUnresolved, Severity: imprint.AuditHigh},
	{Check: ThingWithoutCertificate, Severity: imprint.AuditMedium},
	{Check: RevokedIntermediate, Severity: imprint.AuditCritical},
	{Check: PolicyOverlyPermissive, Severity: imprint.AuditCritical},
	{Check: "IOT_POLICY_POTENTIAL_MISCONFIGURATION_CHECK", Severity: imprint.AuditMedium, Impossible: notBuilt},
	{Check: "IOT_ROLE_ALIAS_ALLOWS_ACCESS_TO_UNUSED_SERVICES_CHECK", Severity: imprint.AuditMedium, Impossible: noRoleAliases},
	{Check: "IOT_ROLE_ALIAS_OVERLY_PERMISSIVE_CHECK", Severity: imprint.AuditCritical, Impossible: noRoleAliases},
	{Check: LoggingDisabled, Severity: imprint.AuditLow},
	{Check: RevokedCACertificate, Severity: imprint.AuditCritical},
	{Check: RevokedDeviceCertificate, Severity: imprint.AuditMedium},
	{Check: "UNAUTHENTICATED_COGNITO_ROLE_OVERLY_PERMISSIVE_CHECK", Severity: imprint.AuditCritical, Impossible: noCognito},
}

// Descriptions lists all checks by name, those that can't be done here, too.
func Descriptions() []Description { return slices.Clone(descriptions) }

// Describe finds a check. Errors: CodeInvalidRequest for one that there isn't.
func Describe(check imprint.AuditCheck) (Description, error) {
	at, found := slices.BinarySearchFunc(descriptions, check, func(d Description, name imprint.AuditCheck) int {
		return strings.Compare(string(d.Check), string(name))
	})
	if !found {
		return Description{}, imprint.Errorf(imprint.CodeInvalidRequest, "there is no audit check %q", imprint.Excerpt(string(check))).
			WithHint("aws iot describe-account-audit-configuration lists the checks.")
	}
	return descriptions[at], nil
}

// Offered lists the checks that run here, by name.
func Offered() []imprint.AuditCheck {
	var all []imprint.AuditCheck
	for _, d := range descriptions {
		if d.Impossible == "" {
			all = append(all, d.Check)
		}
	}
	return all
}

// Enabled says whether a tenant's configuration has a check on.
func Enabled(c imprint.AuditConfiguration, check imprint.AuditCheck) bool {
	return c.Checks[check].Enabled
}

// Runnable gives checks each once and by name. Errors: CodeInvalidRequest for one
// that the configuration hasn't on.
func Runnable(c imprint.AuditConfiguration, checks []imprint.AuditCheck) ([]imprint.AuditCheck, error) {
	runs, err := newRuns(c, checks, true)
	names := make([]imprint.AuditCheck, 0, len(runs))
	for _, run := range runs {
		names = append(names, run.Check)
	}
	return names, err
}

// newRuns makes the runs of checks, each once and by name. With strict, only those
// that the configuration has on may run. Errors: CodeInvalidRequest.
func newRuns(c imprint.AuditConfiguration, checks []imprint.AuditCheck, strict bool) ([]imprint.AuditRun, error) {
	if len(checks) == 0 {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "an audit needs at least one check")
	}
	checks = slices.Clone(checks)
	slices.Sort(checks)
	checks = slices.Compact(checks)
	runs := make([]imprint.AuditRun, 0, len(checks))
	for _, check := range checks {
		d, err := Describe(check)
		if err != nil {
			return nil, err
		}
		if d.Impossible != "" {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "check %s is disabled", check).WithHint("It can't be enabled: %s.", d.Impossible)
		}
		if strict && !Enabled(c, check) {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "check %s is disabled", check).
				WithHint(`Enable it: aws iot update-account-audit-configuration --audit-check-configurations '{"%s":{"enabled":true}}'`, check)
		}
		run := imprint.AuditRun{Check: check, Status: imprint.AuditRunWaiting, ThresholdDays: d.Days}
		if days := c.Checks[check].Days; days > 0 && d.Setting != "" {
			run.ThresholdDays = days
		}
		runs = append(runs, run)
	}
	return runs, nil
}
