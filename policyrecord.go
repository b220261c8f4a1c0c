package imprint

import "time"

// Limits of policies, from the AWS IoT Core quotas page.
const (
	MaxPolicyVersions          = 5
	MaxPoliciesPerCertificate  = 10
	MaxTemplateVersions        = 5
	MaxCAsPerSubject           = 10
	MaxTagsPerResource         = 50
	MaxPolicyDocumentNonSpaces = 2048
)

// Policy is a named IoT policy; its documents stand in its versions.
type Policy struct {
	Tenant                Tenant
	Name                  PolicyName
	DefaultVersion        int
	LastVersion           int // the highest id ever given; ids are never used twice
	CreatedAt, ModifiedAt time.Time
	GenerationID          string
}

// ARN names the policy.
func (p Policy) ARN() string { return p.Tenant.PolicyARN(p.Name) }

// PolicyVersion is one document of a policy.
type PolicyVersion struct {
	Tenant    Tenant
	Policy    PolicyName
	Version   int
	Document  string // as it was given, byte for byte
	CreatedAt time.Time
}

// PolicyAttachment puts a policy on a target. Target is an ARN (certificate or
// thing group) or a Cognito identity id.
type PolicyAttachment struct {
	Tenant Tenant
	Policy PolicyName
	Target string
}

// TemplateType says which flow a provisioning template is for.
type TemplateType string

// The two types of AWS IoT Core.
const (
	TemplateFleet TemplateType = "FLEET_PROVISIONING"
	TemplateJITP  TemplateType = "JITP"
)

// ProvisioningTemplate is a named template; its bodies stand in its versions.
type ProvisioningTemplate struct {
	Tenant                Tenant
	Name                  TemplateName
	Type                  TemplateType
	Description           string
	Enabled               bool
	RoleARN               string
	HookTargetARN         string // pre-provisioning hook; empty: none
	HookPayloadVersion    string
	DefaultVersion        int
	LastVersion           int
	CreatedAt, ModifiedAt time.Time
}

// ARN names the template.
func (t ProvisioningTemplate) ARN() string { return t.Tenant.TemplateARN(t.Name) }

// TemplateVersion is one body of a template.
type TemplateVersion struct {
	Tenant    Tenant
	Template  TemplateName
	Version   int
	Body      string
	CreatedAt time.Time
}

// Tag is one key and value on a taggable resource.
type Tag struct{ Key, Value string }

// AccessKey is what an operator signs control-plane requests with. Secret is
// in the clear in memory only; keepers store it sealed.
type AccessKey struct {
	ID        string
	Account   AccountID
	User      string // name of the user it belongs to
	Secret    string
	CreatedAt time.Time
}

// TenantSettings is what a tenant has exactly one of.
type TenantSettings struct {
	Tenant           Tenant
	EndpointPrefix   string // 14 lowercase characters, stable once made
	RegistrationCode string // 64 lowercase hex digits; empty until asked for
	CreatedAt        time.Time
}
