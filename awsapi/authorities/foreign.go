package authorities

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/ca/foreign"
	"github.com/imprint-iot/imprint/ca/rollover"
	"github.com/imprint-iot/imprint/pki"
)

// ForeignPath is where the operations on CRLs of CAs elsewhere are. A CA is named as in
// RolloverPath.
//
//	GET    /imprint/imported-crls?maxResults=&nextToken=   ListImportedCRLs
//	PUT    /imprint/imported-crls/{ca}                     ImportCRL
//	PATCH  /imprint/imported-crls/{ca}                     UpdateImportedCRLs
//	DELETE /imprint/imported-crls/{ca}                     DeleteImportedCRLs
//
// ImportCRL takes the list itself, as PEM or DER in base64, or the URL that it is fetched
// from, then and on time.
const ForeignPath = "/imprint/imported-crls"

// The requests and responses.
type (
	// ImportCRLInput brings a list, or says where it is.
	ImportCRLInput struct {
		CA             string  `api:"path ca CA required"`
		List           []byte  `api:"body list List"`
		URL            *string `api:"body url URL"`
		RefuseStale    *bool   `api:"body refuseStale Flag"`
		KeepRegistered *bool   `api:"body keepRegistered Flag"`
	}
	// UpdateImportedInput changes how a CA's lists count. With stopFetching they are brought
	// from then on.
	UpdateImportedInput struct {
		CA             string `api:"path ca CA required"`
		RefuseStale    *bool  `api:"body refuseStale Flag"`
		KeepRegistered *bool  `api:"body keepRegistered Flag"`
		StopFetching   *bool  `api:"body stopFetching Flag"`
	}
	// ImportedInput names a CA.
	ImportedInput struct {
		CA string `api:"path ca CA required"`
	}
	// ListImportedInput asks for a page of lists.
	ListImportedInput struct {
		MaxResults *int    `api:"query maxResults MaxResults"`
		NextToken  *string `api:"query nextToken NextToken"`
	}
	// ListImportedOutput is a page of them, or those of one CA.
	ListImportedOutput struct {
		Lists     []ImportedCRL `api:"body lists Lists"`
		NextToken string        `api:"body nextToken NextToken"`
	}
)

// ImportedCRL is a list as it is shown.
type ImportedCRL struct {
	CA             string    `api:"body ca String"`
	Scope          string    `api:"body scope String"`
	Number         string    `api:"body number String"`
	ThisUpdate     time.Time `api:"body thisUpdate Time"`
	NextUpdate     time.Time `api:"body nextUpdate Time"`
	Entries        *int64    `api:"body entries Count"`
	Stale          *bool     `api:"body stale Flag"`
	Applied        *bool     `api:"body applied Flag"`
	RefuseStale    *bool     `api:"body refuseStale Flag"`
	KeepRegistered *bool     `api:"body keepRegistered Flag"`
	URL            string    `api:"body url String"`
	FetchAt        time.Time `api:"body fetchAt Time"`
	FetchedAt      time.Time `api:"body fetchedAt Time"`
	ImportedAt     time.Time `api:"body importedAt Time"`
	LastError      string    `api:"body lastError String"`
}

var foreignCodec = restjson.New(restjson.Shapes{
	"CA":         {Limits: restjson.Between(1, 256)},
	"List":       {Limits: restjson.Between(1, pki.MaxForeignCRL)},
	"URL":        {Limits: restjson.Between(1, 2048)},
	"MaxResults": {Limits: restjson.Between(1, 250)},
	"NextToken":  {Limits: restjson.AtMost(2048)},
}, "InvalidRequestException")

const oneForeign = ForeignPath + "/{ca}"

// maxListBody lets the longest list through, in base64.
const maxListBody = pki.MaxForeignCRL/3*4 + 4096

// The operations.
var (
	ListImportedCRLs   = awsapi.Define[ListImportedInput, ListImportedOutput](foreignCodec, operation("ListImportedCRLs", "GET", ForeignPath, "*"))
	ImportCRL          = awsapi.Define[ImportCRLInput, ImportedCRL](foreignCodec, withList(operation("ImportCRL", "PUT", oneForeign, "*")))
	UpdateImportedCRLs = awsapi.Define[UpdateImportedInput, ListImportedOutput](foreignCodec, operation("UpdateImportedCRLs", "PATCH", oneForeign, "*"))
	DeleteImportedCRLs = awsapi.Define[ImportedInput, NoOutput](foreignCodec, operation("DeleteImportedCRLs", "DELETE", oneForeign, "*"))
)

func withList(op awsapi.Operation) awsapi.Operation {
	op.MaxBody = maxListBody
	return op
}

// ForeignOperations lists those about CRLs of CAs elsewhere.
func ForeignOperations() []awsapi.Operation {
	return []awsapi.Operation{ListImportedCRLs.Operation, ImportCRL.Operation, UpdateImportedCRLs.Operation, DeleteImportedCRLs.Operation}
}

