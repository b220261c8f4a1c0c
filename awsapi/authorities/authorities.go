// Package authorities is Imprint's own API for certificate authorities: what AWS Private
// CA's (package acmpca) has no call for.
//
//	GET    /imprint/authorities?name=&maxResults=&nextToken=   ListAuthorities
//	POST   /imprint/authorities                                CreateAuthority
//	POST   /imprint/adopted-authorities                        AdoptAuthority
//	GET    /imprint/authorities/{authority}                    DescribeAuthority
//	PATCH  /imprint/authorities/{authority}                    UpdateAuthority
//	POST   /imprint/authorities/{authority}/certificates       IssueByProfile
//	POST   /imprint/authorities/{authority}/recorded-certificate  ImportRecordedCertificate
//	POST   /imprint/authorities/{authority}/revocation         RevokeAuthority
//	POST   /imprint/authorities/{authority}/below              RevokeBelow
//	POST   /imprint/revocations                                RevokeIssued
//	GET    /imprint/key-stores                                 ListKeyStores
//	GET    /imprint/key-stores/{store}                         ListStoredKeys
//	GET    /imprint/certificate-profiles                       ListCertificateProfiles
//
// An authority is named by its id. The requests are signed like every other of the control
// plane; the actions are imprint:CreateAuthority and so on, those about one authority on
// its ARN, arn:aws:acm-pca:REGION:ACCOUNT:certificate-authority/ID. CreateAuthority is about
// the parent, RevokeIssued about the authority that issued the certificate and the one whose
// certificate it is, and ListAuthorities with a name is DescribeAuthority as well. The
// profile of CreateAuthority and IssueByProfile is the condition key acm-pca:TemplateArn.
// CreateAuthority makes the certificate at once where a profile is given. Times are epoch
// seconds.
package authorities

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/awsapi/restjson"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
)

// Path is where the operations on authorities are.
const Path = "/imprint/authorities"

