package iot

import (
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// tagged is a resource that can have tags: a policy, a CA certificate, a thing
// group, a thing type, a billing group, a provisioning template, a topic rule, a
// scheduled audit or a mitigation action. One of the last nine members is set.
type tagged struct {
	tenant   imprint.Tenant
	arn      string // in the form that the resource's own ARN method gives
	policy   imprint.PolicyName
	ca       imprint.CertificateID
	group    imprint.ThingGroupName
	kind     imprint.ThingTypeName
	billing  imprint.BillingGroupName
	template imprint.TemplateName
	rule     imprint.RuleName
	audit    string
	action   string
}

// parseTagged reads the ARN of a resource that can have tags and must belong to
// the tenant. Errors: CodeInvalidRequest; CodeNotFound for kinds of resources
// that AWS IoT Core tags and this tenant can't have.
func parseTagged(tenant imprint.Tenant, arn string) (tagged, error) {
	owner, resource, err := imprint.ParseARN(arn)
	if err != nil {
		return tagged{}, err
	}
	if owner != tenant {
		return tagged{}, imprint.Errorf(imprint.CodeInvalidRequest, "the resource belongs to %s, not to %s", owner, tenant).
			WithHint("Ask with the access key of its account, in its region.")
	}
	target := tagged{tenant: tenant}
	kind, name, _ := strings.Cut(resource, "/")
	switch kind {
	case "policy":
		target.policy, err = imprint.ParsePolicyName(name)
		target.arn = tenant.PolicyARN(target.policy)
	case "cacert":
		target.ca, err = imprint.ParseCertificateID(name)
		target.arn = tenant.CACertificateARN(target.ca)
	case "thinggroup":
		target.group, err = imprint.ParseThingGroupName(name)
		target.arn = tenant.ThingGroupARN(target.group)
	case "thingtype":
		target.kind, err = imprint.ParseThingTypeName(name)
		target.arn = tenant.ThingTypeARN(target.kind)
	case "billinggroup":
		target.billing, err = imprint.ParseBillingGroupName(name)
		target.arn = tenant.BillingGroupARN(target.billing)
	case "provisioningtemplate":
		target.template, err = imprint.ParseTemplateName(name)
		target.arn = tenant.TemplateARN(target.template)
	case "rule":
		target.rule, err = imprint.ParseRuleName(name)
		target.arn = tenant.RuleARN(target.rule)
	case "scheduledaudit":
		target.audit, target.arn = name, imprint.ScheduledAudit{Tenant: tenant, Name: name}.ARN()
	case "mitigationaction":
		target.action, target.arn = name, imprint.MitigationAction{Tenant: tenant, Name: name}.ARN()
	case "thing", "cert":
		return tagged{}, imprint.Errorf(imprint.CodeInvalidRequest, "things and device certificates can't have tags").
			WithHint("Policies, CA certificates, thing groups, thing types, billing groups, provisioning templates, topic rules, scheduled audits and mitigation actions can.")
	default:
		return tagged{}, notFound("Resource", imprint.Excerpt(resource))
	}
	return target, err
}

// taggedARN is what identity policies see as the resource of a tag operation:
// the ARN in its one form, or as it came when it has none.
func taggedARN(caller awsapi.Caller, arn string) string {
	target, err := parseTagged(tenantOf(caller), arn)
	if err != nil {
		return arn
	}
	_, resource, err := imprint.ParseARN(target.arn)
	if err != nil {
		return arn
	}
	return callerARN(caller, resource)
}

// callerARN names a resource of the caller's tenant for identity policies, with
// the partition of its region.
func callerARN(caller awsapi.Caller, resource string) string {
	return "arn:" + awsapi.Partition(caller.Region) + ":iot:" + caller.Region + ":" + caller.Account + ":" + resource
}

// exists gives CodeNotFound when there is no such resource.
func (r tagged) exists(tx imprint.ReadTx) error {
	switch {
	case r.policy != "":
		_, err := tx.Policy(r.tenant, r.policy)
		return explainNotFound(err, "Policy", string(r.policy))
	case r.ca != "":
		_, err := tx.CA(r.tenant, r.ca)
		return explainNotFound(err, "CA certificate", string(r.ca))
	case r.group != "":
		_, err := tx.ThingGroup(r.tenant, r.group)
		return explainNotFound(err, "Thing group", string(r.group))
	case r.kind != "":
		_, err := tx.ThingType(r.tenant, r.kind)
		return explainNotFound(err, "Thing type", string(r.kind))
	case r.billing != "":
		_, err := tx.BillingGroup(r.tenant, r.billing)
		return explainNotFound(err, "Billing group", string(r.billing))
	}
	if r.rule != "" {
		_, err := tx.TopicRule(r.tenant, r.rule)
		return explainNotFound(err, "Rule", string(r.rule))
	}
	if r.audit != "" {
		_, err := tx.ScheduledAudit(r.tenant, r.audit)
		return explainNotFound(err, "Scheduled audit", r.audit)
	}
	if r.action != "" {
		_, err := tx.MitigationAction(r.tenant, r.action)
		return explainNotFound(err, "Mitigation action", r.action)
	}
	_, err := tx.Template(r.tenant, r.template)
	return explainNotFound(err, "Provisioning template", string(r.template))
}

// setFirstConnection makes a CA follow its tag; other resources have no such
// setting. It is no change by the customer that customerVersion counts: AWS IoT
// Core doesn't count tags either.
func (r tagged) setFirstConnection(tx imprint.Tx, to imprint.FirstConnection) error {
	if r.ca == "" {
		return nil
	}
	ca, err := tx.CA(r.tenant, r.ca)
	if err != nil {
		return fmt.Errorf("couldn't read CA certificate %s: %w", r.ca, err)
	}
	if ca.FirstConnection == to {
		return nil
	}
	ca.FirstConnection = to
	err = tx.PutCA(ca)
	if err != nil {
		return fmt.Errorf("couldn't change CA certificate %s: %w", r.ca, err)
	}
	return nil
}
