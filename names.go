package imprint

import (
	"fmt"
	"regexp"
	"strings"
)

// Typed names. Values are legal when they came out of the Parse function of
// their type (or out of the store, which only ever got parsed ones).
type (
	// AccountID is an AWS-style account number: twelve decimal digits.
	AccountID string
	// Region is an AWS-style region name, such as us-east-1.
	Region string
	// CertificateID is the lowercase hex SHA-256 of a certificate's DER: 64
	// characters. CA certificates use the same derivation.
	CertificateID string
	// ThingName is 1 to 128 characters of [a-zA-Z0-9:_-].
	ThingName string
	// ThingGroupName is 1 to 128 characters of [a-zA-Z0-9:_-].
	ThingGroupName string
	// ThingTypeName is 1 to 128 characters of [a-zA-Z0-9:_-].
	ThingTypeName string
	// BillingGroupName is 1 to 128 characters of [a-zA-Z0-9:_-].
	BillingGroupName string
	// PolicyName is 1 to 128 characters of [\w+=,.@-].
	PolicyName string
	// TemplateName is 1 to 36 characters of [0-9A-Za-z_-].
	TemplateName string
	// ClientID is an MQTT client identifier as the broker accepted it.
	ClientID string
)

var (
	accountPattern      = regexp.MustCompile(`^[0-9]{12}$`)
	regionPattern       = regexp.MustCompile(`^[a-z]{2,8}(-[a-z0-9]{1,12}){1,4}$`)
	certificatePattern  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	thingNamePattern    = regexp.MustCompile(`^[a-zA-Z0-9:_-]{1,128}$`)
	groupNamePattern    = regexp.MustCompile(`^[a-zA-Z0-9:_-]{1,128}$`)
	policyNamePattern   = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	templateNamePattern = regexp.MustCompile(`^[0-9A-Za-z_-]{1,36}$`)
)

// ParseAccountID checks a twelve-digit account number.
func ParseAccountID(s string) (AccountID, error) {
	if !accountPattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, "account %q is not twelve decimal digits", Excerpt(s))
	}
	return AccountID(s), nil
}

// ParseRegion checks a region name of the AWS shape, such as eu-west-1.
func ParseRegion(s string) (Region, error) {
	if len(s) > 32 || !regionPattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, "region %q is not of the form us-east-1", Excerpt(s))
	}
	return Region(s), nil
}

// Partition gives the ARN partition of a region: aws, aws-cn or aws-us-gov.
func (r Region) Partition() string {
	switch {
	case strings.HasPrefix(string(r), "cn-"):
		return "aws-cn"
	case strings.HasPrefix(string(r), "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// ParseCertificateID accepts 64 hex digits in either case, normalised to lower
// case as AWS IoT Core does.
func ParseCertificateID(s string) (CertificateID, error) {
	lower := strings.ToLower(s)
	if !certificatePattern.MatchString(lower) {
		return "", Errorf(CodeInvalidRequest, "certificate id %q is not 64 hex digits", Excerpt(s))
	}
	return CertificateID(lower), nil
}

// ParseThingName checks a thing name.
func ParseThingName(s string) (ThingName, error) {
	if !thingNamePattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, "thing name %q does not match [a-zA-Z0-9:_-]{1,128}", Excerpt(s))
	}
	return ThingName(s), nil
}

// ParseThingGroupName checks a thing group name.
func ParseThingGroupName(s string) (ThingGroupName, error) {
	if !groupNamePattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, "thing group name %q does not match [a-zA-Z0-9:_-]{1,128}", Excerpt(s))
	}
	return ThingGroupName(s), nil
}

// ParseThingTypeName checks a thing type name. The rules are those of groups.
func ParseThingTypeName(s string) (ThingTypeName, error) {
	if !groupNamePattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, "thing type name %q does not match [a-zA-Z0-9:_-]{1,128}", Excerpt(s))
	}
	return ThingTypeName(s), nil
}

// ParseBillingGroupName checks a billing group name.
func ParseBillingGroupName(s string) (BillingGroupName, error) {
	if !groupNamePattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, "billing group name %q does not match [a-zA-Z0-9:_-]{1,128}", Excerpt(s))
	}
	return BillingGroupName(s), nil
}

// ParsePolicyName checks a policy name.
func ParsePolicyName(s string) (PolicyName, error) {
	if !policyNamePattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, `policy name %q does not match [\w+=,.@-]{1,128}`, Excerpt(s))
	}
	return PolicyName(s), nil
}

// ParseTemplateName checks a provisioning template name.
func ParseTemplateName(s string) (TemplateName, error) {
	if !templateNamePattern.MatchString(s) {
		return "", Errorf(CodeInvalidRequest, "template name %q does not match [0-9A-Za-z_-]{1,36}", Excerpt(s))
	}
	return TemplateName(s), nil
}

// Tenant is who owns a resource: an account in a region. Every row, topic,
// client id and cache key carries it; nothing crosses tenants except a
// certificate that is registered in several of them.
type Tenant struct {
	Account AccountID
	Region  Region
}