// The requests and responses.
type (
	// IDInput names an authority.
	IDInput struct {
		ID string `api:"path authority ID required"`
	}
	// ListInput asks for a page, or for the one of a name.
	ListInput struct {
		Name       *string `api:"query name Name"`
		MaxResults *int    `api:"query maxResults MaxResults"`
		NextToken  *string `api:"query nextToken NextToken"`
	}
	// ListOutput is a page of authorities.
	ListOutput struct {
		Authorities []Authority `api:"body authorities Authorities"`
		NextToken   string      `api:"body nextToken NextToken"`
	}
	// CreateInput makes an authority.
	CreateInput struct {
		Name        *string           `api:"body name Name"`
		Type        string            `api:"body type Type required"`
		Subject     string            `api:"body subject Subject required"`
		KeyKind     *string           `api:"body keyKind KeyKind"`
		KeyAt       *string           `api:"body keyAt KeyAt"`
		ExistingKey *bool             `api:"body existingKey Flag"`
		Profile     *string           `api:"body profile Profile"`
		Parent      *string           `api:"body parent ID"`
		NotAfter    *time.Time        `api:"body notAfter Time"`
		Profiles    []string          `api:"body profiles Profiles"`
		SigningEnds *time.Time        `api:"body signingEnds Time"`
		Revocation  *Revocation       `api:"body revocation Revocation"`
		ShortLived  *bool             `api:"body shortLived Flag"`
		Tags        map[string]string `api:"body tags Tags"`
	}
	// AdoptInput takes in one that was made elsewhere.
	AdoptInput struct {
		Name        *string     `api:"body name Name"`
		Certificate string      `api:"body certificate PEM required"`
		Chain       *string     `api:"body chain PEM"`
		Key         *string     `api:"body key Key"`
		KeyAt       *string     `api:"body keyAt KeyAt"`
		Profiles    []string    `api:"body profiles Profiles"`
		SigningEnds *time.Time  `api:"body signingEnds Time"`
		Revocation  *Revocation `api:"body revocation Revocation"`
		// LastCRLs are the last ones that it signed elsewhere, PEM; IssuedNothing says that
		// it has revoked nothing.
		LastCRLs      []string `api:"body lastCrls CRLs"`
		IssuedNothing *bool    `api:"body issuedNothing Flag"`
	}
	// UpdateInput changes the members that it has. Profiles without any
	// let it sign for devices and servers alone, "all" by every one.
	UpdateInput struct {
		ID            string      `api:"path authority ID required"`
		Name          *string     `api:"body name Name"`
		Status        *string     `api:"body status Status"`
		Profiles      []string    `api:"body profiles Profiles"`
		SigningEnds   *time.Time  `api:"body signingEnds Time"`
		Revocation    *Revocation `api:"body revocation Revocation"`
		LastCRLs      []string    `api:"body lastCrls CRLs"`
		IssuedNothing *bool       `api:"body issuedNothing Flag"`
	}
	// IssueInput asks for a certificate.
	IssueInput struct {
		ID        string     `api:"path authority ID required"`
		CSR       string     `api:"body csr PEM required"`
		Profile   string     `api:"body profile Profile required"`
		NotBefore *time.Time `api:"body notBefore Time"`
		NotAfter  *time.Time `api:"body notAfter Time"`
		Renews    *string    `api:"body renews CertificateID"`
		Force     *bool      `api:"body force Flag"`
		Token     *string    `api:"body token Token"`
	}
	// IssueOutput is a certificate.
	IssueOutput struct {
		CertificateID string    `api:"body certificateId String"`
		Certificate   string    `api:"body certificate PEM"`
		Chain         string    `api:"body chain PEM"`
		Serial        string    `api:"body serial String"`
		NotAfter      time.Time `api:"body notAfter Time"`
	}
	// RevokeInput names a certificate by itself.
	RevokeInput struct {
		Certificate string  `api:"body certificate PEM required"`
		Reason      *string `api:"body reason Reason"`
	}
	// RevokeOutput is what is recorded of it.
	RevokeOutput struct {
		CertificateID string    `api:"body certificateId String"`
		Authority     string    `api:"body authority String"`
		Serial        string    `api:"body serial String"`
		Subject       string    `api:"body subject String"`
		Reason        string    `api:"body reason String"`
		RevokedAt     time.Time `api:"body revokedAt Time"`
	}
	// RevokeAuthorityInput revokes an authority, whoever signed its certificate.
	RevokeAuthorityInput struct {
		ID     string  `api:"path authority ID required"`
		Reason *string `api:"body reason Reason"`
	}
	// BelowInput begins, or goes on with the cursor of the answer before.
	BelowInput struct {
		ID     string  `api:"path authority ID required"`
		Cursor *string `api:"body cursor NextToken"`
	}
	// BelowOutput says how many certificates changed, and of which authorities. While there
	// is a cursor, some are left: who asks goes on from there.
	BelowOutput struct {
		Changed     *int             `api:"body changed Count"`
		More        *bool            `api:"body more Flag"`
		Cursor      string           `api:"body cursor NextToken"`
		Authorities []BelowAuthority `api:"body authorities BelowAuthorities"`
	}
	// ProfilesInput asks for the profiles.
	ProfilesInput struct{}
)

// Revocation is how an authority tells what it revoked.
type Revocation struct {
	CRL       *bool   `api:"body crl Flag"`
	CRLDays   *int    `api:"body crlDays Days"`
	CRLShards *int    `api:"body crlShards Shards"`
	CRLHost   *string `api:"body crlHost Host"`
	OCSP      *bool   `api:"body ocsp Flag"`
	OCSPHost  *string `api:"body ocspHost Host"`
}

// BelowAuthority is an authority with how many certificates of it were revoked.
type BelowAuthority struct {
	ID      string `api:"body id String"`
	Name    string `api:"body name String"`
	Subject string `api:"body subject String"`
	Changed *int   `api:"body changed Count"`
}

