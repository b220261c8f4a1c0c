// Package claims is Imprint's own API for the guards of claim certificates: what
// one claim certificate may bring about in fleet provisioning.
//
//	GET    /imprint/claims?maxResults=&nextToken=           ListClaimGuards
//	GET    /imprint/claims/{certificateId}                  DescribeClaimGuard
//	PUT    /imprint/claims/{certificateId}                  PutClaimGuard
//	DELETE /imprint/claims/{certificateId}                  DeleteClaimGuard
//	POST   /imprint/claims/{certificateId}/serials          AddClaimSerials
//	DELETE /imprint/claims/{certificateId}/serials          DeleteClaimSerials
//
// They are signed like every other request of the control plane; their IAM
// actions are imprint:ListClaimGuards and so on, on the ARN of the certificate.
// PutClaimGuard changes the members that the request has, and makes the guard
// when there is none; times are epoch seconds, and 0 takes a bound away. An allow
// list of any length is sent in parts of at most 10,000 serial numbers: adding one
// twice does no harm, so an upload that broke off is sent again.
package claims

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
)

// Path is where the operations are.
const Path = "/imprint/claims"

// MaxSerials is how many serial numbers one AddClaimSerials takes.
const MaxSerials = 10_000

// The requests and responses.
type (
	// GuardInput names a guard.
	GuardInput struct {
		CertificateID string `api:"path certificateId CertificateID required"`
	}
	// ListInput asks for a page of guards.
	ListInput struct {
		MaxResults *int    `api:"query maxResults MaxResults"`
		NextToken  *string `api:"query nextToken NextToken"`
	}
	// ListOutput is a page of guards.
	ListOutput struct {
		Guards    []Guard `api:"body guards Guards"`
		NextToken string  `api:"body nextToken NextToken"`
	}
	// PutInput changes a guard.
	PutInput struct {
		CertificateID   string     `api:"path certificateId CertificateID required"`
		Quota           *int       `api:"body quota Count"`
		NotBefore       *time.Time `api:"body notBefore Time"`
		NotAfter        *time.Time `api:"body notAfter Time"`
		Networks        []string   `api:"body networks Networks"`
		SerialParameter *string    `api:"body serialParameter Parameter"`
		SerialReuse     *bool      `api:"body serialReuse Flag"`
		MaxRequests     *int       `api:"body maxRequests Count"`
		MaxRefusals     *int       `api:"body maxRefusals Count"`
		WindowSeconds   *int       `api:"body windowSeconds Seconds"`
		Resume          *bool      `api:"body resume Flag"`
	}
	// SerialsInput adds to an allow list.
	SerialsInput struct {
		CertificateID string   `api:"path certificateId CertificateID required"`
		Serials       []string `api:"body serials Serials required"`
	}
	// SerialsOutput says what came of it.
	SerialsOutput struct {
		Changed *int `api:"body changed Count"` // added, or deleted
		Total   *int `api:"body total Count"`
	}
	// Empty is a response without members.
	Empty struct{}
)

// Guard is a claim's guard. Times are epoch seconds.
type Guard struct {
	CertificateID   string    `api:"body certificateId String"`
	Quota           *int      `api:"body quota Count"`
	NotBefore       time.Time `api:"body notBefore Time"`
	NotAfter        time.Time `api:"body notAfter Time"`
	Networks        []string  `api:"body networks Networks"`
	SerialParameter string    `api:"body serialParameter String"`
	SerialReuse     *bool     `api:"body serialReuse Flag"`
	MaxRequests     *int      `api:"body maxRequests Count"`
	MaxRefusals     *int      `api:"body maxRefusals Count"`
	WindowSeconds   *int      `api:"body windowSeconds Seconds"`
	Devices         *int      `api:"body devices Count"`
	Serials         *int      `api:"body serials Count"`
	StoppedAt       time.Time `api:"body stoppedAt Time"`
	StopCode        string    `api:"body stopCode String"`
	StopReason      string    `api:"body stopReason String"`
}

const maxCount = 1_000_000_000

