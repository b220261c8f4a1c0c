package ca

import (
	"bytes"
	"context"
	"crypto"
	"maps"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/pki"
)

// selfSign is SelfSign, uncounted.
func (e *Engine) selfSign(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, profile string, request pki.Request) (Issued, error) {
	p, err := e.opts.Profiles.Profile(profile)
	if err != nil {
		return Issued{}, err
	}
	if request.Token != "" {
		defer e.tokens.hold("issue\x00" + tenant.String() + "\x00" + string(id) + "\x00" + request.Token)()
		again, found, err := e.requested(ctx, tenant, id, p, request)
		if err != nil || found {
			again.Chain = ""
			return again, err
		}
	}
	row, err := e.Authority(ctx, tenant, id)
	if err != nil {
		return Issued{}, err
	}
	err = e.maySelfSign(&row, p, request)
	if err != nil {
		return Issued{}, err
	}
	signer, err := e.openKey(ctx, &row)
	if err != nil {
		return Issued{}, err
	}
	algorithm := request.Algorithm
	if algorithm == 0 {
		algorithm = algorithms[row.SigningAlgorithm]
	}
	authority, token, err := pki.PrepareRoot(ctx, tenant, pki.IssuerConfig{
		ID: id, Signer: signer, Algorithm: algorithm, Journal: e.opts.Journal, Clock: e.opts.Clock, Known: e.opts.Known,
	}, p, request)
	if err != nil {
		return Issued{}, err
	}
	issued, err := authority.SignInto(ctx, token, func(made *pki.Issued, record func(imprint.Tx) error) error {
		return e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			row, err := tx.Authority(tenant, id)
			if err != nil {
				return err
			}
			err = e.maySelfSign(&row, p, request)
			if err == nil {
				err = tx.PutAuthorityCertificate(certificateOf(tenant, made.Certificate, id, id))
			}
			if err != nil {
				return err
			}
			return record(tx)
		})
	})
	if err == nil {
		e.tally.countIssued(p.Name())
	}
	return Issued{issued, ""}, err
}

// maySelfSign refuses all but a root's own request.
func (e *Engine) maySelfSign(a *imprint.CertificateAuthority, p *pki.Profile, request pki.Request) error {
	now := e.opts.Clock()
	status := Status(a, now)
	switch {
	case p.Kind() != pki.KindRoot:
		return imprint.Errorf(imprint.CodeInvalidRequest, "a root signs itself by a profile of the kind %s, not by %s", pki.KindRoot, p.Name())
	case a.Type != imprint.AuthorityRoot:
		return imprint.Errorf(imprint.CodeInvalidRequest, "certificate authority %s isn't a root: another one signs its request", called(a)).
			WithHint("Sign it with the CA above, by a profile of the kind %s.", pki.KindIntermediate)
	case !a.RevokedAt.IsZero() || a.Key == "":
		return state(a, now)
	case status == imprint.AuthorityDisabled || status == imprint.AuthorityDeleted || status == imprint.AuthorityExpired:
		return state(a, now)
	case !a.SigningEnds.IsZero() && !now.Before(a.SigningEnds):
		return imprint.Errorf(imprint.CodeCAExpired, "certificate authority %s signs nothing more since %s", called(a), a.SigningEnds.UTC().Format(time.RFC3339)).
			WithHint("Set a later end, imprint ca update --signing-ends, or make its successor.")
	}
	if a.Certificate != "" {
		err := maySignBy(a, p, true)
		if err != nil {
			return err
		}
	}
	csr, err := pki.ParseCSRPEM(a.CSR)
	if err != nil {
		return imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s has no request of its own", called(a))
	}
	own, comparable := csr.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !comparable || !own.Equal(request.PublicKey) || !bytes.Equal(request.RawSubject, a.Subject) {
		return imprint.Errorf(imprint.CodeInvalidRequest, "by profile %s certificate authority %s signs its own request alone", p.Name(), called(a)).
			WithHint("Send the request that it has: aws acm-pca get-certificate-authority-csr, or imprint ca csr")
	}
	return nil
}

// Authorities lists a tenant's by id, without those that are gone for good.
func (e *Engine) Authorities(ctx context.Context, tenant imprint.Tenant, page imprint.Page) ([]imprint.CertificateAuthority, string, error) {
	var all []imprint.CertificateAuthority
	var next string
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		all, next, err = tx.Authorities(tenant, page)
		return err
	})
	return slices.DeleteFunc(all, func(a imprint.CertificateAuthority) bool { return e.gone(&a) }), next, err
}

