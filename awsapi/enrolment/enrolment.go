// Package enrolment is Imprint's own API for enrolment over EST (package est): the labels
// and the one-time passwords, and which certificates are to be renewed.
//
//	GET    /imprint/enrolment-labels                               ListEnrolmentLabels
//	POST   /imprint/enrolment-labels                               CreateEnrolmentLabel
//	GET    /imprint/enrolment-labels/{label}                       DescribeEnrolmentLabel
//	PATCH  /imprint/enrolment-labels/{label}                       UpdateEnrolmentLabel
//	DELETE /imprint/enrolment-labels/{label}                       DeleteEnrolmentLabel
//	GET    /imprint/enrolment-labels/{label}/passwords             ListEnrolmentPasswords
//	POST   /imprint/enrolment-labels/{label}/passwords             CreateEnrolmentPasswords
//	DELETE /imprint/enrolment-labels/{label}/passwords/{password}  DeleteEnrolmentPassword
//	GET    /imprint/expiring-certificates?within=SECONDS           ListExpiringCertificates
//
// The actions are imprint:CreateEnrolmentLabel and so on, on
// arn:aws:iot:REGION:ACCOUNT:enrolmentlabel/LABEL; who makes a label, or gives it another
// authority or profile, needs the action on the ARN of the authority, too, because devices get
// what that signs. Both are asked with acm-pca:TemplateArn, as a certificate would be. A password is in the answer of CreateEnrolmentPasswords and nowhere else.
// Times are epoch seconds.
package enrolment

import (
	"context"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
	"github.com/imprint-iot/imprint/renewal"
)

// Path is where the operations on labels are.
const Path = "/imprint/enrolment-labels"

// The requests and responses.
type (
	// LabelInput names a label.
	LabelInput struct {
		Label string `api:"path label Label required"`
	}
	// ListInput asks for a page.
	ListInput struct {
		MaxResults *int    `api:"query maxResults MaxResults"`
		NextToken  *string `api:"query nextToken NextToken"`
	}
	// ListOutput is a page of labels.
	ListOutput struct {
		Labels    []Label `api:"body labels Labels"`
		NextToken string  `api:"body nextToken NextToken"`
	}
	// CreateInput makes a label.
	CreateInput struct {
		Label      string  `api:"body label Label required"`
		Authority  string  `api:"body authority ID required"`
		Profile    string  `api:"body profile Profile required"`
		DeviceCAs  *string `api:"body deviceCas PEM"`
		StationCAs *string `api:"body stationCas PEM"`
		Passwords  *bool   `api:"body passwords Flag"`
		ServerKeys *bool   `api:"body serverKeys Flag"`
		Binding    *bool   `api:"body binding Flag"`
		Renew      *string `api:"body renew Window"`
	}
	// UpdateInput changes the members that it has.
	UpdateInput struct {
		Label      string  `api:"path label Label required"`
		Authority  *string `api:"body authority ID"`
		Profile    *string `api:"body profile Profile"`
		DeviceCAs  *string `api:"body deviceCas PEM"`
		StationCAs *string `api:"body stationCas PEM"`
		Passwords  *bool   `api:"body passwords Flag"`
		ServerKeys *bool   `api:"body serverKeys Flag"`
		Binding    *bool   `api:"body binding Flag"`
		Renew      *string `api:"body renew Window"`
	}
	// Label is one as it is shown.
	Label struct {
		Label      string    `api:"body label String"`
		ARN        string    `api:"body arn String"`
		Authority  string    `api:"body authority String"`
		Profile    string    `api:"body profile String"`
		DeviceCAs  string    `api:"body deviceCas PEM"`
		StationCAs string    `api:"body stationCas PEM"`
		Passwords  *bool     `api:"body passwords Flag"`
		ServerKeys *bool     `api:"body serverKeys Flag"`
		Binding    *bool     `api:"body binding Flag"`
		Renew      string    `api:"body renew String"`
		URL        string    `api:"body url String"` // empty: EST is served nowhere
		CreatedAt  time.Time `api:"body createdAt Time"`
		ChangedAt  time.Time `api:"body changedAt Time"`
	}
	// Nothing is an empty answer.
	Nothing struct{}
)