var codec = restjson.New(restjson.Shapes{
	"CertificateID": {Limits: restjson.Between(64, 64), Pattern: `(0x)?[a-fA-F0-9]+`},
	"MaxResults":    {Limits: restjson.Between(1, 250)},
	"NextToken":     {Limits: restjson.AtMost(2048)},
	"Count":         {Limits: restjson.Between(0, maxCount)},
	"Seconds":       {Limits: restjson.Between(0, 30*24*3600)},
	"Networks":      {Limits: restjson.AtMost(imprint.MaxClaimNetworks), Member: "Network"},
	"Network":       {Limits: restjson.Between(1, 64)},
	"Parameter":     {Limits: restjson.AtMost(imprint.MaxClaimSerial)},
	"Serials":       {Limits: restjson.Between(1, MaxSerials), Member: "Serial"},
	"Serial":        {Limits: restjson.Between(1, imprint.MaxClaimSerial)},
	"Guards":        {Member: "Guard"},
}, "InvalidRequestException")

func operation(name, method, path string) awsapi.Operation {
	return awsapi.Operation{Name: name, Method: method, Path: path, Action: "imprint:" + name, Resource: "*"}
}

const (
	onePath = Path + "/{certificateId}"
	serials = onePath + "/serials"
)

// The operations.
var (
	ListClaimGuards    = awsapi.Define[ListInput, ListOutput](codec, operation("ListClaimGuards", "GET", Path))
	DescribeClaimGuard = awsapi.Define[GuardInput, Guard](codec, operation("DescribeClaimGuard", "GET", onePath))
	PutClaimGuard      = awsapi.Define[PutInput, Guard](codec, operation("PutClaimGuard", "PUT", onePath))
	DeleteClaimGuard   = awsapi.Define[GuardInput, Empty](codec, operation("DeleteClaimGuard", "DELETE", onePath))
	AddClaimSerials    = awsapi.Define[SerialsInput, SerialsOutput](codec, operation("AddClaimSerials", "POST", serials))
	DeleteClaimSerials = awsapi.Define[GuardInput, SerialsOutput](codec, operation("DeleteClaimSerials", "DELETE", serials))
)

// Operations lists what the package defines.
func Operations() []awsapi.Operation {
	return []awsapi.Operation{
		ListClaimGuards.Operation, DescribeClaimGuard.Operation, PutClaimGuard.Operation, DeleteClaimGuard.Operation,
		AddClaimSerials.Operation, DeleteClaimSerials.Operation,
	}
}

// Guards keeps the guards.
type Guards struct {
	Store imprint.Store
	Clock imprint.Clock
	// Resumed is told of a claim that may go on.
	Resumed func(imprint.Tenant, imprint.CertificateID)
}

// Routes binds the operations.
func (g Guards) Routes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(ListClaimGuards, g.list),
		awsapi.HandleFor(DescribeClaimGuard, guarded, g.describe),
		awsapi.HandleFor(PutClaimGuard, func(c awsapi.Caller, in *PutInput) string { return certificateARN(c, in.CertificateID) }, g.put),
		awsapi.HandleFor(DeleteClaimGuard, guarded, g.remove),
		awsapi.HandleFor(AddClaimSerials, func(c awsapi.Caller, in *SerialsInput) string { return certificateARN(c, in.CertificateID) }, g.add),
		awsapi.HandleFor(DeleteClaimSerials, guarded, g.clear),
	}
}

func guarded(caller awsapi.Caller, in *GuardInput) string {
	return certificateARN(caller, in.CertificateID)
}

// certificateARN is what identity policies see of a claim: its id in lower case, so that no
// other spelling gets past a Deny.
func certificateARN(caller awsapi.Caller, id string) string {
	parsed, err := imprint.ParseCertificateID(id)
	if err != nil {
		return "*" // the operation refuses it
	}
	return tenantOf(caller).CertificateARN(parsed)
}

func tenantOf(caller awsapi.Caller) imprint.Tenant {
	return imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
}

const defaultPage = 50

func (g Guards) list(ctx context.Context, caller awsapi.Caller, in *ListInput) (*ListOutput, error) {
	page := imprint.Page{Limit: defaultPage, Ascending: true}
	if in.MaxResults != nil {
		page.Limit = *in.MaxResults
	}
	if in.NextToken != nil {
		page.Cursor = *in.NextToken
	}
	out := &ListOutput{}
	err := g.Store.View(ctx, func(tx imprint.ReadTx) error {
		*out = ListOutput{Guards: []Guard{}}
		found, next, err := tx.ClaimGuards(tenantOf(caller), page)
		out.NextToken = next
		for _, guard := range found {
			out.Guards = append(out.Guards, present(guard))
		}
		return err
	})
	return out, err
}

