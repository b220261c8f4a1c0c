package provisioning

import (
	"slices"

	"github.com/imprint-iot/imprint"
)

// basis is what a decision was made on: templates of a tenant, and its CAs where it looked
// for one, as they were after a number of the tenant's changes. What others change, or other
// templates, is nothing to it.
type basis struct {
	tenant    imprint.Tenant
	after     uint64
	cas       bool
	templates []imprint.TemplateName
}

// changes are when a tenant's CAs and templates were changed, each by the number of its last
// change among all of the tenant's.
type changes struct {
	count     uint64
	cas       uint64
	templates map[imprint.TemplateName]uint64
	forgotten uint64 // no template that isn't in templates was changed after it
}

// maxChangedTemplates bounds the templates whose last change is known; at the bound all of
// the tenant's count as changed.
const maxChangedTemplates = 1024

func (c *changes) note(change imprint.Change) {
	c.count++
	if change.Kind == imprint.ChangeCA {
		c.cas = c.count
		return
	}
	if len(c.templates) >= maxChangedTemplates {
		clear(c.templates)
		c.forgotten = c.count
	}
	c.templates[imprint.TemplateName(change.Key)] = c.count
}

func (e *Engine) committed(list []imprint.Change) {
	relevant := func(c imprint.Change) bool { return c.Kind == imprint.ChangeCA || c.Kind == imprint.ChangeTemplate }
	if !slices.ContainsFunc(list, relevant) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range list {
		if !relevant(c) {
			continue
		}
		of := e.changed[c.Tenant]
		if of == nil {
			of = &changes{templates: map[imprint.TemplateName]uint64{}}
			e.changed[c.Tenant] = of
		}
		of.note(c)
	}
}

// basisOf is the basis of what is read of a tenant from now on.
func (e *Engine) basisOf(tenant imprint.Tenant) basis {
	e.mu.RLock()
	defer e.mu.RUnlock()
	b := basis{tenant: tenant}
	if c := e.changed[tenant]; c != nil {
		b.after = c.count
	}
	return b
}

// moved says whether what a decision was made on was changed since. In a transaction it
// knows of every commit that came before.
func (e *Engine) moved(b basis) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	c := e.changed[b.tenant]
	if c == nil || c.count == b.after {
		return false
	}
	if b.cas && c.cas > b.after {
		return true
	}
	for _, name := range b.templates {
		if max(c.templates[name], c.forgotten) > b.after {
			return true
		}
	}
	return false
}