// Authority is one as it is shown.
type Authority struct {
	ID               string            `api:"body id String"`
	ARN              string            `api:"body arn String"`
	Name             string            `api:"body name String"`
	Type             string            `api:"body type String"`
	Status           string            `api:"body status String"`
	Subject          string            `api:"body subject String"`
	Parent           string            `api:"body parent String"`
	KeyAlgorithm     string            `api:"body keyAlgorithm String"`
	SigningAlgorithm string            `api:"body signingAlgorithm String"`
	Key              string            `api:"body key String"`
	CertificateID    string            `api:"body certificateId String"`
	Serial           string            `api:"body serial String"`
	Certificate      string            `api:"body certificate PEM"`
	Chain            string            `api:"body chain PEM"`
	NotBefore        time.Time         `api:"body notBefore Time"`
	NotAfter         time.Time         `api:"body notAfter Time"`
	Profiles         []string          `api:"body profiles Profiles"`
	SigningEnds      time.Time         `api:"body signingEnds Time"`
	Revocation       *Revocation       `api:"body revocation Revocation"`
	ShortLived       *bool             `api:"body shortLived Flag"`
	Tags             map[string]string `api:"body tags Tags"`
	CreatedAt        time.Time         `api:"body createdAt Time"`
	RestorableUntil  time.Time         `api:"body restorableUntil Time"`
	RevokedAt        time.Time         `api:"body revokedAt Time"`
	RevocationReason string            `api:"body revocationReason String"`
}

var codec = restjson.New(restjson.Shapes{
	"ID":            {Pattern: `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`},
	"Name":          {Limits: restjson.AtMost(64)},
	"MaxResults":    {Limits: restjson.Between(1, 250)},
	"NextToken":     {Limits: restjson.AtMost(2048)},
	"Type":          {Enum: []string{"ROOT", "SUBORDINATE"}},
	"Status":        {Enum: []string{"ACTIVE", "DISABLED"}},
	"Subject":       {Limits: restjson.Between(1, 4096)},
	"KeyKind":       {Enum: []string{"p256", "p384", "rsa2048", "rsa3072", "rsa4096"}},
	"KeyAt":         {Limits: restjson.AtMost(512), Pattern: `[a-z][a-z0-9-]{0,31}:[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}(;id=[A-Za-z0-9%._~/:-]{1,400})?`},
	"KeyStore":      {Pattern: `[a-z][a-z0-9-]{0,31}`},
	"Profile":       {Pattern: `[a-z0-9-]{1,64}`},
	"Profiles":      {Limits: restjson.AtMost(100), Member: "Profile"},
	"PEM":           {Limits: restjson.Between(1, 512<<10)},
	"CRLs":          {Limits: restjson.AtMost(64), Member: "CRL"},
	"CRL":           {Limits: restjson.Between(1, maxCRL)},
	"Key":           {Limits: restjson.Between(1, 64<<10), Sensitive: true},
	"Days":          {Limits: restjson.Between(0, 5000)},
	"Shards":        {Limits: restjson.Between(0, 4096)},
	"Host":          {Limits: restjson.AtMost(253), Pattern: `([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?)?`},
	"CertificateID": {Pattern: `[0-9a-f]{64}`},
	"Token":         {Limits: restjson.Between(1, 64)},
	"Reason":        {Limits: restjson.AtMost(64)},
	"Tags":          {Limits: restjson.AtMost(50), Key: "TagKey", Value: "TagValue"},
	"TagKey":        {Limits: restjson.Between(1, 128)},
	"TagValue":      {Limits: restjson.AtMost(256)},
}, "InvalidRequestException")

func operation(name, method, path, resource string) awsapi.Operation {
	return awsapi.Operation{Name: name, Method: method, Path: path, Action: "imprint:" + name, Resource: resource}
}

// maxCRL bounds a CRL of before, in PEM: a million entries.
const maxCRL = 56 << 20

// large lets an operation take one of those.
func large(op awsapi.Operation) awsapi.Operation {
	op.MaxBody = maxCRL + 1<<20
	return op
}

