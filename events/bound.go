package events

import (
	"context"
	"fmt"
	"math"

	"github.com/imprint-iot/imprint"
)

const (
	// uncounted is more than any number of events that needn't be counted.
	uncounted = math.MaxInt / 2
	// slack is the part of the bound that may come before events are counted again: each
	// of those shares its cost.
	slack = 10
	// dropAtOnce bounds the events that one commit drops, which other commits wait for.
	dropAtOnce = 500
)

// unitsOf is how much of the bound an event takes.
func unitsOf(e imprint.Event) int { return imprint.OwedUnits(len(e.Topic) + len(e.Payload)) }

// bound drops the oldest events that wait of an account that has too many. Each call
// drops a few, so that the rest of the account's events go on meanwhile. The oldest are
// worth least: a device that isn't activated comes again, with a new event, and who reads
// the registry anew knows what all dropped events told of it.
func (a *account) bound(ctx context.Context) error {
	most := a.dispatcher.opts.MaxStored
	a.mu.Lock()
	due := a.fresh > most/slack
	if due {
		a.fresh = 0
	}
	a.mu.Unlock()
	if due {
		err := a.countStored(ctx, most)
		if err != nil {
			a.mu.Lock()
			a.fresh = uncounted
			a.mu.Unlock()
			return err
		}
	}
	if a.excess <= 0 {
		return nil
	}
	err := a.drop(ctx)
	if err == nil && a.excess > 0 {
		a.poke()
	}
	return err
}

func (a *account) countStored(ctx context.Context, most int) error {
	stored, all := map[imprint.Tenant]int{}, 0
	err := a.dispatcher.store.View(ctx, func(tx imprint.ReadTx) error {
		tenants, err := tx.EventTenants()
		if err != nil {
			return err
		}
		for _, tenant := range tenants {
			if tenant.Account != a.id {
				continue
			}
			stored[tenant], err = tx.EventUnits(tenant)
			if err != nil {
				return err
			}
			all += stored[tenant]
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("couldn't count stored events: %w", err)
	}
	a.stored, a.excess = stored, all-most
	if a.excess > 0 {
		a.dispatcher.logger.Error("stored events of an account are dropped, as more wait than may: who subscribes to them, or a topic rule, doesn't keep up",
			"account", string(a.id), "waiting", all, "allowed", most, "fix", "Look for a slow topic rule on $aws/events/, or raise --stored-events.")
	}
	return nil
}

// gone tells that stored events of so many units are there no more.
func (a *account) gone(tenant imprint.Tenant, units int) {
	a.excess -= units
	a.stored[tenant] -= units
}

// drop removes the oldest events that aren't under way of the tenant that has most.
func (a *account) drop(ctx context.Context) error {
	var tenant imprint.Tenant
	most := 0
	for t, left := range a.stored {
		for _, units := range a.underWay[t] {
			left -= units
		}
		if left > most {
			tenant, most = t, left
		}
	}
	if most == 0 {
		a.excess = 0 // all that is left is under way
		return nil
	}
	mine := a.underWay[tenant]
	var dropped []imprint.Event
	var ids []string
	units := 0
	err := a.dispatcher.store.Update(ctx, func(tx imprint.Tx) error {
		dropped, ids, units = nil, nil, 0
		list, err := tx.Events(tenant, len(mine)+min(a.excess, dropAtOnce))
		if err != nil {
			return err
		}
		for _, event := range list {
			if _, under := mine[event.ID]; !under && units < a.excess && len(ids) < dropAtOnce {
				dropped, ids, units = append(dropped, event), append(ids, event.ID), units+unitsOf(event)
			}
		}
		return tx.DeleteEvents(tenant, ids)
	})
	if err != nil {
		return fmt.Errorf("couldn't drop stored events: %w", err)
	}
	if len(ids) == 0 {
		a.excess = 0 // all that is left is under way
		return nil
	}
	a.gone(tenant, units)
	a.dispatcher.dropped.Add(uint64(len(ids)))
	a.tellAttempts(dropped)
	return nil
}

// tellAttempts has those that caused the events tell why nothing came of them.
func (a *account) tellAttempts(dropped []imprint.Event) {
	if a.dispatcher.opts.Attempts == nil {
		return
	}
	for _, event := range dropped {
		a.dispatcher.opts.Attempts.Append(event.AttemptID, imprint.Step{
			At: a.dispatcher.clock(), Name: "event", Verdict: imprint.VerdictFailed, Code: imprint.CodeEventDropped,
			Detail: fmt.Sprintf("the event on %s was dropped: as many of the account wait as may (%d, and large ones count as several)", imprint.Excerpt(event.Topic), a.dispatcher.opts.MaxStored),
			Fix:    imprint.Describe(imprint.CodeEventDropped).Hint,
		})
	}
}
