package access

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

// Keys lists the condition keys, which are also the policy variables, that an
// identity policy can have. Case means nothing.
func Keys() []string {
	return []string{
		"aws:SourceIp", "aws:RequestedRegion", "aws:username", "aws:PrincipalArn", "aws:PrincipalAccount",
		"aws:CurrentTime", "aws:EpochTime", "aws:SecureTransport",
		"iot:ClientId", "iot:ConnectAttributes", "iot:LastWillTopic", "iot:DomainName",
		"acm-pca:TemplateArn",
	}
}

func knownKey(name string) bool {
	return slices.ContainsFunc(Keys(), func(known string) bool { return strings.EqualFold(known, name) })
}

// services are the prefixes of the actions that are decided here.
var services = []string{"iot", "lambda", "acm-pca", "imprint"}

// ParsePolicy checks an identity policy. Errors: CodeMalformedPolicy.
func ParsePolicy(text string) (*policy.Document, error) {
	document, err := parse(text)
	if err != nil {
		return nil, err
	}
	for n, statement := range document.Statements() {
		err = checkStatement(document, statement)
		if err != nil {
			return nil, fmt.Errorf("couldn't take statement %d: %w", n, err)
		}
	}
	return document, nil
}

func parse(text string) (*policy.Document, error) {
	document, err := policy.ParseWith([]byte(text), policy.ParseOptions{MaxCharacters: imprint.MaxUserPolicy})
	if err == nil {
		return document, nil
	}
	refusal := imprint.Errorf(imprint.CodeMalformedPolicy, "the policy document isn't valid: %w", err)
	var syntax *policy.SyntaxError
	if errors.As(err, &syntax) && syntax.Hint != "" {
		refusal.Hint = syntax.Hint
	}
	return nil, refusal
}

func checkStatement(document *policy.Document, s policy.Statement) error {
	for _, action := range s.Actions {
		err := checkAction(action)
		if err != nil {
			return err
		}
	}
	for _, condition := range s.Conditions {
		if !knownKey(condition.Key) {
			return imprint.Errorf(imprint.CodeMalformedPolicy, "no request has a value for the condition key %s", imprint.Excerpt(condition.Key)).
				WithHint("Keys of identity policies: %s.", strings.Join(Keys(), ", "))
		}
	}
	if document.Version() != policy.Version2012 {
		return nil // no variables
	}
	texts := slices.Clone(s.Resources)
	for _, condition := range s.Conditions {
		texts = append(texts, condition.Values...)
	}
	for _, text := range texts {
		for _, found := range variable.FindAllStringSubmatch(text, -1) {
			name := strings.TrimSpace(found[1])
			if !slices.Contains([]string{"*", "?", "$"}, name) && !knownKey(name) {
				return imprint.Errorf(imprint.CodeMalformedPolicy, "no request has a value for the policy variable ${%s}", imprint.Excerpt(name)).
					WithHint("Variables of identity policies: %s.", strings.Join(Keys(), ", "))
			}
		}
	}
	return nil
}

// variable is ${name} or ${name, 'default'}.
var variable = regexp.MustCompile(`\$\{([^},]*)`)

// checkAction refuses actions of services that aren't here: a statement about
// them would look as if it did something.
func checkAction(action string) error {
	service, _, _ := strings.Cut(action, ":")
	if strings.ContainsAny(service, "*?") {
		return nil
	}
	if !slices.Contains(services, strings.ToLower(service)) {
		return imprint.Errorf(imprint.CodeMalformedPolicy, "no operation here has the action %s", imprint.Excerpt(action)).
			WithHint("Actions begin with %s:.", strings.Join(services, ":, "))
	}
	return nil
}
