package rules

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/internal/fair"
	"github.com/imprint-iot/imprint/trace"
)

const (
	// firstRetry doubles after each failure up to longestRetry.
	firstRetry   = time.Second
	longestRetry = 5 * time.Minute
	// deliveryPatience bounds one try, whatever the kind.
	deliveryPatience = 30 * time.Second
)

// outbox delivers what rules owe to URLs and sinks: rows of the store until they
// are delivered or given up.
type outbox struct {
	engine *Engine
	crew   *fair.Crew[imprint.RuleDelivery]
	ctx    context.Context // the crew's
	rows   *fair.Rows
	http   *poster
}

func newOutbox(e *Engine) *outbox {
	o := &outbox{engine: e, http: newPoster(e.opts)}
	o.crew = fair.NewCrew(e.opts.DeliveryWorkers, fair.Duty[imprint.RuleDelivery]{
		Name: "the deliveries of topic rules", Store: e.store, Clock: e.clock, Logger: e.opts.Logger,
		Owed: func(tx imprint.ReadTx, now time.Time) fair.Source[imprint.RuleDelivery] {
			return owedDeliveries{tx, now}
		},
		Next: func(tx imprint.ReadTx, now time.Time) (time.Time, error) { return tx.NextRuleDelivery(now) },
		ID:   func(d imprint.RuleDelivery) string { return d.ID },
		Do:   o.try, GiveUp: o.abandon,
	})
	o.ctx = o.crew.Context()
	o.rows = fair.NewRows(e.opts.MaxDeliveries, func(ctx context.Context, account imprint.AccountID) (rows int, err error) {
		err = e.store.Glance(ctx, func(tx imprint.ReadTx) error {
			tenants, err := tx.DeliveryTenants()
			if err != nil {
				return err
			}
			rows, err = fair.CountOf(account, tenants, tx.RuleDeliveryUnits)
			return err
		})
		return rows, err
	})
	return o
}

func (o *outbox) close() {
	o.crew.Close()
	o.http.close()
}

// origin is the message behind a delivery, for the error action.
type origin struct {
	Topic      string                        `json:"topic"`
	Payload    []byte                        `json:"payload,omitempty"`
	Properties imprint.RuleMessageProperties `json:"properties"`
	ClientID   imprint.ClientID              `json:"client,omitempty"`
	Principal  string                        `json:"principal,omitempty"`
	SourceIP   string                        `json:"source,omitempty"`
	MQTT       bool                          `json:"mqtt,omitempty"`
	Depth      int                           `json:"depth,omitempty"`
}

// queueOf names the queue of what goes to one place by one kind of action.
func queueOf(kind, place string) string { return kind + " " + place }

// owe puts a delivery to a place into the store, to be tried at once. Errors:
// CodeRulesBusy when the account owes as many as it may, and the store's.
func (o *outbox) owe(ctx context.Context, u *run, kind ActionKind, place string, request any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return imprint.Errorf(imprint.CodeRuleAction, "couldn't encode a delivery: %w", err)
	}
	now := o.engine.clock()
	d := imprint.RuleDelivery{
		ID: trace.NewID(now), Tenant: u.tenant.name, Rule: u.rule.record.Name, Kind: string(kind), Queue: queueOf(string(kind), place),
		AttemptID: u.message.AttemptID, DueAt: now, CreatedAt: now, Request: body,
	}
	if u.rule.onError != nil && !u.again {
		m := u.message
		d.Origin, err = json.Marshal(origin{m.Topic, m.Payload, m.Properties, m.ClientID, m.Principal, m.SourceIP, m.MQTT, m.Depth})
		if err != nil {
			return imprint.Errorf(imprint.CodeRuleAction, "couldn't encode the message of a delivery: %w", err)
		}
	}
	ok, err := o.rows.Reserve(ctx, d.Tenant.Account, unitsOf(d))
	if err != nil {
		return fmt.Errorf("couldn't count the deliveries of account %s: %w", d.Tenant.Account, err)
	}
	if !ok {
		return imprint.Errorf(imprint.CodeRulesBusy, "as many deliveries of account %s wait as may (%d, and large messages count as several)", d.Tenant.Account, o.engine.opts.MaxDeliveries)
	}
	err = again(ctx, func() error {
		return o.engine.store.Update(ctx, func(tx imprint.Tx) error { return tx.PutRuleDelivery(d) })
	})
	if err != nil {
		o.rows.Left(d.Tenant.Account, unitsOf(d))
		return err
	}
	o.crew.Poke()
	return nil
}

func unitsOf(d imprint.RuleDelivery) int { return imprint.OwedUnits(len(d.Request) + len(d.Origin)) }

// owedDeliveries are the deliveries of the store.
type owedDeliveries struct {
	imprint.ReadTx
	now time.Time
}

// Tenants implements fair.Source.
func (o owedDeliveries) Tenants() ([]imprint.Tenant, error) { return o.DeliveryTenants() }

