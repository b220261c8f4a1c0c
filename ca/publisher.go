package ca

import (
	"context"
	"sync"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	// crlEvery is how often the publisher looks for lists that are due.
	crlEvery = time.Second
	// crlWorkers bounds the authorities whose lists are signed at once, and crlTenantWorkers
	// those of one tenant: keys in modules may take seconds, and others don't wait for them.
	crlWorkers       = 16
	crlTenantWorkers = 4
	// crlLook bounds the authorities that one look finds.
	crlLook = 10_000
)

// publishers are the authorities whose lists are being signed. The zero value is ready.
type publishers struct {
	mu      sync.Mutex
	busy    map[imprint.AuthorityPlace]bool
	tenants map[imprint.Tenant]int
}

// take says whether an authority's lists may be signed now; give is to be called after.
func (p *publishers) take(at imprint.AuthorityPlace) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy == nil {
		p.busy, p.tenants = map[imprint.AuthorityPlace]bool{}, map[imprint.Tenant]int{}
	}
	if p.busy[at] || len(p.busy) >= crlWorkers || p.tenants[at.Tenant] >= crlTenantWorkers {
		return false
	}
	p.busy[at] = true
	p.tenants[at.Tenant]++
	return true
}

func (p *publishers) give(at imprint.AuthorityPlace) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.busy, at)
	p.tenants[at.Tenant]--
	if p.tenants[at.Tenant] == 0 {
		delete(p.tenants, at.Tenant)
	}
}

// PublishLists signs the CRLs that are due until the context ends: when something was
// revoked, within a second or two, and each again when half of its validity is over. A key
// that can't sign is tried again every minute; the list before it is served meanwhile, and
// other authorities' lists don't wait for it.
func (e *Engine) PublishLists(ctx context.Context) {
	ticker := time.NewTicker(crlEvery)
	defer ticker.Stop()
	var work sync.WaitGroup
	defer work.Wait()
	err := e.layOutAll(ctx)
	if err != nil && ctx.Err() == nil {
		e.opts.Logger.Error("couldn't look through the revocation lists of before", "error", err)
	}
	for {
		_, err := e.startLists(ctx, &work, nil, func(int) {})
		if err != nil && ctx.Err() == nil {
			e.opts.Logger.Error("couldn't sign revocation lists", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// SignDueLists signs the CRLs that are due now, and gives how many it signed. One that
// can't be signed keeps no other from it, and is logged.
func (e *Engine) SignDueLists(ctx context.Context) (int, error) {
	total := 0
	tried := map[imprint.AuthorityPlace]bool{}
	for {
		var work sync.WaitGroup
		var mu sync.Mutex
		started, err := e.startLists(ctx, &work, tried, func(signed int) {
			mu.Lock()
			defer mu.Unlock()
			total += signed
		})
		work.Wait()
		if err != nil || started == 0 || ctx.Err() != nil {
			return total, err
		}
	}
}

// startLists begins to sign what is due, as far as there are workers, and gives of how many
// authorities. Those in tried are left out, and what is begun is added to it.
func (e *Engine) startLists(ctx context.Context, work *sync.WaitGroup, tried map[imprint.AuthorityPlace]bool, done func(signed int)) (int, error) {
	var due []imprint.AuthorityPlace
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		var err error
		due, err = tx.RevocationListsDue(e.opts.Clock(), crlLook)
		return err
	})
	if err != nil {
		return 0, err
	}
	started := 0
	for _, at := range due {
		if tried[at] || !e.publishers.take(at) {
			continue
		}
		if tried != nil {
			tried[at] = true
		}
		started++
		work.Go(func() {
			defer e.publishers.give(at)
			signed, err := e.signLists(ctx, at)
			e.tally.countLists(signed, err)
			if err != nil && ctx.Err() == nil {
				e.opts.Logger.Error("couldn't sign revocation lists", "tenant", at.Tenant.String(), "authority", at.Authority, "error", err)
			}
			done(signed)
		})
	}
	return started, nil
}

// layOutAll gives authorities their layouts that had CRLs before there were any.
func (e *Engine) layOutAll(ctx context.Context) error {
	var old []imprint.AuthorityPlace
	err := e.opts.Store.View(ctx, func(tx imprint.ReadTx) error {
		old = nil
		tenants, err := tx.AuthorityTenants()
		for _, tenant := range tenants {
			if err != nil {
				break
			}
			err = each(tx, tenant, func(a *imprint.CertificateAuthority) error {
				if a.Revocation.CRL && len(a.CRLs.Layouts) == 0 && a.Key != "" {
					old = append(old, imprint.AuthorityPlace{Tenant: tenant, Authority: a.ID})
				}
				return nil
			})
		}
		return err
	})
	for _, at := range old {
		if err != nil {
			return err
		}
		_, err = e.change(ctx, at.Tenant, at.Authority, func(imprint.Tx, *imprint.CertificateAuthority) error { return nil })
	}
	return err
}
