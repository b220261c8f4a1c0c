package authorities

import (
	"context"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/ca/rollover"
)

// RolloverPath is where the operations on rollovers are. A CA is named there as people name
// it: by an authority's name, id or ARN, or by a certificate's id or its beginning.
//
//	GET    /imprint/rollovers?maxResults=&nextToken=                                     ListRollovers
//	GET    /imprint/rollovers/{ca}                                                      DescribeRollover
//	PUT    /imprint/rollovers/{ca}                                                      StartRollover
//	DELETE /imprint/rollovers/{ca}                                                      DeleteRollover
//	GET    /imprint/rollovers/{ca}/devices?to=&unseenDays=&maxResults=&nextToken=       RehearseRollover
//
// StartRollover with dryRun makes the plan and doesn't keep it. The actions about one CA
// are authorized on what it is: the ARN of the authority, that of the registered CA, or both.
const RolloverPath = "/imprint/rollovers"

// The requests and responses.
type (
	// RehearseInput asks for a part of who would fail if the CA ended today.
	RehearseInput struct {
		CA         string  `api:"path ca CA required"`
		To         *string `api:"query to CA"`
		UnseenDays *int    `api:"query unseenDays UnseenDays"`
		MaxResults *int    `api:"query maxResults RehearseResults"`
		NextToken  *string `api:"query nextToken NextToken"`
	}
	// RehearseOutput is that part. The counts of all parts add up; authorities, labels
	// and server are in the first.
	RehearseOutput struct {
		Items       []RolloverItem `api:"body items Items"`
		Counts      RolloverCounts `api:"body counts Counts"`
		Authorities []RolloverCA   `api:"body authorities Authorities"`
		Labels      []RolloverEST  `api:"body labels Labels"`
		Server      *bool          `api:"body server Flag"`
		NextToken   string         `api:"body nextToken NextToken"`
	}
	// StartInput makes a plan. Devices, certificates and lastEnd are what a rehearsal counted.
	StartInput struct {
		CA           string     `api:"path ca CA required"`
		To           *string    `api:"body to CA"`
		Devices      *int64     `api:"body devices Count"`
		Certificates *int64     `api:"body certificates Count"`
		LastEnd      *time.Time `api:"body lastEnd Time"`
		RenewFrom    *time.Time `api:"body renewFrom Time"`
		RenewUntil   *time.Time `api:"body renewUntil Time"`
		DryRun       *bool      `api:"body dryRun Flag"`
	}
	// RolloverInput names a plan by the CA that ends.
	RolloverInput struct {
		CA string `api:"path ca CA required"`
	}
	// RolloversInput asks for a page of plans.
	RolloversInput struct {
		MaxResults *int    `api:"query maxResults MaxResults"`
		NextToken  *string `api:"query nextToken NextToken"`
	}
	// RolloversOutput is a page of plans.
	RolloversOutput struct {
		Rollovers []RolloverShown `api:"body rollovers Rollovers"`
		NextToken string          `api:"body nextToken NextToken"`
	}
	// NoOutput is nothing.
	NoOutput struct{}
)

// RolloverItem is one that fails.
type RolloverItem struct {
	Kind          string    `api:"body kind String"`
	Thing         string    `api:"body thing String"`
	CertificateID string    `api:"body certificateId String"`
	Subject       string    `api:"body subject String"`
	Serial        string    `api:"body serial String"`
	Signer        string    `api:"body signer String"`
	NotAfter      time.Time `api:"body notAfter Time"`
	SeenAt        time.Time `api:"body seenAt Time"`
	Unseen        *bool     `api:"body unseen Flag"`
	Moved         string    `api:"body moved String"`
	ProvenAt      time.Time `api:"body provenAt Time"`
}

// RolloverCounts are sums over a part.
type RolloverCounts struct {
	Looked         *int64    `api:"body looked Count"`
	Certificates   *int64    `api:"body certificates Count"`
	Devices        *int64    `api:"body devices Count"`
	Loose          *int64    `api:"body loose Count"`
	Moved          *int64    `api:"body moved Count"`
	Proven         *int64    `api:"body proven Count"`
	Unseen         *int64    `api:"body unseen Count"`
	Finished       *int64    `api:"body finished Count"`
	FinishedProven *int64    `api:"body finishedProven Count"`
	Carried        *int64    `api:"body carried Count"`
	Claims         *int64    `api:"body claims Count"`
	Waiting        *int64    `api:"body waiting Count"`
	Inactive       *int64    `api:"body inactive Count"`
	Unregistered   *int64    `api:"body unregistered Count"`
	LastEnd        time.Time `api:"body lastEnd Time"`
}