// Queues implements fair.Source.
func (o owedDeliveries) Queues(t imprint.Tenant, after string, limit int) ([]imprint.DueQueue, error) {
	return o.DeliveryQueues(t, after, limit)
}

// Due implements fair.Source.
func (o owedDeliveries) Due(q fair.Queue, limit int) ([]imprint.RuleDelivery, error) {
	return o.RuleDeliveries(q.Tenant, q.Name, o.now, limit)
}

// permanent is a failure that another try can't mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

func isPermanent(err error) bool {
	var p permanent
	return errors.As(err, &p)
}

// try tries one delivery and writes down what became of it. Its error is the
// store's.
func (o *outbox) try(ctx context.Context, listed imprint.RuleDelivery) error {
	e := o.engine
	d, err := o.load(ctx, listed.ID)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if d.Kind == kindConfirm {
		return o.tryConfirm(d)
	}
	trying, cancel := context.WithTimeout(ctx, deliveryPatience)
	defer cancel()
	kind := ActionKind(d.Kind)
	resource, err := o.deliver(trying, d)
	if ctx.Err() != nil {
		return nil // it is tried again at the next start
	}
	if err == nil {
		e.count.of(kind).done.Add(1)
		return o.remove(d)
	}
	d.Failures++
	if !isPermanent(err) && e.clock().Sub(d.CreatedAt) < e.opts.DeliveryAge {
		e.count.of(kind).retried.Add(1)
		return o.putOff(d)
	}
	e.count.of(kind).failed.Add(1)
	e.giveUp(ctx, d, resource, err)
	return o.remove(d)
}

// load reads a delivery whole. Errors: CodeNotFound when it is gone.
func (o *outbox) load(ctx context.Context, id string) (d imprint.RuleDelivery, err error) {
	err = o.engine.store.View(ctx, func(tx imprint.ReadTx) error {
		d, err = tx.RuleDelivery(id)
		return err
	})
	return d, err
}

// abandon gives a delivery up whose try panicked.
func (o *outbox) abandon(ctx context.Context, listed imprint.RuleDelivery, why error) error {
	d, err := o.load(ctx, listed.ID)
	if imprint.CodeOf(err) == imprint.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if d.Kind != kindConfirm {
		o.engine.count.of(ActionKind(d.Kind)).failed.Add(1)
		o.engine.giveUp(ctx, d, "", why)
	}
	return o.remove(d)
}

func (o *outbox) putOff(d imprint.RuleDelivery) error {
	const doublings = 9
	d.DueAt = o.engine.clock().Add(min(firstRetry<<min(d.Failures-1, doublings), longestRetry))
	return o.engine.store.Update(o.ctx, func(tx imprint.Tx) error { return tx.PutRuleDelivery(d) })
}

func (o *outbox) remove(d imprint.RuleDelivery) error {
	err := o.engine.store.Update(o.ctx, func(tx imprint.Tx) error { return tx.DeleteRuleDelivery(d.ID) })
	if err == nil && d.Kind != kindConfirm { // which is counted nowhere
		o.rows.Left(d.Tenant.Account, unitsOf(d))
	}
	return err
}

// deliver sends a delivery where it goes.
func (o *outbox) deliver(ctx context.Context, d imprint.RuleDelivery) (resource string, err error) {
	switch ActionKind(d.Kind) {
	case ActionHTTP:
		return o.post(ctx, d)
	case ActionFirehose:
		return o.record(ctx, d)
	}
	return o.produce(ctx, d)
}

// giveUp tells of a delivery that won't succeed: by the log, the trace and the
// rule's error action, if the rule is still there.
func (e *Engine) giveUp(ctx context.Context, d imprint.RuleDelivery, resource string, why error) {
	t := e.tenant(d.Tenant)
	e.opts.Logger.Warn("a delivery of a topic rule is given up", "tenant", d.Tenant.String(), "rule", d.Rule, "action", d.Kind,
		"resource", imprint.Excerpt(resource), "tries", d.Failures, "error", why)
	s, err := t.current(ctx)
	if err != nil {
		e.opts.Logger.Error("couldn't read a rule for its error action", "rule", d.Rule, "error", err)
		return
	}
	r := s.byName[d.Rule]
	var from origin
	if r == nil || len(d.Origin) == 0 {
		return
	}
	err = json.Unmarshal(d.Origin, &from)
	if err != nil {
		e.opts.Logger.Error("couldn't read the message behind a delivery", "delivery", d.ID, "error", err)
		return
	}
	m := &imprint.RuleMessage{
		Topic: from.Topic, Payload: from.Payload, Properties: from.Properties, ClientID: from.ClientID, Principal: from.Principal,
		SourceIP: from.SourceIP, MQTT: from.MQTT, Depth: from.Depth, AttemptID: d.AttemptID,
	}
	e.fail(ctx, e.newRun(t, r, m, s), []failure{{
		Action: actionName(ActionKind(d.Kind)), Resource: resource, Message: why.Error(),
		err: imprint.Errorf(imprint.CodeRuleAction, "%w", why),
	}})
}
