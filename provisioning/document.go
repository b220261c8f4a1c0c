package provisioning

import (
	"errors"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/template"
)

// maxDocuments bounds the policy documents that are known to be valid or not;
// at the bound the cache begins anew.
const maxDocuments = 1024

// documents remembers which policy documents of templates are policies, by
// their generated names, so that one document is parsed once and not for each
// device.
type documents struct {
	mu    sync.RWMutex
	known map[string]error
}

// check refuses a plan with a document that isn't a valid policy. Errors:
// CodeTemplateValue.
func (d *documents) check(plan *template.Plan) error {
	for n := range plan.Policies {
		p := &plan.Policies[n]
		if p.PolicyDocument == "" {
			continue
		}
		err := d.verdict(p)
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *documents) verdict(p *template.PolicyPlan) error {
	d.mu.RLock()
	err, known := d.known[p.GeneratedName]
	d.mu.RUnlock()
	if known {
		return err
	}
	_, err = policy.Parse([]byte(p.PolicyDocument))
	if err != nil {
		refusal := imprint.Errorf(imprint.CodeTemplateValue, "the PolicyDocument of resource %s isn't a policy: %w", p.LogicalName, err)
		var syntax *policy.SyntaxError
		if errors.As(err, &syntax) && syntax.Hint != "" {
			refusal.Hint = syntax.Hint
		}
		err = refusal
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.known) >= maxDocuments {
		clear(d.known)
	}
	d.known[p.GeneratedName] = err
	return err
}
