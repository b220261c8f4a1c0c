package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/client"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/template"
)

// maxNamedPolicies bounds the policies of other names that are looked at: a
// parameter can name another one for each device of an input.
const maxNamedPolicies = 100

// namedPolicies are the policies whose documents the template doesn't have, each once.
type namedPolicies struct {
	all  []template.NamedPolicy
	seen map[template.NamedPolicy]bool
	more bool // there are more than are looked at
}

func (n *namedPolicies) add(p template.NamedPolicy) {
	switch {
	case n.seen[p]:
	case len(n.all) == maxNamedPolicies:
		n.more = true
	default:
		if n.seen == nil {
			n.seen = map[template.NamedPolicy]bool{}
		}
		n.seen[p] = true
		n.all = append(n.all, p)
	}
}

// addPlanned takes those of a device.
func (n *namedPolicies) addPlanned(plan *template.Plan) {
	if plan == nil {
		return
	}
	for _, p := range plan.Policies {
		if p.PolicyName != "" {
			n.add(template.NamedPolicy{LogicalName: p.LogicalName, Name: p.PolicyName})
		}
	}
}

// policyFiles reads the files of --policy NAME=FILE.
func (f *templateFlags) policyFiles() (map[string]string, error) {
	files := map[string]string{}
	for _, assignment := range f.policies {
		name, path, found := strings.Cut(assignment, "=")
		if !found || name == "" || path == "" {
			return nil, usageError{fmt.Errorf("--policy is %q, not NAME=FILE", assignment)}
		}
		text, err := readSmallFile(path, maxPolicyFile)
		if err != nil {
			return nil, err
		}
		files[name] = string(text)
	}
	return files, nil
}

// lintPolicies looks at the policies that the template only names: in the files of
// --policy, then on the server.
func (f *templateFlags) lintPolicies(ctx context.Context, s *templateSubject, t *template.Template, named *namedPolicies, r *testReport) error {
	files, err := f.policyFiles()
	if err != nil {
		return err
	}
	registry, connected := s.run.Registry.(templateRegistry)
	for _, p := range named.all {
		document, given := files[p.Name]
		switch {
		case p.Name == "":
			r.unchecked("whether the policy of Resources.%s, whose name depends on parameters, is too wide: imprint template test with parameters tells", p.LogicalName)
			continue
		case given:
		case !connected:
			r.unchecked("whether policy %s is too wide: its document isn't in the template. Give it by --policy %s=FILE, or use --server", p.Name, p.Name)
			continue
		default:
			document, err = registry.policyDocument(ctx, imprint.PolicyName(p.Name))
			var refusal *client.Error
			switch {
			case imprint.CodeOf(err) == imprint.CodeNotFound:
				r.unchecked("whether policy %s is too wide: it doesn't exist", p.Name)
				continue
			case errors.As(err, &refusal) && refusal.Status == http.StatusForbidden:
				r.unchecked("whether policy %s is too wide: the access key may not read it (iot:GetPolicy)", p.Name)
				continue
			case err != nil:
				return fmt.Errorf("couldn't read policy %s: %w", p.Name, err)
			}
		}
		r.addFindings(provisioning.LintNamedPolicy(t, p.LogicalName, p.Name, document))
	}
	if named.more {
		r.unchecked("policies after the first %d", maxNamedPolicies)
	}
	return nil
}