// String renders account/region, for logs and cache keys.
func (t Tenant) String() string { return string(t.Account) + "/" + string(t.Region) }

// ARN renders arn:aws:iot:{region}:{account}:{resource}. Resource is the part
// after the account, such as "thing/sensor-17".
func (t Tenant) ARN(resource string) string {
	return "arn:aws:iot:" + string(t.Region) + ":" + string(t.Account) + ":" + resource
}

// ThingARN, ThingGroupARN, CertificateARN, CACertificateARN, PolicyARN and
// TemplateARN name the tenant's resources as AWS IoT Core does.
func (t Tenant) ThingARN(n ThingName) string { return t.ARN("thing/" + string(n)) }

// ThingGroupARN names a thing group.
func (t Tenant) ThingGroupARN(n ThingGroupName) string { return t.ARN("thinggroup/" + string(n)) }

// ThingTypeARN names a thing type.
func (t Tenant) ThingTypeARN(n ThingTypeName) string { return t.ARN("thingtype/" + string(n)) }

// BillingGroupARN names a billing group.
func (t Tenant) BillingGroupARN(n BillingGroupName) string { return t.ARN("billinggroup/" + string(n)) }

// CertificateARN names a device certificate.
func (t Tenant) CertificateARN(id CertificateID) string { return t.ARN("cert/" + string(id)) }

// CACertificateARN names a registered CA certificate.
func (t Tenant) CACertificateARN(id CertificateID) string { return t.ARN("cacert/" + string(id)) }

// PolicyARN names a policy.
func (t Tenant) PolicyARN(n PolicyName) string { return t.ARN("policy/" + string(n)) }

// TemplateARN names a provisioning template.
func (t Tenant) TemplateARN(n TemplateName) string {
	return t.ARN("provisioningtemplate/" + string(n))
}

// ParseARN splits an ARN of the iot service into its tenant and resource, the
// part after the account. Errors: CodeInvalidRequest.
func ParseARN(s string) (Tenant, string, error) {
	if len(s) > 2048 {
		return Tenant{}, "", Errorf(CodeInvalidRequest, "ARN is longer than 2048 characters")
	}
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iot" || parts[5] == "" {
		return Tenant{}, "", Errorf(CodeInvalidRequest, "%q is not an ARN of the form arn:aws:iot:region:account:resource", Excerpt(s))
	}
	region, err := ParseRegion(parts[3])
	if err != nil {
		return Tenant{}, "", fmt.Errorf("couldn't read ARN %q: %w", Excerpt(s), err)
	}
	account, err := ParseAccountID(parts[4])
	if err != nil {
		return Tenant{}, "", fmt.Errorf("couldn't read ARN %q: %w", Excerpt(s), err)
	}
	return Tenant{Account: account, Region: region}, parts[5], nil
}

// ParseCertificateARN reads the certificate id out of a device certificate's
// ARN that must belong to the tenant. Errors: CodeInvalidRequest.
func (t Tenant) ParseCertificateARN(s string) (CertificateID, error) {
	id, err := t.parseARN(s, "cert/", "certificate")
	if err != nil {
		return "", err
	}
	return ParseCertificateID(id)
}

// ParseThingGroupARN reads the name out of the ARN of a thing group that must
// belong to the tenant. Errors: CodeInvalidRequest.
func (t Tenant) ParseThingGroupARN(s string) (ThingGroupName, error) {
	name, err := t.parseARN(s, "thinggroup/", "thing group")
	if err != nil {
		return "", err
	}
	return ParseThingGroupName(name)
}

// ParseBillingGroupARN reads the name out of the ARN of a billing group that must
// belong to the tenant. Errors: CodeInvalidRequest.
func (t Tenant) ParseBillingGroupARN(s string) (BillingGroupName, error) {
	name, err := t.parseARN(s, "billinggroup/", "billing group")
	if err != nil {
		return "", err
	}
	return ParseBillingGroupName(name)
}

// ParseThingARN reads the name out of the ARN of a thing that must belong to
// the tenant. Errors: CodeInvalidRequest.
func (t Tenant) ParseThingARN(s string) (ThingName, error) {
	name, err := t.parseARN(s, "thing/", "thing")
	if err != nil {
		return "", err
	}
	return ParseThingName(name)
}

// parseARN gives the name of a resource of the tenant, of the kind with the
// prefix.
func (t Tenant) parseARN(s, prefix, kind string) (string, error) {
	owner, resource, err := ParseARN(s)
	if err != nil {
		return "", err
	}
	name, found := strings.CutPrefix(resource, prefix)
	if !found {
		return "", Errorf(CodeInvalidRequest, "%q is not the ARN of a %s", Excerpt(s), kind)
	}
	if owner != t {
		return "", Errorf(CodeInvalidRequest, "%q belongs to %s, not to %s", Excerpt(s), owner, t)
	}
	return name, nil
}
