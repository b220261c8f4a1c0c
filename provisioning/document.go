package provisioning

import (
	"errors"
	"sync"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/policy"
	"github.com/imprint-iot/imprint/template"
)

// maxDocuments bounds the policy documents that are known to be valid or not.
const maxDocuments = 1024

// documents remembers which policy documents of templates are policies, by
// their generated names, so that one document is parsed once and not for each
// device. An account has its own: a template whose documents differ from device to
// device takes nobody else's room.
type documents struct {
	mu    sync.RWMutex
	known *fair.Memory[string, error]
}

// check refuses a plan with a document that isn't a valid policy. Errors:
// CodeTemplateValue.
func (d *documents) check(account imprint.AccountID, plan *template.Plan) error {
	for n := range plan.Policies {
		p := &plan.Policies[n]
		if p.PolicyDocument == "" {
			continue
		}
		err := d.verdict(account, p)
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *documents) verdict(account imprint.AccountID, p *template.PolicyPlan) error {
	d.mu.RLock()
	err, known := d.known.Known(account, p.GeneratedName)
	d.mu.RUnlock()
	if known {
		return err
	}
	err = checkDocument(p)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known.Keep(account, p.GeneratedName, err)
	return err
}

// checkDocument refuses a document that isn't a valid policy. Errors: CodeTemplateValue.
func checkDocument(p *template.PolicyPlan) error {
	_, err := policy.Parse([]byte(p.PolicyDocument))
	if err == nil {
		return nil
	}
	hint := ""
	var syntax *policy.SyntaxError
	if errors.As(err, &syntax) {
		// The hint stands once, and not in the error's words.
		hint = syntax.Hint
		bare := *syntax
		bare.Hint = ""
		err = &bare
	}
	refusal := imprint.Errorf(imprint.CodeTemplateValue, "the PolicyDocument of resource %s isn't a policy: %w", p.LogicalName, err)
	if hint != "" {
		refusal.Hint = hint
	}
	return refusal
}
