package provisioning

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/announced"
	"github.com/imprint-iot/imprint/template"
)

// applied is what a plan made of the registry.
type applied struct {
	// stage is the step that is under way, or that failed.
	stage string
	// raced says that another connection of the device was quicker.
	raced    bool
	thing    imprint.ThingName
	change   string // what became of the thing
	kind     imprint.ThingTypeName
	billing  imprint.BillingGroupName
	groups   []imprint.ThingGroupName
	policies []imprint.PolicyName
	cert     imprint.Certificate // as it is at the end
}

// application writes one plan into one transaction.
type application struct {
	tx   imprint.Tx
	cert imprint.Certificate
	// fresh says that the certificate has no row yet: nothing is attached to
	// it, as certificates are only deleted when nothing is.
	fresh bool
	// existed says that the plan's thing was there before.
	existed bool
	made    *imprint.Thing // of the plan, as it was stored; nil: it was there before, or the plan has none
	// attached are all policies of the certificate, once they are known.
	attached  *[]imprint.PolicyName
	alone     bool // the certificate belongs to no thing but the plan's
	exclusive bool // to which it belongs alone
	plan      *template.Plan
	now       time.Time
	// registry changes things and their memberships. It is made by run.
	registry *announced.Registry
	*applied
}

// run writes the plan's resources: thing, groups, policies, attachments, and last the
// certificate with its status. It is the one place where templates become rows.
func (a *application) run() error {
	a.applied.cert = a.cert
	a.registry = announced.In(a.tx, a.cert.Tenant, a.now)
	a.stage = "thing"
	if a.plan.Thing != nil {
		err := a.putThing(a.plan.Thing)
		if err != nil {
			return err
		}
		a.stage = "thing.groups"
		err = a.joinGroups(a.plan.Thing)
		if err != nil {
			return err
		}
	}
	a.stage = "policy"
	err := a.attachPolicies()
	if err != nil {
		return err
	}
	a.stage = "thing.attach"
	if a.plan.Thing != nil && a.plan.Certificate != nil {
		err = a.attachThing(a.plan.Certificate.ThingPrincipalType == template.ExclusiveThing)
		if err != nil {
			return err
		}
	}
	a.stage = "activate"
	if a.cert.ID == "" {
		return nil // the template is about a thing alone
	}
	return a.putCertificate()
}

// illegal gives a value that the registry refuses the code that templates have
// for it.
func illegal(what string, err error) error {
	refusal := &imprint.Error{Code: imprint.CodeTemplateValue, Op: what, Err: err}
	var cause *imprint.Error
	if errors.As(err, &cause) {
		refusal.Hint = cause.Hint
	}
	return refusal
}

// attachPolicies finds or makes the plan's policies and attaches those that
// aren't attached yet.
func (a *application) attachPolicies() error {
	if len(a.plan.Policies) == 0 {
		if a.fresh {
			a.attached = new([]imprint.PolicyName)
		}
		return nil
	}
	target := a.cert.ARN()
	attached, err := a.attachedPolicies(target)
	if err != nil {
		return err
	}
	for _, p := range a.plan.Policies {
		name, err := a.findPolicy(p)
		if err != nil {
			return err
		}
		if !slices.Contains(a.policies, name) {
			a.policies = append(a.policies, name)
		}
		if slices.Contains(attached, name) {
			continue
		}
		if len(attached) >= imprint.MaxPoliciesPerCertificate && a.fresh {
			return imprint.Errorf(imprint.CodeLimitExceeded, "the template attaches more policies than the %d that a certificate may have", imprint.MaxPoliciesPerCertificate).
				WithHint("Put the statements of several policies into one.")
		}
		if len(attached) >= imprint.MaxPoliciesPerCertificate {
			return imprint.Errorf(imprint.CodeLimitExceeded, "certificate %s has %d policies already, as many as allowed", a.cert.ID, len(attached)).
				WithHint("Detach a policy, or put the statements of several into one.")
		}
		err = a.tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: a.cert.Tenant, Policy: name, Target: target})
		if err != nil {
			return fmt.Errorf("couldn't attach policy %s: %w", name, err)
		}
		attached = append(attached, name)
	}
	a.attached = &attached
	return nil
}