const (
	onePath  = Path + "/{authority}"
	one      = "arn:{partition}:acm-pca:{region}:{account}:certificate-authority/{authority}"
	profiles = "/imprint/certificate-profiles"
	adopted  = "/imprint/adopted-authorities"
	revoked  = "/imprint/revocations"

	keyStores = "/imprint/key-stores"
)

// The operations.
var (
	ListAuthorities         = awsapi.Define[ListInput, ListOutput](codec, operation("ListAuthorities", "GET", Path, "*"))
	CreateAuthority         = awsapi.Define[CreateInput, Authority](codec, operation("CreateAuthority", "POST", Path, "*"))
	AdoptAuthority          = awsapi.Define[AdoptInput, Authority](codec, large(operation("AdoptAuthority", "POST", adopted, "*")))
	DescribeAuthority       = awsapi.Define[IDInput, Authority](codec, operation("DescribeAuthority", "GET", onePath, one))
	UpdateAuthority         = awsapi.Define[UpdateInput, Authority](codec, large(operation("UpdateAuthority", "PATCH", onePath, one)))
	IssueByProfile          = awsapi.Define[IssueInput, IssueOutput](codec, operation("IssueByProfile", "POST", onePath+"/certificates", one))
	ImportRecorded          = awsapi.Define[IDInput, Authority](codec, operation("ImportRecordedCertificate", "POST", onePath+"/recorded-certificate", one))
	RevokeAuthority         = awsapi.Define[RevokeAuthorityInput, Authority](codec, operation("RevokeAuthority", "POST", onePath+"/revocation", one))
	RevokeBelow             = awsapi.Define[BelowInput, BelowOutput](codec, operation("RevokeBelow", "POST", onePath+"/below", one))
	ListKeyStores           = awsapi.Define[KeyStoresInput, KeyStoresOutput](codec, operation("ListKeyStores", "GET", keyStores, "*"))
	ListStoredKeys          = awsapi.Define[StoredKeysInput, StoredKeysOutput](codec, operation("ListStoredKeys", "GET", keyStores+"/{store}", "*"))
	RevokeIssued            = awsapi.Define[RevokeInput, RevokeOutput](codec, operation("RevokeIssued", "POST", revoked, "*"))
	ListCertificateProfiles = awsapi.Define[ProfilesInput, ProfilesOutput](codec, operation("ListCertificateProfiles", "GET", profiles, "*"))
)

// Operations lists what the package defines.
func Operations() []awsapi.Operation {
	return []awsapi.Operation{
		ListAuthorities.Operation, CreateAuthority.Operation, AdoptAuthority.Operation, DescribeAuthority.Operation, UpdateAuthority.Operation,
		IssueByProfile.Operation, ImportRecorded.Operation, RevokeAuthority.Operation, RevokeBelow.Operation, RevokeIssued.Operation, ListCertificateProfiles.Operation,
		ListKeyStores.Operation, ListStoredKeys.Operation,
	}
}

// Office answers the operations.
type Office struct {
	Engine *ca.Engine
	Clock  imprint.Clock
	// MayRenew refuses renewals before their time, unless they are forced; nil: none.
	MayRenew func(context.Context, imprint.Tenant, imprint.CertificateID) error
}

// Routes binds the operations.
func (o Office) Routes() []awsapi.Route {
	return []awsapi.Route{
		awsapi.HandleAsking(ListAuthorities, o.finds, o.list), awsapi.HandleAsking(CreateAuthority, creates, o.create), awsapi.HandleAsking(AdoptAuthority, o.adopts, o.adopt),
		awsapi.Handle(DescribeAuthority, o.describe), awsapi.Handle(UpdateAuthority, o.update), awsapi.HandleAsking(IssueByProfile, o.issues, o.issue),
		awsapi.Handle(ImportRecorded, o.importRecorded),
		awsapi.HandleAsking(RevokeAuthority, o.revokesAuthority, o.revokeAuthority), awsapi.HandleAsking(RevokeBelow, o.revokesBelow, o.below), awsapi.HandleAsking(RevokeIssued, o.revokes, o.revoke), awsapi.Handle(ListCertificateProfiles, o.profiles),
		awsapi.Handle(ListKeyStores, o.keyStores), awsapi.Handle(ListStoredKeys, o.storedKeys),
	}
}

