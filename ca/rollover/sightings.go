package rollover

import (
	"context"
	"time"

	"github.com/imprint-iot/imprint"
)

const (
	// maxPending bounds the sightings that wait to be written.
	maxPending = 100_000
	// flushEvery is how often they are.
	flushEvery = time.Second
	// flushPart is how many one transaction takes.
	flushPart = 2000
)

type seenKey struct {
	tenant imprint.Tenant
	id     imprint.CertificateID
}

// Saw is told of each connection that was let in. It costs next to nothing for tenants
// without a plan, and never blocks: beyond a bound sightings are dropped and counted.
func (p *Planner) Saw(tenant imprint.Tenant, id imprint.CertificateID) {
	planned := p.planned.Load()
	if id == "" || planned == nil || !(*planned)[tenant] {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) >= maxPending {
		p.dropped.Add(1)
		return
	}
	p.pending[seenKey{tenant, id}] = p.opts.Clock()
}

// Dropped counts sightings that there was no room for.
func (p *Planner) Dropped() uint64 { return p.dropped.Load() }

func (p *Planner) run(ctx context.Context) {
	defer close(p.done)
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := p.flush(ctx)
		if err != nil && ctx.Err() == nil {
			p.opts.Logger.Error("couldn't write which certificates were seen", "error", err)
		}
	}
}

// flush writes what was seen. What can't be written waits for the next time.
func (p *Planner) flush(ctx context.Context) error {
	p.flushing.Lock()
	defer p.flushing.Unlock()
	for {
		part := map[seenKey]time.Time{}
		p.mu.Lock()
		for key, at := range p.pending {
			part[key] = at
			delete(p.pending, key)
			if len(part) == flushPart {
				break
			}
		}
		p.mu.Unlock()
		if len(part) == 0 {
			return nil
		}
		err := p.opts.Store.Update(ctx, func(tx imprint.Tx) error {
			for key, at := range part {
				err := tx.PutSighting(imprint.Sighting{Tenant: key.tenant, Certificate: key.id, FirstAt: at, LastAt: at})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			p.mu.Lock()
			for key, at := range part {
				if _, later := p.pending[key]; !later {
					p.pending[key] = at
				}
			}
			p.mu.Unlock()
			return err
		}
	}
}

// seenAt is when a certificate was last let in, as far as anybody knows: it is connected,
// a plan kept it, its renewal was proven by that, or the trace has it. Zero: nobody knows.
func (p *Planner) seenAt(tx imprint.ReadTx, tenant imprint.Tenant, id imprint.CertificateID) (time.Time, error) {
	if p.opts.Connected != nil && p.opts.Connected(tenant, id) {
		return p.opts.Clock(), nil
	}
	s, err := tx.Sighting(tenant, id)
	if err == nil {
		return s.LastAt, nil
	}
	if imprint.CodeOf(err) != imprint.CodeNotFound {
		return time.Time{}, err
	}
	renewal, err := tx.Renewal(tenant, id)
	if err == nil && !renewal.ProvenAt.IsZero() {
		return renewal.ProvenAt, nil
	}
	if err != nil && imprint.CodeOf(err) != imprint.CodeNotFound {
		return time.Time{}, err
	}
	attempts, _, err := tx.Attempts(imprint.AttemptFilter{Tenant: tenant, Match: string(id)}, imprint.Page{Limit: traceLooks})
	if err != nil {
		return time.Time{}, err
	}
	for n := range attempts {
		a := &attempts[n]
		if a.CertificateID != id || a.Outcome != imprint.OutcomeConnected && a.Outcome != imprint.OutcomeClosed {
			continue
		}
		if a.EndedAt.After(a.At) {
			return a.EndedAt, nil
		}
		return a.At, nil
	}
	return time.Time{}, nil
}

// traceLooks bounds how many attempts of one certificate are looked at.
const traceLooks = 10
