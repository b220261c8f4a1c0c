package gateway

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/identity"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/provisioning"
	"github.com/imprint-iot/imprint/trace"
)

// visitor is a peer whose handshake is complete and whose certificate isn't
// decided on yet: that happens at its CONNECT packet.
type visitor struct {
	gateway    *Gateway
	tenant     imprint.Tenant
	serverName string
	leaf       *x509.Certificate
	id         imprint.CertificateID
	chain      []*x509.Certificate // the leaf, and what was sent behind it
	settled    bool                // without a server name: the certificate has selected the tenant
}

// newVisitor makes the visitor of a handshake. Only on a listener that speaks
// HTTP may there be no certificate.
func newVisitor(g *Gateway, h *handshake, chain []*x509.Certificate) *visitor {
	v := &visitor{gateway: g, tenant: h.tenant, serverName: h.serverName}
	if len(chain) > 0 {
		v.leaf, v.id, v.chain = chain[0], pki.CertificateID(chain[0].Raw), chain
	}
	return v
}

// describe tells the trace who is there.
func (v *visitor) describe(a *imprint.Attempt) {
	a.Tenant = v.tenant
	if v.leaf == nil {
		return
	}
	a.CertificateID = v.id
	a.Serial = imprint.Excerpt(pki.SerialHex(v.leaf.SerialNumber))
	a.Subject = pki.SubjectText(v.leaf.RawSubject)
}

// admit gives the identity that the visitor may connect as, held once, or an
// *imprint.Error that says why it may not.
func (v *visitor) admit(ctx context.Context, rec *trace.Recorder) (*identity.Identity, error) {
	id := v.id
	who, err := v.find(ctx, id, rec)
	rec.Describe(func(a *imprint.Attempt) { a.Tenant = v.tenant })
	switch {
	case imprint.CodeOf(err) == imprint.CodeNotFound:
		rec.Info("certificate", "%s", v.unknown())
		return v.provision(ctx, id, rec)
	case err != nil:
		rec.Fail("certificate", err)
		return nil, err
	}
	if who.Certificate.Status == imprint.CertificatePendingActivation {
		v.gateway.rooms.Identities.Release(who)
		rec.Info("certificate", "%s is registered PENDING_ACTIVATION; %s", id, shownBy(v.chain))
		return v.provision(ctx, id, rec)
	}
	return v.check(who, rec)
}

// unknown says whose certificate isn't registered, with what was sent behind it.
func (v *visitor) unknown() string {
	return fmt.Sprintf("%s isn't registered in %s: subject %q, %s", v.id, v.tenant, pki.SubjectText(v.leaf.RawSubject), shownBy(v.chain))
}

// find looks the certificate up in the tenant that the server name selected.
// Without a server name the certificate's own registration decides, if it is
// in exactly one tenant in DEFAULT mode.
func (v *visitor) find(ctx context.Context, id imprint.CertificateID, rec *trace.Recorder) (*identity.Identity, error) {
	identities := v.gateway.rooms.Identities
	who, err := identities.Acquire(ctx, v.tenant, id)
	if v.serverName != "" || (err != nil && imprint.CodeOf(err) != imprint.CodeNotFound) {
		return who, err
	}
	if err == nil && who.Certificate.Mode == imprint.ModeDefault {
		v.settled = true
		return who, nil
	}
	if err == nil {
		identities.Release(who)
	}
	if v.settled {
		// One connection has one tenant, also when its certificate moves.
		if err != nil {
			return nil, err
		}
		return nil, imprint.Errorf(imprint.CodeSNIRequired, "certificate %s isn't in DEFAULT mode in %s any more, which it connected to without a server name", id, v.tenant)
	}
	var found []imprint.Certificate
	viewErr := v.gateway.rooms.Store.View(ctx, func(tx imprint.ReadTx) error {
		list, err := tx.CertificateTenants(id)
		found = list
		return err
	})
	if viewErr != nil {
		return nil, fmt.Errorf("couldn't look for the tenant of certificate %s: %w", id, viewErr)
	}
	if len(found) == 0 {
		return nil, imprint.Errorf(imprint.CodeNotFound, "certificate %s isn't registered", id)
	}
	var home []imprint.Certificate
	for _, c := range found {
		if c.Mode == imprint.ModeDefault {
			home = append(home, c)
		}
	}
	if len(home) != 1 {
		return nil, imprint.Errorf(imprint.CodeSNIRequired, "certificate %s is registered in %d tenant(s), %d of them in DEFAULT mode: only a server name can select one", id, len(found), len(home))
	}
	v.tenant, v.settled = home[0].Tenant, true
	rec.Info("tenant", "without a server name, the certificate's registration selects %s", v.tenant)
	return identities.Acquire(ctx, v.tenant, id)
}

