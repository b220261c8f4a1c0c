package provisioning

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

// sweepBatch bounds one transaction of a sweep, so that it never holds the
// committer long.
const sweepBatch = 256

func (c *Claims) sweeper() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ticker := time.NewTicker(c.opts.SweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-ticker.C:
		}
		_, err := c.Sweep(ctx)
		if err != nil {
			c.opts.Logger.Error("couldn't delete certificates that were never registered", "error", err)
		}
	}
}

// Sweep deletes the certificates whose ownership tokens have ended and that are
// neither activated nor attached, and says how many, and the claims of trusted users that
// are long over, however many there are. What was left behind before
// a restart is found as well.
func (c *Claims) Sweep(ctx context.Context) (int, error) {
	deleted := 0
	for {
		looked, gone, over := 0, 0, 0
		err := c.store.Update(ctx, func(tx imprint.Tx) error {
			looked, gone = 0, 0
			due, err := tx.PendingCertificatesDue(c.clock(), sweepBatch)
			if err != nil {
				return fmt.Errorf("couldn't list the certificates that wait: %w", err)
			}
			for _, pending := range due {
				unclaimed, err := dropPending(tx, pending)
				if err != nil {
					return err
				}
				looked++
				if unclaimed {
					gone++
				}
			}
			over, err = c.sweepClaims(tx)
			return err
		})
		if err != nil {
			return deleted, err
		}
		deleted += gone
		c.count.expired.Add(uint64(gone))
		if looked < sweepBatch && over < sweepBatch {
			return deleted, nil
		}
	}
}

// dropPending forgets a token, and deletes its certificate when nobody has taken
// it up.
func dropPending(tx imprint.Tx, p imprint.PendingCertificate) (bool, error) {
	err := tx.DeletePendingCertificate(p.Tenant, p.Certificate)
	if err != nil {
		return false, err
	}
	cert, err := tx.Certificate(p.Tenant, p.Certificate)
	if imprint.CodeOf(err) == imprint.CodeNotFound || err == nil && cert.Status != imprint.CertificatePendingActivation {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	one := imprint.Page{Limit: 1, Ascending: true}
	policies, _, err := tx.TargetPolicies(p.Tenant, cert.ARN(), one)
	if err != nil || len(policies) > 0 {
		return false, err
	}
	things, _, err := tx.CertificateThings(p.Tenant, p.Certificate, one)
	if err != nil || len(things) > 0 {
		return false, err
	}
	err = tx.DeleteTags(p.Tenant, cert.ARN())
	if err != nil {
		return false, err
	}
	return true, tx.DeleteCertificate(p.Tenant, p.Certificate)
}

// sweepClaims deletes trusted users' claims that are long over, and says how many.
func (c *Claims) sweepClaims(tx imprint.Tx) (int, error) {
	due, err := tx.ProvisioningClaimsDue(c.clock().Add(-c.opts.KeepClaims), sweepBatch)
	if err != nil {
		return 0, fmt.Errorf("couldn't list the claims that are over: %w", err)
	}
	for _, claim := range due {
		err = tx.DeleteProvisioningClaim(claim.Tenant, claim.Certificate)
		if err != nil {
			return 0, err
		}
	}
	return len(due), nil
}
