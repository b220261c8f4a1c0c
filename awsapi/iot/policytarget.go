package iot

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/renewal"
)

// target is what a policy is attached to: a certificate or a thing group.
type target struct {
	tenant imprint.Tenant
	arn    string // in the form that the resource's own ARN method gives
	name   string // for people
	limit  int    // how many policies it may have
	// group and its ancestors are set when the target is one.
	group imprint.ThingGroup
	// certificate is set when the target is one.
	certificate imprint.Certificate
}

// parseTarget reads the certificate or thing group that a request names as the
// target of a policy. Of either it gives the name alone.
func parseTarget(tenant imprint.Tenant, text string) (target, error) {
	_, resource, err := imprint.ParseARN(text)
	if err == nil && strings.HasPrefix(resource, "thinggroup/") {
		name, err := tenant.ParseThingGroupARN(text)
		if err != nil {
			return target{}, err
		}
		group := imprint.ThingGroup{Tenant: tenant, Name: name}
		return target{tenant: tenant, arn: group.ARN(), name: "Thing group " + string(name), limit: imprint.MaxPoliciesPerGroup, group: group}, nil
	}
	id, err := parsePrincipal(tenant, text)
	if err != nil {
		return target{}, err
	}
	// The ARN is written anew, so that other spellings of the id find the same row.
	certificate := imprint.Certificate{Tenant: tenant, ID: id}
	return target{
		tenant: tenant, arn: certificate.ARN(), name: "Certificate " + string(id), limit: imprint.MaxPoliciesPerCertificate, certificate: certificate,
	}, nil
}

// readTarget finds the certificate or thing group that a request names as the
// target of a policy.
func readTarget(tx imprint.ReadTx, tenant imprint.Tenant, text string) (target, error) {
	found, err := parseTarget(tenant, text)
	if err != nil {
		return target{}, err
	}
	if found.group.Name != "" {
		found.group, err = readThingGroup(tx, tenant, string(found.group.Name))
		return found, err
	}
	found.certificate, err = readPrincipal(tx, tenant, found.arn)
	return found, err
}

// withRenewed gives a target, and with a certificate those that are to take its place: a right
// that a device gets or loses must not depend on which of its certificates it uses.
func withRenewed(tx imprint.ReadTx, of target) ([]target, error) {
	all := []target{of}
	if of.certificate.ID == "" {
		return all, nil
	}
	along, err := renewal.Along(tx, of.tenant, of.certificate.ID)
	for _, id := range along {
		certificate := imprint.Certificate{Tenant: of.tenant, ID: id}
		all = append(all, target{tenant: of.tenant, arn: certificate.ARN(), name: "Certificate " + string(id), limit: of.limit, certificate: certificate})
	}
	return all, err
}

// targetPolicies gives the names of the policies attached to a target: no more
// than fit on one page, because of the limit at attaching.
func targetPolicies(tx imprint.ReadTx, of target) ([]imprint.PolicyName, error) {
	attached, _, err := tx.TargetPolicies(of.tenant, of.arn, imprint.Page{Limit: maxPageSize, Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("couldn't read the policies of %s: %w", of.arn, err)
	}
	names := make([]imprint.PolicyName, 0, len(attached))
	for _, a := range attached {
		names = append(names, a.Policy)
	}
	return names, nil
}

// inheritedPolicies gives the names of the policies of groups and of their
// ancestors, each once, by name.
func inheritedPolicies(tx imprint.ReadTx, groups ...imprint.ThingGroup) ([]imprint.PolicyName, error) {
	names := []imprint.PolicyName{}
	for _, group := range groups {
		for _, name := range append([]imprint.ThingGroupName{group.Name}, group.Ancestors...) {
			attached, err := targetPolicies(tx, target{tenant: group.Tenant, arn: group.Tenant.ThingGroupARN(name)})
			if err != nil {
				return nil, err
			}
			names = append(names, attached...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// effectiveOf gives the names of the policies that a target brings with it: a
// certificate's own, a group's with those of its ancestors.
func effectiveOf(tx imprint.ReadTx, of target) ([]imprint.PolicyName, error) {
	if of.group.Name != "" {
		return inheritedPolicies(tx, of.group)
	}
	return targetPolicies(tx, of)
}

// thingPolicies gives the names of the policies that a thing brings to the
// connections that belong to it: those of its groups and of their ancestors.
func thingPolicies(tx imprint.ReadTx, thing imprint.Thing) ([]imprint.PolicyName, error) {
	groups, err := groupsOf(tx, thing)
	if err != nil {
		return nil, err
	}
	return inheritedPolicies(tx, groups...)
}

// pageOfNames gives one page of names that are all there, in order. Its marker is
// the last name, in the characters that markers have.
func pageOfNames(names []imprint.PolicyName, p imprint.Page) ([]imprint.PolicyName, string, error) {
	if p.Cursor != "" {
		last, err := base64.StdEncoding.DecodeString(p.Cursor)
		if err != nil {
			return nil, "", imprint.Errorf(imprint.CodeInvalidRequest, "the page marker isn't one that this list gave")
		}
		names = slices.DeleteFunc(names, func(name imprint.PolicyName) bool { return string(name) <= string(last) })
	}
	if len(names) <= p.Limit {
		return names, "", nil
	}
	names = names[:p.Limit]
	return names, base64.StdEncoding.EncodeToString([]byte(names[p.Limit-1])), nil
}
