// Package attempts is Imprint's own operation beside the AWS APIs: what the
// trace recorded of devices' connections and first connections.
//
//	GET /imprint/attempts?match=&failed=&since=&maxResults=&nextToken=
//	GET /imprint/attempts/groups?by=&match=&failed=&since=
//
// Both are signed like every other request of the control plane; their IAM action is
// imprint:ListAttempts. The second counts attempts by what they have in common: by is
// reason, address, thing, certificate or client. Match is a certificate id, an X.509 serial number, a
// thing name, a client id or a peer address, as a person pastes it: what is
// recorded under exactly that text goes first, then an ARN's last part, then the
// ways in which openssl and others print a serial number, then the first digits of an
// id, then the serial number on a device's label, and what the attempts of many devices
// tell of: a CA, a template, a policy. The connection of the claim that made a
// certificate belongs to the certificate. Since is a time: attempts that began, failed or
// ended then or later are listed, those of the caller's tenant, by when they began, newest first. Operators of the
// server's home tenant also see attempts that died before a tenant was known.
package attempts

import (
	"context"
	"slices"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/trace"
)

// Path is where the operation is.
const Path = "/imprint/attempts"

// ListAttemptsInput is the request of ListAttempts.
type ListAttemptsInput struct {
	Match      *string    `api:"query match Match"`
	Failed     *bool      `api:"query failed Failed"`
	Since      *time.Time `api:"query since Since"`
	MaxResults *int       `api:"query maxResults MaxResults"`
	NextToken  *string    `api:"query nextToken NextToken"`
}

// ListAttemptsOutput is the response of ListAttempts.
type ListAttemptsOutput struct {
	Attempts  []Attempt `api:"body attempts Attempts"`
	NextToken string    `api:"body nextToken NextToken"`
	// Notes say what the match was taken for, or, where nothing is recorded under it,
	// what is known of it and which attempts may be its.
	Notes []string `api:"body notes Notes"`
}

// Attempt is one connection by a device. Times are epoch seconds.
type Attempt struct {
	AttemptID string    `api:"body attemptId String"`
	Account   string    `api:"body account String"`
	Region    string    `api:"body region String"`
	Began     time.Time `api:"body began Time"`
	Ended     time.Time `api:"body ended Time"` // absent while the device is on
	// Changed is when it began, when something failed last, or when it ended.
	Changed       time.Time `api:"body changed Time"`
	Address       string    `api:"body address String"`
	ServerName    string    `api:"body serverName String"`
	ALPN          string    `api:"body alpn String"`
	TLSVersion    string    `api:"body tlsVersion String"`
	CertificateID string    `api:"body certificateId String"`
	Serial        string    `api:"body serialNumber String"`
	Subject       string    `api:"body subject String"`
	ThingName     string    `api:"body thingName String"`
	ClientID      string    `api:"body clientId String"`
	Outcome       string    `api:"body outcome String"`
	Code          string    `api:"body code String"`
	// Reason is the code and the name of the step that somebody has to mend; empty when
	// none failed.
	Reason string `api:"body reason String"`
	Steps  []Step `api:"body steps Steps"`
	// Repeats is how many earlier attempts ended in the same way and are counted here
	// instead of being kept; FirstAt is when the first of them began. Devices is how many
	// devices were told apart, up to 1,000, where they are of many, and Sample names the
	// latest of these, by certificate or address.
	Repeats *int      `api:"body repeats Integer"` // absent: none
	FirstAt time.Time `api:"body firstAt Time"`
	Devices *int      `api:"body devices Integer"` // absent: all are of one
	Sample  []string  `api:"body sample Names"`
	// Next is what the device is expected to do next.
	Next string `api:"body next String"`
}

// Step is one thing that happened in an attempt.
type Step struct {
	At      time.Time `api:"body at Time"`
	Name    string    `api:"body step String"`
	Verdict string    `api:"body verdict String"`
	Code    string    `api:"body code String"`
	Detail  string    `api:"body detail String"`
	Fix     string    `api:"body fix String"`
	// What a policy was asked, where the step is its decision.
	Action   string `api:"body action String"`
	Resource string `api:"body resource String"`
	// Wire is what the device's own log has of it, by name and number.
	Wire string `api:"body wire String"`
	// CertificateID is what the step made.
	CertificateID string `api:"body certificateId String"`
	// Repeats is how often the same happened again, and LastAt when it did last. Others is
	// true where that has the step's name and code in common, and the rest is of the last.
	Repeats *int      `api:"body repeats Integer"` // absent: never
	LastAt  time.Time `api:"body lastAt Time"`
	Others  *bool     `api:"body others Boolean"` // absent: no
}