// provision runs a first connection, and lets the device in if it may stay.
func (v *visitor) provision(ctx context.Context, id imprint.CertificateID, rec *trace.Recorder) (*identity.Identity, error) {
	err := v.gateway.rooms.Provisioning.FirstConnection(ctx, provisioning.Newcomer{
		Tenant: v.tenant, Leaf: v.leaf, ID: id, NoServerName: v.serverName == "", Rec: rec,
	})
	if err != nil {
		return nil, err
	}
	who, err := v.gateway.rooms.Identities.Acquire(ctx, v.tenant, id)
	if err != nil {
		rec.Fail("certificate", err)
		return nil, err
	}
	return v.check(who, rec)
}

// known gives the identity of a visitor that is registered already, held once,
// or an *imprint.Error that says why it may do nothing. It registers nobody.
func (v *visitor) known(ctx context.Context, rec *trace.Recorder) (*identity.Identity, error) {
	who, err := v.find(ctx, v.id, rec)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil, imprint.Errorf(imprint.CodeCertificateUnknown, "%s", v.unknown()).
			WithHint("HTTP registers no certificate: let the device connect with MQTT once, where its CA is registered, or register the certificate with aws iot register-certificate.")
	}
	if err != nil {
		return nil, err
	}
	v.describeThing(who, rec)
	err = v.refusal(who)
	if err != nil {
		v.gateway.rooms.Identities.Release(who)
		return nil, err
	}
	return who, nil
}

// check refuses certificates that may not connect.
func (v *visitor) check(who *identity.Identity, rec *trace.Recorder) (*identity.Identity, error) {
	v.describeThing(who, rec)
	err := v.refusal(who)
	if err != nil {
		rec.Fail("certificate", fmt.Errorf("%w; %s", err, shownBy(v.chain)))
		v.gateway.rooms.Identities.Release(who)
		return nil, err
	}
	if claim := who.Claim; claim != nil {
		rec.OK("certificate", "%s is a claim for template %s that %s asked for, good until %s; %s", claim.Certificate, claim.Template,
			claim.RequestedBy, claim.ExpiresAt.UTC().Format(time.RFC3339), shownBy(v.chain))
		return who, nil
	}
	rec.OK("certificate", "%s is ACTIVE, %d thing(s) attached; %s", who.Certificate.ID, len(who.Things), shownBy(v.chain))
	if left := who.Certificate.NotAfter.Sub(v.gateway.rooms.Clock()); left < v.gateway.opts.ExpiryWarning {
		rec.Info("certificate.expiry", "the certificate ends at %s, in %s: it is to be renewed before (imprint ca expiring)",
			who.Certificate.NotAfter.UTC().Format(time.RFC3339), left.Round(time.Minute))
	}
	return who, nil
}

// describeThing lets whoever asks about a thing find its refused attempts, too;
// an accepted CONNECT says more exactly which thing it is.
func (v *visitor) describeThing(who *identity.Identity, rec *trace.Recorder) {
	if len(who.Things) == 1 {
		rec.Describe(func(a *imprint.Attempt) { a.Thing = who.Things[0].Thing.Name })
	}
}

// refusal says why a registered certificate may not come in; nil when it may.
func (v *visitor) refusal(who *identity.Identity) error {
	refusal := who.Certificate.Refusal(v.gateway.rooms.Clock())
	if refusal != nil && refusal.Code == imprint.CodeCertificateExpired && who.Claim != nil {
		return imprint.Errorf(imprint.CodeClaimExpired, "the claim that %s asked for expired at %s", who.Claim.RequestedBy, who.Claim.ExpiresAt.UTC().Format(time.RFC3339)).
			WithHint("aws iot create-provisioning-claim --template-name %s", who.Claim.Template)
	}
	if refusal != nil {
		return refusal
	}
	if who.Certificate.Mode == imprint.ModeSNIOnly && v.serverName == "" {
		return imprint.Errorf(imprint.CodeSNIRequired, "certificate %s is registered SNI_ONLY and the hello carried no server name", who.Certificate.ID)
	}
	return nil
}