func tenantOf(caller awsapi.Caller) imprint.Tenant {
	return imprint.Tenant{Account: imprint.AccountID(caller.Account), Region: imprint.Region(caller.Region)}
}

func value[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

// instant gives a time; 1970 is none.
func instant(t *time.Time) time.Time {
	if t == nil || t.Unix() == 0 {
		return time.Time{}
	}
	return *t
}

const defaultPage = 50

func (o Office) list(ctx context.Context, caller awsapi.Caller, in *ListInput) (*ListOutput, error) {
	out := &ListOutput{Authorities: []Authority{}}
	if in.Name != nil {
		a, err := o.Engine.Find(ctx, tenantOf(caller), *in.Name)
		if err != nil {
			return nil, err
		}
		out.Authorities = append(out.Authorities, o.present(&a))
		return out, nil
	}
	page := imprint.Page{Limit: defaultPage, Cursor: value(in.NextToken), Ascending: true}
	if in.MaxResults != nil {
		page.Limit = *in.MaxResults
	}
	all, next, err := o.Engine.Authorities(ctx, tenantOf(caller), page)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		out.Authorities = append(out.Authorities, o.present(&a))
	}
	out.NextToken = next
	return out, nil
}

func (o Office) create(ctx context.Context, caller awsapi.Caller, in *CreateInput) (*Authority, error) {
	subject, err := pki.ParseSubject(in.Subject)
	if err != nil {
		return nil, err
	}
	config, err := o.revocation(imprint.RevocationConfiguration{}, in.Revocation)
	if err != nil {
		return nil, err
	}
	a, err := o.Engine.Create(ctx, tenantOf(caller), ca.Spec{
		Name: value(in.Name), Type: imprint.AuthorityType(in.Type), RawSubject: subject, Kind: pki.KeyKind(value(in.KeyKind)), KeyURI: value(in.KeyAt), KeyIsThere: value(in.ExistingKey),
		Profile: value(in.Profile), Parent: imprint.AuthorityID(value(in.Parent)), NotAfter: instant(in.NotAfter), Profiles: in.Profiles,
		SigningEnds: instant(in.SigningEnds), Revocation: config, ShortLived: value(in.ShortLived), Tags: in.Tags, By: caller.PrincipalARN,
	})
	return o.answer(&a, err)
}

func (o Office) answer(a *imprint.CertificateAuthority, err error) (*Authority, error) {
	if err != nil {
		return nil, err
	}
	out := o.present(a)
	return &out, nil
}

func (o Office) adopt(ctx context.Context, caller awsapi.Caller, in *AdoptInput) (*Authority, error) {
	config, err := o.revocation(imprint.RevocationConfiguration{}, in.Revocation)
	if err != nil {
		return nil, err
	}
	var key crypto.Signer
	if in.Key != nil {
		key, err = parseKey(*in.Key)
		if err != nil {
			return nil, err
		}
	}
	a, err := o.Engine.Adopt(ctx, tenantOf(caller), ca.Spec{
		Name: value(in.Name), KeyURI: value(in.KeyAt), Profiles: in.Profiles, SigningEnds: instant(in.SigningEnds), Revocation: config, By: caller.PrincipalARN,
		LastCRLs: bytesOf(in.LastCRLs), IssuedNothing: value(in.IssuedNothing),
	}, in.Certificate, value(in.Chain), key)
	return o.answer(&a, err)
}

func bytesOf(texts []string) [][]byte {
	var all [][]byte
	for _, text := range texts {
		all = append(all, []byte(text))
	}
	return all
}