var codec = restjson.New(restjson.Shapes{
	"Match":      {Limits: restjson.Between(1, 512)},
	"MaxResults": {Limits: restjson.Between(1, 250)},
	"NextToken":  {Limits: restjson.AtMost(2048)},
	"GroupBy":    {Enum: []string{ByReason, ByAddress, ByThing, ByCert, ByClient}},
}, "InvalidRequestException")

// ListAttempts lists recorded attempts.
var ListAttempts = awsapi.Define[ListAttemptsInput, ListAttemptsOutput](codec, awsapi.Operation{
	Name: "ListAttempts", Method: "GET", Path: Path, Action: "imprint:ListAttempts", Resource: "*",
})

// Operations lists what the package defines.
func Operations() []awsapi.Operation {
	return []awsapi.Operation{ListAttempts.Operation, GroupAttempts.Operation}
}

// Recorded is what answers are read from: the store, after what is still on its
// way to it was written.
type Recorded struct {
	Store imprint.Store
	// Flush waits until everything recorded so far is in the store.
	Flush func(context.Context) error
	// Home is the tenant whose operators also see attempts that died before a
	// tenant was known.
	Home imprint.Tenant
	// Clock tells the time; nil: time.Now.
	Clock imprint.Clock
	// Keeping tells which attempts are kept, and Connected who is on, by client id and by
	// certificate, either of which may be empty. Either may be nil: it isn't known.
	Keeping   func() Keeping
	Connected func(imprint.Tenant, imprint.ClientID, imprint.CertificateID) []Live
}

const defaultPage = 50

// Routes binds the operation.
func (r Recorded) Routes() []awsapi.Route {
	return []awsapi.Route{awsapi.Handle(ListAttempts, r.list), awsapi.Handle(GroupAttempts, r.group)}
}

// filter reads what is common to requests, after what is on its way to the trace was
// written. Forms are the texts that a match may be recorded under.
func (r Recorded) filter(ctx context.Context, caller awsapi.Caller, match *string, failed *bool, since *time.Time) (f imprint.AttemptFilter, forms []string, err error) {
	err = r.Flush(ctx)
	if err != nil {
		return f, nil, imprint.Errorf(imprint.CodeUnavailable, "couldn't write what is still on its way to the trace: %w", err)
	}
	f.Tenant = imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
	f.Unassigned = f.Tenant == r.Home
	forms = []string{""}
	if match != nil {
		forms = formsOf(*match)
	}
	if failed != nil {
		f.FailedOnly = *failed
	}
	if since != nil {
		f.Since = *since
	}
	return f, forms, nil
}

// page lists what is recorded under one of the forms.
func (r Recorded) page(tx imprint.ReadTx, filter imprint.AttemptFilter, page imprint.Page, forms []string) ([]imprint.Attempt, string, error) {
	others, err := behindCertificate(tx, filter.Tenant, forms)
	if err != nil {
		return nil, "", err
	}
	all := append(slices.Clone(forms), others...)
	found, next, err := firstForm(tx, filter, page, all)
	if err != nil || next != "" || forms[0] == "" {
		return found, next, err
	}
	first := ""
	if len(found) > 0 {
		first = found[0].ID
	}
	found, err = withMakers(tx, filter, forms, found)
	if err == nil && page.Cursor != "" {
		found, err = withoutListed(tx, filter, all, found, first)
	}
	return found, "", err
}

func (r Recorded) list(ctx context.Context, caller awsapi.Caller, in *ListAttemptsInput) (*ListAttemptsOutput, error) {
	filter, forms, err := r.filter(ctx, caller, in.Match, in.Failed, in.Since)
	if err != nil {
		return nil, err
	}
	page := imprint.Page{Limit: defaultPage}
	if in.MaxResults != nil {
		page.Limit = *in.MaxResults
	}
	if in.NextToken != nil {
		page.Cursor = *in.NextToken
	}
	q := &quest{Recorded: r, filter: filter, forms: forms}
	if in.Match != nil {
		q.word = *in.Match
	}
	found, next, err := q.find(ctx, page)
	if err != nil {
		return nil, err
	}
	out := &ListAttemptsOutput{Attempts: make([]Attempt, 0, len(found)), NextToken: next, Notes: q.notes}
	for _, a := range found {
		out.Attempts = append(out.Attempts, present(a))
	}
	if len(found) > 0 || q.word == "" || page.Cursor != "" || in.Since != nil {
		return out, nil
	}
	now := time.Now
	if r.Clock != nil {
		now = r.Clock
	}
	out.Notes, err = q.absent(ctx, now())
	return out, err
}

