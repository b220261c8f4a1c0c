// Package provisioning runs first connections: what happens when a device
// comes whose certificate isn't registered yet, or waits for activation.
//
// One Engine turns a template plan into stored resources; each flow is one
// file over it (jitp.go). All of a device's resources are written in one
// transaction: a template that fails half-way leaves nothing behind but the
// certificate, registered PENDING_ACTIVATION, as AWS IoT Core leaves it.
//
// Sources: AWS IoT Core developer guide, "Just-in-time provisioning",
// "Just-in-time registration" and "Provisioning templates". AWS provisions
// after it closed the connection; Imprint does so before, so that the first
// retry of the device succeeds.
package provisioning

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/template"
)

// Options tune an Engine.
type Options struct {
	// Hold keeps the first connection of a device that could be provisioned
	// and lets it in, for every CA that doesn't say otherwise with its tag
	// imprint:first-connection. The default closes it, as AWS IoT Core does.
	Hold   bool
	Logger *slog.Logger // [slog.Default]
}

// Engine runs first connections against one store.
type Engine struct {
	store imprint.Store
	clock imprint.Clock
	opts  Options

	provisioned, pending, refused atomic.Uint64

	stopWatch func()
	// cas caches the registered CAs by tenant and subject. generation counts
	// invalidations: a look-up that began before one is not cached.
	mu         sync.RWMutex
	cas        map[caKey][]*issuer
	generation uint64
}

// NewEngine makes an engine. Close ends it.
func NewEngine(store imprint.Store, clock imprint.Clock, opts Options) *Engine {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	e := &Engine{store: store, clock: clock, opts: opts, cas: map[caKey][]*issuer{}}
	e.stopWatch = store.Watch(e.committed)
	return e
}

// Counters are what the engine has done since it was made.
type Counters struct {
	// Provisioned devices, certificates left PENDING_ACTIVATION, and newcomers
	// refused before anything was registered.
	Provisioned, Pending, Refused uint64
}

// Counters gives the present counts.
func (e *Engine) Counters() Counters {
	return Counters{Provisioned: e.provisioned.Load(), Pending: e.pending.Load(), Refused: e.refused.Load()}
}

// Close stops listening to the store.
func (e *Engine) Close() { e.stopWatch() }

// applied is what a plan made of the registry.
type applied struct {
	thing    imprint.ThingName
	created  bool // the thing is new
	policies []imprint.PolicyName
	status   imprint.CertificateStatus
}

// apply writes a plan's resources for a certificate that stands registered in
// the transaction: thing, policies, attachments, status last. It is the one
// place where templates become rows.
func (e *Engine) apply(tx imprint.Tx, cert imprint.Certificate, plan *template.Plan, now time.Time) (applied, error) {
	result := applied{status: cert.Status}
	err := refuseWhatIsNotKept(plan)
	if err != nil {
		return result, err
	}
	if plan.Thing != nil {
		result.thing, result.created, err = applyThing(tx, cert.Tenant, plan.Thing, now)
		if err != nil {
			return result, err
		}
	}
	for _, p := range plan.Policies {
		name, err := applyPolicy(tx, cert.Tenant, p, now)
		if err != nil {
			return result, err
		}
		err = attachPolicy(tx, cert, name)
		if err != nil {
			return result, err
		}
		result.policies = append(result.policies, name)
	}
	if plan.Thing != nil && plan.Certificate != nil {
		err = attachThing(tx, cert, result.thing, plan.Certificate.ThingPrincipalType == template.ExclusiveThing)
		if err != nil {
			return result, err
		}
	}
	if plan.Certificate == nil {
		return result, nil
	}
	result.status, err = applyStatus(tx, cert, plan.Certificate, now)
	return result, err
}

// refuseWhatIsNotKept answers template members whose registry objects this
// build doesn't keep. They can't exist, so naming one is naming something
// missing.
func refuseWhatIsNotKept(plan *template.Plan) error {
	thing := plan.Thing
	if thing == nil {
		return nil
	}
	switch {
	case thing.ThingTypeName != "":
		return imprint.Errorf(imprint.CodeThingTypeMissing, "thing type %q doesn't exist", thing.ThingTypeName).
			WithHint("This build keeps no thing types: take ThingTypeName out of the template.")
	case len(thing.ThingGroups) > 0:
		return imprint.Errorf(imprint.CodeGroupMissing, "thing group %q doesn't exist", thing.ThingGroups[0]).
			WithHint("This build keeps no thing groups: take ThingGroups out of the template.")
	case thing.BillingGroup != "":
		return imprint.Errorf(imprint.CodeGroupMissing, "billing group %q doesn't exist", thing.BillingGroup).
			WithHint("This build keeps no billing groups: take BillingGroup out of the template.")
	}
	return nil
}

func applyThing(tx imprint.Tx, tenant imprint.Tenant, plan *template.ThingPlan, now time.Time) (imprint.ThingName, bool, error) {
	name, err := imprint.ParseThingName(plan.ThingName)
	if err != nil {
		return "", false, fmt.Errorf("couldn't name the thing: %w", err)
	}
	thing, err := tx.Thing(tenant, name)
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		thing = imprint.Thing{
			Tenant: tenant, Name: name, ID: uuid.NewString(), Attributes: plan.Attributes,
			Version: 1, CreatedAt: now, ModifiedAt: now,
		}
		err = thing.CheckAttributes()
		if err != nil {
			return "", false, err
		}
		err = tx.PutThing(thing)
		if err != nil {
			return "", false, fmt.Errorf("couldn't create thing %s: %w", name, err)
		}
		return name, true, nil
	case err != nil:
		return "", false, fmt.Errorf("couldn't read thing %s: %w", name, err)
	}
	return name, false, overrideThing(tx, thing, plan, now)
}

