package provisioning

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/template"
)

func encodeCSR(csr *x509.CertificateRequest) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw}))
}

// withoutRegistry says what only a server knows.
func (r *dryRun) withoutRegistry() {
	exist := func(what string, names ...string) {
		if len(names) > 0 && names[0] != "" {
			r.unchecked("whether %s %s exists", what, strings.Join(names, ", "))
		}
	}
	if p := r.Plan.Thing; p != nil {
		exist("thing type", p.ThingTypeName)
		exist("billing group", p.BillingGroup)
		exist("thing group", p.ThingGroups...)
		r.unchecked("what OverrideSettings do, if thing %s exists", p.ThingName)
	}
	var named []string
	for _, p := range r.Plan.Policies {
		if p.PolicyName != "" {
			named = append(named, p.PolicyName)
		}
	}
	exist("policy", named...)
	r.policyCount()
	if r.Template.Kind() == template.Fleet {
		r.unchecked("what a pre-provisioning hook answers, if the template has one: hooks aren't called")
	}
}

// policyCount refuses what attachPolicies would of a fresh certificate.
func (r *dryRun) policyCount() {
	distinct := map[string]bool{}
	for _, p := range r.Plan.Policies {
		distinct[p.PolicyName+p.GeneratedName] = true
	}
	if len(distinct) > imprint.MaxPoliciesPerCertificate {
		r.fail("policy", "Resources", imprint.Errorf(imprint.CodeLimitExceeded, "%d policies, a certificate may have %d", len(distinct), imprint.MaxPoliciesPerCertificate).
			WithHint("Put the statements of several policies into one."))
	}
}

// lookThrough is a transaction over a DryRunRegistry for those parts of an
// application that look things up. There is nothing behind its other methods.
type lookThrough struct {
	imprint.Tx
	ctx      context.Context
	registry DryRunRegistry
}

func (l lookThrough) ThingType(_ imprint.Tenant, name imprint.ThingTypeName) (imprint.ThingType, error) {
	return l.registry.ThingType(l.ctx, name)
}

func (l lookThrough) BillingGroup(_ imprint.Tenant, name imprint.BillingGroupName) (imprint.BillingGroup, error) {
	return l.registry.BillingGroup(l.ctx, name)
}

func (l lookThrough) ThingGroup(_ imprint.Tenant, name imprint.ThingGroupName) (imprint.ThingGroup, error) {
	return l.registry.ThingGroup(l.ctx, name)
}

func (l lookThrough) Policy(_ imprint.Tenant, name imprint.PolicyName) (imprint.Policy, error) {
	return l.registry.Policy(l.ctx, name)
}

// register looks up what the plan names. The errors of the flows are theirs;
// what is returned is that the registry couldn't be read.
func (r *dryRun) register(ctx context.Context) error {
	if r.Hook != "" {
		r.say(imprint.VerdictInfo, "claim.hook", "%s isn't called; give what it would put into parameterOverrides as parameters", r.Hook)
	}
	a := &application{
		tx: lookThrough{ctx: ctx, registry: r.Registry}, plan: r.Plan, now: r.Now, applied: &applied{},
		cert: imprint.Certificate{Tenant: r.Tenant, ID: r.id},
	}
	err := r.knownCertificate(ctx)
	if err == nil && r.Plan.Thing != nil {
		err = r.thing(ctx, a)
	}
	if err != nil {
		return err
	}
	r.policyCount()
	for _, p := range r.Plan.Policies {
		if p.PolicyDocument != "" {
			r.say(imprint.VerdictOK, "policy", "policy %s is made of the document of %s, unless it exists, and attached", p.GeneratedName, p.LogicalName)
			continue
		}
		_, err := a.findPolicy(p)
		err = r.found("policy", "Resources."+p.LogicalName+".Properties.PolicyName", err, "policy %s exists, and is attached", p.PolicyName)
		if err != nil {
			return err
		}
	}
	return nil
}

// found tells how a look-up ended. It returns errors that aren't a flow's
// refusal.
func (r *dryRun) found(name, member string, err error, format string, args ...any) error {
	switch imprint.CodeOf(err) {
	case "":
		r.say(imprint.VerdictOK, name, format, args...)
	case imprint.CodeInternal, imprint.CodeUnavailable, imprint.CodeAccessDenied, imprint.CodeUnauthorized, imprint.CodeThrottled:
		return err
	default:
		r.fail(name, member, err)
	}
	return nil
}

// knownCertificate tells what the server knows of the certificate.
func (r *dryRun) knownCertificate(ctx context.Context) error {
	id := r.id
	p := r.Plan.Certificate
	if r.Template.Kind() == template.Bulk {
		if p == nil || p.Source != template.SourceID {
			return nil
		}
		id = imprint.CertificateID(p.CertificateID)
	}
	if id == StandInID {
		return nil
	}
	cert, err := r.Registry.Certificate(ctx, id)
	missing := imprint.CodeOf(err) == imprint.CodeNotFound
	switch kind := r.Template.Kind(); {
	case err != nil && !missing:
		return fmt.Errorf("couldn't look for the certificate: %w", err)
	case missing && kind == template.Bulk:
		r.fail("register", "Resources."+p.LogicalName+".Properties.CertificateId", imprint.Errorf(imprint.CodeNotFound, "certificate %s, which the template names, doesn't exist", id))
	case missing && kind == template.JITP:
		r.say(imprint.VerdictOK, "register", "certificate %s isn't registered: it is at the device's first connection", id)
	case missing:
		r.say(VerdictWarning, "register", "certificate %s isn't registered: CreateKeysAndCertificate or CreateCertificateFromCsr must have given it to the device", id)
	case kind == template.Bulk:
		r.say(imprint.VerdictOK, "register", "certificate %s exists, and is %s", id, cert.Status)
	case cert.Status == imprint.CertificatePendingActivation:
		r.say(imprint.VerdictOK, "register", "certificate %s waits for activation", id)
	case cert.Status == imprint.CertificateActive && kind == template.JITP:
		r.say(VerdictWarning, "register", "certificate %s is registered and ACTIVE: the template isn't applied to it any more", id)
	default:
		r.fail("register", "", imprint.Errorf(imprint.CodeCertificateState, "certificate %s is %s: no template is applied to it any more", id, cert.Status))
	}
	return nil
}

