package provisioning

import (
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
)

// principal is what the registry holds of the certificate after run, as Tx.Principal
// gives it, so that nobody needs to read it: all of it went through a's hands when it
// made the thing and knows that nothing else is attached. Otherwise it is nil.
func (a *application) principal() *imprint.Principal {
	if a.made == nil || !a.alone || a.attached == nil {
		return nil
	}
	cert := a.applied.cert
	cert.PEM, cert.Serial, cert.Subject, cert.GenerationID, cert.Attempt = "", "", "", "", ""
	for _, t := range []*time.Time{&cert.NotBefore, &cert.NotAfter, &cert.CreatedAt, &cert.ModifiedAt} {
		*t = asStored(*t)
	}
	thing := *a.made
	thing.CreatedAt, thing.ModifiedAt = asStored(thing.CreatedAt), asStored(thing.ModifiedAt)
	if len(thing.Attributes) == 0 {
		thing.Attributes = nil
	}
	policies, groups := slices.Clone(*a.attached), slices.Clone(a.groups)
	slices.Sort(policies)
	slices.Sort(groups)
	groups = slices.Compact(groups) // a template may name one twice
	return &imprint.Principal{
		Certificate: cert, Policies: policies,
		Things: []imprint.PrincipalThing{{
			Attachment: imprint.ThingAttachment{
				Tenant: cert.Tenant, Thing: thing.Name, Certificate: cert.ID, Exclusive: a.exclusive,
			},
			Thing: &thing, Groups: groups,
		}},
	}
}

// asStored cuts a time as the registry does.
func asStored(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()).UTC() }
