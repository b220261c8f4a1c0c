package audit

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/announced"
)

// outcome is what came of one action for one finding.
type outcome struct {
	status        imprint.MitigationStatus
	code, message string
	changes       int
}

func skipped(message string) outcome {
	return outcome{status: imprint.MitigationSkipped, message: message}
}

func completed(changes int) outcome {
	return outcome{status: imprint.MitigationCompleted, changes: changes}
}

// failedOf is the outcome of an error, by its name in the API.
func failedOf(err error) outcome {
	exception := imprint.Describe(imprint.CodeOf(err)).Exception
	if exception == "" {
		exception = imprint.Describe(imprint.CodeInternal).Exception
	}
	return outcome{status: imprint.MitigationFailed, code: exception, message: imprint.MessageOf(err)}
}

// gone is the outcome for a resource that isn't there any more.
func gone(err error) (outcome, error) {
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return failedOf(err), nil
	}
	return outcome{}, err
}

// remedy applies an action to what a finding is about, which may have changed since
// the audit: where there is nothing to do any more, the action is skipped. An error is
// one of the store, after which nothing of the transaction may stay.
func remedy(tx imprint.Tx, action *imprint.MitigationAction, f *imprint.AuditFinding, now time.Time) (outcome, error) {
	switch action.Kind {
	case imprint.MitigateDeviceCertificate:
		return deactivateCertificate(tx, f, now)
	case imprint.MitigateCACertificate:
		return deactivateCA(tx, f, now)
	case imprint.MitigatePolicy:
		return blankPolicy(tx, f, now)
	case imprint.MitigateThingGroup:
		return joinGroups(tx, action, f, now)
	}
	return failedOf(imprint.Errorf(imprint.CodeInvalidRequest, "action %s is %s, which this version doesn't know", action.Name, action.Kind)), nil
}

func deactivateCertificate(tx imprint.Tx, f *imprint.AuditFinding, now time.Time) (outcome, error) {
	present, err := tx.Certificate(f.Tenant, imprint.CertificateID(f.Resource.ID))
	if err != nil {
		return gone(err)
	}
	if present.Status == imprint.CertificateInactive || present.Status == imprint.CertificateRevoked {
		return skipped(fmt.Sprintf("The certificate is %s.", present.Status)), nil
	}
	next, err := present.ChangeStatus(imprint.CertificateInactive, now, uuid.NewString())
	if err != nil {
		return failedOf(err), nil
	}
	return completed(1), tx.PutCertificate(next)
}

func deactivateCA(tx imprint.Tx, f *imprint.AuditFinding, now time.Time) (outcome, error) {
	present, err := tx.CA(f.Tenant, imprint.CertificateID(f.Resource.ID))
	if err != nil {
		return gone(err)
	}
	if present.Status == imprint.CAInactive {
		return skipped("The CA is INACTIVE."), nil
	}
	next := present
	next.Status = imprint.CAInactive
	return completed(1), tx.PutCA(next.Changed(now, uuid.NewString()))
}

