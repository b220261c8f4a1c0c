package iot

import (
	"errors"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/template"
)

// parseRegistrationConfig checks what can be checked of a registrationConfig
// without the store: it names a template body with a role, or the name of a
// template, and not both. Absent gives nil: auto-registration is then JITR.
// Errors: CodeInvalidRequest. Source: AWS IoT API reference,
// RegistrationConfig; developer guide, "Just-in-time provisioning".
func parseRegistrationConfig(in *RegistrationConfig) (*imprint.RegistrationConfig, error) {
	if in == nil {
		return nil, nil
	}
	config := &imprint.RegistrationConfig{TemplateBody: text(in.TemplateBody), RoleARN: text(in.RoleArn)}
	if config.RoleARN != "" && !isRoleARN(config.RoleARN) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "registrationConfig.roleArn %q isn't the ARN of a role", imprint.Excerpt(config.RoleARN)).
			WithHint("It has the form arn:aws:iam::123456789012:role/NAME.")
	}
	switch {
	case in.TemplateName != nil && config.TemplateBody != "":
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "registrationConfig has both templateBody and templateName").
			WithHint("Send one of them.")
	case in.TemplateName != nil:
		name, err := imprint.ParseTemplateName(*in.TemplateName)
		config.TemplateName = name
		return config, err
	case config.TemplateBody == "":
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "registrationConfig has neither templateBody nor templateName").
			WithHint("Send templateBody with roleArn, or templateName; leave registrationConfig out for registration without a template.")
	case config.RoleARN == "":
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "registrationConfig has a templateBody without roleArn")
	}
	return config, checkTemplateBody(config.TemplateBody)
}

// checkTemplateBody says where a body isn't a JITP template.
func checkTemplateBody(body string) error {
	_, err := template.Parse([]byte(body), template.JITP)
	if err == nil {
		return nil
	}
	refusal := imprint.Errorf(imprint.CodeInvalidRequest, "registrationConfig.templateBody isn't a JITP template: %w", err)
	var fault *template.Error
	if errors.As(err, &fault) && fault.Hint != "" {
		return refusal.WithHint("%s", fault.Hint)
	}
	return refusal
}

// checkTemplateName says whether the template that a config names can provision
// devices of a CA. Errors: CodeNotFound, CodeInvalidRequest for another type.
func checkTemplateName(tx imprint.ReadTx, tenant imprint.Tenant, config *imprint.RegistrationConfig) error {
	if config == nil || config.TemplateName == "" {
		return nil
	}
	found, err := tx.Template(tenant, config.TemplateName)
	if err != nil {
		return explainNotFound(err, "Provisioning template", string(config.TemplateName))
	}
	if found.Type != imprint.TemplateJITP {
		return imprint.Errorf(imprint.CodeInvalidRequest, "provisioning template %s is of type %s, a CA needs one of type %s",
			found.Name, found.Type, imprint.TemplateJITP).
			WithHint("Make it with: aws iot create-provisioning-template --type JITP")
	}
	return nil
}

// describeRegistrationConfig gives a stored config its form in a response.
func describeRegistrationConfig(config *imprint.RegistrationConfig) *RegistrationConfig {
	if config == nil {
		return nil
	}
	optional := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	return &RegistrationConfig{TemplateBody: optional(config.TemplateBody), RoleArn: optional(config.RoleARN),
		TemplateName: optional(string(config.TemplateName))}
}

// isRoleARN says whether s has the form of an IAM role's ARN; Imprint has no
// roles that it could look up.
func isRoleARN(s string) bool {
	parts := strings.SplitN(s, ":", 6)
	return len(parts) == 6 && parts[0] == "arn" && parts[2] == "iam" && strings.HasPrefix(parts[5], "role/") && parts[5] != "role/"
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func sameConfig(a, b *imprint.RegistrationConfig) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
