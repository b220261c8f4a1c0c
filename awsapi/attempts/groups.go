package attempts

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
)

// GroupsPath is where GroupAttempts is.
const GroupsPath = "/imprint/attempts/groups"

// GroupAttemptsInput is the request of GroupAttempts.
type GroupAttemptsInput struct {
	By     string     `api:"query by GroupBy required"`
	Match  *string    `api:"query match Match"`
	Failed *bool      `api:"query failed Failed"`
	Since  *time.Time `api:"query since Since"`
}

// GroupAttemptsOutput is the response of GroupAttempts, the largest group first.
type GroupAttemptsOutput struct {
	Groups []Group `api:"body groups Groups"`
	// Read is how many entries of the trace were looked at, and Complete false when
	// there are older ones that weren't.
	Read     int  `api:"body attemptsRead Integer"`
	Complete bool `api:"body complete Boolean"`
	// Others counts the attempts of groups beyond the first maxGroups.
	Others int `api:"body others Integer"`
}

// Group is attempts that have something in common.
type Group struct {
	Key string `api:"body key String"`
	// Attempts counts those that were folded into others, too, and Devices the
	// certificates, or addresses where none is known; up to maxDevices of a group are
	// told apart, and of one entry that counts many devices as many as it tells apart.
	Attempts int `api:"body attempts Integer"`
	Devices  int `api:"body devices Integer"`
	// First is when the first of them began, and Last when one failed last, or began last.
	First time.Time `api:"body first Time"`
	Last  time.Time `api:"body last Time"`
	// What follows is of the attempt that failed last, or began last.
	AttemptID string `api:"body attemptId String"`
	Code      string `api:"body code String"`
	Step      string `api:"body step String"`
	Detail    string `api:"body detail String"`
	Fix       string `api:"body fix String"`
}

// What attempts can be grouped by.
const (
	ByReason  = "reason" // the failed step and its code: imprint.Attempt.Reason
	ByAddress = "address"
	ByThing   = "thing"
	ByCert    = "certificate"
	ByClient  = "client"
)

const (
	// maxGrouped is how many entries of the trace one request looks at.
	maxGrouped = 100_000
	maxGroups  = 1000
	maxDevices = 10_000
	groupPage  = 1000
)

// GroupAttempts counts recorded attempts.
var GroupAttempts = awsapi.Define[GroupAttemptsInput, GroupAttemptsOutput](codec, awsapi.Operation{
	Name: "GroupAttempts", Method: "GET", Path: GroupsPath, Action: "imprint:ListAttempts", Resource: "*",
})

// grouping is a group while it grows.
type grouping struct {
	Group
	devices map[string]struct{}
	apart   int // the most devices that are counted in one entry
}

func (r Recorded) group(ctx context.Context, caller awsapi.Caller, in *GroupAttemptsInput) (*GroupAttemptsOutput, error) {
	filter, forms, err := r.filter(ctx, caller, in.Match, in.Failed, in.Since)
	if err != nil {
		return nil, err
	}
	groups, things := make(map[string]*grouping), make(map[holder]imprint.ThingName)
	out := &GroupAttemptsOutput{Complete: true}
	page := imprint.Page{Limit: groupPage}
	for {
		var found []imprint.Attempt
		// A view for each page: none stays open for the whole time, which would keep the
		// log of the database from beginning anew.
		err = r.Store.View(ctx, func(tx imprint.ReadTx) error {
			list, next, err := r.page(tx, filter, page, forms)
			found, page.Cursor = list, next
			if err == nil && in.By == ByThing {
				err = nameThings(tx, list, things)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		for i := range found {
			add(groups, in.By, &found[i])
		}
		out.Read += len(found)
		if page.Cursor == "" {
			break
		}
		if out.Read >= maxGrouped {
			out.Complete = false
			break
		}
	}
	out.Groups = make([]Group, 0, len(groups))
	for _, g := range groups {
		g.Devices = max(len(g.devices), g.apart)
		out.Groups = append(out.Groups, g.Group)
	}
	slices.SortFunc(out.Groups, func(a, b Group) int {
		if a.Attempts != b.Attempts {
			return b.Attempts - a.Attempts
		}
		return strings.Compare(a.Key, b.Key)
	})
	if len(out.Groups) > maxGroups {
		for _, g := range out.Groups[maxGroups:] {
			out.Others += g.Attempts
		}
		out.Groups = out.Groups[:maxGroups]
	}
	return out, nil
}

// holder is a certificate that things are attached to.
type holder struct {
	tenant      imprint.Tenant
	certificate imprint.CertificateID
}

// nameThings gives attempts that ended before a thing was looked up that of their
// certificate, where it has one thing. Known are those that were read before.
func nameThings(tx imprint.ReadTx, list []imprint.Attempt, known map[holder]imprint.ThingName) error {
	for i := range list {
		a := &list[i]
		if a.Thing != "" || a.CertificateID == "" || a.Tenant == (imprint.Tenant{}) {
			continue
		}
		of := holder{a.Tenant, a.CertificateID}
		name, found := known[of]
		if !found {
			attached, _, err := tx.CertificateThings(of.tenant, of.certificate, imprint.Page{Limit: 2, Ascending: true})
			if err != nil {
				return err
			}
			if len(attached) == 1 {
				name = attached[0].Thing
			}
			known[of] = name
		}
		a.Thing = name
	}
	return nil
}

// add counts an attempt. They come newest first.
func add(groups map[string]*grouping, by string, a *imprint.Attempt) {
	step := a.Failure()
	key := keyOf(a, by)
	first := a.At
	if a.Repeats > 0 {
		first = a.FirstAt
	}
	last := a.At
	if step.Last().After(last) {
		last = step.Last()
	}
	g := groups[key]
	if g == nil {
		g = &grouping{Group: Group{Key: key, First: first}, devices: make(map[string]struct{})}
		groups[key] = g
	}
	if last.After(g.Last) {
		code := a.Code
		if step.Code != "" {
			code = step.Code
		}
		g.Last, g.AttemptID, g.Code, g.Step, g.Detail, g.Fix = last, a.ID, string(code), step.Name, step.Detail, step.Fix
	}
	g.Attempts += 1 + a.Repeats
	if first.Before(g.First) {
		g.First = first
	}
	device := string(a.CertificateID)
	if device == "" && a.OfLine() {
		device = a.Address
	}
	if device == "" {
		device = a.Host()
	}
	for _, device := range append([]string{device}, a.Sample...) {
		if len(g.devices) < maxDevices {
			g.devices[device] = struct{}{}
		}
	}
	// Which devices are counted in one entry isn't kept of all: of two entries the
	// larger number tells.
	g.apart = max(g.apart, a.Devices)
}

func keyOf(a *imprint.Attempt, by string) string {
	key := ""
	switch by {
	case ByReason:
		key = a.Reason()
		if key == "" {
			key = string(a.Code)
		}
		if key == "" {
			key = string(a.Outcome)
		}
	case ByAddress:
		key = a.Host()
	case ByThing:
		key = string(a.Thing)
	case ByCert:
		key = string(a.CertificateID)
	case ByClient:
		key = string(a.ClientID)
	}
	if a.Devices > 1 && by != ByReason {
		return "(many devices)"
	}
	if key == "" {
		return "(none)"
	}
	return key
}