// Edit says what to change of an authority; nil members stay.
type Edit struct {
	Name        *string
	Status      imprint.AuthorityStatus // ACTIVE or DISABLED; empty: as it is
	Profiles    *[]string               // none: see maySignBy
	SigningEnds *time.Time              // zero: with its certificate
	Revocation  *imprint.RevocationConfiguration
	// LastCRLs are what an authority that was made elsewhere revoked there, and IssuedNothing
	// says that there is nothing: see Spec.
	LastCRLs      [][]byte
	IssuedNothing bool
	Tags          func(tags map[string]string) error // changes them in place
}

// Update changes an authority. What it signs from then on follows the change; lists that
// certificates name already go on. Errors: CodeNotFound, CodeInvalidRequest,
// CodeAuthorityState for a status that it can't have and for a deleted one, CodeAlreadyExists
// for a name.
func (e *Engine) Update(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, edit Edit) (imprint.CertificateAuthority, error) {
	var lists []takenList
	if len(edit.LastCRLs) > 0 {
		a, err := e.Authority(ctx, tenant, id)
		if err == nil {
			lists, err = e.takeLists(ctx, &a, edit.LastCRLs)
		}
		if err != nil {
			return a, err
		}
	}
	return e.change(ctx, tenant, id, func(tx imprint.Tx, a *imprint.CertificateAuthority) error {
		if a.Status == imprint.AuthorityDeleted {
			return state(a, e.opts.Clock())
		}
		if len(lists) > 0 || edit.IssuedNothing {
			a.CRLs.Unknown = false
		}
		for _, l := range lists {
			a.CRLs.Floor = max(a.CRLs.Floor, l.number)
		}
		err := edit.checked(tx, e, a)
		if err == nil && len(lists) > 0 {
			err = e.takeListed(tx, a)
		}
		if err != nil {
			return err
		}
		if edit.Tags != nil {
			a.Tags = maps.Clone(a.Tags)
			if a.Tags == nil {
				a.Tags = map[string]string{}
			}
			err = edit.Tags(a.Tags)
			if err != nil {
				return err
			}
		}
		return edit.switchTo(a, e.opts.Clock())
	})
}

func (edit *Edit) checked(tx imprint.Tx, e *Engine, a *imprint.CertificateAuthority) error {
	if edit.Name != nil && *edit.Name != a.Name {
		err := e.freeName(tx, a.Tenant, *edit.Name)
		if err != nil {
			return err
		}
		a.Name = *edit.Name
	}
	if edit.Profiles != nil {
		err := e.checkProfiles(*edit.Profiles)
		if err != nil {
			return err
		}
		a.Profiles = *edit.Profiles
	}
	if edit.SigningEnds != nil {
		a.SigningEnds = *edit.SigningEnds
	}
	if edit.Revocation == nil {
		return nil
	}
	a.Revocation = *edit.Revocation
	err := answerable(a)
	if err != nil {
		return err
	}
	if a.Revocation.CRL && a.Certificate != "" {
		cert, err := pki.ParseCertificatePEM(a.Certificate)
		if err == nil {
			err = canList(a.Revocation, cert)
		}
		if err != nil {
			return err
		}
	}
	if e.opts.BaseURL != "" {
		a.CRLs.Base = e.opts.BaseURL // as the server has it now; the former place stays among its layouts
	}
	return checkRevocation(a.Revocation)
}

func (edit *Edit) switchTo(a *imprint.CertificateAuthority, now time.Time) error {
	switch edit.Status {
	case "":
		return nil
	case imprint.AuthorityActive, imprint.AuthorityDisabled:
	default:
		return imprint.Errorf(imprint.CodeInvalidRequest, "the status can be set to %s and %s alone", imprint.AuthorityActive, imprint.AuthorityDisabled)
	}
	if a.Certificate == "" || !a.RevokedAt.IsZero() {
		return state(a, now)
	}
	a.Status = edit.Status
	return nil
}

// MinRestore and MaxRestore bound how many days a deleted authority can be restored, as
// at AWS Private CA.
const MinRestore, MaxRestore = 7, 30