func (g Guards) describe(ctx context.Context, caller awsapi.Caller, in *GuardInput) (*Guard, error) {
	id, err := imprint.ParseCertificateID(in.CertificateID)
	if err != nil {
		return nil, err
	}
	var out Guard
	err = g.Store.View(ctx, func(tx imprint.ReadTx) error {
		found, err := tx.ClaimGuard(tenantOf(caller), id)
		out = present(found)
		return err
	})
	return &out, err
}

// put changes a guard or makes it. What it has counted stays.
func (g Guards) put(ctx context.Context, caller awsapi.Caller, in *PutInput) (*Guard, error) {
	id, err := imprint.ParseCertificateID(in.CertificateID)
	if err != nil {
		return nil, err
	}
	networks, err := parseNetworks(in.Networks)
	if err != nil {
		return nil, err
	}
	tenant, now := tenantOf(caller), g.Clock()
	var out Guard
	err = g.Store.Update(ctx, func(tx imprint.Tx) error {
		guard, err := tx.ClaimGuard(tenant, id)
		if imprint.CodeOf(err) == imprint.CodeNotFound {
			_, err = tx.Certificate(tenant, id)
			if imprint.CodeOf(err) == imprint.CodeNotFound {
				return imprint.Errorf(imprint.CodeNotFound, "Certificate %s cannot be found.", id)
			}
			guard = imprint.ClaimGuard{Tenant: tenant, Claim: id, CreatedAt: now}
		}
		if err != nil {
			return err
		}
		if in.Networks != nil {
			guard.Networks = networks
		}
		in.apply(&guard)
		guard.ModifiedAt = now
		if (in.NotBefore != nil || in.NotAfter != nil) && !guard.NotBefore.IsZero() && !guard.NotAfter.IsZero() && !guard.NotAfter.After(guard.NotBefore) {
			return imprint.Errorf(imprint.CodeInvalidRequest, "The claim could never be used: it ends at %s, and begins at %s.",
				guard.NotAfter.UTC().Format(time.RFC3339), guard.NotBefore.UTC().Format(time.RFC3339))
		}
		if in.Resume != nil && *in.Resume && guard.Quota > 0 && guard.Devices >= guard.Quota {
			return imprint.Errorf(imprint.CodeInvalidRequest, "The claim can't go on: it has registered %d devices, as many as its quota of %d allows, and its next request would stop it again.",
				guard.Devices, guard.Quota).WithHint("imprint claim guard %s --quota N --resume", id)
		}
		if (guard.MaxRequests > 0 || guard.MaxRefusals > 0) && guard.Window <= 0 {
			return imprint.Errorf(imprint.CodeInvalidRequest, "maxRequests and maxRefusals mean nothing without windowSeconds.")
		}
		out = present(guard)
		return tx.PutClaimGuard(guard)
	})
	if err == nil && in.Resume != nil && *in.Resume {
		g.Resumed(tenant, id)
	}
	return &out, err
}

func (in *PutInput) apply(guard *imprint.ClaimGuard) {
	setInt(&guard.Quota, in.Quota)
	setInt(&guard.MaxRequests, in.MaxRequests)
	setInt(&guard.MaxRefusals, in.MaxRefusals)
	setTime(&guard.NotBefore, in.NotBefore)
	setTime(&guard.NotAfter, in.NotAfter)
	if in.SerialParameter != nil {
		guard.SerialParameter = *in.SerialParameter
	}
	if in.SerialReuse != nil {
		guard.SerialReuse = *in.SerialReuse
	}
	if in.WindowSeconds != nil {
		guard.Window = time.Duration(*in.WindowSeconds) * time.Second
	}
	if in.Resume != nil && *in.Resume {
		guard.StoppedAt, guard.StopCode, guard.StopReason = time.Time{}, "", ""
	}
}

func setInt(to, from *int) {
	if from != nil {
		*to = *from
	}
}

// setTime sets a time; 1970 takes it away.
func setTime(to, from *time.Time) {
	switch {
	case from == nil:
	case from.Unix() == 0:
		*to = time.Time{}
	default:
		*to = *from
	}
}