func (a *application) attachedPolicies(target string) ([]imprint.PolicyName, error) {
	if a.fresh {
		return nil, nil
	}
	list, _, err := a.tx.TargetPolicies(a.cert.Tenant, target, imprint.Page{Limit: imprint.MaxPoliciesPerCertificate + 1, Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("couldn't read the policies of certificate %s: %w", a.cert.ID, err)
	}
	names := make([]imprint.PolicyName, 0, len(list))
	for _, one := range list {
		names = append(names, one.Policy)
	}
	return names, nil
}

// findPolicy finds the policy that the template names, or makes the one whose
// name is derived from the template's document, so that one document is one
// policy.
func (a *application) findPolicy(plan template.PolicyPlan) (imprint.PolicyName, error) {
	tenant := a.cert.Tenant
	name := imprint.PolicyName(plan.GeneratedName)
	if plan.PolicyDocument == "" {
		parsed, err := imprint.ParsePolicyName(plan.PolicyName)
		if err != nil {
			return "", illegal("couldn't name the policy", err)
		}
		name = parsed
	}
	_, err := a.tx.Policy(tenant, name)
	switch {
	case err == nil:
		return name, nil
	case imprint.CodeOf(err) != imprint.CodeNotFound:
		return "", fmt.Errorf("couldn't read policy %s: %w", name, err)
	case plan.PolicyDocument == "":
		return "", imprint.Errorf(imprint.CodePolicyMissing, "policy %q, which the template names, doesn't exist", name).
			WithHint("aws iot create-policy --policy-name %s --policy-document file://policy.json", name)
	}
	err = a.tx.PutPolicy(imprint.Policy{
		Tenant: tenant, Name: name, DefaultVersion: 1, LastVersion: 1,
		CreatedAt: a.now, ModifiedAt: a.now, GenerationID: uuid.NewString(),
	})
	if err != nil {
		return "", fmt.Errorf("couldn't create policy %s: %w", name, err)
	}
	err = a.tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: tenant, Policy: name, Version: 1, Document: plan.PolicyDocument, CreatedAt: a.now})
	if err != nil {
		return "", fmt.Errorf("couldn't create policy %s: %w", name, err)
	}
	return name, nil
}

// attachThing joins certificate and thing. A certificate that belongs to one
// thing exclusively can't belong to another.
func (a *application) attachThing(exclusive bool) error {
	a.alone, a.exclusive = true, exclusive
	if !a.fresh {
		attached, _, err := a.tx.CertificateThings(a.cert.Tenant, a.cert.ID, imprint.Page{Limit: 2, Ascending: true})
		if err != nil {
			return fmt.Errorf("couldn't read the things of certificate %s: %w", a.cert.ID, err)
		}
		for _, other := range attached {
			a.alone = a.alone && other.Thing == a.thing
			if other.Thing != a.thing && (other.Exclusive || exclusive) {
				return imprint.Errorf(imprint.CodeConflictingUpdate, "certificate %s belongs to thing %s, and one of the two attachments is exclusive", a.cert.ID, other.Thing).
					WithHint("aws iot detach-thing-principal --thing-name %s --principal %s", other.Thing, a.cert.ARN())
			}
		}
	}
	err := a.tx.PutThingAttachment(imprint.ThingAttachment{Tenant: a.cert.Tenant, Thing: a.thing, Certificate: a.cert.ID, Exclusive: exclusive})
	if err != nil {
		return fmt.Errorf("couldn't attach thing %s: %w", a.thing, err)
	}
	return nil
}

// putCertificate sets the certificate's status at the end of a template, and
// stores it. The flow itself activates a certificate that waits for it; the
// override rules only over one that was active or inactive before.
func (a *application) putCertificate() error {
	changed, err := statusAfter(a.cert, a.plan.Certificate, a.now)
	if err != nil {
		return err
	}
	a.applied.cert = changed
	if !a.fresh && changed == a.cert {
		return nil
	}
	err = a.tx.PutCertificate(changed)
	if err != nil {
		return fmt.Errorf("couldn't store certificate %s: %w", a.cert.ID, err)
	}
	return nil
}

func statusAfter(cert imprint.Certificate, plan *template.CertificatePlan, now time.Time) (imprint.Certificate, error) {
	if plan == nil {
		return cert, nil
	}
	want := imprint.CertificateStatus(plan.Status)
	switch {
	case cert.Status == imprint.CertificatePendingActivation:
		return cert.Activate(want, now, uuid.NewString())
	case cert.Status == want || plan.StatusOverride == template.DoNothing:
		return cert, nil
	case plan.StatusOverride == template.Fail:
		return cert, imprint.Errorf(imprint.CodeConflictingUpdate, "certificate %s is %s already, and the template's OverrideSettings say FAIL", cert.ID, cert.Status).
			WithHint("Set Status in the template's OverrideSettings to REPLACE or DO_NOTHING.")
	}
	return cert.ChangeStatus(want, now, uuid.NewString())
}
