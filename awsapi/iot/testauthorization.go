package iot

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/policy"
)

// maxTestedResources bounds the resources of one authInfo. AWS IoT Core
// documents no bound.
const maxTestedResources = 100

// actionOf gives the policy action of an action type.
func actionOf(t ActionType) policy.Action {
	switch t {
	case ActionTypePublish:
		return policy.Publish
	case ActionTypeSubscribe:
		return policy.Subscribe
	case ActionTypeReceive:
		return policy.Receive
	}
	return policy.Connect
}

// testAuthorization decides for each authInfo as the devices' door would for a
// connection with the certificate and the client id (by the certificate's policies
// and those of the thing's groups), with the policies that the request adds and without those that it skips. The caller's address and the
// server name of a connection are not known here, so that keys made of them are
// missing context values.
func (s *Service) testAuthorization(ctx context.Context, caller awsapi.Caller, in *TestAuthorizationInput) (*TestAuthorizationOutput, error) {
	tenant := tenantOf(caller)
	err := checkTest(tenant, in)
	if err != nil {
		return nil, err
	}
	trial, err := view(ctx, s, func(tx imprint.ReadTx) (*trial, error) { return newTrial(tx, tenant, in) })
	if err != nil {
		return nil, err
	}
	now := s.rooms.Clock()
	out := &TestAuthorizationOutput{AuthResults: make([]AuthResult, 0, len(in.AuthInfos))}
	for i := range in.AuthInfos {
		out.AuthResults = append(out.AuthResults, trial.result(&in.AuthInfos[i], now))
	}
	return out, nil
}

// checkTest holds the rules that the model leaves out.
func checkTest(tenant imprint.Tenant, in *TestAuthorizationInput) error {
	if in.CognitoIdentityPoolId != nil {
		return refuseCognitoPool()
	}
	if in.Principal == nil && len(in.PolicyNamesToAdd) == 0 {
		return imprint.Errorf(imprint.CodeInvalidRequest, "principal or policyNamesToAdd must be given.")
	}
	for i, info := range in.AuthInfos {
		switch {
		case info.ActionType == nil:
			return imprint.Errorf(imprint.CodeInvalidRequest, "authInfos[%d] has no actionType.", i)
		case len(info.Resources) == 0:
			return imprint.Errorf(imprint.CodeInvalidRequest, "authInfos[%d] has no resources.", i)
		case len(info.Resources) > maxTestedResources:
			return imprint.Errorf(imprint.CodeInvalidRequest, "authInfos[%d] has %d resources, at most %d are allowed.", i, len(info.Resources), maxTestedResources)
		}
		for _, resource := range info.Resources {
			owner, _, err := imprint.ParseARN(resource)
			if err != nil {
				return imprint.Errorf(imprint.CodeInvalidRequest, "couldn't read a resource of authInfos[%d]: %w", i, err)
			}
			if owner != tenant {
				return imprint.Errorf(imprint.CodeInvalidRequest, "a resource of authInfos[%d] belongs to %s, not to %s.", i, owner, tenant)
			}
		}
	}
	return nil
}

// trial is what TestAuthorization decides with: policies and one connection's
// variables.
type trial struct {
	tenant imprint.Tenant
	names  []imprint.PolicyName // sorted
	set    *policy.Set
	vars   *policy.Variables
}

func newTrial(tx imprint.ReadTx, tenant imprint.Tenant, in *TestAuthorizationInput) (*trial, error) {
	t := &trial{tenant: tenant}
	connection := identity.Connection{}
	if in.ClientId != nil {
		connection.ClientID = imprint.ClientID(*in.ClientId)
	}
	who := &identity.Identity{}
	var inherited []imprint.PolicyName
	if in.Principal != nil {
		principal, err := readTarget(tx, tenant, *in.Principal)
		if err != nil {
			return nil, err
		}
		if principal.group.Name != "" {
			inherited, err = effectiveOf(tx, principal)
		} else {
			inherited, err = t.connect(tx, principal, who, &connection)
		}
		if err != nil {
			return nil, err
		}
	}
	t.vars = who.Variables(connection)
	err := t.choose(in.PolicyNamesToAdd, in.PolicyNamesToSkip, inherited)
	if err != nil {
		return nil, err
	}
	return t, t.compile(tx)
}

// connect takes over what a connection has from its certificate and from the
// thing that it belongs to. It gives the policies that come with the thing.
func (t *trial) connect(tx imprint.ReadTx, principal target, who *identity.Identity, connection *identity.Connection) ([]imprint.PolicyName, error) {
	certificate := principal.certificate
	var err error
	t.names, err = targetPolicies(tx, principal)
	if err != nil {
		return nil, err
	}
	who.Things, err = connectionThings(tx, certificate, connection.ClientID)
	if err != nil {
		return nil, err
	}
	leaf, err := pki.ParseCertificatePEM(certificate.PEM)
	if err != nil {
		return nil, imprint.Errorf(imprint.CodeInternal, "couldn't read the stored certificate %s: %w", certificate.ID, err)
	}
	connection.Certificate = policy.NewCertificateVariables(leaf)
	if len(who.Things) == 0 {
		return nil, nil
	}
	return thingPolicies(tx, who.Things[0].Thing)
}