// RolloverCA is a CA that fails.
type RolloverCA struct {
	Name             string    `api:"body name String"`
	CertificateID    string    `api:"body certificateId String"`
	ID               string    `api:"body id String"`
	Status           string    `api:"body status String"`
	RegisteredStatus string    `api:"body registeredStatus String"`
	AutoRegistration *bool     `api:"body autoRegistration Flag"`
	Template         string    `api:"body template String"`
	NotAfter         time.Time `api:"body notAfter Time"`
}

// RolloverEST is a label of EST that fails.
type RolloverEST struct {
	Name  string `api:"body name String"`
	Signs *bool  `api:"body signs Flag"`
	Shown *bool  `api:"body shown Flag"`
}

// RolloverShown is a plan as it is shown.
type RolloverShown struct {
	From         string         `api:"body from String"`
	FromName     string         `api:"body fromName String"`
	To           string         `api:"body to String"`
	ToName       string         `api:"body toName String"`
	Devices      *int64         `api:"body devices Count"`
	Certificates *int64         `api:"body certificates Count"`
	LastEnd      time.Time      `api:"body lastEnd Time"`
	RenewFrom    time.Time      `api:"body renewFrom Time"`
	RenewUntil   time.Time      `api:"body renewUntil Time"`
	StartedAt    time.Time      `api:"body startedAt Time"`
	StartedBy    string         `api:"body startedBy String"`
	Steps        []RolloverStep `api:"body steps Steps"`
}

// RolloverStep is one step of a plan.
type RolloverStep struct {
	Name    string    `api:"body name String"`
	At      time.Time `api:"body at Time"`
	Until   time.Time `api:"body until Time"`
	State   string    `api:"body state String"`
	Detail  string    `api:"body detail String"`
	Command string    `api:"body command String"`
}

var rolloverCodec = restjson.New(restjson.Shapes{
	"CA":              {Limits: restjson.Between(1, 256)},
	"UnseenDays":      {Limits: restjson.Between(1, 36500)},
	"RehearseResults": {Limits: restjson.Between(1, 1000)},
	"MaxResults":      {Limits: restjson.Between(1, 250)},
	"NextToken":       {Limits: restjson.AtMost(8192)},
	"Count":           {Limits: restjson.Between(0, 1<<53)},
}, "InvalidRequestException")

const oneRollover = RolloverPath + "/{ca}"

// The operations.
var (
	ListRollovers    = awsapi.Define[RolloversInput, RolloversOutput](rolloverCodec, operation("ListRollovers", "GET", RolloverPath, "*"))
	DescribeRollover = awsapi.Define[RolloverInput, RolloverShown](rolloverCodec, operation("DescribeRollover", "GET", oneRollover, "*"))
	StartRollover    = awsapi.Define[StartInput, RolloverShown](rolloverCodec, operation("StartRollover", "PUT", oneRollover, "*"))
	DeleteRollover   = awsapi.Define[RolloverInput, NoOutput](rolloverCodec, operation("DeleteRollover", "DELETE", oneRollover, "*"))
	RehearseRollover = awsapi.Define[RehearseInput, RehearseOutput](rolloverCodec, operation("RehearseRollover", "GET", oneRollover+"/devices", "*"))
)

// RolloverOperations lists those about rollovers.
func RolloverOperations() []awsapi.Operation {
	return []awsapi.Operation{ListRollovers.Operation, DescribeRollover.Operation, StartRollover.Operation, DeleteRollover.Operation, RehearseRollover.Operation}
}

// Rollovers answers the operations.
type Rollovers struct{ Planner *rollover.Planner }

// Routes binds them.
func (r Rollovers) Routes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(ListRollovers, r.list),
		awsapi.HandleForAll(DescribeRollover, func(caller awsapi.Caller, in *RolloverInput) []string { return r.about(caller, in.CA) }, r.describe),
		awsapi.HandleForAll(StartRollover, func(caller awsapi.Caller, in *StartInput) []string { return r.about(caller, in.CA) }, r.start),
		awsapi.HandleForAll(DeleteRollover, func(caller awsapi.Caller, in *RolloverInput) []string { return r.about(caller, in.CA) }, r.delete),
		awsapi.HandleForAll(RehearseRollover, func(caller awsapi.Caller, in *RehearseInput) []string { return r.about(caller, in.CA) }, r.rehearse),
	}
}

// lookUpTime bounds the look-up of what a request is about, before anybody has decided on it.
const lookUpTime = 5 * time.Second

func (r Rollovers) about(caller awsapi.Caller, text string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), lookUpTime)
	defer cancel()
	return r.Planner.Resources(ctx, tenantOf(caller), text)
}

const rehearsePage = 200

