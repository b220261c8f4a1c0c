package rules

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/imprint-iot/imprint"
)

// Record is what a rule gives to a sink.
type Record struct {
	// ID is the same for each try of one record.
	ID     string
	At     time.Time
	Tenant imprint.Tenant
	Rule   imprint.RuleName
	Data   []byte // with the action's separator
}

// Sink takes records. Put returns when the record is where it should be; it may
// get one again after an error or a restart. It is safe for many goroutines.
type Sink interface {
	Put(context.Context, Record) error
	Close() error
}

// recording is the request of a firehose delivery.
type recording struct {
	Stream string `json:"stream"`
	Data   []byte `json:"data"`
}

// recordLater is the firehose action: the record is in the outbox when it
// returns.
func (e *Engine) recordLater(ctx context.Context, u *run, a *action) (string, error) {
	record := a.record.Firehose
	data := append(append(make([]byte, 0, len(u.payload)+len(record.Separator)), u.payload...), record.Separator...)
	return record.Stream, e.outbox.owe(ctx, u, ActionFirehose, record.Stream, recording{Stream: record.Stream, Data: data})
}

// record tries a firehose delivery.
func (o *outbox) record(ctx context.Context, d imprint.RuleDelivery) (string, error) {
	var r recording
	err := json.Unmarshal(d.Request, &r)
	if err != nil {
		return "", permanent{fmt.Errorf("couldn't read the record: %w", err)}
	}
	sink := o.engine.opts.Sinks[r.Stream]
	if sink == nil {
		return r.Stream, fmt.Errorf("this server has no sink %q any more", imprint.Excerpt(r.Stream))
	}
	return r.Stream, sink.Put(ctx, Record{ID: d.ID, At: d.CreatedAt, Tenant: d.Tenant, Rule: d.Rule, Data: r.Data})
}

// recordHeaders are what goes beside a record where there is room for it.
func recordHeaders(r Record) []imprint.RuleField {
	return []imprint.RuleField{
		{Key: "Imprint-Account", Value: string(r.Tenant.Account)},
		{Key: "Imprint-Region", Value: string(r.Tenant.Region)},
		{Key: "Imprint-Rule", Value: string(r.Rule)},
	}
}