// Foreign answers the operations. The Planner knows the CAs by what people call them.
type Foreign struct {
	Engine  *foreign.Engine
	Planner *rollover.Planner
	Clock   imprint.Clock
}

// Routes binds them.
func (f Foreign) Routes() []awsapi.Route {
	about := Rollovers{Planner: f.Planner}.about
	return []awsapi.Route{
		awsapi.Handle(ListImportedCRLs, f.list),
		awsapi.HandleForAll(ImportCRL, func(caller awsapi.Caller, in *ImportCRLInput) []string { return about(caller, in.CA) }, f.take),
		awsapi.HandleForAll(UpdateImportedCRLs, func(caller awsapi.Caller, in *UpdateImportedInput) []string { return about(caller, in.CA) }, f.update),
		awsapi.HandleForAll(DeleteImportedCRLs, func(caller awsapi.Caller, in *ImportedInput) []string { return about(caller, in.CA) }, f.delete),
	}
}

func (f Foreign) list(ctx context.Context, caller awsapi.Caller, in *ListImportedInput) (*ListImportedOutput, error) {
	page := imprint.Page{Limit: defaultPage, Cursor: value(in.NextToken), Ascending: true}
	if in.MaxResults != nil {
		page.Limit = *in.MaxResults
	}
	all, next, err := f.Engine.Lists(ctx, tenantOf(caller), page)
	if err != nil {
		return nil, err
	}
	return &ListImportedOutput{Lists: f.shown(all), NextToken: next}, nil
}

func (f Foreign) shown(all []imprint.ForeignList) []ImportedCRL {
	lists := []ImportedCRL{}
	for n := range all {
		lists = append(lists, *f.present(&all[n]))
	}
	return lists
}

func (f Foreign) present(l *imprint.ForeignList) *ImportedCRL {
	return &ImportedCRL{
		CA: string(l.CA), Scope: l.Scope, Number: l.Number, ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate, Entries: &l.Entries, Stale: new(l.Stale(f.Clock())),
		Applied: &l.Applied, RefuseStale: &l.RefuseStale, KeepRegistered: &l.KeepRegistered, URL: l.URL, FetchAt: l.FetchAt, FetchedAt: l.FetchedAt,
		ImportedAt: l.ImportedAt, LastError: l.LastError,
	}
}

func (f Foreign) take(ctx context.Context, caller awsapi.Caller, in *ImportCRLInput) (*ImportedCRL, error) {
	if (in.List == nil) == (in.URL == nil) {
		return nil, imprint.Errorf(imprint.CodeInvalidRequest, "one of list and url must be there")
	}
	ca, err := f.ca(ctx, caller, in.CA)
	if err != nil {
		return nil, err
	}
	// A long list takes longer than some callers wait: what was begun is brought to its end.
	l, err := f.Engine.Import(context.WithoutCancel(ctx), tenantOf(caller), foreign.Request{
		CA: ca, Data: in.List, URL: value(in.URL), RefuseStale: in.RefuseStale, KeepRegistered: in.KeepRegistered,
	})
	if err != nil {
		return nil, err
	}
	return f.present(&l), nil
}

func (f Foreign) ca(ctx context.Context, caller awsapi.Caller, text string) (*x509.Certificate, error) {
	return f.Planner.Certificate(ctx, tenantOf(caller), text)
}

func (f Foreign) update(ctx context.Context, caller awsapi.Caller, in *UpdateImportedInput) (*ListImportedOutput, error) {
	id, err := f.named(ctx, caller, in.CA)
	if err != nil {
		return nil, err
	}
	settings := foreign.Settings{RefuseStale: in.RefuseStale, KeepRegistered: in.KeepRegistered}
	if value(in.StopFetching) {
		settings.URL = new(string)
	}
	all, err := f.Engine.Set(context.WithoutCancel(ctx), tenantOf(caller), id, settings)
	if err != nil {
		return nil, err
	}
	return &ListImportedOutput{Lists: f.shown(all)}, nil
}

// named gives the id of a CA's certificate; lists of CAs that are gone are named by it.
func (f Foreign) named(ctx context.Context, caller awsapi.Caller, text string) (imprint.CertificateID, error) {
	ca, err := f.ca(ctx, caller, text)
	if err == nil {
		return pki.CertificateID(ca.Raw), nil
	}
	id, parseErr := imprint.ParseCertificateID(text)
	if imprint.CodeOf(err) == imprint.CodeNotFound && parseErr == nil {
		return id, nil
	}
	return "", err
}

func (f Foreign) delete(ctx context.Context, caller awsapi.Caller, in *ImportedInput) (*NoOutput, error) {
	id, err := f.named(ctx, caller, in.CA)
	if err != nil {
		return nil, err
	}
	return nil, f.Engine.Forget(context.WithoutCancel(ctx), tenantOf(caller), id)
}