var codec = restjson.New(restjson.Shapes{
	"Label":      {Limits: restjson.Between(1, 64)},
	"MaxResults": {Limits: restjson.Between(1, 250)},
	"NextToken":  {Limits: restjson.AtMost(2048)},
	"ID":         {Pattern: `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`},
	"Profile":    {Pattern: `[a-z0-9-]{1,64}`},
	"PEM":        {Limits: restjson.AtMost(256 << 10)},
	"Window":     {Limits: restjson.AtMost(32)},
	"Count":      {Limits: restjson.Between(1, maxPasswords)},
	"Subjects":   {Limits: restjson.AtMost(maxPasswords), Member: "Subject"},
	"Subject":    {Limits: restjson.Between(1, 128)},
	"Within":     {Limits: restjson.Between(1, 100*maxLifetime)},
	"Seconds":    {Limits: restjson.Between(1, maxLifetime)},
	"Things":     {Member: "String"},
	"PasswordID": {Pattern: `[a-z2-7]{1,64}`},
}, "InvalidRequestException")

const (
	onePath       = Path + "/{label}"
	passwordsPath = onePath + "/passwords"
	one           = "arn:{partition}:iot:{region}:{account}:enrolmentlabel/{label}"
)

func operation(name, method, path, resource string) awsapi.Operation {
	return awsapi.Operation{Name: name, Method: method, Path: path, Action: "imprint:" + name, Resource: resource}
}

// The operations.
var (
	ListEnrolmentLabels      = awsapi.Define[ListInput, ListOutput](codec, operation("ListEnrolmentLabels", "GET", Path, "*"))
	CreateEnrolmentLabel     = awsapi.Define[CreateInput, Label](codec, operation("CreateEnrolmentLabel", "POST", Path, "*"))
	DescribeEnrolmentLabel   = awsapi.Define[LabelInput, Label](codec, operation("DescribeEnrolmentLabel", "GET", onePath, one))
	UpdateEnrolmentLabel     = awsapi.Define[UpdateInput, Label](codec, operation("UpdateEnrolmentLabel", "PATCH", onePath, one))
	DeleteEnrolmentLabel     = awsapi.Define[LabelInput, Nothing](codec, operation("DeleteEnrolmentLabel", "DELETE", onePath, one))
	ListEnrolmentPasswords   = awsapi.Define[PasswordListInput, PasswordListOutput](codec, operation("ListEnrolmentPasswords", "GET", passwordsPath, one))
	CreateEnrolmentPasswords = awsapi.Define[PasswordCreateInput, PasswordCreateOutput](codec, operation("CreateEnrolmentPasswords", "POST", passwordsPath, one))
	DeleteEnrolmentPassword  = awsapi.Define[PasswordInput, Nothing](codec, operation("DeleteEnrolmentPassword", "DELETE", passwordsPath+"/{password}", one))
)

// Operations lists what the package defines.
func Operations() []awsapi.Operation {
	return []awsapi.Operation{
		ListEnrolmentLabels.Operation, CreateEnrolmentLabel.Operation, DescribeEnrolmentLabel.Operation, UpdateEnrolmentLabel.Operation,
		DeleteEnrolmentLabel.Operation, ListExpiringCertificates.Operation, ListEnrolmentPasswords.Operation, CreateEnrolmentPasswords.Operation, DeleteEnrolmentPassword.Operation,
	}
}

// Office answers the operations.
type Office struct {
	Store    imprint.Store
	Engine   *ca.Engine
	Renewals *renewal.Engine
	Clock    imprint.Clock
	// FirstAccount is the account that may have the label default; empty: every one.
	FirstAccount imprint.AccountID
	// URL gives https://host:port of EST; empty: it is served nowhere.
	URL func() string
}

// Routes binds the operations.
func (o Office) Routes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.Handle(ListEnrolmentLabels, o.list),
		awsapi.HandleAsking(CreateEnrolmentLabel, creates, o.create),
		awsapi.Handle(DescribeEnrolmentLabel, o.describe),
		awsapi.HandleAsking(UpdateEnrolmentLabel, o.updates, o.update),
		awsapi.Handle(DeleteEnrolmentLabel, o.delete), awsapi.Handle(ListExpiringCertificates, o.expiring), awsapi.Handle(ListEnrolmentPasswords, o.passwords),
		awsapi.Handle(CreateEnrolmentPasswords, o.createPasswords), awsapi.Handle(DeleteEnrolmentPassword, o.deletePassword),
	}
}

func tenantOf(caller awsapi.Caller) imprint.Tenant {
	return imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
}

