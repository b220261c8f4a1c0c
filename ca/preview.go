package ca

import (
	"context"
	"slices"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// makeKeyFor makes the key of a new authority when nothing speaks against its certificate. A
// key in a module can't be taken back, so a throwaway key stands in for it before.
func (e *Engine) makeKeyFor(ctx context.Context, a *imprint.CertificateAuthority, spec *Spec) (pki.Signer, error) {
	if spec.Profile == "" {
		return e.makeKey(ctx, a, spec.KeyURI, spec.Kind, spec.KeyIsThere)
	}
	if spec.KeyURI == "" || spec.KeyURI == sealedKey || spec.KeyIsThere {
		signer, err := e.makeKey(ctx, a, spec.KeyURI, spec.Kind, spec.KeyIsThere)
		if err != nil {
			return nil, err
		}
		return signer, e.previewed(ctx, a, spec, signer)
	}
	throwaway, err := pki.NewKey(spec.Kind)
	if err != nil {
		return nil, err
	}
	err = e.previewed(ctx, a, spec, pki.NewSoftSigner(throwaway))
	if err != nil {
		return nil, err
	}
	return e.makeKey(ctx, a, spec.KeyURI, spec.Kind, false)
}

// previewed refuses an authority whose certificate could not be made, with the reason that
// certify would give, before there is a row.
func (e *Engine) previewed(ctx context.Context, a *imprint.CertificateAuthority, spec *Spec, signer pki.Signer) error {
	profile, err := e.profileOf(spec)
	if err != nil {
		return err
	}
	request := pki.Request{PublicKey: signer.Public(), RawSubject: spec.RawSubject, NotAfter: spec.NotAfter}
	if spec.Type == imprint.AuthorityRoot {
		return pki.CheckRoot(pki.IssuerConfig{
			ID: a.ID, Signer: signer, Algorithm: algorithms[spec.Algorithm], Journal: e.opts.Journal, Clock: e.opts.Clock, Known: e.opts.Known,
		}, profile, request)
	}
	by, err := e.signing(ctx, a.Tenant, spec.Parent, 0)
	if err != nil {
		return err
	}
	request, err = e.mayIssue(by, profile, request, true)
	if err != nil {
		return err
	}
	return by.signing.Check(profile, request)
}

// profileOf gives the profile of an authority's own certificate.
func (e *Engine) profileOf(spec *Spec) (*pki.Profile, error) {
	profile, err := e.opts.Profiles.Profile(spec.Profile)
	if err != nil {
		return nil, err
	}
	kind := pki.KindIntermediate
	if spec.Type == imprint.AuthorityRoot {
		kind = pki.KindRoot
	}
	if profile.Kind() != kind {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "profile %s isn't of the kind %s but for the kind %s", profile.Name(), kind, profile.Kind())
	}
	return profile, nil
}

// recorded gives the newest certificate that was made for an authority's key here and counts.
func recorded(tx imprint.ReadTx, a *imprint.CertificateAuthority) (imprint.Issuance, error) {
	all, err := tx.IssuancesWithKey(a.Tenant, imprint.KeyQuery{KeyHash: a.KeyHash, CA: true}, 100)
	if err != nil {
		return imprint.Issuance{}, err
	}
	for _, i := range slices.Backward(all) {
		if i.RevokedAt.IsZero() && len(i.Certificate) > 0 {
			return i, nil
		}
	}
	return imprint.Issuance{}, imprint.Errorf(imprint.CodeNotFound, "no certificate was made here for the key of certificate authority %s", called(a)).
		WithHint("Import the one that the CA above it made: imprint ca import CA --certificate FILE")
}