func (r Rollovers) rehearse(ctx context.Context, caller awsapi.Caller, in *RehearseInput) (*RehearseOutput, error) {
	q := rollover.Question{Tenant: tenantOf(caller), From: in.CA, To: value(in.To), Cursor: value(in.NextToken), Limit: rehearsePage}
	if in.MaxResults != nil {
		q.Limit = *in.MaxResults
	}
	if in.UnseenDays != nil {
		q.Unseen = time.Duration(*in.UnseenDays) * 24 * time.Hour
	}
	answer, err := r.Planner.Rehearse(ctx, q)
	if err != nil {
		return nil, err
	}
	c := answer.Counts
	out := &RehearseOutput{Items: []RolloverItem{}, NextToken: answer.Next, Counts: RolloverCounts{
		Looked: &c.Looked, Certificates: &c.Certificates, Devices: &c.Devices, Loose: &c.Loose, Moved: &c.Moved, Proven: &c.Proven, Unseen: &c.Unseen,
		Finished: &c.Finished, FinishedProven: &c.FinishedProven, Carried: &c.Carried, Claims: &c.Claims, Waiting: &c.Waiting, Inactive: &c.Inactive,
		Unregistered: &c.Unregistered, LastEnd: c.LastEnd,
	}}
	if in.NextToken == nil {
		out.Server, out.Authorities, out.Labels = &answer.Server, []RolloverCA{}, []RolloverEST{}
	}
	for n := range answer.Labels {
		label := &answer.Labels[n]
		out.Labels = append(out.Labels, RolloverEST{Name: string(label.Name), Signs: &label.Signs, Shown: &label.Shown})
	}
	for n := range answer.Authorities {
		a := &answer.Authorities[n]
		out.Authorities = append(out.Authorities, RolloverCA{
			Name: a.Name, CertificateID: string(a.Certificate), ID: string(a.Authority), Status: a.Status, RegisteredStatus: a.RegisteredStatus,
			AutoRegistration: &a.AutoRegistration, Template: a.Template, NotAfter: a.NotAfter,
		})
	}
	for n := range answer.Items {
		i := &answer.Items[n]
		out.Items = append(out.Items, RolloverItem{
			Kind: string(i.Kind), Thing: string(i.Thing), CertificateID: string(i.Certificate), Subject: i.Subject, Serial: i.Serial, Signer: string(i.Signer),
			NotAfter: i.NotAfter, SeenAt: i.SeenAt, Unseen: &i.Unseen, Moved: string(i.Moved), ProvenAt: i.ProvenAt,
		})
	}
	return out, nil
}

func (r Rollovers) start(ctx context.Context, caller awsapi.Caller, in *StartInput) (*RolloverShown, error) {
	draft := rollover.Draft{
		From: in.CA, To: value(in.To), Devices: value(in.Devices), Certificates: value(in.Certificates), LastEnd: instant(in.LastEnd),
		RenewFrom: instant(in.RenewFrom), RenewUntil: instant(in.RenewUntil), By: caller.PrincipalARN,
	}
	planned := r.Planner.Start
	if value(in.DryRun) {
		planned = r.Planner.Draft
	}
	plan, err := planned(ctx, tenantOf(caller), draft)
	if err != nil {
		return nil, err
	}
	return showPlan(plan), nil
}

func (r Rollovers) describe(ctx context.Context, caller awsapi.Caller, in *RolloverInput) (*RolloverShown, error) {
	plan, err := r.Planner.Plan(ctx, tenantOf(caller), in.CA)
	if err != nil {
		return nil, err
	}
	return showPlan(plan), nil
}

func (r Rollovers) list(ctx context.Context, caller awsapi.Caller, in *RolloversInput) (*RolloversOutput, error) {
	page := imprint.Page{Limit: defaultPage, Cursor: value(in.NextToken), Ascending: true}
	if in.MaxResults != nil {
		page.Limit = *in.MaxResults
	}
	plans, next, err := r.Planner.Plans(ctx, tenantOf(caller), page)
	if err != nil {
		return nil, err
	}
	out := &RolloversOutput{Rollovers: []RolloverShown{}, NextToken: next}
	for _, plan := range plans {
		out.Rollovers = append(out.Rollovers, *showPlan(plan))
	}
	return out, nil
}

func (r Rollovers) delete(ctx context.Context, caller awsapi.Caller, in *RolloverInput) (*NoOutput, error) {
	return nil, r.Planner.Forget(ctx, tenantOf(caller), in.CA)
}

func showPlan(plan rollover.Plan) *RolloverShown {
	shown := &RolloverShown{
		From: string(plan.From), FromName: plan.FromName, To: string(plan.To), ToName: plan.ToName, Devices: &plan.Devices, Certificates: &plan.Certificates,
		LastEnd: plan.LastEnd, RenewFrom: plan.RenewFrom, RenewUntil: plan.RenewUntil, StartedAt: plan.StartedAt, StartedBy: plan.StartedBy, Steps: []RolloverStep{},
	}
	for _, s := range plan.Steps {
		shown.Steps = append(shown.Steps, RolloverStep{Name: string(s.Name), At: s.At, Until: s.Until, State: string(s.State), Detail: s.Detail, Command: s.Command})
	}
	return shown
}