// BlankPolicy is the document that REPLACE_DEFAULT_POLICY_VERSION sets. A policy must
// have a statement: this one is about the client id of no characters, which nobody can
// have, and so neither allows anything nor denies what another policy allows.
func BlankPolicy(tenant imprint.Tenant) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"Blank","Effect":"Deny","Action":"iot:Connect","Resource":%q}]}`, tenant.ARN("client/"))
}

// blankPolicy gives a policy another default version, unless it has one already: what
// was found was found about one version.
func blankPolicy(tx imprint.Tx, f *imprint.AuditFinding, now time.Time) (outcome, error) {
	p, err := tx.Policy(f.Tenant, imprint.PolicyName(f.Resource.ID))
	if err != nil {
		return gone(err)
	}
	if f.Resource.Version != 0 && p.DefaultVersion != f.Resource.Version {
		return skipped(fmt.Sprintf("The default version is %d now; the finding is about version %d.", p.DefaultVersion, f.Resource.Version)), nil
	}
	versions, err := tx.PolicyVersions(p.Tenant, p.Name)
	if err != nil {
		return outcome{}, err
	}
	blank := BlankPolicy(p.Tenant)
	if slices.ContainsFunc(versions, func(v imprint.PolicyVersion) bool { return v.Version == p.DefaultVersion && v.Document == blank }) {
		return skipped("The default version is blank."), nil
	}
	if len(versions) >= imprint.MaxPolicyVersions {
		return failedOf(imprint.Errorf(imprint.CodeVersionsLimitExceeded, "policy %s has %d versions, as many as allowed: delete one with aws iot delete-policy-version", p.Name, len(versions))), nil
	}
	p.LastVersion++
	p.DefaultVersion, p.ModifiedAt, p.GenerationID = p.LastVersion, now, uuid.NewString()
	err = tx.PutPolicy(p)
	if err != nil {
		return outcome{}, err
	}
	return completed(2), tx.PutPolicyVersion(imprint.PolicyVersion{Tenant: p.Tenant, Policy: p.Name, Version: p.LastVersion, Document: blank, CreatedAt: now})
}

// maxThingsMitigated is how many things of one certificate an action takes: all are
// taken in one transaction.
const maxThingsMitigated = 1000

// joinGroups puts the things of a certificate, or the one that the finding is about,
// into the action's groups. Those that can't join one don't keep others from it.
func joinGroups(tx imprint.Tx, action *imprint.MitigationAction, f *imprint.AuditFinding, now time.Time) (outcome, error) {
	names := []imprint.ThingName{imprint.ThingName(f.Resource.ID)}
	if f.Resource.Kind != imprint.AuditThing {
		_, err := tx.Certificate(f.Tenant, imprint.CertificateID(f.Resource.ID))
		if err != nil {
			return gone(err)
		}
		attached, _, err := tx.CertificateThings(f.Tenant, imprint.CertificateID(f.Resource.ID), imprint.Page{Limit: maxThingsMitigated + 1, Ascending: true})
		if err != nil {
			return outcome{}, err
		}
		names = names[:0]
		for _, one := range attached {
			names = append(names, one.Thing)
		}
	}
	switch {
	case len(names) == 0:
		return skipped("No thing has the certificate."), nil
	case len(names) > maxThingsMitigated:
		return failedOf(imprint.Errorf(imprint.CodeLimitExceeded, "more than %d things have the certificate: aws iot list-principal-things lists them", maxThingsMitigated)), nil
	}
	groups := make([]imprint.ThingGroup, 0, len(action.Groups))
	for _, name := range action.Groups {
		group, err := tx.ThingGroup(f.Tenant, name)
		if err != nil {
			return gone(err)
		}
		groups = append(groups, group)
	}
	registry := announced.In(tx, f.Tenant, now)
	changes, refused := 0, 0
	var first error
	for _, name := range names {
		joined, err := joinAll(tx, registry, f.Tenant, name, groups)
		changes += joined
		switch imprint.CodeOf(err) {
		case "":
		case imprint.CodeInvalidRequest, imprint.CodeNotFound:
			refused++
			if first == nil {
				first = err
			}
		default:
			return outcome{}, err
		}
	}
	switch {
	case refused > 0:
		failure := failedOf(first)
		failure.message, failure.changes = fmt.Sprintf("%d of %d things couldn't join all groups, the first because %s", refused, len(names), failure.message), changes
		return failure, nil
	case changes == 0:
		return skipped("Each thing is in the groups."), nil
	}
	return completed(changes), nil
}

// joinAll puts one thing into groups and gives how many it wasn't in. The error is the
// first that kept it from joining one; CodeInvalidRequest and CodeNotFound leave the
// transaction whole.
func joinAll(tx imprint.Tx, registry *announced.Registry, tenant imprint.Tenant, name imprint.ThingName, groups []imprint.ThingGroup) (joined int, first error) {
	_, err := tx.Thing(tenant, name)
	if err != nil {
		return 0, err
	}
	memberships, _, err := tx.ThingMemberships(tenant, name, imprint.Page{Limit: 2 * imprint.MaxGroupsPerThing, Ascending: true})
	if err != nil {
		return 0, err
	}
	var present []imprint.ThingGroup
	for _, m := range memberships {
		group, err := tx.ThingGroup(tenant, m.Group)
		if err != nil {
			// A group takes its memberships along: that it is missing isn't the caller's doing.
			return 0, imprint.Errorf(imprint.CodeInternal, "couldn't read thing group %s of thing %s: %w", m.Group, name, err)
		}
		present = append(present, group)
	}
	for _, group := range groups {
		if slices.ContainsFunc(present, func(g imprint.ThingGroup) bool { return g.Name == group.Name }) {
			continue
		}
		err = group.CheckJoin(name, present)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		err = registry.Join(imprint.ThingGroupMembership{Tenant: tenant, Group: group.Name, Thing: name})
		if err != nil {
			return joined, fmt.Errorf("couldn't put thing %s into group %s: %w", name, group.Name, err)
		}
		joined++
		present = append(present, group)
	}
	return joined, first
}