// Find lists the attempts that a filter selects of those that are recorded under what
// a person pasted; empty selects all. Errors: CodeInvalidRequest for the ARN of another tenant's.
func Find(tx imprint.ReadTx, filter imprint.AttemptFilter, page imprint.Page, match string) ([]imprint.Attempt, string, error) {
	forms := []string{""}
	if match != "" {
		if elsewhere := ofAnother(match, filter.Tenant); elsewhere != "" {
			return nil, "", imprint.Errorf(imprint.CodeInvalidRequest, "%s", elsewhere)
		}
		forms = formsOf(match)
	}
	return Recorded{}.page(tx, filter, page, forms)
}

// firstForm lists what the first form finds that anything at all is recorded
// under: a thing's name may look like a serial number.
func firstForm(tx imprint.ReadTx, filter imprint.AttemptFilter, page imprint.Page, forms []string) ([]imprint.Attempt, string, error) {
	for _, form := range forms[:len(forms)-1] {
		known := imprint.AttemptFilter{Tenant: filter.Tenant, Unassigned: filter.Unassigned, Match: form}
		some, _, err := tx.Attempts(known, imprint.Page{Limit: 1})
		if err != nil {
			return nil, "", err
		}
		if len(some) > 0 {
			filter.Match = form
			return tx.Attempts(filter, page)
		}
	}
	filter.Match = forms[len(forms)-1]
	return tx.Attempts(filter, page)
}

// maxThings bounds the things of a certificate that are looked up.
const maxThings = 10

// behindCertificate gives what else a certificate's beginnings are recorded under:
// one that a claim was given hasn't connected yet, but the claim's connection is
// found by the thing that came of it; before that by the claim.
func behindCertificate(tx imprint.ReadTx, tenant imprint.Tenant, forms []string) ([]string, error) {
	var others []string
	for _, form := range forms {
		id, err := imprint.ParseCertificateID(form)
		if err != nil {
			continue
		}
		things, _, err := tx.CertificateThings(tenant, id, imprint.Page{Limit: maxThings, Ascending: true})
		if err != nil {
			return nil, err
		}
		for _, attachment := range things {
			others = append(others, string(attachment.Thing))
		}
		making, err := tx.AttemptsMaking(tenant, id, 1)
		if err != nil {
			return nil, err
		}
		if len(making) > 0 {
			continue // they are found by that
		}
		pending, err := tx.PendingCertificate(tenant, id)
		switch {
		case err == nil && len(things) == 0:
			others = append(others, string(pending.Claim))
		case err != nil && imprint.CodeOf(err) != imprint.CodeNotFound:
			return nil, err
		}
	}
	return others, nil
}

func present(a imprint.Attempt) Attempt {
	out := Attempt{
		AttemptID: a.ID, Account: string(a.Tenant.Account), Region: string(a.Tenant.Region),
		Began: a.At, Ended: a.EndedAt, Changed: a.ChangedAt(), Address: a.Address, ServerName: a.SNI, ALPN: a.ALPN, TLSVersion: a.TLSVersion,
		CertificateID: string(a.CertificateID), Serial: a.Serial, Subject: a.Subject, ThingName: string(a.Thing),
		ClientID: string(a.ClientID), Outcome: string(a.Outcome), Code: string(a.Code), Reason: a.Reason(), Steps: make([]Step, 0, len(a.Steps)),
		FirstAt: a.FirstAt, Sample: a.Sample, Next: trace.NextOf(&a),
	}
	if a.Repeats > 0 {
		out.Repeats = &a.Repeats
	}
	if a.Devices > 0 {
		out.Devices = &a.Devices
	}
	for i := range a.Steps {
		s := &a.Steps[i]
		shown := Step{
			At: s.At, Name: s.Name, Verdict: string(s.Verdict), Code: string(s.Code), Detail: s.Detail, Fix: s.Fix,
			Action: s.Action, Resource: s.Resource, Wire: s.Wire, CertificateID: string(s.Certificate), LastAt: s.LastAt,
		}
		if s.Repeats > 0 {
			shown.Repeats = &s.Repeats
		}
		if s.Others {
			shown.Others = &s.Others
		}
		out.Steps = append(out.Steps, shown)
	}
	return out
}
