package acmpca

import (
	"context"
	"regexp"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
)

// tokenTime is how long an IdempotencyToken makes repeated requests one, as at AWS.
const tokenTime = 5 * time.Minute

const (
	modeGeneral = "GENERAL_PURPOSE"
	modeShort   = "SHORT_LIVED_CERTIFICATE"
)

func (s *Service) create(ctx context.Context, caller awsapi.Caller, in *createInput) (*arnOutput, error) {
	if in.KeyStorage != nil {
		return nil, refuse("InvalidArgsException", "Keys are sealed in the registry or stand in a module of your own: this server can't promise a FIPS 140 level. Leave KeyStorageSecurityStandard out.")
	}
	if in.Configuration.CSRExtensions != nil {
		return nil, refuse("InvalidArgsException", "CsrExtensions aren't offered: the profile by which the request is signed decides about extensions. Leave them out.")
	}
	kind, _ := ca.KindOf(in.Configuration.KeyAlgorithm)
	name, err := in.Configuration.Subject.encode()
	if err != nil {
		return nil, err
	}
	config, err := s.revocationOf(in.Revocation)
	if err != nil {
		return nil, err
	}
	tags, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	a, err := s.Engine.Create(ctx, tenantOf(caller), ca.Spec{
		Type: imprint.AuthorityType(in.Type), RawSubject: name, Kind: kind, Algorithm: in.Configuration.SigningAlgorithm, Revocation: config,
		// As at AWS: what an authority may sign is for policies to say, by the template.
		Profiles:   []string{ca.AllProfiles},
		ShortLived: text(in.UsageMode) == modeShort, Tags: tags, IdempotencyToken: text(in.Token), TokenFor: tokenTime, By: caller.PrincipalARN,
	})
	if err != nil {
		return nil, err
	}
	return &arnOutput{ARN: a.ARN()}, nil
}

var hostPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?$`)

// revocationOf checks a revocation configuration; nil is none.
func (s *Service) revocationOf(r *revocation) (imprint.RevocationConfiguration, error) {
	var config imprint.RevocationConfiguration
	if r == nil {
		return config, nil
	}
	if r.CRL != nil {
		if r.CRL.Bucket != nil || r.CRL.ACL != nil {
			return config, refuse("InvalidArgsException", "CRLs aren't put into buckets: this server serves them over HTTP (--pki-url, or CustomCname). Leave S3BucketName and S3ObjectAcl out.")
		}
		config.CRL, config.CRLHost = r.CRL.Enabled, text(r.CRL.Host)
		if r.CRL.Days != nil {
			config.CRLDays = *r.CRL.Days
		}
		if config.CRL && config.CRLDays == 0 {
			return config, refuse("InvalidArgsException", "ExpirationInDays says how long a CRL is valid; it must be there when CRLs are enabled.")
		}
	}
	if r.OCSP != nil {
		config.OCSP, config.OCSPHost = r.OCSP.Enabled, text(r.OCSP.Host)
	}
	for _, host := range []string{config.CRLHost, config.OCSPHost} {
		if host != "" && !hostPattern.MatchString(host) {
			return config, refuse("InvalidArgsException", "The name "+imprint.Excerpt(host)+" isn't a host, without protocol and path.")
		}
	}
	if !s.Engine.ResponderURLs(config) {
		return config, refuse("InvalidArgsException", "Nobody could find the CRLs or OCSP responses: the server has no URL for them. Start it with --pki-url, or give CustomCname and OcspCustomCname.")
	}
	return config, nil
}

func presentRevocation(r imprint.RevocationConfiguration) *revocation {
	out := &revocation{CRL: &crl{Enabled: r.CRL}, OCSP: &ocsp{Enabled: r.OCSP}}
	if r.CRLDays > 0 {
		out.CRL.Days = &r.CRLDays
	}
	if r.CRLHost != "" {
		out.CRL.Host = &r.CRLHost
	}
	if r.OCSPHost != "" {
		out.OCSP.Host = &r.OCSPHost
	}
	return out
}

func (s *Service) present(a *imprint.CertificateAuthority) authority {
	name, err := subjectOf(a.Subject)
	if err != nil {
		// It was made elsewhere: one name that can't be read must not hide the others.
		name = subject{Custom: []customAttribute{{ID: "2.5.4.3", Value: pki.SubjectText(a.Subject)}}}
	}
	out := authority{
		ARN: a.ARN(), Owner: string(a.Tenant.Account), CreatedAt: a.CreatedAt, ChangedAt: a.ChangedAt, Type: string(a.Type), Serial: a.Serial,
		Status: string(ca.Status(a, s.Clock())), NotBefore: a.NotBefore, NotAfter: a.NotAfter, RestorableUntil: a.RestorableUntil, UsageMode: modeGeneral,
		Configuration: &configuration{KeyAlgorithm: a.KeyAlgorithm, SigningAlgorithm: a.SigningAlgorithm, Subject: name}, Revocation: presentRevocation(a.Revocation),
	}
	if a.ShortLived {
		out.UsageMode = modeShort
	}
	return out
}

func (s *Service) describe(ctx context.Context, caller awsapi.Caller, in *arnInput) (*describeOutput, error) {
	a, err := s.authority(ctx, caller, in.ARN)
	if err != nil {
		return nil, err
	}
	out := s.present(&a)
	return &describeOutput{Authority: &out}, nil
}

const defaultPage = 100

func (s *Service) list(ctx context.Context, caller awsapi.Caller, in *listInput) (*listOutput, error) {
	out := &listOutput{Authorities: []authority{}}
	if text(in.Owner) == "OTHER_ACCOUNTS" {
		return out, nil // nobody shares
	}
	page := imprint.Page{Limit: defaultPage, Cursor: text(in.NextToken), Ascending: true}
	if in.MaxResults != nil {
		page.Limit = *in.MaxResults
	}
	all, next, err := s.Engine.Authorities(ctx, tenantOf(caller), page)
	if err != nil {
		return nil, asWhere("InvalidNextTokenException", err, imprint.CodeInvalidRequest)
	}
	for _, a := range all {
		out.Authorities = append(out.Authorities, s.present(&a))
	}
	out.NextToken = next
	return out, nil
}

func (s *Service) csr(ctx context.Context, caller awsapi.Caller, in *arnInput) (*csrOutput, error) {
	a, err := s.authority(ctx, caller, in.ARN)
	if err != nil {
		return nil, err
	}
	if a.CSR == "" || a.Status == imprint.AuthorityDeleted {
		return nil, refuse("InvalidStateException", "The certificate authority is deleted, or its key isn't here: it has no signing request.")
	}
	return &csrOutput{CSR: a.CSR}, nil
}

// importCertificate tells apart what can't be read from what isn't this authority's.
func (s *Service) importCertificate(ctx context.Context, caller awsapi.Caller, in *importInput) (*nothing, error) {
	a, err := s.authority(ctx, caller, in.ARN)
	if err != nil {
		return nil, err
	}
	_, err = pki.ParseCertificatePEM(string(in.Certificate))
	if err == nil && len(in.Chain) > 0 {
		_, err = pki.ParseCertificatesPEM(string(in.Chain))
	}
	if err != nil {
		return nil, as("MalformedCertificateException", err)
	}
	_, err = s.Engine.Import(ctx, tenantOf(caller), a.ID, string(in.Certificate), string(in.Chain))
	return nil, asWhere("CertificateMismatchException", err, imprint.CodeCertificateValidation, imprint.CodeCertificateWeak, imprint.CodeCertificateExpired, imprint.CodeCertificateNotYetValid)
}

func (s *Service) authorityCertificate(ctx context.Context, caller awsapi.Caller, in *arnInput) (*certificateOutput, error) {
	a, err := s.authority(ctx, caller, in.ARN)
	if err != nil {
		return nil, err
	}
	if a.Certificate == "" || a.Status == imprint.AuthorityDeleted {
		return nil, refuse("InvalidStateException", "The certificate authority "+a.ARN()+" is "+string(a.Status)+" and has no certificate to give.")
	}
	return &certificateOutput{Certificate: trimmed(a.Certificate), Chain: trimmed(a.Chain)}, nil
}

func (s *Service) update(ctx context.Context, caller awsapi.Caller, in *updateInput) (*nothing, error) {
	id, err := authorityID(caller, in.ARN)
	if err != nil {
		return nil, err
	}
	edit := ca.Edit{Status: imprint.AuthorityStatus(text(in.Status))}
	if in.Revocation != nil {
		config, err := s.revocationOf(in.Revocation)
		if err != nil {
			return nil, err
		}
		// What AWS doesn't know of stays.
		before, err := s.Engine.Authority(ctx, tenantOf(caller), id)
		if err != nil {
			return nil, err
		}
		config.CRLShards = before.Revocation.CRLShards
		edit.Revocation = &config
	}
	_, err = s.Engine.Update(ctx, tenantOf(caller), id, edit)
	return nil, err
}

func (s *Service) remove(ctx context.Context, caller awsapi.Caller, in *deleteInput) (*nothing, error) {
	id, err := authorityID(caller, in.ARN)
	if err != nil {
		return nil, err
	}
	days := ca.MaxRestore
	if in.Days != nil {
		days = *in.Days
	}
	_, err = s.Engine.Delete(ctx, tenantOf(caller), id, days)
	return nil, err
}

func (s *Service) restore(ctx context.Context, caller awsapi.Caller, in *arnInput) (*nothing, error) {
	id, err := authorityID(caller, in.ARN)
	if err != nil {
		return nil, err
	}
	_, err = s.Engine.Restore(ctx, tenantOf(caller), id)
	return nil, err
}