func labelARN(caller awsapi.Caller, name string) string {
	return tenantOf(caller).ARN("enrolmentlabel/" + name)
}

const defaultPage = 50

func pageOf(size *int, token *string) imprint.Page {
	page := imprint.Page{Limit: defaultPage, Ascending: true}
	if size != nil {
		page.Limit = *size
	}
	if token != nil {
		page.Cursor = *token
	}
	return page
}

func (o Office) list(ctx context.Context, caller awsapi.Caller, in *ListInput) (*ListOutput, error) {
	out := &ListOutput{Labels: []Label{}}
	err := o.Store.View(ctx, func(tx imprint.ReadTx) error {
		all, next, err := tx.EnrolmentLabels(tenantOf(caller), pageOf(in.MaxResults, in.NextToken))
		out.Labels, out.NextToken = out.Labels[:0], next
		for _, l := range all {
			out.Labels = append(out.Labels, o.shown(&l))
		}
		return err
	})
	return out, err
}

// read finds a label of the caller's. Another tenant's doesn't exist.
func read(tx imprint.ReadTx, caller awsapi.Caller, text string) (imprint.EnrolmentLabel, error) {
	l, err := tx.EnrolmentLabel(imprint.LabelName(text))
	if err == nil && l.Tenant != tenantOf(caller) {
		return imprint.EnrolmentLabel{}, imprint.Errorf(imprint.CodeNotFound, "enrolment label %q doesn't exist", imprint.Excerpt(text)).WithHint("imprint est list shows those that do.")
	}
	return l, err
}

func (o Office) describe(ctx context.Context, caller awsapi.Caller, in *LabelInput) (*Label, error) {
	var out Label
	err := o.Store.View(ctx, func(tx imprint.ReadTx) error {
		l, err := read(tx, caller, in.Label)
		out = o.shown(&l)
		return err
	})
	return answer(&out, err)
}

func answer(out *Label, err error) (*Label, error) {
	if err != nil {
		return nil, err
	}
	return out, nil
}

const (
	// maxLabels bounds the labels of one tenant, and the names of deleted ones that are kept
	// for an account.
	maxLabels = 1000
	// keepName is how long the name of a deleted label stays its account's: devices go on
	// asking at it for as long as their certificates last, many of them two years.
	keepName = 2 * 365 * 24 * time.Hour
)

// mayName refuses an account names at which the devices of another one ask, or may: a path
// says nothing of accounts, and who has its name gives them certificates and keys.
func (o Office) mayName(tx imprint.ReadTx, account imprint.AccountID, name imprint.LabelName) error {
	if name == imprint.DefaultLabel && o.FirstAccount != "" && account != o.FirstAccount {
		return imprint.Errorf(imprint.CodeInvalidRequest, "label %s is that of the server's first account", name).
			WithHint("Choose another name; devices ask at /.well-known/est/NAME.")
	}
	kept, err := tx.LabelNameKept(name, o.Clock())
	if err == nil && kept != "" && kept != account {
		err = imprint.Errorf(imprint.CodeAlreadyExists, "the name %s was that of another account's label, whose devices may still ask at it", name).WithHint("Choose another name.")
	}
	return err
}

func (o Office) create(ctx context.Context, caller awsapi.Caller, in *CreateInput) (*Label, error) {
	name, err := imprint.ParseLabelName(in.Label)
	if err != nil {
		return nil, err
	}
	now := o.Clock()
	change := UpdateInput{
		Label: in.Label, Authority: &in.Authority, Profile: &in.Profile, DeviceCAs: in.DeviceCAs, StationCAs: in.StationCAs, Passwords: in.Passwords,
		ServerKeys: in.ServerKeys, Binding: in.Binding, Renew: in.Renew,
	}
	var out Label
	err = o.Store.Update(ctx, func(tx imprint.Tx) error {
		before, err := tx.EnrolmentLabel(name)
		if err == nil {
			refusal := imprint.Errorf(imprint.CodeAlreadyExists, "label %s exists already; a label is one of the whole server, whichever account has it", name).WithHint("Choose another name.")
			if before.Tenant == tenantOf(caller) {
				refusal = refusal.WithResource(string(name), labelARN(caller, in.Label))
			}
			return refusal
		}
		if imprint.CodeOf(err) != imprint.CodeNotFound {
			return err
		}
		err = o.mayName(tx, tenantOf(caller).Account, name)
		if err != nil {
			return err
		}
		all, _, err := tx.EnrolmentLabels(tenantOf(caller), imprint.Page{Limit: maxLabels})
		if err != nil {
			return err
		}
		if len(all) >= maxLabels {
			return imprint.Errorf(imprint.CodeLimitExceeded, "the account has %d labels in this region, as many as allowed", len(all))
		}
		l := imprint.EnrolmentLabel{Tenant: tenantOf(caller), Name: name, CreatedAt: now}
		err = o.change(tx, &l, &change, now)
		out = o.shown(&l)
		return err
	})
	return answer(&out, err)
}

