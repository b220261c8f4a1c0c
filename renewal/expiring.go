package renewal

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

// Device is a certificate that ends soon, with what is done about it.
type Device struct {
	Certificate imprint.Certificate
	Things      []imprint.ThingName // at most 10
	// Opens is when it may be renewed.
	Opens time.Time
	// Renewal is the latest that is open; nil: none is under way.
	Renewal *imprint.Renewal
}

const maxShown = 10

// Expiring lists the ACTIVE certificates of a tenant that end within a time, also those
// that have ended less than that long ago, the earliest first.
func (e *Engine) Expiring(ctx context.Context, tenant imprint.Tenant, within time.Duration, page imprint.Page) ([]Device, string, error) {
	// Who asks after a connection is told what it proved.
	err := e.settle(ctx)
	if err != nil {
		e.rouse()
		return nil, "", fmt.Errorf("couldn't write which renewed certificates have connected: %w", err)
	}
	now := e.opts.Clock()
	var all []Device
	var next string
	err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		all = nil
		certificates, cursor, err := tx.ExpiringCertificates(tenant, now.Add(-within), now.Add(within), page)
		if err != nil {
			return err
		}
		next = cursor
		for _, c := range certificates {
			d := Device{Certificate: c, Opens: e.opts.Window.Opens(c.NotBefore, c.NotAfter)}
			things, _, err := tx.CertificateThings(tenant, c.ID, imprint.Page{Limit: maxShown, Ascending: true})
			if err != nil {
				return err
			}
			for _, one := range things {
				d.Things = append(d.Things, one.Thing)
			}
			renewals, err := tx.RenewalsOf(tenant, c.ID)
			if err != nil {
				return err
			}
			for _, r := range renewals {
				if r.Open() {
					d.Renewal = &r
				}
			}
			all = append(all, d)
		}
		return nil
	})
	return all, next, err
}

// MayRenew says whether a certificate's window is open; CodeRenewalEarly when it isn't. One
// that isn't known is for who signs to refuse.
func (e *Engine) MayRenew(ctx context.Context, tenant imprint.Tenant, id imprint.CertificateID) error {
	var old imprint.Issuance
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		old, err = tx.IssuanceOfCertificate(tenant, id)
		return err
	})
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	opens := e.opts.Window.Opens(old.NotBefore, old.NotAfter)
	if e.opts.Clock().Before(opens) {
		return imprint.Errorf(imprint.CodeRenewalEarly, "certificate %s may be renewed from %s on, it ends at %s", id, opens.Format(time.RFC3339), old.NotAfter.Format(time.RFC3339)).
			WithHint("Ask then, or renew it now with --force.")
	}
	return nil
}

// Soon gives how many certificates end within Options.Warning, as they were counted last.
func (e *Engine) Soon() imprint.Expiring {
	if n := e.expiring.Load(); n != nil {
		return *n
	}
	return imprint.Expiring{}
}

func (e *Engine) count(ctx context.Context) error {
	var all imprint.Expiring
	var tenants []imprint.TenantSettings
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		tenants, err = imprint.AllTenants(tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("couldn't list the tenants: %w", err)
	}
	now := e.opts.Clock()
	for _, tenant := range tenants {
		err = e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
			n, err := tx.CountExpiring(tenant.Tenant, now, now.Add(e.opts.Warning))
			all.All, all.Alone = all.All+n.All, all.Alone+n.Alone
			return err
		})
		if err != nil {
			return err
		}
	}
	if all.Alone > 0 {
		e.opts.Logger.Warn("certificates end soon and no renewal of them is under way (imprint ca expiring)", "certificates", all.Alone, "within", e.opts.Warning.String())
	}
	e.expiring.Store(&all)
	return nil
}