// connectionThings gives the thing that a connection of the certificate belongs
// to, by the rule of package identity: the exclusive one, else the one of the
// client id's name.
func connectionThings(tx imprint.ReadTx, certificate imprint.Certificate, client imprint.ClientID) ([]identity.Attachment, error) {
	attached, _, err := tx.CertificateThings(certificate.Tenant, certificate.ID, imprint.Page{Limit: 1, Ascending: true})
	if err != nil || len(attached) == 0 {
		return nil, err
	}
	wanted := imprint.ThingName(client)
	if attached[0].Exclusive {
		wanted = attached[0].Thing
	}
	thing, err := tx.Thing(certificate.Tenant, wanted)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, is, err := findAttachment(tx, thing, certificate.ID)
	if err != nil || !is {
		return nil, err
	}
	return []identity.Attachment{{Thing: thing, Exclusive: found.Exclusive}}, nil
}

// choose adds and skips policies. The result is bound to what could be attached
// to one certificate; the inherited policies of groups come on top.
func (t *trial) choose(add, skip []string, inherited []imprint.PolicyName) error {
	for _, name := range add {
		t.names = append(t.names, imprint.PolicyName(name))
	}
	skipped := make(map[imprint.PolicyName]bool, len(skip))
	for _, name := range skip {
		skipped[imprint.PolicyName(name)] = true
	}
	isSkipped := func(name imprint.PolicyName) bool { return skipped[name] }
	t.names = slices.DeleteFunc(t.names, isSkipped)
	slices.Sort(t.names)
	t.names = slices.Compact(t.names)
	if len(t.names) > imprint.MaxPoliciesPerCertificate {
		return imprint.Errorf(imprint.CodeLimitExceeded, "%d policies would be attached, at most %d can be.", len(t.names), imprint.MaxPoliciesPerCertificate).
			WithHint("Name fewer in policyNamesToAdd, or more in policyNamesToSkip.")
	}
	t.names = append(t.names, slices.DeleteFunc(inherited, isSkipped)...)
	slices.Sort(t.names)
	t.names = slices.Compact(t.names)
	return nil
}

func (t *trial) compile(tx imprint.ReadTx) error {
	named := make([]policy.Named, 0, len(t.names))
	for _, name := range t.names {
		p, err := readPolicy(tx, t.tenant, string(name))
		if err != nil {
			return err
		}
		version, err := readDefault(tx, p)
		if err != nil {
			return err
		}
		document, err := policy.Parse([]byte(version.Document))
		if err != nil {
			return imprint.Errorf(imprint.CodeInternal, "stored policy %s isn't valid: %w", name, err)
		}
		named = append(named, policy.Named{Name: string(name), Doc: document})
	}
	t.set = policy.Compile(named...)
	return nil
}

// result decides one authInfo: denied when one of its resources is, an explicit
// deny before an implicit one.
func (t *trial) result(info *AuthInfo, now time.Time) AuthResult {
	allowedBy, deniedBy := map[string]bool{}, map[string]bool{}
	decision, missing := policy.Allowed, []string{}
	for _, resource := range info.Resources {
		slash := strings.IndexByte(resource, '/') + 1
		x := t.set.Explain(&policy.Request{
			Action:         actionOf(*info.ActionType),
			ResourcePrefix: resource[:slash], ResourceName: resource[slash:], Vars: t.vars, Now: now,
		})
		for _, ref := range x.AllowedBy {
			allowedBy[ref.Policy] = true
		}
		for _, ref := range x.DeniedBy {
			deniedBy[ref.Policy] = true
		}
		missing = append(missing, x.Missing...)
		switch {
		case x.Decision == policy.ExplicitDeny:
			decision = policy.ExplicitDeny
		case x.Decision == policy.ImplicitDeny && decision == policy.Allowed:
			decision = policy.ImplicitDeny
		}
	}
	slices.Sort(missing)
	silent := t.policies(func(name string) bool {
		return decision == policy.ImplicitDeny && !allowedBy[name] && !deniedBy[name]
	})
	return AuthResult{
		AuthInfo: info,
		Allowed:  &Allowed{Policies: t.policies(func(name string) bool { return allowedBy[name] })},
		Denied: &Denied{
			ImplicitDeny: &ImplicitDeny{Policies: silent},
			ExplicitDeny: &ExplicitDeny{Policies: t.policies(func(name string) bool { return deniedBy[name] })},
		},
		AuthDecision:         AuthDecision(decision.String()),
		MissingContextValues: slices.Compact(missing),
	}
}

func (t *trial) policies(belongs func(name string) bool) []Policy {
	list := []Policy{}
	for _, name := range t.names {
		if belongs(string(name)) {
			list = append(list, Policy{PolicyName: string(name), PolicyArn: t.tenant.PolicyARN(name)})
		}
	}
	return list
}