// parseKey reads a private key of an authority. Messages never show any of it.
func parseKey(text string) (crypto.Signer, error) {
	refusal := imprint.Errorf(imprint.CodeInvalidRequest, "the key isn't a private key in PEM that isn't encrypted").
		WithHint("Convert it: openssl pkey -in KEY -out KEY.pem")
	block, rest := pem.Decode([]byte(text))
	for block != nil && block.Type == "EC PARAMETERS" {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, refusal
	}
	defer clear(block.Bytes)
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, refusal
	}
	key, canSign := parsed.(crypto.Signer)
	if err != nil || !canSign {
		return nil, refusal
	}
	return key, nil
}

func (o Office) describe(ctx context.Context, caller awsapi.Caller, in *IDInput) (*Authority, error) {
	a, err := o.Engine.Authority(ctx, tenantOf(caller), imprint.AuthorityID(in.ID))
	return o.answer(&a, err)
}

// importRecorded gives an authority the certificate that was made here for its key, and that
// a crash kept from it.
func (o Office) importRecorded(ctx context.Context, caller awsapi.Caller, in *IDInput) (*Authority, error) {
	a, err := o.Engine.Import(ctx, tenantOf(caller), imprint.AuthorityID(in.ID), "", "")
	return o.answer(&a, err)
}

func (o Office) update(ctx context.Context, caller awsapi.Caller, in *UpdateInput) (*Authority, error) {
	tenant, id := tenantOf(caller), imprint.AuthorityID(in.ID)
	edit := ca.Edit{Name: in.Name, Status: imprint.AuthorityStatus(value(in.Status)), LastCRLs: bytesOf(in.LastCRLs), IssuedNothing: value(in.IssuedNothing)}
	if in.Profiles != nil {
		edit.Profiles = &in.Profiles
	}
	if in.SigningEnds != nil {
		edit.SigningEnds = new(instant(in.SigningEnds))
	}
	if in.Revocation != nil {
		before, err := o.Engine.Authority(ctx, tenant, id)
		if err != nil {
			return nil, err
		}
		config, err := o.revocation(before.Revocation, in.Revocation)
		if err != nil {
			return nil, err
		}
		edit.Revocation = &config
	}
	a, err := o.Engine.Update(ctx, tenant, id, edit)
	return o.answer(&a, err)
}

// revocation changes a configuration by the members that a request has.
func (o Office) revocation(config imprint.RevocationConfiguration, in *Revocation) (imprint.RevocationConfiguration, error) {
	if in == nil {
		return config, nil
	}
	set(&config.CRL, in.CRL)
	set(&config.CRLDays, in.CRLDays)
	set(&config.CRLShards, in.CRLShards)
	set(&config.CRLHost, in.CRLHost)
	set(&config.OCSP, in.OCSP)
	set(&config.OCSPHost, in.OCSPHost)
	if config.CRL && config.CRLDays == 0 {
		config.CRLDays = defaultCRLDays
	}
	if !o.Engine.ResponderURLs(config) {
		return config, imprint.Errorf(imprint.CodeInvalidRequest, "nobody could find the CRLs or OCSP responses: the server has no URL for them").
			WithHint("Start it with --pki-url http://HOST, or name hosts for both.")
	}
	return config, nil
}

// defaultCRLDays is how long a CRL is valid where nothing is said.
const defaultCRLDays = 7

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (o Office) issue(ctx context.Context, caller awsapi.Caller, in *IssueInput) (*IssueOutput, error) {
	csr, err := pki.ParseCSRPEM(in.CSR)
	if err != nil {
		return nil, err
	}
	profile, err := o.Engine.Profiles().Profile(in.Profile)
	if err != nil {
		return nil, err
	}
	request := pki.RequestOf(csr)
	request.By, request.Token, request.Renews = caller.PrincipalARN, value(in.Token), imprint.CertificateID(value(in.Renews))
	request.NotBefore, request.NotAfter = instant(in.NotBefore), instant(in.NotAfter)
	tenant, id := tenantOf(caller), imprint.AuthorityID(in.ID)
	if request.Renews != "" && o.MayRenew != nil && !value(in.Force) {
		err = o.MayRenew(ctx, tenant, request.Renews)
		if err != nil {
			return nil, err
		}
	}
	var issued ca.Issued
	if profile.Kind() == pki.KindRoot {
		issued, err = o.Engine.SelfSign(ctx, tenant, id, in.Profile, request)
	} else {
		issued, err = o.Engine.Issue(ctx, tenant, id, in.Profile, request)
	}
	if err != nil {
		return nil, err
	}
	return &IssueOutput{
		CertificateID: string(issued.ID), Certificate: issued.PEM, Chain: issued.Chain, Serial: pki.SerialHex(issued.Certificate.SerialNumber),
		NotAfter: issued.Certificate.NotAfter,
	}, nil
}