// Delete takes an authority out of use and for good when its days are over. One that is
// in use must be disabled first. Errors: CodeAuthorityState, CodeInvalidRequest.
func (e *Engine) Delete(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, days int) (imprint.CertificateAuthority, error) {
	if days < MinRestore || days > MaxRestore {
		return imprint.CertificateAuthority{}, imprint.Errorf(imprint.CodeInvalidRequest, "a deleted authority can be restored for %d to %d days, not %d", MinRestore, MaxRestore, days)
	}
	return e.change(ctx, tenant, id, func(_ imprint.Tx, a *imprint.CertificateAuthority) error {
		now := e.opts.Clock()
		switch Status(a, now) {
		case imprint.AuthorityDeleted:
			return state(a, now)
		case imprint.AuthorityActive:
			if a.RevokedAt.IsZero() {
				return imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s is %s", called(a), imprint.AuthorityActive).
					WithHint("Disable it first, and see who misses it: imprint ca update %s --status DISABLED", called(a))
			}
		}
		a.Status, a.RestorableUntil = imprint.AuthorityDeleted, now.AddDate(0, 0, days)
		return nil
	})
}

// Restore brings a deleted authority back: disabled, or waiting for its certificate.
// Errors: CodeNotFound when its days are over, CodeAuthorityState, CodeAlreadyExists when
// another one has its name.
func (e *Engine) Restore(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID) (imprint.CertificateAuthority, error) {
	return e.change(ctx, tenant, id, func(tx imprint.Tx, a *imprint.CertificateAuthority) error {
		if a.Status != imprint.AuthorityDeleted {
			return imprint.Errorf(imprint.CodeAuthorityState, "certificate authority %s isn't deleted but %s", called(a), Status(a, e.opts.Clock()))
		}
		err := e.freeName(tx, tenant, a.Name)
		if err != nil {
			return err
		}
		a.Status, a.RestorableUntil = imprint.AuthorityDisabled, time.Time{}
		if a.Certificate == "" {
			a.Status = imprint.AuthorityPending
		}
		return nil
	})
}

func (e *Engine) change(ctx context.Context, tenant imprint.Tenant, id imprint.AuthorityID, fn func(imprint.Tx, *imprint.CertificateAuthority) error) (imprint.CertificateAuthority, error) {
	var a imprint.CertificateAuthority
	err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		found, err := e.authority(tx, tenant, id)
		if err != nil {
			return err
		}
		err = fn(tx, &found)
		if err != nil {
			return err
		}
		found.ChangedAt = e.opts.Clock()
		a = found
		return e.put(tx, &found)
	})
	return a, err
}

// freeName refuses names that can't be given to an authority.
func (e *Engine) freeName(tx imprint.ReadTx, tenant imprint.Tenant, name string) error {
	if name == "" {
		return nil
	}
	err := checkName(name)
	if err != nil {
		return err
	}
	_, err = tx.AuthorityNamed(tenant, name)
	if err == nil {
		return imprint.Errorf(imprint.CodeAlreadyExists, "a certificate authority is called %q already", name).WithHint("Choose another name, or delete that one.")
	}
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return err
	}
	return nil
}

// Purge takes the keys of deleted authorities away whose days are over, and gives how many
// it took. The record of what they issued stays, and so does the row of one that had a
// certificate: what it was, what revoked it and the numbers of its lists must be known for
// as long as others stand below it.
func (e *Engine) Purge(ctx context.Context) (int, error) {
	var tenants []imprint.Tenant
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		tenants, err = tx.AuthorityTenants()
		return err
	})
	total := 0
	for _, tenant := range tenants {
		gone := 0
		if err != nil {
			break
		}
		err = e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			gone = 0
			return each(tx, tenant, func(a *imprint.CertificateAuthority) error {
				if !e.gone(a) || a.Key == "" && a.Certificate != "" {
					return nil
				}
				gone++
				if a.Certificate == "" {
					return tx.DeleteAuthority(tenant, a.ID)
				}
				a.Key, a.SealedKey, a.Tags, a.IdempotencyToken = "", nil, nil, ""
				err := tx.PutAuthority(*a)
				if err != nil {
					return err
				}
				return planLists(tx, a, e.opts.Clock())
			})
		})
		total += gone
	}
	return total, err
}

// ResponderURLs tells whether certificates of an authority with a configuration could name
// where its CRLs and OCSP responses are.
func (e *Engine) ResponderURLs(r imprint.RevocationConfiguration) bool {
	return e.opts.BaseURL != "" || (!r.CRL || r.CRLHost != "") && (!r.OCSP || r.OCSPHost != "")
}