// parseNetworks reads prefixes, and addresses as prefixes of one.
func parseNetworks(texts []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		if err != nil && !strings.Contains(text, "/") {
			var address netip.Addr
			address, err = netip.ParseAddr(text)
			if err == nil {
				network = netip.PrefixFrom(address, address.BitLen())
			}
		}
		if err != nil {
			return nil, imprint.Errorf(imprint.CodeInvalidRequest, "network %q is neither an address nor a prefix such as 192.0.2.0/24.", imprint.Excerpt(text))
		}
		networks = append(networks, unmapped(network.Masked()))
	}
	return networks, nil
}

// unmapped gives an IPv4 network that is written as IPv6 (::ffff:192.0.2.0/120) as
// IPv4: addresses of devices are, and would match nothing else.
func unmapped(network netip.Prefix) netip.Prefix {
	const before = 96
	if !network.Addr().Is4In6() || network.Bits() < before {
		return network
	}
	return netip.PrefixFrom(network.Addr().Unmap(), network.Bits()-before)
}

// serialBatch bounds one transaction over serial numbers, so that it never holds
// the committer long.
const serialBatch = 1000

func (g Guards) remove(ctx context.Context, caller awsapi.Caller, in *GuardInput) (*Empty, error) {
	_, err := g.clear(ctx, caller, in)
	if err != nil {
		return nil, err
	}
	id, err := imprint.ParseCertificateID(in.CertificateID)
	if err != nil {
		return nil, err
	}
	return &Empty{}, g.Store.Update(ctx, func(tx imprint.Tx) error { return tx.DeleteClaimGuard(tenantOf(caller), id) })
}

// add puts serial numbers into an allow list. Whole parts of it are durable when
// it fails half-way.
func (g Guards) add(ctx context.Context, caller awsapi.Caller, in *SerialsInput) (*SerialsOutput, error) {
	id, err := imprint.ParseCertificateID(in.CertificateID)
	if err != nil {
		return nil, err
	}
	tenant := tenantOf(caller)
	added, total := 0, 0
	for rest := in.Serials; len(rest) > 0; {
		part := rest[:min(serialBatch, len(rest))]
		rest = rest[len(part):]
		fresh := 0
		err = g.Store.Update(ctx, func(tx imprint.Tx) error {
			guard, err := tx.ClaimGuard(tenant, id)
			if err != nil {
				return err
			}
			fresh, err = tx.AddClaimSerials(tenant, id, part)
			if err != nil {
				return err
			}
			guard.Serials += fresh
			total = guard.Serials
			return tx.PutClaimGuard(guard)
		})
		if err != nil {
			return nil, err
		}
		added += fresh
	}
	return &SerialsOutput{Changed: &added, Total: &total}, nil
}

// clear empties an allow list.
func (g Guards) clear(ctx context.Context, caller awsapi.Caller, in *GuardInput) (*SerialsOutput, error) {
	id, err := imprint.ParseCertificateID(in.CertificateID)
	if err != nil {
		return nil, err
	}
	tenant := tenantOf(caller)
	deleted, total := 0, 0
	for {
		gone := 0
		err = g.Store.Update(ctx, func(tx imprint.Tx) error {
			guard, err := tx.ClaimGuard(tenant, id)
			if err != nil {
				return err
			}
			gone, err = tx.DeleteClaimSerials(tenant, id, serialBatch)
			if err != nil {
				return err
			}
			guard.Serials = max(0, guard.Serials-gone)
			total = guard.Serials
			return tx.PutClaimGuard(guard)
		})
		if err != nil {
			return nil, err
		}
		deleted += gone
		if gone < serialBatch {
			return &SerialsOutput{Changed: &deleted, Total: &total}, nil
		}
	}
}

func present(g imprint.ClaimGuard) Guard {
	out := Guard{
		CertificateID: string(g.Claim), Quota: &g.Quota, NotBefore: g.NotBefore, NotAfter: g.NotAfter, Networks: []string{},
		SerialParameter: g.SerialParameter, SerialReuse: &g.SerialReuse, MaxRequests: &g.MaxRequests, MaxRefusals: &g.MaxRefusals,
		WindowSeconds: new(int(g.Window / time.Second)), Devices: &g.Devices, Serials: &g.Serials,
		StoppedAt: g.StoppedAt, StopCode: string(g.StopCode), StopReason: g.StopReason,
	}
	for _, network := range g.Networks {
		out.Networks = append(out.Networks, network.String())
	}
	return out
}