// overrideThing applies the template's OverrideSettings to a thing that exists.
func overrideThing(tx imprint.Tx, thing imprint.Thing, plan *template.ThingPlan, now time.Time) error {
	if len(plan.Attributes) == 0 {
		return nil
	}
	switch plan.Overrides.AttributePayload {
	case template.Fail:
		return imprint.Errorf(imprint.CodeConflictingUpdate, "thing %s exists already, and the template's OverrideSettings say FAIL", thing.Name)
	case template.Replace:
		thing.Attributes = thing.MergeAttributes(plan.Attributes, false)
	case template.Merge:
		thing.Attributes = thing.MergeAttributes(plan.Attributes, true)
	default:
		return nil
	}
	err := thing.CheckAttributes()
	if err != nil {
		return err
	}
	thing.Version++
	thing.ModifiedAt = now
	err = tx.PutThing(thing)
	if err != nil {
		return fmt.Errorf("couldn't update thing %s: %w", thing.Name, err)
	}
	return nil
}

// applyPolicy finds the policy that the template names, or makes the one whose
// name is derived from the template's document, so that one document is one
// policy.
func applyPolicy(tx imprint.Tx, tenant imprint.Tenant, plan template.PolicyPlan, now time.Time) (imprint.PolicyName, error) {
	if plan.PolicyDocument == "" {
		name, err := imprint.ParsePolicyName(plan.PolicyName)
		if err != nil {
			return "", fmt.Errorf("couldn't name the policy: %w", err)
		}
		_, err = tx.Policy(tenant, name)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			return "", imprint.Errorf(imprint.CodePolicyMissing, "policy %q, which the template names, doesn't exist", name).
				WithHint("aws iot create-policy --policy-name %s --policy-document file://policy.json", name)
		}
		return name, err
	}
	name := imprint.PolicyName(plan.GeneratedName)
	_, err := tx.Policy(tenant, name)
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return name, err
	}
	err = tx.PutPolicy(imprint.Policy{
		Tenant: tenant, Name: name, DefaultVersion: 1, LastVersion: 1,
		CreatedAt: now, ModifiedAt: now, GenerationID: uuid.NewString(),
	})
	if err != nil {
		return "", fmt.Errorf("couldn't create policy %s: %w", name, err)
	}
	err = tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: tenant, Policy: name, Version: 1, Document: plan.PolicyDocument, CreatedAt: now})
	if err != nil {
		return "", fmt.Errorf("couldn't create policy %s: %w", name, err)
	}
	return name, nil
}

func attachPolicy(tx imprint.Tx, cert imprint.Certificate, name imprint.PolicyName) error {
	target := cert.ARN()
	attached, _, err := tx.TargetPolicies(cert.Tenant, target, imprint.Page{Limit: imprint.MaxPoliciesPerCertificate + 1, Ascending: true})
	if err != nil {
		return fmt.Errorf("couldn't read the policies of certificate %s: %w", cert.ID, err)
	}
	if slices.ContainsFunc(attached, func(a imprint.PolicyAttachment) bool { return a.Policy == name }) {
		return nil
	}
	if len(attached) >= imprint.MaxPoliciesPerCertificate {
		return imprint.Errorf(imprint.CodeLimitExceeded, "certificate %s has %d policies already", cert.ID, len(attached))
	}
	err = tx.PutPolicyAttachment(imprint.PolicyAttachment{Tenant: cert.Tenant, Policy: name, Target: target})
	if err != nil {
		return fmt.Errorf("couldn't attach policy %s: %w", name, err)
	}
	return nil
}

func attachThing(tx imprint.Tx, cert imprint.Certificate, thing imprint.ThingName, exclusive bool) error {
	attached, _, err := tx.CertificateThings(cert.Tenant, cert.ID, imprint.Page{Limit: 2, Ascending: true})
	if err != nil {
		return fmt.Errorf("couldn't read the things of certificate %s: %w", cert.ID, err)
	}
	for _, a := range attached {
		if a.Thing != thing && (a.Exclusive || exclusive) {
			return imprint.Errorf(imprint.CodeConflictingUpdate, "certificate %s belongs to thing %s, and one of the two attachments is exclusive", cert.ID, a.Thing)
		}
	}
	err = tx.PutThingAttachment(imprint.ThingAttachment{Tenant: cert.Tenant, Thing: thing, Certificate: cert.ID, Exclusive: exclusive})
	if err != nil {
		return fmt.Errorf("couldn't attach thing %s: %w", thing, err)
	}
	return nil
}

// applyStatus sets the certificate's status at the end of a template. The flow
// itself activates a certificate that waits for it; the override rules only
// over one that was active or inactive before.
func applyStatus(tx imprint.Tx, cert imprint.Certificate, plan *template.CertificatePlan, now time.Time) (imprint.CertificateStatus, error) {
	want := imprint.CertificateStatus(plan.Status)
	var changed imprint.Certificate
	var err error
	switch {
	case cert.Status == imprint.CertificatePendingActivation:
		changed, err = cert.Activate(want, now, uuid.NewString())
	case cert.Status == want:
		return want, nil
	case plan.StatusOverride == template.DoNothing:
		return cert.Status, nil
	case plan.StatusOverride == template.Fail:
		return cert.Status, imprint.Errorf(imprint.CodeConflictingUpdate, "certificate %s is %s already, and the template's OverrideSettings say FAIL", cert.ID, cert.Status)
	default:
		changed, err = cert.ChangeStatus(want, now, uuid.NewString())
	}
	if err != nil {
		return cert.Status, err
	}
	err = tx.PutCertificate(changed)
	if err != nil {
		return cert.Status, fmt.Errorf("couldn't set the status of certificate %s: %w", cert.ID, err)
	}
	return changed.Status, nil
}
