package main

import (
	"bytes"
	"fmt"
	"strings"
)

// actions are the operations whose IAM action has another name (AWS service
// authorization reference, "AWS IoT").
var actions = map[string]string{
	"ListThingPrincipalsV2": "ListThingPrincipals",
	"ListPrincipalThingsV2": "ListPrincipalThings",
}

// resources gives the ARN suffix of the resource that a path label names.
var resources = []struct{ label, suffix string }{
	{"certificateId", "cert/{certificateId}"},
	{"caCertificateId", "cacert/{caCertificateId}"},
	{"certificateProviderName", "certificateprovider/{certificateProviderName}"},
	{"thingName", "thing/{thingName}"},
	{"thingTypeName", "thingtype/{thingTypeName}"},
	{"thingGroupName", "thinggroup/{thingGroupName}"},
	{"billingGroupName", "billinggroup/{billingGroupName}"},
	{"policyName", "policy/{policyName}"},
	{"templateName", "provisioningtemplate/{templateName}"},
	{"roleAlias", "rolealias/{roleAlias}"},
	{"ruleName", "rule/{ruleName}"},
	{"indexName", "index/{indexName}"},
	{"scheduledAuditName", "scheduledaudit/{scheduledAuditName}"},
	{"actionName", "mitigationaction/{actionName}"},
	{"domainConfigurationName", "domainconfiguration/{domainConfigurationName}"},
}

func resourceOf(op operation) string {
	for _, label := range []string{"{target}", "{arn+}"} {
		if strings.Contains(op.URI, label) {
			return "{" + strings.Trim(label, "{+}") + "}"
		}
	}
	for _, r := range resources {
		if strings.Contains(op.URI, "{"+r.label+"}") {
			return "arn:{partition}:iot:{region}:{account}:" + r.suffix
		}
	}
	return "*"
}

func writeOperations(b *bytes.Buffer, m *model) error {
	b.WriteString("// The operations of the API.\nvar (\n")
	for _, op := range m.Operations {
		action := op.name
		if other, ok := actions[op.name]; ok {
			action = other
		}
		fmt.Fprintf(b, "// %s is %s %s.\n", op.name, op.Method, op.URI)
		if op.Deprecated {
			b.WriteString("// AWS marks it as deprecated.\n")
		}
		fmt.Fprintf(b, "%s = awsapi.Define[%sInput, %sOutput](codec, awsapi.Operation{Name: %q, Method: %q, Path: %q, Action: %q, Resource: %q",
			op.name, op.name, op.name, op.name, op.Method, op.URI, "iot:"+action, resourceOf(op))
		if op.Deprecated {
			b.WriteString(", Deprecated: true")
		}
		b.WriteString("})\n")
	}
	b.WriteString(")\n\n// Operations lists every operation of the API, offered or not.\nfunc Operations() []awsapi.Operation {\nreturn []awsapi.Operation{\n")
	for _, op := range m.Operations {
		fmt.Fprintf(b, "%s.Operation,\n", op.name)
	}
	b.WriteString("}\n}\n")
	return nil
}

// everything is a pattern that any value matches; it is left out.
const everything = `[\s\S]*`

// rewrites give the patterns that Go's regexp syntax lacks. \p{Graph} is the
// visible ASCII characters in the syntax of the model (java.util.regex).
var rewrites = map[string]string{
	`[\p{Graph}\x20]*`: `[[:graph:]\x20]*`,
}

func writeConstraints(b *bytes.Buffer, m *model) error {
	b.WriteString("// constraints are the rows of the model that constrain values.\nvar constraints = restjson.Shapes{\n")
	for _, s := range m.Shapes {
		row, err := constraintRow(s)
		if err != nil {
			return err
		}
		if row != "" {
			fmt.Fprintf(b, "%q: {%s},\n", s.name, row)
		}
	}
	b.WriteString("}\n")
	return nil
}

func constraintRow(s shape) (string, error) {
	var parts []string
	bounded := s.Min != nil || s.Max != nil
	switch s.Type {
	case "string", "list", "integer", "long":
	default:
		if bounded || s.Pattern != "" {
			return "", fmt.Errorf("shape %s: constraints of a %s aren't understood", s.name, s.Type)
		}
	}
	switch {
	case s.Min != nil && s.Max != nil:
		parts = append(parts, fmt.Sprintf("Limits: restjson.Between(%d, %d)", *s.Min, *s.Max))
	case s.Min != nil:
		parts = append(parts, fmt.Sprintf("Limits: restjson.AtLeast(%d)", *s.Min))
	case s.Max != nil:
		parts = append(parts, fmt.Sprintf("Limits: restjson.AtMost(%d)", *s.Max))
	}
	if s.Pattern != "" && s.Pattern != everything {
		parts = append(parts, "Pattern: "+quote(s.Pattern))
		if re2, ok := rewrites[s.Pattern]; ok {
			parts = append(parts, "RE2: "+quote(re2))
		}
	}
	if len(s.Enum) > 0 {
		parts = append(parts, fmt.Sprintf("Enum: %#v", s.Enum))
	}
	for _, inner := range []struct{ field, name string }{{"Member", s.Member}, {"Key", s.Key}, {"Value", s.Value}} {
		if inner.name != "" {
			parts = append(parts, fmt.Sprintf("%s: %q", inner.field, inner.name))
		}
	}
	if s.Sensitive {
		parts = append(parts, "Sensitive: true")
	}
	return strings.Join(parts, ", "), nil
}

func quote(s string) string {
	if strings.Contains(s, "`") {
		return fmt.Sprintf("%q", s)
	}
	return "`" + s + "`"
}
