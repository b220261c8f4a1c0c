package renewal

import (
	"context"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

// prove writes what a connection says: the certificate works for its device, and the others
// of its family that were proven before are to be proven anew, as the device may have gone
// back. Those that it came of it leaves alone: the device went on.
func (e *Engine) prove(ctx context.Context, of key, at time.Time) error {
	at = at.Truncate(time.Millisecond) // as it is stored
	var proven, fellBack uint64
	err := e.opts.Store.Update(ctx, func(tx imprint.Tx) error {
		proven, fellBack = 0, 0
		f, err := familyOf(tx, of)
		if err != nil {
			return err
		}
		for _, r := range f.renewals {
			change := *r
			switch {
			case r.Certificate == of.id && r.State == imprint.RenewalPending:
				change.State, change.ProvenAt, change.DueAt, change.Reason = imprint.RenewalProven, at, at.Add(e.opts.Grace), ""
				proven++
			case r.Certificate != of.id && r.State == imprint.RenewalProven && !at.Before(r.ProvenAt) && !f.above(r.Certificate, of.id):
				change.State, change.ProvenAt, change.DueAt = imprint.RenewalPending, time.Time{}, time.Time{}
				change.Reason = "the device came back with certificate " + string(of.id) + " at " + at.UTC().Format(time.RFC3339)
				fellBack++
			default:
				continue
			}
			*r = change
			err = tx.PutRenewal(change)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("couldn't write that certificate %s connected: %w", of.id, err)
	}
	e.counts.proven.Add(proven)
	e.counts.fellBack.Add(fellBack)
	return nil
}
