package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// sealedKey is the URI of a key that stands sealed in the authority's row.
const sealedKey = "sealed:"

func keyContext(a *imprint.CertificateAuthority) []byte {
	return []byte("imprint/ca/" + a.Tenant.String() + "/" + string(a.ID))
}

// makeKey makes the key of a new authority: sealed in its row where no URI is given.
func (e *Engine) makeKey(ctx context.Context, a *imprint.CertificateAuthority, uri string, kind pki.KeyKind) (pki.Signer, error) {
	if uri != "" && uri != sealedKey {
		if e.opts.Keys == nil {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "keys at %q can't be used here", imprint.Excerpt(uri))
		}
		named, signer, err := e.opts.Keys.Generate(ctx, uri, kind)
		if err != nil {
			return nil, err
		}
		a.Key = named
		return signer, nil
	}
	key, err := pki.NewKey(kind)
	if err != nil {
		return nil, err
	}
	return pki.NewSoftSigner(key), e.keepKey(a, key)
}

// keepKey seals a software key into the row.
func (e *Engine) keepKey(a *imprint.CertificateAuthority, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("couldn't encode the key: %w", err)
	}
	defer clear(der)
	sealed, err := e.opts.Sealer.Seal(der, keyContext(a))
	if err != nil {
		return fmt.Errorf("couldn't seal the key: %w", err)
	}
	a.Key, a.SealedKey = sealedKey, sealed
	return nil
}

func (e *Engine) openKey(ctx context.Context, a *imprint.CertificateAuthority) (pki.Signer, error) {
	if !strings.HasPrefix(a.Key, sealedKey) {
		if e.opts.Keys == nil {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "keys at %q can't be used here", imprint.Excerpt(a.Key))
		}
		return e.opts.Keys.Open(ctx, a.Key)
	}
	der, err := e.opts.Sealer.Open(a.SealedKey, keyContext(a))
	if err != nil {
		return nil, fmt.Errorf("couldn't open the key of authority %s: %w", called(a), err)
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("couldn't read the key of authority %s: %w", called(a), err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the key of authority %s is a %T, which can't sign", called(a), parsed)
	}
	return pki.NewSoftSigner(key), nil
}

// nameKey puts the hash of an authority's key into its row: no device may have that key.
func nameKey(a *imprint.CertificateAuthority) error {
	var key crypto.PublicKey
	switch {
	case a.CSR != "":
		csr, err := pki.ParseCSRPEM(a.CSR)
		if err != nil {
			return fmt.Errorf("couldn't read the request of authority %s: %w", called(a), err)
		}
		key = csr.PublicKey
	case a.Certificate != "":
		cert, err := pki.ParseCertificatePEM(a.Certificate)
		if err != nil {
			return fmt.Errorf("couldn't read the certificate of authority %s: %w", called(a), err)
		}
		key = cert.PublicKey
	default:
		return nil
	}
	var err error
	a.KeyHash, err = pki.KeyHash(key)
	return err
}

// RememberKeys names the keys of authorities whose rows were written by a version that
// didn't.
func (e *Engine) RememberKeys(ctx context.Context) error {
	return e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		tenants, err := tx.AuthorityTenants()
		if err != nil {
			return err
		}
		for _, tenant := range tenants {
			all, _, err := tx.Authorities(tenant, imprint.Page{Limit: MaxAuthorities, Ascending: true})
			if err != nil {
				return err
			}
			for _, a := range all {
				if a.KeyHash != "" {
					continue
				}
				err = nameKey(&a)
				if err == nil && a.KeyHash != "" {
					err = tx.PutAuthority(a)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}