// belowTime bounds one RevokeBelow, which is shorter than clients wait.
const belowTime = 15 * time.Second

func (o Office) below(ctx context.Context, caller awsapi.Caller, in *BelowInput) (*BelowOutput, error) {
	limited, cancel := context.WithTimeout(ctx, belowTime)
	defer cancel()
	done, err := o.Engine.RevokeBelow(limited, tenantOf(caller), imprint.AuthorityID(in.ID), value(in.Cursor))
	if err != nil {
		return nil, err
	}
	out := &BelowOutput{Changed: new(done.Changed()), More: new(done.Next != ""), Cursor: done.Next, Authorities: []BelowAuthority{}}
	for _, a := range done.Authorities {
		out.Authorities = append(out.Authorities, BelowAuthority{ID: string(a.ID), Name: a.Name, Subject: pki.SubjectText(a.Subject), Changed: new(a.Changed)})
	}
	return out, nil
}

func (o Office) revokeAuthority(ctx context.Context, caller awsapi.Caller, in *RevokeAuthorityInput) (*Authority, error) {
	a, err := o.Engine.RevokeAuthority(ctx, tenantOf(caller), imprint.AuthorityID(in.ID), imprint.RevocationReason(value(in.Reason)))
	return o.answer(&a, err)
}

func (o Office) revoke(ctx context.Context, caller awsapi.Caller, in *RevokeInput) (*RevokeOutput, error) {
	cert, err := pki.ParseCertificatePEM(in.Certificate)
	if err != nil {
		return nil, err
	}
	done, err := o.Engine.RevokeCertificate(ctx, tenantOf(caller), cert.Raw, imprint.RevocationReason(value(in.Reason)))
	if err != nil {
		return nil, err
	}
	return &RevokeOutput{
		CertificateID: string(done.CertificateID), Authority: string(done.Authority), Serial: done.Serial, Subject: done.Subject,
		Reason: string(done.Reason), RevokedAt: done.RevokedAt,
	}, nil
}

func (o Office) present(a *imprint.CertificateAuthority) Authority {
	r := a.Revocation
	out := Authority{
		ID: string(a.ID), ARN: a.ARN(), Name: a.Name, Type: string(a.Type), Status: string(ca.Status(a, o.Clock())), Subject: pki.SubjectText(a.Subject),
		Parent: string(a.Parent), KeyAlgorithm: a.KeyAlgorithm, SigningAlgorithm: a.SigningAlgorithm, Key: a.Key, CertificateID: string(a.CertificateID),
		Serial: a.Serial, Certificate: a.Certificate, Chain: a.Chain, NotBefore: a.NotBefore, NotAfter: a.NotAfter, Profiles: a.Profiles,
		SigningEnds: a.SigningEnds, ShortLived: &a.ShortLived, Tags: a.Tags, CreatedAt: a.CreatedAt, RestorableUntil: a.RestorableUntil,
		RevokedAt: a.RevokedAt, RevocationReason: string(a.RevocationReason),
		Revocation: &Revocation{CRL: &r.CRL, CRLDays: &r.CRLDays, CRLShards: &r.CRLShards, CRLHost: &r.CRLHost, OCSP: &r.OCSP, OCSPHost: &r.OCSPHost},
	}
	if out.Profiles == nil {
		out.Profiles = []string{}
	}
	return out
}
