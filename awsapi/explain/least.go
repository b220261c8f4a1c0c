package explain

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi/attempts"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/policy"
)

// maxAttempts is how many of the newest attempts the least policy is made of.
const maxAttempts = 250

// Least is what LeastPolicy gives. Policies are whole documents: several where one
// would have more than 2048 characters.
type Least struct {
	Attempts int               `json:"attempts"` // that were looked at
	Uses     []Used            `json:"uses"`
	Policies []json.RawMessage `json:"policies"`
	Notes    []string          `json:"notes,omitempty"`
}

// Used is something that a device did or tried, and whether its present policies
// allow it.
type Used struct {
	Action   string `json:"action"`
	Resource string `json:"resource"`
	ClientID string `json:"clientId,omitempty"`
	Allowed  bool   `json:"allowed"`
	// LeftOut says that the policies don't allow it: it was denied each time, and would
	// be now.
	LeftOut bool `json:"leftOut,omitempty"`
}

// deviceKey is a connection whose values are known.
type deviceKey struct {
	certificate imprint.CertificateID
	client      imprint.ClientID
}

type device struct {
	set  *policy.Set
	vars *policy.Variables
}

func (e Explainer) least(ctx context.Context, tenant imprint.Tenant, in *LeastInput) (*Least, error) {
	err := e.Flush(ctx)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeUnavailable, "couldn't write what is still on its way to the trace: %w", err)
	}
	filter := imprint.AttemptFilter{Tenant: tenant}
	if in.Since != nil {
		filter.Since = *in.Since
	}
	var found []imprint.Attempt
	next := ""
	err = e.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		found, next, err = attempts.Find(tx, filter, imprint.Page{Limit: maxAttempts}, in.Match)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &Least{Attempts: len(found), Uses: []Used{}, Policies: []json.RawMessage{}}
	if next != "" {
		out.Notes = append(out.Notes, fmt.Sprintf("There are more attempts than the newest %d, which this is made of.", maxAttempts))
	}
	uses, err := e.uses(ctx, found, in.Denied != nil && *in.Denied, out)
	if err != nil {
		return nil, err
	}
	if len(uses) == 0 && len(out.Uses) > 0 {
		return nil, imprint.Errorf(imprint.CodeNotFound, "All %d requests of %s were denied, and would be now.", len(out.Uses), imprint.Excerpt(in.Match)).
			WithHint("If they aren't mistakes, take them in: imprint policy least --denied; `imprint explain` shows them.")
	}
	if len(uses) == 0 {
		return nil, imprint.Errorf(imprint.CodeNotFound, "No decision of a policy is recorded for %s.", imprint.Excerpt(in.Match)).
			WithHint("Let the device connect, publish and subscribe once, refused or not, and disconnect; `imprint explain` shows its attempts.")
	}
	documents, err := policy.Least(uses)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInternal, "%w", err)
	}
	for _, text := range documents {
		out.Policies = append(out.Policies, json.RawMessage(text))
	}
	return out, nil
}

// uses takes what policies were asked out of attempts, each once. What was denied each
// time, and would be now, is left out unless denied is set: it may be a mistake of the
// device's, which no policy should allow.
func (e Explainer) uses(ctx context.Context, found []imprint.Attempt, denied bool, out *Least) ([]policy.Use, error) {
	devices := map[deviceKey]*device{}
	seen := map[Used]bool{}
	granted := map[Used]bool{}
	for n := range found {
		for _, asked := range askedIn(&found[n]) {
			granted[asked.Used] = granted[asked.Used] || asked.granted
		}
	}
	var uses []policy.Use
	on := 0
	// Oldest first, as it happened.
	for n := len(found) - 1; n >= 0; n-- {
		a := &found[n]
		if a.Outcome == imprint.OutcomeConnected {
			on++
		}
		for _, one := range askedIn(a) {
			asked := one.Used
			if seen[asked] {
				continue
			}
			seen[asked] = true
			d, err := e.device(ctx, a, devices)
			if err != nil {
				return nil, err
			}
			use := policy.Use{Action: policy.Action(asked.Action), Resource: asked.Resource, Vars: d.vars}
			once := granted[asked]
			if d.set != nil {
				asked.Allowed = d.set.Decide(&policy.Request{Action: use.Action, ResourceName: use.Resource, Vars: d.vars, Now: e.Clock()}) == policy.Allowed
			}
			asked.LeftOut = !denied && !once && !asked.Allowed
			if !asked.LeftOut {
				uses = append(uses, use)
			}
			out.Uses = append(out.Uses, asked)
		}
	}
	if on > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("%d of the connections are still on: what they were allowed is known when they end.", on))
	}
	return uses, nil
}

// request is what a policy was asked in an attempt, and how it answered.
type request struct {
	Used
	granted bool
}

// askedIn lists what policies were asked in an attempt. That a CONNECT was allowed
// is a step without its resource, which the client id tells.
func askedIn(a *imprint.Attempt) []request {
	var all []request
	for _, s := range a.Steps {
		used := Used{Action: s.Action, Resource: s.Resource, ClientID: string(a.ClientID)}
		switch {
		case s.Action != "":
		case s.Name == "policy.connect":
			used.Action, used.Resource = string(policy.Connect), a.Tenant.ARN("client/"+string(a.ClientID))
		default:
			continue
		}
		all = append(all, request{used, s.Verdict != imprint.VerdictFailed})
	}
	return all
}

// device gives policies and values of an attempt's connection as they are now. A
// certificate that is gone leaves the client id alone.
func (e Explainer) device(ctx context.Context, a *imprint.Attempt, known map[deviceKey]*device) (*device, error) {
	key := deviceKey{a.CertificateID, a.ClientID}
	if d := known[key]; d != nil {
		return d, nil
	}
	connection := identity.Connection{ClientID: a.ClientID, NoConnection: a.ClientID == ""}
	who, err := e.Identities.Acquire(ctx, a.Tenant, a.CertificateID)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		known[key] = &device{vars: (&identity.Identity{}).Variables(connection)}
		return known[key], nil
	case err != nil:
		return nil, err
	}
	defer e.Identities.Release(who)
	connection.Certificate, err = e.values(ctx, a.Tenant, a.CertificateID)
	if err != nil {
		return nil, err
	}
	known[key] = &device{set: who.PoliciesFor(a.ClientID), vars: who.Variables(connection)}
	return known[key], nil
}
