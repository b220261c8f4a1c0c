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

// makeKey makes the key of a new authority: sealed in its row where nothing else is said,
// else in a store. With there it opens one that is there already.
func (e *Engine) makeKey(ctx context.Context, a *imprint.CertificateAuthority, name string, kind pki.KeyKind, there bool) (pki.Signer, error) {
	if there && (name == "" || name == sealedKey) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "no key is named that is there already").WithHint("Name it: --key STORE:LABEL")
	}
	if name == "" || name == sealedKey {
		key, err := pki.NewKey(kind)
		if err != nil {
			return nil, err
		}
		return pki.NewSoftSigner(key), e.keepKey(a, key)
	}
	err := e.mayUseStore(a.Tenant, name)
	if err != nil {
		return nil, err
	}
	if there {
		a.Key = name
		return e.opts.Keys.Open(ctx, name)
	}
	named, signer, err := e.opts.Keys.Generate(ctx, name, kind)
	if err != nil {
		return nil, err
	}
	a.Key = named
	return signer, nil
}

// adoptKey gives an adopted authority its key in a store.
func (e *Engine) adoptKey(ctx context.Context, a *imprint.CertificateAuthority, name string, cert *x509.Certificate) error {
	if a.Key != "" {
		return imprint.Errorf(imprint.CodeInvalidRequest, "the key is given, and so is a place where it is").WithHint("Give one of both.")
	}
	signer, err := e.makeKey(ctx, a, name, "", true)
	if err != nil {
		return err
	}
	own, comparable := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !comparable || !own.Equal(cert.PublicKey) {
		return imprint.Errorf(imprint.CodeCertificateValidation, "the key %s isn't that of the certificate", imprint.Excerpt(name)).
			WithHint("imprint ca keys STORE shows which keys are there.")
	}
	refusal := pki.WeakKey(signer.Public())
	if refusal != nil {
		return refusal
	}
	return nil
}

func (e *Engine) mayUseStore(tenant imprint.Tenant, name string) error {
	if e.opts.Keys == nil {
		return imprint.Errorf(imprint.CodeInvalidRequest, "keys at %q can't be used: the server has no key stores", imprint.Excerpt(name)).
			WithHint("Its operator names them: imprint serve --ca-key-store NAME=URI")
	}
	return e.opts.Keys.Check(tenant, name)
}

// unused refuses a key of a store that another authority has, of whatever tenant: the
// public certificate of another one's CA, and the name of a key, must not be enough to
// sign in its place.
func (e *Engine) unused(tx imprint.ReadTx, a *imprint.CertificateAuthority, public crypto.PublicKey) error {
	own, comparable := public.(interface{ Equal(crypto.PublicKey) bool })
	if !comparable {
		return imprint.Errorf(imprint.CodeInvalidRequest, "a %T can't be a CA's key", public)
	}
	tenants, err := tx.AuthorityTenants()
	if err != nil {
		return err
	}
	for _, tenant := range tenants {
		err = each(tx, tenant, func(other *imprint.CertificateAuthority) error {
			if other.ID == a.ID && other.Tenant == a.Tenant || e.gone(other) {
				return nil
			}
			theirs := publicKey(other)
			if theirs == nil || !own.Equal(theirs) {
				return nil
			}
			if other.Tenant == a.Tenant {
				return imprint.Errorf(imprint.CodeAlreadyExists, "the key %s is that of certificate authority %s", imprint.Excerpt(a.Key), called(other)).
					WithHint("Choose another key; one that is deleted has its key until it can't be restored any more.")
			}
			return imprint.Errorf(imprint.CodeAlreadyExists, "the key %s is that of another certificate authority", imprint.Excerpt(a.Key)).
				WithHint("Choose another key, or make one: imprint ca create --key STORE:LABEL")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// publicKey gives an authority's public key; nil where it isn't readable.
func publicKey(a *imprint.CertificateAuthority) crypto.PublicKey {
	if a.Certificate != "" {
		cert, err := pki.ParseCertificatePEM(a.Certificate)
		if err == nil {
			return cert.PublicKey
		}
	}
	csr, err := pki.ParseCSRPEM(a.CSR)
	if err != nil {
		return nil
	}
	return csr.PublicKey
}

// leftBehind adds to an error that a key was made which no authority has.
func leftBehind(err error, name string) error {
	if err == nil {
		return nil
	}
	return imprint.Errorf(imprint.CodeOf(err), "%w (the key %s was made, and no certificate authority has it)", err, name).
		WithHint("%s The key can still be used: imprint ca create --key %s --existing-key. Or delete it with its store's own tools; imprint ca keys shows it.", imprint.HintOf(err), name)
}

// KeyStores lists the stores in which a tenant may have keys.
func (e *Engine) KeyStores(tenant imprint.Tenant) []KeyStore {
	if e.opts.Keys == nil {
		return nil
	}
	return e.opts.Keys.Stores(tenant)
}

// UsedKey is a key in a store, with the authority that has it.
type UsedKey struct {
	StoredKey
	// Used tells that an authority has it; By is the tenant's own.
	Used bool
	By   imprint.AuthorityID
}

// StoredKeys tells which keys are in a store and who has them: what nobody has, a creation
// that failed may have left behind.
func (e *Engine) StoredKeys(ctx context.Context, tenant imprint.Tenant, store string) ([]UsedKey, error) {
	if e.opts.Keys == nil {
		return nil, imprint.Errorf(imprint.CodeNotFound, "key store %q doesn't exist", imprint.Excerpt(store)).
			WithHint("The server's operator names key stores: imprint serve --ca-key-store NAME=URI")
	}
	found, err := e.opts.Keys.List(ctx, tenant, store)
	if err != nil {
		return nil, err
	}
	all := make([]UsedKey, 0, len(found))
	for _, key := range found {
		all = append(all, UsedKey{StoredKey: key})
	}
	return all, e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		tenants, err := tx.AuthorityTenants()
		if err != nil {
			return err
		}
		for _, one := range tenants {
			err = each(tx, one, func(a *imprint.CertificateAuthority) error {
				note(all, a, a.Tenant == tenant)
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// note marks the key of an authority.
func note(all []UsedKey, a *imprint.CertificateAuthority, own bool) {
	theirs, comparable := publicKey(a).(interface{ Equal(crypto.PublicKey) bool })
	if !comparable {
		return
	}
	for n := range all {
		if all[n].Public == nil || !theirs.Equal(all[n].Public) {
			continue
		}
		all[n].Used = true
		if own {
			all[n].By = a.ID
		}
	}
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
			return nil, imprint.Errorf(imprint.CodeKeyUnavailable, "the key of authority %s is at %q, and the server has no key stores", called(a), imprint.Excerpt(a.Key)).
				WithHint("Start it with --ca-key-store, as before.")
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
