// Package identity is the cached view of the registry that the connection path
// reads: a certificate's row, its things, and the compiled policies of it and of
// the things' groups, by the id that a TLS handshake yields.
//
//	who, err := identities.Acquire(ctx, tenant, id)
//	policies := who.PoliciesFor(client) // decide for this connection
//	...
//	if who.Stale() { // before each decision
//		identities.Release(who)
//		who, err = identities.Acquire(ctx, tenant, id)
//	}
//
// What it promises: after a change is committed, Stale is true for every
// identity that it touches before the change is acknowledged to whoever made
// it, so that a changed policy, attachment, status, group or membership holds for
// the next packet of every live connection. Compiled policies are shared by all
// certificates and things that have the same documents. Memory is bounded by the identities that are
// held, and some thousands that are not.
//
// What it does not do: it decides nothing; Certificate.Refusal and the policy
// set do.
package identity

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/policy"
)

// Attachment is one thing of a certificate.
type Attachment struct {
	Thing     imprint.Thing
	Exclusive bool

	// policies are what PoliciesFor gives for the thing; nil when it is in no
	// group.
	policies *policy.Set
}

// Identity is what the connection path knows of one registered certificate. It
// is immutable but for its staleness, and shared.
type Identity struct {
	// Certificate lacks PEM, Serial, Subject and GenerationID here, to spare
	// memory.
	Certificate imprint.Certificate
	Things      []Attachment
	// Policies are the certificate's own: what decides where there is no client
	// id. For connections there is PoliciesFor.
	Policies *policy.Set

	// Claim is set for a trusted user's temporary claim certificate; Certificate is
	// then made up of it, and ends with it.
	Claim *imprint.ProvisioningClaim

	// operator is a caller without a certificate; nil for devices.
	operator *Operator

	stale atomic.Bool
	// refs counts holders; a held identity stays in the resolver's indexes so
	// that changes find it. Guarded by the shard's lock.
	refs int
	// names are the things that the certificate is attached to.
	names []imprint.ThingName
	// marks are the policies and groups, with their counts of changes as they were
	// when this was published.
	marks []mark
}

// Operator is a caller that proved who it is by an access key instead of a
// certificate.
type Operator struct {
	Tenant imprint.Tenant
	// Principal is what lifecycle events call it.
	Principal string
	Policies  *policy.Set
	// Keys are the condition keys that it brings to every decision.
	Keys *policy.Keys
	// Changes counts what may have changed about it, and was Seen when the above was
	// read: the identity is stale when they differ. Renew reads anew. Without
	// Changes, the identity never becomes stale.
	Changes *atomic.Uint64
	Seen    uint64
	Renew   func(context.Context) (Operator, error)
}

// NewOperator makes the identity of an operator. It belongs to no Resolver, and
// may be released like any other.
func NewOperator(operator Operator) *Identity {
	return &Identity{Certificate: imprint.Certificate{Tenant: operator.Tenant}, Policies: operator.Policies, operator: &operator}
}

// Renewed gives the present identity of an operator whose identity is stale. The
// flag is false for a device: its identity is acquired anew.
func (i *Identity) Renewed(ctx context.Context) (*Identity, bool, error) {
	if i.operator == nil {
		return nil, false, nil
	}
	now, err := i.operator.Renew(ctx)
	if err != nil {
		return nil, true, err
	}
	return NewOperator(now), true, nil
}

// Tenant is where the identity belongs.
func (i *Identity) Tenant() imprint.Tenant { return i.Certificate.Tenant }

// Principal is what lifecycle events and rules call the identity: the
// certificate's id, or the operator's name.
func (i *Identity) Principal() string {
	if i.operator != nil {
		return i.operator.Principal
	}
	return string(i.Certificate.ID)
}

// Refusal says why the identity may not be connected at a time; nil if it may.
func (i *Identity) Refusal(now time.Time) *imprint.Error {
	if i.operator != nil {
		return nil
	}
	return i.Certificate.Refusal(now)
}

type mark struct {
	kind    imprint.ChangeKind // ChangePolicy or ChangeThingGroup
	name    string
	watched *watched
	seen    uint64
}

// Stale tells that something behind the identity may have changed: acquire it
// anew. An identity that is stale stays so.
func (i *Identity) Stale() bool {
	if i.stale.Load() {
		return true
	}
	if i.operator != nil {
		return i.operator.Changes != nil && i.operator.Changes.Load() != i.operator.Seen
	}
	for n := range i.marks {
		m := &i.marks[n]
		if m.watched.changes.Load() != m.seen {
			return true
		}
	}
	return false
}

// ThingFor is the thing that a connection with this client id belongs to: the
// one that the certificate is attached to exclusively, else the attached one
// whose name equals the client id; nil when there is none.
func (i *Identity) ThingFor(client imprint.ClientID) *Attachment {
	for n := range i.Things {
		if i.Things[n].Exclusive {
			return &i.Things[n]
		}
	}
	for n := range i.Things {
		if string(i.Things[n].Thing.Name) == string(client) {
			return &i.Things[n]
		}
	}
	return nil
}

// PoliciesFor gives the policies that decide for a connection with this client
// id: the certificate's, and those of the static thing groups, and of their
// ancestors, of the thing that the connection belongs to (developer guide,
// "Attach a policy to a thing group"). Take it anew with each identity.
func (i *Identity) PoliciesFor(client imprint.ClientID) *policy.Set {
	if attached := i.ThingFor(client); attached != nil && attached.policies != nil {
		return attached.policies
	}
	return i.Policies
}

// Connection is what a connection adds to its certificate's identity for policy
// decisions.
type Connection struct {
	// ClientID is empty outside MQTT: neither it nor the thing has a value for
	// policies then.
	ClientID   imprint.ClientID
	Address    netip.Addr
	ServerName string
	// Certificate holds the values of the iot:Certificate.* variables.
	Certificate *policy.CertificateVariables
	// NoConnection is set for requests outside of an MQTT connection, such as HTTPS
	// publish: the variables of client and thing have no value then.
	NoConnection bool
}

// Variables binds the policy variables of one connection.
func (i *Identity) Variables(c Connection) *policy.Variables {
	binding := policy.Binding{
		ClientID: string(c.ClientID), SourceIP: c.Address, Certificate: c.Certificate, DomainName: c.ServerName,
		NoConnection: c.NoConnection,
	}
	if i.operator != nil {
		binding.Keys = i.operator.Keys
	}
	if attached := i.ThingFor(c.ClientID); attached != nil {
		binding.Thing = &policy.Thing{
			Name: string(attached.Thing.Name), TypeName: string(attached.Thing.TypeName), Attributes: attached.Thing.Attributes,
		}
	}
	return policy.NewVariables(binding)
}
