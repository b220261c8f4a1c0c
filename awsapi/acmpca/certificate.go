package acmpca

import (
	"context"
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/imprint-iot/imprint"
	"github.com/imprint-iot/imprint/awsapi"
	"github.com/imprint-iot/imprint/ca"
	"github.com/imprint-iot/imprint/pki"
)

const (
	defaultTemplate = "EndEntityCertificate"
	ownTemplate     = "imprint-"
)

// templates are AWS's base templates and their profiles.
var templates = map[string]string{
	"RootCACertificate":                 "aws-root-ca",
	"SubordinateCACertificate_PathLen0": "aws-subordinate-ca-0",
	"SubordinateCACertificate_PathLen1": "aws-subordinate-ca-1",
	"SubordinateCACertificate_PathLen2": "aws-subordinate-ca-2",
	"SubordinateCACertificate_PathLen3": "aws-subordinate-ca-3",
	defaultTemplate:                     "aws-end-entity",
	"EndEntityClientAuthCertificate":    "aws-end-entity-client",
	"EndEntityServerAuthCertificate":    "aws-end-entity-server",
	"OCSPSigningCertificate":            "aws-ocsp-signing",
}

// TemplateKey is AWS's condition key for the template that a certificate is made by.
const TemplateKey = "acm-pca:TemplateArn"

// ConditionKeys are those of a request for a certificate by a profile. A profile has one
// template's ARN, however the request names it: a policy about AWS's template holds for
// imprint-NAME and for Imprint's own API, too.
func ConditionKeys(caller awsapi.Caller, profile string) map[string][]string {
	template := ownTemplate + profile
	for aws, name := range templates {
		if name == profile {
			template = aws
		}
	}
	return map[string][]string{TemplateKey: {templatePrefix(caller) + template + "/V1"}}
}

func templatePrefix(caller awsapi.Caller) string {
	return "arn:" + awsapi.Partition(caller.Region) + ":acm-pca:::template/"
}

// profileName gives the name of the profile of a template's ARN, whether there is one or
// not.
func profileName(caller awsapi.Caller, arn string) (string, error) {
	prefix := templatePrefix(caller)
	if arn == "" {
		arn = prefix + defaultTemplate + "/V1"
	}
	name, isTemplate := strings.CutPrefix(arn, prefix)
	name, isFirst := strings.CutSuffix(name, "/V1")
	if !isTemplate || !isFirst || name == "" || strings.Contains(name, "/") {
		return "", refuse("InvalidArgsException", "The template "+imprint.Excerpt(arn)+" isn't one: "+prefix+"NAME/V1.")
	}
	own, isOwn := strings.CutPrefix(name, ownTemplate)
	profile := templates[name]
	switch {
	case isOwn:
		profile = own
	case profile == "" && strings.Contains(name, "Passthrough"):
		return "", refuse("InvalidArgsException", "The template "+imprint.Excerpt(name)+" lets the request decide about extensions, which isn't offered: the profile decides. "+
			"Write a profile of your own (--ca-profiles) and name it "+ownTemplate+"NAME, or use one of these: "+offered()+".")
	case profile == "":
		return "", refuse("InvalidArgsException", "The template "+imprint.Excerpt(name)+" isn't offered. Those that are: "+offered()+", and "+ownTemplate+"PROFILE for each of imprint ca profiles.")
	}
	return profile, nil
}

// profileOf gives the profile of a template's ARN.
func (s *Service) profileOf(caller awsapi.Caller, arn string) (*pki.Profile, error) {
	name, err := profileName(caller, arn)
	if err != nil {
		return nil, err
	}
	found, err := s.Engine.Profiles().Profile(name)
	return found, as("InvalidArgsException", err)
}