// thing tells what becomes of the plan's thing.
func (r *dryRun) thing(ctx context.Context, a *application) error {
	plan := r.Plan.Thing
	member := "Resources." + plan.LogicalName
	name, err := imprint.ParseThingName(plan.ThingName)
	if err != nil {
		r.fail("thing", member+".Properties.ThingName", illegal("couldn't name the thing", err))
		return nil
	}
	a.thing = name
	before, err := r.Registry.Thing(ctx, name)
	a.existed = err == nil
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return fmt.Errorf("couldn't look for thing %s: %w", name, err)
	}
	if !a.existed {
		err = r.newThing(a, member)
	} else {
		err = r.oldThing(a, before, member)
	}
	if err != nil {
		return err
	}
	return r.groups(ctx, a, member)
}

func (r *dryRun) newThing(a *application, member string) error {
	plan, before := r.Plan.Thing, len(r.Steps)
	if plan.ThingTypeName != "" {
		_, err := a.findType(plan)
		err = r.found("thing", member+".Properties.ThingTypeName", err, "thing type %s exists", plan.ThingTypeName)
		if err != nil {
			return err
		}
	}
	if plan.BillingGroup != "" {
		_, err := a.findBillingGroup(plan)
		err = r.found("thing", member+".Properties.BillingGroup", err, "billing group %s exists", plan.BillingGroup)
		if err != nil {
			return err
		}
	}
	thing := imprint.Thing{Tenant: r.Tenant, Name: a.thing, TypeName: imprint.ThingTypeName(plan.ThingTypeName), Attributes: plan.Attributes}
	err := thing.CheckAttributes()
	if err != nil {
		r.fail("thing", member+".Properties.AttributePayload", illegal("couldn't create thing "+plan.ThingName, err))
		return nil
	}
	for _, s := range r.Steps[before:] {
		if s.Verdict == imprint.VerdictFailed {
			return nil
		}
	}
	r.say(imprint.VerdictOK, "thing", "thing %s is created", a.thing)
	return nil
}

// oldThing applies the template's OverrideSettings, as overrideThing does.
func (r *dryRun) oldThing(a *application, before imprint.Thing, member string) error {
	thing := before
	err := a.overrideType(&thing, r.Plan.Thing)
	if err != nil {
		return r.found("thing", member+".OverrideSettings.ThingTypeName", err, "")
	}
	err = a.overrideAttributes(&thing, r.Plan.Thing)
	if err == nil {
		err = thing.CheckAttributes()
		if err != nil {
			err = illegal("couldn't update thing "+string(thing.Name), err)
		}
	}
	if err != nil {
		return r.found("thing", member+".OverrideSettings.AttributePayload", err, "")
	}
	change := "left as it is"
	if thing.TypeName != before.TypeName || !maps.Equal(thing.Attributes, before.Attributes) {
		change = "updated"
	}
	r.say(imprint.VerdictInfo, "thing", "thing %s exists, and is %s; if it isn't this device's, the name isn't unique", a.thing, change)
	return nil
}

// groups tells which groups the thing comes into, as joinGroups does.
func (r *dryRun) groups(ctx context.Context, a *application, member string) error {
	plan := r.Plan.Thing
	if plan.ThingGroups == nil {
		return nil
	}
	if a.existed && plan.Overrides.ThingGroups == template.DoNothing {
		r.say(imprint.VerdictInfo, "thing.groups", "thing %s exists: its groups stay as they are", a.thing)
		return nil
	}
	if a.existed && plan.Overrides.ThingGroups == template.Fail {
		r.fail("thing.groups", member+".OverrideSettings.ThingGroups", conflict(a.thing, "ThingGroups", "REPLACE, MERGE or DO_NOTHING"))
		return nil
	}
	var present []imprint.ThingGroup
	if a.existed {
		names, err := r.Registry.ThingGroupsOf(ctx, a.thing)
		if err != nil {
			return fmt.Errorf("couldn't read the groups of thing %s: %w", a.thing, err)
		}
		for _, name := range names {
			if plan.Overrides.ThingGroups == template.Replace && !slices.Contains(plan.ThingGroups, string(name)) {
				continue
			}
			group, err := r.Registry.ThingGroup(ctx, name)
			if err != nil {
				return fmt.Errorf("couldn't read thing group %s: %w", name, err)
			}
			present = append(present, group)
		}
	}
	for n, text := range plan.ThingGroups {
		at := fmt.Sprintf("%s.Properties.ThingGroups[%d]", member, n)
		group, err := a.findGroup(text)
		if err == nil && !holdsGroup(present, group.Name) {
			err = group.CheckJoin(a.thing, present)
			if err != nil {
				err = illegal("couldn't put the thing into its groups", err)
			}
		}
		err = r.found("thing.groups", at, err, "thing %s comes into group %s", a.thing, text)
		if err != nil {
			return err
		}
		present = append(present, group)
	}
	return nil
}