func (o Office) update(ctx context.Context, caller awsapi.Caller, in *UpdateInput) (*Label, error) {
	now := o.Clock()
	var out Label
	err := o.Store.Update(ctx, func(tx imprint.Tx) error {
		l, err := read(tx, caller, in.Label)
		if err != nil {
			return err
		}
		err = o.change(tx, &l, in, now)
		out = o.shown(&l)
		return err
	})
	return answer(&out, err)
}

// change checks the label as it would be, and stores it.
func (o Office) change(tx imprint.Tx, l *imprint.EnrolmentLabel, in *UpdateInput, now time.Time) error {
	set((*string)(&l.Authority), in.Authority)
	set(&l.Profile, in.Profile)
	set(&l.DeviceCAs, in.DeviceCAs)
	set(&l.StationCAs, in.StationCAs)
	set(&l.Passwords, in.Passwords)
	set(&l.ServerKeys, in.ServerKeys)
	set(&l.Binding, in.Binding)
	if in.Renew != nil {
		window, err := imprint.ParseRenewalWindow(*in.Renew)
		if err != nil {
			return err
		}
		l.Window = window
	}
	authority, err := tx.Authority(l.Tenant, l.Authority)
	if err != nil {
		return err
	}
	profile, err := o.Engine.Profiles().Profile(l.Profile)
	if err != nil {
		return err
	}
	switch profile.Kind() {
	case pki.KindOperational, pki.KindIDevID, pki.KindServer, pki.KindClaim, pki.KindAWSDevice:
	default:
		return imprint.Errorf(imprint.CodeInvalidRequest, "profile %s makes certificates of the kind %s, which nobody enrols for", l.Profile, profile.Kind()).
			WithHint("Choose one for devices, servers or claims: imprint ca profiles")
	}
	err = ca.MaySignBy(&authority, profile)
	if err != nil {
		return err
	}
	for _, text := range []string{l.DeviceCAs, l.StationCAs} {
		err = checkCAs(text)
		if err != nil {
			return err
		}
	}
	l.ChangedAt = now
	return tx.PutEnrolmentLabel(*l)
}

func checkCAs(text string) error {
	if text == "" {
		return nil
	}
	all, err := pki.ParseCertificatesPEM(text)
	if err != nil {
		return err
	}
	for _, cert := range all {
		if !cert.IsCA || !cert.BasicConstraintsValid {
			return imprint.Errorf(imprint.CodeCertificateValidation, "the certificate of %q isn't a CA's", pki.SubjectText(cert.RawSubject)).
				WithHint("Name the CA that signed the clients' certificates.")
		}
	}
	return nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (o Office) delete(ctx context.Context, caller awsapi.Caller, in *LabelInput) (*Nothing, error) {
	err := o.Store.Update(ctx, func(tx imprint.Tx) error {
		l, err := read(tx, caller, in.Label)
		if err != nil {
			return err
		}
		err = tx.DeleteEnrolmentLabel(l.Tenant, l.Name)
		if err != nil {
			return err
		}
		return tx.KeepLabelName(l.Name, l.Tenant.Account, o.Clock().Add(keepName), maxLabels)
	})
	return &Nothing{}, err
}

func (o Office) shown(l *imprint.EnrolmentLabel) Label {
	url := o.URL()
	if url != "" {
		url += "/.well-known/est/" + string(l.Name)
	}
	return Label{
		Label: string(l.Name), ARN: l.Tenant.ARN("enrolmentlabel/" + string(l.Name)), Authority: string(l.Authority), Profile: l.Profile,
		DeviceCAs: l.DeviceCAs, StationCAs: l.StationCAs, Passwords: &l.Passwords, ServerKeys: &l.ServerKeys, Binding: &l.Binding,
		Renew: l.Window.String(), URL: url, CreatedAt: l.CreatedAt, ChangedAt: l.ChangedAt,
	}
}