func offered() string {
	var names []string
	for name := range templates {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (s *Service) issue(ctx context.Context, caller awsapi.Caller, in *issueInput) (*issueOutput, error) {
	if in.Passthrough != nil {
		return nil, refuse("InvalidArgsException", "ApiPassthrough isn't offered: the profile decides what a certificate has, and the request its subject and names. Leave it out.")
	}
	a, err := s.authority(ctx, caller, in.ARN)
	if err != nil {
		return nil, err
	}
	profile, err := s.profileOf(caller, text(in.Template))
	if err != nil {
		return nil, err
	}
	csr, err := pki.ParseCSRPEM(string(in.CSR))
	if err != nil {
		return nil, as("MalformedCSRException", err)
	}
	request := pki.RequestOf(csr)
	request.By, request.Token, request.TokenFor = caller.PrincipalARN, text(in.Token), tokenTime
	request.Algorithm, err = algorithmFor(&a, in.Algorithm)
	if err != nil {
		return nil, err
	}
	request.NotAfter, err = in.Validity.end(s.Clock())
	if err != nil {
		return nil, err
	}
	request.NotBefore, err = in.NotBefore.begin()
	if err != nil {
		return nil, err
	}
	request.Asked = fmt.Sprintf("%d %s", in.Validity.Value, in.Validity.Type)
	if in.NotBefore != nil {
		request.Asked += fmt.Sprintf(" from %d %s", in.NotBefore.Value, in.NotBefore.Type)
	}
	var issued ca.Issued
	if profile.Kind() == pki.KindRoot {
		issued, err = s.Engine.SelfSign(ctx, tenantOf(caller), a.ID, profile.Name(), request)
	} else {
		issued, err = s.Engine.Issue(ctx, tenantOf(caller), a.ID, profile.Name(), request)
	}
	if err != nil {
		return nil, err
	}
	return &issueOutput{ARN: certificateARN(a.ARN(), pki.SerialHex(issued.Certificate.SerialNumber))}, nil
}

// algorithmFor refuses a signature algorithm of another family than the authority's key.
func algorithmFor(a *imprint.CertificateAuthority, name string) (x509.SignatureAlgorithm, error) {
	if strings.HasSuffix(name, "RSA") != strings.HasPrefix(a.KeyAlgorithm, "RSA") {
		return 0, refuse("InvalidArgsException", "The certificate authority's key is "+a.KeyAlgorithm+", which can't sign by "+name+".")
	}
	algorithm, _ := ca.AlgorithmOf(name)
	return algorithm, nil
}

// maxDays bounds what is added to a date; beyond it a certificate would end after 9999.
const maxDays = 3_000_000

// end gives when a certificate ends that is issued now.
func (v *validity) end(now time.Time) (time.Time, error) {
	n := int(min(v.Value, maxDays))
	var end time.Time
	switch v.Type {
	case "DAYS":
		end = now.AddDate(0, 0, n)
	case "MONTHS":
		end = now.AddDate(0, n, 0)
	case "YEARS":
		end = now.AddDate(min(n, 10_000), 0, 0)
	default:
		return v.absolute()
	}
	if end.Year() > 9999 {
		return end, refuse("InvalidArgsException", fmt.Sprintf("A validity of %d %s goes beyond the year 9999.", v.Value, v.Type))
	}
	return end, nil
}

// begin gives when a certificate begins; zero: the profile says. AWS wants a date there.
func (v *validity) begin() (time.Time, error) {
	if v == nil {
		return time.Time{}, nil
	}
	return v.absolute()
}

// absolute reads ABSOLUTE, seconds since 1970, and END_DATE, a UTCTime or GeneralizedTime as
// a number: YYMMDDhhmmss, of which the years from 50 on are of the last century, or
// YYYYMMDDhhmmss.
func (v *validity) absolute() (time.Time, error) {
	switch v.Type {
	case "ABSOLUTE":
		if v.Value <= 253402300799 {
			return time.Unix(v.Value, 0).UTC(), nil
		}
	case "END_DATE":
		digits := fmt.Sprintf("%012d", v.Value)
		if len(digits) == 12 {
			century := "20"
			if digits >= "5" {
				century = "19"
			}
			digits = century + digits
		}
		at, err := time.Parse("20060102150405", digits)
		if err == nil {
			return at, nil
		}
	}
	return time.Time{}, refuse("InvalidArgsException", fmt.Sprintf("The validity %d of the type %s isn't a date: seconds since 1970 with ABSOLUTE, YYMMDDhhmmss or YYYYMMDDhhmmss with END_DATE.", v.Value, v.Type))
}

func certificateARN(authority, serial string) string { return authority + "/certificate/" + serial }

var certificatePattern = regexp.MustCompile(`^(.*)/certificate/([0-9a-fA-F]{1,40})$`)

func (s *Service) get(ctx context.Context, caller awsapi.Caller, in *getInput) (*certificateOutput, error) {
	id, err := authorityID(caller, in.ARN)
	if err != nil {
		return nil, err
	}
	parts := certificatePattern.FindStringSubmatch(in.Certificate)
	if parts == nil || parts[1] != in.ARN {
		return nil, refuse("InvalidArnException", "The ARN "+imprint.Excerpt(in.Certificate)+" isn't that of a certificate of "+in.ARN+".")
	}
	a, err := s.Engine.Authority(ctx, tenantOf(caller), id)
	if err != nil {
		return nil, err
	}
	if a.Status == imprint.AuthorityDeleted {
		return nil, refuse("InvalidStateException", "The certificate authority "+a.ARN()+" is deleted.")
	}
	found, chain, err := s.Engine.Certificate(ctx, tenantOf(caller), id, parts[2])
	if err != nil {
		return nil, err
	}
	return &certificateOutput{Certificate: trimmed(pki.EncodeCertificatePEM(found.Certificate)), Chain: trimmed(chain)}, nil
}

// trimmed leaves the last line feed out, as AWS does.
func trimmed(pem string) string { return strings.TrimSuffix(pem, "\n") }

func (s *Service) revoke(ctx context.Context, caller awsapi.Caller, in *revokeInput) (*nothing, error) {
	a, err := s.authority(ctx, caller, in.ARN)
	if err != nil {
		return nil, err
	}
	if a.Status == imprint.AuthorityDeleted || a.Certificate == "" {
		return nil, refuse("InvalidStateException", "The certificate authority "+a.ARN()+" is "+string(a.Status)+".")
	}
	tenant := tenantOf(caller)
	before, _, err := s.Engine.Certificate(ctx, tenant, a.ID, in.Serial)
	switch {
	case err != nil:
		return nil, err
	case before.CertificateID == a.CertificateID && a.Type == imprint.AuthorityRoot:
		return nil, refuse("InvalidRequestException", "A root's own certificate can't be revoked: nobody would ask for it. Take it out of what trusts it, and disable the authority.")
	case !before.RevokedAt.IsZero():
		return nil, refuse("RequestAlreadyProcessedException", "The certificate was revoked at "+before.RevokedAt.UTC().Format(time.RFC3339)+".")
	}
	_, err = s.Engine.Revoke(ctx, tenant, a.ID, in.Serial, imprint.RevocationReason(in.Reason))
	return nil, err
}
