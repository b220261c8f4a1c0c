package provisioning

import (
	"slices"

	"github.com/imprint-iot/imprint"
)

// basis is what a decision was made on: templates of a tenant, and its CAs where it looked
// for one, as they were after a number of its account's changes. What others change, or other
// templates, is nothing to it.
type basis struct {
	tenant    imprint.Tenant
	after     uint64
	cas       bool
	templates []imprint.TemplateName
}

// changes are when an account's CAs and templates were changed, each by the number of its
// last change among all of the account's.
type changes struct {
	count     uint64
	last      map[changeable]uint64
	forgotten uint64 // nothing that isn't in last was changed after it
}

// changeable is a template, or the CAs of a region, which have no name.
type changeable struct {
	region imprint.Region
	name   imprint.TemplateName
}

// maxChanged bounds what of an account is known to have changed; at the bound what was
// changed longest ago is forgotten, and what was read before that is read anew.
const maxChanged = 1024

func (c *changes) note(what changeable) {
	c.count++
	_, known := c.last[what]
	if !known && len(c.last) >= maxChanged {
		var oldest changeable
		c.forgotten = c.count
		for one, at := range c.last {
			if at < c.forgotten {
				oldest, c.forgotten = one, at
			}
		}
		delete(c.last, oldest)
	}
	c.last[what] = c.count
}

// after says whether something may have been changed after a number of changes.
func (c *changes) after(what changeable, count uint64) bool {
	return max(c.last[what], c.forgotten) > count
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
		of := e.changed[c.Tenant.Account]
		if of == nil {
			of = &changes{last: map[changeable]uint64{}}
			e.changed[c.Tenant.Account] = of
		}
		what := changeable{region: c.Tenant.Region}
		if c.Kind == imprint.ChangeTemplate {
			what.name = imprint.TemplateName(c.Key)
		}
		of.note(what)
	}
}

// basisOf is the basis of what is read of a tenant from now on.
func (e *Engine) basisOf(tenant imprint.Tenant) basis {
	e.mu.RLock()
	defer e.mu.RUnlock()
	b := basis{tenant: tenant}
	if c := e.changed[tenant.Account]; c != nil {
		b.after = c.count
	}
	return b
}

// moved says whether what a decision was made on was changed since. In a transaction it
// knows of every commit that came before.
func (e *Engine) moved(b basis) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	c := e.changed[b.tenant.Account]
	if c == nil || c.count == b.after {
		return false
	}
	if b.cas && c.after(changeable{region: b.tenant.Region}, b.after) {
		return true
	}
	for _, name := range b.templates {
		if c.after(changeable{b.tenant.Region, name}, b.after) {
			return true
		}
	}
	return false
}
